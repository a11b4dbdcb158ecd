// From cosines to what people read: logits, probabilities, and how long a bar is.

/**
 * @typedef {'sigmoid' | 'softmax' | 'cosine' | 'logit'} Mode
 * @typedef {import('./types.d.ts').Model} Model
 */

/** @type {{ mode: Mode, name: string, about: string }[]} */
export const MODES = [
  { mode: 'sigmoid', name: 'Sigmoid', about: 'Each label’s own probability: the sigmoid of its logit. They need not add up to 1.' },
  { mode: 'softmax', name: 'Softmax', about: 'Shares among these labels: they add up to 1 whether or not one of them fits.' },
  { mode: 'cosine', name: 'Cosine', about: 'The cosine of the picture’s and the label’s vectors. The mark is where the probability is ½.' },
  { mode: 'logit', name: 'Logit', about: 'Scale · cosine + bias. The mark is 0, where the probability is ½.' },
];

/** Logits at the ends of a bar. */
const SPAN = 15;

/**
 * The dot product of two vectors, which is the cosine where both are of length 1.
 * @param {Float32Array} a
 * @param {Float32Array} b
 */
export function dot(a, b) {
  let sum = 0;
  for (let i = 0; i < a.length; i += 1) sum += a[i] * b[i];
  return sum;
}

/** @param {number} x */
export const sigmoid = (x) => 1 / (1 + Math.exp(-x));

/** @param {number} p between 0 and 1 */
export const oddsOf = (p) => Math.log(p / (1 - p));

/**
 * The softmax of logits.
 * @param {number[]} logits
 */
export function softmax(logits) {
  const most = Math.max(...logits);
  const powers = logits.map((logit) => Math.exp(logit - most));
  const sum = powers.reduce((a, b) => a + b, 0);
  return powers.map((power) => power / sum);
}

/** Whether the model's cosines become probabilities. @param {Model} model */
export const hasProbabilities = (model) => model.logit_scale !== null && model.logit_bias !== null;

/**
 * @param {Model} model
 * @param {number} cosine
 */
export const logitOf = (model, cosine) => (model.logit_scale ?? 1) * cosine + (model.logit_bias ?? 0);

/**
 * One label's score.
 * @typedef {object} Score
 * @property {number} value in the unit of the mode
 * @property {number} share how long its bar is, 0 to 1
 * @property {string} text
 * @property {number | null} probability its sigmoid probability, whatever the mode is
 */

/**
 * Scores of labels by their cosines with one picture.
 * @param {Model} model
 * @param {Mode} mode
 * @param {number[]} cosines
 * @returns {Score[]}
 */
export function scoresOf(model, mode, cosines) {
  const known = hasProbabilities(model);
  const logits = cosines.map((cosine) => logitOf(model, cosine));
  const shares = mode === 'softmax' ? softmax(logits) : [];
  return cosines.map((cosine, index) => {
    const probability = known ? sigmoid(logits[index]) : null;
    if (mode === 'cosine' || !known) {
      return { value: cosine, share: clamp(cosine / cosineEnd(model)), text: signed(cosine, 3), probability };
    }
    if (mode === 'logit') {
      const value = logits[index];
      return { value, share: clamp((value + SPAN) / (2 * SPAN)), text: signed(value, 2), probability };
    }
    const value = mode === 'softmax' ? shares[index] : sigmoid(logits[index]);
    return { value, share: clamp(value), text: percent(value), probability };
  });
}

/**
 * Where on a bar the mark of a mode is, 0 to 1; null for none.
 * @param {Model} model
 * @param {Mode} mode
 * @param {number} threshold a probability
 */
export function markOf(model, mode, threshold) {
  if (!hasProbabilities(model)) return null;
  if (mode === 'sigmoid') return threshold;
  if (mode === 'logit') return 0.5;
  return mode === 'cosine' ? clamp(-(model.logit_bias ?? 0) / (model.logit_scale ?? 1) / cosineEnd(model)) : null;
}

/** The cosine at the end of a bar: twice that of probability ½, at most 1. @param {Model} model */
function cosineEnd(model) {
  if (!hasProbabilities(model)) return 1;
  const half = -(model.logit_bias ?? 0) / (model.logit_scale ?? 1);
  return half > 0.05 ? Math.min(1, 2 * half) : 1;
}

/** @param {number} value */
const clamp = (value) => Math.max(0, Math.min(1, value));

/**
 * @param {number} value
 * @param {number} digits
 */
const signed = (value, digits) => `${value < 0 ? '−' : ''}${Math.abs(value).toFixed(digits)}`;

/**
 * A probability as people read it: two digits that say something.
 * @param {number} p
 */
export function percent(p) {
  const hundred = 100 * p;
  if (hundred >= 99.95) return '100 %';
  if (hundred >= 10) return `${hundred.toFixed(1)} %`;
  if (hundred >= 0.1) return `${hundred.toFixed(2)} %`;
  if (hundred >= 0.001) return `${hundred.toFixed(3)} %`;
  return '< 0.001 %';
}
