//! The labels of rows: a label set out of a file, encoded once, asked for many vectors at a time.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::answer::Best;
use crate::budget::MemoryBudget;
use crate::bulk::Session;
use crate::bulk::fault::{Fault, Kind};
use crate::engine::{EngineError, Labels, ModelHandle, ScoreOptions};
use crate::labels::{Condition, LabelError, LabelSets, NONE_THRESHOLD, NoneRule, Resolved, read_file};
use crate::model::zero_shot::Ranking;
use crate::model::{Judged, LabelSet, NoneTest, Question, Scores, Thresholds};

/// What the set is called.
const NAME: &str = "labels";

/// A label set that is ready.
pub struct RowLabels {
    names: Arc<[Arc<str>]>,
    set: Arc<LabelSet>,
    scores: Scores,
    question: Question,
}

impl RowLabels {
    /// Reads a file and encodes its labels; each row will have the `top_k` best.
    ///
    /// # Errors
    /// What is wrong with the file, or with the labels for this model.
    pub fn open(session: &Session, file: &Path, top_k: usize) -> Result<Self, Fault> {
        let mut content = read_file(file).map_err(|error| Fault::usage(format!("--label-set: {error}")))?;
        // There is one model here, whatever it was called elsewhere.
        content.definition.model = None;
        content.definition.check().map_err(|error| Fault::usage(format!("--label-set: {error}")))?;
        let info = session.info();
        let scores = match info.logit_scale.zip(info.logit_bias) {
            Some((scale, bias)) => Scores { scale, bias },
            // A head has logits of its own.
            None if content.head.is_some() => Scores { scale: 1.0, bias: 0.0 },
            None => return Err(Fault::usage("--label-set: this checkpoint has no logit scale and bias")),
        };
        // What the user asks for on his own machine is not bounded.
        let sets = LabelSets::in_memory(session.engine().clone(), MemoryBudget::new(usize::MAX), 1);
        let Resolved { version, ready, .. } = session.block_on(async {
            let put = sets.put_content(NAME, content, &Condition::Any);
            put.map_err(|error| Fault::usage(format!("--label-set: {error}")))?;
            loop {
                let deadline = Instant::now() + Duration::from_secs(5);
                match sets.when_ready(NAME, session.model(), deadline).await {
                    Ok(resolved) => return Ok(resolved),
                    Err(LabelError::Encoding { .. }) => {}
                    Err(error) => return Err(Fault::new(Kind::Model, format!("--label-set: {error}"))),
                }
            }
        })?;
        let definition = version.definition();
        let none = match definition.none.clone().unwrap_or(NoneRule::Off) {
            NoneRule::Off => None,
            NoneRule::On => Some(NoneTest::Sigmoid(version.none_thresholds(NONE_THRESHOLD))),
            NoneRule::Threshold(threshold) => Some(NoneTest::Sigmoid(Thresholds::All(threshold))),
            NoneRule::Against { against: other, .. } | NoneRule::Background { background: other, .. } => {
                let text =
                    format!("--label-set: the set is used against another, {other:?}, which is not here");
                return Err(Fault::usage(text));
            }
        };
        let activation = definition.activation.unwrap_or_default();
        let question = Question {
            ranking: Ranking { activation, top_k: Some(top_k), threshold: None },
            thresholds: version.thresholds(),
            none,
            standard: None,
        };
        Ok(Self { names: Arc::clone(version.names()), set: Arc::clone(ready.set()), scores, question })
    }

    /// Bytes of the names of one row's labels at most.
    pub(super) fn row_bytes(&self) -> usize {
        let longest = self.names.iter().map(|name| name.len()).max().unwrap_or(0);
        let most = self.question.ranking.top_k.unwrap_or(1).min(self.names.len());
        (most + 1) * (longest + size_of::<(u32, f32)>())
    }

    /// The best labels of each vector, which are as the towers give them.
    ///
    /// # Errors
    /// What the engine says.
    pub(super) async fn judge(
        &self,
        model: &ModelHandle,
        vectors: Vec<Arc<[f32]>>,
    ) -> Result<Vec<Judged>, EngineError> {
        let labels = Labels::Set(Arc::clone(&self.set));
        let judged =
            model.judge(vectors, labels, self.scores, self.question.clone(), ScoreOptions::default());
        Ok(judged.await?.value)
    }

    /// Names and scores of what was found; none where none of the labels fits.
    pub(super) fn best<'a>(&'a self, judged: &Judged) -> Best<'a> {
        if judged.none.is_some_and(|none| none.none_fits()) {
            return Vec::new();
        }
        judged.matches.iter().map(|found| (&*self.names[found.label], found.score)).collect()
    }
}
