// The ollama and @huggingface/inference packages. Usage: node others.mjs BASE_URL PICTURE
import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { InferenceClient } from "@huggingface/inference";
import { Ollama } from "ollama";

const base = process.argv[2].replace(/\/$/, "");
const native = async (input) => {
  const headers = { "content-type": "application/json" };
  const answer = await fetch(`${base}/v1/embeddings`, { method: "POST", headers, body: JSON.stringify({ input }) });
  return (await answer.json()).data.map((entry) => entry.embedding);
};
const same = (a, b) => {
  assert.equal(a.length, b.length);
  const dot = (x, y) => x.reduce((sum, v, i) => sum + v * y[i], 0);
  a.forEach((row, i) => assert.ok(dot(row, b[i]) / Math.sqrt(dot(row, row) * dot(b[i], b[i])) >= 0.999999));
};
const texts = ["a photo of a cat", "a photo of a dog"];

const ollama = new Ollama({ host: base });
same((await ollama.embed({ model: "demo", input: texts })).embeddings, await native(texts));
assert.equal((await ollama.list()).models[0].name, "demo:latest");
for (const [request, status] of [
  [{ model: "nomic-embed-text", input: "a" }, 404],
  [{ model: "demo", input: "a", dimensions: 8 }, 422],
  [{ model: "demo", input: [] }, 400],
]) {
  await assert.rejects(ollama.embed(request), (error) => error.name === "ResponseError" && error.status_code === status);
}

const client = new InferenceClient(undefined, { endpointUrl: base });
same(await client.featureExtraction({ inputs: texts }), await native(texts));
const inputs = { image: new Blob([await readFile(process.argv[3])]) };
const labels = ["cat", "guitar", "red apple", "car"];
const found = await client.zeroShotImageClassification({ inputs, parameters: { candidate_labels: labels } });
assert.equal(found[0].label, "red apple");
for (const wrong of [
  () => client.featureExtraction({ inputs: texts, dimensions: 8 }),
  () => client.featureExtraction({ inputs: "a", prompt_name: "query" }),
  () => client.zeroShotImageClassification({ inputs, parameters: { candidate_labels: [] } }),
]) {
  await assert.rejects(wrong, (error) => error.name === "ProviderApiError" && error.httpResponse.status === 422);
}
