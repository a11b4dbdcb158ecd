// Runs the tests of the browser: node main.mjs SERVICES TEST…, where SERVICES is JSON and a test is a module's name.
import { chromium } from 'playwright-core';
import { Tester } from './common.mjs';

const [services, ...names] = process.argv.slice(2);
const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium',
  // As root, in a container, Chromium has no sandbox. The camera is its test picture.
  args: ['--no-sandbox', '--use-fake-device-for-media-stream', '--use-fake-ui-for-media-stream'],
});
/** Tests that measure times run alone, the others two at a time. */
const ALONE = ['live', 'folder'];
let failed = 0;

async function run(name) {
  const { name: title, test } = await import(`./${name}.mjs`);
  const tester = new Tester(browser, JSON.parse(services));
  const started = Date.now();
  let error = null;
  try {
    await test(tester);
  } catch (caught) {
    error = caught;
  }
  await tester.end().catch((caught) => { error ??= caught; });
  console.log(`${title.padEnd(48)} ${error ? 'FAILED' : 'ok'} (${((Date.now() - started) / 1000).toFixed(1)} s)`);
  if (error) {
    failed += 1;
    console.log(error.stack ?? error);
  }
}

for (const name of names.filter((one) => ALONE.includes(one))) await run(name);
const others = names.filter((one) => !ALONE.includes(one));
await Promise.all([0, 1].map(async () => {
  for (let name = others.shift(); name; name = others.shift()) await run(name);
}));
await browser.close();
process.exit(failed ? 1 : 0);
