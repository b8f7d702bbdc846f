// The call the form makes, in the languages people write. The tests run every one of them.

/** @typedef {{base: string, model: string, input: {[name: string]: any}}} Call */

/** @param {unknown} value */
const json = (value) => JSON.stringify(value);
/** @param {unknown} value @param {number} indent */
const pretty = (value, indent) => JSON.stringify(value, null, 2).replaceAll("\n", `\n${" ".repeat(indent)}`);
/** A string for the shell. @param {string} text */
const shell = (text) => `'${text.replaceAll("'", `'\\''`)}'`;

/** Python's words for JSON's. @param {any} value @param {number} indent @returns {string} */
function python(value, indent) {
  const inner = " ".repeat(indent + 4);
  if (value === null) return "None";
  if (value === true) return "True";
  if (value === false) return "False";
  if (typeof value !== "object") return json(value);
  const lines = Object.entries(value).map(([name, value]) => `${inner}${json(name)}: ${python(value, indent + 4)},`);
  return lines.length ? `{\n${lines.join("\n")}\n${" ".repeat(indent)}}` : "{}";
}

/** @type {{id: string, label: string, needs?: string, write: (call: Call) => string}[]} */
export const LANGUAGES = [
  { id: "curl", label: "curl", write: ({ base, model, input }) => `curl -sS ${base}predictions \\
  -H "Authorization: Bearer $FOURSTEP_KEY" \\
  -H 'Content-Type: application/json' \\
  -H 'Prefer: wait' \\
  -d ${shell(pretty({ model, input }, 0))}` },
  { id: "python", label: "Python", write: ({ base, model, input }) => `import os
import requests

session = requests.Session()
session.headers["Authorization"] = "Bearer " + os.environ["FOURSTEP_KEY"]

prediction = session.post(
    ${json(`${base}predictions`)},
    json={
        "model": ${json(model)},
        "input": ${python(input, 8)},
    },
).json()
while prediction["status"] in ("starting", "processing"):
    prediction = session.get(prediction["urls"]["get"], params={"wait": 60}).json()

print(prediction["output"], prediction["metrics"]["cost"])` },
  { id: "javascript", label: "JavaScript", write: ({ base, model, input }) => `const headers = {
  Authorization: "Bearer " + process.env.FOURSTEP_KEY,
  "Content-Type": "application/json",
};
const created = await fetch(${json(`${base}predictions`)}, {
  method: "POST",
  headers,
  body: JSON.stringify({
    model: ${json(model)},
    input: ${pretty(input, 4)},
  }),
});
let prediction = await created.json();
while (["starting", "processing"].includes(prediction.status)) {
  prediction = await (await fetch(prediction.urls.get + "?wait=60", { headers })).json();
}

console.log(prediction.output, prediction.metrics.cost);` },
  { id: "replicate-python", label: "Replicate (Python)", needs: "replicate", write: ({ base, model, input }) => `import os
import replicate

client = replicate.Client(base_url=${json(base.replace(/\/$/, ""))}, api_token=os.environ["FOURSTEP_KEY"])
output = client.run(
    ${json(model)},
    input=${python(input, 4)},
)
print(output)` },
  { id: "replicate-javascript", label: "Replicate (JavaScript)", needs: "replicate", write: ({ base, model, input }) => `import Replicate from "replicate";

const replicate = new Replicate({ baseUrl: ${json(`${base}v1`)}, auth: process.env.FOURSTEP_KEY });
const output = await replicate.run(${json(model)}, {
  input: ${pretty(input, 2)},
});
console.log(output);` },
  { id: "eachlabs", label: "Eachlabs", needs: "eachlabs", write: ({ base, model, input }) => `curl -sS ${base}v1/prediction \\
  -H "X-API-Key: $FOURSTEP_KEY" \\
  -H 'Content-Type: application/json' \\
  -d ${shell(pretty({ model: model.split("/").pop(), input }, 0))}` },
];
