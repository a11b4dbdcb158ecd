//! The texts of a label set through the engine, as background work: one direction a label, kept as they come.

use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures::StreamExt;
use futures::stream;

use super::content::Content;
use super::definition::Definition;
use super::error::quoted;
use super::examples::fit;
use super::sets::LevelsCache;
use super::store::{RowsKey, RowsLog};
use super::version::{Directions, FitReport, Ready};
use crate::budget::Charge;
use crate::engine::{
    Class, EmbedOptions, Embedding, EngineError, Input, ModelHandle, Order, WhenFull, WorkError,
};
use crate::model::scores::l2_normalize;
use crate::model::{LabelSet, Scores};

/// Texts in the engine at once.
const WINDOW: usize = 256;
/// Labels between two writes to the disk.
const PIECE: usize = 256;
/// How often a fault of the model is tried again, waiting longer each time.
const ATTEMPTS: u32 = 6;

/// What is to be encoded.
pub(super) struct Job {
    pub(super) content: Arc<Content>,
    pub(super) names: Arc<[Arc<str>]>,
    pub(super) model: ModelHandle,
    /// Labels that are done.
    pub(super) progress: Arc<AtomicUsize>,
    /// Where directions are kept, if anywhere.
    pub(super) file: Option<PathBuf>,
    /// [`Definition::texts_key`].
    pub(super) key: String,
    /// Room for [`room`].
    pub(super) charge: Charge,
}

/// Bytes that encoding a set takes at most: the texts that are in the engine, the directions and their packed form, and
/// several of both where they are fitted to examples. `template` is the model's own.
pub(super) fn room(content: &Content, template: &str, width: usize) -> usize {
    let definition = &content.definition;
    let texts = definition.longest_text(&definition.templates(template)).saturating_mul(WINDOW + 1);
    let rows = definition.labels.0.len().saturating_mul(width).saturating_mul(size_of::<f32>());
    rows.saturating_mul(if content.examples.is_some() { 7 } else { 2 }).saturating_add(texts)
}

/// Encodes a set.
///
/// # Errors
/// Why it cannot be, in words.
pub(super) async fn run(job: Job) -> Result<Ready, String> {
    let Job { content, names, model, progress, file, key, mut charge } = job;
    let info = model.info();
    let (width, space) = (info.embedding_dim, info.fingerprint.clone());
    let log_key = RowsKey { texts: key.clone(), space: space.clone(), labels: names.len(), width };
    let mut sink = Sink::open(file, log_key).await;
    progress.store(sink.rows.len() / width, Ordering::Release);
    let mut attempt = 0;
    loop {
        let before = sink.rows.len();
        match encode(&content.definition, &model, width, &progress, &mut sink).await {
            Ok(()) => break,
            Err(Stop::For(reason)) => return Err(reason),
            Err(Stop::Fault(reason)) if attempt == ATTEMPTS => return Err(reason),
            Err(Stop::Fault(reason)) => {
                attempt = if sink.rows.len() > before { 1 } else { attempt + 1 };
                tracing::warn!(
                    model = model.name(),
                    reason,
                    "a label set could not be encoded; it is tried again"
                );
                tokio::time::sleep(Duration::from_millis(250 << attempt)).await;
            }
        }
    }
    let rows = std::mem::take(&mut sink.rows);
    let scores = info.logit_scale.zip(info.logit_bias).map(|(scale, bias)| Scores { scale, bias });
    let packed = tokio::task::spawn_blocking(move || {
        let set = LabelSet::of_directions(names, &rows, space.into()).map_err(|error| error.to_string())?;
        drop(rows);
        let bytes = set.len() * set.width() * size_of::<f32>();
        let own = charge.split(bytes);
        let text = Arc::new(Directions { set: Arc::new(set), key, _charge: own });
        combine(&content, text, scores, charge)
    });
    packed.await.unwrap_or_else(|error| Err(error.to_string()))
}

/// A version out of the directions of its texts: they themselves, or fitted to its examples where those are of the same space.
/// `charge` has room for the fitting.
///
/// # Errors
/// If the examples do not fit, in words.
pub(super) fn combine(
    content: &Content,
    text: Arc<Directions>,
    scores: Option<Scores>,
    mut charge: Charge,
) -> Result<Ready, String> {
    let examples = content.examples.as_ref().filter(|examples| **examples.space() == **text.set.space());
    let (Some(examples), Some(scores)) = (examples, scores) else {
        return Ok(Ready {
            set: Arc::clone(&text.set),
            text: Some(text),
            fit: None,
            _charge: None,
            levels: LevelsCache::default(),
        });
    };
    let close_gap = content.definition.close_modality_gap == Some(true);
    let fitted = fit(&text.set, examples, scores, close_gap).map_err(|error| error.to_string())?;
    let report = FitReport::of(&fitted);
    let bytes = fitted.set.len() * fitted.set.width() * size_of::<f32>();
    charge.shrink(charge.bytes().saturating_sub(bytes));
    Ok(Ready {
        set: Arc::new(fitted.set),
        text: Some(text),
        fit: Some(report),
        _charge: Some(charge),
        levels: LevelsCache::default(),
    })
}

/// Why encoding ended before its end.
enum Stop {
    /// For good: a text cannot be used, the model is gone, or the service stops.
    For(String),
    /// The model failed: it may work again.
    Fault(String),
}

/// Encodes what is not in `sink` yet.
async fn encode(
    definition: &Definition,
    model: &ModelHandle,
    width: usize,
    progress: &AtomicUsize,
    sink: &mut Sink,
) -> Result<(), Stop> {
    let (first, all) = (sink.rows.len() / width, definition.labels.0.len());
    let templates = definition.templates(&model.info().template);
    let mut next = (first, 0);
    let texts = std::iter::from_fn(move || {
        let (label, i) = next;
        let (text, is_last) = definition.text(label, i, &templates)?;
        next = if is_last { (label + 1, 0) } else { (label, i + 1) };
        Some(((label, is_last), Ok(Input::Text(text))))
    });
    let options = EmbedOptions {
        canonicalization: definition.canonicalization,
        class: Class::Background,
        when_full: WhenFull::Wait,
        // A hundred thousand texts that are asked for once would push out those that clients ask for.
        transient: true,
        ..EmbedOptions::default()
    };
    let inputs = stream::iter(texts);
    let results = model.clone().embed_stream::<_, WorkError>(inputs, options, Order::AsSent, WINDOW);
    let mut results = pin!(results);
    let mut sum = vec![0.0; width];
    while let Some(((label, is_last), result)) = results.next().await {
        let name = || quoted(&definition.labels.0[label].name);
        let Embedding { vector, .. } = result.map_err(|error| stop(error, label, &name()))?;
        if vector.len() != width {
            return Err(Stop::For(format!("an embedding of width {} for {width}", vector.len())));
        }
        // Each text counts alike, whatever its length.
        let mut unit = vector.to_vec();
        l2_normalize(&mut unit);
        sum.iter_mut().zip(&unit).for_each(|(sum, x)| *sum += x);
        if !is_last {
            continue;
        }
        l2_normalize(&mut sum);
        let is_unit = (sum.iter().map(|x| x * x).sum::<f32>() - 1.0).abs() <= 1e-3;
        if !is_unit {
            return Err(Stop::For(format!("labels[{label}] ({}) has texts without a direction", name())));
        }
        sink.push(&sum, label + 1 == all).await;
        sum.fill(0.0);
        progress.store(label + 1, Ordering::Release);
    }
    Ok(())
}

fn stop(error: WorkError, label: usize, name: &str) -> Stop {
    let text = format!("labels[{label}] ({name}): {error}");
    match error {
        WorkError::Engine(
            EngineError::Worker(_) | EngineError::Deadline(_) | EngineError::Overloaded { .. },
        )
        | WorkError::Model(crate::Error::Compute(_) | crate::Error::Io { .. }) => Stop::Fault(text),
        _ => Stop::For(text),
    }
}

/// Where directions go: into memory, and to the disk in pieces.
struct Sink {
    rows: Vec<f32>,
    /// Values that are on the disk.
    written: usize,
    width: usize,
    log: Option<RowsLog>,
}

impl Sink {
    async fn open(file: Option<PathBuf>, key: RowsKey) -> Self {
        let (width, all) = (key.width, key.labels * key.width);
        let opened = match file {
            None => None,
            Some(file) => {
                let opened = tokio::task::spawn_blocking(move || RowsLog::open(&file, &key)).await;
                match opened.unwrap_or_else(|error| Err(std::io::Error::other(error))) {
                    Ok(opened) => Some(opened),
                    Err(error) => {
                        tracing::error!(%error, "directions cannot be kept on disk: they are encoded again at the next start");
                        None
                    }
                }
            }
        };
        let (log, mut rows) = opened.map_or((None, Vec::new()), |(log, rows)| (Some(log), rows));
        rows.reserve_exact(all.saturating_sub(rows.len()));
        Self { written: rows.len(), rows, width, log }
    }

    async fn push(&mut self, row: &[f32], is_last: bool) {
        self.rows.extend_from_slice(row);
        let waiting = self.rows.len() - self.written;
        if waiting < PIECE * self.width && !is_last {
            return;
        }
        let Some(mut log) = self.log.take() else { return };
        let piece = self.rows[self.written..].to_vec();
        self.written = self.rows.len();
        let appended = tokio::task::spawn_blocking(move || log.append(&piece).map(|()| log)).await;
        match appended.unwrap_or_else(|error| Err(std::io::Error::other(error))) {
            Ok(log) => self.log = Some(log),
            Err(error) => tracing::error!(%error, "directions cannot be kept on disk any more"),
        }
    }
}
