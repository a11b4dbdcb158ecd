//! big_vision's `.npz`: flax parameters of the two-tower model, without any configuration. The spec
//! follows from the shapes alone.
//!
//! Names are those of `big_vision/models/vit.py` and `proj/image_text/text_transformer.py`. Pictures
//! are resized bilinearly, as big_vision does, though with antialias, which its own resize lacks.

use super::names::{Context, Form, Row, recipe, row};
use super::{Opened, limit};
use crate::checkpoint::files::Files;
use crate::checkpoint::known;
use crate::checkpoint::store::Store;
use crate::checkpoint::wanted::Wanted;
use crate::checkpoint::weights::{CheckpointWeights, Part};
use crate::checkpoint::{CheckpointError, npz, preprocessing, tokenizer};
use crate::image::{Geometry, Grid, Resample};
use crate::model::{
    EncoderSpec, ImagePooling, ImageTowerSpec, ModelSpec, PositionResize, TensorSpec, TextTowerSpec,
};
use crate::ops::Activation;
use crate::text::Canonicalization;

const NAMES: &[Row] = &[
    row("vision_model.embeddings.patch_embedding", &[("img/embedding", Form::FlaxPatches, 1)]),
    row("vision_model.embeddings.position_embedding", &[("img/pos_embedding", Form::Positions, 1)]),
    row(
        "vision_model.encoder.layers.{}.layer_norm1",
        &[("img/Transformer/encoderblock{}/LayerNorm_0", Form::Norm, 1)],
    ),
    row(
        "vision_model.encoder.layers.{}.layer_norm2",
        &[("img/Transformer/encoderblock{}/LayerNorm_1", Form::Norm, 1)],
    ),
    row(
        "vision_model.encoder.layers.{}.self_attn.q_proj",
        &[("img/Transformer/encoderblock{}/MultiHeadDotProductAttention_0/query", Form::HeadsIn, 1)],
    ),
    row(
        "vision_model.encoder.layers.{}.self_attn.k_proj",
        &[("img/Transformer/encoderblock{}/MultiHeadDotProductAttention_0/key", Form::HeadsIn, 1)],
    ),
    row(
        "vision_model.encoder.layers.{}.self_attn.v_proj",
        &[("img/Transformer/encoderblock{}/MultiHeadDotProductAttention_0/value", Form::HeadsIn, 1)],
    ),
    row(
        "vision_model.encoder.layers.{}.self_attn.out_proj",
        &[("img/Transformer/encoderblock{}/MultiHeadDotProductAttention_0/out", Form::HeadsOut, 1)],
    ),
    row(
        "vision_model.encoder.layers.{}.mlp.fc1",
        &[("img/Transformer/encoderblock{}/MlpBlock_0/Dense_0", Form::Dense, 1)],
    ),
    row(
        "vision_model.encoder.layers.{}.mlp.fc2",
        &[("img/Transformer/encoderblock{}/MlpBlock_0/Dense_1", Form::Dense, 1)],
    ),
    row("vision_model.post_layernorm", &[("img/Transformer/encoder_norm", Form::Norm, 1)]),
    row("vision_model.head.probe", &[("img/MAPHead_0/probe", Form::Param, 1)]),
    row(
        "vision_model.head.attention.in_proj",
        &[
            ("img/MAPHead_0/MultiHeadDotProductAttention_0/query", Form::HeadsIn, 1),
            ("img/MAPHead_0/MultiHeadDotProductAttention_0/key", Form::HeadsIn, 1),
            ("img/MAPHead_0/MultiHeadDotProductAttention_0/value", Form::HeadsIn, 1),
        ],
    ),
    row(
        "vision_model.head.attention.out_proj",
        &[("img/MAPHead_0/MultiHeadDotProductAttention_0/out", Form::HeadsOut, 1)],
    ),
    row("vision_model.head.layernorm", &[("img/MAPHead_0/LayerNorm_0", Form::Norm, 1)]),
    row("vision_model.head.mlp.fc1", &[("img/MAPHead_0/MlpBlock_0/Dense_0", Form::Dense, 1)]),
    row("vision_model.head.mlp.fc2", &[("img/MAPHead_0/MlpBlock_0/Dense_1", Form::Dense, 1)]),
    row("text_model.embeddings.token_embedding", &[("txt/Embed_0", Form::Embed, 1)]),
    row("text_model.embeddings.position_embedding", &[("txt/pos_embedding", Form::Positions, 1)]),
    row(
        "text_model.encoder.layers.{}.layer_norm1",
        &[("txt/Encoder_0/encoderblock{}/LayerNorm_0", Form::Norm, 1)],
    ),
    row(
        "text_model.encoder.layers.{}.layer_norm2",
        &[("txt/Encoder_0/encoderblock{}/LayerNorm_1", Form::Norm, 1)],
    ),
    row(
        "text_model.encoder.layers.{}.self_attn.q_proj",
        &[("txt/Encoder_0/encoderblock{}/MultiHeadDotProductAttention_0/query", Form::HeadsIn, 1)],
    ),
    row(
        "text_model.encoder.layers.{}.self_attn.k_proj",
        &[("txt/Encoder_0/encoderblock{}/MultiHeadDotProductAttention_0/key", Form::HeadsIn, 1)],
    ),
    row(
        "text_model.encoder.layers.{}.self_attn.v_proj",
        &[("txt/Encoder_0/encoderblock{}/MultiHeadDotProductAttention_0/value", Form::HeadsIn, 1)],
    ),
    row(
        "text_model.encoder.layers.{}.self_attn.out_proj",
        &[("txt/Encoder_0/encoderblock{}/MultiHeadDotProductAttention_0/out", Form::HeadsOut, 1)],
    ),
    row(
        "text_model.encoder.layers.{}.mlp.fc1",
        &[("txt/Encoder_0/encoderblock{}/MlpBlock_0/Dense_0", Form::Dense, 1)],
    ),
    row(
        "text_model.encoder.layers.{}.mlp.fc2",
        &[("txt/Encoder_0/encoderblock{}/MlpBlock_0/Dense_1", Form::Dense, 1)],
    ),
    row("text_model.final_layer_norm", &[("txt/Encoder_0/encoder_norm", Form::Norm, 1)]),
    row("text_model.head", &[("txt/head", Form::Dense, 1)]),
    row("logit_scale", &[("t", Form::Scalar, 1)]),
    row("logit_bias", &[("b", Form::Scalar, 1)]),
];

/// A second table of text positions that old checkpoints have, added to the first
/// (`text_transformer.py`, `load`).
const OLD_TEXT_POSITIONS: &str = "txt/Encoder_0/pos_embedding";

/// Opens one `.npz`; its tokenizer's files may lie beside it.
pub(in crate::checkpoint) fn open(
    files: &Files,
    file: &str,
    wanted: Wanted,
) -> Result<Opened, CheckpointError> {
    let mut store = Store::default();
    npz::add(&mut store, files.label(file), files.map(file)?)?;
    let shapes = Shapes::new(&store, files.label(file));
    let (mut spec, stacked) = shapes.spec()?;
    wanted.only_short_texts(&shapes.file)?;
    wanted.choose(&mut spec, &shapes.file)?;
    let known = known::by_npz(file.strip_suffix(".npz").unwrap_or(file));
    let image = spec.image.as_ref().map(|tower| {
        let naflex = tower.position_resize == PositionResize::BilinearAntialias;
        let mut image = preprocessing::default(tower, naflex, Resample::Bilinear);
        // The position table tells the patches, not the pixels: 384 of patch 14 are 27 patches, 378.
        if let (Geometry::Squash { height, width }, Some(size)) =
            (&mut image.geometry, known.and_then(|k| k.image))
            && size / tower.patch == tower.positions.rows
        {
            (*height, *width) = (size as u32, size as u32);
        }
        image
    });
    let text = match &spec.text {
        Some(tower) => Some(tokenizer::text(files, tower, Canonicalization::BigVision)?),
        None => None,
    };
    let weights = map(shapes.file.clone(), shapes.prefix, stacked, store, &spec)?;
    Ok(Opened { spec, image, text, weights })
}

fn map(
    place: String,
    prefix: &'static str,
    (image, text): (bool, bool),
    store: Store,
    spec: &ModelSpec,
) -> Result<CheckpointWeights, CheckpointError> {
    let context = Context::flax(spec, prefix, image, text);
    let old = format!("{prefix}{OLD_TEXT_POSITIONS}");
    let has_old = store.has(&old);
    let make = |tensor: &TensorSpec| {
        let mut made = recipe(&[NAMES], tensor, &context);
        if has_old && tensor.name == "text_model.embeddings.position_embedding.weight" {
            let shapes = made.parts[0].shapes.clone();
            made.parts.push(Part { shapes, ..Part::same(old.clone(), &[]) });
            made.sum = true;
        }
        made
    };
    // Beside `params/` a training checkpoint has the optimiser's state.
    let (has_image, has_text) = (spec.image.is_some(), spec.text.is_some());
    let ignored = |name: &str| {
        let Some(name) = name.strip_prefix(prefix) else { return true };
        (!has_image && name.starts_with("img/"))
            || (!has_text && name.starts_with("txt/"))
            || (!(has_image && has_text) && matches!(name, "t" | "b"))
    };
    CheckpointWeights::check(place, store, spec, make, ignored)
}

/// Reads sizes off the shapes of a few tensors.
struct Shapes<'a> {
    store: &'a Store,
    file: String,
    prefix: &'static str,
}

impl<'a> Shapes<'a> {
    fn new(store: &'a Store, file: String) -> Self {
        let prefixed = store.iter().any(|(name, _)| name.starts_with("params/"));
        Self { store, file, prefix: if prefixed { "params/" } else { "" } }
    }

    fn has(&self, name: &str) -> bool {
        self.store.has(&format!("{}{name}", self.prefix))
    }

    /// The shape of a tensor of `axes` axes (a 0 stands for an axis of any size), each within bounds.
    fn shape(&self, name: &str, expected: &[&[usize]]) -> Result<&'a [usize], CheckpointError> {
        let tensor = format!("{}{name}", self.prefix);
        let file = self.file.clone();
        let Some(stored) = self.store.get(&tensor) else {
            return Err(CheckpointError::MissingTensor { file, tensor, expected: expected[0].to_vec() });
        };
        let found = stored.shape.as_slice();
        let fits = |shape: &&[usize]| {
            shape.len() == found.len()
                && shape.iter().zip(found).all(|(want, size)| *want == *size || (*want == 0 && *size > 0))
        };
        if expected.iter().any(fits) && found.iter().all(|size| *size <= limit::VOCAB) {
            return Ok(found);
        }
        Err(CheckpointError::Shape { file, tensor, expected: expected[0].to_vec(), found: found.to_vec() })
    }

    fn contradiction(&self, reason: String) -> CheckpointError {
        CheckpointError::Contradiction { file: self.file.clone(), reason }
    }

    fn spec(&self) -> Result<(ModelSpec, (bool, bool)), CheckpointError> {
        let (mut image, mut text, mut stacked) = (None, None, (false, false));
        if self.has("img/embedding/kernel") {
            let (tower, scanned) = self.image()?;
            (image, stacked.0) = (Some(tower), scanned);
        }
        if self.has("txt/Embed_0/embedding") {
            let (tower, scanned) = self.text()?;
            (text, stacked.1) = (Some(tower), scanned);
        }
        if image.is_none() && text.is_none() {
            return Err(CheckpointError::UnknownArchitecture {
                file: self.file.clone(),
                found: "an npz without img/embedding/kernel and txt/Embed_0/embedding".into(),
                known: "big_vision's two towers".into(),
            });
        }
        let scores = self.has("t") && self.has("b");
        let spec = ModelSpec { scores, image, text, classifier: None };
        if let (Some(image), Some(text)) = (&spec.image, &spec.text) {
            let projection = text.projection.unwrap_or(text.encoder.width);
            if projection != image.encoder.width {
                return Err(self.contradiction(format!(
                    "texts become {projection} values, but images {}",
                    image.encoder.width
                )));
            }
        }
        Ok((spec, stacked))
    }

    fn image(&self) -> Result<(ImageTowerSpec, bool), CheckpointError> {
        let kernel = self.shape("img/embedding/kernel", &[&[0, 0, 3, 0], &[0, 0]])?;
        let (patch, width) = match *kernel {
            [patch, across, 3, width] if patch == across => (patch, width),
            [values, width] => ((values / 3).isqrt(), width),
            _ => (0, 0),
        };
        if patch == 0 || patch > limit::PATCH || (kernel.len() == 2 && patch * patch * 3 != kernel[0]) {
            return Err(
                self.contradiction(format!("img/embedding/kernel {kernel:?} is not of a square patch"))
            );
        }
        let (positions, naflex) = match *self.shape("img/pos_embedding", &[&[1, 0, width], &[0, 0, width]])? {
            [1, patches, _] => {
                let side = patches.isqrt();
                if side * side != patches {
                    return Err(self.contradiction(format!("{patches} positions are not a square grid")));
                }
                (Grid { rows: side, cols: side }, kernel.len() == 2)
            }
            [rows, cols, _] => (Grid { rows, cols }, true),
            _ => (Grid { rows: 0, cols: 0 }, false),
        };
        if positions.len() > limit::PATCHES {
            return Err(self.contradiction(format!("{} positions are too many", positions.len())));
        }
        let (encoder, stacked) = self.encoder("img/Transformer", width)?;
        let tower = ImageTowerSpec {
            encoder,
            patch,
            positions,
            position_resize: if naflex { PositionResize::BilinearAntialias } else { PositionResize::Bicubic },
            pooling: match self.has("img/MAPHead_0/probe") {
                true => ImagePooling::MapHead,
                false => ImagePooling::Mean,
            },
        };
        Ok((tower, stacked))
    }

    fn text(&self) -> Result<(TextTowerSpec, bool), CheckpointError> {
        let embedding = self.shape("txt/Embed_0/embedding", &[&[0, 0]])?;
        let (vocab, width) = (embedding[0], embedding[1]);
        let context = self.shape("txt/pos_embedding", &[&[1, 0, width]])?[1];
        let (encoder, stacked) = self.encoder("txt/Encoder_0", width)?;
        let projection = match self.has("txt/head/kernel") {
            true => Some(self.shape("txt/head/kernel", &[&[width, 0]])?[1]),
            false => None,
        };
        Ok((TextTowerSpec { encoder, vocab, context, projection, long_head: false }, stacked))
    }

    fn encoder(&self, tower: &str, width: usize) -> Result<(EncoderSpec, bool), CheckpointError> {
        let stacked = self.has(&format!("{tower}/encoderblock/LayerNorm_0/scale"));
        let (block, depth) = if stacked {
            let depth = self.shape(&format!("{tower}/encoderblock/LayerNorm_0/scale"), &[&[0, width]])?[0];
            (format!("{tower}/encoderblock"), depth)
        } else {
            let layer = |index: usize| self.has(&format!("{tower}/encoderblock_{index}/LayerNorm_0/scale"));
            let depth = (0..=limit::DEPTH).take_while(|index| layer(*index)).count();
            (format!("{tower}/encoderblock_0"), depth)
        };
        let query = format!("{block}/MultiHeadDotProductAttention_0/query/kernel");
        let dense = format!("{block}/MlpBlock_0/Dense_0/kernel");
        let (heads, mlp) = match stacked {
            true => (
                self.shape(&query, &[&[depth, width, 0, 0]])?[2],
                self.shape(&dense, &[&[depth, width, 0]])?[2],
            ),
            false => (self.shape(&query, &[&[width, 0, 0]])?[1], self.shape(&dense, &[&[width, 0]])?[1]),
        };
        if depth > limit::DEPTH || width > limit::WIDTH || mlp > limit::MLP || !width.is_multiple_of(heads) {
            return Err(self.contradiction(format!(
                "{tower}: width {width}, depth {depth}, {heads} heads and an MLP of {mlp} make no tower"
            )));
        }
        let activation = Activation::GeluTanh;
        Ok((EncoderSpec { width, depth, heads, mlp, activation, norm_eps: 1e-6 }, stacked))
    }
}
