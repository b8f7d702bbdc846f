// The server as the page sees it. The key travels in a header and nowhere else.

/**
 * @typedef {{field: string, reason: string}} InvalidField
 * @typedef {{[name: string]: any}} Input
 * @typedef {{type: string, title?: string, description?: string, default?: any, minimum?: number, maximum?: number,
 *   multipleOf?: number, enum?: string[], format?: string, "x-order"?: number}} Property
 * @typedef {{name: string, slug: string, title: string, description: string, version: string, answered_by: string | null,
 *   price_per_second: number, typical_run_seconds: number, input_schema: {properties: {[name: string]: Property}}}} Model
 * @typedef {{id: string, model: string, version: string, status: string, input: Input, output: string[] | null,
 *   error: string | null, error_code: string | null, logs: string, seeds: number[],
 *   metrics: {predict_time: number, total_time: number, cost: number} | null, queue_position: number | null,
 *   eta_seconds: number | null, created_at: string, started_at: string | null, completed_at: string | null,
 *   data_removed: boolean}} Prediction
 * @typedef {{predict_time: number, queue_time: number, cost: number}} Estimate
 * @typedef {{type: "queued", position: number, eta_seconds: number}
 *   | {type: "started", attempt: number, started_at: string}
 *   | {type: "step", step: number, total: number, finished_images: number, elapsed_seconds: number, preview: string | null}
 *   | {type: "away"}
 *   | ({type: "finished"} & Prediction)} Event
 */

const KEY = "fourstep-key";
const NO_ANSWER = "The server does not answer.";
const NOT_OURS = "What answers there is not this server.";

/** Where the server is, also behind a proxy that gives it a folder. */
export const base = new URL(".", document.baseURI).href;

/** A request that was refused, or, with status 0, that reached nobody. */
export class Refusal extends Error {
  /**
   * @param {number} status
   * @param {string} message
   * @param {InvalidField[]} fields
   */
  constructor(status, message, fields = []) {
    super(message);
    this.status = status;
    this.fields = fields;
    /** What was sent. @type {string | null} */
    this.key = null;
  }
}

/** @returns {string | null} */
export function storedKey() {
  return localStorage.getItem(KEY);
}

/** @param {string} key */
export function storeKey(key) {
  localStorage.setItem(KEY, key);
}

/** Forgets the key, unless another tab has stored another one meanwhile. @param {string | null} key */
export function forgetKey(key) {
  if (storedKey() === key) localStorage.removeItem(KEY);
}

/** Calls back when another tab has stored or forgotten a key. @param {() => void} act */
export function onOtherKey(act) {
  const hear = (/** @type {StorageEvent} */ { key }) => (key === KEY || key === null) && act();
  addEventListener("storage", hear);
  return () => removeEventListener("storage", hear);
}

/** Takes the key of a link like `/#key=fs_…`, and takes it out of the address at once. In the place of another only if its
 * reader wants that: anybody can write a link. */
export function takeKeyFromLink() {
  const key = new URLSearchParams(location.hash.slice(1)).get("key");
  if (!key) return;
  history.replaceState(null, "", location.pathname);
  const known = storedKey();
  if (known && known !== key && !confirm("Use the key of this link from now on, and forget the one that this browser keeps?")) return;
  storeKey(key);
}

/**
 * @param {string} path
 * @param {RequestInit} options
 */
async function request(path, options = {}) {
  const key = storedKey();
  const headers = { ...options.headers, Authorization: `Bearer ${key ?? ""}` };
  try {
    return await reach(base + path, { ...options, headers, cache: "no-store" });
  } catch (error) {
    if (error instanceof Refusal) error.key = key;
    throw error;
  }
}

/** An answer that is not a refusal. @param {string} url @param {RequestInit} options */
async function reach(url, options = {}) {
  let response;
  try {
    response = await fetch(url, options);
  } catch (error) {
    if (options.signal?.aborted) throw error;
    throw new Refusal(0, NO_ANSWER);
  }
  if (response.ok) return response;
  const problem = (await response.json().catch(() => null)) ?? {};
  // A proxy says so of what is behind it.
  if ([502, 504].includes(response.status)) throw new Refusal(0, `The server could not be reached (${response.status}).`);
  // The form's fields are the input's.
  const fields = (problem.invalid_fields ?? []).map((/** @type {InvalidField} */ { field, reason }) => ({ field: field.replace(/^input\./, ""), reason }));
  throw new Refusal(response.status, explain(response, problem), fields);
}

/** An answer's object, which has that member: what stands before the server may answer with anything. @param {Response} response @param {string} member */
async function read(response, member) {
  const object = await response.json().catch((error) => {
    throw new Refusal(0, error instanceof SyntaxError ? NOT_OURS : NO_ANSWER);
  });
  if (object?.[member] === undefined) throw new Refusal(0, NOT_OURS);
  return object;
}

/**
 * @param {Response} response
 * @param {{detail?: string}} problem
 */
function explain(response, problem) {
  const detail = problem.detail ?? (response.status === 413 ? "this is larger than may be sent" : `the answer was ${response.status}`);
  const again = response.headers.get("Retry-After");
  const when = again ? ` Try again in ${again} s.` : "";
  if (response.status === 401) return "This key is not known here.";
  if (response.status === 403) return `This key may not do that: ${detail}.`;
  if (response.status === 402) return `There is not enough money: ${detail}.`;
  if (response.status === 429) return `Too many requests: ${detail}.${when}`;
  if (response.status === 503) return `The server is busy: ${detail}.${when}`;
  return `${detail.charAt(0).toUpperCase()}${detail.slice(1)}.`;
}

/** @returns {Promise<Model[]>} */
export async function models() {
  return (await read(await request("models"), "results")).results;
}

/** What other APIs there are here. @returns {Promise<{[name: string]: string}>} */
export async function discover() {
  const response = await fetch(base, { headers: { Accept: "application/json" }, cache: "no-store" });
  return response.json();
}

/**
 * @param {string} model
 * @param {Input} input
 * @param {string} intent creates with the same one make one prediction
 * @returns {Promise<Prediction>}
 */
export async function create(model, input, intent) {
  const body = JSON.stringify({ model, input });
  const headers = { "Content-Type": "application/json", "Idempotency-Key": intent };
  return read(await request("predictions", { method: "POST", headers, body }), "id");
}

/**
 * @param {string} model
 * @param {Input} input
 * @param {AbortSignal} signal
 * @returns {Promise<Estimate>}
 */
export async function estimate(model, input, signal) {
  const body = JSON.stringify({ model, input });
  const headers = { "Content-Type": "application/json" };
  return read(await request("estimate", { method: "POST", headers, body, signal }), "predict_time");
}

/** @param {string} id @returns {Promise<Prediction>} */
export async function get(id) {
  return read(await request(`predictions/${id}`), "id");
}

/** @param {string} id @returns {Promise<Prediction>} */
export async function cancel(id) {
  return read(await request(`predictions/${id}/cancel`, { method: "POST" }), "id");
}

/**
 * @param {string} query
 * @returns {Promise<{results: Prediction[], next: string | null}>}
 */
export async function list(query) {
  return read(await request(`predictions${query}`), "results");
}

/** What this month took, the latest day first; the days are the server's, in UTC. @returns {Promise<import("./usage.js").Day[]>} */
export async function usage() {
  const { results } = await read(await request("usage?group_by=day"), "results");
  const days = results.map((/** @type {any} */ { group, succeeded, failed, canceled, predict_time, cost }) =>
    ({ day: group, runs: succeeded + failed + canceled, seconds: predict_time, cost }));
  return days.sort((/** @type {any} */ one, /** @type {any} */ other) => (one.day < other.day ? 1 : -1));
}

/** A picture's bytes. @param {string} url */
export async function picture(url) {
  const response = await reach(url).catch((refusal) => {
    throw refusal.status === 404 ? new Refusal(404, "This picture is not kept any more.") : refusal;
  });
  const blob = await response.blob().catch(() => null);
  if (!blob) throw new Refusal(0, NO_ANSWER);
  if (!blob.type.startsWith("image/")) throw new Refusal(0, "What came is not a picture.");
  return blob;
}

/** An output through the server this page came from, whatever the server calls itself. @param {string} url */
export function local(url) {
  return url.replace(/^https?:\/\/[^?]*?\/files\//, `${base}files/`);
}

/** Whether an image is only what answers have in the place of one that was sent in full. @param {unknown} image */
export function isEcho(image) {
  return typeof image === "string" && image.startsWith("data:") && image.includes("…");
}

/**
 * Follows a prediction until it has ended, whatever happens to the connection.
 * @param {string} id
 * @param {AbortSignal} signal
 * @param {(event: Event) => void} tell
 */
export async function follow(id, signal, tell) {
  let last = "";
  for (;;) {
    try {
      const headers = { Accept: "text/event-stream", ...(last && { "Last-Event-ID": last }) };
      const response = await request(`predictions/${id}/events`, { headers, signal });
      if (!response.body || !response.headers.get("Content-Type")?.startsWith("text/event-stream")) throw new Refusal(0, NOT_OURS);
      for await (const { event, id, data } of events(response.body)) {
        last = id || last;
        tell({ ...JSON.parse(data), type: event });
        if (event === "finished") return;
      }
    } catch (error) {
      if (signal.aborted) return;
      // 429 passes by itself.
      if (error instanceof Refusal && error.status >= 400 && error.status < 500 && error.status !== 429) throw error;
      tell({ type: "away" });
    }
    await new Promise((resume) => setTimeout(resume, 1000));
    if (signal.aborted) return;
  }
}

/** The events of a stream. @param {ReadableStream<Uint8Array>} body */
async function* events(body) {
  const reader = body.pipeThrough(/** @type {any} */ (new TextDecoderStream())).getReader();
  let text = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    text += value;
    const blocks = text.split("\n\n");
    text = blocks.pop() ?? "";
    for (const block of blocks) {
      const event = { event: "", id: "", data: "" };
      for (const line of block.split("\n")) {
        const [, name, content] = /^(event|id|data): ?(.*)$/.exec(line) ?? [];
        if (name) event[/** @type {"event"} */ (name)] += content;
      }
      if (event.data) yield event;
    }
  }
}
