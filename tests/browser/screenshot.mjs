// The README's picture of the page: `node screenshot.mjs LINK PROMPT SEED FILE`, in the folder where the tests ran, with
// the link that a running server prints.

import { launch } from "./launch.mjs";

const [link, prompt, seed, file] = process.argv.slice(2);
const browser = await launch();
const page = await browser.newPage({ viewport: { width: 1280, height: 800 }, deviceScaleFactor: 1.5, colorScheme: "light" });
await page.goto(link);
await page.getByLabel("Prompt", { exact: true }).fill(prompt);
await page.locator("summary").click();
await page.locator("#field-seed").fill(seed);
await page.getByRole("button", { name: "Run", exact: true }).click();
await page.locator(".picture.loaded").waitFor();
await page.mouse.move(0, 0);
// The picture fades in.
await page.waitForFunction(() => document.getAnimations().length === 0);
await page.evaluate(() => window.scrollTo(0, 0));
await page.screenshot({ path: file });
await browser.close();
