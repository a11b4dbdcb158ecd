// Vectors and names out of the page and back, and the same search as a program.

import { ArchiveError, MAX_ARCHIVE_BYTES, packCollection, unpackCollection } from './archive.js';
import { shell } from './copy.js';

/**
 * Gives a file to the person.
 * @param {Blob} blob @param {string} name
 */
export function save(blob, name) {
  const url = URL.createObjectURL(blob);
  const link = document.createElement('a');
  link.href = url;
  link.download = name;
  link.click();
  // The browser reads the address after the click; a minute is enough for any disk.
  setTimeout(() => URL.revokeObjectURL(url), 60_000);
}

/**
 * The pictures that have vectors as a .zip.
 * @param {import('./folder-store.js').Store} store
 * @param {string} model
 */
export function pack(store, model) {
  const { ids, rows } = store.packed();
  const pictures = Array.from(ids, (id) => ({ name: store.pictures[id].name, bytes: store.pictures[id].bytes }));
  const parts = packCollection({ model, fingerprint: store.fingerprint, width: store.width, pictures, vectors: rows });
  return new Blob(/** @type {BlobPart[]} */ (parts), { type: 'application/zip' });
}

/**
 * Reads what `pack` wrote.
 * @param {Blob} file
 * @param {{ fingerprint: string, width: number }} wanted
 */
export async function unpack(file, wanted) {
  if (file.size > MAX_ARCHIVE_BYTES) throw new ArchiveError(`the archive is larger than ${MAX_ARCHIVE_BYTES} bytes`);
  return unpackCollection(await file.arrayBuffer(), wanted);
}

/**
 * A search in three languages: in Python and JavaScript over the exported vectors.
 * @param {URL} base
 * @param {string} model
 * @param {string} text what is searched for, in its template
 * @param {boolean} key whether the service asks for one
 * @returns {import('./types.d.ts').Snippets}
 */
export function searchSnippets(base, model, text, key) {
  const url = new URL('v1/embeddings', base).href;
  const body = { model, input: [{ text }] };
  const json = JSON.stringify(body);
  return {
    curl: [`curl ${shell(url)} -H 'accept: application/x-npy' -o query.npy`, ...(key ? ['-H "Authorization: Bearer $SIGLIP_KEY"'] : []),
      "-H 'content-type: application/json'", `-d ${shell(json)}`].join(' \\\n  '),
    python: `import io, json, ${key ? 'os, ' : ''}zipfile
import numpy as np, requests

# The file that "Export" gives.
archive = zipfile.ZipFile("vectors.zip")
vectors = np.load(io.BytesIO(archive.read("vectors.npy")))
names = [json.loads(line)["name"] for line in archive.read("names.jsonl").splitlines()]
headers = {"accept": "application/x-npy",
           # Vectors of another model are refused.
           "x-siglip-expect-fingerprint": json.loads(archive.read("about.json"))["fingerprint"]}
${key ? 'headers["authorization"] = f"Bearer {os.environ[\'SIGLIP_KEY\']}"\n' : ''}answer = requests.post(${JSON.stringify(url)}, headers=headers,
    json=${json})
answer.raise_for_status()
cosines = vectors @ np.load(io.BytesIO(answer.content))[0]
for row in np.argsort(-cosines)[:10]:
    print(f"{cosines[row]:.4f}", names[row])`,
    javascript: `import { readFileSync } from "node:fs";

// vectors.npy and names.jsonl out of the file that "Export" gives; vectors.npy has a header of 128 bytes.
const file = readFileSync("vectors.npy");
const vectors = new Float32Array(file.buffer.slice(file.byteOffset + 128, file.byteOffset + file.length));
const names = readFileSync("names.jsonl", "utf8").trim().split("\\n").map((line) => JSON.parse(line).name);
const answer = await fetch(${JSON.stringify(url)}, {
  method: "POST",
  headers: { "content-type": "application/json"${key ? ', authorization: `Bearer ${process.env.SIGLIP_KEY}`' : ''} },
  body: JSON.stringify(${json}),
});
const query = (await answer.json()).data[0].embedding;
const cosine = (row) => query.reduce((sum, x, i) => sum + x * vectors[row * query.length + i], 0);
console.log(names.map((name, row) => [cosine(row), name]).sort((a, b) => b[0] - a[0]).slice(0, 10));`,
  };
}
