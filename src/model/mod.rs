//! The two towers, their pooling and their scores. Knows tensors; knows no files, HTTP or threads.

mod coarse;
mod encoder;
mod error;
mod image_tower;
mod judge;
pub mod labels;
mod loader;
mod pooling;
mod positions;
pub mod scores;
mod siglip;
pub mod spec;
mod tensors;
mod text_tower;
mod weights;
pub mod zero_shot;

pub use error::{ModelError, Result};
pub use image_tower::{ImageTower, PatchVectors};
pub use judge::{Judged, Levels, NoneScore, NoneTest, Question, Thresholds};
pub use labels::{LabelSet, Match};
pub use siglip::{Pause, Scores, Siglip};
pub use spec::{
    ClassifierSpec, EncoderSpec, ImagePooling, ImageTowerSpec, LabelActivation, ModelSpec, PositionResize,
    TextTowerSpec,
};
pub use tensors::TensorSpec;
pub use text_tower::TextTower;
pub use weights::{Table, Values, Weights};

/// Computes on a thread of the pool, where parallel loops begin without waking another thread each time and sleeping until it is
/// done.
fn in_pool<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    rayon::scope(|_| work())
}
