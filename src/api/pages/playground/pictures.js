// Pictures that are on the page: how they come in, and their vectors, each asked for once.

/**
 * @typedef {object} Picture
 * @property {File} file
 * @property {string} url an address for `<img>`
 * @property {boolean} sample whether it ships with the page
 * @property {string | null} error why the service cannot use it
 * @property {Map<string, Float32Array>} vectors by fingerprint
 * @property {import('./types.d.ts').Timings | null} timings of the request that embedded it
 */

/** Pictures that are kept at most; a folder has a view of its own. */
export const MOST = 64;

export class Pictures {
  /** @type {Picture[]} */
  list = [];
  /** @type {Picture | null} */
  selected = null;

  /**
   * @param {import('./types.d.ts').App} app
   * @param {() => void} changed
   */
  constructor(app, changed) {
    this.app = app;
    this.changed = changed;
  }

  /**
   * Adds files before the others and selects the first of them. Own pictures take the place of samples.
   * @param {File[]} files
   * @param {{ sample?: boolean }} [options]
   */
  add(files, { sample = false } = {}) {
    const fresh = files.filter((file) => file.size > 0);
    if (fresh.length < files.length) this.app.notice('error', 'Empty files were left out.');
    if (fresh.length === 0) return;
    if (!sample) this.list.filter((picture) => picture.sample).forEach((picture) => this.#forget(picture));
    const added = fresh.map((file) => ({
      file, url: URL.createObjectURL(file), sample, error: null, vectors: new Map(), timings: null,
    }));
    const kept = [...added, ...this.list];
    if (kept.length > MOST) {
      this.app.notice('info', `This view keeps ${MOST} pictures. For more, there is Folder.`);
      kept.slice(MOST).forEach((picture) => this.#forget(picture));
    }
    this.list = kept.slice(0, MOST);
    this.selected = this.list[0] ?? null;
    this.changed();
  }

  /** @param {Picture} picture */
  remove(picture) {
    const at = this.list.indexOf(picture);
    this.#forget(picture);
    if (this.selected === picture) this.selected = this.list[Math.min(at, this.list.length - 1)] ?? null;
    this.changed();
  }

  /** @param {Picture} picture */
  select(picture) {
    this.selected = picture;
    this.changed();
  }

  /** @param {Picture} picture */
  #forget(picture) {
    this.list = this.list.filter((other) => other !== picture);
    URL.revokeObjectURL(picture.url);
  }

  /**
   * Embeds what has no vector of the chosen model yet, the selected picture first. Answers whether there was something to do.
   * @param {AbortSignal} signal
   */
  async embed(signal) {
    const { id, fingerprint } = this.app.model;
    const missing = this.list.filter((picture) => !picture.error && !picture.vectors.has(fingerprint));
    if (missing.length === 0) return false;
    const selected = missing.filter((picture) => picture === this.selected);
    const part = selected.length > 0 ? selected : missing;
    const { vectors, errors, timings } = await this.app.client.embedPictures(id, part.map((picture) => picture.file), { signal });
    part.forEach((picture, index) => {
      const vector = vectors[index];
      if (vector) picture.vectors.set(fingerprint, vector.slice());
      picture.error = errors[index];
      picture.timings = part.length === 1 ? timings : null;
    });
    return true;
  }
}

/**
 * Files out of a paste or a drop.
 * @param {DataTransfer | null} data
 */
export const filesOf = (data) => [...(data?.files ?? [])].filter((file) => file.type === '' || file.type.startsWith('image/'));

/**
 * Lets files be dropped on an element.
 * @param {HTMLElement} element
 * @param {(files: File[]) => void} dropped
 */
export function takesDrops(element, dropped) {
  let inside = 0;
  const carries = (/** @type {DragEvent} */ event) => event.dataTransfer?.types.includes('Files') ?? false;
  const mark = (/** @type {number} */ change) => {
    inside = Math.max(0, inside + change);
    element.classList.toggle('over', inside > 0);
  };
  element.addEventListener('dragenter', (event) => {
    if (!carries(event)) return;
    event.preventDefault();
    mark(1);
  });
  element.addEventListener('dragleave', (event) => carries(event) && mark(-1));
  element.addEventListener('dragover', (event) => carries(event) && event.preventDefault());
  element.addEventListener('drop', (event) => {
    if (!carries(event)) return;
    event.preventDefault();
    mark(-inside);
    dropped(filesOf(event.dataTransfer));
  });
}
