import assert from 'node:assert/strict';
import { test } from 'node:test';
import { EmbedQueue } from '../queue.js';

const vector = Float32Array.of(1);
const good = (items) => ({ vectors: items.map(() => vector), errors: items.map(() => null) });
const failure = (status, more = {}) => Object.assign(new Error(`status ${status}`), { status, ...more });
const turn = () => new Promise((resolve) => setTimeout(resolve, 1));
/** A queue over numbers (their sizes), what it sent and what it told. */
function make(embed, options = {}) {
  const sent = [];
  const settled = new Map();
  const states = [];
  const slept = [];
  const queue = new EmbedQueue({
    embed: (items, signal) => {
      sent.push(items.map((item) => item.id));
      return embed(items, signal);
    },
    size: (item) => item.size,
    settled: (item, got, error) => {
      assert.ok(!settled.has(item.id), `${item.id} was settled twice`);
      settled.set(item.id, got ? 'good' : error);
    },
    changed: (progress) => states.push(progress.state),
    sleep: async (ms) => {
      slept.push(ms);
    },
    ...options,
  });
  return { queue, sent, settled, states, slept };
}
const items = (count, size = 1) => Array.from({ length: count }, (_, id) => ({ id, size }));
async function end(queue) {
  for (let i = 0; i < 2000; i++) {
    const { state, done, failed, total } = queue.progress;
    if ((state === 'idle' && done + failed === total) || state === 'paused') return;
    await turn();
  }
  assert.fail(`the queue did not end: ${JSON.stringify(queue.progress)}`);
}

test('batches have a bounded count and bytes, all are done once, in their order', async () => {
  let [now, most] = [0, 0];
  const { queue, sent, settled } = make(
    async (batch) => {
      most = Math.max(most, ++now);
      await turn();
      now--;
      return good(batch);
    },
    { maxItems: 4, maxBytes: 10 },
  );
  queue.add(items(9));
  queue.add([
    { id: 'large', size: 50 },
    { id: 'six', size: 6 },
    { id: 'five', size: 5 },
  ]);
  await end(queue);
  assert.deepEqual(sent, [[0, 1, 2, 3], [4, 5, 6, 7], [8], ['large'], ['six'], ['five']]);
  assert.equal(settled.size, 12);
  assert.equal(most, 2);
  assert.deepEqual(
    { ...queue.progress, perSecond: 0 },
    { total: 12, done: 12, failed: 0, running: 0, state: 'idle', reason: '', perSecond: 0 },
  );
});

test('errors stay in their places', async () => {
  const { queue, settled } = make(
    async (batch) => ({
      vectors: batch.map(({ id }) => (id % 3 ? vector : null)),
      errors: batch.map(({ id }) => (id % 3 ? null : `no picture ${id}`)),
    }),
    { maxItems: 5 },
  );
  queue.add(items(10));
  await end(queue);
  assert.equal(settled.get(3), 'no picture 3');
  assert.equal(settled.get(4), 'good');
  assert.deepEqual([queue.progress.done, queue.progress.failed], [6, 4]);
});

test('a batch that is refused is halved until the item at fault is alone', async () => {
  const { queue, settled } = make(
    async (batch) => {
      if (batch.some(({ id }) => id === 5)) throw failure(413);
      return good(batch);
    },
    { maxItems: 8, parallel: 1 },
  );
  queue.add(items(16));
  await end(queue);
  assert.equal(settled.get(5), 'status 413');
  assert.deepEqual([queue.progress.done, queue.progress.failed, queue.progress.running], [15, 1, 0]);
});

test('429 waits as long as it is told, and goes on with the same items', async () => {
  let refusals = 2;
  const { queue, settled, states, slept } = make(
    async (batch) => {
      if (refusals-- > 0) throw failure(429, { retryAfter: 3 });
      return good(batch);
    },
    { parallel: 1, maxItems: 2 },
  );
  queue.add(items(5));
  await end(queue);
  assert.deepEqual(slept, [3000, 3000]);
  assert.ok(states.includes('waiting'));
  assert.deepEqual([...settled.keys()], [0, 1, 2, 3, 4]);
});

test('429 without an end pauses; so does what is no fault of the items, and resuming tries them again', async () => {
  let mend = false;
  for (const error of [failure(429), failure(401), new TypeError('no network')]) {
    mend = false;
    const { queue, settled } = make(
      async (batch) => {
        if (!mend) throw error;
        return good(batch);
      },
      { maxItems: 3 },
    );
    queue.add(items(7));
    await end(queue);
    assert.equal(queue.progress.state, 'paused');
    assert.equal(queue.progress.reason, error.message);
    await turn();
    assert.equal(settled.size, 0);
    mend = true;
    queue.resume();
    await end(queue);
    assert.deepEqual([...settled.keys()].sort(), [0, 1, 2, 3, 4, 5, 6]);
    assert.equal(queue.progress.done, 7);
  }
});

test('paused: what is on its way ends, nothing begins; resumed: the rest', async () => {
  const { queue, sent, settled } = make(
    async (batch) => {
      await turn();
      return good(batch);
    },
    { maxItems: 2, parallel: 1 },
  );
  queue.add(items(8));
  queue.pause();
  await turn();
  await turn();
  await turn();
  assert.equal(sent.length, 1);
  assert.equal(settled.size, 2);
  queue.add([{ id: 'more', size: 1 }]);
  assert.equal(sent.length, 1);
  queue.resume();
  await end(queue);
  assert.equal(settled.size, 9);
});

test('stopped: requests are aborted and nothing is told any more', async () => {
  const signals = [];
  const { queue, settled, states } = make(
    (batch, signal) =>
      new Promise((resolve, reject) => {
        signals.push(signal);
        signal.addEventListener('abort', () => reject(signal.reason));
      }),
    { maxItems: 2 },
  );
  queue.add(items(8));
  const before = states.length;
  queue.stop();
  await turn();
  assert.ok(signals.length === 2 && signals.every((signal) => signal.aborted));
  assert.equal(settled.size, 0);
  assert.equal(states.length, before);
  assert.throws(() => queue.add(items(1)), /stopped/);
});

test('an answer of another length is no answer', async () => {
  const { queue } = make(async () => good([1]), { maxItems: 2, parallel: 1 });
  queue.add(items(2));
  await end(queue);
  assert.match(queue.progress.reason, /1 vectors came back for 2 pictures/);
});

test('thousands of items', async () => {
  const { queue, settled } = make(async (batch) => good(batch), { maxItems: 64 });
  queue.add(items(200000));
  await end(queue);
  assert.equal(settled.size, 200000);
});
