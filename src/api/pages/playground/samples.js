// Pictures that ship with the page: drawings of our own, in the domain of the embedded model.

/** The files' names are what is drawn. */
const NAMES = ['red-apple', 'cat-face', 'red-car', 'sunflower', 'house', 'rainbow'];
/** Pixels of a side. */
const SIDE = 256;

/** What is in the quarters of one more sample: a picture in which there is something to look for. */
const QUARTERS = ['sunflower', 'red-car', 'cat-face', 'red-apple'];

/** @type {Promise<File[]> | null} */
let loaded = null;

/**
 * The samples as PNG files: the service reads no SVG.
 * @returns {Promise<File[]>}
 */
export function loadSamples() {
  loaded ??= draw().catch((error) => {
    loaded = null;
    throw error;
  });
  return loaded;
}

async function draw() {
  const drawings = new Map(await Promise.all(NAMES.map(async (name) => {
    const drawing = new Image(SIDE, SIDE);
    drawing.src = new URL(`sample-${name}.svg`, import.meta.url).href;
    await drawing.decode();
    return /** @type {[string, HTMLImageElement]} */ ([name, drawing]);
  })));
  const whole = (/** @type {string} */ name) => file(name, SIDE, (context) => {
    context.drawImage(/** @type {HTMLImageElement} */ (drawings.get(name)), 0, 0, SIDE, SIDE);
  });
  const quarters = file('four-things', 2 * SIDE, (context) => QUARTERS.forEach((name, index) => {
    const drawing = /** @type {HTMLImageElement} */ (drawings.get(name));
    context.drawImage(drawing, SIDE * (index % 2) + 16, SIDE * (index >> 1) + 16, SIDE - 32, SIDE - 32);
  }));
  return Promise.all([...NAMES.map(whole), quarters]);
}

/**
 * A square picture on white.
 * @param {string} name
 * @param {number} side
 * @param {(context: CanvasRenderingContext2D) => void} paint
 * @returns {Promise<File>}
 */
async function file(name, side, paint) {
  const canvas = document.createElement('canvas');
  canvas.width = canvas.height = side;
  const context = canvas.getContext('2d');
  if (!context) throw new Error('this browser has no canvas');
  context.fillStyle = '#fff';
  context.fillRect(0, 0, side, side);
  paint(context);
  const blob = await new Promise((resolve) => canvas.toBlob(resolve, 'image/png'));
  if (!(blob instanceof Blob)) throw new Error(`the sample ${name} cannot be drawn`);
  return new File([blob], `${name}.png`, { type: 'image/png' });
}
