// What is searched for: words as one types, pictures, and sums of both ("this but …").

import { fill, h, icon } from './dom.js';
import { combine } from './math.js';

/**
 * A part of the sum.
 * @typedef {{ kind: 'words' | 'picture', name: string, weight: 1 | -1, vector?: Float32Array }} Term
 *
 * What is searched for. `words` is the text where nothing else is searched for: only then a cosine has a probability.
 * @typedef {{ vector: Float32Array, words: string | null, said: string }} Query
 */

/** Parts of a sum at most. */
const MOST = 12;

export class QueryBar {
  /** @type {Term[]} */
  #terms = [];
  /** @type {1 | -1} */
  #weight = 1;
  #call = new AbortController();
  #listed = h('ul', { class: 'terms', 'aria-label': 'Parts of the search', hidden: true });

  /**
   * @param {import('./types.d.ts').App} app
   * @param {(query: Query | null) => void} onQuery
   */
  constructor(app, onQuery) {
    this.app = app;
    this.onQuery = onQuery;
    this.field = h('input', {
      type: 'search', class: 'field', autocomplete: 'off', spellcheck: false, maxLength: 1000,
      placeholder: 'Search by words', 'aria-label': 'Search by words', 'aria-describedby': 'query-hint',
      oninput: () => void this.#search(),
      onkeydown: (/** @type {KeyboardEvent} */ event) => this.#key(event),
    });
    this.sign = h('button', { type: 'button', class: 'button sign', onclick: () => this.#setWeight(this.#weight === 1 ? -1 : 1) });
    this.keep = h('button', { type: 'button', class: 'button', 'aria-label': 'Keep the words, to add more', onclick: () => this.#fix() }, 'Keep');
    this.#setWeight(1, false);
    this.element = h('div', { class: 'query', role: 'search', 'aria-label': 'Pictures' }, this.#listed,
      h('div', { class: 'query-line' }, this.sign, this.field, this.keep),
      h('p', { class: 'hint', id: 'query-hint' },
        'Enter keeps the words, so that you can add more, or take away with −: this picture + “at night” − “people”.'));
    this.enable(true);
  }

  /** Whether there is anything that is searched for. */
  get isEmpty() {
    return this.#terms.length === 0 && this.field.value.trim() === '';
  }

  /** @param {boolean} on whether there is anything to search in, by this model */
  enable(on) {
    this.field.disabled = this.sign.disabled = this.keep.disabled = !on;
  }

  /**
   * A picture as a part of the sum.
   * @param {string} name @param {Float32Array} vector @param {1 | -1} weight
   * @param {boolean} alone whether it takes the place of all others
   */
  addPicture(name, vector, weight, alone) {
    if (alone) {
      this.#terms = [];
      this.field.value = '';
      this.#setWeight(1, false);
    }
    this.#add({ kind: 'picture', name, weight, vector });
  }

  clear() {
    this.#terms = [];
    this.field.value = '';
    this.#setWeight(1, false);
    this.#draw();
    void this.#search();
  }

  /** Searches again: for another template, or with more pictures. */
  again() {
    void this.#search();
  }

  /** @param {Term} term */
  #add(term) {
    if (this.#terms.length >= MOST) {
      this.app.notice('error', `A search has at most ${MOST} parts.`);
      return;
    }
    this.#terms.push(term);
    this.#draw();
    void this.#search();
  }

  #fix() {
    const name = this.field.value.trim();
    if (name === '') return this.field.focus();
    this.field.value = '';
    this.#add({ kind: 'words', name, weight: this.#weight });
    this.#setWeight(1, false);
    return this.field.focus();
  }

  /** @param {1 | -1} weight @param {boolean} [search] */
  #setWeight(weight, search = true) {
    this.#weight = weight;
    this.sign.textContent = weight === 1 ? '+' : '−';
    const said = weight === 1 ? 'The words are added; take them away instead' : 'The words are taken away; add them instead';
    this.sign.setAttribute('aria-label', said);
    if (search) void this.#search();
  }

  /** @param {KeyboardEvent} event */
  #key(event) {
    if (event.key === 'Enter') {
      event.preventDefault();
      this.#fix();
    } else if (event.key === 'Backspace' && this.field.value === '' && this.#terms.length > 0) {
      this.#terms.pop();
      this.#draw();
      void this.#search();
    }
  }

  #draw() {
    this.#listed.hidden = this.#terms.length === 0;
    fill(this.#listed, this.#terms.map((term, at) => h('li', { class: `chip term ${term.weight === 1 ? 'plus' : 'minus'}` },
      h('span', { 'aria-hidden': 'true' }, term.weight === 1 ? '+' : '−'),
      h('span', { class: 'sr' }, term.weight === 1 ? 'plus' : 'minus'),
      term.kind === 'picture' && icon('picture'), h('span', { class: 'term-name' }, term.name),
      h('button', {
        type: 'button', class: 'plain', 'aria-label': `Leave out ${term.name}`,
        onclick: () => {
          this.#terms.splice(at, 1);
          this.#draw();
          void this.#search();
          this.field.focus();
        },
      }, icon('close')))));
  }

  async #search() {
    this.#call.abort();
    const call = (this.#call = new AbortController());
    const typed = this.field.value.trim();
    /** @type {Term[]} */
    const terms = typed === '' ? [...this.#terms] : [...this.#terms, { kind: 'words', name: typed, weight: this.#weight }];
    if (terms.length === 0) return this.onQuery(null);
    try {
      const words = terms.filter((term) => term.kind === 'words').map((term) => term.name);
      const vectors = words.length > 0 ? await this.app.labelVectors(words, { signal: call.signal }) : [];
      if (call.signal.aborted) return undefined;
      let next = 0;
      const parts = terms.map((term) => ({ vector: term.vector ?? vectors[next++], weight: term.weight }));
      const vector = combine(parts);
      if (!vector) {
        this.app.notice('error', 'The parts of this search cancel each other out.');
        return this.onQuery(null);
      }
      const alone = terms.length === 1 && terms[0].kind === 'words' && terms[0].weight === 1;
      const said = terms.map((term, at) => `${term.weight === 1 ? (at > 0 ? '+ ' : '') : '− '}${term.name}`).join(' ');
      return this.onQuery({ vector, words: alone ? terms[0].name : null, said });
    } catch (error) {
      return this.app.failed(error);
    }
  }
}
