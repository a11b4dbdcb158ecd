// The official openai client for Node, as its users call it. Usage: node openai_node.mjs BASE_URL
import assert from "node:assert/strict";
import OpenAI from "openai";

const base = process.argv[2].replace(/\/$/, "");
const client = new OpenAI({ baseURL: `${base}/v1`, apiKey: "none", maxRetries: 0 });

const models = await client.models.list();
const { id: model, dimensions } = models.data[0];
assert.equal((await client.models.retrieve(model)).id, model);

const input = ["a photo of a cat", "a photo of a dog"];
// The client asks for base64 by itself and decodes it.
const packed = await client.embeddings.create({ model, input });
const plain = await client.embeddings.create({ model, input, encoding_format: "float" });
assert.equal(packed.object, "list");
for (const [i, entry] of packed.data.entries()) {
  assert.equal(entry.index, i);
  assert.equal(entry.embedding.length, dimensions);
  const length = entry.embedding.reduce((sum, x) => sum + x * x, 0);
  assert.ok(Math.abs(length - 1) < 1e-4, `length ${length}`);
  entry.embedding.forEach((x, k) => assert.ok(Math.abs(x - plain.data[i].embedding[k]) < 1e-6));
}

await assert.rejects(client.embeddings.create({ model: "no-such-model", input: "a" }), OpenAI.NotFoundError);
await assert.rejects(client.embeddings.create({ model, input: [] }), OpenAI.UnprocessableEntityError);

// A file as browsers and Node send it.
const svg = new TextEncoder().encode("<svg/>");
const form = new FormData();
form.append("image", new Blob([svg], { type: "image/svg+xml" }), "drawing.svg");
form.append("labels", "cat,dog");
const answer = await fetch(`${base}/v1/classify`, { method: "POST", body: form });
assert.equal(answer.status, 422);
assert.match((await answer.json()).error.message, /^image\[0\] \(drawing\.svg\): /);
