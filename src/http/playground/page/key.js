// The key, asked for once.

import { html, useState } from "./vendor/preact-htm.js";
import { storeKey } from "./api.js";
import { Steps } from "./icons.js";

/** @param {{wrong: boolean, onKey: () => void}} properties */
export function KeyForm({ wrong, onKey }) {
  const [key, setKey] = useState("");
  const submit = (/** @type {Event} */ event) => {
    event.preventDefault();
    if (!key.trim()) return;
    storeKey(key.trim());
    onKey();
  };
  return html`<section class="card key-form">
    <${Steps} />
    <h1>Draw something</h1>
    <p>Four steps from noise to a picture, each one to watch. This server asks for an API key first: it is kept in this browser, and
      sent to this server alone.</p>
    <form onSubmit=${submit}>
      <label for="key">API key</label>
      <div class="row">
        <input id="key" type="password" autocomplete="off" spellcheck="false" placeholder="fs_…" value=${key}
          onInput=${(/** @type {any} */ event) => setKey(event.target.value)}
          aria-invalid=${wrong ? "true" : undefined} aria-describedby="key-help" />
        <button class="primary" type="submit">Continue</button>
      </div>
      <p id="key-help" class=${wrong ? "error" : "hint"} role=${wrong ? "alert" : undefined}>
        ${wrong ? "This key is not known here. " : ""}
        A server started by hand prints a link with its first key, and keeps that key in the file
        <code> data/key</code>. Another: <code>fourstep keys create --name me</code>.
      </p>
    </form>
  </section>`;
}
