//! What can be wrong with a picture, or with what is asked of it.

use super::{Format, Grid};

/// Why a picture was refused. Every message is meant for the person who sent it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ImageError {
    /// The checkpoint's preprocessing cannot give a single patch: the operator must act.
    #[error("{0}")]
    Specification(String),
    /// There are no bytes.
    #[error("the image is empty (0 bytes)")]
    Empty,
    /// The file is larger than [`ImageLimits::max_bytes`](super::ImageLimits).
    #[error("the image file has {bytes} bytes; the limit is {limit}")]
    FileTooLarge {
        /// Bytes of the file.
        bytes: usize,
        /// Bytes allowed.
        limit: usize,
    },
    /// The first bytes belong to no format that is read here.
    #[error(
        "the image format is not known: the data starts with {head}; \
         JPEG, PNG, WebP, GIF, BMP and TIFF can be read"
    )]
    UnknownFormat {
        /// The first bytes, as text where they are text and in hexadecimal otherwise.
        head: String,
    },
    /// The format is known, and no build reads it.
    #[error("this is a {name} image, which cannot be read; convert it to JPEG, PNG or WebP")]
    UnreadableFormat {
        /// Name of the format.
        name: &'static str,
    },
    /// The format is known, but this build has no decoder for it.
    #[error(
        "this is {article} {format} image, and this build of the program cannot read {format}; convert it to JPEG, PNG or WebP",
        article = if *format == Format::Heic { "a" } else { "an" }
    )]
    FormatNotBuilt {
        /// Format found.
        format: Format,
    },
    /// The process that would decode it cannot be started or confined: the operator must act.
    #[error("{format} images cannot be decoded here: {reason}")]
    NoDecoder {
        /// Format found.
        format: Format,
        /// What the system said.
        reason: String,
    },
    /// A side is zero.
    #[error("the {format} image has no pixels: its header says {width} × {height}")]
    NoPixels {
        /// Format found.
        format: Format,
        /// Width in pixels.
        width: u32,
        /// Height in pixels.
        height: u32,
    },
    /// A side is longer than [`ImageLimits::max_side`](super::ImageLimits).
    #[error("the {format} image is {width} × {height} pixels; the longest side allowed is {limit}")]
    SideTooLong {
        /// Format found.
        format: Format,
        /// Width in pixels.
        width: u32,
        /// Height in pixels.
        height: u32,
        /// Pixels allowed along a side.
        limit: u32,
    },
    /// More pixels than [`ImageLimits::max_pixels`](super::ImageLimits).
    #[error(
        "the {format} image is {width} × {height} = {} pixels; the limit is {limit} (--max-megapixels)",
        u64::from(*width) * u64::from(*height)
    )]
    TooManyPixels {
        /// Format found.
        format: Format,
        /// Width in pixels.
        width: u32,
        /// Height in pixels.
        height: u32,
        /// Pixels allowed.
        limit: u64,
    },
    /// Decoding would need more memory than [`ImageLimits::max_decoded_bytes`](super::ImageLimits).
    #[error(
        "decoding the {format} image of {width} × {height} pixels takes {bytes} bytes; the limit is {limit}"
    )]
    DecodedTooLarge {
        /// Format found.
        format: Format,
        /// Width in pixels.
        width: u32,
        /// Height in pixels.
        height: u32,
        /// Bytes needed.
        bytes: u64,
        /// Bytes allowed.
        limit: u64,
    },
    /// Decoding would take more time than [`ImageLimits::max_decode_work`](super::ImageLimits) allows.
    #[error(
        "decoding the {format} image of {width} × {height} pixels would take too long: its {scans} scans go over \
         {samples} samples; the limit is {limit}"
    )]
    TooMuchWork {
        /// Format found.
        format: Format,
        /// Width in pixels.
        width: u32,
        /// Height in pixels.
        height: u32,
        /// Scans in the file.
        scans: usize,
        /// Samples that all scans together go over.
        samples: u64,
        /// Samples allowed.
        limit: u64,
    },
    /// An animation has more frames than [`ImageLimits::max_frames`](super::ImageLimits).
    #[error("the {format} animation has more than {limit} frames")]
    TooManyFrames {
        /// Format found.
        format: Format,
        /// Frames allowed.
        limit: u32,
    },
    /// Going through an animation would take more time than [`ImageLimits::max_decode_work`](super::ImageLimits) allows.
    #[error(
        "going through the {format} animation would take too long: its frames have {pixels} pixels together; the limit is \
         {limit}"
    )]
    AnimationTooLong {
        /// Format found.
        format: Format,
        /// Pixels of all frames that have to be decoded.
        pixels: u64,
        /// Pixels allowed.
        limit: u64,
    },
    /// The file is valid, but uses something that is not read here.
    #[error("the {format} image uses a feature that is not supported: {reason}")]
    Unsupported {
        /// Format found.
        format: Format,
        /// What it uses.
        reason: String,
    },
    /// The file is truncated or damaged.
    #[error("the {format} image is damaged or incomplete: {reason}")]
    Broken {
        /// Format found.
        format: Format,
        /// What the decoder said.
        reason: String,
    },
    /// The decoder itself failed: a fault in a library, met by a file that no encoder writes.
    #[error("the {format} decoder failed on this image; it is most likely damaged")]
    DecoderFailed {
        /// Format found.
        format: Format,
    },
    /// Raw pixels do not fit the size given with them.
    #[error("a picture of {width} × {height} RGB pixels needs {expected} bytes, not {found}")]
    WrongPixelCount {
        /// Width in pixels.
        width: u32,
        /// Height in pixels.
        height: u32,
        /// Bytes that the size asks for.
        expected: u64,
        /// Bytes given.
        found: usize,
    },
    /// A picture so long that a square from its middle would show next to nothing of it.
    #[error(
        "the image is {width} × {height} pixels; this model sees a square cut out of the middle, and takes pictures of \
         at most 1 to {limit}"
    )]
    TooLongToCrop {
        /// Width in pixels.
        width: u32,
        /// Height in pixels.
        height: u32,
        /// The longer side in shorter ones.
        limit: u32,
    },
    /// A patch budget for a checkpoint whose resolution is fixed.
    #[error(
        "max_num_patches ({max_num_patches}) cannot be set: the model has a fixed resolution of \
         {height} × {width} pixels; only NaFlex models take a patch budget"
    )]
    FixedResolution {
        /// Budget asked for.
        max_num_patches: usize,
        /// Height of the model's pictures, in pixels.
        height: u32,
        /// Width of the model's pictures, in pixels.
        width: u32,
    },
    /// A patch budget out of range.
    #[error("max_num_patches is {max_num_patches}; it must be between 1 and {limit}")]
    PatchBudget {
        /// Budget asked for.
        max_num_patches: usize,
        /// Patches allowed.
        limit: usize,
    },
    /// Views that would be too many, or too large.
    #[error(
        "views of {rows} × {cols} patches of {} × {}: at least {views} views are needed, of {needed} tokens together; \
         at most {most} views and {allowed} tokens may be taken: ask for another side, or for a larger budget",
        grid.rows, grid.cols
    )]
    Views {
        /// Patches of the picture.
        grid: Grid,
        /// Rows of a view.
        rows: usize,
        /// Columns of a view.
        cols: usize,
        /// The fewest views that cover the picture.
        views: usize,
        /// Their tokens.
        needed: usize,
        /// Views allowed.
        most: usize,
        /// Tokens allowed.
        allowed: usize,
    },
}

impl ImageError {
    /// Whether the picture is fine and only the option sent with it is not.
    #[must_use]
    pub fn is_about_options(&self) -> bool {
        matches!(self, Self::FixedResolution { .. } | Self::PatchBudget { .. } | Self::Views { .. })
    }
}
