// The few signs the page uses, drawn with one pen.

import { html } from "./vendor/preact-htm.js";

export const PATHS = {
  dice: "M4 4h16v16H4zM8.5 8.5h.01M15.5 8.5h.01M12 12h.01M8.5 15.5h.01M15.5 15.5h.01",
  locked: "M5 11h14v9H5zM8 11V8a4 4 0 0 1 8 0v3",
  unlocked: "M5 11h14v9H5zM8 11V8a4 4 0 0 1 7.6-1.8",
  again: "M4 12a8 8 0 1 1 2.4 5.7M4 12V7M4 12h5",
  vary: "M4 17h3c5 0 5-10 10-10h3M17 4l3 3-3 3M4 7h3c2 0 3.2 1.6 4.3 3.5M13.5 14.5c.9 1.5 2 2.5 3.5 2.5h3M17 14l3 3-3 3",
  download: "M12 4v11M7 11l5 5 5-5M5 20h14",
  link: "M10 14a4 4 0 0 0 5.7 0l3-3A4 4 0 0 0 13 5.3l-1 1M14 10a4 4 0 0 0-5.7 0l-3 3a4 4 0 0 0 5.7 5.7l1-1",
  input: "M4 5h16v14H4zM4 16l5-5 4 4 2-2 5 4M15.5 9h.01",
  copy: "M9 9h11v11H9zM15 9V4H4v11h5",
  close: "M6 6l12 12M18 6L6 18",
};

/** @param {{name: keyof typeof PATHS}} given */
export function Icon({ name }) {
  return html`<svg class="icon" viewBox="0 0 24 24" aria-hidden="true"><path d=${PATHS[name]} /></svg>`;
}

/** The four steps, growing. */
export function Steps() {
  return html`<svg viewBox="0 0 128 56" aria-hidden="true">${[0, 1, 2, 3].map((step) => html`<rect x=${4 + step * 31} y=${32 - step * 9} width="26" height=${20 + step * 9} rx="6" />`)}</svg>`;
}
