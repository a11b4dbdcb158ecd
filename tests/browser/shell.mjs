// What is around the views: themes, phones, a path in front, what the pages may do; and the screenshots.
export const name = 'themes, phone, base path, policy';

const VIEWS = ['live', 'folder', 'teach', 'compare', 'reference'];
const PHONE = { width: 390, height: 844 };

/** The first view with its bars and a heat map. */
async function ready(t, page) {
  await t.until(async () => {
    const captions = await page.locator('.shot .caption').allTextContents();
    return captions.length === 7 && captions.every((text) => text !== '…');
  }, 'the samples are embedded');
  await t.until(async () => (await page.locator('.texts li').count()) > 0, 'the texts are tokenised');
}

export async function test(t) {
  for (const scheme of ['light', 'dark']) {
    const page = await t.open('', { viewport: { width: 1160, height: 650 }, colorScheme: scheme });
    await ready(t, page);
    if (scheme === 'light') await t.screenshot(page, 'playground-light');
    await page.getByRole('button', { name: 'four-things.png', exact: true }).click();
    await page.getByRole('button', { name: 'Softmax' }).click();
    await page.getByRole('button', { name: 'Where is car?' }).click();
    await page.locator('.heat').waitFor();
    await t.axe(page, `${scheme}, with a heat map`);
    await page.mouse.move(1, 1);
    await page.evaluate(() => document.activeElement.blur());
    if (scheme === 'dark') await t.screenshot(page, 'playground-dark');
    for (const view of VIEWS) {
      await page.locator(`a.tab[href="#/${view}"]`).click();
      await page.locator(`.view-${view}:visible`).waitFor();
      await t.axe(page, `${scheme}, ${view}`);
    }
  }
  const phone = await t.open('', { viewport: PHONE, hasTouch: true, isMobile: true, deviceScaleFactor: 2, reducedMotion: 'reduce' });
  await ready(t, phone);
  await t.screenshot(phone, 'playground-phone');
  for (const view of VIEWS) {
    await phone.locator(`a.tab[href="#/${view}"]`).tap();
    await phone.locator(`.view-${view}:visible`).waitFor();
    await t.fits(phone, `${view} at 390 × 844`);
    await t.axe(phone, `${view} at 390 × 844`);
    const small = await phone.evaluate(() => [...document.querySelectorAll('#nav a, main button, main select')]
      .filter((one) => one.checkVisibility() && one.getBoundingClientRect().width > 0)
      .filter((one) => Math.min(one.getBoundingClientRect().width, one.getBoundingClientRect().height) < 20).map((one) => one.outerHTML.slice(0, 120)));
    t.equal(small, [], `${view}: what a finger cannot hit`);
  }
  await keyboard(t);
  await themes(t);
  await below(t);
}

/** The first view by the keyboard alone. */
async function keyboard(t) {
  const page = await t.open('');
  await ready(t, page);
  await page.keyboard.press('Tab');
  t.equal(await page.evaluate(() => document.activeElement.className), 'skip', 'the first stop skips the navigation');
  await page.keyboard.press('Enter');
  t.equal(await page.evaluate(() => document.activeElement.id), 'main', 'and goes to the content');
  await page.locator('.pick').first().focus();
  await page.keyboard.press('Tab');
  await page.keyboard.press('Tab');
  await page.keyboard.press('Enter');
  t.equal(await page.locator('.pick').nth(1).getAttribute('aria-pressed'), 'true', 'a picture is chosen by Enter');
  t.ok(await page.locator('.pick').nth(1).evaluate((button) => button === document.activeElement), 'and keeps the focus');
}

/** A theme that is chosen stays. */
async function themes(t) {
  const page = await t.open('');
  const background = () => page.evaluate(() => getComputedStyle(document.body).backgroundColor);
  const light = await background();
  await page.getByRole('button', { name: 'Theme: auto' }).click();
  await page.getByRole('button', { name: 'Theme: light' }).click();
  await page.getByRole('button', { name: 'Theme: dark' }).waitFor();
  t.ok((await background()) !== light, 'dark is not light');
  await page.reload();
  await page.getByRole('button', { name: 'Theme: dark' }).waitFor();
  t.ok((await background()) !== light, 'and is so after the page is loaded again');
}

/** Behind a path, with and without a slash at its end; the policy is what it should be, and forbids what it should. */
async function below(t) {
  const page = await t.open('', { base: t.services.below });
  t.equal(new URL(page.url()).pathname, '/siglip/', 'the path gets its slash');
  await ready(t, page);
  const { policy, cached } = await page.evaluate(async () => {
    const answer = await fetch('./', { headers: { accept: 'text/html' } });
    const script = await fetch(document.querySelector('script').src);
    return { policy: answer.headers.get('content-security-policy'), cached: script.headers.get('cache-control') };
  });
  t.ok(policy.includes("default-src 'none'") && policy.includes("frame-ancestors 'none'") && !policy.includes('unsafe'), policy);
  t.ok(cached.includes('immutable'), cached);
  page.expected(/CSP|Content Security Policy|violates/);
  t.ok(await page.evaluate(() => {
    const script = document.createElement('script');
    script.textContent = 'window.wrong = true';
    document.head.append(script);
    return window.wrong === undefined;
  }), 'a script that somebody puts into the page does not run');
  await page.locator('a.tab[href="#/reference"]').click();
  await page.locator('#operation-classify').waitFor();
  t.equal(await page.getByText('text-embeddings-inference').count(), 0, 'dialects that are not served are not listed');
}
