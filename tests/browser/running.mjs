// A run from the first visit to the file on disk, and what may come in between.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { browser, draw, open, server, set, status } from "./support.mjs";

test("a first visit: key, prompt, previews, picture, download", async () => {
  const { page, close } = await open(browser, server, { withKey: false, expected: ["401"] });
  await page.getByLabel("API key").fill("fs_00000000_00000000000000000000000000000000");
  await page.keyboard.press("Enter");
  await page.getByRole("alert").getByText("not known here").waitFor();
  await page.getByLabel("API key").fill(server.key);
  await page.getByRole("button", { name: "Continue" }).click();

  await draw(page, "a red circle on a blue background", { num_inference_steps: 8 });
  await status(page, "Drawing");
  const steps = new Set();
  const previews = new Set();
  while (!(await page.locator(".picture.loaded").count())) {
    steps.add(await page.getByRole("progressbar").getAttribute("aria-valuenow", { timeout: 100 }).catch(() => null));
    previews.add(await page.locator("[data-preview]").getAttribute("src", { timeout: 100 }).catch(() => null));
  }
  assert.ok(steps.size >= 3, `${[...steps]}`);
  const seen = [...previews].filter(Boolean);
  assert.ok(seen.length >= 2 && seen.every((preview) => preview.startsWith("data:image/jpeg;base64,")));
  await status(page, "Done");

  const prediction = await server.latest();
  assert.equal(prediction.status, "succeeded");
  const size = await page.locator(".picture").evaluate((picture) => [picture.naturalWidth, picture.naturalHeight]);
  assert.deepEqual(size, [256, 256]);
  const [download] = await Promise.all([page.waitForEvent("download"), page.getByRole("button", { name: "Download" }).click()]);
  assert.equal(download.suggestedFilename(), `a-red-circle-on-a-blue-background-${prediction.seeds[0]}.png`);
  const bytes = Buffer.from(await (await fetch(prediction.output[0])).arrayBuffer());
  assert.ok(bytes.equals(readFileSync(await download.path())));
  // What is shown is what was charged, to the last digit.
  assert.equal(Number((await page.locator("[data-cost]").textContent()).slice(1)), prediction.metrics.cost);
  await close();
});

test("the printed link brings the key, and the key leaves the address at once", async () => {
  const { page, watched, close } = await open(browser, server, { withKey: false, path: `#key=${server.key}` });
  await page.getByLabel("Prompt", { exact: true }).waitFor();
  assert.ok(!page.url().includes(server.key));
  assert.ok(watched.urls.every((url) => !url.split("#")[0].includes(server.key)));
  assert.equal(await page.evaluate(() => history.length), 2, "only the blank page and this one");
  await page.reload();
  await page.getByLabel("Prompt", { exact: true }).waitFor();
  await close();
  assert.ok(!server.log.includes(server.key));
});

test("the printed link brings the key to a page that is open already", async () => {
  const { page, watched, close } = await open(browser, server, { withKey: false });
  await page.getByLabel("API key").waitFor();
  await page.goto(`${server.url}/#key=${server.key}`);
  await page.getByLabel("Prompt", { exact: true }).waitFor();
  assert.equal(page.url(), `${server.url}/`);
  // In the place of another, too, but not unasked.
  const other = await server.newKey();
  const stored = () => page.evaluate(() => localStorage.getItem("fourstep-key"));
  const refused = page.waitForEvent("dialog").then((dialog) => dialog.dismiss());
  await page.goto(`${server.url}/#key=${other}`);
  await refused;
  await page.getByLabel("Prompt", { exact: true }).waitFor();
  assert.deepEqual([page.url(), await stored()], [`${server.url}/`, server.key]);
  page.once("dialog", (dialog) => dialog.accept());
  await page.goto(`${server.url}/#key=${other}`);
  await page.waitForFunction((other) => localStorage.getItem("fourstep-key") === other, other);
  await page.getByLabel("Prompt", { exact: true }).waitFor();
  assert.equal(page.url(), `${server.url}/`);
  const asked = page.waitForRequest((request) => request.url().endsWith("/predictions"));
  await draw(page, "with the other key");
  assert.equal((await asked).headers().authorization, `Bearer ${other}`);
  await page.locator(".picture.loaded").waitFor();
  assert.ok(watched.urls.every((url) => !url.split("#")[0].includes(other)));
  await close();
});

test("a key that is stored in one tab is the key of the others, and none of them takes it away", async () => {
  const { page, context, close } = await open(browser, server, { withKey: false, expected: ["401"] });
  await page.getByLabel("API key").fill(server.key);
  await page.keyboard.press("Enter");
  await page.getByLabel("Prompt", { exact: true }).waitFor();
  const beside = await context.newPage();
  await beside.goto(server.url);
  await beside.getByLabel("Prompt", { exact: true }).waitFor();
  // The answer to a key that is not known any more comes after another has been stored.
  const other = await server.newKey();
  await page.route("**/predictions", async (route) => {
    await beside.evaluate((other) => localStorage.setItem("fourstep-key", other), other);
    await route.fulfill({ status: 401, json: {} });
  }, { times: 1 });
  const models = page.waitForRequest((request) => request.url().endsWith("/models"));
  await draw(page, "too late");
  assert.equal((await models).headers().authorization, `Bearer ${other}`);
  await page.getByLabel("Prompt", { exact: true }).waitFor();
  assert.equal(await page.evaluate(() => localStorage.getItem("fourstep-key")), other);
  await beside.evaluate(() => localStorage.removeItem("fourstep-key"));
  await page.getByLabel("API key").waitFor();
  await close();
});

test("a run is canceled in its middle", async () => {
  const { page, close } = await open(browser, server);
  await draw(page, "too long", { num_inference_steps: 10, num_outputs: 4 });
  await page.locator("[data-preview]").first().waitFor();
  await page.getByRole("button", { name: "Cancel" }).click();
  await status(page, "Canceled");
  assert.equal((await server.latest()).status, "canceled");
  await page.getByRole("button", { name: "Run again" }).waitFor();
  await close();
});

test("the tab's title says what is shown, and to who is elsewhere that a picture is done", async () => {
  const { page, close } = await open(browser, server);
  const titled = (title) => page.waitForFunction((title) => document.title === title, title);
  // As another tab in front of this one does.
  const turn = (hidden) => page.evaluate((hidden) => {
    Object.defineProperty(document, "hidden", { value: hidden, configurable: true });
    document.dispatchEvent(new Event("visibilitychange"));
  }, hidden);
  await titled("Playground – fourstep");
  for (const view of ["API", "History", "Readme", "Playground"]) {
    await page.getByRole("link", { name: view, exact: true }).click();
    await titled(`${view} – fourstep`);
  }
  await draw(page, "meanwhile");
  await turn(true);
  await titled("Done – Playground – fourstep");
  await turn(false);
  await titled("Playground – fourstep");
  await draw(page, "looked at");
  await page.locator(".picture.loaded").waitFor({ state: "detached" });
  await status(page, "Done");
  await turn(true);
  assert.equal(await page.title(), "Playground – fourstep");
  await close();
});

test("several pictures appear in their places", async () => {
  const { page, close } = await open(browser, server);
  await draw(page, "three", { num_outputs: 3, seed: 7 });
  // A finished one is there, larger than a preview, while the others are still being drawn.
  await page.waitForFunction(() => /** @type {HTMLImageElement} */ (document.querySelector(".tile [data-preview]"))?.naturalWidth === 256);
  assert.equal(await page.locator(".picture").count(), 0);
  await page.locator(".picture.loaded").nth(2).waitFor();
  assert.deepEqual(await page.locator(".tile figcaption > button").allTextContents(), ["Seed 7", "Seed 8", "Seed 9"]);
  // And the next seeds after them.
  await page.getByRole("button", { name: "Vary" }).click();
  await page.getByRole("button", { name: "Seed 10", exact: true }).waitFor();
  await close();
});

test("a reload in the middle of a run loses nothing", async () => {
  const { page, close } = await open(browser, server);
  await draw(page, "patience", { num_inference_steps: 10, num_outputs: 2 });
  await page.locator("[data-preview]").first().waitFor();
  await page.reload();
  await page.locator(".picture.loaded").nth(1).waitFor();
  assert.equal(await page.getByLabel("Prompt", { exact: true }).inputValue(), "patience");
  await close();
});

test("a page that is opened leaves alone what others draw, and what is typed into it", async () => {
  const { id } = await server.create({ prompt: "of a program", width: 256, height: 256, num_inference_steps: 10, num_outputs: 2 });
  const { page, watched, close } = await open(browser, server, { path: "#history" });
  await page.locator(".entry", { hasText: "of a program" }).waitFor();
  await page.waitForLoadState("networkidle");
  assert.equal(new URL(page.url()).hash, "#history");
  await page.getByRole("link", { name: "Playground", exact: true }).click();
  assert.equal(await page.getByLabel("Prompt", { exact: true }).inputValue(), "");
  await page.getByText("Yours appears here").waitFor();
  // Nor does one of its own that it finds again take the place of another that was begun meanwhile, or of what is in the form.
  await page.evaluate((id) => sessionStorage.setItem("fourstep-draws", id), id);
  let letGo;
  const held = new Promise((go) => (letGo = go));
  await page.route(`**/predictions/${id}`, async (route) => {
    await held;
    await route.continue();
  });
  const asked = page.waitForRequest(`**/predictions/${id}`);
  await page.reload();
  await draw(page, "mine");
  await asked;
  const late = page.waitForResponse(`**/predictions/${id}`);
  letGo();
  await (await late).finished();
  await status(page, "Done");
  assert.equal(await page.locator(".picture").getAttribute("alt"), "mine");
  assert.equal(await page.getByLabel("Prompt", { exact: true }).inputValue(), "mine");
  assert.ok(!watched.urls.some((url) => url.endsWith(`/predictions/${id}/events`)));
  await close();
});

test("one that waits says its place in the queue and when it should be done", async () => {
  const { page, close } = await open(browser, server);
  const ahead = [1, 2].map(() => server.create({ prompt: "ahead", width: 256, height: 256, num_inference_steps: 10, num_outputs: 2 }));
  await Promise.all(ahead);
  // Long enough to be seen drawing by a driver that looks twice a second.
  await draw(page, "behind", { num_inference_steps: 10 });
  await page.getByText(/^Position \d+ in the queue, about [\d.]+ (s|min)$/).waitFor();
  await status(page, "Drawing");
  await status(page, "Done");
  await close();
});

test("what it will take is said before, as the server guesses it", async () => {
  const { page, close } = await open(browser, server);
  const said = async (input) => {
    const body = JSON.stringify({ input });
    const answer = await server.fetch("estimate", { method: "POST", headers: { "Content-Type": "application/json" }, body });
    const { predict_time, cost } = await answer.json();
    assert.ok(predict_time > 0 && cost > 0);
    await page.waitForFunction(({ predict_time, cost }) => {
      const [, time, dollars] = /^About ([\d.]+) s · \$([\d.]+)/.exec(document.querySelector("[data-estimate]")?.innerText ?? "") ?? [];
      return Math.abs(time - predict_time) <= 0.05 * predict_time + 0.005 && Math.abs(dollars - cost) <= 0.05 * cost;
    }, { predict_time, cost });
  };
  await said({});
  await set(page, { width: 512, height: 512, num_inference_steps: 9 });
  await said({ width: 512, height: 512, num_inference_steps: 9 });
  await set(page, { width: 513 });
  await page.waitForFunction(() => document.querySelector("[data-estimate]")?.innerText === "");
  await close();
});

test("time and cost tick while it draws", async () => {
  const { page, close } = await open(browser, server);
  await draw(page, "tick", { num_inference_steps: 10 });
  const meter = page.locator("[data-meter]");
  const first = await meter.innerText();
  assert.match(first, /^\d+\.\d s · \$0\.\d+$/);
  await page.waitForFunction((first) => ![null, first].includes(document.querySelector("[data-meter]")?.textContent ?? null), first);
  await status(page, "Done");
  await close();
});

test("again, varied, as input: each is one click from a picture", async () => {
  const { page, context, close } = await open(browser, server);
  await context.grantPermissions(["clipboard-read", "clipboard-write"]);
  await draw(page, "once more", { seed: 41 });
  await page.locator(".picture.loaded").waitFor();
  await page.getByRole("button", { name: "Copy link" }).click();
  const picture = await page.evaluate(() => navigator.clipboard.readText());
  assert.equal((await fetch(picture)).headers.get("content-type"), "image/png");
  await page.getByRole("button", { name: "Copy parameters" }).click();
  const copied = JSON.parse(await page.evaluate(() => navigator.clipboard.readText()));
  assert.deepEqual(copied, { prompt: "once more", width: 256, height: 256, seed: 41 });

  const { id } = await server.latest();
  await page.getByRole("button", { name: "Run again" }).click();
  await page.locator(".picture.loaded").waitFor();
  const again = await server.latest();
  assert.ok(again.id !== id && again.seeds[0] === 41);
  await page.getByRole("button", { name: "Vary" }).click();
  await page.getByRole("button", { name: "Seed 42", exact: true }).waitFor();
  await page.locator(".picture.loaded").waitFor();
  assert.deepEqual((await server.latest()).input, { ...copied, seed: 42 });
  assert.equal(await page.locator("#field-seed").inputValue(), "42");

  await page.getByRole("button", { name: "Use as input" }).click();
  await page.getByAltText("The image to start from").waitFor();
  await page.getByRole("button", { name: "Run", exact: true }).click();
  await page.getByLabel("Before and after").waitFor();
  assert.match((await server.latest()).input.image, /^data:image\/png;base64,/);
  await close();
});

test("what was typed since stays, whatever is drawn again", async () => {
  const { page, close } = await open(browser, server);
  await draw(page, "the first idea", { seed: 20 });
  await status(page, "Done");
  const prompt = page.getByLabel("Prompt", { exact: true });
  await prompt.press("Control+a");
  await prompt.pressSequentially("a better idea");
  for (const [name, seed] of [["Run again", 20], ["Vary", 21]]) {
    const sent = page.waitForRequest((request) => request.method() === "POST" && request.url().endsWith("/predictions"));
    await page.getByRole("button", { name }).click();
    assert.deepEqual((await sent).postDataJSON().input, { prompt: "the first idea", width: 256, height: 256, seed });
    await page.getByRole("button", { name: `Seed ${seed}`, exact: true }).waitFor();
    assert.equal(await prompt.inputValue(), "a better idea");
    assert.equal(await page.locator("#field-seed").inputValue(), "20");
  }
  await close();
});

test("the dice roll a seed, and the lock keeps the one that was drawn", async () => {
  const { page, close } = await open(browser, server);
  await draw(page, "chance");
  await status(page, "Done");
  const [seed] = (await server.latest()).seeds;
  const [field, lock] = [page.locator("#field-seed"), page.getByRole("button", { name: "Lock the seed" })];
  assert.equal(await lock.getAttribute("aria-pressed"), "false");
  await lock.click();
  assert.equal(await field.inputValue(), String(seed));
  await lock.click();
  assert.equal(await field.inputValue(), "");
  // Kept or not, that is seen where the pictures are and where they are asked for.
  const [picture, chip] = [page.getByRole("button", { name: `Seed ${seed}`, exact: true }), page.getByRole("button", { name: `Seed ${seed}: unlock it` })];
  await page.locator("details.advanced > summary").click();
  for (const unlock of [chip, picture]) {
    assert.equal(await picture.getAttribute("aria-pressed"), "false");
    await picture.click();
    assert.equal(await picture.getAttribute("aria-pressed"), "true");
    await chip.waitFor();
    await unlock.click();
    await chip.waitFor({ state: "detached" });
    assert.equal(await field.inputValue(), "");
  }
  await page.locator("details.advanced > summary").click();
  const rolls = new Set();
  for (let roll = 0; roll < 4; roll++) {
    await page.getByRole("button", { name: "Roll the dice" }).click();
    rolls.add(await field.inputValue());
  }
  assert.ok(rolls.size > 1 && !rolls.has(""));
  assert.equal(await lock.getAttribute("aria-pressed"), "true");
  await close();
});
