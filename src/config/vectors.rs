//! `siglip search` and `siglip dedup`.

use std::path::PathBuf;

use clap::Args;

use super::{WorkModelArgs, parse};

/// Arguments of `siglip search`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    siglip search index/ --model M --text 'a cat on a roof'\n  \
    siglip search index/ --model M --image cat.jpg --image dog.jpg --top-k 20 --json\n  \
    siglip search index/ --like holiday/0001.jpg                  # what is there already: needs no model\n\n\
    Every vector is compared: there is no index that would have to be built, and none of the nearest is missed. A line for each\n\
    row found: query, cosine, name. Exit codes: 0; 1 wrong arguments; 4 the vectors are of another model; 65 they cannot be read.")]
pub struct SearchArgs {
    /// What siglip embed wrote: a folder, or a .npy, .parquet or .jsonl
    #[arg(value_name = "INDEX")]
    pub index: PathBuf,
    #[command(flatten)]
    pub(crate) model: WorkModelArgs,
    /// A text to look for; may be given more than once
    #[arg(long = "text", value_name = "TEXT")]
    pub texts: Vec<String>,
    /// An image to look for others like it; may be given more than once
    #[arg(long = "image", value_name = "FILE")]
    pub images: Vec<PathBuf>,
    /// The name of a row to look for others like it; may be given more than once
    #[arg(long = "like", value_name = "NAME")]
    pub like: Vec<String>,
    /// Rows for each query
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = parse::at_least_one)]
    pub top_k: usize,
    /// Only rows with at least this cosine
    #[arg(long, value_name = "COSINE", default_value_t = -1.0, allow_negative_numbers = true)]
    pub threshold: f32,
    /// A JSON object a line instead of a table
    #[arg(long)]
    pub json: bool,
    /// Patch budget of each image, for NaFlex models: that of the index
    #[arg(long, value_name = "N")]
    pub max_num_patches: Option<usize>,
}

/// Arguments of `siglip dedup`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    siglip dedup index/                                           # group, cosine with the nearest other one, name\n  \
    siglip dedup index/ --threshold 0.98 --json\n\n\
    Every vector is compared with every other: the time grows with the square of their number.\n\
    Exit codes: 0; 65 the vectors cannot be read.")]
pub struct DedupArgs {
    /// What siglip embed wrote: a folder, or a .npy, .parquet or .jsonl
    #[arg(value_name = "INDEX")]
    pub index: PathBuf,
    /// The least cosine of two that are nearly the same; groups are chains of such pairs
    #[arg(long, value_name = "COSINE", default_value_t = 0.95)]
    pub threshold: f32,
    /// A JSON object a group and line instead of a table
    #[arg(long)]
    pub json: bool,
    /// Threads [default: all cores]
    #[arg(long, env = "SIGLIP_THREADS", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub threads: Option<u16>,
}
