// Two models side by side: scores, timings by stage, and whether their vectors may be compared.

import { formSnippets } from './copy.js';
import { add, fill, h, icon, settled } from './dom.js';
import { takesDrops } from './pictures.js';
import { dot, scoresOf } from './scores.js';
import { meanDirection } from './texts.js';

/**
 * @typedef {import('./types.d.ts').App} App
 * @typedef {import('./types.d.ts').Model} Model
 * @typedef {import('./types.d.ts').Timings} Timings
 */

/** How often a measurement is repeated; the median is shown. */
const REPEATS = 7;
/** The stages of a picture's request, in their order, with what they are. */
const STAGES = /** @type {const} */ ([
  ['decode', 'Decode', 'decoding and resizing'],
  ['queue', 'Queue', 'waiting for the model’s workers'],
  ['inference', 'Inference', 'the image tower'],
  ['rest', 'Rest', 'reading the request and writing the answer'],
  ['network', 'Network', 'between this page and the service'],
]);
const FIRST_LABELS = 'red apple\ncat face\ncar\nsunflower';

/** @type {import('./types.d.ts').Mount} */
export function mount(root, app) {
  const view = new Compare(root, app);
  return { show: () => void view.run(), hide: () => view.stop() };
}

class Side {
  /**
   * @param {App} app
   * @param {string} name
   * @param {string} chosen
   * @param {() => void} changed
   */
  constructor(app, name, chosen, changed) {
    this.app = app;
    const id = `compare-${name.toLowerCase()}`;
    this.select = h('select', { id, onchange: changed }, app.models.map((model) => h('option', { value: model.id, selected: model.id === chosen }, model.id)));
    this.facts = h('dl', { class: 'facts' });
    this.scores = h('ol', { class: 'labels', 'aria-label': `Scores of model ${name}` });
    this.times = h('div', { class: 'times' });
    this.root = h('section', { class: 'card stack', 'aria-label': `Model ${name}` },
      h('div', { class: 'labelled' }, h('label', { for: id }, `Model ${name}`), this.select), this.facts,
      h('h2', {}, 'Scores'), this.scores, h('h2', {}, 'Time of a picture'), this.times);
  }

  /** @returns {Model} */
  get model() {
    return this.app.models.find((model) => model.id === this.select.value) ?? this.app.model;
  }

  describe() {
    const { model } = this;
    const millions = (model.parameters / 1e6).toFixed(model.parameters < 1e8 ? 1 : 0);
    const size = model.image ? (model.image.height ? `${model.image.width} × ${model.image.height}` : `up to ${model.image.max_num_patches} patches`) : 'no pictures';
    const rows = [
      ['Family', `${model.family}, ${millions} million parameters`], ['Input', size], ['Width', String(model.dimensions)],
      ['Runs', `${model.dtype} on ${model.device}`],
      ['Scale, bias', model.logit_scale === null || model.logit_bias === null ? 'none' : `${model.logit_scale.toFixed(2)}, ${model.logit_bias < 0 ? '−' : ''}${Math.abs(model.logit_bias).toFixed(2)}`],
    ];
    fill(this.facts, rows.map(([term, text]) => h('div', {}, h('dt', {}, term), h('dd', {}, text))),
      h('div', {}, h('dt', {}, 'Fingerprint'), h('dd', { class: 'mono', title: model.fingerprint }, `${model.fingerprint.slice(0, 16)}…`)));
  }
}

class Compare {
  /** @type {File | null} */
  #file = null;
  #url = '';
  #abort = new AbortController();

  /**
   * @param {HTMLElement} root
   * @param {App} app
   */
  constructor(root, app) {
    this.root = root;
    this.app = app;
    const changed = () => void this.run();
    const typed = settled(changed, 200);
    this.sides = [new Side(app, 'A', app.models[0].id, changed), new Side(app, 'B', (app.models[1] ?? app.models[0]).id, changed)];
    this.picture = h('img', { class: 'compare-picture', alt: '' });
    this.labels = h('textarea', { id: 'compare-labels', class: 'field', rows: 5, value: FIRST_LABELS, spellcheck: false, oninput: typed });
    const input = h('input', {
      type: 'file', accept: 'image/*,.tif,.tiff,.bmp', class: 'sr', tabIndex: -1, 'aria-label': 'Another picture', id: 'compare-file',
      onchange: () => {
        if (input.files?.[0]) this.#use(input.files[0]);
        input.value = '';
      },
    });
    this.verdict = h('p', { role: 'status' });
    this.measure = h('button', { type: 'button', class: 'button', onclick: () => void this.run(REPEATS) }, icon('play'), `Measure ${REPEATS} times`);
    add(root, [
      h('h1', { class: 'sr' }, 'Compare two models'),
      h('div', { class: 'compare' },
        h('section', { class: 'card stack', 'aria-label': 'What is compared' },
          this.picture, input,
          h('button', { type: 'button', class: 'button small', onclick: () => input.click() }, icon('picture'), 'Another picture'),
          h('div', { class: 'stack tight' }, h('label', { for: 'compare-labels', class: 'hint' }, 'Labels, one a line'), this.labels),
          this.measure, this.app.copyAs(() => this.#snippets()), this.verdict),
        this.sides.map((side) => side.root)),
    ]);
    takesDrops(root, (files) => {
      if (files[0]) this.#use(files[0]);
    });
  }

  /** @param {File} file */
  #use(file) {
    URL.revokeObjectURL(this.#url);
    this.#file = file;
    this.#url = URL.createObjectURL(file);
    this.picture.src = this.#url;
    this.picture.alt = `The picture ${file.name}`;
    void this.run();
  }

  stop() {
    this.#abort.abort();
  }

  /** Asks both models, one after the other: neither waits for the other's work. */
  async run(repeats = 1) {
    this.#abort.abort();
    const asking = new AbortController();
    this.#abort = asking;
    const { signal } = asking;
    try {
      if (!this.#file) {
        const [sample] = await this.app.samples();
        if (!this.#file) return this.#use(sample);
      }
      this.measure.disabled = repeats > 1;
      const [a, b] = this.sides;
      a.describe();
      b.describe();
      this.verdict.textContent = a.model.fingerprint === b.model.fingerprint
        ? 'The same embedding space: their vectors may be compared.'
        : 'Two embedding spaces: a vector of one says nothing beside a vector of the other.';
      if (this.app.models.length === 1) {
        this.verdict.textContent = 'This service has one model. Start it with a second --model to compare two.';
      }
      for (const side of this.sides) await this.#ask(side, repeats, signal);
    } catch (error) {
      if (!signal.aborted) this.app.failed(error);
    } finally {
      if (this.#abort === asking) this.measure.disabled = false;
    }
  }

  /**
   * @param {Side} side
   * @param {number} repeats
   * @param {AbortSignal} signal
   */
  async #ask(side, repeats, signal) {
    const { model } = side;
    const { client } = this.app;
    const file = /** @type {File} */ (this.#file);
    const labels = [...new Set(this.labels.value.split('\n').map((label) => label.trim()).filter(Boolean))].slice(0, 100);
    /** @type {Timings[]} */
    const timings = [];
    let vector = null;
    for (let round = 0; round < repeats; round += 1) {
      const answer = await client.embedPictures(model.id, [file], { signal });
      if (answer.errors[0]) {
        fill(side.scores, h('li', { class: 'bad' }, answer.errors[0]));
        return;
      }
      [vector] = answer.vectors;
      timings.push(answer.timings);
    }
    this.#showTimes(side, timings);
    if (!vector || labels.length === 0) return fill(side.scores);
    const picture = vector;
    // Each model's own template: that is what it was trained with.
    const { vectors } = await client.embedTexts(model.id, labels.map((label) => model.template.replaceAll('{}', label)), { signal });
    const scores = scoresOf(model, 'sigmoid', vectors.map((text) => dot(picture, meanDirection([text]))));
    const order = labels.map((label, index) => ({ label, score: scores[index] })).sort((x, y) => y.score.value - x.score.value);
    fill(side.scores, order.map(({ label, score }, index) => {
      const bar = h('span', { class: 'bar', 'aria-hidden': 'true' });
      bar.style.setProperty('--share', String(score.share));
      return h('li', { class: index === 0 ? 'label best' : 'label' },
        h('span', { class: 'track' }, bar, h('span', { class: 'words' }, label), h('span', { class: 'score number' }, score.text)));
    }));
    return undefined;
  }

  /**
   * @param {Side} side
   * @param {Timings[]} rounds
   */
  #showTimes(side, rounds) {
    const stages = rounds.map((timings) => {
      const { decode = 0, queue = 0, inference = 0, total = 0, page = 0 } = timings;
      return { decode, queue, inference, rest: Math.max(0, total - decode - queue - inference), network: Math.max(0, page - total), page };
    });
    const median = (/** @type {(typeof STAGES)[number][0] | 'page'} */ name) => {
      const sorted = stages.map((stage) => stage[name]).sort((x, y) => x - y);
      return sorted[sorted.length >> 1];
    };
    const all = STAGES.reduce((sum, [name]) => sum + median(name), 0) || 1;
    const bar = h('div', { class: 'stages', 'aria-hidden': 'true' }, STAGES.map(([name]) => {
      const part = h('span', { class: `stage-${name}` });
      part.style.flexGrow = String(median(name) / all);
      return part;
    }));
    fill(side.times, bar, h('table', {},
      h('thead', {}, h('tr', {}, h('th', { scope: 'col' }, 'Stage'), h('th', { scope: 'col', class: 'number' }, rounds.length > 1 ? `ms, median of ${rounds.length}` : 'ms'))),
      h('tbody', {}, STAGES.map(([name, title, about]) => h('tr', {},
        h('td', {}, h('span', { class: `key stage-${name}`, 'aria-hidden': 'true' }), title, h('span', { class: 'hint' }, ` ${about}`)),
        h('td', { class: 'number' }, median(name).toFixed(1)))),
      h('tr', {}, h('th', { scope: 'row' }, 'As this page saw it'), h('td', { class: 'number' }, h('b', {}, median('page').toFixed(1)))))));
  }

  #snippets() {
    const labels = this.labels.value.split('\n').map((label) => label.trim()).filter(Boolean);
    const { client } = this.app;
    return formSnippets(client.base, 'v1/classify', [this.#file?.name ?? 'picture.jpg'],
      [['model', this.sides[0].model.id], ['labels', JSON.stringify(labels)]], { key: client.hasKey });
  }
}
