//! The engine as commands use it: one model, many inputs, results in their order; and the end that a user asks for.

use std::path::PathBuf;

use futures::stream::{self, Stream, StreamExt};
use tokio::sync::watch;

use super::embed::read_file;
use super::error::{CommandError, Result, failed};
use crate::bulk::{Fault, FaultKind, Session};
use crate::checkpoint::ModelRef;
use crate::config::WorkModelArgs;
use crate::engine::{Embedding, Input};
use crate::model::PatchVectors;

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

/// Loads the model onto every device that was asked for.
pub(super) fn start(args: &WorkModelArgs, max_batch_tokens: Option<usize>) -> Result<Session> {
    let reference = args.chosen()?.parse::<ModelRef>()?;
    args.compute.start_threads()?;
    Ok(Session::start(&reference, &args.compute.load_options(None), max_batch_tokens)?)
}

/// The same for commands whose exit codes say who must act.
pub(super) fn start_or_fault(
    args: &WorkModelArgs,
    max_batch_tokens: Option<usize>,
) -> Result<Session, Fault> {
    args.chosen().and_then(|_| args.compute.start_threads()).map_err(|error| usage(&error))?;
    load(args, max_batch_tokens)
}

/// Loads the model, where the threads of the towers have been started.
pub(super) fn load(args: &WorkModelArgs, max_batch_tokens: Option<usize>) -> Result<Session, Fault> {
    let chosen = args.chosen().map_err(|error| usage(&error))?;
    let reference = chosen.parse::<ModelRef>().map_err(|error| usage(&error))?;
    let options = args.compute.load_options(None);
    Session::start(&reference, &options, max_batch_tokens).map_err(|error| Fault::of_loading(&error))
}

fn usage(error: &dyn std::fmt::Display) -> Fault {
    Fault::new(FaultKind::Usage, error.to_string())
}

/// The embedding of every input, in the order of the inputs, each with what it came with.
pub(super) fn embed<T: Send + 'static>(
    session: &Session,
    inputs: Vec<(T, Source)>,
    max_num_patches: Option<usize>,
) -> impl Stream<Item = (T, Result<Embedding>)> + use<T> {
    embed_as(session, inputs, (max_num_patches, None))
}

/// [`embed`] with a patch budget, and what is made of the patches of pictures in place of embeddings.
pub(super) fn embed_as<T: Send + 'static>(
    session: &Session,
    inputs: Vec<(T, Source)>,
    options: (Option<usize>, Option<PatchVectors>),
) -> impl Stream<Item = (T, Result<Embedding>)> + use<T> {
    let max_bytes = session.max_bytes();
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
    let inputs = stream::iter(inputs).map(read).buffered(READERS);
    session.embed::<T, CommandError, _>(inputs, options)
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
