// A receiver of webhooks, and who verifies them: the function in the README, and Replicate's own client.

import assert from "node:assert/strict";
import { once } from "node:events";
import { createServer } from "node:http";
import Replicate, { validateWebhook } from "replicate";
import { verified } from "./snippet.js";

const { FOURSTEP_URL: server, FOURSTEP_KEY: auth } = process.env;
const [owner, name] = ["bytedance", "sdxl-lightning-4step"];

const received = [];
const receiver = createServer(async (request, response) => {
  let body = "";
  for await (const chunk of request) {
    body += chunk;
  }
  response.writeHead(204).end();
  received.push({ headers: request.headers, body });
  receiver.emit("told");
});
await once(receiver.listen(0, "127.0.0.1"), "listening");

const client = new Replicate({ auth, baseUrl: `${server}/replicate/v1` });
const { key: secret } = await client.webhooks.default.secret.get();
const told = once(receiver, "told");
const created = await client.predictions.create({
  model: `${owner}/${name}`,
  input: { prompt: "a cat", width: 256, height: 256 },
  webhook: `http://127.0.0.1:${receiver.address().port}/`,
  webhook_events_filter: ["completed"],
});
await told;
const [{ headers, body }] = received;
const prediction = verified(body, headers);
assert.equal(prediction.id, created.id);
assert.equal(prediction.status, "succeeded");
assert.equal(await validateWebhook({ headers, body }, secret), true);

assert.throws(() => verified(`${body} `, headers));
assert.equal(await validateWebhook({ headers, body: `${body} ` }, secret), false);
receiver.close();
