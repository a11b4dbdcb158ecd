//! The inputs of shards, one after the other: files are read ahead by several threads, files of many inputs by one.

use std::ops::ControlFlow;
use std::sync::Arc;

use futures::stream::{self, Stream, StreamExt};
use sha2::{Digest, Sha256};
use tokio::sync::mpsc;

use super::plan::Shard;
use crate::bulk::containers::{self, Contained, ContainerOptions};
use crate::bulk::fault::{Fault, Kind};
use crate::bulk::files::{self, hex};
use crate::bulk::inputs::{Content, FileEntry, mtime_of};
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
    let rows = stream::iter((0..shard.files.len()).collect::<Vec<_>>()).map(move |i| {
        let (file, max_bytes) = (shard.files[i].clone(), options.max_bytes);
        async move {
            let read = tokio::task::spawn_blocking(move || read(file, max_bytes)).await;
            read.unwrap_or_else(|error| end(Err(Fault::new(Kind::Temporary, error.to_string()))))
        }
    });
    rows.buffered(READERS).chain(stream::once(async { end(Ok(())) }))
}

/// A picture, with what the system says of the file that was read: another than was listed if it has changed since.
fn read(file: FileEntry, max_bytes: usize) -> Fed {
    let mut row =
        RowOf { name: file.name, kind: "image", size: file.size, mtime: Some(file.mtime), sha256: None };
    match files::read(&file.path, max_bytes) {
        Ok((bytes, metadata)) => {
            row.size = metadata.len();
            row.mtime = Some(mtime_of(&metadata));
            row.sha256 = Some(hex(Sha256::digest(&bytes)));
            (Tag::Row(row), Ok(Input::Image(bytes.into())))
        }
        Err(error) => (Tag::Row(row), Err(InputError::Input(error.to_string()))),
    }
}

fn whole(shard: Arc<Shard>, options: Arc<ContainerOptions>) -> impl Stream<Item = Fed> {
    let (sender, rows) = mpsc::channel(AHEAD);
    let read = move || {
        let texts = shard.files.first().is_some_and(|file| file.content == Content::Texts);
        let result = shard.files.iter().try_for_each(|file| {
            containers::read(file, &options, &mut |contained| match sender
                .blocking_send(row(contained, texts))
            {
                Ok(()) => ControlFlow::Continue(()),
                Err(_) => ControlFlow::Break(()),
            })
        });
        let _ = sender.blocking_send(end(result));
    };
    // Without a thread there is no end of the shard, and it does not become one.
    let spawned = std::thread::Builder::new().name("read".to_owned()).spawn(read);
    let failed = spawned.err().map(|error| end(Err(Fault::new(Kind::Temporary, error.to_string()))));
    let rows = stream::unfold(rows, |mut rows| async move { Some((rows.recv().await?, rows)) });
    rows.chain(stream::iter(failed))
}

fn row(Contained { name, input }: Contained, texts: bool) -> Fed {
    let (kind, size, sha256) = match &input {
        Ok(Input::Image(bytes)) => ("image", bytes.len() as u64, Some(hex(Sha256::digest(bytes)))),
        Ok(Input::Text(text)) => ("text", text.len() as u64, Some(hex(Sha256::digest(text)))),
        Ok(Input::TokenIds(_)) => ("text", 0, None),
        Err(_) => (if texts { "text" } else { "image" }, 0, None),
    };
    (Tag::Row(RowOf { name, kind, size, mtime: None, sha256 }), input.map_err(InputError::Input))
}
