// Pictures that ship with the page: drawings of our own, in the domain of the embedded model.

/** The files' names are what is drawn. */
const NAMES = ['red-apple', 'cat-face', 'red-car', 'sunflower', 'house', 'rainbow'];
/** Pixels of a side. */
const SIDE = 256;

/** @type {Promise<File[]> | null} */
let loaded = null;

/**
 * The samples as PNG files: the service reads no SVG.
 * @returns {Promise<File[]>}
 */
export function loadSamples() {
  loaded ??= Promise.all(NAMES.map(draw)).catch((error) => {
    loaded = null;
    throw error;
  });
  return loaded;
}

/**
 * @param {string} name
 * @returns {Promise<File>}
 */
async function draw(name) {
  const picture = new Image(SIDE, SIDE);
  picture.src = new URL(`sample-${name}.svg`, import.meta.url).href;
  await picture.decode();
  const canvas = document.createElement('canvas');
  canvas.width = canvas.height = SIDE;
  const context = canvas.getContext('2d');
  if (!context) throw new Error('this browser has no canvas');
  context.fillStyle = '#fff';
  context.fillRect(0, 0, SIDE, SIDE);
  context.drawImage(picture, 0, 0, SIDE, SIDE);
  const blob = await new Promise((resolve) => canvas.toBlob(resolve, 'image/png'));
  if (!(blob instanceof Blob)) throw new Error(`the sample ${name} cannot be drawn`);
  return new File([blob], `${name}.png`, { type: 'image/png' });
}
