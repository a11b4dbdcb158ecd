//! Versions on their way into the embedding spaces of the models.

use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use tokio::runtime::Handle;

use super::own::head_for;
use super::{Inner, LabelSets};
use crate::budget::Charge;
use crate::engine::ModelHandle;
use crate::labels::encode::{self, Job};
use crate::labels::error::LabelError;
use crate::labels::version::{Encoding, Ready, Space, Version, lock};

/// After so long a set that could not be encoded is tried again when somebody asks for it.
const RETRY: Duration = Duration::from_secs(30);

impl LabelSets {
    /// Encodes every set again when a model is loaded or replaced by another, for as long as it is polled.
    pub async fn keep_up(self) {
        let mut changes = self.inner.engine.changes();
        loop {
            changes.mark_unchanged();
            let wanted: Vec<(Arc<Version>, Vec<Option<String>>)> = lock(&self.inner.sets)
                .values()
                .map(|entry| {
                    let own = entry.current.definition().model.clone();
                    let models = std::iter::once(own).chain(entry.models.iter().cloned().map(Some));
                    (Arc::clone(&entry.current), models.collect())
                })
                .collect();
            for (version, models) in wanted {
                for model in models {
                    let Ok(model) = self.inner.engine.model(model.as_deref()) else { continue };
                    if let Err(error) = self.begin(&version, &model, None) {
                        tracing::warn!(name = %version.name(), %error, "a label set cannot be encoded");
                    }
                }
            }
            if changes.changed().await.is_err() {
                return;
            }
        }
    }

    /// Begins to encode a version for a model, unless it is ready, on its way, or failed a moment ago.
    pub(super) fn begin(
        &self,
        version: &Arc<Version>,
        model: &ModelHandle,
        charge: Option<Charge>,
    ) -> Result<(), LabelError> {
        let info = model.info();
        let space = info.fingerprint.clone();
        // Taken before the version's lock: the engine has locks of its own.
        let known = self.known_spaces();
        let mut spaces = version.spaces();
        match spaces.get(&space) {
            Some(Space::Failed { at, .. }) if at.elapsed() >= RETRY => {}
            Some(_) => return Ok(()),
            None => {}
        }
        let content = version.content();
        if let Some(head) = &content.head {
            let charge = self.charge(size_of_val(&*head.rows))?;
            let ready = head_for(version, head, model, charge)?;
            spaces.insert(space, Space::Ready(Arc::new(ready)));
            return Ok(());
        }
        if info.text.is_none() {
            let message = format!("the model {:?} has no text tower to encode labels with", model.name());
            return Err(LabelError::invalid("label_set", message));
        }
        let runtime = Handle::try_current().map_err(|error| LabelError::Fault(error.to_string()))?;
        let charge = match charge {
            Some(charge) => charge,
            None => self.charge(encode::room(content, &info.template, info.embedding_dim))?,
        };
        // Directions in the space of a model that is gone are of no use to anybody.
        spaces.retain(|other, _| known.contains(other));
        let progress = Arc::new(AtomicUsize::new(0));
        let job = Job {
            content: Arc::clone(content),
            names: Arc::clone(version.names()),
            model: model.clone(),
            progress: Arc::clone(&progress),
            file: self.inner.store.as_ref().map(|store| store.rows_of(version.name(), &space)),
            key: content.definition.texts_key(&info.template),
            charge,
        };
        let (inner, version) = (Arc::downgrade(&self.inner), Arc::downgrade(version));
        let task = runtime.spawn({
            let space = space.clone();
            async move {
                let result = encode::run(job).await;
                finished(&inner, &version, space, result);
            }
        });
        let encoding = Encoding { progress, since: Instant::now(), task: task.abort_handle() };
        spaces.insert(space, Space::Encoding(encoding));
        Ok(())
    }

    /// Lets versions of a set go that answer no longer, now that a newer one may be ready, and tells those who wait.
    pub(super) fn settle(&self, name: &str) {
        let known = self.known_spaces();
        if let Some(entry) = lock(&self.inner.sets).get_mut(name) {
            entry.prune(&known);
        }
        self.inner.settled.send_replace(());
    }
}

/// Takes the result of an encoding.
fn finished(inner: &Weak<Inner>, version: &Weak<Version>, space: String, result: Result<Ready, String>) {
    let (Some(inner), Some(version)) = (inner.upgrade(), version.upgrade()) else { return };
    let state = match result {
        Ok(ready) => Space::Ready(Arc::new(ready)),
        Err(reason) => {
            tracing::warn!(name = %version.name(), reason, "a label set could not be encoded");
            Space::Failed { reason, at: Instant::now() }
        }
    };
    let before = version.spaces().insert(space, state);
    let name = Arc::clone(version.name());
    // It holds this task, which has nothing left to wait for. Whoever is told may remove the set, and finds its memory free.
    drop((before, version));
    LabelSets { inner }.settle(&name);
}
