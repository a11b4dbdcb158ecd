// Small pictures for the screen, made when they are about to be seen, a bounded number kept.

/** Pixels of a side. */
export const SIDE = 160;
/** Small pictures that are kept: about 80 MB. */
const KEPT = 800;
/** Files that are decoded at once; each may be a large photograph. */
const PARALLEL = 4;
/** Files larger than this are not decoded for a small picture. */
const LARGEST = 64 * 2 ** 20;

export class Thumbs {
  /** By index; the least recently drawn first. @type {Map<number, ImageBitmap | null>} null: this browser cannot decode it */
  #known = new Map();
  /** By who wants them; the first of each first. @type {Map<string, number[]>} */
  #wanted = new Map();
  /** @type {Set<number>} */
  #making = new Set();
  /** Counts how often all was forgotten: what is decoded meanwhile is of other pictures. */
  #round = 0;

  /**
   * @param {(index: number) => File | null} fileOf
   * @param {(index: number) => void} onReady
   */
  constructor(fileOf, onReady) {
    this.fileOf = fileOf;
    this.onReady = onReady;
  }

  /** Small pictures in memory. */
  get size() {
    return this.#known.size;
  }

  /**
   * The small picture; undefined while it is not there, null where there will be none.
   * @param {number} index
   * @returns {ImageBitmap | null | undefined}
   */
  get(index) {
    const known = this.#known.get(index);
    if (known === undefined) return this.fileOf(index) ? undefined : null;
    this.#known.delete(index);
    this.#known.set(index, known);
    return known;
  }

  /**
   * What is on the screen now, the most important first. What the same part of the page wanted before and is not begun is
   * forgotten.
   * @param {string} who the part of the page
   * @param {Iterable<number>} indices
   */
  want(who, indices) {
    this.#wanted.set(who, [...indices].filter((index) => !this.#known.has(index)).slice(0, KEPT / 4));
    this.#next();
  }

  /** Forgets all, for other pictures. */
  empty() {
    this.#round += 1;
    this.#wanted.clear();
    for (const bitmap of this.#known.values()) bitmap?.close();
    this.#known.clear();
  }

  #next() {
    for (const wanted of this.#wanted.values()) {
      while (this.#making.size < PARALLEL && wanted.length > 0) {
        const index = /** @type {number} */ (wanted.shift());
        const file = this.fileOf(index);
        if (!file || this.#making.has(index) || this.#known.has(index)) continue;
        this.#making.add(index);
        void this.#make(index, file);
      }
    }
  }

  /** @param {number} index @param {File} file */
  async #make(index, file) {
    const round = this.#round;
    const bitmap = file.size > LARGEST ? null : await small(file).catch(() => null);
    this.#making.delete(index);
    if (round !== this.#round) {
      bitmap?.close();
      return this.#next();
    }
    this.#known.set(index, bitmap);
    for (const [old, other] of this.#known) {
      if (this.#known.size <= KEPT) break;
      other?.close();
      this.#known.delete(old);
    }
    this.onReady(index);
    return this.#next();
  }
}

/**
 * The middle square of a picture at `SIDE` pixels. The whole picture is decoded first: a resize that is asked for along with the
 * decoding either changes its shape or has no bound.
 * @param {Blob} file
 */
async function small(file) {
  const whole = await createImageBitmap(file);
  const side = Math.min(whole.width, whole.height);
  const square = await createImageBitmap(whole, (whole.width - side) >> 1, (whole.height - side) >> 1, side, side, {
    resizeWidth: SIDE, resizeHeight: SIDE, resizeQuality: 'medium',
  });
  whole.close();
  return square;
}
