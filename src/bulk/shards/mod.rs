//! Embeddings as a folder of shards that a run can be killed in and gone on with, on several machines at once.
//!
//! The unit of work is a shard: [`plan`] compares the files that are there with the rows that are done and cuts the rest;
//! [`feed`] reads the inputs, [`rows`] writes a shard under a hidden name and moves it into its place when it is on the disk;
//! a line in the [`manifest`] says that it is done. Files without a line do not count, and are removed by the next run.
//! [`store`] says who may write. So a process may be killed at any moment: what it was making is made again.

mod feed;
mod manifest;
mod plan;
mod rows;
mod store;

use std::collections::VecDeque;
use std::pin::pin;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use futures::StreamExt;

use self::feed::{InputError, RowOf, Tag};
use self::plan::{Cut, Shard};
use self::rows::{Row, ShardWriter};
use super::containers::ContainerOptions;
use super::facts::facts;
use super::fault::{Fault, Kind};
use super::frames::Frames;
use super::inputs::FileEntry;
use super::session::{Failures, Session};
use crate::engine::Embedding;
use crate::model::scores::l2_normalize;

pub use manifest::Record;
pub use rows::ShardFormat;
pub use store::{Part, Space, Store, contents};

/// Lines about rows at most: a million captions may all be long.
const NOTES: usize = 100;

/// What is done, and how.
#[derive(Debug, Clone)]
pub struct ShardOptions {
    /// Files of a shard, where they are not rows of one file.
    pub rows: usize,
    /// How shards are written.
    pub format: ShardFormat,
    /// Whether every file that is done is read and compared with its digest.
    pub verify: bool,
    /// Whether shards with rows of files that are gone are made again without them.
    pub prune: bool,
    /// Whether shards with rows that are errors are made again.
    pub retry_bad: bool,
    /// Whether vectors have the length 1.
    pub normalize: bool,
    /// Patch budget of each picture, NaFlex only.
    pub max_num_patches: Option<usize>,
    /// What is taken out of tables.
    pub containers: ContainerOptions,
}

/// Who is told how far it is.
pub trait Watch {
    /// What is there at the beginning: inputs to be done, where their number is known, and what is done already.
    fn planned(&mut self, rows: Option<usize>, done_shards: usize, done_rows: usize);
    /// One more input.
    fn advance(&mut self);
    /// A line for the user.
    fn note(&mut self, text: &str);
}

/// What became of a run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Report {
    /// Shards that were made.
    pub shards: usize,
    /// Their rows, with those that are errors.
    pub rows: usize,
    /// Rows of all shards of this part.
    pub all_rows: usize,
    /// Rows of all shards of this part that are errors.
    pub all_bad: usize,
    /// Files of many inputs that could not be read to their end, and have no shard.
    pub failed: usize,
    /// Rows of files that are no longer there.
    pub gone: usize,
    /// Whether it ended before everything was done.
    pub interrupted: bool,
}

/// Makes the shards that are not there yet. `interrupt` ends it between two inputs.
///
/// # Errors
/// If the folder is of another model, cannot be written, or the model fails.
pub async fn run(
    session: &Session,
    mut store: Store,
    files: Vec<FileEntry>,
    options: &ShardOptions,
    watch: &mut dyn Watch,
    interrupt: impl Future<Output = ()>,
) -> Result<Report, Fault> {
    let info = session.info();
    let space = Space {
        fingerprint: info.fingerprint_with(None, options.max_num_patches),
        model: info.name.clone(),
        dimensions: info.embedding_dim,
        normalized: options.normalize,
        format: options.format.name().to_owned(),
        frames: options.containers.frames.as_ref().map(Frames::count),
    };
    for shard in store.settle(&space, options.verify)? {
        watch.note(&format!("{shard}: not as the manifest says; it is made again"));
    }
    let ShardOptions { rows, format, prune, retry_bad, .. } = *options;
    let plan = plan::plan(&store, files, Cut { rows, format, prune, retry_bad })?;
    for record in &plan.outdated {
        store.void(record)?;
    }
    let known = plan.shards.iter().all(|shard| shard.source.is_none());
    let total = plan.shards.iter().map(|shard| shard.files.len()).sum();
    watch.planned(known.then_some(total), plan.done, plan.done_rows);
    let shards: Vec<Arc<Shard>> = plan.shards.into_iter().map(Arc::new).collect();
    let mut job = Job {
        space,
        facts: facts(info, options.max_num_patches, options.normalize),
        options,
        store,
        left: shards.iter().cloned().collect(),
        writer: None,
        failures: Failures::default(),
        run: uuid::Uuid::new_v4().to_string(),
        noted: 0,
        report: Report { gone: plan.gone, ..Report::default() },
    };
    let inputs = feed::feed(shards, options.containers.clone());
    let mut results = pin!(session.embed(inputs, (options.max_num_patches, None)));
    let mut interrupt = pin!(interrupt);
    loop {
        let next = tokio::select! {
            biased;
            () = &mut interrupt => {
                job.report.interrupted = true;
                break;
            }
            next = results.next() => next,
        };
        match next {
            None => break,
            Some((Tag::Row(row), result)) => {
                job.row(row, result, watch)?;
                watch.advance();
            }
            Some((Tag::End(result), _)) => job.end(result, watch)?,
        }
    }
    let all = job.store.own().fold((0, 0), |(rows, bad), record| (rows + record.rows, bad + record.bad));
    (job.report.all_rows, job.report.all_bad) = all;
    Ok(job.report)
}

/// Shards in the making.
struct Job<'a> {
    space: Space,
    facts: Vec<(String, String)>,
    options: &'a ShardOptions,
    store: Store,
    /// The present shard and those after it.
    left: VecDeque<Arc<Shard>>,
    writer: Option<ShardWriter>,
    failures: Failures,
    run: String,
    /// Lines about rows.
    noted: usize,
    report: Report,
}

impl Job<'_> {
    fn writer(&mut self) -> Result<&mut ShardWriter, Fault> {
        let shard = self.left.front().ok_or_else(|| Fault::usage("a row of no shard"))?;
        let writer = match self.writer.take() {
            Some(writer) => writer,
            None => {
                let (root, width) = (self.store.root(), self.space.dimensions);
                ShardWriter::create(root, &shard.name, self.options.format, width, &self.facts)?
            }
        };
        Ok(self.writer.insert(writer))
    }

    fn row(
        &mut self,
        row: RowOf,
        result: Result<Embedding, InputError>,
        watch: &mut dyn Watch,
    ) -> Result<(), Fault> {
        let result = match result {
            Ok(embedding) => {
                self.failures.end();
                if embedding.truncated {
                    self.note(
                        &format!("note: {} is longer than the context and was cut", short(&row.name)),
                        watch,
                    );
                }
                let mut vector = embedding.vector.to_vec();
                if self.options.normalize {
                    l2_normalize(&mut vector);
                }
                Ok(vector)
            }
            Err(InputError::Work(error)) if self.failures.count(&error) => {
                return Err(Fault::new(Kind::Model, format!("the model fails: {error}")));
            }
            Err(InputError::Work(error)) => Err(error.to_string()),
            Err(InputError::Input(error)) => Err(error),
            Err(InputError::Mark) => return Ok(()),
        };
        if let Err(error) = &result {
            self.note(&format!("bad: {}: {error}", short(&row.name)), watch);
        }
        let RowOf { name, kind, time, size, mtime, sha256 } = row;
        self.writer()?.write(Row { name, kind, time, size, mtime, sha256, result })
    }

    /// A line about a row, as long as there are few.
    fn note(&mut self, text: &str, watch: &mut dyn Watch) {
        self.noted += 1;
        if self.noted <= NOTES {
            watch.note(text);
        } else if self.noted == NOTES + 1 {
            watch.note("more such rows are only counted");
        }
    }

    fn end(&mut self, result: Result<(), Fault>, watch: &mut dyn Watch) -> Result<(), Fault> {
        if let Err(fault) = result {
            // It may be there later, and then it is to have its shard.
            if fault.kind == Kind::Temporary {
                return Err(fault);
            }
            watch.note(&format!("skipped {fault}"));
            self.report.failed += 1;
            self.writer = None;
            self.left.pop_front();
            return Ok(());
        }
        // A file without inputs is done, too.
        self.writer()?;
        let (Some(writer), Some(shard)) = (self.writer.take(), self.left.pop_front()) else { return Ok(()) };
        let (rows, bad) = (writer.rows, writer.bad);
        let files = writer.finish()?;
        self.store.add(Record {
            shard: shard.name.clone(),
            source: shard.source.clone(),
            input: shard.input.clone(),
            rows,
            bad,
            fingerprint: self.space.fingerprint.clone(),
            model: self.space.model.clone(),
            run: self.run.clone(),
            finished: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs()),
            files,
        })?;
        self.report.shards += 1;
        self.report.rows += rows;
        Ok(())
    }
}

/// The beginning of a name: a text is its own.
fn short(name: &str) -> String {
    let end = name.floor_char_boundary(80);
    if end < name.len() { format!("{:?}…", &name[..end]) } else { name.to_owned() }
}
