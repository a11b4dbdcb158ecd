// The pictures of a folder and their vectors, in the page only.

import { principal } from './math.js';

/** @typedef {import('./folder-files.js').Named} Named */

/**
 * A picture: its file, or null where only its vector was imported; its name; the bytes of its file.
 * @typedef {{ file: File | null, name: string, bytes: number, error: string }} Picture
 */

export const PENDING = 0;
export const READY = 1;
export const FAILED = 2;

/** Pictures and vectors of one embedding space. Row `i` of `vectors` is that of picture `i`, of length 1, if `state[i]` is READY. */
export class Store {
  /** @type {Picture[]} */
  pictures = [];
  state = new Uint8Array(0);
  vectors = new Float32Array(0);
  ready = 0;
  /** Counts changes of vectors, so that what was computed from them is known to be old. */
  version = 0;
  /** @type {Map<string, number>} */
  #byName = new Map();
  /** @type {{ version: number, components: number, data: Float32Array } | null} */
  #reduced = null;

  /**
   * @param {number} width numbers of a vector
   * @param {string} fingerprint of the model that made them
   */
  constructor(width, fingerprint) {
    this.width = width;
    this.fingerprint = fingerprint;
  }

  get count() {
    return this.pictures.length;
  }

  /**
   * Adds pictures. One that is there already (the same name and size) is not added again, but gets its file where it had none.
   * @param {Named[]} files
   * @returns {number[]} the new ones, which have no vectors yet
   */
  add(files) {
    /** @type {number[]} */
    const fresh = [];
    for (const { file, name } of files) {
      const known = this.#byName.get(keyOf(name, file.size));
      if (known === undefined) fresh.push(this.#append({ file, name, bytes: file.size, error: '' }));
      else this.pictures[known].file ??= file;
    }
    return fresh;
  }

  /**
   * Adds pictures with their vectors, or gives vectors to those that are there.
   * @param {{ name: string, bytes: number }[]} pictures
   * @param {Float32Array} vectors a row for each
   */
  bring(pictures, vectors) {
    pictures.forEach(({ name, bytes }, row) => {
      const known = this.#byName.get(keyOf(name, bytes)) ?? this.#append({ file: null, name, bytes, error: '' });
      this.setVector(known, vectors.subarray(row * this.width, (row + 1) * this.width));
    });
  }

  /** @param {Picture} picture */
  #append(picture) {
    const index = this.pictures.push(picture) - 1;
    this.#byName.set(keyOf(picture.name, picture.bytes), index);
    if (index >= this.state.length) {
      const room = Math.max(256, 2 * this.state.length);
      const [state, vectors] = [this.state, this.vectors];
      this.state = new Uint8Array(room);
      this.state.set(state);
      this.vectors = new Float32Array(room * this.width);
      this.vectors.set(vectors);
    }
    return index;
  }

  /** @param {number} index @param {Float32Array} vector */
  setVector(index, vector) {
    this.vectors.set(vector, index * this.width);
    if (this.state[index] !== READY) this.ready += 1;
    this.state[index] = READY;
    this.pictures[index].error = '';
    this.version += 1;
  }

  /** @param {number} index @param {string} error */
  fail(index, error) {
    if (this.state[index] === READY) return;
    this.state[index] = FAILED;
    this.pictures[index].error = error;
  }

  /** Forgets all vectors, for another model. @param {number} width @param {string} fingerprint */
  reset(width, fingerprint) {
    this.width = width;
    this.fingerprint = fingerprint;
    this.state.fill(PENDING);
    this.vectors = new Float32Array(this.state.length * width);
    this.ready = 0;
    this.version += 1;
  }

  /** The vector of a picture. @param {number} index */
  vector(index) {
    return this.vectors.slice(index * this.width, (index + 1) * this.width);
  }

  /** @param {number} state @returns {number[]} */
  having(state) {
    const found = [];
    for (let i = 0; i < this.count; i += 1) if (this.state[i] === state) found.push(i);
    return found;
  }

  /** Pictures with vectors, and these one after the other. */
  packed() {
    const ids = Uint32Array.from(this.having(READY));
    if (ids.length === this.count) return { ids, rows: this.vectors.subarray(0, this.count * this.width) };
    const rows = new Float32Array(ids.length * this.width);
    ids.forEach((id, row) => rows.set(this.vectors.subarray(id * this.width, (id + 1) * this.width), row * this.width));
    return { ids, rows };
  }

  /**
   * The principal components of `packed`, kept until vectors change.
   * @param {Float32Array} rows @param {number} count
   * @returns {Generator<number, { components: number, data: Float32Array }, void>}
   */
  *reduced(rows, count) {
    const { version } = this;
    if (this.#reduced?.version === version) return this.#reduced;
    const found = { version, ...(yield* principal(rows, count, this.width, 32)) };
    this.#reduced = found;
    return found;
  }
}

/** @param {string} name @param {number} bytes */
const keyOf = (name, bytes) => `${bytes} ${name}`;
