// What was drawn before, by day.

import { html, useEffect, useState } from "./vendor/preact-htm.js";
import { list, local } from "./api.js";
import { clock, day, money, seconds } from "./format.js";

/** @typedef {import("./api.js").Prediction} Prediction */

const STATUSES = [["", "All"], ["succeeded", "Done"], ["processing", "Drawing"], ["starting", "Queued"], ["failed", "Failed"], ["canceled", "Canceled"]];
const PAGE = 24;

/** @param {{onShow: (prediction: Prediction) => void}} given */
export function History({ onShow }) {
  const [status, setStatus] = useState("");
  const [{ predictions, next, state }, setPage] = useState(
    /** @type {{predictions: Prediction[], next: string | null, state: string}} */ ({ predictions: [], next: null, state: "loading" }));
  const load = async (/** @type {string} */ query, /** @type {Prediction[]} */ before) => {
    try {
      const page = await list(query);
      setPage({ predictions: [...before, ...page.results], next: page.next && new URL(page.next).search, state: "" });
    } catch (error) {
      setPage({ predictions: before, next: null, state: /** @type {Error} */ (error).message });
    }
  };
  useEffect(() => {
    load(`?limit=${PAGE}${status && `&status=${status}`}`, []);
  }, [status]);
  /** @type {Map<string, Prediction[]>} */
  const days = new Map();
  for (const prediction of predictions) {
    const label = day(prediction.created_at);
    days.set(label, [...(days.get(label) ?? []), prediction]);
  }
  return html`<section class="history" aria-labelledby="history-title">
    <header class="row spread">
      <h1 id="history-title">History</h1>
      <label class="inline">Show <select value=${status} onChange=${(/** @type {any} */ event) => setStatus(event.target.value)}>
        ${STATUSES.map(([value, label]) => html`<option value=${value}>${label}</option>`)}</select></label>
    </header>
    ${state === "loading" ? html`<p class="hint">Loading …</p>` : state && html`<p class="error" role="alert">${state}</p>`}
    ${!state && !predictions.length && html`<div class="card blank"><p>${status ? "None of these." : "Nothing yet. What you draw is listed here."}</p></div>`}
    ${[...days].map(([label, ofDay]) => html`<section key=${label}>
      <h2 class="day row spread"><span>${label}</span><span class="hint">${ofDay.length} shown · ${money(ofDay.reduce((sum, { metrics }) => sum + (metrics?.cost ?? 0), 0))}</span></h2>
      <ul class="gallery">${ofDay.map((prediction) => html`<li key=${prediction.id}><${Entry} prediction=${prediction} onShow=${onShow} /></li>`)}</ul>
    </section>`)}
    ${next && html`<p class="center"><button type="button" onClick=${() => load(next, predictions)}>More</button></p>`}
  </section>`;
}

/** @param {{prediction: Prediction, onShow: (prediction: Prediction) => void}} given */
function Entry({ prediction, onShow }) {
  const { status, output, input, metrics, created_at } = prediction;
  const tone = { succeeded: "good", failed: "bad" }[status] ?? "waiting";
  const word = STATUSES.find(([value]) => value === status)?.[1] ?? status;
  return html`<button type="button" class="entry" onClick=${() => onShow(prediction)}>
    <span class="thumbnail">${output?.[0] ? html`<img src=${local(output[0])} alt="" loading="lazy" decoding="async" />` : html`<span class="hint">${word}</span>`}</span>
    <span class="words">${input.prompt || (prediction.data_removed ? "Deleted" : "The model's own example")}</span>
    <span class="row spread hint"><span class=${`pill ${tone}`}>${word}</span>
      <span>${metrics && metrics.cost > 0 ? `${seconds(metrics.predict_time)} · ${money(metrics.cost)}` : clock(created_at)}</span></span>
  </button>`;
}
