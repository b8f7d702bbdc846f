// The input form, made from the model's JSON Schema: a field the server learns appears here by itself.

import { html, useEffect, useState } from "./vendor/preact-htm.js";
import { Icon } from "./icons.js";
import { ImageInput } from "./image-input.js";

/**
 * @typedef {import("./api.js").Property} Property
 * @typedef {import("./api.js").Input} Input
 * @typedef {{name: string, property: Property, value: any, error?: string, set: (name: string, value: any) => void}} Field
 */

/** Width by height, as shares of the model's own size. */
const SHAPES = /** @type {const} */ ([
  ["Square", "1:1", 1, 1], ["Portrait", "3:4", 0.75, 1], ["Landscape", "4:3", 1, 0.75], ["Tall", "9:16", 0.5625, 1], ["Wide", "16:9", 1, 0.5625],
]);
/** Shown elsewhere than in a row of their own. */
const PLACED = ["prompt", "image", "prompt_strength", "width", "height", "seed"];

/** @param {{properties: {[name: string]: Property}, example: string, values: Input, errors: {[name: string]: string}, lastSeed?: number,
 *   set: (name: string, value: any) => void, onParameters: (made: Input) => void}} given */
export function Fields({ properties, example, values, errors, lastSeed, set, onParameters }) {
  const field = (/** @type {string} */ name) => ({ name, property: properties[name], value: values[name], error: errors[name], set });
  const rest = Object.keys(properties).filter((name) => !PLACED.includes(name));
  rest.sort((one, other) => (properties[one]["x-order"] ?? 99) - (properties[other]["x-order"] ?? 99));
  // What is said at length comes first and needs the room.
  const [texts, others] = [rest.filter((name) => isText(properties[name])), rest.filter((name) => !isText(properties[name]))];
  // What is wrong is shown, and stays so while it is put right: with its first letter it is wrong no more.
  const [isOpen, setOpen] = useState(false);
  useEffect(() => {
    if ([...rest, "width", "height", "seed"].some((name) => errors[name])) setOpen(true);
  }, [errors]);
  return html`
    ${properties.prompt && html`<${Prompt} ...${field("prompt")} example=${example} />`}
    ${properties.image && html`<${ImageInput} ...${field("image")} onParameters=${onParameters} strength=${properties.prompt_strength && field("prompt_strength")} />`}
    <details class="advanced" open=${isOpen} onToggle=${(/** @type {any} */ event) => setOpen(event.target.open)}>
      <summary>Advanced controls</summary>
      <div class="grid">
        ${properties.width && properties.height && html`<${Size} width=${field("width")} height=${field("height")} ofImage=${Boolean(values.image)} />`}
        ${properties.seed && html`<${Seed} ...${field("seed")} last=${lastSeed} />`}
        ${others.map((name) => html`<${Control} key=${name} ...${field(name)} />`)}
        ${texts.map((name) => html`<${Control} key=${name} ...${field(name)} />`)}
      </div>
    </details>`;
}

/** @param {Property} property */
function isText(property) {
  return property.type === "string" && !property.enum;
}

/** @param {Field & {example: string}} field */
export function Prompt({ name, value, error, set, example }) {
  return html`<div class="field prompt">
    <label for="field-prompt">Prompt</label>
    <textarea id="field-prompt" rows="4" placeholder=${example} value=${value ?? ""}
      aria-invalid=${error ? "true" : undefined} aria-describedby="about-prompt"
      onInput=${(/** @type {any} */ event) => set(name, event.target.value || undefined)}></textarea>
    <p id="about-prompt" class=${error ? "error" : "hint"}>${error ?? html`<kbd>Ctrl</kbd> <kbd>Enter</kbd> runs it.`}</p>
  </div>`;
}

/** One field in a row of its own. @param {Field} field */
export function Control({ name, property, value, error, set }) {
  const id = `field-${name}`;
  const shown = value ?? property.default ?? "";
  const common = { id, "aria-invalid": error ? "true" : undefined, "aria-describedby": `about-${name}` };
  const isNumber = ["integer", "number"].includes(property.type);
  const hasRange = isNumber && property.minimum !== undefined && property.maximum !== undefined && property.maximum - property.minimum <= 100;
  const step = property.multipleOf ?? (property.type === "integer" ? 1 : (property.maximum ?? 10) <= 1 ? 0.05 : 0.1);
  const number = html`<${NumberInput} ...${common} min=${property.minimum} max=${property.maximum} step=${step} value=${value} usual=${property.default}
    onNumber=${(/** @type {number | undefined} */ number) => set(name, number)} />`;
  const about = html`<p id=${`about-${name}`} class=${error ? "error" : "hint"}>${error ?? property.description}</p>`;
  if (property.type === "boolean") {
    return html`<div class="field switch">
      <label><input type="checkbox" ...${common} checked=${Boolean(shown)}
        onChange=${(/** @type {any} */ event) => set(name, event.target.checked)} /> ${property.title ?? name}</label>${about}
    </div>`;
  }
  return html`<div class=${isText(property) ? "field whole" : "field"}>
    <label for=${id}>${property.title ?? name}</label>
    ${property.enum
      ? html`<select ...${common} value=${shown} onChange=${(/** @type {any} */ event) => set(name, event.target.value)}>
          ${property.enum.map((choice) => html`<option value=${choice} selected=${choice === shown}>${choice}</option>`)}</select>`
      : hasRange
        ? html`<div class="range">
            <input type="range" aria-label=${`${property.title ?? name}, slider`} min=${property.minimum} max=${property.maximum} step=${step} value=${shown}
              onInput=${(/** @type {any} */ event) => set(name, Number(event.target.value))} />
            ${number}</div>`
        : isNumber
          ? number
          : html`<textarea ...${common} rows="2" value=${shown} onInput=${(/** @type {any} */ event) => set(name, event.target.value)}></textarea>`}
    ${about}
  </div>`;
}

/** A number, whose text stays as it is typed ("0.", "0.50", nothing) until the field is left. None is the usual one.
 * @param {{value: number | undefined, usual?: number, placeholder?: any, onNumber: (number: number | undefined) => void, [attribute: string]: any}} given */
function NumberInput({ value, usual, placeholder = usual, onNumber, ...attributes }) {
  const [text, setText] = useState(/** @type {string | null} */ (null));
  const numberOf = (/** @type {string} */ text) => (text === "" ? undefined : Number(text));
  // What the form was given meanwhile, by the slider or another picture, is not what was typed.
  const shown = text !== null && numberOf(text) === value ? text : String(value ?? usual ?? "");
  const input = (/** @type {any} */ { target }) => {
    setText(target.value);
    onNumber(numberOf(target.value));
  };
  const leave = (/** @type {any} */ { target }) => {
    // "1e" is nothing, and would stay to be seen.
    if (target.validity.badInput) target.value = "";
    setText(null);
  };
  return html`<input type="number" ...${attributes} value=${shown} placeholder=${placeholder} onInput=${input} onBlur=${leave} />`;
}

/** Shapes to choose from, and the two numbers; where an image has a size, its own unless given.
 * @param {{width: Field, height: Field, ofImage: boolean}} fields */
function Size({ width, height, ofImage }) {
  const full = width.property.default ?? width.property.maximum ?? 1024;
  const shown = (/** @type {Field} */ { value, property }) => value ?? (ofImage ? "" : property.default);
  const [wide, high] = [shown(width), shown(height)];
  const choose = (/** @type {number} */ w, /** @type {number} */ h) => {
    width.set("width", w);
    height.set("height", h);
  };
  const error = width.error ?? height.error;
  // The longer side is the model's own, unless the shorter one would be too short for it.
  const least = Math.max(width.property.minimum ?? 0, height.property.minimum ?? 0);
  const shapes = SHAPES.map(([label, ratio, w, h]) => {
    const long = Math.max(full, least / Math.min(w, h));
    return [label, ratio, fit(long * w, width.property), fit(long * h, height.property)];
  });
  return html`<fieldset class="field whole size">
    <legend>Size</legend>
    <div class="shapes">
      ${shapes.map(([label, ratio, w, h]) => html`<button type="button" class="chip" title=${label} aria-label=${`${label}, ${ratio}`} aria-pressed=${w === wide && h === high}
          onClick=${() => choose(Number(w), Number(h))}>
        <i class="shape" style=${{ aspectRatio: `${w} / ${h}` }}></i>${ratio}</button>`)}
    </div>
    <div class="row">
      ${[width, height].map(({ name, property, value, error, set }) => html`<label class="inline">${property.title}
        <${NumberInput} id=${`field-${name}`} min=${property.minimum} max=${property.maximum} step=${property.multipleOf ?? 1}
          value=${value} usual=${ofImage ? undefined : property.default} placeholder=${ofImage ? "the image's" : property.default}
          aria-invalid=${error ? "true" : undefined} aria-describedby="about-size"
          onNumber=${(/** @type {number | undefined} */ number) => set(name, number)} /></label>`)}
    </div>
    <p id="about-size" class=${error ? "error" : "hint"}>${error ? `${width.error ? "Width" : "Height"} ${error}` :
      `Pixels, ${width.property.minimum} to ${width.property.maximum}, in steps of ${width.property.multipleOf ?? 1}.`}</p>
  </fieldset>`;
}

/** The nearest size there is. @param {number} size @param {Property} property */
function fit(size, property) {
  const step = property.multipleOf ?? 1;
  return Math.min(property.maximum ?? size, Math.max(property.minimum ?? 0, Math.round(size / step) * step));
}

/** Dice for a new one, and a lock that keeps the last one drawn. @param {Field & {last?: number}} field */
function Seed({ name, value, error, set, last }) {
  const locked = value !== undefined;
  const roll = () => crypto.getRandomValues(new Uint32Array(1))[0];
  return html`<div class="field whole">
    <label for="field-seed">Seed</label>
    <div class="row">
      <${NumberInput} id="field-seed" min="0" step="1" placeholder="a new one every time" value=${value}
        aria-invalid=${error ? "true" : undefined} aria-describedby="about-seed"
        onNumber=${(/** @type {number | undefined} */ number) => set(name, number)} />
      <button type="button" class="square" title="Roll the dice" aria-label="Roll the dice" onClick=${() => set(name, roll())}><${Icon} name="dice" /></button>
      <button type="button" class="square" title=${locked ? "Unlock the seed" : "Lock the seed"} aria-label="Lock the seed" aria-pressed=${locked}
        onClick=${() => set(name, locked ? undefined : last ?? roll())}><${Icon} name=${locked ? "locked" : "unlocked"} /></button>
    </div>
    <p id="about-seed" class=${error ? "error" : "hint"}>${error ?? (locked
      ? "Locked: the same picture every time." : "Unlocked: a new picture every time. The result says its seed.")}</p>
  </div>`;
}
