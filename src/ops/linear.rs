//! A linear layer, and what may follow it before its result is written.

use std::sync::Arc;

#[cfg(feature = "cuda")]
use candle_core::CudaStorage;
use candle_core::{CpuStorage, CustomOp1, CustomOp2, DType, Layout, Result, Shape, Tensor};
use half::bf16;
use serde::Serialize;

use super::cpu::linear::Finish;
use super::cpu::{Isa, PackedWeight, WeightFormat};
use super::profile::timed;
use super::{cpu, on_gpu};

/// `x · weightᵀ + bias`.
#[derive(Debug, Clone)]
pub struct Linear {
    weight: Weight,
    bias: Option<Tensor>,
    /// `[out]`: taken off the result.
    centre: Option<Tensor>,
    /// On the CPU: the type of a result that goes on within a block.
    inner: DType,
}

#[derive(Debug, Clone)]
enum Weight {
    /// `[out, in]`, where the input is.
    Plain(Tensor),
    /// For the CPU's kernels.
    Packed(Arc<PackedWeight>),
}

/// The non-linearity of every MLP, the pooling head's included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Activation {
    /// `gelu_pytorch_tanh`: the tanh approximation; big_vision and Hugging Face.
    GeluTanh,
    /// The exact GELU by the error function: what open_clip and timm run for some checkpoints.
    GeluErf,
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
    /// From `weight` `[out, in]` and `bias` `[out]`, both contiguous, of one type and device. On the CPU this layer is
    /// the reference of [`Linear::packed`].
    pub fn new(weight: Tensor, bias: Option<Tensor>) -> Self {
        let inner = weight.dtype();
        Self { weight: Weight::Plain(weight), bias, centre: None, inner }
    }

    /// For the CPU's kernels, from `weight` `[out, in]` and `bias` `[out]`, both f32 on the CPU.
    ///
    /// # Errors
    /// If the tensors are not that.
    pub fn packed(weight: &Tensor, bias: Option<Tensor>, format: WeightFormat) -> Result<Self> {
        let (out, inner) = weight.dims2()?;
        let weight = weight.contiguous()?;
        let (storage, layout) = weight.storage_and_layout();
        let packed =
            PackedWeight::new(cpu::tensor_slice(&storage, layout)?, out, inner, format, Isa::active())?;
        if let Some(bias) = &bias
            && (bias.dims1()? != out || bias.dtype() != DType::F32)
        {
            candle_core::bail!("linear: a bias of {:?} for {out} columns", bias.shape());
        }
        Ok(Self { weight: Weight::Packed(Arc::new(packed)), bias, centre: None, inner: format.activations() })
    }

    /// The same layer with results in f32 where they would be in the type that is kept within a block.
    #[must_use]
    pub fn wide(mut self) -> Self {
        if let Weight::Packed(_) = self.weight {
            self.inner = DType::F32;
        }
        self
    }

    /// The same layer with `centre` `[out]`, f32, taken off its results, after the activation.
    ///
    /// # Errors
    /// If it is not that, or the layer is not packed.
    pub fn centred(mut self, centre: Tensor) -> Result<Self> {
        match self.weight {
            Weight::Packed(_) if centre.dims1()? == self.out_dim() && centre.dtype() == DType::F32 => {
                self.centre = Some(centre);
                Ok(self)
            }
            _ => {
                candle_core::bail!("linear: a centre of {:?} for {} columns", centre.shape(), self.out_dim())
            }
        }
    }

    /// Width of the result.
    pub fn out_dim(&self) -> usize {
        match &self.weight {
            Weight::Plain(weight) => weight.dims()[0],
            Weight::Packed(weight) => weight.shape().0,
        }
    }

    /// `x` `[rows, in]` → `[rows, out]`. On the CPU, packed: of the residual's type if there is one, else of the type
    /// that is kept within a block.
    pub fn forward(&self, x: &Tensor, epilogue: Epilogue<'_>) -> Result<Tensor> {
        if let Weight::Plain(_) = self.weight
            && !on_gpu(x)
        {
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
    ///
    /// # Errors
    /// If the weight is packed: only [`Linear::new`] keeps it as it was.
    pub fn reference(&self, x: &Tensor, epilogue: Epilogue<'_>) -> Result<Tensor> {
        let Weight::Plain(weight) = &self.weight else {
            candle_core::bail!("linear: a packed weight has no reference");
        };
        let mut y = x.matmul(&weight.t()?)?;
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
        let Weight::Packed(weight) = &self.layer.weight else {
            candle_core::bail!("linear: the CPU's kernels need a packed weight");
        };
        let (rows, inner) = x_layout.shape().dims2()?;
        let (out, expected) = weight.shape();
        if inner != expected {
            candle_core::bail!("linear: the input has {inner} columns, the weight takes {expected}");
        }
        let bias = self.layer.bias.as_ref().map(Tensor::storage_and_layout);
        let centre = self.layer.centre.as_ref().map(Tensor::storage_and_layout);
        let finish = Finish {
            bias: bias.as_ref().map(|(storage, layout)| cpu::tensor_slice(storage, layout)).transpose()?,
            activation: self.activation,
            centre: centre
                .as_ref()
                .map(|(storage, layout)| cpu::tensor_slice(storage, layout))
                .transpose()?,
            residual: residual.map(|(storage, layout)| cpu::slice(storage, layout)).transpose()?,
        };
        let narrow = residual.is_none() && self.layer.inner == DType::BF16;
        let name = || {
            let then = match (self.activation, residual) {
                (Some(_), _) => " + gelu",
                (None, Some(_)) => " + residual",
                (None, None) => "",
            };
            format!("linear {inner} to {out}{then}")
        };
        let y = timed(name, rows * inner * out, || match x {
            CpuStorage::BF16(_) => weight.forward::<bf16>(cpu::slice(x, x_layout)?, rows, finish, narrow),
            _ => weight.forward::<f32>(cpu::slice(x, x_layout)?, rows, finish, narrow),
        })?;
        Ok((y, Shape::from((rows, out))))
    }

    #[cfg(feature = "cuda")]
    fn plain(&self) -> Result<(&Tensor, Option<&Tensor>)> {
        match &self.layer.weight {
            Weight::Plain(weight) => Ok((weight, self.layer.bias.as_ref())),
            Weight::Packed(_) => {
                candle_core::bail!("linear: the weight is packed for the CPU, the input on a GPU")
            }
        }
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
        let (weight, bias) = self.plain()?;
        super::cuda::linear::linear((x, layout), weight, bias, self.activation, None)
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
        let (weight, bias) = self.plain()?;
        let residual = Some((residual, residual_layout));
        super::cuda::linear::linear((x, x_layout), weight, bias, self.activation, residual)
    }
}
