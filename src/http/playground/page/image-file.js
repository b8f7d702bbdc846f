// An image of its reader's own, as the server takes it.

/** Of a side, in pixels. The server takes twice as much, but no model draws more than 1280. */
const LARGEST = 2048;
/** In bytes, as the server has it. */
const LONGEST = 20_000_000;
const TAKEN = ["image/png", "image/jpeg", "image/webp"];
const QUALITY = 0.92;

/** A file as a data: URI, made smaller or another type where the server would not take it. Fails, saying so, where the
 * browser cannot read it. @param {Blob} file @returns {Promise<string>} */
export async function asInput(file) {
  const url = URL.createObjectURL(file);
  try {
    const image = await load(url);
    const { naturalWidth: width, naturalHeight: height } = image;
    const scale = Math.min(1, LARGEST / Math.max(width, height));
    if (scale === 1 && file.size <= LONGEST && TAKEN.includes(file.type)) return await dataUri(file);
    const canvas = Object.assign(document.createElement("canvas"),
      { width: Math.max(1, Math.round(width * scale)), height: Math.max(1, Math.round(height * scale)) });
    const context = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
    // As the server does with what shows through.
    context.fillStyle = "#fff";
    context.fillRect(0, 0, canvas.width, canvas.height);
    context.imageSmoothingQuality = "high";
    context.drawImage(image, 0, 0, canvas.width, canvas.height);
    return canvas.toDataURL("image/jpeg", QUALITY);
  } catch {
    throw new Error("That is not an image that this browser can read: a PNG, JPEG or WebP is.");
  } finally {
    URL.revokeObjectURL(url);
  }
}

/** @param {string} url @returns {Promise<HTMLImageElement>} */
async function load(url) {
  const image = Object.assign(new Image(), { src: url });
  await image.decode();
  if (!image.naturalWidth || !image.naturalHeight) throw new Error("an image without a size");
  return image;
}

/** Whether files are dragged: text finds its way into a field by itself. @param {DragEvent} event */
export const hasFiles = (event) => Boolean(event.dataTransfer?.types.includes("Files"));

/** @param {Blob} blob @returns {Promise<string>} */
export function dataUri(blob) {
  return new Promise((done, failed) => {
    const reader = new FileReader();
    reader.onload = () => done(String(reader.result));
    reader.onerror = () => failed(reader.error);
    reader.readAsDataURL(blob);
  });
}

/** How large an image in a data: URI is, or null where that cannot be seen from here. @param {string} uri */
export async function sizeOf(uri) {
  if (!uri.startsWith("data:")) return null;
  return load(uri).then(({ naturalWidth: width, naturalHeight: height }) => ({ width, height }), () => null);
}
