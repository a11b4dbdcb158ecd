// "Copy as": what is on the screen as a request in three languages.

import { fill, h, icon } from './dom.js';
import { notice } from './messages.js';

/** @typedef {import('./types.d.ts').Snippets} Snippets */

/** @type {{ key: keyof Snippets, name: string }[]} */
const LANGUAGES = [
  { key: 'curl', name: 'curl' },
  { key: 'python', name: 'Python' },
  { key: 'javascript', name: 'JavaScript' },
];

/**
 * A button that opens the snippets.
 * @param {() => Snippets} snippets asked when it is opened
 * @returns {HTMLElement}
 */
export function copyButton(snippets) {
  const show = () => {
    try {
      open(snippets());
    } catch (error) {
      notice('error', error instanceof Error ? error.message : String(error));
    }
  };
  return h('button', { type: 'button', class: 'button small', onclick: show }, icon('copy'), 'Copy as …');
}

/** @param {Snippets} snippets */
function open(snippets) {
  let chosen = LANGUAGES[0];
  const code = h('pre', { class: 'code', tabIndex: 0, 'aria-label': 'Request' });
  const tabs = h('div', { class: 'segments', role: 'group', 'aria-label': 'Language' });
  const copy = h('button', { type: 'button', class: 'button primary' }, icon('copy'), 'Copy');
  const done = h('span', { class: 'hint', role: 'status' });
  const draw = () => {
    code.textContent = snippets[chosen.key];
    done.textContent = '';
    fill(tabs, LANGUAGES.map((language) => h('button', {
      type: 'button', 'aria-pressed': language === chosen ? 'true' : 'false',
      onclick: () => {
        chosen = language;
        draw();
      },
    }, language.name)));
  };
  copy.addEventListener('click', async () => {
    try {
      await navigator.clipboard.writeText(snippets[chosen.key]);
      done.textContent = 'Copied.';
    } catch {
      // Without HTTPS there is no clipboard: the text is selected, for the keyboard.
      getSelection()?.selectAllChildren(code);
      done.textContent = 'Selected: press Ctrl+C.';
    }
  });
  draw();
  const dialog = h('dialog', { class: 'dialog wide', 'aria-labelledby': 'copy-title' },
    h('div', { class: 'row between' }, h('h2', { id: 'copy-title' }, 'Copy as'), tabs), code,
    h('p', { class: 'hint' }, 'The key, where one is needed, is read from SIGLIP_KEY.'),
    h('div', { class: 'row end' }, done, h('button', { type: 'button', class: 'button', onclick: () => dialog.close() }, 'Close'), copy));
  dialog.addEventListener('close', () => dialog.remove());
  document.body.append(dialog);
  dialog.showModal();
}

/** A string for a POSIX shell. @param {string} text */
export const shell = (text) => (/^[\w./:@=-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`);

/**
 * A JSON request in three languages.
 * @param {URL} base
 * @param {string} path
 * @param {unknown} body
 * @param {{ key: boolean, method?: string }} options `key`: whether the service asks for one
 * @returns {Snippets}
 */
export function jsonSnippets(base, path, body, { key, method = 'POST' }) {
  const url = new URL(path, base).href;
  const text = JSON.stringify(body, null, 2);
  const flag = method === 'POST' ? '' : ` -X ${method}`;
  return {
    curl: `curl${flag} ${shell(url)} \\\n${key ? '  -H "Authorization: Bearer $SIGLIP_KEY" \\\n' : ''}  -H 'Content-Type: application/json' \\\n  -d ${shell(text)}`,
    python: `${key ? 'import os\n' : ''}import requests\n\nanswer = requests.request(${JSON.stringify(method)}, ${JSON.stringify(url)},\n    json=${pythonOf(body)}${key ? ',\n    headers={"Authorization": f"Bearer {os.environ[\'SIGLIP_KEY\']}"}' : ''})\nanswer.raise_for_status()\nprint(answer.json())`,
    javascript: `const answer = await fetch(${JSON.stringify(url)}, {\n  method: ${JSON.stringify(method)},\n  headers: { "content-type": "application/json"${key ? ', authorization: `Bearer ${process.env.SIGLIP_KEY}`' : ''} },\n  body: JSON.stringify(${text.replaceAll('\n', '\n  ')}),\n});\nconsole.log(await answer.json());`,
  };
}

/**
 * A form with files in three languages.
 * @param {URL} base
 * @param {string} path
 * @param {string[]} files names of files
 * @param {[string, string][]} fields
 * @param {{ key: boolean }} options
 * @returns {Snippets}
 */
export function formSnippets(base, path, files, fields, { key }) {
  const url = new URL(path, base).href;
  const curl = [`curl ${shell(url)}`, ...(key ? ['-H "Authorization: Bearer $SIGLIP_KEY"'] : []),
    ...files.map((file) => `-F ${shell(`image=@${file}`)}`), ...fields.map(([name, value]) => `--form-string ${shell(`${name}=${value}`)}`)];
  const python = [`${key ? 'import os\n' : ''}import requests\n`,
    `files = [${files.map((file) => `("image", open(${JSON.stringify(file)}, "rb"))`).join(', ')}]`,
    `answer = requests.post(${JSON.stringify(url)}, files=files, data={`,
    ...fields.map(([name, value]) => `    ${JSON.stringify(name)}: ${JSON.stringify(value)},`),
    `}${key ? ', headers={"Authorization": f"Bearer {os.environ[\'SIGLIP_KEY\']}"}' : ''})`,
    'answer.raise_for_status()', 'print(answer.json())'];
  const javascript = ['import { openAsBlob } from "node:fs";\n', 'const form = new FormData();',
    ...files.map((file) => `form.append("image", await openAsBlob(${JSON.stringify(file)}), ${JSON.stringify(file)});`),
    ...fields.map(([name, value]) => `form.append(${JSON.stringify(name)}, ${JSON.stringify(value)});`),
    `const answer = await fetch(${JSON.stringify(url)}, { method: "POST", body: form${key ? ', headers: { authorization: `Bearer ${process.env.SIGLIP_KEY}` }' : ''} });`,
    'console.log(await answer.json());'];
  return { curl: curl.join(' \\\n  '), python: python.join('\n'), javascript: javascript.join('\n') };
}

/**
 * JSON as Python writes it.
 * @param {unknown} value
 * @returns {string}
 */
function pythonOf(value) {
  if (value === null || value === undefined) return 'None';
  if (value === true) return 'True';
  if (value === false) return 'False';
  if (Array.isArray(value)) return `[${value.map(pythonOf).join(', ')}]`;
  if (typeof value === 'object') {
    const entries = Object.entries(value).filter(([, inner]) => inner !== undefined);
    return `{${entries.map(([name, inner]) => `${JSON.stringify(name)}: ${pythonOf(inner)}`).join(', ')}}`;
  }
  return JSON.stringify(value);
}
