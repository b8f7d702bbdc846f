// The API reference: every operation in words, and a form that tries it.

import assert from "node:assert/strict";
import { mkdirSync, readFileSync } from "node:fs";
import { test } from "node:test";
import { browser, open, server } from "./support.mjs";

/** A red square. */
const PNG = Buffer.from("iVBORw0KGgoAAAANSUhEUgAAAEAAAABACAIAAAAlC+aJAAAAS0lEQVR42u3PQQkAAAgAsetfWiP4FgYrsKZeS0BAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBA"
  + "QEBAQEBAQEBAQEBAQEDgsqnc8OJg6Ln3AAAAAElFTkSuQmCC", "base64");
const axe = readFileSync(new URL("node_modules/axe-core/axe.min.js", import.meta.url), "utf8");

test("the page leads to the reference, where every operation says what it does and can be tried", async () => {
  const { page: playground, close } = await open(browser, server);
  // Beside the page, which may be drawing.
  const link = playground.getByRole("link", { name: "API reference" });
  const [page] = await Promise.all([playground.waitForEvent("popup"), link.click()]);
  await page.locator("main[aria-busy=false]").waitFor();
  assert.equal(page.url(), `${server.url}/docs`);
  const api = await (await fetch(`${server.url}/openapi.json`)).json();
  const described = Object.values(api.paths).flatMap((item) => Object.entries(item).filter(([method]) => !method.startsWith("x-")));
  const shown = await page.locator("summary .about").allInnerTexts();
  assert.deepEqual(shown.sort(), described.map(([, { summary }]) => summary).sort());

  await page.getByLabel("Find").fill("follow");
  await page.locator("#predictions_follow").waitFor();
  await page.locator("#predictions_get").waitFor({ state: "hidden" });
  await page.getByLabel("Find").fill("");
  await page.getByLabel("API key").fill(server.key);
  await page.getByLabel("API key").blur();
  const create = page.locator("#predictions_create");
  await create.locator("summary").first().click();
  await create.getByRole("button", { name: "Send" }).click();
  await create.getByRole("heading", { name: "202 Accepted" }).waitFor();
  const { id, input } = await server.latest();
  assert.ok((await create.innerText()).includes(id));
  assert.equal(input.prompt, "a lighthouse at dusk");
  await create.getByText("there is no model").first().waitFor({ state: "attached" });
  await close();
});

test("a picture is uploaded from the reference, as it is and in a form", async () => {
  const { page, close } = await open(browser, server, { path: "docs#files_send" });
  await page.getByLabel("API key").fill(server.key);
  const form = page.locator("#files_send form");
  const picture = { name: "red.png", mimeType: "image/png", buffer: PNG };
  for (const [mediaType, name] of Object.entries({ "application/octet-stream": "Body", "multipart/form-data": "file" })) {
    await form.getByLabel("Media type").selectOption(mediaType);
    await form.getByLabel(name, { exact: true }).setInputFiles(picture);
    const answer = page.waitForResponse((response) => response.request().method() === "POST");
    await form.getByRole("button", { name: "Send" }).click();
    assert.equal((await answer).status(), 201, mediaType);
    await form.getByRole("heading", { name: "201 Created" }).waitFor();
    assert.deepEqual(JSON.parse(await form.locator("pre").last().innerText()).metadata ?? {}, name === "file" ? { shelf: 7 } : {});
  }
  await close();
});

for (const scheme of ["light", "dark"]) {
  for (const [name, width] of Object.entries({ phone: 390, tablet: 820, desk: 1440 })) {
    test(`the reference fits, and axe finds nothing serious: ${scheme}, ${name}`, async () => {
      mkdirSync("screenshots", { recursive: true });
      const options = { viewport: { width, height: 900 }, colorScheme: scheme };
      const { page, close } = await open(browser, server, { options, path: "docs#replicate_download_file" });
      await page.locator("#replicate_download_file form").waitFor();
      for (const id of ["files_send", "replicate_create_file", "predictions_create"]) {
        await page.locator(`#${id} > summary`).click();
        await page.locator(`#${id} form`).waitFor();
      }
      for (const id of ["files_send", "predictions_create"]) {
        await page.locator(`#${id}`).getByLabel("Media type").selectOption("multipart/form-data");
      }
      await page.screenshot({ path: `screenshots/${scheme}-${name}-reference.png` });
      const overflow = await page.evaluate(() => document.documentElement.scrollWidth - window.innerWidth);
      assert.ok(overflow <= 0, `${overflow} pixels too wide`);
      const { violations } = await page.evaluate(`${axe}; axe.run(document, { resultTypes: ["violations"] })`);
      const serious = violations.filter(({ impact }) => ["serious", "critical"].includes(impact));
      assert.deepEqual(serious.map(({ id, nodes }) => `${id}: ${nodes.map(({ html }) => html)}`), []);
      await close();
    });
  }
}
