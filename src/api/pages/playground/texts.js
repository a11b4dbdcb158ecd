// Vectors of texts, each asked for once.

/**
 * @typedef {import('./types.d.ts').CallOptions} CallOptions
 * @typedef {import('./types.d.ts').Prompts} Prompts
 */

/** Texts that are kept. */
const MOST = 4000;
/** Texts of one request. */
const BATCH = 256;

export class TextVectors {
  /** By fingerprint and text, the least recently used first. @type {Map<string, Float32Array>} */
  #known = new Map();

  /** @param {import('./api.js').Client} client */
  constructor(client) {
    this.client = client;
  }

  /**
   * Vectors of texts as they are.
   * @param {string} model
   * @param {string} fingerprint
   * @param {string[]} texts
   * @param {CallOptions} [options]
   * @returns {Promise<Float32Array[]>}
   */
  async plain(model, fingerprint, texts, options) {
    const key = (/** @type {string} */ text) => `${fingerprint} ${text}`;
    /** @type {Map<string, Float32Array>} */
    const found = new Map();
    /** @type {Set<string>} */
    const unknown = new Set();
    for (const text of texts) {
      const vector = this.#known.get(key(text));
      if (vector) {
        this.#keep(key(text), vector);
        found.set(text, vector);
      } else {
        unknown.add(text);
      }
    }
    const missing = [...unknown];
    for (let first = 0; first < missing.length; first += BATCH) {
      const part = missing.slice(first, first + BATCH);
      const { vectors } = await this.client.embedTexts(model, part, options);
      part.forEach((text, index) => {
        // A copy: the rows of an answer share one buffer, which a single row would keep alive.
        const vector = vectors[index].slice();
        found.set(text, vector);
        this.#keep(key(text), vector);
      });
    }
    return texts.map((text) => /** @type {Float32Array} */ (found.get(text)));
  }

  /**
   * Vectors of labels: of each the mean of its texts' vectors, of length 1.
   * @param {string} model
   * @param {string} fingerprint
   * @param {string[]} labels
   * @param {Prompts} prompt
   * @param {CallOptions} [options]
   * @returns {Promise<Float32Array[]>}
   */
  async labels(model, fingerprint, labels, prompt, options) {
    const of = labels.map((label) => prompt.texts(label));
    const vectors = await this.plain(model, fingerprint, of.flat(), options);
    let next = 0;
    return of.map((texts) => {
      const own = vectors.slice(next, next + texts.length);
      next += texts.length;
      return own.length === 1 ? own[0] : meanDirection(own);
    });
  }

  /**
   * @param {string} key
   * @param {Float32Array} vector
   */
  #keep(key, vector) {
    this.#known.delete(key);
    this.#known.set(key, vector);
    if (this.#known.size > MOST) {
      const oldest = this.#known.keys().next();
      if (!oldest.done) this.#known.delete(oldest.value);
    }
  }
}

/**
 * The mean of vectors, brought to length 1.
 * @param {Float32Array[]} vectors at least one
 */
export function meanDirection(vectors) {
  const sum = new Float32Array(vectors[0].length);
  for (const vector of vectors) vector.forEach((value, index) => { sum[index] += value; });
  const length = Math.hypot(...sum) || 1;
  return sum.map((value) => value / length);
}
