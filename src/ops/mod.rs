//! The few operations that the towers are made of.
//!
//! Each has a plain-candle reference, which is the oracle of the kernels' tests and the path of
//! every device and type without a kernel, and runs as a candle custom op where there is one
//! ([`cpu`]: f32). Rows are tokens of any number of pictures or texts, packed one after another;
//! only attention looks at where one ends and the next begins ([`Segments`]).

pub mod attention;
pub mod cpu;
pub mod linear;
pub mod norm;
pub mod pixels;
pub mod segments;

pub use attention::{attention, probe_attention};
pub use linear::{Epilogue, Linear};
pub use norm::LayerNorm;
pub use pixels::normalize_pixels;
pub use segments::Segments;

use candle_core::{DType, Device, Tensor};

/// Whether `x` is what the CPU kernels take: f32 on the CPU.
fn has_cpu_kernel(x: &Tensor) -> bool {
    matches!(x.device(), Device::Cpu) && x.dtype() == DType::F32
}
