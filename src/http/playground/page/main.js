// The page: asks for the key, loads the models, and hands over to the workshop.

import { html, render, useCallback, useEffect, useState } from "./vendor/preact-htm.js";
import { Refusal, forgetKey, models as loadModels, storedKey, takeKeyFromLink } from "./api.js";
import { Frame } from "./frame.js";
import { KeyForm } from "./key.js";
import { Workshop } from "./workshop.js";

/** @typedef {import("./api.js").Model} Model */

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
    return html`<${Frame}><main class="narrow"><p class=${trouble ? "trouble" : ""} role="status">${trouble ? `${trouble} Trying again …` : ""}</p></main><//>`;
  }
  return html`<${Workshop} models=${models} onForget=${() => ask(false)} onWrongKey=${() => ask(true)} />`;
}

takeKeyFromLink();
const page = document.getElementById("page");
if (page) render(html`<${App} />`, page);
