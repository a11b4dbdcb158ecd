// A grid of any number of pictures, of which only the rows on the screen are elements. It is a listbox: arrow keys, Home, End and
// page keys move, Enter opens.

import { h } from './dom.js';
import { SIDE } from './folder-thumbs.js';

/** Pixels between tiles, and of the line below a picture. */
const GAP = 8;
const LINE = 24;
/** Rows above and below the screen that are elements, too. */
const BEYOND = 2;

/**
 * What a tile says of a picture.
 * @typedef {{ name: string, note: string, faded: boolean, failed: boolean }} Caption
 *
 * @typedef {{ root: HTMLElement, canvas: HTMLCanvasElement, name: HTMLElement, note: HTMLElement, position: number, index: number }} Tile
 */

let grids = 0;

export class Grid {
  /** Indices of pictures in the order of the grid. @type {ArrayLike<number>} */
  #order = [];
  /** By position. @type {Map<number, Tile>} */
  #tiles = new Map();
  /** @type {Tile[]} */
  #spare = [];
  #active = 0;
  #columns = 1;
  #cell = 100;
  #frame = 0;
  #id = `grid-${(grids += 1)}`;

  /**
   * @param {object} options
   * @param {import('./folder-thumbs.js').Thumbs} options.thumbs
   * @param {(index: number) => Caption} options.caption
   * @param {(index: number) => void} options.onActive a key made another picture the active one
   * @param {(index: number) => void} options.onOpen
   * @param {string} options.label for a screen reader
   * @param {(index: number, event: DragEvent) => void} [options.onDrag]
   */
  constructor(options) {
    this.options = options;
    this.inner = h('div', { class: 'grid-inner', role: 'presentation' });
    this.element = h('div', { class: 'grid', role: 'listbox', tabIndex: 0, 'aria-label': options.label, hidden: true }, this.inner);
    this.element.addEventListener('scroll', () => this.#later(), { passive: true });
    this.element.addEventListener('keydown', (event) => this.#key(event));
    this.element.addEventListener('click', (event) => this.#click(event));
    this.element.addEventListener('dragstart', (event) => {
      const tile = this.#tileOf(event);
      if (tile) options.onDrag?.(tile.index, event);
    });
    this.resized = new ResizeObserver(() => this.#measure());
    this.resized.observe(this.element);
  }

  /** The picture that is the active one, or -1. */
  get active() {
    return this.#order[this.#active] ?? -1;
  }

  get length() {
    return this.#order.length;
  }

  /** Elements of pictures, whatever the number of pictures. */
  get elements() {
    return this.inner.childElementCount;
  }

  /**
   * Shows other pictures, or the same in another order.
   * @param {ArrayLike<number>} order
   * @param {boolean} [top] whether to go to the first
   */
  setOrder(order, top = false) {
    const before = this.active;
    this.#order = order;
    this.element.hidden = order.length === 0;
    this.#active = top ? 0 : Math.max(0, Array.prototype.indexOf.call(order, before));
    this.#measure();
    if (top) this.element.scrollTop = 0;
    this.refresh();
  }

  /** Makes a picture the active one. @param {number} index */
  select(index) {
    const position = Array.prototype.indexOf.call(this.#order, index);
    if (position >= 0 && position !== this.#active) this.#move(position, false);
  }

  /** Draws what is on the screen anew. */
  refresh() {
    for (const tile of this.#tiles.values()) tile.index = -1;
    this.#later();
  }

  /** A picture's small picture is there. @param {number} index */
  drawn(index) {
    for (const tile of this.#tiles.values()) if (tile.index === index) this.#paint(tile);
  }

  end() {
    this.resized.disconnect();
    cancelAnimationFrame(this.#frame);
  }

  #measure() {
    const width = this.element.clientWidth - 2 * GAP;
    if (width <= 0) return;
    const wanted = width < 520 ? 104 : 132;
    // What is looked at stays where it is: the active picture if it is on the screen, else the first one that is.
    const [top, height] = [this.element.scrollTop, this.element.clientHeight];
    const place = (/** @type {number} */ position) => Math.floor(position / this.#columns) * this.#step;
    const inView = place(this.#active) >= top - this.#step && place(this.#active) < top + height;
    const kept = inView ? this.#active : Math.floor(top / this.#step) * this.#columns;
    const offset = place(kept) - top;
    const before = this.#columns;
    this.#columns = Math.max(2, Math.floor((width + GAP) / (wanted + GAP)));
    this.#cell = Math.floor((width - (this.#columns - 1) * GAP) / this.#columns);
    const rows = Math.ceil(this.#order.length / this.#columns);
    this.inner.style.height = `${rows * this.#step + GAP}px`;
    this.inner.style.setProperty('--cell', `${this.#cell}px`);
    if (before !== this.#columns) this.element.scrollTop = place(kept) - Math.max(0, Math.min(offset, height - this.#step));
    this.#later();
  }

  get #step() {
    return this.#cell + LINE + GAP;
  }

  #later() {
    this.#frame ||= requestAnimationFrame(() => {
      this.#frame = 0;
      this.#draw();
    });
  }

  /** Makes elements of the rows on the screen, out of those that left it. */
  #draw() {
    const height = this.element.clientHeight;
    if (height === 0) return;
    const row = Math.floor(this.element.scrollTop / this.#step);
    const first = Math.max(0, row - BEYOND) * this.#columns;
    const end = Math.min(this.#order.length, (row + Math.ceil(height / this.#step) + 1 + BEYOND) * this.#columns);
    for (const [position, tile] of this.#tiles) {
      if (position >= first && position < end) continue;
      this.#tiles.delete(position);
      this.#spare.push(tile);
    }
    for (let position = first; position < end; position += 1) {
      const index = this.#order[position];
      let tile = this.#tiles.get(position);
      if (!tile) {
        tile = this.#spare.pop() ?? this.#make();
        this.#tiles.set(position, tile);
      }
      this.#put(tile, position, index);
    }
    for (const tile of this.#spare.splice(0)) tile.root.remove();
    const current = this.#tiles.get(this.#active);
    if (current) this.element.setAttribute('aria-activedescendant', current.root.id);
    else this.element.removeAttribute('aria-activedescendant');
    // What is in the middle of the screen first.
    const middle = row * this.#columns;
    const visible = [...this.#tiles.values()].sort((a, b) => Math.abs(a.position - middle) - Math.abs(b.position - middle));
    this.options.thumbs.want(this.#id, visible.map((tile) => tile.index));
  }

  /** @returns {Tile} */
  #make() {
    const canvas = h('canvas', { width: SIDE, height: SIDE });
    const name = h('span', { class: 'tile-name' });
    const note = h('span', { class: 'tile-note number' });
    const root = h('div', { class: 'tile', role: 'option', draggable: Boolean(this.options.onDrag) }, canvas, note, name);
    this.inner.append(root);
    return { root, canvas, name, note, position: -1, index: -1 };
  }

  /**
   * @param {Tile} tile @param {number} position @param {number} index
   */
  #put(tile, position, index) {
    const { root } = tile;
    if (tile.position !== position) {
      tile.position = position;
      root.id = `${this.#id}-${position}`;
      root.setAttribute('aria-posinset', String(position + 1));
    }
    const x = GAP + (position % this.#columns) * (this.#cell + GAP);
    const y = GAP + Math.floor(position / this.#columns) * this.#step;
    root.style.transform = `translate(${x}px, ${y}px)`;
    root.setAttribute('aria-setsize', String(this.#order.length));
    root.setAttribute('aria-selected', String(position === this.#active));
    if (tile.index === index) return;
    tile.index = index;
    const { name, note, faded, failed } = this.options.caption(index);
    tile.name.textContent = name;
    tile.note.textContent = note;
    tile.note.hidden = note === '';
    root.title = name;
    root.classList.toggle('faded', faded);
    root.classList.toggle('failed', failed);
    this.#paint(tile);
  }

  /** @param {Tile} tile */
  #paint(tile) {
    const bitmap = this.options.thumbs.get(tile.index);
    const context = tile.canvas.getContext('2d');
    context?.clearRect(0, 0, SIDE, SIDE);
    if (bitmap) context?.drawImage(bitmap, 0, 0);
    tile.root.classList.toggle('blank', bitmap === null);
  }

  /** @param {Event} event */
  #tileOf(event) {
    const root = event.target instanceof Element ? event.target.closest('.tile') : null;
    for (const tile of this.#tiles.values()) if (tile.root === root) return tile;
    return null;
  }

  /** @param {MouseEvent} event */
  #click(event) {
    const tile = this.#tileOf(event);
    if (!tile) return;
    this.#move(tile.position, false);
    this.options.onOpen(tile.index);
  }

  /** @param {KeyboardEvent} event */
  #key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const page = this.#columns * Math.max(1, Math.floor(this.element.clientHeight / this.#step));
    /** @type {Record<string, number>} */
    const steps = {
      ArrowLeft: -1, ArrowRight: 1, ArrowUp: -this.#columns, ArrowDown: this.#columns,
      PageUp: -page, PageDown: page, Home: -this.#order.length, End: this.#order.length,
    };
    if (event.key in steps) {
      event.preventDefault();
      this.#move(Math.min(Math.max(this.#active + steps[event.key], 0), this.#order.length - 1), true);
    } else if (event.key === 'Enter' || event.key === ' ') {
      event.preventDefault();
      if (this.active >= 0) this.options.onOpen(this.active);
    }
  }

  /** @param {number} position @param {boolean} tell */
  #move(position, tell) {
    this.#active = position;
    const top = Math.floor(position / this.#columns) * this.#step;
    if (top < this.element.scrollTop) this.element.scrollTop = top;
    else if (top + this.#step + GAP > this.element.scrollTop + this.element.clientHeight) {
      this.element.scrollTop = top + this.#step + GAP - this.element.clientHeight;
    }
    this.#later();
    if (tell) this.options.onActive(this.active);
  }
}
