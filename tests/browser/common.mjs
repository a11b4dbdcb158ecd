// What the browser's tests have in common. Each test is a module of its own beside this one:
//
//   export const name = 'a folder of photos';
//   export async function test(t) {
//     const page = await t.open('#/folder');        // 1280 × 800; options: { viewport, colorScheme, base }
//     await page.setInputFiles('input[type=file]', t.pictures(['red-apple', 'guitar']));
//     t.equal(await page.locator('…').count(), 2, 'two pictures are there');
//     await t.until(async () => …, 'what is waited for');
//     await t.axe(page, 'a name of the state');      // no violation
//   }
//
// Every page is watched: an error in the console, a violation of the Content-Security-Policy, an exception, or a request to another
// host fails its test. `page.expected(/pattern/)` allows console errors that a test causes.
import assert from 'node:assert/strict';
import { mkdirSync, readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const require = createRequire(import.meta.url);
const axeSource = readFileSync(require.resolve('axe-core/axe.min.js'), 'utf8');

export const repository = process.env.SIGLIP_REPOSITORY ?? join(dirname(fileURLToPath(import.meta.url)), '..', '..');
/** Where screenshots go; the README's are made where the run is told so. */
export const output = process.env.SIGLIP_SCREENSHOTS ?? '/tmp';

/** What a test holds. */
export class Tester {
  #pages = [];
  #reports = [];

  /**
   * @param {import('playwright-core').Browser} browser
   * @param {{ base: string, keyed: string, below: string, key: string }} services the service; one that asks for `key`; one below a path
   */
  constructor(browser, services) {
    this.browser = browser;
    this.services = services;
    this.base = services.base;
  }

  /** Opens a page of the playground in a context of its own. */
  async open(hash = '', { viewport = { width: 1280, height: 800 }, colorScheme = 'light', base = this.base, reducedMotion = 'no-preference', prepare, ...rest } = {}) {
    // axe is evaluated in the page, which its policy forbids to scripts of the page itself but not to the debugger's.
    const context = await this.browser.newContext({ viewport, colorScheme, reducedMotion, acceptDownloads: true, ...rest });
    const page = await context.newPage();
    const allowed = [];
    page.expected = (pattern) => allowed.push(pattern);
    const report = (what) => {
      if (!allowed.some((pattern) => pattern.test(what))) this.#reports.push(what);
    };
    page.on('console', (message) => {
      if (['error', 'warning'].includes(message.type())) report(`console ${message.type()}: ${message.text()} (${message.location().url})`);
    });
    page.on('pageerror', (error) => report(`exception: ${error.stack ?? error}`));
    page.on('request', (request) => {
      const url = new URL(request.url());
      if (!['blob:', 'data:'].includes(url.protocol) && url.origin !== new URL(base).origin) report(`request to another host: ${url}`);
    });
    await page.addInitScript(() => {
      document.addEventListener('securitypolicyviolation', (event) => console.error(`CSP: ${event.violatedDirective} ${event.blockedURI}`));
    });
    await prepare?.(page);
    this.#pages.push(context);
    await page.goto(new URL(hash, base).href, { waitUntil: 'load' });
    return page;
  }

  /** Pictures of models/demo/examples by name, as files for `setInputFiles`. */
  pictures(names) {
    return names.map((name) => join(repository, 'models/demo/examples', `${name}.png`));
  }

  /** No violation of WCAG 2.2 A and AA, nor of axe's best practices. */
  async axe(page, state) {
    await page.evaluate(axeSource);
    const violations = await page.evaluate(async () => {
      const result = await window.axe.run(document, { resultTypes: ['violations'] });
      return result.violations.map(({ id, help, nodes }) => ({ id, help, nodes: nodes.slice(0, 4).map((node) => `${node.html.slice(0, 160)}: ${node.failureSummary?.replace(/\s+/g, ' ').slice(0, 260)}`) }));
    });
    assert.deepEqual(violations, [], `axe, ${state}`);
  }

  /** Nothing is wider than the window. */
  async fits(page, state) {
    const width = await page.evaluate(() => [document.documentElement.scrollWidth, innerWidth]);
    assert.ok(width[0] <= width[1], `${state}: the page is ${width[0]} pixels wide in a window of ${width[1]}`);
  }

  /** Waits until a function gives true. */
  async until(condition, what, timeout = 30000) {
    const end = Date.now() + timeout;
    for (;;) {
      if (await condition()) return;
      assert.ok(Date.now() < end, `not within ${timeout} ms: ${what}`);
      await new Promise((resolve) => setTimeout(resolve, 40));
    }
  }

  async screenshot(page, name) {
    mkdirSync(output, { recursive: true });
    await page.screenshot({ path: join(output, `${name}.png`) });
  }

  equal(actual, expected, what) {
    assert.deepEqual(actual, expected, what);
  }

  ok(value, what) {
    assert.ok(value, what);
  }

  /** Closes the pages; what they did wrong fails the test. */
  async end() {
    for (const context of this.#pages) await context.close();
    assert.deepEqual(this.#reports, [], 'what the pages did wrong');
  }
}
