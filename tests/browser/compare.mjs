// Two models side by side.
export const name = 'two models side by side';

export async function test(t) {
  const page = await t.open('#/compare');
  const side = (model) => page.getByRole('region', { name: `Model ${model}`, exact: true });
  await t.until(async () => (await side('B').locator('.times td').count()) > 4, 'both models have answered');
  t.equal([await side('A').locator('select').inputValue(), await side('B').locator('select').inputValue()], ['demo', 'second'], 'the two models');
  t.ok((await page.getByText('The same embedding space').count()) === 1, 'what their vectors are to each other');
  t.equal(await side('A').locator('.label .words').first().textContent(), 'red apple', 'the best label of the sample');
  t.equal(await side('A').locator('.score').allTextContents(), await side('B').locator('.score').allTextContents(), 'the same weights have the same scores');
  await page.setInputFiles('#compare-file', t.pictures(['guitar']));
  await page.getByLabel('Labels, one a line').fill('red apple\nguitar\nhouse');
  for (const model of ['A', 'B']) await t.until(async () => (await side(model).locator('.label .words').first().textContent()) === 'guitar', `model ${model} finds the guitar`);
  await page.getByRole('button', { name: /Measure/ }).click();
  await t.until(async () => (await side('B').locator('th.number').textContent()).includes('median of 7'), 'medians of seven');
  const times = (await side('A').locator('tbody td.number').allTextContents()).map(Number);
  t.equal(times.length, 6, 'five stages and their sum');
  t.ok(times[2] > 0 && times[5] > times[2], `inference is a part of the whole: ${times}`);
  const facts = await side('A').locator('.facts').textContent();
  const { data: [model] } = await (await fetch(new URL('v1/models', t.base))).json();
  t.ok(facts.includes(model.fingerprint.slice(0, 16)) && facts.includes(String(model.dimensions)), `the model's facts: ${facts}`);
  await t.axe(page, 'Compare');
}
