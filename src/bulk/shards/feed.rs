//! The inputs of shards, one after the other: files are read ahead by several threads, files of many inputs by one.

use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;

use futures::stream::{self, Stream, StreamExt};
use sha2::{Digest, Sha256};
use tokio::sync::mpsc;

use super::plan::Shard;
use crate::bulk::containers::{self, Contained, ContainerOptions, Origin};
use crate::bulk::fault::{Fault, Kind};
use crate::bulk::files::{self, hex};
use crate::bulk::frames::Frames;
use crate::bulk::inputs::{Content, FileEntry, ReadError};
use crate::bulk::session::READERS;
use crate::engine::{EngineError, Input, WorkError};

/// Inputs of a file of many that are read ahead.
const AHEAD: usize = 16;

/// What an input came with.
pub(super) enum Tag {
    Row(RowOf),
    /// The end of a shard, and what was wrong with its file.
    End(Result<(), Fault>),
}

/// What is known of an input before it is embedded.
pub(super) struct RowOf {
    pub(super) name: String,
    pub(super) kind: &'static str,
    pub(super) time: Option<f64>,
    pub(super) size: u64,
    pub(super) mtime: Option<i64>,
    pub(super) sha256: Option<String>,
}

/// Why an input has no embedding.
pub(super) enum InputError {
    /// It cannot be read.
    Input(String),
    Work(WorkError),
    /// It is no input but the end of a shard.
    Mark,
}

impl From<WorkError> for InputError {
    fn from(error: WorkError) -> Self {
        Self::Work(error)
    }
}

impl From<EngineError> for InputError {
    fn from(error: EngineError) -> Self {
        Self::Work(error.into())
    }
}

type Fed = (Tag, Result<Input, InputError>);

/// The inputs of every shard, each shard followed by its end.
pub(super) fn feed(shards: Vec<Arc<Shard>>, options: ContainerOptions) -> impl Stream<Item = Fed> {
    let options = Arc::new(options);
    stream::iter(shards).flat_map(move |shard| {
        let options = Arc::clone(&options);
        match shard.source {
            Some(_) => whole(shard, options).left_stream(),
            None => loose(shard, options).right_stream(),
        }
    })
}

fn end(result: Result<(), Fault>) -> Fed {
    (Tag::End(result), Err(InputError::Mark))
}

fn loose(shard: Arc<Shard>, options: Arc<ContainerOptions>) -> impl Stream<Item = Fed> {
    let max_bytes = options.max_bytes;
    let files = stream::iter((0..shard.files.len()).collect::<Vec<_>>()).map(move |i| {
        let file = shard.files[i].clone();
        async move {
            let read = tokio::task::spawn_blocking(move || read(file, max_bytes)).await;
            read.unwrap_or_else(|error| Read::Fed(end(Err(Fault::new(Kind::Temporary, error.to_string())))))
        }
    });
    let rows = files.buffered(READERS).flat_map(move |read| match (read, &options.frames) {
        (Read::Fed((Tag::Row(row), Ok(input))), Some(frames)) => moving(row, input, frames.clone()).boxed(),
        (Read::Fed(fed), _) => stream::iter([fed]).boxed(),
        (Read::Video(row, path), Some(frames)) => of_video(row, path, frames.clone()).boxed(),
        (Read::Video(row, _), None) => {
            stream::iter([(Tag::Row(row), Err(InputError::Input("a video (--frames)".to_owned())))]).boxed()
        }
    });
    rows.chain(stream::once(async { end(Ok(())) }))
}

/// A file that was read.
enum Read {
    Fed(Fed),
    Video(RowOf, PathBuf),
}

/// A picture, with what the system says of the file that was read: another than was listed if it has changed since.
fn read(file: FileEntry, max_bytes: usize) -> Read {
    let (size, mtime) = (file.size, Some(file.mtime));
    let mut row = RowOf { name: String::new(), kind: "image", time: None, size, mtime, sha256: None };
    if file.content == Content::Video {
        row.name = file.name;
        return match files::digest(&file.path) {
            Ok((size, sha256)) => {
                (row.size, row.sha256) = (size, Some(sha256));
                Read::Video(row, file.path)
            }
            Err(error) => Read::Fed((Tag::Row(row), Err(InputError::Input(error.to_string())))),
        };
    }
    let read = file.read(max_bytes);
    row.name = file.name;
    Read::Fed(match read {
        Ok((bytes, size, mtime)) => {
            row.size = size;
            row.mtime = Some(mtime);
            row.sha256 = Some(hex(Sha256::digest(&bytes)));
            (Tag::Row(row), Ok(Input::Image(bytes)))
        }
        Err(ReadError::Input(error)) => (Tag::Row(row), Err(InputError::Input(error))),
        Err(ReadError::Fault(fault)) => end(Err(fault)),
    })
}

/// The frames of a picture, if it moves.
fn moving(row: RowOf, input: Input, frames: Frames) -> impl Stream<Item = Fed> {
    let origin = Origin { size: row.size, sha256: row.sha256.clone() };
    let contained = Contained { name: row.name.clone(), time: None, origin: Some(origin), input: Ok(input) };
    threaded(move |each| {
        let mtime = row.mtime;
        let _ = frames.split(contained, &mut |contained| each(fed(contained, mtime)));
        None
    })
}

fn of_video(row: RowOf, path: PathBuf, frames: Frames) -> impl Stream<Item = Fed> {
    threaded(move |each| {
        let origin = Origin { size: row.size, sha256: row.sha256 };
        let _ = frames.of_video(&path, &row.name, &origin, &mut |contained| each(fed(contained, row.mtime)));
        None
    })
}

fn whole(shard: Arc<Shard>, options: Arc<ContainerOptions>) -> impl Stream<Item = Fed> {
    threaded(move |each| {
        let texts = shard.files.first().is_some_and(|file| file.content == Content::Texts);
        let mut each = |contained| each(row(contained, texts));
        Some(end(shard.files.iter().try_for_each(|file| containers::read(file, &options, &mut each))))
    })
}

/// What a thread of its own gives, and what it ends with.
fn threaded(
    run: impl FnOnce(&mut dyn FnMut(Fed) -> ControlFlow<()>) -> Option<Fed> + Send + 'static,
) -> impl Stream<Item = Fed> {
    let (sender, rows) = mpsc::channel(AHEAD);
    let read = move || {
        let last = run(&mut |fed| match sender.blocking_send(fed) {
            Ok(()) => ControlFlow::Continue(()),
            Err(_) => ControlFlow::Break(()),
        });
        if let Some(last) = last {
            let _ = sender.blocking_send(last);
        }
    };
    // Without a thread there is no end of the shard, and it does not become one.
    let spawned = std::thread::Builder::new().name("read".to_owned()).spawn(read);
    let failed = spawned.err().map(|error| end(Err(Fault::new(Kind::Temporary, error.to_string()))));
    let rows = stream::unfold(rows, |mut rows| async move { Some((rows.recv().await?, rows)) });
    rows.chain(stream::iter(failed))
}

fn row(contained: Contained, texts: bool) -> Fed {
    let (kind, size, sha256) = match (&contained.input, &contained.origin) {
        (_, Some(Origin { size, sha256 })) => ("image", *size, sha256.clone()),
        (Ok(Input::Image(bytes)), _) => ("image", bytes.len() as u64, Some(hex(Sha256::digest(bytes)))),
        (Ok(Input::Text(text)), _) => ("text", text.len() as u64, Some(hex(Sha256::digest(text)))),
        (Ok(Input::TokenIds(_)), _) => ("text", 0, None),
        (Err(_), _) => (if texts { "text" } else { "image" }, 0, None),
    };
    let Contained { name, time, input, .. } = contained;
    let row = RowOf { name, kind, time, size, mtime: None, sha256 };
    (Tag::Row(row), input.map_err(InputError::Input))
}

/// A row of a loose file.
fn fed(contained: Contained, mtime: Option<i64>) -> Fed {
    let (tag, input) = row(contained, false);
    match tag {
        Tag::Row(row) => (Tag::Row(RowOf { mtime, ..row }), input),
        tag => (tag, input),
    }
}
