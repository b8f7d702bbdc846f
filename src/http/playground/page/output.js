// What a run looks like: the queue, the steps with their previews, the pictures, and what can be done with them.

import { html, useEffect, useState } from "./vendor/preact-htm.js";
import { base, isEcho, local, picture } from "./api.js";
import { copy, exact, fileName, money, seconds } from "./format.js";
import { Icon, Steps } from "./icons.js";
import { wordFor } from "./run.js";

/** @typedef {import("./run.js").Run} Run */

/** @param {{run: Run | null, price: number, examples: string[], canUseAsInput: boolean, onExample: (prompt: string) => void, onStop: () => void,
 *   onRetry: () => void, onVary: () => void, onKeepSeed: (seed: number | undefined) => void, onUse: (url: string) => Promise<void>, locked?: number}} given `locked` is the form's seed */
export function Output({ run, price, examples, canUseAsInput, onExample, onStop, onRetry, onVary, onKeepSeed, onUse, locked }) {
  if (!run) return html`<${Empty} examples=${examples} onExample=${onExample} />`;
  const { phase, prediction, refusal } = run;
  const isRunning = ["sending", "queued", "running"].includes(phase);
  const pictures = phase === "ended" ? prediction?.output ?? [] : [];
  const drawn = pictures.length > 0 || isRunning;
  return html`<section class="card output" aria-labelledby="output-title">
    <header class="row spread">
      <h2 id="output-title">Output</h2>
      <${State} run=${run} />
    </header>
    ${drawn
      ? html`<div class=${`stage count-${run.outputs}`} style=${{ "--shape": run.width / run.height }}>
          ${Array.from({ length: run.outputs }, (_, index) => html`<${Tile} key=${`${prediction?.id}-${index}`} run=${run} index=${index} url=${pictures[index]}
            canUseAsInput=${canUseAsInput} onUse=${onUse} onKeepSeed=${onKeepSeed} locked=${locked} />`)}
        </div>`
      : html`<${Trouble} run=${run} />`}
    ${isRunning && html`<${Progress} run=${run} price=${price} />`}
    <footer class="row">
      ${isRunning
        ? html`<button type="button" disabled=${!prediction || run.canceling} onClick=${onStop}>${run.canceling ? "Canceling …" : "Cancel"}</button>`
        : html`<button type="button" onClick=${onRetry}><${Icon} name="again" />${refusal || prediction?.status === "failed" ? "Try again" : "Run again"}</button>
            ${pictures.length > 0 && html`<button type="button" title="The next seed" onClick=${onVary}><${Icon} name="vary" />Vary</button>
              <${Copy} text=${parameters(run)} label="Copy parameters" icon="copy" />`}`}
    </footer>
    ${phase === "ended" && prediction && html`<${Receipt} prediction=${prediction} />`}
  </section>`;
}

/** What makes it again, as JSON. @param {{input: import("./api.js").Input, prediction?: import("./api.js").Prediction}} run */
export function parameters({ input, prediction }) {
  return JSON.stringify({ ...input, ...(prediction?.seeds[0] !== undefined && { seed: prediction.seeds[0] }) }, null, 2);
}

/** Nothing yet. @param {{examples: string[], onExample: (prompt: string) => void}} given */
function Empty({ examples, onExample }) {
  return html`<section class="card output empty" aria-labelledby="output-title">
    <header><h2 id="output-title">Output</h2></header>
    <div class="blank">
      <${Steps} />
      <p>Four steps from noise to a picture. Yours appears here.</p>
      <ul class="examples" aria-label="Examples">
        ${examples.map((prompt) => html`<li><button type="button" class="chip" onClick=${() => onExample(prompt)}>${prompt}</button></li>`)}
      </ul>
    </div>
  </section>`;
}

/** The state in a word, also for those who listen. @param {{run: Run}} given */
function State({ run }) {
  const { phase, prediction, away } = run;
  const word = wordFor(run);
  const tone = away ? "waiting" : phase === "refused" || prediction?.status === "failed" ? "bad" : word === "Done" ? "good" : "waiting";
  return html`<span class=${`pill ${tone}`} role="status">${word}</span>`;
}

/** Why there is no picture. @param {{run: Run}} given */
function Trouble({ run: { refusal, prediction } }) {
  if (prediction?.data_removed) return html`<div class="trouble"><p>This one's pictures have been deleted: they are kept for a while only.</p></div>`;
  if (!refusal && prediction?.status === "canceled") return html`<div class="trouble"><p>Canceled${prediction.error ? `: ${prediction.error}` : ""}.</p></div>`;
  return html`<div class="trouble bad" role="alert">
    <p><strong>${refusal?.fields.length ? "This cannot be drawn." : refusal ? refusal.message : prediction?.error}</strong></p>
    ${refusal?.fields.map(({ field, reason }) => html`<p><code>${field}</code> ${reason}</p>`)}
    ${refusal?.status === 0 && html`<p>Is it still running? Nothing was lost: what it had accepted it still has.</p>`}
  </div>`;
}

/** @param {{run: Run, price: number}} given */
function Progress({ run, price }) {
  const total = run.total || 4;
  const text = run.phase === "running" ? (run.step ? `Step ${run.step} of ${run.total}` : "Starting")
    : run.position ? `Position ${run.position} in the queue${run.eta ? `, about ${seconds(run.eta)}` : ""}` : "Sending";
  return html`<div class="progress">
    <div class="steps" role="progressbar" aria-label="Steps" aria-valuemin="0" aria-valuemax=${total} aria-valuenow=${run.step}>
      ${Array.from({ length: Math.min(total, 40) }, (_, index) => html`<i class=${index < (run.step * Math.min(total, 40)) / total ? "done" : ""}></i>`)}
    </div>
    <p class="row spread"><span>${text}</span>${run.since !== undefined && html`<${Meter} since=${run.since} price=${price} />`}</p>
  </div>`;
}

/** Time and money as they pass. @param {{since: number, price: number}} given */
function Meter({ since, price }) {
  const [now, setNow] = useState(performance.now());
  useEffect(() => {
    const timer = setInterval(() => setNow(performance.now()), 100);
    return () => clearInterval(timer);
  }, []);
  const elapsed = Math.max(0, (now - since) / 1000);
  return html`<span class="figures" data-meter>${elapsed.toFixed(1)} s · ${money(elapsed * price)}</span>`;
}

/** One picture: its place, its previews, itself. @param {{run: Run, index: number, url?: string, canUseAsInput: boolean,
 *   onUse: (url: string) => Promise<void>, onKeepSeed: (seed: number | undefined) => void, locked?: number}} given */
function Tile({ run, index, url, canUseAsInput, onUse, onKeepSeed, locked }) {
  const [loaded, setLoaded] = useState(false);
  const [failed, setFailed] = useState(false);
  const preview = run.previews[index];
  const source = url && local(url);
  const prompt = run.input.prompt ?? "A picture";
  const seed = run.prediction?.seeds[index] ?? 0;
  // The nearer the end of its own steps, the sharper.
  const steps = run.total / run.outputs || 1;
  const blur = 1 - Math.min(1, Math.max(0, run.step / steps - index));
  return html`<figure class="tile">
    <div class=${preview || source ? "frame" : "frame waiting"}>
      ${preview && !loaded && html`<img class="preview" data-preview src=${preview} alt="" style=${{ filter: `blur(${(blur * 6).toFixed(1)}px)` }} />`}
      ${source && !failed && html`<img class=${loaded ? "picture loaded" : "picture"} src=${source} width=${run.width} height=${run.height} alt=${prompt}
        onLoad=${() => setLoaded(true)} onError=${() => setFailed(true)} />`}
      ${failed && html`<div class="trouble missing" role="alert"><p>The picture is drawn, but did not arrive.</p>
        <button type="button" onClick=${() => setFailed(false)}>Try again</button></div>`}
      ${loaded && run.input.image && html`<${Compare} before=${run.input.image} />`}
    </div>
    ${source && html`<figcaption class="row">
      <button type="button" class="quiet" aria-pressed=${locked === seed} title="Keep this seed"
        onClick=${() => onKeepSeed(locked === seed ? undefined : seed)}>Seed ${seed}</button>
      <span class="row">
      ${canUseAsInput && html`<${Action} icon="input" label="Use as input" act=${() => onUse(source)} />`}
      <${Copy} text=${source} label="Copy link" icon="link" quiet />
      <${Download} url=${source} name=${fileName(prompt, seed, source)} /></span>
    </figcaption>`}
  </figure>`;
}

/** The image it started from, over the picture and up to a line that can be moved. @param {{before: string}} given */
function Compare({ before }) {
  const [cut, setCut] = useState(50);
  // Of elsewhere there is nothing on this page.
  if (isEcho(before) || !(before.startsWith("data:") || local(before).startsWith(base))) return null;
  return html`<div class="compare" style=${{ "--cut": `${cut}%` }}>
    <img class="before" src=${local(before)} alt="" />
    <span class="tag">Before</span><span class="tag">After</span>
    <i></i>
    <input type="range" aria-label="Before and after" min="0" max="100" value=${cut} onInput=${(/** @type {any} */ event) => setCut(Number(event.target.value))} />
  </div>`;
}

/** What may fail, and then says why. @param {{icon: keyof typeof import("./icons.js").PATHS, label: string, act: () => Promise<void>}} given */
function Action({ icon, label, act }) {
  const [trouble, setTrouble] = useState("");
  const click = () => {
    setTrouble("");
    act().catch((error) => setTrouble(error.message));
  };
  return html`<button type="button" class="quiet" onClick=${click}><${Icon} name=${icon} />${label}</button>
    ${trouble && html`<span class="error" role="alert">${trouble}</span>`}`;
}

/** Saves a picture. @param {{url: string, name: string}} given */
export function Download({ url, name }) {
  const save = async () => {
    const file = URL.createObjectURL(await picture(url));
    const link = Object.assign(document.createElement("a"), { href: file, download: name });
    link.click();
    setTimeout(() => URL.revokeObjectURL(file), 10_000);
  };
  return html`<${Action} icon="download" label="Download" act=${save} />`;
}

/** What it took. @param {{prediction: import("./api.js").Prediction}} given */
function Receipt({ prediction: { metrics, model, logs } }) {
  const standIn = logs.split("\n").find((line) => line.includes("stands in"));
  return html`<dl class="receipt">
    ${metrics && html`
      <div><dt>Device time</dt><dd>${seconds(metrics.predict_time)}</dd></div>
      <div><dt>In all</dt><dd>${seconds(metrics.total_time)}</dd></div>
      <div><dt>Cost</dt><dd data-cost>${exact(metrics.cost)}</dd></div>`}
    <div><dt>Drawn by</dt><dd>${model}</dd></div>
    ${standIn && html`<p class="hint">${standIn}.</p>`}
  </dl>`;
}

/** @param {{text: string, label: string, icon?: string, quiet?: boolean}} given */
export function Copy({ text, label, icon, quiet }) {
  const [said, setSaid] = useState("");
  const click = async () => {
    setSaid((await copy(text)) ? "Copied" : "Could not copy");
    setTimeout(() => setSaid(""), 1500);
  };
  return html`<button type="button" class=${quiet ? "quiet" : ""} onClick=${click}>${icon && html`<${Icon} name=${icon} />`}<span aria-live="polite">${said || label}</span></button>`;
}
