// The labels as columns, each with its examples and what they do.

import { fill, h, icon } from './dom.js';
import { Strip } from './folder-strip.js';
import { MOST_LABELS } from './teach-set.js';

/** @typedef {import('./teach-set.js').Label} Label */

/** What a drag of pictures inside of the page carries: indices with commas. */
export const PICTURES = 'application/x-siglip-pictures';

export class Board {
  /** Whether the columns are to be drawn once a name is typed. */
  #late = false;

  /**
   * @param {object} options
   * @param {import('./types.d.ts').App} options.app
   * @param {() => import('./teach-set.js').TaughtSet} options.set
   * @param {() => import('./folder-store.js').Store} options.store
   * @param {import('./folder-thumbs.js').Thumbs} options.thumbs
   * @param {() => void} options.onChange
   * @param {(label: Label, indices: number[]) => void} options.onGive
   * @param {(label: Label, transfer: DataTransfer) => void} options.onFiles
   * @param {(label: Label) => void} options.onForget removes what the service has of a label
   */
  constructor(options) {
    this.options = options;
    this.strip = new Strip(options.thumbs, (index) => this.#takeAway(index));
    this.columns = h('div', { class: 'teach-columns', role: 'list', 'aria-label': 'Labels' });
    this.field = h('input', { class: 'field', type: 'text', placeholder: 'Another label', 'aria-label': 'Another label', maxLength: 200, autocomplete: 'off' });
    this.adder = h('form', {
      class: 'card column adder',
      onsubmit: (/** @type {Event} */ event) => {
        event.preventDefault();
        this.#add();
      },
    }, this.field, h('button', { type: 'submit', class: 'button' }, icon('plus'), 'Add the label'),
    h('p', { class: 'hint' }, 'Words count where they are right; a made-up name is learned from its pictures alone.'));
    this.element = h('div', { class: 'teach-board' }, this.columns, this.adder);
  }

  /** Several names may be given with commas. */
  #add() {
    const set = this.options.set();
    for (const name of this.field.value.split(',').map((one) => one.trim()).filter(Boolean)) {
      if (set.labels.some((label) => label.name === name)) continue;
      if (set.labels.length >= MOST_LABELS) {
        this.options.app.notice('error', `This page shows up to ${MOST_LABELS} labels.`);
        break;
      }
      set.addLabel(name);
    }
    this.field.value = '';
    this.options.onChange();
    this.field.focus();
  }

  /** Draws all columns, unless a name is being typed: then when that is done. */
  draw() {
    const active = document.activeElement;
    const typing = active instanceof HTMLInputElement && this.columns.contains(active);
    if (typing && active.value !== active.defaultValue) {
      this.#late = true;
      return;
    }
    const focused = typing ? [...this.columns.querySelectorAll('.column-name')].indexOf(active) : -1;
    this.#late = false;
    this.strip.clear();
    fill(this.columns, this.options.set().labels.map((label, at) => this.#column(label, at)));
    const again = this.columns.querySelectorAll('.column-name').item(focused);
    if (again instanceof HTMLElement) again.focus();
  }

  /** An example that is none any more; the focus goes to the next one. @param {number} index */
  #takeAway(index) {
    const set = this.options.set();
    const column = set.labels.findIndex((label) => label.examples.includes(index));
    const place = set.labels[column]?.examples.indexOf(index) ?? -1;
    set.give(index, null);
    this.options.onChange();
    const element = this.columns.children.item(column);
    const buttons = element?.querySelectorAll('.strip-button');
    const next = buttons?.item(Math.min(place, buttons.length - 1)) ?? element?.querySelector('input');
    if (next instanceof HTMLElement) next.focus();
  }

  /** @param {Label} label @param {number} at */
  #column(label, at) {
    const { options } = this;
    const set = options.set();
    const { pictures } = options.store();
    const effect = set.measured?.labels.get(label.name);
    const others = set.othersOf(label.name);
    const name = h('input', {
      class: 'field column-name', type: 'text', defaultValue: label.name, maxLength: 200, 'aria-label': `Name of label ${at + 1}`,
      onchange: () => {
        const wanted = name.value.trim();
        if (wanted === '' || set.labels.some((other) => other !== label && other.name === wanted)) {
          options.app.notice('error', wanted === '' ? 'A label needs a name.' : `There is a label “${wanted}” already.`);
        } else {
          label.name = wanted;
          label.kept = null; // its words are others now
        }
        name.value = name.defaultValue = label.name;
        options.onChange();
      },
      onblur: () => { if (this.#late) setTimeout(() => this.draw()); },
    });
    const remove = h('button', {
      type: 'button', class: 'plain', 'aria-label': `Remove the label ${label.name}`,
      onclick: () => {
        set.labels.splice(at, 1);
        options.onChange();
        this.field.focus();
      },
    }, icon('close'));
    const column = h('div', { class: 'card column', role: 'listitem', 'aria-label': label.name, 'data-label': label.name },
      h('div', { class: 'column-head' }, h('span', { class: 'column-key', 'aria-hidden': 'true' }, at < 9 ? at + 1 : ''), name, remove),
      effect && effectOf(effect),
      label.examples.length === 0
        ? h('p', { class: 'hint column-empty' }, 'Drag pictures here')
        : h('div', { class: 'strip' }, label.examples.map((index) => this.#example(index, pictures[index].name, label))),
      h('p', { class: 'hint' }, `${label.examples.length} ${label.examples.length === 1 ? 'example' : 'examples'}`,
        others > 0 && `, ${others} more on the service`),
      others > 0 && h('button', { type: 'button', class: 'button small', onclick: () => options.onForget(label) }, 'Forget all that the service has'));
    const types = (/** @type {DragEvent} */ event) => event.dataTransfer?.types ?? [];
    column.addEventListener('dragover', (event) => {
      if (!types(event).includes(PICTURES) && !types(event).includes('Files')) return;
      event.preventDefault();
      event.stopPropagation();
      column.classList.add('over');
    });
    column.addEventListener('dragleave', (event) => {
      if (!(event.relatedTarget instanceof Node && column.contains(event.relatedTarget))) column.classList.remove('over');
    });
    column.addEventListener('drop', (event) => {
      event.preventDefault();
      event.stopPropagation();
      column.classList.remove('over');
      if (!event.dataTransfer) return;
      const list = event.dataTransfer.getData(PICTURES);
      if (list) options.onGive(label, list.split(',').map(Number).filter((index) => Number.isInteger(index) && index >= 0 && index < pictures.length));
      else options.onFiles(label, event.dataTransfer);
    });
    return column;
  }

  /** @param {number} index @param {string} name @param {Label} label */
  #example(index, name, label) {
    const button = this.strip.button(index, `${name.split('/').pop()}: no example of ${label.name} any more`);
    button.title = `${name}. Click to take it away.`;
    button.draggable = true;
    button.addEventListener('dragstart', (event) => event.dataTransfer?.setData(PICTURES, String(index)));
    button.append(h('span', { class: 'take-away', 'aria-hidden': 'true' }, icon('close')));
    return button;
  }
}

/** Two bars: right by words, and right with the other examples. @param {import('./teach-set.js').Effect} effect */
function effectOf(effect) {
  return h('div', { class: 'effect' }, bar('words', effect.accuracy_before), bar('examples', effect.accuracy_after),
    effect.keeps_words && h('p', { class: 'hint' }, 'It keeps its words: with its examples more would be wrong.'));
}

/**
 * A share as a bar with its number.
 * @param {string} text @param {number} share
 */
export function bar(text, share) {
  const filled = h('span', { class: 'effect-fill' });
  filled.style.width = `${Math.round(100 * share)}%`;
  return h('div', { class: 'effect-row' }, h('span', {}, text), h('span', { class: 'effect-bar', 'aria-hidden': 'true' }, filled),
    h('span', { class: 'number' }, `${Math.round(100 * share)} %`));
}
