// The page with the model that is part of the program: what a newcomer sees, from the key to the file.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { browser, bytesOf, colorAt, dropOn, open, server, set, status } from "./support.mjs";

test("a newcomer draws a red circle, and from it a green one", async () => {
  const { page, close } = await open(browser, server, { withKey: false, path: `#key=${server.key}` });
  // The demo model never passes for another.
  await page.getByRole("note").getByText("stands in for it").waitFor();
  await page.evaluate(() => {
    window.previews = new Set();
    const look = () => document.querySelectorAll("[data-preview]").forEach(({ src }) => window.previews.add(src));
    new MutationObserver(look).observe(document.body, { subtree: true, childList: true, attributes: true });
  });
  await page.getByLabel("Prompt", { exact: true }).fill("a red circle on a blue background");
  await set(page, { seed: 7, num_inference_steps: 10 });
  await page.getByRole("button", { name: "Run", exact: true }).click();
  await page.locator(".picture.loaded").waitFor();
  assert.ok((await page.evaluate(() => window.previews.size)) > 0, "no step was seen");
  const prediction = await server.latest();
  assert.equal(prediction.model, "fourstep/demo-4step");
  const bytes = await bytesOf(prediction);
  const [download] = await Promise.all([page.waitForEvent("download"), page.getByRole("button", { name: "Download" }).click()]);
  assert.equal(download.suggestedFilename(), "a-red-circle-on-a-blue-background-7.png");
  assert.ok(bytes.equals(readFileSync(await download.path())));
  const frame = page.locator(".frame");
  const isRed = ([red, green, blue]) => red > green + 60 && red > blue + 60;
  const isGreen = ([red, green, blue]) => green > red + 40 && green > blue + 40;
  const isBlue = ([red, green, blue]) => blue > red + 60 && blue > green + 60;
  const [center, corner] = [await colorAt(page, frame, 0.5, 0.5), await colorAt(page, frame, 0.05, 0.05)];
  assert.ok(isRed(center) && isBlue(corner), `${center}; ${corner}`);

  await dropOn(page.locator(".drop"), "circle.png", "image/png", bytes);
  await page.getByAltText("The image to start from").waitFor();
  await page.getByLabel("Prompt strength", { exact: true }).fill("0.9");
  await page.getByLabel("Prompt", { exact: true }).fill("a green circle on a blue background");
  await page.getByRole("button", { name: "Run", exact: true }).click();
  await page.getByLabel("Before and after").waitFor();
  await status(page, "Done");
  await page.getByLabel("Before and after").press("Home");
  const after = await colorAt(page, frame, 0.5, 0.5);
  assert.ok(isGreen(after), `${after}`);
  await page.getByLabel("Before and after").press("End");
  assert.ok(isRed(await colorAt(page, frame, 0.5, 0.5)));
  await close();
});

test("its card says what it knows", async () => {
  const { page, close } = await open(browser, server, { path: "#readme" });
  await page.getByRole("heading", { name: "What it knows" }).waitFor();
  await page.getByText("Shapes: circle (disc, ball, dot), square (box)").waitFor();
  await page.getByRole("columnheader", { name: "one object (350)" }).waitFor();
  assert.doesNotMatch(await page.locator(".card-text").innerText(), /\*\*|^#|```|\|---|license: apache/m);
  await close();
});
