import assert from 'node:assert/strict';
import { test } from 'node:test';
import { layout } from '../folder-layout.js';
import { alike, combine, cosines, dot, inSlices, principal, random, topK, unit } from '../math.js';

const close = (a, b, by = 1e-5) => assert.ok(Math.abs(a - b) <= by, `${a} is not ${b}`);
const finish = (work) => {
  for (;;) {
    const step = work.next();
    if (step.done) return step.value;
    assert.ok(step.value >= 0 && step.value <= 1, `${step.value} is no share`);
  }
};
/** Random directions of length 1, `clusters` of them close together each. */
const vectors = (count, width, clusters, spread, seed = 7) => {
  const next = random(seed);
  const centres = Array.from({ length: clusters }, () => unit(Array.from({ length: width }, () => next() - 0.5)));
  const rows = new Float32Array(count * width);
  for (let i = 0; i < count; i++) {
    rows.set(unit(centres[i % clusters].map((x) => x + spread * (next() - 0.5))), i * width);
  }
  return rows;
};

test('dot products, for widths that are and are not multiples of 4', () => {
  for (const width of [1, 3, 4, 7, 192]) {
    const a = Float32Array.from({ length: 2 * width }, (_, i) => Math.sin(i));
    const expected = [...Array(width).keys()].reduce((sum, i) => sum + a[i] * a[width + i], 0);
    close(dot(a, 0, a, width, width), expected, 1e-4);
  }
});

test('unit: of length 1, or null where there is no direction', () => {
  assert.deepEqual([...unit([3, 4])], [Math.fround(0.6), Math.fround(0.8)]);
  for (const none of [[0, 0], [NaN, 1], [Infinity, 1], []]) assert.equal(unit(none), null);
});

test('this but: a + b − c', () => {
  const [x, y, z] = [Float32Array.of(1, 0, 0), Float32Array.of(0, 1, 0), Float32Array.of(0, 0, 1)];
  const got = combine([
    { vector: x, weight: 1 },
    { vector: y, weight: 1 },
    { vector: z, weight: -1 },
  ]);
  const third = 1 / Math.sqrt(3);
  [third, third, -third].forEach((value, i) => close(got[i], value));
  assert.equal(
    combine([
      { vector: x, weight: 1 },
      { vector: x, weight: -1 },
    ]),
    null,
  );
  assert.equal(combine([]), null);
  assert.throws(
    () =>
      combine([
        { vector: x, weight: 1 },
        { vector: Float32Array.of(1), weight: 1 },
      ]),
    /3 and 1 numbers/,
  );
});

test('the best come first, equal ones in their order, and only those that are asked about', () => {
  const scores = Float32Array.of(0.1, 0.9, 0.5, 0.9, -1);
  assert.deepEqual([...topK(scores, 3)], [1, 3, 2]);
  assert.deepEqual([...topK(scores, 9, (i) => i !== 1)], [3, 2, 0, 4]);
  assert.deepEqual([...topK(scores, 0)], []);
  const rows = vectors(50, 24, 5, 0.1);
  assert.equal(topK(cosines(rows, 50, rows.slice(33 * 24, 34 * 24)), 1)[0], 33);
  assert.throws(() => cosines(rows, 51, rows.slice(0, 24)), /do not fit/);
});

test('principal components find the planes that rows lie in, and never make distances longer', () => {
  const next = random(5);
  const [count, width] = [300, 20];
  const rows = new Float32Array(count * width);
  for (let i = 0; i < count; i++) {
    rows[i * width + 4] = 3 + 10 * (next() - 0.5); // most of it lies along the fifth number, some along the tenth
    rows[i * width + 9] = 4 * (next() - 0.5);
    for (let j = 0; j < width; j++) rows[i * width + j] += 0.01 * (next() - 0.5);
  }
  const { components, data } = finish(principal(rows, count, width, 2));
  assert.equal(components, 2);
  const mean = [4, 9].map((j) => [...Array(count).keys()].reduce((sum, i) => sum + rows[i * width + j] / count, 0));
  const signs = [0, 1].map((c) => Math.sign(data[c] * (rows[[4, 9][c]] - mean[c])));
  for (let i = 0; i < count; i++) {
    close(signs[0] * data[2 * i], rows[i * width + 4] - mean[0], 0.15);
    close(signs[1] * data[2 * i + 1], rows[i * width + 9] - mean[1], 0.25);
    const square = (a, at, b, k) => [...Array(k).keys()].reduce((sum, j) => sum + (a[at + j] - a[b + j]) ** 2, 0);
    assert.ok(square(data, 0, 2 * i, 2) <= square(rows, 0, i * width, width) + 1e-4);
  }
});

test('principal components of fewer rows than components, and of equal rows', () => {
  for (const rows of [Float32Array.of(1, 0, 0), Float32Array.of(1, 0, 0, 1, 0, 0)]) {
    const got = finish(principal(rows, rows.length / 3, 3, 32));
    assert.ok(got.data.every(Number.isFinite));
    assert.equal(got.data.length, (rows.length / 3) * got.components);
  }
});

test('groups of near-duplicates are those that comparing every pair gives', () => {
  const [count, width] = [240, 48];
  for (const [clusters, spread, threshold] of [
    [60, 0.02, 0.98],
    [60, 0.12, 0.9],
    [240, 0.5, 0.95],
    [1, 0.01, 0.9],
  ]) {
    const rows = vectors(count, width, clusters, spread);
    const got = finish(alike(rows, count, width, threshold, finish(principal(rows, count, width, 8))));
    // Plainly: a label for each row, spread along pairs until nothing changes.
    const label = [...Array(count).keys()];
    for (let changed = true; changed;) {
      changed = false;
      for (let i = 0; i < count; i++) {
        for (let j = 0; j < i; j++) {
          if (label[i] === label[j] || dot(rows, i * width, rows, j * width, width) < threshold) continue;
          label[i] = label[j] = Math.min(label[i], label[j]);
          changed = true;
        }
      }
    }
    const expected = [...(Map.groupBy ? Map.groupBy(label.keys(), (i) => label[i]).values() : group(label))].filter(
      (g) => g.length > 1,
    );
    expected.sort((a, b) => b.length - a.length || a[0] - b[0]);
    assert.deepEqual(got, expected, `clusters ${clusters}, threshold ${threshold}`);
  }
  function group(label) {
    const groups = new Map();
    label.forEach((root, i) => groups.set(root, [...(groups.get(root) ?? []), i]));
    return groups.values();
  }
});

test('no two of unlike rows are a group', () => {
  const rows = Float32Array.of(1, 0, 0, 0, 1, 0, 0, 0, 1);
  assert.deepEqual(finish(alike(rows, 3, 3, 0.5, finish(principal(rows, 3, 3, 3)))), []);
});

test('the map keeps clusters together, is the same each time, and lies between 0 and 1', () => {
  const [count, width, clusters] = [300, 32, 5];
  const rows = vectors(count, width, clusters, 0.15);
  const places = finish(layout(rows, count, width));
  assert.equal(places.length, 2 * count);
  assert.ok(places.every((place) => place >= -1e-6 && place <= 1 + 1e-6));
  assert.deepEqual(finish(layout(rows, count, width)), places);
  // The nearest place of nearly each row belongs to its own cluster.
  let own = 0;
  for (let i = 0; i < count; i++) {
    let [best, nearest] = [Infinity, -1];
    for (let j = 0; j < count; j++) {
      const square = (places[2 * i] - places[2 * j]) ** 2 + (places[2 * i + 1] - places[2 * j + 1]) ** 2;
      if (j !== i && square < best) [best, nearest] = [square, j];
    }
    own += nearest % clusters === i % clusters ? 1 : 0;
  }
  assert.ok(own >= 0.98 * count, `${own} of ${count} lie beside one of their own`);
});

test('maps of few, equal and no rows', () => {
  for (const count of [0, 1, 2, 3, 4, 17]) {
    const rows = new Float32Array(count * 4).fill(0.5);
    const places = finish(layout(rows, count, 4));
    assert.equal(places.length, 2 * count);
    assert.ok(places.every(Number.isFinite));
  }
});

test('slices: other work runs between them, progress is told, and an abort ends them', async () => {
  function* count(to) {
    for (let i = 0; i < to; i++) {
      const end = performance.now() + 1;
      while (performance.now() < end);
      yield i / to;
    }
    return to;
  }
  let [turns, told] = [0, 0];
  const timer = setInterval(() => turns++, 1);
  assert.equal(await inSlices(count(60), { budget: 4, onProgress: () => told++ }), 60);
  clearInterval(timer);
  assert.ok(told >= 8, `progress was told ${told} times`);
  assert.ok(turns >= 5, `a timer ran ${turns} times meanwhile`);
  const stop = new AbortController();
  setTimeout(() => stop.abort(), 10);
  await assert.rejects(inSlices(count(10000), { signal: stop.signal }), { name: 'AbortError' });
});
