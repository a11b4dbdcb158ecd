// The shell: which view is shown, which model is used, the theme, messages, and the question for a key.

import { Client, isAbort } from './api.js';
import { copyButton } from './copy.js';
import { byId, fill, h, icon } from './dom.js';
import { askKey, notice } from './messages.js';
import { makePrompts } from './prompts.js';
import { loadSamples } from './samples.js';
import { TextVectors } from './texts.js';

/**
 * @typedef {import('./types.d.ts').App} App
 * @typedef {import('./types.d.ts').Model} Model
 * @typedef {import('./types.d.ts').View} View
 */

/**
 * The views, in the order of the navigation. Each module is loaded when its view is first shown.
 * @type {{ name: string, title: string, icon: string, load: () => Promise<{ mount: import('./types.d.ts').Mount }> }[]}
 */
const VIEWS = [
  { name: 'live', title: 'Look', icon: 'picture', load: () => import('./live.js') },
  { name: 'folder', title: 'Folder', icon: 'folder', load: () => import('./folder.js') },
  { name: 'teach', title: 'Teach', icon: 'teach', load: () => import('./teach.js') },
  { name: 'compare', title: 'Compare', icon: 'compare', load: () => import('./compare.js') },
  { name: 'reference', title: 'API', icon: 'code', load: () => import('./reference.js') },
];

const base = new URL('.', document.baseURI);
const client = new Client(base, { askKey, waiting: (text) => notice('busy', text) });

/** @type {Set<(model: Model) => void>} */
const listeners = new Set();
/** @type {Model[]} */
let models = [];
/** @type {Model | null} */
let chosen = null;

const prompt = makePrompts(() => chosen?.template ?? 'This is a photo of {}.');
const texts = new TextVectors(client);

/** @type {App} */
const app = {
  client,
  get model() {
    if (!chosen) throw new Error('the models are not known yet');
    return chosen;
  },
  get models() {
    return models;
  },
  onModel(listener) {
    listeners.add(listener);
    return () => listeners.delete(listener);
  },
  notice,
  failed(error) {
    if (isAbort(error)) return;
    notice('error', error instanceof Error ? error.message : String(error));
  },
  copyAs: copyButton,
  prompt,
  labelVectors: (labels, options) => texts.labels(app.model.id, app.model.fingerprint, labels, prompt, options),
  textVectors: (list, options) => texts.plain(app.model.id, app.model.fingerprint, list, options),
  samples: () => loadSamples(),
};

/** @type {Map<string, { root: HTMLElement, view: View }>} */
const mounted = new Map();
let current = '';

/** The view that the address names; the reference at `/docs`. */
function wanted() {
  const name = location.hash.replace(/^#\//, '').split('/')[0];
  if (VIEWS.some((view) => view.name === name)) return name;
  return location.pathname.endsWith('/docs') ? 'reference' : 'live';
}

async function route() {
  // A link inside of the page, such as the one that skips the navigation, is no view.
  if (location.hash && !location.hash.startsWith('#/')) return;
  const view = VIEWS.find((one) => one.name === wanted()) ?? VIEWS[0];
  if (view.name === current) return;
  const before = mounted.get(current);
  if (before) {
    before.root.hidden = true;
    before.view.hide?.();
  }
  current = view.name;
  document.title = `${view.title} · siglip`;
  drawNavigation();
  try {
    let entry = mounted.get(view.name);
    if (!entry) {
      const module = await view.load();
      // Somebody may have gone on while the module was loaded.
      entry = mounted.get(view.name);
      if (!entry) {
        const root = h('section', { class: `view view-${view.name}`, 'aria-label': view.title, hidden: true });
        byId('main').append(root);
        entry = { root, view: module.mount(root, app) };
        mounted.set(view.name, entry);
      }
    }
    if (current !== view.name) return;
    entry.root.hidden = false;
    entry.view.show?.();
  } catch (error) {
    app.failed(error);
  }
}

function drawNavigation() {
  fill(byId('nav'), VIEWS.map((view) => h('a', {
    href: `#/${view.name}`, class: 'tab', 'aria-current': view.name === current ? 'page' : undefined,
  }, icon(view.icon), h('span', {}, view.title))));
}

/** @param {Model} model */
function choose(model) {
  chosen = model;
  for (const listener of listeners) listener(model);
}

function drawTools() {
  const select = h('select', {
    id: 'model', 'aria-label': 'Model',
    onchange: () => choose(models.find((model) => model.id === select.value) ?? models[0]),
  }, models.map((model) => h('option', { value: model.id, selected: model === chosen }, model.id)));
  const key = h('button', {
    type: 'button', class: 'tool', 'aria-label': 'API key', title: 'API key',
    onclick: async () => {
      const given = await askKey('The key is kept in this page only, and forgotten when it is closed.');
      if (given !== null) client.setKey(given === '' ? null : given);
    },
  }, icon('key'));
  fill(byId('tools'), select, key, themeButton());
}

/** Light, dark, or as the system has it. */
function themeButton() {
  const themes = ['auto', 'light', 'dark'];
  const icons = { auto: 'auto', light: 'sun', dark: 'moon' };
  const read = () => {
    try {
      return localStorage.getItem('siglip-theme') ?? 'auto';
    } catch {
      return 'auto';
    }
  };
  let theme = read();
  const button = h('button', { type: 'button', class: 'tool' });
  const apply = () => {
    if (theme === 'auto') delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = theme;
    button.setAttribute('aria-label', `Theme: ${theme}`);
    button.title = `Theme: ${theme}`;
    fill(button, icon(icons[/** @type {'auto' | 'light' | 'dark'} */ (theme)] ?? 'auto'));
    dispatchEvent(new Event('themechange'));
  };
  button.addEventListener('click', () => {
    theme = themes[(themes.indexOf(theme) + 1) % themes.length];
    try {
      localStorage.setItem('siglip-theme', theme);
    } catch { /* A page without storage has the theme until it is closed. */ }
    apply();
  });
  apply();
  return button;
}

/** Asks for the models until there are some. */
async function begin() {
  drawNavigation();
  drawTools();
  const main = byId('main');
  const wait = h('p', { class: 'empty', role: 'status' }, 'Asking the service for its models …');
  main.append(wait);
  for (;;) {
    try {
      models = await client.models();
      if (models.length > 0) break;
      wait.textContent = 'The service has no model.';
    } catch (error) {
      const message = error instanceof Error ? error.message : String(error);
      const again = h('button', { type: 'button', class: 'button' }, 'Try again');
      fill(wait, message, ' ', again);
      await new Promise((resolve) => again.addEventListener('click', resolve, { once: true }));
      wait.textContent = 'Asking the service for its models …';
      continue;
    }
    await new Promise((resolve) => setTimeout(resolve, 2000));
  }
  wait.remove();
  choose(models[0]);
  drawTools();
  addEventListener('hashchange', () => void route());
  await route();
}

void begin();
