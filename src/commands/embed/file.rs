//! One file of embeddings, which is whole or not there.

use std::pin::pin;
use std::process::ExitCode;

use futures::StreamExt;

use super::inputs::{self, Row};
use super::output::{self, Output};
use crate::bulk::facts::facts;
use crate::bulk::{Failures, Session};
use crate::commands::SKIPPED;
use crate::commands::error::{CommandError, Result, failed};
use crate::commands::progress::Progress;
use crate::commands::session::{self, INTERRUPTED, Interrupt};
use crate::config::EmbedArgs;
use crate::engine::{Embedding, WorkError};
use crate::model::scores::l2_normalize;

pub(super) fn run(args: EmbedArgs) -> Result<ExitCode> {
    let format = output::Format::of(&args.output)?;
    if args.frames.is_some() {
        return Err(failed("--frames makes several rows of a file, which go into a folder: --output DIR/"));
    }
    let (mut rows, left_out) = inputs::list(&args)?;
    left_out.lines().iter().for_each(|line| eprintln!("{line}"));
    let total = rows.len();
    if args.skip > 0 && args.skip >= total {
        return Err(failed(format!("--skip {}: there are only {total} inputs", args.skip)));
    }
    rows.drain(..args.skip);

    let bulk = session::start(&args.model, args.work.max_batch_tokens)?;
    let info = bulk.model().info();
    inputs::check(&rows, info)?;
    let facts = facts(info, args.work.max_num_patches, !args.work.no_normalize);
    let mut job = Job {
        output: Output::create(&args.output, format, info.embedding_dim, &facts)?,
        progress: Progress::new(rows.len()),
        normalize: !args.work.no_normalize,
        skipped: left_out.failed(),
        failures: Failures::default(),
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
    failures: Failures,
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
                    self.failures.end();
                    if embedding.truncated {
                        self.progress.note(&format!("note: {name:?} is longer than the context and was cut"));
                    }
                    self.output.write(kind, &name, self.vector(&embedding))?;
                }
                Err(error) => {
                    self.skipped += 1;
                    let broken = self.is_broken(&error);
                    self.progress.note(&format!("skipped {name}: {error}"));
                    if broken {
                        self.progress.advance();
                        return Ok(End::Broken(error));
                    }
                }
            }
            self.progress.advance();
        }
    }

    /// Whether the model is, and not the inputs.
    fn is_broken(&mut self, error: &CommandError) -> bool {
        match error {
            CommandError::Work(error) => self.failures.count(error),
            CommandError::Engine(error) => self.failures.count(&WorkError::from(error.clone())),
            _ => {
                self.failures.end();
                false
            }
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
        let done =
            self.progress.done() - if matches!(end, End::Broken(_)) { self.failures.in_a_row() } else { 0 };
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
