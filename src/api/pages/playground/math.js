// Vectors in the page: cosines, the best of them, query arithmetic, principal components. A list of `count` vectors is one
// Float32Array of `count · width` numbers; vectors are of length 1, so that a dot product is the cosine.

/**
 * The dot product of a row of `rows` and a row of `others`, given by where they begin.
 * @param {Float32Array} rows @param {number} at @param {Float32Array} others @param {number} other @param {number} width
 */
export function dot(rows, at, others, other, width) {
  let a = 0;
  let b = 0;
  let c = 0;
  let d = 0;
  const whole = width - (width % 4);
  for (let i = 0; i < whole; i += 4) {
    a += rows[at + i] * others[other + i];
    b += rows[at + i + 1] * others[other + i + 1];
    c += rows[at + i + 2] * others[other + i + 2];
    d += rows[at + i + 3] * others[other + i + 3];
  }
  for (let i = whole; i < width; i++) a += rows[at + i] * others[other + i];
  return a + b + (c + d);
}

/**
 * The vector at length 1, or null where it has none (all but zero, or not finite).
 * @param {ArrayLike<number>} vector
 * @returns {Float32Array | null}
 */
export function unit(vector) {
  let sum = 0;
  for (let i = 0; i < vector.length; i++) sum += vector[i] * vector[i];
  const length = Math.sqrt(sum);
  if (!(length > 1e-6) || !Number.isFinite(length)) return null;
  return Float32Array.from(vector, (x) => x / length);
}

/**
 * "This but …": the sum of vectors times their weights, at length 1. Null where they cancel out.
 * @param {{ vector: Float32Array, weight: number }[]} terms vectors of one width
 * @returns {Float32Array | null}
 */
export function combine(terms) {
  if (terms.length === 0) return null;
  const sum = new Float64Array(terms[0].vector.length);
  for (const { vector, weight } of terms) {
    if (vector.length !== sum.length)
      throw new RangeError(`vectors of ${sum.length} and ${vector.length} numbers cannot be added`);
    for (let i = 0; i < sum.length; i++) sum[i] += weight * vector[i];
  }
  return unit(sum);
}

/**
 * The cosine of each of the first `count` rows with the query.
 * @param {Float32Array} rows @param {number} count @param {Float32Array} query its length is the width
 * @param {Float32Array} [scores] room for `count` numbers
 */
export function cosines(rows, count, query, scores = new Float32Array(count)) {
  const width = query.length;
  if (rows.length < count * width) throw new RangeError(`${count} rows of ${width} numbers do not fit in ${rows.length}`);
  for (let i = 0; i < count; i++) scores[i] = dot(rows, i * width, query, 0, width);
  return scores;
}

/**
 * Indices of the `k` highest scores, the highest first; of equal scores the first first.
 * @param {Float32Array} scores
 * @param {number} k
 * @param {(index: number) => boolean} [taken] which rows are looked at; all if left out
 * @returns {Uint32Array}
 */
export function topK(scores, k, taken) {
  let indices = Uint32Array.from(scores.keys());
  if (taken) indices = indices.filter(taken);
  return indices.sort((a, b) => scores[b] - scores[a] || a - b).subarray(0, k);
}

/**
 * Random numbers from 0 to below 1 that are the same for the same seed (Tommy Ettinger's mulberry32, public domain).
 * @param {number} seed
 */
export function random(seed) {
  let state = seed | 0;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let x = Math.imul(state ^ (state >>> 15), 1 | state);
    x = (x + Math.imul(x ^ (x >>> 7), 61 | x)) ^ x;
    return ((x ^ (x >>> 14)) >>> 0) / 4294967296;
  };
}

/** Rows that principal components are found from, where there are more: chosen at random, since rows may come in a rhythm. */
const SAMPLED = 1000;

/**
 * Coordinates of all rows along their first principal components, the strongest first, about the rows' mean. Found by power
 * iteration of a block of directions (orthogonal iteration). Distances between coordinates are never above those between rows,
 * since the directions are orthonormal. A generator that yields the share that is done, for `inSlices`.
 * @param {Float32Array} rows @param {number} count @param {number} width
 * @param {number} components fewer come back where there are fewer rows or numbers
 * @returns {Generator<number, { components: number, data: Float32Array }, void>} `data` has `count · components` numbers
 */
export function* principal(rows, count, width, components) {
  const k = Math.max(1, Math.min(components, width, count));
  const mean = meanOf(rows, count, width);
  const next = random(1);
  const sample = Uint32Array.from({ length: Math.min(count, SAMPLED) }, (_, i) =>
    count > SAMPLED ? Math.floor(next() * count) : i,
  );
  let directions = orthonormal(
    Float32Array.from({ length: k * width }, () => next() - 0.5),
    k,
    width,
  );
  const centred = new Float32Array(width);
  const rounds = 4;
  for (let round = 0; round < rounds; round++) {
    const sums = new Float32Array(k * width);
    for (let i = 0; i < sample.length; i++) {
      centre(rows, sample[i], mean, centred);
      addAlong(directions, centred, sums);
      if (i % 4 === 0) yield (0.8 * (round + i / sample.length)) / rounds;
    }
    directions = orthonormal(sums, k, width);
  }
  const data = new Float32Array(count * k);
  for (let i = 0; i < count; i++) {
    centre(rows, i, mean, centred);
    for (let c = 0; c < k; c++) data[i * k + c] = dot(directions, c * width, centred, 0, width);
    if (i % 16 === 0) yield 0.8 + (0.2 * i) / count;
  }
  return { components: k, data };
}

/** @param {Float32Array} rows @param {number} count @param {number} width */
function meanOf(rows, count, width) {
  const mean = new Float64Array(width);
  for (let i = 0, at = 0; i < count; i++) for (let j = 0; j < width; j++, at++) mean[j] += rows[at];
  return mean.map((sum) => sum / count);
}

/** @param {Float32Array} rows @param {number} i @param {Float64Array} mean @param {Float32Array} centred where row `i` less the mean goes */
function centre(rows, i, mean, centred) {
  for (let j = 0, at = i * mean.length; j < mean.length; j++, at++) centred[j] = rows[at] - mean[j];
}

/**
 * One row's part of the covariance times each direction.
 * @param {Float32Array} directions @param {Float32Array} centred @param {Float32Array} sums
 */
function addAlong(directions, centred, sums) {
  const width = centred.length;
  for (let at = 0; at < directions.length; at += width) {
    const along = dot(directions, at, centred, 0, width);
    for (let j = 0; j < width; j++) sums[at + j] += along * centred[j];
  }
}

/**
 * Directions made orthonormal one after the other (modified Gram–Schmidt, twice for exactness); one that has nothing left of
 * its own becomes zero.
 * @param {Float32Array} directions @param {number} k @param {number} width
 */
function orthonormal(directions, k, width) {
  for (let c = 0; c < k; c++) {
    const own = directions.subarray(c * width, (c + 1) * width);
    const before = Math.sqrt(dot(own, 0, own, 0, width));
    for (let pass = 0; pass < 2; pass++) {
      for (let other = 0; other < c; other++) {
        const shared = dot(own, 0, directions, other * width, width);
        for (let j = 0; j < width; j++) own[j] -= shared * directions[other * width + j];
      }
    }
    const left = Math.sqrt(dot(own, 0, own, 0, width));
    const factor = left > 1e-4 * before && left > 0 ? 1 / left : 0;
    for (let j = 0; j < width; j++) own[j] *= factor;
  }
  return directions;
}

/**
 * Groups of rows that are alike: those that a chain of pairs with at least this cosine connects. Exact. The largest group comes
 * first, in each the rows in their order. A pair is looked at in full only if the principal components do not rule it out and
 * its rows are not in one group yet.
 * @param {Float32Array} rows of length 1 each
 * @param {number} count @param {number} width
 * @param {number} threshold
 * @param {{ components: number, data: Float32Array }} reduced as `principal` gives it
 * @returns {Generator<number, number[][], void>}
 */
export function* alike(rows, count, width, threshold, reduced) {
  const parent = Uint32Array.from({ length: count }, (_, i) => i);
  for (let i = 0; i < count; i++) {
    joinEarlier(i, parent, rows, width, threshold, reduced);
    if (i % 16 === 0) yield (i / count) ** 2;
  }
  /** @type {Map<number, number[]>} */
  const groups = new Map();
  for (let i = 0; i < count; i++) {
    const root = find(parent, i);
    const group = groups.get(root);
    if (group) group.push(i);
    else groups.set(root, [i]);
  }
  return [...groups.values()].filter((group) => group.length > 1).sort((a, b) => b.length - a.length || a[0] - b[0]);
}

/**
 * Puts row `i` into the groups of the rows before it that it is like. (A function of its own, as are the other inner loops:
 * engines compile loops in generators late or not at all.)
 * @param {number} i @param {Uint32Array} parent
 * @param {Float32Array} rows @param {number} width @param {number} threshold
 * @param {{ components: number, data: Float32Array }} reduced
 */
function joinEarlier(i, parent, rows, width, threshold, { components, data }) {
  // |a − b|² = 2 − 2 cos for rows of length 1, and a little for rounding.
  const limit = 2 - 2 * threshold + 1e-5;
  const at = i * components;
  for (let j = 0; j < i; j++) {
    let distance = 0;
    for (let c = 0, other = j * components; c < components && distance <= limit; c++, other++) {
      distance += (data[at + c] - data[other]) * (data[at + c] - data[other]);
    }
    if (distance > limit) continue;
    const a = find(parent, i);
    const b = find(parent, j);
    if (a !== b && dot(rows, i * width, rows, j * width, width) >= threshold) parent[Math.max(a, b)] = Math.min(a, b);
  }
}

/**
 * The first row of the group of row `i`.
 * @param {Uint32Array} parent @param {number} i
 */
function find(parent, i) {
  while (parent[i] !== i) i = parent[i] = parent[parent[i]];
  return i;
}

/**
 * Runs a generator to its end in slices, and lets the page draw and answer between them. What it yields is the share that is
 * done.
 * @template T
 * @param {Generator<number, T, void>} work
 * @param {{ budget?: number, signal?: AbortSignal, onProgress?: (share: number) => void }} [options] `budget` in ms a slice
 * @returns {Promise<T>}
 */
export async function inSlices(work, { budget = 8, signal, onProgress } = {}) {
  for (;;) {
    signal?.throwIfAborted();
    const end = performance.now() + budget;
    let step = work.next();
    while (!step.done && performance.now() < end) step = work.next();
    if (step.done) return step.value;
    onProgress?.(step.value);
    await turn();
  }
}

/** The next turn of the event loop. A message comes without the 4 ms that nested timers wait. */
function turn() {
  return new Promise((/** @type {(value?: void) => void} */ resolve) => {
    const channel = new MessageChannel();
    channel.port1.onmessage = () => {
      channel.port1.close();
      resolve();
    };
    channel.port2.postMessage(null);
  });
}
