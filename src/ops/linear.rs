//! A linear layer, and what may follow it before its result is written.

#[cfg(feature = "cuda")]
use candle_core::CudaStorage;
use candle_core::{CpuStorage, CustomOp1, CustomOp2, Layout, Result, Shape, Tensor};

use super::{cpu, has_kernel};
use crate::model::Activation;

/// `x · weightᵀ + bias`.
#[derive(Debug, Clone)]
pub struct Linear {
    /// `[out, in]`. For the CPU's kernel its values lie as `[in, out]`: the product packs them by whole rows then, which
    /// measured 1.2 to 1.9 times as fast where the result is narrow.
    weight: Tensor,
    bias: Option<Tensor>,
}

/// What is done to the result of a linear layer in the same pass.
#[derive(Debug, Clone, Copy)]
pub enum Epilogue<'a> {
    /// Nothing but the bias.
    None,
    /// The MLP's non-linearity.
    Activation(Activation),
    /// Adds a tensor of the result's shape.
    Residual(&'a Tensor),
}

impl Linear {
    /// From `weight` `[out, in]` and `bias` `[out]`, both contiguous, of one type and device.
    ///
    /// # Errors
    /// If `weight` is not a matrix.
    pub fn new(weight: Tensor, bias: Option<Tensor>) -> Result<Self> {
        let on_cpu = weight.device().is_cpu() && has_kernel(&weight);
        let weight = if on_cpu { cpu::linear::transposed(&weight)?.t()? } else { weight };
        Ok(Self { weight, bias })
    }

    /// Width of the result.
    pub fn out_dim(&self) -> usize {
        self.weight.dims()[0]
    }

    /// `x` `[rows, in]` → `[rows, out]`.
    pub fn forward(&self, x: &Tensor, epilogue: Epilogue<'_>) -> Result<Tensor> {
        if !has_kernel(x) {
            return self.reference(x, epilogue);
        }
        let x = x.contiguous()?;
        match epilogue {
            Epilogue::None => x.apply_op1_no_bwd(&Kernel { layer: self, activation: None }),
            Epilogue::Activation(a) => x.apply_op1_no_bwd(&Kernel { layer: self, activation: Some(a) }),
            Epilogue::Residual(r) => {
                x.apply_op2_no_bwd(&r.contiguous()?, &Kernel { layer: self, activation: None })
            }
        }
    }

    /// The same in plain candle.
    pub fn reference(&self, x: &Tensor, epilogue: Epilogue<'_>) -> Result<Tensor> {
        let mut y = x.matmul(&self.weight.t()?)?;
        if let Some(bias) = &self.bias {
            y = y.broadcast_add(bias)?;
        }
        match epilogue {
            Epilogue::None => Ok(y),
            Epilogue::Activation(Activation::GeluTanh) => y.gelu(),
            Epilogue::Activation(Activation::GeluErf) => y.gelu_erf(),
            Epilogue::Residual(residual) => y + residual,
        }
    }
}

struct Kernel<'a> {
    layer: &'a Linear,
    activation: Option<Activation>,
}

impl Kernel<'_> {
    fn run(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        residual: Option<(&CpuStorage, &Layout)>,
    ) -> Result<(CpuStorage, Shape)> {
        let (rows, inner) = x_layout.shape().dims2()?;
        let (out, expected) = self.layer.weight.dims2()?;
        if inner != expected {
            candle_core::bail!("linear: the input has {inner} columns, the weight takes {expected}");
        }
        let x = cpu::slice(x, x_layout)?;
        let residual = residual.map(|(storage, layout)| cpu::slice(storage, layout)).transpose()?;
        let lying = self.layer.weight.t()?;
        let (weight, weight_layout) = lying.storage_and_layout();
        let weight = cpu::tensor_slice(&weight, weight_layout)?;
        let bias = self.layer.bias.as_ref().map(Tensor::storage_and_layout);
        let bias = bias.as_ref().map(|(storage, layout)| cpu::tensor_slice(storage, layout)).transpose()?;
        let y = cpu::linear::linear(x, rows, weight, out, bias, self.activation, residual)?;
        Ok((CpuStorage::F32(y), Shape::from((rows, out))))
    }
}

impl CustomOp1 for Kernel<'_> {
    fn name(&self) -> &'static str {
        "linear"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        self.run(x, layout, None)
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(&self, x: &CudaStorage, layout: &Layout) -> Result<(CudaStorage, Shape)> {
        let Linear { weight, bias } = self.layer;
        super::cuda::linear::linear((x, layout), weight, bias.as_ref(), self.activation, None)
    }
}

impl CustomOp2 for Kernel<'_> {
    fn name(&self) -> &'static str {
        "linear-residual"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        residual: &CpuStorage,
        residual_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        self.run(x, x_layout, Some((residual, residual_layout)))
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        x: &CudaStorage,
        x_layout: &Layout,
        residual: &CudaStorage,
        residual_layout: &Layout,
    ) -> Result<(CudaStorage, Shape)> {
        let Linear { weight, bias } = self.layer;
        let residual = Some((residual, residual_layout));
        super::cuda::linear::linear((x, x_layout), weight, bias.as_ref(), self.activation, residual)
    }
}
