// The JavaScript clients with the model that a newcomer has: each leaves its picture in the working folder.

import { writeFile } from "node:fs/promises";
import Each from "@eachlabs/aiflow";
import Replicate from "replicate";

const input = { prompt: "a red circle on a blue background", seed: 7 };
const { FOURSTEP_URL: server, FOURSTEP_KEY: auth } = process.env;

const replicate = new Replicate({ auth, baseUrl: `${server}/v1` });
const [picture] = await replicate.run("bytedance/sdxl-lightning-4step", { input });
await writeFile("replicate-javascript.png", picture);

const each = new Each({ auth, apiBaseUrl: `${server}/v1` });
const { output } = await each.prediction.run({ model: "sdxl-lightning-4step", version: "0.0.1", input });
await writeFile("eachlabs-javascript.png", Buffer.from(await (await fetch(output[0])).arrayBuffer()));
