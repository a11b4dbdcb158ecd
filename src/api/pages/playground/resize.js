// The resize that the service does (Pillow's, antialiased), on the pixels that the browser decoded. JPEG decoders and colour profiles
// differ a little between the two, so that this shows what the model sees and is not what it gets to the last bit.

/** Kernels by Pillow's names: their half width, and their value. @type {Record<string, { support: number, at: (x: number) => number }>} */
const FILTERS = {
  bilinear: { support: 1, at: (x) => Math.max(0, 1 - Math.abs(x)) },
  bicubic: {
    support: 2,
    at: (x) => {
      const a = -0.5;
      const d = Math.abs(x);
      if (d < 1) return ((a + 2) * d - (a + 3)) * d * d + 1;
      return d < 2 ? (((d - 5) * d + 8) * d - 4) * a : 0;
    },
  },
  box: { support: 0.5, at: (x) => (x > -0.5 && x <= 0.5 ? 1 : 0) },
  lanczos: { support: 3, at: (x) => (Math.abs(x) < 3 ? sinc(x) * sinc(x / 3) : 0) },
};

/** Weights are whole numbers of this part of one, as Pillow has them. */
const ONE = 2 ** 22;

/** To the nearest whole number, halves away from 0. @param {number} x */
const rounded = (x) => Math.trunc(x + (x < 0 ? -0.5 : 0.5));

/** @param {number} x */
const sinc = (x) => (x === 0 ? 1 : Math.sin(Math.PI * x) / (Math.PI * x));

/**
 * The inputs of each output along one axis, with their weights.
 * @param {number} from pixels
 * @param {number} to pixels
 * @param {string} name of the filter
 */
function taps(from, to, name) {
  const filter = FILTERS[name] ?? FILTERS.bilinear;
  const scale = from / to;
  const stretch = Math.max(scale, 1);
  const support = filter.support * stretch;
  return Array.from({ length: to }, (_, index) => {
    const centre = (index + 0.5) * scale;
    const first = Math.max(0, Math.trunc(centre - support + 0.5));
    const last = Math.min(from, Math.trunc(centre + support + 0.5));
    const weights = Array.from({ length: last - first }, (_unused, at) => filter.at((at + first - centre + 0.5) / stretch));
    const sum = weights.reduce((a, b) => a + b, 0) || 1;
    return { first, weights: weights.map((weight) => rounded((weight / sum) * ONE)) };
  });
}

/**
 * Resizes a picture in two passes, with whole levels between them.
 * @param {ImageData} picture
 * @param {number} width
 * @param {number} height
 * @param {string} filter as Pillow names it
 * @returns {ImageData}
 */
export function resize(picture, width, height, filter) {
  if (columnsFirst(picture, width, height)) return across(down(picture, height, filter), width, filter);
  return down(across(picture, width, filter), height, filter);
}

/**
 * Which pass Pillow 13 runs first, as the service has found it.
 * @param {ImageData} picture
 * @param {number} width
 * @param {number} height
 */
function columnsFirst(picture, width, height) {
  const rowsLost = picture.height - height;
  return rowsLost > 0 && rowsLost > 2 * (picture.width - width);
}

/**
 * @param {ImageData} picture
 * @param {number} width
 * @param {string} filter
 */
function across(picture, width, filter) {
  const result = new ImageData(width, picture.height);
  taps(picture.width, width, filter).forEach(({ first, weights }, x) => {
    for (let y = 0; y < picture.height; y += 1) {
      sum(result.data, 4 * (y * width + x), picture.data, 4 * (y * picture.width + first), 4, weights);
    }
  });
  return result;
}

/**
 * @param {ImageData} picture
 * @param {number} height
 * @param {string} filter
 */
function down(picture, height, filter) {
  const { width } = picture;
  const result = new ImageData(width, height);
  taps(picture.height, height, filter).forEach(({ first, weights }, y) => {
    for (let x = 0; x < width; x += 1) {
      sum(result.data, 4 * (y * width + x), picture.data, 4 * (first * width + x), 4 * width, weights);
    }
  });
  return result;
}

/**
 * @param {Uint8ClampedArray} target
 * @param {number} to
 * @param {Uint8ClampedArray} source
 * @param {number} from
 * @param {number} step
 * @param {number[]} weights
 */
function sum(target, to, source, from, step, weights) {
  let red = ONE / 2;
  let green = ONE / 2;
  let blue = ONE / 2;
  for (let i = 0, at = from; i < weights.length; i += 1, at += step) {
    red += weights[i] * source[at];
    green += weights[i] * source[at + 1];
    blue += weights[i] * source[at + 2];
  }
  // The array clamps.
  target[to] = Math.floor(red / ONE);
  target[to + 1] = Math.floor(green / ONE);
  target[to + 2] = Math.floor(blue / ONE);
  target[to + 3] = 255;
}

/**
 * The size that a NaFlex picture is brought to: multiples of a patch that keep its shape as well as the patches allow, found by the
 * search of transformers' `get_image_size_for_max_num_patches`.
 * @param {number} width
 * @param {number} height
 * @param {number} patch
 * @param {number} most patches
 */
export function naflexSize(width, height, patch, most) {
  const scaled = (/** @type {number} */ scale, /** @type {number} */ size) => Math.max(patch, Math.ceil((size * scale) / patch) * patch);
  let low = 1e-6;
  let high = 100;
  while (high - low >= 1e-5) {
    const middle = (low + high) / 2;
    const fits = (scaled(middle, height) / patch) * (scaled(middle, width) / patch) <= most;
    if (fits) low = middle;
    else high = middle;
  }
  return { width: scaled(low, width), height: scaled(low, height) };
}
