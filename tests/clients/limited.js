// Replicate's JavaScript client at a limit: it asks again by itself, though without waiting, and nothing is made twice.

import assert from "node:assert/strict";
import Replicate from "replicate";

const { FOURSTEP_URL: server, FOURSTEP_KEY: admin, CREATES_PER_MINUTE: limit } = process.env;
// The first key of all has no limits.
const made = await fetch(`${server}/admin/keys`, {
  method: "POST",
  headers: { Authorization: `Bearer ${admin}`, "Content-Type": "application/json" },
  body: JSON.stringify({ name: "limited", account: "default" }),
});
assert.equal(made.status, 201);
const { secret: auth } = await made.json();

const statuses = [];
const counted = async (...request) => {
  const response = await fetch(...request);
  statuses.push(response.status);
  return response;
};
const client = new Replicate({ auth, baseUrl: `${server}/v1`, fetch: counted });
const create = async (input) => {
  try {
    return await client.predictions.create({ model: "bytedance/sdxl-lightning-4step", input });
  } catch ({ response }) {
    assert.equal(response.status, 429);
    // Waiting is left to its user.
    await new Promise((resume) => setTimeout(resume, 1000 * Number(response.headers.get("Retry-After"))));
    return create(input);
  }
};
const wanted = Number(limit) + 2;
for (let index = 0; index < wanted; index++) {
  const input = { prompt: `number ${index}`, width: 256, height: 256 };
  await create(input);
}
assert.ok(statuses.filter((status) => status === 429).length > 1, "nothing was refused, or the client did not ask again");
assert.equal(statuses.filter((status) => status === 201).length, wanted);
const { results } = await client.predictions.list();
const prompts = results.map(({ input }) => input.prompt);
assert.equal(new Set(prompts).size, prompts.length);
assert.equal(prompts.length, wanted);
