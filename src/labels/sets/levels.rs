//! How high the scores of a set's labels usually are: measured over a background when they are first asked for, and kept.

use std::sync::Arc;

use super::LabelSets;
use crate::budget::Charge;
use crate::engine::{EngineError, ModelHandle, ScoreOptions};
use crate::labels::definition::check_name;
use crate::labels::version::lock;
use crate::labels::{Background, LabelError, Resolved};
use crate::model::{Levels, Scores};

/// A background, with what it holds.
pub(super) struct Held {
    background: Arc<Background>,
    _charge: Charge,
}

impl LabelSets {
    /// Adds a background under a name.
    ///
    /// # Errors
    /// If the name cannot be used or is taken, or there is no room.
    pub fn add_background(&self, name: &str, background: Background) -> Result<(), LabelError> {
        check_name(name)?;
        let charge = self.charge(background.heap())?;
        let mut backgrounds = lock(&self.inner.backgrounds);
        if backgrounds.contains_key(name) {
            return Err(LabelError::invalid("background", "there is a background of that name already"));
        }
        backgrounds.insert(name.to_owned(), Held { background: Arc::new(background), _charge: charge });
        Ok(())
    }

    /// The levels of a set's labels over a background; `field` names it in an error.
    ///
    /// # Errors
    /// [`LabelError::Invalid`] for a background that does not exist or is of another embedding space; those of the engine.
    pub async fn levels(
        &self,
        set: &Resolved,
        (field, name): (&str, &str),
        model: &ModelHandle,
        scores: Scores,
        options: ScoreOptions,
    ) -> Result<Arc<Levels>, LabelError> {
        let background = {
            let backgrounds = lock(&self.inner.backgrounds);
            let held = backgrounds.get(name).map(|held| Arc::clone(&held.background));
            held.ok_or_else(|| {
                let known: Vec<&str> = backgrounds.keys().take(20).map(String::as_str).collect();
                let message = match known.is_empty() {
                    true => "the service has no background (--background NAME=FILE)".to_owned(),
                    false => format!("there is no background of that name; there are {}", known.join(", ")),
                };
                LabelError::invalid(field, message)
            })?
        };
        let labels = set.ready.set();
        background
            .fits(labels.space(), labels.width())
            .map_err(|reason| LabelError::invalid(field, format!("the background {name:?}: {reason}")))?;
        if let Some(levels) = set.ready.levels_over(background.id()) {
            return Ok(levels);
        }
        // It is kept as long as the set.
        let charge = self.charge(labels.len().saturating_mul(2 * size_of::<f32>()))?;
        let pictures = background.pictures(labels.len());
        let levels = model.levels(pictures, Arc::clone(labels), scores, options).await;
        let levels = levels.map_err(|error: EngineError| LabelError::Engine(error))?.value;
        Ok(set.ready.keep_levels(background.id(), levels, charge))
    }
}
