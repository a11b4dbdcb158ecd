// One picture of the folder: larger, with its neighbours, and what can be searched from it.

import { fill, h, icon } from './dom.js';
import { megabytes } from './api.js';
import { Strip } from './folder-strip.js';

/**
 * @typedef {{ index: number, cosine: number }} Neighbour
 *
 * @typedef {object} Shown
 * @property {import('./folder-store.js').Picture} picture
 * @property {boolean} ready whether it has a vector
 * @property {string} score what the search says of it
 * @property {Neighbour[]} neighbours
 */

export class Detail {
  #url = '';
  #index = -1;

  /**
   * @param {object} options
   * @param {import('./folder-thumbs.js').Thumbs} options.thumbs
   * @param {(index: number) => void} options.onOpen
   * @param {(index: number, weight: 1 | -1, alone: boolean) => void} options.onSearch
   * @param {(index: number) => string} options.nameOf
   * @param {() => void} options.onClose
   */
  constructor(options) {
    this.options = options;
    this.strip = new Strip(options.thumbs, options.onOpen);
    this.element = h('aside', { class: 'card detail', 'aria-label': 'The chosen picture', hidden: true });
  }

  get index() {
    return this.#index;
  }

  /** @param {number} index @param {Shown} shown */
  show(index, { picture, ready, score, neighbours }) {
    this.#forget();
    this.#index = index;
    const { onSearch, nameOf } = this.options;
    const search = (/** @type {string} */ text, /** @type {1 | -1} */ weight, /** @type {boolean} */ alone) => h('button', {
      type: 'button', class: `button small${alone ? ' primary' : ''}`, disabled: !ready, onclick: () => onSearch(index, weight, alone),
    }, text);
    fill(this.element,
      h('div', { class: 'row between detail-head' }, h('h2', { class: 'detail-name' }, picture.name.split('/').pop() ?? ''),
        h('button', { type: 'button', class: 'plain', 'aria-label': 'Close the picture', onclick: () => this.close() }, icon('close'))),
      this.#large(picture),
      h('p', { class: 'hint detail-facts' }, [picture.name, megabytes(picture.bytes), score].filter(Boolean).join(' · ')),
      picture.error && h('p', { class: 'bad' }, picture.error),
      h('div', { class: 'row' }, search('Find similar', 1, true), search('+ this', 1, false), search('− this', -1, false)),
      neighbours.length > 0 && h('div', { class: 'detail-near' }, h('h3', {}, 'Most alike'),
        h('div', { class: 'strip' }, neighbours.map((near) => this.strip.button(near.index, nameOf(near.index), near.cosine.toFixed(3))))));
    this.element.hidden = false;
  }

  close() {
    if (this.element.hidden) return;
    this.#forget();
    this.#index = -1;
    this.element.hidden = true;
    fill(this.element);
    this.options.onClose();
  }

  /** @param {import('./folder-store.js').Picture} picture */
  #large(picture) {
    const none = (/** @type {string} */ why) => h('p', { class: 'detail-none hint' }, why);
    if (!picture.file) return none('Only its vector was imported. Drop the folder to see the picture.');
    this.#url = URL.createObjectURL(picture.file);
    const image = h('img', { class: 'detail-picture', src: this.#url, alt: picture.name });
    image.addEventListener('error', () => image.replaceWith(none('This browser cannot show the file.')));
    return image;
  }

  #forget() {
    this.strip.clear();
    if (this.#url) URL.revokeObjectURL(this.#url);
    this.#url = '';
  }
}
