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

  // A click closes it that is meant for what is around it, not one into its own margin.
  const { x, y } = await detail.boundingBox();
  await page.mouse.click(x + 5, y + 5);
  await detail.getByText("Drawn by").waitFor();
  await detail.getByText("Drawn by").hover();
  await page.mouse.down();
  await page.mouse.move(5, 5);
  await page.mouse.up();
  await detail.getByText("Drawn by").waitFor();
  await page.mouse.click(5, 5);
  await page.locator("dialog").waitFor({ state: "detached" });
  await page.locator(".entry", { hasText: "for the record" }).first().click();
  await detail.getByText("Drawn by").waitFor();

  // Closed by the keyboard, it gives the focus back to where it was.
  await page.keyboard.press("Escape");
  await page.locator("dialog").waitFor({ state: "detached" });
  assert.match(await page.evaluate(() => document.activeElement?.className), /entry/);
  await page.keyboard.press("Enter");
  await detail.getByRole("button", { name: "Open in the playground" }).click();
  await page.locator(".picture.loaded").waitFor();
  assert.equal(await page.getByLabel("Prompt", { exact: true }).inputValue(), "for the record");
  assert.equal(await page.locator("#field-seed").inputValue(), "11");
  await close();
});

test("without TLS things are copied as well, in a dialog too", async () => {
  const { page, close } = await open(browser, server);
  // What a browser offers where the address has neither TLS nor is the machine itself.
  await page.evaluate(() => Object.defineProperty(navigator, "clipboard", { value: undefined }));
  await page.getByRole("link", { name: "History" }).click();
  await page.locator(".entry", { hasText: "for the record" }).first().click();
  const button = page.getByRole("dialog").getByRole("button", { name: "Copy parameters" });
  await button.click();
  await page.getByRole("dialog").getByText("Copied").waitFor();
  assert.equal(await page.evaluate(() => document.activeElement?.textContent), "Copied");
  await page.keyboard.press("Escape");
  await page.getByRole("link", { name: "Playground", exact: true }).click();
  const prompt = page.getByLabel("Prompt", { exact: true });
  await prompt.press("Control+v");
  assert.equal(JSON.parse((await prompt.inputValue()) || "null")?.prompt, "for the record");
  await page.evaluate(() => (document.execCommand = () => false));
  await page.getByRole("link", { name: "API", exact: true }).click();
  await page.getByRole("button", { name: "Copy", exact: true }).click();
  await page.getByRole("button", { name: "Could not copy" }).waitFor();
  await close();
});

test("an answer that comes late changes nothing that was asked since", async () => {
  const { page, close } = await open(browser, server);
  let letGo;
  const held = new Promise((go) => (letGo = go));
  await page.route(/predictions\?limit=24$/, async (route) => {
    const response = await route.fetch();
    await held;
    await route.fulfill({ response });
  });
  await page.getByRole("link", { name: "History" }).click();
  await page.getByLabel("Show").selectOption("canceled");
  await page.locator(".entry", { hasText: "too long" }).waitFor();
  const late = page.waitForResponse(/predictions\?limit=24$/);
  letGo();
  await (await late).finished();
  // It has been read, and shown if it would be, when what is asked after it has been.
  await page.evaluate(() => fetch("livez").then(() => new Promise((shown) => requestAnimationFrame(() => setTimeout(shown)))));
  assert.equal(await page.locator(".entry", { hasText: "for the record" }).count(), 0);
  await close();
});

test("what could not be fetched is asked for again", async () => {
  const { page, close } = await open(browser, server, { expected: ["ERR_"] });
  await page.route(/predictions\?limit=24$/, (route) => route.continue({ url: route.request().url().replace("24", "1") }));
  await page.route(/predictions\?.*limit=1&|predictions\?.*cursor/, (route) => route.abort(), { times: 1 });
  await page.getByRole("link", { name: "History" }).click();
  await page.getByRole("button", { name: "More" }).click();
  await page.getByRole("alert").getByText("The server does not answer.").waitFor();
  assert.equal(await page.locator(".entry").count(), 1);
  await page.getByRole("button", { name: "Try again" }).click();
  await page.locator(".entry").nth(1).waitFor();
  await page.getByRole("button", { name: "More" }).waitFor();
  await close();
});

test("the costs of a day are the sum of what was charged", async () => {
  const { page, close } = await open(browser, server);
  await page.goto(`${server.url}/#history`);
  const days = page.locator("[data-day-cost]");
  await days.first().waitFor();
  await page.getByText("this month, in UTC").waitFor();
  // Whatever day it has become since the first of them was drawn.
  const shown = (await days.allInnerTexts()).reduce((sum, cost) => sum + Math.round(Number(cost.slice(1)) * 1e9), 0);
  const { results } = await (await server.fetch("predictions?limit=100")).json();
  assert.ok(results.length > 10);
  assert.equal(shown, results.reduce((sum, { metrics }) => sum + Math.round((metrics?.cost ?? 0) * 1e9), 0));
  await close();
});

test("a key that may not read what was spent sees the sum of what it lists", async () => {
  const key = await server.newKey("--scopes", "predictions:write,predictions:read");
  const { page, close } = await open(browser, server, { key, expected: ["403"] });
  await page.goto(`${server.url}/#history`);
  await page.getByText("of what is listed below").waitFor();
  await close();
});

test("the readme is the model's card, with prices from what runs took here", async () => {
  const { page, close } = await open(browser, server);
  await page.goto(`${server.url}/#readme`);
  const { results } = await (await server.fetch("models")).json();
  const [model] = results;
  await page.getByRole("heading", { name: "What it can't do" }).waitFor();
  const price = await page.locator("[data-price]").innerText();
  const runs = Math.floor(1 / (model.price_per_second * model.typical_run_seconds));
  assert.ok(price.startsWith("Costs $0.001540 per second, about ") && price.includes(`$1 buys about ${runs.toLocaleString("en")} runs`), price);
  const links = await page.locator(".card-text a").evaluateAll((links) => links.map(({ href, rel }) => [new URL(href).protocol, rel]));
  assert.ok(links.length > 0 && links.every(([protocol, rel]) => protocol === "https:" && rel === "noreferrer"), `${links}`);
  await close();
});
