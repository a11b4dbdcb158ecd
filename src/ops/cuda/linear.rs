//! Linear layers through cuBLASLt, with what follows them fused where it has that.

use std::collections::HashMap;
use std::ffi::c_void;
use std::sync::{Arc, Mutex};

use candle_core::backend::BackendStorage;
use candle_core::cuda_backend::cudarc::cublaslt::{result, sys};
use candle_core::cuda_backend::cudarc::driver::{CudaSlice, CudaStream, DevicePtr, PushKernelArg};
use candle_core::{CudaStorage, DType, Error, Layout, Result, Shape, Tensor};

use super::{Context, grid, int, kernel, lock};
use crate::model::Activation;

/// Bytes that cuBLASLt may use beside its operands: NVIDIA's recommendation for Hopper; it does no harm elsewhere.
const WORKSPACE: usize = 32 << 20;
/// Products whose algorithm is remembered: NaFlex batches come in any number of rows.
const PLANS: usize = 4096;
/// Threads of a block: `ELEMENTWISE_THREADS` of `kernels/elementwise.cu`.
pub(super) const ELEMENTWISE_THREADS: u32 = 256;

/// What cuBLASLt does to a product before it writes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Fused {
    Nothing,
    Bias,
    Gelu,
    BiasGelu,
}

/// A product: `rows` × `inner` times `inner` × `out`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Product {
    rows: usize,
    out: usize,
    inner: usize,
    dtype: DType,
    fused: Fused,
    residual: bool,
    /// Largest power of two, at most 256, that divides every address.
    alignment: u32,
}

/// Addresses of a product's operands; `bias` and `residual` may be 0.
#[derive(Debug, Clone, Copy)]
struct Operands {
    x: u64,
    weight: u64,
    bias: u64,
    residual: u64,
    y: u64,
}

/// cuBLASLt on one stream.
pub(super) struct Lt {
    handle: sys::cublasLtHandle_t,
    workspace: CudaSlice<u8>,
    /// The algorithm of each product seen, or that there is none.
    plans: Mutex<HashMap<Product, Option<sys::cublasLtMatmulAlgo_t>>>,
}

// SAFETY: a cuBLASLt handle may be used by any thread, and by several at once ("cuBLAS", thread safety); the workspace is
// used by the work of one stream only, in its order.
unsafe impl Send for Lt {}
// SAFETY: as above.
unsafe impl Sync for Lt {}

impl Drop for Lt {
    fn drop(&mut self) {
        // SAFETY: the handle was made by `Lt::new` and is not used any more. That it cannot be destroyed is of no
        // consequence to anybody.
        let _ = unsafe { result::destroy_handle(self.handle) };
    }
}

impl Lt {
    pub(super) fn new(stream: &Arc<CudaStream>) -> Result<Self> {
        // SAFETY: scratch memory: cuBLASLt reads only what it wrote.
        let workspace = unsafe { stream.alloc::<u8>(WORKSPACE) }.map_err(Error::wrap)?;
        let handle = result::create_handle().map_err(Error::wrap)?;
        Ok(Self { handle, workspace, plans: Mutex::default() })
    }

    /// Starts a product on the stream; `false` if cuBLASLt has none that does all of it.
    ///
    /// # Safety
    /// The operands must be those of the product, on the stream's device.
    unsafe fn multiply(&self, stream: &CudaStream, product: &Product, operands: Operands) -> Result<bool> {
        let known = lock(&self.plans).get(product).copied();
        if known == Some(None) {
            return Ok(false);
        }
        stream.context().bind_to_thread().map_err(Error::wrap)?;
        let call = Call::new(product, operands.bias).map_err(Error::wrap)?;
        let algorithm = match known.flatten() {
            Some(algorithm) => algorithm,
            None => {
                let found = call.choose(self.handle, product.alignment)?;
                let mut plans = lock(&self.plans);
                if plans.len() >= PLANS {
                    plans.clear();
                }
                plans.insert(*product, found);
                match found {
                    Some(algorithm) => algorithm,
                    None => return Ok(false),
                }
            }
        };
        let one = 1.0f32;
        let beta = if product.residual { 1.0f32 } else { 0.0 };
        let c = if product.residual { operands.residual } else { operands.y };
        // SAFETY: the descriptions are those of the operands (the caller's), which live until the stream has come this
        // far, since what frees them is on the same stream; alpha and beta are read before the call returns.
        unsafe {
            result::matmul(
                self.handle,
                call.product.0,
                (&raw const one).cast(),
                (&raw const beta).cast(),
                operands.weight as *const c_void,
                call.weight.0,
                operands.x as *const c_void,
                call.x.0,
                c as *const c_void,
                call.y.0,
                operands.y as *mut c_void,
                call.y.0,
                &raw const algorithm,
                self.workspace.device_ptr(stream).0 as *mut c_void,
                WORKSPACE,
                stream.cu_stream().cast(),
            )
        }
        .map_err(Error::wrap)?;
        Ok(true)
    }
}

/// cuBLASLt's description of a product. It counts by columns: our row-major `y = x · weightᵀ` is its
/// `yᵀ = (weightᵀ)ᵀ · xᵀ`, where `weight` is the transposed left operand and nothing moves in memory.
struct Call {
    product: Description,
    weight: Matrix,
    x: Matrix,
    y: Matrix,
}

struct Description(sys::cublasLtMatmulDesc_t);
struct Matrix(sys::cublasLtMatrixLayout_t);
struct Preference(sys::cublasLtMatmulPreference_t);

impl Drop for Description {
    fn drop(&mut self) {
        // SAFETY: made by `create_matmul_desc`, and not used any more.
        let _ = unsafe { result::destroy_matmul_desc(self.0) };
    }
}

impl Drop for Matrix {
    fn drop(&mut self) {
        // SAFETY: made by `create_matrix_layout`, and not used any more.
        let _ = unsafe { result::destroy_matrix_layout(self.0) };
    }
}

impl Drop for Preference {
    fn drop(&mut self) {
        // SAFETY: made by `create_matmul_pref`, and not used any more.
        let _ = unsafe { result::destroy_matmul_pref(self.0) };
    }
}

impl Description {
    /// Sets an attribute, whose type must be the one that cuBLASLt documents.
    fn set<T>(
        &self,
        attribute: sys::cublasLtMatmulDescAttributes_t,
        value: &T,
    ) -> std::result::Result<(), result::CublasError> {
        // SAFETY: the description is alive, and as many bytes as the value has are read before the call returns.
        unsafe {
            result::set_matmul_desc_attribute(self.0, attribute, (value as *const T).cast(), size_of::<T>())
        }
    }
}

impl Call {
    fn new(product: &Product, bias: u64) -> std::result::Result<Self, result::CublasError> {
        use sys::cublasLtMatmulDescAttributes_t as Attribute;
        let dtype = match product.dtype {
            DType::F16 => sys::cudaDataType::CUDA_R_16F,
            DType::BF16 => sys::cudaDataType::CUDA_R_16BF,
            _ => sys::cudaDataType::CUDA_R_32F,
        };
        let matrix = |rows: usize, columns: usize| {
            result::create_matrix_layout(dtype, rows as u64, columns as u64, rows as i64).map(Matrix)
        };
        // f32 is f32, not TF32: it is what other types are measured against.
        let description = Description(result::create_matmul_desc(
            sys::cublasComputeType_t::CUBLAS_COMPUTE_32F,
            sys::cudaDataType::CUDA_R_32F,
        )?);
        // CUBLAS_OP_T.
        description.set(Attribute::CUBLASLT_MATMUL_DESC_TRANSA, &1i32)?;
        let epilogue = match product.fused {
            Fused::Nothing => sys::cublasLtEpilogue_t::CUBLASLT_EPILOGUE_DEFAULT,
            Fused::Bias => sys::cublasLtEpilogue_t::CUBLASLT_EPILOGUE_BIAS,
            Fused::Gelu => sys::cublasLtEpilogue_t::CUBLASLT_EPILOGUE_GELU,
            Fused::BiasGelu => sys::cublasLtEpilogue_t::CUBLASLT_EPILOGUE_GELU_BIAS,
        };
        description.set(Attribute::CUBLASLT_MATMUL_DESC_EPILOGUE, &epilogue)?;
        if matches!(product.fused, Fused::Bias | Fused::BiasGelu) {
            description.set(Attribute::CUBLASLT_MATMUL_DESC_BIAS_POINTER, &bias)?;
        }
        Ok(Self {
            product: description,
            weight: matrix(product.inner, product.out)?,
            x: matrix(product.inner, product.rows)?,
            y: matrix(product.out, product.rows)?,
        })
    }

    /// The algorithm that cuBLASLt thinks fastest, if it has one.
    fn choose(
        &self,
        handle: sys::cublasLtHandle_t,
        alignment: u32,
    ) -> Result<Option<sys::cublasLtMatmulAlgo_t>> {
        use sys::cublasLtMatmulPreferenceAttributes_t as Attribute;
        let preference = Preference(result::create_matmul_pref().map_err(Error::wrap)?);
        let workspace = WORKSPACE;
        let set = |attribute, value: *const c_void, bytes| {
            // SAFETY: the preference is alive; the values are of the types that cuBLASLt documents (size_t for the
            // workspace, uint32_t for alignments) and are read before the call returns.
            unsafe { result::set_matmul_pref_attribute(preference.0, attribute, value, bytes) }
                .map_err(Error::wrap)
        };
        set(
            Attribute::CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
            (&raw const workspace).cast(),
            size_of::<usize>(),
        )?;
        for attribute in [
            Attribute::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES,
            Attribute::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
            Attribute::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES,
            Attribute::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES,
        ] {
            set(attribute, (&raw const alignment).cast(), size_of::<u32>())?;
        }
        // SAFETY: every description is alive and was made for this product.
        let found = unsafe {
            result::get_matmul_algo_heuristic(
                handle,
                self.product.0,
                self.weight.0,
                self.x.0,
                self.y.0,
                self.y.0,
                preference.0,
            )
        };
        match found {
            Ok(found) => Ok(Some(found.algo)),
            Err(result::CublasError(sys::cublasStatus_t::CUBLAS_STATUS_NOT_SUPPORTED)) => Ok(None),
            Err(error) => Err(Error::wrap(error)),
        }
    }
}

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
        weight: context.tensor_address(weight, device, dtype)?,
        bias: bias.map_or(Ok(0), |bias| context.tensor_address(bias, device, dtype))?,
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
    // SAFETY: the caller's; the kernel takes any number of blocks.
    unsafe {
        context.launch(&function, elementwise_grid(rows * out, 0), |call| {
            call.arg(&operands.y).arg(&operands.bias).arg(&operands.residual);
            call.arg(&activation).arg(&rows).arg(&columns);
        })
    }
}

/// Blocks for `values` values, about eight a thread, and no more than fill any GPU: threads go on in steps of the grid.
pub(super) fn elementwise_grid(
    values: usize,
    shared_bytes: u32,
) -> candle_core::cuda_backend::cudarc::driver::LaunchConfig {
    let blocks = values.div_ceil(8 * ELEMENTWISE_THREADS as usize).clamp(1, 4096) as u32;
    grid(blocks, ELEMENTWISE_THREADS, shared_bytes)
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

    #[test]
    fn a_grid_has_blocks_for_any_number_of_values() {
        assert_eq!(elementwise_grid(1, 0).grid_dim, (1, 1, 1));
        assert_eq!(elementwise_grid(2049, 0).grid_dim, (2, 1, 1));
        assert_eq!(elementwise_grid(usize::MAX / 2, 0).grid_dim, (4096, 1, 1));
    }
}
