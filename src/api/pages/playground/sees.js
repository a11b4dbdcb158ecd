// What the model sees: the resized picture, patch by patch, and the tokens of each text.

import { fill, h } from './dom.js';
import { naflexSize, resize } from './resize.js';

/**
 * @typedef {import('./types.d.ts').App} App
 * @typedef {import('./types.d.ts').Model} Model
 * @typedef {import('./types.d.ts').Tokens} Tokens
 * @typedef {import('./pictures.js').Picture} Picture
 */

/** Pixels of a picture that are read at most; a larger one is halved by the browser before. */
const MOST_PIXELS = 12e6;

export class SeesPicture {
  #shown = '';

  /** @param {App} app */
  constructor(app) {
    this.app = app;
    this.canvas = h('canvas', { class: 'pixels', role: 'img', 'aria-label': 'The picture as the model sees it' });
    this.about = h('p', { class: 'hint' });
    this.grid = h('input', { type: 'checkbox', onchange: () => this.#frame.classList.toggle('gridded', this.grid.checked) });
    this.#frame = h('div', { class: 'pixel-frame' }, this.canvas, h('span', { class: 'patch-lines', 'aria-hidden': 'true' }));
    this.root = h('div', { class: 'stack tight', hidden: true }, this.#frame, h('label', { class: 'check' }, this.grid, 'Show the patches'), this.about);
  }

  /** @type {HTMLElement} */
  #frame;

  /** @param {Picture | null} picture */
  async show(picture) {
    const { model } = this.app;
    const key = picture && model.image ? `${picture.url} ${model.id}` : '';
    if (key === this.#shown) return;
    this.#shown = key;
    this.root.hidden = !key;
    if (!picture || !model.image) return;
    try {
      const pixels = await pixelsOf(picture.file);
      const seen = seenBy(model, pixels);
      if (this.#shown !== key) return;
      this.canvas.width = seen.width;
      this.canvas.height = seen.height;
      this.canvas.getContext('2d')?.putImageData(seen, 0, 0);
      const patch = model.image.patch_size;
      this.#frame.style.setProperty('--columns', String(seen.width / patch));
      this.#frame.style.setProperty('--rows', String(seen.height / patch));
      this.#frame.style.aspectRatio = `${seen.width} / ${seen.height}`;
      this.about.textContent = describe(model, pixels, seen);
    } catch {
      this.#shown = '';
      this.root.hidden = false;
      this.about.textContent = 'This browser cannot show this kind of file.';
    }
  }
}

/**
 * @param {Model} model
 * @param {{ fullWidth: number, fullHeight: number }} from
 * @param {ImageData} seen
 */
function describe(model, from, seen) {
  const image = /** @type {import('./types.d.ts').ImageCard} */ (model.image);
  const { patch_size: patch } = image;
  const how = {
    squash: from.fullWidth === from.fullHeight ? 'resized' : 'squashed to a square, not cropped',
    crop: 'resized by its shorter side, the middle cut out',
    naflex: 'resized in its own shape',
  }[image.fit];
  return `${seen.width} × ${seen.height} pixels out of ${from.fullWidth} × ${from.fullHeight}, ${how} (${image.resample}); `
    + `${seen.height / patch} × ${seen.width / patch} patches of ${patch} pixels. Resized by this page as the service does it.`;
}

/**
 * @param {Model} model
 * @param {ImageData} pixels
 */
function seenBy(model, pixels) {
  const image = /** @type {import('./types.d.ts').ImageCard} */ (model.image);
  if (image.fit === 'naflex' || image.width === null || image.height === null) {
    const { width, height } = naflexSize(pixels.width, pixels.height, image.patch_size, image.max_num_patches ?? 256);
    return resize(pixels, width, height, image.resample);
  }
  if (image.fit === 'squash') return resize(pixels, image.width, image.height, image.resample);
  const scale = image.width / Math.min(pixels.width, pixels.height);
  const whole = resize(pixels, Math.max(image.width, Math.round(pixels.width * scale)), Math.max(image.height, Math.round(pixels.height * scale)), image.resample);
  return cut(whole, image.width, image.height);
}

/**
 * The middle of a picture.
 * @param {ImageData} picture
 * @param {number} width
 * @param {number} height
 */
function cut(picture, width, height) {
  const left = Math.round((picture.width - width) / 2);
  const top = Math.round((picture.height - height) / 2);
  const result = new ImageData(width, height);
  for (let y = 0; y < height; y += 1) {
    const from = 4 * ((y + top) * picture.width + left);
    result.data.set(picture.data.subarray(from, from + 4 * width), 4 * y * width);
  }
  return result;
}

/**
 * The upright pixels of a file on white.
 * @param {File} file
 * @returns {Promise<ImageData & { fullWidth: number, fullHeight: number }>}
 */
async function pixelsOf(file) {
  const bitmap = await createImageBitmap(file, { imageOrientation: 'from-image' });
  const scale = Math.min(1, Math.sqrt(MOST_PIXELS / (bitmap.width * bitmap.height)));
  const canvas = h('canvas', { width: Math.max(1, Math.round(bitmap.width * scale)), height: Math.max(1, Math.round(bitmap.height * scale)) });
  const context = canvas.getContext('2d', { willReadFrequently: true });
  if (!context) throw new Error('this browser has no canvas');
  context.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
  const pixels = context.getImageData(0, 0, canvas.width, canvas.height);
  const full = { fullWidth: bitmap.width, fullHeight: bitmap.height };
  bitmap.close();
  return Object.assign(pixels, full);
}

/** Texts that are shown at most. */
const MOST_TEXTS = 24;

export class SeesTexts {
  #shown = '';

  /** @param {App} app */
  constructor(app) {
    this.app = app;
    this.list = h('ul', { class: 'texts', tabIndex: 0, 'aria-label': 'Texts and their tokens' });
    this.about = h('p', { class: 'hint' });
    this.root = h('div', { class: 'stack tight' }, this.list, this.about);
  }

  /**
   * Shows the texts of labels: what is written, what of it is read, and its tokens.
   * @param {string[]} labels
   * @param {AbortSignal} signal
   */
  async show(labels, signal) {
    const { model, prompt, client } = this.app;
    const texts = labels.flatMap((label) => prompt.texts(label)).slice(0, MOST_TEXTS);
    const key = JSON.stringify([model.id, texts]);
    if (key === this.#shown) return;
    if (!model.text || texts.length === 0) {
      this.#shown = key;
      fill(this.list);
      this.about.textContent = model.text ? '' : 'This model reads no texts.';
      return;
    }
    const read = await client.tokenize(model.id, texts, { signal });
    this.#shown = key;
    fill(this.list, texts.map((text, index) => item(text, read[index])));
    const context = model.text.context;
    this.about.textContent = `Every text becomes ${context} tokens: the model sees the padding, too. Canonicalisation: ${model.text.canonicalization}.`;
  }
}

/**
 * @param {string} text
 * @param {Tokens} read
 */
function item(text, read) {
  return h('li', {},
    h('p', { class: 'written' }, changesOf(text, read.canonical)),
    h('p', { class: 'tokens' },
      read.tokens.map(({ id, token }, index) => h('span', {
        class: index === read.tokens.length - 1 ? 'token end' : 'token', title: `token ${id}`,
      }, visible(token, id))),
      read.padding > 0 && h('span', { class: 'token pad', title: 'padding' }, `+ ${read.padding} padding`),
      read.cut.map(({ id, token }) => h('del', { class: 'token cut', title: `token ${id}, cut off` }, visible(token, id))),
      read.cut_total > read.cut.length && h('span', { class: 'token cut' }, `and ${read.cut_total - read.cut.length} more`),
      read.truncated && h('span', { class: 'bad small' }, ` cut off: ${read.cut_total} token${read.cut_total === 1 ? '' : 's'} too many`)));
}

/**
 * A token with its space visible.
 * @param {string | null} token
 * @param {number} id
 */
const visible = (token, id) => (token === null ? `#${id}` : token.replaceAll('▁', '␣').replaceAll('\n', '⏎'));

/**
 * A text with marks on what canonicalisation changed: letters that became small, characters that were left out.
 * @param {string} text
 * @param {string} canonical
 * @returns {(string | Node)[]}
 */
export function changesOf(text, canonical) {
  /** @type {{ kind: 'same' | 'lower' | 'out', text: string }[]} */
  const runs = [];
  const push = (/** @type {'same' | 'lower' | 'out'} */ kind, /** @type {string} */ char) => {
    const last = runs[runs.length - 1];
    if (last?.kind === kind) last.text += char;
    else runs.push({ kind, text: char });
  };
  let rest = canonical;
  for (const char of text) {
    const lower = char.toLowerCase();
    if (rest.startsWith(char)) {
      push('same', char);
      rest = rest.slice(char.length);
    } else if (rest.startsWith(lower)) {
      push('lower', char);
      rest = rest.slice(lower.length);
    } else {
      push('out', char);
    }
  }
  // More than letters and left out characters changed: both are shown.
  if (rest !== '') return [text, ' → ', h('b', {}, canonical)];
  return runs.map(({ kind, text: part }) => {
    if (kind === 'same') return part;
    if (kind === 'lower') return h('span', { class: 'lowered', title: 'lower-cased' }, part.toLowerCase());
    return h('del', { title: 'left out' }, part);
  });
}
