// Replicate's own JavaScript client: everything it offers that there is here. Told by the environment where and who.

import assert from "node:assert/strict";
import Replicate from "replicate";

const MODEL = "bytedance/sdxl-lightning-4step";
const VERSION = "5599ed30703defd1d160a25a63321b4dec97101d98b4674bcc56e41f62f35637";
const SMALL = { prompt: "a cat", width: 256, height: 256 };
// Thirty steps of a tenth of a second.
const THREE_SECONDS = { ...SMALL, num_outputs: 3, num_inference_steps: 10 };

const { FOURSTEP_URL: server, FOURSTEP_KEY: auth } = process.env;

async function bytes(file) {
  return Buffer.from(await (await file.blob()).arrayBuffer());
}

async function assertPictures(output, count) {
  assert.equal(output.length, count);
  for (const picture of output) {
    assert.equal((await bytes(picture)).toString("latin1", 1, 4), "PNG");
  }
}

const refused = (status) => (error) => error.name === "ApiError" && error.response.status === status;

for (const baseUrl of [`${server}/v1`, `${server}/replicate/v1`]) {
  const client = new Replicate({ auth, baseUrl });
  await assertPictures(await client.run(MODEL, { input: SMALL }), 1);
  await assertPictures(await client.run(`${MODEL}:${VERSION}`, { input: { ...SMALL, num_outputs: 2 } }), 2);
  await assertPictures(await client.run(MODEL, { input: SMALL, wait: { mode: "poll" } }), 1);
}

const client = new Replicate({ auth, baseUrl: `${server}/v1` });

// A wait that runs out becomes a poll, and does not return nothing.
const seen = [];
const waited = await client.run(
  MODEL,
  { input: THREE_SECONDS, wait: { mode: "block", timeout: 1 } },
  ({ status }) => seen.push(status),
);
await assertPictures(waited, 3);
assert.equal(seen[0], "starting");
assert.equal(seen.at(-1), "succeeded");

// A file is sent ahead whatever field it is in, also one that is none of this model's.
const [picture] = await client.run(MODEL, { input: SMALL });
const withFile = await client.run(MODEL, { input: { ...SMALL, picture: await bytes(picture) } });
await assertPictures(withFile, 1);
const { results: [{ input }] } = await client.predictions.list();
assert.ok(input.picture.startsWith(`${server}/v1/files/`), input.picture);

const created = await client.predictions.create({ version: VERSION, input: SMALL });
assert.equal(created.status, "starting");
assert.equal(created.version, VERSION);
const ended = await client.wait(created, {});
assert.equal(ended.status, "succeeded");
assert.equal(ended.error, null);
assert.ok(ended.metrics.predict_time > 0);
assert.equal((await client.predictions.get(created.id)).completed_at, ended.completed_at);

const running = await client.predictions.create({ model: MODEL, input: THREE_SECONDS });
await client.predictions.cancel(running.id);
assert.equal((await client.wait(running, {})).status, "canceled");

// Aborting a run cancels its prediction.
const abort = new AbortController();
const aborted = client.run(MODEL, { input: THREE_SECONDS, wait: { mode: "poll" }, signal: abort.signal }, () =>
  abort.abort(),
);
await aborted.catch((error) => assert.equal(error.name, "AbortError"));

const { results, next } = await client.predictions.list();
assert.equal(results.length, 12);
assert.equal(next, null);

const model = await client.models.get(...MODEL.split("/"));
assert.equal(model.latest_version.openapi_schema.components.schemas.Output.type, "array");
assert.equal((await client.models.versions.get(...MODEL.split("/"), VERSION)).id, VERSION);
assert.ok((await client.models.list()).results.some(({ name }) => MODEL.endsWith(name)));
assert.equal((await client.accounts.current()).type, "organization");
assert.deepEqual(await client.hardware.list(), []);
assert.deepEqual((await client.collections.list()).results, []);

await assert.rejects(client.run(`${MODEL}:${"0".repeat(64)}`, { input: SMALL }), refused(422));
await assert.rejects(client.run(MODEL, { input: { width: 5 } }), refused(422));
await assert.rejects(client.run("acme/anything", { input: SMALL }), refused(404));
await assert.rejects(client.predictions.get("nothing"), refused(404));
const stranger = new Replicate({ auth: "wrong", baseUrl: `${server}/v1` });
await assert.rejects(stranger.run(MODEL, { input: SMALL }), refused(401));

// A file is sent ahead, whatever it comes as, and its URL put into the input.
const drawn = await bytes((await client.run(MODEL, { input: SMALL }))[0]);
for (const image of [drawn, new Blob([drawn]), new File([drawn], "start.png", { type: "image/png" })]) {
  await assertPictures(await client.run(MODEL, { input: { prompt: "a cat", image } }), 1);
}
const sent = await client.files.create(new File([drawn], "start.png"), { of: "a cat" });
assert.deepEqual([sent.content_type, sent.size, sent.metadata], ["image/png", drawn.length, { of: "a cat" }]);
assert.equal((await client.files.get(sent.id)).etag, sent.etag);
assert.equal((await client.files.list()).results[0].id, sent.id);
await client.files.delete(sent.id);
await assert.rejects(client.files.get(sent.id), refused(404));
await assert.rejects(client.files.create(Buffer.from("not a picture")), refused(422));
