//! Linear layers through cuBLASLt, with what follows them fused where it has that.

use candle_core::backend::BackendStorage;
use candle_core::{CudaStorage, DType, Layout, Result, Shape, Tensor};

use super::launch::Argument::{Address, Int, Size};
use super::launch::elementwise_grid;
use super::lt::{Fused, Operands, Product};
use super::{Context, int, kernel};
use crate::ops::Activation;

/// What cuBLASLt can do of bias and activation, and the activation that is left. Its GELU is the approximation by tanh.
fn split(bias: bool, activation: Option<Activation>) -> (Fused, Option<Activation>) {
    match (bias, activation) {
        (true, Some(Activation::GeluTanh)) => (Fused::BiasGelu, None),
        (false, Some(Activation::GeluTanh)) => (Fused::Gelu, None),
        (true, rest) => (Fused::Bias, rest),
        (false, rest) => (Fused::Nothing, rest),
    }
}

/// `x` `[rows, in]` times the transpose of `weight` `[out, in]` → `[rows, out]`; see [`crate::ops::Linear`]. A layer has
/// an activation or a residual, not both.
pub(in crate::ops) fn linear(
    x: (&CudaStorage, &Layout),
    weight: &Tensor,
    bias: Option<&Tensor>,
    activation: Option<Activation>,
    residual: Option<(&CudaStorage, &Layout)>,
) -> Result<(CudaStorage, Shape)> {
    let (rows, inner) = x.1.shape().dims2()?;
    let (out, expected) = weight.dims2()?;
    let shape = Shape::from((rows, out));
    if inner == 0 || inner != expected || bias.is_some_and(|bias| bias.elem_count() != out) {
        candle_core::bail!("linear: the input has {inner} columns, the weight takes {expected}");
    }
    if residual.is_some_and(|(_, layout)| layout.shape() != &shape) {
        candle_core::bail!("linear: the residual is not of the result's shape {shape:?}");
    }
    if activation.is_some() && residual.is_some() {
        candle_core::bail!("linear: an activation and a residual");
    }
    let (device, dtype) = (&x.0.device, x.0.dtype());
    let context = Context::of(device)?;
    let (y, to) = context.output(device, &shape, dtype)?;
    if rows * out == 0 {
        return Ok((y, shape));
    }
    let operands = Operands {
        x: context.address(x.0, x.1)?,
        weight: context.constant_address(weight, device, dtype)?,
        bias: bias.map_or(Ok(0), |bias| context.constant_address(bias, device, dtype))?,
        residual: match residual {
            Some((storage, _)) if storage.dtype() != dtype => {
                candle_core::bail!("linear: a residual of another type")
            }
            Some((storage, layout)) => context.address(storage, layout)?,
            None => 0,
        },
        y: to,
    };
    let alignment = alignment([operands.x, operands.weight, operands.bias, operands.residual, to]);
    let (fused, rest) = split(bias.is_some(), activation);
    let product = Product { rows, out, inner, dtype, fused, residual: residual.is_some(), alignment };
    // SAFETY: the operands have the product's shapes and type (checked above) and are on the context's device.
    if unsafe { context.lt.multiply(&context.stream, &product, operands)? } {
        if rest.is_some() {
            let only_activation = Operands { bias: 0, residual: 0, ..operands };
            // SAFETY: `y` has `rows · out` values of the type.
            unsafe { finish(&context, only_activation, rest, (rows, out), dtype)? };
        }
        return Ok((y, shape));
    }
    let plain = Product { fused: Fused::Nothing, residual: false, ..product };
    // SAFETY: as above.
    if !unsafe { context.lt.multiply(&context.stream, &plain, operands)? } {
        candle_core::bail!("linear: cuBLASLt has no product for {plain:?}");
    }
    // SAFETY: `y` and the residual have `rows · out` values of the type, the bias `out`.
    unsafe { finish(&context, operands, activation, (rows, out), dtype)? };
    Ok((y, shape))
}

/// Applies bias, activation and residual to `y` in place.
///
/// # Safety
/// `y` and, unless 0, the residual must have `rows · out` values of the type, and the bias, unless 0, `out`.
unsafe fn finish(
    context: &Context,
    operands: Operands,
    activation: Option<Activation>,
    (rows, out): (usize, usize),
    dtype: DType,
) -> Result<()> {
    // As `kernels/elementwise.cu` numbers them.
    let activation = match activation {
        None => 0,
        Some(Activation::GeluTanh) => 1,
        Some(Activation::GeluErf) => 2,
    };
    let function = context.function(kernel!("epilogue", dtype))?;
    let columns = int(out)?;
    let arguments = [
        Address(operands.y),
        Address(operands.bias),
        Address(operands.residual),
        Int(activation),
        Size(rows),
        Int(columns),
    ];
    // SAFETY: the caller's; the kernel takes any number of blocks.
    unsafe { context.launch(&function, elementwise_grid(rows * out, 0), &arguments) }
}

/// Largest power of two, at most 256, that divides every address.
fn alignment<const N: usize>(addresses: [u64; N]) -> u32 {
    let bits = addresses.into_iter().fold(256, |bits, address| bits | address);
    1 << bits.trailing_zeros()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alignment_is_that_of_the_worst_address() {
        assert_eq!(alignment([0, 4096, 512]), 256);
        assert_eq!(alignment([4096, 48, 0]), 16);
        assert_eq!(alignment([2, 4]), 2);
        assert_eq!(alignment([3, 4]), 1);
    }

    #[test]
    fn what_cublaslt_cannot_do_is_left() {
        use Activation::{GeluErf, GeluTanh};
        assert_eq!(split(true, Some(GeluTanh)), (Fused::BiasGelu, None));
        assert_eq!(split(true, Some(GeluErf)), (Fused::Bias, Some(GeluErf)));
        assert_eq!(split(true, None), (Fused::Bias, None));
        assert_eq!(split(false, None), (Fused::Nothing, None));
    }
}
