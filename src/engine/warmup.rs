//! Inputs that are known to be good: they warm towers up, and tell a broken device from bad inputs.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use super::EngineError;
use super::batch::{self, Outcome, panic_message};
use super::error::Result;
use super::job::Lane;
use super::model::{Model, Towers};
use crate::image::{ImageSpec, Patches};
use crate::text::{TextSpec, TokenIds};

/// One picture and one text through the towers.
pub(super) fn run(model: &dyn Model, towers: &dyn Towers) -> Result<()> {
    let both = || {
        let width = model.info().embedding_dim;
        if let Some(spec) = &model.info().image {
            let patches = grey(spec);
            let embed = |batch: &[&Patches]| towers.embed_images(batch, &|| ());
            first(batch::run(&[&patches], &|_| width, &embed))?;
        }
        if let Some(spec) = &model.info().text {
            let ids = some_text(model, spec);
            first(batch::run(&[&ids], &|_| width, &|batch: &[&TokenIds]| towers.embed_texts(batch)))?;
        }
        Ok(())
    };
    // Unwind safety: as in a batch; the tokenizer may panic outside of one.
    catch_unwind(AssertUnwindSafe(both))
        .unwrap_or_else(|panic| Err(EngineError::Worker(panic_message(panic.as_ref())).into()))
}

/// How long towers that are warm take for the tokens of one picture and of one text.
pub(super) fn measure(model: &dyn Model, towers: &dyn Towers) -> Vec<(Lane, usize, Duration)> {
    let mut times = Vec::new();
    let start = Instant::now();
    if let Some(spec) = &model.info().image {
        let patches = grey(spec);
        if catch_unwind(AssertUnwindSafe(|| towers.embed_images(&[&patches], &|| ())))
            .is_ok_and(|result| result.is_ok())
        {
            times.push((Lane::Images, patches.grid.len(), start.elapsed()));
        }
    }
    let start = Instant::now();
    if let Some(spec) = &model.info().text {
        let ids = TokenIds { ids: vec![0; spec.context], used: 1, truncated: false };
        if catch_unwind(AssertUnwindSafe(|| towers.embed_texts(&[&ids]))).is_ok_and(|result| result.is_ok()) {
            times.push((Lane::Texts, spec.context, start.elapsed()));
        }
    }
    times
}

fn first(outcome: Outcome) -> Result<()> {
    outcome.results.into_iter().try_for_each(|result| result.map(drop))
}

/// A grey picture of the size that the model sees.
fn grey(spec: &ImageSpec) -> Patches {
    let (patch, grid) = (spec.patch.max(1), spec.grid());
    let source = ((grid.rows * patch) as u32, (grid.cols * patch) as u32);
    Patches { pixels: vec![127; grid.len() * patch * patch * 3], grid, source }
}

/// Warms the tokenizer too, where there is one.
fn some_text(model: &dyn Model, spec: &TextSpec) -> TokenIds {
    model.prepare_text("a photo of a cat", None).unwrap_or_else(|_| TokenIds {
        ids: vec![0; spec.context],
        used: 1,
        truncated: false,
    })
}
