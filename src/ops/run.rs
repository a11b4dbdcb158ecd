//! A batch's bytes on their way to a tower, and its vectors on their way back.

use std::marker::PhantomData;

use candle_core::{Device, Error, Result, Tensor};

/// The bytes of a batch where a tower reads them first.
pub enum Input<'a> {
    /// On the host, one piece behind the other.
    Host(&'a [&'a [u8]]),
    /// On a GPU.
    #[cfg(feature = "cuda")]
    Device(super::cuda::transfer::DeviceBytes),
}

impl<'a> Input<'a> {
    /// Starts taking pieces, one behind the other, to a device.
    ///
    /// # Errors
    /// If the device has no room for them.
    pub fn new(pieces: &'a [&'a [u8]], device: &Device) -> Result<Self> {
        match device {
            #[cfg(feature = "cuda")]
            Device::Cuda(device) => {
                Ok(Self::Device(super::cuda::transfer::DeviceBytes::upload(pieces, device)?))
            }
            _ => Ok(Self::Host(pieces)),
        }
    }

    /// The pieces, on the host.
    pub(super) fn pieces(&self) -> Result<&[&'a [u8]]> {
        match self {
            Self::Host(pieces) => Ok(pieces),
            #[cfg(feature = "cuda")]
            Self::Device(_) => candle_core::bail!("an input on a GPU for a tower elsewhere"),
        }
    }

    /// Token ids that [`super::rows::id_bytes`] made bytes of, on the host.
    ///
    /// # Errors
    /// If they are on a GPU.
    pub fn ids(&self) -> Result<Vec<u32>> {
        let ids = self.pieces()?.iter().flat_map(|piece| piece.as_chunks().0);
        Ok(ids.map(|bytes| u32::from_ne_bytes(*bytes)).collect())
    }

    /// Number of bytes.
    pub fn count(&self) -> usize {
        match self {
            Self::Host(pieces) => pieces.iter().map(|piece| piece.len()).sum(),
            #[cfg(feature = "cuda")]
            Self::Device(bytes) => bytes.count(),
        }
    }
}

/// A batch: what distinguishes its shape, and its bytes.
#[cfg_attr(not(feature = "cuda"), allow(dead_code, reason = "the processor needs the bytes alone"))]
pub struct Batch<'a, K> {
    /// Batches of the same key are computed by the same launches over other bytes.
    pub key: K,
    /// Its tokens.
    pub rows: usize,
    /// The input, one piece behind the other.
    pub pieces: &'a [&'a [u8]],
    /// Another valid input of this shape, that gives another result: what is set up for a shape is tried on it.
    pub other: &'a dyn Fn() -> Vec<u8>,
}

/// Runs a tower over batches, on a GPU in the way that suits their size.
pub struct Runner<K> {
    #[cfg(feature = "cuda")]
    on_gpu: Option<super::cuda::runner::Runner<K>>,
    key: PhantomData<fn() -> K>,
}

impl<K: PartialEq + Clone> Runner<K> {
    /// For a tower on a device.
    ///
    /// # Errors
    /// If it is a GPU that this crate did not open.
    pub fn new(device: &Device) -> Result<Self> {
        let _ = device;
        Ok(Self {
            #[cfg(feature = "cuda")]
            on_gpu: match device {
                Device::Cuda(device) => Some(super::cuda::runner::Runner::new(device)?),
                _ => None,
            },
            key: PhantomData,
        })
    }

    /// What `forward` gives of a batch, f32, on the host. `forward` may run more than once.
    ///
    /// # Errors
    /// Those of `forward`, and of the device.
    pub fn run<E: From<Error>>(
        &self,
        batch: &Batch<'_, K>,
        forward: &dyn Fn(&Input<'_>) -> std::result::Result<Tensor, E>,
    ) -> std::result::Result<Vec<f32>, E> {
        #[cfg(feature = "cuda")]
        if let Some(runner) = &self.on_gpu {
            return runner.run(batch, forward);
        }
        Ok(forward(&Input::Host(batch.pieces))?.flatten_all()?.to_vec1()?)
    }

    /// How many shapes run as CUDA graphs now.
    pub fn graphs(&self) -> usize {
        #[cfg(feature = "cuda")]
        if let Some(runner) = &self.on_gpu {
            return runner.graphs();
        }
        0
    }
}
