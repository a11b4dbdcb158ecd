// Part 4 of the playground: 200 pictures are embedded, searched in every way, grouped, mapped, exported and imported; 5,000 stay fluid.
import { copyFileSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { repository } from './common.mjs';
import { draw } from './folder-pictures.mjs';

export const name = 'a folder of photos';

const playground = join(repository, 'src/api/pages/playground');
const { packCollection, unpackCollection } = await import(pathToFileURL(join(playground, 'archive.js')));
const { combine, cosines, topK, unit } = await import(pathToFileURL(join(playground, 'math.js')));

/** Pictures of each of six kinds, and copies of some: 200 in all, and a file that is broken. */
const EACH = 32;
const COPIES = 8;
const COUNT = 6 * EACH + COPIES;

export async function test(t) {
  const page = await t.open('#/folder');
  /** What the page asked of the service. */
  const asked = [];
  page.on('request', (request) => {
    const path = new URL(request.url()).pathname;
    if (path.includes('/v1/')) asked.push(`${request.method()} ${path.slice(path.indexOf('/v1/'))}`);
  });
  await page.waitForSelector('.folder-drop');
  await t.axe(page, 'an empty folder');
  const folder = await draw(page, EACH);
  const copied = readdirSync(folder).filter((_, at) => at % 24 === 0).slice(0, COPIES);
  for (const file of copied) copyFileSync(join(folder, file), join(folder, `same-${file}`));
  writeFileSync(join(folder, 'broken.png'), readFileSync(join(folder, copied[0])).subarray(0, 60));
  writeFileSync(join(folder, 'notes.txt'), 'no picture');
  try {
    await embeds(t, page, folder);
    const exported = await searches(t, page);
    await keyboard(t, page);
    await groups(t, page, copied);
    await map(t, page);
    const allowed = ['POST /v1/embeddings', 'POST /v1/embeddings/images', 'GET /v1/models', 'GET /v1/label-sets'];
    t.equal([...new Set(asked)].filter((one) => !allowed.includes(one)), [], 'nothing is stored on the service');
    await imports(t, exported, folder);
    await looks(t, exported);
    await drops(t, folder);
    await models(t, exported);
    await thousands(t, exported);
  } finally {
    rmSync(dirname(folder), { recursive: true });
  }
}

const progress = (page) => page.locator('.folder-progress .number').first().textContent();
const tiles = (page, count) => page.evaluate((wanted) => [...document.querySelectorAll('.tile')]
  .sort((a, b) => a.getAttribute('aria-posinset') - b.getAttribute('aria-posinset')).slice(0, wanted)
  .map((tile) => tile.querySelector('.tile-name').textContent), count);

async function embeds(t, page, folder) {
  page.expected(/status of 422/); // the batch with the broken file is refused as an array, and asked for as a document
  // Slowly at first: a quick machine would be done before the button is found.
  const pictures = /\/v1\/embeddings/;
  await page.route(pictures, async (route) => {
    await new Promise((resolve) => { setTimeout(resolve, 1500); });
    await route.continue();
  });
  await page.setInputFiles('input[data-kind=folder]', folder);
  await page.getByRole('button', { name: 'Pause' }).click();
  await t.until(async () => (await progress(page)).includes('paused'), 'it is paused');
  const stands = async () => {
    const before = await progress(page);
    await page.waitForTimeout(2500);
    return Number(before.split(' ')[0]) > 0 && before === await progress(page);
  };
  await t.until(stands, 'what was on its way has ended, and nothing goes on', 60000);
  const before = await progress(page);
  await page.unroute(pictures);
  t.ok(Number(before.split(' ')[0]) < COUNT, `not all are done: ${before}`);
  await page.getByRole('button', { name: 'Resume' }).click();
  await t.until(async () => (await progress(page)) === `${COUNT} pictures`, 'all pictures are embedded', 60000);
  await page.locator('.folder-failed summary').click();
  const errors = await page.locator('.folder-errors').textContent();
  t.ok(/photos\/broken\.png/.test(errors) && errors.length > 30, `the broken file is named with its error: ${errors}`);
  t.equal(await page.locator('.folder-failed summary').textContent(), '1 could not be used', 'one picture is at fault');
  await page.locator('.folder-failed summary').click();
  t.ok(await page.locator('.tile').count() < 120, 'only rows on the screen are elements');
  await t.until(async () => page.evaluate(() => {
    const canvas = document.querySelector('.tile[aria-posinset="3"] canvas');
    return canvas.getContext('2d').getImageData(80, 80, 1, 1).data[3] === 255;
  }), 'pictures are drawn');
  await t.axe(page, 'a grid of pictures');
}

async function searches(t, page) {
  const field = page.getByRole('searchbox', { name: 'Search by words' });
  // Words, as one types.
  await field.pressSequentially('guitar');
  await t.until(async () => (await page.locator('.folder-summary').textContent()).includes('“guitar”'), 'the search is for all letters');
  await t.until(async () => (await tiles(page, 10)).filter((file) => file.includes('guitar')).length >= 9, 'guitars come first');
  t.ok(/%$/.test(await page.locator('.tile[aria-posinset="1"] .tile-note').textContent()), 'words have a probability');
  // What is exported is what is searched.
  const download = page.waitForEvent('download');
  await page.getByRole('button', { name: 'Export' }).click();
  const file = readFileSync(await (await download).path());
  const [{ id, fingerprint, dimensions }] = (await (await fetch(new URL('v1/models', t.base))).json()).data;
  const exported = unpackCollection(new Uint8Array(file), { fingerprint, width: dimensions });
  t.equal(exported.pictures.length, COUNT, 'all pictures with vectors are exported');
  // A picture: it is the most like itself.
  await page.locator('.tile[aria-posinset="1"]').click();
  const chosen = await page.locator('.detail-name').textContent();
  await page.getByRole('button', { name: 'Find similar' }).click();
  await t.until(async () => (await page.locator('.folder-summary').textContent()).includes(chosen), 'the search is by the picture');
  t.equal((await tiles(page, 1))[0], chosen, 'the picture itself comes first');
  await t.axe(page, 'a search by a picture');
  // "This but …": the order is that of the sum, computed here from the service's answers.
  await field.fill('sunflower');
  await field.press('Enter');
  await page.getByRole('button', { name: 'The words are added; take them away instead' }).click();
  await field.fill('red car');
  await t.until(async () => (await page.locator('.folder-summary').textContent()).includes('− red car'), 'the third part is there');
  const texts = await (await fetch(new URL('v1/embeddings', t.base), {
    method: 'POST', headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ model: id, input: ['This is a photo of sunflower.', 'This is a photo of red car.'] }),
  })).json();
  const [plus, minus] = texts.data.map(({ embedding }) => Float32Array.from(embedding));
  const row = exported.pictures.findIndex(({ name: path }) => path.endsWith(`/${chosen}`));
  const own = exported.vectors.slice(row * dimensions, (row + 1) * dimensions);
  const query = combine([{ vector: own, weight: 1 }, { vector: unit(plus), weight: 1 }, { vector: unit(minus), weight: -1 }]);
  const scores = cosines(exported.vectors, COUNT, query);
  const shown = await tiles(page, 8);
  const close = (at) => Math.abs(scores[exported.pictures.findIndex(({ name: path }) => path.endsWith(`/${shown[at]}`))] - scores[topK(scores, 8)[at]]);
  for (let at = 0; at < 8; at += 1) t.ok(close(at) < 1e-4, `picture ${at} of the sum is ${shown[at]}`);
  await page.getByRole('button', { name: 'Leave out red car' }).waitFor({ state: 'detached' });
  for (const part of [chosen, 'sunflower']) await page.getByRole('button', { name: `Leave out ${part}` }).click();
  await field.fill('');
  await page.getByRole('button', { name: 'Close the picture' }).click();
  await t.until(async () => page.locator('.folder-summary').isHidden(), 'nothing is searched for');
  return { file, collection: exported };
}

async function keyboard(t, page) {
  await page.locator('.grid').focus();
  await page.keyboard.press('ArrowRight');
  await page.keyboard.press('ArrowDown');
  await page.keyboard.press('End');
  const active = page.locator('.tile[aria-selected="true"]');
  await t.until(async () => (await active.getAttribute('aria-posinset')) === String(COUNT + 1), 'End goes to the last');
  t.equal(await page.locator('.grid').getAttribute('aria-activedescendant'), await active.getAttribute('id'), 'a screen reader is told');
  await page.keyboard.press('Enter');
  t.equal(await page.locator('.detail-name').textContent(), await active.locator('.tile-name').textContent(), 'Enter opens it');
  await page.keyboard.press('Home');
  await t.until(async () => (await page.locator('.detail-name').textContent()) === (await tiles(page, 1))[0], 'Home goes to the first');
  await page.getByRole('button', { name: 'Close the picture' }).click();
}

async function groups(t, page, copied) {
  await page.getByRole('button', { name: 'Near-duplicates' }).click();
  const status = page.getByRole('region', { name: 'Near-duplicates' }).getByRole('status');
  await page.locator('#alike-threshold').fill('0.9999');
  await t.until(async () => /compared in/.test(await status.textContent()) && (await page.locator('.group').count()) > 0, 'groups are computed');
  const together = async () => {
    const found = await page.evaluate(() => [...document.querySelectorAll('.group')].map((group) => [...group.querySelectorAll('button')].map((button) => button.title.split('/').pop())));
    return copied.every((file) => found.some((group) => group.includes(file) && group.includes(`same-${file}`)));
  };
  await t.until(together, 'each copy is in a group with its original');
  await t.axe(page, 'near-duplicates');
}

async function map(t, page) {
  await page.getByRole('button', { name: 'Map', exact: true }).click();
  const region = page.getByRole('region', { name: 'Map' });
  await t.until(async () => /Computed in/.test(await region.getByRole('status').textContent()), 'the map is computed', 30000);
  await t.until(async () => (await region.locator('.strip-button').count()) === 12, 'the list has pictures');
  t.ok(await page.evaluate(() => {
    const canvas = document.querySelector('.map-canvas');
    const { data } = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);
    return data.some((value, at) => at % 4 === 3 && value === 255);
  }), 'something is drawn');
  // By keyboard: from the list, one picture goes to the middle and is the first of its own list.
  const last = region.locator('.strip-button').last();
  const title = await last.getAttribute('title');
  await last.focus();
  await page.keyboard.press('Enter');
  await t.until(async () => (await region.locator('.strip-button').first().getAttribute('title')) === title, 'it is in the middle');
  t.equal(await page.locator('.detail-name').textContent(), title.split('/').pop(), 'it is opened');
  for (const label of ['Closer', 'Left', 'The whole map']) await region.getByRole('button', { name: label }).click();
  await t.axe(page, 'a map');
  await page.getByRole('button', { name: 'Grid' }).click();
}

async function imports(t, { file, collection }, folder) {
  const page = await t.open('#/folder');
  let sent = 0;
  page.on('request', (request) => { sent += request.url().endsWith('/v1/embeddings/images') ? 1 : 0; });
  await page.waitForSelector('.folder-drop');
  const other = Buffer.concat(packCollection({ ...collection, fingerprint: '0'.repeat(64) }));
  await page.setInputFiles('input[data-kind=archive]', { name: 'other.zip', mimeType: 'application/zip', buffer: other });
  await page.getByText('they cannot be compared').waitFor();
  t.ok(await page.locator('.folder-drop').isVisible(), 'vectors of another model are refused');
  await page.getByRole('button', { name: 'Close the message' }).click();
  await page.setInputFiles('input[data-kind=archive]', { name: 'vectors.zip', mimeType: 'application/zip', buffer: file });
  await t.until(async () => (await progress(page)) === `${COUNT} pictures`, 'the pictures are there again');
  await page.getByRole('searchbox', { name: 'Search by words' }).fill('red apple');
  await t.until(async () => (await tiles(page, 5)).every((one) => one.includes('red-apple')), 'they are searched without their files');
  rmSync(join(folder, 'broken.png'));
  await page.setInputFiles('input[data-kind=folder]', folder);
  await t.until(async () => page.evaluate(() => !document.querySelector('.tile').classList.contains('blank')), 'dropped again, pictures are seen');
  t.equal([await progress(page), sent], [`${COUNT} pictures`, 0], 'and not embedded again');
}

/** Files that are dropped on the page, and files that are none of its business. */
async function drops(t, folder) {
  const page = await t.open('#/folder');
  await page.waitForSelector('.folder-drop');
  const bytes = readFileSync(join(folder, readdirSync(folder)[0])).toString('base64');
  const drop = (names) => page.evaluate(({ names, bytes }) => {
    const content = Uint8Array.from(atob(bytes), (char) => char.charCodeAt(0));
    const dataTransfer = new DataTransfer();
    for (const name of names) dataTransfer.items.add(new File([content], name, { type: name.endsWith('.png') ? 'image/png' : 'text/plain' }));
    for (const type of ['dragover', 'drop']) document.querySelector('.view-folder').dispatchEvent(new DragEvent(type, { dataTransfer, bubbles: true, cancelable: true }));
  }, { names, bytes });
  await drop(['notes.txt', '.hidden.png']);
  await page.getByText('There are no pictures among these files.').waitFor();
  await drop(['b10.png', 'b9.png', 'notes.txt']);
  await t.until(async () => (await progress(page)) === '2 pictures', 'the dropped pictures are embedded');
  t.equal(await tiles(page, 2), ['b9.png', 'b10.png'], 'names are in the order that people count in');
  await drop(['b9.png']);
  await page.waitForTimeout(200);
  t.equal(await progress(page), '2 pictures', 'the same file again is no other picture');
  await page.getByRole('button', { name: 'Clear' }).click();
  t.ok(await page.locator('.folder-drop').isVisible(), 'all is cleared');
}

/** A model of another embedding space: nothing is compared until the pictures are embedded by it. */
async function models(t, { file }) {
  const page = await t.open('#/folder', {
    prepare: (opened) => opened.route('**/v1/models', async (route) => {
      const answer = await (await route.fetch()).json();
      answer.data.push({ ...answer.data[0], id: 'another', fingerprint: 'f'.repeat(64) });
      await route.fulfill({ json: answer });
    }),
  });
  await page.waitForSelector('.folder-drop');
  await page.setInputFiles('input[data-kind=archive]', { name: 'vectors.zip', mimeType: 'application/zip', buffer: file });
  await t.until(async () => (await progress(page)) === `${COUNT} pictures`, 'the pictures are there');
  await page.getByLabel('Model').selectOption('another');
  await page.getByText('is of another embedding space').waitFor();
  t.ok(await page.getByRole('searchbox').isDisabled(), 'nothing can be searched by another model');
  await t.axe(page, 'another model');
  await page.getByLabel('Model').selectOption('demo');
  await page.getByText('is of another embedding space').waitFor({ state: 'hidden' });
  t.ok(await page.getByRole('searchbox').isEnabled(), 'with the first model it goes on');
}

/** Dark, and on a phone. */
async function looks(t, { file }) {
  for (const [state, options] of [['dark', { colorScheme: 'dark' }], ['phone', { viewport: { width: 390, height: 844 } }]]) {
    const page = await t.open('#/folder', options);
    await page.waitForSelector('.folder-drop');
    await t.fits(page, `an empty folder, ${state}`);
    await page.setInputFiles('input[data-kind=archive]', { name: 'vectors.zip', mimeType: 'application/zip', buffer: file });
    await page.getByRole('searchbox').fill('cat');
    await t.until(async () => (await page.locator('.tile').count()) > 0, 'pictures are there');
    await page.locator('.tile').first().click();
    await t.axe(page, `a search, ${state}`);
    await t.fits(page, `a search, ${state}`);
    await page.getByRole('button', { name: 'Close the picture' }).click();
    for (const mode of ['Near-duplicates', 'Map']) {
      await page.getByRole('button', { name: mode, exact: true }).click();
      await t.fits(page, `${mode}, ${state}`);
    }
  }
}

/** 5,000 pictures: what scrolling costs the page's thread, searching and the map. */
async function thousands(t, { collection }) {
  const count = 5000;
  const { width } = collection;
  const vectors = new Float32Array(count * width);
  for (let i = 0; i < count; i += 1) {
    const at = (i % COUNT) * width;
    vectors.set(unit(collection.vectors.subarray(at, at + width).map((x, j) => x + 0.02 * Math.sin(i * 12.9 + j * 78.2))), i * width);
  }
  const pictures = Array.from({ length: count }, (_, i) => ({ name: `many/${i}.png`, bytes: i }));
  const buffer = Buffer.concat(packCollection({ ...collection, pictures, vectors }));
  const page = await t.open('#/folder');
  await page.waitForSelector('.folder-drop');
  await page.setInputFiles('input[data-kind=archive]', { name: 'many.zip', mimeType: 'application/zip', buffer });
  await t.until(async () => (await progress(page)) === '5,000 pictures', '5,000 pictures are there');
  await page.getByRole('searchbox').fill('guitar');
  await t.until(async () => /^5,000 pictures by/.test(await page.locator('.folder-summary').textContent()), '5,000 pictures are searched');
  const search = Number(/in ([\d.]+) ms/.exec(await page.locator('.folder-summary').textContent())[1]);
  // Time of the processor, not of the clock: the machine of the test may be busy with other things.
  const devtools = await page.context().newCDPSession(page);
  await devtools.send('Performance.enable', { timeDomain: 'threadTicks' });
  const used = async () => (await devtools.send('Performance.getMetrics')).metrics.find((metric) => metric.name === 'TaskDuration').value;
  const before = await used();
  const frames = await page.evaluate(() => new Promise((resolve) => {
    const grid = document.querySelector('.grid');
    const started = performance.now();
    let frames = 0;
    const frame = () => {
      frames += 1;
      grid.scrollTop += 60;
      if (frames < 90) requestAnimationFrame(frame);
      else resolve({ rate: frames / ((performance.now() - started) / 1000), top: grid.scrollTop });
    };
    requestAnimationFrame(frame);
  }));
  const cost = ((await used()) - before) * 1000 / 90;
  t.ok(frames.top === 5400, 'the grid scrolled');
  t.ok(cost < 12, `a frame of scrolling takes ${cost.toFixed(1)} ms of the page's thread`);
  t.ok(await page.locator('.tile').count() < 120, 'only rows on the screen are elements, of 5,000, too');
  await page.getByRole('button', { name: 'Map', exact: true }).click();
  const status = page.getByRole('region', { name: 'Map' }).getByRole('status');
  await t.until(async () => /Computed in/.test(await status.textContent()), 'the map of 5,000', 90000);
  const seconds = /Computed in ([\d.]+) s/.exec(await status.textContent())[1];
  console.log(`  5,000 pictures: searched in ${search} ms, ${cost.toFixed(1)} ms of the page's thread a frame (${frames.rate.toFixed(0)} frames a second here), map in ${seconds} s`);
}
