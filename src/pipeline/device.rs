//! Where the towers run, and in which arithmetic.

use std::fmt;
use std::str::FromStr;

use candle_core::{DType, Device};

use super::{DeviceKind, Precision};
use crate::{Error, Result};

/// What `--device` may say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DeviceChoice {
    /// A GPU if there is one and this program can use it, else the processor.
    #[default]
    Auto,
    /// The processor.
    Cpu,
    /// One GPU, by its number.
    Cuda(usize),
}

impl FromStr for DeviceChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            "cpu" => Ok(Self::Cpu),
            "cuda" => Ok(Self::Cuda(0)),
            _ => match text.strip_prefix("cuda:").map(str::parse) {
                Some(Ok(ordinal)) => Ok(Self::Cuda(ordinal)),
                _ => Err(format!("{text:?} is no device: auto, cpu, cuda or cuda:N")),
            },
        }
    }
}

impl fmt::Display for DeviceChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Cpu => f.write_str("cpu"),
            Self::Cuda(ordinal) => write!(f, "cuda:{ordinal}"),
        }
    }
}

/// A device that answered, and the arithmetic on it.
#[derive(Debug, Clone)]
pub struct Placement {
    /// The device.
    pub device: Device,
    /// What it is.
    pub kind: DeviceKind,
    /// What was chosen for `auto`.
    pub precision: Precision,
    /// The type of the towers' tensors.
    pub dtype: DType,
}

impl DeviceChoice {
    /// Opens the device.
    ///
    /// # Errors
    /// [`Error::Config`] if it cannot be had, or not with this precision.
    pub fn place(self, precision: Precision) -> Result<Placement> {
        match self {
            Self::Cpu => on_cpu(precision),
            Self::Cuda(ordinal) => on_cuda(ordinal, precision),
            Self::Auto if cfg!(feature = "cuda") => match on_cuda(0, precision) {
                Ok(placement) => Ok(placement),
                Err(error) => {
                    tracing::info!("running on the processor: {error}");
                    on_cpu(precision)
                }
            },
            Self::Auto => on_cpu(precision),
        }
    }
}

fn on_cpu(precision: Precision) -> Result<Placement> {
    match precision {
        Precision::Auto | Precision::F32 => Ok(Placement {
            device: Device::Cpu,
            kind: DeviceKind::Cpu,
            precision: Precision::F32,
            dtype: DType::F32,
        }),
        Precision::Bf16 | Precision::F16 | Precision::Int8 => Err(Error::Config(format!(
            "--dtype {} has no kernel for this processor in this version: use f32 or auto",
            precision.name()
        ))),
    }
}

fn on_cuda(ordinal: usize, precision: Precision) -> Result<Placement> {
    if !cfg!(feature = "cuda") {
        return Err(Error::Config(
            "--device cuda: this program was built without GPU support (cargo build --features cuda)".into(),
        ));
    }
    let (precision, dtype) = match precision {
        Precision::Auto | Precision::Bf16 => (Precision::Bf16, DType::BF16),
        Precision::F16 => (Precision::F16, DType::F16),
        Precision::F32 => (Precision::F32, DType::F32),
        Precision::Int8 => {
            return Err(Error::Config(
                "--dtype int8 has no kernel for GPUs in this version: use bf16, f16 or f32".into(),
            ));
        }
    };
    // Opening a GPU panics where the driver's library is missing; that is an answer, not a crash.
    let device = std::panic::catch_unwind(|| Device::new_cuda(ordinal))
        .map_err(|_| Error::Config("no NVIDIA driver was found".into()))?
        .map_err(|error| Error::Config(format!("GPU {ordinal} cannot be used: {error}")))?;
    Ok(Placement { device, kind: DeviceKind::Cuda, precision, dtype })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_read_as_they_are_written() {
        for text in ["auto", "cpu", "cuda:3"] {
            assert_eq!(text.parse::<DeviceChoice>().unwrap().to_string(), text);
        }
        assert_eq!("cuda".parse(), Ok(DeviceChoice::Cuda(0)));
        for text in ["", "gpu", "cuda:", "cuda:x", "cuda:-1"] {
            assert!(text.parse::<DeviceChoice>().is_err(), "{text}");
        }
    }

    #[test]
    fn what_cannot_be_computed_is_refused() {
        assert_eq!(DeviceChoice::Cpu.place(Precision::Auto).unwrap().precision, Precision::F32);
        assert!(DeviceChoice::Cpu.place(Precision::Int8).unwrap_err().to_string().contains("int8"));
        if !cfg!(feature = "cuda") {
            let error = DeviceChoice::Cuda(0).place(Precision::Auto).unwrap_err();
            assert!(error.to_string().contains("built without GPU support"));
        }
    }
}
