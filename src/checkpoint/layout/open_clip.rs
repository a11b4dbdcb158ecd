//! The layouts of open_clip and timm: image towers that are named after a timm model, with fused
//! queries, keys and values, and open_clip's own text transformer.
//!
//! The vectors are those that open_clip gives, which are not quite transformers': for many of the
//! names timm runs the exact GELU on weights that were trained with its tanh approximation. The
//! table below repeats what timm 1.0 registers (`vision_transformer.py`, `naflexvit.py`); the text
//! tower's activation is in `text_cfg`.

use super::names::{Context, Form, Row, recipe, row};
use super::{Opened, check_heads, grid, limit};
use crate::checkpoint::files::Files;
use crate::checkpoint::json::Object;
use crate::checkpoint::store::Store;
use crate::checkpoint::wanted::Wanted;
use crate::checkpoint::weights::CheckpointWeights;
use crate::checkpoint::{CheckpointError, preprocessing, tokenizer, weights_file};
use crate::image::{Geometry, Grid, ImageSpec, Resample};
use crate::model::{EncoderSpec, ImagePooling, ImageTowerSpec, ModelSpec, PositionResize, TextTowerSpec};
use crate::ops::Activation;
use crate::text::Canonicalization;

/// Sizes of timm's towers: name, width, depth, heads, MLP width.
const SIZES: &[(&str, usize, usize, usize, usize)] = &[
    ("base", 768, 12, 12, 3072),
    ("large", 1024, 24, 16, 4096),
    ("so400m", 1152, 27, 16, 4304),
    ("giantopt", 1536, 40, 16, 6144),
];

/// timm's fixed-resolution SigLIP models: size, patch, activation, pixels. Each is registered with a
/// pooling head (`…_siglip_224`) and without (`…_siglip_gap_224`).
const FIXED: &[(&str, usize, Activation, &[usize])] = &[
    ("base", 32, Activation::GeluTanh, &[256]),
    ("base", 16, Activation::GeluErf, &[224, 256, 384, 512]),
    ("large", 16, Activation::GeluErf, &[256, 384]),
    ("large", 16, Activation::GeluTanh, &[512]),
    ("so400m", 14, Activation::GeluErf, &[224, 378, 384, 448, 896]),
    ("so400m", 16, Activation::GeluTanh, &[256, 384, 512]),
    ("giantopt", 16, Activation::GeluTanh, &[256, 384]),
];

/// Sizes for which timm has `naflexvit_…_patch16_siglip`.
const NAFLEX: &[&str] = &["base", "so400m"];

/// What open_clip takes where `preprocess_cfg` does not say it, CLIP's values (`transform.py`, `PreprocessCfg`): a
/// checkpoint that was saved without them runs with these there.
const OPENAI_MEAN: [f32; 3] = [0.481_454_66, 0.457_827_5, 0.408_210_73];
/// As [`OPENAI_MEAN`].
const OPENAI_STD: [f32; 3] = [0.268_629_54, 0.261_302_6, 0.275_777_1];

/// The image tower, without the `visual.trunk.` that open_clip puts before it.
const IMAGE: &[Row] = &[
    row("vision_model.embeddings.patch_embedding", &[("patch_embed.proj", Form::Patches, 1)]),
    row("vision_model.embeddings.position_embedding", &[("pos_embed", Form::Positions, 1)]),
    row("vision_model.encoder.layers.{}.layer_norm1", &[("blocks.{}.norm1", Form::Torch, 1)]),
    row("vision_model.encoder.layers.{}.layer_norm2", &[("blocks.{}.norm2", Form::Torch, 1)]),
    row("vision_model.encoder.layers.{}.self_attn.q_proj", &[("blocks.{}.attn.qkv", Form::Fused(0), 1)]),
    row("vision_model.encoder.layers.{}.self_attn.k_proj", &[("blocks.{}.attn.qkv", Form::Fused(1), 1)]),
    row("vision_model.encoder.layers.{}.self_attn.v_proj", &[("blocks.{}.attn.qkv", Form::Fused(2), 1)]),
    row("vision_model.encoder.layers.{}.self_attn.out_proj", &[("blocks.{}.attn.proj", Form::Torch, 1)]),
    row("vision_model.encoder.layers.{}.mlp.fc1", &[("blocks.{}.mlp.fc1", Form::Torch, 1)]),
    row("vision_model.encoder.layers.{}.mlp.fc2", &[("blocks.{}.mlp.fc2", Form::Torch, 1)]),
    row("vision_model.post_layernorm", &[("norm", Form::Torch, 1)]),
    row("vision_model.head.probe", &[("attn_pool.latent", Form::Param, 1)]),
    row(
        "vision_model.head.attention.in_proj",
        &[("attn_pool.q", Form::Torch, 1), ("attn_pool.kv", Form::Torch, 2)],
    ),
    row("vision_model.head.attention.out_proj", &[("attn_pool.proj", Form::Torch, 1)]),
    row("vision_model.head.layernorm", &[("attn_pool.norm", Form::Torch, 1)]),
    row("vision_model.head.mlp.fc1", &[("attn_pool.mlp.fc1", Form::Torch, 1)]),
    row("vision_model.head.mlp.fc2", &[("attn_pool.mlp.fc2", Form::Torch, 1)]),
];

/// What NaFlex models call otherwise.
const NAFLEX_IMAGE: &[Row] = &[
    row("vision_model.embeddings.patch_embedding", &[("embeds.proj", Form::Patches, 1)]),
    row("vision_model.embeddings.position_embedding", &[("embeds.pos_embed", Form::Positions, 1)]),
];

/// open_clip's text tower and scores.
const TEXT: &[Row] = &[
    row("text_model.embeddings.token_embedding", &[("text.token_embedding", Form::Torch, 1)]),
    row("text_model.embeddings.position_embedding", &[("text.positional_embedding", Form::Positions, 1)]),
    row(
        "text_model.encoder.layers.{}.layer_norm1",
        &[("text.transformer.resblocks.{}.ln_1", Form::Torch, 1)],
    ),
    row(
        "text_model.encoder.layers.{}.layer_norm2",
        &[("text.transformer.resblocks.{}.ln_2", Form::Torch, 1)],
    ),
    row(
        "text_model.encoder.layers.{}.self_attn.q_proj",
        &[("text.transformer.resblocks.{}.attn.in_proj", Form::InProj(0), 1)],
    ),
    row(
        "text_model.encoder.layers.{}.self_attn.k_proj",
        &[("text.transformer.resblocks.{}.attn.in_proj", Form::InProj(1), 1)],
    ),
    row(
        "text_model.encoder.layers.{}.self_attn.v_proj",
        &[("text.transformer.resblocks.{}.attn.in_proj", Form::InProj(2), 1)],
    ),
    row(
        "text_model.encoder.layers.{}.self_attn.out_proj",
        &[("text.transformer.resblocks.{}.attn.out_proj", Form::Torch, 1)],
    ),
    row(
        "text_model.encoder.layers.{}.mlp.fc1",
        &[("text.transformer.resblocks.{}.mlp.c_fc", Form::Torch, 1)],
    ),
    row(
        "text_model.encoder.layers.{}.mlp.fc2",
        &[("text.transformer.resblocks.{}.mlp.c_proj", Form::Torch, 1)],
    ),
    row("text_model.final_layer_norm", &[("text.ln_final", Form::Torch, 1)]),
    row("text_model.head", &[("text.text_projection", Form::Torch, 1)]),
    row("logit_scale", &[("logit_scale", Form::Scalar, 1)]),
    row("logit_bias", &[("logit_bias", Form::Scalar, 1)]),
];

/// Opens a folder of which `open_clip_config.json` has been read.
pub(in crate::checkpoint) fn open(
    files: &Files,
    config: &Object,
    weights: &str,
    wanted: Wanted,
) -> Result<Opened, CheckpointError> {
    let (mut spec, pictures, canonicalization) = spec(config, wanted)?;
    let store = weights_file::open(files, weights, |_| true)?;
    wanted.only_short_texts(&store.label())?;
    wanted.choose(&mut spec, &store.label())?;
    let text = match &spec.text {
        Some(tower) => Some(tokenizer::text(files, tower, canonicalization)?),
        None => None,
    };
    let weights = map(files.place(), store, &spec, "visual.trunk.")?;
    let image = spec.image.is_some().then_some(pictures);
    Ok(Opened { spec, image, text, weights })
}

/// Opens a folder with timm's `config.json`, which has only an image tower.
pub(in crate::checkpoint) fn open_timm(
    files: &Files,
    config: &Object,
    weights: &str,
    wanted: Wanted,
) -> Result<Opened, CheckpointError> {
    let (tower, pictures) = timm_spec(config)?;
    let mut spec = ModelSpec { image: Some(tower), text: None, scores: false, classifier: None };
    wanted.only_short_texts(&config.file)?;
    wanted.choose(&mut spec, &config.file)?;
    let weights = map(files.place(), weights_file::open(files, weights, |_| true)?, &spec, "")?;
    Ok(Opened { spec, image: Some(pictures), text: None, weights })
}

fn map(
    place: String,
    store: Store,
    spec: &ModelSpec,
    prefix: &'static str,
) -> Result<CheckpointWeights, CheckpointError> {
    let image = Context::torch(spec, prefix);
    let text = Context::torch(spec, "");
    let naflex =
        spec.image.as_ref().is_some_and(|tower| tower.position_resize == PositionResize::BilinearAntialias);
    let tables: &[&[Row]] = if naflex { &[NAFLEX_IMAGE, IMAGE] } else { &[IMAGE] };
    let make = |tensor: &crate::model::TensorSpec| match tensor.name.starts_with("vision_model.") {
        true => recipe(tables, tensor, &image),
        false => recipe(&[TEXT], tensor, &text),
    };
    let (has_image, has_text) = (spec.image.is_some(), spec.text.is_some());
    let ignored = |name: &str| {
        // timm keeps the classifier of a model that was trained further; towers have no use for it.
        (prefix.is_empty() && name.starts_with("head."))
            || (!has_image && name.starts_with("visual."))
            || (!has_text && name.starts_with("text."))
            || (!(has_image && has_text) && matches!(name, "logit_scale" | "logit_bias"))
    };
    CheckpointWeights::check(place, store, spec, make, ignored)
}

/// The tower that a timm name means, and for a fixed resolution its pixels.
fn tower(object: &Object, name: &str) -> Result<(ImageTowerSpec, Option<usize>), CheckpointError> {
    let name = name.split('.').next().unwrap_or_default();
    let build = |size: &str, patch: usize, activation, positions, position_resize, pooling| {
        SIZES.iter().find(|(known, ..)| *known == size).map(|&(_, width, depth, heads, mlp)| ImageTowerSpec {
            encoder: EncoderSpec { width, depth, heads, mlp, activation, norm_eps: 1e-6 },
            patch,
            positions,
            position_resize,
            pooling,
        })
    };
    for &(size, patch, activation, pixels) in FIXED {
        for &side in pixels {
            let positions = Grid { rows: side / patch, cols: side / patch };
            for (kind, pooling) in [("", ImagePooling::MapHead), ("gap_", ImagePooling::Mean)] {
                if name == format!("vit_{size}_patch{patch}_siglip_{kind}{side}") {
                    let built = build(size, patch, activation, positions, PositionResize::Bicubic, pooling);
                    return built.map(|tower| (tower, Some(side))).ok_or_else(|| unknown(object, name));
                }
            }
        }
    }
    let naflex = NAFLEX.iter().find(|size| name == format!("naflexvit_{size}_patch16_siglip"));
    if let Some(size) = naflex {
        let resize = PositionResize::BilinearAntialias;
        let grid = Grid { rows: 16, cols: 16 };
        let built = build(size, 16, Activation::GeluTanh, grid, resize, ImagePooling::MapHead);
        return built.map(|tower| (tower, None)).ok_or_else(|| unknown(object, name));
    }
    Err(unknown(object, name))
}

fn unknown(object: &Object, name: &str) -> CheckpointError {
    CheckpointError::UnknownArchitecture {
        file: object.file.clone(),
        found: name.to_string(),
        known: "timm's vit_{base,large,so400m,giantopt}_patch…_siglip_… and naflexvit_{base,so400m}_patch16_siglip"
            .into(),
    }
}

type Spec = (ModelSpec, ImageSpec, Canonicalization);

/// The spec that an `open_clip_config.json` describes; without the text tower where only the image tower is wanted, so that
/// any may be there.
pub(in crate::checkpoint) fn spec(config: &Object, wanted: Wanted) -> Result<Spec, CheckpointError> {
    let model = config.object("model_cfg")?.unwrap_or_else(|| config.clone());
    let required = |name: &str| -> Result<Object, CheckpointError> {
        model.object(name)?.ok_or_else(|| model.error(name, "it is missing"))
    };
    let (vision, text) = (required("vision_cfg")?, required("text_cfg")?);
    let name = vision.text("timm_model_name")?.unwrap_or("none");
    let (mut image, side) = tower(&vision, name)?;
    if let Some(proj) = vision.text("timm_proj")?.filter(|proj| !matches!(*proj, "none" | "")) {
        return Err(
            vision.error("timm_proj", format!("SigLIP's image tower has no projection, found {proj:?}"))
        );
    }
    if let Some(pool) = vision.text("timm_pool")?.filter(|pool| *pool != "map") {
        return Err(vision.error("timm_pool", format!("expected map, found {pool:?}")));
    }
    let preprocess = config.object("preprocess_cfg")?.unwrap_or_else(|| config.empty("preprocess_cfg"));
    let mut pictures = preprocessing::default(&image, side.is_none(), Resample::Bicubic);
    if side.is_some() {
        let (height, width) = vision.pair("image_size", limit::IMAGE)?.unwrap_or((224, 224));
        image.positions = grid(&vision, "image_size", (height, width), image.patch)?;
        pictures.geometry = match preprocess.text("resize_mode")?.unwrap_or("shortest") {
            "squash" => Geometry::Squash { height: height as u32, width: width as u32 },
            "shortest" if height == width => Geometry::Crop { side: height as u32 },
            mode => {
                return Err(preprocess.error(
                    "resize_mode",
                    format!("expected squash, or shortest for square pictures, found {mode:?}"),
                ));
            }
        };
    } else {
        let budget = vision.size("image_seq_len", limit::PATCHES)?.unwrap_or(576);
        pictures.geometry = Geometry::NaFlex { max_num_patches: budget };
    }
    (pictures.mean, pictures.std) = (OPENAI_MEAN, OPENAI_STD);
    normalisation(&preprocess, &mut pictures)?;
    let embed = model.size("embed_dim", limit::WIDTH)?.unwrap_or(image.encoder.width);
    if embed != image.encoder.width {
        return Err(model.error("embed_dim", format!("{embed}, but {name} is {} wide", image.encoder.width)));
    }
    let canonicalization = canonicalization(&text)?;
    let text = wanted.text().then(|| text_tower(&text, embed)).transpose()?;
    let spec = ModelSpec { scores: text.is_some(), image: Some(image), text, classifier: None };
    Ok((spec, pictures, canonicalization))
}

fn text_tower(config: &Object, embed: usize) -> Result<TextTowerSpec, CheckpointError> {
    if let Some(name) = config.text("hf_model_name")? {
        return Err(CheckpointError::Unsupported {
            file: config.file.clone(),
            what: format!(
                "its text tower is {name}, which is none of SigLIP's: only its image tower can be had (--tower image)"
            ),
        });
    }
    // What differs from SigLIP's tower in open_clip's many would be another computation.
    if !config.flag("no_causal_mask")?.unwrap_or(false) {
        return Err(config.error("no_causal_mask", "a causal text tower is not SigLIP's"));
    }
    if let Some(pool) = config.text("pool_type")?.filter(|pool| *pool != "last") {
        return Err(config.error("pool_type", format!("expected last, found {pool:?}")));
    }
    let width = config.size("width", limit::WIDTH)?.unwrap_or(512);
    let ratio = config.number("mlp_ratio")?.unwrap_or(4.0);
    let mlp = (width as f64 * ratio) as usize;
    if !(1..=limit::MLP).contains(&mlp) {
        return Err(config.error("mlp_ratio", format!("{ratio} makes an MLP of {mlp}")));
    }
    let number = |section: &str, name: &str| match config.object(section)? {
        Some(section) => section.number(name),
        None => Ok(None),
    };
    let act = config.object("act_kwargs")?;
    let approximate = match &act {
        Some(act) => act.text("approximate")?,
        None => None,
    };
    let activation = match approximate {
        None | Some("none") => Activation::GeluErf,
        Some("tanh") => Activation::GeluTanh,
        Some(other) => return Err(config.error("act_kwargs.approximate", format!("unknown {other:?}"))),
    };
    let encoder = EncoderSpec {
        width,
        depth: config.size("layers", limit::DEPTH)?.unwrap_or(12),
        heads: config.size("heads", limit::WIDTH)?.unwrap_or(8),
        mlp,
        activation,
        norm_eps: number("norm_kwargs", "eps")?.unwrap_or(1e-5),
    };
    check_heads(config, "heads", &encoder)?;
    let projection = match config.text("proj_type")? {
        Some("none") if width == embed => None,
        Some("none") => {
            return Err(config.error("proj_type", format!("none, but the text width {width} is not {embed}")));
        }
        _ if config.flag("proj_bias")?.unwrap_or(false) => Some(embed),
        _ => return Err(config.error("proj_bias", "SigLIP's text projection has a bias")),
    };
    Ok(TextTowerSpec {
        encoder,
        vocab: config.size("vocab_size", limit::VOCAB)?.unwrap_or(49408),
        context: config.size("context_length", limit::CONTEXT)?.unwrap_or(77),
        projection,
        long_head: false,
    })
}

/// What open_clip's tokenizer does to a string; its own default collapses spaces only, to which
/// doing nothing is the nearest.
fn canonicalization(text: &Object) -> Result<Canonicalization, CheckpointError> {
    let clean = text.object("tokenizer_kwargs")?;
    Ok(match clean.as_ref().map(|kwargs| kwargs.text("clean")).transpose()?.flatten() {
        Some("canonicalize") => Canonicalization::OpenClip,
        _ => Canonicalization::None,
    })
}

fn normalisation(config: &Object, pictures: &mut ImageSpec) -> Result<(), CheckpointError> {
    pictures.mean = config.triple("mean")?.unwrap_or(pictures.mean);
    pictures.std = config.triple("std")?.unwrap_or(pictures.std);
    if pictures.std.contains(&0.0) {
        return Err(config.error("std", "a standard deviation cannot be 0"));
    }
    pictures.resample = match config.text("interpolation")? {
        None | Some("bicubic") => Resample::Bicubic,
        Some("bilinear") => Resample::Bilinear,
        Some(other) => {
            return Err(
                config.error("interpolation", format!("expected bicubic or bilinear, found {other:?}"))
            );
        }
    };
    Ok(())
}

/// The tower and the preprocessing that timm's `config.json` describes. timm itself would crop the
/// centre when it evaluates a classifier; pictures are squashed here, as SigLIP was trained.
pub(in crate::checkpoint) fn timm_spec(
    config: &Object,
) -> Result<(ImageTowerSpec, ImageSpec), CheckpointError> {
    let name = config.text("architecture")?.unwrap_or_default();
    let (mut tower, side) = tower(config, name)?;
    let args = config.object("model_args")?.unwrap_or_else(|| config.empty("model_args"));
    arguments(&args, &mut tower)?;
    match config.text("global_pool")? {
        None => {}
        Some("map") => tower.pooling = ImagePooling::MapHead,
        Some("avg") => tower.pooling = ImagePooling::Mean,
        Some(other) => {
            return Err(config.error("global_pool", format!("expected map or avg, found {other:?}")));
        }
    }
    let pretrained = config.object("pretrained_cfg")?.unwrap_or_else(|| config.empty("pretrained_cfg"));
    let input = match pretrained.get("input_size").and_then(serde_json::Value::as_array) {
        Some(sizes) => {
            let sizes: Vec<usize> = sizes.iter().filter_map(|size| size.as_u64()?.try_into().ok()).collect();
            match sizes[..] {
                [3, height, width] if height.max(width) <= limit::IMAGE => Some((height, width)),
                _ => return Err(pretrained.error("input_size", "expected [3, height, width]")),
            }
        }
        None => None,
    };
    let mut pictures = preprocessing::default(&tower, side.is_none(), Resample::Bicubic);
    let input = args.pair("img_size", limit::IMAGE)?.or(input);
    let (height, width) = input.unwrap_or(side.map_or((384, 384), |side| (side, side)));
    let whole = grid(&pretrained, "input_size", (height, width), tower.patch)?;
    if side.is_some() {
        tower.positions = whole;
        pictures.geometry = Geometry::Squash { height: height as u32, width: width as u32 };
    } else {
        pictures.geometry = Geometry::NaFlex { max_num_patches: whole.len() };
    }
    normalisation(&pretrained, &mut pictures)?;
    pictures.patch = tower.patch;
    Ok((tower, pictures))
}

/// Arguments that a model was made with in place of those its name means.
fn arguments(args: &Object, tower: &mut ImageTowerSpec) -> Result<(), CheckpointError> {
    const KNOWN: &[&str] = &[
        "embed_dim",
        "depth",
        "num_heads",
        "mlp_ratio",
        "patch_size",
        "img_size",
        "act_layer",
        "num_classes",
    ];
    if let Some(name) = args.keys().find(|name| !KNOWN.contains(&name.as_str())) {
        return Err(args.error(name, "this argument of timm's is not supported"));
    }
    let encoder = &mut tower.encoder;
    let ratio = args.number("mlp_ratio")?.unwrap_or(encoder.mlp as f64 / encoder.width as f64);
    encoder.width = args.size("embed_dim", limit::WIDTH)?.unwrap_or(encoder.width);
    encoder.depth = args.size("depth", limit::DEPTH)?.unwrap_or(encoder.depth);
    encoder.heads = args.size("num_heads", limit::WIDTH)?.unwrap_or(encoder.heads);
    // timm rounds down; the ratio of a table's row is not exact.
    encoder.mlp = (encoder.width as f64 * ratio + 1e-6) as usize;
    if !(1..=limit::MLP).contains(&encoder.mlp) {
        return Err(args.error("mlp_ratio", format!("{ratio} makes an MLP of {}", encoder.mlp)));
    }
    if let Some(name) = args.text("act_layer")? {
        encoder.activation = super::activation(args, "act_layer", name)?;
    }
    check_heads(args, "num_heads", encoder)?;
    tower.patch = args.size("patch_size", limit::PATCH)?.unwrap_or(tower.patch);
    Ok(())
}
