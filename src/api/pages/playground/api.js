// The service's routes as functions, and the one place that knows what to do about 401, 413, 429 and 503.

import { readNpy } from './npy.js';

/** @typedef {import('./types.d.ts').Model} Model */
/** @typedef {import('./types.d.ts').CallOptions} CallOptions */
/** @typedef {import('./types.d.ts').Timings} Timings */

/** An answer that is no success, or none at all (`status` 0). */
export class ApiError extends Error {
  /**
   * @param {number} status
   * @param {string} message one sentence for a person
   * @param {string} [code] a name for programs
   * @param {string | null} [param] the input at fault
   */
  constructor(status, message, code = '', param = null) {
    super(message);
    this.name = 'ApiError';
    this.status = status;
    this.code = code;
    this.param = param;
  }

  /** Whether an input is at fault, so that others of the same request may be good. */
  get isOfInput() {
    return [400, 415, 422].includes(this.status);
  }
}

/** @param {unknown} error */
export const isAbort = (error) => error instanceof DOMException && error.name === 'AbortError';

/**
 * What the client asks of the page while a request waits.
 * @typedef {object} Hooks
 * @property {(message: string) => Promise<string | null>} askKey Asks for an API key; null if the person has none.
 * @property {(text: string) => { update(text: string): void, close(): void }} waiting Shows that a request waits, and why.
 */

/** Bytes of the pictures of one request. */
const BATCH_BYTES = 16 << 20;
/** Pictures of one request, unless a caller says otherwise. */
const BATCH = 32;
/** How often a request that was refused with 429 is sent again. */
const TRIES = 30;
/** Seconds between questions whether a model is loaded. */
const POLL = 1;

export class Client {
  /** @type {string | null} In memory only: closing the page forgets it. */
  #key = null;
  /** @type {Promise<string | null> | null} */
  #asking = null;

  /**
   * @param {URL} base what routes are relative to
   * @param {Hooks} hooks
   */
  constructor(base, hooks) {
    this.base = base;
    this.hooks = hooks;
  }

  /** Whether a key was given. */
  get hasKey() {
    return this.#key !== null;
  }

  /** @param {string | null} key */
  setKey(key) {
    this.#key = key;
  }

  /**
   * The address of a route.
   * @param {string} path without a slash at the beginning
   */
  url(path) {
    return new URL(path, this.base).href;
  }

  /**
   * Sends a request and answers with a success. Asks for a key after 401, waits and sends again after 429 and while models
   * load.
   * @param {string} path
   * @param {RequestInit & CallOptions} [options]
   * @returns {Promise<Response>}
   */
  async request(path, options = {}) {
    const { quiet = false, retry = true, ...init } = options;
    const signal = init.signal ?? undefined;
    /** @type {{ update(text: string): void, close(): void } | null} */
    let shown = null;
    const show = (/** @type {string} */ text) => {
      if (quiet) return;
      if (shown) shown.update(text);
      else shown = this.hooks.waiting(text);
    };
    try {
      for (let attempt = 1; ; attempt += 1) {
        const used = this.#key;
        const answer = await this.#send(path, init);
        if (answer.ok) return answer;
        const error = await errorOf(answer);
        if (answer.status === 401) {
          // Another request may have got a key in the meantime.
          if (this.#key === used && !(await this.#ask(used === null, used !== null))) throw error;
        } else if (answer.status === 429 && retry && attempt < TRIES) {
          await countdown(retryAfter(answer), signal, (left) =>
            show(`The service is busy (429). Trying again in ${left} s.`));
        } else if (answer.status === 503 && retry && error.code !== 'shutting_down' && attempt < TRIES * 20) {
          show(await this.#loading(error.message));
          await countdown(POLL, signal);
        } else {
          throw error;
        }
      }
    } finally {
      /** @type {{ close(): void } | null} */ (shown)?.close();
    }
  }

  /**
   * @param {string} path
   * @param {RequestInit} init
   */
  async #send(path, init) {
    const headers = new Headers(init.headers);
    if (this.#key !== null) headers.set('authorization', `Bearer ${this.#key}`);
    try {
      return await fetch(this.url(path), { ...init, headers, credentials: 'same-origin' });
    } catch (error) {
      if (isAbort(error)) throw error;
      throw new ApiError(0, 'The service cannot be reached. Is it still running?', 'unreachable');
    }
  }

  /**
   * Asks for a key, once for all requests that need one.
   * @param {boolean} first
   * @param {boolean} wrong
   */
  async #ask(first, wrong) {
    const message = wrong && !first ? 'The service does not know this API key.' : 'The service asks for an API key.';
    this.#asking ??= this.hooks.askKey(message).finally(() => { this.#asking = null; });
    const key = await this.#asking;
    if (key === null) return false;
    this.#key = key;
    return true;
  }

  /**
   * How far the models are, as a sentence.
   * @param {string} otherwise
   */
  async #loading(otherwise) {
    try {
      /** @type {{ models: { name: string, state: string, bytes?: number, total?: number }[] }} */
      const ready = await (await fetch(this.url('health/ready'))).json();
      const parts = ready.models.filter((model) => model.state !== 'ready' && model.state !== 'unloaded').map((model) => {
        const share = model.bytes && model.total ? ` (${Math.round((100 * model.bytes) / model.total)} % of a file of ${megabytes(model.total)})` : '';
        return `${model.name} is ${model.state}${share}`;
      });
      return parts.length > 0 ? `Not ready yet: ${parts.join(', ')}.` : otherwise;
    } catch {
      return otherwise;
    }
  }

  /**
   * Sends JSON (or nothing) and reads JSON.
   * @param {string} path
   * @param {{ method?: string, body?: unknown, headers?: Record<string, string> } & CallOptions} [options]
   * @returns {Promise<any>}
   */
  async json(path, { method, body, headers = {}, ...call } = {}) {
    const answer = await this.request(path, {
      method: method ?? (body === undefined ? 'GET' : 'POST'),
      headers: body === undefined ? headers : { 'content-type': 'application/json', ...headers },
      body: body === undefined ? undefined : JSON.stringify(body),
      ...call,
    });
    return answer.status === 204 ? null : answer.json();
  }

  /**
   * Every model; the first is the one that requests without a name get.
   * @param {CallOptions} [options]
   * @returns {Promise<Model[]>}
   */
  async models(options) {
    return (await this.json('v1/models', options)).data;
  }

  /**
   * Vectors of texts as they are: no template is put around them.
   * @param {string} model
   * @param {string[]} texts
   * @param {CallOptions} [options]
   * @returns {Promise<import('./types.d.ts').EmbeddedTexts>}
   */
  async embedTexts(model, texts, options = {}) {
    const started = performance.now();
    const answer = await this.request('v1/embeddings', {
      method: 'POST',
      headers: { 'content-type': 'application/json', accept: 'application/x-npy' },
      body: JSON.stringify({ model, input: texts.map((text) => ({ text })) }),
      ...options,
    });
    return { vectors: await rowsOf(answer, texts.length), fingerprint: fingerprintOf(answer), timings: timingsOf(answer, started) };
  }

  /**
   * Vectors of pictures, fetched as npy in batches of bounded size. A picture that cannot be used has an error in its place.
   * @param {string} model
   * @param {Blob[]} pictures
   * @param {import('./types.d.ts').PicturesOptions} [options]
   * @returns {Promise<import('./types.d.ts').EmbeddedPictures>}
   */
  async embedPictures(model, pictures, options = {}) {
    const { onProgress, batch = BATCH, fingerprint: expected, ...call } = options;
    /** @type {import('./types.d.ts').EmbeddedPictures} */
    const all = { vectors: [], errors: [], fingerprint: '', timings: {} };
    for (const part of batches(pictures, batch)) {
      const one = await this.#embedBatch(model, part, call, expected);
      all.vectors.push(...one.vectors);
      all.errors.push(...one.errors);
      all.fingerprint = one.fingerprint || all.fingerprint;
      for (const [stage, ms] of Object.entries(one.timings)) all.timings[stage] = (all.timings[stage] ?? 0) + ms;
      onProgress?.(all.vectors.length, pictures.length);
    }
    return all;
  }

  /**
   * @param {string} model
   * @param {Blob[]} pictures
   * @param {CallOptions} call
   * @param {string | undefined} expected
   * @returns {Promise<import('./types.d.ts').EmbeddedPictures>}
   */
  async #embedBatch(model, pictures, call, expected) {
    /** @type {Record<string, string>} */
    const headers = expected ? { 'x-siglip-expect-fingerprint': expected } : {};
    const started = performance.now();
    try {
      const answer = await this.request('v1/embeddings/images', {
        method: 'POST', body: formOf(model, pictures), headers: { ...headers, accept: 'application/x-npy' }, ...call,
      });
      const vectors = await rowsOf(answer, pictures.length);
      return { vectors, errors: vectors.map(() => null), fingerprint: fingerprintOf(answer), timings: timingsOf(answer, started) };
    } catch (error) {
      const tooLarge = error instanceof ApiError && error.status === 413;
      if (!(error instanceof ApiError && (error.isOfInput || tooLarge))) throw error;
      if (pictures.length === 1) {
        return { vectors: [null], errors: [nameless(error)], fingerprint: '', timings: {} };
      }
      if (tooLarge) return this.#embedHalves(model, pictures, call, expected);
    }
    // An array has no place for errors: the same request as a document, with an error in the place of each bad picture.
    const form = formOf(model, pictures);
    form.append('partial', 'true');
    form.append('encoding_format', 'base64');
    const answer = await this.request('v1/embeddings/images', { method: 'POST', body: form, headers, ...call });
    /** @type {{ data: { embedding?: string, error?: { message: string } }[] }} */
    const { data } = await answer.json();
    return {
      vectors: data.map((entry) => (entry.embedding === undefined ? null : floatsOf(entry.embedding))),
      errors: data.map((entry) => (entry.error ? withoutPlace(entry.error.message) : null)),
      fingerprint: fingerprintOf(answer),
      timings: timingsOf(answer, started),
    };
  }

  /**
   * @param {string} model
   * @param {Blob[]} pictures
   * @param {CallOptions} call
   * @param {string | undefined} expected
   * @returns {Promise<import('./types.d.ts').EmbeddedPictures>}
   */
  async #embedHalves(model, pictures, call, expected) {
    const middle = pictures.length >> 1;
    const first = await this.#embedBatch(model, pictures.slice(0, middle), call, expected);
    const second = await this.#embedBatch(model, pictures.slice(middle), call, expected);
    return {
      vectors: [...first.vectors, ...second.vectors],
      errors: [...first.errors, ...second.errors],
      fingerprint: second.fingerprint || first.fingerprint,
      timings: second.timings,
    };
  }

  /**
   * Classifies pictures by labels or a label set; `fields` are those of the route's form.
   * @param {string} model
   * @param {Blob[]} pictures
   * @param {Record<string, string | string[]>} fields
   * @param {CallOptions} [options]
   */
  async classify(model, pictures, fields, options = {}) {
    const form = formOf(model, pictures);
    for (const [name, value] of Object.entries(fields)) {
      form.append(name, typeof value === 'string' ? value : JSON.stringify(value));
    }
    const answer = await this.request('v1/classify', { method: 'POST', body: form, ...options });
    return answer.json();
  }

  /**
   * Where texts are in a picture: one map for each text.
   * @param {string} model
   * @param {Blob} picture
   * @param {string[]} texts
   * @param {CallOptions & { method?: 'windows' | 'crops', boxes?: boolean }} [options]
   * @returns {Promise<{ maps: import('./types.d.ts').Heatmap[], timings: Timings }>}
   */
  async heatmap(model, picture, texts, { method, boxes, ...call } = {}) {
    const started = performance.now();
    const body = { model, images: [{ image: await base64(picture) }], texts: texts.map((text) => ({ text })), method, boxes };
    const answer = await this.request('v1/heatmaps', {
      method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify(body), ...call,
    });
    return { maps: (await answer.json()).data, timings: timingsOf(answer, started) };
  }

  /**
   * The tokens of texts.
   * @param {string} model
   * @param {string[]} texts
   * @param {CallOptions} [options]
   * @returns {Promise<import('./types.d.ts').Tokens[]>}
   */
  async tokenize(model, texts, options = {}) {
    return (await this.json('v1/tokenize', { body: { model, texts }, ...options })).data;
  }

  /** @param {CallOptions} [options] */
  labelSets(options) {
    return this.json('v1/label-sets', options);
  }

  /**
   * @param {string} name
   * @param {CallOptions} [options]
   */
  labelSet(name, options) {
    return this.json(setPath(name), options);
  }

  /**
   * Stores a label set and waits until it is encoded.
   * @param {string} name
   * @param {unknown} definition
   * @param {CallOptions & { ifMatch?: string, onlyNew?: boolean }} [options]
   */
  putLabelSet(name, definition, { ifMatch, onlyNew, ...call } = {}) {
    /** @type {Record<string, string>} */
    const headers = {};
    if (ifMatch) headers['if-match'] = `"${ifMatch}"`;
    if (onlyNew) headers['if-none-match'] = '*';
    return this.json(`${setPath(name)}?wait=true`, { method: 'PUT', body: definition, headers, ...call });
  }

  /**
   * @param {string} name
   * @param {CallOptions} [options]
   */
  async deleteLabelSet(name, options) {
    await this.request(setPath(name), { method: 'DELETE', ...options });
  }

  /**
   * Adds examples: `{label, image}` or `{label, embedding}` each.
   * @param {string} name
   * @param {unknown[]} examples
   * @param {CallOptions & { model?: string }} [options]
   */
  addExamples(name, examples, { model, ...call } = {}) {
    return this.json(`${setPath(name)}/examples`, { body: { model, examples }, ...call });
  }

  /**
   * Removes the examples of some labels, or of all.
   * @param {string} name
   * @param {string[]} [labels]
   * @param {CallOptions} [options]
   */
  removeExamples(name, labels, options) {
    const query = (labels ?? []).map((label) => `labels=${encodeURIComponent(label)}`).join('&');
    return this.json(`${setPath(name)}/examples${query ? `?${query}` : ''}`, { method: 'DELETE', ...options });
  }
}

const setPath = (/** @type {string} */ name) => `v1/label-sets/${encodeURIComponent(name)}`;

/**
 * @param {string} model
 * @param {Blob[]} pictures
 */
function formOf(model, pictures) {
  const form = new FormData();
  form.append('model', model);
  pictures.forEach((picture, index) => form.append('image', picture, picture instanceof File ? picture.name : `picture-${index}`));
  return form;
}

/**
 * @param {Blob[]} pictures
 * @param {number} most
 */
export function* batches(pictures, most) {
  /** @type {Blob[]} */
  let part = [];
  let bytes = 0;
  for (const picture of pictures) {
    if (part.length > 0 && (part.length >= most || bytes + picture.size > BATCH_BYTES)) {
      yield part;
      part = [];
      bytes = 0;
    }
    part.push(picture);
    bytes += picture.size;
  }
  if (part.length > 0) yield part;
}

/**
 * The rows of an npy answer.
 * @param {Response} answer
 * @param {number} count
 */
async function rowsOf(answer, count) {
  const { shape, data } = readNpy(await answer.arrayBuffer());
  const [rows, width] = shape;
  if (shape.length !== 2 || rows !== count || !(data instanceof Float32Array)) {
    throw new ApiError(0, `The service answered with an array of shape ${shape.join(' × ')} for ${count} inputs.`, 'bad_answer');
  }
  return Array.from({ length: count }, (_, row) => data.subarray(row * width, (row + 1) * width));
}

/** @param {string} text base64 of little-endian float32 */
function floatsOf(text) {
  const bytes = Uint8Array.from(atob(text), (char) => char.charCodeAt(0));
  return new Float32Array(bytes.buffer);
}

/** @param {Response} answer */
const fingerprintOf = (answer) => answer.headers.get('x-siglip-fingerprint') ?? '';

/**
 * The stages of `Server-Timing`, and how long the page waited.
 * @param {Response} answer
 * @param {number} started
 * @returns {Timings}
 */
export function timingsOf(answer, started) {
  /** @type {Timings} */
  const timings = {};
  for (const part of (answer.headers.get('server-timing') ?? '').split(',')) {
    const [name, ...rest] = part.trim().split(';');
    const duration = rest.map((field) => /^dur=([\d.]+)$/.exec(field.trim())).find(Boolean);
    if (name && duration) timings[name] = Number(duration[1]);
  }
  timings.page = performance.now() - started;
  return timings;
}

/**
 * The error of an answer, whatever its body is: a proxy may have written it.
 * @param {Response} answer
 */
async function errorOf(answer) {
  const text = await answer.text().catch(() => '');
  try {
    const { message, code, param } = JSON.parse(text).error;
    return new ApiError(answer.status, explained(answer.status, String(message)), code, param);
  } catch {
    return new ApiError(answer.status, explained(answer.status, answer.statusText || `status ${answer.status}`));
  }
}

/**
 * @param {number} status
 * @param {string} message
 */
function explained(status, message) {
  if (status === 413) return `Too large for this service (413): ${message}`;
  if (status === 401) return `No valid API key (401): ${message}`;
  return message;
}

/** A message without the name of a place that the reader does not know: there was one picture. @param {ApiError} error */
const nameless = (error) => withoutPlace(error.message);

/** @param {string} message */
const withoutPlace = (message) => message.replace(/^(input|image|images|file)\[\d+\](?: \([^)]*\))?: /, '');

/** Seconds that the service wants to be left alone. @param {Response} answer */
function retryAfter(answer) {
  const seconds = Number(answer.headers.get('retry-after'));
  return Number.isFinite(seconds) && seconds > 0 ? Math.min(seconds, 120) : 1;
}

/**
 * Waits, and says each second how long still.
 * @param {number} seconds
 * @param {AbortSignal | undefined} signal
 * @param {(left: number) => void} [tell]
 */
async function countdown(seconds, signal, tell) {
  for (let left = Math.ceil(seconds); left > 0; left -= 1) {
    tell?.(left);
    await pause(1000, signal);
  }
}

/**
 * @param {number} ms
 * @param {AbortSignal} [signal]
 * @returns {Promise<void>}
 */
export function pause(ms, signal) {
  return new Promise((resolve, reject) => {
    const stop = () => reject(signal?.reason instanceof Error ? signal.reason : new DOMException('aborted', 'AbortError'));
    if (signal?.aborted) return stop();
    const timer = setTimeout(() => {
      signal?.removeEventListener('abort', done);
      resolve();
    }, ms);
    const done = () => {
      clearTimeout(timer);
      stop();
    };
    signal?.addEventListener('abort', done, { once: true });
    return undefined;
  });
}

/** @param {number} bytes */
export const megabytes = (bytes) => (bytes < 1e6 ? `${Math.ceil(bytes / 1000)} kB` : `${(bytes / 1e6).toFixed(1)} MB`);

/**
 * The bytes of a file as base64.
 * @param {Blob} blob
 * @returns {Promise<string>}
 */
export function base64(blob) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(String(reader.result).replace(/^[^,]*,/, ''));
    reader.onerror = () => reject(reader.error ?? new Error('the file cannot be read'));
    reader.readAsDataURL(blob);
  });
}
