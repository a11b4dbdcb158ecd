// Pictures and labels live, what the model sees, and where a label is.
export const name = 'pictures, labels, tokens, heat maps';

/** Milliseconds from a key to a bar that moved, on the embedded model. */
const KEY_TO_BAR = 100;

const row = (page, label) => page.locator('.label', { has: page.locator(`input[aria-label="${label}"]`) });
const caption = (page, name) => page.locator(`.shot:has(button.pick[aria-label^="${name}"]) .caption`);

export async function test(t) {
  const page = await t.open('#/live');
  // One file is no picture, and the tests read canvases.
  page.expected(/422|willReadFrequently/);
  await samples(t, page);
  await ownPictures(t, page);
  await typing(t, page);
  await modes(t, page);
  await sees(t, page);
  await where(t, page);
  await copyAs(t, page);
  await t.axe(page, 'Look');
  await errors(t);
}

/** The samples are there, and each is named by one of the first labels. */
async function samples(t, page) {
  await t.until(async () => (await page.locator('.shot').count()) === 7, 'seven samples');
  for (const [name, label] of [['red-apple', 'red apple'], ['cat-face', 'cat face'], ['sunflower', 'sunflower'], ['house', 'house']]) {
    await t.until(async () => (await caption(page, name).textContent()) === label, `the sample ${name} is ${label}`);
  }
}

/** Files are chosen, dropped, pasted and taken by the camera. */
async function ownPictures(t, page) {
  await page.setInputFiles('#live-files', t.pictures(['guitar', 'red-car']));
  await t.until(async () => (await page.locator('.shot').count()) === 2, 'own pictures take the place of the samples');
  await t.until(async () => (await caption(page, 'guitar').textContent()) === 'guitar', 'the guitar is found');
  for (const [how, file] of [['drop', 'cat-face'], ['paste', 'sunflower']]) {
    const [path] = t.pictures([file]);
    const bytes = (await import('node:fs')).readFileSync(path).toString('base64');
    await page.evaluate(([event, base64, fileName]) => {
      const data = new DataTransfer();
      const raw = Uint8Array.from(atob(base64), (char) => char.charCodeAt(0));
      data.items.add(new File([raw], fileName, { type: 'image/png' }));
      const target = event === 'paste' ? document.body : document.querySelector('.view-live');
      if (event === 'paste') target.dispatchEvent(new ClipboardEvent('paste', { clipboardData: data, bubbles: true, cancelable: true }));
      else for (const type of ['dragenter', 'dragover', 'drop']) target.dispatchEvent(new DragEvent(type, { dataTransfer: data, bubbles: true, cancelable: true }));
    }, [how, bytes, `${how}-${file}.png`]);
    await t.until(async () => (await page.locator(`.pick[aria-label="${how}-${file}.png"]`).count()) === 1, `a picture by ${how}`);
  }
  await t.until(async () => (await caption(page, 'drop-cat-face').textContent()) === 'cat face', 'what was dropped is embedded');
  await page.getByRole('button', { name: 'Camera' }).click();
  await page.waitForFunction(() => document.querySelector('video')?.videoWidth > 0);
  await page.getByRole('button', { name: 'Take the picture' }).click();
  await t.until(async () => (await page.locator('.pick[aria-label="camera.jpg"]').count()) === 1, 'a picture of the camera');
  await page.getByRole('button', { name: 'Remove camera.jpg' }).click();
  // A file that is no picture has its error in its place, and the others their vectors.
  await page.setInputFiles('#live-files', [{ name: 'broken.png', mimeType: 'image/png', buffer: Buffer.from('no picture') }]);
  await t.until(async () => (await page.locator('.live-picture .bad').textContent()).includes('format is not known'), 'the error of a broken file');
  t.equal(await caption(page, 'broken').textContent(), 'error', 'the broken file is marked');
  await page.getByRole('button', { name: 'Remove broken.png' }).click();
  await page.setInputFiles('#live-files', t.pictures(['red-apple']));
  await t.until(async () => (await caption(page, 'red-apple').textContent()) === 'red apple', 'the apple is found');
}

/** Bars move while one types; labels come and go by the keyboard. */
async function typing(t, page) {
  const field = page.locator('.words').nth(1);
  await field.fill('');
  await field.focus();
  const times = [];
  for (const key of 'green tree frog') {
    const before = await field.inputValue();
    const took = page.evaluate((words) => new Promise((resolve, reject) => {
      const root = document.querySelectorAll('.label')[1];
      let started = 0;
      root.querySelector('input').addEventListener('input', () => { started = performance.now(); }, { once: true });
      const watch = new MutationObserver(() => {
        if (root.dataset.of !== words) return;
        watch.disconnect();
        resolve(performance.now() - started);
      });
      watch.observe(root, { attributes: true, attributeFilter: ['data-of'] });
      setTimeout(() => reject(new Error(`no bar for ${words}`)), 5000);
    }), (before + key).trim());
    await page.waitForTimeout(30);
    await page.keyboard.type(key);
    if (key === ' ') {
      // A space at the end is no other label: nothing is to move.
      await took.catch(() => {});
      continue;
    }
    times.push(await took);
  }
  times.sort((a, b) => a - b);
  const middle = times[times.length >> 1];
  console.log(`  key to bar: median ${middle.toFixed(1)} ms, slowest ${times.at(-1).toFixed(1)} ms of ${times.length} keys`);
  t.ok(middle <= KEY_TO_BAR, `${middle} ms from a key to its bar`);
  t.ok(times.at(-2) <= 2 * KEY_TO_BAR, `${times.join(', ')} ms from keys to bars`);
  const count = await page.locator('.label').count();
  await page.keyboard.press('Enter');
  await page.keyboard.type('red fruit');
  t.equal(await page.locator('.label').count(), count + 1, 'Enter adds a label');
  t.equal(await page.locator('.words').nth(2).inputValue(), 'red fruit', 'below the one that it was pressed in');
  await page.keyboard.press('ArrowUp');
  t.equal(await page.evaluate(() => document.activeElement.value), 'green tree frog', 'arrows move between labels');
  for (let i = 'green tree frog'.length; i >= 0; i -= 1) await page.keyboard.press('Backspace');
  t.equal(await page.locator('.label').count(), count, 'Backspace in an empty label removes it');
  await page.getByRole('button', { name: 'Best first' }).click();
  t.equal(await page.locator('.words').first().inputValue(), 'red apple', 'the best label is first');
}

/** Sigmoid, softmax, cosine and logit agree with the service; the threshold says when none fits. */
async function modes(t, page) {
  const body = { images: [(await import('node:fs')).readFileSync(t.pictures(['red-apple'])[0]).toString('base64')], texts: ['This is a photo of red apple.'] };
  const answer = await (await fetch(new URL('v1/score', t.base), { method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify(body) })).json();
  const score = page.locator('.label .score').first();
  const number = async () => Number((await score.textContent()).replace('−', '-').replace(' %', ''));
  const close = (actual, expected, by, what) => t.ok(Math.abs(actual - expected) <= by, `${what}: ${actual}, the service says ${expected}`);
  close(await number(), 100 * answer.probability[0][0], 0.11, 'sigmoid');
  await page.getByRole('button', { name: 'Cosine' }).click();
  close(await number(), answer.cosine[0][0], 0.0006, 'cosine');
  await page.getByRole('button', { name: 'Logit' }).click();
  close(await number(), answer.logit[0][0], 0.011, 'logit');
  await page.getByRole('button', { name: 'Softmax' }).click();
  const sum = (await page.locator('.label .score').allTextContents()).reduce((all, text) => all + (text.startsWith('<') ? 0 : Number(text.replace(' %', ''))), 0);
  close(sum, 100, 0.3, 'softmax adds up');
  await page.getByRole('button', { name: 'Sigmoid' }).click();
  t.ok(await page.locator('.none').isHidden(), 'the apple fits');
  await page.locator('#threshold').fill('4');
  t.equal(await page.locator('.none').textContent(), 'None of these.', 'none of these above a high threshold');
  await page.locator('#threshold').fill('-4.6');
  t.ok(await page.locator('.none').isHidden(), 'and some below it');
  // Another template is another vector.
  const before = await number();
  await page.getByLabel('Template', { exact: true }).selectOption({ label: 'none: the label alone' });
  await t.until(async () => (await score.textContent()).includes('%') && Math.abs((await number()) - before) > 0.01, 'another template, another score');
  await page.getByLabel('Template', { exact: true }).selectOption({ index: 0 });
  t.ok((await page.locator('.formula').textContent()).startsWith('logit = 28.05 · cosine − 11.18'), 'scale and bias are shown');
}

/** The picture at the model's resolution, and the tokens of a text. */
async function sees(t, page) {
  await t.until(async () => (await page.locator('.pixels').evaluate((canvas) => `${canvas.width} × ${canvas.height}`)) === '72 × 72', 'the model sees 72 × 72 pixels');
  const red = await page.locator('.pixels').evaluate((canvas) => [...canvas.getContext('2d').getImageData(36, 40, 1, 1).data]);
  t.ok(red[0] > 180 && red[1] < 90 && red[2] < 100, `the middle of the apple is red: ${red}`);
  await page.locator('.words').nth(1).fill('A very LONG label, with so many words that the context of sixteen tokens cannot hold them all');
  const item = page.locator('.texts li', { hasText: 'so many words' }).first();
  await item.waitFor();
  t.ok((await item.locator('.lowered').allTextContents()).join('').includes('long'), 'what was lower-cased is marked');
  t.ok((await item.locator('.cut').count()) > 3, 'what was cut off is shown');
  const short = page.locator('.texts li', { hasText: 'guitar' }).first();
  t.ok(/padding/.test(await short.textContent()), 'the padding is shown');
  t.equal(await page.locator('.texts li').first().locator('.token.end').count(), 1, 'the end token is marked');
  await page.locator('.words').nth(1).fill('boat');
}

/** A canvas of four pictures: the map of each is in its own quarter. */
async function where(t, page) {
  const quarters = ['red-apple', 'cat-face', 'guitar', 'red-car'];
  const fs = await import('node:fs');
  const files = t.pictures(quarters).map((path) => fs.readFileSync(path).toString('base64'));
  const composed = await page.evaluate(async (pictures) => {
    const canvas = document.createElement('canvas');
    canvas.width = canvas.height = 512;
    const context = canvas.getContext('2d');
    for (const [index, base64] of pictures.entries()) {
      const picture = await createImageBitmap(new Blob([Uint8Array.from(atob(base64), (char) => char.charCodeAt(0))]));
      context.drawImage(picture, 256 * (index % 2), 256 * (index >> 1), 256, 256);
    }
    return canvas.toDataURL('image/png').split(',')[1];
  }, files);
  await page.setInputFiles('#live-files', [{ name: 'quarters.png', mimeType: 'image/png', buffer: Buffer.from(composed, 'base64') }]);
  const words = ['red apple', 'cat face', 'guitar', 'red car'];
  for (const [index, label] of words.entries()) {
    const field = page.locator('.words').nth(index);
    await field.fill(label);
    const button = page.locator('.label').nth(index).getByRole('button', { name: `Where is ${label}?` });
    // By keyboard, by pointing at it, and pinned.
    if (index === 0) {
      await field.focus();
      await page.keyboard.press('Tab');
    } else if (index === 1) {
      await page.locator('.label').nth(index).hover();
    } else {
      await button.click();
    }
    await t.until(async () => (await page.locator('.heat-note').textContent()).startsWith(`${label} is most likely`), `the map of ${label}`);
    t.ok(await page.locator('.heat').isVisible(), 'the map is over the picture');
    // The hottest pixels of the canvas, not what the page says of itself.
    const [x, y] = await page.locator('.heat').evaluate((canvas) => {
      const { data, width, height } = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);
      let sum = 0; let left = 0; let top = 0;
      for (let i = 0; i < data.length; i += 4) {
        // The ramp's hot end is yellow: much red and green, little blue.
        const heat = Math.max(0, data[i] + data[i + 1] - data[i + 2] - 250);
        const at = i / 4;
        sum += heat; left += heat * (at % width); top += heat * Math.floor(at / width);
      }
      return [left / sum / width, top / sum / height];
    });
    t.equal([Number(x > 0.5), Number(y > 0.5)], [index % 2, index >> 1], `${label} is in its quarter (${x.toFixed(2)}, ${y.toFixed(2)})`);
    if (index >= 2) await button.click();
    await page.mouse.move(2, 2);
    await page.locator('.view-live h2').first().click();
    await t.until(async () => page.locator('.heat').isHidden(), 'the map goes when nothing is pointed at');
  }
}

async function copyAs(t, page) {
  await page.getByRole('button', { name: 'Copy as' }).first().click();
  const dialog = page.getByRole('dialog');
  const code = dialog.locator('pre');
  t.ok((await code.textContent()).includes('-F image=@quarters.png'), 'curl with the file that is shown');
  await dialog.getByRole('button', { name: 'Python' }).click();
  t.ok((await code.textContent()).includes('requests.post'), 'Python');
  await t.axe(page, 'Copy as');
  await dialog.getByRole('button', { name: 'Close', exact: true }).click();
}

/** 401 asks for a key, 429 waits and tries again, 503 says how far the model is, 413 says what is too large. */
async function errors(t) {
  const keyed = await t.open('#/live', { base: t.services.keyed });
  keyed.expected(/401/);
  const dialog = keyed.getByRole('dialog');
  await dialog.waitFor();
  await t.axe(keyed, 'the question for a key');
  await keyed.getByRole('textbox', { name: 'Key' }).fill('wrong');
  await keyed.keyboard.press('Enter');
  await t.until(async () => (await dialog.textContent().catch(() => '')).includes('does not know'), 'a wrong key is refused');
  await keyed.getByRole('textbox', { name: 'Key' }).fill(t.services.key);
  await keyed.keyboard.press('Enter');
  await t.until(async () => (await keyed.locator('.label .score').first().textContent().catch(() => '')).includes('%'), 'the key works');
  const kept = await keyed.evaluate(() => JSON.stringify([{ ...localStorage }, { ...sessionStorage }, document.cookie]));
  t.ok(!kept.includes(t.services.key), `the key is nowhere but in memory: ${kept}`);

  const page = await t.open('#/live');
  await t.until(async () => (await page.locator('.label .score').first().textContent()).includes('%'), 'a page that works');
  page.expected(/429|503|413/);
  const error = (status, code, message, headers = {}) => ({
    status, headers: { 'content-type': 'application/json', ...headers }, body: JSON.stringify({ error: { message, type: 'x', param: null, code } }),
  });
  const refuse = async (answer, then) => {
    let refused = 0;
    await page.route('**/v1/embeddings*', async (route) => {
      refused += 1;
      if (refused <= then) await route.fulfill(answer);
      else await route.continue();
    });
  };
  await refuse(error(429, 'overloaded', 'busy', { 'retry-after': '2' }), 1);
  await page.locator('.words').first().fill('after a while');
  await page.locator('.notice.busy').waitFor();
  t.ok(/busy \(429\).*again in [12] s/.test(await page.locator('.notice.busy').textContent()), 'what is waited for');
  await t.until(async () => (await page.locator('.label').first().getAttribute('data-of')) === 'after a while', '429 is tried again');
  t.equal(await page.locator('.notice.busy').count(), 0, 'the message goes');
  await page.unroute('**/v1/embeddings*');
  await page.route('**/health/ready', (route) => route.fulfill({
    status: 503, headers: { 'content-type': 'application/json' }, body: JSON.stringify({ status: 'starting', models: [{ name: 'demo', state: 'downloading', bytes: 30, total: 120 }] }),
  }));
  await refuse(error(503, 'model_loading', 'the model demo is being loaded'), 1);
  await page.locator('.words').first().fill('a model that loads');
  await t.until(async () => ((await page.locator('.notice.busy').textContent().catch(() => '')) ?? '').includes('downloading (25 %'), '503 with progress');
  await t.until(async () => (await page.locator('.label').first().getAttribute('data-of')) === 'a model that loads', '503 is tried again');
  await page.unroute('**/v1/embeddings*');
  await page.route('**/v1/embeddings/images', (route) => route.fulfill(error(413, 'too_large', 'the body is larger than 10 bytes')));
  await page.setInputFiles('#live-files', t.pictures(['guitar']));
  await t.until(async () => (await page.locator('.live-picture .bad').textContent()).includes('413'), '413 says what is too large');
}
