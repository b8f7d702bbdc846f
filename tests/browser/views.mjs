// How every view looks, and that it can be used by hand and by ear. The screenshots are kept, to be looked at.

import assert from "node:assert/strict";
import { mkdirSync, readFileSync } from "node:fs";
import { test } from "node:test";
import { browser, draw, open, server, set, status } from "./support.mjs";

test("a keyboard is enough", async () => {
  const { page, close } = await open(browser, server, { withKey: false });
  const focused = () => page.evaluate(() => document.activeElement?.id || document.activeElement?.textContent?.trim());
  const tabTo = async (wanted) => {
    for (let presses = 0; presses < 40; presses++) {
      if ((await focused()) === wanted) return;
      await page.keyboard.press("Tab");
    }
    assert.fail(`${wanted} is out of reach`);
  };
  await page.getByLabel("API key").waitFor();
  await tabTo("key");
  await page.keyboard.type(server.key);
  await page.keyboard.press("Enter");
  await page.getByLabel("Prompt", { exact: true }).waitFor();
  await tabTo("field-prompt");
  await page.keyboard.type("by hand");
  await tabTo("Advanced controls");
  await page.keyboard.press("Enter");
  await tabTo("field-width");
  await page.keyboard.press("Control+a");
  await page.keyboard.type("256");
  await page.keyboard.press("Control+Enter");
  await status(page, "Done");
  await tabTo("Download");
  const [download] = await Promise.all([page.waitForEvent("download"), page.keyboard.press("Enter")]);
  assert.match(download.suggestedFilename(), /^by-hand-\d+\.png$/);
  await close();
});

test("what has the focus is never below the bar with Run", async () => {
  const { page, close } = await open(browser, server, { options: { viewport: { width: 1000, height: 500 } } });
  await page.getByText("Advanced controls").click();
  await page.getByLabel("Prompt", { exact: true }).focus();
  const covered = [];
  for (let presses = 0; presses < 60; presses++) {
    await page.keyboard.press("Tab");
    const [name, isCovered, isLast] = await page.evaluate(() => {
      const focused = document.activeElement;
      const bar = document.querySelector(".runbar");
      return [focused.id || focused.textContent, !bar.contains(focused) && document.querySelector(".input").contains(focused)
        && focused.getBoundingClientRect().bottom > bar.getBoundingClientRect().top, bar.contains(focused)];
    });
    if (isLast) break;
    if (isCovered) covered.push(name);
  }
  assert.deepEqual(covered, []);
  await close();
});

test("what is chosen is seen in forced colors", async () => {
  const { page, close } = await open(browser, server, { options: { forcedColors: "active" } });
  await page.getByText("Advanced controls").click();
  const looks = (locator) => locator.evaluate((element) => getComputedStyle(element).backgroundColor);
  const differ = async (chosen, other) => assert.notEqual(await looks(chosen), await looks(other));
  const [square, wide] = ["Square, 1:1", "Wide, 16:9"].map((name) => page.getByRole("button", { name, exact: true }));
  await differ(square, wide);
  await differ(page.getByRole("link", { name: "Playground", exact: true }), page.getByRole("link", { name: "History" }));
  const lock = page.getByRole("button", { name: "Lock the seed" });
  const unlocked = await looks(lock);
  await lock.click();
  assert.notEqual(await looks(lock), unlocked);
  await page.getByRole("link", { name: "API", exact: true }).click();
  await differ(page.getByRole("tab", { name: "curl" }), page.getByRole("tab", { name: "Rust" }));
  await close();
});

const SCHEMES = ["light", "dark"];
const WIDTHS = { small: [320, 640], phone: [390, 844], tablet: [820, 1180], desk: [1440, 900] };
const axe = readFileSync(new URL("node_modules/axe-core/axe.min.js", import.meta.url), "utf8");

for (const scheme of SCHEMES) {
  for (const [name, [width, height]] of Object.entries(WIDTHS)) {
    test(`every view fits, and axe finds nothing serious: ${scheme}, ${name}`, async () => {
      mkdirSync("screenshots", { recursive: true });
      const options = { viewport: { width, height }, colorScheme: scheme, hasTouch: width < 400, reducedMotion: "reduce" };
      const { page, close } = await open(browser, server, { options, withKey: false, expected: ["422"] });
      const look = async (view) => {
        await page.screenshot({ path: `screenshots/${scheme}-${name}-${view}.png` });
        const overflow = await page.evaluate(() => document.documentElement.scrollWidth - window.innerWidth);
        assert.ok(overflow <= 0, `${view} is ${overflow} pixels too wide`);
        const found = await page.evaluate(`${axe}; axe.run(document, { resultTypes: ["violations"] })`);
        const serious = found.violations.filter(({ impact }) => ["serious", "critical"].includes(impact));
        assert.deepEqual(serious.map(({ id, nodes }) => `${id}: ${nodes.map(({ html }) => html)}`), [], view);
        // A phone zooms into a field with smaller letters.
        const sizes = await page.locator("input, select, textarea").evaluateAll((fields) => fields.map((field) => parseFloat(getComputedStyle(field).fontSize)));
        if (options.hasTouch) assert.ok(sizes.every((size) => size >= 16), `${view}: ${sizes}`);
      };
      await page.getByLabel("API key").waitFor();
      await look("key");
      await page.getByLabel("API key").fill(server.key);
      await page.keyboard.press("Enter");
      await page.getByText("Yours appears here").waitFor();
      await look("empty");
      await draw(page, "a lighthouse at dusk", { num_inference_steps: 10 });
      await page.locator("[data-preview]").waitFor();
      await page.screenshot({ path: `screenshots/${scheme}-${name}-running.png` });
      await page.locator(".picture.loaded").waitFor();
      await look("picture");
      for (const [view, shown] of Object.entries({ api: "#snippet", history: ".entry", readme: "table" })) {
        await page.evaluate((view) => (location.hash = view), view);
        await page.locator(shown).first().waitFor();
        await look(view);
        if (view !== "history") continue;
        await page.locator(".entry", { hasText: "a lighthouse at dusk" }).first().click();
        await page.getByRole("dialog").waitFor();
        await look("detail");
        await page.keyboard.press("Escape");
      }
      await page.evaluate(() => (location.hash = "playground"));
      await page.getByRole("button", { name: "Use as input" }).click();
      await page.getByAltText("The image to start from").waitFor();
      await page.getByRole("button", { name: "Run", exact: true }).click();
      await page.getByLabel("Before and after").waitFor();
      await look("compared");
      await set(page, { width: 300 });
      await page.getByRole("button", { name: "Run", exact: true }).click();
      await page.getByRole("alert").waitFor();
      await look("refused");
      await close();
    });
  }
}
