// One prediction of the history, with all there is to know about it.

import { html, useEffect, useRef } from "./vendor/preact-htm.js";
import { isEcho, local } from "./api.js";
import { clock, day, exact, fileName, seconds } from "./format.js";
import { Icon } from "./icons.js";
import { Copy, Download, parameters } from "./output.js";

/** @typedef {import("./api.js").Prediction} Prediction */

/** @param {{prediction: Prediction, word: string, onClose: () => void, onOpen: () => void}} given */
export function Detail({ prediction, word, onClose, onOpen }) {
  const dialog = useRef(/** @type {HTMLDialogElement | null} */ (null));
  useEffect(() => dialog.current?.showModal(), []);
  const { id, model, version, input, output, error, metrics, seeds, created_at, started_at, data_removed } = prediction;
  const close = () => dialog.current?.close();
  // The dialog's own padding is it as well, and what begins inside, like text being selected, does not close it.
  const beganOutside = useRef(false);
  const isOutside = (/** @type {MouseEvent} */ { clientX: x, clientY: y }) => {
    const { left, right, top, bottom } = /** @type {HTMLDialogElement} */ (dialog.current).getBoundingClientRect();
    return x < left || x > right || y < top || y > bottom;
  };
  const prompt = input.prompt || (data_removed ? "Deleted" : "The model's own example");
  const waited = started_at ? (Date.parse(started_at) - Date.parse(created_at)) / 1000 : null;
  const facts = [
    ["Status", word],
    ["Made", `${day(created_at)}, ${clock(created_at)}`],
    waited !== null && ["Waited", seconds(Math.max(0, waited))],
    metrics && ["Device time", seconds(metrics.predict_time)],
    metrics && ["Cost", exact(metrics.cost)],
    seeds.length > 0 && [seeds.length > 1 ? "Seeds" : "Seed", seeds.join(", ")],
    ["Drawn by", model],
    ["Id", html`<code>${id}</code>`],
  ].filter((fact) => fact !== false && fact !== null);
  const shown = Object.entries(input).filter(([name]) => name !== "prompt");
  return html`<dialog class="detail card" ref=${dialog} aria-labelledby="detail-title" onClose=${onClose}
    onMouseDown=${(/** @type {MouseEvent} */ event) => (beganOutside.current = isOutside(event))}
    onClick=${(/** @type {MouseEvent} */ event) => event.target === dialog.current && beganOutside.current && isOutside(event) && close()}>
    <header class="row spread"><h2 id="detail-title">${prompt}</h2>
      <button type="button" class="square quiet" aria-label="Close" onClick=${close}><${Icon} name="close" /></button></header>
    <div class="detail-body">
      <div class="pictures">
        ${output?.map((url, index) => html`<figure>
          <img src=${local(url)} alt=${prompt} />
          <figcaption class="row"><${Copy} text=${local(url)} label="Copy link" icon="link" quiet />
            <${Download} url=${local(url)} name=${fileName(prompt, seeds[index] ?? 0, url)} /></figcaption>
        </figure>`) ?? html`<div class=${error ? "trouble bad" : "trouble"}><p>${error ?? (data_removed
          ? "Its pictures have been deleted: they are kept for a while only." : "There is no picture.")}</p></div>`}
      </div>
      <div>
        <dl class="facts">${facts.map(([name, fact]) => html`<div><dt>${name}</dt><dd>${fact}</dd></div>`)}</dl>
        ${shown.length > 0 && html`<h3>Parameters</h3><dl class="facts">${shown.map(([name, value]) => html`<div><dt><code>${name}</code></dt>
          <dd>${isEcho(value) ? "an image of your own" : String(value)}</dd></div>`)}</dl>`}
        <p class="hint">Version <code>${version.slice(0, 12)}</code></p>
      </div>
    </div>
    <footer class="row">
      <button type="button" class="primary" onClick=${() => { close(); onOpen(); }}>Open in the playground</button>
      <${Copy} text=${parameters({ input, prediction })} label="Copy parameters" icon="copy" />
    </footer>
  </dialog>`;
}
