//! `siglip worker`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};

use super::{WorkArgs, WorkModelArgs, parse};
use crate::bulk::worker::{EmbeddingType, MAX_BATCH_BYTES};

/// Arguments of `siglip worker`.
#[derive(Debug, Args)]
#[command(
    after_help = "Input: an Arrow IPC stream with a column image (binary: encoded pictures) or text (utf8). Output: the same rows in the\n\
    same order and batches, without that column, with embedding (a fixed-size list) and error (null where all is well).\n\
    The metadata of its schema says which model made it: siglip.fingerprint, siglip.model, siglip.dtype, …\n\
    On standard error: a line \"siglip worker: ready …\" when the model is loaded, and a summary.\n\n\
    Examples:\n  \
    producer | siglip worker --model google/siglip2-base-patch16-224 | consumer\n  \
    siglip worker --model demo --column caption --embedding-dtype f16 < in.arrows > out.arrows\n  \
    siglip worker --model demo --listen unix:/tmp/siglip.sock      # several streams, one loaded model\n\n\
    Exit codes: 0 the input ended and everything was written; 1 the output was closed; 2 wrong flags; 65 the input is not\n\
    such a stream; 70 the model cannot be loaded or fails; 74 the output cannot be written; 75 try again later.\n\
    docs/bulk.md has the whole contract."
)]
pub struct WorkerArgs {
    #[command(flatten)]
    pub(crate) model: WorkModelArgs,
    #[command(flatten)]
    pub(crate) work: WorkArgs,
    /// The column to embed, where it is not image or text. What it holds follows from its type; image or text before the name
    /// makes sure of it
    #[arg(long, value_names = ["image|text] [NAME"], num_args = 1..=2)]
    pub column: Vec<String>,
    /// Pass the column that is embedded through, too
    #[arg(long)]
    pub keep_input: bool,
    /// Numbers of the vectors
    #[arg(long, value_enum, default_value_t = VectorType::F32)]
    pub embedding_dtype: VectorType,
    /// Labels out of a file (.json, .csv, .txt, or a linear head in .safetensors): adds label and score, those of the best one,
    /// null where none fits
    #[arg(long, value_name = "FILE")]
    pub label_set: Option<PathBuf>,
    /// With --label-set: adds labels and scores, lists of the best so many, too
    #[arg(long, value_name = "N", requires = "label_set", value_parser = parse::at_least_one)]
    pub top_k: Option<usize>,
    /// Largest record batch, with the vectors that are made of it; a larger one ends the stream before it is read. At most
    /// twice this is held for each stream
    #[arg(long, value_name = "BYTES", default_value = "1GiB", env = "SIGLIP_MAX_BATCH_BYTES", value_parser = batch_bytes)]
    pub max_batch_bytes: usize,
    /// Takes streams on a socket instead of standard input, each answered on its own connection: unix:PATH, or
    /// tcp:127.0.0.1:PORT (0 for any free one, which the line of readiness names)
    #[cfg(unix)]
    #[arg(long, value_name = "ADDRESS")]
    pub listen: Option<crate::bulk::worker::Address>,
    /// With --listen: streams at once; the next ones wait
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=256))]
    pub max_streams: u16,
    /// With --listen: how long streams that are open may go on after SIGTERM
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = parse::duration)]
    pub drain_timeout: Duration,
}

/// Numbers of the vectors.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum VectorType {
    /// Single precision.
    F32,
    /// Half precision.
    F16,
}

impl From<VectorType> for EmbeddingType {
    fn from(numbers: VectorType) -> Self {
        match numbers {
            VectorType::F32 => Self::F32,
            VectorType::F16 => Self::F16,
        }
    }
}

fn batch_bytes(text: &str) -> Result<usize, String> {
    let bytes = parse::bytes(text)?;
    match bytes {
        0 => Err("at least one byte".to_owned()),
        bytes if bytes > MAX_BATCH_BYTES => Err(format!("at most {MAX_BATCH_BYTES} bytes")),
        bytes => Ok(bytes),
    }
}
