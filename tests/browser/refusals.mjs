// What goes wrong, in words, and what is left when it does.

import assert from "node:assert/strict";
import { test } from "node:test";
import { CREATES_PER_MINUTE, PATIENCE, browser, draw, open, server, set, status } from "./support.mjs";

test("what is wrong with an input is said at its field", async () => {
  const { page, close } = await open(browser, server, { expected: ["422"] });
  await page.getByRole("button", { name: "Run", exact: true }).click();
  await page.getByText("Say what to draw.").waitFor();
  await draw(page, "a bad size", { width: 300 });
  await page.getByRole("alert").getByText("width").first().waitFor();
  const width = page.locator("#field-width");
  assert.equal(await width.getAttribute("aria-invalid"), "true");
  // By hand, letter by letter: what is being put right stays in sight.
  await width.press("Control+a");
  await width.pressSequentially("256");
  assert.ok(await page.locator("details.advanced").evaluate((details) => details.open));
  assert.equal(await width.inputValue(), "256");
  await page.getByRole("button", { name: "Run", exact: true }).click();
  await page.locator(".picture.loaded").waitFor();
  await close();
});

test("a refused input is put right and tried again as it is now", async () => {
  const { page, close } = await open(browser, server, { expected: ["422"] });
  await draw(page, "a bad size", { width: 300 });
  await page.getByRole("alert").getByText("width").first().waitFor();
  const width = page.locator("#field-width");
  await width.press("Control+a");
  await width.pressSequentially("512");
  await page.getByRole("button", { name: "Try again" }).click();
  await status(page, "Done");
  assert.equal((await server.latest()).input.width, 512);
  await close();
});

test("what is wrong with an advanced field opens the advanced controls", async () => {
  const { page, close } = await open(browser, server, { expected: ["422"] });
  await draw(page, "a bad size", { width: 300 });
  await page.locator("details.advanced > summary").click();
  await page.getByRole("button", { name: "Run", exact: true }).click();
  await page.locator("#field-width[aria-invalid=true]").waitFor();
  await close();
});

test("a key that may not read is told so, and can be changed for another", async () => {
  const key = await server.newKey("--scopes", "predictions:write");
  const { page, close, watched } = await open(browser, server, { key, expected: ["403"] });
  await page.getByRole("status").getByText("This key may not do that: this API key does not have the scope predictions:read.", { exact: true }).waitFor();
  page.once("dialog", (dialog) => dialog.accept());
  await page.getByRole("button", { name: "Change key" }).click();
  await page.getByLabel("API key").fill(server.key);
  await page.getByRole("button", { name: "Continue" }).click();
  await page.getByLabel("Prompt", { exact: true }).waitFor();
  assert.equal(watched.urls.filter((url) => url.endsWith("/models")).length, 2, "asked once with each");
  await close();
});

test("an answer that is lost costs nothing: trying again finds what was made", async () => {
  const { page, close } = await open(browser, server, { expected: ["ERR_"] });
  // The request arrives, its answer does not.
  await page.route("**/predictions", async (route) => {
    await route.fetch();
    await route.abort();
  }, { times: 1 });
  await draw(page, "only once");
  await page.getByRole("alert").getByText("The server does not answer.").waitFor();
  await page.getByRole("button", { name: "Try again" }).click();
  await page.locator(".picture.loaded").waitFor();
  // The same again is another.
  await page.getByRole("button", { name: "Run", exact: true }).click();
  await page.locator(".picture.loaded").waitFor({ state: "detached" });
  await page.locator(".picture.loaded").waitFor();
  const { results } = await (await server.fetch("predictions?limit=10")).json();
  assert.equal(results.filter(({ input }) => input.prompt === "only once").length, 2);
  await close();
});

test("a picture that does not come is said not to, and is not taken for one", async () => {
  const { page, close } = await open(browser, server, { expected: ["404", "503", "ERR_"] });
  const files = "**/files/**";
  await page.route(files, (route) => route.fulfill({ status: 503 }), { times: 1 });
  await draw(page, "on its way");
  await page.getByRole("alert").getByText("did not arrive").waitFor();
  await page.getByRole("button", { name: "Try again" }).click();
  await page.locator(".picture.loaded").waitFor();

  const saved = [];
  page.on("download", (download) => saved.push(download));
  const [download, use] = ["Download", "Use as input"].map((name) => page.getByRole("button", { name }));
  const alerts = page.locator("figcaption").getByRole("alert");
  await page.route(files, (route) => route.continue({ url: route.request().url().replace("/files/", "/files/gone-") }));
  for (const button of [download, use]) {
    await button.click();
    await button.locator("xpath=following-sibling::*[1]").getByText("This picture is not kept any more.").waitFor();
  }
  assert.equal(await page.getByAltText("The image to start from").count(), 0);
  await page.unroute(files);
  await page.route(files, (route) => route.abort());
  await download.click();
  await alerts.getByText("The server does not answer.").waitFor();
  assert.equal(saved.length, 0);
  await page.unroute(files);
  await Promise.all([page.waitForEvent("download"), download.click()]);
  await use.click();
  await page.getByAltText("The image to start from").waitFor();
  assert.equal(await alerts.count(), 0);
  await close();
});

test("what stands before the server is told from it", async () => {
  const { page, close } = await open(browser, server, { expected: ["502", "504", "413", "418"] });
  const said = { 502: "The server could not be reached (502).", 504: "The server could not be reached (504).",
    413: "This is larger than may be sent.", 418: "The answer was 418." };
  const before = await server.latest();
  for (const [code, text] of Object.entries(said)) {
    const answer = { status: Number(code), contentType: "text/html", body: "<h1>nginx</h1>" };
    await page.route("**/predictions", (route) => route.fulfill(answer), { times: 1 });
    await draw(page, "behind a proxy");
    await page.getByRole("alert").getByText(text, { exact: true }).waitFor();
    assert.equal(await page.getByText("Nothing was lost").count(), code > 500 ? 1 : 0);
  }
  assert.equal((await server.latest()).id, before.id);
  await close();
});

test("what is no answer of ours leaves nobody waiting", async () => {
  const { page, close } = await open(browser, server);
  const alert = page.getByRole("alert").getByText("What answers there is not this server.", { exact: true });
  for (const answer of [{ contentType: "text/html", body: "<h1>Sign in to the network</h1>" }, { json: {} }, { json: null }]) {
    await page.route("**/predictions", (route) => route.fulfill(answer), { times: 1 });
    await page.reload();
    await draw(page, "in a hotel");
    await alert.waitFor();
  }
  // A stream that is none is asked for until it is one.
  await page.route("**/events", (route) => route.fulfill({ contentType: "text/html", body: "<h1>Sign in</h1>" }), { times: 1 });
  await page.getByRole("button", { name: "Try again" }).click();
  await status(page, "Reconnecting");
  await page.locator(".picture.loaded").waitFor();
  await close();
});

test("a spent budget is said in words, with what is left of it", async () => {
  const key = await server.newKey("--budget", "0.000001");
  const { page, close } = await open(browser, server, { key, expected: ["402"] });
  await draw(page, "beyond my means");
  await page.getByRole("alert").getByText("There is not enough money: the budget of this API key is used up").waitFor();
  await page.getByRole("button", { name: "Try again" }).waitFor();
  await close();
});

test("too many requests are said in words, with when to come back", async () => {
  const key = await server.newKey();
  const { page, close } = await open(browser, server, { key, expected: ["429"] });
  for (let create = 0; create < CREATES_PER_MINUTE; create++) {
    assert.equal((await server.create({ prompt: "hasty", width: 256, height: 256, num_inference_steps: 1 }, key)).error, null);
  }
  await draw(page, "one too many");
  await page.getByRole("alert").getByText(/^Too many requests: .* Try again in \d+ s\.$/).waitFor();
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
  page.once("dialog", (dialog) => dialog.accept());
  await page.getByRole("button", { name: "Change key" }).click();
  await page.getByLabel("API key").fill(server.key);
  await page.getByRole("button", { name: "Continue" }).click();
  await page.getByRole("status").getByText("Trying again").waitFor();
  await server.restart();
  await page.getByLabel("Prompt", { exact: true }).waitFor();
  await close();
});
