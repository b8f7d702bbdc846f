// As much Markdown as model cards have: headings, paragraphs, lists, tables, code, and what is inside a line.

import { html } from "./vendor/preact-htm.js";

/** A link that leads out of the page; a path in a repository leads nowhere from here. */
const OUTSIDE = /^https:\/\//;
const INLINE = /`([^`]+)`|\*\*([^*]+)\*\*|!\[[^\]]*\]\([^)]*\)|\[([^\]]+)\]\(([^)\s]+)\)/g;

/** @param {{text: string}} given */
export function Markdown({ text }) {
  // What precedes is for programs, and the title is the page's.
  const body = text.replace(/^---\n[^]*?\n---\n/, "").replace(/^\s*# .*\n/, "");
  // A fence may hold empty lines; everything else ends at one.
  const blocks = body.match(/^```[^]*?^```|(?:(?!```).*\S.*(?:\n|$))+/gm) ?? [];
  return html`<div class="card-text">${blocks.map((text) => block(text.trimEnd()))}</div>`;
}

/** @param {string} text @returns {any} */
function block(text) {
  const lines = text.split("\n");
  const heading = /^(#{2,6}) (.*)/.exec(lines[0]);
  if (heading) {
    const rest = lines.slice(1).join("\n");
    const title = inline(heading[2]);
    return [heading[1].length === 2 ? html`<h2>${title}</h2>` : html`<h3>${title}</h3>`, rest.trim() && block(rest)];
  }
  if (text.startsWith("```")) return html`<pre tabindex="0"><code>${lines.slice(1, -1).join("\n")}</code></pre>`;
  if (/^[-*] /.test(text)) return html`<ul>${text.split(/\n(?=[-*] )/).map((item) => html`<li>${inline(item.slice(2))}</li>`)}</ul>`;
  if (text.startsWith("|") && lines.length > 2) {
    const [head, , ...rows] = lines.map((line) => line.replace(/^\||\|\s*$/g, "").split("|").map((cell) => cell.trim()));
    return html`<div class="scroll" tabindex="0" role="region" aria-label=${head.filter(Boolean).join(", ")}><table>
      <thead><tr>${head.map((cell) => (cell ? html`<th scope="col">${inline(cell)}</th>` : html`<td></td>`))}</tr></thead>
      <tbody>${rows.map((row) => html`<tr>${row.map((cell) => html`<td>${inline(cell)}</td>`)}</tr>`)}</tbody></table></div>`;
  }
  const content = inline(text);
  return content.some((part) => part !== "") && html`<p>${content}</p>`;
}

/** @param {string} text */
function inline(text) {
  /** @type {any[]} */
  const parts = [];
  let from = 0;
  for (const { 0: whole, 1: code, 2: strong, 3: label, 4: url, index } of text.matchAll(INLINE)) {
    parts.push(text.slice(from, index));
    if (code) parts.push(html`<code>${code}</code>`);
    else if (strong) parts.push(html`<strong>${strong}</strong>`);
    else if (label) parts.push(OUTSIDE.test(url) ? html`<a href=${url} rel="noreferrer">${label}</a>` : label);
    from = index + whole.length;
  }
  return [...parts, text.slice(from)];
}
