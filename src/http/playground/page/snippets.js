// The API tab: the call the form would make, to copy.

import { html, useState } from "./vendor/preact-htm.js";
import { LANGUAGES } from "./calls.js";
import { Copy } from "./output.js";

/** @typedef {import("./api.js").Input} Input */

/** @param {{base: string, model: string, example: string, input: Input, made?: Input, faces: {[name: string]: string}}} given */
export function Snippets({ base, model, example, input: form, made, faces }) {
  const [chosen, choose] = useState("curl");
  const [ofRun, setOfRun] = useState(true);
  // What has just run, until the form says something else and its reader asks for that.
  const differs = made !== undefined && JSON.stringify(made) !== JSON.stringify(form);
  const input = differs && ofRun ? made : { prompt: example, ...form };
  const languages = LANGUAGES.filter(({ needs }) => !needs || faces[needs]);
  const language = languages.find(({ id }) => id === chosen) ?? languages[0];
  // An image as text would bury the rest.
  const shown = Object.fromEntries(Object.entries(input).map(([name, value]) =>
    [name, typeof value === "string" && value.startsWith("data:") && value.length > 200 ? `${value.slice(0, 40)}…` : value]));
  const text = language.write({ base, model, input });
  const arrows = (/** @type {KeyboardEvent} */ event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!step) return;
    const next = languages[(languages.indexOf(language) + step + languages.length) % languages.length];
    choose(next.id);
    document.getElementById(`language-${next.id}`)?.focus();
  };
  return html`<section class="card" aria-labelledby="api-title">
    <header class="row spread"><h1 id="api-title">Call it</h1><${Copy} text=${text} label="Copy" /></header>
    <p>${made && (ofRun || !differs) ? "The call that was just made." : "What the form would send now."} Put your key into the environment first, as <code>FOURSTEP_KEY</code>.</p>
    ${differs && html`<p class="row"><span class="hint">The form has changed since.</span>
      <button type="button" class="quiet" onClick=${() => setOfRun(!ofRun)}>${ofRun ? "Show what it would send now" : "Show the call that was made"}</button></p>`}
    <div class="chips" role="tablist" aria-label="Languages" onKeyDown=${arrows}>
      ${languages.map(({ id, label }) => html`<button type="button" role="tab" class="chip" id=${`language-${id}`} aria-selected=${id === language.id}
        aria-controls="snippet" tabindex=${id === language.id ? 0 : -1} onClick=${() => choose(id)}>${label}</button>`)}
    </div>
    ${language.install && html`<p class="hint install">Needs <code>${language.install}</code></p>`}
    <pre id="snippet" role="tabpanel" aria-labelledby=${`language-${language.id}`} tabindex="0"><code>${language.write({ base, model, input: shown })}</code></pre>
    <h2>Where everything is</h2>
    <dl class="endpoints">
      ${[["POST /predictions", "creates; with Prefer: wait the answer comes when it is done"],
        ["GET /predictions/{id}?wait=60", "the prediction, when it is done or after a minute"],
        ["GET /predictions/{id}/events", "the same as a stream: queued, step with a preview, finished"],
        ["POST /predictions/{id}/cancel", "cancels, also in the middle of a run"],
        ["GET /predictions", "yours, newest first"],
        ["GET /models", "what can be run, with a JSON Schema of the input"]].map(([call, what]) => html`<div><dt><code>${call}</code></dt><dd>${what}</dd></div>`)}
    </dl>
  </section>`;
}
