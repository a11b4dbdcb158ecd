// Decodes and shrinks pictures beside the page, which would stutter otherwise: browsers resize a bitmap in the thread that asks.

/** @typedef {{ id: number, file: Blob, side: number }} Wanted */

/**
 * What a worker has of the global object.
 * @typedef {object} Scope
 * @property {((event: MessageEvent<Wanted>) => void) | null} onmessage
 * @property {(message: unknown, transfer?: Transferable[]) => void} postMessage
 */
/** @type {Scope} */
const worker = /** @type {any} */ (globalThis);

worker.onmessage = async ({ data: { id, file, side } }) => {
  try {
    const bitmap = await small(file, side);
    worker.postMessage({ id, bitmap }, [bitmap]);
  } catch {
    worker.postMessage({ id, bitmap: null }); // this browser does not know the format, or the file is damaged
  }
};

/**
 * The middle square of a picture at `side` pixels. The whole picture is decoded first: a resize that is asked for along with the
 * decoding either changes its shape or has no bound.
 * @param {Blob} file @param {number} side
 */
async function small(file, side) {
  const whole = await createImageBitmap(file);
  const edge = Math.min(whole.width, whole.height);
  try {
    return await createImageBitmap(whole, (whole.width - edge) >> 1, (whole.height - edge) >> 1, edge, edge, {
      resizeWidth: side, resizeHeight: side, resizeQuality: 'medium',
    });
  } finally {
    whole.close();
  }
}
