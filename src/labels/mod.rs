//! Label sets: labels with their texts, thresholds and examples, stored under a name, encoded for the service's models in the
//! background, and served from their directions. Knows vectors and the engine; knows no HTTP.
//!
//! A [`Definition`] is what is sent; [`Content`] is all of a set, and the hash of its bytes is its version. [`LabelSets`] holds
//! them: a [`Version`] has its directions for each embedding space ([`encode`]: embed, normalise, mean, normalise), combined
//! with examples where it has some ([`examples`]). A [`Background`] says how high its labels' scores usually are. A new version takes the place of the old one when it is ready. [`store`]
//! keeps sets on disk.

mod background;
mod built_in;
mod calibrate;
mod changes;
mod content;
mod definition;
mod encode;
mod error;
pub mod examples;
mod files;
mod head;
mod read;
mod sets;
pub mod store;
mod templates;
mod tensors;
mod version;

pub use background::Background;
pub use calibrate::{Calibration, Point, calibrate};
pub use changes::{Example, Index};
pub use content::Content;
pub use definition::{
    BACKGROUND_THRESHOLD, Definition, LabelSpec, MAX_LABELS, NEGATIVES_THRESHOLD, NONE_THRESHOLD,
    check_label, check_name, check_share, check_template,
};
pub use error::LabelError;
pub use files::read_file;
pub use head::{HeadWeights, read_head};
pub use read::{NoneRule, Templates};
pub use sets::{LabelSets, Put, Resolved, SetLimits};
pub use templates::built_in;
pub use version::{Condition, Ready, SpaceState, Version, lengths};
