//! A folder of shards.

use std::process::ExitCode;

use crate::bulk::containers::ContainerOptions;
use crate::bulk::frames::{Frames, can_read_videos};
use crate::bulk::inputs::{FileEntry, FindOptions, Found, Videos, find};
use crate::bulk::shards::{self, Report, ShardOptions, Store, Watch};
use crate::bulk::worker::Wanted;
use crate::bulk::{Fault, FaultKind};
use crate::commands::SKIPPED;
use crate::commands::progress::Progress;
use crate::commands::session::{self, INTERRUPTED, Interrupt};
use crate::config::{EmbedArgs, FindArgs};

pub(super) fn run(args: &EmbedArgs) -> ExitCode {
    match embed(args) {
        Ok(code) => code,
        Err(fault) => {
            eprintln!("error: {fault}");
            ExitCode::from(fault.kind.exit_code())
        }
    }
}

fn embed(args: &EmbedArgs) -> Result<ExitCode, Fault> {
    let usage = |text: &str| Err(Fault::new(FaultKind::Usage, text));
    if !args.texts.is_empty() || !args.token_ids.is_empty() {
        return usage("--text and --token-ids go into one file; for a folder give --texts FILE");
    }
    if args.skip > 0 {
        return usage("--skip is for one file: into a folder the same command goes on by itself");
    }
    if args.inputs.is_empty() && args.text_files.is_empty() {
        return usage("nothing to embed: give files, folders, - or @FILE for a list, or --texts");
    }
    args.model.chosen().map_err(|error| Fault::new(FaultKind::Usage, error.to_string()))?;
    let videos = match args.frames {
        None => Videos::LeftOut,
        Some(_) if can_read_videos() => Videos::Taken,
        Some(_) => Videos::NoProgram,
    };
    let Found { mut files, left_out } = find(&args.inputs, &FindOptions { videos, ..args.find.options() })?;
    for file in &args.text_files {
        files.push(FileEntry::texts(file)?);
    }
    left_out.lines().iter().for_each(|line| eprintln!("{line}"));
    if files.is_empty() {
        return usage("there is nothing to embed in what was given");
    }
    // Before the model is loaded: two runs of a timer should find each other at once.
    let store = Store::open(&args.output, args.shard)?;
    let session = session::start_or_fault(&args.model, args.work.max_batch_tokens)?;
    let options = ShardOptions {
        rows: args.shard_rows,
        format: args.format,
        verify: args.verify,
        prune: args.prune,
        retry_bad: args.retry_bad,
        normalize: !args.work.no_normalize,
        max_num_patches: args.work.max_num_patches,
        containers: ContainerOptions {
            wanted: Wanted { name: args.column.clone(), kind: None },
            names: args.name_column.clone(),
            max_bytes: session.max_bytes(),
            frames: args.frames.map(|count| Frames::new(count, session.image_limits())),
        },
    };
    let mut shown = Shown { progress: None };
    let report = session.block_on(async {
        let mut interrupt =
            Interrupt::listen().map_err(|error| Fault::new(FaultKind::Temporary, error.to_string()))?;
        shards::run(&session, store, files, &options, &mut shown, interrupt.wait()).await
    });
    if let Some(progress) = &shown.progress {
        progress.finish();
    }
    let report = report?;
    Ok(told(args, &report, left_out.failed()))
}

impl FindArgs {
    /// For the search.
    pub(in crate::commands) fn options(&self) -> FindOptions {
        let (exclude, videos) = (self.exclude.clone(), Videos::default());
        FindOptions { follow: self.follow, exclude, null: self.null, videos }
    }
}

/// Says what became of the run.
fn told(args: &EmbedArgs, report: &Report, missing: usize) -> ExitCode {
    let Report { shards, rows, all_rows, all_bad, failed, gone, interrupted } = *report;
    let output = args.output.display();
    eprintln!("{rows} rows in {shards} new shards → {output}; {all_rows} rows in all, {all_bad} of them bad");
    if gone > 0 {
        eprintln!("{gone} rows are of files that are no longer there (--prune)");
    }
    if failed > 0 {
        eprintln!("{failed} files could not be read to their end and have no shard");
    }
    if interrupted {
        eprintln!("interrupted: the same command goes on");
        return ExitCode::from(INTERRUPTED);
    }
    match all_bad + failed + missing {
        0 => ExitCode::SUCCESS,
        _ => ExitCode::from(SKIPPED),
    }
}

struct Shown {
    progress: Option<Progress>,
}

impl Watch for Shown {
    fn planned(&mut self, rows: Option<usize>, done_shards: usize, done_rows: usize) {
        if done_shards > 0 {
            eprintln!("{done_rows} rows in {done_shards} shards are done already");
        }
        self.progress = Some(Progress::new(rows.unwrap_or(0)));
    }

    fn advance(&mut self) {
        if let Some(progress) = &mut self.progress {
            progress.advance();
        }
    }

    fn note(&mut self, text: &str) {
        match &self.progress {
            Some(progress) => progress.note(text),
            None => eprintln!("{text}"),
        }
    }
}
