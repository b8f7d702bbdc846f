// Numbers and times for people.

/** Dollars with the digits that say something. @param {number} dollars */
export function money(dollars) {
  if (dollars === 0) return "$0.00";
  const digits = dollars >= 1 ? 2 : Math.min(6, Math.max(4, 2 - Math.floor(Math.log10(dollars))));
  return `$${dollars.toFixed(digits)}`;
}

/** Every digit of what was charged. @param {number} dollars */
export function exact(dollars) {
  return `$${dollars.toFixed(9).replace(/(\.\d\d\d*?)0+$/, "$1")}`;
}

/** @param {number} value */
export function seconds(value) {
  if (value >= 120) return `${Math.round(value / 60)} min`;
  return `${value.toFixed(value < 10 ? 2 : 1)} s`;
}

/** @param {string} iso */
export function clock(iso) {
  return new Date(iso).toLocaleTimeString(undefined, { hour: "2-digit", minute: "2-digit" });
}

/** @param {string} iso */
export function day(iso) {
  const date = new Date(iso);
  const days = Math.round((new Date().setHours(0, 0, 0, 0) - new Date(iso).setHours(0, 0, 0, 0)) / 86_400_000);
  if (days === 0) return "Today";
  if (days === 1) return "Yesterday";
  return date.toLocaleDateString(undefined, { weekday: "long", day: "numeric", month: "long" });
}

/** The name a picture is saved under. @param {string} prompt @param {number} seed @param {string} url */
export function fileName(prompt, seed, url) {
  const words = prompt.toLowerCase().normalize("NFKD").replace(/[^a-z0-9]+/g, "-").replace(/^-|-$/g, "");
  const extension = /\.([a-z]+)(\?|$)/.exec(url)?.[1] ?? "png";
  return `${words.slice(0, 48).replace(/-$/, "") || "picture"}-${seed}.${extension}`;
}

/** @param {string} text @returns {Promise<boolean>} whether it is in the clipboard now */
export async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    // Without TLS there is no clipboard but this one. Nothing outside of an open dialog can be selected.
    const focused = /** @type {HTMLElement | null} */ (document.activeElement);
    const area = Object.assign(document.createElement("textarea"), { value: text, className: "away" });
    (document.querySelector("dialog[open]") ?? document.body).append(area);
    area.select();
    const copied = document.execCommand("copy");
    area.remove();
    focused?.focus();
    return copied;
  }
}
