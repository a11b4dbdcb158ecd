// Teach it: labels as columns, pictures as their examples, what these do, and label sets saved under names.

import { isAbort } from './api.js';
import { jsonSnippets } from './copy.js';
import { fill, h, icon, settled } from './dom.js';
import { folder } from './folder.js';
import { chosenFiles, droppedFiles, sortPictures, takesDrops } from './folder-files.js';
import { PENDING, READY, Store } from './folder-store.js';
import { Thumbs } from './folder-thumbs.js';
import { dot } from './math.js';
import { EmbedQueue } from './queue.js';
import { bar, Board } from './teach-board.js';
import { confirmed, Saved } from './teach-saved.js';
import { classified, isConflict, MOST_EXAMPLES, TaughtSet } from './teach-set.js';
import { Tray } from './teach-tray.js';

/** Pictures of this view. */
const MOST = 1000;
/** Pictures that are taken from the folder at once. */
const FROM_FOLDER = 200;

/** @typedef {import('./teach-set.js').Label} Label */

/** @type {import('./types.d.ts').Mount} */
export function mount(root, app) {
  const view = new TeachView(root, app);
  return { show: () => view.show(), destroy: () => view.destroy() };
}

class TeachView {
  #set = new TaughtSet();
  /** @type {Store} */ #store;
  /** @type {EmbedQueue<number>} */ #queue;
  /** By picture, the best label by words. @type {Map<number, string>} */
  #words = new Map();
  /** By picture, what the stored set says. @type {Map<number, { label: string | null, score: number | null }>} */
  #guesses = new Map();
  #call = new AbortController();
  #timer = 0;
  #busy = false;
  #guessing = false;
  /** What a label waits for: its pictures are being embedded. @type {Map<number, Label>} */
  #promised = new Map();
  summary = h('div', { class: 'teach-summary', role: 'status' });
  empty = h('div', { class: 'drop teach-drop' });
  tray = h('section', { class: 'card stack', 'aria-labelledby': 'tray-title' });
  progress = h('span', { class: 'hint number', role: 'status' });
  fromFolder = h('button', { type: 'button', class: 'button small', hidden: true, onclick: () => this.#takeFolder() }, icon('folder'), 'From the folder');
  name = h('input', {
    id: 'set-name', class: 'field', type: 'text', value: this.#set.name, maxLength: 100, autocomplete: 'off', spellcheck: false, required: true,
    pattern: '[A-Za-z0-9][A-Za-z0-9._\\-]*', title: 'Letters, digits, dots, underscores and hyphens; the first a letter or a digit',
    oninput: () => {
      this.#set.name = this.name.value.trim();
      this.#state();
    },
  });
  /** Shown for a set that was opened with templates of its own. */
  own = h('button', {
    type: 'button', class: 'button small', hidden: true,
    onclick: () => {
      delete this.#set.rest.templates;
      this.#changed();
    },
  }, 'It has its own templates: use these instead');
  none = h('input', { type: 'checkbox', onchange: () => {
    this.#set.none = this.none.checked;
    this.#state();
  } });
  save = h('button', { type: 'submit', class: 'button primary' }, icon('check'), 'Save and measure');
  stored = h('span', { class: 'hint stored', role: 'status' });

  /** @param {HTMLElement} root @param {import('./types.d.ts').App} app */
  constructor(root, app) {
    this.app = app;
    this.#store = new Store(app.model.dimensions, app.model.fingerprint);
    this.#queue = this.#makeQueue();
    this.thumbs = new Thumbs((index) => this.#store.pictures[index]?.file ?? null, (index) => {
      this.board.strip.drawn(index);
      this.pictures.strip.drawn(index);
    });
    const parts = { app, set: () => this.#set, store: () => this.#store, thumbs: this.thumbs };
    const onGive = (/** @type {Label} */ label, /** @type {number[]} */ indices) => this.#give(label, indices);
    this.board = new Board({
      ...parts, onGive, onChange: () => this.#changed(), onForget: (label) => void this.#forget(label),
      onFiles: (label, transfer) => void droppedFiles(transfer).then((files) => this.#take(files, label), (error) => app.failed(error)),
    });
    this.pictures = new Tray({
      ...parts, onGive, guess: (index) => ({
        words: this.#words.get(index) ?? '', set: this.#guesses.has(index) ? this.#guesses.get(index)?.label : undefined,
        score: this.#guesses.get(index)?.score ?? null,
      }),
    });
    this.saved = new Saved(app, { onOpen: (name) => void this.#open(name), onDelete: (name) => void this.#delete(name) });
    this.byWords = settled(() => void this.#byWords(), 120);
    this.#build(root);
    this.stopModel = app.onModel(() => this.#modelChanged());
    this.stopPrompt = app.prompt.onChange(() => {
      this.#state();
      this.byWords();
    });
    this.#changed();
  }

  /** @param {HTMLElement} root */
  #build(root) {
    const files = h('input', {
      type: 'file', multiple: true, hidden: true, accept: 'image/*', 'data-kind': 'files', 'aria-label': 'Pictures',
      onchange: () => {
        this.#take(chosenFiles(files.files ?? []), null);
        files.value = '';
      },
    });
    const choose = () => files.click();
    const samples = async () => {
      try {
        this.#take((await this.app.samples()).map((file) => ({ file, name: file.name })), null);
      } catch (error) {
        this.app.failed(error);
      }
    };
    fill(this.empty, h('p', { class: 'folder-title' }, 'Drop pictures that labels shall be learned from'),
      h('div', { class: 'row folder-choices' }, h('button', { type: 'button', class: 'button primary', onclick: choose }, icon('picture'), 'Choose pictures'),
        h('button', { type: 'button', class: 'button', onclick: () => void samples() }, icon('play'), 'Take the samples')),
      h('p', { class: 'hint' }, 'Where words fail, show pictures: a few of each label are enough, and the service keeps their vectors with the label set.'));
    const form = h('form', {
      class: 'card teach-head', noValidate: false,
      onsubmit: (/** @type {Event} */ event) => {
        event.preventDefault();
        void this.#save(false);
      },
    }, h('div', { class: 'row teach-line' },
      h('div', { class: 'labelled' }, h('label', { for: 'set-name' }, 'Label set'), this.name), this.save, this.stored,
      h('button', { type: 'button', class: 'button small', onclick: () => this.#start(new TaughtSet()) }, icon('plus'), 'New'),
      this.app.copyAs(() => jsonSnippets(this.app.client.base, `v1/label-sets/${encodeURIComponent(this.#set.name)}?wait=true`,
        this.#set.definition(this.app.model.id, this.app.prompt.templates), { key: this.app.client.hasKey, method: 'PUT' }))),
    h('div', { class: 'row' }, h('label', { class: 'check' }, this.none, 'None of these: a picture may fit no label'),
      h('div', { class: 'row' }, this.own, this.app.prompt.picker())));
    fill(this.tray, h('div', { class: 'row between' }, h('div', { class: 'row' }, h('h2', { id: 'tray-title' }, 'Pictures'), this.progress),
      h('div', { class: 'row' }, this.fromFolder, h('button', { type: 'button', class: 'button small', onclick: choose }, icon('plus'), 'Pictures'))),
    this.empty, this.pictures.element);
    root.classList.add('stack');
    fill(root, h('h1', { class: 'sr' }, 'Teach it'), files, form, this.summary, this.board.element, this.tray, this.saved.element);
    takesDrops(root, (dropped) => this.#take(dropped, null), (error) => this.app.failed(error));
  }

  show() {
    const { store, found } = folder;
    this.fromFolder.hidden = !store || store.ready === 0 || store.fingerprint !== this.#store.fingerprint || found.length === 0;
    void this.saved.refresh();
  }

  destroy() {
    this.#queue.stop();
    this.#call.abort();
    clearTimeout(this.#timer);
    this.stopModel();
    this.stopPrompt();
    this.thumbs.end();
  }

  #makeQueue() {
    const { id, fingerprint } = this.app.model;
    const store = this.#store;
    return /** @type {EmbedQueue<number>} */ (new EmbedQueue({
      embed: (items, signal) => this.app.client.embedPictures(id, items.map((index) => /** @type {File} */ (store.pictures[index].file)), { signal, fingerprint }),
      size: (index) => store.pictures[index].bytes,
      settled: (index, vector, error) => {
        if (vector) store.setVector(index, vector);
        else store.fail(index, error ?? '');
        const label = this.#promised.get(index);
        this.#promised.delete(index);
        if (vector && label && this.#set.labels.includes(label)) this.#set.give(index, label);
      },
      changed: () => {
        this.#timer ||= setTimeout(() => {
          this.#timer = 0;
          this.#changed();
        }, 100);
      },
    }));
  }

  /** @param {import('./folder-files.js').Named[]} files @param {Label | null} label whose examples they shall be */
  #take(files, label) {
    const { pictures } = sortPictures(files);
    const room = Math.max(0, MOST - this.#store.count);
    if (pictures.length > room) this.app.notice('error', `This view holds ${MOST.toLocaleString()} pictures; ${pictures.length - room} were left out.`);
    if (pictures.length === 0) this.app.notice('info', 'There are no pictures among these files.');
    const fresh = this.#store.add(pictures.slice(0, room));
    if (label) for (const index of fresh) this.#promised.set(index, label);
    this.#queue.add(fresh);
    this.#changed();
  }

  /** Takes what the folder's search found, with its vectors. */
  #takeFolder() {
    const { store, found } = folder;
    if (!store) return;
    const most = Math.min(FROM_FOLDER, MOST - this.#store.count);
    const ready = Array.prototype.filter.call(found, (/** @type {number} */ index) => store.state[index] === READY).slice(0, most);
    for (const index of ready) {
      const { file, name, bytes } = store.pictures[index];
      if (file) this.#store.add([{ file, name }]);
      this.#store.bring([{ name, bytes }], store.vector(index));
    }
    this.app.notice('good', `${ready.length} pictures were taken from the folder${found.length > ready.length ? ', the first ones' : ''}.`);
    this.#changed();
  }

  /** @param {Label} label @param {number[]} indices */
  #give(label, indices) {
    const usable = indices.filter((index) => this.#store.state[index] === READY);
    if (this.#set.count + this.#set.others + usable.length > MOST_EXAMPLES) {
      this.app.notice('error', `A label set has at most ${MOST_EXAMPLES.toLocaleString()} examples.`);
      return;
    }
    if (usable.length < indices.length) this.app.notice('info', 'Pictures without vectors cannot be examples.');
    for (const index of usable) this.#set.give(index, label);
    this.#changed();
  }

  #changed() {
    const { count, ready } = this.#store;
    this.empty.hidden = count > 0;
    this.pictures.element.hidden = count === 0;
    const { state, reason } = this.#queue.progress;
    const open = this.#store.having(PENDING).length;
    const by = this.#set.labels.length === 0 ? '' : `, each with its best label by ${this.#guesses.size > 0 ? 'the saved set' : 'words'}`;
    const how = open > 0 ? `${ready} of ${count} embedded${state === 'paused' ? `: ${reason}` : ''}` : `${count}${by}`;
    this.progress.textContent = count === 0 ? '' : how;
    this.board.draw();
    this.pictures.draw();
    this.#state();
    this.byWords();
    if (open === 0) void this.#guessNew();
  }

  /** What the stored set says of pictures that came after it was asked. */
  async #guessNew() {
    const set = this.#set;
    const fresh = this.#store.having(READY).filter((index) => !this.#guesses.has(index));
    if (this.#guessing || this.#busy || this.#guesses.size === 0 || fresh.length === 0) return;
    this.#guessing = true;
    try {
      const found = await classified({ client: this.app.client, store: this.#store, model: this.app.model.id }, set.storedAs, fresh);
      if (set === this.#set && this.#guesses.size > 0) for (const [index, guess] of found) this.#guesses.set(index, guess);
      this.pictures.draw();
    } catch (error) {
      this.app.failed(error);
    } finally {
      this.#guessing = false;
    }
  }

  /** What is saved and what is measured. */
  #state() {
    const set = this.#set;
    this.own.hidden = set.rest.templates === undefined || set.storedAs === '' || same(set.rest.templates, this.app.prompt.templates);
    this.save.disabled = this.#busy || set.labels.length === 0;
    this.stored.textContent = this.#busy ? 'Saving …' : set.version === '' ? '' : set.isStored(this.app.model.id, this.app.prompt.templates) ? 'Saved.' : 'Not saved yet.';
    const { measured } = set;
    fill(this.summary);
    if (measured && measured.before !== null && measured.after !== null) {
      fill(this.summary, h('div', { class: 'card teach-measured' },
        h('p', {}, `Of ${measured.examples.toLocaleString()} examples, each left out in turn, so many are right:`),
        bar('by words', measured.before), bar('with the other examples', measured.after),
        h('p', { class: 'hint' }, 'A label with one example is judged by its words. ' +
          `${(set.count + set.others).toLocaleString()} of ${MOST_EXAMPLES.toLocaleString()} examples are used.`)));
    } else if (set.others > 0) {
      fill(this.summary, h('p', { class: 'hint' }, `The service has ${set.others.toLocaleString()} examples of this set; add some here to measure it.`));
    }
  }

  /** The best label of each picture by words alone, computed in the page. */
  async #byWords() {
    this.#call.abort();
    const call = (this.#call = new AbortController());
    const labels = this.#set.labels.map(({ name }) => name);
    const before = new Map(this.#words);
    this.#words.clear();
    try {
      const store = this.#store;
      if (labels.length > 0 && store.ready > 0 && this.app.model.text) {
        const vectors = await this.app.labelVectors(labels, { signal: call.signal });
        if (call.signal.aborted || store !== this.#store) return;
        for (const index of store.having(READY)) {
          let [best, at] = [-Infinity, 0];
          vectors.forEach((vector, label) => {
            const cosine = dot(store.vectors, index * store.width, vector, 0, store.width);
            if (cosine > best) [best, at] = [cosine, label];
          });
          this.#words.set(index, labels[at]);
        }
      }
      const same = before.size === this.#words.size && [...before].every(([index, label]) => this.#words.get(index) === label);
      if (!same) this.pictures.draw();
    } catch (error) {
      if (!isAbort(error)) this.app.failed(error);
    }
  }

  /** @param {boolean} replace */
  async #save(replace) {
    if (this.#busy || this.#set.labels.length === 0 || !this.name.reportValidity()) return;
    const set = this.#set;
    const around = { client: this.app.client, store: this.#store, model: this.app.model.id };
    const lost = set.losing();
    const question = `The service forgets all examples of a label at once. ${lost} earlier ones, which have no pictures here, would be lost, too.`;
    if (lost > 0 && !(await confirmed(question, 'Save and lose them'))) return;
    this.#busy = true;
    this.#state();
    try {
      await set.save(around, this.app.prompt.templates, replace);
      const guesses = await classified(around, set.name, this.#store.having(READY));
      if (set === this.#set && around.store === this.#store) this.#guesses = guesses;
    } catch (error) {
      if (!isConflict(error)) {
        this.app.failed(error);
      } else {
        const again = await confirmed(set.storedAs === set.name
          ? `“${set.name}” was changed by somebody else since it was opened. Replace it with what is here?`
          : `The service has a label set “${set.name}”. Replace it, with its examples?`, 'Replace it');
        if (again) {
          set.version = ''; // not the one that was opened any more
          this.#busy = false;
          return void (await this.#save(true));
        }
      }
    } finally {
      this.#busy = false;
    }
    this.#changed();
    void this.saved.refresh();
    return undefined;
  }

  /** @param {Label} label */
  async #forget(label) {
    const question = `Forget all examples of “${label.name}” that the service has? Those in this page are sent again when the set is saved.`;
    if (!(await confirmed(question, 'Forget them'))) return;
    try {
      await this.#set.forget(this.app.client, label.name);
      this.#changed();
      await this.saved.refresh();
    } catch (error) {
      this.app.failed(error);
    }
  }

  /** @param {TaughtSet} set */
  #start(set) {
    this.#set = set;
    this.#guesses.clear();
    this.#promised.clear();
    this.name.value = set.name;
    this.none.checked = set.none;
    this.#changed();
  }

  /** @param {string} name */
  async #open(name) {
    try {
      const set = TaughtSet.opened(await this.app.client.labelSet(name), this.app.model.id, this.app.prompt.templates);
      this.#start(set);
      this.name.focus();
      const around = { client: this.app.client, store: this.#store, model: this.app.model.id };
      const guesses = await classified(around, name, this.#store.having(READY));
      if (set !== this.#set) return;
      this.#guesses = guesses;
      this.#changed();
    } catch (error) {
      this.app.failed(error);
    }
  }

  /** @param {string} name */
  async #delete(name) {
    if (!(await confirmed(`Delete the label set “${name}” from the service? Others may use it.`, 'Delete it'))) return;
    try {
      await this.app.client.deleteLabelSet(name);
      if (this.#set.storedAs === name) {
        // What is in the page can be saved again.
        this.#set.version = this.#set.storedAs = '';
        this.#set.others = 0;
        this.#set.measured = null;
        this.#guesses.clear();
      }
      this.#changed();
      await this.saved.refresh();
    } catch (error) {
      this.app.failed(error);
    }
  }

  /** Vectors of two models cannot be compared: pictures are embedded anew, and examples begin anew. */
  #modelChanged() {
    const { model } = this.app;
    void this.saved.refresh();
    if (model.fingerprint === this.#store.fingerprint) return;
    this.#queue.stop();
    this.#set.forgetPictures();
    this.#guesses.clear();
    this.#words.clear();
    this.#promised.clear();
    this.#store.reset(model.dimensions, model.fingerprint);
    this.#queue = this.#makeQueue();
    const pending = this.#store.having(PENDING);
    for (const index of pending) if (!this.#store.pictures[index].file) this.#store.fail(index, 'its file is not here');
    this.#queue.add(this.#store.having(PENDING));
    this.#changed();
  }
}

/** Whether the templates of a set are those that are chosen. @param {unknown} own @param {string[]} chosen */
const same = (own, chosen) => JSON.stringify([own].flat()) === JSON.stringify(chosen);
