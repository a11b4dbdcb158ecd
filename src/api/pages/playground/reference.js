// The reference of all routes, out of the service's own contract, and a form to try each.

import { Contract } from './contract.js';
import { add, fill, h, settled } from './dom.js';
import { tryForm } from './tryit.js';

/**
 * @typedef {import('./types.d.ts').App} App
 * @typedef {import('./contract.js').Field} Field
 * @typedef {import('./contract.js').Operation} Operation
 */

/** @type {import('./types.d.ts').Mount} */
export function mount(root, app) {
  const search = h('input', { type: 'search', class: 'field', id: 'reference-search', placeholder: 'classify, fingerprint, /v1/…', autocomplete: 'off' });
  const list = h('div', { class: 'reference' }, h('p', { class: 'empty', role: 'status' }, 'Reading the contract …'));
  add(root, [
    h('div', { class: 'reference-head' },
      h('h1', {}, 'API reference'),
      h('p', { class: 'hint' }, 'Every route, read from this service’s contract: ',
        h('a', { href: app.client.url('openapi.json') }, 'openapi.json'), ', ', h('a', { href: app.client.url('openapi.yaml') }, 'openapi.yaml'), '. ',
        'Each can be tried here; answers are this service’s own.'),
      h('div', { class: 'labelled' }, h('label', { for: search.id }, 'Find'), search)),
    list]);
  void fillIn(list, app, search);
  return {};
}

/**
 * @param {HTMLElement} list
 * @param {App} app
 * @param {HTMLInputElement} search
 */
async function fillIn(list, app, search) {
  try {
    const document = await app.client.json('openapi.json');
    const contract = new Contract(document);
    /** @type {{ words: string, element: HTMLElement }[]} */
    const found = [];
    fill(list, contract.sections.map((section) => {
      const operations = section.operations.map((operation) => {
        const element = describe(operation, contract, app);
        found.push({ words: `${operation.method} ${operation.path} ${operation.summary} ${operation.description}`.toLowerCase(), element });
        return element;
      });
      return h('section', { 'aria-label': section.name }, h('h2', {}, capital(section.name)), h('p', { class: 'hint' }, section.about), operations);
    }), others());
    const nothing = h('p', { class: 'empty', hidden: true, role: 'status' }, 'No route has these words.');
    list.append(nothing);
    search.addEventListener('input', settled(() => {
      const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
      let any = false;
      for (const { words: text, element } of found) {
        element.hidden = !words.every((word) => text.includes(word));
        any ||= !element.hidden;
      }
      list.querySelectorAll('section').forEach((section) => { section.hidden = section.querySelector('.operation:not([hidden])') === null && words.length > 0; });
      nothing.hidden = any;
    }, 120));
  } catch (error) {
    fill(list, h('p', { class: 'empty bad' }, 'The contract cannot be read.'));
    app.failed(error);
  }
}

/**
 * One route; what is inside is made when it is opened.
 * @param {Operation} operation
 * @param {Contract} contract
 * @param {App} app
 */
function describe(operation, contract, app) {
  const inside = h('div', { class: 'inside' });
  const details = h('details', { class: 'operation', id: `operation-${operation.id}` },
    h('summary', {}, h('span', { class: `verb ${operation.method.toLowerCase()}` }, operation.method), h('code', {}, operation.path),
      h('span', { class: 'what' }, prose(operation.summary))), inside);
  details.addEventListener('toggle', () => {
    if (details.open && inside.childElementCount === 0) add(inside, contents(operation, contract, app));
  });
  return details;
}

/**
 * @param {Operation} operation
 * @param {Contract} contract
 * @param {App} app
 */
function contents(operation, contract, app) {
  const parts = operation.description.split('\n\n').filter(Boolean).map((text) => h('p', {}, prose(text)));
  const parameters = operation.parameters.filter((parameter) => parameter.in !== 'header' || !/^x-request/.test(parameter.name));
  const bodies = Object.entries(operation.bodies);
  const about = h('div', { class: 'about' });
  add(about, [
    ...parts,
    parameters.length > 0 && h('h3', {}, 'Parameters'),
    parameters.length > 0 && h('div', { class: 'scroll' }, h('table', {}, h('tbody', {}, parameters.map((parameter) => h('tr', {},
      h('td', {}, h('code', {}, parameter.name), h('span', { class: 'hint' }, ` ${parameter.in}`)),
      h('td', {}, h('span', { class: 'type' }, contract.type(parameter.schema)), ' ', prose(parameter.description ?? ''))))))),
    bodies.length > 0 && h('h3', {}, 'Body'),
    bodies.map(([kind, media]) => {
      const fields = contract.fields(media.schema);
      return h('details', { class: 'media', open: bodies.length === 1 }, h('summary', {}, h('code', {}, kind)),
        fields.length > 0 ? tree(fields) : h('p', { class: 'hint' }, 'Bytes as they are.'));
    }),
    h('h3', {}, 'Answers'),
    Object.entries(operation.responses).map(([status, response]) => {
      const media = response.content?.['application/json'];
      const fields = status === '200' || status === '201' ? contract.fields(media?.schema) : [];
      if (fields.length === 0) return h('p', { class: 'answer' }, h('code', {}, status), ' ', prose(response.description));
      return h('details', { class: 'media' }, h('summary', {}, h('code', {}, status), ' ', prose(response.description),
        h('span', { class: 'hint' }, ` ${Object.keys(response.content ?? {}).join(', ')}`)), tree(fields));
    }),
  ]);
  return [about, h('div', { class: 'trying' }, h('h3', {}, 'Try it'), tryForm(operation, contract, app))];
}

/**
 * @param {Field[]} fields
 * @returns {HTMLElement}
 */
function tree(fields) {
  return h('ul', { class: 'fields' }, fields.map((field) => h('li', {},
    h('code', { class: 'name' }, field.name), field.required && h('span', { class: 'required' }, 'needed'),
    h('span', { class: 'type' }, field.type), ' ', prose(field.text),
    field.fields.length > 0 && tree(field.fields))));
}

/**
 * Text with `code` in it.
 * @param {string} text
 * @returns {(string | Node)[]}
 */
function prose(text) {
  return text.split(/(`[^`]+`)/).map((part) => (part.startsWith('`') && part.length > 2 ? h('code', {}, part.slice(1, -1)) : part));
}

/** Other services' routes, which the service wrote into the page. */
function others() {
  const template = document.getElementById('other-services');
  if (!(template instanceof HTMLTemplateElement) || template.content.childElementCount === 0) return null;
  const content = /** @type {DocumentFragment} */ (template.content.cloneNode(true));
  content.querySelectorAll('details').forEach((details) => details.classList.add('operation'));
  content.querySelectorAll('pre').forEach((pre) => {
    pre.classList.add('code');
    pre.tabIndex = 0;
  });
  const section = h('section', { 'aria-label': 'Other services’ routes' });
  section.append(content);
  return section;
}

/** @param {string} text */
const capital = (text) => text.charAt(0).toUpperCase() + text.slice(1);
