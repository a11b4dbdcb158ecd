//! One version of a label set: what it is, and its directions in the embedding spaces of the models.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use tokio::task::AbortHandle;

use super::content::Content;
use super::definition::{Definition, LabelSpec};
use super::error::LabelError;
use super::examples::{Accuracy, Fitted, LabelFit};
use super::sets::LevelsCache;
use crate::budget::Charge;
use crate::model::{LabelSet, Thresholds};

/// One version of a label set.
#[derive(Debug)]
pub struct Version {
    name: Arc<str>,
    id: String,
    content: Arc<Content>,
    names: Arc<[Arc<str>]>,
    thresholds: Option<Arc<[f32]>>,
    json_bytes: usize,
    /// [`Self::lengths_of_names`].
    lengths: OnceLock<(usize, usize)>,
    spaces: Mutex<HashMap<String, Space>>,
    left_out: Mutex<Option<(String, Arc<[u32]>)>>,
    _charge: Charge,
}

/// How a version is in one embedding space.
#[derive(Debug)]
pub(super) enum Space {
    Encoding(Encoding),
    Ready(Arc<Ready>),
    Failed { reason: String, at: Instant },
}

/// Texts on their way through the engine. Dropping it stops that.
#[derive(Debug)]
pub(super) struct Encoding {
    pub(super) progress: Arc<AtomicUsize>,
    pub(super) since: Instant,
    pub(super) task: AbortHandle,
}

impl Drop for Encoding {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The directions of texts in one embedding space.
#[derive(Debug)]
pub struct Directions {
    pub(super) set: Arc<LabelSet>,
    /// [`Definition::texts_key`] of what was encoded.
    pub(super) key: String,
    pub(super) _charge: Charge,
}

/// A version that can be used in one embedding space.
#[derive(Debug)]
pub struct Ready {
    pub(super) set: Arc<LabelSet>,
    /// Of the texts alone; none of a head.
    pub(super) text: Option<Arc<Directions>>,
    pub(super) fit: Option<FitReport>,
    /// Of the labels that were fitted to examples, where they were.
    pub(super) _charge: Option<Charge>,
    /// How high its labels' scores are over backgrounds.
    pub(super) levels: LevelsCache,
}

impl Ready {
    /// What pictures are scored with.
    pub fn set(&self) -> &Arc<LabelSet> {
        &self.set
    }

    /// What examples did, where there are any of this space.
    pub fn fit(&self) -> Option<&FitReport> {
        self.fit.as_ref()
    }
}

/// What examples did to a set.
#[derive(Debug, Clone, PartialEq)]
pub struct FitReport {
    /// Every label with examples.
    pub labels: Vec<LabelFit>,
    /// All examples by the words alone.
    pub before: Accuracy,
    /// All examples, each left out in turn.
    pub after: Accuracy,
}

impl FitReport {
    pub(super) fn of(fitted: &Fitted) -> Self {
        Self { labels: fitted.labels.clone(), before: fitted.before, after: fitted.after }
    }
}

/// How far a version is in one embedding space.
#[derive(Debug, Clone, PartialEq)]
pub enum SpaceState {
    /// Nobody has asked for it yet.
    Waiting,
    /// So many labels are done.
    Encoding {
        /// Labels that are done.
        done: usize,
        /// When the rest is expected.
        left: Duration,
    },
    /// It answers.
    Ready,
    /// Why it could not be encoded.
    Failed {
        /// In words.
        reason: String,
    },
}

impl Version {
    pub(super) fn new(
        name: Arc<str>,
        id: String,
        content: Content,
        json_bytes: usize,
        charge: Charge,
    ) -> Self {
        let names = content.definition.labels.0.iter().map(|label| Arc::from(label.name.as_str())).collect();
        let thresholds = content.definition.thresholds().map(Arc::from);
        let content = Arc::new(content);
        let (spaces, left_out) = (Mutex::default(), Mutex::default());
        let lengths = OnceLock::new();
        Self { name, id, content, names, thresholds, json_bytes, lengths, spaces, left_out, _charge: charge }
    }

    /// The set's name.
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// The version: it names all that answers follow from but for the model.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// What was sent.
    pub fn definition(&self) -> &Definition {
        &self.content.definition
    }

    /// All of it.
    pub fn content(&self) -> &Arc<Content> {
        &self.content
    }

    /// What the labels are called.
    pub fn names(&self) -> &Arc<[Arc<str>]> {
        &self.names
    }

    /// The thresholds of labels and set, where there are any.
    pub fn thresholds(&self) -> Option<Thresholds> {
        self.thresholds.clone().map(Thresholds::Each)
    }

    /// What labels must reach so that one fits: their thresholds, and for those without one `rest`.
    pub fn none_thresholds(&self, rest: f32) -> Thresholds {
        let or_rest = |threshold: &f32| if threshold.is_finite() { *threshold } else { rest };
        match &self.thresholds {
            None => Thresholds::All(rest),
            Some(thresholds) => Thresholds::Each(thresholds.iter().map(or_rest).collect()),
        }
    }

    /// What `of` says of the longest name, and of all names together: computed once, so it is to be the same function.
    pub fn lengths_of_names(&self, of: fn(&str) -> usize) -> (usize, usize) {
        *self.lengths.get_or_init(|| lengths(&self.names, of))
    }

    /// Bytes of its definition as JSON.
    pub fn json_bytes(&self) -> usize {
        self.json_bytes
    }

    /// Number of examples.
    pub fn examples(&self) -> usize {
        self.content.examples.as_ref().map_or(0, |examples| examples.len())
    }

    /// Which labels of another set say the same as one of this set.
    pub fn left_out_of(&self, negatives: &Self) -> Arc<[u32]> {
        let mut cached = lock(&self.left_out);
        if let Some((id, left_out)) = &*cached
            && *id == negatives.id
        {
            return Arc::clone(left_out);
        }
        let labels = self.definition().labels.0.iter();
        let words = labels.flat_map(|label| std::iter::once(&label.name).chain(&label.synonyms));
        let left_out = negatives.labels_among(words.map(String::as_str));
        *cached = Some((negatives.id.clone(), Arc::clone(&left_out)));
        left_out
    }

    /// Labels of which the name or a synonym is one of these words, whatever their case; their indices ascend.
    pub fn labels_among<'a>(&self, words: impl Iterator<Item = &'a str>) -> Arc<[u32]> {
        let folded = |word: &str| word.trim().to_lowercase();
        let words: HashSet<String> = words.map(folded).collect();
        let is_one = |label: &LabelSpec| {
            let mut own = std::iter::once(&label.name).chain(&label.synonyms);
            own.any(|word| words.contains(&folded(word)))
        };
        let labels = self.definition().labels.0.iter().enumerate();
        labels.filter(|(_, label)| is_one(label)).map(|(index, _)| index as u32).collect()
    }

    /// What can be used in an embedding space, if it is ready.
    pub fn ready(&self, space: &str) -> Option<Arc<Ready>> {
        match self.spaces().get(space) {
            Some(Space::Ready(ready)) => Some(Arc::clone(ready)),
            _ => None,
        }
    }

    /// The spaces that it is ready in, by their names.
    pub(super) fn ready_in(&self) -> Vec<String> {
        self.ready_spaces().into_iter().map(|(space, _)| space).collect()
    }

    /// Stops whatever is on its way.
    pub(super) fn keep_what_is_ready(&self) {
        self.spaces().retain(|_, space| matches!(space, Space::Ready(_)));
    }

    /// The spaces that it is ready in.
    pub(super) fn ready_spaces(&self) -> Vec<(String, Arc<Ready>)> {
        let spaces = self.spaces();
        let ready = spaces.iter().filter_map(|(space, state)| match state {
            Space::Ready(ready) => Some((space.clone(), Arc::clone(ready))),
            _ => None,
        });
        ready.collect()
    }

    /// How far it is in an embedding space.
    pub fn state(&self, space: &str) -> SpaceState {
        match self.spaces().get(space) {
            None => SpaceState::Waiting,
            Some(Space::Ready(_)) => SpaceState::Ready,
            Some(Space::Failed { reason, .. }) => SpaceState::Failed { reason: reason.clone() },
            Some(Space::Encoding(encoding)) => {
                let done = encoding.progress.load(Ordering::Acquire);
                SpaceState::Encoding {
                    done,
                    left: time_left(done, self.names.len(), encoding.since.elapsed()),
                }
            }
        }
    }

    pub(super) fn spaces(&self) -> MutexGuard<'_, HashMap<String, Space>> {
        lock(&self.spaces)
    }
}

/// What `of` says of the longest name, and of all names together.
pub fn lengths(names: &[Arc<str>], of: fn(&str) -> usize) -> (usize, usize) {
    let each = names.iter().map(|name| of(name));
    each.fold((0, 0), |(longest, all), length| (longest.max(length), all + length))
}

/// When a client should ask again, by the rate so far.
fn time_left(done: usize, all: usize, took: Duration) -> Duration {
    let rest = all.saturating_sub(done) as f64;
    let seconds = if done == 0 { 2.0 } else { took.as_secs_f64() / done as f64 * rest };
    Duration::from_secs_f64(seconds.clamp(1.0, 60.0))
}

/// What a caller takes a set for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Condition {
    /// Anything.
    #[default]
    Any,
    /// It is at one of these versions; `*` is any version.
    Match(Vec<String>),
    /// It does not exist.
    Absent,
}

impl Condition {
    /// Checks it against the version that a set has.
    ///
    /// # Errors
    /// [`LabelError::Changed`].
    pub(super) fn check(&self, name: &str, current: Option<&Version>) -> Result<(), LabelError> {
        let holds = match (self, current) {
            (Self::Any, _) | (Self::Absent, None) => true,
            (Self::Absent, Some(_)) | (Self::Match(_), None) => false,
            (Self::Match(ids), Some(version)) => ids.iter().any(|id| id == "*" || *id == version.id),
        };
        let current = current.map(|version| version.id.clone());
        if holds { Ok(()) } else { Err(LabelError::Changed { name: name.to_owned(), current }) }
    }
}

/// A lock whose holder panicked holds what it held.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
