// Eachlabs' own JavaScript client: predictions, which is all it offers beside flows. Told by the environment where and who.

import assert from "node:assert/strict";
import Each from "@eachlabs/aiflow";

const { FOURSTEP_URL: server, FOURSTEP_KEY: auth } = process.env;
const SMALL = {
  model: "sdxl-lightning-4step",
  version: "0.0.1",
  input: { prompt: "a cat", width: 256, height: 256 },
};

async function assertPicture(url) {
  const response = await fetch(url);
  assert.equal(response.headers.get("Content-Type"), "image/png");
}

for (const apiBaseUrl of [`${server}/v1`, `${server}/eachlabs/v1`]) {
  const each = new Each({ auth, apiBaseUrl });

  const created = await each.prediction.create({ ...SMALL, webhook_url: "" });
  assert.equal(created.status, "success");
  let prediction = await each.prediction.get(created.predictionID);
  while (["created", "processing"].includes(prediction.status)) {
    prediction = await each.prediction.get(created.predictionID);
  }
  assert.equal(prediction.status, "success");
  await assertPicture(prediction.output[0]);

  const run = await each.prediction.run({ ...SMALL, input: { ...SMALL.input, num_outputs: "2" } });
  assert.equal(run.status, "success");
  assert.equal(run.output.length, 2);
  await assertPicture(run.output[1]);

  // Thirty steps of a tenth of a second.
  const slow = { ...SMALL, input: { ...SMALL.input, num_outputs: 3, num_inference_steps: 10 } };
  const running = await each.prediction.create(slow);
  assert.equal((await each.prediction.cancel(running.predictionID)).status, "cancelled");
  const canceled = await each.prediction.get(running.predictionID);
  assert.equal(canceled.status, "cancelled");
  assert.equal(canceled.metrics.cost, 0);

  await assert.rejects(each.prediction.create({ ...SMALL, model: "nobody" }), /model not found/);
  await assert.rejects(each.prediction.cancel(run.predictionID), /already completed/);
  await assert.rejects(each.prediction.get("nothing"), /Prediction not found/);
}
