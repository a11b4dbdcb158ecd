//! The labels of a checkpoint that has a classifier of its own.

use std::path::Path;
use std::process::ExitCode;

use super::{Work, print};
use crate::commands::embed::read_file;
use crate::commands::error::{Result, failed};
use crate::commands::some_skipped;
use crate::model::zero_shot::{Activation, Ranking};
use crate::model::{Judged, LabelActivation};
use crate::pipeline::Pipeline;

/// One picture after the other: the engine embeds, and this head looks at what comes before the embedding.
pub(super) fn run(work: &Work<'_>) -> Result<ExitCode> {
    let args = work.args;
    let pipeline = args.model.model_args()?.load()?;
    let Some(classifier) = pipeline.model().classifier() else {
        return Err(failed("--labels: this checkpoint has no classifier of its own"));
    };
    let labels: Vec<&str> = classifier.labels().iter().map(String::as_str).collect();
    let activation = match classifier.activation() {
        _ if args.softmax => Activation::Softmax,
        LabelActivation::Softmax => Activation::Softmax,
        LabelActivation::Sigmoid => Activation::Sigmoid,
    };
    let ranking = Ranking { activation, top_k: args.top_k, threshold: args.threshold };
    let (mut answered, mut skipped) = (0, work.missing);
    for image in &work.images {
        let name = image.display().to_string();
        match rank(&pipeline, image, args.max_num_patches, ranking) {
            Ok(ranked) => {
                print(args, &labels, &name, answered == 0, &ranked);
                answered += 1;
            }
            Err(error) => {
                eprintln!("skipped {name}: {error}");
                skipped += 1;
            }
        }
    }
    Ok(some_skipped(answered, skipped))
}

fn rank(
    pipeline: &Pipeline,
    image: &Path,
    max_num_patches: Option<usize>,
    ranking: Ranking,
) -> Result<Judged> {
    let bytes = read_file(image, pipeline.image()?.limits().max_bytes)?;
    let patches = pipeline.prepare_image(&bytes, max_num_patches)?;
    let matches = ranking.select(&pipeline.model().classify_images(&[&patches])?.concat());
    Ok(Judged { matches, none: None })
}
