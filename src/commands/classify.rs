//! `siglip classify`: which of some labels fit a picture.

use std::path::Path;
use std::process::ExitCode;

use serde_json::json;

use super::SKIPPED;
use crate::config::ClassifyArgs;
use crate::model::scores::cosine;
use crate::model::zero_shot::{Activation, Ranking, SLOT, mean_direction};
use crate::pipeline::Pipeline;
use crate::{Error, Result};

/// Texts of one batch of labels.
const BATCH: usize = 32;

pub(super) fn run(args: &ClassifyArgs) -> Result<ExitCode> {
    let labels: Vec<&str> = args.labels.iter().map(|label| label.trim()).collect();
    if labels.iter().any(|label| label.is_empty()) {
        return Err(Error::Config("--labels: a label is empty".into()));
    }
    if let Some(template) = args.templates.iter().find(|template| !template.contains(SLOT)) {
        return Err(Error::Config(format!("--template {template:?} has no {SLOT} where the label goes")));
    }
    let pipeline = args.model.load()?;
    let scores = pipeline.model().scores().ok_or_else(|| {
        Error::Request("this checkpoint has no logit scale and bias: it cannot give probabilities".into())
    })?;
    let directions = label_directions(&pipeline, &labels, &args.templates)?;
    let ranking = Ranking {
        activation: if args.softmax { Activation::Softmax } else { Activation::Sigmoid },
        top_k: args.top_k,
        threshold: None,
    };
    let mut failed = 0;
    for (i, image) in args.images.iter().enumerate() {
        let vector = match embed(&pipeline, image, args.max_num_patches) {
            Ok(vector) => vector,
            Err(error) => {
                eprintln!("skipped {}: {error}", image.display());
                failed += 1;
                continue;
            }
        };
        let logits: Vec<f32> = directions.iter().map(|label| scores.logit(cosine(&vector, label))).collect();
        let ranked = ranking.rank(&logits);
        if args.json {
            let predictions: Vec<_> = ranked
                .iter()
                .map(|&(at, score)| json!({ "label": labels[at], "score": score, "logit": logits[at] }))
                .collect();
            sayln!("{}", json!({ "image": image.display().to_string(), "predictions": predictions }));
        } else {
            if i > 0 {
                say!("\n");
            }
            sayln!("{}", image.display());
            say!("{}", table(&labels, &ranked, &logits));
        }
    }
    Ok(match failed {
        0 => ExitCode::SUCCESS,
        all if all == args.images.len() => ExitCode::FAILURE,
        _ => ExitCode::from(SKIPPED),
    })
}

fn embed(pipeline: &Pipeline, image: &Path, max_num_patches: Option<usize>) -> Result<Vec<f32>> {
    let bytes = super::embed::read_file(image, pipeline.image()?.limits().max_bytes)?;
    let patches = pipeline.prepare_image(&bytes, max_num_patches)?;
    pipeline.model().embed_images(&[&patches])?.pop().ok_or_else(|| Error::Request("no embedding".into()))
}

/// The direction of each label over its templates.
fn label_directions(pipeline: &Pipeline, labels: &[&str], templates: &[String]) -> Result<Vec<Vec<f32>>> {
    let default = [pipeline.info().template.clone()];
    let templates = if templates.is_empty() { &default[..] } else { templates };
    let texts: Vec<_> = labels
        .iter()
        .flat_map(|label| templates.iter().map(move |template| template.replace(SLOT, label)))
        .map(|text| pipeline.prepare_text(&text, None))
        .collect::<Result<_>>()?;
    let mut vectors = Vec::with_capacity(texts.len());
    for batch in texts.chunks(BATCH) {
        vectors.extend(pipeline.model().embed_texts(&batch.iter().collect::<Vec<_>>())?);
    }
    Ok(vectors
        .chunks(templates.len())
        .map(|of_label| mean_direction(of_label.iter().map(Vec::as_slice)))
        .collect())
}

/// Probability, bar, logit and label, best first.
fn table(labels: &[&str], ranked: &[(usize, f32)], logits: &[f32]) -> String {
    let mut text = String::new();
    for &(at, score) in ranked {
        let bar = "█".repeat((score.clamp(0.0, 1.0) * 20.0).round() as usize);
        text +=
            &format!("  {:>8.4} % {bar:<20} {:>9.3}  {}\n", f64::from(score) * 100.0, logits[at], labels[at]);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_has_a_row_a_label_best_first() {
        let text = table(&["cat", "dog"], &[(1, 0.5), (0, 0.0)], &[-9.0, 0.0]);
        let rows: Vec<&str> = text.lines().collect();
        assert_eq!(rows.len(), 2);
        assert!(
            rows[0].ends_with("0.000  dog")
                && rows[0].contains("50.0000 %")
                && rows[0].contains("██████████ ")
        );
        assert!(rows[1].ends_with("-9.000  cat") && !rows[1].contains('█'));
    }
}
