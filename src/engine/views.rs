//! Views of pictures through the engine: a picture is one input to prepare, and each of its views one for the workers.
//!
//! All views of a request are admitted together, each with a ticket and a permit of its own, so that they are counted,
//! charged, timed, and forgotten as other inputs are.

use std::ops::Range;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use bytes::Bytes;

use super::error::{Result, WorkError};
use super::handle::{Job, Sorted};
use super::job::Lane;
use super::lane::Work;
use super::metrics::Outcome;
use super::model::ViewsCost;
use super::{EmbedOptions, Embedding, EngineError, ModelHandle, Timings};
use crate::image::{Cover, Picture, ViewMethod, ViewOptions};
use crate::model::PatchVectors;

/// The views of one picture.
#[derive(Debug)]
pub struct Viewed {
    /// The embedding of each area of the cover, in its order; of [`ViewMethod::Values`] one, with a vector for each.
    pub embeddings: Vec<Embedding>,
    /// Where they are.
    pub cover: Cover,
    /// The whole picture, if it was asked for.
    pub preview: Option<Picture>,
}

/// The answer to a request for views: one result a picture, in the order they came.
#[derive(Debug)]
pub struct ViewsOutput {
    /// A picture that cannot be used is an error in its place.
    pub results: Vec<Result<Viewed>>,
    /// Where the time went.
    pub timings: Timings,
}

/// What preparing a picture leaves for whoever asked, beside its views.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) cover: Cover,
    pub(super) preview: Option<Picture>,
}

/// Where a [`Found`] is left.
pub(super) type FoundSlot = Arc<OnceLock<Found>>;

impl ModelHandle {
    /// Embeds views of pictures, which are decoded once. Bounds, deadlines and dropping are those of
    /// [`ModelHandle::embed`]; each view counts as an input. The previews are not charged: whoever asks for them is to do
    /// that before.
    ///
    /// # Errors
    /// As [`ModelHandle::embed`].
    pub async fn embed_views(
        &self,
        pictures: Vec<Bytes>,
        views: ViewOptions,
        options: EmbedOptions,
    ) -> Result<ViewsOutput, EngineError> {
        let started = Instant::now();
        self.check_deadline(&options, started)?;
        let (sorted, places) = self.sort_views(pictures, views, &options).await;
        let output = self.admit(sorted, options, started).await?.output().await?;
        let mut results = output.results.into_iter();
        let results = places.into_iter().map(|Place { results: range, found }| -> Result<Viewed> {
            let of_picture: Vec<Result<Embedding>> = results.by_ref().take(range.len()).collect();
            let embeddings = of_picture.into_iter().collect::<Result<Vec<_>>>()?;
            // Preparation is over, and with it the other owner.
            let found = Arc::into_inner(found).and_then(OnceLock::into_inner);
            let lost = || WorkError::from(EngineError::Worker("the views of a picture were lost".to_owned()));
            let Found { cover, preview } = found.ok_or_else(lost)?;
            Ok(Viewed { embeddings, cover, preview })
        });
        Ok(ViewsOutput { results: results.collect(), timings: output.timings })
    }

    /// A job for each picture, with a result for each of its views.
    async fn sort_views(
        &self,
        pictures: Vec<Bytes>,
        views: ViewOptions,
        options: &EmbedOptions,
    ) -> (Sorted, Vec<Place>) {
        let max_num_patches = options.max_num_patches;
        let patch = self.info().image.as_ref().map_or(0, |spec| spec.patch);
        let mut sorted = Sorted { results: Vec::new(), jobs: Vec::new() };
        let mut places = Vec::with_capacity(pictures.len());
        for (index, bytes) in pictures.into_iter().enumerate() {
            if index % 16 == 15 {
                tokio::task::yield_now().await;
            }
            let first = sorted.results.len();
            let found = FoundSlot::default();
            match self.probe_with(|model| model.probe_views(&bytes, max_num_patches, &views)) {
                // A picture that lies on its side has the same views in another order.
                Ok(ViewsCost { decoded_bytes, tokens }) if !tokens.is_empty() => {
                    let largest = tokens.iter().copied().max().unwrap_or(0);
                    let (wanted, width) = (wanted_of(views.method), self.info().embedding_dim);
                    let bytes_of_view = largest
                        .saturating_mul(patch * patch * 3)
                        .saturating_add(vectors_bytes(wanted, largest, width));
                    sorted.results.extend(tokens.iter().map(|_| None));
                    let found = Arc::clone(&found);
                    sorted.jobs.push(Job {
                        index: first,
                        results: tokens.len(),
                        lane: Lane::Images,
                        tokens: tokens.iter().sum(),
                        decode_bytes: decoded_bytes,
                        bytes: bytes_of_view,
                        work: Work::Views { bytes, views, max_num_patches, found },
                    });
                }
                result => {
                    self.runtime().lane(Lane::Images).ended(Outcome::Invalid);
                    let nothing = || EngineError::Worker("a picture without views".to_owned()).into();
                    sorted.results.push(Some(Err(result.err().unwrap_or_else(nothing))));
                }
            }
            places.push(Place { results: first..sorted.results.len(), found });
        }
        (sorted, places)
    }
}

/// What is wanted of the patches of a view.
pub(super) fn wanted_of(method: ViewMethod) -> Option<PatchVectors> {
    match method {
        ViewMethod::Windows | ViewMethod::Crops => None,
        ViewMethod::Values => Some(PatchVectors::Pooled),
    }
}

/// Bytes of the vectors of so many patches, where they are wanted.
pub(super) fn vectors_bytes(wanted: Option<PatchVectors>, patches: usize, width: usize) -> usize {
    wanted.map_or(0, |wanted| wanted.count(patches).saturating_mul(width).saturating_mul(size_of::<f32>()))
}

/// Where the results of a picture are.
struct Place {
    results: Range<usize>,
    found: FoundSlot,
}
