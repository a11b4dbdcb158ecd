//! The Hugging Face layout: transformers' `SiglipModel`, `Siglip2Model` and their towers alone, and
//! the SigLIP tower inside a PaliGemma checkpoint.
//!
//! `config.json` holds only what differs from the defaults of `SiglipConfig` and `Siglip2Config`
//! (transformers, `configuration_siglip.py`); they are repeated here.

use super::{Opened, activation, check_heads, grid, limit, square};
use crate::checkpoint::CheckpointError;
use crate::checkpoint::files::Files;
use crate::checkpoint::json::Object;
use crate::checkpoint::store::Store;
use crate::checkpoint::weights::{CheckpointWeights, Part, Recipe};
use crate::checkpoint::{preprocessing, safetensors, tokenizer};
use crate::image::Grid;
use crate::model::{
    EncoderSpec, ImagePooling, ImageTowerSpec, ModelSpec, PositionResize, TensorSpec, TextTowerSpec,
};
use crate::text::Canonicalization;

/// A `model_type`, and what such a checkpoint holds.
struct Kind {
    model_type: &'static str,
    image: bool,
    text: bool,
    naflex: bool,
    /// The towers' fields are in `vision_config` and `text_config`, not at the top.
    nested: bool,
    /// Other models' tensors beside ours are expected.
    guest: bool,
}

const fn kind(model_type: &'static str, image: bool, text: bool, naflex: bool, nested: bool) -> Kind {
    Kind { model_type, image, text, naflex, nested, guest: false }
}

const KINDS: &[Kind] = &[
    kind("siglip", true, true, false, true),
    kind("siglip2", true, true, true, true),
    kind("siglip_vision_model", true, false, false, false),
    kind("siglip2_vision_model", true, false, true, false),
    kind("siglip_text_model", false, true, false, false),
    kind("siglip2_text_model", false, true, true, false),
    Kind { model_type: "paligemma", image: true, text: false, naflex: false, nested: true, guest: true },
];

/// What may stand before the names of the image tower.
const IMAGE_PREFIXES: &[&str] = &[
    "vision_model.",
    "",
    "vision_tower.vision_model.",
    "model.vision_tower.vision_model.",
    "vision_tower.",
    "model.vision_tower.",
];

/// What may stand before the names of the text tower.
const TEXT_PREFIXES: &[&str] = &["text_model.", ""];

/// The tensor by which the image tower is found.
const PATCH_EMBEDDING: &str = "embeddings.patch_embedding.weight";

/// Buffers that older versions saved beside the weights.
const IGNORED: &[&str] = &["position_ids"];

/// Opens a checkpoint of which `config.json` has been read.
pub(in crate::checkpoint) fn open(
    files: &Files,
    config: &Object,
    weights: &str,
) -> Result<Opened, CheckpointError> {
    let kind = kind_of(config)?;
    let mut spec = spec(config)?;
    let store = safetensors::open(files, weights, |name| wants(config, name))?.ok_or_else(|| {
        CheckpointError::UnknownLayout {
            place: files.place(),
            reason: format!("neither {weights}.safetensors nor {weights}.safetensors.index.json is there"),
        }
    })?;
    if let Some(image) = spec.image.as_mut().filter(|_| kind.guest) {
        // A language model reads the patch tokens: most such checkpoints have dropped the head.
        let head = format!("{}head.probe", prefix(&store, IMAGE_PREFIXES, PATCH_EMBEDDING));
        image.pooling = if store.has(&head) { ImagePooling::MapHead } else { ImagePooling::Mean };
    }
    let vocab = spec.text.as_ref().map(|text| text.vocab);
    let second = vocab.is_some_and(|vocab| vocab == tokenizer::GEMMA_VOCAB) || kind.naflex;
    let image = match &spec.image {
        Some(tower) => Some(preprocessing::image(files, tower, kind.naflex, second)?),
        None => None,
    };
    let text = match &spec.text {
        Some(tower) => Some(tokenizer::text(files, tower, Canonicalization::Hf)?),
        None => None,
    };
    let weights = map(files.place(), store, &spec, kind.guest)?;
    Ok(Opened { spec, image, text, weights })
}

/// Whether transformers wrote this `config.json`: timm's has no `model_type`.
pub(in crate::checkpoint) fn is_config(config: &Object) -> bool {
    config.has("model_type")
}

/// Whether a tensor is of a part that is read: of a language model with a SigLIP tower only the
/// shards with that tower are opened, or downloaded.
pub(in crate::checkpoint) fn wants(config: &Object, tensor: &str) -> bool {
    kind_of(config).map_or(true, |kind| !kind.guest || tensor.contains("vision_tower."))
}

fn kind_of(config: &Object) -> Result<&'static Kind, CheckpointError> {
    let found = config.text("model_type")?.unwrap_or_default();
    KINDS.iter().find(|kind| kind.model_type == found).ok_or_else(|| CheckpointError::UnknownArchitecture {
        file: config.file.clone(),
        found: found.to_string(),
        known: KINDS.iter().map(|kind| kind.model_type).collect::<Vec<_>>().join(", "),
    })
}

/// The spec that a `config.json` describes.
pub(in crate::checkpoint) fn spec(config: &Object) -> Result<ModelSpec, CheckpointError> {
    let kind = kind_of(config)?;
    let section = |name: &str| -> Result<Object, CheckpointError> {
        if !kind.nested {
            return Ok(config.clone());
        }
        Ok(config.object(name)?.unwrap_or_else(|| config.empty(name)))
    };
    let image = match kind.image {
        true => Some(image_tower(&section("vision_config")?, kind.naflex)?),
        false => None,
    };
    let text = match kind.text {
        true => Some(text_tower(&section("text_config")?)?),
        false => None,
    };
    let spec = ModelSpec { scores: image.is_some() && text.is_some(), image, text };
    if let (Some(image), Some(text)) = (&spec.image, &spec.text) {
        let projection = text.projection.unwrap_or(text.encoder.width);
        if projection != image.encoder.width {
            return Err(CheckpointError::Contradiction {
                file: config.file.clone(),
                reason: format!(
                    "text_config.projection_size is {projection}, but vision_config.hidden_size is {}: the \
                     embeddings of the two towers would have different widths",
                    image.encoder.width
                ),
            });
        }
    }
    Ok(spec)
}

fn encoder(config: &Object) -> Result<EncoderSpec, CheckpointError> {
    let encoder = EncoderSpec {
        width: config.size("hidden_size", limit::WIDTH)?.unwrap_or(768),
        depth: config.size("num_hidden_layers", limit::DEPTH)?.unwrap_or(12),
        heads: config.size("num_attention_heads", limit::WIDTH)?.unwrap_or(12),
        mlp: config.size("intermediate_size", limit::MLP)?.unwrap_or(3072),
        activation: activation(
            config,
            "hidden_act",
            config.text("hidden_act")?.unwrap_or("gelu_pytorch_tanh"),
        )?,
        norm_eps: config.number("layer_norm_eps")?.unwrap_or(1e-6),
    };
    check_heads(config, "num_attention_heads", &encoder)?;
    Ok(encoder)
}

fn image_tower(config: &Object, naflex: bool) -> Result<ImageTowerSpec, CheckpointError> {
    if let Some(model_type) = config.text("model_type")? {
        let known = KINDS.iter().any(|kind| kind.image && kind.model_type == model_type);
        if !known {
            return Err(CheckpointError::UnknownArchitecture {
                file: config.file.clone(),
                found: model_type.to_string(),
                known: "siglip_vision_model, siglip2_vision_model".into(),
            });
        }
    }
    if let Some(channels) = config.size("num_channels", 64)?.filter(|channels| *channels != 3) {
        return Err(config.error("num_channels", format!("expected 3 (RGB), found {channels}")));
    }
    let (patch, across) = config.pair("patch_size", limit::PATCH)?.unwrap_or((16, 16));
    if patch != across {
        return Err(config.error("patch_size", format!("expected a square patch, found {patch}×{across}")));
    }
    let positions: Grid = if naflex {
        let patches = config.size("num_patches", limit::PATCHES)?.unwrap_or(256);
        square(config, "num_patches", patches)?
    } else {
        let size = config.pair("image_size", limit::IMAGE)?.unwrap_or((224, 224));
        grid(config, "image_size", size, patch)?
    };
    Ok(ImageTowerSpec {
        encoder: encoder(config)?,
        patch,
        positions,
        position_resize: if naflex { PositionResize::BilinearAntialias } else { PositionResize::Bicubic },
        // Without a head transformers' own classifier (SiglipForImageClassification) takes the mean.
        pooling: match config.flag("vision_use_head")?.unwrap_or(true) {
            true => ImagePooling::MapHead,
            false => ImagePooling::Mean,
        },
    })
}

fn text_tower(config: &Object) -> Result<TextTowerSpec, CheckpointError> {
    let encoder = encoder(config)?;
    Ok(TextTowerSpec {
        vocab: config.size("vocab_size", limit::VOCAB)?.unwrap_or(32000),
        context: config.size("max_position_embeddings", limit::CONTEXT)?.unwrap_or(64),
        projection: Some(config.size("projection_size", limit::WIDTH)?.unwrap_or(encoder.width)),
        encoder,
    })
}

/// The prefix of `prefixes` under which the store has `tensor`.
fn prefix(store: &Store, prefixes: &[&'static str], tensor: &str) -> &'static str {
    prefixes.iter().find(|prefix| store.has(&format!("{prefix}{tensor}"))).unwrap_or(&prefixes[0])
}

fn map(
    place: String,
    store: Store,
    spec: &ModelSpec,
    guest: bool,
) -> Result<CheckpointWeights, CheckpointError> {
    let image_prefix = prefix(&store, IMAGE_PREFIXES, PATCH_EMBEDDING);
    let text_prefix = prefix(&store, TEXT_PREFIXES, "embeddings.token_embedding.weight");
    let stored_name = |canonical: &str| match (
        canonical.strip_prefix("vision_model."),
        canonical.strip_prefix("text_model."),
    ) {
        (Some(rest), _) => format!("{image_prefix}{rest}"),
        (_, Some(rest)) => format!("{text_prefix}{rest}"),
        _ => canonical.to_string(),
    };
    let patch = spec.image.as_ref().map_or(0, |image| image.patch);
    let naflex = spec.image.as_ref().is_some_and(|i| i.position_resize == PositionResize::BilinearAntialias);
    let recipe = |tensor: &TensorSpec| {
        let mut part = Part::same(stored_name(&tensor.name), &tensor.shape);
        if tensor.name == "vision_model.embeddings.patch_embedding.weight" && !naflex {
            // A convolution's weight is (width, channel, y, x); a patch is (y, x, channel).
            part.shapes = vec![(vec![tensor.shape[0], 3, patch, patch], Some(vec![0, 2, 3, 1]))];
        }
        if matches!(tensor.name.as_str(), "logit_scale" | "logit_bias") {
            // Fine-tunes save them without an axis, too.
            part.shapes.push((Vec::new(), None));
        }
        Recipe::one(part)
    };
    let (image, text) = (spec.image.is_some(), spec.text.is_some());
    let ignored = |name: &str| {
        IGNORED.iter().any(|end| name.ends_with(end))
            || (guest && !name.starts_with(image_prefix))
            || (!image && name.starts_with("vision_model."))
            || (!text && name.starts_with("text_model."))
            || (!(image && text) && matches!(name, "logit_scale" | "logit_bias"))
    };
    CheckpointWeights::check(place, store, spec, recipe, ignored)
}
