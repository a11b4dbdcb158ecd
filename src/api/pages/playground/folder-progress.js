// How far the folder is: a bar, pause and resume, and what could not be used and why.

import { fill, h, icon } from './dom.js';

/** Errors that are listed. */
const LISTED = 200;

export class Progress {
  #errors = 0;

  /** @param {{ onPause: () => void, onRetry: () => void }} options */
  constructor({ onPause, onRetry }) {
    this.text = h('span', { class: 'number' });
    this.bar = h('progress', { 'aria-label': 'Pictures embedded', max: 1, value: 0 });
    this.pause = h('button', { type: 'button', class: 'button small', onclick: onPause });
    this.list = h('ul', { class: 'folder-errors' });
    this.title = h('summary', {});
    this.errors = h('details', { class: 'folder-failed', hidden: true }, this.title, this.list,
      h('button', { type: 'button', class: 'button small', onclick: onRetry }, 'Try them again'));
    this.reason = h('p', { class: 'bad', role: 'alert', hidden: true });
    this.element = h('div', { class: 'folder-progress' }, h('div', { class: 'row' }, this.text, this.bar, this.pause), this.reason, this.errors);
  }

  /**
   * @param {Readonly<import('./queue.js').Progress>} queue
   * @param {number} ready @param {number} count
   * @param {import('./folder-store.js').Picture[]} errors
   */
  show(queue, ready, count, errors) {
    const open = ready + errors.length < count;
    const rate = queue.perSecond >= 10 ? Math.round(queue.perSecond) : queue.perSecond.toFixed(1);
    const pace = queue.perSecond > 0 && queue.state === 'running' ? ` · ${rate} a second` : '';
    const state = queue.state === 'waiting' ? ' · waiting for the service (429)' : queue.state === 'paused' ? ' · paused' : pace;
    this.text.textContent = open
      ? `${ready.toLocaleString()} of ${count.toLocaleString()} pictures${state}`
      : `${ready.toLocaleString()} ${ready === 1 ? 'picture' : 'pictures'}`;
    this.bar.max = Math.max(count, 1);
    this.bar.value = ready + errors.length;
    this.bar.hidden = this.pause.hidden = !open;
    const paused = queue.state === 'paused';
    if (this.pause.dataset.paused !== String(paused)) {
      this.pause.dataset.paused = String(paused);
      fill(this.pause, icon(paused ? 'play' : 'pause'), paused ? 'Resume' : 'Pause');
    }
    if (this.reason.textContent !== queue.reason) this.reason.textContent = queue.reason;
    this.reason.hidden = queue.reason === '';
    this.errors.hidden = errors.length === 0;
    if (errors.length === this.#errors) return;
    this.#errors = errors.length;
    this.title.textContent = `${errors.length.toLocaleString()} could not be used`;
    fill(this.list, errors.slice(0, LISTED).map(({ name, error }) => h('li', {}, h('strong', {}, name), ` ${error}`)),
      errors.length > LISTED && h('li', {}, `and ${(errors.length - LISTED).toLocaleString()} more`));
  }
}
