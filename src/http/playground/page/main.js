// The page: asks for the key, loads the models, and puts the parts together.

import { html, render, useCallback, useEffect, useMemo, useState } from "./vendor/preact-htm.js";
import { Refusal, base, discover, forgetKey, list, models as loadModels, storedKey, takeKeyFromLink } from "./api.js";
import { Fields } from "./form.js";
import { money, seconds } from "./format.js";
import { History } from "./history.js";
import { dataUri } from "./image-input.js";
import { KeyForm } from "./key.js";
import { Output } from "./output.js";
import { Readme } from "./readme.js";
import { useRun } from "./run.js";
import { Snippets } from "./snippets.js";

/**
 * @typedef {import("./api.js").Model} Model
 * @typedef {import("./api.js").Input} Input
 */

const TABS = [["playground", "Playground"], ["api", "API"], ["history", "History"], ["readme", "Readme"]];

function currentTab() {
  const name = location.hash.slice(1);
  return TABS.some(([tab]) => tab === name) ? name : "playground";
}

function App() {
  const [key, setKey] = useState(storedKey());
  const [wrong, setWrong] = useState(false);
  const [models, setModels] = useState(/** @type {Model[] | null} */ (null));
  const [trouble, setTrouble] = useState("");
  const ask = useCallback((/** @type {boolean} */ wrong) => {
    forgetKey();
    setModels(null);
    setWrong(wrong);
    setKey(null);
  }, []);
  useEffect(() => {
    if (!key) return;
    let timer = 0;
    const load = () => loadModels().then((models) => {
      setTrouble("");
      setModels(models);
    }, (error) => {
      if (error instanceof Refusal && error.status === 401) return ask(true);
      setTrouble(error.message);
      timer = setTimeout(load, 2000);
    });
    load();
    return () => clearTimeout(timer);
  }, [key]);
  if (!key) {
    return html`<${Frame}><main class="narrow"><${KeyForm} wrong=${wrong} onKey=${() => { setWrong(false); setKey(storedKey()); }} /></main><//>`;
  }
  if (!models) {
    return html`<${Frame}><main class="narrow"><p class="hint" role="status">${trouble ? `${trouble} Trying again …` : ""}</p></main><//>`;
  }
  return html`<${Workshop} models=${models} onForget=${() => ask(false)} onWrongKey=${() => ask(true)} />`;
}

/** @param {{children?: any, model?: Model, tab?: string, onForget?: () => void}} given */
function Frame({ children, model, tab, onForget }) {
  return html`<header class="top">
      <a class="brand" href="#playground" aria-label="fourstep, the playground">
        <svg viewBox="0 0 32 32" aria-hidden="true"><rect x="2" y="20" width="6" height="8" rx="2" /><rect x="9.5" y="15" width="6" height="13" rx="2" /><rect x="17" y="10" width="6" height="18" rx="2" /><rect x="24.5" y="4" width="6" height="24" rx="2" /></svg>
        <span>fourstep</span></a>
      ${tab && html`<nav aria-label="Pages">${TABS.map(([name, label]) => html`<a href=${`#${name}`} aria-current=${name === tab ? "page" : undefined}>${label}</a>`)}</nav>`}
      <span class="grow"></span>
      ${model && html`<span class="model hint">${model.title}</span>`}
      ${onForget && html`<button type="button" class="quiet" onClick=${onForget}>Change key</button>`}
    </header>
    ${children}`;
}

/** @param {{models: Model[], onForget: () => void, onWrongKey: () => void}} given */
function Workshop({ models, onForget, onWrongKey }) {
  const [tab, setTab] = useState(currentTab());
  // What was asked for, and what draws: another where its weights are not here.
  const asked = models[0];
  const model = models.find(({ slug }) => slug === asked.answered_by) ?? asked;
  const properties = model.input_schema.properties;
  const [values, setValues] = useState(/** @type {Input} */ ({}));
  const [errors, setErrors] = useState(/** @type {{[name: string]: string}} */ ({}));
  const [faces, setFaces] = useState({});

  const set = useCallback((/** @type {string} */ name, /** @type {any} */ value) => {
    setValues((values) => ({ ...values, [name]: value }));
    setErrors(({ [name]: _, ...errors }) => errors);
  }, []);
  const input = useMemo(() => Object.fromEntries(Object.entries(values).filter(([name, value]) =>
    value !== undefined && name in properties && !(name === "prompt_strength" && !values.image))), [values, properties]);
  const shape = (/** @type {Input} */ input) => ({
    width: input.width ?? properties.width?.default ?? 1024,
    height: input.height ?? properties.height?.default ?? 1024,
    outputs: input.num_outputs ?? 1,
  });
  const { run, start, show, stop } = useRun(shape, (refusal) => {
    if (refusal.status === 401) onWrongKey();
    setErrors(Object.fromEntries(refusal.fields.map(({ field, reason }) => [field, reason])));
  });

  useEffect(() => {
    const turn = () => {
      setTab(currentTab());
      window.scrollTo(0, 0);
    };
    addEventListener("hashchange", turn);
    return () => removeEventListener("hashchange", turn);
  }, []);
  useEffect(() => {
    discover().then(setFaces, () => {});
    // What was left running goes on, after a reload as well.
    list("?limit=1").then(({ results: [latest] }) => {
      if (latest && ["starting", "processing"].includes(latest.status)) {
        setValues(latest.input);
        show(latest);
      }
    }, () => {});
  }, []);

  const go = (/** @type {Input} */ input) => {
    if (!input.prompt?.trim()) {
      setErrors({ prompt: "Say what to draw." });
      document.getElementById("field-prompt")?.focus();
      return;
    }
    setErrors({});
    location.hash = "playground";
    start(asked.name, input);
    // Where the result is below the form, it is what is looked at now.
    requestAnimationFrame(() => document.querySelector(".output")?.scrollIntoView({ block: "nearest" }));
  };
  const submit = (/** @type {Event} */ event) => {
    event.preventDefault();
    go(input);
  };
  const keys = (/** @type {KeyboardEvent} */ event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) submit(event);
  };
  const vary = () => {
    const seeds = run?.prediction?.seeds ?? [0];
    const varied = { ...run?.input, seed: seeds[seeds.length - 1] + 1 };
    setValues(varied);
    go(varied);
  };
  const use = async (/** @type {string} */ url) => set("image", await dataUri(await (await fetch(url)).blob()));
  const isRunning = run !== null && ["sending", "queued", "running"].includes(run.phase);

  return html`<${Frame} model=${model} tab=${tab} onForget=${onForget}>
    ${model !== asked && html`<p class="banner" role="note">The weights of ${asked.title} are not here, so <strong>${model.title}</strong> stands in for it. ${model.description}</p>`}
    <main>
      <div class="workbench" hidden=${tab !== "playground"}>
        <form class="card input" onSubmit=${submit} onKeyDown=${keys} noValidate aria-labelledby="input-title">
          <header><h1 id="input-title">Input</h1></header>
          <${Fields} properties=${properties} values=${values} errors=${errors} set=${set} />
          <div class="runbar">
            <${Estimate} model=${model} input=${input} />
            <button class="primary" type="submit" disabled=${isRunning}>${isRunning ? "Running" : "Run"}</button>
          </div>
        </form>
        <${Output} run=${run} price=${model.price_per_second} canUseAsInput=${"image" in properties}
          onExample=${(/** @type {string} */ prompt) => { set("prompt", prompt); document.getElementById("field-prompt")?.focus(); }}
          onStop=${stop} onRetry=${() => go(run?.input ?? input)} onVary=${vary} onUse=${use}
          onKeepSeed=${(/** @type {number} */ seed) => set("seed", seed)} />
      </div>
      ${tab === "api" && html`<${Snippets} base=${base} model=${asked.name} input=${{ prompt: "A lighthouse at dusk", ...input }} faces=${faces} />`}
      ${tab === "history" && html`<${History} onShow=${(/** @type {any} */ prediction) => { setValues(prediction.input); show(prediction); location.hash = "playground"; }} />`}
      ${tab === "readme" && html`<${Readme} model=${model} />`}
    </main><//>`;
}

/** What a run will take, from what runs took here. @param {{model: Model, input: Input}} given */
function Estimate({ model, input }) {
  const properties = model.input_schema.properties;
  const share = (/** @type {string} */ name) => (input[name] ?? properties[name]?.default ?? 1) / (properties[name]?.default || 1);
  const guided = (input.guidance_scale ?? 0) > 1 ? 2 : 1;
  const time = model.typical_run_seconds * share("width") * share("height") * share("num_inference_steps") * share("num_outputs") * guided;
  return html`<p class="estimate" data-estimate>About <strong>${seconds(time)}</strong>${model.price_per_second > 0 && html` · <strong>${money(time * model.price_per_second)}</strong>`}</p>`;
}

takeKeyFromLink();
const page = document.getElementById("page");
if (page) render(html`<${App} />`, page);
