// What a PNG made here says about itself: the parameters that make it again.

/** @typedef {import("./api.js").Input} Input */

const SIGNATURE = [0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a];
/** The text's name in the file. */
const KEYWORD = "fourstep";

/** The parameters in a file, or null where it has none. @param {Blob} file @returns {Promise<Input | null>} */
export async function parametersOf(file) {
  const text = textOf(new Uint8Array(await file.arrayBuffer()));
  if (text === null) return null;
  try {
    const made = JSON.parse(text);
    // Past what a number here keeps exactly, the digits themselves: the server reads both.
    const digits = /"seed":\s*(\d+)/.exec(text)?.[1];
    if (digits && !Number.isSafeInteger(made.seed)) made.seed = digits;
    return typeof made.prompt === "string" ? made : null;
  } catch {
    return null;
  }
}

/** @param {Uint8Array} bytes */
function textOf(bytes) {
  if (!SIGNATURE.every((byte, index) => bytes[index] === byte)) return null;
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const latin = new TextDecoder("latin1");
  // Each chunk: length, kind, content, checksum. Texts come before the pixels.
  for (let at = 8; at + 12 <= bytes.length; at += 12 + view.getUint32(at)) {
    const kind = latin.decode(bytes.subarray(at + 4, at + 8));
    const content = bytes.subarray(at + 8, at + 8 + view.getUint32(at));
    if (kind === "IDAT") return null;
    if (!["tEXt", "iTXt"].includes(kind) || latin.decode(content.subarray(0, content.indexOf(0))) !== KEYWORD) continue;
    const rest = content.subarray(KEYWORD.length + 1);
    if (kind === "tEXt") return latin.decode(rest);
    // Whether and how it is compressed, a language, and the keyword in it; the text is what is left.
    if (rest[0] !== 0) return null;
    const language = rest.indexOf(0, 2);
    return new TextDecoder().decode(rest.subarray(rest.indexOf(0, language + 1) + 1));
  }
  return null;
}
