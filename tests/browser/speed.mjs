// What a visit weighs and how quick it is, measured in the browser.

import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { test } from "node:test";
import { promisify } from "node:util";
import { browser, draw, open, server } from "./support.mjs";

const run = promisify(execFile);
/** What else a machine does can only make it slower, so the best of some visits is the page's own. */
const VISITS = 5;

test("it is light and quick, and does not move while a picture comes", async () => {
  const { page, close } = await open(browser, server);
  await page.waitForLoadState("networkidle");
  const client = await page.context().newCDPSession(page);
  let bytes = 0;
  await client.send("Network.enable");
  await client.send("Network.setCacheDisabled", { cacheDisabled: true });
  client.on("Network.loadingFinished", ({ encodedDataLength }) => (bytes += encodedDataLength));
  const visits = [];
  for (let visit = 0; visit < VISITS; visit++) {
    bytes = 0;
    await page.reload({ waitUntil: "networkidle" });
    const paint = await page.evaluate(() => performance.getEntriesByName("first-contentful-paint")[0].startTime);
    const loaded = bytes;
    await page.evaluate(() => {
      window.seen = { tasks: [], shift: 0, previews: new Set() };
      new PerformanceObserver((list) => window.seen.tasks.push(...list.getEntries().map(({ duration }) => duration))).observe({ type: "longtask" });
      new PerformanceObserver((list) => list.getEntries().forEach((entry) => entry.hadRecentInput || (window.seen.shift += entry.value))).observe({ type: "layout-shift" });
      new MutationObserver(() => window.seen.previews.add(document.querySelector("[data-preview]")?.src)).observe(document.body, { subtree: true, childList: true, attributes: true });
    });
    await draw(page, "count the frames", { num_inference_steps: 8 });
    await page.locator(".picture.loaded").waitFor();
    await page.waitForLoadState("networkidle");
    const { tasks, shift, previews } = await page.evaluate(() => ({ ...window.seen, previews: window.seen.previews.size - 1 }));
    assert.ok(previews >= 3, `${previews} previews`);
    assert.ok(loaded < 60_000, `${loaded} bytes`);
    assert.ok(shift < 0.01, `${shift}`);
    visits.push({ paint, loaded, longest: Math.max(0, ...tasks), shift });
  }
  for (const { paint, loaded, longest, shift } of visits) {
    console.log(`first contentful paint ${paint.toFixed(0)} ms, ${loaded} bytes, longest task past 50 ms: ${longest} ms, layout shift ${shift.toFixed(4)}`);
  }
  assert.ok(Math.min(...visits.map(({ paint }) => paint)) < 500);
  assert.equal(Math.min(...visits.map(({ longest }) => longest)), 0, "a task of 50 ms or more in every visit");
  await close();
});

test("its types hold", async () => {
  const { stdout } = await run("node", ["node_modules/typescript/bin/tsc", "-p", "tsconfig.json"]).catch((error) => error);
  assert.equal(stdout, "");
});
