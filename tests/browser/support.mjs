// The program, the browser, and a page that is watched: whatever it logs as an error or asks of anybody else is kept.

import assert from "node:assert/strict";
import { execFile, spawn } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before } from "node:test";
import { promisify } from "node:util";
import { launch } from "./launch.mjs";

/** Longer than anything here takes; only a failing test waits for it. */
export const PATIENCE = 15_000;
/** Long enough for every step to be seen. */
const STEP_MS = 150;
/** Of any key but the first. */
export const CREATES_PER_MINUTE = 3;

/** The real program with the predictor that `PREDICTOR` names, killed and started again at the same port when asked to. */
export class Server {
  folder = mkdtempSync(join(tmpdir(), "fourstep-browser-"));

  async start(listen = "127.0.0.1:0") {
    const flags = ["serve", "--predictor", process.env.PREDICTOR, "--listen", listen, "--data-dir", this.folder];
    const env = { ...process.env, FOURSTEP_MOCK_STEP_MS: String(STEP_MS), RUST_LOG: "fourstep=info",
      FOURSTEP_ADMISSION__CREATES_PER_MINUTE: String(CREATES_PER_MINUTE) };
    this.process = spawn(process.env.FOURSTEP, flags, { env, stdio: ["ignore", "pipe", "pipe"] });
    this.log = "";
    this.process.stderr.on("data", (text) => (this.log += text));
    this.url = await new Promise((ready, failed) => {
      let said = "";
      this.process.stdout.on("data", (text) => {
        said += text;
        const url = /http:\/\/\S+/.exec(said)?.[0];
        if (url) ready(url);
      });
      this.process.once("exit", () => failed(new Error(`the server did not start: ${this.log}`)));
    });
    this.key = readFileSync(join(this.folder, "key"), "utf8").trim();
  }

  async kill() {
    const ended = new Promise((ended) => this.process.once("exit", ended));
    this.process.kill("SIGKILL");
    await ended;
  }

  async restart() {
    await this.start(new URL(this.url).host);
  }

  async stop() {
    await this.kill();
    rmSync(this.folder, { recursive: true, force: true });
  }

  /** A request with the key. */
  fetch(path, options = {}, key = this.key) {
    return fetch(`${this.url}/${path}`, { ...options, headers: { Authorization: `Bearer ${key}`, ...options.headers } });
  }

  /** Makes a prediction beside the page. */
  async create(input, key = this.key) {
    const headers = { "Content-Type": "application/json" };
    return (await this.fetch("predictions", { method: "POST", headers, body: JSON.stringify({ input }) }, key)).json();
  }

  /** Another key of the same account. */
  async newKey(...flags) {
    const { stdout } = await promisify(execFile)(process.env.FOURSTEP, ["keys", "create", "--name", "another", "--data-dir", this.folder, ...flags]);
    return /fs_\w+/.exec(stdout)[0];
  }

  async latest() {
    return (await (await this.fetch("predictions?limit=1")).json()).results[0];
  }
}

/** The server and the browser of all tests in a process. */
export const server = new Server();
export let browser;
before(async () => {
  await server.start();
  browser = await launch();
});
after(async () => {
  await browser?.close();
  await server.stop();
});

/** A page in a profile of its own. `expected` are console errors that the test causes on purpose. */
export async function open(browser, server, { options = {}, path = "", withKey = true, key = server.key, expected = [] } = {}) {
  const context = await browser.newContext({ viewport: { width: 1440, height: 900 }, acceptDownloads: true, ...options });
  context.setDefaultTimeout(PATIENCE);
  const page = await context.newPage();
  const watched = { elsewhere: [], urls: [], referrers: [], errors: [] };
  page.on("request", (request) => {
    const url = new URL(request.url());
    watched.urls.push(request.url());
    const referrer = request.headers().referer;
    if (referrer) watched.referrers.push(referrer);
    if (!["data:", "blob:"].includes(url.protocol) && url.origin !== new URL(server.url).origin) watched.elsewhere.push(request.url());
  });
  page.on("console", (message) => message.type() === "error" && watched.errors.push(message.text()));
  page.on("pageerror", (error) => watched.errors.push(String(error)));
  if (withKey) await context.addInitScript((key) => localStorage.setItem("fourstep-key", key), key);
  await page.goto(`${server.url}/${path}`);
  /** Nothing was asked of anybody else, no key was in a URL, nothing went wrong unseen. */
  const close = async () => {
    await context.close();
    assert.deepEqual(watched.elsewhere, []);
    assert.deepEqual(watched.referrers, []);
    assert.ok(!watched.urls.some((url) => url.includes(key) && !url.includes("#key=")), "a key in a URL");
    assert.deepEqual(watched.errors.filter((error) => !expected.some((part) => error.includes(part))), []);
  };
  return { page, context, watched, close };
}

/** Types a prompt and runs it at a small size. */
export async function draw(page, prompt, fields = {}) {
  await page.getByLabel("Prompt", { exact: true }).fill(prompt);
  await set(page, { width: 256, height: 256, ...fields });
  await page.getByRole("button", { name: "Run", exact: true }).click();
}

/** Fills numbers of the advanced controls. */
export async function set(page, fields) {
  const advanced = page.locator("details.advanced");
  if (!(await advanced.evaluate((details) => details.open))) await advanced.locator("summary").click();
  for (const [name, value] of Object.entries(fields)) await page.locator(`#field-${name}`).fill(String(value));
}

/** Lets a file fall on an element. */
export function dropOn(locator, name, type, bytes) {
  return locator.evaluate((target, { name, type, base64 }) => {
    const transfer = new DataTransfer();
    transfer.items.add(new File([Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0))], name, { type }));
    target.dispatchEvent(new DragEvent("drop", { dataTransfer: transfer, bubbles: true, cancelable: true }));
  }, { name, type, base64: Buffer.from(bytes).toString("base64") });
}

/** The bytes of a prediction's first picture, from the API. */
export async function bytesOf({ output }) {
  return Buffer.from(await (await fetch(output[0])).arrayBuffer());
}

/** The color at a place of what is seen of an element, both sides from 0 to 1. */
export async function colorAt(page, locator, x, y) {
  // What fades in is looked at when it is there.
  await locator.evaluate((seen) => {
    const ends = seen.getAnimations({ subtree: true }).filter(({ effect }) => Number.isFinite(effect.getComputedTiming().endTime));
    return Promise.allSettled(ends.map(({ finished }) => finished));
  });
  const shot = (await locator.screenshot()).toString("base64");
  return page.evaluate(async ({ shot, x, y }) => {
    const image = Object.assign(new Image(), { src: `data:image/png;base64,${shot}` });
    await image.decode();
    const context = new OffscreenCanvas(image.width, image.height).getContext("2d");
    context.drawImage(image, 0, 0);
    return [...context.getImageData(Math.floor(x * image.width), Math.floor(y * image.height), 1, 1).data.slice(0, 3)];
  }, { shot, x, y });
}

export const status = (page, word) => page.getByRole("status").getByText(word, { exact: true }).waitFor();
