//! `siglip classify`: which of some labels fit a picture.

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use serde_json::json;

use super::SKIPPED;
use crate::config::ClassifyArgs;
use crate::model::zero_shot::{self, Activation, Ranking, SLOT};
use crate::model::{LabelActivation, LabelSet, Match, Scores, scores};
use crate::pipeline::Pipeline;
use crate::{Error, Result};

/// Texts of one batch of labels.
const BATCH: usize = 32;

pub(super) fn run(args: &ClassifyArgs) -> Result<ExitCode> {
    let mut labels: Vec<&str> = args.labels.iter().map(|label| label.trim()).collect();
    if labels.iter().any(|label| label.is_empty()) {
        return Err(Error::Config("--labels: a label is empty".into()));
    }
    if let Some(template) = args.templates.iter().find(|template| !template.contains(SLOT)) {
        return Err(Error::Config(format!("--template {template:?} has no {SLOT} where the label goes")));
    }
    let pipeline = args.model.load()?;
    let classifier = Classifier::new(&pipeline, args, &labels)?;
    if labels.is_empty() {
        labels = pipeline.model().classifier().iter().flat_map(|c| c.labels()).map(String::as_str).collect();
    }
    let mut failed = 0;
    for (i, image) in args.images.iter().enumerate() {
        let ranked = match classifier.rank(image) {
            Ok(ranked) => ranked,
            Err(error) => {
                eprintln!("skipped {}: {error}", image.display());
                failed += 1;
                continue;
            }
        };
        if args.json {
            let predictions: Vec<_> = ranked
                .iter()
                .map(|m| json!({ "label": labels[m.label], "score": m.score, "logit": m.logit }))
                .collect();
            outln!("{}", json!({ "image": image.display().to_string(), "predictions": predictions }));
        } else {
            if i > 0 {
                out!("\n");
            }
            outln!("{}", image.display());
            out!("{}", table(&labels, &ranked));
        }
    }
    Ok(match failed {
        0 => ExitCode::SUCCESS,
        all if all == args.images.len() => ExitCode::FAILURE,
        _ => ExitCode::from(SKIPPED),
    })
}

/// What says which labels fit a picture.
struct Classifier<'a> {
    pipeline: &'a Pipeline,
    max_num_patches: Option<usize>,
    ranking: Ranking,
    /// The labels of the command line; without them the checkpoint's own classifier is meant.
    zero_shot: Option<(LabelSet, Scores)>,
}

impl<'a> Classifier<'a> {
    fn new(pipeline: &'a Pipeline, args: &ClassifyArgs, labels: &[&str]) -> Result<Self> {
        let own = pipeline.model().classifier();
        let zero_shot = if labels.is_empty() {
            if own.is_none() {
                return Err(Error::Config("--labels: this checkpoint has no classifier of its own".into()));
            }
            None
        } else {
            let scores = pipeline.model().scores().ok_or_else(|| {
                Error::Request(
                    "this checkpoint has no logit scale and bias: it cannot give probabilities".into(),
                )
            })?;
            Some((label_set(pipeline, labels, &args.templates)?, scores))
        };
        let activation = match own.filter(|_| zero_shot.is_none()).map(|own| own.activation()) {
            _ if args.softmax => Activation::Softmax,
            Some(LabelActivation::Softmax) => Activation::Softmax,
            Some(LabelActivation::Sigmoid) | None => Activation::Sigmoid,
        };
        let ranking = Ranking { activation, top_k: args.top_k, threshold: None };
        Ok(Self { pipeline, max_num_patches: args.max_num_patches, ranking, zero_shot })
    }

    /// The labels of one picture, best first.
    fn rank(&self, image: &Path) -> Result<Vec<Match>> {
        let bytes = super::embed::read_file(image, self.pipeline.image()?.limits().max_bytes)?;
        let patches = self.pipeline.prepare_image(&bytes, self.max_num_patches)?;
        let model = self.pipeline.model();
        let Some((set, scores)) = &self.zero_shot else {
            let logits = model.classify_images(&[&patches])?.concat();
            let scores = match self.ranking.activation {
                Activation::Softmax => scores::softmax(&logits),
                _ => logits.iter().map(|&logit| scores::sigmoid(logit)).collect(),
            };
            let mut ranked: Vec<Match> = logits
                .iter()
                .zip(scores)
                .enumerate()
                .map(|(label, (&logit, score))| Match { label, logit, score })
                .collect();
            ranked.sort_by(|a, b| b.logit.total_cmp(&a.logit));
            ranked.truncate(self.ranking.top_k.unwrap_or(usize::MAX));
            return Ok(ranked);
        };
        let vector = model.embed_images(&[&patches])?.concat();
        Ok(set.rank(&[vector.into()], *scores, self.ranking, &|| false)?.unwrap_or_default().concat())
    }
}

/// The labels with the mean direction over their templates.
fn label_set(pipeline: &Pipeline, labels: &[&str], templates: &[String]) -> Result<LabelSet> {
    let default = [pipeline.info().template.clone()];
    let templates = if templates.is_empty() { &default[..] } else { templates };
    let texts: Vec<_> = zero_shot::texts(labels, templates)
        .map(|(_, text)| pipeline.prepare_text(&text, None))
        .collect::<Result<_>>()?;
    let mut vectors: Vec<Arc<[f32]>> = Vec::with_capacity(texts.len());
    for batch in texts.chunks(BATCH) {
        let embedded = pipeline.model().embed_texts(&batch.iter().collect::<Vec<_>>())?;
        vectors.extend(embedded.into_iter().map(Into::into));
    }
    let names = labels.iter().map(|&label| label.into()).collect();
    Ok(LabelSet::new(names, &vectors, templates.len(), pipeline.info().fingerprint.as_str().into())?)
}

/// Probability, bar, logit and label, best first.
fn table(labels: &[&str], ranked: &[Match]) -> String {
    let mut text = String::new();
    for &Match { label, logit, score } in ranked {
        let bar = "█".repeat((score.clamp(0.0, 1.0) * 20.0).round() as usize);
        text += &format!("  {:>8.4} % {bar:<20} {logit:>9.3}  {}\n", f64::from(score) * 100.0, labels[label]);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_has_one_row_per_label_best_first() {
        let ranked =
            [Match { label: 1, logit: 0.0, score: 0.5 }, Match { label: 0, logit: -9.0, score: 0.0 }];
        let text = table(&["cat", "dog"], &ranked);
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
