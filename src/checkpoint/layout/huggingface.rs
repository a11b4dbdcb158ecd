//! The Hugging Face layout: transformers' `SiglipModel`, `Siglip2Model`, their towers alone or with a classifier, and the
//! SigLIP tower inside a language model that sees.
//!
//! Which towers there are is read off the tensors; `config.json` says their sizes.
//!
//! `config.json` holds only what differs from the defaults of `SiglipConfig` and `Siglip2Config`
//! (transformers, `configuration_siglip.py`); they are repeated here.

use super::kinds::{IMAGE_TOWERS, Kind, kind_of};
use super::{Opened, activation, check_heads, classifier, grid, limit, square};
use crate::checkpoint::CheckpointError;
use crate::checkpoint::files::Files;
use crate::checkpoint::json::Object;
use crate::checkpoint::store::Store;
use crate::checkpoint::wanted::{Wanted, no_long_texts};
use crate::checkpoint::weights::{CheckpointWeights, Part, Recipe};
use crate::checkpoint::{preprocessing, refuse, tokenizer, weights_file};
use crate::image::{Geometry, Grid, ImageSpec, Resample};
use crate::model::{
    EncoderSpec, ImagePooling, ImageTowerSpec, ModelSpec, PositionResize, TensorSpec, TextTowerSpec,
};
use crate::text::Canonicalization;

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

/// The tensor by which the text tower is found.
const TOKEN_EMBEDDING: &str = "embeddings.token_embedding.weight";

/// Buffers that older versions saved beside the weights.
const IGNORED: &[&str] = &["position_ids"];

/// Opens a checkpoint of which `config.json` has been read.
pub(in crate::checkpoint) fn open(
    files: &Files,
    config: &Object,
    weights: &str,
    wanted: Wanted,
) -> Result<Opened, CheckpointError> {
    let kind = kind_of(config)?;
    let mut spec = spec(config)?;
    let store = weights_file::open(files, weights, |name| wants(config, name))?;
    towers(config, kind, &store, &mut spec)?;
    let long = match wanted.long_texts {
        true => Some(LongTexts::find(config, &store, &mut spec)?),
        false => None,
    };
    let vocab = config
        .object("text_config")?
        .map(|text| text.size("vocab_size", limit::VOCAB))
        .transpose()?
        .flatten();
    let vocab = spec.text.as_ref().map(|text| text.vocab).or(vocab.filter(|_| !kind.guest));
    wanted.choose(&mut spec, &store.label())?;
    let bilinear = vocab.is_some_and(|vocab| vocab == tokenizer::GEMMA_VOCAB) || kind.bilinear;
    let image = match &spec.image {
        Some(tower) => {
            let defaults = preprocessing::default(
                tower,
                kind.naflex,
                if bilinear { Resample::Bilinear } else { Resample::Bicubic },
            );
            // The grid does not tell the pixels: 384 of patch 14 are 27 patches, 378 pixels.
            let geometry = match section(config, kind, "vision_config")?.pair("image_size", limit::IMAGE)? {
                Some((height, width)) if !kind.naflex => {
                    Geometry::Squash { height: height as u32, width: width as u32 }
                }
                _ => defaults.geometry,
            };
            let defaults = ImageSpec { geometry, ..defaults };
            Some(preprocessing::image(files, tower, defaults, kind.naflex, kind.guest)?)
        }
        None => None,
    };
    let text = match &spec.text {
        Some(tower) => Some(tokenizer::text(files, tower, Canonicalization::Hf)?),
        None => None,
    };
    let weights = map(files.place(), store, &spec, kind, long)?;
    Ok(Opened { spec, image, text, weights })
}

/// Refuses what `config.json` says cannot be loaded.
pub(in crate::checkpoint) fn check(config: &Object) -> Result<(), CheckpointError> {
    let kind = kind_of(config)?;
    refuse::quantised(config)?;
    if kind.unused.is_empty() {
        refuse::remote_code(config)?;
    }
    spec(config).map(drop)
}

/// The fields of a tower.
fn section(config: &Object, kind: &Kind, name: &str) -> Result<Object, CheckpointError> {
    if !kind.nested {
        return Ok(config.clone());
    }
    Ok(config.object(name)?.unwrap_or_else(|| config.empty(name)))
}

/// Corrects a spec by the tensors that there are: a configuration of both towers is saved beside one of them, and one
/// with a pooling head beside a tower without.
fn towers(config: &Object, kind: &Kind, store: &Store, spec: &mut ModelSpec) -> Result<(), CheckpointError> {
    let any = |start: &str| store.iter().any(|(name, _)| name.starts_with(start));
    if kind.image && kind.text {
        let (image, text) = (any("vision_model.") || store.has(PATCH_EMBEDDING), any("text_model."));
        if !image && !text {
            return Err(CheckpointError::Unsupported {
                file: store.label(),
                what: format!(
                    "no tensor of a SigLIP tower is in it; its names are like {:?}",
                    store.iter().next().map_or("", |(name, _)| name)
                ),
            });
        }
        if !image {
            spec.image = None;
        }
        if !text {
            spec.text = None;
        }
        spec.scores = image && text;
    }
    if let Some(text) = &mut spec.text {
        // A key of Google's own that transformers does not know: the head was an identity, and is not saved.
        let section = config.object("text_config")?;
        let no_head = section.map(|text| text.flag("no_head")).transpose()?.flatten().unwrap_or(false);
        let head = format!("{}head.weight", prefix(store, TEXT_PREFIXES, TOKEN_EMBEDDING));
        if no_head && !store.has(&head) && text.projection == Some(text.encoder.width) {
            text.projection = None;
        }
    }
    let Some(image) = spec.image.as_mut().filter(|_| spec.text.is_none()) else { return Ok(()) };
    let prefix = prefix(store, IMAGE_PREFIXES, PATCH_EMBEDDING);
    // A language model reads the patch tokens: most such checkpoints have dropped the head.
    image.pooling = match any(&format!("{prefix}head.")) {
        true => ImagePooling::MapHead,
        false => ImagePooling::Mean,
    };
    let layers =
        (0..image.encoder.depth).take_while(|layer| any(&format!("{prefix}encoder.layers.{layer}."))).count();
    if layers > 0 && layers < image.encoder.depth {
        return Err(CheckpointError::Unsupported {
            file: store.label(),
            what: format!(
                "num_hidden_layers is {}, but only the first {layers} layers are there: a tower that was cut for a \
                 language model gives no embedding of SigLIP's; set num_hidden_layers to {layers} for the mean of its \
                 last patch tokens",
                image.encoder.depth
            ),
        });
    }
    spec.classifier = match kind.guest {
        true => None,
        false => classifier::read(config, store)?,
    };
    Ok(())
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

/// The spec that a `config.json` describes.
pub(in crate::checkpoint) fn spec(config: &Object) -> Result<ModelSpec, CheckpointError> {
    let kind = kind_of(config)?;
    let section = |name: &str| section(config, kind, name);
    let image = match kind.image {
        true => Some(image_tower(&section("vision_config")?, kind.naflex)?),
        false => None,
    };
    let text = match kind.text {
        true => Some(text_tower(&section("text_config")?)?),
        false => None,
    };
    let spec = ModelSpec { scores: image.is_some() && text.is_some(), image, text, classifier: None };
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
        let known = IMAGE_TOWERS.contains(&model_type);
        if !known {
            return Err(refuse::architecture(config, model_type, IMAGE_TOWERS[..2].join(", ")));
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
        long_head: false,
        encoder,
    })
}

/// How a text tower takes long texts: the first positions from one table and the others from a second one, which was stretched
/// from the usual one and trained; and another linear layer after the head (FG-CLIP 2, `walk_type="long"`).
struct LongTexts {
    /// Positions that are in the first table.
    kept: usize,
    context: usize,
}

const SHORT_POSITIONS: &str = "embeddings.position_embedding.weight";
const FIRST_POSITIONS: &str = "embeddings.position_embedding_ori.weight";
const OTHER_POSITIONS: &str = "embeddings.position_embedding_res.weight";
const LONG_HEAD: &str = "longtext_head";

impl LongTexts {
    /// Makes the text tower of `spec` one for long texts.
    fn find(config: &Object, store: &Store, spec: &mut ModelSpec) -> Result<Self, CheckpointError> {
        let positions = format!("{}{OTHER_POSITIONS}", prefix(store, TEXT_PREFIXES, TOKEN_EMBEDDING));
        let context = store.get(&positions).and_then(|tensor| tensor.shape.first().copied());
        let has_head = store.has(&format!("{LONG_HEAD}.weight"));
        let (Some(context), true, Some(text)) = (context, has_head, &mut spec.text) else {
            return Err(no_long_texts(&store.label()));
        };
        let section = config.object("text_config")?.unwrap_or_else(|| config.empty("text_config"));
        let kept = section.size("keep_len", limit::CONTEXT)?.unwrap_or(20);
        if kept >= context || context > limit::CONTEXT {
            let reason = format!("{kept} positions are kept of {context} for long texts");
            return Err(section.error("keep_len", reason));
        }
        text.context = context;
        text.long_head = true;
        Ok(Self { kept, context })
    }

    /// How the tensors are made that short texts have otherwise.
    fn recipe(&self, tensor: &TensorSpec, text_prefix: &str) -> Option<Recipe> {
        let name = tensor.name.strip_prefix("text_model.")?;
        if name == SHORT_POSITIONS {
            let rows = |name: &str, rows| Part {
                rows: Some(rows),
                ..Part::same(format!("{text_prefix}{name}"), &tensor.shape)
            };
            let parts =
                vec![rows(FIRST_POSITIONS, 0..self.kept), rows(OTHER_POSITIONS, self.kept..self.context)];
            return Some(Recipe { parts, sum: false });
        }
        let leaf = name.strip_prefix("long_head.")?;
        Some(Recipe::one(Part::same(format!("{LONG_HEAD}.{leaf}"), &tensor.shape)))
    }
}

/// The prefix of `prefixes` under which the store has `tensor`.
fn prefix(store: &Store, prefixes: &[&'static str], tensor: &str) -> &'static str {
    prefixes.iter().find(|prefix| store.has(&format!("{prefix}{tensor}"))).unwrap_or(&prefixes[0])
}

fn map(
    place: String,
    store: Store,
    spec: &ModelSpec,
    kind: &Kind,
    long: Option<LongTexts>,
) -> Result<CheckpointWeights, CheckpointError> {
    let image_prefix = prefix(&store, IMAGE_PREFIXES, PATCH_EMBEDDING);
    let text_prefix = prefix(&store, TEXT_PREFIXES, TOKEN_EMBEDDING);
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
        if let Some(recipe) = long.as_ref().and_then(|long| long.recipe(tensor, text_prefix)) {
            return recipe;
        }
        let mut part = Part::same(stored_name(&tensor.name), &tensor.shape);
        if tensor.name == "vision_model.embeddings.patch_embedding.weight" && !naflex {
            // A convolution's weight is (width, channel, y, x); a patch is (y, x, channel).
            // MLX keeps it as (width, y, x, channel).
            part.shapes = vec![
                (vec![tensor.shape[0], 3, patch, patch], Some(vec![0, 2, 3, 1])),
                (vec![tensor.shape[0], patch, patch, 3], None),
            ];
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
            || (kind.guest && !name.starts_with(image_prefix))
            || (long.is_some() && name.strip_prefix(text_prefix) == Some(SHORT_POSITIONS))
            || kind.unused.iter().any(|start| name.starts_with(start))
            || (!image && name.starts_with("vision_model."))
            || (!text && name.starts_with("text_model."))
            || (!(image && text) && matches!(name, "logit_scale" | "logit_bias"))
    };
    CheckpointWeights::check(place, store, spec, recipe, ignored)
}
