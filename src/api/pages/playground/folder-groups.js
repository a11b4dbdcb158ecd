// Near-duplicates: groups of pictures that are alike, above a cosine that one chooses.

import { fill, h, settled } from './dom.js';
import { Strip } from './folder-strip.js';
import { alike, dot, inSlices } from './math.js';

/** Groups on the page before one asks for more, and pictures of a group. */
const STEP = 40;
const SHOWN = 24;

export class Groups {
  #threshold = 0.95;
  /** @type {number[][]} */
  #groups = [];
  #shown = STEP;
  #version = -1;
  #work = new AbortController();

  /**
   * @param {object} options
   * @param {import('./types.d.ts').App} options.app
   * @param {() => import('./folder-store.js').Store} options.store
   * @param {import('./folder-thumbs.js').Thumbs} options.thumbs
   * @param {(index: number) => void} options.onOpen
   */
  constructor(options) {
    this.options = options;
    this.strip = new Strip(options.thumbs, options.onOpen);
    this.status = h('p', { role: 'status', class: 'hint' });
    // Not a part of the status: a screen reader shall not read every percent.
    this.busy = h('progress', { max: 1, value: 0, hidden: true, 'aria-label': 'Comparing' });
    this.list = h('ol', { class: 'groups' });
    this.more = h('button', { type: 'button', class: 'button', hidden: true, onclick: () => this.#draw(this.#shown + STEP) }, 'Show more groups');
    this.copy = h('button', { type: 'button', class: 'button small', disabled: true, onclick: () => void this.#copy() },
      'Copy the names of all but the first of each');
    const value = h('span', { class: 'number', 'aria-hidden': 'true' }, this.#threshold.toFixed(4));
    const later = settled(() => void this.compute(), 150);
    const slider = h('input', {
      id: 'alike-threshold', type: 'range', min: '0.8', max: '0.9999', step: '0.0001', value: String(this.#threshold),
      oninput: () => {
        this.#threshold = slider.valueAsNumber;
        value.textContent = this.#threshold.toFixed(4);
        later();
      },
    });
    this.element = h('section', { class: 'stack', 'aria-label': 'Near-duplicates', hidden: true },
      h('h2', { class: 'sr' }, 'Near-duplicates'),
      h('div', { class: 'row between' },
        h('div', { class: 'labelled' }, h('label', { for: 'alike-threshold' }, 'Alike from a cosine of'), slider, value), this.copy),
      h('div', { class: 'row' }, this.status, this.busy), this.list, this.more);
  }

  /** Computes the groups unless they are there. */
  show() {
    if (this.#version !== this.options.store().version) void this.compute();
  }

  hide() {
    this.#work.abort();
  }

  async compute() {
    this.#work.abort();
    const work = (this.#work = new AbortController());
    const store = this.options.store();
    const { version, width } = store;
    const { ids, rows } = store.packed();
    const started = performance.now();
    this.status.textContent = `Comparing ${ids.length.toLocaleString()} pictures with each other …`;
    this.busy.hidden = false;
    const threshold = this.#threshold;
    function* all() {
      const reduced = yield* store.reduced(rows, ids.length);
      return yield* alike(rows, ids.length, width, threshold, reduced);
    }
    try {
      const groups = await inSlices(all(), { signal: work.signal, onProgress: (share) => { this.busy.value = share; } });
      this.#groups = groups.map((group) => group.map((row) => ids[row]));
      this.#version = version;
      const pictures = this.#groups.reduce((sum, group) => sum + group.length, 0);
      this.status.textContent = groups.length === 0
        ? `No two of ${ids.length.toLocaleString()} pictures are that alike.`
        : `${groups.length.toLocaleString()} ${groups.length === 1 ? 'group' : 'groups'} with ${pictures.toLocaleString()} pictures, of ` +
          `${ids.length.toLocaleString()} compared in ${((performance.now() - started) / 1000).toFixed(1)} s`;
      this.copy.disabled = groups.length === 0;
      this.#draw(STEP);
    } catch (error) {
      this.options.app.failed(error);
    } finally {
      if (work === this.#work) this.busy.hidden = true;
    }
  }

  /** @param {number} shown */
  #draw(shown) {
    this.#shown = shown;
    const { vectors, width, pictures } = this.options.store();
    // The first is the one to keep; each other one says how alike it is to that.
    const note = (/** @type {number} */ first, /** @type {number} */ index) =>
      index === first ? '' : dot(vectors, first * width, vectors, index * width, width).toFixed(3);
    this.strip.clear();
    fill(this.list, this.#groups.slice(0, shown).map((group, at) => h('li', { class: 'group' },
      h('h3', {}, `${at + 1}. ${group.length} pictures`),
      h('div', { class: 'strip' }, group.slice(0, SHOWN).map((index) =>
        this.strip.button(index, pictures[index].name, note(group[0], index))),
      group.length > SHOWN && h('span', { class: 'hint' }, `and ${group.length - SHOWN} more`)))));
    this.more.hidden = this.#groups.length <= shown;
  }

  async #copy() {
    const store = this.options.store();
    const names = this.#groups.flatMap((group) => group.slice(1).map((index) => store.pictures[index].name));
    try {
      await navigator.clipboard.writeText(`${names.join('\n')}\n`);
      this.options.app.notice('good', `${names.length.toLocaleString()} names are copied.`);
    } catch {
      this.options.app.notice('error', 'This browser lets the page copy nothing; the service needs HTTPS for that.');
    }
  }
}
