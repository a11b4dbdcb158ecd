// The templates that labels are put into.

import { h } from './dom.js';

/** @typedef {import('./types.d.ts').Prompts} Prompts */

/** CLIP's seven templates for ImageNet (openai/CLIP, MIT licence), as the service's `imagenet-7`. */
const SEVEN = ['itap of a {}.', 'a bad photo of the {}.', 'a origami {}.', 'a photo of the large {}.', 'a {} in a video game.',
  'art of the {}.', 'a photo of the small {}.'];

/** Label texts of a template at most: what the service takes for one. */
const LONGEST = 4000;

/**
 * @param {() => string} own the model's own template
 * @returns {Prompts & { refresh(): void }}
 */
export function makePrompts(own) {
  /** @type {Set<() => void>} */
  const listeners = new Set();
  /** @type {{ name: string, list: () => string[] }[]} */
  const choices = [
    { name: 'the model’s own', list: () => [own()] },
    { name: 'none: the label alone', list: () => ['{}'] },
    { name: 'a photo of a {}.', list: () => ['a photo of a {}.'] },
    { name: 'a drawing of a {}.', list: () => ['a drawing of a {}.'] },
    { name: 'seven, averaged (imagenet-7)', list: () => SEVEN },
    { name: 'my own …', list: () => [custom] },
  ];
  let custom = 'a picture of {}';
  let chosen = 0;
  const changed = () => listeners.forEach((listener) => listener());
  let pickers = 0;
  return {
    get templates() {
      return choices[chosen].list();
    },
    texts(label) {
      return this.templates.map((template) => template.replaceAll('{}', label));
    },
    onChange(listener) {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
    refresh: changed,
    picker() {
      const id = `template-${(pickers += 1)}`;
      const field = h('input', {
        class: 'field', type: 'text', value: custom, hidden: chosen !== choices.length - 1, maxLength: LONGEST,
        'aria-label': 'Own template, with {} where the label goes',
        oninput: () => {
          // Without a place for the label every label would get the same score.
          const fits = field.value.includes('{}');
          field.setCustomValidity(fits ? '' : 'A template has {} where the label goes.');
          field.reportValidity();
          if (!fits) return;
          custom = field.value;
          changed();
        },
      });
      const select = h('select', {
        id, onchange: () => {
          chosen = select.selectedIndex;
          changed();
        },
      }, choices.map((choice) => h('option', {}, choice.name)));
      const follow = () => {
        select.selectedIndex = chosen;
        field.hidden = chosen !== choices.length - 1;
      };
      listeners.add(follow);
      follow();
      return h('div', { class: 'labelled' }, h('label', { for: id }, 'Template'), select, field);
    },
  };
}
