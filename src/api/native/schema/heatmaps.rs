//! `/v1/heatmaps`.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{Inputs, Label, LabelSetUsed, ListTag, Usage};
use crate::api::read::{Heap, options};
use crate::image::ViewMethod;
use crate::text::Canonicalization;

options! {
    /// Pictures, and texts that are looked for in each of them.
    #[schema(example = json!({
        "images": ["data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAIAAACQd1PeAAAADElEQVR4nGP4z8AAAAMBAQDJ/pLvAAAAAElFTkSuQmCC"],
        "texts": ["a cat"], "boxes": true,
    }))]
    pub struct HeatmapsRequest {
        inputs {
            /// Pictures; a bare string is one too.
            images: Inputs,
        }
        either {
            /// Texts, as they are: no template is put around them. Token ids only with `token_ids`.
            texts: Inputs,
        }
        lists {
            /// Of a label set, only these labels; all if left out.
            #[schema(value_type = Option<Vec<String>>, min_items = 1)]
            labels,
        }
        options {
            /// In place of texts, the name of a stored label set (`/v1/label-sets`), or `name@version`.
            #[schema(example = "animals")]
            label_set: String,
            /// The model's name; may be left out, then it is the service's first model.
            model: String,
            /// How views are taken; `windows` if left out.
            method: HeatmapMethod,
            /// Rows and columns of patches of a view. If left out, windows have a half and a third of the grid's side, of
            /// which the mean is taken, and crops a half.
            #[schema(minimum = 1)]
            window: usize,
            /// Patches of all views of a picture, in multiples of the picture's own: how much longer it takes than an
            /// embedding, at most. 8 for windows and 16 for crops if left out. Views overlap as far as it allows; there are at
            /// most 256.
            #[schema(minimum = 1, maximum = 64)]
            budget: usize,
            /// Whether a box is given for each map; true if `threshold` is there.
            boxes: bool,
            /// The probability from which on a patch is inside of a box. If left out, patches are whose cosine is in the upper
            /// half of the map's range.
            threshold: f32,
            /// Whether each map is drawn over its picture.
            overlay: bool,
            /// Another canonicalisation than the checkpoint's.
            canonicalization: Canonicalization,
            /// Another patch budget than the checkpoint's; NaFlex models only.
            #[schema(minimum = 1)]
            max_num_patches: usize,
            /// Says that token ids are of this model's tokenizer; without it they are refused.
            token_ids: bool,
        }
    }
}

/// How views of a picture are taken.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum HeatmapMethod {
    /// Some of the picture's patches, with positions resized to their own grid: few tokens.
    #[default]
    Windows,
    /// Each patch pooled alone: one embedding's cost, and hardly better than chance. For comparison; `window` and `budget`
    /// mean nothing to it.
    Values,
    /// Parts of the picture in full resolution, each brought to the model's size: sharper, and each costs a whole picture.
    Crops,
}

impl Heap for HeatmapMethod {}

impl From<HeatmapMethod> for ViewMethod {
    fn from(method: HeatmapMethod) -> Self {
        match method {
            HeatmapMethod::Windows => Self::Windows,
            HeatmapMethod::Values => Self::Values,
            HeatmapMethod::Crops => Self::Crops,
        }
    }
}

/// A map for each pair: all texts or labels of the first picture, then of the second.
#[derive(Debug, Serialize, ToSchema)]
pub struct HeatmapsResponse {
    /// Always `list`.
    pub object: ListTag,
    /// The maps.
    pub data: Vec<Heatmap>,
    /// The model that made them.
    pub model: String,
    /// What was counted: the patches of every view, and the texts.
    pub usage: Usage,
    /// The label set that was used, where there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub label_set: Option<LabelSetUsed>,
}

/// `heatmap`.
#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum HeatmapTag {
    /// The only value.
    Heatmap,
}

/// Where in a picture a text is: a number for each patch, rows from top to bottom.
#[derive(Debug, Serialize, ToSchema)]
pub struct Heatmap {
    /// Always `heatmap`.
    pub object: HeatmapTag,
    /// Which picture it belongs to, from 0.
    pub image: usize,
    /// Which text it belongs to, from 0; of a label set, which of its labels that are answered.
    pub text: usize,
    /// The label, where it is one of a set.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, required = false)]
    pub label: Option<Label>,
    /// Rows of patches.
    pub rows: usize,
    /// Columns of patches.
    pub columns: usize,
    /// Width of the upright picture in pixels: what `peak` and `box` are in.
    pub width: u32,
    /// Height of the upright picture in pixels.
    pub height: u32,
    /// Mean cosine of the views that a patch is in; of several sizes the larger ones weigh more. Of a label with examples it is
    /// on the level of texts.
    pub cosine: Vec<Vec<f32>>,
    /// Scale times cosine plus bias; null for a checkpoint without scale and bias.
    pub logit: Option<Vec<Vec<f32>>>,
    /// Sigmoid of the logit; null as above.
    pub probability: Option<Vec<Vec<f32>>>,
    /// The patch with the highest cosine.
    pub peak: HeatmapPeak,
    /// The box around the largest connected region of patches that reach the threshold; null if none does. Only there if it
    /// was asked for.
    #[serde(rename = "box", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<HeatmapBox>, required = false)]
    pub area: Option<Option<HeatmapBox>>,
    /// The map over the picture: a PNG in base64, at most 512 pixels wide or high. Only there if it was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(required = false)]
    pub overlay: Option<String>,
}

/// A patch.
#[derive(Debug, Serialize, ToSchema)]
pub struct HeatmapPeak {
    /// Its row, from 0.
    pub row: usize,
    /// Its column, from 0.
    pub column: usize,
    /// Pixels from the left border of the picture to its middle.
    pub x: u32,
    /// Pixels from the upper border of the picture to its middle.
    pub y: u32,
}

/// A rectangle of the picture.
#[derive(Debug, Serialize, ToSchema)]
pub struct HeatmapBox {
    /// Pixels left of it.
    pub x: u32,
    /// Pixels above it.
    pub y: u32,
    /// Its width in pixels.
    pub width: u32,
    /// Its height in pixels.
    pub height: u32,
    /// The highest probability inside; null for a checkpoint without scale and bias.
    pub probability: Option<f32>,
    /// Patches of the region; those of the box may be more.
    pub patches: usize,
}
