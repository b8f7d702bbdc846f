// The form: what it is made of, and the ways a picture gets into it.

import assert from "node:assert/strict";
import { test } from "node:test";
import { browser, bytesOf, colorAt, draw, dropOn, open, server, set, status } from "./support.mjs";

const PIXEL = Buffer.from("iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==", "base64");
const start = (page) => page.getByAltText("The image to start from");

test("a field the server learns appears by itself, whatever its type", async () => {
  const { page, close } = await open(browser, server, { expected: ["422"] });
  await page.route("**/models", async (route) => {
    const response = await route.fetch();
    const models = await response.json();
    Object.assign(models.results[0].input_schema.properties, {
      sparkle: { type: "integer", title: "Sparkle", description: "A new number.", default: 2, minimum: 0, maximum: 9, "x-order": 22 },
      finish: { type: "string", title: "Finish", description: "A new choice.", enum: ["matte", "glossy"], default: "matte", "x-order": 23 },
      framed: { type: "boolean", title: "Framed", description: "A new switch.", default: false, "x-order": 24 },
      signature: { type: "string", title: "Signature", description: "A new text.", "x-order": 25 },
    });
    await route.fulfill({ response, json: models });
  });
  await page.reload();
  await page.getByLabel("Prompt", { exact: true }).waitFor();
  await set(page, { sparkle: 3, signature: "me" });
  await page.getByLabel("Finish").selectOption("glossy");
  await page.getByLabel("Framed").check();
  const sent = page.waitForRequest((request) => request.method() === "POST");
  await draw(page, "with all of it");
  assert.deepEqual((await sent).postDataJSON().input,
    { prompt: "with all of it", width: 256, height: 256, sparkle: 3, finish: "glossy", framed: true, signature: "me" });
  // This server has not learned them, and says so at their places.
  await page.getByRole("alert").getByText("sparkle").waitFor();
  assert.equal(await page.locator("#field-sparkle").getAttribute("aria-invalid"), "true");
  await page.getByRole("link", { name: "Readme" }).click();
  await page.getByRole("row", { name: /^sparkle A new number/ }).waitFor();
  await close();
});

test("numbers are typed by hand: decimals, and nothing where the default is meant", async () => {
  const { page, close } = await open(browser, server);
  await page.getByText("Advanced controls").click();
  const guidance = page.locator("#field-guidance_scale");
  await guidance.press("Control+a");
  await guidance.pressSequentially("1.05");
  assert.equal(await guidance.inputValue(), "1.05");
  const steps = page.locator("#field-num_inference_steps");
  await steps.press("Control+a");
  await steps.press("Backspace");
  assert.deepEqual([await steps.inputValue(), await steps.getAttribute("placeholder")], ["", "4"]);
  for (const [name, text] of [["width", "512"], ["height", "256"]]) {
    const field = page.locator(`#field-${name}`);
    await field.press("Control+a");
    await field.press("Backspace");
    assert.equal(await field.inputValue(), "", name);
    await field.pressSequentially(text);
  }
  await page.getByLabel("Prompt", { exact: true }).pressSequentially("by hand");
  const sent = page.waitForRequest((request) => request.method() === "POST" && request.url().endsWith("/predictions"));
  await page.getByRole("button", { name: "Run", exact: true }).click();
  assert.deepEqual((await sent).postDataJSON().input, { prompt: "by hand", width: 512, height: 256, guidance_scale: 1.05 });
  assert.equal(await steps.inputValue(), "4", "what was not given is what will be");
  await status(page, "Done");
  // With a slider beside it, the other writes what the one is set to.
  await dropOn(page.locator(".drop"), "a.png", "image/png", PIXEL);
  const strength = page.getByLabel("Prompt strength", { exact: true });
  await strength.press("Control+a");
  await strength.pressSequentially("0.05");
  assert.equal(await page.getByLabel("Prompt strength, slider").inputValue(), "0.05");
  await page.getByLabel("Prompt strength, slider").press("End");
  assert.equal(await strength.inputValue(), "1");
  await close();
});

test("an image is chosen, dropped, pasted or named, and brings its strength along", async () => {
  const { page, close } = await open(browser, server, { expected: ["422"] });
  await page.getByLabel("Prompt", { exact: true }).waitFor();
  const strength = page.getByLabel("Prompt strength", { exact: true });
  const ways = {
    chosen: () => page.locator(".drop input[type=file]").setInputFiles({ name: "a.png", mimeType: "image/png", buffer: PIXEL }),
    dropped: () => dropOn(page.locator(".drop"), "a.png", "image/png", PIXEL),
    "dropped beside": () => dropOn(page.locator(".output"), "a.png", "image/png", PIXEL),
    pasted: () => page.evaluate((base64) => {
      const clipboardData = new DataTransfer();
      clipboardData.items.add(new File([Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0))], "a.png", { type: "image/png" }));
      document.dispatchEvent(new ClipboardEvent("paste", { clipboardData, bubbles: true, cancelable: true }));
    }, PIXEL.toString("base64")),
  };
  for (const [way, give] of Object.entries(ways)) {
    assert.equal(await strength.count(), 0, `there is no image before one is ${way}`);
    await give();
    await start(page).waitFor();
    assert.equal(await start(page).getAttribute("src"), `data:image/png;base64,${PIXEL.toString("base64")}`, way);
    await strength.waitFor();
    await page.getByRole("button", { name: "Remove" }).click();
  }
  await dropOn(page.locator(".drop"), "a.txt", "text/plain", Buffer.from("no picture"));
  await page.getByText("That is not an image").waitFor();
  // The server looks at an address itself, and not at every one.
  await page.getByLabel("URL of an image").fill("http://127.0.0.1:9/private.png");
  await strength.waitFor();
  await draw(page, "from an address");
  await page.getByRole("alert").getByText("image").first().waitFor();
  assert.equal(await page.getByLabel("URL of an image").getAttribute("aria-invalid"), "true");
  await close();
});

test("text that is pasted or dragged stays text, and a file can be chosen twice", async () => {
  const { page, close } = await open(browser, server);
  const prompt = page.getByLabel("Prompt", { exact: true });
  await prompt.waitFor();
  // What is pasted with a file beside it, and whether the page takes it for an image.
  const paste = (text) => page.evaluate(({ text, base64 }) => {
    const clipboardData = new DataTransfer();
    clipboardData.setData("text/plain", text);
    clipboardData.items.add(new File([Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0))], "a.png", { type: "image/png" }));
    return !document.dispatchEvent(new ClipboardEvent("paste", { clipboardData, bubbles: true, cancelable: true }));
  }, { text, base64: PIXEL.toString("base64") });
  assert.deepEqual([await paste("a cell of a table"), await paste("/home/me/a.png")], [false, true]);
  await start(page).waitFor();
  await page.getByRole("button", { name: "Remove" }).click();

  const title = page.getByRole("heading", { name: "Input", exact: true });
  await title.dblclick();
  await title.hover({ position: { x: 8, y: 8 } });
  await page.mouse.down();
  await prompt.hover();
  await prompt.hover();
  await page.mouse.up();
  assert.equal((await prompt.inputValue()).trim(), "Input");

  const chooser = page.locator(".drop input[type=file]");
  for (let time = 0; time < 2; time++) {
    await chooser.setInputFiles({ name: "a.png", mimeType: "image/png", buffer: PIXEL });
    await start(page).waitFor();
    assert.equal(await chooser.inputValue(), "", "the same one is a change");
    await page.getByRole("button", { name: "Remove" }).click();
  }
  await close();
});

test("a photo is sent as the server takes it, whatever the camera made", async () => {
  const { page, close } = await open(browser, server);
  await page.getByLabel("Prompt", { exact: true }).waitFor();
  const choose = (name, mimeType, buffer) => page.locator(".drop input[type=file]").setInputFiles({ name, mimeType, buffer });
  const photo = await page.evaluate(() => {
    const canvas = Object.assign(document.createElement("canvas"), { width: 5000, height: 2500 });
    const context = canvas.getContext("2d");
    context.fillStyle = "#c03";
    context.fillRect(0, 0, 2500, 2500);
    return canvas.toDataURL().split(",")[1];
  });
  await choose("photo.png", "image/png", Buffer.from(photo, "base64"));
  await start(page).waitFor();
  assert.match(await start(page).getAttribute("src"), /^data:image\/jpeg;base64,/);
  assert.deepEqual(await start(page).evaluate((image) => [image.naturalWidth, image.naturalHeight]), [2048, 1024]);
  const [left, right] = [await colorAt(page, start(page), 0.3, 0.5), await colorAt(page, start(page), 0.7, 0.5)];
  assert.ok(left[0] > 180 && left[1] < 20, `${left}`);
  assert.ok(right.every((part) => part > 250), `what is transparent is white, not ${right}`);
  await draw(page, "from a photo");
  await status(page, "Done");

  await choose("moving.gif", "image/gif", Buffer.from("R0lGODlhAQABAIAAAAAAAP///yH5BAEAAAAALAAAAAABAAEAAAIBRAA7", "base64"));
  await page.waitForFunction(() => document.querySelector(".drop img").naturalWidth === 1);
  assert.match(await start(page).getAttribute("src"), /^data:image\/jpeg;base64,/);
  await page.getByRole("button", { name: "Remove" }).click();
  const wrong = page.getByText("That is not an image that this browser can read");
  await choose("photo.heic", "image/heic", Buffer.from("no picture"));
  await wrong.waitFor();
  await choose("a.png", "image/png", PIXEL);
  await start(page).waitFor();
  assert.equal(await wrong.count(), 0);
  await dropOn(page.locator(".output"), "a.txt", "text/plain", Buffer.from("no picture"));
  await wrong.waitFor();
  await close();
});

test("a picture made here brings its parameters back", async () => {
  const { page, close } = await open(browser, server);
  // Letters of both kinds of text that a PNG has.
  for (const prompt of ["a café", "a 🙂 in 東京"]) {
    await draw(page, prompt, { width: 512, num_inference_steps: 3, seed: 12 });
    await status(page, "Done");
    const bytes = await bytesOf(await server.latest());
    await page.getByRole("button", { name: "Clear" }).click();
    assert.equal(await page.locator("#field-seed").inputValue(), "");
    await dropOn(page.locator(".output"), "picture.png", "image/png", bytes);
    await page.getByRole("status").getByText("are back").waitFor();
    const fields = ["prompt", "width", "height", "num_inference_steps", "seed", "scheduler"];
    const shown = await Promise.all(fields.map((name) => page.locator(`#field-${name}`).inputValue()));
    assert.deepEqual(shown, [prompt, "512", "256", "3", "12", "K_EULER"]);
    assert.equal(await start(page).count(), 0, "it is not an image to start from");
    await page.getByRole("button", { name: "Run", exact: true }).click();
    await status(page, "Done");
    assert.ok((await bytesOf(await server.latest())).equals(bytes), "and they make it again");

    // Where an image belongs it is one, and the parameters are offered.
    await page.getByRole("button", { name: "Clear" }).click();
    await dropOn(page.locator(".drop"), "picture.png", "image/png", bytes);
    await start(page).waitFor();
    await page.getByRole("button", { name: "Use its parameters instead" }).click();
    assert.equal(await page.locator("#field-seed").inputValue(), "12");
    assert.equal(await start(page).count(), 0);
  }
  await close();
});

test("from an image the picture has its shape, and a slider shows what became of it", async () => {
  const { page, close } = await open(browser, server);
  await draw(page, "the start", { width: 512, height: 256, seed: 1 });
  await status(page, "Done");
  const begin = await bytesOf(await server.latest());
  await page.getByRole("button", { name: "Clear" }).click();
  await dropOn(page.locator(".drop"), "start.png", "image/png", begin);
  await start(page).waitFor();
  await page.getByLabel("Prompt", { exact: true }).fill("the end");
  await page.getByLabel("Prompt strength", { exact: true }).fill("0.5");
  await page.getByRole("button", { name: "Run", exact: true }).click();
  await page.locator(".picture.loaded").waitFor();
  const size = await page.locator(".picture").evaluate((picture) => [picture.naturalWidth, picture.naturalHeight]);
  assert.deepEqual(size, [512, 256]);
  const frame = page.locator(".frame");
  const { width, height } = await frame.boundingBox();
  assert.ok(Math.abs(width / height - 2) < 0.02, `${width} by ${height}`);

  const slider = page.getByLabel("Before and after");
  await slider.press("Home");
  const after = await colorAt(page, frame, 0.2, 0.7);
  await slider.press("End");
  const before = await colorAt(page, frame, 0.2, 0.7);
  assert.notDeepEqual(before, after);
  await slider.fill("50");
  assert.deepEqual(await colorAt(page, frame, 0.2, 0.7), before, "left of the line is what was");
  assert.deepEqual(await colorAt(page, frame, 0.8, 0.7), after, "right of it what became of it");

  // After a reload there is no image to send again, and the page does not go on without.
  await page.getByRole("link", { name: "History" }).click();
  await page.locator(".entry", { hasText: "the end" }).first().click();
  await page.getByRole("button", { name: "Open in the playground" }).click();
  await page.getByText("Add it again, or run without one.").waitFor();
  const { id } = await server.latest();
  await page.getByRole("button", { name: "Run again" }).click();
  await page.getByText("Add it again, or run without one.").waitFor();
  assert.equal((await server.latest()).id, id);
  await close();
});

test("what is in the form outlives a reload, and a key is not forgotten by a slip", async () => {
  const { page, close } = await open(browser, server);
  const prompt = page.getByLabel("Prompt", { exact: true });
  await prompt.pressSequentially("a long thought");
  await set(page, { seed: 5 });
  await page.reload();
  await prompt.waitFor();
  assert.deepEqual([await prompt.inputValue(), await page.locator("#field-seed").inputValue()], ["a long thought", "5"]);
  // An image may be larger than all that a browser keeps for a page, but it is not left out unsaid.
  await dropOn(page.locator(".drop"), "a.png", "image/png", PIXEL);
  await start(page).waitFor();
  await page.reload();
  await page.getByText("Add it again, or run without one.").waitFor();
  assert.deepEqual([await prompt.inputValue(), await start(page).count()], ["a long thought", 0]);

  const key = () => page.evaluate(() => localStorage.getItem("fourstep-key"));
  page.once("dialog", (dialog) => dialog.dismiss());
  await page.getByRole("button", { name: "Change key" }).click();
  assert.equal(await key(), server.key);
  page.once("dialog", (dialog) => dialog.accept());
  await page.getByRole("button", { name: "Change key" }).click();
  await page.getByLabel("API key").fill(server.key);
  await page.getByRole("button", { name: "Continue" }).click();
  await prompt.waitFor();
  assert.equal(await prompt.inputValue(), "a long thought");
  await close();
});
