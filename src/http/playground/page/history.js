// What was drawn before, by day.

import { html, useEffect, useRef, useState } from "./vendor/preact-htm.js";
import { list, local, usage } from "./api.js";
import { Detail } from "./detail.js";
import { clock, day, money, seconds } from "./format.js";
import { Usage, daysOf } from "./usage.js";

/** @typedef {import("./api.js").Prediction} Prediction */

const STATUSES = [["", "All"], ["succeeded", "Done"], ["processing", "Drawing"], ["starting", "Queued"], ["failed", "Failed"], ["canceled", "Canceled"]];
const PAGE = 24;

/** @param {{onShow: (prediction: Prediction) => void}} given */
export function History({ onShow }) {
  const [status, setStatus] = useState("");
  const [month, setMonth] = useState(/** @type {import("./usage.js").Day[] | null} */ (null));
  const [open, setOpen] = useState(/** @type {Prediction | null} */ (null));
  const [{ predictions, next, state }, setPage] = useState(
    /** @type {{predictions: Prediction[], next: string | null, state: string}} */ ({ predictions: [], next: null, state: "loading" }));
  const latest = useRef(0);
  const load = async (/** @type {string} */ query, /** @type {Prediction[]} */ before) => {
    const question = ++latest.current;
    // An answer that comes after the next question is to none that is still asked.
    const answer = (/** @type {{predictions: Prediction[], next: string | null, state: string}} */ page) => question === latest.current && setPage(page);
    try {
      const page = await list(query);
      answer({ predictions: [...before, ...page.results], next: page.next && new URL(page.next).search, state: "" });
    } catch (error) {
      answer({ predictions: before, next: query, state: /** @type {Error} */ (error).message });
    }
  };
  useEffect(() => {
    setPage((page) => ({ ...page, next: null }));
    load(`?limit=${PAGE}${status && `&status=${status}`}`, []);
  }, [status]);
  useEffect(() => {
    // A key that may not read the accounts still has what it lists.
    usage().then(setMonth, () => setMonth([]));
  }, []);
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
    ${month && predictions.length > 0 && html`<${Usage} days=${month.length ? month : daysOf(predictions)} all=${month.length > 0} />`}
    ${[...days].map(([label, ofDay]) => html`<section key=${label}>
      <h2 class="day">${label}</h2>
      <ul class="gallery">${ofDay.map((prediction) => html`<li key=${prediction.id}><${Entry} prediction=${prediction} onOpen=${() => setOpen(prediction)} /></li>`)}</ul>
    </section>`)}
    ${open && html`<${Detail} key=${open.id} prediction=${open} word=${wordFor(open.status)} onClose=${() => setOpen(null)} onOpen=${() => onShow(open)} />`}
    ${next && html`<p class="center"><button type="button" onClick=${() => load(next, predictions)}>${state ? "Try again" : "More"}</button></p>`}
  </section>`;
}

/** @param {string} status */
const wordFor = (status) => STATUSES.find(([value]) => value === status)?.[1] ?? status;

/** @param {{prediction: Prediction, onOpen: () => void}} given */
function Entry({ prediction, onOpen }) {
  const { status, output, input, metrics, created_at } = prediction;
  const tone = { succeeded: "good", failed: "bad" }[status] ?? "waiting";
  const word = wordFor(status);
  return html`<button type="button" class="entry" onClick=${onOpen}>
    <span class="thumbnail">${output?.[0] ? html`<img src=${local(output[0])} alt="" loading="lazy" decoding="async" />` : html`<span class="hint">${word}</span>`}</span>
    <span class="words">${input.prompt || (prediction.data_removed ? "Deleted" : "The model's own example")}</span>
    <span class="row spread hint"><span class=${`pill ${tone}`}>${word}</span><span>${clock(created_at)}</span></span>
    <span class="row spread hint took">${metrics && metrics.cost > 0 && html`<span>${seconds(metrics.predict_time)}</span><span>${money(metrics.cost)}</span>`}</span>
  </button>`;
}
