//! What is asked of labels beyond their order: a threshold for each, and whether any of them fits at all.

use std::sync::Arc;

use rayon::prelude::*;

use super::error::{ModelError, Result};
use super::labels::blocks;
use super::scores::sigmoid;
use super::zero_shot::{Activation, Ranking};
use super::{LabelSet, Match, Scores, in_pool};

/// A threshold for every label.
#[derive(Debug, Clone, PartialEq)]
pub enum Thresholds {
    /// The same for all.
    All(f32),
    /// One for each, in their order.
    Each(Arc<[f32]>),
}

/// How it is found out whether none of the labels fits.
#[derive(Debug, Clone)]
pub enum NoneTest {
    /// None has a sigmoid probability that reaches its threshold.
    Sigmoid(Thresholds),
    /// Together they have less than this share of the softmax over themselves and the negatives (NegLabel: Jiang et al.
    /// 2024, arXiv 2403.20078, equation 7, with the model's own scale as 1/τ).
    Negatives {
        /// Labels that the picture is not of if one of the set fits. They are directions, not a head.
        set: Arc<LabelSet>,
        /// Indices of negatives that do not count, ascending: those that are labels of the set, too.
        left_out: Arc<[u32]>,
        /// The share.
        threshold: f32,
    },
    /// The best label has no logit that is so far above those that the best labels of a background's pictures have.
    Background {
        /// Of the set's labels.
        levels: Arc<Levels>,
        /// In spreads of [`BestLevel`].
        threshold: f32,
    },
}

/// How high the logits of labels usually are: over pictures of all kinds, a background.
#[derive(Debug, Clone, PartialEq)]
pub struct Levels {
    /// Mean logit of each label.
    pub mean: Vec<f32>,
    /// Standard deviation of each label's logits; above 0.
    pub deviation: Vec<f32>,
    /// How high the best of them is.
    pub best: BestLevel,
}

/// How high the logits of the best labels of pictures usually are, whichever labels these are. The more labels there are, the higher
/// is the best of those that do not fit: so a picture is compared with what others get from all of them together. (Each label
/// compared with its own level, which is the higher the more often it fits, tells pictures apart less well than the plain
/// logit does: `models/demo/evaluate/none.py`.)
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BestLevel {
    /// Half of the pictures have less.
    pub median: f32,
    /// How far below the median a sixth of the pictures are, or more: one standard deviation where logits are spread normally; above
    /// 0. Pictures that a label fits are above the median, so that a few of them do not matter.
    pub spread: f32,
}

impl BestLevel {
    /// The share of a normal distribution that is more than one standard deviation below its mean.
    const BELOW: f64 = 0.1587;

    /// Of the best logits of pictures.
    fn of(mut best: Vec<f32>) -> Self {
        best.sort_unstable_by(f32::total_cmp);
        let at = |share: f64| best.get((best.len() as f64 * share) as usize).copied().unwrap_or(0.0);
        let median = at(0.5);
        Self { median, spread: (median - at(Self::BELOW)).max(1e-6) }
    }

    /// How many spreads a logit is above the median.
    fn standard(self, logit: f32) -> f32 {
        (logit - self.median) / self.spread
    }
}

impl Levels {
    /// A logit of a label in standard deviations above its mean.
    fn standard(&self, label: usize, logit: f32) -> f32 {
        (logit - self.mean[label]) / self.deviation[label]
    }

    fn fit(&self, labels: usize) -> bool {
        self.mean.len() == labels && self.deviation.len() == labels
    }

    /// The logits of a picture, each in standard deviations above its label's mean, and then, where there are several, above the
    /// mean of the picture's: labels that are high for every picture, and pictures that are high for every label, become alike.
    fn standardized(&self, logits: &[f32]) -> Vec<f32> {
        let mut standard: Vec<f32> =
            logits.iter().enumerate().map(|(label, &logit)| self.standard(label, logit)).collect();
        if standard.len() > 1 {
            let (mean, deviation) = moments(standard.iter().copied());
            standard.iter_mut().for_each(|x| *x = (*x - mean) / deviation);
        }
        standard
    }
}

/// Mean and standard deviation, which is above 0.
fn moments(values: impl Iterator<Item = f32>) -> (f32, f32) {
    let (sum, squares, count) = values
        .map(f64::from)
        .fold((0.0, 0.0, 0_usize), |(sum, squares, count), x| (sum + x, squares + x * x, count + 1));
    of_sums(sum, squares, count)
}

fn of_sums(sum: f64, squares: f64, count: usize) -> (f32, f32) {
    let mean = sum / count.max(1) as f64;
    let deviation = (squares / count.max(1) as f64 - mean * mean).max(0.0).sqrt();
    (mean as f32, deviation.max(1e-6) as f32)
}

/// What is asked of the labels of pictures.
#[derive(Debug, Clone, Default)]
pub struct Question {
    /// Which labels are answered.
    pub ranking: Ranking,
    /// What a label must reach to be answered, in scores after the activation; in place of the ranking's.
    pub thresholds: Option<Thresholds>,
    /// Whether and how it is asked if none fits.
    pub none: Option<NoneTest>,
    /// Scores are standardised logits, for each label and then for each picture, in place of the ranking's activation.
    pub standard: Option<Arc<Levels>>,
}

/// How the question was answered whether none fits.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct NoneScore {
    /// The probability or share that decides.
    pub score: f32,
    /// What it had to reach.
    pub threshold: f32,
}

impl NoneScore {
    /// Whether none of the labels fits.
    pub fn none_fits(&self) -> bool {
        self.score < self.threshold
    }
}

/// The labels of one picture.
#[derive(Debug, Clone, PartialEq)]
pub struct Judged {
    /// Those that are answered, best first.
    pub matches: Vec<Match>,
    /// Whether any fits, where that was asked.
    pub none: Option<NoneScore>,
}

impl Thresholds {
    fn of(&self, label: usize) -> f32 {
        match self {
            Self::All(threshold) => *threshold,
            Self::Each(thresholds) => thresholds[label],
        }
    }

    fn fit(&self, labels: usize) -> bool {
        match self {
            Self::All(_) => true,
            Self::Each(thresholds) => thresholds.len() == labels,
        }
    }
}

impl LabelSet {
    /// The labels of each picture that `question` selects, best first, and whether any fits.
    /// Stops with `None` as soon as `cancelled` says so; it is asked every few milliseconds.
    ///
    /// # Errors
    /// As [`LabelSet::cosines`]; if thresholds or negatives do not fit the set.
    pub fn judge(
        &self,
        pictures: &[Arc<[f32]>],
        scores: Scores,
        question: &Question,
        cancelled: &dyn Fn() -> bool,
    ) -> Result<Option<Vec<Judged>>> {
        let mut longest = self.len();
        let mut fits = question.thresholds.as_ref().is_none_or(|thresholds| thresholds.fit(self.len()));
        match &question.none {
            Some(NoneTest::Sigmoid(thresholds)) => fits &= thresholds.fit(self.len()),
            Some(NoneTest::Negatives { set, .. }) => {
                fits &= !set.is_head() && !self.is_head() && set.space() == self.space();
                longest = longest.max(set.len());
            }
            Some(NoneTest::Background { levels, .. }) => fits &= levels.fit(self.len()),
            None => {}
        }
        fits &= question.standard.as_ref().is_none_or(|levels| levels.fit(self.len()));
        if !fits {
            let message = "thresholds, negatives or levels that do not fit the labels";
            return Err(ModelError::Input(message.to_owned()));
        }
        let mut judged = Vec::with_capacity(pictures.len());
        for block in blocks(pictures, longest) {
            if cancelled() {
                return Ok(None);
            }
            judged.append(&mut in_pool(|| self.judge_block(block, scores, question))?);
        }
        Ok(Some(judged))
    }

    fn judge_block(
        &self,
        pictures: &[Arc<[f32]>],
        scores: Scores,
        question: &Question,
    ) -> Result<Vec<Judged>> {
        let logits = self.logits(pictures, scores)?;
        let negatives = match &question.none {
            Some(NoneTest::Negatives { set, .. }) => set.logits(pictures, scores)?,
            _ => Vec::new(),
        };
        let each = logits.par_chunks_exact(self.len()).enumerate().map(|(picture, logits)| {
            let none = question.none.as_ref().map(|test| match test {
                NoneTest::Sigmoid(thresholds) => by_sigmoid(logits, thresholds),
                NoneTest::Negatives { set, left_out, threshold } => {
                    let negatives = &negatives[picture * set.len()..][..set.len()];
                    NoneScore { score: share(logits, negatives, left_out), threshold: *threshold }
                }
                NoneTest::Background { levels, threshold } => {
                    NoneScore { score: levels.best.standard(highest(logits)), threshold: *threshold }
                }
            });
            Judged { matches: question.select(logits), none }
        });
        Ok(each.collect())
    }

    /// How high the logits of these labels are over the pictures of a background. Stops with `None` as soon as `cancelled` says
    /// so; it is asked every few milliseconds.
    ///
    /// # Errors
    /// As [`LabelSet::cosines`].
    pub fn levels(
        &self,
        pictures: &[Arc<[f32]>],
        scores: Scores,
        cancelled: &dyn Fn() -> bool,
    ) -> Result<Option<Levels>> {
        let mut sums = vec![(0.0_f64, 0.0_f64); self.len()];
        let mut best = Vec::with_capacity(pictures.len());
        for block in blocks(pictures, self.len()) {
            if cancelled() {
                return Ok(None);
            }
            for logits in in_pool(|| self.logits(block, scores))?.chunks_exact(self.len()) {
                best.push(highest(logits));
                for ((sum, squares), &logit) in sums.iter_mut().zip(logits) {
                    *sum += f64::from(logit);
                    *squares += f64::from(logit) * f64::from(logit);
                }
            }
        }
        let each = sums.into_iter().map(|(sum, squares)| of_sums(sum, squares, pictures.len()));
        let (mean, deviation) = each.unzip();
        Ok(Some(Levels { mean, deviation, best: BestLevel::of(best) }))
    }
}

impl Question {
    fn select(&self, logits: &[f32]) -> Vec<Match> {
        if let Some(levels) = &self.standard {
            return self.select_standard(logits, &levels.standardized(logits));
        }
        match &self.thresholds {
            None => self.ranking.select(logits),
            Some(thresholds) => self.ranking.select_above(logits, Some(|label| thresholds.of(label))),
        }
    }

    /// Standardised logits are ranked, compared with thresholds and are the scores; each label keeps its own logit.
    fn select_standard(&self, logits: &[f32], standard: &[f32]) -> Vec<Match> {
        let ranking = Ranking { activation: Activation::None, ..self.ranking };
        let mut matches = match &self.thresholds {
            None => ranking.select(standard),
            Some(thresholds) => ranking.select_above(standard, Some(|label| thresholds.of(label))),
        };
        matches.iter_mut().for_each(|found| found.logit = logits[found.label]);
        matches
    }
}

fn highest(logits: &[f32]) -> f32 {
    logits.iter().copied().fold(f32::NEG_INFINITY, f32::max)
}

/// The best label that reaches its threshold; where none does, the best label.
fn by_sigmoid(logits: &[f32], thresholds: &Thresholds) -> NoneScore {
    let best = |labels: &mut dyn Iterator<Item = usize>| {
        labels.max_by(|&a, &b| logits[a].total_cmp(&logits[b]).then(b.cmp(&a)))
    };
    let reaches = |&label: &usize| sigmoid(logits[label]) >= thresholds.of(label);
    let label = match thresholds {
        Thresholds::All(_) => best(&mut (0..logits.len())),
        Thresholds::Each(_) => {
            best(&mut (0..logits.len()).filter(reaches)).or_else(|| best(&mut (0..logits.len())))
        }
    };
    let label = label.unwrap_or(0);
    NoneScore { score: sigmoid(logits[label]), threshold: thresholds.of(label) }
}

/// The share of the labels in the softmax over labels, negatives and the model's own no, a logit of 0, which is what a
/// sigmoid compares a label with; `left_out` ascends.
fn share(labels: &[f32], negatives: &[f32], left_out: &[u32]) -> f32 {
    let mut left_out = left_out.iter().map(|&index| index as usize).peekable();
    let counted = negatives.iter().enumerate().filter(|(index, _)| left_out.next_if_eq(index).is_none());
    let negatives = log_sum_exp(counted.map(|(_, &logit)| logit).chain([0.0]));
    let labels = log_sum_exp(labels.iter().copied());
    (1.0 / (1.0 + (negatives - labels).exp())) as f32
}

/// `ln Σ exp(x)`, in one pass; −∞ of nothing.
fn log_sum_exp(values: impl Iterator<Item = f32>) -> f64 {
    let (mut max, mut sum) = (f64::NEG_INFINITY, 0.0);
    for value in values.map(f64::from) {
        if value <= max {
            sum += (value - max).exp();
        } else {
            sum = sum * (max - value).exp() + 1.0;
            max = value;
        }
    }
    max + sum.ln()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCORES: Scores = Scores { scale: 10.0, bias: -5.0 };

    /// Labels along the axes of four dimensions, one for each index.
    fn axes(axes: &[usize]) -> LabelSet {
        let names: Arc<[Arc<str>]> = axes.iter().map(|axis| Arc::from(format!("axis {axis}"))).collect();
        let rows: Vec<f32> =
            axes.iter().flat_map(|&axis| (0..4).map(move |i| if i == axis { 1.0 } else { 0.0 })).collect();
        LabelSet::of_directions(names, &rows, "space".into()).unwrap()
    }

    fn picture(values: [f32; 4]) -> Arc<[f32]> {
        Arc::from(values)
    }

    fn judge(set: &LabelSet, picture: Arc<[f32]>, question: &Question) -> Judged {
        set.judge(&[picture], SCORES, question, &|| false).unwrap().unwrap().remove(0)
    }

    #[test]
    fn each_label_has_its_threshold() {
        // Cosines 0.8 and 0.6: logits 3 and 1, probabilities 0.953 and 0.731.
        let (set, it) = (axes(&[0, 1]), picture([0.8, 0.6, 0.0, 0.0]));
        let labels = |thresholds: Option<Thresholds>, ranking: Ranking| -> Vec<usize> {
            let question = Question { ranking, thresholds, ..Question::default() };
            judge(&set, Arc::clone(&it), &question).matches.iter().map(|m| m.label).collect()
        };
        let each = |a: f32, b: f32| Some(Thresholds::Each(vec![a, b].into()));
        let any = Ranking::default();
        assert_eq!(labels(None, any), [0, 1]);
        assert_eq!(labels(each(0.99, 0.7), any), [1]);
        assert_eq!(labels(each(0.9, 0.8), any), [0]);
        assert_eq!(labels(Some(Thresholds::All(0.96)), any), [0; 0]);
        // In place of the ranking's own, which leaves out both.
        let strict = Ranking { threshold: Some(0.99), ..any };
        assert_eq!(labels(None, strict), [0; 0]);
        assert_eq!(labels(each(0.9, 0.8), strict), [0]);
        // Of a softmax, shares: 0.881 and 0.119.
        let softmax = Ranking { activation: Activation::Softmax, ..any };
        assert_eq!(labels(each(0.9, 0.1), softmax), [1]);
    }

    #[test]
    fn none_fits_where_no_label_reaches_its_threshold() {
        let (set, it) = (axes(&[0, 1]), picture([0.8, 0.6, 0.0, 0.0]));
        let none = |thresholds: Thresholds| {
            let question = Question { none: Some(NoneTest::Sigmoid(thresholds)), ..Question::default() };
            judge(&set, Arc::clone(&it), &question).none.unwrap()
        };
        let all = none(Thresholds::All(0.9));
        assert!(!all.none_fits() && (all.score - 0.9526).abs() < 1e-4, "{all:?}");
        assert!(none(Thresholds::All(0.96)).none_fits());
        // The second label decides, since the best does not reach its own.
        let second = none(Thresholds::Each(vec![0.99, 0.7].into()));
        assert!(!second.none_fits() && (second.score - 0.7311).abs() < 1e-4, "{second:?}");
        let neither = none(Thresholds::Each(vec![0.99, 0.8].into()));
        assert!(neither.none_fits() && neither.threshold == 0.99);
    }

    #[test]
    fn negatives_take_their_share_unless_they_are_left_out() {
        let (set, it) = (axes(&[0, 1]), picture([0.8, 0.6, 0.0, 0.0]));
        let share = |negatives: &[usize], left_out: &[u32]| {
            let none = NoneTest::Negatives {
                set: Arc::new(axes(negatives)),
                left_out: left_out.into(),
                threshold: 0.5,
            };
            let question = Question { none: Some(none), ..Question::default() };
            judge(&set, Arc::clone(&it), &question).none.unwrap().score
        };
        // exp of 10 times each cosine.
        let e = |x: f32| (10.0 * x).exp();
        // The model's own no, without the bias that all the others have.
        let no = (-SCORES.bias).exp();
        let (own, zero) = (e(0.8) + e(0.6), e(0.0) + no);
        assert!((share(&[2, 3], &[]) - own / (own + e(0.0) + zero)).abs() < 1e-5);
        assert!((share(&[0, 2], &[]) - own / (own + e(0.8) + zero)).abs() < 1e-5);
        assert!((share(&[0, 2], &[0]) - own / (own + zero)).abs() < 1e-5);
        assert!(
            (share(&[0, 2], &[0, 1]) - own / (own + no)).abs() < 1e-5,
            "only the model itself speaks against it"
        );
    }

    #[test]
    fn logits_are_measured_against_a_background() {
        let set = axes(&[0, 1]);
        // Label 0 is high for every picture, label 1 for one in three.
        let background =
            [[0.8, 0.0, 0.6, 0.0], [0.8, 0.0, 0.0, 0.6], [0.8, 0.6, 0.0, 0.0], [0.6, 0.0, 0.8, 0.0]]
                .map(picture);
        let levels = set.levels(&background, SCORES, &|| false).unwrap().unwrap();
        let close = |a: f32, b: f32| assert!((a - b).abs() < 1e-4, "{a} {b}");
        // Cosines 0.8 0.8 0.8 0.6 and 0 0 0.6 0; logits are 10 times them less 5.
        close(levels.mean[0], 2.5);
        close(levels.mean[1], -3.5);
        close(levels.deviation[0], 10.0 * 0.0075_f32.sqrt());
        close(levels.deviation[1], 10.0 * 0.0675_f32.sqrt());
        // The best of them: 3 3 3 1.
        close(levels.best.median, 3.0);
        close(levels.best.spread, 2.0);
        assert!(set.levels(&background, SCORES, &|| true).unwrap().is_none());
        let levels = Arc::new(levels);

        let it = picture([0.8, 0.6, 0.0, 0.0]);
        // Logits of 5, 3 and −5.
        for (picture, score) in
            [([0.0, 1.0, 0.0, 0.0], 1.0), ([0.8, 0.6, 0.0, 0.0], 0.0), ([0.0, 0.0, 1.0, 0.0], -4.0)]
        {
            let none = NoneTest::Background { levels: Arc::clone(&levels), threshold: 0.5 };
            let question = Question { none: Some(none), ..Question::default() };
            let none = judge(&set, Arc::from(picture), &question).none.unwrap();
            close(none.score, score);
            assert_eq!(none.none_fits(), score < 0.5);
        }

        let question = Question { standard: Some(Arc::clone(&levels)), ..Question::default() };
        let judged = judge(&set, Arc::clone(&it), &question).matches;
        assert_eq!((judged[0].label, judged[1].label), (1, 0));
        // Of two numbers, one is a standard deviation above their mean and one below it.
        close(judged[0].score, 1.0);
        close(judged[1].score, -1.0);
        close(judged[0].logit, 1.0);
        let ranking = Ranking { threshold: Some(0.5), ..Ranking::default() };
        let above = Question { standard: Some(Arc::clone(&levels)), ranking, ..Question::default() };
        assert_eq!(judge(&set, Arc::clone(&it), &above).matches.len(), 1);
        let other = axes(&[0, 1, 2]);
        assert!(other.judge(&[it], SCORES, &question, &|| false).is_err());
        // A label that is alike for all pictures has no deviation to divide by.
        let flat = axes(&[3]).levels(&background[2..], SCORES, &|| false).unwrap().unwrap();
        assert!(flat.deviation[0] > 0.0 && flat.standard(0, -5.0).is_finite());
        assert!(flat.best.spread > 0.0 && flat.best.standard(-5.0).is_finite());
    }

    #[test]
    fn what_does_not_fit_the_set_is_refused() {
        let (set, it) = (axes(&[0, 1]), picture([1.0, 0.0, 0.0, 0.0]));
        let refused = |question: Question| {
            assert!(set.judge(&[Arc::clone(&it)], SCORES, &question, &|| false).is_err(), "{question:?}");
        };
        let each = Thresholds::Each(vec![0.5].into());
        refused(Question { thresholds: Some(each.clone()), ..Question::default() });
        refused(Question { none: Some(NoneTest::Sigmoid(each)), ..Question::default() });
        let names: Arc<[Arc<str>]> = vec![Arc::from("x")].into();
        let other = LabelSet::of_directions(names, &[1.0, 0.0, 0.0, 0.0], "other".into()).unwrap();
        let none = NoneTest::Negatives { set: Arc::new(other), left_out: Arc::from([]), threshold: 0.5 };
        refused(Question { none: Some(none), ..Question::default() });
        let stopped = set.judge(&[it], SCORES, &Question::default(), &|| true);
        assert!(stopped.unwrap().is_none());
    }

    #[test]
    fn sums_of_exponentials_do_not_overflow() {
        let values = [1000.0_f32, 999.0, -1000.0];
        assert!((log_sum_exp(values.into_iter()) - (1000.0 + (1.0 + (-1.0_f64).exp()).ln())).abs() < 1e-6);
        assert_eq!(log_sum_exp(std::iter::empty()), f64::NEG_INFINITY);
        assert_eq!(share(&[1000.0], &[-1000.0], &[]), 1.0);
        assert_eq!(share(&[-1000.0], &[1000.0], &[]), 0.0);
    }
}
