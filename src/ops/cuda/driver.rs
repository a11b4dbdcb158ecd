//! NVIDIA's libraries, found when the program runs.
//!
//! candle links them, and a program that is linked to `libcuda.so.1` does not start where there is no driver. So each
//! function of theirs that this program can reach is defined here as a jump through a slot, and [`load`] fills the slots
//! from the libraries. The linker then finds nothing that it needs of the libraries themselves and leaves them out
//! (`--as-needed`, which Rust asks for; the default linker, lld, looks at what is left after removing dead code).
//! A function that is missing below only means that its library is needed at the start again; with
//! `readelf -d target/release/siglip` one sees whether it is.

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
pub use slots::load;

/// Elsewhere the libraries are linked.
///
/// # Errors
/// None.
#[cfg(not(all(target_os = "linux", target_arch = "x86_64")))]
pub fn load() -> Result<(), String> {
    Ok(())
}

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod slots {
    use std::arch::global_asm;
    use std::ffi::{CStr, CString, c_char, c_int, c_void};
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicPtr, Ordering};

    unsafe extern "C" {
        fn dlopen(file: *const c_char, flags: c_int) -> *mut c_void;
        fn dlsym(library: *mut c_void, name: *const c_char) -> *mut c_void;
        fn dlerror() -> *const c_char;
    }

    /// Defines the functions of a library as jumps through slots that follow one another at `$slots`. They are hidden:
    /// NVIDIA's libraries call each other by the same names and must not find these (cuRAND needs the real runtime
    /// library). That the linker may leave those calls to the dynamic linker is said in build.rs.
    macro_rules! library {
        ($constant:ident, $slots:ident: $($name:ident)*) => {
            global_asm!(
                concat!(".pushsection .data.", stringify!($slots), ",\"aw\",@progbits\n.balign 8"),
                concat!(".globl ", stringify!($slots), "\n.hidden ", stringify!($slots), "\n", stringify!($slots), ":"),
                $(concat!("siglip_slot_", stringify!($name), ": .quad siglip_missing_function"),)*
                ".popsection",
                concat!(".pushsection .text.", stringify!($slots), ",\"ax\",@progbits"),
                $(concat!(
                    ".globl ", stringify!($name), "\n.hidden ", stringify!($name), "\n.type ", stringify!($name),
                    ",@function\n", stringify!($name),
                    ": jmp qword ptr [rip + siglip_slot_", stringify!($name), "]"
                ),)*
                ".popsection",
            );
            // Those of the runtime library are never filled.
            #[allow(dead_code)]
            unsafe extern "C" {
                static $slots: AtomicPtr<c_void>;
            }
            const $constant: &[&str] = &[$(stringify!($name)),*];
        };
    }

    // A function that was not found answers 100, the driver's "no device".
    global_asm!(
        ".pushsection .text.siglip_missing_function,\"ax\",@progbits",
        ".globl siglip_missing_function",
        ".hidden siglip_missing_function",
        "siglip_missing_function: mov eax, 100",
        "ret",
        ".popsection",
    );

    library! { DRIVER, siglip_slots_driver:
        cuCtxDestroy_v2 cuCtxGetCurrent cuCtxSetCurrent cuCtxSynchronize cuDeviceComputeCapability cuDeviceGet
        cuDeviceGetAttribute cuDeviceGetDefaultMemPool cuDevicePrimaryCtxRelease_v2 cuDevicePrimaryCtxRetain
        cuEventCreate cuEventDestroy_v2 cuEventElapsedTime cuEventElapsedTime_v2 cuEventRecord
        cuEventSynchronize cuGetErrorString cuGraphDestroy cuGraphExecDestroy cuGraphInstantiateWithFlags
        cuGraphLaunch cuInit cuLaunchKernel cuMemAllocAsync cuMemAlloc_v2 cuMemFreeAsync cuMemFreeHost
        cuMemFree_v2 cuMemHostAlloc cuMemPoolSetAttribute cuMemcpyDtoDAsync_v2 cuMemcpyDtoHAsync_v2
        cuMemcpyHtoDAsync_v2 cuMemcpyPeerAsync cuMemsetD8Async cuModuleGetFunction cuModuleLoad
        cuModuleLoadData cuModuleUnload cuStreamBeginCapture_v2 cuStreamCreate cuStreamDestroy_v2
        cuStreamEndCapture cuStreamIsCapturing cuStreamSynchronize cuStreamWaitEvent
    }
    library! { BLAS, siglip_slots_blas:
        cublasCreate_v2 cublasDestroy_v2 cublasDgemmStridedBatched cublasGemmStridedBatchedEx cublasSetStream_v2
    }
    library! { BLAS_LT, siglip_slots_blas_lt:
        cublasLtCreate cublasLtDestroy cublasLtMatmul cublasLtMatmulAlgoGetHeuristic cublasLtMatmulDescCreate
        cublasLtMatmulDescDestroy cublasLtMatmulDescSetAttribute cublasLtMatmulPreferenceCreate
        cublasLtMatmulPreferenceDestroy cublasLtMatmulPreferenceSetAttribute cublasLtMatrixLayoutCreate
        cublasLtMatrixLayoutDestroy cublasLtMatrixLayoutSetAttribute
    }
    library! { RANDOM, siglip_slots_random:
        curandCreateGenerator curandDestroyGenerator curandSetPseudoRandomGeneratorSeed curandSetStream
    }
    // candle's kernels for mixtures of experts are compiled against the runtime library and register themselves before
    // `main`. They are not used here: these functions are never filled, and all they do is to say that there is no GPU.
    library! { _RUNTIME, siglip_slots_runtime:
        __cudaGetKernel __cudaLaunchKernel_ptsz __cudaPopCallConfiguration __cudaPushCallConfiguration
        __cudaRegisterFatBinary __cudaRegisterFatBinaryEnd __cudaRegisterFunction __cudaRegisterVar
        __cudaUnregisterFatBinary cudaDeviceGetAttribute cudaFree cudaFreeAsync_ptsz cudaFuncGetAttributes
        cudaFuncSetAttribute cudaGetDevice cudaGetDeviceCount cudaGetErrorName cudaGetErrorString cudaGetLastError
        cudaMalloc cudaMallocAsync_ptsz cudaMemsetAsync_ptsz
        cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags cudaPeekAtLastError cudaSetDevice
        cudaStreamSynchronize_ptsz
    }

    /// Loads the libraries, once.
    ///
    /// # Errors
    /// Which library is not there, in words for the operator.
    pub fn load() -> Result<(), String> {
        static LOADED: OnceLock<Result<(), String>> = OnceLock::new();
        LOADED.get_or_init(load_all).clone()
    }

    fn load_all() -> Result<(), String> {
        let toolkit = "the CUDA libraries were not found";
        // SAFETY: each address is of as many slots as there are names: the macro makes both.
        unsafe {
            fill("libcuda.so.1", "no NVIDIA driver was found", DRIVER, &raw const siglip_slots_driver)?;
            fill(
                concat!("libcublasLt.so.", env!("SIGLIP_CUDA_MAJOR")),
                toolkit,
                BLAS_LT,
                &raw const siglip_slots_blas_lt,
            )?;
            fill(
                concat!("libcublas.so.", env!("SIGLIP_CUDA_MAJOR")),
                toolkit,
                BLAS,
                &raw const siglip_slots_blas,
            )?;
            fill("libcurand.so.10", toolkit, RANDOM, &raw const siglip_slots_random)
        }
    }

    /// Points the slots to the functions of a library.
    ///
    /// # Safety
    /// `slots` must be the address of as many slots as there are names.
    unsafe fn fill(
        file: &str,
        missing: &str,
        names: &[&str],
        slots: *const AtomicPtr<c_void>,
    ) -> Result<(), String> {
        let string = |text: &str| CString::new(text).map_err(|error| error.to_string());
        let path = string(file)?;
        // SAFETY: a valid string; NVIDIA's libraries may be opened at any time. RTLD_NOW.
        let library = unsafe { dlopen(path.as_ptr(), 2) };
        if library.is_null() {
            // SAFETY: null, or a string that stays until this thread's next call.
            let why = unsafe { dlerror().as_ref().map(|message| CStr::from_ptr(message).to_string_lossy()) };
            return Err(format!("{missing} ({})", why.unwrap_or_else(|| file.into())));
        }
        for (i, name) in names.iter().enumerate() {
            let name = string(name)?;
            // SAFETY: an open library, which is never closed, and a valid string.
            let function = unsafe { dlsym(library, name.as_ptr()) };
            // What an older library lacks stays missing.
            if !function.is_null() {
                // SAFETY: the caller's: there is a slot for each name. It is eight bytes, aligned, and otherwise read by
                // jumps only, each of them after `load` returned to who makes it.
                unsafe { &*slots.add(i) }.store(function, Ordering::Release);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn without_a_driver_there_is_a_reason() {
        // Where there is one, there is nothing to say.
        if let Err(reason) = super::load() {
            assert!(reason.contains("libcuda.so.1") || reason.contains("CUDA libraries"), "{reason}");
        }
    }
}
