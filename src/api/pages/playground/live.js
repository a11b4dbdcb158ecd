// Pictures and labels, live; what the model sees; where a label is.

import { isAbort } from './api.js';
import { hasCamera, takePicture } from './camera.js';
import { formSnippets } from './copy.js';
import { add, fill, h, icon, settled } from './dom.js';
import { LabelList } from './labels.js';
import { Pictures, filesOf, takesDrops } from './pictures.js';
import { MODES, dot, hasProbabilities, markOf, oddsOf, percent, scoresOf, sigmoid } from './scores.js';
import { SeesPicture, SeesTexts } from './sees.js';
import { Where } from './where.js';

/**
 * @typedef {import('./types.d.ts').App} App
 * @typedef {import('./pictures.js').Picture} Picture
 * @typedef {import('./scores.js').Mode} Mode
 * @typedef {import('./scores.js').Score} Score
 */

/** What is there before somebody types: words that fit the samples, and some that do not. */
const FIRST_LABELS = ['red apple', 'cat face', 'car', 'sunflower', 'house', 'guitar'];
/** The threshold at the beginning, as in docs/thresholds.md: a hundred times as likely as most pairs are. */
const FIRST_THRESHOLD = 0.01;

/** @type {import('./types.d.ts').Mount} */
export function mount(root, app) {
  const view = new Live(root, app);
  return { show: () => view.show(), hide: () => view.hide(), destroy: () => view.hide() };
}

class Live {
  /** @type {Mode} */
  #mode = 'sigmoid';
  #threshold = FIRST_THRESHOLD;
  #visible = false;
  /** Vectors of labels by their words, of the chosen model and templates. @type {Map<string, Float32Array>} */
  #vectors = new Map();
  /** @type {Map<string, Score>} */
  #scores = new Map();
  #embeddingLabels = false;
  #embeddingPictures = false;
  #generation = 0;
  #abort = new AbortController();

  image = h('img', { class: 'shown', alt: '', hidden: true });
  stage = h('div', { class: 'stage' });
  problem = h('p', { class: 'bad', role: 'alert' });
  strip = h('div', { class: 'film', role: 'group', 'aria-label': 'Pictures' });
  modes = h('div', { class: 'segments', role: 'group', 'aria-label': 'What the bars show' });
  modeAbout = h('p', { class: 'hint' });
  none = h('p', { class: 'none', role: 'status' });
  threshold = h('input', {
    type: 'range', id: 'threshold', min: '-10', max: '5', step: '0.05', value: String(oddsOf(FIRST_THRESHOLD)),
  });
  thresholdValue = h('output', { for: 'threshold', class: 'number' });
  thresholdRow = h('div', { class: 'labelled threshold' }, h('label', { for: 'threshold' }, 'Threshold'), this.threshold, this.thresholdValue);
  formula = h('p', { class: 'hint number formula' });
  best = h('p', { class: 'sr', role: 'status' });
  saySettled = settled(() => this.#sayBest(), 900);
  seesSettled = settled(() => void this.#showTexts(), 250);

  /**
   * @param {HTMLElement} root
   * @param {App} app
   */
  constructor(root, app) {
    this.root = root;
    this.app = app;
    this.pictures = new Pictures(app, () => this.#picturesChanged());
    this.where = new Where(app);
    this.labels = new LabelList(FIRST_LABELS, {
      changed: () => this.#labelsChanged(),
      previewed: (label) => this.where.show(this.pictures.selected, label ?? this.labels.pinned),
      pinned: (label) => this.where.show(this.pictures.selected, label, { at: 'once' }),
    });
    this.seesPicture = new SeesPicture(app);
    this.seesTexts = new SeesTexts(app);
    this.#build();
    app.onModel(() => this.#forgetVectors());
    app.prompt.onChange(() => this.#forgetVectors());
    document.addEventListener('paste', (event) => {
      const files = this.#visible ? filesOf(event.clipboardData) : [];
      if (files.length === 0) return;
      event.preventDefault();
      this.pictures.add(files);
    });
    void this.#samples();
  }

  show() {
    this.#visible = true;
    this.#work();
  }

  hide() {
    this.#visible = false;
  }

  #build() {
    const input = h('input', {
      type: 'file', accept: 'image/*,.tif,.tiff,.bmp', multiple: true, class: 'sr', id: 'live-files', tabIndex: -1, 'aria-label': 'Add pictures',
      onchange: () => {
        this.pictures.add([...(input.files ?? [])]);
        input.value = '';
      },
    });
    this.image.addEventListener('error', () => this.stage.classList.add('unseen'));
    this.image.addEventListener('load', () => this.stage.classList.remove('unseen'));
    add(this.stage, [h('div', { class: 'framed' }, this.image, this.where.canvas),
      h('p', { class: 'cannot-show' }, 'This browser cannot show this kind of file. The service may still read it.')]);
    const picture = h('section', { class: 'card live-picture', 'aria-labelledby': 'live-picture-title' },
      h('div', { class: 'row between' },
        h('h2', { id: 'live-picture-title' }, 'Picture'),
        h('div', { class: 'row' },
          h('button', { type: 'button', class: 'button small', onclick: () => input.click() }, icon('plus'), 'Add'),
          hasCamera() && h('button', { type: 'button', class: 'button small', onclick: () => void this.#camera() }, icon('camera'), 'Camera'),
          h('button', { type: 'button', class: 'button small', onclick: () => void this.#samples() }, 'Samples'))),
      input, this.stage, this.where.note, this.problem, this.strip,
      h('p', { class: 'hint' }, 'Drop pictures anywhere here, or paste them. They are embedded once; no copy is kept on the service.'));

    this.threshold.addEventListener('input', () => {
      this.#threshold = sigmoid(Number(this.threshold.value));
      this.#showScores();
    });
    const labels = h('section', { class: 'card live-labels', 'aria-labelledby': 'live-labels-title' },
      h('div', { class: 'row between' }, h('h2', { id: 'live-labels-title' }, 'Labels'), this.modes),
      this.labels.root,
      h('div', { class: 'row' },
        h('button', { type: 'button', class: 'button small', onclick: () => this.labels.add() }, icon('plus'), 'Label'),
        h('button', { type: 'button', class: 'button small', onclick: () => this.labels.sort(this.#scores) }, 'Best first'),
        this.app.copyAs(() => this.#snippets())),
      this.none, this.thresholdRow,
      h('div', { class: 'row between wrap' }, this.app.prompt.picker(), this.formula), this.modeAbout);
    const pixels = h('section', { class: 'card live-pixels', 'aria-labelledby': 'live-pixels-title' },
      h('h2', { id: 'live-pixels-title' }, 'What the model sees'), this.seesPicture.root);
    const texts = h('section', { class: 'card live-texts', 'aria-labelledby': 'live-texts-title' },
      h('h2', { id: 'live-texts-title' }, 'What the model reads'), this.seesTexts.root);
    add(this.root, [h('h1', { class: 'sr' }, 'Look: pictures and labels'),
      h('div', { class: 'live' }, h('div', { class: 'live-column' }, picture, pixels), h('div', { class: 'live-column' }, labels, texts)), this.best]);
    takesDrops(this.root, (files) => {
      if (files.length > 0) this.pictures.add(files);
      else this.app.notice('error', 'What was dropped is no picture.');
    });
    this.#drawModes();
  }

  #drawModes() {
    const known = hasProbabilities(this.app.model);
    if (!known) this.#mode = 'cosine';
    fill(this.modes, MODES.map(({ mode, name }) => h('button', {
      type: 'button', 'aria-pressed': String(mode === this.#mode), disabled: !known && mode !== 'cosine',
      onclick: (/** @type {Event} */ event) => {
        this.#mode = mode;
        [...this.modes.children].forEach((button) => button.setAttribute('aria-pressed', String(button === event.currentTarget)));
        this.#showScores();
      },
    }, name)));
    const { logit_scale: scale, logit_bias: bias } = this.app.model;
    this.formula.textContent = scale === null || bias === null ? 'This model has no scale and bias: there are cosines only.'
      : `logit = ${scale.toFixed(2)} · cosine ${bias < 0 ? '−' : '+'} ${Math.abs(bias).toFixed(2)}`;
    this.thresholdRow.hidden = !known;
  }

  async #samples() {
    try {
      const files = await this.app.samples();
      if (!this.pictures.list.some((picture) => picture.sample)) this.pictures.add(files, { sample: true });
    } catch (error) {
      this.app.failed(error);
    }
  }

  async #camera() {
    try {
      const file = await takePicture();
      if (file) this.pictures.add([file]);
    } catch (error) {
      const refused = error instanceof DOMException && error.name === 'NotAllowedError';
      this.app.notice('error', refused ? 'The browser did not allow the camera.' : 'There is no camera that can be used.');
    }
  }

  /** Another model, or other templates: the words are the same, their vectors are not. */
  #forgetVectors() {
    this.#abort.abort();
    this.#abort = new AbortController();
    this.#generation += 1;
    this.#vectors.clear();
    this.#drawModes();
    this.pictures.list.forEach((picture) => { picture.error = null; });
    this.where.show(null, null);
    this.#picturesChanged();
  }

  #picturesChanged() {
    const { selected } = this.pictures;
    this.image.hidden = !selected;
    if (selected && this.image.src !== selected.url) this.image.src = selected.url;
    this.image.alt = selected ? `The picture ${selected.file.name}` : '';
    this.stage.classList.toggle('vacant', !selected);
    this.#drawStrip();
    this.#showScores();
    this.where.show(selected, this.labels.pinned, { at: 'once' });
    this.#work();
  }

  #labelsChanged() {
    this.#showScores();
    this.#work();
  }

  /** Does what is to be done: pictures and labels without vectors. */
  #work() {
    if (!this.#visible) return;
    void this.#embedPictures();
    void this.#embedLabels();
    void this.seesPicture.show(this.pictures.selected);
    this.seesSettled();
  }

  async #embedPictures() {
    if (this.#embeddingPictures) return;
    this.#embeddingPictures = true;
    const { signal } = this.#abort;
    try {
      while (await this.pictures.embed(signal)) {
        this.#showScores();
        this.#drawStrip();
      }
    } catch (error) {
      this.app.failed(error);
    } finally {
      this.#embeddingPictures = false;
    }
    // The model may have changed meanwhile.
    if (signal.aborted) void this.#embedPictures();
  }

  /** One request at a time: what was typed while it ran goes with the next one. */
  async #embedLabels() {
    if (this.#embeddingLabels) return;
    this.#embeddingLabels = true;
    try {
      for (;;) {
        const generation = this.#generation;
        const missing = this.labels.labels.filter((label) => !this.#vectors.has(label));
        if (missing.length === 0) break;
        try {
          const vectors = await this.app.labelVectors(missing, { signal: this.#abort.signal });
          if (generation !== this.#generation) continue;
          missing.forEach((label, index) => this.#vectors.set(label, vectors[index]));
        } catch (error) {
          if (generation !== this.#generation && isAbort(error)) continue;
          this.app.failed(error);
          break;
        }
        this.#showScores();
      }
    } finally {
      this.#embeddingLabels = false;
    }
    this.saySettled();
  }

  /**
   * The scores of a picture's labels.
   * @param {Picture | null} picture
   * @returns {Map<string, Score>}
   */
  #scoresOf(picture) {
    const { model } = this.app;
    const vector = picture?.vectors.get(model.fingerprint);
    const labels = this.labels.labels.filter((label) => this.#vectors.has(label));
    if (!vector || labels.length === 0) return new Map();
    const cosines = labels.map((label) => dot(vector, /** @type {Float32Array} */ (this.#vectors.get(label))));
    const scores = scoresOf(model, this.#mode, cosines);
    return new Map(labels.map((label, index) => [label, scores[index]]));
  }

  #showScores() {
    const { model } = this.app;
    const { selected } = this.pictures;
    const threshold = hasProbabilities(model) ? this.#threshold : null;
    this.#scores = this.#scoresOf(selected);
    this.labels.show(this.#scores, threshold, markOf(model, this.#mode, this.#threshold));
    const reached = threshold === null || [...this.#scores.values()].some((score) => (score.probability ?? 1) >= threshold);
    this.none.hidden = reached || this.#scores.size === 0;
    this.none.textContent = this.none.hidden ? '' : 'None of these.';
    this.thresholdValue.textContent = percent(this.#threshold);
    this.modeAbout.textContent = MODES.find(({ mode }) => mode === this.#mode)?.about ?? '';
    this.problem.textContent = selected?.error ?? '';
    this.#captionStrip();
  }

  #sayBest() {
    const best = [...this.#scores].sort((a, b) => b[1].value - a[1].value)[0];
    this.best.textContent = best ? `${this.none.hidden ? '' : 'None of these. '}Best: ${best[0]}, ${best[1].text}` : '';
  }

  async #showTexts() {
    try {
      await this.seesTexts.show(this.labels.labels, this.#abort.signal);
    } catch (error) {
      this.app.failed(error);
    }
  }

  #drawStrip() {
    fill(this.strip, this.pictures.list.map((picture) => {
      const { name } = picture.file;
      const chosen = picture === this.pictures.selected;
      return h('div', { class: `shot${picture.error ? ' broken' : ''}` },
        h('button', {
          type: 'button', class: 'pick', 'aria-pressed': String(chosen), 'aria-label': name, title: name,
          onclick: () => {
            const again = this.pictures.list.indexOf(picture);
            this.pictures.select(picture);
            // The strip is drawn anew; the keyboard stays where it was.
            const button = this.strip.querySelectorAll('.pick')[again];
            if (button instanceof HTMLElement) button.focus();
          },
        }, h('img', { src: picture.url, alt: '', loading: 'lazy' }), h('span', { class: 'caption' })),
        h('button', { type: 'button', class: 'plain away', 'aria-label': `Remove ${name}`, onclick: () => this.pictures.remove(picture) }, icon('close')));
    }));
    this.#captionStrip();
  }

  /** Writes under each picture what fits it best. */
  #captionStrip() {
    this.strip.querySelectorAll('.caption').forEach((caption, index) => {
      const picture = this.pictures.list[index];
      const best = [...this.#scoresOf(picture)].sort((a, b) => b[1].value - a[1].value)[0];
      const fits = best && (best[1].probability === null || best[1].probability >= this.#threshold);
      caption.textContent = picture?.error ? 'error' : best ? (fits ? best[0] : '–') : '…';
    });
  }

  #snippets() {
    const { model, client, prompt } = this.app;
    const fields = /** @type {[string, string][]} */ ([['model', model.id], ['labels', JSON.stringify(this.labels.labels)],
      ['templates', JSON.stringify(prompt.templates)], ['threshold', this.#threshold.toPrecision(2)]]);
    if (this.#mode === 'softmax') fields[3] = ['activation', 'softmax'];
    const files = this.pictures.selected ? [this.pictures.selected.file.name] : ['picture.jpg'];
    return formSnippets(client.base, 'v1/classify', files, fields, { key: client.hasKey });
  }
}
