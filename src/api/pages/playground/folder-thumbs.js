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
  /** Made when the first picture is decoded. @type {Worker | null} */
  #worker = null;
  /** By number of the request. @type {Map<number, (bitmap: ImageBitmap | null) => void>} */
  #asked = new Map();
  #lastId = 0;
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

  /** Ends it for good. */
  end() {
    this.empty();
    this.#worker?.terminate();
  }

  /** Forgets all, for other pictures. */
  empty() {
    this.#round += 1;
    this.#wanted.clear();
    for (const bitmap of this.#known.values()) bitmap?.close();
    this.#known.clear();
  }

  /** @param {File} file @returns {Promise<ImageBitmap | null>} */
  #small(file) {
    if (!this.#worker) {
      this.#worker = new Worker(new URL('./folder-thumbs-worker.js', import.meta.url), { type: 'module' });
      this.#worker.onmessage = ({ data: { id, bitmap } }) => {
        this.#asked.get(id)?.(bitmap);
        this.#asked.delete(id);
      };
    }
    const id = (this.#lastId += 1);
    const answer = new Promise((/** @type {(bitmap: ImageBitmap | null) => void} */ resolve) => this.#asked.set(id, resolve));
    this.#worker.postMessage({ id, file, side: SIDE });
    return answer;
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
    const bitmap = file.size > LARGEST ? null : await this.#small(file);
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
