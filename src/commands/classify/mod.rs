//! `siglip classify`: which of some labels fit pictures.

mod heatmap;
mod own;

use std::pin::pin;
use std::process::ExitCode;
use std::sync::Arc;

use futures::StreamExt;
use serde_json::json;

use super::bulk::{Bulk, INTERRUPTED, Interrupt, Source};
use super::error::{Result, failed};
use super::some_skipped;
use crate::config::ClassifyArgs;
use crate::engine::{Labels, ScoreOptions};
use crate::model::zero_shot::{self, Activation, Ranking, SLOT};
use crate::model::{LabelSet, Match, Scores};

pub(super) fn run(args: &ClassifyArgs) -> Result<ExitCode> {
    let labels: Vec<&str> = args.labels.iter().map(|label| label.trim()).collect();
    if labels.iter().any(|label| label.is_empty()) {
        return Err(failed("--labels: a label is empty"));
    }
    if let Some(template) = args.templates.iter().find(|template| !template.contains(SLOT)) {
        return Err(failed(format!("--template {template:?} has no {SLOT} where the label goes")));
    }
    if args.heatmap.is_some() && args.images.len() != 1 {
        return Err(failed(format!("--heatmap draws one image, not {}", args.images.len())));
    }
    if labels.is_empty() {
        return own::run(args);
    }
    let bulk = Bulk::start(&args.model, None)?;
    bulk.block_on(classify(&bulk, args, &labels))
}

async fn classify(bulk: &Bulk, args: &ClassifyArgs, labels: &[&str]) -> Result<ExitCode> {
    let mut interrupt = Interrupt::listen()?;
    let info = bulk.model().info();
    let (Some(scale), Some(bias)) = (info.logit_scale, info.logit_bias) else {
        return Err(failed("this checkpoint has no logit scale and bias: it cannot give probabilities"));
    };
    let scores = Scores { scale, bias };
    let names = labels;
    let set = Arc::new(label_set(bulk, names, &args.templates).await?);
    let labels = Labels::Set(Arc::clone(&set));
    let ranking = Ranking {
        activation: if args.softmax { Activation::Softmax } else { Activation::Sigmoid },
        top_k: args.top_k,
        threshold: None,
    };
    let images = args.images.iter().map(|image| (image.display().to_string(), Source::File(image.clone())));
    let mut results = pin!(bulk.embed(images.collect(), args.max_num_patches));
    let (mut answered, mut skipped) = (0, 0);
    loop {
        let next = tokio::select! {
            biased;
            () = interrupt.wait() => {
                eprintln!("interrupted after {} of {} images", answered + skipped, args.images.len());
                return Ok(ExitCode::from(INTERRUPTED));
            }
            next = results.next() => next,
        };
        let Some((image, result)) = next else { break };
        match result {
            Ok(embedding) => {
                let (pictures, labels, options) =
                    (vec![embedding.vector], labels.clone(), ScoreOptions::default());
                let scored = bulk.model().rank(pictures, labels, scores, ranking, options).await?;
                let ranked = scored.value.concat();
                print(args, names, &image, answered == 0, &ranked);
                if let (Some(output), Some(best)) = (&args.heatmap, ranked.first()) {
                    heatmap::draw(bulk, args, &set, best.label, output).await?;
                    eprintln!("{}: where {:?} is", output.display(), names[best.label]);
                }
                answered += 1;
            }
            Err(error) => {
                eprintln!("skipped {image}: {error}");
                skipped += 1;
            }
        }
    }
    Ok(some_skipped(answered, skipped))
}

/// The labels with the mean direction over their templates.
async fn label_set(bulk: &Bulk, labels: &[&str], templates: &[String]) -> Result<LabelSet> {
    let info = bulk.model().info();
    let default = [info.template.clone()];
    let templates = if templates.is_empty() { &default[..] } else { templates };
    let texts = zero_shot::texts(labels, templates).map(|(_, text)| ((), Source::Text(text)));
    let mut vectors: Vec<Arc<[f32]>> = Vec::new();
    let mut results = pin!(bulk.embed(texts.collect(), None));
    while let Some(((), result)) = results.next().await {
        vectors.push(result?.vector);
    }
    let names = labels.iter().map(|&label| label.into()).collect();
    let set = LabelSet::new(names, &vectors, templates.len(), info.fingerprint.as_str().into());
    Ok(set?)
}

fn print(args: &ClassifyArgs, labels: &[&str], image: &str, first: bool, ranked: &[Match]) {
    if args.json {
        let predictions: Vec<_> = ranked
            .iter()
            .map(|m| json!({ "label": labels[m.label], "score": m.score, "logit": m.logit }))
            .collect();
        outln!("{}", json!({ "image": image, "predictions": predictions }));
    } else {
        if !first {
            out!("\n");
        }
        outln!("{image}");
        out!("{}", table(labels, ranked));
    }
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
