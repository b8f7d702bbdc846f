// What is in the form, also after the tab was loaded again.

import { useCallback, useLayoutEffect, useMemo, useState } from "./vendor/preact-htm.js";
import { isEcho } from "./api.js";

/** @typedef {import("./api.js").Input} Input */

const KEPT = "fourstep-form";
const IMAGE_IS_GONE = { image: "It started from an image that only you have. Add it again, or run without one." };

/** @returns {Input} */
function kept() {
  try {
    return JSON.parse(sessionStorage.getItem(KEPT) ?? "{}");
  } catch {
    return {};
  }
}

/** Keeps the values for this tab; of an image, which may be larger than what a browser keeps, only that there was one.
 * @param {Input} values */
function keep(values) {
  const isInline = typeof values.image === "string" && values.image.startsWith("data:");
  try {
    sessionStorage.setItem(KEPT, JSON.stringify(isInline ? { ...values, image: "data:…" } : values));
  } catch {
    // A browser that keeps nothing draws all the same.
  }
}

/** Whether two inputs ask for the same picture. @param {Input} one @param {Input} other */
export const isSame = (one, other) => Object.keys({ ...one, ...other }).every((name) => one[name] === other[name]);

/** @param {{[name: string]: import("./api.js").Property}} properties */
export function useValues(properties) {
  const [values, setValues] = useState(/** @type {Input} */ ({}));
  const [errors, setErrors] = useState(/** @type {{[name: string]: string}} */ ({}));
  const [note, setNote] = useState("");

  const set = useCallback((/** @type {string} */ name, /** @type {any} */ value) => {
    setValues((values) => ({ ...values, [name]: value }));
    setErrors(({ [name]: _, ...errors }) => errors);
    setNote("");
  }, []);
  const missImage = () => setErrors(IMAGE_IS_GONE);
  /** An image of which only an echo is left cannot be sent again. @param {Input} input */
  const fill = (input) => {
    const isGone = isEcho(input.image);
    setValues(isGone ? { ...input, image: undefined } : input);
    setErrors(isGone ? IMAGE_IS_GONE : {});
    setNote("");
  };
  useLayoutEffect(() => fill(kept()), []);
  useLayoutEffect(() => keep(values), [values]);
  /** What of some values is sent. */
  const inputOf = useCallback((/** @type {Input} */ values) => Object.fromEntries(Object.entries(values).filter(([name, value]) =>
    value !== undefined && name in properties && !(name === "prompt_strength" && !values.image))), [properties]);
  const input = useMemo(() => inputOf(values), [values, inputOf]);
  return { values, errors, note, input, inputOf, set, fill, missImage, setErrors, setNote };
}
