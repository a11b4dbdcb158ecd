import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { ArchiveError, crc32, packCollection, readZip, unpackCollection, writeZip } from '../archive.js';

const text = (string) => new TextEncoder().encode(string);
const whole = (parts) => new Uint8Array(Buffer.concat(parts));
const collection = (changes = {}) => ({
  model: 'demo',
  fingerprint: 'abcdef0123456789',
  width: 2,
  pictures: [
    { name: 'a/Ünder "x".png', bytes: 12 },
    { name: 'b.jpg', bytes: 0 },
  ],
  vectors: Float32Array.of(1, 0, 0.6, 0.8),
  ...changes,
});
const wanted = { fingerprint: 'abcdef0123456789', width: 2 };
const refused = (file, message, expected = wanted) =>
  assert.throws(
    () => unpackCollection(file, expected),
    (error) => error instanceof ArchiveError && message.test(error.message),
    String(message),
  );

test('the checksum is that of the standard', () => assert.equal(crc32(text('123456789')), 0xcbf43926));

test('what is written is read again, and python and its test agree', () => {
  const file = whole(
    writeZip([
      { name: 'a.txt', bytes: text('hello') },
      { name: 'ü/b', bytes: new Uint8Array(0) },
    ]),
  );
  assert.deepEqual(
    [...readZip(file)],
    [
      ['a.txt', text('hello')],
      ['ü/b', new Uint8Array(0)],
    ],
  );
  const folder = mkdtempSync(join(tmpdir(), 'zip-'));
  try {
    writeFileSync(join(folder, 'a.zip'), file);
    const script = `import zipfile as z
f = z.ZipFile("a.zip"); assert f.testzip() is None
print([(i.filename, f.read(i)) for i in f.infolist()])
with z.ZipFile("b.zip", "w") as g: g.writestr("x", "from python"); g.comment = b"PK"
with z.ZipFile("c.zip", "w", z.ZIP_DEFLATED) as g: g.writestr("x", "x" * 1000)`;
    const said = execFileSync('python3', ['-c', script], { cwd: folder, encoding: 'utf8' });
    assert.equal(said.trim(), "[('a.txt', b'hello'), ('ü/b', b'')]");
    assert.deepEqual(readZip(new Uint8Array(readFileSync(join(folder, 'b.zip')))).get('x'), text('from python'));
    assert.throws(() => readZip(readFileSync(join(folder, 'c.zip'))), /"x" is compressed/);
  } finally {
    rmSync(folder, { recursive: true });
  }
});

test('a collection comes back as it was', () => {
  const file = whole(packCollection(collection()));
  const got = unpackCollection(file, wanted);
  assert.deepEqual({ ...got, vectors: [...got.vectors] }, { ...collection(), vectors: [...collection().vectors] });
  const none = unpackCollection(whole(packCollection(collection({ pictures: [], vectors: new Float32Array(0) }))), wanted);
  assert.equal(none.pictures.length, 0);
});

test('vectors of another embedding space are refused, with both named', () => {
  const file = whole(packCollection(collection()));
  refused(file, /the model demo \(fingerprint abcdef01…\).*has 99999999…/, { fingerprint: '9999999999', width: 2 });
  refused(file, /have 2 numbers, and the model's 3/, { ...wanted, width: 3 });
});

test('no byte of an archive can be changed, and none be missing, without a clear error or the same content', () => {
  const file = whole(packCollection(collection()));
  const same = JSON.stringify(unpackCollection(file, wanted));
  let caught = 0;
  for (let i = 0; i < file.length; i++) {
    for (const flip of [0x01, 0xff]) {
      const changed = file.slice();
      changed[i] ^= flip;
      try {
        assert.equal(JSON.stringify(unpackCollection(changed, wanted)), same, `byte ${i}`);
      } catch (error) {
        assert.ok(error instanceof ArchiveError, `byte ${i}: ${error}`);
        caught++;
      }
    }
    assert.throws(() => unpackCollection(file.subarray(0, i), wanted), ArchiveError);
  }
  assert.ok(caught > file.length, `${caught} of ${2 * file.length} changes were seen`);
});

test('archives whose parts do not fit are refused', () => {
  const parts = readZip(whole(packCollection(collection())));
  const changed = (name, bytes) =>
    whole(
      writeZip(
        [...parts]
          .filter(([other]) => other !== name || bytes)
          .map(([other, content]) => ({ name: other, bytes: other === name ? bytes : content })),
      ),
    );
  for (const name of parts.keys()) refused(changed(name, null), new RegExp(`no ${name}`));
  const about = JSON.parse(new TextDecoder().decode(parts.get('about.json')));
  refused(changed('about.json', text('[]')), /about\.json: this is no JSON object/);
  refused(changed('about.json', text(JSON.stringify({ ...about, format: 'other' }))), /format/);
  refused(changed('about.json', text(JSON.stringify({ ...about, fingerprint: 7 }))), /no fingerprint/);
  refused(changed('names.jsonl', text('{"row":0,"name":"a","bytes":1}\n')), /2 rows, and names\.jsonl 1 lines/);
  refused(
    changed('names.jsonl', text('{"row":0,"name":"a","bytes":1}\n{"row":0,"name":"a","bytes":1}\n')),
    /line 2: this is no row 1/,
  );
  refused(changed('names.jsonl', text('{"row":0,"name":"a","bytes":-1}\n{"row":1,"name":"a","bytes":1}\n')), /line 1/);
  refused(changed('names.jsonl', Uint8Array.of(0xff)), /not UTF-8/);
  refused(changed('vectors.npy', text('nothing of the kind')), /vectors\.npy: this is no \.npy/);
  refused(whole(packCollection(collection({ vectors: Float32Array.of(1, 0, 3, 4) }))), /row 1 has length 5\.000/);
  refused(whole(writeZip(Array.from({ length: 65 }, (_, i) => ({ name: String(i), bytes: text('') })))), /65 entries/);
  refused(
    whole(
      writeZip([
        { name: 'x', bytes: text('1') },
        { name: 'x', bytes: text('2') },
      ]),
    ),
    /"x" twice/,
  );
});
