//! An engine with one model, and inputs that go through it in their order.

use std::sync::Arc;

use futures::stream::Stream;
use tokio::runtime::Runtime;

use super::fault::is_of_the_model;
use crate::checkpoint::{HubOptions, ModelRef};
use crate::engine::{
    Class, EmbedOptions, Embedding, Engine, EngineConfig, EngineError, Input, Model, ModelHandle, Order,
    PipelineModel, WhenFull, WorkError,
};
use crate::image::ImageLimits;
use crate::model::PatchVectors;
use crate::pipeline::{LoadOptions, ModelInfo};
use crate::{Error, Result};

/// Files that are read at once, ahead of the engine.
pub(super) const READERS: usize = 16;

/// A running engine with one model.
pub struct Session {
    runtime: Runtime,
    model: ModelHandle,
    limits: ImageLimits,
    /// Inputs in the engine at once.
    window: usize,
    // The threads end with it.
    engine: Engine,
}

impl Session {
    /// Loads the model onto every device that was asked for.
    ///
    /// # Errors
    /// If it cannot be had, or the system gives no threads.
    pub fn start(
        reference: &ModelRef,
        options: &LoadOptions,
        max_batch_tokens: Option<usize>,
    ) -> Result<Self, WorkError> {
        let limits = options.image_limits;
        let model = PipelineModel::open(reference, &HubOptions::default(), options)?;
        // The first batch is the work itself.
        let config = EngineConfig { warm_up: false, max_batch_tokens, ..EngineConfig::default() };
        let window = window(&config, model.info());
        let name = model.info().name.clone();
        let engine = Engine::start(config);
        let model = engine.insert(&[&name], Arc::new(model))?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .max_blocking_threads(READERS)
            .enable_all()
            .build()
            .map_err(|error| Error::Config(format!("no threads for the command: {error}")))?;
        Ok(Self { runtime, model, limits, window, engine })
    }

    /// The model.
    pub fn model(&self) -> &ModelHandle {
        &self.model
    }

    /// What the model is.
    pub fn info(&self) -> &ModelInfo {
        self.model.info()
    }

    /// Bytes of a file at most.
    pub fn max_bytes(&self) -> usize {
        self.limits.max_bytes
    }

    /// What a picture may cost.
    pub fn image_limits(&self) -> ImageLimits {
        self.limits
    }

    /// The engine, which has no other model.
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// Runs a future to its end.
    pub fn block_on<F: Future>(&self, future: F) -> F::Output {
        self.runtime.block_on(future)
    }

    /// The embedding of every input, in the order of the inputs, each with what it came with. A bounded number of inputs is
    /// in the engine at once, and no more are taken. An input that is an error passes through. The options are another patch
    /// budget than the checkpoint's, and what is made of the patches of a picture in place of its embedding.
    pub fn embed<T, E, S>(
        &self,
        inputs: S,
        options: (Option<usize>, Option<PatchVectors>),
    ) -> impl Stream<Item = (T, Result<Embedding, E>)> + use<T, E, S>
    where
        E: From<EngineError> + From<WorkError>,
        S: Stream<Item = (T, Result<Input, E>)>,
    {
        embed(self.model.clone(), inputs, options, self.window)
    }

    pub(super) fn window(&self) -> usize {
        self.window
    }
}

/// See [`Session::embed`].
pub(super) fn embed<T, E>(
    model: ModelHandle,
    inputs: impl Stream<Item = (T, Result<Input, E>)>,
    (max_num_patches, patches): (Option<usize>, Option<PatchVectors>),
    window: usize,
) -> impl Stream<Item = (T, Result<Embedding, E>)>
where
    E: From<EngineError> + From<WorkError>,
{
    let options = EmbedOptions {
        class: Class::Background,
        when_full: WhenFull::Wait,
        max_num_patches,
        patches,
        ..EmbedOptions::default()
    };
    model.embed_stream(inputs, options, Order::AsSent, window)
}

/// Enough inputs for the batches on the workers, those ahead of them and as much in preparation.
fn window(config: &EngineConfig, info: &ModelInfo) -> usize {
    let tokens = info.image.as_ref().map_or(64, |spec| spec.grid().len());
    let batches = 2 * (config.workers_on(info.device) + 1);
    (batches * config.batch_tokens_on(info.device) / tokens).clamp(64, 1024)
}

/// Counts inputs on which the model failed: after so many, one after the other, it is broken and not they.
#[derive(Debug, Default)]
pub struct Failures(usize);

impl Failures {
    const MOST: usize = 32;

    /// An input was embedded, or failed for a reason of its own.
    pub fn end(&mut self) {
        self.0 = 0;
    }

    /// An input failed; whether the model is broken.
    pub fn count(&mut self, error: &WorkError) -> bool {
        self.0 = if is_of_the_model(error) { self.0 + 1 } else { 0 };
        self.0 >= Self::MOST
    }

    /// How many failed, one after the other.
    pub fn in_a_row(&self) -> usize {
        self.0
    }
}
