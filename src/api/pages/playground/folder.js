// A folder of photos: pictures by the hundred or thousand, embedded once and searched in the page. Nothing is stored on the
// service.

import { fill, h, icon } from './dom.js';
import { chosenFiles, MOST, sortPictures, takesDrops } from './folder-files.js';
import { Detail } from './folder-detail.js';
import { Grid } from './folder-grid.js';
import { Groups } from './folder-groups.js';
import { PictureMap } from './folder-map.js';
import { Progress } from './folder-progress.js';
import { QueryBar } from './folder-query.js';
import { FAILED, PENDING, READY, Store } from './folder-store.js';
import { Thumbs } from './folder-thumbs.js';
import { pack, save, searchSnippets, unpack } from './folder-transfer.js';
import { cosines, topK } from './math.js';
import { EmbedQueue } from './queue.js';

/** @typedef {'grid' | 'groups' | 'map'} Mode */
/** @typedef {import('./folder-files.js').Named} Named */
/** @typedef {import('./folder-query.js').Query} Query */

/** The folder, for other views: Teach takes pictures from it. @type {{ store: Store | null, found: ArrayLike<number> }} */
export const folder = { store: null, found: [] };

/** @type {import('./types.d.ts').Mount} */
export function mount(root, app) {
  const view = new FolderView(root, app);
  return { show: () => view.show(), hide: () => view.hide(), destroy: () => view.destroy() };
}

class FolderView {
  /** @type {Store} */ #store;
  /** The model that the vectors are of: not always the chosen one. */ #model;
  /** @type {EmbedQueue<number>} */ #queue;
  /** @type {Query | null} */ #query = null;
  /** @type {Float32Array} */ #scores = new Float32Array(0);
  /** @type {Mode} */ #mode = 'grid';
  #mounted = true;
  #timer = 0;
  drop = h('div', { class: 'drop folder-drop' });
  work = h('div', { class: 'stack', hidden: true });
  banner = h('div', { class: 'card folder-banner', hidden: true });
  summary = h('p', { class: 'hint folder-summary', role: 'status' });
  export = h('button', { type: 'button', class: 'button small', onclick: () => save(pack(this.#store, this.#model.id), 'vectors.zip') }, icon('download'), 'Export');
  modes = h('div', { class: 'segments', role: 'group', 'aria-label': 'Show as' },
    /** @type {[Mode, string][]} */ ([['grid', 'Grid'], ['groups', 'Near-duplicates'], ['map', 'Map']]).map(([mode, text]) =>
      h('button', { type: 'button', 'aria-pressed': String(mode === 'grid'), 'data-mode': mode, onclick: () => this.#setMode(mode) }, text)));

  /** @param {HTMLElement} root @param {import('./types.d.ts').App} app */
  constructor(root, app) {
    this.app = app;
    this.#model = app.model;
    this.#store = new Store(app.model.dimensions, app.model.fingerprint);
    folder.store = this.#store;
    this.#queue = this.#makeQueue();
    this.thumbs = new Thumbs((index) => this.#store.pictures[index]?.file ?? null, (index) => {
      this.grid.drawn(index);
      this.detail.strip.drawn(index);
      this.groups.strip.drawn(index);
      this.map.drawn(index);
    });
    const onOpen = (/** @type {number} */ index) => this.#open(index);
    this.grid = new Grid({
      thumbs: this.thumbs, caption: (index) => this.#caption(index), label: 'Pictures', onOpen,
      onActive: (index) => { if (this.detail.index >= 0) this.#open(index); },
      onDrag: (index, event) => event.dataTransfer?.setData('text/plain', this.#store.pictures[index].name),
    });
    this.detail = new Detail({
      thumbs: this.thumbs, onOpen, nameOf: (index) => this.#store.pictures[index].name,
      onSearch: (index, weight, alone) => this.#searchBy(index, weight, alone), onClose: () => this.#closed(),
    });
    const parts = { app, store: () => this.#store, thumbs: this.thumbs, onOpen };
    this.groups = new Groups(parts);
    this.map = new PictureMap(parts);
    this.query = new QueryBar(app, (query) => this.#search(query, true));
    this.progress = new Progress({
      onPause: () => (this.#queue.progress.state === 'paused' ? this.#queue.resume() : this.#queue.pause()), onRetry: () => this.#retry(),
    });
    this.#build(root);
    this.stopModel = app.onModel(() => this.#modelChanged());
    this.stopPrompt = app.prompt.onChange(() => { if (this.#query) this.query.again(); });
    this.#update();
  }

  /** @param {HTMLElement} root */
  #build(root) {
    const picker = (/** @type {boolean} */ directory) => {
      const input = h('input', {
        type: 'file', multiple: true, hidden: true, accept: directory ? undefined : 'image/*', 'data-kind': directory ? 'folder' : 'files',
        'aria-label': directory ? 'A folder' : 'Files',
        onchange: () => {
          this.#take(chosenFiles(input.files ?? []));
          input.value = '';
        },
      });
      input.webkitdirectory = directory;
      return input;
    };
    const [folderInput, filesInput] = [picker(true), picker(false)];
    const archive = h('input', {
      type: 'file', accept: '.zip,application/zip', hidden: true, 'data-kind': 'archive', 'aria-label': 'An exported file',
      onchange: () => {
        const file = archive.files?.[0];
        archive.value = '';
        if (file) void this.#import(file);
      },
    });
    const button = (/** @type {string} */ text, /** @type {string} */ picture, /** @type {() => void} */ onclick, kind = 'small') =>
      h('button', { type: 'button', class: `button ${kind}`, onclick }, icon(picture), text);
    const openFolder = () => folderInput.click();
    fill(this.drop,
      h('p', { class: 'folder-title' }, 'Drop a folder of photos, or hundreds of files'),
      h('div', { class: 'row folder-choices' }, button('Choose a folder', 'folder', openFolder, 'primary'),
        button('Choose files', 'picture', () => filesInput.click(), ''), button('Import vectors', 'upload', () => archive.click(), ''),
        button('Take the samples', 'play', () => void this.#samples(), '')),
      h('p', { class: 'hint' }, 'Each picture is sent once, to be embedded; its vector stays in this page, and nothing is stored on the ' +
        `service. Up to ${MOST.toLocaleString()} pictures.`));
    const tools = h('div', { class: 'row folder-tools' }, button('Folder', 'plus', openFolder), button('Files', 'plus', () => filesInput.click()),
      button('Import', 'upload', () => archive.click()), this.export,
      this.app.copyAs(() => {
        const [text] = this.app.prompt.texts(this.#query?.words ?? 'a red car');
        return searchSnippets(this.app.client.base, this.#model.id, text, this.app.client.hasKey);
      }),
      button('Clear', 'trash', () => this.#clear(), 'small danger'));
    fill(this.work,
      h('div', { class: 'card stack folder-head' }, h('div', { class: 'row between' }, this.progress.element, tools), this.query.element,
        h('div', { class: 'row between' }, this.modes, this.app.prompt.picker())),
      this.banner, this.summary,
      h('div', { class: 'folder-body' }, h('div', { class: 'folder-main' }, this.grid.element, this.groups.element, this.map.element), this.detail.element));
    root.classList.add('stack');
    fill(root, h('h1', { class: 'sr' }, 'A folder of photos'), folderInput, filesInput, archive, this.drop, this.work);
    takesDrops(root, (files) => this.#take(files), (error) => this.app.failed(error));
  }

  show() {
    if (this.#mode === 'map') this.map.show();
    if (this.#mode === 'groups') this.groups.show();
    this.grid.refresh();
  }

  hide() {
    this.map.hide();
    this.groups.hide();
  }

  destroy() {
    this.#mounted = false;
    this.#queue.stop();
    this.stopModel();
    this.stopPrompt();
    this.hide();
    this.grid.end();
    this.map.end();
    this.thumbs.end();
    folder.store = null;
  }

  #makeQueue() {
    const { id, fingerprint } = this.#model;
    const store = this.#store;
    return /** @type {EmbedQueue<number>} */ (new EmbedQueue({
      embed: (items, signal) => this.app.client.embedPictures(id, items.map((index) => /** @type {File} */ (store.pictures[index].file)), { signal, fingerprint }),
      size: (index) => store.pictures[index].bytes,
      settled: (index, vector, error) => (vector ? store.setVector(index, vector) : store.fail(index, error ?? '')),
      changed: () => this.#soon(),
    }));
  }

  /** @param {Named[]} files */
  #take(files) {
    if (!this.#mounted) return;
    const archives = files.filter(({ file }) => file.name.endsWith('.zip'));
    if (archives.length === 1 && files.length === 1) return void this.#import(archives[0].file);
    const { pictures, others, tooMany } = sortPictures(files);
    const room = Math.max(0, MOST - this.#store.count);
    const over = tooMany + Math.max(0, pictures.length - room);
    if (over > 0) this.app.notice('error', `This page holds ${MOST.toLocaleString()} pictures; ${over.toLocaleString()} or more were left out.`);
    if (pictures.length === 0) this.app.notice('info', files.length === 0 ? 'The folder is empty.' : 'There are no pictures among these files.');
    else if (others > 0) {
      const what = others === 1 ? 'file that is no picture was' : 'files that are no pictures were';
      this.app.notice('info', `${others.toLocaleString()} ${what} left out.`);
    }
    const fresh = this.#store.add(pictures.slice(0, room));
    this.#queue.add(fresh);
    this.#update();
    return undefined;
  }

  async #samples() {
    try {
      this.#take((await this.app.samples()).map((file) => ({ file, name: file.name })));
    } catch (error) {
      this.app.failed(error);
    }
  }

  /** @param {File} file */
  async #import(file) {
    try {
      const { fingerprint, dimensions } = this.app.model;
      const { pictures, vectors } = await unpack(file, { fingerprint, width: dimensions });
      if (this.#store.fingerprint !== fingerprint) this.#clear();
      if (this.#store.count + pictures.length > MOST) {
        throw new Error(`this page holds ${MOST.toLocaleString()} pictures, and the file has ${pictures.length.toLocaleString()}`);
      }
      this.#store.bring(pictures, vectors);
      this.app.notice('good', `${pictures.length.toLocaleString()} pictures were imported. Drop their folder to see them.`);
      this.#update();
    } catch (error) {
      this.app.failed(new Error(`${file.name}: ${error instanceof Error ? error.message : error}`));
    }
  }

  #retry() {
    const failed = this.#store.having(FAILED).filter((index) => this.#store.pictures[index].file);
    for (const index of failed) this.#store.state[index] = PENDING;
    this.#queue.add(failed);
  }

  #clear() {
    this.#queue.stop();
    this.detail.close();
    this.#model = this.app.model;
    this.#store = folder.store = new Store(this.#model.dimensions, this.#model.fingerprint);
    this.#queue = this.#makeQueue();
    this.thumbs.empty();
    this.map.forget();
    this.query.clear();
    this.#setMode('grid');
    this.#modelChanged();
    this.#update();
  }

  /** Vectors of two models cannot be compared: searching waits until the pictures are embedded by the chosen one. */
  #modelChanged() {
    const { app } = this;
    const same = app.model.fingerprint === this.#store.fingerprint;
    if (same || this.#store.count === 0) {
      if (!same) this.#clear();
      this.banner.hidden = true;
      this.query.enable(app.model.text !== null);
      return;
    }
    this.query.enable(false);
    fill(this.banner, h('div', { class: 'row between' },
      h('p', {}, `These vectors are of ${this.#model.id}; ${app.model.id} is of another embedding space.`),
      h('button', {
        type: 'button', class: 'button primary',
        onclick: () => {
          this.#queue.stop();
          this.#model = app.model;
          this.#store.reset(app.model.dimensions, app.model.fingerprint);
          this.#queue = this.#makeQueue();
          for (const index of this.#store.having(PENDING)) if (!this.#store.pictures[index].file) this.#store.fail(index, 'only its vector was imported');
          this.map.forget();
          this.query.clear(); // its pictures had vectors of the other model
          this.#modelChanged();
          this.#queue.add(this.#store.having(PENDING));
          this.#update();
        },
      }, `Embed ${this.#store.count.toLocaleString()} pictures with ${app.model.id}`)));
    this.banner.hidden = false;
  }

  /** Brings the page up to date a few times a second, however often it is called. */
  #soon() {
    this.#timer ||= setTimeout(() => {
      this.#timer = 0;
      this.#update();
    }, 150);
  }

  /** Brings the page up to date with what was embedded. */
  #update() {
    if (!this.#mounted) return;
    const store = this.#store;
    this.drop.hidden = store.count > 0;
    this.work.hidden = store.count === 0;
    const errors = store.having(FAILED).map((index) => store.pictures[index]);
    this.progress.show(this.#queue.progress, store.ready, store.count, errors);
    this.export.disabled = store.ready === 0;
    this.#search(this.#query, false);
    if (this.#mode === 'map' && this.#queue.progress.state === 'idle') this.map.show();
    if (this.#mode === 'groups' && this.#queue.progress.state === 'idle') this.groups.show();
  }

  /** @param {Query | null} query @param {boolean} fresh whether it is another one than before */
  #search(query, fresh) {
    const store = this.#store;
    this.#query = query && query.vector.length === store.width ? query : null;
    const started = performance.now();
    /** @type {ArrayLike<number>} */
    let order;
    if (this.#query) {
      if (this.#scores.length < store.count) this.#scores = new Float32Array(store.state.length);
      cosines(store.vectors, store.count, this.#query.vector, this.#scores);
      order = topK(this.#scores.subarray(0, store.count), store.count, (index) => store.state[index] === READY);
    } else {
      order = Uint32Array.from({ length: store.count }, (_, index) => index);
    }
    const took = performance.now() - started;
    folder.found = order;
    this.grid.setOrder(order, fresh);
    this.map.mark(this.#query ? order : []);
    if (this.detail.index >= 0 && fresh) this.#open(this.detail.index);
    this.summary.textContent = this.#query
      ? `${order.length.toLocaleString()} pictures by “${this.#query.said}”, the best first, in ${took.toFixed(1)} ms`
      : '';
    this.summary.hidden = !this.#query || this.#mode === 'groups';
  }

  /** @param {number} index @returns {import('./folder-grid.js').Caption} */
  #caption(index) {
    const state = this.#store.state[index];
    return {
      name: this.#store.pictures[index].name.split('/').pop() ?? '',
      note: state === FAILED ? 'failed' : this.#score(index), faded: state === PENDING, failed: state === FAILED,
    };
  }

  /** What the search says of a picture: a probability where it is for words alone, else the cosine. @param {number} index */
  #score(index) {
    if (!this.#query || this.#store.state[index] !== READY) return '';
    const cosine = this.#scores[index];
    const { logit_scale: scale, logit_bias: bias } = this.#model;
    if (this.#query.words === null || scale === null || bias === null) return cosine.toFixed(3);
    const percent = 100 / (1 + Math.exp(-(scale * cosine + bias)));
    return percent >= 0.1 ? `${percent.toFixed(1)} %` : `< 0.1 %`;
  }

  /** @param {number} index */
  #open(index) {
    if (index < 0) return;
    const store = this.#store;
    const ready = store.state[index] === READY;
    /** @type {import('./folder-detail.js').Neighbour[]} */
    let neighbours = [];
    if (ready) {
      const near = cosines(store.vectors, store.count, store.vector(index));
      neighbours = [...topK(near, 7, (other) => other !== index && store.state[other] === READY)].map((other) => ({ index: other, cosine: near[other] }));
    }
    const score = this.#query && ready ? `cosine ${this.#scores[index].toFixed(4)}` : '';
    this.detail.show(index, { picture: store.pictures[index], ready, score, neighbours });
    this.map.choose(index);
    this.grid.select(index);
  }

  #closed() {
    this.map.choose(-1);
    if (this.#mode === 'grid') this.grid.element.focus({ preventScroll: true });
  }

  /** @param {number} index @param {1 | -1} weight @param {boolean} alone */
  #searchBy(index, weight, alone) {
    if (this.#mode === 'groups') this.#setMode('grid');
    this.query.addPicture(this.#store.pictures[index].name.split('/').pop() ?? '', this.#store.vector(index), weight, alone);
  }

  /** @param {Mode} mode */
  #setMode(mode) {
    this.#mode = mode;
    for (const button of this.modes.querySelectorAll('button')) button.setAttribute('aria-pressed', String(button.dataset.mode === mode));
    this.grid.element.hidden = mode !== 'grid' || this.grid.length === 0;
    this.groups.element.hidden = mode !== 'groups';
    this.map.element.hidden = mode !== 'map';
    this.summary.hidden = !this.#query || mode === 'groups';
    this.hide();
    this.show();
  }
}
