// The API tab: what it shows is copied and run, in every language.

import assert from "node:assert/strict";
import { execFile, spawn } from "node:child_process";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { promisify } from "node:util";
import { browser, draw, open, server, set, status } from "./support.mjs";

const run = promisify(execFile);
const PROMPT = `it's "quoted" \\ and\nbroken, 🙂 $HOME \u0007`;
const here = import.meta.dirname;

/** Runs a program that reads its text from standard input, in a folder of its own below the clients' installation. */
function pipe(program, args, text) {
  const cwd = mkdtempSync(join(here, "snippet-"));
  return new Promise((done, failed) => {
    const child = spawn(program, args, { cwd, env: { ...process.env, FOURSTEP_KEY: server.key, NO_PROXY: "127.0.0.1" }, stdio: ["pipe", "pipe", "pipe"] });
    const said = { stdout: "", stderr: "" };
    child.stdout.on("data", (text) => (said.stdout += text));
    child.stderr.on("data", (text) => (said.stderr += text));
    child.once("error", failed);
    child.once("close", (code) => (code === 0 ? done({ ...said, cwd }) : failed(new Error(`${program}: ${code}\n${said.stdout}${said.stderr}\n${text}`))));
    child.stdin.end(text);
  });
}

const python = (text) => pipe(process.env.PYTHON, ["-"], text);
const javascript = (text) => pipe("node", ["--input-type=module", "-"], text);
async function rust(text) {
  mkdirSync(join(here, "rust/src"), { recursive: true });
  writeFileSync(join(here, "rust/src/main.rs"), text);
  await run(process.env.CARGO ?? "cargo", ["build", "--quiet", "--locked", "--target-dir", "target"], { cwd: join(here, "rust") });
  return pipe(join(here, "rust/target/debug/snippet"), [], "");
}
/** How each is run; `file` is where it puts the picture, else it prints the picture's URL. */
const RUNS = {
  curl: { execute: (text) => pipe("bash", [], text) },
  Python: { execute: python },
  JavaScript: { execute: javascript },
  Rust: { execute: rust },
  "Replicate, Python": { execute: python, file: "picture.png" },
  "Replicate, JavaScript": { execute: javascript, file: "picture.png" },
  Eachlabs: { execute: python },
};

async function copied(page) {
  await page.getByRole("button", { name: "Copy", exact: true }).click();
  return page.evaluate(() => navigator.clipboard.readText());
}

test("every snippet runs as it is copied", async () => {
  const { page, context, close } = await open(browser, server);
  await context.grantPermissions(["clipboard-read", "clipboard-write"]);
  await page.getByLabel("Prompt", { exact: true }).fill(PROMPT);
  await set(page, { width: 256, height: 256, seed: 5 });
  await page.getByRole("link", { name: "API", exact: true }).click();
  await page.locator("#snippet").waitFor();
  assert.deepEqual(await page.getByRole("tab").allInnerTexts(), Object.keys(RUNS), "each has its test");
  for (const [language, { execute, file }] of Object.entries(RUNS)) {
    await page.getByRole("tab", { name: language, exact: true }).click();
    const text = await copied(page);
    assert.equal(text, await page.locator("#snippet").innerText(), "what is shown is what is copied");
    assert.ok(!text.includes(server.key) && text.includes("FOURSTEP_KEY"));
    const before = (await server.latest())?.id;
    const { stdout, cwd } = await execute(text);
    const latest = await server.latest();
    assert.notEqual(latest.id, before, `${language} made nothing: ${stdout}`);
    const { prompt, width, height, seed } = latest.input;
    assert.deepEqual([latest.status, prompt, +width, +height, +seed], ["succeeded", PROMPT, 256, 256, 5], language);
    const [output] = latest.output;
    if (file) assert.ok(readFileSync(join(cwd, file)).equals(Buffer.from(await (await fetch(output)).arrayBuffer())), language);
    else assert.ok(stdout.includes(output), `${language}: ${stdout}`);
    rmSync(cwd, { recursive: true });
  }
  await close();
});

test("the call that was made stays to be copied, its image as well, when the form moves on", async () => {
  const { page, context, close } = await open(browser, server);
  await context.grantPermissions(["clipboard-read", "clipboard-write"]);
  await draw(page, "the first", { seed: 6 });
  await status(page, "Done");
  // More than a command line may hold.
  const noise = await page.evaluate(() => {
    const canvas = Object.assign(document.createElement("canvas"), { width: 256, height: 256 });
    const context = canvas.getContext("2d");
    const pixels = context.createImageData(256, 256);
    for (let at = 0; at < pixels.data.length; at += 65_536) crypto.getRandomValues(pixels.data.subarray(at, at + 65_536));
    context.putImageData(pixels, 0, 0);
    return canvas.toDataURL();
  });
  assert.ok(noise.length > 200_000);
  await page.locator(".drop input[type=file]").setInputFiles({ name: "noise.png", mimeType: "image/png", buffer: Buffer.from(noise.split(",")[1], "base64") });
  await page.getByRole("button", { name: "Run", exact: true }).click();
  await page.getByLabel("Before and after").waitFor();
  await page.getByLabel("Prompt", { exact: true }).fill("the second");
  await page.getByRole("link", { name: "API", exact: true }).click();
  await page.getByText("The call that was just made.").waitFor();
  const { id } = await server.latest();
  const { cwd } = await pipe("bash", [], await copied(page));
  rmSync(cwd, { recursive: true });
  const [made, , first] = (await (await server.fetch("predictions?limit=3")).json()).results;
  assert.notEqual(made.id, id);
  assert.deepEqual([made.input.prompt, made.input.seed], ["the first", 6]);
  assert.ok(made.input.image.startsWith("data:image/png;base64,") && !first.input.image);
  await page.getByRole("button", { name: "Show what it would send now" }).click();
  assert.match(await copied(page), /"the second"/);
  await close();
});
