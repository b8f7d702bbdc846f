// The reader of the API: it shows the whole document, and what is tried there happens.

import assert from "node:assert/strict";
import { test } from "node:test";
import { browser, open, server } from "./support.mjs";

test("the API can be read and tried in the browser", async () => {
  const { page, close } = await open(browser, server, { path: "docs", withKey: false, expected: ["401"] });
  const { paths } = await (await server.fetch("openapi.json")).json();
  const ids = Object.values(paths).flatMap((item) => Object.values(item).map(({ operationId }) => operationId).filter(Boolean));
  const { operationId } = paths["/estimate"].post;
  const estimate = page.locator(`#${operationId}`);
  await estimate.waitFor();
  assert.deepEqual(await page.locator("main details[id]").evaluateAll((all) => all.map(({ id }) => id).sort()), ids.sort());

  await page.getByLabel("Find").fill("/estimate");
  assert.deepEqual(await page.locator("main details[id]:visible").evaluateAll((all) => all.map(({ id }) => id)), [operationId]);
  await estimate.locator("summary").first().click();
  const send = estimate.getByRole("button", { name: "Send" });
  await send.click();
  await estimate.getByRole("heading", { name: /^401/ }).waitFor();
  await page.getByLabel("API key").fill(server.key);
  await send.click();
  await estimate.getByRole("heading", { name: /^200/ }).waitFor();
  await estimate.getByText('"predict_time"').last().waitFor();
  await close();
});
