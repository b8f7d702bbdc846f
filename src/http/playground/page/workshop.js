// What a key opens: the form and its result, and the three other tabs.

import { html, useEffect, useState } from "./vendor/preact-htm.js";
import { base, discover, isEcho, picture } from "./api.js";
import { Estimate } from "./estimate.js";
import { examplesFor } from "./examples.js";
import { Fields } from "./form.js";
import { Frame, currentTab, labelOf } from "./frame.js";
import { Icon } from "./icons.js";
import { asInput, dataUri, hasFiles, sizeOf } from "./image-file.js";
import { later } from "./later.js";
import { Output } from "./output.js";
import { parametersOf } from "./provenance.js";
import { useRun, wordFor } from "./run.js";
import { useTitle } from "./title.js";
import { isSame, useValues } from "./values.js";

/**
 * @typedef {import("./api.js").Model} Model
 * @typedef {import("./api.js").Input} Input
 * @typedef {import("./api.js").Prediction} Prediction
 */

const History = later(async () => (await import("./history.js")).History);
const Readme = later(async () => (await import("./readme.js")).Readme);
const Snippets = later(async () => (await import("./snippets.js")).Snippets);

const RUNNING = ["sending", "queued", "running"];

/** @param {string} name */
const focus = (name) => document.getElementById(`field-${name}`)?.focus();

/** @param {{models: Model[], onForget: () => void, onWrongKey: (key: string | null) => void}} given */
export function Workshop({ models, onForget, onWrongKey }) {
  const [tab, setTab] = useState(currentTab());
  // What was asked for, and what draws: another where its weights are not here.
  const asked = models[0];
  const model = models.find(({ slug }) => slug === asked.answered_by) ?? asked;
  const properties = model.input_schema.properties;
  const examples = examplesFor(model.slug);
  const { values, errors, note, input, inputOf, set, fill, missImage, setErrors, setNote } = useValues(properties);
  const [faces, setFaces] = useState(/** @type {{[name: string]: string}} */ ({}));

  const shape = (/** @type {Input} */ input) => ({
    width: input.width ?? properties.width?.default ?? 1024,
    height: input.height ?? properties.height?.default ?? 1024,
    outputs: input.num_outputs ?? 1,
  });
  const { run, start, show, stop } = useRun(shape, (refusal) => {
    if (refusal.status === 401) onWrongKey(refusal.key);
    setErrors(Object.fromEntries(refusal.fields.map(({ field, reason }) => [field, reason])));
  });

  useEffect(() => {
    const turn = () => {
      setTab(currentTab());
      window.scrollTo(0, 0);
    };
    // It may have changed before anybody listened.
    setTab(currentTab());
    addEventListener("hashchange", turn);
    return () => removeEventListener("hashchange", turn);
  }, []);
  useEffect(() => {
    discover().then(setFaces, () => {});
  }, []);

  useEffect(() => {
    // Where the result is below the form, it is what is looked at now.
    if (run && matchMedia("(max-width: 47.99rem)").matches) document.querySelector(".output")?.scrollIntoView();
  }, [run?.begun]);

  const bring = (/** @type {Prediction} */ prediction) => {
    fill(prediction.input);
    show(prediction);
    location.hash = "playground";
  };
  const go = async (/** @type {Input} */ input) => {
    if (!input.prompt?.trim()) {
      setErrors({ prompt: "Say what to draw." });
      focus("prompt");
      return;
    }
    setErrors({});
    setNote("");
    location.hash = "playground";
    // Without a size of its own the picture has the image's, and so has its place.
    const size = input.image && !input.width && !input.height && (await sizeOf(input.image));
    start(asked.name, input, size || undefined);
  };
  const submit = (/** @type {Event} */ event) => {
    event.preventDefault();
    if (!isRunning) go(input);
  };
  const keys = (/** @type {KeyboardEvent} */ event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) submit(event);
  };
  /** Draws once more what was drawn, but for some of it. What was typed since stays in the form. @param {Input} change */
  const again = (change) => {
    const before = run?.input ?? input;
    if (isEcho(before.image)) return missImage();
    const wanted = { ...before, ...change };
    if (isSame(input, inputOf(before))) fill(wanted);
    go(wanted);
  };
  const vary = () => {
    const seeds = run?.prediction?.seeds ?? [0];
    again({ seed: seeds[seeds.length - 1] + 1 });
  };
  /** Parameters from a file. @param {Input} made */
  const restore = (made) => {
    fill(Object.fromEntries(Object.entries(made).filter(([name]) => name in properties)));
    setNote(`The parameters of that picture are back.${made.prompt_strength === undefined ? "" : " It started from an image, which is not in the file: add that as well."}`);
    focus("prompt");
  };
  const drop = async (/** @type {DragEvent} */ event) => {
    if (!hasFiles(event)) return;
    event.preventDefault();
    const file = event.dataTransfer?.files[0];
    if (!file) return;
    try {
      const uri = await asInput(file);
      const made = await parametersOf(file);
      if (made) restore(made);
      else if (properties.image) set("image", uri);
    } catch (error) {
      setErrors((errors) => ({ ...errors, image: /** @type {Error} */ (error).message }));
    }
  };
  const use = async (/** @type {string} */ url) => {
    set("image", await dataUri(await picture(url)));
    document.querySelector(".image-input")?.scrollIntoView({ block: "nearest" });
  };
  const isRunning = run !== null && RUNNING.includes(run.phase);
  useTitle(labelOf(tab), run && !isRunning ? wordFor(run) : "");

  return html`<${Frame} model=${model} tab=${tab} docs=${faces.docs} onForget=${onForget}>
    ${model !== asked && html`<p class="banner" role="note">The weights of ${asked.title} are not here, so <strong>${model.title}</strong> stands in for it. ${model.description}</p>`}
    <main>
      <div class="workbench" hidden=${tab !== "playground"} onDrop=${drop} onDragOver=${(/** @type {DragEvent} */ event) => hasFiles(event) && event.preventDefault()}>
        <form class="card input" onSubmit=${submit} onKeyDown=${keys} noValidate aria-labelledby="input-title">
          <header class="row spread"><h1 id="input-title">Input</h1>
            ${Object.keys(input).length > 0 && html`<button type="button" class="quiet" onClick=${() => { fill({}); focus("prompt"); }}>Clear</button>`}</header>
          <p class="note" role="status">${note}</p>
          <${Fields} properties=${properties} example=${examples[0]} values=${values} errors=${errors} set=${set} onParameters=${restore}
            lastSeed=${run?.prediction?.seeds[0]} />
          <div class="runbar">
            <${Estimate} asked=${asked} model=${model} input=${input} after=${run?.phase} />
            ${input.seed !== undefined && html`<button type="button" class="chip" title="Unlock the seed" aria-label=${`Seed ${input.seed}: unlock it`}
              onClick=${() => set("seed", undefined)}>Seed ${input.seed} <${Icon} name="close" /></button>`}
            <button class="primary" type="submit" disabled=${isRunning}>${isRunning ? "Running" : "Run"}</button>
          </div>
        </form>
        <${Output} run=${run} price=${model.price_per_second} examples=${examples} canUseAsInput=${"image" in properties}
          onExample=${(/** @type {string} */ prompt) => { set("prompt", prompt); focus("prompt"); }}
          onStop=${stop} onRetry=${() => (run?.refusal ? go(input) : again({}))} onVary=${vary} onUse=${use}
          locked=${input.seed} onKeepSeed=${(/** @type {number | undefined} */ seed) => set("seed", seed)} />
      </div>
      ${tab === "api" && html`<${Snippets} base=${base} model=${asked.name} example=${examples[0]} input=${input} made=${run?.input} faces=${faces} />`}
      ${tab === "history" && html`<${History} onShow=${bring} />`}
      ${tab === "readme" && html`<${Readme} model=${model} />`}
    </main><//>`;
}
