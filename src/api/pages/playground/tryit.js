// A form that sends a request to one route and shows the answer.

import { ApiError } from './api.js';
import { jsonSnippets, formSnippets, shell } from './copy.js';
import { fill, h, icon } from './dom.js';

/**
 * @typedef {import('./types.d.ts').App} App
 * @typedef {import('./types.d.ts').Snippets} Snippets
 * @typedef {import('./contract.js').Contract} Contract
 * @typedef {import('./contract.js').Operation} Operation
 */

/** Characters of an answer that are shown. */
const SHOWN = 20_000;
/** Headers that say something about an answer, in their order. */
const HEADERS = ['content-type', 'x-siglip-model', 'x-siglip-fingerprint', 'x-siglip-shape', 'x-siglip-dtype', 'etag', 'server-timing', 'x-request-id'];

let forms = 0;

/**
 * @param {Operation} operation
 * @param {Contract} contract
 * @param {App} app
 */
export function tryForm(operation, contract, app) {
  const prefix = `try-${(forms += 1)}`;
  const kinds = Object.keys(operation.bodies);
  let kind = kinds.find((one) => one === 'application/json') ?? kinds[0] ?? '';
  const inputs = operation.parameters.filter((parameter) => parameter.in === 'path' || parameter.in === 'query').map((parameter) => ({
    parameter,
    field: h('input', { class: 'field', id: `${prefix}-${parameter.name}`, autocomplete: 'off', spellcheck: false, required: parameter.in === 'path',
      placeholder: parameter.in === 'path' ? '' : contract.type(parameter.schema), value: parameter.in === 'path' && parameter.name === 'id' ? app.model.id : '' }),
  }));
  const [path, query] = ['path', 'query'].map((where) => inputs.filter(({ parameter }) => parameter.in === where));
  const json = h('textarea', { class: 'field mono', id: `${prefix}-json`, rows: 8, spellcheck: false });
  if (kinds.includes('application/json')) json.value = JSON.stringify(contract.example(operation.bodies['application/json']), null, 2);
  const files = h('input', { type: 'file', id: `${prefix}-files`, accept: 'image/*,.tif,.tiff,.bmp', multiple: true });
  const fields = h('textarea', { class: 'field mono', id: `${prefix}-fields`, rows: 3, spellcheck: false, value: operation.path === '/v1/classify' ? 'labels=red apple,cat face' : '' });
  const formats = Object.keys(operation.responses['200']?.content ?? {});
  const accept = h('select', { id: `${prefix}-accept` }, formats.map((format) => h('option', {}, format)));
  const body = h('div', { class: 'stack tight' });
  const answer = h('div', { class: 'stack tight', role: 'region', 'aria-label': `Answer of ${operation.method} ${operation.path}`, 'aria-live': 'polite' });
  const send = h('button', { type: 'submit', class: 'button primary' }, icon('play'), 'Send');
  const input = (/** @type {typeof inputs} */ list) => list.map(({ parameter, field }) => h('div', { class: 'pair' },
    h('label', { for: field.id }, h('code', {}, parameter.name)), field));

  const drawBody = () => {
    if (kind === '') return fill(body);
    const choice = h('select', {
      id: `${prefix}-kind`, onchange: () => {
        kind = choice.value;
        drawBody();
      },
    }, kinds.map((one) => h('option', { selected: one === kind }, one)));
    fill(body, kinds.length > 1 && h('div', { class: 'labelled' }, h('label', { for: choice.id }, 'Send as'), choice),
      kind === 'application/json' && [h('label', { for: json.id, class: 'hint' }, 'JSON'), json],
      kind !== 'application/json' && [h('label', { for: files.id, class: 'hint' }, kind === 'multipart/form-data' ? 'Pictures' : 'Picture'), files],
      kind === 'multipart/form-data' && [h('label', { for: fields.id, class: 'hint' }, 'Fields, name=value, one a line'), fields]);
    return undefined;
  };

  /** The path with its parameters. */
  const target = () => {
    const of = path.reduce((text, { parameter, field }) => text.replace(`{${parameter.name}}`, field.value.split('/').map(encodeURIComponent).join('/')), operation.path);
    const pairs = query.filter(({ field }) => field.value !== '').map(({ parameter, field }) => `${encodeURIComponent(parameter.name)}=${encodeURIComponent(field.value)}`);
    return `${of.slice(1)}${pairs.length > 0 ? `?${pairs.join('&')}` : ''}`;
  };
  /** @returns {[string, string][]} */
  const pairs = () => fields.value.split('\n').filter((line) => line.includes('=')).map((line) => {
    const at = line.indexOf('=');
    return [line.slice(0, at).trim(), line.slice(at + 1).trim()];
  });

  /** @returns {RequestInit} */
  const request = () => {
    /** @type {Record<string, string>} */
    const headers = accept.value ? { accept: accept.value } : {};
    if (kind === 'application/json') return { method: operation.method, headers: { ...headers, 'content-type': kind }, body: json.value };
    if (kind === 'multipart/form-data') {
      const form = new FormData();
      [...(files.files ?? [])].forEach((file) => form.append('image', file, file.name));
      pairs().forEach(([name, value]) => form.append(name, value));
      return { method: operation.method, headers, body: form };
    }
    if (kind) {
      const [file] = files.files ?? [];
      if (!file) throw new Error('Choose a picture first.');
      return { method: operation.method, headers: { ...headers, 'content-type': file.type || 'application/octet-stream' }, body: file };
    }
    return { method: operation.method, headers };
  };

  /** @returns {Snippets} */
  const snippets = () => {
    const options = { key: app.client.hasKey, method: operation.method };
    if (kind === 'application/json') {
      try {
        return jsonSnippets(app.client.base, target(), JSON.parse(json.value), options);
      } catch {
        throw new Error('The body is no JSON.');
      }
    }
    const names = [...(files.files ?? [])].map((file) => file.name);
    if (kind === 'multipart/form-data') return formSnippets(app.client.base, target(), names.length > 0 ? names : ['picture.jpg'], pairs(), options);
    const url = app.client.url(target());
    const file = kind ? names[0] ?? 'picture.jpg' : null;
    const key = app.client.hasKey;
    return {
      curl: `curl${operation.method === 'GET' ? '' : ` -X ${operation.method}`} ${shell(url)}${key ? ' -H "Authorization: Bearer $SIGLIP_KEY"' : ''}${file ? ` -H 'Content-Type: application/octet-stream' --data-binary ${shell(`@${file}`)}` : ''}`,
      python: `${key ? 'import os\n' : ''}import requests\n\nanswer = requests.request(${JSON.stringify(operation.method)}, ${JSON.stringify(url)}${file ? `,\n    data=open(${JSON.stringify(file)}, "rb"), headers={"Content-Type": "application/octet-stream"` : key ? ',\n    headers={' : ''}${key ? `${file ? ', ' : ''}"Authorization": f"Bearer {os.environ['SIGLIP_KEY']}"` : ''}${file || key ? '}' : ''})\nprint(answer.text)`,
      javascript: `${file ? 'import { openAsBlob } from "node:fs";\n\n' : ''}const answer = await fetch(${JSON.stringify(url)}, { method: ${JSON.stringify(operation.method)}${key ? ', headers: { authorization: `Bearer ${process.env.SIGLIP_KEY}` }' : ''}${file ? `, body: await openAsBlob(${JSON.stringify(file)})` : ''} });\nconsole.log(await answer.text());`,
    };
  };

  drawBody();
  const form = h('form', {
    class: 'try stack', onsubmit: async (/** @type {Event} */ event) => {
      event.preventDefault();
      send.disabled = true;
      try {
        await show(answer, await ask(app, target(), request()));
      } catch (error) {
        fill(answer, h('p', { class: 'bad' }, error instanceof Error ? error.message : String(error)));
      } finally {
        send.disabled = false;
      }
    },
  },
  input(path),
  query.length > 0 && h('details', { class: 'media' }, h('summary', {}, `Query: ${query.length} options`), h('div', { class: 'pairs' }, input(query))),
  body,
  h('div', { class: 'row' }, formats.length > 1 && h('div', { class: 'labelled' }, h('label', { for: accept.id }, 'Answer as'), accept),
    send, app.copyAs(snippets)),
  answer);
  return form;
}

/**
 * Sends a request. An answer that is no success is an answer, too, except where a key is needed.
 * @param {App} app
 * @param {string} path
 * @param {RequestInit} init
 * @returns {Promise<{ response: Response | null, error: ApiError | null, ms: number }>}
 */
async function ask(app, path, init) {
  const started = performance.now();
  try {
    const response = await app.client.request(path, { ...init, signal: undefined, retry: false });
    return { response, error: null, ms: performance.now() - started };
  } catch (error) {
    if (!(error instanceof ApiError) || error.status === 0) throw error;
    return { response: null, error, ms: performance.now() - started };
  }
}

/**
 * @param {HTMLElement} root
 * @param {{ response: Response | null, error: ApiError | null, ms: number }} answer
 */
async function show(root, { response, error, ms }) {
  if (error || !response) {
    const said = { error: { message: error?.message, param: error?.param, code: error?.code } };
    fill(root, h('p', {}, h('b', { class: 'bad' }, String(error?.status)), h('span', { class: 'hint' }, ` ${ms.toFixed(0)} ms`)),
      h('pre', { class: 'code wrap', tabIndex: 0, 'aria-label': 'Body of the answer' }, JSON.stringify(said, null, 2)));
    return;
  }
  const bytes = await response.arrayBuffer();
  const kind = (response.headers.get('content-type') ?? '').split(';')[0];
  const isText = /json|yaml|text|html/.test(kind);
  let text = isText ? new TextDecoder().decode(bytes) : '';
  if (kind === 'application/json') text = JSON.stringify(JSON.parse(text), null, 2);
  const link = h('a', { class: 'button small', download: `answer.${ending(kind)}`, href: URL.createObjectURL(new Blob([bytes], { type: kind })) }, icon('download'), 'Save');
  const headers = HEADERS.filter((name) => response.headers.has(name));
  fill(root,
    h('div', { class: 'row between' },
      h('p', {}, h('b', { class: 'good' }, String(response.status)), h('span', { class: 'hint' }, ` ${ms.toFixed(0)} ms, ${bytes.byteLength} bytes`)), link),
    h('dl', { class: 'facts headers' }, headers.map((name) => h('div', {}, h('dt', {}, name), h('dd', { class: 'mono' }, response.headers.get(name))))),
    h('pre', { class: 'code', tabIndex: 0, 'aria-label': 'Body of the answer' },
      isText ? text.slice(0, SHOWN) + (text.length > SHOWN ? `\n… ${text.length - SHOWN} more characters` : '') : `${bytes.byteLength} bytes of ${kind}`));
}

/** @param {string} kind a media type */
const ending = (kind) => ({ 'application/json': 'json', 'application/x-npy': 'npy', 'application/msgpack': 'msgpack', 'text/html': 'html' })[kind] ?? (kind.startsWith('text/') ? 'txt' : 'bin');
