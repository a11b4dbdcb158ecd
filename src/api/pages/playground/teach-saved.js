// The label sets that the service has.

import { fill, h, icon } from './dom.js';

export class Saved {
  /**
   * @param {import('./types.d.ts').App} app
   * @param {{ onOpen: (name: string) => void, onDelete: (name: string) => void }} options
   */
  constructor(app, options) {
    this.app = app;
    this.options = options;
    this.rows = h('tbody', {});
    this.none = h('p', { class: 'hint' });
    this.table = h('table', { hidden: true }, h('thead', {}, h('tr', {}, ['Name', 'Labels', 'Examples', 'State', ''].map((text, at) =>
      h('th', { scope: 'col', class: at === 1 || at === 2 ? 'number' : undefined }, text || h('span', { class: 'sr' }, 'What to do'))))), this.rows);
    this.element = h('section', { class: 'card', 'aria-labelledby': 'saved-title' }, h('h2', { id: 'saved-title' }, 'Saved label sets'),
      this.none, h('div', { class: 'scroll-x' }, this.table));
  }

  async refresh() {
    try {
      const { data, persistent } = await this.app.client.labelSets();
      this.table.hidden = data.length === 0;
      this.none.textContent = `${data.length === 0 ? 'None yet. ' : ''}${persistent ? '' : 'The service has no --data-dir: sets are gone when it stops.'}`;
      fill(this.rows, data.map((/** @type {any} */ set) => this.#row(set)));
    } catch (error) {
      this.app.failed(error);
    }
  }

  /** @param {any} set */
  #row(set) {
    const own = set.models.find((/** @type {any} */ one) => one.model === this.app.model.id);
    const state = own === undefined || own.state === 'waiting' ? 'not encoded for this model yet'
      : own.state === 'encoding' ? `encoding, ${own.done} of ${set.labels}` : own.state === 'failed' ? `failed: ${own.reason}` : own.state;
    const opens = set.kind === 'texts';
    return h('tr', { 'data-set': set.name }, h('td', {}, set.name), h('td', { class: 'number' }, set.labels.toLocaleString()),
      h('td', { class: 'number' }, set.examples.toLocaleString()), h('td', {}, opens ? state : 'a linear head'),
      h('td', {}, h('div', { class: 'row end' },
        opens && h('button', { type: 'button', class: 'button small', 'aria-label': `Open ${set.name}`, onclick: () => this.options.onOpen(set.name) }, 'Open'),
        h('button', {
          type: 'button', class: 'button small danger', 'aria-label': `Delete ${set.name}`, onclick: () => this.options.onDelete(set.name),
        }, icon('trash'), 'Delete'))));
  }
}

/**
 * Asks before something that cannot be undone.
 * @param {string} question @param {string} yes what the button says
 * @returns {Promise<boolean>}
 */
export function confirmed(question, yes) {
  return new Promise((resolve) => {
    const dialog = h('dialog', { class: 'dialog', 'aria-labelledby': 'confirm-text' });
    const end = (/** @type {boolean} */ answer) => {
      dialog.close();
      dialog.remove();
      resolve(answer);
    };
    dialog.addEventListener('cancel', (event) => {
      event.preventDefault();
      end(false);
    });
    fill(dialog, h('p', { id: 'confirm-text' }, question), h('div', { class: 'row end' },
      h('button', { type: 'button', class: 'button', onclick: () => end(false) }, 'Cancel'),
      h('button', { type: 'button', class: 'button primary', onclick: () => end(true) }, yes)));
    document.body.append(dialog);
    dialog.showModal();
  });
}
