// What is not needed for the first picture is fetched when it is first looked at.

import { html, useEffect, useState } from "./vendor/preact-htm.js";

/** A view whose code comes later. @param {() => Promise<(given: any) => any>} load */
export function later(load) {
  /** @type {((given: any) => any) | null} */
  let known = null;
  return function Later(/** @type {any} */ given) {
    const [View, setView] = useState(() => known);
    const [away, setAway] = useState(false);
    const fetch = () => {
      setAway(false);
      load().then((view) => {
        known = view;
        setView(() => view);
      }, () => setAway(true));
    };
    useEffect(() => {
      if (!View) fetch();
    }, []);
    if (View) return html`<${View} ...${given} />`;
    return away && html`<section class="card blank" role="alert"><p>The server does not answer, so this part of the page is not here yet.</p>
      <button type="button" onClick=${fetch}>Try again</button></section>`;
  };
}
