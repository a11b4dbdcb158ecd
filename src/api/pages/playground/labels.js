// The list of labels: each is a field with a bar behind it.

import { fill, h, icon } from './dom.js';

/**
 * @typedef {import('./scores.js').Score} Score
 *
 * @typedef {object} Events
 * @property {() => void} changed a label's words changed, or there is one more or less
 * @property {(label: string | null) => void} previewed a label is pointed at, or none
 * @property {(label: string | null) => void} pinned a label's map is to stay, or none
 */

/** Labels at most: what the service takes in one request. */
const MOST = 200;

class Row {
  /**
   * @param {LabelList} list
   * @param {string} words
   */
  constructor(list, words) {
    this.bar = h('span', { class: 'bar', 'aria-hidden': 'true' });
    this.value = h('span', { class: 'score number', id: `score-${(Row.count += 1)}` });
    this.field = h('input', {
      type: 'text', class: 'words', value: words, spellcheck: false, autocomplete: 'off', maxLength: 1000, placeholder: 'a label',
      'aria-describedby': this.value.id,
    });
    this.where = h('button', { type: 'button', class: 'plain where', 'aria-pressed': 'false', title: 'Where is it? (stays)' }, icon('where'));
    this.remove = h('button', { type: 'button', class: 'plain' }, icon('close'));
    this.root = h('li', { class: 'label' }, h('span', { class: 'track' }, this.bar, this.field, this.value), this.where, this.remove);
    list.listen(this);
  }

  static count = 0;

  get words() {
    return this.field.value.trim();
  }
}

export class LabelList {
  /** @type {Row[]} */
  #rows = [];
  /** @type {string | null} */
  #pinned = null;

  /**
   * @param {string[]} labels
   * @param {Events} events
   */
  constructor(labels, events) {
    this.events = events;
    this.root = h('ol', { class: 'labels', 'aria-label': 'Labels' });
    this.set(labels);
  }

  /** Labels that have words, each once. */
  get labels() {
    return [...new Set(this.#rows.map((row) => row.words).filter(Boolean))];
  }

  /** The label whose map stays. */
  get pinned() {
    return this.#pinned;
  }

  /** @param {string[]} labels */
  set(labels) {
    this.#rows = labels.slice(0, MOST).map((words) => new Row(this, words));
    this.#draw();
  }

  /**
   * Shows scores; a label without one has an empty bar.
   * @param {Map<string, Score>} scores
   * @param {number | null} threshold a probability
   * @param {number | null} mark
   */
  show(scores, threshold, mark) {
    const best = [...scores.values()].reduce((most, score) => Math.max(most, score.value), -Infinity);
    this.root.style.setProperty('--mark', mark === null ? '-1' : String(mark));
    this.root.classList.toggle('marked', mark !== null);
    for (const row of this.#rows) {
      const score = scores.get(row.words);
      row.bar.style.setProperty('--share', String(score?.share ?? 0));
      row.value.textContent = score?.text ?? (row.words ? '…' : '');
      row.root.classList.toggle('best', score !== undefined && score.value === best);
      row.root.classList.toggle('below', score !== undefined && threshold !== null && score.probability !== null && score.probability < threshold);
      // Which words the bar is of: while somebody types, the last answer may be of fewer letters.
      row.root.dataset.of = score ? row.words : '';
    }
  }

  /** Puts the best first. @param {Map<string, Score>} scores */
  sort(scores) {
    const value = (/** @type {Row} */ row) => scores.get(row.words)?.value ?? -Infinity;
    this.#rows.sort((a, b) => value(b) - value(a));
    this.#draw();
  }

  /** Adds an empty label at the end and goes there. */
  add() {
    this.#insert(this.#rows.length, ['']);
  }

  /** @param {string | null} label */
  pin(label) {
    this.#pinned = label;
    for (const row of this.#rows) {
      const on = label !== null && row.words === label;
      row.where.setAttribute('aria-pressed', String(on));
    }
    this.events.pinned(label);
  }

  /** @param {Row} row */
  listen(row) {
    const { field } = row;
    row.field.addEventListener('input', () => {
      this.#name(row);
      if (row.where.getAttribute('aria-pressed') === 'true') this.#pinned = row.words;
      this.events.changed();
    });
    field.addEventListener('keydown', (event) => this.#key(row, event));
    field.addEventListener('paste', (event) => this.#paste(row, event));
    row.where.addEventListener('click', () => {
      this.pin(row.where.getAttribute('aria-pressed') === 'true' ? null : row.words || null);
    });
    const preview = () => this.events.previewed(row.words || null);
    const end = () => this.events.previewed(null);
    row.root.addEventListener('pointerenter', (event) => event.pointerType === 'mouse' && preview());
    row.root.addEventListener('pointerleave', (event) => event.pointerType === 'mouse' && end());
    row.where.addEventListener('focus', () => row.where.matches(':focus-visible') && preview());
    row.where.addEventListener('blur', end);
    row.remove.addEventListener('click', () => this.#remove(row));
  }

  /**
   * @param {Row} row
   * @param {KeyboardEvent} event
   */
  #key(row, event) {
    const at = this.#rows.indexOf(row);
    if (event.isComposing) return;
    if (event.key === 'Enter') {
      event.preventDefault();
      if (row.words) this.#insert(at + 1, ['']);
    } else if (event.key === 'Backspace' && row.field.value === '' && this.#rows.length > 1) {
      event.preventDefault();
      this.#remove(row);
    } else if (event.key === 'ArrowDown' || event.key === 'ArrowUp') {
      const next = this.#rows[at + (event.key === 'ArrowDown' ? 1 : -1)];
      if (!next) return;
      event.preventDefault();
      next.field.focus();
    }
  }

  /**
   * Several lines, or words with commas, become several labels.
   * @param {Row} row
   * @param {ClipboardEvent} event
   */
  #paste(row, event) {
    const text = event.clipboardData?.getData('text/plain') ?? '';
    const parts = text.split(/[\n,;]/).map((part) => part.trim()).filter(Boolean);
    if (parts.length < 2) return;
    event.preventDefault();
    const at = this.#rows.indexOf(row);
    if (!row.words) this.#rows.splice(at, 1);
    this.#insert(row.words ? at + 1 : at, parts);
  }

  /**
   * @param {number} at
   * @param {string[]} labels
   */
  #insert(at, labels) {
    const room = Math.max(0, MOST - this.#rows.length);
    const rows = labels.slice(0, room).map((words) => new Row(this, words));
    if (rows.length === 0) return;
    this.#rows.splice(at, 0, ...rows);
    this.#draw();
    rows[rows.length - 1].field.focus();
    this.events.changed();
  }

  /** @param {Row} row */
  #remove(row) {
    const at = this.#rows.indexOf(row);
    if (row.where.getAttribute('aria-pressed') === 'true') this.pin(null);
    this.#rows.splice(at, 1);
    if (this.#rows.length === 0) this.#rows.push(new Row(this, ''));
    this.#draw();
    const { field } = this.#rows[Math.max(0, at - 1)];
    field.focus();
    field.setSelectionRange(field.value.length, field.value.length);
    this.events.previewed(null);
    this.events.changed();
  }

  #draw() {
    fill(this.root, this.#rows.map((row) => row.root));
    this.#rows.forEach((row) => this.#name(row));
  }

  /** Says to screen readers what the parts of a row are of. @param {Row} row */
  #name(row) {
    const number = this.#rows.indexOf(row) + 1;
    row.field.setAttribute('aria-label', `Label ${number}`);
    row.where.setAttribute('aria-label', `Where is ${row.words || `label ${number}`}?`);
    row.remove.setAttribute('aria-label', `Remove ${row.words || `label ${number}`}`);
  }
}
