//! Layer normalisation.

#[cfg(feature = "cuda")]
use candle_core::CudaStorage;
use candle_core::{CpuStorage, CustomOp1, DType, Layout, Result, Shape, Tensor};

use super::profile::timed;
use super::{cpu, has_kernel};

/// Layer normalisation over the last dimension (Ba et al. 2016), with gain and bias.
#[derive(Debug, Clone)]
pub struct LayerNorm {
    weight: Tensor,
    bias: Tensor,
    eps: f64,
    /// On the CPU: the type of the result.
    inner: DType,
}

impl LayerNorm {
    /// From `weight` and `bias` of the width.
    pub fn new(weight: Tensor, bias: Tensor, eps: f64) -> Self {
        let inner = weight.dtype();
        Self { weight, bias, eps, inner }
    }

    /// The same with results of another type where the CPU's kernel runs: f32 or bf16.
    #[must_use]
    pub fn narrowed(mut self, inner: DType) -> Self {
        self.inner = inner;
        self
    }

    /// `x` `[rows, width]` → the same shape.
    ///
    /// # Errors
    /// If `x` is not as wide as the gain.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        if has_kernel(x) { x.contiguous()?.apply_op1_no_bwd(&Kernel(self)) } else { self.reference(x) }
    }

    /// The same in plain candle, with its sums in f32 whatever the type.
    pub fn reference(&self, x: &Tensor) -> Result<Tensor> {
        candle_nn::ops::layer_norm_slow(x, &self.weight, &self.bias, self.eps as f32)
    }
}

struct Kernel<'a>(&'a LayerNorm);

impl CustomOp1 for Kernel<'_> {
    fn name(&self) -> &'static str {
        "layer-norm"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (rows, width) = layout.shape().dims2()?;
        let (weight, weight_layout) = self.0.weight.storage_and_layout();
        let (bias, bias_layout) = self.0.bias.storage_and_layout();
        let weight = cpu::tensor_slice(&weight, weight_layout)?;
        let bias = cpu::tensor_slice(&bias, bias_layout)?;
        if weight.len() != width || bias.len() != width {
            candle_core::bail!("layer norm: the input is {width} wide, the gain {}", weight.len());
        }
        let narrow = self.0.inner == DType::BF16;
        let (x, eps) = (cpu::slice(x, layout)?, self.0.eps as f32);
        let y = timed(|| "layer norm".into(), 0, || cpu::weight::normalize(x, weight, bias, eps, narrow));
        Ok((y, Shape::from((rows, width))))
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(&self, x: &CudaStorage, layout: &Layout) -> Result<(CudaStorage, Shape)> {
        super::cuda::norm::layer_norm(x, layout, &self.0.weight, &self.0.bias, self.0.eps as f32)
    }
}
