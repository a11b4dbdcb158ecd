//! `siglip classify`: which of some labels fit pictures.

mod heatmap;
mod labels;

use std::path::PathBuf;
use std::pin::pin;
use std::process::ExitCode;
use std::sync::Arc;

use futures::StreamExt;
use serde_json::json;

use super::embed::find_images;
use super::error::{Result, failed};
use super::session::{self, INTERRUPTED, Interrupt, Source};
use super::some_skipped;
use crate::bulk::Session;
use crate::config::ClassifyArgs;
use crate::engine::{Labels, ScoreOptions};
use crate::labels::Content;
use crate::model::zero_shot::{Activation, Ranking};
use crate::model::{Judged, Match, Question, Scores};

pub(super) fn run(args: &ClassifyArgs) -> Result<ExitCode> {
    args.model.chosen()?;
    if let Some(threshold) = args.threshold {
        crate::labels::check_share("--threshold", threshold).map_err(|error| failed(error.to_string()))?;
    }
    // What is wrong with the arguments is said before any file is looked for.
    let content = labels::content(args)?;
    if content.is_none() && args.heatmap.is_some() {
        return Err(failed("--heatmap needs --labels or --label-set"));
    }
    let (images, left_out) = find_images(&args.images, &args.find)?;
    if args.heatmap.is_some() && images.len() != 1 {
        return Err(failed(format!("--heatmap draws one image, not {}", images.len())));
    }
    left_out.lines().iter().for_each(|line| eprintln!("{line}"));
    let work = Work { args, images, missing: left_out.failed() };
    let bulk = session::start(&args.model, None)?;
    bulk.block_on(classify(&bulk, &work, content))
}

/// What is to be classified, and how.
struct Work<'a> {
    args: &'a ClassifyArgs,
    images: Vec<PathBuf>,
    /// Files that were named and are not there.
    missing: usize,
}

/// Without `content` the labels are those of the checkpoint's own classifier.
async fn classify(bulk: &Session, work: &Work<'_>, content: Option<Content>) -> Result<ExitCode> {
    let args = work.args;
    let mut interrupt = Interrupt::listen()?;
    let info = bulk.model().info();
    let scores = match info.logit_scale.zip(info.logit_bias) {
        Some((scale, bias)) => Scores { scale, bias },
        // A head has logits of its own.
        None if content.as_ref().is_none_or(|content| content.head.is_some()) => {
            Scores { scale: 1.0, bias: 0.0 }
        }
        None => {
            let message = "this checkpoint has no logit scale and bias: it cannot give probabilities";
            return Err(failed(message));
        }
    };
    let ready = tokio::select! {
        biased;
        () = interrupt.wait() => {
            eprintln!("interrupted before the labels were encoded");
            return Ok(ExitCode::from(INTERRUPTED));
        }
        ready = labels::ready(bulk, args, content, scores) => ready?,
    };
    let definition = ready.version.definition();
    let activation = if args.softmax { Some(Activation::Softmax) } else { definition.activation };
    let question = Question {
        ranking: Ranking {
            activation: activation.unwrap_or_default(),
            top_k: args.top_k,
            threshold: args.threshold,
        },
        // What is asked for here goes before what the set says.
        thresholds: ready.version.thresholds().filter(|_| args.threshold.is_none()),
        none: ready.none,
        standard: None,
    };
    let names = ready.version.names();
    let images = work.images.iter().map(|image| (image.display().to_string(), Source::File(image.clone())));
    let options = (args.max_num_patches, ready.looks_at);
    let mut results = pin!(session::embed_as(bulk, images.collect(), options));
    let (mut answered, mut skipped) = (0, work.missing);
    loop {
        let next = tokio::select! {
            biased;
            () = interrupt.wait() => {
                eprintln!("interrupted after {} of {} images", answered + skipped - work.missing, work.images.len());
                return Ok(ExitCode::from(INTERRUPTED));
            }
            next = results.next() => next,
        };
        let Some((image, result)) = next else { break };
        match result {
            Ok(embedding) => {
                let (pictures, labels) = (vec![embedding.vector], Labels::Set(Arc::clone(&ready.set)));
                let options = ScoreOptions::default();
                let judged = bulk.model().judge(pictures, labels, scores, question.clone(), options).await?;
                for judged in &judged.value {
                    print(args, names, &image, answered == 0, judged);
                    if let (Some(output), Some(best)) = (&args.heatmap, judged.matches.first()) {
                        heatmap::draw(bulk, work, &ready.set, best.label, output).await?;
                        eprintln!("{}: where {:?} is", output.display(), names[best.label]);
                    }
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

fn print(args: &ClassifyArgs, labels: &[impl AsRef<str>], image: &str, first: bool, judged: &Judged) {
    if args.json {
        let predictions: Vec<_> = judged
            .matches
            .iter()
            .map(|m| json!({ "label": labels[m.label].as_ref(), "score": m.score, "logit": m.logit }))
            .collect();
        let mut line = json!({ "image": image, "predictions": predictions });
        if let Some(none) = judged.none {
            line["none"] =
                json!({ "none_fits": none.none_fits(), "score": none.score, "threshold": none.threshold });
        }
        outln!("{line}");
    } else {
        if !first {
            out!("\n");
        }
        outln!("{image}");
        if let Some(none) = judged.none.filter(|none| none.none_fits()) {
            // A probability, a share, or standard deviations above a background.
            outln!("  none of these fits ({:.6} < {:.6})", none.score, none.threshold);
        }
        out!("{}", table(labels, &judged.matches));
    }
}

/// Probability, bar, logit and label, best first.
fn table(labels: &[impl AsRef<str>], ranked: &[Match]) -> String {
    let mut text = String::new();
    for &Match { label, logit, score } in ranked {
        let bar = "█".repeat((score.clamp(0.0, 1.0) * 20.0).round() as usize);
        let name = labels[label].as_ref();
        text += &format!("  {:>8.4} % {bar:<20} {logit:>9.3}  {name}\n", f64::from(score) * 100.0);
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
