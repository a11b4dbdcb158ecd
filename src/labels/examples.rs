//! Labels that fit examples: words and pictures combined in closed form.
//!
//! The direction of a label with examples is `w_c = unit(4 · p_c · t_c + n_c · unit(mean f_i))`: `t_c` is the direction of
//! its texts, `f_i` are its `n_c` examples, and `p_c` says how well the words explain them: the mean softmax probability
//! of the right label on its own examples, shrunk towards the mean of all labels by two pseudo-examples. So words count as
//! up to four examples where they are right, and for nothing where they are made up.
//!
//! Cosines between pictures are larger than those between pictures and texts. So that thresholds keep their meaning, the
//! cosines of all labels with examples go through one line that brings them back to the level of texts. Pictures of other
//! labels keep their mean. Where there are labels with [`ENOUGH`] examples, an example that is left out gets on average what its
//! own words gave it (where the words explain nothing, an even chance); with fewer that is not known well enough, and
//! pictures of other labels keep the spread of their cosines, so that as many of them pass a threshold as before. One line for
//! all labels leaves their order as it is; lines of their own, from few examples, would not.

#[cfg(test)]
mod tests;

use std::cell::OnceCell;
use std::collections::BTreeMap;
use std::sync::Arc;

use crate::model::scores::l2_normalize;
use crate::model::{LabelSet, ModelError, Scores};

/// Examples of a set at most.
pub const MAX_EXAMPLES: usize = 10_000;
/// Examples times labels at most: each example is compared with each label.
pub const MAX_CELLS: usize = 50_000_000;
/// The words of a label count as so many examples if they explain all of its own.
const WORDS: f32 = 4.0;
/// Examples of an average label that every label is given when it is asked how well its words explain its own.
const PSEUDO_EXAMPLES: f32 = 2.0;
/// With so many examples of a label it is known what one that is left out gets.
const ENOUGH: usize = 4;
/// How often it is looked for labels that examples made worse, before no example counts.
const ROUNDS: usize = 8;
/// Slopes of a line that brings cosines back.
const SLOPES: std::ops::Range<f32> = 0.05..2.0;
/// Cosines that are held at once: 4 MiB of f32.
const BLOCK: usize = 1 << 20;

/// Examples of labels in one embedding space.
#[derive(Debug, Clone, PartialEq)]
pub struct Examples {
    space: Arc<str>,
    width: usize,
    /// Unit vectors by the index of their label.
    vectors: BTreeMap<u32, Vec<Arc<[f32]>>>,
}

impl Examples {
    /// No examples yet.
    pub fn new(space: Arc<str>, width: usize) -> Self {
        Self { space, width, vectors: BTreeMap::new() }
    }

    /// The fingerprint of the model that gave them.
    pub fn space(&self) -> &Arc<str> {
        &self.space
    }

    /// Width of the embeddings.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Adds an embedding, which need not be of length 1.
    ///
    /// # Errors
    /// If it has another width, is not finite or is zero.
    pub fn add(&mut self, label: u32, embedding: &[f32]) -> Result<(), String> {
        let mut unit = embedding.to_vec();
        l2_normalize(&mut unit);
        self.add_unit(label, unit)
    }

    /// Adds a vector of length 1.
    pub(super) fn add_unit(&mut self, label: u32, unit: Vec<f32>) -> Result<(), String> {
        if unit.len() != self.width {
            return Err(format!("{} numbers; embeddings of this model have {}", unit.len(), self.width));
        }
        let is_unit = (dot(&unit, &unit) - 1.0).abs() <= 1e-3;
        if !is_unit {
            return Err("an embedding that has no direction: zero, or not finite".to_owned());
        }
        self.vectors.entry(label).or_default().push(unit.into());
        Ok(())
    }

    /// Number of examples.
    pub fn len(&self) -> usize {
        self.vectors.values().map(Vec::len).sum()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.vectors.is_empty()
    }

    /// Labels with examples, ascending, and how many each has.
    pub fn counts(&self) -> impl Iterator<Item = (u32, usize)> {
        self.vectors.iter().map(|(&label, vectors)| (label, vectors.len()))
    }

    /// Every example with its label, those of a label together.
    pub fn vectors(&self) -> impl Iterator<Item = (u32, &Arc<[f32]>)> {
        self.vectors.iter().flat_map(|(&label, vectors)| vectors.iter().map(move |vector| (label, vector)))
    }

    /// Removes the examples of some labels, or all.
    pub fn remove(&mut self, labels: Option<&[u32]>) {
        match labels {
            None => self.vectors.clear(),
            Some(labels) => self.vectors.retain(|label, _| !labels.contains(label)),
        }
    }

    /// The same examples for a set whose labels have other indices; those of labels that are gone are left out.
    #[must_use]
    pub fn mapped(&self, index: impl Fn(u32) -> Option<u32>) -> Self {
        let moved =
            self.vectors.iter().filter_map(|(&label, vectors)| Some((index(label)?, vectors.clone())));
        Self { space: Arc::clone(&self.space), width: self.width, vectors: moved.collect() }
    }

    /// Bytes on the heap, about.
    pub fn heap(&self) -> usize {
        self.len() * (self.width * size_of::<f32>() + 32) + self.vectors.len() * 64
    }
}

/// Right answers among examples.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Accuracy {
    /// Examples whose label is the best one.
    pub right: usize,
    /// All examples.
    pub of: usize,
}

/// What examples did to one label.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LabelFit {
    /// Its index.
    pub label: u32,
    /// How well its words explain its examples: `p_c`, 0 to 1.
    pub words: f32,
    /// Its examples by the words alone.
    pub before: Accuracy,
    /// Its examples, each left out in turn.
    pub after: Accuracy,
    /// Whether it keeps the direction of its words, since it would lose too many of its examples.
    pub keeps_words: bool,
}

/// A set that was fitted to examples.
#[derive(Debug)]
pub struct Fitted {
    /// The set.
    pub set: LabelSet,
    /// Every label with examples.
    pub labels: Vec<LabelFit>,
    /// All examples by the words alone.
    pub before: Accuracy,
    /// All examples, each left out in turn.
    pub after: Accuracy,
}

/// What moves the examples of a set to where its texts are: the mean of the texts of the labels that have examples, less the mean of
/// their examples, each label counting alike. Embeddings of pictures and of texts lie apart, the more the larger a model is (Liang et
/// al. 2022, "Mind the gap", arXiv 2203.02053).
fn gap(classes: &[Class<'_>], width: usize) -> Vec<f32> {
    let mut gap = vec![0.0; width];
    for class in classes {
        let count = class.examples.len() as f32;
        let each = class.text.iter().zip(&class.sum).map(|(text, sum)| text - sum / count);
        gap.iter_mut().zip(each).for_each(|(gap, x)| *gap += x / classes.len() as f32);
    }
    gap
}

/// One label with examples on its way.
struct Class<'a> {
    label: usize,
    text: &'a [f32],
    examples: &'a [Arc<[f32]>],
    /// Sum of the examples.
    sum: Vec<f32>,
    /// What is added to each of them; empty for nothing.
    shift: &'a [f32],
    /// Softmax probability of the label on each of its examples.
    probabilities: Vec<f32>,
    /// By the words alone, which examples are right.
    right: Vec<bool>,
    keeps_words: bool,
}

impl Class<'_> {
    fn words(&self, mean: f32, left_out: Option<usize>) -> f32 {
        let all = self.probabilities.iter().sum::<f32>();
        let (sum, count) = match left_out {
            Some(i) => (all - self.probabilities[i], self.examples.len() - 1),
            None => (all, self.examples.len()),
        };
        (sum + PSEUDO_EXAMPLES * mean) / (count as f32 + PSEUDO_EXAMPLES)
    }

    /// The label's direction with its examples, or with all but one of them.
    fn direction(&self, mean: f32, left_out: Option<usize>) -> Vec<f32> {
        let count = self.examples.len() - usize::from(left_out.is_some());
        let mut prototype = self.sum.clone();
        prototype.iter_mut().zip(self.shift).for_each(|(sum, x)| *sum += count as f32 * x);
        if let Some(i) = left_out {
            prototype.iter_mut().zip(&*self.examples[i]).for_each(|(sum, x)| *sum -= x);
        }
        if count == 0 {
            return self.text.to_vec();
        }
        l2_normalize(&mut prototype);
        let words = WORDS * self.words(mean, left_out);
        let mut direction: Vec<f32> =
            self.text.iter().zip(&prototype).map(|(t, f)| words * t + count as f32 * f).collect();
        l2_normalize(&mut direction);
        direction
    }

    /// Whether leaving one out leaves any.
    fn has_others(&self) -> bool {
        self.examples.len() > 1
    }
}

/// The line that brings cosines with fitted directions to the level of those with texts.
#[derive(Debug, Clone, Copy)]
struct Line {
    slope: f32,
    offset: f32,
}

impl Line {
    /// Cosines as they are.
    const NONE: Self = Self { slope: 1.0, offset: 0.0 };

    /// A line of a slope that can be, through a point.
    fn usable(slope: f32, offset: impl Fn(f32) -> f32) -> Option<Self> {
        let line = Self { slope, offset: offset(slope) };
        (SLOPES.contains(&slope) && line.offset.is_finite()).then_some(line)
    }

    fn at(self, cosine: f32) -> f32 {
        self.slope * cosine + self.offset
    }
}

/// Fits a set to examples. `text` are the directions of its texts, of length 1. With `close_gap` examples are moved to where the texts
/// are first: the mean of the examples becomes that of their labels' texts.
///
/// # Errors
/// If the examples are of another width or of labels that the set does not have, or a product fails.
pub fn fit(
    text: &LabelSet,
    examples: &Examples,
    scores: Scores,
    close_gap: bool,
) -> Result<Fitted, ModelError> {
    let fits = examples.vectors.keys().all(|&label| (label as usize) < text.len());
    if !fits || examples.width != text.width() {
        return Err(ModelError::Input("examples that do not fit the labels".to_owned()));
    }
    let (rows, width, shift) = (text.rows()?, text.width(), OnceCell::new());
    let mut classes: Vec<Class> = examples
        .vectors
        .iter()
        .map(|(&label, examples)| {
            let mut sum = vec![0.0; width];
            examples.iter().for_each(|vector| sum.iter_mut().zip(&**vector).for_each(|(s, x)| *s += x));
            let text = &rows[label as usize * width..][..width];
            let (probabilities, right) = (Vec::new(), Vec::new());
            let (label, shift) = (label as usize, &[][..]);
            Class { label, text, examples, sum, shift, probabilities, right, keeps_words: false }
        })
        .collect();
    if close_gap {
        let shift: &[f32] = shift.get_or_init(|| gap(&classes, width));
        classes.iter_mut().for_each(|class| class.shift = shift);
    }
    by_words(text, &mut classes, scores)?;
    let each = classes.iter().map(|class| mean_of(class.probabilities.iter().copied()));
    let mean = mean_of(each);
    let (mut line, mut round) = (Line::NONE, 0);
    // Labels that keep their words may make others worse: it is looked again.
    let after = loop {
        let set = combined(text, &rows, &classes, mean)?;
        if classes.iter().any(|class| !class.keeps_words) {
            line = level((text, &set), &classes, mean, scores)?;
        }
        let after = left_out(&set, &classes, mean, line)?;
        let worse: Vec<usize> = classes
            .iter()
            .zip(&after)
            .enumerate()
            .filter(|(_, (class, after))| {
                // One or two may be lost by chance: words are compared with words, of which some say nothing, and fitted
                // labels with fitted ones, each by one example less.
                let lost = count(&class.right).saturating_sub(count(after));
                !class.keeps_words && class.has_others() && lost > 2.max(class.examples.len() / 2)
            })
            .map(|(index, _)| index)
            .collect();
        round += 1;
        match (worse.is_empty(), round < ROUNDS) {
            (true, _) => break after,
            (false, true) => worse.into_iter().for_each(|index| classes[index].keeps_words = true),
            (false, false) => classes.iter_mut().for_each(|class| class.keeps_words = true),
        }
    };

    let mut fitted = rows.clone();
    let mut bias = vec![scores.bias; text.len()];
    for class in classes.iter().filter(|class| !class.keeps_words) {
        let row = &mut fitted[class.label * width..][..width];
        row.copy_from_slice(&class.direction(mean, None));
        row.iter_mut().for_each(|x| *x *= line.slope);
        bias[class.label] += scores.scale * line.offset;
    }
    fitted.iter_mut().for_each(|x| *x *= scores.scale);
    let set = LabelSet::of_scaled(Arc::clone(text.names()), &fitted, bias.into(), Arc::clone(text.space()))?;
    let labels: Vec<LabelFit> = classes
        .iter()
        .zip(&after)
        .map(|(class, after)| LabelFit {
            label: class.label as u32,
            words: class.words(mean, None),
            before: accuracy(&class.right),
            after: accuracy(after),
            keeps_words: class.keeps_words,
        })
        .collect();
    let total = |of: fn(&LabelFit) -> Accuracy| {
        labels.iter().map(of).fold(Accuracy::default(), |sum, next| Accuracy {
            right: sum.right + next.right,
            of: sum.of + next.of,
        })
    };
    Ok(Fitted { set, before: total(|fit| fit.before), after: total(|fit| fit.after), labels })
}

/// Calls `see` for every example with its cosines to every label.
fn compare<'a>(
    set: &LabelSet,
    classes: &[Class<'a>],
    mut see: impl FnMut(usize, usize, &[f32]),
) -> Result<(), ModelError> {
    let all: Vec<(usize, usize, Arc<[f32]>)> = classes
        .iter()
        .enumerate()
        .flat_map(|(c, class)| class.examples.iter().enumerate().map(move |(i, x)| (c, i, Arc::clone(x))))
        .collect();
    for block in all.chunks((BLOCK / set.len()).max(1)) {
        let vectors: Vec<Arc<[f32]>> = block.iter().map(|(.., vector)| Arc::clone(vector)).collect();
        let cosines = set.cosines(&vectors)?;
        for ((class, example, _), cosines) in block.iter().zip(cosines.chunks_exact(set.len())) {
            see(*class, *example, cosines);
        }
    }
    Ok(())
}

/// How well the words explain the examples.
fn by_words(text: &LabelSet, classes: &mut [Class<'_>], scores: Scores) -> Result<(), ModelError> {
    let mut seen: Vec<(usize, f32, bool)> = Vec::new();
    compare(text, classes, |class, _, cosines| {
        let label = classes[class].label;
        let max = cosines.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let sum = cosines.iter().map(|x| f64::from(scores.scale * (x - max)).exp()).sum::<f64>();
        let probability = f64::from(scores.scale * (cosines[label] - max)).exp() / sum;
        seen.push((class, probability as f32, best(cosines.iter().copied()) == label));
    })?;
    for (class, probability, right) in seen {
        classes[class].probabilities.push(probability);
        classes[class].right.push(right);
    }
    Ok(())
}

/// The labels with the directions of their examples where they have them. `rows` are those of the texts.
fn combined(text: &LabelSet, rows: &[f32], classes: &[Class<'_>], mean: f32) -> Result<LabelSet, ModelError> {
    let (mut rows, width) = (rows.to_vec(), text.width());
    for class in classes.iter().filter(|class| !class.keeps_words) {
        rows[class.label * width..][..width].copy_from_slice(&class.direction(mean, None));
    }
    LabelSet::of_directions(Arc::clone(text.names()), &rows, Arc::clone(text.space()))
}

/// The line between the levels of the two kinds of directions: those of the texts, and the combined ones. At least one class
/// has a direction of its examples.
fn level(
    (text, combined): (&LabelSet, &LabelSet),
    classes: &[Class<'_>],
    mean: f32,
    scores: Scores,
) -> Result<Line, ModelError> {
    let fitted: Vec<&Class> = classes.iter().filter(|class| !class.keeps_words).collect();
    let has_enough = |class: &Class| class.examples.len() >= ENOUGH;
    let enough = fitted.iter().any(|class| has_enough(class));
    // Where no label has enough examples, what they get themselves is all that is known; it is too much.
    let own = |of: &dyn Fn(&Class, usize) -> f32| {
        let each = fitted.iter().filter(|class| has_enough(class) || !enough);
        mean_of(each.map(|class| mean_of((0..class.examples.len()).map(|i| of(class, i)))))
    };
    let own_text = own(&|class, i| dot(&class.examples[i], class.text));
    let own_fitted =
        own(&|class, i| dot(&class.examples[i], &class.direction(mean, class.has_others().then_some(i))));
    // Where the words explain nothing, their level says nothing: an even chance is put in its place.
    let even = -scores.bias / scores.scale;
    let words = mean_of(fitted.iter().map(|class| class.words(mean, None)));
    let wanted = words * own_text + (1.0 - words) * own_text.max(even);
    let others = (others_of(text, classes, &fitted)?, others_of(combined, classes, &fitted)?);
    let (Some((mean_text, spread_text)), Some((mean_fitted, spread_fitted))) = others else {
        // One label alone: its own level is all that there is.
        return Ok(Line::usable(wanted / own_fitted, |_| 0.0).unwrap_or(Line::NONE));
    };
    let through = |slope: f32| Line::usable(slope, |slope| mean_text - slope * mean_fitted);
    let by_own = enough.then(|| through((wanted - mean_text) / (own_fitted - mean_fitted))).flatten();
    Ok(by_own.or_else(|| through(spread_text / spread_fitted)).unwrap_or(Line::NONE))
}

/// Mean and spread of the cosines of examples with the fitted labels that are not theirs; none where there is no such pair.
fn others_of(
    set: &LabelSet,
    classes: &[Class<'_>],
    fitted: &[&Class<'_>],
) -> Result<Option<(f32, f32)>, ModelError> {
    let (mut sum, mut squares, mut count) = (0.0_f64, 0.0_f64, 0_usize);
    compare(set, classes, |class, _, cosines| {
        for other in fitted.iter().filter(|other| other.label != classes[class].label) {
            let cosine = f64::from(cosines[other.label]);
            sum += cosine;
            squares += cosine * cosine;
            count += 1;
        }
    })?;
    let mean = sum / count as f64;
    let spread = (squares / count as f64 - mean * mean).max(0.0).sqrt();
    Ok((count > 0).then_some((mean as f32, spread as f32)))
}

/// Which examples are right when each is left out in turn, class by class.
fn left_out(
    combined: &LabelSet,
    classes: &[Class<'_>],
    mean: f32,
    line: Line,
) -> Result<Vec<Vec<bool>>, ModelError> {
    let mut fitted = vec![false; combined.len()];
    classes.iter().filter(|class| !class.keeps_words).for_each(|class| fitted[class.label] = true);
    let mut right: Vec<Vec<bool>> = vec![Vec::new(); classes.len()];
    compare(combined, classes, |index, i, cosines| {
        let class = &classes[index];
        let own = match (class.keeps_words, class.has_others()) {
            (false, true) => line.at(dot(&class.examples[i], &class.direction(mean, Some(i)))),
            _ => dot(&class.examples[i], class.text),
        };
        let levels = cosines.iter().enumerate().map(|(label, &cosine)| match label {
            _ if label == class.label => own,
            _ if fitted[label] => line.at(cosine),
            _ => cosine,
        });
        right[index].push(best(levels) == class.label);
    })?;
    Ok(right)
}

/// The index of the largest value, the first of equals.
fn best(values: impl Iterator<Item = f32>) -> usize {
    let max = values.enumerate().reduce(|best, next| if next.1 > best.1 { next } else { best });
    max.map_or(0, |(index, _)| index)
}

fn count(right: &[bool]) -> usize {
    right.iter().filter(|&&right| right).count()
}

fn accuracy(right: &[bool]) -> Accuracy {
    Accuracy { right: count(right), of: right.len() }
}

fn mean_of(values: impl Iterator<Item = f32>) -> f32 {
    let (sum, count) = values.fold((0.0, 0), |(sum, count), x| (sum + x, count + 1));
    if count == 0 { 0.0 } else { sum / count as f32 }
}

fn dot(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(x, y)| x * y).sum()
}
