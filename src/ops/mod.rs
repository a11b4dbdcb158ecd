//! The few operations that the towers are made of.
//!
//! Each has a plain-candle reference, which is the oracle of the kernels' tests and the path of
//! every device and type without a kernel, and runs as a candle custom op where there is one
//! ([`cpu`]: f32, bf16 and bytes; `cuda`, with that feature: f32, f16 and bf16). Rows are tokens of any number of pictures or texts, packed one after another;
//! only attention looks at where one ends and the next begins ([`Segments`]).

pub mod attention;
pub mod cpu;
#[cfg(feature = "cuda")]
pub mod cuda;
pub mod linear;
pub mod norm;
pub mod numerics;
pub mod pixels;
pub mod probe;
pub mod products;
pub mod profile;
pub mod rows;
pub mod run;
pub mod segments;

pub use attention::{attention, probe_attention, query_attention};
pub use cpu::WeightFormat;
pub use linear::{Activation, Epilogue, Linear};
pub use norm::LayerNorm;
pub use numerics::Numerics;
pub use pixels::{PixelValues, normalize_pixels};
pub use probe::Probe;
pub use products::Products;
pub use run::{Batch, Input, Runner};
pub use segments::Segments;

use candle_core::{DType, Device, Tensor};

/// Whether `x` is what there are kernels for: f32 on the CPU; f32, f16 or bf16 on a GPU.
fn has_kernel(x: &Tensor) -> bool {
    match x.device() {
        Device::Cpu => x.dtype() == DType::F32,
        Device::Cuda(_) => on_gpu(x),
        Device::Metal(_) => false,
    }
}

/// Whether `x` is what the GPU kernels take.
fn on_gpu(x: &Tensor) -> bool {
    cfg!(feature = "cuda")
        && x.device().is_cuda()
        && matches!(x.dtype(), DType::F32 | DType::F16 | DType::BF16)
}
