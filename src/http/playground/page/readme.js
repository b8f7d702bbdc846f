// The model's card.

import { html, useEffect, useState } from "./vendor/preact-htm.js";
import { money, seconds } from "./format.js";
import { Markdown } from "./markdown.js";

/** @param {{model: import("./api.js").Model}} given */
export function Readme({ model }) {
  const { price_per_second: price, typical_run_seconds: typical } = model;
  const [card, setCard] = useState("");
  useEffect(() => {
    // A model that somebody added to the catalog has none here.
    fetch(new URL(`cards/${model.slug}.md`, import.meta.url))
      .then((response) => (response.ok ? response.text() : ""))
      .then(setCard, () => {});
  }, [model.slug]);
  const fields = Object.entries(model.input_schema.properties);
  fields.sort(([, one], [, other]) => (one["x-order"] ?? 99) - (other["x-order"] ?? 99));
  const range = (/** @type {import("./api.js").Property} */ { minimum, maximum, multipleOf, enum: choices }) =>
    choices ? choices.join(", ") : minimum === undefined ? "" : `${minimum} to ${maximum}${multipleOf ? `, in steps of ${multipleOf}` : ""}`;
  return html`<article class="card readme" aria-labelledby="readme-title">
    <h1 id="readme-title">${model.title}</h1>
    <p class="lead">${model.description}</p>
    <p data-price>${price > 0
      ? html`Costs <strong>$${price.toFixed(6)} per second</strong>, about ${seconds(typical)} a run on this machine:
          ${" "}<strong>${money(price * typical)}</strong> each. $1 buys about <strong>${Math.floor(1 / (price * typical)).toLocaleString("en")}</strong> runs.`
      : html`Costs nothing. A run takes about ${seconds(typical)} on this machine.`}
      ${" "}A run that fails costs nothing; one you cancel, the time it used.</p>
    ${card && html`<${Markdown} text=${card} />`}
    <h2>Input</h2>
    <div class="scroll" tabindex="0" role="region" aria-label="Fields of the input"><table>
      <thead><tr><th scope="col">Field</th><th scope="col">What it is</th><th scope="col">Default</th><th scope="col">Range</th></tr></thead>
      <tbody>${fields.map(([name, property]) => html`<tr><th scope="row"><code>${name}</code></th><td>${property.description}</td>
        <td>${property.default === undefined ? "" : String(property.default)}</td><td>${range(property)}</td></tr>`)}</tbody>
    </table></div>
    <h2>Good to know</h2>
    <ul>
      <li>The same input with the same seed draws the same picture. The seed is in every result.</li>
      <li>The second of several pictures is what the next seed alone would draw.</li>
      <li>Prompts and pictures stay on this server, and are deleted from it after a while.</li>
    </ul>
    <p class="hint">Version <code>${model.version}</code></p>
  </article>`;
}
