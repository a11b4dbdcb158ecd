//! Reads tensors by name onto the device that the towers run on.

use candle_core::Tensor;

use super::error::Result;
use super::{Table, Weights, coarse};
use crate::ops::{LayerNorm, Linear, Numerics};

/// A place in the tree of tensor names.
#[derive(Clone)]
pub(super) struct Loader<'a> {
    weights: &'a dyn Weights,
    prefix: String,
    numerics: &'a Numerics,
}

impl<'a> Loader<'a> {
    /// The root of the tree.
    pub(super) fn new(weights: &'a dyn Weights, numerics: &'a Numerics) -> Self {
        Self { weights, prefix: String::new(), numerics }
    }

    /// How the towers compute.
    pub(super) fn numerics(&self) -> &Numerics {
        self.numerics
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

    /// A tensor of which single rows are wanted.
    pub(super) fn table(&self, name: &str, shape: [usize; 2]) -> Result<Box<dyn Table>> {
        self.weights.table(&self.name(name), shape)
    }

    /// A tensor on the device, in the type of the towers.
    pub(super) fn tensor(&self, name: &str, shape: &[usize]) -> Result<Tensor> {
        Ok(self.numerics.place(&self.host(name, shape)?)?)
    }

    /// `name.weight` `[out, inner]` and `name.bias` `[out]`.
    pub(super) fn linear(&self, name: &str, inner: usize, out: usize) -> Result<Linear> {
        let at = self.at(name);
        Ok(self.numerics.linear(&at.host("weight", &[out, inner])?, &at.host("bias", &[out])?)?)
    }

    /// A norm, and the linear layers that follow it, each of several with their outputs side by side; `out` rows each.
    pub(super) fn normed_linears(
        &self,
        norm: &str,
        eps: f64,
        groups: &[&[&str]],
        (width, out): (usize, usize),
    ) -> Result<(LayerNorm, Vec<Linear>)> {
        let at = self.at(norm);
        let (mut gain, mut bias) = (at.host("weight", &[width])?, at.host("bias", &[width])?);
        let mut weights = groups
            .iter()
            .map(|names| Ok(Tensor::cat(&self.several(names, "weight", &[out, width])?, 0)?))
            .collect::<Result<Vec<_>>>()?;
        if self.numerics.is_coarse()
            && let Some(factors) = coarse::balance(&gain, &bias, &weights)?
        {
            (gain, bias) = ((gain / &factors)?, (bias / &factors)?);
            for weight in &mut weights {
                *weight = weight.broadcast_mul(&factors)?;
            }
        }
        let linears = weights.iter().zip(groups).map(|(weight, names)| {
            let bias = Tensor::cat(&self.several(names, "bias", &[out])?, 0)?;
            Ok(self.numerics.linear(weight, &bias)?)
        });
        let linears = linears.collect::<Result<_>>()?;
        Ok((self.numerics.layer_norm(&gain, &bias, eps)?, linears))
    }

    fn several(&self, names: &[&str], leaf: &str, shape: &[usize]) -> Result<Vec<Tensor>> {
        names.iter().map(|name| self.at(name).host(leaf, shape)).collect()
    }

    /// `name.weight` and `name.bias`, both `[width]`.
    pub(super) fn layer_norm(&self, name: &str, width: usize, eps: f64) -> Result<LayerNorm> {
        let at = self.at(name);
        Ok(self.numerics.layer_norm(&at.host("weight", &[width])?, &at.host("bias", &[width])?, eps)?)
    }
}
