//! How fast a kernel's inner loop is where nothing keeps it waiting: what a tower's speed is held against.

use std::time::{Duration, Instant};

use super::buffer::with_scratch;
use super::kernel::{Kernel, Session};
use super::panels::{Matrix, Panels, a_panel, steps};
use super::quantize::Quantum;

/// Values of an operand along K: with them, one panel of each operand and its sums fit the first-level cache.
pub(super) const INNER: usize = 256;

/// Multiplications (each with an addition) a second of all threads of the pool together, each of which computes the
/// product of one panel of A and the first of `weight` over and over for so long.
///
/// # Safety
/// The processor must have the kernel's instructions.
pub(super) unsafe fn measure<M: Kernel>(weight: &Panels<M>, time: Duration) -> f64 {
    let steps = steps::<M>(weight.inner);
    let each = (M::ROWS * M::COLUMNS * steps * M::STEP) as f64;
    let speeds = rayon::broadcast(|_| {
        let x = vec![0.5f32; M::ROWS * weight.inner];
        let x = Matrix { data: &x, stride: weight.inner, columns: weight.inner };
        with_scratch::<M::A, _>(a_panel::<M>(weight.inner), |a| {
            with_scratch::<M::C, _>(M::ROWS * M::COLUMNS, |sums| {
                let mut quanta = vec![Quantum::default(); M::ROWS];
                M::pack(x, 0, M::ROWS, a, &mut quanta);
                // SAFETY: the caller promises the instructions.
                let _session = unsafe { Session::<M>::new() };
                let (mut count, started) = (0u32, Instant::now());
                while started.elapsed() < time {
                    for _ in 0..64 {
                        let (a, b) = (a.as_ptr(), weight.data.as_ptr());
                        // SAFETY: the instructions are promised and the session is open; `a` and the weight hold a panel
                        // of `steps` each, the weight on 64 bytes, and `sums` a block.
                        unsafe { M::product(a, b, steps, sums.as_mut_ptr(), M::COLUMNS, false) };
                    }
                    count += 64;
                }
                f64::from(count) * each / started.elapsed().as_secs_f64()
            })
        })
    });
    speeds.into_iter().sum()
}
