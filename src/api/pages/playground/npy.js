// NumPy's .npy format, read and written strictly: what the header says must be what follows it, to the byte.
// https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html

/** @typedef {"float32" | "float16" | "int8"} NpyType */

/**
 * One array. `data` has `shape[0] · shape[1] · …` elements in C order; float16 is kept as its 16 bits.
 * @typedef {{ dtype: NpyType, shape: number[], data: Float32Array | Uint16Array | Int8Array }} NpyArray
 */

/**
 * Rows of vectors: row `i` is `data.subarray(i * width, (i + 1) * width)`.
 * @typedef {{ rows: number, width: number, data: Float32Array }} Rows
 */

const MAGIC = [0x93, 0x4e, 0x55, 0x4d, 0x50, 0x59]; // \x93NUMPY
const TYPES = /** @type {const} */ ({ '<f4': 'float32', '<f2': 'float16', '|i1': 'int8' });
const DESCRIPTIONS = /** @type {const} */ ({ float32: '<f4', float16: '<f2', int8: '|i1' });
const BYTES = /** @type {const} */ ({ float32: 4, float16: 2, int8: 1 });

/** Elements of the largest array that is read: 2^28 (1 GiB of float32). */
export const MAX_ELEMENTS = 2 ** 28;

/** The file is no array that can be read; the message says what was wrong. */
export class NpyError extends Error {
  /** @param {string} message */
  constructor(message) {
    super(message);
    this.name = 'NpyError';
  }
}

/**
 * Reads one array. The file's length must be exactly what its header says.
 * @param {ArrayBuffer | Uint8Array} file
 * @param {{ maxElements?: number }} [options]
 * @returns {NpyArray}
 * @throws {NpyError}
 */
export function readNpy(file, { maxElements = MAX_ELEMENTS } = {}) {
  const bytes = file instanceof Uint8Array ? file : new Uint8Array(file);
  if (bytes.length < 10 || MAGIC.some((byte, i) => bytes[i] !== byte)) throw new NpyError('this is no .npy file');
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const version = bytes[6];
  if (version < 1 || version > 3 || bytes[7] !== 0) throw new NpyError(`.npy version ${version}.${bytes[7]} is not known`);
  const start = version === 1 ? 10 : 12;
  if (bytes.length < start) throw new NpyError('the .npy header is cut short');
  const length = version === 1 ? view.getUint16(8, true) : view.getUint32(8, true);
  if (length > 65535 || start + length > bytes.length) throw new NpyError('the .npy header is cut short or too long');
  const { dtype, shape } = readHeader(new TextDecoder('latin1').decode(bytes.subarray(start, start + length)));
  // Each factor is checked before the product, which then cannot leave the exact integers.
  let elements = 1;
  for (const extent of shape) {
    elements *= extent;
    if (elements > maxElements)
      throw new NpyError(`the array of shape (${shape.join(', ')}) is larger than ${maxElements} elements`);
  }
  const begin = start + length;
  const wanted = elements * BYTES[dtype];
  if (bytes.length - begin !== wanted) {
    throw new NpyError(
      `${dtype} of shape (${shape.join(', ')}) takes ${wanted} bytes, and the file has ${bytes.length - begin}`,
    );
  }
  return { dtype, shape, data: elementsOf(dtype, bytes.slice(begin).buffer) };
}

/**
 * The header is a Python dictionary with three keys in any order. Only what NumPy itself writes is taken.
 * @param {string} text
 * @returns {{ dtype: NpyType, shape: number[] }}
 */
function readHeader(text) {
  const body = /^\{(.*)\}\s*$/s.exec(text);
  if (!body) throw new NpyError('the .npy header is no dictionary');
  const entry = /\s*'(descr|fortran_order|shape)'\s*:\s*('[^']*'|True|False|\([\d,\s]*\))\s*(?:,|$)/y;
  /** @type {Map<string, string>} */
  const found = new Map();
  while (entry.lastIndex < body[1].trimEnd().length) {
    const match = entry.exec(body[1]);
    if (!match || found.has(match[1])) throw new NpyError(`the .npy header cannot be read: ${text.trim().slice(0, 120)}`);
    found.set(match[1], match[2]);
  }
  const descr = (found.get('descr') ?? '').slice(1, -1);
  if (!Object.hasOwn(TYPES, descr))
    throw new NpyError(`elements of type ${JSON.stringify(descr)} are not read; float32, float16 and int8 are`);
  if (found.get('fortran_order') !== 'False') throw new NpyError('an array in Fortran order is not read');
  const shape = /^\((?:\s*|\s*\d{1,10}\s*,\s*|\s*\d{1,10}(?:\s*,\s*\d{1,10})+\s*,?\s*)\)$/.exec(found.get('shape') ?? '');
  if (!shape) throw new NpyError(`the shape ${found.get('shape') ?? '(none)'} cannot be read`);
  return { dtype: TYPES[/** @type {keyof typeof TYPES} */ (descr)], shape: (shape[0].match(/\d+/g) ?? []).map(Number) };
}

/** @param {NpyType} dtype @param {ArrayBuffer} buffer */
function elementsOf(dtype, buffer) {
  if (dtype === 'float32') return new Float32Array(buffer);
  return dtype === 'float16' ? new Uint16Array(buffer) : new Int8Array(buffer);
}

/**
 * Reads a matrix of vectors as float32. Every number must be finite. A single vector is one row; `int8` values stay as they are.
 * @param {ArrayBuffer | Uint8Array} file
 * @param {{ maxElements?: number }} [options]
 * @returns {Rows}
 * @throws {NpyError}
 */
export function readRows(file, options) {
  const { dtype, shape, data } = readNpy(file, options);
  if (shape.length !== 1 && shape.length !== 2)
    throw new NpyError(`an array of ${shape.length} dimensions is no list of vectors`);
  const [rows, width] = shape.length === 1 ? [1, shape[0]] : shape;
  if (width === 0) throw new NpyError('the vectors have no elements');
  /** @type {Float32Array} */
  let numbers;
  if (data instanceof Float32Array) numbers = data;
  else if (dtype === 'float16') numbers = widen(/** @type {Uint16Array} */ (data));
  else numbers = Float32Array.from(data);
  for (let i = 0; i < numbers.length; i++) {
    if (!Number.isFinite(numbers[i])) throw new NpyError(`row ${Math.floor(i / width)} has a number that is not finite`);
  }
  return { rows, width, data: numbers };
}

/**
 * float16 bits to float32 values.
 * @param {Uint16Array} halves
 * @returns {Float32Array}
 */
export function widen(halves) {
  const numbers = new Float32Array(halves.length);
  for (let i = 0; i < halves.length; i++) {
    const half = halves[i];
    const sign = half & 0x8000 ? -1 : 1;
    const exponent = (half >> 10) & 0x1f;
    const fraction = half & 0x3ff;
    if (exponent === 0) numbers[i] = sign * fraction * 2 ** -24;
    else if (exponent === 31) numbers[i] = fraction ? NaN : sign * Infinity;
    else numbers[i] = sign * (1 + fraction / 1024) * 2 ** (exponent - 15);
  }
  return numbers;
}

/**
 * float32 values to float16 bits, rounded to nearest, ties to even.
 * @param {Float32Array} numbers
 * @returns {Uint16Array}
 */
export function narrow(numbers) {
  const bits = new Uint32Array(numbers.buffer, numbers.byteOffset, numbers.length);
  const halves = new Uint16Array(numbers.length);
  for (let i = 0; i < numbers.length; i++) {
    const sign = (bits[i] >>> 16) & 0x8000;
    const size = Math.abs(numbers[i]);
    let half;
    if (Number.isNaN(size)) half = 0x7e00;
    else if (size >= 65520)
      half = 0x7c00; // half-way to the next power of two and above
    else {
      // Steps of a half at this size; below 2^-14 they are 2^-24. The quotient is exact, so that only one rounding happens.
      const exponent = Math.max(Math.floor(Math.log2(size || 2 ** -24)), -14);
      // log2 may round up just below a power of two; then the quotient is below 1024 and one step finer is right.
      const fix = size < 2 ** exponent && exponent > -14 ? exponent - 1 : exponent;
      const steps = roundEven(size / 2 ** (fix - 10));
      half = fix === -14 && steps < 1024 ? steps : ((fix + 15) << 10) + (steps - 1024);
    }
    halves[i] = sign | half;
  }
  return halves;
}

/** @param {number} x */
function roundEven(x) {
  const down = Math.floor(x);
  const rest = x - down;
  return rest > 0.5 || (rest === 0.5 && down % 2 === 1) ? down + 1 : down;
}

/**
 * Writes one array as NumPy does: version 1.0, C order, the data at a multiple of 64 bytes.
 * @param {NpyArray} array
 * @returns {Uint8Array}
 * @throws {NpyError} if the data has another number of elements than the shape, or is of another type
 */
export function writeNpy({ dtype, shape, data }) {
  const Kind = { float32: Float32Array, float16: Uint16Array, int8: Int8Array }[dtype];
  if (!Kind || !(data instanceof Kind)) throw new NpyError(`the data is not ${dtype}`);
  const elements = shape.reduce((product, extent) => product * extent, 1);
  if (!shape.every((extent) => Number.isInteger(extent) && extent >= 0) || elements !== data.length) {
    throw new NpyError(`the shape (${shape.join(', ')}) has ${elements} elements, and the data ${data.length}`);
  }
  const tuple = shape.length === 1 ? `(${shape[0]},)` : `(${shape.join(', ')})`;
  const header = `{'descr': '${DESCRIPTIONS[dtype]}', 'fortran_order': False, 'shape': ${tuple}, }`;
  const length = Math.ceil((10 + header.length + 1) / 64) * 64 - 10;
  const file = new Uint8Array(10 + length + data.byteLength);
  file.set([...MAGIC, 1, 0, length & 255, length >> 8]);
  file.set(new TextEncoder().encode(header.padEnd(length - 1) + '\n'), 10);
  file.set(new Uint8Array(data.buffer, data.byteOffset, data.byteLength), 10 + length);
  return file;
}
