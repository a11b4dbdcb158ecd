//! `siglip embed`: images and texts into a file of embeddings.

mod inputs;
mod output;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::mpsc;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use rayon::prelude::*;

use self::output::Output;
use super::SKIPPED;
use crate::config::EmbedArgs;
use crate::image::Patches;
use crate::model::scores::l2_normalize;
use crate::pipeline::Pipeline;
use crate::{Error, Result};

pub(super) use inputs::read as read_file;

/// What a row is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Image,
    Text,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Image => "image",
            Self::Text => "text",
        }
    }
}

/// Pictures of one batch, each prepared or with the reason why not.
type Prepared = Vec<(PathBuf, Result<Patches>)>;

pub(super) fn run(args: EmbedArgs) -> Result<ExitCode> {
    if args.texts.is_empty() && args.token_ids.is_empty() && args.inputs.is_empty() {
        return Err(Error::Config("nothing to embed: give --text, files, folders, or - for a list".into()));
    }
    let ids = args.token_ids.iter().map(|list| parse_ids(list)).collect::<Result<Vec<_>>>()?;
    let format = output::Format::of(&args.output)?;
    let files = inputs::find(&args.inputs)?;
    if files.is_empty() && args.texts.is_empty() && ids.is_empty() {
        return Err(Error::Config("no images were found in the folders given".into()));
    }
    let pipeline = args.model.load()?;
    if !files.is_empty() {
        pipeline.image()?;
    }
    let mut output = Output::create(&args.output, format, pipeline.info().embedding_dim)?;
    let progress = progress_bar((files.len() + args.texts.len() + ids.len()) as u64);
    let batch = usize::from(args.batch);
    let normalize = !args.no_normalize;

    let mut texts = Vec::new();
    for text in &args.texts {
        let ids = pipeline.prepare_text(text, None)?;
        if ids.truncated {
            eprintln!("note: {text:?} is longer than the context and was cut");
        }
        texts.push((text.as_str(), ids));
    }
    for (list, ids) in args.token_ids.iter().zip(&ids) {
        texts.push((list.as_str(), pipeline.prepare_ids(ids)?));
    }
    for texts in texts.chunks(batch) {
        let ids: Vec<_> = texts.iter().map(|(_, ids)| ids).collect();
        let vectors = pipeline.model().embed_texts(&ids)?;
        for ((name, _), vector) in texts.iter().zip(vectors) {
            output.write(Kind::Text, name, finish(vector, normalize))?;
        }
        progress.inc(texts.len() as u64);
    }

    let mut skipped = 0u64;
    // One batch is prepared while another runs, and no more are held.
    let (sender, receiver) = mpsc::sync_channel::<Prepared>(1);
    std::thread::scope(|scope| -> Result<()> {
        let (pipeline, files) = (&pipeline, &files);
        scope.spawn(move || {
            for files in files.chunks(batch) {
                let prepare = |file: &PathBuf| (file.clone(), read(pipeline, file, args.max_num_patches));
                if sender.send(files.par_iter().map(prepare).collect()).is_err() {
                    return; // The other side has failed and says why.
                }
            }
        });
        for prepared in receiver {
            let count = prepared.len() as u64;
            let (mut names, mut pictures) = (Vec::new(), Vec::new());
            for (file, picture) in prepared {
                match picture {
                    Ok(picture) => {
                        names.push(file.display().to_string());
                        pictures.push(picture);
                    }
                    Err(error) => {
                        skipped += 1;
                        progress.suspend(|| eprintln!("skipped {}: {error}", file.display()));
                    }
                }
            }
            let vectors = pipeline.model().embed_images(&pictures.iter().collect::<Vec<_>>())?;
            for (name, vector) in names.iter().zip(vectors) {
                output.write(Kind::Image, name, finish(vector, normalize))?;
            }
            progress.inc(count);
        }
        Ok(())
    })?;

    if output.rows() == 0 {
        return Err(Error::Request(format!(
            "none of the {skipped} images could be used; nothing was written"
        )));
    }
    let rows = output.rows();
    let written = output.finish()?;
    progress.finish_and_clear();
    eprintln!(
        "{rows} embeddings of width {} by {} → {}",
        pipeline.info().embedding_dim,
        pipeline.info().name,
        written.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", "),
    );
    if skipped > 0 {
        eprintln!("{skipped} of {} images were skipped", files.len());
        return Ok(ExitCode::from(SKIPPED));
    }
    Ok(ExitCode::SUCCESS)
}

/// Ids separated by commas.
fn parse_ids(list: &str) -> Result<Vec<u32>> {
    let id = |part: &str| {
        let part = part.trim();
        part.parse().map_err(|_| Error::Config(format!("--token-ids {list:?}: {part:?} is no token id")))
    };
    list.split(',').map(id).collect()
}

fn read(pipeline: &Pipeline, file: &Path, max_num_patches: Option<usize>) -> Result<Patches> {
    let bytes = inputs::read(file, pipeline.image()?.limits().max_bytes)?;
    pipeline.prepare_image(&bytes, max_num_patches)
}

fn finish(mut vector: Vec<f32>, normalize: bool) -> Vec<f32> {
    if normalize {
        l2_normalize(&mut vector);
    }
    vector
}

fn progress_bar(total: u64) -> ProgressBar {
    let bar = ProgressBar::new(total);
    if let Ok(style) = ProgressStyle::with_template("{bar:30} {pos}/{len} {per_sec} {eta}") {
        bar.set_style(style);
    }
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}
