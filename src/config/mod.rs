//! Command-line arguments and environment variables.

mod choice;
mod embed;
pub mod environment;
pub mod health;
pub mod label_sets;
pub mod memory;
pub mod model;
mod parse;
pub mod serve;
mod vectors;
pub mod worker;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

pub use embed::{EmbedArgs, FindArgs};
pub use health::HealthArgs;
pub use model::{ComputeArgs, ModelArgs, WorkModelArgs, start_threads};
pub use serve::{ServeArgs, ServeConfig};
pub use vectors::{DedupArgs, SearchArgs};
pub use worker::WorkerArgs;

/// The command line.
#[derive(Debug, Parser)]
#[command(
    name = "siglip",
    version,
    about = "Image and text embeddings and zero-shot classification with SigLIP, SigLIP 2 and NaFlex.",
    after_help = "Options with [env: …] in the help of their command can also be set as environment variables: --model is SIGLIP_MODEL.\n\
                  Models: a Hugging Face id (google/siglip2-base-patch16-224, with @revision), a folder, or demo."
)]
pub struct Cli {
    /// What to log: a level, or directives such as info,siglip=debug [default: warn, info for serve]
    #[arg(long, global = true, env = "SIGLIP_LOG", value_name = "FILTER")]
    pub log: Option<String>,
    /// What to do
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serve embeddings and zero-shot classification over HTTP
    Serve(Box<ServeArgs>),
    /// Ask a running service whether it is ready; exit code 0 if it is
    Health(HealthArgs),
    /// Embed images and texts into a file, or a folder of shards that a run can go on with
    Embed(Box<EmbedArgs>),
    /// Answer Arrow streams with Arrow streams: the stage that data engines run
    Worker(Box<WorkerArgs>),
    /// Find the rows of an index that are nearest to a text or an image
    Search(SearchArgs),
    /// Find rows of an index that are nearly the same
    Dedup(DedupArgs),
    /// Ask which of some labels fit an image
    Classify(ClassifyArgs),
    /// Say what a model is: sizes, preprocessing, tokenizer, memory, fingerprint
    Inspect(InspectArgs),
    /// Check that a model gives the published results
    Verify(VerifyArgs),
    /// Measure the engine alone
    Bench(BenchArgs),
    /// What this program calls for each HEIC or AVIF picture: the file is standard input, the answer standard output
    #[cfg(all(feature = "heif", target_os = "linux"))]
    #[command(hide = true)]
    DecodeHeif(DecodeHeifArgs),
}

/// `siglip decode-heif`.
#[cfg(all(feature = "heif", target_os = "linux"))]
#[derive(Debug, Args)]
pub struct DecodeHeifArgs {
    /// Memory beside what the program has when it starts
    #[arg(long, value_name = "BYTES")]
    pub memory: u64,
    /// Time of the processor
    #[arg(long, value_name = "SECONDS")]
    pub seconds: u64,
}

/// How many inputs become vectors.
#[derive(Debug, Clone, Args)]
pub struct WorkArgs {
    /// Tokens of one batch [default: as many as take 250 ms on the processor, 65536 on a GPU]
    #[arg(long, value_name = "N", env = "SIGLIP_MAX_BATCH_TOKENS", value_parser = parse::at_least_one)]
    pub max_batch_tokens: Option<usize>,
    /// Leave the vectors as the towers give them instead of dividing by their length
    #[arg(long)]
    pub no_normalize: bool,
    /// Patch budget of each image, for NaFlex models [default: the model's own]
    #[arg(long, value_name = "N")]
    pub max_num_patches: Option<usize>,
}

/// `siglip classify`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    siglip classify cat.jpg --model M --labels 'cat,dog,car'\n  \
    siglip classify photos/ --model M --label-set animals.csv --template imagenet-7 --none --threshold 0.1\n  \
    siglip classify new.png --model M --labels 'ours,theirs' --examples ours=logos/ours --examples theirs=logos/theirs\n\n\
    The probability of a label is its own: SigLIP is trained with a sigmoid, so that probabilities need not sum to 1.")]
pub struct ClassifyArgs {
    #[command(flatten)]
    pub(crate) model: WorkModelArgs,
    /// Images, folders of images (searched to any depth), - or @FILE for a list of files
    #[arg(required = true, value_name = "IMAGE")]
    pub images: Vec<PathBuf>,
    #[command(flatten)]
    pub(crate) find: FindArgs,
    /// Labels, separated by commas, or @FILE with one on each line; may be given more than once. Without any, those of the checkpoint's own classifier
    #[arg(long, value_delimiter = ',', value_name = "LABELS")]
    pub labels: Vec<String>,
    /// Labels out of a file: .json as the service takes it, .csv, .txt, or a linear head in .safetensors; with --data-dir, the
    /// name of a set that a service keeps there
    #[arg(long, value_name = "FILE|NAME", conflicts_with = "labels")]
    pub label_set: Option<PathBuf>,
    /// Folder in which a service keeps its label sets
    #[arg(long, value_name = "FOLDER", requires = "label_set")]
    pub data_dir: Option<PathBuf>,
    /// What a label is put into, with {} in its place, or a built-in set of templates (imagenet-7, …); several are averaged
    /// [default: that of the label set, else the model's own]
    #[arg(long = "template", value_name = "TEMPLATE")]
    pub templates: Vec<String>,
    /// Images of a label, an image or a folder of them: what it looks like beside what it is called. May be given more than once
    #[arg(long = "examples", value_name = "LABEL=PATH")]
    pub examples: Vec<String>,
    /// Say so where none of the labels fits: none has the probability P, or the file's labels (things that the image may be of
    /// instead) fit better, or none stands out beside the images whose embeddings are in a .npy file [default of P: the label's
    /// threshold, else 0.01]
    #[arg(long, value_name = "P|FILE", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub none: Option<String>,
    /// Shares that sum to 1 over the labels instead of each label's own probability
    #[arg(long)]
    pub softmax: bool,
    /// Only labels whose probability is at least P [default: the thresholds of the label set, if it has any]
    #[arg(long, value_name = "P")]
    pub threshold: Option<f32>,
    /// Only so many labels of each image
    #[arg(long, value_name = "N")]
    pub top_k: Option<usize>,
    /// JSON instead of a table: one object an image and line
    #[arg(long)]
    pub json: bool,
    /// Draw where in the image its best label is, into this PNG; for one image
    #[arg(long, value_name = "FILE", requires = "labels")]
    pub heatmap: Option<PathBuf>,
    /// Patch budget of each image, for NaFlex models [default: the model's own]
    #[arg(long, value_name = "N")]
    pub max_num_patches: Option<usize>,
}

/// `siglip inspect`.
#[derive(Debug, Args)]
pub struct InspectArgs {
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    /// JSON instead of text
    #[arg(long)]
    pub json: bool,
}

/// `siglip verify`.
#[derive(Debug, Args)]
#[command(
    after_help = "The logits of google/siglip2-base-patch16-naflex are compared on pictures drawn here. \
    google/siglip-base-patch16-224 needs COCO's picture 000000039769.jpg (--coco-image). Every model is also checked \
    against itself: alone and in a batch, finite, of the right width.\n\
    Exit codes: 0 all passed; 1 something failed."
)]
pub struct VerifyArgs {
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    /// COCO's val2017/000000039769.jpg (two cats), for the logits published with it
    #[arg(long, value_name = "FILE")]
    pub coco_image: Option<PathBuf>,
}

/// `siglip bench`.
#[derive(Debug, Args)]
pub struct BenchArgs {
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    /// Measures decoding, resizing and cutting this image on one thread instead of a tower
    #[arg(long, value_name = "FILE", conflicts_with = "batch")]
    pub prepare: Option<PathBuf>,
    /// Items of one batch
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=4096))]
    pub batch: u16,
    /// Seconds to measure, after warming up
    #[arg(long, default_value_t = 4.0)]
    pub seconds: f64,
    /// The last line is a JSON object with items_per_second
    #[arg(long)]
    pub json: bool,
    /// Prints where the time of one batch goes, operation by operation (on the processor)
    #[arg(long, conflicts_with = "prepare")]
    pub profile: bool,
}
