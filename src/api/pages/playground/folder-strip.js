// Buttons with small pictures, for lists that are not long. What is on the screen is decoded, the rest is not.

import { h } from './dom.js';
import { SIDE } from './folder-thumbs.js';

let strips = 0;

export class Strip {
  /** @type {Map<Element, { canvas: HTMLCanvasElement, index: number }>} */
  #buttons = new Map();
  /** @type {Set<number>} */
  #seen = new Set();
  #id = `strip-${(strips += 1)}`;

  /**
   * @param {import('./folder-thumbs.js').Thumbs} thumbs
   * @param {(index: number) => void} onOpen
   */
  constructor(thumbs, onOpen) {
    this.thumbs = thumbs;
    this.onOpen = onOpen;
    this.observer = new IntersectionObserver((changes) => {
      for (const { target, isIntersecting } of changes) {
        const index = this.#buttons.get(target)?.index;
        if (index === undefined) continue;
        if (isIntersecting) {
          this.#seen.add(index);
        } else {
          this.#seen.delete(index);
          this.#empty(target);
        }
      }
      this.#draw();
    }, { rootMargin: '100px' });
  }

  /**
   * A button for a picture.
   * @param {number} index @param {string} name @param {string} [note]
   */
  button(index, name, note = '') {
    const canvas = h('canvas', { width: 0, height: 0 });
    const button = h('button', {
      type: 'button', class: 'strip-button', title: name, 'aria-label': note ? `${name}, ${note}` : name, onclick: () => this.onOpen(index),
    }, canvas, note && h('span', { class: 'tile-note number', 'aria-hidden': 'true' }, note));
    this.#buttons.set(button, { canvas, index });
    this.observer.observe(button);
    return button;
  }

  /** Forgets all buttons. */
  clear() {
    this.observer.disconnect();
    this.#buttons.clear();
    this.#seen.clear();
    this.thumbs.want(this.#id, []);
  }

  /** @param {number} index */
  drawn(index) {
    if (!this.#seen.has(index)) return;
    for (const button of this.#buttons.values()) if (button.index === index) this.#paint(button.canvas, index);
  }

  #draw() {
    for (const { canvas, index } of this.#buttons.values()) if (this.#seen.has(index)) this.#paint(canvas, index);
    this.thumbs.want(this.#id, this.#seen);
  }

  /** A canvas that is not on the screen holds no memory. @param {Element} button */
  #empty(button) {
    const canvas = this.#buttons.get(button)?.canvas;
    if (canvas) canvas.width = canvas.height = 0;
  }

  /** @param {HTMLCanvasElement} canvas @param {number} index */
  #paint(canvas, index) {
    const bitmap = this.thumbs.get(index);
    if (bitmap) {
      canvas.width = canvas.height = SIDE;
      canvas.getContext('2d')?.drawImage(bitmap, 0, 0);
    }
    canvas.parentElement?.classList.toggle('blank', bitmap === null);
  }
}
