//! `siglip verify`: does this program give the published results with these weights?

mod drawing;
mod golden;

use std::process::ExitCode;

use self::golden::Golden;
use crate::commands::error::{Result, failed};
use crate::config::VerifyArgs;
use crate::image::{Patches, Picture};
use crate::model::scores::cosine;
use crate::pipeline::Pipeline;

/// Cosine between an item's vector alone and in a batch.
const SAME: f32 = 0.9999;

pub(super) fn run(args: &VerifyArgs) -> Result<ExitCode> {
    let pipeline = args.model.load()?;
    let info = pipeline.info();
    outln!("{} ({}, {})", info.source, info.family, info.dtype.name());
    let mut passed = true;
    for check in self_checks(&pipeline)? {
        passed &= check.print();
    }
    let all = golden::all();
    match all.iter().find(|golden| golden.is_of(info)) {
        Some(golden) => match golden_pictures(golden, args)? {
            Some(pictures) => {
                for check in golden_checks(&pipeline, golden, &pictures)? {
                    passed &= check.print();
                }
            }
            None => {
                passed = false;
                outln!("  missing  {}: give the picture with --coco-image", golden.source);
            }
        },
        None => outln!(
            "  note     no logits are published for this checkpoint; there are some for {}",
            all.iter().map(|golden| golden.model).collect::<Vec<_>>().join(" and ")
        ),
    }
    outln!("{}", if passed { "passed" } else { "FAILED" });
    Ok(if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// One comparison and its outcome.
struct Check {
    what: String,
    passed: bool,
}

impl Check {
    fn print(&self) -> bool {
        outln!("  {:<8} {}", if self.passed { "ok" } else { "WRONG" }, self.what);
        self.passed
    }
}

/// What must hold for any model.
fn self_checks(pipeline: &Pipeline) -> Result<Vec<Check>> {
    let mut checks = Vec::new();
    let width = pipeline.info().embedding_dim;
    let mut compare = |kind: &str, alone: Vec<Vec<f32>>, together: Vec<Vec<f32>>| {
        let shaped = together.iter().all(|v| v.len() == width && v.iter().all(|x| x.is_finite()));
        checks.push(Check { what: format!("{kind} embeddings are {width} finite numbers"), passed: shaped });
        let worst = alone.iter().zip(&together).map(|(a, b)| cosine(a, b)).fold(1.0, f32::min);
        checks.push(Check {
            what: format!("{kind}s give the same vectors alone and in a batch (cosine {worst:.6})"),
            passed: worst >= SAME,
        });
    };
    if let Ok(preprocessor) = pipeline.image() {
        let sizes = [(224, 224), (320, 160), (48, 200)];
        let pictures = sizes
            .into_iter()
            .map(|(w, h)| Ok(preprocessor.from_rgb(&drawing::circle(w, h)?, &Default::default())?))
            .collect::<Result<Vec<Patches>>>()?;
        let pictures: Vec<&Patches> = pictures.iter().collect();
        let alone =
            pictures.iter().map(|p| one(pipeline.model().embed_images(&[p])?)).collect::<Result<_>>()?;
        compare("image", alone, pipeline.model().embed_images(&pictures)?);
    }
    if let Ok(processor) = pipeline.text() {
        let texts: [&[u32]; 3] = [&[1], &[5, 6, 7, 1], &[9, 9, 9, 9, 9, 1]];
        let texts = texts.iter().map(|ids| Ok(processor.from_ids(ids)?)).collect::<Result<Vec<_>>>()?;
        let texts: Vec<_> = texts.iter().collect();
        let alone = texts.iter().map(|t| one(pipeline.model().embed_texts(&[t])?)).collect::<Result<_>>()?;
        compare("text", alone, pipeline.model().embed_texts(&texts)?);
    }
    Ok(checks)
}

fn one(mut vectors: Vec<Vec<f32>>) -> Result<Vec<f32>> {
    vectors.pop().ok_or_else(|| failed("the model gave no vector"))
}

/// The pictures of the published logits, or `None` if one must be given and was not.
fn golden_pictures(golden: &Golden, args: &VerifyArgs) -> Result<Option<Vec<Picture>>> {
    if let Some(sizes) = golden.drawn {
        return Ok(Some(sizes.iter().map(|&(w, h)| Ok(drawing::circle(w, h)?)).collect::<Result<_>>()?));
    }
    let Some(path) = &args.coco_image else { return Ok(None) };
    let limits = crate::image::ImageLimits::default();
    let bytes = super::embed::read_file(path, limits.max_bytes)?;
    Ok(Some(vec![crate::image::decode(&bytes, &limits)?]))
}

fn golden_checks(pipeline: &Pipeline, golden: &Golden, pictures: &[Picture]) -> Result<Vec<Check>> {
    let scores =
        pipeline.model().scores().ok_or_else(|| failed("this checkpoint has no logit scale and bias"))?;
    let preprocessor = pipeline.image()?;
    let mut images = Vec::new();
    for picture in pictures {
        let patches = preprocessor.from_rgb(picture, &Default::default())?;
        images.push(one(pipeline.model().embed_images(&[&patches])?)?);
    }
    let mut checks = Vec::new();
    for (text, expected) in golden.logits {
        let vector = one(pipeline.model().embed_texts(&[&pipeline.prepare_text(text, None)?])?)?;
        let found: Vec<f32> = images.iter().map(|image| scores.logit(cosine(image, &vector))).collect();
        let worst = found.iter().zip(*expected).map(|(f, e)| (f - e).abs()).fold(0.0, f32::max);
        checks.push(Check {
            what: format!("logits of {text:?}: {found:.3?}, published {expected:.3?}, {worst:.4} apart"),
            passed: found.len() == expected.len() && worst <= golden.tolerance,
        });
    }
    Ok(checks)
}
