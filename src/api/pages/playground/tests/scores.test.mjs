// Scores, labels' changes by canonicalisation, snippets, and the contract's reader.
import assert from 'node:assert/strict';
import { test } from 'node:test';

import { Contract } from '../contract.js';
import { formSnippets, jsonSnippets, shell } from '../copy.js';
import { markOf, percent, scoresOf, softmax } from '../scores.js';
import { changesOf } from '../sees.js';
import { meanDirection } from '../texts.js';

const model = { logit_scale: 28, logit_bias: -11.2 };
const near = (actual, expected) => assert.ok(Math.abs(actual - expected) < 1e-6, `${actual}, not ${expected}`);

test('scores in every mode', () => {
  const cosines = [0.45, 0.4, -0.1];
  const sigmoid = scoresOf(model, 'sigmoid', cosines);
  near(sigmoid[1].value, 0.5);
  near(sigmoid[0].value, 1 / (1 + Math.exp(-1.4)));
  assert.equal(sigmoid[1].text, '50.0 %');
  const shares = scoresOf(model, 'softmax', cosines);
  near(shares.reduce((sum, score) => sum + score.value, 0), 1);
  near(shares[1].probability, 0.5);
  assert.equal(scoresOf(model, 'cosine', cosines)[2].text, '−0.100');
  near(scoresOf(model, 'logit', cosines)[0].value, 1.4);
  near(markOf(model, 'cosine', 0.01), 0.5);
  // Without scale and bias there are cosines only.
  const bare = scoresOf({ logit_scale: null, logit_bias: null }, 'sigmoid', cosines);
  assert.deepEqual(bare.map((score) => [score.value, score.probability]), cosines.map((cosine) => [cosine, null]));
  // Large logits do not overflow.
  assert.deepEqual(softmax([1000, 0]), [1, 0]);
});

test('percentages say something', () => {
  assert.deepEqual([0.99999, 0.843, 0.0123, 0.00012, 1e-9].map(percent), ['100 %', '84.3 %', '1.23 %', '0.012 %', '< 0.001 %']);
});

test('a mean of directions has length 1', () => {
  near(Math.hypot(...meanDirection([new Float32Array([1, 0]), new Float32Array([0, 1])])), 1);
});

test('what canonicalisation changed', () => {
  globalThis.document = {
    createElement: (tag) => ({ tag, attributes: {}, text: '', setAttribute(name, value) { this.attributes[name] = value; }, append(text) { this.text += text; }, addEventListener() {} }),
  };
  const plain = (runs) => runs.map((run) => (typeof run === 'string' ? run : `[${run.tag}:${run.text}]`)).join('');
  assert.equal(plain(changesOf('a cat', 'a cat')), 'a cat');
  assert.equal(plain(changesOf('A Cat', 'a cat')), '[span:a] [span:c]at');
  assert.equal(plain(changesOf('A cat, now!', 'a cat now')), '[span:a] cat[del:,] now[del:!]');
  assert.equal(plain(changesOf('&amp; co', '& co')), '&[del:amp;] co');
  // Something was added: both are shown.
  assert.equal(plain(changesOf('ﬁ', 'fi')), 'ﬁ → [b:fi]');
});

test('snippets survive quotation marks', () => {
  const base = new URL('http://localhost:8080/siglip/');
  assert.equal(shell("it's"), "'it'\\''s'");
  const { curl, python, javascript } = jsonSnippets(base, 'v1/embeddings', { input: "a cat's", partial: true, none: null }, { key: true });
  assert.ok(curl.startsWith('curl http://localhost:8080/siglip/v1/embeddings') && curl.includes("cat'\\''s") && curl.includes('Bearer $SIGLIP_KEY'));
  assert.ok(python.includes('"partial": True, "none": None') && python.includes("os.environ['SIGLIP_KEY']"));
  assert.ok(javascript.includes('process.env.SIGLIP_KEY'));
  const form = formSnippets(base, 'v1/classify', ['my cat.png'], [['labels', '["a b"]']], { key: false });
  assert.ok(form.curl.includes("-F 'image=@my cat.png'") && form.curl.includes("--form-string 'labels=[\"a b\"]'"), form.curl);
});

test('the contract in words', () => {
  const contract = new Contract({
    tags: [{ name: 'one', description: 'about' }],
    paths: { '/a': { post: { tags: ['one'], operationId: 'a', summary: 's', requestBody: { content: { 'application/json': { schema: { $ref: '#/components/schemas/A' } } } }, responses: {} } } },
    components: { schemas: {
      A: { type: 'object', required: ['texts'], properties: { texts: { type: 'array', items: { type: 'string' } }, kind: { oneOf: [{ $ref: '#/components/schemas/Kind', description: 'which' }, { type: 'null' }] }, a: { $ref: '#/components/schemas/A' } } },
      Kind: { type: 'string', enum: ['x', 'y'] },
    } },
  });
  const [{ operations: [operation] }] = contract.sections;
  assert.deepEqual([operation.method, operation.path], ['POST', '/a']);
  const fields = contract.fields(operation.bodies['application/json'].schema);
  assert.deepEqual(fields.map(({ name, type, required, text }) => [name, type, required, text]), [['texts', 'list of string', true, ''], ['kind', '"x" | "y"', false, 'which'], ['a', 'object', false, '']]);
  assert.ok(JSON.stringify(fields).length < 2000, 'an object in itself ends');
  assert.deepEqual(contract.example(operation.bodies['application/json']), { texts: [] });
});
