//! From the bytes of a picture to patches: decode within limits, orient, resize, cut.

mod decode;
mod error;
mod format;
mod limits;
mod naflex;
mod orientation;
mod patchify;
mod picture;
mod preprocess;
mod resize;
mod spec;
mod views;

pub use decode::{ImageInfo, decode, frames, probe};
#[cfg(all(feature = "heif", target_os = "linux"))]
pub use decode::{check_heif_child, decode_heif_in_child};
pub use error::ImageError;
pub use format::Format;
pub use limits::{HeifDecoder, ImageLimits};
pub use naflex::naflex_grid;
pub use picture::Picture;
pub use preprocess::{ImageOptions, Preprocessor};
pub use resize::resize;
pub use spec::{Geometry, Grid, ImageDecode, ImageSpec, Patches, Resample};
pub use views::{Area, Cover, MAX_VIEWS, Overlay, PixelBox, ViewMethod, ViewOptions, Views, largest_region};
