//! Layer normalisation.

use candle_core::backend::BackendStorage;
use candle_core::{CudaStorage, Layout, Result, Shape, Tensor};

use super::launch::Argument::{Address, Float, Int};
use super::{Context, grid, int, kernel};

/// Rows of a block: `NORM_ROWS` of `kernels/norm.cu`.
pub(super) const ROWS: usize = 4;

/// `x` `[rows, width]` → the same shape; see [`crate::ops::LayerNorm`].
pub(in crate::ops) fn layer_norm(
    x: &CudaStorage,
    layout: &Layout,
    weight: &Tensor,
    bias: &Tensor,
    eps: f32,
) -> Result<(CudaStorage, Shape)> {
    let shape = layout.shape();
    let (rows, width) = shape.dims2()?;
    if weight.elem_count() != width || bias.elem_count() != width {
        candle_core::bail!("layer norm: the input is {width} wide, the gain {}", weight.elem_count());
    }
    let (device, dtype) = (&x.device, x.dtype());
    let context = Context::of(device)?;
    let (y, to) = context.output(device, shape, dtype)?;
    if rows * width == 0 {
        return Ok((y, shape.clone()));
    }
    let from = context.address(x, layout)?;
    let weight = context.constant_address(weight, device, dtype)?;
    let bias = context.constant_address(bias, device, dtype)?;
    let function = context.function(kernel!("layer_norm", dtype))?;
    let (rows, width) = (int(rows)?, int(width)?);
    let config = grid((rows as u32).div_ceil(ROWS as u32), 32 * ROWS as u32, 0);
    let arguments =
        [Address(from), Address(weight), Address(bias), Address(to), Int(rows), Int(width), Float(eps)];
    // SAFETY: `x` and `y` have `rows · width` values, the others `width`, all of the kernel's type (checked above).
    unsafe { context.launch(&function, config, &arguments)? };
    Ok((y, shape.clone()))
}
