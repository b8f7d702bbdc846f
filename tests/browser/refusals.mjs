// What goes wrong, in words, and what is left when it does.

import assert from "node:assert/strict";
import { test } from "node:test";
import { PATIENCE, browser, draw, open, server, set, status } from "./support.mjs";

test("what is wrong with an input is said at its field", async () => {
  const { page, close } = await open(browser, server, { expected: ["422"] });
  await page.getByRole("button", { name: "Run", exact: true }).click();
  await page.getByText("Say what to draw.").waitFor();
  await draw(page, "a bad size", { width: 300 });
  await page.getByRole("alert").getByText("width").first().waitFor();
  assert.equal(await page.locator("#field-width").getAttribute("aria-invalid"), "true");
  await set(page, { width: 256 });
  await page.getByRole("button", { name: "Run", exact: true }).click();
  await page.locator(".picture.loaded").waitFor();
  await close();
});

test("a spent budget and too many requests are said in words", async () => {
  const { page, close } = await open(browser, server, { expected: ["402", "429"] });
  const answers = [[402, "the budget of $5.00 is used up", "The budget is spent"], [429, "slow down", "Try again in 7 s"]];
  for (const [code, detail, words] of answers) {
    await page.route("**/predictions", (route) => route.fulfill({
      status: code, headers: { "Retry-After": "7" }, contentType: "application/problem+json", body: JSON.stringify({ status: code, detail }) }));
    await draw(page, "not now");
    await page.getByRole("alert").getByText(words).waitFor();
    await page.unroute("**/predictions");
  }
  await page.getByRole("button", { name: "Try again" }).click();
  await page.locator(".picture.loaded").waitFor();
  await close();
});

test("a server that goes and comes back finishes what it had begun, on the same page", async () => {
  const { page, close } = await open(browser, server, { expected: ["ERR_", "503", "Failed to load"] });
  await draw(page, "still here", { num_inference_steps: 10, num_outputs: 2 });
  await page.locator("[data-preview]").first().waitFor();
  await server.kill();
  await status(page, "Reconnecting");
  await server.restart();
  await page.locator(".picture.loaded").nth(1).waitFor({ timeout: 3 * PATIENCE });
  assert.equal((await server.latest()).status, "succeeded");
  await close();
});

test("a page that is opened while the server is away waits for it", async () => {
  const { page, close } = await open(browser, server, { expected: ["ERR_", "Failed to load"] });
  await page.getByLabel("Prompt", { exact: true }).waitFor();
  await server.kill();
  await page.getByRole("button", { name: "Change key" }).click();
  await page.getByLabel("API key").fill(server.key);
  await page.getByRole("button", { name: "Continue" }).click();
  await page.getByRole("status").getByText("Trying again").waitFor();
  await server.restart();
  await page.getByLabel("Prompt", { exact: true }).waitFor();
  await close();
});
