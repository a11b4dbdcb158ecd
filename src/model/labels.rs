//! A set of labels and the scores of pictures against it: one matrix product for a batch of pictures.

use std::fmt;
use std::sync::Arc;

use candle_core::CpuStorage;
use rayon::prelude::*;

use super::error::Result;
use super::scores::{l2_normalize, sigmoid};
use super::zero_shot::{Activation, Ranking, mean_direction};
use super::{Scores, in_pool};
use crate::ops::WeightFormat;
use crate::ops::cpu::linear::Finish;
use crate::ops::cpu::{Isa, PackedWeight};

/// Scores that are held at once while pictures are ranked: 4 MiB of f32.
const BLOCK: usize = 1 << 20;

/// Labels in one embedding space: their names and their directions, packed for the product with pictures.
///
/// The product is computed on the processor in f32, whatever the towers run in: it costs little beside a tower, and
/// cosines of vectors that bf16 towers gave should not lose more.
pub struct LabelSet {
    names: Arc<[Arc<str>]>,
    space: Arc<str>,
    width: usize,
    /// Rows `[labels, width]`; of a set that is no head they are about of length 1.
    directions: PackedWeight,
    affine: Option<Affine>,
}

/// Labels whose logits are products with their rows plus a bias of each, whatever the model's scale and bias are.
#[derive(Debug, Clone)]
struct Affine {
    bias: Arc<[f32]>,
    /// Whether pictures are divided by their length first.
    normalize: bool,
    /// Whether the logits are not those of the model's pairs of pictures and texts.
    is_head: bool,
}

/// One label of a picture.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Match {
    /// Index of the label in its set.
    pub label: usize,
    /// `cosine · scale + bias`.
    pub logit: f32,
    /// The logit after the activation.
    pub score: f32,
}

impl LabelSet {
    /// From the embeddings of each label's texts, `templates` of them per label, one label after the other. A label's
    /// direction is the [`mean_direction`] of its texts. `space` is the fingerprint of the model that gave them.
    ///
    /// # Errors
    /// If there is no label, or the number or the width of the embeddings does not fit.
    pub fn new(
        names: Arc<[Arc<str>]>,
        texts: &[Arc<[f32]>],
        templates: usize,
        space: Arc<str>,
    ) -> Result<Self> {
        let width = texts.first().map_or(0, |text| text.len());
        let fits = names.len().checked_mul(templates) == Some(texts.len());
        if width == 0 || !fits || texts.iter().any(|text| text.len() != width) {
            return Err(candle_core::Error::Msg(format!(
                "{} embeddings of width {width} for {} labels of {templates} texts",
                texts.len(),
                names.len()
            ))
            .into());
        }
        let mut rows = vec![0.0; names.len() * width];
        rows.par_chunks_exact_mut(width).zip(texts.par_chunks(templates)).for_each(|(row, texts)| {
            row.copy_from_slice(&mean_direction(texts.iter().map(|text| &text[..])));
        });
        Self::of_directions(names, &rows, space)
    }

    /// From directions `[labels, width]` that are ready: of length 1, or of another where a label's cosines are to be
    /// stretched by it.
    ///
    /// # Errors
    /// If there is no label, or the rows do not fit the names.
    pub fn of_directions(names: Arc<[Arc<str>]>, rows: &[f32], space: Arc<str>) -> Result<Self> {
        let width = rows.len().checked_div(names.len()).unwrap_or(0);
        if width == 0 || width * names.len() != rows.len() {
            let message = format!("{} values for {} labels", rows.len(), names.len());
            return Err(candle_core::Error::Msg(message).into());
        }
        let directions = PackedWeight::new(rows, names.len(), width, WeightFormat::F32, Isa::active())?;
        Ok(Self { names, space, width, directions, affine: None })
    }

    /// A linear head over embeddings: the logit of a label is its row of `[labels, width]` times the embedding, plus
    /// its bias; the model's scale and bias have no part in it.
    ///
    /// # Errors
    /// If there is no label, or rows or biases do not fit the names.
    pub fn of_head(
        names: Arc<[Arc<str>]>,
        rows: &[f32],
        bias: Arc<[f32]>,
        normalize: bool,
        space: Arc<str>,
    ) -> Result<Self> {
        Self::affine(names, rows, Affine { bias, normalize, is_head: true }, space)
    }

    /// Directions `[labels, width]` whose logits are made with a scale and a bias of each label: the rows are directions
    /// times that scale. Where labels were fitted to examples, cosines are on another level than those of texts.
    ///
    /// # Errors
    /// As [`LabelSet::of_head`].
    pub fn of_scaled(
        names: Arc<[Arc<str>]>,
        rows: &[f32],
        bias: Arc<[f32]>,
        space: Arc<str>,
    ) -> Result<Self> {
        Self::affine(names, rows, Affine { bias, normalize: true, is_head: false }, space)
    }

    fn affine(names: Arc<[Arc<str>]>, rows: &[f32], affine: Affine, space: Arc<str>) -> Result<Self> {
        if affine.bias.len() != names.len() {
            let message = format!("{} biases for {} labels", affine.bias.len(), names.len());
            return Err(candle_core::Error::Msg(message).into());
        }
        Ok(Self { affine: Some(affine), ..Self::of_directions(names, rows, space)? })
    }

    /// Whether it is a head: its logits are its own, not those of pairs of pictures and texts.
    pub fn is_head(&self) -> bool {
        self.affine.as_ref().is_some_and(|affine| affine.is_head)
    }

    /// Width of the embeddings that it is compared with.
    pub fn width(&self) -> usize {
        self.width
    }

    /// The rows `[labels, width]` as they were given, out of their packed form: it multiplies them with the unit vectors.
    ///
    /// # Errors
    /// If the product fails.
    pub fn rows(&self) -> Result<Vec<f32>> {
        const AT_ONCE: usize = 16;
        let mut rows = vec![0.0; self.len() * self.width];
        for first in (0..self.width).step_by(AT_ONCE) {
            let count = AT_ONCE.min(self.width - first);
            let mut units = vec![0.0; count * self.width];
            (0..count).for_each(|i| units[i * self.width + first + i] = 1.0);
            let columns = self.products(&units, count)?;
            for (i, column) in columns.chunks_exact(self.len()).enumerate() {
                column.iter().enumerate().for_each(|(label, &x)| rows[label * self.width + first + i] = x);
            }
        }
        Ok(rows)
    }

    /// What the labels are called.
    pub fn names(&self) -> &Arc<[Arc<str>]> {
        &self.names
    }

    /// Number of labels; at least one.
    #[expect(clippy::len_without_is_empty, reason = "a set without labels cannot be made")]
    pub fn len(&self) -> usize {
        self.names.len()
    }

    /// Fingerprint of the model whose pictures these labels can be compared with.
    pub fn space(&self) -> &Arc<str> {
        &self.space
    }

    /// Cosine of every picture with every label, `[pictures, labels]`; 0 where a vector is zero. Pictures need not be
    /// of length 1. Errors of rounding are below 1e-6. Of a head or
    /// a scaled set, its products without its biases.
    ///
    /// # Errors
    /// If a picture has another width than the labels.
    pub fn cosines(&self, pictures: &[Arc<[f32]>]) -> Result<Vec<f32>> {
        if let Some(picture) = pictures.iter().find(|picture| picture.len() != self.width) {
            let message = format!("a picture of width {} for labels of {}", picture.len(), self.width);
            return Err(candle_core::Error::Msg(message).into());
        }
        let mut rows = vec![0.0; pictures.len() * self.width];
        let normalize = self.affine.as_ref().is_none_or(|affine| affine.normalize);
        rows.par_chunks_exact_mut(self.width).zip(pictures).for_each(|(row, picture)| {
            row.copy_from_slice(picture);
            if normalize {
                l2_normalize(row);
            }
        });
        self.products(&rows, pictures.len())
    }

    fn products(&self, rows: &[f32], count: usize) -> Result<Vec<f32>> {
        let plain = Finish { bias: None, activation: None, centre: None, residual: None };
        match self.directions.forward::<f32>(rows, count, plain, false)? {
            CpuStorage::F32(products) => Ok(products),
            _ => Err(candle_core::Error::Msg("a product in f32 gave another type".to_owned()).into()),
        }
    }

    /// Logit of every picture with every label, `[pictures, labels]`: `cosine · scale + bias`, or what the
    /// set's own rows and biases give.
    ///
    /// # Errors
    /// As [`LabelSet::cosines`].
    pub fn logits(&self, pictures: &[Arc<[f32]>], scores: Scores) -> Result<Vec<f32>> {
        let mut logits = self.cosines(pictures)?;
        logits.par_chunks_exact_mut(self.len()).for_each(|logits| match &self.affine {
            None => logits.iter_mut().for_each(|x| *x = scores.logit(*x)),
            Some(affine) => logits.iter_mut().zip(&*affine.bias).for_each(|(x, bias)| *x += bias),
        });
        Ok(logits)
    }

    /// What [`LabelSet::cosines`] gives for a label, as the cosine of a text that has the same logit. It differs only in a set
    /// that was fitted to examples; of a head there is no such cosine.
    pub fn level(&self, label: usize, product: f32, scores: Scores) -> f32 {
        match &self.affine {
            None => product,
            Some(affine) => (product + affine.bias[label] - scores.bias) / scores.scale,
        }
    }

    /// [`LabelSet::cosines`] that stops with `None` as soon as `cancelled` says so; it is asked every few milliseconds.
    ///
    /// # Errors
    /// As [`LabelSet::cosines`].
    pub fn all_cosines(
        &self,
        pictures: &[Arc<[f32]>],
        cancelled: &dyn Fn() -> bool,
    ) -> Result<Option<Vec<f32>>> {
        let mut cosines = Vec::with_capacity(pictures.len() * self.len());
        for block in self.blocks(pictures) {
            if cancelled() {
                return Ok(None);
            }
            cosines.append(&mut in_pool(|| self.cosines(block))?);
        }
        Ok(Some(cosines))
    }

    /// Pictures in runs of about [`BLOCK`] scores.
    fn blocks<'a>(&self, pictures: &'a [Arc<[f32]>]) -> impl Iterator<Item = &'a [Arc<[f32]>]> + use<'a> {
        blocks(pictures, self.len())
    }
}

impl fmt::Debug for LabelSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LabelSet({} labels of width {})", self.len(), self.width)
    }
}

/// Pictures in runs of about [`BLOCK`] scores with `labels` labels.
pub(super) fn blocks(
    pictures: &[Arc<[f32]>],
    labels: usize,
) -> impl Iterator<Item = &[Arc<[f32]>]> + use<'_> {
    pictures.chunks((BLOCK / labels).max(1))
}

impl Ranking {
    /// The labels to answer, best first; labels with equal logits stay in their order. Only what is selected is sorted:
    /// the best 5 of 100,000 labels take one pass over them.
    pub fn select(&self, logits: &[f32]) -> Vec<Match> {
        self.select_above(logits, self.threshold.map(|threshold| move |_| threshold))
    }

    /// [`Ranking::select`] with a threshold for each label in place of the one for all.
    pub(super) fn select_above(
        &self,
        logits: &[f32],
        threshold: Option<impl Fn(usize) -> f32>,
    ) -> Vec<Match> {
        let score = self.scores(logits);
        // By the logit: sigmoid saturates, and labels that differ would come out in the order they were sent in.
        let best_first = |&a: &usize, &b: &usize| logits[b].total_cmp(&logits[a]).then(a.cmp(&b));
        let top_k = self.top_k.unwrap_or(usize::MAX);
        // Of the labels so far the best are kept, and not many more: few of a hundred thousand are ever looked at twice.
        let most = top_k.saturating_mul(2).clamp(64, logits.len().max(64));
        let (mut order, mut least) = (Vec::with_capacity(most), f32::NEG_INFINITY);
        for (label, &logit) in logits.iter().enumerate() {
            if logit < least || threshold.as_ref().is_some_and(|least| score(logit) < least(label)) {
                continue;
            }
            order.push(label);
            if order.len() == most && top_k < most {
                order.select_nth_unstable_by(top_k, best_first);
                // The best of those that are left out.
                least = logits[order[top_k]];
                order.truncate(top_k);
            }
        }
        order.sort_unstable_by(best_first);
        order.truncate(top_k);
        let matches = order.into_iter().map(|label| {
            let logit = logits[label];
            Match { label, logit, score: score(logit) }
        });
        matches.collect()
    }

    /// What turns a logit of these into its score.
    fn scores(&self, logits: &[f32]) -> impl Fn(f32) -> f32 + use<> {
        let activation = self.activation;
        let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let sum = match activation {
            Activation::Softmax => logits.iter().map(|x| f64::from(x - max).exp()).sum(),
            Activation::Sigmoid | Activation::None => 1.0,
        };
        move |logit| match activation {
            Activation::Sigmoid => sigmoid(logit),
            Activation::Softmax => (f64::from(logit - max).exp() / sum) as f32,
            Activation::None => logit,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Question;
    use crate::model::scores::softmax;

    const WIDTH: usize = 768;

    fn vectors(count: usize, width: usize, seed: u64) -> Vec<Arc<[f32]>> {
        let mut state = seed;
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            ((state >> 40) as f32 / (1u64 << 24) as f32) * 2.0 - 1.0
        };
        (0..count).map(|_| (0..width).map(|_| 30.0 * next()).collect()).collect()
    }

    fn names(count: usize) -> Arc<[Arc<str>]> {
        (0..count).map(|i| Arc::from(format!("label {i}"))).collect()
    }

    fn set(texts: &[Arc<[f32]>], templates: usize) -> LabelSet {
        LabelSet::new(names(texts.len() / templates), texts, templates, "space".into()).unwrap()
    }

    fn cosine_f64(a: &[f32], b: &[f32]) -> f64 {
        let dot =
            |x: &[f32], y: &[f32]| x.iter().zip(y).map(|(&p, &q)| f64::from(p) * f64::from(q)).sum::<f64>();
        dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
    }

    #[test]
    fn cosines_are_those_of_double_precision() {
        for (labels, pictures) in [(1, 1), (1000, 7), (3, 200)] {
            let (texts, pictures) = (vectors(labels, WIDTH, 1), vectors(pictures, WIDTH, 2));
            let cosines = set(&texts, 1).cosines(&pictures).unwrap();
            for (row, picture) in cosines.chunks_exact(labels).zip(&pictures) {
                for (cosine, text) in row.iter().zip(&texts) {
                    assert!((f64::from(*cosine) - cosine_f64(picture, text)).abs() < 1e-6);
                }
            }
        }
        // Vectors that point the same way, where errors would show most.
        let texts = vectors(5, WIDTH, 3);
        let cosines = set(&texts, 1).cosines(&texts).unwrap();
        assert!((0..5).all(|i| (cosines[i * 5 + i] - 1.0).abs() < 1e-6), "{cosines:?}");
    }

    #[test]
    fn a_direction_is_the_mean_over_the_templates() {
        let texts = vectors(6, 8, 4);
        let picture = vectors(1, 8, 5);
        let cosines = set(&texts, 3).cosines(&picture).unwrap();
        for (cosine, texts) in cosines.iter().zip(texts.chunks(3)) {
            let direction = mean_direction(texts.iter().map(|text| &text[..]));
            assert!((f64::from(*cosine) - cosine_f64(&picture[0], &direction)).abs() < 1e-6);
        }
        let zero: Arc<[f32]> = vec![0.0; 8].into();
        assert_eq!(set(&texts, 3).cosines(&[zero]).unwrap(), [0.0, 0.0]);
    }

    #[test]
    fn rows_come_back_as_they_went_in() {
        for (labels, width) in [(1, 5), (7, 40), (300, 17)] {
            let rows = vectors(labels, width, 9).concat();
            let set = LabelSet::of_directions(names(labels), &rows, "space".into()).unwrap();
            assert_eq!(set.rows().unwrap(), rows);
        }
    }

    #[test]
    fn a_head_has_logits_of_its_own() {
        let (rows, picture) = (vectors(3, 8, 1), vectors(1, 8, 2));
        let scores = Scores { scale: 100.0, bias: -10.0 };
        let bias: Arc<[f32]> = vec![1.0, -2.0, 0.5].into();
        for normalize in [true, false] {
            let head =
                LabelSet::of_head(names(3), &rows.concat(), Arc::clone(&bias), normalize, "space".into());
            let logits = head.unwrap().logits(&picture, scores).unwrap();
            let mut picture = picture[0].to_vec();
            if normalize {
                l2_normalize(&mut picture);
            }
            for ((logit, row), bias) in logits.iter().zip(&rows).zip(&*bias) {
                let product =
                    row.iter().zip(&picture).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
                let wanted = product + f64::from(*bias);
                assert!(
                    (f64::from(*logit) - wanted).abs() < 1e-4 * wanted.abs().max(1.0),
                    "{logit} {wanted}"
                );
            }
        }
        let short = LabelSet::of_head(names(3), &rows.concat(), vec![1.0].into(), true, "space".into());
        assert!(short.is_err());
    }

    #[test]
    fn shapes_that_do_not_fit_are_refused() {
        let texts = vectors(4, 8, 1);
        for (labels, texts, templates) in [(3, &texts[..], 1), (4, &texts[..], 2), (0, &[][..], 1)] {
            assert!(LabelSet::new(names(labels), texts, templates, "space".into()).is_err());
        }
        let mixed = [vectors(1, 8, 1), vectors(1, 9, 1)].concat();
        assert!(LabelSet::new(names(2), &mixed, 1, "space".into()).is_err());
        assert!(set(&texts, 1).cosines(&vectors(1, 9, 1)).is_err());
        assert!(set(&texts, 1).cosines(&[]).unwrap().is_empty());
    }

    #[test]
    fn the_best_of_very_many_labels_are_those_of_a_full_sort() {
        let (labels, pictures) = (vectors(100_000, 16, 6), vectors(30, 16, 7));
        let set = set(&labels, 1);
        let scores = Scores { scale: 100.0, bias: -10.0 };
        for activation in [Activation::Sigmoid, Activation::Softmax, Activation::None] {
            let all = Ranking { activation, ..Ranking::default() };
            let top = Ranking { top_k: Some(10), ..all };
            let matches = |ranking| {
                let question = Question { ranking, ..Question::default() };
                let judged = set.judge(&pictures[..1], scores, &question, &|| false).unwrap().unwrap();
                judged[0].matches.clone()
            };
            let (full, best) = (matches(all), matches(top));
            assert_eq!((full.len(), best.len()), (100_000, 10));
            assert_eq!(best, full[..10]);
            assert!(full.windows(2).all(|pair| pair[0].logit >= pair[1].logit));
        }
        // Thirty pictures are three blocks; the second is not computed.
        let asked = std::cell::Cell::new(0);
        let cancelled = || asked.replace(asked.get() + 1) == 1;
        assert!(set.judge(&pictures, scores, &Question::default(), &cancelled).unwrap().is_none());
        assert_eq!(asked.get(), 2);
    }

    #[test]
    fn order_is_kept_where_probabilities_saturate() {
        let ranking = Ranking::default();
        let order = |ranking: Ranking, logits: &[f32]| -> Vec<usize> {
            ranking.select(logits).into_iter().map(|m| m.label).collect()
        };
        assert_eq!(order(ranking, &[40.0, 60.0, 50.0, 50.0]), [1, 2, 3, 0]);
        let top = Ranking { top_k: Some(2), threshold: Some(0.5), ..ranking };
        assert_eq!(order(top, &[-1.0, 0.0, 3.0, 2.0]), [2, 3]);
        assert_eq!(order(top, &[-1.0]), [0; 0]);
        assert_eq!(order(Ranking { top_k: Some(0), ..ranking }, &[1.0]), [0; 0]);
    }

    #[test]
    fn whatever_the_order_of_the_logits_the_best_are_found() {
        // Ascending, so that each is better than all before; descending; and few values that come again and again.
        let ascending: Vec<f32> = (0..1000).map(|i| i as f32).collect();
        let descending = ascending.iter().rev().copied().collect();
        let equal = (0..1000).map(|i| (i * 7919 % 5) as f32).collect();
        for logits in [ascending, descending, equal] {
            let all = Ranking { activation: Activation::None, ..Ranking::default() }.select(&logits);
            for top_k in [0, 1, 5, 31, 32, 33, 500, 999, 1000, 2000] {
                for threshold in [None, Some(2.0)] {
                    let ranking = Ranking { activation: Activation::None, top_k: Some(top_k), threshold };
                    let passing = all.iter().filter(|found| threshold.is_none_or(|t| found.score >= t));
                    let wanted: Vec<Match> = passing.take(top_k).copied().collect();
                    assert_eq!(ranking.select(&logits), wanted, "{top_k} {threshold:?}");
                }
            }
        }
    }

    #[test]
    fn a_softmax_is_over_all_labels_whatever_is_selected() {
        let logits = [1000.0, 999.0, -1000.0];
        let ranking = Ranking { activation: Activation::Softmax, top_k: Some(2), threshold: None };
        let shares: Vec<f32> = ranking.select(&logits).into_iter().map(|m| m.score).collect();
        assert!(shares.iter().zip(softmax(&logits)).all(|(a, b)| (a - b).abs() < 1e-6));
    }
}
