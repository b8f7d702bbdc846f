// What was drawn before.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { browser, draw, open, server } from "./support.mjs";

test("the history lists, filters, and tells everything about one", async () => {
  const { page, close } = await open(browser, server);
  await draw(page, "for the record", { seed: 11 });
  await page.locator(".picture.loaded").waitFor();
  const prediction = await server.latest();
  await page.getByRole("link", { name: "History" }).click();
  await page.getByRole("heading", { name: "Today", exact: true }).waitFor();
  await page.getByLabel("Show").selectOption("canceled");
  await page.locator(".entry", { hasText: "for the record" }).first().waitFor({ state: "detached" });
  await page.locator(".entry", { hasText: "too long" }).waitFor();
  await page.getByLabel("Show").selectOption("");
  await page.locator(".entry", { hasText: "for the record" }).first().click();

  const detail = page.getByRole("dialog", { name: "for the record" });
  const fact = (name) => detail.locator("dl > div", { has: page.locator("dt", { hasText: name }) }).first().locator("dd").innerText();
  assert.equal(await fact("Status"), "Done");
  assert.equal(await fact("Id"), prediction.id);
  assert.equal(Number((await fact("Cost")).slice(1)), prediction.metrics.cost);
  assert.equal(await fact("width"), "256");
  const [download] = await Promise.all([page.waitForEvent("download"), detail.getByRole("button", { name: "Download" }).click()]);
  assert.equal(download.suggestedFilename(), "for-the-record-11.png");
  assert.ok(Buffer.from(await (await fetch(prediction.output[0])).arrayBuffer()).equals(readFileSync(await download.path())));

  // Closed by the keyboard, it gives the focus back to where it was.
  await page.keyboard.press("Escape");
  await detail.waitFor({ state: "detached" });
  assert.match(await page.evaluate(() => document.activeElement?.textContent ?? ""), /for the record/);
  await page.keyboard.press("Enter");
  await detail.getByRole("button", { name: "Open in the playground" }).click();
  await page.locator(".picture.loaded").waitFor();
  assert.equal(await page.getByLabel("Prompt", { exact: true }).inputValue(), "for the record");
  assert.equal(await page.locator("#field-seed").inputValue(), "11");
  await close();
});

test("the costs of a day are the sum of what was charged", async () => {
  const { page, close } = await open(browser, server);
  await page.goto(`${server.url}/#history`);
  await page.locator("[data-day-cost]").waitFor();
  while (await page.getByRole("button", { name: "More", exact: true }).count()) {
    const before = await page.locator(".entry").count();
    await page.getByRole("button", { name: "More", exact: true }).click();
    await page.locator(".entry").nth(before).waitFor();
  }
  const { results } = await (await server.fetch("predictions?limit=100")).json();
  const charged = results.reduce((sum, { metrics }) => sum + Math.round((metrics?.cost ?? 0) * 1e9), 0);
  assert.equal(Math.round(Number((await page.locator("[data-day-cost]").first().innerText()).slice(1)) * 1e9), charged);
  await close();
});
