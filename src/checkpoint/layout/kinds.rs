//! The `model_type`s of transformers that hold SigLIP towers.

use crate::checkpoint::json::Object;
use crate::checkpoint::{CheckpointError, refuse};

/// A `model_type`, and what such a checkpoint may hold: what it does hold is said by its tensors.
pub(super) struct Kind {
    pub(super) model_type: &'static str,
    pub(super) image: bool,
    pub(super) text: bool,
    pub(super) naflex: bool,
    /// The towers' fields are in `vision_config` and `text_config`, not at the top.
    pub(super) nested: bool,
    /// A language model with a SigLIP tower: other tensors beside ours are expected.
    pub(super) guest: bool,
    /// Its image processor resizes bilinearly where no file says how.
    pub(super) bilinear: bool,
    /// Tensors of parts that its short texts and its pictures do without.
    pub(super) unused: &'static [&'static str],
}

const fn kind(model_type: &'static str, image: bool, text: bool, naflex: bool, nested: bool) -> Kind {
    Kind { model_type, image, text, naflex, nested, guest: false, bilinear: naflex, unused: &[] }
}

const fn guest(model_type: &'static str) -> Kind {
    Kind { guest: true, ..kind(model_type, true, false, false, true) }
}

pub(super) const KINDS: &[Kind] = &[
    kind("siglip", true, true, false, true),
    kind("siglip2", true, true, true, true),
    kind("siglip_vision_model", true, false, false, false),
    kind("siglip2_vision_model", true, false, true, false),
    kind("siglip_text_model", false, true, false, false),
    kind("siglip2_text_model", false, true, true, false),
    Kind {
        // FG-CLIP 2 (github.com/360CVGroup/FG-CLIP, `fgclip2/model/strcs`): for short texts it is a NaFlex SigLIP 2.
        unused: &[
            "text_model.embeddings.position_embedding_res.",
            "text_model.embeddings.position_embedding_ori.",
            "longtext_head.",
            "boxtext_head.",
            "dense_feature_head.",
        ],
        ..kind("fgclip2", true, true, true, true)
    },
    guest("paligemma"),
    Kind { bilinear: true, ..guest("gemma3") },
    guest("llava"),
    guest("llava_next"),
    guest("llava_onevision"),
    guest("aya_vision"),
];

/// The image towers inside a `vision_config`.
pub(super) const IMAGE_TOWERS: &[&str] =
    &["siglip_vision_model", "siglip2_vision_model", "fgclip2_vision_model", "siglip", "siglip2"];

/// What a `config.json` says it is.
pub(super) fn kind_of(config: &Object) -> Result<&'static Kind, CheckpointError> {
    let found = config.text("model_type")?.unwrap_or_default();
    let known = || KINDS.iter().map(|kind| kind.model_type).collect::<Vec<_>>().join(", ");
    KINDS
        .iter()
        .find(|kind| kind.model_type == found)
        .ok_or_else(|| refuse::architecture(config, found, known()))
}
