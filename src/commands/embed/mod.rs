//! `siglip embed`: images and texts into a file of embeddings.

mod inputs;
mod output;

use std::pin::pin;
use std::process::ExitCode;

use futures::StreamExt;

use self::inputs::Row;
use self::output::Output;
use super::SKIPPED;
use super::error::{CommandError, Result, failed};
use super::progress::Progress;
use super::session::{self, INTERRUPTED, Interrupt};
use crate::bulk::Session;
use crate::config::EmbedArgs;
use crate::engine::{Embedding, WorkError};
use crate::model::scores::l2_normalize;

pub(super) use inputs::{find as find_images, read as read_file};

/// After the model failed on so many inputs, one after the other, it is broken and not they.
const MAX_FAILURES: usize = 32;

pub(super) fn run(args: EmbedArgs) -> Result<ExitCode> {
    let format = output::Format::of(&args.output)?;
    let mut rows = inputs::list(&args)?;
    let total = rows.len();
    if args.skip > 0 && args.skip >= total {
        return Err(failed(format!("--skip {}: there are only {total} inputs", args.skip)));
    }
    rows.drain(..args.skip);

    let bulk = session::start(&args.model, args.work.max_batch_tokens)?;
    let info = bulk.model().info();
    inputs::check(&rows, info)?;
    let mut job = Job {
        output: Output::create(&args.output, format, info.embedding_dim)?,
        progress: Progress::new(rows.len()),
        normalize: !args.work.no_normalize,
        skipped: 0,
        failures: 0,
    };
    let end = bulk.block_on(job.run(&bulk, rows, args.work.max_num_patches))?;
    job.finish(&end, &args, total, &bulk)
}

/// Why no more inputs are embedded.
enum End {
    Finished,
    Interrupted,
    /// The model fails on every input.
    Broken(CommandError),
}

/// A file of embeddings in the making.
struct Job {
    output: Output,
    progress: Progress,
    normalize: bool,
    skipped: usize,
    /// Inputs in a row on which the model failed.
    failures: usize,
}

impl Job {
    async fn run(&mut self, bulk: &Session, rows: Vec<Row>, max_num_patches: Option<usize>) -> Result<End> {
        let mut interrupt = Interrupt::listen()?;
        let inputs = rows.into_iter().map(|row| ((row.kind, row.name), row.source)).collect();
        let mut results = pin!(session::embed(bulk, inputs, max_num_patches));
        loop {
            let next = tokio::select! {
                biased;
                () = interrupt.wait() => return Ok(End::Interrupted),
                next = results.next() => next,
            };
            let Some(((kind, name), result)) = next else { return Ok(End::Finished) };
            match result {
                Ok(embedding) => {
                    self.failures = 0;
                    if embedding.truncated {
                        self.progress.note(&format!("note: {name:?} is longer than the context and was cut"));
                    }
                    self.output.write(kind, &name, self.vector(&embedding))?;
                }
                Err(error) => {
                    self.skipped += 1;
                    self.failures = if is_of_the_model(&error) { self.failures + 1 } else { 0 };
                    self.progress.note(&format!("skipped {name}: {error}"));
                    if self.failures == MAX_FAILURES {
                        self.progress.advance();
                        return Ok(End::Broken(error));
                    }
                }
            }
            self.progress.advance();
        }
    }

    fn vector(&self, embedding: &Embedding) -> Vec<f32> {
        let mut vector = embedding.vector.to_vec();
        if self.normalize {
            l2_normalize(&mut vector);
        }
        vector
    }

    /// Puts the file into its place and says what is in it.
    fn finish(self, end: &End, args: &EmbedArgs, total: usize, bulk: &Session) -> Result<ExitCode> {
        self.progress.finish();
        // What the broken model failed on is to be done again.
        let done = self.progress.done() - if matches!(end, End::Broken(_)) { self.failures } else { 0 };
        let (rows, skipped) = (self.output.rows(), self.skipped);
        if rows == 0 {
            return match end {
                End::Finished => {
                    Err(failed(format!("none of the {skipped} inputs could be used; nothing was written")))
                }
                End::Broken(error) => Err(failed(format!("the model fails: {error}; nothing was written"))),
                End::Interrupted => {
                    eprintln!("interrupted before the first input was done; nothing was written");
                    Ok(ExitCode::from(INTERRUPTED))
                }
            };
        }
        let written = self.output.finish()?;
        let info = bulk.model().info();
        eprintln!(
            "{rows} embeddings of width {} by {} → {}",
            info.embedding_dim,
            info.name,
            written.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", "),
        );
        let go_on = || {
            format!(
                "{} of {total} inputs are done; for the others give the same command --skip {} and another --output",
                args.skip + done,
                args.skip + done
            )
        };
        if skipped > 0 {
            eprintln!("{skipped} inputs were skipped");
        }
        Ok(match end {
            End::Interrupted => {
                eprintln!("interrupted: {}", go_on());
                ExitCode::from(INTERRUPTED)
            }
            End::Broken(error) => {
                eprintln!("stopped, since the model fails ({error}): {}", go_on());
                ExitCode::from(SKIPPED)
            }
            End::Finished if skipped > 0 => ExitCode::from(SKIPPED),
            End::Finished => ExitCode::SUCCESS,
        })
    }
}

/// Whether an input failed for a reason that the next one may share.
fn is_of_the_model(error: &CommandError) -> bool {
    match error {
        CommandError::Work(WorkError::Model(error)) => matches!(error, crate::Error::Compute(_)),
        CommandError::Work(WorkError::Engine(_)) | CommandError::Engine(_) => true,
        _ => false,
    }
}
