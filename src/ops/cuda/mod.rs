//! Kernels for NVIDIA GPUs: f32, f16 and bf16, over candle's tensors.
//!
//! All computing of a device is on the one stream that [`open`] gives it, so that what is written here is read there
//! without events; inputs come over a second one ([`transfer`]). Small batches are launched as CUDA graphs ([`runner`]).
//! The kernels are in `kernels/`; `tests/gpu/emulate` checks them without a GPU, `tests/gpu/run` with one.

mod algorithms;
mod arena;
pub mod attention;
mod cache;
mod capability;
mod driver;
mod graph;
mod launch;
pub mod linear;
mod lt;
pub mod norm;
pub mod pixels;
pub mod rows;
pub mod runner;
mod tape;
pub mod transfer;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use candle_core::backend::BackendDevice;
use candle_core::cuda_backend::cudarc::driver::result::{device, mem_pool};
use candle_core::cuda_backend::cudarc::driver::{
    CudaContext, CudaFunction, CudaModule, CudaStream, DevicePtr, LaunchConfig, sys,
};
use candle_core::cuda_backend::cudarc::nvrtc::Ptx;
use candle_core::cuda_backend::{CudaStorageSlice, DeviceId};
use candle_core::op::BackpropOp;
use candle_core::{CudaDevice, CudaStorage, DType, Device, Error, Layout, Result, Shape, Storage, Tensor};

/// What nvcc made of each file in `kernels/`.
const MODULES: [&[u8]; 6] = [
    include_bytes!(concat!(env!("OUT_DIR"), "/attention.fatbin")),
    include_bytes!(concat!(env!("OUT_DIR"), "/attention_plain.fatbin")),
    include_bytes!(concat!(env!("OUT_DIR"), "/elementwise.fatbin")),
    include_bytes!(concat!(env!("OUT_DIR"), "/norm.fatbin")),
    include_bytes!(concat!(env!("OUT_DIR"), "/probe.fatbin")),
    include_bytes!(concat!(env!("OUT_DIR"), "/rows.fatbin")),
];

/// What the operator chooses about GPUs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// Whether small batches may be launched as CUDA graphs.
    pub graphs: bool,
    /// Whether the algorithms of matrix products are timed.
    pub tuning: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self { graphs: true, tuning: true }
    }
}

/// Opens a GPU by its number, with a stream of its own for all work on it.
///
/// # Errors
/// If NVIDIA's libraries are not there, or the GPU cannot be used: the message says which and why.
pub fn open(ordinal: usize, options: Options) -> Result<Device> {
    driver::load().map_err(Error::Msg)?;
    let device = Device::new_cuda_with_stream(ordinal)?;
    let cuda = device.as_cuda_device()?;
    // SAFETY: every tensor of this device is used on its one stream only (`Context::of` refuses others), so there is
    // nothing for events to order.
    unsafe { cuda.disable_event_tracking() };
    keep_memory(cuda.cuda_stream().context())?;
    // Loads the kernels: a GPU that they were not compiled for is refused now, not in the first batch.
    let context = Arc::new(Context::new(cuda, options)?);
    lock(&CONTEXTS).push((cuda.id(), context));
    Ok(device)
}

/// Whether a GPU computes bf16 products: those of compute capability 8.0 and later do.
///
/// # Errors
/// If it is no GPU, or none that [`open`] opened.
pub fn has_bf16(device: &Device) -> Result<bool> {
    Ok(Context::of(device.as_cuda_device()?)?.major >= 8)
}

/// Lets the pool of `cuMemAllocAsync` keep what was freed: by default each synchronisation gives it all back to the
/// system, and the next batch pays for it again.
fn keep_memory(context: &Arc<CudaContext>) -> Result<()> {
    if !context.has_async_alloc() {
        return Ok(());
    }
    let everything = u64::MAX;
    // SAFETY: the device is a valid one, and the attribute is a cuuint64_t, which is read before the call returns.
    unsafe {
        let pool = device::get_default_mem_pool(context.cu_device()).map_err(Error::wrap)?;
        mem_pool::set_attribute(
            pool,
            sys::CUmemPool_attribute::CU_MEMPOOL_ATTR_RELEASE_THRESHOLD,
            (&raw const everything).cast_mut().cast(),
        )
        .map_err(Error::wrap)
    }
}

/// What a device needs beside candle's own: kernels, cuBLASLt, and pinned memory for uploads.
struct Context {
    stream: Arc<CudaStream>,
    modules: Vec<Arc<CudaModule>>,
    functions: Mutex<HashMap<&'static str, CudaFunction>>,
    /// Major number of the compute capability.
    major: i32,
    lt: lt::Lt,
    transfers: transfer::Transfers,
    options: Options,
    /// Held while a batch is put on the stream: two threads' batches come one after the other, not kernel by kernel.
    turn: Mutex<()>,
}

static CONTEXTS: Mutex<Vec<(DeviceId, Arc<Context>)>> = Mutex::new(Vec::new());

impl Context {
    fn new(device: &CudaDevice, options: Options) -> Result<Self> {
        let stream = device.cuda_stream();
        let context = stream.context();
        let capability = context.compute_capability().map_err(Error::wrap)?;
        capability::check(&capability::compiled(), capability).map_err(Error::Msg)?;
        let load = |image: &&[u8]| context.load_module(Ptx::from_binary(image.to_vec())).map_err(Error::wrap);
        Ok(Self {
            modules: MODULES.iter().map(load).collect::<Result<_>>()?,
            functions: Mutex::default(),
            major: capability.0,
            lt: lt::Lt::new(&stream, options.tuning)?,
            transfers: transfer::Transfers::new(context)?,
            options,
            turn: Mutex::default(),
            stream,
        })
    }

    /// The context of a device that [`open`] opened. It stays until the process ends.
    fn of(device: &CudaDevice) -> Result<Arc<Self>> {
        let contexts = lock(&CONTEXTS);
        match contexts.iter().find(|(id, _)| *id == device.id()) {
            Some((_, context)) => Ok(Arc::clone(context)),
            // Its stream would be that of each thread.
            None => candle_core::bail!(
                "open the GPU with siglip::ops::cuda::open, which gives it a stream of its own"
            ),
        }
    }

    fn function(&self, name: &'static str) -> Result<CudaFunction> {
        let mut functions = lock(&self.functions);
        if let Some(function) = functions.get(name) {
            return Ok(function.clone());
        }
        let found = self.modules.iter().find_map(|module| module.load_function(name).ok());
        let Some(function) = found else { candle_core::bail!("no kernel is called {name}") };
        functions.insert(name, function.clone());
        Ok(function)
    }

    /// Address of the first value behind a contiguous layout.
    fn address(&self, storage: &CudaStorage, layout: &Layout) -> Result<u64> {
        let Some((first, _)) = layout.contiguous_offsets() else {
            candle_core::bail!("a kernel was given a tensor that is not contiguous");
        };
        let stream = self.stream.as_ref();
        let (base, size) = match &storage.slice {
            CudaStorageSlice::F32(values) => (values.device_ptr(stream).0, 4),
            CudaStorageSlice::F16(values) => (values.device_ptr(stream).0, 2),
            CudaStorageSlice::BF16(values) => (values.device_ptr(stream).0, 2),
            CudaStorageSlice::U32(values) => (values.device_ptr(stream).0, 4),
            _ => candle_core::bail!("a kernel was given a tensor of another type than f32, f16 or bf16"),
        };
        Ok(base + (first * size) as u64)
    }

    /// The same for a whole tensor, which must be of this type and on this device.
    fn tensor_address(&self, tensor: &Tensor, device: &CudaDevice, dtype: DType) -> Result<u64> {
        if tensor.dtype() != dtype {
            candle_core::bail!("a kernel for {dtype:?} was given a tensor of {:?}", tensor.dtype());
        }
        let (storage, layout) = tensor.storage_and_layout();
        match &*storage {
            Storage::Cuda(storage) if storage.device.same_device(device) => self.address(storage, layout),
            _ => candle_core::bail!("a kernel was given a tensor on another device"),
        }
    }

    /// The same for a tensor that is no result of the batch: it is the same for every batch of this shape.
    fn constant_address(&self, tensor: &Tensor, device: &CudaDevice, dtype: DType) -> Result<u64> {
        let address = self.tensor_address(tensor, device, dtype)?;
        tape::hold(tensor, address);
        Ok(address)
    }

    /// Room for a result; its values are whatever was there.
    fn output(&self, device: &CudaDevice, shape: &Shape, dtype: DType) -> Result<(CudaStorage, u64)> {
        // SAFETY: the caller's kernel writes every value before anything else on the stream reads one.
        let storage = unsafe { device.alloc_uninit(shape, dtype) }?;
        let address = self.address(&storage, &Layout::contiguous(shape))?;
        tape::made(address, shape.elem_count() * dtype.size_in_bytes());
        Ok((storage, address))
    }

    /// The same as a tensor of `rows` × `width`.
    fn matrix(&self, device: &CudaDevice, shape: (usize, usize), dtype: DType) -> Result<(Tensor, u64)> {
        let shape = Shape::from(shape);
        let (storage, address) = self.output(device, &shape, dtype)?;
        Ok((Tensor::from_storage(Storage::Cuda(storage), shape, BackpropOp::none(), false), address))
    }
}

/// The kernel of a name for a type.
macro_rules! kernel {
    ($name:literal, $dtype:expr) => {
        match $dtype {
            candle_core::DType::F32 => concat!($name, "_f32"),
            candle_core::DType::F16 => concat!($name, "_f16"),
            candle_core::DType::BF16 => concat!($name, "_bf16"),
            dtype => candle_core::bail!("there is no kernel for {dtype:?}"),
        }
    };
}
use kernel;

/// Says in a recording that a tensor which a later operation takes is the same for every batch of this shape.
///
/// # Errors
/// If it is not on a GPU that [`open`] opened.
pub(in crate::ops) fn constant(tensor: &Tensor) -> Result<()> {
    let device = tensor.device().as_cuda_device()?;
    Context::of(device)?.constant_address(tensor, device, tensor.dtype()).map(drop)
}

/// A grid of one dimension and its blocks.
fn grid(blocks: u32, threads: u32, shared_bytes: u32) -> LaunchConfig {
    LaunchConfig { grid_dim: (blocks, 1, 1), block_dim: (threads, 1, 1), shared_mem_bytes: shared_bytes }
}

/// A number as kernels count.
fn int(number: usize) -> Result<i32> {
    i32::try_from(number).map_err(|_| Error::Msg(format!("{number} is more than a kernel counts")))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What is behind the locks is whole between any two operations on it.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
