//! The engine as commands use it: one model, many inputs, results in their order.

use std::path::PathBuf;
use std::sync::Arc;

use futures::stream::{self, Stream, StreamExt};
use tokio::runtime::Runtime;
use tokio::sync::watch;

use super::embed::read_file;
use super::error::{Result, failed};
use crate::checkpoint::{HubOptions, ModelRef};
use crate::config::ModelArgs;
use crate::engine::{
    Class, EmbedOptions, Embedding, Engine, EngineConfig, Input, Model, ModelHandle, Order, PipelineModel,
    WhenFull,
};
use crate::image::ImageLimits;
use crate::pipeline::ModelInfo;

/// Files that are read at once, ahead of the engine.
const READERS: usize = 16;
/// The exit code of a program that was interrupted, as shells give it.
pub(super) const INTERRUPTED: u8 = 130;

/// Where an input comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Source {
    File(PathBuf),
    Text(String),
    TokenIds(Vec<u32>),
}

/// A running engine with one model.
pub(super) struct Bulk {
    runtime: Runtime,
    model: ModelHandle,
    limits: ImageLimits,
    /// Inputs in the engine at once.
    window: usize,
    // The threads end with it.
    engine: Engine,
}

impl Bulk {
    /// Loads the model onto every device that was asked for.
    pub(super) fn start(args: &ModelArgs, max_batch_tokens: Option<usize>) -> Result<Self> {
        args.compute.start_threads()?;
        let options = args.compute.load_options(None);
        let limits = options.image_limits;
        let model = PipelineModel::open(&args.model.parse::<ModelRef>()?, &HubOptions::default(), &options)?;
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
            .map_err(|error| failed(format!("no threads for the command: {error}")))?;
        Ok(Self { runtime, model, limits, window, engine })
    }

    /// The model.
    pub(super) fn model(&self) -> &ModelHandle {
        &self.model
    }

    /// Bytes of a file at most.
    pub(super) fn max_bytes(&self) -> usize {
        self.limits.max_bytes
    }

    /// The engine, which has no other model.
    pub(super) fn engine(&self) -> &Engine {
        &self.engine
    }

    /// Runs a future to its end.
    pub(super) fn block_on<F: Future>(&self, future: F) -> F::Output {
        self.runtime.block_on(future)
    }

    /// The embedding of every input, in the order of the inputs, each with what it came with.
    pub(super) fn embed<T: Send + 'static>(
        &self,
        inputs: Vec<(T, Source)>,
        max_num_patches: Option<usize>,
    ) -> impl Stream<Item = (T, Result<Embedding>)> + use<T> {
        let max_bytes = self.limits.max_bytes;
        let read = move |(tag, source): (T, Source)| async move {
            let input = match source {
                Source::Text(text) => Ok(Input::Text(text)),
                Source::TokenIds(ids) => Ok(Input::TokenIds(ids)),
                Source::File(path) => {
                    let read = tokio::task::spawn_blocking(move || read_file(&path, max_bytes)).await;
                    read.unwrap_or_else(|error| Err(failed(error.to_string())))
                        .map(|bytes| Input::Image(bytes.into()))
                }
            };
            (tag, input)
        };
        let options = EmbedOptions {
            class: Class::Background,
            when_full: WhenFull::Wait,
            max_num_patches,
            ..EmbedOptions::default()
        };
        let inputs = stream::iter(inputs).map(read).buffered(READERS);
        self.model.clone().embed_stream(inputs, options, Order::AsSent, self.window)
    }
}

/// Enough inputs for the batches on the workers, those ahead of them and as much in preparation.
fn window(config: &EngineConfig, info: &ModelInfo) -> usize {
    let tokens = info.image.as_ref().map_or(64, |spec| spec.grid().len());
    let batches = 2 * (config.workers_on(info.device) + 1);
    (batches * config.batch_tokens_on(info.device) / tokens).clamp(64, 1024)
}

/// Tells when the user wants the command to stop: Ctrl-C or SIGTERM. The second time the process ends at once.
#[derive(Clone)]
pub(super) struct Interrupt(watch::Receiver<bool>);

impl Interrupt {
    /// Listens from now on; called within the runtime.
    ///
    /// # Errors
    /// If the system lets nobody listen.
    pub(super) fn listen() -> Result<Self> {
        let (sender, receiver) = watch::channel(false);
        let mut signals = Signals::listen().map_err(|error| failed(format!("signals: {error}")))?;
        tokio::spawn(async move {
            signals.next().await;
            let _ = sender.send(true);
            signals.next().await;
            std::process::exit(INTERRUPTED.into());
        });
        Ok(Self(receiver))
    }

    /// Waits for it.
    pub(super) async fn wait(&mut self) {
        if self.0.wait_for(|&interrupted| interrupted).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

#[cfg(unix)]
struct Signals {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
}

#[cfg(unix)]
impl Signals {
    fn listen() -> std::io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

#[cfg(not(unix))]
struct Signals(tokio::signal::windows::CtrlC);

#[cfg(not(unix))]
impl Signals {
    fn listen() -> std::io::Result<Self> {
        Ok(Self(tokio::signal::windows::ctrl_c()?))
    }

    async fn next(&mut self) {
        self.0.recv().await;
    }
}
