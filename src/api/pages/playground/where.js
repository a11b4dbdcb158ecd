// Where a label is: a heat map over the picture.

import { h } from './dom.js';

/**
 * @typedef {import('./types.d.ts').App} App
 * @typedef {import('./types.d.ts').Heatmap} Heatmap
 * @typedef {import('./pictures.js').Picture} Picture
 */

/** Milliseconds that a label is pointed at before its map is asked for: a pointer that only passes costs nothing. */
const SETTLE = 140;
/** Maps that are kept. */
const KEPT = 200;

/** Colours from cold to hot, and how much of the picture they cover. */
const RAMP = [
  { at: 0, colour: [24, 22, 60, 0.72] },
  { at: 0.3, colour: [66, 26, 110, 0.62] },
  { at: 0.55, colour: [176, 42, 98, 0.5] },
  { at: 0.78, colour: [240, 118, 44, 0.38] },
  { at: 1, colour: [255, 226, 60, 0.3] },
];

export class Where {
  /** @type {Map<string, Promise<Heatmap>>} */
  #known = new Map();
  /** @type {AbortController | null} */
  #asking = null;
  #timer = 0;
  #wanted = '';

  /** @param {App} app */
  constructor(app) {
    this.app = app;
    this.canvas = h('canvas', { class: 'heat', hidden: true, role: 'img' });
    this.note = h('p', { class: 'hint heat-note', role: 'status' });
  }

  /**
   * Shows where a label is in a picture; null for nothing. The newest call counts.
   * @param {Picture | null} picture
   * @param {string | null} label
   * @param {{ at?: 'once' | 'settled' }} [options]
   */
  show(picture, label, { at = 'settled' } = {}) {
    const key = picture && label && !picture.error ? `${picture.url} ${this.app.model.id} ${this.app.prompt.templates[0]} ${label}` : '';
    if (key === this.#wanted) return;
    this.#wanted = key;
    clearTimeout(this.#timer);
    if (!key || !picture || !label) {
      this.#asking?.abort();
      this.canvas.hidden = true;
      this.note.textContent = '';
      return;
    }
    const run = () => void this.#run(key, picture, label);
    if (at === 'once' || this.#known.has(key)) run();
    else this.#timer = setTimeout(run, SETTLE);
  }

  /**
   * @param {string} key
   * @param {Picture} picture
   * @param {string} label
   */
  async #run(key, picture, label) {
    try {
      let map = this.#known.get(key);
      if (!map) {
        this.#asking?.abort();
        const asking = new AbortController();
        this.#asking = asking;
        this.note.textContent = `Looking for ${label} …`;
        map = this.#ask(picture, label, asking.signal);
        this.#known.set(key, map);
        map.catch(() => this.#known.delete(key));
        const oldest = this.#known.keys().next();
        if (this.#known.size > KEPT && !oldest.done) this.#known.delete(oldest.value);
      }
      const found = await map;
      if (this.#wanted === key) this.#draw(found, label);
    } catch (error) {
      if (this.#wanted !== key) return;
      this.#wanted = '';
      this.canvas.hidden = true;
      this.note.textContent = '';
      this.app.failed(error);
    }
  }

  /**
   * @param {Picture} picture
   * @param {string} label
   * @param {AbortSignal} signal
   */
  async #ask(picture, label, signal) {
    // One text has one map: of several templates the first is taken.
    const [text] = this.app.prompt.texts(label);
    const { maps } = await this.app.client.heatmap(this.app.model.id, picture.file, [text], { signal });
    return maps[0];
  }

  /**
   * @param {Heatmap} map
   * @param {string} label
   */
  #draw(map, label) {
    const values = map.cosine.flat();
    const low = Math.min(...values);
    const range = Math.max(...values) - low || 1;
    const small = h('canvas', { width: map.columns, height: map.rows });
    const pixels = new ImageData(map.columns, map.rows);
    values.forEach((value, index) => pixels.data.set(colourOf((value - low) / range), 4 * index));
    small.getContext('2d')?.putImageData(pixels, 0, 0);
    // As many pixels as the screen hardly shows more of, in the picture's shape.
    const scale = 512 / Math.max(map.width, map.height);
    this.canvas.width = Math.max(1, Math.round(map.width * scale));
    this.canvas.height = Math.max(1, Math.round(map.height * scale));
    const context = this.canvas.getContext('2d');
    if (!context) return;
    context.imageSmoothingQuality = 'high';
    const crop = this.app.model.image?.fit === 'crop' ? Math.min(this.canvas.width, this.canvas.height) : null;
    const width = crop ?? this.canvas.width;
    const height = crop ?? this.canvas.height;
    context.drawImage(small, (this.canvas.width - width) / 2, (this.canvas.height - height) / 2, width, height);
    const x = map.peak.x * scale;
    const y = map.peak.y * scale;
    for (const [line, colour] of /** @type {[number, string][]} */ ([[5, 'rgb(0 0 0 / 70%)'], [2.5, '#fff']])) {
      context.lineWidth = line;
      context.strokeStyle = colour;
      context.beginPath();
      context.arc(x, y, 11, 0, 2 * Math.PI);
      context.stroke();
    }
    const across = Math.round((100 * map.peak.x) / map.width);
    const down = Math.round((100 * map.peak.y) / map.height);
    const place = `${label} is most likely ${across} % from the left and ${down} % from the top`;
    this.canvas.setAttribute('aria-label', `Heat map: ${place}.`);
    this.canvas.dataset.peak = `${across},${down}`;
    this.canvas.hidden = false;
    this.note.textContent = `${place} (cosine ${map.cosine[map.peak.row][map.peak.column].toFixed(3).replace('-', '−')}; coldest ${low.toFixed(3).replace('-', '−')}).`;
  }
}

/**
 * @param {number} share between 0 and 1
 * @returns {number[]} red, green, blue, alpha: 0 to 255
 */
function colourOf(share) {
  const next = Math.max(1, RAMP.findIndex((stop) => stop.at >= share));
  const [from, to] = [RAMP[next - 1], RAMP[next]];
  const part = (share - from.at) / (to.at - from.at);
  return from.colour.map((value, index) => {
    const mixed = value + (to.colour[index] - value) * part;
    return index === 3 ? 255 * mixed : mixed;
  });
}
