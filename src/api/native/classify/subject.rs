//! What pictures are classified by: labels of the request, or a stored set.

use std::sync::Arc;

use crate::api::answer;
use crate::api::call::Call;
use crate::api::edge::body::off_runtime;
use crate::api::edge::error::{ApiError, ApiResult};
use crate::api::inputs::Batch;
use crate::api::labels::Labels;
use crate::api::native::schema::{ClassifyRequest, LabelSetUsed};
use crate::api::read::missing;
use crate::engine::{self, Embedding, ModelHandle};
use crate::labels::{
    BACKGROUND_THRESHOLD, LabelError, NEGATIVES_THRESHOLD, NONE_THRESHOLD, NoneRule, Resolved, check_share,
    lengths,
};
use crate::model::zero_shot::Activation;
use crate::model::{Levels, NoneTest, PatchVectors, Scores, Thresholds};

/// What pictures are classified by.
pub(super) enum Subject {
    /// Labels that came with the request.
    Inline(Labels),
    /// A stored set.
    Stored(Resolved),
}

impl Subject {
    /// Takes what a request says of its labels.
    ///
    /// # Errors
    /// 400 without any, 404 for a set that does not exist, 413 and 422 for labels or options that cannot be used, 503 for a set
    /// that is not encoded yet.
    pub(super) fn of(call: &Call, model: &ModelHandle, options: &mut ClassifyRequest) -> ApiResult<Self> {
        let labels = options.labels.take();
        let Some(reference) = options.label_set.take() else {
            let Some(names) = labels.map(|labels| labels.0) else {
                // A checkpoint may have brought a classifier.
                let own = call.state.label_sets().own(model)?;
                return own.map(Self::Stored).ok_or_else(|| missing("labels"));
            };
            let templates = options.templates.take().map(|templates| templates.0);
            let (own, limit) = (&model.info().template, call.state.config().max_labels);
            return Ok(Self::Inline(Labels::new(names, options.template.take(), templates, own, limit)?));
        };
        if labels.is_some() {
            return Err(ApiError::field("label_set", "give either labels or label_set"));
        }
        let of_the_set = [
            ("template", options.template.is_some()),
            ("templates", options.templates.is_some()),
            ("canonicalization", options.canonicalization.is_some()),
        ];
        if let Some((field, _)) = of_the_set.iter().find(|(_, given)| *given) {
            return Err(ApiError::field(field, "a stored label set has its own; leave it out"));
        }
        Ok(Self::Stored(call.state.label_sets().resolve(&reference, model)?))
    }

    /// What the labels are called.
    pub(super) fn names(&self) -> &Arc<[Arc<str>]> {
        match self {
            Self::Inline(labels) => labels.names(),
            Self::Stored(stored) => stored.version.names(),
        }
    }

    /// Bytes of the longest label in an answer, and of all of them.
    pub(super) fn lengths(&self) -> (usize, usize) {
        match self {
            Self::Inline(labels) => lengths(labels.names(), answer::escaped),
            Self::Stored(stored) => stored.version.lengths_of_names(answer::escaped),
        }
    }

    pub(super) fn is_head(&self) -> bool {
        matches!(self, Self::Stored(stored) if stored.ready.set().is_head())
    }

    /// What the labels look at in place of embeddings.
    pub(super) fn looks_at(&self) -> Option<PatchVectors> {
        match self {
            Self::Inline(_) => None,
            Self::Stored(stored) => stored.looks_at,
        }
    }

    /// The request's own activation, else that of the set.
    pub(super) fn activation(&self, given: Option<Activation>) -> Activation {
        let own = match self {
            Self::Inline(_) => None,
            Self::Stored(stored) => stored.version.definition().activation,
        };
        given.or(own).unwrap_or_default()
    }

    /// The request's own threshold, else those of the set.
    pub(super) fn thresholds(&self, given: Option<f32>) -> Option<Thresholds> {
        match (given, self) {
            (Some(threshold), _) => Some(Thresholds::All(threshold)),
            (None, Self::Inline(_)) => None,
            (None, Self::Stored(stored)) => stored.version.thresholds(),
        }
    }

    /// The request's own rule for when none fits, else that of the set.
    ///
    /// # Errors
    /// 404, 422 or 503 where the negatives cannot be used.
    pub(super) async fn none(
        &self,
        call: &Call,
        model: &ModelHandle,
        scores: Scores,
        given: Option<NoneRule>,
    ) -> ApiResult<Option<NoneTest>> {
        let own = match self {
            Self::Inline(_) => None,
            Self::Stored(stored) => stored.version.definition().none.clone(),
        };
        Ok(match given.or(own).unwrap_or(NoneRule::Off) {
            NoneRule::Off => None,
            NoneRule::On => Some(NoneTest::Sigmoid(match self {
                Self::Inline(_) => Thresholds::All(NONE_THRESHOLD),
                Self::Stored(stored) => stored.version.none_thresholds(NONE_THRESHOLD),
            })),
            NoneRule::Threshold(threshold) => {
                check_share("none", threshold)?;
                Some(NoneTest::Sigmoid(Thresholds::All(threshold)))
            }
            NoneRule::Against { against, threshold } => {
                let threshold = threshold.unwrap_or(NEGATIVES_THRESHOLD);
                check_share("none.threshold", threshold)?;
                if self.is_head() {
                    let message =
                        "a head has no texts that could be compared with negatives: give a threshold";
                    return Err(ApiError::field("none.against", message));
                }
                let negatives = call.state.label_sets().resolve(&against, model);
                let negatives = negatives.map_err(|error| ApiError::from(error).at("none.against"))?;
                let set = Arc::clone(negatives.ready.set());
                if set.is_head() {
                    let message = "a head is no set of negatives: it has no texts";
                    return Err(ApiError::field("none.against", message));
                }
                let left_out = self.left_out(negatives).await?;
                Some(NoneTest::Negatives { set, left_out, threshold })
            }
            NoneRule::Background { background, threshold } => {
                let threshold = threshold.unwrap_or(BACKGROUND_THRESHOLD);
                if !threshold.is_finite() {
                    return Err(ApiError::field("none.threshold", "must be a finite number"));
                }
                let levels = self.levels(call, model, scores, ("none.background", &background)).await?;
                Some(NoneTest::Background { levels, threshold })
            }
        })
    }

    /// What scores are standardised by, where a request asks for it.
    ///
    /// # Errors
    /// 422 for labels that are not stored, a background that cannot be used, or an activation beside it.
    pub(super) async fn standard(
        &self,
        call: &Call,
        model: &ModelHandle,
        scores: Scores,
        options: &mut ClassifyRequest,
    ) -> ApiResult<Option<Arc<Levels>>> {
        let Some(background) = options.standardize.take() else { return Ok(None) };
        if options.activation.is_some() {
            return Err(ApiError::field("activation", "standardised scores have none; leave it out"));
        }
        self.levels(call, model, scores, ("standardize", &background)).await.map(Some)
    }

    /// How high the scores of the labels are over a background; the first is the field that names it.
    async fn levels(
        &self,
        call: &Call,
        model: &ModelHandle,
        scores: Scores,
        background: (&str, &str),
    ) -> ApiResult<Arc<Levels>> {
        let Self::Stored(stored) = self else {
            let message = "labels are measured against a background once: store them as a label set";
            return Err(ApiError::field(background.0, message));
        };
        let sets = call.state.label_sets();
        let levels = sets.levels(stored, background, model, scores, call.score_options()).await;
        levels.map_err(|error| match error {
            LabelError::Engine(error) => call.engine_error(error),
            error => error.into(),
        })
    }

    /// Which negatives are labels, too.
    async fn left_out(&self, negatives: Resolved) -> ApiResult<Arc<[u32]>> {
        // Every word of both is looked at.
        let own = match self {
            Self::Inline(labels) => labels.names().iter().map(|name| name.len()).sum(),
            Self::Stored(stored) => stored.version.json_bytes(),
        };
        let size = negatives.version.json_bytes().saturating_add(own);
        match self {
            Self::Inline(labels) => {
                let names = Arc::clone(labels.names());
                off_runtime(size, move || {
                    Ok(negatives.version.labels_among(names.iter().map(|name| &**name)))
                })
                .await
            }
            Self::Stored(stored) => {
                let own = Arc::clone(&stored.version);
                off_runtime(size, move || Ok(own.left_out_of(&negatives.version))).await
            }
        }
    }

    /// Adds the texts that have to be embedded.
    ///
    /// # Errors
    /// 413 or 429 without room.
    pub(super) fn push_prompts(&self, batch: &mut Batch) -> ApiResult<()> {
        match self {
            Self::Inline(labels) => labels.push_prompts(batch),
            Self::Stored(_) => Ok(()),
        }
    }

    /// Which set it is, where it is a stored one.
    pub(super) fn used(&self) -> Option<LabelSetUsed> {
        match self {
            Self::Inline(_) => None,
            Self::Stored(stored) => Some(LabelSetUsed::of(&stored.version)),
        }
    }

    /// What the engine scores with; `texts` are the embeddings of [`Self::push_prompts`].
    pub(super) fn into_labels(self, texts: Vec<Embedding>) -> engine::Labels {
        match self {
            Self::Inline(labels) => labels.embedded(texts),
            Self::Stored(stored) => engine::Labels::Set(Arc::clone(stored.ready.set())),
        }
    }
}
