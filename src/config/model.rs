//! The options of every command that loads a model.

use clap::builder::FalseyValueParser;
use clap::{ArgAction, Args};

use crate::Error;
use crate::Result;
use crate::checkpoint::{self, Checkpoint, HubOptions, ModelRef, Tower, Wanted};
use crate::image::{HeifDecoder, ImageDecode, ImageLimits};
use crate::pipeline::{DeviceChoice, GpuOptions, LoadOptions, Pipeline, Precision, Switch};
use crate::text::Canonicalization;

/// Which model, where and how.
#[derive(Debug, Clone, Args)]
pub struct ModelArgs {
    /// A Hugging Face id (owner/name[@revision]), a folder, a .npz or .safetensors file, or demo
    #[arg(long, env = "SIGLIP_MODEL", default_value = "demo", value_name = "MODEL")]
    pub model: String,
    #[command(flatten)]
    pub(crate) compute: ComputeArgs,
}

/// Which model works through many inputs, where and how. There is no default: vectors of the demonstration are of no use for
/// photographs, and nobody should find that out after a night.
#[derive(Debug, Clone, Args)]
pub struct WorkModelArgs {
    /// A Hugging Face id (owner/name[@revision]), a folder, a .npz or .safetensors file, or demo, the small demonstration inside
    /// this program
    #[arg(long, env = "SIGLIP_MODEL", value_name = "MODEL")]
    pub model: Option<String>,
    #[command(flatten)]
    pub(crate) compute: ComputeArgs,
}

impl WorkModelArgs {
    /// The model that was named.
    ///
    /// # Errors
    /// If none was.
    pub fn chosen(&self) -> Result<&str> {
        match self.model.as_deref().map(str::trim) {
            None | Some("") => Err(Error::Config(
                "which model? Name one with --model or SIGLIP_MODEL: a Hugging Face id such as \
                 google/siglip2-base-patch16-224, a folder, or demo, the small demonstration inside this program (it knows \
                 drawings, not photographs)"
                    .to_owned(),
            )),
            Some(model) => Ok(model),
        }
    }
}

/// Where and how models run.
#[derive(Debug, Clone, Args)]
pub struct ComputeArgs {
    /// Where the towers run: auto, cpu, cuda, cuda:N, or for serve, embed and classify cuda:N,M,…, a copy on each of several GPUs
    #[arg(long, env = "SIGLIP_DEVICE", default_value_t = DeviceChoice::Auto)]
    pub device: DeviceChoice,
    /// Arithmetic of the towers. auto: bf16 where the device multiplies it, else f32. int8: the fastest on a CPU, with
    /// vectors that are a little coarser (see the README). SIGLIP_CPU_KERNELS forces a CPU's kernels: portable, or avx2,
    /// avx-vnni, avx512, avx512-vnni, avx512-bf16, amx; on ARM neon, dotprod, i8mm, bf16, joined by +
    #[arg(long, env = "SIGLIP_DTYPE", value_enum, default_value_t = Precision::Auto)]
    pub dtype: Precision,
    /// CUDA graphs: auto (small batches that come again are one launch, once that was checked against an ordinary run)
    /// or off
    #[arg(long, env = "SIGLIP_CUDA_GRAPHS", value_enum, default_value_t = Switch::Auto, hide_possible_values = true)]
    pub cuda_graphs: Switch,
    /// Matrix products on a GPU: auto (the algorithms that cuBLASLt proposes are timed when a shape is met first) or off
    /// (its first proposal)
    #[arg(long, env = "SIGLIP_CUDA_TUNING", value_enum, default_value_t = Switch::Auto, hide_possible_values = true)]
    pub cuda_tuning: Switch,
    /// Load only this tower of the model [default: both]. It takes the memory of that tower alone
    #[arg(long, env = "SIGLIP_TOWER", value_enum)]
    pub tower: Option<Tower>,
    /// Take long texts, with a model that has positions and a head for them (FG-CLIP 2: 196 tokens); short texts are embedded
    /// better without
    #[arg(long, env = "SIGLIP_LONG_TEXTS", value_parser = FalseyValueParser::new(), action = ArgAction::SetTrue)]
    pub long_texts: bool,
    /// Threads of the towers [default: all cores]
    #[arg(long, env = "SIGLIP_THREADS", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub threads: Option<u16>,
    /// What is done to texts before they are tokenised [default: what the model was trained with]
    #[arg(long, env = "SIGLIP_CANONICALIZATION", value_enum)]
    pub canonicalization: Option<Canonicalization>,
    /// How JPEGs are decoded: exact, or fast (scaled down while decoding where they are at least twice the model's size;
    /// other embeddings by a little, see the README)
    #[arg(long, env = "SIGLIP_IMAGE_DECODE", value_enum, default_value_t = ImageDecode::Exact)]
    pub image_decode: ImageDecode,
    /// Largest width × height of an image, in megapixels
    #[arg(long, env = "SIGLIP_MAX_MEGAPIXELS", default_value_t = 65, value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub max_megapixels: u32,
}

impl ComputeArgs {
    /// Starts the thread pool that the towers use.
    ///
    /// # Errors
    /// If it is running already with another number of threads.
    pub fn start_threads(&self) -> Result<()> {
        start_threads(self.threads)
    }

    /// Which part of a model is loaded.
    pub fn wanted(&self) -> Wanted {
        Wanted { tower: self.tower, long_texts: self.long_texts }
    }

    /// These options for one model.
    pub fn load_options(&self, name: Option<String>) -> LoadOptions {
        LoadOptions {
            name,
            device: self.device.clone(),
            precision: self.dtype,
            gpu: GpuOptions { graphs: self.cuda_graphs, tuning: self.cuda_tuning },
            image_limits: ImageLimits {
                heif: HeifDecoder::Child,
                ..ImageLimits::for_pixels(u64::from(self.max_megapixels) * 1_000_000)
            },
            image_decode: self.image_decode,
            canonicalization: self.canonicalization,
            wanted: self.wanted(),
        }
    }
}

/// Starts the thread pool that the towers use.
///
/// # Errors
/// If it is running already with another number of threads.
pub fn start_threads(threads: Option<u16>) -> Result<()> {
    let threads = match threads {
        Some(threads) => usize::from(threads),
        None => std::thread::available_parallelism().map_or(1, usize::from),
    };
    rayon::ThreadPoolBuilder::new()
        .num_threads(threads)
        .thread_name(|i| format!("compute-{i}"))
        .build_global()
        .map_err(|error| Error::Config(format!("--threads {threads}: {error}")))
}

impl ModelArgs {
    /// Finds or downloads the checkpoint.
    ///
    /// # Errors
    /// If it cannot be found, read or understood.
    pub fn open(&self) -> Result<Checkpoint> {
        Ok(checkpoint::open_part(
            &self.model.parse::<ModelRef>()?,
            &HubOptions::default(),
            self.compute.wanted(),
        )?)
    }

    /// Opens the checkpoint and loads it onto one device.
    ///
    /// # Errors
    /// If several devices are named, a part of it cannot be used, or the device cannot be had.
    pub fn load(&self) -> Result<Pipeline> {
        let device = &self.compute.device;
        if matches!(device, DeviceChoice::Cuda(gpus) if gpus.len() > 1) {
            let message = format!("--device {device}: this command uses one GPU, name one");
            return Err(Error::Config(message));
        }
        self.compute.start_threads()?;
        Pipeline::load(self.open()?, &self.compute.load_options(None))
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use crate::config::{Cli, Command};

    #[test]
    fn several_gpus_are_for_the_engine() {
        let cli = Cli::try_parse_from(["siglip", "bench", "--device", "cuda:0,1"]).unwrap();
        let Command::Bench(args) = cli.command else { unreachable!("asked for") };
        let error = args.model.load().err().unwrap().to_string();
        assert!(error.contains("cuda:0,1: this command uses one GPU"), "{error}");
    }
}
