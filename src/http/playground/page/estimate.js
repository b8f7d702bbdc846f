// What a run will take, before it runs, as the server guesses it from what runs took there.

import { html, useEffect, useState } from "./vendor/preact-htm.js";
import { estimate } from "./api.js";
import { money, seconds } from "./format.js";

/**
 * @typedef {import("./api.js").Model} Model
 * @typedef {import("./api.js").Input} Input
 */

/** Between the last change and the question, so that a sentence being typed is not a question a letter. */
const PAUSE_MS = 150;

/** @param {{asked: Model, model: Model, input: Input, after: unknown}} given `after` is whatever makes the last answer old */
export function Estimate({ asked, model, input, after }) {
  const [answer, setAnswer] = useState(/** @type {import("./api.js").Estimate | null} */ (null));
  const question = JSON.stringify(measured(input));
  const isWhole = Object.entries(input).every(([name, value]) => fits(value, model.input_schema.properties[name]));
  useEffect(() => {
    // What is being typed is not asked about before it can be drawn.
    if (!isWhole) return setAnswer(null);
    const asking = new AbortController();
    const ask = () => estimate(asked.name, JSON.parse(question), asking.signal).then(setAnswer, () => asking.signal.aborted || setAnswer(null));
    const timer = setTimeout(ask, answer ? PAUSE_MS : 0);
    return () => {
      clearTimeout(timer);
      asking.abort();
    };
  }, [question, after]);
  return html`<p class="estimate" data-estimate>${answer && html`About <strong>${seconds(answer.predict_time)}</strong>${
    answer.cost > 0 && html` · <strong>${money(answer.cost)}</strong>`}${
    answer.queue_time > 0 && html`<br />after about ${seconds(answer.queue_time)} in the queue`}`}</p>`;
}

/** @param {any} value @param {import("./api.js").Property} property */
function fits(value, { minimum = -Infinity, maximum = Infinity, multipleOf = 1, type }) {
  return !["integer", "number"].includes(type) || (value >= minimum && value <= maximum && (type === "number" || value % multipleOf === 0));
}

/** What of an input decides how long it takes: not what is in the picture, nor what it starts from. @param {Input} input */
function measured({ prompt, negative_prompt, seed, image, ...input }) {
  return image ? { ...input, image: "data:image/png;base64," } : input;
}
