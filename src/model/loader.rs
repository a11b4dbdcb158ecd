//! Reads tensors by name onto the device that the towers run on.

use candle_core::{DType, Device, Tensor};

use super::Weights;
use crate::Result;
use crate::ops::{LayerNorm, Linear};

/// A place in the tree of tensor names.
#[derive(Clone)]
pub(super) struct Loader<'a> {
    weights: &'a dyn Weights,
    prefix: String,
    device: &'a Device,
    dtype: DType,
}

impl<'a> Loader<'a> {
    /// The root of the tree.
    pub(super) fn new(weights: &'a dyn Weights, device: &'a Device, dtype: DType) -> Self {
        Self { weights, prefix: String::new(), device, dtype }
    }

    /// One level down.
    pub(super) fn at(&self, name: impl std::fmt::Display) -> Self {
        Self { prefix: self.name(&name.to_string()), ..self.clone() }
    }

    fn name(&self, leaf: &str) -> String {
        if self.prefix.is_empty() { leaf.to_owned() } else { format!("{}.{leaf}", self.prefix) }
    }

    /// A tensor as it is stored, f32 on the CPU.
    pub(super) fn host(&self, name: &str, shape: &[usize]) -> Result<Tensor> {
        self.weights.tensor(&self.name(name), shape)
    }

    /// A tensor on the device, in the type of the towers.
    pub(super) fn tensor(&self, name: &str, shape: &[usize]) -> Result<Tensor> {
        self.place(self.host(name, shape)?)
    }

    /// Puts a tensor where the towers run, in their type.
    pub(super) fn place(&self, tensor: Tensor) -> Result<Tensor> {
        Ok(tensor.to_dtype(self.dtype)?.to_device(self.device)?.contiguous()?)
    }

    /// `name.weight` `[out, inner]` and `name.bias` `[out]`.
    pub(super) fn linear(&self, name: &str, inner: usize, out: usize) -> Result<Linear> {
        let at = self.at(name);
        Ok(Linear::new(at.tensor("weight", &[out, inner])?, Some(at.tensor("bias", &[out])?))?)
    }

    /// Several linear layers of the same input as one, their outputs side by side.
    pub(super) fn fused_linear(&self, names: &[&str], inner: usize, out: usize) -> Result<Linear> {
        let read = |leaf: &str, shape: &[usize]| {
            names.iter().map(|name| self.at(name).host(leaf, shape)).collect::<Result<Vec<_>>>()
        };
        let weight = Tensor::cat(&read("weight", &[out, inner])?, 0)?;
        let bias = Tensor::cat(&read("bias", &[out])?, 0)?;
        Ok(Linear::new(self.place(weight)?, Some(self.place(bias)?))?)
    }

    /// `name.weight` and `name.bias`, both `[width]`.
    pub(super) fn layer_norm(&self, name: &str, width: usize, eps: f64) -> Result<LayerNorm> {
        let at = self.at(name);
        Ok(LayerNorm::new(at.tensor("weight", &[width])?, at.tensor("bias", &[width])?, eps))
    }
}
