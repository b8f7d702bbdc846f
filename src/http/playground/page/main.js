// The page: asks for the key, loads the models, and hands over to the workshop.

import { html, render, useCallback, useEffect, useState } from "./vendor/preact-htm.js";
import { Refusal, forgetKey, models as loadModels, onOtherKey, storedKey, takeKeyFromLink } from "./api.js";
import { Frame } from "./frame.js";
import { KeyForm } from "./key.js";
import { Workshop } from "./workshop.js";

/** @typedef {import("./api.js").Model} Model */

function App() {
  const [key, setKey] = useState(storedKey());
  const [wrong, setWrong] = useState(false);
  const [models, setModels] = useState(/** @type {Model[] | null} */ (null));
  const [trouble, setTrouble] = useState({ text: "", forGood: false });
  /** Goes on with the key that is stored now, but not with one that turned out wrong. */
  const turn = useCallback((/** @type {string | null} */ wrong) => {
    if (wrong) forgetKey(wrong);
    setWrong(Boolean(wrong));
    setKey(storedKey());
  }, []);
  useEffect(() => {
    setTrouble({ text: "", forGood: false });
    setModels(null);
    if (!key) return;
    let timer = 0;
    let isOver = false;
    const load = () => loadModels().then((models) => isOver || setModels(models), (error) => {
      if (isOver) return;
      const status = error instanceof Refusal ? error.status : 0;
      if (status === 401) return turn(error.key);
      // Asking again would not change what the key may do.
      setTrouble({ text: error.message, forGood: status === 403 });
      if (status !== 403) timer = setTimeout(load, 2000);
    });
    load();
    return () => {
      isOver = true;
      clearTimeout(timer);
    };
  }, [key]);
  useEffect(() => {
    // A link that is opened in a tab which already shows the page loads nothing anew.
    const take = () => {
      takeKeyFromLink();
      turn(null);
    };
    addEventListener("hashchange", take);
    return () => removeEventListener("hashchange", take);
  }, []);
  useEffect(() => onOtherKey(() => turn(null)), []);
  const forget = () => {
    if (!confirm("Forget the key that this browser keeps? Nobody can look it up again.")) return;
    forgetKey(key);
    turn(null);
  };
  if (!key) {
    return html`<${Frame}><main class="narrow"><${KeyForm} wrong=${wrong} onKey=${() => turn(null)} /></main><//>`;
  }
  if (!models) {
    const { text, forGood } = trouble;
    return html`<${Frame} onForget=${text ? forget : undefined}><main class="narrow">
      <p class=${text && "trouble"} role="status">${text && !forGood ? `${text} Trying again …` : text}</p></main><//>`;
  }
  return html`<${Workshop} models=${models} onForget=${forget} onWrongKey=${turn} />`;
}

takeKeyFromLink();
const page = document.getElementById("page");
if (page) render(html`<${App} />`, page);
