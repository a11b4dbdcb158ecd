// Vectors and names in one file, to keep and to bring back: a .zip whose entries are stored as they are, so that the .npy in it
// is what any program reads, and neither way needs a library.

import { NpyError, readRows, writeNpy } from './npy.js';

/** Bytes of the largest archive that is read. */
export const MAX_ARCHIVE_BYTES = 2 ** 30;
/** Entries of an archive that is read; ours have three. */
const MAX_ENTRIES = 64;
/** Pictures of an archive that is read, and bytes of one name. */
const MAX_PICTURES = 1_000_000;
const MAX_NAME = 4096;
const FORMAT = 'siglip-vectors-1';

/** The file is no archive that can be used; the message says why. */
export class ArchiveError extends Error {
  /** @param {string} message */
  constructor(message) {
    super(message);
    this.name = 'ArchiveError';
  }
}

const CRC = Uint32Array.from({ length: 256 }, (_, byte) => {
  let crc = byte;
  for (let bit = 0; bit < 8; bit++) crc = crc & 1 ? 0xedb88320 ^ (crc >>> 1) : crc >>> 1;
  return crc;
});

/** @param {Uint8Array} bytes */
export function crc32(bytes) {
  let crc = 0xffffffff;
  for (let i = 0; i < bytes.length; i++) crc = CRC[(crc ^ bytes[i]) & 255] ^ (crc >>> 8);
  return ~crc >>> 0;
}

/** @typedef {{ name: string, bytes: Uint8Array }} Entry */

/**
 * A .zip with its entries uncompressed, as parts of a Blob. The same entries give the same bytes.
 * @param {Entry[]} entries
 * @returns {Uint8Array[]}
 * @throws {ArchiveError} if it would need the extensions for more than 4 GiB
 */
export function writeZip(entries) {
  /** @type {Uint8Array[]} */
  const parts = [];
  /** @type {Uint8Array[]} */
  const directory = [];
  let at = 0;
  for (const { name, bytes } of entries) {
    const label = new TextEncoder().encode(name);
    if (at + bytes.length + label.length + 30 > 0xffffffff) throw new ArchiveError('the archive would be larger than 4 GiB');
    const crc = crc32(bytes);
    // Version 2.0, names in UTF-8, stored, 1 January 1980, and the sizes twice since nothing is compressed.
    const common = [
      u16(20),
      u16(0x800),
      u16(0),
      u16(0),
      u16(0x21),
      u32(crc),
      u32(bytes.length),
      u32(bytes.length),
      u16(label.length),
      u16(0),
    ];
    directory.push(join([u32(0x02014b50), u16(20), ...common, u16(0), u16(0), u16(0), u32(0), u32(at), label]));
    const head = join([u32(0x04034b50), ...common, label]);
    parts.push(head, bytes);
    at += head.length + bytes.length;
  }
  const central = join(directory);
  const count = u16(entries.length);
  return [...parts, central, join([u32(0x06054b50), u16(0), u16(0), count, count, u32(central.length), u32(at), u16(0)])];
}

/** @param {number} value */
const u16 = (value) => Uint8Array.of(value & 255, value >>> 8);
/** @param {number} value */
const u32 = (value) => Uint8Array.of(value & 255, (value >>> 8) & 255, (value >>> 16) & 255, value >>> 24);

/** @param {Uint8Array[]} parts */
function join(parts) {
  const all = new Uint8Array(parts.reduce((length, part) => length + part.length, 0));
  let at = 0;
  for (const part of parts) {
    all.set(part, at);
    at += part.length;
  }
  return all;
}

/**
 * Reads a .zip whose entries are stored uncompressed; their checksums must be right.
 * @param {ArrayBuffer | Uint8Array} file
 * @returns {Map<string, Uint8Array>} by name; the bytes are views of the file's
 * @throws {ArchiveError}
 */
export function readZip(file) {
  const bytes = file instanceof Uint8Array ? file : new Uint8Array(file);
  if (bytes.length > MAX_ARCHIVE_BYTES) throw new ArchiveError(`the archive is larger than ${MAX_ARCHIVE_BYTES} bytes`);
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const end = endOf(bytes, view);
  const count = view.getUint16(end + 10, true);
  if (count > MAX_ENTRIES) throw new ArchiveError(`the archive has ${count} entries; at most ${MAX_ENTRIES} are read`);
  const size = view.getUint32(end + 12, true);
  let at = view.getUint32(end + 16, true);
  if (at + size > end) throw new ArchiveError('the list of entries lies outside of the archive');
  /** @type {Map<string, Uint8Array>} */
  const entries = new Map();
  for (let i = 0; i < count; i++) {
    if (at + 46 > end || view.getUint32(at, true) !== 0x02014b50) throw new ArchiveError('the list of entries is damaged');
    const [nameLength, extra, comment] = [28, 30, 32].map((field) => view.getUint16(at + field, true));
    if (at + 46 + nameLength > end) throw new ArchiveError('the list of entries is damaged');
    const name = new TextDecoder().decode(bytes.subarray(at + 46, at + 46 + nameLength));
    if (entries.has(name)) throw new ArchiveError(`the archive has ${JSON.stringify(name)} twice`);
    entries.set(name, entryAt(bytes, view, at, name));
    at += 46 + nameLength + extra + comment;
  }
  return entries;
}

/**
 * Where the record at the end begins; a comment of up to 65,535 bytes may follow it.
 * @param {Uint8Array} bytes @param {DataView} view
 */
function endOf(bytes, view) {
  for (let at = bytes.length - 22; at >= 0 && at >= bytes.length - 22 - 65535; at--) {
    if (view.getUint32(at, true) === 0x06054b50 && at + 22 + view.getUint16(at + 20, true) === bytes.length) return at;
  }
  throw new ArchiveError('this is no .zip file, or it is cut short');
}

/**
 * The bytes of the entry whose line of the list is at `at`.
 * @param {Uint8Array} bytes @param {DataView} view @param {number} at @param {string} name
 */
function entryAt(bytes, view, at, name) {
  const [flags, method] = [8, 10].map((field) => view.getUint16(at + field, true));
  const [crc, packed, size, start] = [16, 20, 24, 42].map((field) => view.getUint32(at + field, true));
  if (flags & 1) throw new ArchiveError(`${JSON.stringify(name)} is encrypted`);
  if (method !== 0 || packed !== size) {
    throw new ArchiveError(
      `${JSON.stringify(name)} is compressed; only archives that this page wrote are read, whose entries are stored`,
    );
  }
  if (start + 30 > bytes.length || view.getUint32(start, true) !== 0x04034b50)
    throw new ArchiveError(`${JSON.stringify(name)} is not where the list says`);
  const begin = start + 30 + view.getUint16(start + 26, true) + view.getUint16(start + 28, true);
  if (begin + size > bytes.length) throw new ArchiveError(`${JSON.stringify(name)} is cut short`);
  const content = bytes.subarray(begin, begin + size);
  if (crc32(content) !== crc) throw new ArchiveError(`${JSON.stringify(name)} is damaged: its checksum is wrong`);
  return content;
}

/**
 * Pictures by name with their vectors, of one embedding space.
 * @typedef {object} Collection
 * @property {string} model the model's name
 * @property {string} fingerprint
 * @property {number} width numbers of a vector
 * @property {{ name: string, bytes: number }[]} pictures one a row; `bytes` is the size of the file
 * @property {Float32Array} vectors `pictures.length · width` numbers, each row of length 1
 */

/**
 * `vectors.npy`, `names.jsonl` (a line a row) and `about.json` (the model and its fingerprint) as a .zip.
 * @param {Collection} collection
 * @returns {Uint8Array[]} parts of a Blob
 */
export function packCollection({ model, fingerprint, width, pictures, vectors }) {
  const encode = (/** @type {string} */ text) => new TextEncoder().encode(text);
  const about = { format: FORMAT, model, fingerprint, dimensions: width, pictures: pictures.length };
  return writeZip([
    { name: 'vectors.npy', bytes: writeNpy({ dtype: 'float32', shape: [pictures.length, width], data: vectors }) },
    {
      name: 'names.jsonl',
      bytes: encode(pictures.map(({ name, bytes }, row) => `${JSON.stringify({ row, name, bytes })}\n`).join('')),
    },
    { name: 'about.json', bytes: encode(`${JSON.stringify(about, null, 2)}\n`) },
  ]);
}

/**
 * What `packCollection` wrote, or the same by another program (its vectors may also be float16). Refused if it is of another
 * embedding space than the model's.
 * @param {ArrayBuffer | Uint8Array} file
 * @param {{ fingerprint: string, width: number }} wanted
 * @returns {Collection}
 * @throws {ArchiveError}
 */
export function unpackCollection(file, wanted) {
  const entries = readZip(file);
  const text = (/** @type {string} */ name) => {
    const bytes = entries.get(name);
    if (!bytes) throw new ArchiveError(`the archive has no ${name}`);
    try {
      return new TextDecoder('utf-8', { fatal: true }).decode(bytes);
    } catch {
      throw new ArchiveError(`${name} is not UTF-8`);
    }
  };
  const about = object(text('about.json'), 'about.json');
  if (about.format !== FORMAT) throw new ArchiveError(`about.json: the format is not ${FORMAT}`);
  const { model, fingerprint } = about;
  if (typeof model !== 'string' || typeof fingerprint !== 'string')
    throw new ArchiveError('about.json: no model or no fingerprint');
  if (fingerprint !== wanted.fingerprint) {
    throw new ArchiveError(
      `these vectors are of the model ${model.slice(0, 100)} (fingerprint ${fingerprint.slice(0, 8)}…), and the chosen model has ` +
        `${wanted.fingerprint.slice(0, 8)}…: they cannot be compared`,
    );
  }
  const npy = entries.get('vectors.npy');
  if (!npy) throw new ArchiveError('the archive has no vectors.npy');
  const { rows, width, data } = rowsOf(npy);
  if (width !== wanted.width)
    throw new ArchiveError(`vectors.npy: the vectors have ${width} numbers, and the model's ${wanted.width}`);
  const pictures = picturesOf(text('names.jsonl'));
  if (pictures.length !== rows)
    throw new ArchiveError(`vectors.npy has ${rows} rows, and names.jsonl ${pictures.length} lines`);
  normalise(data, width);
  return { model, fingerprint, width, pictures, vectors: data };
}

/** @param {Uint8Array} npy */
function rowsOf(npy) {
  try {
    return readRows(npy);
  } catch (error) {
    throw error instanceof NpyError ? new ArchiveError(`vectors.npy: ${error.message}`) : error;
  }
}

/** @param {string} text @returns {Collection['pictures']} */
function picturesOf(text) {
  const lines = text.split('\n');
  if (lines.at(-1) === '') lines.pop();
  if (lines.length > MAX_PICTURES)
    throw new ArchiveError(`names.jsonl has ${lines.length} lines; at most ${MAX_PICTURES} are read`);
  return lines.map((line, i) => {
    const { name, bytes, row } = object(line, `names.jsonl, line ${i + 1}`);
    if (typeof name !== 'string' || name.length > MAX_NAME || row !== i || !Number.isSafeInteger(bytes) || bytes < 0) {
      throw new ArchiveError(`names.jsonl, line ${i + 1}: this is no row ${i} with a name and the bytes of its file`);
    }
    return { name, bytes };
  });
}

/** @param {string} text @param {string} what @returns {Record<string, any>} */
function object(text, what) {
  try {
    const value = JSON.parse(text);
    if (typeof value === 'object' && value !== null && !Array.isArray(value)) return value;
  } catch {
    // The error below says it.
  }
  throw new ArchiveError(`${what}: this is no JSON object`);
}

/** Brings each row to length 1, where it is off by rounding. @param {Float32Array} data @param {number} width */
function normalise(data, width) {
  for (let at = 0; at < data.length; at += width) {
    let sum = 0;
    for (let i = at; i < at + width; i++) sum += data[i] * data[i];
    const length = Math.sqrt(sum);
    if (Math.abs(length - 1) > 0.02)
      throw new ArchiveError(`vectors.npy: row ${at / width} has length ${length.toFixed(3)}, not 1`);
    for (let i = at; i < at + width; i++) data[i] /= length;
  }
}
