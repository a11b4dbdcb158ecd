// Requests as Immich's server builds them (machine-learning.repository.ts) with Node's own fetch. Usage: node immich.mjs BASE_URL PICTURE
import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";

const [base, path] = [process.argv[2], process.argv[3]];
assert.equal(await (await fetch(new URL("/ping", base))).text(), "pong");

const predict = async (payload, config) => {
  const form = new FormData();
  form.append("entries", JSON.stringify(config));
  if (payload.path) form.append("image", new Blob([new Uint8Array(await readFile(payload.path))]));
  else if (payload.text !== undefined) form.append("text", payload.text);
  return fetch(new URL("/predict", base), { method: "POST", body: form });
};
const native = async (input) => {
  const headers = { "content-type": "application/json" };
  const answer = await fetch(new URL("/v1/embeddings", base), { method: "POST", headers, body: JSON.stringify({ input }) });
  return (await answer.json()).data[0].embedding;
};
const same = (a, b) => {
  assert.equal(a.length, b.length);
  const dot = (x, y) => x.reduce((sum, v, i) => sum + v * y[i], 0);
  assert.ok(dot(a, b) / Math.sqrt(dot(a, a) * dot(b, b)) >= 0.999999);
};

const visual = { clip: { visual: { modelName: "demo" } } };
const textual = { clip: { textual: { modelName: "demo", options: { language: "en" } } } };
const picture = { image: (await readFile(path)).toString("base64") };
const seen = await (await predict({ path }, visual)).json();
// Its database takes the vector as a string.
assert.equal(typeof seen.clip, "string");
assert.ok(seen.imageHeight > 0 && seen.imageWidth > 0);
same(JSON.parse(seen.clip), await native(picture));
same(JSON.parse((await (await predict({ text: "a cat" }, textual)).json()).clip), await native("a cat"));

// Whatever is not ok makes Immich ask the next address of its list.
const faces = { "facial-recognition": { detection: { modelName: "buffalo_l", options: { minScore: 0.7 } }, recognition: { modelName: "buffalo_l" } } };
const other = { clip: { textual: { modelName: "ViT-B-32__openai" } } };
for (const [payload, config, status, words] of [
  [{ path }, faces, 422, /facial-recognition/],
  [{ text: "a cat" }, other, 404, /ViT-B-32__openai/],
  [{}, textual, 400, /Either image or text/],
]) {
  const answer = await predict(payload, config);
  assert.equal(answer.status, status);
  assert.match((await answer.json()).detail, words);
}
