// Messages at the border of the page, and the question for an API key.

import { byId, fill, h, icon } from './dom.js';

/** Milliseconds that a message stays. */
const STAYS = { info: 5000, good: 4000 };

/**
 * Shows a message.
 * @param {import('./types.d.ts').NoticeKind} kind
 * @param {string} text
 * @returns {import('./types.d.ts').Notice}
 */
export function notice(kind, text) {
  const words = h('span', {}, text);
  const box = h('div', { class: `notice ${kind}`, role: kind === 'error' ? 'alert' : undefined }, words);
  const close = () => box.remove();
  if (kind !== 'busy') {
    box.append(h('button', { type: 'button', class: 'plain', 'aria-label': 'Close the message', onclick: close }, icon('close')));
  }
  // The same error twice says nothing new.
  for (const other of byId('notices').querySelectorAll('.notice.error')) {
    if (kind === 'error' && other.textContent === text) other.remove();
  }
  byId('notices').append(box);
  if (kind === 'info' || kind === 'good') setTimeout(close, STAYS[kind]);
  return { update: (next) => { words.textContent = next; }, close };
}

/**
 * Asks for an API key. It is in memory only; the field is no password that a browser would offer to keep.
 * @param {string} message
 * @returns {Promise<string | null>} null if the person closed the question
 */
export function askKey(message) {
  return new Promise((resolve) => {
    const field = h('input', {
      id: 'api-key', type: 'password', autocomplete: 'off', spellcheck: false, required: true, class: 'field',
      'data-1p-ignore': 'true', 'data-lpignore': 'true',
    });
    const dialog = h('dialog', { class: 'dialog', 'aria-labelledby': 'api-key-title' });
    const form = h('form', {
      method: 'dialog',
      onsubmit: (/** @type {Event} */ event) => {
        event.preventDefault();
        end(field.value.trim());
      },
    },
    h('h2', { id: 'api-key-title' }, 'API key'),
    h('p', {}, message),
    h('label', { for: 'api-key' }, 'Key'), field,
    h('p', { class: 'hint' }, 'It is sent to this service only, and forgotten when the page is closed.'),
    h('div', { class: 'row end' },
      h('button', { type: 'button', class: 'button', onclick: () => end(null) }, 'Cancel'),
      h('button', { type: 'submit', class: 'button primary' }, 'Use the key')));
    const end = (/** @type {string | null} */ key) => {
      dialog.close();
      dialog.remove();
      resolve(key);
    };
    dialog.addEventListener('cancel', (event) => {
      event.preventDefault();
      end(null);
    });
    fill(dialog, form);
    document.body.append(dialog);
    dialog.showModal();
    field.focus();
  });
}
