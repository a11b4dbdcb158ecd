// Pictures that are no examples yet: chosen by click or Space, given to a label by drag, by button or by the label's number.

import { fill, h } from './dom.js';
import { Strip } from './folder-strip.js';
import { PICTURES } from './teach-board.js';

/**
 * What is said of a picture: the best label by words, as computed in the page, and by the stored set.
 * @typedef {{ words: string, set: string | null | undefined, score: number | null }} Guess
 */

export class Tray {
  /** @type {Set<number>} */
  #chosen = new Set();
  /** @type {Map<number, HTMLButtonElement>} */
  #buttons = new Map();

  /**
   * @param {object} options
   * @param {() => import('./teach-set.js').TaughtSet} options.set
   * @param {() => import('./folder-store.js').Store} options.store
   * @param {import('./folder-thumbs.js').Thumbs} options.thumbs
   * @param {(index: number) => Guess} options.guess
   * @param {(label: import('./teach-set.js').Label, indices: number[]) => void} options.onGive
   */
  constructor(options) {
    this.options = options;
    this.strip = new Strip(options.thumbs, (index) => this.#toggle(index));
    this.pictures = h('div', { class: 'strip tray-pictures', role: 'group', 'aria-label': 'Pictures that are no examples' });
    this.pictures.addEventListener('keydown', (event) => this.#key(event));
    this.give = h('div', { class: 'row tray-give' });
    this.status = h('p', { class: 'sr', role: 'status' });
    this.element = h('div', { class: 'stack' }, this.give, this.pictures, this.status);
  }

  draw() {
    const { pictures, count } = this.options.store();
    const set = this.options.set();
    const taught = new Set(set.labels.flatMap((label) => label.examples));
    const focused = [...this.#buttons].find(([, button]) => button === document.activeElement)?.[0];
    this.strip.clear();
    this.#buttons.clear();
    for (const index of this.#chosen) if (taught.has(index) || index >= count) this.#chosen.delete(index);
    const free = Array.from({ length: count }, (_, index) => index).filter((index) => !taught.has(index));
    fill(this.pictures, free.map((index) => this.#picture(index, pictures[index])));
    if (focused !== undefined) {
      // The picture that had the focus may be gone: the next one has it.
      const next = free.find((index) => index >= focused) ?? free.at(-1);
      if (next !== undefined) this.#buttons.get(next)?.focus();
    }
    this.#drawGive();
  }

  /** @param {number} index @param {import('./folder-store.js').Picture} picture */
  #picture(index, picture) {
    const file = picture.name.split('/').pop() ?? '';
    const { words, set, score } = this.options.guess(index);
    const said = picture.error || (set === undefined ? words : (set ?? 'none of these'));
    const button = this.strip.button(index, file, said);
    button.setAttribute('aria-pressed', String(this.#chosen.has(index)));
    const percent = score === null ? '' : ` (${(100 * score).toFixed(1)} %)`;
    button.title = [file, words && `by words: ${words}`, set !== undefined && `by the set: ${set ?? 'none of these'}${percent}`]
      .filter(Boolean).join('\n');
    button.classList.toggle('failed', picture.error !== '');
    button.classList.toggle('by-set', set !== undefined);
    button.draggable = true;
    button.addEventListener('dragstart', (event) => {
      const indices = this.#chosen.has(index) ? [...this.#chosen] : [index];
      event.dataTransfer?.setData(PICTURES, indices.join(','));
    });
    this.#buttons.set(index, button);
    return button;
  }

  /** @param {number} index */
  #toggle(index) {
    if (!this.#chosen.delete(index)) this.#chosen.add(index);
    this.#buttons.get(index)?.setAttribute('aria-pressed', String(this.#chosen.has(index)));
    this.#drawGive();
  }

  #drawGive() {
    const { labels } = this.options.set();
    const count = this.#chosen.size;
    this.give.hidden = this.#buttons.size === 0;
    if (count === 0) {
      fill(this.give, h('p', { class: 'hint' }, labels.length === 0
        ? 'Add labels first.'
        : 'Drag pictures on a label, or choose some and press the label’s number.'));
      return;
    }
    fill(this.give, h('span', {}, `${count} chosen: an example of`), labels.map((label) => h('button', {
      type: 'button', class: 'button small', onclick: () => this.#giveTo(label, [...this.#chosen]),
    }, label.name)), h('button', {
      type: 'button', class: 'button small',
      onclick: () => {
        this.#chosen.clear();
        this.draw();
      },
    }, 'Choose none'));
  }

  /** @param {import('./teach-set.js').Label} label @param {number[]} indices */
  #giveTo(label, indices) {
    this.#chosen.clear();
    this.options.onGive(label, indices);
    this.status.textContent = `${indices.length} ${indices.length === 1 ? 'example' : 'examples'} given to ${label.name}`;
  }

  /** @param {KeyboardEvent} event */
  #key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || !/^[1-9]$/.test(event.key)) return;
    const label = this.options.set().labels[Number(event.key) - 1];
    const own = [...this.#buttons].find(([, button]) => button === event.target)?.[0];
    const indices = this.#chosen.size > 0 ? [...this.#chosen] : own === undefined ? [] : [own];
    if (!label || indices.length === 0) return;
    event.preventDefault();
    this.#giveTo(label, indices);
  }
}
