// The map: every picture at its place on a canvas, and beside it a list of those around the middle, for the keyboard.

import { fill, h, settled } from './dom.js';
import { layout } from './folder-layout.js';
import { Strip } from './folder-strip.js';
import { inSlices } from './math.js';

/** Pictures of the list. */
const LISTED = 12;
/** How far one may look closer. */
const CLOSEST = 60;
/** Best pictures of a search that are marked: a share of all, between these numbers. */
const MARKED = { share: 0.03, least: 6, most: 40 };
/** How much wider than high the map may be stretched: what is near is what counts, not the angles. */
const WIDEST = 1.8;

let maps = 0;

export class PictureMap {
  /** Pictures, and their places from 0 to 1. */
  #ids = new Uint32Array(0);
  /** @type {Float32Array} */
  #places = new Float32Array(0);
  #version = -1;
  #scale = 1;
  /** The place in the middle. */
  #x = 0.5;
  #y = 0.5;
  #frame = 0;
  #work = new AbortController();
  /** @type {Set<number>} */
  #marked = new Set();
  #chosen = -1;
  /** @type {Map<number, { x: number, y: number }>} */
  #pointers = new Map();
  #dragged = 0;
  #id = `map-${(maps += 1)}`;

  /**
   * @param {object} options
   * @param {import('./types.d.ts').App} options.app
   * @param {() => import('./folder-store.js').Store} options.store
   * @param {import('./folder-thumbs.js').Thumbs} options.thumbs
   * @param {(index: number) => void} options.onOpen
   */
  constructor(options) {
    this.options = options;
    this.canvas = h('canvas', { class: 'map-canvas', role: 'img', 'aria-label': 'Map of the pictures' });
    this.status = h('p', { role: 'status', class: 'hint' });
    // Not a part of the status: a screen reader shall not read every percent.
    this.busy = h('progress', { max: 1, value: 0, hidden: true, 'aria-label': 'Finding places' });
    this.again = h('button', { type: 'button', class: 'button small', hidden: true, onclick: () => void this.compute() }, 'Draw it with the new pictures');
    this.strip = new Strip(options.thumbs, (index) => this.#open(index, true));
    this.list = h('div', { class: 'strip' });
    const tool = (/** @type {string} */ label, /** @type {string} */ text, /** @type {() => void} */ onclick) =>
      h('button', { type: 'button', class: 'button small', 'aria-label': label, title: label, onclick }, text);
    this.tools = h('div', { class: 'map-tools', role: 'group', 'aria-label': 'Move the map' },
      tool('Closer', '+', () => this.#zoom(1.5)), tool('Farther', '−', () => this.#zoom(1 / 1.5)), tool('The whole map', '⤢', () => this.#whole()),
      tool('Left', '←', () => this.#pan(0.2, 0)), tool('Up', '↑', () => this.#pan(0, 0.2)),
      tool('Down', '↓', () => this.#pan(0, -0.2)), tool('Right', '→', () => this.#pan(-0.2, 0)));
    this.board = h('div', { class: 'map-board' }, this.canvas, this.tools);
    this.element = h('section', { class: 'map', 'aria-label': 'Map', hidden: true },
      h('div', { class: 'row between' }, h('div', { class: 'row' }, this.status, this.busy), this.again), this.board,
      h('div', { class: 'map-list' }, h('h2', {}, 'Around the middle'), this.list));
    this.relist = settled(() => this.#list(), 120);
    this.canvas.addEventListener('wheel', (event) => {
      event.preventDefault();
      this.#zoom(Math.exp(-event.deltaY * (event.deltaMode === 1 ? 0.05 : 0.0016)), event);
    }, { passive: false });
    for (const name of /** @type {const} */ (['pointerdown', 'pointermove', 'pointerup', 'pointercancel'])) {
      this.canvas.addEventListener(name, (event) => this.#pointer(event));
    }
    this.themed = new MutationObserver(() => this.redraw());
    this.themed.observe(document.documentElement, { attributes: true, attributeFilter: ['data-theme'] });
    this.resized = new ResizeObserver(() => this.redraw());
    this.resized.observe(this.board);
    matchMedia('(prefers-color-scheme: dark)').addEventListener('change', () => this.redraw());
  }

  show() {
    const store = this.options.store();
    if (this.#ids.length === 0) void this.compute();
    else this.again.hidden = this.#version === store.version;
    this.redraw();
  }

  hide() {
    this.#work.abort();
  }

  /** Other pictures: what was drawn is of no use any more. */
  forget() {
    this.#ids = new Uint32Array(0);
    this.#places = new Float32Array(0);
    this.#version = -1;
  }

  /** Marks the best pictures of a search. @param {ArrayLike<number>} order the best first; empty for none */
  mark(order) {
    const count = Math.min(Math.max(MARKED.least, Math.round(MARKED.share * order.length)), MARKED.most);
    this.#marked = new Set(Array.prototype.slice.call(order, 0, count));
    this.redraw();
  }

  /** @param {number} index */
  choose(index) {
    this.#chosen = index;
    this.redraw();
  }

  /** @param {number} index */
  drawn(index) {
    this.strip.drawn(index);
    if (!this.element.hidden) this.redraw();
  }

  end() {
    this.#work.abort();
    this.resized.disconnect();
    this.themed.disconnect();
    cancelAnimationFrame(this.#frame);
  }

  /** Finds the places of all pictures that have vectors. */
  async compute() {
    this.#work.abort();
    const work = (this.#work = new AbortController());
    const store = this.options.store();
    const { version, width } = store;
    const { ids, rows } = store.packed();
    const started = performance.now();
    this.status.textContent = `Finding a place for each of ${ids.length.toLocaleString()} pictures …`;
    this.busy.hidden = false;
    function* all() {
      const reduced = yield* store.reduced(rows, ids.length);
      return yield* layout(rows, ids.length, width, reduced);
    }
    try {
      const places = await inSlices(all(), { signal: work.signal, onProgress: (share) => { this.busy.value = share; } });
      [this.#ids, this.#places, this.#version] = [ids, places, version];
      this.status.textContent = `${ids.length.toLocaleString()} pictures; alike ones lie together. Computed in ` +
        `${((performance.now() - started) / 1000).toFixed(1)} s.`;
      this.canvas.setAttribute('aria-label', `Map of ${ids.length} pictures; the list below it has those around the middle`);
      this.again.hidden = true;
      this.#whole();
    } catch (error) {
      this.options.app.failed(error);
    } finally {
      if (work === this.#work) this.busy.hidden = true;
    }
  }

  redraw() {
    this.#frame ||= requestAnimationFrame(() => {
      this.#frame = 0;
      this.#draw();
    });
  }

  /** Pixels that the map is wide and high. */
  get #size() {
    const { clientWidth: width, clientHeight: height } = this.canvas;
    const factor = 0.94 * this.#scale;
    return { width: Math.max(1, Math.min(width, WIDEST * height) * factor), height: Math.max(1, Math.min(height, WIDEST * width) * factor) };
  }

  #draw() {
    const { clientWidth: width, clientHeight: height } = this.canvas;
    const context = this.canvas.getContext('2d');
    if (!context || width === 0) return;
    const ratio = Math.min(devicePixelRatio || 1, 2);
    if (this.canvas.width !== Math.round(width * ratio) || this.canvas.height !== Math.round(height * ratio)) {
      this.canvas.width = Math.round(width * ratio);
      this.canvas.height = Math.round(height * ratio);
    }
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.clearRect(0, 0, width, height);
    const style = getComputedStyle(this.canvas);
    const [dot, strong] = ['--line-strong', '--accent'].map((name) => style.getPropertyValue(name));
    // The closer one looks the larger pictures are; where they would lie on each other the first has the place, the others are
    // dots.
    const side = Math.round(Math.min(56, Math.max(18, 12 + 12 * Math.sqrt(this.#scale))));
    const taken = new Set();
    /** @type {number[]} */
    const wanted = [];
    const marks = this.#marked.size > 0;
    const size = this.#size;
    const at = (/** @type {number} */ row) => [
      width / 2 + (this.#places[2 * row] - this.#x) * size.width, height / 2 + (this.#places[2 * row + 1] - this.#y) * size.height];
    /** @type {number[]} */
    const later = [];
    for (let row = 0; row < this.#ids.length; row += 1) {
      const [x, y] = at(row);
      if (x < -side || y < -side || x > width + side || y > height + side) continue;
      const index = this.#ids[row];
      if (index === this.#chosen || this.#marked.has(index)) {
        later.push(row);
        continue;
      }
      const cell = Math.floor(x / side) + 10007 * Math.floor(y / side);
      const bitmap = taken.has(cell) || wanted.length > 180 ? null : this.options.thumbs.get(index);
      if (bitmap !== null) {
        taken.add(cell);
        wanted.push(index);
      }
      context.globalAlpha = marks ? 0.3 : 1;
      if (bitmap) {
        context.drawImage(bitmap, x - side / 2, y - side / 2, side - 2, side - 2);
      } else {
        context.fillStyle = dot;
        context.fillRect(x - 1.5, y - 1.5, 3, 3);
      }
    }
    context.globalAlpha = 1;
    context.lineWidth = 2;
    context.strokeStyle = context.fillStyle = strong;
    for (const row of later) {
      const [x, y] = at(row);
      const index = this.#ids[row];
      const own = index === this.#chosen ? side + 12 : side;
      const bitmap = this.options.thumbs.get(index);
      if (wanted.length < 240) wanted.unshift(index);
      if (bitmap) context.drawImage(bitmap, x - own / 2, y - own / 2, own, own);
      else context.fillRect(x - 4, y - 4, 8, 8);
      context.strokeRect(x - own / 2, y - own / 2, own, own);
    }
    this.options.thumbs.want(this.#id, wanted);
  }

  /** The list of the pictures nearest to the middle. */
  #list() {
    if (this.element.hidden) return;
    const distance = (/** @type {number} */ row) => (this.#places[2 * row] - this.#x) ** 2 + (this.#places[2 * row + 1] - this.#y) ** 2;
    const rows = [...this.#ids.keys()].sort((a, b) => distance(a) - distance(b)).slice(0, LISTED);
    const { pictures } = this.options.store();
    const focused = this.list.contains(document.activeElement);
    this.strip.clear();
    fill(this.list, rows.map((row) => this.strip.button(this.#ids[row], pictures[this.#ids[row]].name)));
    if (focused) this.list.querySelector('button')?.focus();
  }

  /** @param {number} index @param {boolean} middle whether it goes to the middle */
  #open(index, middle) {
    const row = this.#ids.indexOf(index);
    if (middle && row >= 0) [this.#x, this.#y] = [this.#places[2 * row], this.#places[2 * row + 1]];
    this.#chosen = index;
    this.#moved();
    this.options.onOpen(index);
  }

  #moved() {
    this.redraw();
    this.relist();
  }

  #whole() {
    [this.#scale, this.#x, this.#y] = [1, 0.5, 0.5];
    this.#moved();
  }

  /** @param {number} x @param {number} y shares of the canvas */
  #pan(x, y) {
    const { width, height } = this.#size;
    this.#to(this.#x - (x * this.canvas.clientWidth) / width, this.#y - (y * this.canvas.clientHeight) / height);
  }

  /** @param {number} x @param {number} y */
  #to(x, y) {
    [this.#x, this.#y] = [Math.min(Math.max(x, 0), 1), Math.min(Math.max(y, 0), 1)];
    this.#moved();
  }

  /** @param {number} factor @param {{ offsetX: number, offsetY: number }} [around] what stays where it is; else the middle */
  #zoom(factor, around) {
    const before = this.#size;
    this.#scale = Math.min(Math.max(this.#scale * factor, 0.8), CLOSEST);
    if (!around) return this.#moved();
    const after = this.#size;
    return this.#to(this.#x + (around.offsetX - this.canvas.clientWidth / 2) * (1 / before.width - 1 / after.width),
      this.#y + (around.offsetY - this.canvas.clientHeight / 2) * (1 / before.height - 1 / after.height));
  }

  /** Drags with one pointer, looks closer with two, opens by a click. @param {PointerEvent} event */
  #pointer(event) {
    const here = { x: event.offsetX, y: event.offsetY };
    const before = this.#pointers.get(event.pointerId);
    if (event.type === 'pointerdown') {
      this.canvas.setPointerCapture(event.pointerId);
      this.#pointers.set(event.pointerId, here);
      this.#dragged = this.#pointers.size > 1 ? 100 : 0;
    } else if (event.type === 'pointermove' && before) {
      const other = [...this.#pointers].find(([id]) => id !== event.pointerId)?.[1];
      if (other) {
        const span = (/** @type {{ x: number, y: number }} */ a) => Math.hypot(a.x - other.x, a.y - other.y) || 1;
        this.#zoom(span(here) / span(before), { offsetX: (here.x + other.x) / 2, offsetY: (here.y + other.y) / 2 });
      }
      this.#dragged += Math.hypot(here.x - before.x, here.y - before.y);
      const share = other ? 2 : 1;
      const { width, height } = this.#size;
      this.#to(this.#x - (here.x - before.x) / width / share, this.#y - (here.y - before.y) / height / share);
      this.#pointers.set(event.pointerId, here);
    } else if (event.type === 'pointerup' || event.type === 'pointercancel') {
      this.#pointers.delete(event.pointerId);
      if (event.type === 'pointerup' && this.#dragged < 5) this.#click(here);
    }
  }

  /** @param {{ x: number, y: number }} here */
  #click(here) {
    const { width, height } = this.#size;
    let [best, nearest] = [24 ** 2, -1];
    for (let row = 0; row < this.#ids.length; row += 1) {
      const x = this.canvas.clientWidth / 2 + (this.#places[2 * row] - this.#x) * width;
      const y = this.canvas.clientHeight / 2 + (this.#places[2 * row + 1] - this.#y) * height;
      const square = (x - here.x) ** 2 + (y - here.y) ** 2;
      if (square < best) [best, nearest] = [square, row];
    }
    if (nearest >= 0) this.#open(this.#ids[nearest], false);
  }
}
