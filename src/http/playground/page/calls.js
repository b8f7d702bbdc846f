// The call the form makes, in the languages people write. The tests run every one of them.

/** @typedef {{base: string, model: string, input: {[name: string]: any}}} Call */

/** @param {unknown} value */
const json = (value) => JSON.stringify(value);
/** @param {unknown} value @param {number} indent */
const pretty = (value, indent) => JSON.stringify(value, null, 2).replaceAll("\n", `\n${" ".repeat(indent)}`);

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

/** Rust's strings for JSON's; the rest of it the macro takes as it is. @param {unknown} value @param {number} indent */
const rust = (value, indent) => pretty(value, indent).replace(/\\(["\\nrt]|u[0-9a-f]{4}|.)/g, (written, letter) =>
  letter === "b" ? "\\u{8}" : letter === "f" ? "\\u{c}" : letter.length > 1 ? `\\u{${letter.slice(1)}}` : written);

/** @param {Call["input"]} input */
const fileFor = (input) => `picture.${input.output_format ?? "png"}`;

/** @type {{id: string, label: string, needs?: string, install?: string, write: (call: Call) => string}[]} */
export const LANGUAGES = [
  { id: "curl", label: "curl", write: ({ base, model, input }) => `curl -sS ${base}predictions \\
  -H "Authorization: Bearer $FOURSTEP_KEY" \\
  -H 'Content-Type: application/json' \\
  -H 'Prefer: wait' \\
  -d @- <<'JSON'
${pretty({ model, input }, 0)}
JSON` },
  { id: "python", label: "Python", install: "pip install requests", write: ({ base, model, input }) => `import os
import requests

session = requests.Session()
session.headers["Authorization"] = "Bearer " + os.environ["FOURSTEP_KEY"]

created = session.post(
    ${json(`${base}predictions`)},
    json={
        "model": ${json(model)},
        "input": ${python(input, 8)},
    },
)
created.raise_for_status()
prediction = created.json()
while prediction["status"] in ("starting", "processing"):
    prediction = session.get(prediction["urls"]["get"], params={"wait": 60}).json()

print(prediction["status"], prediction["output"])` },
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
if (!created.ok) throw new Error(await created.text());
let prediction = await created.json();
while (["starting", "processing"].includes(prediction.status)) {
  prediction = await (await fetch(prediction.urls.get + "?wait=60", { headers })).json();
}

console.log(prediction.status, prediction.output);` },
  { id: "rust", label: "Rust", install: "cargo add ureq --features json && cargo add serde_json", write: ({ base, model, input }) => `use serde_json::{Value, json};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let key = format!("Bearer {}", std::env::var("FOURSTEP_KEY")?);
    let mut prediction: Value = ureq::post(${json(`${base}predictions`)})
        .header("Authorization", &key)
        .send_json(json!(${rust({ model, input }, 8)}))?
        .body_mut()
        .read_json()?;
    while let Some("starting" | "processing") = prediction["status"].as_str() {
        let url = prediction["urls"]["get"].as_str().ok_or("no URL")?.to_owned();
        prediction = ureq::get(url)
            .query("wait", "60")
            .header("Authorization", &key)
            .call()?
            .body_mut()
            .read_json()?;
    }
    println!("{} {}", prediction["status"], prediction["output"]);
    Ok(())
}` },
  { id: "replicate-python", label: "Replicate, Python", needs: "replicate", install: "pip install replicate", write: ({ base, model, input }) => `import os
import replicate

client = replicate.Client(base_url=${json(`${base}replicate`)}, api_token=os.environ["FOURSTEP_KEY"])
[picture, *others] = client.run(
    ${json(model)},
    input=${python(input, 4)},
)
with open(${json(fileFor(input))}, "wb") as file:
    file.write(picture.read())` },
  { id: "replicate-javascript", label: "Replicate, JavaScript", needs: "replicate", install: "npm install replicate", write: ({ base, model, input }) => `import { writeFile } from "node:fs/promises";
import Replicate from "replicate";

const replicate = new Replicate({ baseUrl: ${json(`${base}replicate/v1`)}, auth: process.env.FOURSTEP_KEY });
const [picture] = await replicate.run(${json(model)}, {
  input: ${pretty(input, 2)},
});
await writeFile(${json(fileFor(input))}, picture);` },
  { id: "eachlabs", label: "Eachlabs", needs: "eachlabs", install: "pip install requests", write: ({ base, model, input }) => `import os
import time
import requests

API = ${json(`${base}eachlabs/v1/prediction/`)}
HEADERS = {"X-API-Key": os.environ["FOURSTEP_KEY"]}

created = requests.post(API, headers=HEADERS, json={
    "model": ${json(model.split("/").pop())},
    "version": "0.0.1",
    "input": ${python(input, 4)},
})
created.raise_for_status()
prediction = {"status": "created"}
while prediction["status"] in ("created", "processing"):
    time.sleep(1)
    prediction = requests.get(API + created.json()["predictionID"], headers=HEADERS).json()

print(prediction["status"], prediction["output"])` },
];
