// A 2-D map of vectors. First principal components, then the neighbour embedding of L. McInnes, J. Healy and J. Melville, "UMAP:
// Uniform Manifold Approximation and Projection for Dimension Reduction" (2018, arXiv 1802.03426), written from the paper with
// exact neighbours. How near two places are is 1 / (1 + d²), as in t-SNE (the paper's a = b = 1): it takes no powers, which are
// most of the time otherwise. The same vectors give the same map.

import { principal, random } from './math.js';

/** Components that neighbours are looked for in, and neighbours of each row. */
const COMPONENTS = 32;
const NEIGHBOURS = 15;
/** Random rows that push a row away, for each neighbour that pulls it. */
const PUSHES = 5;

/**
 * A place for each row, from 0 to 1 in both directions, with the shape kept. A generator that yields the share that is done.
 * @param {Float32Array} rows @param {number} count @param {number} width
 * @param {{ components: number, data: Float32Array }} [reduced] as `principal` gave it before
 * @returns {Generator<number, Float32Array, void>} `count` pairs of x and y
 */
export function* layout(rows, count, width, reduced) {
  if (count === 0) return new Float32Array(0);
  const space = reduced ?? (yield* part(principal(rows, count, width, COMPONENTS), 0, 0.2));
  const places = start(space, count);
  if (count > 3) {
    const near = yield* part(neighbours(space, count, Math.min(NEIGHBOURS, count - 1)), 0.2, 0.4);
    const edges = weigh(near, count);
    yield* part(optimise(places, count, edges, count > 10000 ? 100 : 200), 0.4, 1);
  }
  return fit(places, count);
}

/**
 * A part of the work, as a share of all of it.
 * @template T
 * @param {Generator<number, T, void>} work @param {number} from @param {number} to
 * @returns {Generator<number, T, void>}
 */
function* part(work, from, to) {
  for (;;) {
    const step = work.next();
    if (step.done) return step.value;
    yield from + (to - from) * step.value;
  }
}

/**
 * The first two components, to 10 in each direction, and a little noise, so that equal rows can part.
 * @param {{ components: number, data: Float32Array }} space @param {number} count
 */
function start({ components, data }, count) {
  const places = new Float32Array(2 * count);
  const next = random(2);
  for (let c = 0; c < 2; c++) {
    let most = 1e-6;
    if (c < components) for (let i = 0; i < count; i++) most = Math.max(most, Math.abs(data[i * components + c]));
    for (let i = 0; i < count; i++) {
      const along = c < components ? data[i * components + c] / most : 0;
      places[2 * i + c] = 10 * along + 0.01 * (next() - 0.5);
    }
  }
  return places;
}

/**
 * The nearest rows of each row and their distances, the nearest first. Exact.
 * @param {{ components: number, data: Float32Array }} space @param {number} count @param {number} k
 * @returns {Generator<number, { k: number, index: Uint32Array, distance: Float32Array }, void>}
 */
function* neighbours({ components, data }, count, k) {
  const index = new Uint32Array(count * k);
  const distance = new Float32Array(count * k).fill(Infinity);
  for (let i = 0; i < count; i++) {
    nearestOf(i, data, count, components, index.subarray(i * k, (i + 1) * k), distance.subarray(i * k, (i + 1) * k));
    if (i % 8 === 0) yield i / count;
  }
  for (let i = 0; i < distance.length; i++) distance[i] = Math.sqrt(distance[i]);
  return { k, index, distance };
}

/**
 * The nearest rows of row `i`, kept in order while all are looked at. (A function of its own, as are the other inner loops:
 * engines compile loops in generators late or not at all.)
 * @param {number} i @param {Float32Array} data @param {number} count @param {number} components
 * @param {Uint32Array} index where they go @param {Float32Array} distance where the squares of their distances go
 */
function nearestOf(i, data, count, components, index, distance) {
  const last = index.length - 1;
  for (let j = 0; j < count; j++) {
    if (j === i) continue;
    const far = distance[last];
    let square = 0;
    for (let c = 0, a = i * components, b = j * components; c < components;) {
      // The first components are the strongest: most rows are too far by a few of them.
      for (const end = Math.min(c + 8, components); c < end; c++, a++, b++) square += (data[a] - data[b]) * (data[a] - data[b]);
      if (square >= far) break;
    }
    if (square >= far) continue;
    let at = last;
    for (; at > 0 && distance[at - 1] > square; at--) {
      distance[at] = distance[at - 1];
      index[at] = index[at - 1];
    }
    distance[at] = square;
    index[at] = j;
  }
}

/**
 * The fuzzy graph (section 3.1 of the paper): each row's distances to its neighbours become weights whose sum is log2(k), and
 * the two directions of an edge are joined by a + b − ab.
 * @param {{ k: number, index: Uint32Array, distance: Float32Array }} near @param {number} count
 */
function weigh({ k, index, distance }, count) {
  const weight = new Float32Array(count * k);
  const target = Math.log2(k);
  for (let i = 0; i < count; i++) {
    const own = distance.subarray(i * k, (i + 1) * k);
    const nearest = own.find((d) => d > 0) ?? 0;
    let [low, high, sigma] = [0, Infinity, 1];
    for (let round = 0; round < 40; round++) {
      let sum = 0;
      for (let n = 0; n < k; n++) sum += Math.exp(-Math.max(0, own[n] - nearest) / sigma);
      if (Math.abs(sum - target) < 1e-5) break;
      if (sum > target) high = sigma;
      else low = sigma;
      sigma = high === Infinity ? 2 * sigma : (low + high) / 2;
    }
    sigma = Math.max(sigma, 1e-6);
    for (let n = 0; n < k; n++) weight[i * k + n] = Math.exp(-Math.max(0, own[n] - nearest) / sigma);
  }
  /** @type {number[]} */
  const from = [];
  /** @type {number[]} */
  const to = [];
  /** @type {number[]} */
  const strength = [];
  for (let i = 0; i < count; i++) {
    for (let n = 0; n < k; n++) {
      const j = index[i * k + n];
      const back = index.subarray(j * k, (j + 1) * k).indexOf(i);
      if (back >= 0 && j < i) continue; // the edge was taken from the other end
      const [a, b] = [weight[i * k + n], back >= 0 ? weight[j * k + back] : 0];
      from.push(i);
      to.push(j);
      strength.push(a + b - a * b);
    }
  }
  return { from: Uint32Array.from(from), to: Uint32Array.from(to), strength: Float32Array.from(strength) };
}

/**
 * Stochastic gradient descent (section 3.2): an edge pulls its ends together as often as it is strong, and each time random
 * rows push them apart. Changes `places`.
 * @param {Float32Array} places @param {number} count
 * @param {{ from: Uint32Array, to: Uint32Array, strength: Float32Array }} edges
 * @param {number} epochs
 * @returns {Generator<number, void, void>}
 */
function* optimise(places, count, { from, to, strength }, epochs) {
  const next = random(3);
  const strongest = strength.reduce((most, s) => Math.max(most, s), 1e-6);
  const due = Float32Array.from(strength, (s) => strongest / Math.max(s, 1e-6));
  for (let epoch = 0; epoch < epochs; epoch++) {
    for (let e = 0; e < from.length; e += 512) {
      const end = Math.min(e + 512, from.length);
      for (let edge = e; edge < end; edge++) {
        if (due[edge] > epoch + 1) continue;
        due[edge] += strongest / strength[edge];
        move(places, count, 2 * from[edge], 2 * to[edge], 1 - epoch / epochs, next);
      }
      yield (epoch + e / from.length) / epochs;
    }
  }
}

/**
 * One step for an edge whose ends are at `i` and `j` in `places`.
 * @param {Float32Array} places @param {number} count @param {number} i @param {number} j
 * @param {number} rate @param {() => number} next random numbers
 */
function move(places, count, i, j, rate, next) {
  const pull = -2 / (1 + (places[i] - places[j]) ** 2 + (places[i + 1] - places[j + 1]) ** 2);
  const px = rate * clip(pull * (places[i] - places[j]));
  const py = rate * clip(pull * (places[i + 1] - places[j + 1]));
  places[i] += px;
  places[i + 1] += py;
  places[j] -= px;
  places[j + 1] -= py;
  for (let n = 0; n < PUSHES; n++) {
    const other = 2 * Math.floor(next() * count);
    if (other === i) continue;
    const x = places[i] - places[other];
    const y = places[i + 1] - places[other + 1];
    const square = x * x + y * y;
    const push = 2 / ((0.001 + square) * (1 + square));
    places[i] += rate * (square > 0 ? clip(push * x) : 4 * (next() - 0.5));
    places[i + 1] += rate * (square > 0 ? clip(push * y) : 4 * (next() - 0.5));
  }
}

/** @param {number} step */
function clip(step) {
  return step > 4 ? 4 : step < -4 ? -4 : step;
}

/**
 * Places moved and scaled alike in both directions, so that the longer one goes from 0 to 1 and the other is in the middle.
 * @param {Float32Array} places @param {number} count
 */
function fit(places, count) {
  const low = [Infinity, Infinity];
  const high = [-Infinity, -Infinity];
  for (let i = 0; i < 2 * count; i++) {
    low[i % 2] = Math.min(low[i % 2], places[i]);
    high[i % 2] = Math.max(high[i % 2], places[i]);
  }
  const extent = Math.max(high[0] - low[0], high[1] - low[1], 1e-6);
  return places.map((place, i) => 0.5 + (place - (low[i % 2] + high[i % 2]) / 2) / extent);
}
