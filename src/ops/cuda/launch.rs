//! Kernels on the stream, with their arguments as values: so that a batch can be written down and launched again.

use candle_core::cuda_backend::cudarc::driver::{CudaFunction, CudaStream, LaunchConfig, PushKernelArg};
use candle_core::{Error, Result};

use super::tape::{self, Step};
use super::{Context, grid};

/// Threads of a block: `ELEMENTWISE_THREADS` of `kernels/elementwise.cu`, `ROWS_THREADS` of `kernels/rows.cu`.
pub(super) const ELEMENTWISE_THREADS: u32 = 256;

/// An argument of a kernel.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Argument {
    /// A pointer; 0 for null.
    Address(u64),
    /// `int`.
    Int(i32),
    /// `size_t`.
    Size(usize),
    /// `float`.
    Float(f32),
}

impl Context {
    /// Runs a kernel on the stream.
    ///
    /// # Safety
    /// The arguments must be those that the kernel takes, their addresses valid for what it reads and writes until the
    /// stream has come that far, and the grid, block and shared memory those that it expects.
    pub(super) unsafe fn launch(
        &self,
        function: &CudaFunction,
        config: LaunchConfig,
        arguments: &[Argument],
    ) -> Result<()> {
        if config.grid_dim.1 > 65535 || config.grid_dim.2 > 65535 {
            candle_core::bail!("a kernel for {:?} blocks", config.grid_dim);
        }
        // SAFETY: the caller's.
        unsafe { start(&self.stream, function, config, arguments)? };
        tape::step(|| Step::Kernel { function: function.clone(), config, arguments: arguments.to_vec() });
        Ok(())
    }
}

/// Starts a kernel on any stream.
///
/// # Safety
/// As [`Context::launch`].
pub(super) unsafe fn start(
    stream: &CudaStream,
    function: &CudaFunction,
    config: LaunchConfig,
    arguments: &[Argument],
) -> Result<()> {
    let mut builder = stream.launch_builder(function);
    for argument in arguments {
        match argument {
            Argument::Address(value) => builder.arg(value),
            Argument::Int(value) => builder.arg(value),
            Argument::Size(value) => builder.arg(value),
            Argument::Float(value) => builder.arg(value),
        };
    }
    // SAFETY: the caller's.
    unsafe { builder.launch(config) }.map_err(Error::wrap)?;
    Ok(())
}

/// Blocks for `values` values, about eight a thread, and no more than fill any GPU: threads go on in steps of the grid.
pub(super) fn elementwise_grid(values: usize, shared_bytes: u32) -> LaunchConfig {
    let blocks = values.div_ceil(8 * ELEMENTWISE_THREADS as usize).clamp(1, 4096) as u32;
    grid(blocks, ELEMENTWISE_THREADS, shared_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_grid_has_blocks_for_any_number_of_values() {
        assert_eq!(elementwise_grid(1, 0).grid_dim, (1, 1, 1));
        assert_eq!(elementwise_grid(2049, 0).grid_dim, (2, 1, 1));
        assert_eq!(elementwise_grid(usize::MAX / 2, 0).grid_dim, (4096, 1, 1));
    }
}
