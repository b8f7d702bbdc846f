// An image to start from: dropped, pasted, chosen, or by its URL.

import { html, useEffect, useState } from "./vendor/preact-htm.js";
import { Control } from "./form.js";
import { asInput, hasFiles } from "./image-file.js";
import { parametersOf } from "./provenance.js";

/**
 * @typedef {import("./api.js").Input} Input
 * @typedef {import("./form.js").Field} Field
 */

/** @param {Field & {strength?: Field, onParameters: (made: Input) => void}} given */
export function ImageInput({ name, value, error, set, strength, onParameters }) {
  const [over, setOver] = useState(false);
  const [made, setMade] = useState(/** @type {Input | null} */ (null));
  const [refused, setRefused] = useState("");
  const take = async (/** @type {Blob | null | undefined} */ file) => {
    if (!file) return;
    setRefused("");
    try {
      const uri = await asInput(file);
      setMade(await parametersOf(file));
      set(name, uri);
    } catch (error) {
      setRefused(/** @type {Error} */ (error).message);
    }
  };
  const choose = (/** @type {any} */ { target }) => {
    take(target.files[0]);
    // Else the same file would be no change.
    target.value = "";
  };
  useEffect(() => {
    const paste = (/** @type {ClipboardEvent} */ event) => {
      const image = [...(event.clipboardData?.files ?? [])].find((file) => file.type.startsWith("image/"));
      // Word and Excel add a picture of the text to the text; file managers the name to the file.
      const text = event.clipboardData?.getData("text/plain") ?? "";
      if (!image || (text && !text.includes(image.name))) return;
      event.preventDefault();
      take(image);
    };
    document.addEventListener("paste", paste);
    return () => document.removeEventListener("paste", paste);
  }, []);
  const drop = (/** @type {DragEvent} */ event) => {
    setOver(false);
    if (!hasFiles(event)) return;
    event.preventDefault();
    event.stopPropagation();
    take(event.dataTransfer?.files[0]);
  };
  const isData = typeof value === "string" && value.startsWith("data:");
  const wrong = error ?? refused;
  return html`<div class="field image-input">
    <span class="label" id="image-label">Image to start from <em>(optional)</em></span>
    <div class=${over ? "drop over" : "drop"} role="group" aria-labelledby="image-label" onDrop=${drop} onDragLeave=${() => setOver(false)}
      onDragOver=${(/** @type {DragEvent} */ event) => hasFiles(event) && setOver(true)}>
      ${isData && html`<img src=${value} alt="The image to start from" />`}
      <div class="drop-actions">
        <label class="button">${value ? "Another" : "Choose a file"}
          <input class="away" type="file" accept="image/*" aria-invalid=${wrong ? "true" : undefined}
            aria-describedby=${wrong ? "about-image" : undefined} onChange=${choose} /></label>
        ${value
          ? html`<button type="button" onClick=${() => set(name, undefined)}>Remove</button>`
          : html`<span class="hint">or drop it here, or paste it</span>`}
        ${isData && made && html`<button type="button" onClick=${() => onParameters(made)}>Use its parameters instead</button>`}
      </div>
      ${!isData && html`<input type="url" aria-label="URL of an image" placeholder="https://…" value=${value ?? ""}
        aria-invalid=${error ? "true" : undefined} aria-describedby=${wrong ? "about-image" : undefined}
        onInput=${(/** @type {any} */ event) => set(name, event.target.value || undefined)} />`}
    </div>
    ${wrong && html`<p id="about-image" class="error">${wrong}</p>`}
    ${value && strength && html`<${Control} ...${strength} />`}
  </div>`;
}
