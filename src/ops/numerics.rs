//! Where the towers compute, and in what numbers.

use candle_core::{DType, Device, Result, Tensor};

use super::{LayerNorm, Linear, WeightFormat};

/// A device and the types of what is on it.
///
/// On the CPU tokens are f32 between blocks, whatever the weights' format: it costs little and keeps the sums of many
/// layers exact. Within a block they are f32 or bf16 as the weights. On a GPU everything is of one type.
#[derive(Debug, Clone)]
pub struct Numerics {
    device: Device,
    dtype: DType,
    weights: WeightFormat,
}

impl Numerics {
    /// The processor, with weights in this format.
    pub fn cpu(weights: WeightFormat) -> Self {
        Self { device: Device::Cpu, dtype: DType::F32, weights }
    }

    /// A GPU, and the type of everything on it.
    pub fn gpu(device: Device, dtype: DType) -> Self {
        Self { device, dtype, weights: WeightFormat::F32 }
    }

    /// The same for layers that bytes are too coarse for and that cost little: the first, of which every other takes its
    /// input, and those of the heads, which see one row an item. bf16 in the place of bytes.
    #[must_use]
    pub fn fine(&self) -> Self {
        let weights = match self.weights {
            WeightFormat::Int8 => WeightFormat::Bf16,
            other => other,
        };
        Self { weights, ..self.clone() }
    }

    /// Whether weights are bytes.
    pub fn is_coarse(&self) -> bool {
        self.weights == WeightFormat::Int8
    }

    /// Where.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// The type of tokens between blocks, and of tables.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// Puts a tensor where the towers compute, in the type of [`Numerics::dtype`].
    ///
    /// # Errors
    /// If the device has no room.
    pub fn place(&self, tensor: &Tensor) -> Result<Tensor> {
        tensor.to_dtype(self.dtype)?.to_device(&self.device)?.contiguous()
    }

    /// A linear layer, from `weight` `[out, in]` and `bias` `[out]` in f32 on the CPU.
    ///
    /// # Errors
    /// If they are not that, or the device has no room.
    pub fn linear(&self, weight: &Tensor, bias: &Tensor) -> Result<Linear> {
        let bias = Some(self.place(bias)?);
        if self.device.is_cpu() {
            Linear::packed(weight, bias, self.weights)
        } else {
            Ok(Linear::new(self.place(weight)?, bias))
        }
    }

    /// A layer norm whose result goes on into a linear layer, from f32 on the CPU.
    ///
    /// # Errors
    /// If the device has no room.
    pub fn layer_norm(&self, weight: &Tensor, bias: &Tensor, eps: f64) -> Result<LayerNorm> {
        let norm = LayerNorm::new(self.place(weight)?, self.place(bias)?, eps);
        Ok(if self.device.is_cpu() { norm.narrowed(self.weights.activations()) } else { norm })
    }
}
