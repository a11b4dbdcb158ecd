// Pictures for the tests of a folder and of teaching: the examples of the embedded model, drawn again on other backgrounds, in other
// sizes and a little turned.
import { mkdirSync, mkdtempSync, readFileSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { repository } from './common.mjs';

export const KINDS = ['cat-face', 'flag-japan', 'guitar', 'red-apple', 'red-car', 'sunflower'];

/**
 * Draws `count` pictures of each kind and writes them as `<kind>-<number>.png` into a new folder.
 * @param {import('playwright-core').Page} page any page: its canvas draws
 * @returns {Promise<string>} the folder
 */
export async function draw(page, count) {
  const sources = KINDS.map((kind) => readFileSync(join(repository, 'models/demo/examples', `${kind}.png`)).toString('base64'));
  const drawn = await page.evaluate(async ({ sources, count }) => {
    const side = 96;
    const canvas = new OffscreenCanvas(side, side);
    const context = canvas.getContext('2d');
    const all = [];
    for (const [kind, source] of sources.entries()) {
      const bytes = Uint8Array.from(atob(source), (char) => char.charCodeAt(0));
      const picture = await createImageBitmap(new Blob([bytes], { type: 'image/png' }));
      for (let i = 0; i < count; i += 1) {
        context.resetTransform();
        context.fillStyle = `hsl(${(i * 47 + kind * 13) % 360} 45% ${92 - (i % 4) * 5}%)`;
        context.fillRect(0, 0, side, side);
        context.translate(side / 2 + (i % 5) - 2, side / 2 + (i % 3) - 1);
        context.rotate((((i * 7) % 11) - 5) * 0.03);
        const size = side * (0.72 + 0.04 * (i % 7));
        context.drawImage(picture, -size / 2, -size / 2, size, size);
        const out = new Uint8Array(await (await canvas.convertToBlob({ type: 'image/png' })).arrayBuffer());
        let text = '';
        for (const byte of out) text += String.fromCharCode(byte);
        all.push(btoa(text));
      }
    }
    return all;
  }, { sources, count });
  const folder = join(mkdtempSync(join(tmpdir(), 'siglip-pictures-')), 'photos');
  mkdirSync(folder);
  drawn.forEach((picture, at) => {
    writeFileSync(join(folder, `${KINDS[Math.floor(at / count)]}-${at % count}.png`), Buffer.from(picture, 'base64'));
  });
  return folder;
}
