//! Where the towers run, and in which arithmetic.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use candle_core::{DType, Device};

use super::{DeviceKind, Precision};
use crate::ops::cpu::{Isa, weight};
use crate::ops::{Numerics, WeightFormat};
use crate::{Error, Result};

/// What `--device` may say.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum DeviceChoice {
    /// A GPU if there is one and this program can use it, else the processor.
    #[default]
    Auto,
    /// The processor.
    Cpu,
    /// GPUs, by their numbers: at least one, each once. A model is loaded onto every one of them.
    Cuda(Vec<usize>),
}

impl FromStr for DeviceChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            "cpu" => Ok(Self::Cpu),
            "cuda" => Ok(Self::Cuda(vec![0])),
            _ => {
                let wrong = || format!("{text:?} is no device: auto, cpu, cuda, cuda:N or cuda:N,M,…");
                let numbers = text.strip_prefix("cuda:").ok_or_else(wrong)?;
                let mut ordinals = Vec::new();
                for number in numbers.split(',') {
                    let ordinal = number.parse().map_err(|_| wrong())?;
                    if ordinals.contains(&ordinal) {
                        return Err(format!("{text:?} names GPU {ordinal} twice"));
                    }
                    ordinals.push(ordinal);
                }
                Ok(Self::Cuda(ordinals))
            }
        }
    }
}

impl fmt::Display for DeviceChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Cpu => f.write_str("cpu"),
            Self::Cuda(ordinals) => {
                let numbers: Vec<String> = ordinals.iter().map(usize::to_string).collect();
                write!(f, "cuda:{}", numbers.join(","))
            }
        }
    }
}

/// Whether something is used where it helps.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Switch {
    /// Where it helps.
    #[default]
    Auto,
    /// Never.
    Off,
}

/// What the operator chooses about GPUs; nothing to the processor.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct GpuOptions {
    /// Small batches that come again are launched as CUDA graphs.
    pub graphs: Switch,
    /// The algorithms of matrix products are timed at their first use.
    pub tuning: Switch,
}

/// A device that answered, and the arithmetic on it.
#[derive(Debug, Clone)]
pub struct Placement {
    /// The device and the types on it.
    pub numerics: Numerics,
    /// What it is.
    pub kind: DeviceKind,
    /// What was chosen for `auto`.
    pub precision: Precision,
}

impl DeviceChoice {
    /// Opens the devices; there is at least one.
    ///
    /// # Errors
    /// [`Error::Config`] if one cannot be had, or not with this precision.
    pub fn place(&self, precision: Precision, gpu: GpuOptions) -> Result<Vec<Placement>> {
        match self {
            Self::Cpu => Ok(vec![on_cpu(precision)?]),
            Self::Cuda(ordinals) => {
                ordinals.iter().map(|&ordinal| on_cuda(ordinal, precision, gpu)).collect()
            }
            Self::Auto if cfg!(feature = "cuda") => match on_cuda(0, precision, gpu) {
                Ok(placement) => {
                    tracing::info!(
                        "running on GPU 0, since NVIDIA's driver answers (--device cpu for the processor)"
                    );
                    Ok(vec![placement])
                }
                Err(error) => {
                    tracing::info!("running on the processor: {error}");
                    Ok(vec![on_cpu(precision)?])
                }
            },
            Self::Auto => {
                tracing::info!("running on the processor: this program was built without GPU support");
                Ok(vec![on_cpu(precision)?])
            }
        }
    }
}

fn on_cpu(precision: Precision) -> Result<Placement> {
    let isa = Isa::chosen().map_err(Error::Config)?;
    let (precision, weights) = match precision {
        Precision::Auto if prefers_bf16(isa) => (Precision::Bf16, WeightFormat::Bf16),
        Precision::Auto | Precision::F32 => (Precision::F32, WeightFormat::F32),
        Precision::Bf16 => {
            if !isa.multiplies_bf16() {
                tracing::warn!(
                    "--dtype bf16: this processor has no bf16 products ({isa}): values are rounded as on one that has \
                     them, which takes longer than --dtype f32"
                );
            }
            (Precision::Bf16, WeightFormat::Bf16)
        }
        Precision::Int8 => (Precision::Int8, WeightFormat::Int8),
        Precision::F16 => {
            return Err(Error::Config(
                "--dtype f16 has no kernel for processors: use auto, f32, bf16 or int8".into(),
            ));
        }
    };
    tracing::info!("kernels for {isa}, {} weights", precision.name());
    Ok(Placement { numerics: Numerics::cpu(weights), kind: DeviceKind::Cpu, precision })
}

/// Whether bf16 is worth it here. On x86 that is known of each set of instructions; on ARM nothing has been measured, so that it is
/// measured now: by the inner loops, for some milliseconds, and with a wide margin, since a start must choose as the one before.
fn prefers_bf16(isa: Isa) -> bool {
    if !cfg!(target_arch = "aarch64") || !isa.multiplies_bf16() {
        return isa.multiplies_bf16();
    }
    let speed = |format| weight::peak(format, isa, Duration::from_millis(5)).unwrap_or_default();
    let (bf16, f32) = (speed(WeightFormat::Bf16), speed(WeightFormat::F32));
    tracing::info!("bf16 is multiplied {:.1} times as fast as f32", bf16 / f32);
    bf16 > 1.5 * f32
}

fn on_cuda(ordinal: usize, precision: Precision, gpu: GpuOptions) -> Result<Placement> {
    if !cfg!(feature = "cuda") {
        return Err(Error::Config(
            "--device cuda: this program was built without GPU support (cargo build --features cuda)".into(),
        ));
    }
    if precision == Precision::Int8 {
        return Err(Error::Config(
            "--dtype int8 has no kernel for GPUs in this version: use bf16, f16 or f32".into(),
        ));
    }
    // The first line says it; candle may add a backtrace.
    let failed = |error: candle_core::Error| {
        let error = error.to_string();
        Error::Config(format!("GPU {ordinal} cannot be used: {}", error.lines().next().unwrap_or_default()))
    };
    let device = open(ordinal, gpu).map_err(failed)?;
    let bf16 = has_bf16(&device).map_err(failed)?;
    let (precision, dtype) = match precision {
        Precision::F16 => (Precision::F16, DType::F16),
        Precision::Auto | Precision::Bf16 if bf16 => (Precision::Bf16, DType::BF16),
        Precision::Bf16 => {
            return Err(Error::Config(format!(
                "--dtype bf16: GPU {ordinal} is older than compute capability 8.0 and has no bf16: use f32 or f16"
            )));
        }
        _ => (Precision::F32, DType::F32),
    };
    Ok(Placement { numerics: Numerics::gpu(device, dtype), kind: DeviceKind::Cuda, precision })
}

#[cfg(feature = "cuda")]
use crate::ops::cuda::has_bf16;

#[cfg(feature = "cuda")]
fn open(ordinal: usize, gpu: GpuOptions) -> candle_core::Result<Device> {
    let options =
        crate::ops::cuda::Options { graphs: gpu.graphs == Switch::Auto, tuning: gpu.tuning == Switch::Auto };
    crate::ops::cuda::open(ordinal, options)
}

#[cfg(not(feature = "cuda"))]
fn open(_: usize, _: GpuOptions) -> candle_core::Result<Device> {
    Err(candle_core::Error::NotCompiledWithCudaSupport)
}

#[cfg(not(feature = "cuda"))]
fn has_bf16(_: &Device) -> candle_core::Result<bool> {
    Err(candle_core::Error::NotCompiledWithCudaSupport)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_read_as_they_are_written() {
        for text in ["auto", "cpu", "cuda:3", "cuda:2,0,1"] {
            assert_eq!(text.parse::<DeviceChoice>().unwrap().to_string(), text);
        }
        assert_eq!("cuda".parse(), Ok(DeviceChoice::Cuda(vec![0])));
        for text in ["", "gpu", "cuda:", "cuda:x", "cuda:-1", "cuda:0,", "cuda:0,1,0"] {
            assert!(text.parse::<DeviceChoice>().is_err(), "{text}");
        }
    }

    #[test]
    fn what_cannot_be_computed_is_refused() {
        let place = |precision| DeviceChoice::Cpu.place(precision, GpuOptions::default());
        assert_ne!(place(Precision::Auto).unwrap()[0].precision, Precision::Auto);
        assert!(place(Precision::F16).unwrap_err().to_string().contains("int8"));
        if !cfg!(feature = "cuda") {
            let error =
                DeviceChoice::Cuda(vec![0]).place(Precision::Auto, GpuOptions::default()).unwrap_err();
            assert!(error.to_string().contains("built without GPU support"));
        }
    }

    #[test]
    fn auto_is_always_something() {
        let placements = DeviceChoice::Auto.place(Precision::F32, GpuOptions::default()).unwrap();
        assert_eq!(placements.len(), 1);
        if !cfg!(feature = "cuda") {
            assert_eq!(placements[0].kind, DeviceKind::Cpu);
        }
    }
}
