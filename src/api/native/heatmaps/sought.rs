//! What is looked for in pictures: texts of the request, or labels of a stored set.

use std::sync::Arc;

use crate::api::answer;
use crate::api::call::Call;
use crate::api::edge::body::off_runtime;
use crate::api::edge::error::{ApiError, ApiResult};
use crate::api::inputs::check_count;
use crate::api::native::schema::{HeatmapsRequest, Label, LabelSetUsed};
use crate::engine::{self, ModelHandle};
use crate::labels::{Index, LabelError, Resolved};
use crate::model::Scores;

/// What is looked for.
pub(super) enum Sought {
    /// So many texts.
    Texts(usize),
    /// Labels of a set, by their indices.
    Labels(Resolved, Vec<usize>),
}

/// Checks that a request says what is looked for, and once only.
///
/// # Errors
/// 422 for texts beside a label set, for labels without one, and for options of texts beside one.
pub(super) fn check(options: &HeatmapsRequest, has_texts: bool) -> ApiResult<()> {
    if options.label_set.is_none() {
        return match options.labels {
            Some(_) => {
                Err(ApiError::field("labels", "these are labels of a stored set: name it in label_set"))
            }
            None => Ok(()),
        };
    }
    let of_texts = [
        ("texts", has_texts),
        ("token_ids", options.token_ids.is_some()),
        ("canonicalization", options.canonicalization.is_some()),
    ];
    match of_texts.iter().find(|(_, given)| *given) {
        Some((field, _)) => Err(ApiError::field(field, "not beside label_set, which has its own texts")),
        None => Ok(()),
    }
}

impl Sought {
    /// Of a request with so many texts.
    ///
    /// # Errors
    /// 404 for a set that does not exist, 422 for a label that it does not have or a set that is a head, 413 for too many
    /// labels, 503 for a set that is not encoded yet.
    pub(super) async fn of(
        call: &Call,
        model: &ModelHandle,
        options: &mut HeatmapsRequest,
        texts: usize,
    ) -> ApiResult<Self> {
        let Some(reference) = options.label_set.take() else { return Ok(Self::Texts(texts)) };
        let resolved = call.state.label_sets().resolve(&reference, model)?;
        if resolved.ready.set().is_head() {
            let message = "a head says what is in a whole picture; it has no texts to look for";
            return Err(ApiError::field("label_set", message));
        }
        let names = resolved.version.names();
        let most = call.state.config().max_labels;
        let Some(wanted) = options.labels.take() else {
            check_count("label_set", names.len(), most)?;
            let all = (0..names.len()).collect();
            return Ok(Self::Labels(resolved, all));
        };
        check_count("labels", wanted.0.len(), most)?;
        let version = Arc::clone(&resolved.version);
        let chosen = off_runtime(names.len().saturating_mul(32), move || {
            let index = Index::of(&version);
            let place = |at: usize| format!("labels[{at}]");
            let each = wanted.0.iter().enumerate().map(|(at, label)| index.label(label, &place(at)));
            let indices: Result<Vec<u32>, LabelError> = each.collect();
            Ok(indices?.into_iter().map(|index| index as usize).collect())
        });
        Ok(Self::Labels(resolved, chosen.await?))
    }

    /// Maps of each picture.
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Texts(texts) => *texts,
            Self::Labels(_, chosen) => chosen.len(),
        }
    }

    /// What each view is compared with: of a set all labels, chosen or not.
    pub(super) fn compared(&self) -> usize {
        match self {
            Self::Texts(texts) => *texts,
            Self::Labels(resolved, _) => resolved.ready.set().len(),
        }
    }

    /// Where among [`Self::compared`] one of [`Self::len`] is.
    pub(super) fn column(&self, at: usize) -> usize {
        match self {
            Self::Texts(_) => at,
            Self::Labels(_, chosen) => chosen[at],
        }
    }

    /// A cosine on the level of texts.
    pub(super) fn level(&self, at: usize, cosine: f32, scores: Option<Scores>) -> f32 {
        match (self, scores) {
            (Self::Labels(resolved, chosen), Some(scores)) => {
                resolved.ready.set().level(chosen[at], cosine, scores)
            }
            _ => cosine,
        }
    }

    /// What views are compared with; `texts` are the embeddings of the request's own.
    pub(super) fn labels(&self, texts: Vec<Arc<[f32]>>) -> engine::Labels {
        match self {
            Self::Texts(_) => engine::Labels::unnamed(texts),
            Self::Labels(resolved, _) => engine::Labels::Set(Arc::clone(resolved.ready.set())),
        }
    }

    /// The label, where it is one.
    pub(super) fn label(&self, at: usize) -> Option<Label> {
        match self {
            Self::Texts(_) => None,
            Self::Labels(resolved, chosen) => Some(Label(Arc::clone(&resolved.version.names()[chosen[at]]))),
        }
    }

    /// Bytes of all labels in an answer.
    pub(super) fn escaped(&self) -> usize {
        match self {
            Self::Texts(_) => 0,
            Self::Labels(resolved, chosen) => {
                let names = resolved.version.names();
                chosen.iter().map(|&at| 16 + answer::escaped(&names[at])).sum()
            }
        }
    }

    /// Which set it is.
    pub(super) fn used(&self) -> Option<LabelSetUsed> {
        match self {
            Self::Texts(_) => None,
            Self::Labels(resolved, _) => Some(LabelSetUsed::of(&resolved.version)),
        }
    }
}
