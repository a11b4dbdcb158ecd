import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { test } from 'node:test';
import { NpyError, narrow, readNpy, readRows, widen, writeNpy } from '../npy.js';

const header = (text, data = new Uint8Array(0)) => {
  const bytes = new Uint8Array(10 + text.length + data.length);
  bytes.set([0x93, 78, 85, 77, 80, 89, 1, 0, text.length & 255, text.length >> 8]);
  bytes.set(new TextEncoder().encode(text), 10);
  bytes.set(data, 10 + text.length);
  return bytes;
};

test('what is written is read again, in each type', () => {
  for (const [dtype, data] of [
    ['float32', Float32Array.of(1, -2, 0.5, 3e30, -0, 7)],
    ['float16', Uint16Array.of(0x3c00, 0xc000, 1, 0, 0x8000, 0x7bff)],
    ['int8', Int8Array.of(1, -128, 127, 0, 5, 6)],
  ]) {
    for (const shape of [[6], [2, 3], [1, 2, 3]]) {
      const file = writeNpy({ dtype, shape, data });
      assert.equal((file.length - data.byteLength) % 64, 0);
      assert.deepEqual(readNpy(file), { dtype, shape, data });
    }
  }
});

test('a file inside a larger buffer is read from where it is', () => {
  const file = writeNpy({ dtype: 'float32', shape: [2], data: Float32Array.of(1, 2) });
  const larger = new Uint8Array(file.length + 3);
  larger.set(file, 3);
  assert.deepEqual([...readNpy(larger.subarray(3)).data], [1, 2]);
});

test('numpy reads what is written, and the other way round', (t) => {
  const script = `
import io, sys, numpy as np
got = np.load(io.BytesIO(sys.stdin.buffer.read()))
assert got.dtype == np.float16 and got.shape == (2, 2), got
np.save(sys.stdout.buffer, got.astype(np.float32) * 2)`;
  const file = writeNpy({ dtype: 'float16', shape: [2, 2], data: narrow(Float32Array.of(1, 0.5, -2, 4)) });
  let answer;
  try {
    execFileSync('python3', ['-c', 'import numpy'], { stdio: 'ignore' });
  } catch {
    return t.skip('numpy is not installed');
  }
  answer = execFileSync('python3', ['-c', script], { input: file });
  assert.deepEqual(readRows(new Uint8Array(answer)), { rows: 2, width: 2, data: Float32Array.of(2, 1, -4, 8) });
});

test('every float16 widens and narrows to itself; float32 is rounded to the nearest', () => {
  const all = Uint16Array.from({ length: 65536 }, (_, i) => i).filter(
    (half) => (half & 0x7c00) !== 0x7c00 || (half & 0x3ff) === 0,
  );
  assert.deepEqual(narrow(widen(all)), all);
  const near = (/** @type {number[]} */ ...x) => [...widen(narrow(Float32Array.from(x)))];
  assert.deepEqual(near(1 + 1 / 2048, 1 + 3 / 2048, 65519, 65520, 2 ** -25, 1.5 * 2 ** -24), [
    1,
    1 + 2 / 1024,
    65504,
    Infinity,
    0,
    2 ** -23,
  ]);
  assert.ok(Number.isNaN(near(NaN)[0]));
  const values = Float32Array.from({ length: 2000 }, (_, i) => Math.sin(i) * 2 ** ((i % 40) - 24));
  widen(narrow(values)).forEach((value, i) => {
    assert.ok(
      Math.abs(value - values[i]) <= Math.max(Math.abs(values[i]) * 2 ** -11, 2 ** -25),
      `${values[i]} became ${value}`,
    );
  });
});

test('headers that lie are refused with what is wrong', () => {
  const good = "{'descr': '<f4', 'fortran_order': False, 'shape': (1, 2), }\n";
  assert.equal(readNpy(header(good, new Uint8Array(8))).data.length, 2);
  for (const [file, message] of [
    [new Uint8Array(0), /no \.npy/],
    [header(good, new Uint8Array(7)), /takes 8 bytes, and the file has 7/],
    [header(good, new Uint8Array(9)), /and the file has 9/],
    [header(good.replace('<f4', '<f8'), new Uint8Array(16)), /"<f8" are not read/],
    [header(good.replace('<f4', '>f4'), new Uint8Array(8)), /">f4" are not read/],
    [header(good.replace('<f4', '|O'), new Uint8Array(8)), /not read/],
    [header(good.replace('<f4', 'constructor'), new Uint8Array(8)), /not read/],
    [header(good.replace('False', 'True'), new Uint8Array(8)), /Fortran/],
    [header(good.replace('(1, 2)', '(9999999999, 9999999999)')), /larger than/],
    [header(good.replace('(1, 2)', '(-1, 2)')), /cannot be read/],
    [header(good.replace('(1, 2)', '(12)'), new Uint8Array(48)), /shape/],
    [header(good.replace('(1, 2)', '(1 2)'), new Uint8Array(48)), /shape/],
    [header(good.replace("'shape': (1, 2)", "'descr': '<f4'"), new Uint8Array(8)), /cannot be read/],
    [header("__import__('os')"), /no dictionary/],
    [header(good.replace(/\n/, "'x': 1")), /no dictionary|cannot/],
  ]) {
    assert.throws(
      () => readNpy(file),
      (error) => error instanceof NpyError && message.test(error.message),
      String(message),
    );
  }
  const cut = header(good, new Uint8Array(8));
  cut[8] = 255;
  cut[9] = 255;
  assert.throws(() => readNpy(cut), /cut short/);
});

test('rows: a vector is one row; numbers that are not finite, and arrays of other ranks, are refused', () => {
  const file = (shape, data) => writeNpy({ dtype: 'float32', shape, data: Float32Array.from(data) });
  assert.deepEqual(readRows(file([3], [1, 2, 3])), { rows: 1, width: 3, data: Float32Array.of(1, 2, 3) });
  assert.throws(() => readRows(file([2, 2], [1, 2, NaN, 3])), /row 1 has a number that is not finite/);
  assert.throws(() => readRows(file([1, 1, 1], [1])), /3 dimensions/);
  assert.throws(() => readRows(file([1, 0], [])), /no elements/);
  assert.throws(() => readRows(file([4, 2], new Array(8).fill(1)), { maxElements: 7 }), /larger than 7/);
});

test('an array whose shape and data differ is not written', () => {
  assert.throws(() => writeNpy({ dtype: 'float32', shape: [2, 2], data: new Float32Array(3) }), /4 elements, and the data 3/);
  assert.throws(() => writeNpy({ dtype: 'int8', shape: [3], data: new Float32Array(3) }), /not int8/);
});
