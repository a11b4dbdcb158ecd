//! How high the scores of a set's labels usually are: measured over a background when they are first asked for, and kept.

use std::sync::{Arc, Mutex};
use std::time::Instant;

use tokio::sync::OnceCell;

use super::LabelSets;
use crate::budget::Charge;
use crate::engine::{EngineError, ModelHandle, ScoreOptions};
use crate::labels::definition::check_name;
use crate::labels::version::lock;
use crate::labels::{Background, LabelError, Resolved};
use crate::model::{Levels, Scores};

/// Backgrounds whose levels are kept with a version of a set: those that were asked for last.
const KEPT: usize = 16;

/// How high the scores of a set's labels are over backgrounds, those that were asked for last first. The levels over each are
/// measured once, also where many ask for them at the same time.
#[derive(Debug, Default)]
pub(in crate::labels) struct LevelsCache(Mutex<Vec<(Arc<str>, Place)>>);

/// Where the levels over one background are, or will be.
type Place = Arc<OnceCell<Known>>;

/// Levels, and what they hold.
#[derive(Debug)]
struct Known {
    levels: Arc<Levels>,
    _charge: Charge,
}

impl LevelsCache {
    /// The place of a background, which is now the one that was asked for last.
    fn place(&self, background: &Arc<str>) -> Place {
        let mut places = lock(&self.0);
        match places.iter().position(|(id, _)| id == background) {
            Some(at) => places[..=at].rotate_right(1),
            None => {
                places.truncate(KEPT - 1);
                places.insert(0, (Arc::clone(background), Place::default()));
            }
        }
        Arc::clone(&places[0].1)
    }

    /// Lets go what is known over other backgrounds.
    fn keep_only(&self, background: &Arc<str>) {
        lock(&self.0).retain(|(id, _)| id == background);
    }
}

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
        if set.looks_at.is_some() {
            let message = "a background has embeddings, and the checkpoint's own classifier looks at patches";
            return Err(LabelError::invalid(field, message));
        }
        let labels = set.ready.set();
        background
            .fits(labels.space(), labels.width())
            .map_err(|reason| LabelError::invalid(field, format!("the background {name:?}: {reason}")))?;
        let (started, deadline) = (Instant::now(), options.deadline);
        let place = set.ready.levels.place(background.id());
        let measure = async || {
            // It is kept as long as the set, or until others have been asked for.
            let bytes = labels.len().saturating_mul(2 * size_of::<f32>());
            let charge = self.charge(bytes).or_else(|_| {
                set.ready.levels.keep_only(background.id());
                self.charge(bytes)
            })?;
            let pictures = background.pictures(labels.len());
            let levels = model.levels(pictures, Arc::clone(labels), scores, options).await;
            let levels = levels.map_err(LabelError::Engine)?.value;
            Ok(Known { levels: Arc::new(levels), _charge: charge })
        };
        // Whoever comes while another measures waits for that; should the other go away, the next one measures.
        let known = place.get_or_try_init(measure);
        let known = match deadline {
            None => known.await,
            Some(deadline) => tokio::time::timeout_at(deadline.into(), known).await.unwrap_or_else(|_| {
                let allowed = deadline.saturating_duration_since(started);
                Err(LabelError::Engine(EngineError::Deadline(allowed)))
            }),
        };
        known.map(|known| Arc::clone(&known.levels))
    }
}
