//! cuBLASLt: matrix products with their ends.

use std::ffi::c_void;
use std::sync::{Arc, Mutex};

use candle_core::cuda_backend::cudarc::cublaslt::{result, sys};
use candle_core::cuda_backend::cudarc::driver::{CudaSlice, CudaStream, DevicePtr, sys as driver_sys};
use candle_core::{DType, Error, Result};

use super::algorithms::{Choices, fastest};
use super::lock;
use super::tape::{self, Step};

/// Bytes that cuBLASLt may use beside its operands: NVIDIA's recommendation for Hopper; it does no harm elsewhere.
const WORKSPACE: usize = 32 << 20;
/// Products whose algorithm is remembered: NaFlex batches come in any number of rows.
const PLANS: usize = 4096;
/// Products whose algorithms are timed, about ten a shape of batch: timing costs as much as a few batches.
const TIMED: usize = 1024;
/// Algorithms that are compared.
const PROPOSALS: usize = 8;
/// Runs that are timed, behind one that is not.
const RUNS: usize = 3;

/// What cuBLASLt does to a product before it writes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Fused {
    Nothing,
    Bias,
    Gelu,
    BiasGelu,
}

/// A product: `rows` × `inner` times `inner` × `out`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Product {
    pub(super) rows: usize,
    pub(super) out: usize,
    pub(super) inner: usize,
    pub(super) dtype: DType,
    pub(super) fused: Fused,
    pub(super) residual: bool,
    /// Largest power of two, at most 256, that divides every address.
    pub(super) alignment: u32,
}

/// Addresses of a product's operands; `bias` and `residual` may be 0.
#[derive(Debug, Clone, Copy)]
pub(super) struct Operands {
    pub(super) x: u64,
    pub(super) weight: u64,
    pub(super) bias: u64,
    pub(super) residual: u64,
    pub(super) y: u64,
}

/// How cuBLASLt computes a product.
#[derive(Clone, Copy)]
pub(super) struct Algorithm(sys::cublasLtMatmulAlgo_t);

/// cuBLASLt on one stream.
pub(super) struct Lt {
    handle: sys::cublasLtHandle_t,
    workspace: CudaSlice<u8>,
    choices: Mutex<Choices<Product, Algorithm>>,
    /// Whether algorithms are timed.
    tuning: bool,
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
    pub(super) fn new(stream: &Arc<CudaStream>, tuning: bool) -> Result<Self> {
        // SAFETY: scratch memory: cuBLASLt reads only what it wrote.
        let workspace = unsafe { stream.alloc::<u8>(WORKSPACE) }.map_err(Error::wrap)?;
        let handle = result::create_handle().map_err(Error::wrap)?;
        Ok(Self { handle, workspace, choices: Mutex::new(Choices::new(PLANS, TIMED)), tuning })
    }

    /// Starts a product on the stream; `false` if cuBLASLt has none that does all of it.
    ///
    /// # Safety
    /// The operands must be those of the product, on the stream's device.
    pub(super) unsafe fn multiply(
        &self,
        stream: &CudaStream,
        product: &Product,
        operands: Operands,
    ) -> Result<bool> {
        let known = lock(&self.choices).get(product);
        let algorithm = match known {
            Some(known) => known,
            // SAFETY: the caller's.
            None => unsafe { self.choose(stream, product, operands)? },
        };
        let Some(algorithm) = algorithm else { return Ok(false) };
        // SAFETY: the caller's.
        unsafe { self.start(stream, product, operands, algorithm)? };
        tape::step(|| Step::Product { product: *product, operands, algorithm });
        Ok(true)
    }

    /// The algorithm for a product that was not met before: the fastest of those that cuBLASLt proposes, each timed on the
    /// operands themselves, or, when enough were timed, its first proposal.
    ///
    /// # Safety
    /// As [`Self::multiply`].
    unsafe fn choose(
        &self,
        stream: &CudaStream,
        product: &Product,
        operands: Operands,
    ) -> Result<Option<Algorithm>> {
        stream.context().bind_to_thread().map_err(Error::wrap)?;
        let timed = self.tuning && lock(&self.choices).may_time();
        let wanted = if timed { PROPOSALS } else { 1 };
        let proposals = Call::new(product, operands.bias).map_err(Error::wrap)?.proposals(
            self.handle,
            product.alignment,
            wanted,
        )?;
        let chosen = match proposals.as_slice() {
            // With one there is nothing to compare.
            [] | [_] => proposals.first().copied(),
            // SAFETY: the caller's. What a run writes, the next one, which writes the same, overwrites: no operand is
            // read and written.
            _ => fastest(&proposals, |algorithm| unsafe { self.time(stream, product, operands, *algorithm) }),
        };
        lock(&self.choices).insert(*product, chosen, proposals.len() > 1);
        Ok(chosen)
    }

    /// Milliseconds of a few runs; `None` if the algorithm fails.
    ///
    /// # Safety
    /// As [`Self::multiply`].
    unsafe fn time(
        &self,
        stream: &CudaStream,
        product: &Product,
        operands: Operands,
        algorithm: Algorithm,
    ) -> Option<f32> {
        let event = || stream.record_event(Some(driver_sys::CUevent_flags::CU_EVENT_DEFAULT)).ok();
        // The first run loads code.
        // SAFETY: the caller's.
        unsafe { self.start(stream, product, operands, algorithm) }.ok()?;
        let before = event()?;
        for _ in 0..RUNS {
            // SAFETY: the caller's.
            unsafe { self.start(stream, product, operands, algorithm) }.ok()?;
        }
        before.elapsed_ms(&event()?).ok()
    }

    /// Starts a product with an algorithm on any stream.
    ///
    /// # Safety
    /// The operands must be those of the product, the algorithm one for it, and no two streams may use this at once: they
    /// share the workspace.
    pub(super) unsafe fn start(
        &self,
        stream: &CudaStream,
        product: &Product,
        operands: Operands,
        algorithm: Algorithm,
    ) -> Result<()> {
        stream.context().bind_to_thread().map_err(Error::wrap)?;
        let call = Call::new(product, operands.bias).map_err(Error::wrap)?;
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
                &raw const algorithm.0,
                self.workspace.device_ptr(stream).0 as *mut c_void,
                WORKSPACE,
                stream.cu_stream().cast(),
            )
        }
        .map_err(Error::wrap)
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

    /// The algorithms that cuBLASLt thinks fastest, the best first, at most `wanted`; none if it cannot do all of it.
    fn proposals(
        &self,
        handle: sys::cublasLtHandle_t,
        alignment: u32,
        wanted: usize,
    ) -> Result<Vec<Algorithm>> {
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
        let mut found: Vec<sys::cublasLtMatmulHeuristicResult_t> = Vec::with_capacity(wanted);
        let mut count = 0;
        // SAFETY: every description is alive and was made for this product; there is room for `wanted` results.
        let status = unsafe {
            sys::cublasLtMatmulAlgoGetHeuristic(
                handle,
                self.product.0,
                self.weight.0,
                self.x.0,
                self.y.0,
                self.y.0,
                preference.0,
                wanted as i32,
                found.as_mut_ptr(),
                &raw mut count,
            )
        };
        match status {
            sys::cublasStatus_t::CUBLAS_STATUS_SUCCESS => {}
            sys::cublasStatus_t::CUBLAS_STATUS_NOT_SUPPORTED => return Ok(Vec::new()),
            status => return Err(Error::wrap(result::CublasError(status))),
        }
        // SAFETY: so many results were written, no more than there is room for.
        unsafe { found.set_len(usize::try_from(count).unwrap_or(0).min(wanted)) };
        let good = |result: &sys::cublasLtMatmulHeuristicResult_t| {
            result.state == sys::cublasStatus_t::CUBLAS_STATUS_SUCCESS && result.workspaceSize <= WORKSPACE
        };
        Ok(found.into_iter().filter(good).map(|result| Algorithm(result.algo)).collect())
    }
}

#[cfg(test)]
impl Default for Algorithm {
    fn default() -> Self {
        Self(sys::cublasLtMatmulAlgo_t { data: [0; 8] })
    }
}

/// A product for tests.
#[cfg(test)]
pub(super) fn product((rows, out, inner): (usize, usize, usize), dtype: DType, fused: Fused) -> Product {
    Product { rows, out, inner, dtype, fused, residual: false, alignment: 256 }
}
