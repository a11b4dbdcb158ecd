//! `siglip embed`.

use std::path::PathBuf;

use clap::Args;

use super::{WorkArgs, WorkModelArgs, parse};
use crate::bulk::shards::{Part, ShardFormat};

/// Arguments of `siglip embed`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    siglip embed photos/ --model M --output index/                # shards; the same command goes on where it was stopped\n  \
    siglip embed photos/ --model M --output index/ --shard 3/16   # one of 16 machines, from 0\n  \
    siglip embed train-*.tar --model M --output index/            # webdataset; also .parquet and .arrow with --column\n  \
    siglip embed photos/ --model M --output photos.npy            # one file, and photos.names.txt, one name a row\n  \
    siglip embed --model M --text 'a cat' --texts more.txt --output texts.jsonl\n  \
    find . -name '*.jpg' -print0 | siglip embed - --null --model M --output x.parquet\n\n\
    Exit codes: 0 everything was embedded; 1 nothing was written; 3 some inputs are bad, the rest was written; 4 the folder is\n\
    of another model; 65 an input is not what it should be; 70 the model fails; 74 the output cannot be written; 75 try again\n\
    later (another run works on this); 130 interrupted: what was done is kept. docs/bulk.md has the layout of folders.")]
pub struct EmbedArgs {
    #[command(flatten)]
    pub(crate) model: WorkModelArgs,
    /// A text to embed; may be given more than once
    #[arg(long = "text", value_name = "TEXT")]
    pub texts: Vec<String>,
    /// A file with a text on each line; may be given more than once
    #[arg(long = "texts", value_name = "FILE")]
    pub text_files: Vec<PathBuf>,
    /// A text as token ids, separated by commas, padded to the context; may be given more than once
    #[arg(long = "token-ids", value_name = "IDS")]
    pub token_ids: Vec<String>,
    /// Images, folders of images (searched to any depth), - or @FILE for a list of files; into a folder also .tar (webdataset),
    /// .parquet and .arrow, and objects: s3://, gs://, az:// (where the program was built with them)
    #[arg(value_name = "FILE")]
    pub inputs: Vec<PathBuf>,
    /// Where the embeddings go: a folder of shards (a name without an end, or with / at its end), or one file: .npy (with the
    /// names in .names.txt beside it), .jsonl or .parquet
    #[arg(long, short, value_name = "PATH")]
    pub output: PathBuf,
    #[command(flatten)]
    pub(crate) find: FindArgs,
    /// Into a folder: which part of the work this run does, of how many, from 0
    #[arg(long, value_name = "I/N", default_value = "0/1", value_parser = clap::value_parser!(Part), help_heading = "Folders of shards")]
    pub shard: Part,
    /// Files of a shard, which is what a run that is killed loses. A .tar, a table or a file of texts is a shard of its own
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = parse::at_least_one, help_heading = "Folders of shards")]
    pub shard_rows: usize,
    /// What shards are: parquet, npy (with names in .names.jsonl beside it), or jsonl
    #[arg(long, value_name = "FORMAT", default_value = "parquet", value_parser = clap::value_parser!(ShardFormat), help_heading = "Folders of shards")]
    pub format: ShardFormat,
    /// Read what is done again and compare it with the manifest; what differs is made again
    #[arg(long, help_heading = "Folders of shards")]
    pub verify: bool,
    /// Make shards again without the rows of files that are no longer there
    #[arg(long, help_heading = "Folders of shards")]
    pub prune: bool,
    /// Make shards again that have bad rows
    #[arg(long, help_heading = "Folders of shards")]
    pub retry_bad: bool,
    /// Frames of each animation (GIF, WebP, PNG), evenly spaced over its time, as rows with a time; of videos, too, if there is
    /// an ffmpeg [default: the first frame, and no videos]
    #[arg(long, value_name = "N", value_parser = parse::at_least_one, help_heading = "Folders of shards")]
    pub frames: Option<usize>,
    /// The column of tables that is embedded [default: image or text, whichever there is]
    #[arg(long, value_name = "NAME", help_heading = "Folders of shards")]
    pub column: Option<String>,
    /// The column of tables that says what a row is called [default: FILE#ROW]
    #[arg(long, value_name = "NAME", help_heading = "Folders of shards")]
    pub name_column: Option<String>,
    /// Into a file: leave out the first N inputs, which is how a run that was interrupted goes on, into another file
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub skip: usize,
    #[command(flatten)]
    pub(crate) work: WorkArgs,
}

/// How files are looked for.
#[derive(Debug, Clone, Default, Args)]
pub struct FindArgs {
    /// Leave out names of this pattern (*, ?, ** over folders); with / it is compared with the whole name, else with its last
    /// part. May be given more than once
    #[arg(long, value_name = "PATTERN")]
    pub exclude: Vec<String>,
    /// Follow links to folders
    #[arg(long)]
    pub follow: bool,
    /// Names in lists end with NUL, as find -print0 writes them
    #[arg(long, visible_alias = "null-data")]
    pub null: bool,
}
