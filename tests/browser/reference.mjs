// The reference of all routes, each with a form.
import { readFileSync } from 'node:fs';

export const name = 'the reference, with try-it for every route';

export async function test(t) {
  const page = await t.open('docs');
  const contract = await (await fetch(new URL('openapi.json', t.base))).json();
  const routes = Object.entries(contract.paths).flatMap(([path, item]) => Object.values(item).map((operation) => ({ path, id: operation.operationId })));
  await page.locator(`#operation-${routes[0].id}`).waitFor();
  t.equal((await page.locator('.operation[id]').count()), routes.length, 'every route of the contract');
  for (const { id } of routes) {
    const operation = page.locator(`#operation-${id}`);
    await operation.locator('> summary').click();
    await operation.getByRole('button', { name: 'Send' }).waitFor();
  }
  await t.axe(page, 'the reference with every route open');
  t.ok((await page.getByText('text-embeddings-inference').count()) > 0, 'other services’ routes are listed');

  const models = page.locator('#operation-list_models');
  await models.getByRole('button', { name: 'Send' }).click();
  await t.until(async () => (await models.locator('.trying .good').textContent().catch(() => '')) === '200', 'the list of models');
  t.ok((await models.locator('.trying pre').textContent()).includes('"id": "demo"'), 'its answer');
  const one = page.locator('#operation-get_model');
  await one.getByRole('button', { name: 'Send' }).click();
  await t.until(async () => (await one.locator('.trying pre').textContent().catch(() => '')).includes('"fingerprint"'), 'a parameter in the path');
  const texts = page.locator('#operation-tokenize');
  await texts.getByRole('button', { name: 'Send' }).click();
  await t.until(async () => (await texts.locator('.trying pre').textContent().catch(() => '')).includes('"canonical": "a photo of a cat"'), 'the example of a body works');

  const classify = page.locator('#operation-classify');
  await classify.getByLabel('Send as').selectOption('multipart/form-data');
  await classify.locator('input[type=file]').setInputFiles(t.pictures(['red-apple']));
  await classify.getByRole('button', { name: 'Send' }).click();
  await t.until(async () => (await classify.locator('.trying pre').textContent().catch(() => '')).includes('"prediction": "red apple"'), 'a form with a file');

  const embed = page.locator('#operation-create_embeddings');
  await embed.getByLabel('Answer as').selectOption('application/x-npy');
  const [download] = await Promise.all([
    (async () => {
      await embed.getByRole('button', { name: 'Send' }).click();
      const link = embed.getByRole('link', { name: 'Save' });
      await link.waitFor();
      const saved = page.waitForEvent('download');
      await link.click();
      return saved;
    })(),
  ]);
  t.equal(download.suggestedFilename(), 'answer.npy', 'an array can be saved');
  t.equal(readFileSync(await download.path()).subarray(1, 6).toString(), 'NUMPY', 'and is one');

  // What is refused is shown as it came.
  page.expected(/400/);
  await embed.getByLabel('JSON').fill('{"input": ');
  await embed.getByRole('button', { name: 'Send' }).click();
  await t.until(async () => (await embed.locator('.trying .bad').textContent().catch(() => '')) === '400', 'an error of the service');
  t.ok((await embed.locator('.trying pre').textContent()).includes('malformed_json'), 'with its code');

  await page.getByLabel('Find').fill('heat');
  await t.until(async () => (await page.locator('.operation[id]:visible').count()) < 4, 'the search leaves few routes');
  t.ok(await page.locator('#operation-create_heatmaps').isVisible(), 'the right one');
}
