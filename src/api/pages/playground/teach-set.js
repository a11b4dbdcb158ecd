// A label set as it is taught: labels, the pictures that are their examples, and what the service has of it already.

import { ApiError } from './api.js';

/** Examples that the service keeps for a set, and labels that the page shows of one. */
export const MOST_EXAMPLES = 10_000;
export const MOST_LABELS = 100;
/** Embeddings of one request. */
const BATCH = 256;

/**
 * A label. `kept` is its entry in the definition that was opened, with thresholds and synonyms. `examples` are pictures of the page.
 * @typedef {{ name: string, kept: unknown, examples: number[] }} Label
 *
 * What the examples of a label do, as `POST …/examples` says it.
 * @typedef {{ label: string, examples: number, words: number, accuracy_before: number, accuracy_after: number, keeps_words: boolean }} Effect
 *
 * @typedef {{ examples: number, before: number | null, after: number | null, labels: Map<string, Effect> }} Measured
 *
 * What the page and the service have of it.
 * @typedef {{ client: import('./api.js').Client, store: import('./folder-store.js').Store, model: string }} Around
 */

export class TaughtSet {
  name = 'my-labels';
  /** @type {Label[]} */
  labels = [];
  none = false;
  /** The rest of a definition that was opened: it is stored again as it was. @type {Record<string, unknown>} */
  rest = {};
  /** The version that the service has; empty before it was stored or opened. */
  version = '';
  /** The name that this version has. */
  storedAs = '';
  /** Examples that were there when the set was opened: the service keeps their vectors, the page has no pictures of them. */
  others = 0;
  /** @type {Measured | null} */
  measured = null;
  /** The definition that the service has, as JSON. */
  #stored = '';
  /** By label, the pictures that the service has as its examples. @type {Map<string, Set<number>>} */
  #sent = new Map();

  /** Examples of all labels in the page. */
  get count() {
    return this.labels.reduce((sum, label) => sum + label.examples.length, 0);
  }

  /**
   * Whether the service has the set as it is here, and all examples of the page and no others of it.
   * @param {string} model @param {string[]} templates
   */
  isStored(model, templates) {
    if (this.version === '' || this.storedAs !== this.name || this.#stored !== JSON.stringify(this.definition(model, templates))) return false;
    return this.labels.every(({ name, examples }) => {
      const sent = this.#sent.get(name);
      return examples.length === (sent?.size ?? 0) && examples.every((index) => sent?.has(index));
    });
  }

  /** @param {string} name @returns {Label} */
  addLabel(name) {
    const label = { name, kept: null, examples: [] };
    this.labels.push(label);
    return label;
  }

  /** The label that a picture is an example of. @param {number} index */
  labelOf(index) {
    return this.labels.find((label) => label.examples.includes(index)) ?? null;
  }

  /** Makes a picture an example of a label, or of none. @param {number} index @param {Label | null} label */
  give(index, label) {
    for (const other of this.labels) other.examples = other.examples.filter((one) => one !== index);
    label?.examples.push(index);
  }

  /**
   * What is stored.
   * @param {string} model @param {string[]} templates
   */
  definition(model, templates) {
    return {
      ...this.rest,
      labels: this.labels.map(({ name, kept }) => kept ?? name),
      templates: this.rest.templates ?? templates,
      none: this.none ? (this.rest.none ?? true) : undefined,
      model,
    };
  }

  /**
   * Stores the set and its examples, and measures what they do.
   * @param {Around} around @param {string[]} templates
   * @param {boolean} replace whether a set of this name that is not the one that was opened is replaced
   */
  async save({ client, store, model }, templates, replace) {
    const same = this.storedAs === this.name && this.version !== '';
    const definition = this.definition(model, templates);
    let answer = await client.putLabelSet(this.name, definition,
      same ? { ifMatch: this.version } : replace ? {} : { onlyNew: true });
    if (!same) {
      this.#sent.clear();
      this.others = 0;
      // A set of this name that is replaced keeps the examples of the labels that it still has: they are not of this lesson.
      if (answer.examples > 0) answer = await client.json(examplesPath(this.name), { method: 'DELETE' });
    }
    [this.storedAs, this.version, this.#stored] = [this.name, answer.version, JSON.stringify(definition)];
    await this.#remove(client);
    const fresh = this.labels.flatMap(({ name, examples }) => examples.filter((index) => !this.#sent.get(name)?.has(index)).map((index) => ({ name, index })));
    if (this.labels.length > 0 && fresh.length === 0 && this.count === 0) this.measured = null;
    for (let first = 0; first < fresh.length; first += BATCH) {
      const part = fresh.slice(first, first + BATCH);
      const examples = part.map(({ name, index }) => ({ label: name, embedding: base64Of(store.vector(index)) }));
      const effect = await client.json(examplesPath(this.name), {
        body: { model, examples }, headers: { 'x-siglip-expect-fingerprint': store.fingerprint },
      });
      for (const { name, index } of part) this.#sentOf(name).add(index);
      this.version = effect.version;
      this.measured = {
        examples: effect.examples, before: effect.accuracy_before, after: effect.accuracy_after,
        labels: new Map(effect.labels.map((/** @type {Effect} */ one) => [one.label, one])),
      };
    }
  }

  /**
   * Takes back examples that are none any more. The service forgets all examples of a label at once; those that stay are sent
   * again afterwards.
   * @param {import('./api.js').Client} client
   */
  async #remove(client) {
    const names = new Set(this.labels.map(({ name }) => name));
    for (const name of this.#sent.keys()) if (!names.has(name)) this.#sent.delete(name); // the service dropped them with the label
    for (const { name } of this.labels.filter((label) => this.#shrinks(label))) await this.forget(client, name);
  }

  /** Whether the service has an example that is none any more. @param {Label} label */
  #shrinks({ name, examples }) {
    return [...(this.#sent.get(name) ?? [])].some((index) => !examples.includes(index));
  }

  /** How many examples without pictures a save would lose, since the service forgets all of a label at once. */
  losing() {
    if (this.storedAs !== this.name) return 0;
    return this.labels.filter((label) => this.#shrinks(label)).reduce((sum, { name }) => sum + this.othersOf(name), 0);
  }

  /**
   * Removes every example that the service has of a label.
   * @param {import('./api.js').Client} client @param {string} name
   */
  async forget(client, name) {
    this.others = Math.max(0, this.others - this.othersOf(name));
    const answer = await client.json(`${examplesPath(this.storedAs)}?label=${encodeURIComponent(name)}`, { method: 'DELETE' });
    this.version = answer.version;
    this.#sent.delete(name);
    this.measured?.labels.delete(name);
  }

  /** Examples of a label that the service has and the page has not; known once it measured. @param {string} name */
  othersOf(name) {
    const all = this.measured?.labels.get(name)?.examples ?? 0;
    return Math.max(0, all - (this.#sent.get(name)?.size ?? 0));
  }

  /** @param {string} name */
  #sentOf(name) {
    let sent = this.#sent.get(name);
    if (!sent) this.#sent.set(name, (sent = new Set()));
    return sent;
  }

  /** Vectors of another model are no examples any more. */
  forgetPictures() {
    for (const label of this.labels) label.examples = [];
    this.#sent.clear();
    this.measured = null;
  }

  /**
   * A stored set, to go on with.
   * @param {any} answer of `GET /v1/label-sets/{name}`
   * @param {string} chosen the model that is chosen
   * @param {string[]} templates those that are chosen
   * @returns {TaughtSet}
   */
  static opened(answer, chosen, templates) {
    const { labels, none, model: _, ...rest } = answer.definition ?? {};
    if (answer.kind !== 'texts' || !Array.isArray(labels)) throw new Error(`“${answer.name}” is a linear head, which has no words and takes no examples.`);
    if (labels.length > MOST_LABELS) throw new Error(`“${answer.name}” has ${labels.length.toLocaleString()} labels; this page shows up to ${MOST_LABELS}.`);
    const set = new TaughtSet();
    set.name = set.storedAs = answer.name;
    set.version = answer.version;
    set.others = answer.examples;
    set.none = none !== undefined && none !== null && none !== false;
    set.rest = none && none !== true ? { ...rest, none } : rest;
    set.labels = labels.map((label) => ({ name: typeof label === 'string' ? label : label.name, kept: typeof label === 'string' ? null : label, examples: [] }));
    set.#stored = JSON.stringify(set.definition(chosen, templates));
    return set;
  }
}

/** @param {string} name */
const examplesPath = (name) => `v1/label-sets/${encodeURIComponent(name)}/examples`;

/** The bytes of a vector as base64. @param {Float32Array} vector */
export function base64Of(vector) {
  const bytes = new Uint8Array(vector.buffer, vector.byteOffset, vector.byteLength);
  let text = '';
  for (const byte of bytes) text += String.fromCharCode(byte);
  return btoa(text);
}

/**
 * The best label of each picture by a stored set; null where none fits.
 * @param {Around} around @param {string} name @param {number[]} indices
 * @returns {Promise<Map<number, { label: string | null, score: number | null }>>}
 */
export async function classified({ client, store, model }, name, indices) {
  /** @type {Map<number, { label: string | null, score: number | null }>} */
  const found = new Map();
  for (let first = 0; first < indices.length; first += BATCH) {
    const part = indices.slice(first, first + BATCH);
    const { data } = await client.json('v1/classify', {
      body: { model, label_set: name, top_k: 1, embeddings: part.map((index) => base64Of(store.vector(index))) },
      headers: { 'x-siglip-expect-fingerprint': store.fingerprint },
    });
    data.forEach((/** @type {any} */ entry, /** @type {number} */ at) => {
      found.set(part[at], { label: entry.prediction ?? null, score: entry.score ?? null });
    });
  }
  return found;
}

/** Whether the set was changed by somebody else, or one of its name is there. @param {unknown} error */
export const isConflict = (error) => error instanceof ApiError && error.status === 412 && error.code === 'version_mismatch';
