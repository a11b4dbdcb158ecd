//! `siglip inspect`: what a checkpoint is, without loading it.

use std::fmt::Write;
use std::process::ExitCode;

use serde_json::json;

use super::error::Result;
use crate::config::InspectArgs;
use crate::image::{Geometry, ImageDecode};
use crate::model::{EncoderSpec, ImagePooling, LabelActivation};
use crate::pipeline::{self, ModelInfo};
use crate::text::TextProcessor;

pub(super) fn run(args: &InspectArgs) -> Result<ExitCode> {
    args.model.compute.start_threads()?;
    let checkpoint = args.model.open()?;
    let (info, text) = pipeline::inspect(&checkpoint, &args.model.compute.load_options(None))?;
    let weights = checkpoint.weights.file_bytes();
    let memory = info.parameters as u64 * 4;
    let tokenizer = text.as_ref().filter(|text| text.has_tokenizer()).map(TextProcessor::describe);
    if args.json {
        let more = json!({
            "layout": format!("{:?}", checkpoint.layout),
            "tokenizer": tokenizer,
            "weight_file_bytes": weights,
            "weight_dtypes": checkpoint.weights.dtypes(),
            "memory_bytes_f32": memory,
        });
        let mut all = json!(info);
        // What a device would use is only known once it is loaded.
        if let (Some(all), serde_json::Value::Object(more)) = (all.as_object_mut(), more) {
            all.remove("device");
            all.remove("dtype");
            all.extend(more);
        }
        outln!("{all:#}");
        return Ok(ExitCode::SUCCESS);
    }
    let mut out = summary(&info);
    match tokenizer {
        Some(tokenizer) => {
            let _ = writeln!(
                out,
                "tokenizer      {}, {} pieces, pad id {}, end id {}",
                tokenizer.tokenizer, tokenizer.vocab_size, tokenizer.pad_id, tokenizer.eos_id
            );
        }
        None if text.is_some() => out.push_str("tokenizer      none: texts can be given as token ids only\n"),
        None => {}
    }
    let _ = writeln!(
        out,
        "files          {:?} layout, {} of weights in {}",
        checkpoint.layout,
        bytes(weights),
        checkpoint.weights.dtypes().join(", ")
    );
    let _ = writeln!(
        out,
        "memory         {} for weights in f32, half in bf16, beside activations",
        bytes(memory)
    );
    let _ = writeln!(out, "fingerprint    {}", info.fingerprint);
    out!("{out}");
    Ok(ExitCode::SUCCESS)
}

/// Labels of a classifier that are shown.
const LABELS: usize = 8;

fn summary(info: &ModelInfo) -> String {
    let mut out = String::new();
    let _ = writeln!(out, "model          {} ({})", info.source, info.family);
    let _ = writeln!(
        out,
        "embeddings     {} wide; {:.2} million parameters",
        info.embedding_dim,
        info.parameters as f64 / 1e6
    );
    if let Some(tower) = &info.spec.image {
        let pooling = match tower.pooling {
            ImagePooling::MapHead => "attention pooling",
            ImagePooling::Mean => "mean pooling",
        };
        let _ = writeln!(
            out,
            "image tower    {}, patch {}, positions {} × {}, {pooling}",
            encoder(&tower.encoder),
            tower.patch,
            tower.positions.rows,
            tower.positions.cols
        );
    }
    if let Some(image) = &info.image {
        let size = match image.geometry {
            Geometry::Squash { height, width } => format!("squashed to {width} × {height}"),
            Geometry::Crop { side } => format!("shorter side to {side}, middle cut out"),
            Geometry::NaFlex { max_num_patches } => {
                format!("shape kept, at most {max_num_patches} patches (or what a request says)")
            }
        };
        let decode = match info.image_decode {
            ImageDecode::Exact => "",
            ImageDecode::Fast => ", large JPEGs scaled while decoded",
        };
        let _ = writeln!(
            out,
            "images         {size}, {:?} resize, mean {:?}, std {:?}{decode}",
            image.resample, image.mean, image.std
        );
    }
    if let Some(tower) = &info.spec.text {
        let mut head = tower.projection.map_or("no head".into(), |out| format!("head to {out}"));
        if tower.long_head {
            head.push_str(", another one for long texts");
        }
        let _ = writeln!(
            out,
            "text tower     {}, context {}, vocabulary {}, {head}",
            encoder(&tower.encoder),
            tower.context,
            tower.vocab
        );
    }
    if info.spec.text.is_none()
        && info.spec.image.as_ref().is_some_and(|tower| tower.pooling == ImagePooling::Mean)
    {
        let _ = writeln!(
            out,
            "alignment      none: the mean of the patches may be compared with that of other pictures, and with no text"
        );
    }
    if let Some(classifier) = &info.spec.classifier {
        let scores = match classifier.activation {
            LabelActivation::Softmax => "softmax",
            LabelActivation::Sigmoid => "sigmoid",
        };
        let mut labels: Vec<&str> = classifier.labels.iter().map(String::as_str).take(LABELS).collect();
        if classifier.labels.len() > LABELS {
            labels.push("…");
        }
        let _ = writeln!(
            out,
            "classifier     {} labels by {scores}: {}",
            classifier.labels.len(),
            labels.join(", ")
        );
    }
    if let Some(text) = &info.text {
        let _ = writeln!(out, "texts          canonicalisation {}", text.canonicalization.name());
    }
    if let (Some(scale), Some(bias)) = (info.logit_scale, info.logit_bias) {
        let _ = writeln!(
            out,
            "scores         logit = {scale:.4} · cosine {bias:+.4}; probability = sigmoid(logit)"
        );
    }
    out
}

fn encoder(spec: &EncoderSpec) -> String {
    format!(
        "{} wide, {} blocks, {} heads of {}, MLP {}",
        spec.width,
        spec.depth,
        spec.heads,
        spec.head_dim(),
        spec.mlp
    )
}

fn bytes(count: u64) -> String {
    indicatif::HumanBytes(count).to_string()
}
