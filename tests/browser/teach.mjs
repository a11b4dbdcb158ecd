// Part 5 of the playground: pictures make a made-up label work; sets are saved, opened, replaced and deleted.
import { readdirSync, rmSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { draw } from './folder-pictures.mjs';

export const name = 'teaching labels by pictures';

const EACH = 6;
/** Sets of this run, in case that another uses the same service. */
const SET = `taught-${process.pid}`;
const AGAIN = `${SET}-again`;

export async function test(t) {
  const page = await t.open('#/teach');
  await page.waitForSelector('.teach-drop');
  await t.axe(page, 'nothing to teach yet');
  const folder = await draw(page, EACH);
  try {
    await page.getByLabel('Another label').fill('guitar, zorp');
    await page.keyboard.press('Enter');
    await takes(t, page, folder);
    await teaches(t, page);
    await takesBack(t, page);
    await manages(t, page);
    await none(t, page);
    await conflicts(t, page);
    await earlier(t, page, folder);
    await looks(t, folder);
    await fromFolder(t);
  } finally {
    rmSync(dirname(folder), { recursive: true });
    await fetch(new URL(`v1/label-sets/${SET}`, t.base), { method: 'DELETE' });
    await fetch(new URL(`v1/label-sets/${AGAIN}`, t.base), { method: 'DELETE' });
  }
}

const column = (page, label) => page.locator(`.column[data-label="${label}"]`);
const free = (page, file) => page.locator(`.tray-pictures button[title^="${file}.png"]`);
const stored = async (t, set) => (await fetch(new URL(`v1/label-sets/${set}`, t.base))).json();
const saved = (page) => page.locator('.stored').textContent();

async function takes(t, page, folder) {
  const files = readdirSync(folder).filter((file) => /guitar|red-car|sunflower/.test(file)).map((file) => join(folder, file));
  await page.locator('.view-teach input[type=file]').setInputFiles(files);
  await t.until(async () => (await page.locator('#tray-title + span').textContent()).startsWith(`${files.length},`), 'all pictures are embedded', 60000);
  await t.until(async () => (await free(page, 'guitar-0').locator('.tile-note').textContent()) === 'guitar', 'words say guitar of a guitar');
}

async function teaches(t, page) {
  // By the number of the label, by a button for several, and by the mouse.
  for (const file of ['guitar-0', 'guitar-1', 'guitar-2']) {
    await free(page, file).focus();
    await page.keyboard.press('1');
    await free(page, file).waitFor({ state: 'detached' });
  }
  t.equal(await page.evaluate(() => document.activeElement.closest('.tray-pictures') !== null), true, 'the focus stays among the pictures');
  for (const file of ['red-car-0', 'red-car-1']) await free(page, file).click();
  await page.locator('.tray-give').getByRole('button', { name: 'zorp' }).click();
  for (const file of ['red-car-2', 'red-car-3']) await free(page, file).dragTo(column(page, 'zorp'));
  t.equal([await column(page, 'guitar').locator('.strip-button').count(), await column(page, 'zorp').locator('.strip-button').count()], [3, 4], 'the examples of both labels');
  await t.axe(page, 'labels with examples');
  await page.getByLabel('Label set', { exact: true }).fill(SET);
  await page.getByRole('button', { name: 'Save and measure' }).click();
  await page.locator('.teach-measured').waitFor({ timeout: 60000 });
  const shares = await page.locator('.teach-measured .number').allTextContents();
  const [before, after] = shares.map((text) => parseInt(text, 10));
  t.ok(before < after && after === 100, `examples improve the made-up label: ${before} % before, ${after} % after`);
  t.ok(/^0/.test(await column(page, 'zorp').locator('.number').first().textContent()), 'the words of the made-up label are right for none');
  t.equal(await column(page, 'zorp').locator('.number').last().textContent(), '100 %', 'its examples are right for all');
  await t.until(async () => (await saved(page)) === 'Saved.', 'it says that it is saved');
  const set = await stored(t, SET);
  t.equal([set.labels, set.examples], [2, 7], 'what the service has');
  for (const file of ['red-car-4', 'red-car-5']) {
    t.equal(await free(page, file).locator('.tile-note').textContent(), 'zorp', `${file} is recognised by the others`);
  }
  await t.axe(page, 'measured');
}

async function takesBack(t, page) {
  await column(page, 'zorp').locator('.strip-button').first().focus();
  await page.keyboard.press('Enter');
  t.equal(await page.evaluate(() => document.activeElement.closest('.column')?.dataset.label), 'zorp', 'the focus stays in the column');
  t.equal(await column(page, 'zorp').locator('.strip-button').count(), 3, 'one example less');
  t.equal(await saved(page), 'Not saved yet.', 'it says that this is not saved');
  await page.getByRole('button', { name: 'Save and measure' }).click();
  await t.until(async () => (await saved(page)) === 'Saved.', 'it is saved');
  t.equal((await stored(t, SET)).examples, 6, 'the service forgot it');
}

async function manages(t, page) {
  await page.getByLabel('Label set', { exact: true }).fill(AGAIN);
  await page.getByRole('button', { name: 'Save and measure' }).click();
  await page.locator(`tr[data-set="${AGAIN}"]`).waitFor();
  t.equal((await stored(t, AGAIN)).examples, 6, 'under another name it has the same examples');
  await page.getByRole('button', { name: 'New', exact: true }).click();
  t.equal(await page.locator('.column[data-label]').count(), 0, 'a new set has no labels');
  await page.getByRole('button', { name: `Open ${AGAIN}` }).click();
  await t.until(async () => (await page.locator('.column[data-label]').count()) === 2, 'the set is opened');
  t.ok((await page.locator('.teach-summary').textContent()).includes('6 examples'), 'it says what the service has');
  await page.getByRole('button', { name: `Delete ${AGAIN}` }).click();
  await page.getByRole('button', { name: 'Cancel' }).click();
  t.equal((await stored(t, AGAIN)).examples, 6, 'it asks before it deletes');
  await page.getByRole('button', { name: `Delete ${AGAIN}` }).click();
  await t.axe(page, 'a question');
  await page.getByRole('button', { name: 'Delete it' }).click();
  await page.locator(`tr[data-set="${AGAIN}"]`).waitFor({ state: 'detached' });
  t.equal((await stored(t, AGAIN)).error.code, 'label_set_not_found', 'it is deleted');
  await page.getByRole('button', { name: `Open ${SET}`, exact: true }).click();
  await t.until(async () => (await page.getByLabel('Label set', { exact: true }).inputValue()) === SET, 'the other one is opened');
}

/** What the page says of a picture is what the service says. */
async function none(t, page) {
  await t.until(async () => (await saved(page)) === 'Saved.', 'what was opened is saved');
  await page.getByLabel('None of these').check();
  t.equal(await saved(page), 'Not saved yet.', 'the rule is not saved yet');
  await page.getByRole('button', { name: 'Save and measure' }).click();
  await t.until(async () => (await stored(t, SET)).definition.none === true, 'the set has the rule');
  await t.until(async () => (await saved(page)) === 'Saved.', 'it is saved');
  const shown = await page.evaluate(() => [...document.querySelectorAll('.tray-pictures button')].map((button) => button.querySelector('.tile-note').textContent));
  t.ok(shown.includes('none of these'), `sunflowers are none of these: ${shown}`);
  t.ok(shown.includes('guitar') && shown.includes('zorp'), `and the others are found: ${shown}`);
}

async function conflicts(t, page) {
  page.expected(/status of 412/);
  const other = await fetch(new URL(`v1/label-sets/${SET}?wait=true`, t.base), {
    method: 'PUT', headers: { 'content-type': 'application/json' }, body: JSON.stringify({ labels: ['guitar', 'drum'] }),
  });
  t.equal(other.status, 200, 'somebody else changed the set');
  await page.getByRole('button', { name: 'Save and measure' }).click();
  await page.getByText('was changed by somebody else').waitFor();
  await page.getByRole('button', { name: 'Cancel' }).click();
  t.equal((await stored(t, SET)).definition.labels, ['guitar', 'drum'], 'it asks before it replaces');
  await page.getByRole('button', { name: 'Save and measure' }).click();
  await page.getByRole('button', { name: 'Replace it' }).click();
  await t.until(async () => (await stored(t, SET)).definition.labels.includes('zorp'), 'it is replaced');
}

/** Examples of an earlier time, of which the page has no pictures, are not lost unasked. */
async function earlier(t, page, folder) {
  await t.until(async () => (await saved(page)) === 'Saved.', 'it is saved');
  await free(page, 'guitar-5').focus();
  await page.keyboard.press('1');
  await page.getByRole('button', { name: 'Save and measure' }).click();
  await t.until(async () => (await stored(t, SET)).examples === 1, 'the service has one example');
  const later = await t.open('#/teach');
  await later.getByRole('button', { name: `Open ${SET}`, exact: true }).click();
  await later.locator('.view-teach input[type=file]').setInputFiles([0, 1].map((number) => join(folder, `guitar-${number}.png`)));
  for (const number of [0, 1]) {
    await t.until(async () => (await free(later, `guitar-${number}`).locator('.tile-note').count()) === 1, 'it is embedded');
    await free(later, `guitar-${number}`).focus();
    await later.keyboard.press('1');
  }
  await later.getByRole('button', { name: 'Save and measure' }).click();
  await later.getByText('2 examples, 1 more on the service').waitFor();
  await column(later, 'guitar').locator('.strip-button').first().click();
  await later.getByRole('button', { name: 'Save and measure' }).click();
  await later.getByText('would be lost, too').waitFor();
  await later.getByRole('button', { name: 'Cancel' }).click();
  t.equal((await stored(t, SET)).examples, 3, 'nothing is lost unasked');
  await later.getByRole('button', { name: 'Save and measure' }).click();
  await later.getByRole('button', { name: 'Save and lose them' }).click();
  await t.until(async () => (await stored(t, SET)).examples === 1, 'the example that is left is there');
}

/** Dark, and on a phone. */
async function looks(t, folder) {
  for (const [state, options] of [['dark', { colorScheme: 'dark' }], ['phone', { viewport: { width: 390, height: 844 } }]]) {
    const page = await t.open('#/teach', options);
    await page.waitForSelector('.teach-drop');
    await t.fits(page, `nothing to teach, ${state}`);
    await page.getByRole('button', { name: `Open ${SET}`, exact: true }).click();
    await page.locator('.view-teach input[type=file]').setInputFiles([join(folder, 'guitar-0.png'), join(folder, 'red-car-0.png')]);
    await t.until(async () => (await page.locator('.tray-pictures .tile-note').count()) === 2, 'pictures with labels');
    await free(page, 'guitar-0').click();
    await t.axe(page, `pictures, ${state}`);
    await t.fits(page, `pictures, ${state}`);
  }
}

/** Pictures of the folder are taken with their vectors: they are not embedded twice. A name that is being typed stays. */
async function fromFolder(t) {
  const page = await t.open('#/folder');
  let sent = 0;
  page.on('request', (request) => { sent += request.url().endsWith('/v1/embeddings/images') ? 1 : 0; });
  await page.getByRole('button', { name: 'Take the samples' }).click();
  const text = page.locator('.folder-progress .number').first();
  await t.until(async () => /^[1-9]\d* pictures$/.test(await text.textContent()), 'the samples are embedded');
  const samples = parseInt(await text.textContent(), 10);
  await page.locator('#nav').getByText('Teach').click();
  await page.getByLabel('Another label').fill('thing');
  await page.keyboard.press('Enter');
  const label = page.getByLabel('Name of label 1');
  await label.press('End');
  await label.pressSequentially('s and more');
  await page.evaluate(() => [...document.querySelectorAll('.view-teach button')].find((button) => button.textContent === 'From the folder').click());
  await t.until(async () => (await page.locator('.tray-pictures button').count()) === samples, 'the pictures are there');
  t.equal(sent, 1, 'they were embedded once');
  t.equal(await label.inputValue(), 'things and more', 'what is typed stays');
  await label.press('Enter');
  await t.until(async () => (await page.locator('.column[data-label="things and more"]').count()) === 1, 'the label has its new name');
}
