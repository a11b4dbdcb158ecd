//! Configuration files as they were published, each opened over zero weights of the right shapes: it loads with the right
//! spec, or is refused with the right sentence.
//!
//! A few lie in `tests/fixtures/configs`. All that were seen whole are read where `SIGLIP_PUBLISHED_CONFIGS` says, or in
//! `../shared/assets/configs`, where there is such a folder. Every folder must have its row below.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use siglip::testing::checkpoint::{Checkpoint, HubOptions, ModelRef, Tower, Wanted, open, open_part};

/// Tensors by name and shape.
type Shapes = Vec<(String, Vec<usize>)>;

/// What a repository has beside its configuration.
#[derive(Debug, Clone, Copy)]
enum Weights {
    /// Both towers in the Hugging Face layout.
    Both,
    /// Both towers, of which the text tower has no head.
    NoTextHead,
    /// An image tower with its pooling head.
    Image,
    /// An image tower of so many layers without a head.
    Headless(usize),
    /// An image tower with a pooling head and a classifier of so many labels.
    Classifier(usize),
    /// An image tower in a language model, without a head.
    Guest,
    /// The same as MLX writes it.
    Mlx,
    /// open_clip's names, as open_clip saves them.
    OpenClip,
    /// open_clip's names in two files, as Marqo's class saves them, too.
    Marqo,
    /// A folder with ONNX files.
    Onnx,
    /// None.
    Nothing,
}
use Weights::{Both, Classifier, Guest, Headless, Image, Marqo, Mlx, NoTextHead, Nothing, Onnx, OpenClip};

/// A folder, the weights it is given, and what it is then: a description of what was loaded, or (after `!`) words of the
/// refusal.
const ROWS: &[(&str, Weights, &str)] = &[
    (
        "FastVideo__HY-WorldPlay-AR-Diffusers__image_encoder",
        Image,
        "hugging_face, image 1152×27 /14 27×27 MapHead GeluTanh Squash { height: 384, width: 384 } Bicubic mean 0.50",
    ),
    (
        "HuggingFaceM4__siglip-so400m-14-384",
        Both,
        "hugging_face, image 1152×27 /14 27×27 MapHead GeluTanh Squash { height: 384, width: 384 } Bicubic mean 0.50, text 1152×27 32000 64 Some(1152) GeluTanh SigLip1 Hf, scores",
    ),
    ("HuggingFaceM4__siglip-so400m-14-384-flash-attn2", Both, "!auto_map"),
    ("HuggingFaceM4__siglip-so400m-14-384-flash-attn2-navit", Both, "!auto_map"),
    (
        "Kaspar__siglip-heritage-weaver-last",
        Both,
        "hugging_face, image 768×12 /16 14×14 MapHead GeluTanh Squash { height: 224, width: 224 } Bicubic mean 0.50, text 768×12 32000 64 Some(768) GeluTanh SigLip1 Hf, scores",
    ),
    ("Marqo__marqo-ecommerce-embeddings-B", Image, "!auto_map"),
    ("Marqo__marqo-ecommerce-embeddings-B@17a02e4", Image, "!neither model_type"),
    (
        "Marqo__marqo-ecommerce-embeddings-L",
        Marqo,
        "open_clip, image 1024×24 /16 16×16 MapHead GeluErf Squash { height: 256, width: 256 } Bicubic mean 0.50, text 1024×24 32000 64 Some(1024) GeluErf SigLip1 OpenClip, scores",
    ),
    (
        "Marqo__marqo-fashionSigLIP",
        Marqo,
        "open_clip, image 768×12 /16 14×14 MapHead GeluErf Squash { height: 224, width: 224 } Bicubic mean 0.50, text 768×12 32000 64 Some(768) GeluErf SigLip1 OpenClip, scores",
    ),
    (
        "OmerKurtulus__DeepReality__pin_b4_ai_deepfake_real",
        Classifier(3),
        "hugging_face, image 768×12 /16 14×14 MapHead GeluTanh Squash { height: 224, width: 224 } Bilinear mean 0.50, Softmax [\"AI\", \"Deepfake\", \"Real\"]",
    ),
    (
        "SakanaAI__Llama-3-EvoVLM-JP-v2",
        Guest,
        "hugging_face, image 1152×27 /14 27×27 Mean GeluTanh Squash { height: 384, width: 384 } Bicubic mean 0.50",
    ),
    ("Xenova__paligemma-3b-mix-224", Onnx, "!only ONNX files"),
    ("Xenova__siglip-base-patch16-224", Onnx, "!only ONNX files"),
    ("Xenova__siglip-base-patch16-256", Onnx, "!only ONNX files"),
    ("Xenova__siglip-base-patch16-512", Onnx, "!only ONNX files"),
    ("Xenova__siglip-large-patch16-256", Onnx, "!only ONNX files"),
    ("Xenova__siglip-large-patch16-384", Onnx, "!only ONNX files"),
    ("bczhou__TinyLLaVA-2.0B-SigLIP", Headless(26), "!only the first 26 layers"),
    (
        "fokan__MedFusion-AI__lite__encoder",
        Both,
        "hugging_face, image 1152×27 /14 32×32 MapHead GeluTanh Squash { height: 448, width: 448 } Bicubic mean 0.50, text 1152×27 32000 64 Some(1152) GeluTanh SigLip1 Hf, scores",
    ),
    (
        "gollark__siglip-so400m-14-384",
        Both,
        "hugging_face, image 1152×27 /14 27×27 MapHead GeluTanh Squash { height: 384, width: 384 } Bicubic mean 0.50, text 1152×27 32000 64 Some(1152) GeluTanh SigLip1 Hf, scores",
    ),
    (
        "google__siglip-base-patch16-224",
        Both,
        "hugging_face, image 768×12 /16 14×14 MapHead GeluTanh Squash { height: 224, width: 224 } Bicubic mean 0.50, text 768×12 32000 64 Some(768) GeluTanh SigLip1 Hf, scores",
    ),
    (
        "google__siglip-base-patch16-256",
        Both,
        "hugging_face, image 768×12 /16 16×16 MapHead GeluTanh Squash { height: 256, width: 256 } Bicubic mean 0.50, text 768×12 32000 64 Some(768) GeluTanh SigLip1 Hf, scores",
    ),
    (
        "google__siglip-base-patch16-256-multilingual",
        Both,
        "hugging_face, image 768×12 /16 16×16 MapHead GeluTanh Squash { height: 256, width: 256 } Bicubic mean 0.50, text 768×12 250000 64 Some(768) GeluTanh SigLip1 Hf, scores",
    ),
    (
        "google__siglip-base-patch16-384",
        Both,
        "hugging_face, image 768×12 /16 24×24 MapHead GeluTanh Squash { height: 384, width: 384 } Bicubic mean 0.50, text 768×12 32000 64 Some(768) GeluTanh SigLip1 Hf, scores",
    ),
    (
        "google__siglip-base-patch16-512",
        Both,
        "hugging_face, image 768×12 /16 32×32 MapHead GeluTanh Squash { height: 512, width: 512 } Bicubic mean 0.50, text 768×12 32000 64 Some(768) GeluTanh SigLip1 Hf, scores",
    ),
    (
        "google__siglip-large-patch16-256",
        Both,
        "hugging_face, image 1024×24 /16 16×16 MapHead GeluTanh Squash { height: 256, width: 256 } Bicubic mean 0.50, text 1024×24 32000 64 Some(1024) GeluTanh SigLip1 Hf, scores",
    ),
    (
        "google__siglip-large-patch16-384",
        Both,
        "hugging_face, image 1024×24 /16 24×24 MapHead GeluTanh Squash { height: 384, width: 384 } Bicubic mean 0.50, text 1024×24 32000 64 Some(1024) GeluTanh SigLip1 Hf, scores",
    ),
    (
        "google__siglip-so400m-patch14-224",
        Both,
        "hugging_face, image 1152×27 /14 16×16 MapHead GeluTanh Squash { height: 224, width: 224 } Bicubic mean 0.50, text 1152×27 32000 16 Some(1152) GeluTanh SigLip1 Hf, scores",
    ),
    (
        "google__siglip-so400m-patch14-384",
        Both,
        "hugging_face, image 1152×27 /14 27×27 MapHead GeluTanh Squash { height: 384, width: 384 } Bicubic mean 0.50, text 1152×27 32000 64 Some(1152) GeluTanh SigLip1 Hf, scores",
    ),
    (
        "google__siglip-so400m-patch16-256-i18n",
        Both,
        "hugging_face, image 1152×27 /16 16×16 MapHead GeluTanh Squash { height: 256, width: 256 } Bicubic mean 0.50, text 1152×27 250000 64 Some(1152) GeluTanh SigLip1 Hf, scores",
    ),
    (
        "google__siglip-so400m-patch16-256-i18n@022480e",
        NoTextHead,
        "hugging_face, image 1152×27 /16 16×16 MapHead GeluTanh Squash { height: 256, width: 256 } Bicubic mean 0.50, text 1152×27 250000 64 None GeluTanh SigLip1 Hf, scores",
    ),
    (
        "google__siglip2-base-patch16-224",
        Both,
        "hugging_face, image 768×12 /16 14×14 MapHead GeluTanh Squash { height: 224, width: 224 } Bilinear mean 0.50, text 768×12 256000 64 Some(768) GeluTanh SigLip2 Hf, scores",
    ),
    (
        "google__siglip2-base-patch16-512",
        Both,
        "hugging_face, image 768×12 /16 32×32 MapHead GeluTanh Squash { height: 512, width: 512 } Bilinear mean 0.50, text 768×12 256000 64 Some(768) GeluTanh SigLip2 Hf, scores",
    ),
    (
        "google__siglip2-giant-opt-patch16-384",
        Both,
        "hugging_face, image 1536×40 /16 24×24 MapHead GeluTanh Squash { height: 384, width: 384 } Bilinear mean 0.50, text 1152×27 256000 64 Some(1536) GeluTanh SigLip2 Hf, scores",
    ),
    (
        "google__siglip2-large-patch16-384@refs-pr-3",
        Both,
        "hugging_face, image 1024×24 /16 24×24 MapHead GeluTanh Squash { height: 384, width: 384 } Bilinear mean 0.50, text 1024×24 256000 64 Some(1024) GeluTanh SigLip2 Hf, scores",
    ),
    (
        "google__siglip2-large-patch16-512",
        Both,
        "hugging_face, image 1024×24 /16 32×32 MapHead GeluTanh Squash { height: 512, width: 512 } Bilinear mean 0.50, text 1024×24 256000 64 Some(1024) GeluTanh SigLip2 Hf, scores",
    ),
    (
        "google__siglip2-so400m-patch16-512",
        Both,
        "hugging_face, image 1152×27 /16 32×32 MapHead GeluTanh Squash { height: 512, width: 512 } Bilinear mean 0.50, text 1152×27 256000 64 Some(1152) GeluTanh SigLip2 Hf, scores",
    ),
    ("google__tipsv2-b14", Both, "!TIPS"),
    (
        "gwkrsrch2__siglip-so400m-patch14-378",
        Image,
        "hugging_face, image 1152×27 /14 27×27 MapHead GeluTanh Squash { height: 378, width: 378 } Bicubic mean 0.50",
    ),
    (
        "hf-internal-testing__tiny-random-SiglipForImageClassification",
        Classifier(2),
        "hugging_face, image 32×2 /2 15×15 MapHead GeluTanh Squash { height: 30, width: 30 } Bicubic mean 0.50, Softmax [\"LABEL_0\", \"LABEL_1\"]",
    ),
    (
        "hf-internal-testing__tiny-random-SiglipModel",
        Both,
        "hugging_face, image 32×2 /2 15×15 MapHead GeluTanh Squash { height: 30, width: 30 } Bicubic mean 0.50, text 32×2 32000 512 Some(32) GeluTanh SigLip1 Hf, scores",
    ),
    (
        "hf-internal-testing__tiny-random-SiglipVisionModel",
        Image,
        "hugging_face, image 32×2 /2 15×15 MapHead GeluTanh Squash { height: 30, width: 30 } Bicubic mean 0.50",
    ),
    (
        "hyacinthum__paligemma_vqav2",
        Guest,
        "hugging_face, image 1152×27 /14 16×16 Mean GeluTanh Squash { height: 224, width: 224 } Bicubic mean 0.50",
    ),
    (
        "jancuhel__google-siglip-large-patch16-384-img-text-relevancy",
        Both,
        "hugging_face, image 1024×24 /16 24×24 MapHead GeluTanh Squash { height: 384, width: 384 } Bicubic mean 0.50, text 1024×24 32000 64 Some(1024) GeluTanh SigLip1 Hf, scores",
    ),
    ("katuni4ka__tiny-random-siglip", Both, "!auto_map"),
    (
        "lllyasviel__flux_redux_bfl__image_encoder",
        Image,
        "hugging_face, image 1152×27 /14 27×27 MapHead GeluTanh Squash { height: 384, width: 384 } Bicubic mean 0.50",
    ),
    ("megabot131__siglip-scribble-image-v2", Nothing, "!google/siglip-base-patch16-224"),
    ("mlx-community__aya-vision-8b-8bit", Nothing, "!quantised by MLX"),
    (
        "mlx-community__gemma-3-4b-it-bf16",
        Mlx,
        "hugging_face, image 1152×27 /14 64×64 Mean GeluTanh Squash { height: 896, width: 896 } Bilinear mean 0.50",
    ),
    ("mlx-community__gemma-3-4b-pt-4bit", Nothing, "!quantised by MLX"),
    (
        "mrzjy__GenshinImpact-ViT-SO400M-14-SigLIP-384",
        OpenClip,
        "open_clip, image 1152×27 /14 27×27 MapHead GeluErf Crop { side: 384 } Bicubic mean 0.48, text 1152×27 32000 64 Some(1152) GeluErf SigLip1 OpenClip, scores",
    ),
    (
        "neureality__vlm-vfm-processing-pipeline__siglip",
        Image,
        "hugging_face, image 1152×27 /14 70×70 MapHead GeluTanh Squash { height: 980, width: 980 } Bicubic mean 0.50",
    ),
    (
        "prithivMLmods__WebClick-AgentBrowse-SigLIP2",
        Classifier(3),
        "hugging_face, image 768×12 /16 14×14 MapHead GeluTanh Squash { height: 224, width: 224 } Bilinear mean 0.50, Softmax [\"agentbrowse\", \"calendars\", \"humanbrowse\"]",
    ),
    ("sentence-transformers__clip-ViT-B-32", Nothing, "!0_CLIPModel"),
    ("team-lucid__siglip-base-patch16-ko", Both, "!CLIP model"),
    (
        "timm__ViT-B-16-SigLIP",
        OpenClip,
        "open_clip, image 768×12 /16 14×14 MapHead GeluErf Squash { height: 224, width: 224 } Bicubic mean 0.50, text 768×12 32000 64 Some(768) GeluErf SigLip1 OpenClip, scores",
    ),
    (
        "timm__ViT-L-16-SigLIP-384",
        OpenClip,
        "open_clip, image 1024×24 /16 24×24 MapHead GeluErf Squash { height: 384, width: 384 } Bicubic mean 0.50, text 1024×24 32000 64 Some(1024) GeluErf SigLip1 OpenClip, scores",
    ),
    (
        "timm__ViT-SO400M-14-SigLIP",
        OpenClip,
        "open_clip, image 1152×27 /14 16×16 MapHead GeluErf Squash { height: 224, width: 224 } Bicubic mean 0.50, text 1152×27 32000 16 Some(1152) GeluErf SigLip1 OpenClip, scores",
    ),
    (
        "timm__ViT-SO400M-16-SigLIP2-384",
        OpenClip,
        "open_clip, image 1152×27 /16 24×24 MapHead GeluTanh Squash { height: 384, width: 384 } Bicubic mean 0.50, text 1152×27 256000 64 Some(1152) GeluTanh SigLip2 OpenClip, scores",
    ),
    ("typesense__models-moved__siglip-base-patch16-224", Onnx, "!only ONNX"),
    ("vidore__bisiglip", Nothing, "!google/siglip-so400m-patch14-384"),
    ("visheratin__nllb-siglip-i18n", OpenClip, "!none of SigLIP"),
    ("visheratin__nllb-siglip-mrl-base", OpenClip, "!none of SigLIP"),
    ("visheratin__nllb-siglip-mrl-large", OpenClip, "!none of SigLIP"),
    (
        "wchai__cap_strange__visual_encoder",
        Image,
        "hugging_face, image 1152×27 /14 27×27 MapHead GeluTanh Squash { height: 384, width: 384 } Bicubic mean 0.50",
    ),
];

/// A number of a configuration, or transformers' default.
fn number(config: &Value, name: &str, default: usize) -> usize {
    config[name].as_u64().map_or(default, |number| number as usize)
}

fn linear(shapes: &mut Shapes, name: String, out: usize, inner: usize) {
    shapes.push((format!("{name}.weight"), vec![out, inner]));
    shapes.push((format!("{name}.bias"), vec![out]));
}

fn norm(shapes: &mut Shapes, name: String, width: usize) {
    shapes.push((format!("{name}.weight"), vec![width]));
    shapes.push((format!("{name}.bias"), vec![width]));
}

/// An encoder as transformers names it.
fn encoder(shapes: &mut Shapes, tower: &str, config: &Value, layers: usize) {
    let width = number(config, "hidden_size", 768);
    let mlp = number(config, "intermediate_size", 3072);
    for layer in 0..layers {
        let block = format!("{tower}encoder.layers.{layer}");
        for name in ["layer_norm1", "layer_norm2"] {
            norm(shapes, format!("{block}.{name}"), width);
        }
        for name in ["q_proj", "k_proj", "v_proj", "out_proj"] {
            linear(shapes, format!("{block}.self_attn.{name}"), width, width);
        }
        linear(shapes, format!("{block}.mlp.fc1"), mlp, width);
        linear(shapes, format!("{block}.mlp.fc2"), width, mlp);
    }
}

/// The image tower as transformers names it.
fn image(tower: &str, config: &Value, naflex: bool, layers: Option<usize>, head: bool, mlx: bool) -> Shapes {
    let mut shapes = Shapes::new();
    let width = number(config, "hidden_size", 768);
    let mlp = number(config, "intermediate_size", 3072);
    let patch = number(config, "patch_size", 16);
    let positions = match naflex {
        true => number(config, "num_patches", 256),
        false => (number(config, "image_size", 224) / patch).pow(2),
    };
    let weight = match (naflex, mlx) {
        (true, _) => vec![width, patch * patch * 3],
        (false, true) => vec![width, patch, patch, 3],
        (false, false) => vec![width, 3, patch, patch],
    };
    shapes.push((format!("{tower}embeddings.patch_embedding.weight"), weight));
    shapes.push((format!("{tower}embeddings.patch_embedding.bias"), vec![width]));
    shapes.push((format!("{tower}embeddings.position_embedding.weight"), vec![positions, width]));
    encoder(&mut shapes, tower, config, layers.unwrap_or(number(config, "num_hidden_layers", 12)));
    norm(&mut shapes, format!("{tower}post_layernorm"), width);
    if head {
        shapes.push((format!("{tower}head.probe"), vec![1, 1, width]));
        shapes.push((format!("{tower}head.attention.in_proj_weight"), vec![3 * width, width]));
        shapes.push((format!("{tower}head.attention.in_proj_bias"), vec![3 * width]));
        linear(&mut shapes, format!("{tower}head.attention.out_proj"), width, width);
        norm(&mut shapes, format!("{tower}head.layernorm"), width);
        linear(&mut shapes, format!("{tower}head.mlp.fc1"), mlp, width);
        linear(&mut shapes, format!("{tower}head.mlp.fc2"), width, mlp);
    }
    shapes
}

/// The text tower and the scores as transformers names them.
fn text(config: &Value, head: bool) -> Shapes {
    let mut shapes = Shapes::new();
    let width = number(config, "hidden_size", 768);
    let context = number(config, "max_position_embeddings", 64);
    shapes.push((
        "text_model.embeddings.token_embedding.weight".into(),
        vec![number(config, "vocab_size", 32000), width],
    ));
    shapes.push(("text_model.embeddings.position_embedding.weight".into(), vec![context, width]));
    encoder(&mut shapes, "text_model.", config, number(config, "num_hidden_layers", 12));
    norm(&mut shapes, "text_model.final_layer_norm".into(), width);
    if head {
        linear(&mut shapes, "text_model.head".into(), number(config, "projection_size", width), width);
    }
    shapes.push(("logit_scale".into(), vec![1]));
    shapes.push(("logit_bias".into(), vec![1]));
    shapes
}

/// Both towers as open_clip names them, with `before` in front of each name.
fn open_clip(config: &Value, before: &str) -> Shapes {
    let model = if config["model_cfg"].is_object() { &config["model_cfg"] } else { config };
    let (vision, text) = (&model["vision_cfg"], &model["text_cfg"]);
    let name = vision["timm_model_name"].as_str().unwrap();
    let (width, depth, mlp) = [
        ("base", 768, 12, 3072),
        ("large", 1024, 24, 4096),
        ("so400m", 1152, 27, 4304),
        ("giantopt", 1536, 40, 6144),
    ]
    .into_iter()
    .find_map(|(size, width, depth, mlp)| name.contains(size).then_some((width, depth, mlp)))
    .unwrap();
    let patch: usize = name.split("patch").nth(1).unwrap().split('_').next().unwrap().parse().unwrap();
    let naflex = name.starts_with("naflex");
    let mut shapes = Shapes::new();
    let trunk = "visual.trunk.";
    let embeds = if naflex { "embeds" } else { "patch_embed" };
    let weight = if naflex { vec![width, patch * patch * 3] } else { vec![width, 3, patch, patch] };
    shapes.push((format!("{trunk}{embeds}.proj.weight"), weight));
    shapes.push((format!("{trunk}{embeds}.proj.bias"), vec![width]));
    if naflex {
        shapes.push((format!("{trunk}embeds.pos_embed"), vec![1, 16, 16, width]));
    } else {
        let positions = (number(vision, "image_size", 224) / patch).pow(2);
        shapes.push((format!("{trunk}pos_embed"), vec![1, positions, width]));
    }
    for layer in 0..depth {
        let block = format!("{trunk}blocks.{layer}");
        norm(&mut shapes, format!("{block}.norm1"), width);
        norm(&mut shapes, format!("{block}.norm2"), width);
        linear(&mut shapes, format!("{block}.attn.qkv"), 3 * width, width);
        linear(&mut shapes, format!("{block}.attn.proj"), width, width);
        linear(&mut shapes, format!("{block}.mlp.fc1"), mlp, width);
        linear(&mut shapes, format!("{block}.mlp.fc2"), width, mlp);
    }
    norm(&mut shapes, format!("{trunk}norm"), width);
    shapes.push((format!("{trunk}attn_pool.latent"), vec![1, 1, width]));
    linear(&mut shapes, format!("{trunk}attn_pool.q"), width, width);
    linear(&mut shapes, format!("{trunk}attn_pool.kv"), 2 * width, width);
    linear(&mut shapes, format!("{trunk}attn_pool.proj"), width, width);
    norm(&mut shapes, format!("{trunk}attn_pool.norm"), width);
    linear(&mut shapes, format!("{trunk}attn_pool.mlp.fc1"), mlp, width);
    linear(&mut shapes, format!("{trunk}attn_pool.mlp.fc2"), width, mlp);
    let embed = number(model, "embed_dim", width);
    let width = number(text, "width", 512);
    let mlp = (width as f64 * text["mlp_ratio"].as_f64().unwrap_or(4.0)) as usize;
    shapes.push(("text.token_embedding.weight".into(), vec![number(text, "vocab_size", 49408), width]));
    shapes.push(("text.positional_embedding".into(), vec![number(text, "context_length", 77), width]));
    for layer in 0..number(text, "layers", 12) {
        let block = format!("text.transformer.resblocks.{layer}");
        norm(&mut shapes, format!("{block}.ln_1"), width);
        norm(&mut shapes, format!("{block}.ln_2"), width);
        shapes.push((format!("{block}.attn.in_proj_weight"), vec![3 * width, width]));
        shapes.push((format!("{block}.attn.in_proj_bias"), vec![3 * width]));
        linear(&mut shapes, format!("{block}.attn.out_proj"), width, width);
        linear(&mut shapes, format!("{block}.mlp.c_fc"), mlp, width);
        linear(&mut shapes, format!("{block}.mlp.c_proj"), width, mlp);
    }
    norm(&mut shapes, "text.ln_final".into(), width);
    if text["proj_type"] != "none" {
        linear(&mut shapes, "text.text_projection".into(), embed, width);
    }
    shapes.push(("logit_scale".into(), vec![]));
    shapes.push(("logit_bias".into(), vec![]));
    shapes.into_iter().map(|(name, shape)| (format!("{before}{name}"), shape)).collect()
}

/// Writes zeros as a file with holes: gigabytes that take no room.
fn write(path: &Path, shapes: &Shapes) {
    let mut header = serde_json::Map::new();
    let mut at = 0;
    for (name, shape) in shapes {
        let end = at + 4 * shape.iter().product::<usize>();
        header.insert(name.clone(), json!({ "dtype": "F32", "shape": shape, "data_offsets": [at, end] }));
        at = end;
    }
    let mut header = Value::Object(header).to_string();
    header += &" ".repeat(header.len().next_multiple_of(8) - header.len());
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.as_bytes());
    fs::write(path, &bytes).unwrap();
    fs::OpenOptions::new().write(true).open(path).unwrap().set_len((bytes.len() + at) as u64).unwrap();
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy(&path, &target);
        } else {
            fs::copy(&path, &target).unwrap();
        }
    }
}

/// Puts the weights beside the configuration in `folder`.
fn furnish(folder: &Path, weights: Weights) {
    let read = |name: &str| -> Value {
        fs::read(folder.join(name)).map_or(Value::Null, |bytes| serde_json::from_slice(&bytes).unwrap())
    };
    let (config, open_clip_config) = (read("config.json"), read("open_clip_config.json"));
    let vision = if config["vision_config"].is_object() { &config["vision_config"] } else { &config };
    let naflex = config["model_type"].as_str().is_some_and(|kind| kind.starts_with("siglip2"));
    let tower = |layers, head| image("vision_model.", vision, naflex, layers, head, false);
    let file = |name: &str, shapes: &Shapes| write(&folder.join(name), shapes);
    match weights {
        Both | NoTextHead => {
            let mut shapes = tower(None, true);
            shapes.extend(text(&config["text_config"], matches!(weights, Both)));
            file("model.safetensors", &shapes);
        }
        Image => file("model.safetensors", &tower(None, true)),
        Headless(layers) => file("model.safetensors", &tower(Some(layers), false)),
        Classifier(labels) => {
            let mut shapes = tower(None, true);
            linear(&mut shapes, "classifier".into(), labels, number(vision, "hidden_size", 768));
            file("model.safetensors", &shapes);
        }
        Guest | Mlx => {
            let mlx = matches!(weights, Mlx);
            let mut shapes = image("vision_tower.vision_model.", vision, false, None, false, mlx);
            linear(&mut shapes, "multi_modal_projector.linear".into(), 2048, 1152);
            shapes.push(("language_model.model.norm.weight".into(), vec![2048]));
            file("model.safetensors", &shapes);
        }
        OpenClip => file("open_clip_model.safetensors", &open_clip(&open_clip_config, "")),
        Marqo => {
            file("model.safetensors", &open_clip(&open_clip_config, "model."));
            file("open_clip_model.safetensors", &open_clip(&open_clip_config, ""));
        }
        Onnx => {
            fs::create_dir(folder.join("onnx")).unwrap();
            fs::write(folder.join("onnx/model.onnx"), b"onnx").unwrap();
        }
        Nothing => {}
    }
}

fn describe(checkpoint: &Checkpoint) -> String {
    let mut words = vec![serde_json::to_value(checkpoint.layout).unwrap().as_str().unwrap().to_owned()];
    if let (Some(tower), Some(image)) = (&checkpoint.spec.image, &checkpoint.image) {
        words.push(format!(
            "image {}×{} /{} {}×{} {:?} {:?} {:?} {:?} mean {:.2}",
            tower.encoder.width,
            tower.encoder.depth,
            tower.patch,
            tower.positions.rows,
            tower.positions.cols,
            tower.pooling,
            tower.encoder.activation,
            image.geometry,
            image.resample,
            image.mean[0],
        ));
    }
    if let (Some(tower), Some(text)) = (&checkpoint.spec.text, &checkpoint.text) {
        words.push(format!(
            "text {}×{} {} {} {:?} {:?} {:?} {:?}",
            tower.encoder.width,
            tower.encoder.depth,
            tower.vocab,
            tower.context,
            tower.projection,
            tower.encoder.activation,
            text.family,
            text.canonicalization,
        ));
    }
    if checkpoint.spec.scores {
        words.push("scores".into());
    }
    if let Some(classifier) = &checkpoint.spec.classifier {
        words.push(format!("{:?} {:?}", classifier.activation, classifier.labels));
    }
    words.join(", ")
}

/// Where published files are.
fn roots() -> Vec<PathBuf> {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    let all = std::env::var("SIGLIP_PUBLISHED_CONFIGS")
        .map_or_else(|_| own.join("../shared/assets/configs"), PathBuf::from);
    if !all.is_dir() {
        eprintln!("no {}: only the configurations in tests/fixtures/configs are opened", all.display());
    }
    [own.join("tests/fixtures/configs"), all].into_iter().filter(|root| root.is_dir()).collect()
}

/// The folders of a root that hold a configuration of a model. `_completed` and `_derived` are no evidence.
fn folders(root: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(root).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let configs = ["config.json", "open_clip_config.json", "adapter_config.json", "modules.json"];
        if !name.starts_with('_') && configs.iter().any(|config| path.join(config).is_file()) {
            found.push(name);
        }
    }
    found.sort();
    found
}

#[test]
fn every_published_configuration_is_what_it_is() {
    let mut wrong = Vec::new();
    let empty = tempfile::tempdir().unwrap();
    let mut options = HubOptions::from_variables(|_| None);
    options.cache = empty.path().to_path_buf();
    options.offline = true;
    for root in roots() {
        for name in folders(&root) {
            let Some((_, weights, expected)) = ROWS.iter().find(|(folder, ..)| *folder == name) else {
                wrong.push(format!("{name}: no row says what it is"));
                continue;
            };
            let place = tempfile::tempdir().unwrap();
            let folder = place.path().join(&name);
            copy(&root.join(&name), &folder);
            furnish(&folder, *weights);
            let found = match open(&ModelRef::Path(folder), &options) {
                Ok(checkpoint) => describe(&checkpoint),
                Err(error) => format!("!{error}"),
            };
            let right = match expected.strip_prefix('!') {
                Some(words) => found.starts_with('!') && found.contains(words),
                None => found == *expected,
            };
            if !right {
                wrong.push(format!("(\"{name}\", {weights:?},\n  found    {found}\n  expected {expected}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{} are wrong:\n{}", wrong.len(), wrong.join("\n"));
}

/// open_clip's own files are bare `model_cfg` objects; its registry loads all of them squashed.
#[test]
fn every_configuration_of_open_clip_is_what_it_is() {
    let Some(folder) = roots()
        .into_iter()
        .map(|root| root.join("mlfoundations__open_clip/model_configs"))
        .find(|f| f.is_dir())
    else {
        return;
    };
    let mut count = 0;
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        let model: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        let preprocess = json!({ "mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5], "resize_mode": "squash" });
        let config = json!({ "model_cfg": model, "preprocess_cfg": preprocess });
        let place = tempfile::tempdir().unwrap();
        fs::write(place.path().join("open_clip_config.json"), config.to_string()).unwrap();
        count += 1;
        if let Some(text) = model["text_cfg"]["hf_model_name"].as_str() {
            fs::write(place.path().join("open_clip_model.safetensors"), b"").unwrap();
            let error = super::open_path(place.path()).unwrap_err().to_string();
            assert!(error.contains(text) && error.contains("--tower image"), "{name}: {error}");
            // Its image tower is a SigLIP's all the same.
            let mut shapes = open_clip(&config, "");
            shapes.retain(|(name, _)| name.starts_with("visual."));
            shapes.push(("text.transformer.shared.weight".into(), vec![3]));
            write(&place.path().join("open_clip_model.safetensors"), &shapes);
            let wanted = Wanted { tower: Some(Tower::Image), ..Wanted::default() };
            let place = ModelRef::Path(place.path().to_path_buf());
            let opened = open_part(&place, &HubOptions::from_variables(|_| None), wanted).unwrap();
            assert!(opened.spec.text.is_none() && opened.image.is_some(), "{name}");
            continue;
        }
        write(&place.path().join("open_clip_model.safetensors"), &open_clip(&config, ""));
        let opened = super::open_path(place.path()).unwrap_or_else(|error| panic!("{name}: {error}"));
        let found = describe(&opened);
        // The name says the patch and, but for the smallest, the pixels.
        let patch = name.split('-').find_map(|word| word.parse::<usize>().ok()).unwrap();
        assert!(found.contains(&format!(" /{patch} ")) && found.ends_with("scores"), "{name}: {found}");
        let tanh = model["text_cfg"]["act_kwargs"]["approximate"] == "tanh";
        let text = &opened.spec.text.as_ref().unwrap().encoder;
        assert_eq!(format!("{:?}", text.activation), if tanh { "GeluTanh" } else { "GeluErf" }, "{name}");
        if let Some(known) = siglip::testing::checkpoint::known::find(&name) {
            assert_eq!(
                opened.spec.image.as_ref().unwrap().positions.len(),
                known.tokens.unwrap_or(256),
                "{name}"
            );
            assert_eq!(opened.spec.embedding_dim(), known.projection, "{name}");
            assert_eq!(text.width, opened.spec.text.as_ref().unwrap().encoder.width);
        }
    }
    assert_eq!(count, 30);
}
