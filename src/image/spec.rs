//! How a checkpoint wants its pictures, and what it gets.

use serde::Serialize;

/// The filter of a resize, as Pillow defines it (antialiased when shrinking).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Resample {
    /// Pillow's `NEAREST` (0).
    Nearest,
    /// Pillow's `LANCZOS` (1).
    Lanczos,
    /// Pillow's `BILINEAR` (2): SigLIP 2 and NaFlex.
    Bilinear,
    /// Pillow's `BICUBIC` (3): SigLIP 1.
    Bicubic,
    /// Pillow's `BOX` (4).
    Box,
    /// Pillow's `HAMMING` (5).
    Hamming,
}

/// How the pixels of a file are had.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum ImageDecode {
    /// All of them, as the checkpoints were trained.
    #[default]
    Exact,
    /// A JPEG of at least twice the size that the model sees is scaled down to a half, a quarter or an eighth while it
    /// is decoded (in its DCT, as Pillow's `Image.draft` does it), then resized: several times faster for photographs,
    /// at slightly other embeddings.
    Fast,
}

/// The size that a picture is brought to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Geometry {
    /// Stretched to one size whatever its shape (no crop): fixed-resolution checkpoints.
    Squash {
        /// Height in pixels.
        height: u32,
        /// Width in pixels.
        width: u32,
    },
    /// The shorter side brought to `side`, and a square cut out of the middle: checkpoints of open_clip with its
    /// `resize_mode` "shortest".
    Crop {
        /// Height and width in pixels.
        side: u32,
    },
    /// Its shape kept as well as whole patches allow, at most so many patches: NaFlex.
    NaFlex {
        /// The default budget; a request may ask for another one.
        max_num_patches: usize,
    },
}

/// Preprocessing of one checkpoint: everything that changes the pixels a tower sees.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ImageSpec {
    /// Target size.
    pub geometry: Geometry,
    /// Resize filter.
    pub resample: Resample,
    /// Side of a patch in pixels. Pixels right of or below the last whole patch are dropped.
    pub patch: usize,
    /// Mean of each channel, after the scaling to 0…1.
    pub mean: [f32; 3],
    /// Standard deviation of each channel, after the scaling to 0…1.
    pub std: [f32; 3],
    /// Factor from a byte to 0…1.
    pub rescale: f32,
}

/// Rows and columns of patches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
pub struct Grid {
    /// Patches from top to bottom.
    pub rows: usize,
    /// Patches from left to right.
    pub cols: usize,
}

impl Grid {
    /// Number of patches.
    pub fn len(&self) -> usize {
        self.rows * self.cols
    }

    /// Whether it holds no patch.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl ImageSpec {
    /// Patches of a picture at most, with the budget of a request.
    pub fn most_patches(&self, max_num_patches: Option<usize>) -> usize {
        match self.geometry {
            Geometry::NaFlex { max_num_patches: own } => max_num_patches.unwrap_or(own),
            Geometry::Squash { .. } | Geometry::Crop { .. } => self.grid().len(),
        }
    }

    /// Patches of the size that the tower was made for; for NaFlex those of a square picture that fills the default
    /// budget. At least one.
    pub fn grid(&self) -> Grid {
        let patch = self.patch.max(1);
        match self.geometry {
            Geometry::Squash { height, width } => {
                Grid { rows: (height as usize / patch).max(1), cols: (width as usize / patch).max(1) }
            }
            Geometry::Crop { side } => {
                let side = (side as usize / patch).max(1);
                Grid { rows: side, cols: side }
            }
            Geometry::NaFlex { max_num_patches } => {
                let side = max_num_patches.isqrt().max(1);
                Grid { rows: side, cols: side }
            }
        }
    }
}

/// One picture, ready for the tower: raw bytes, normalised later on the device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Patches {
    /// `[grid.len(), patch · patch · 3]`, each patch in (y, x, channel) order, patches row by row.
    pub pixels: Vec<u8>,
    /// Rows and columns of patches.
    pub grid: Grid,
    /// Height and width of the picture before the resize, after its orientation was applied.
    pub source: (u32, u32),
}
