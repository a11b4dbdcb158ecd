//! Views: parts of a picture that are embedded as pictures of their own, so that it can be said where in a picture
//! something is.

mod cover;
mod cut;
mod overlay;
mod region;

use super::{Patches, Picture};

pub use cover::{Area, Cover, PixelBox};
pub use overlay::Overlay;
pub use region::largest_region;

/// Views of one picture at most.
pub const MAX_VIEWS: usize = 256;

/// How a view is taken from a picture.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ViewMethod {
    /// Some of the picture's own patches: the picture is resized once, and a window has as many tokens as patches.
    #[default]
    Windows,
    /// The whole picture, of which each patch is pooled alone: one embedding's cost, and hardly better than chance. For
    /// comparison.
    Values,
    /// A part of the decoded picture, brought to the size of a whole one: sharper, and each costs as much as a picture.
    Crops,
}

/// Which views are taken of a picture.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ViewOptions {
    /// How they are taken.
    pub method: ViewMethod,
    /// Rows and columns of patches of a view, at most those of the picture. Where it is `None`: of windows a half and
    /// a third of the grid's side, of crops half of the rows and of the columns.
    pub side: Option<usize>,
    /// Tokens of all views of a picture together, in multiples of the picture's own; 8 for windows and 16 for crops where
    /// it is `None`. A crop counts as a whole picture. As many views are taken as fit, at most [`MAX_VIEWS`].
    pub budget: Option<usize>,
    /// Longer side in pixels of a copy of the whole picture that is kept for an overlay; no copy where it is `None`.
    pub preview: Option<u32>,
}

impl ViewOptions {
    /// The most tokens of all views of a picture of so many patches.
    #[must_use]
    pub fn tokens(&self, patches: usize) -> usize {
        let times = self.budget.unwrap_or(match self.method {
            ViewMethod::Windows => 8,
            ViewMethod::Values => 1,
            ViewMethod::Crops => 16,
        });
        patches.saturating_mul(times)
    }
}

/// The views of one picture, ready for the tower.
#[derive(Debug)]
pub struct Views {
    /// One for each area of the cover, in its order; of [`ViewMethod::Values`] the whole picture.
    pub patches: Vec<Patches>,
    /// Where they are.
    pub cover: Cover,
    /// The whole picture, if it was asked for.
    pub preview: Option<Picture>,
}
