// An image to start from: dropped, pasted, chosen, or by its URL.

import { html, useEffect, useState } from "./vendor/preact-htm.js";
import { Control } from "./form.js";

/** @typedef {import("./form.js").Field} Field */

/** @param {Field & {strength?: Field}} given */
export function ImageInput({ name, value, error, set, strength }) {
  const [over, setOver] = useState(false);
  const take = async (/** @type {Blob | null | undefined} */ file) => {
    if (file?.type.startsWith("image/")) set(name, await dataUri(file));
  };
  useEffect(() => {
    const paste = (/** @type {ClipboardEvent} */ event) => {
      const image = [...(event.clipboardData?.files ?? [])].find((file) => file.type.startsWith("image/"));
      if (!image) return;
      event.preventDefault();
      take(image);
    };
    document.addEventListener("paste", paste);
    return () => document.removeEventListener("paste", paste);
  }, []);
  const drop = (/** @type {DragEvent} */ event) => {
    event.preventDefault();
    setOver(false);
    take(event.dataTransfer?.files[0]);
  };
  const isData = typeof value === "string" && value.startsWith("data:");
  return html`<div class="field image-input">
    <span class="label" id="image-label">Image to start from <em>(optional)</em></span>
    <div class=${over ? "drop over" : "drop"} role="group" aria-labelledby="image-label" onDrop=${drop} onDragLeave=${() => setOver(false)}
      onDragOver=${(/** @type {DragEvent} */ event) => { event.preventDefault(); setOver(true); }}>
      ${isData && html`<img src=${value} alt="The image to start from" />`}
      <div class="drop-actions">
        <label class="button">${value ? "Another" : "Choose a file"}
          <input class="away" type="file" accept="image/png,image/jpeg,image/webp" onChange=${(/** @type {any} */ event) => take(event.target.files[0])} /></label>
        ${value
          ? html`<button type="button" onClick=${() => set(name, undefined)}>Remove</button>`
          : html`<span class="hint">or drop it here, or paste it</span>`}
      </div>
      ${!isData && html`<input type="url" aria-label="URL of an image" placeholder="https://…" value=${value ?? ""}
        aria-invalid=${error ? "true" : undefined}
        onInput=${(/** @type {any} */ event) => set(name, event.target.value || undefined)} />`}
    </div>
    ${error && html`<p class="error">${error}</p>`}
    ${value && strength && html`<${Control} ...${strength} />`}
  </div>`;
}

/** @param {Blob} blob @returns {Promise<string>} */
export function dataUri(blob) {
  return new Promise((done, failed) => {
    const reader = new FileReader();
    reader.onload = () => done(String(reader.result));
    reader.onerror = () => failed(reader.error);
    reader.readAsDataURL(blob);
  });
}
