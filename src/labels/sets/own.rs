//! Heads in the embedding space of a model: those that are stored, and those that checkpoints bring.

use std::sync::Arc;

use super::{LabelSets, LevelsCache, Resolved};
use crate::budget::Charge;
use crate::engine::ModelHandle;
use crate::labels::version::lock;
use crate::labels::{Content, Definition, HeadWeights, LabelError, Ready, Version};
use crate::model::zero_shot::Activation;
use crate::model::{LabelActivation, LabelSet};

impl LabelSets {
    /// The labels of the classifier that a checkpoint brought, as a head; none if it brought none.
    ///
    /// # Errors
    /// If there is no room for it, or its labels cannot be used.
    pub fn own(&self, model: &ModelHandle) -> Result<Option<Resolved>, LabelError> {
        let Some(classifier) = model.classifier() else { return Ok(None) };
        let space = &model.info().fingerprint;
        let mut own = lock(&self.inner.own);
        if let Some(resolved) = own.get(space) {
            return Ok(Some(resolved.clone()));
        }
        let activation = match classifier.activation {
            LabelActivation::Softmax => Activation::Softmax,
            LabelActivation::Sigmoid => Activation::Sigmoid,
        };
        let definition =
            Definition { activation: Some(activation), ..Definition::of(classifier.labels.iter().cloned()) };
        let head = HeadWeights {
            rows: classifier.rows.as_slice().into(),
            bias: classifier.bias.as_slice().into(),
            width: model.info().embedding_dim,
            normalize: false,
            space: Some(space.as_str().into()),
        };
        let content = Content { head: Some(Arc::new(head)), ..Content::of(definition) };
        let version = self.unstored(model.name(), content)?;
        self.begin(&version, model, None)?;
        let ready = version.ready(space).ok_or_else(|| LabelError::Fault("a head was lost".to_owned()))?;
        // Of models that are gone there is no use.
        let known = self.known_spaces();
        own.retain(|space, _| known.contains(space));
        let resolved = Resolved { version, ready, looks_at: classifier.looks_at };
        own.insert(space.clone(), resolved.clone());
        Ok(Some(resolved))
    }
}

/// A head in the embedding space of a model.
pub(super) fn head_for(
    version: &Version,
    head: &HeadWeights,
    model: &ModelHandle,
    charge: Charge,
) -> Result<Ready, LabelError> {
    let info = model.info();
    if head.space.as_deref().is_some_and(|space| space != info.fingerprint) {
        let message = format!("the head {:?} was trained in another embedding space", version.name());
        return Err(LabelError::invalid("label_set", message));
    }
    if head.width != info.embedding_dim {
        let message = format!(
            "the head {:?} is of width {}, the embeddings of {:?} are of {}",
            version.name(),
            head.width,
            model.name(),
            info.embedding_dim
        );
        return Err(LabelError::invalid("label_set", message));
    }
    let (names, bias) = (Arc::clone(version.names()), Arc::clone(&head.bias));
    let set = LabelSet::of_head(names, &head.rows, bias, head.normalize, info.fingerprint.as_str().into());
    let set = set.map_err(|error| LabelError::Fault(error.to_string()))?;
    Ok(Ready {
        set: Arc::new(set),
        text: None,
        fit: None,
        _charge: Some(charge),
        levels: LevelsCache::default(),
    })
}
