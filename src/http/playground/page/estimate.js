// What a run will take, before it runs.

import { html } from "./vendor/preact-htm.js";
import { money, seconds } from "./format.js";

/**
 * @typedef {import("./api.js").Model} Model
 * @typedef {import("./api.js").Input} Input
 */

/** What it will take, from what runs took here. @param {{asked: Model, model: Model, input: Input}} given */
export function Estimate({ model, input }) {
  const properties = model.input_schema.properties;
  const share = (/** @type {string} */ name) => (input[name] ?? properties[name]?.default ?? 1) / (properties[name]?.default || 1);
  const guided = (input.guidance_scale ?? 0) > 1 ? 2 : 1;
  const time = model.typical_run_seconds * share("width") * share("height") * share("num_inference_steps") * share("num_outputs") * guided;
  return html`<p class="estimate" data-estimate>About <strong>${seconds(time)}</strong>${model.price_per_second > 0 && html` · <strong>${money(time * model.price_per_second)}</strong>`}</p>`;
}
