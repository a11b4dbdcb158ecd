// Hundreds to thousands of files, embedded in batches of bounded count and bytes: progress, pause, errors in their places, and
// an end at any time.

/**
 * What the embedding of a batch gives: a vector or an error in each place.
 * @typedef {{ vectors: (Float32Array | null)[], errors: (string | null)[] }} Embedded
 */

/**
 * How the queue is.
 * @typedef {object} Progress
 * @property {number} total files that were ever added
 * @property {number} done with a vector
 * @property {number} failed without one
 * @property {number} running in a batch at this moment
 * @property {"idle" | "running" | "paused" | "waiting" | "stopped"} state `waiting`: the service had no room (429)
 * @property {string} reason why it is paused, where it did so itself; else empty
 * @property {number} perSecond files a second over the last batches; 0 where it is not known yet
 */

/**
 * @template Item
 * @typedef {object} QueueOptions
 * @property {(items: Item[], signal: AbortSignal) => Promise<Embedded>} embed one request
 * @property {(item: Item) => number} size bytes of an item
 * @property {(item: Item, vector: Float32Array | null, error: string | null) => void} settled called once for each item
 * @property {(progress: Progress) => void} [changed]
 * @property {number} [maxItems] of a batch; 32 if left out
 * @property {number} [maxBytes] of a batch; 16 MiB if left out. A larger item is a batch of its own.
 * @property {number} [parallel] batches at once; 2 if left out, so that one is sent while the other is computed
 * @property {(ms: number) => Promise<void>} [sleep] for tests
 */

/** Waits after 429 before the queue pauses itself; the client has waited many times before. */
const MAX_WAITS = 20;

/**
 * Takes items in their order, several batches at once. A failure of a whole batch that is not the items' fault (no
 * connection, no key, the service stopping) pauses the queue, with the items put back: nothing is lost, and `resume` tries again.
 * @template Item
 */
export class EmbedQueue {
  /** @type {Item[]} */ #waiting = [];
  #next = 0;
  /** @type {Set<AbortController>} */ #batches = new Set();
  /** @type {Progress} */ #progress = { total: 0, done: 0, failed: 0, running: 0, state: 'idle', reason: '', perSecond: 0 };
  #waits = 0;
  /** @type {{ at: number, items: number }[]} */ #recent = [];
  /** @type {Required<Omit<QueueOptions<Item>, "changed">> & { changed: (progress: Progress) => void }} */ #options;

  /** @param {QueueOptions<Item>} options */
  constructor(options) {
    this.#options = {
      maxItems: 32,
      maxBytes: 16 * 2 ** 20,
      parallel: 2,
      changed: () => {},
      sleep: (ms) => new Promise((resolve) => setTimeout(resolve, ms)),
      ...options,
    };
  }

  /** @returns {Readonly<Progress>} */
  get progress() {
    return this.#progress;
  }

  /** Adds items behind those that wait, and begins unless the queue is paused. @param {Item[]} items */
  add(items) {
    if (this.#progress.state === 'stopped') throw new Error('the queue was stopped');
    if (this.#next > 0) {
      this.#waiting.splice(0, this.#next); // those that are done need not be kept
      this.#next = 0;
    }
    // No `push(...items)`: there may be more than a call takes as arguments.
    for (const item of items) this.#waiting.push(item);
    this.#change({ total: this.#progress.total + items.length });
    this.#fill();
  }

  /** Lets the batches that are on their way end, and begins no more. */
  pause() {
    if (this.#progress.state !== 'stopped') this.#change({ state: 'paused', reason: '' });
  }

  resume() {
    if (this.#progress.state !== 'paused') return;
    this.#waits = 0;
    this.#recent = [];
    this.#change({ state: 'idle', reason: '' });
    this.#fill();
  }

  /** Ends it for good: requests are aborted, and nothing is told any more. */
  stop() {
    this.#waiting = [];
    this.#next = 0;
    this.#progress = { ...this.#progress, state: 'stopped', running: 0 };
    for (const batch of this.#batches) batch.abort();
  }

  /** @param {Partial<Progress>} what */
  #change(what) {
    if (this.#progress.state === 'stopped') return;
    this.#progress = { ...this.#progress, ...what };
    this.#options.changed(this.#progress);
  }

  #fill() {
    const { state } = this.#progress;
    if (state === 'paused' || state === 'waiting' || state === 'stopped') return;
    while (this.#batches.size < this.#options.parallel && this.#next < this.#waiting.length) this.#run(this.#take());
    this.#change({ state: this.#batches.size > 0 ? 'running' : 'idle' });
  }

  /** The next items, as many as a batch may have. */
  #take() {
    const { maxItems, maxBytes, size } = this.#options;
    const items = [this.#waiting[this.#next++]];
    let bytes = size(items[0]);
    while (items.length < maxItems && this.#next < this.#waiting.length) {
      bytes += size(this.#waiting[this.#next]);
      if (bytes > maxBytes) break;
      items.push(this.#waiting[this.#next++]);
    }
    return items;
  }

  /** @param {Item[]} items */
  async #run(items) {
    const batch = new AbortController();
    this.#batches.add(batch);
    this.#change({ running: this.#progress.running + items.length });
    /** @type {Embedded | null} */
    let answer = null;
    let failure;
    try {
      answer = await this.#options.embed(items, batch.signal);
      if (answer.vectors.length !== items.length || answer.errors.length !== items.length) {
        throw new Error(`${answer.vectors.length} vectors came back for ${items.length} pictures`);
      }
    } catch (error) {
      answer = null;
      failure = error;
    }
    this.#batches.delete(batch);
    if (this.#progress.state === 'stopped') return;
    this.#change({ running: this.#progress.running - items.length });
    if (answer) this.#settle(items, answer);
    else await this.#failed(items, failure);
    this.#fill();
  }

  /** @param {Item[]} items @param {Embedded} answer */
  #settle(items, answer) {
    this.#waits = 0;
    let done = 0;
    items.forEach((item, i) => {
      const vector = answer.vectors[i];
      if (vector) done++;
      this.#options.settled(item, vector, vector ? null : (answer.errors[i] ?? 'the service gave no vector'));
    });
    this.#recent = [...this.#recent, { at: performance.now(), items: items.length }].slice(-12);
    const span = (this.#recent[this.#recent.length - 1].at - this.#recent[0].at) / 1000;
    // What came with the first batch was computed before its time was taken.
    const since = this.#recent.slice(1).reduce((sum, { items: n }) => sum + n, 0);
    this.#change({
      done: this.#progress.done + done,
      failed: this.#progress.failed + items.length - done,
      perSecond: span > 0 ? since / span : 0,
    });
  }

  /** @param {Item[]} items @param {unknown} error */
  async #failed(items, error) {
    const { status, retryAfter } = /** @type {{ status?: number, retryAfter?: number }} */ (Object(error));
    if (status === 413 || status === 422 || status === 400 || status === 415) {
      // An item is at fault. Alone it is named; of several, each half is tried.
      if (items.length === 1) {
        const message = error instanceof Error ? error.message : String(error);
        this.#settle(items, { vectors: [null], errors: [message] });
      } else {
        const middle = items.length >> 1;
        await this.#run(items.slice(0, middle));
        if (this.#progress.state !== 'stopped') await this.#run(items.slice(middle));
      }
      return;
    }
    this.#waiting.splice(0, this.#next, ...items); // back to the front
    this.#next = 0;
    if (status === 429 && this.#waits < MAX_WAITS && this.#progress.state !== 'paused') {
      this.#waits++;
      this.#change({ state: 'waiting' });
      await this.#options.sleep(1000 * Math.min(Math.max(retryAfter ?? 2, 1), 60));
      if (this.#progress.state === 'waiting') this.#change({ state: 'idle' });
      return;
    }
    this.#change({ state: 'paused', reason: error instanceof Error ? error.message : String(error) });
  }
}
