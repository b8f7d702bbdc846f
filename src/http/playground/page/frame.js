// What is around every view: the brand, the tabs, the key.

import { html } from "./vendor/preact-htm.js";

const TABS = [["playground", "Playground"], ["api", "API"], ["history", "History"], ["readme", "Readme"]];

/** @param {string} tab */
export const labelOf = (tab) => TABS.find(([name]) => name === tab)?.[1] ?? tab;

export function currentTab() {
  const name = location.hash.slice(1);
  return TABS.some(([tab]) => tab === name) ? name : "playground";
}

/** @param {{children?: any, model?: import("./api.js").Model, docs?: string, tab?: string, onForget?: () => void}} given */
export function Frame({ children, model, docs, tab, onForget }) {
  return html`<header class="top">
      <a class="brand" href="#playground" aria-label="fourstep, the playground">
        <svg viewBox="0 0 32 32" aria-hidden="true"><rect x="2" y="20" width="6" height="8" rx="2" /><rect x="9.5" y="15" width="6" height="13" rx="2" /><rect x="17" y="10" width="6" height="18" rx="2" /><rect x="24.5" y="4" width="6" height="24" rx="2" /></svg>
        <span>fourstep</span></a>
      ${tab && html`<nav aria-label="Pages">${TABS.map(([name, label]) => html`<a href=${`#${name}`} aria-current=${name === tab ? "page" : undefined}>${label}</a>`)}</nav>`}
      <span class="grow"></span>
      ${model && html`<span class="model hint">${model.title}</span>`}
      ${docs && html`<a class="quiet button" href=${docs} target="_blank" rel="noopener" title="In a new tab">API reference</a>`}
      ${onForget && html`<button type="button" class="quiet" onClick=${onForget}>Change key</button>`}
    </header>
    ${children}`;
}
