//! Memory on cache lines.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::cell::RefCell;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;

use half::bf16;

/// Cache lines, and the rows of AMX tiles.
const ALIGNMENT: usize = 64;

/// Numbers without padding, for which any bits, and so zeros, are a value.
///
/// # Safety
/// That must be true of the type.
pub unsafe trait Plain: Copy + Send + Sync + 'static {}

// SAFETY: any bits are a number of these types.
unsafe impl Plain for f32 {}
// SAFETY: any bits are a number of these types.
unsafe impl Plain for bf16 {}
// SAFETY: any bits are a number of these types.
unsafe impl Plain for i8 {}
// SAFETY: any bits are a number of these types.
unsafe impl Plain for u8 {}
// SAFETY: any bits are a number of these types.
unsafe impl Plain for i16 {}
// SAFETY: any bits are a number of these types.
unsafe impl Plain for i32 {}

/// Has the alignment of [`ALIGNMENT`].
#[repr(align(64))]
struct Line;

/// Values that begin on a cache line.
#[derive(Debug)]
pub struct Buffer<T: Plain> {
    start: NonNull<T>,
    len: usize,
    /// What was allocated: it begins up to [`ALIGNMENT`] bytes before `start`.
    allocated: NonNull<u8>,
}

// SAFETY: it owns its values, which may themselves be sent and shared.
unsafe impl<T: Plain> Send for Buffer<T> {}
// SAFETY: it owns its values, which may themselves be sent and shared.
unsafe impl<T: Plain> Sync for Buffer<T> {}

impl<T: Plain> Buffer<T> {
    /// Zeros.
    pub fn zeros(len: usize) -> Self {
        if len == 0 {
            return Self::default();
        }
        let layout = Self::layout(len);
        // SAFETY: the layout is not empty.
        let allocated = unsafe { alloc_zeroed(layout) };
        let allocated = NonNull::new(allocated).unwrap_or_else(|| handle_alloc_error(layout));
        // SAFETY: there are as many bytes more than the values take.
        let start = unsafe { allocated.add(allocated.align_offset(ALIGNMENT)) }.cast();
        Self { start, len, allocated }
    }

    /// With room to begin on a cache line. Asking the allocator for that would have it write the zeros, where fresh pages
    /// are zeros already.
    fn layout(len: usize) -> Layout {
        let bytes = len.saturating_mul(size_of::<T>()).saturating_add(ALIGNMENT);
        Layout::from_size_align(bytes, align_of::<T>())
            .unwrap_or_else(|_| handle_alloc_error(Layout::new::<T>()))
    }

    /// At least so many values: what was there, or zeros.
    pub fn at_least(&mut self, len: usize) -> &mut [T] {
        if self.len < len {
            *self = Self::default(); // first give back what is too small
            *self = Self::zeros(len);
        }
        &mut self[..len]
    }
}

impl<T: Plain> Default for Buffer<T> {
    fn default() -> Self {
        // Aligned for values of any type, of which there are none.
        let nothing = NonNull::<Line>::dangling();
        Self { start: nothing.cast(), len: 0, allocated: nothing.cast() }
    }
}

impl<T: Plain> Drop for Buffer<T> {
    fn drop(&mut self) {
        if self.len > 0 {
            // SAFETY: it was allocated with this layout.
            unsafe { dealloc(self.allocated.as_ptr(), Self::layout(self.len)) };
        }
    }
}

impl<T: Plain> Deref for Buffer<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        // SAFETY: there are `len` values, and any bits are one.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }
}

impl<T: Plain> DerefMut for Buffer<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: there are `len` values, and any bits are one; they are borrowed mutably with the buffer.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.len) }
    }
}

/// The same bytes as words of 32 bits.
///
/// # Panics
/// If they are not whole words on whole words.
pub fn as_words<T: Plain>(values: &[T]) -> &[u32] {
    // SAFETY: plain values have no padding, and any bits are a word.
    let (before, words, after) = unsafe { values.align_to::<u32>() };
    assert!(before.is_empty() && after.is_empty(), "whole words");
    words
}

/// As [`as_words`], to be written.
///
/// # Panics
/// As [`as_words`].
pub fn as_words_mut<T: Plain>(values: &mut [T]) -> &mut [u32] {
    // SAFETY: plain values have no padding, any bits are a word, and any bits are plain values.
    let (before, words, after) = unsafe { values.align_to_mut::<u32>() };
    assert!(before.is_empty() && after.is_empty(), "whole words");
    words
}

/// The same values under the name of another type, if it is the same type.
pub fn same_type<T: Plain, U: Plain>(values: &[T]) -> Option<&[U]> {
    let same = std::any::TypeId::of::<T>() == std::any::TypeId::of::<U>();
    // SAFETY: the types are one.
    same.then(|| unsafe { std::slice::from_raw_parts(values.as_ptr().cast(), values.len()) })
}

/// A thread's own bytes, kept from task to task, as values of any type: no page faults in the steady state.
///
/// What they hold is left from other tasks.
pub fn with_scratch<T: Plain, R>(len: usize, run: impl FnOnce(&mut [T]) -> R) -> R {
    thread_local! {
        static SCRATCH: RefCell<Vec<Buffer<u8>>> = const { RefCell::new(Vec::new()) };
    }
    // Taken out, so that a task within a task gets another one.
    let mut buffer = SCRATCH.with_borrow_mut(Vec::pop).unwrap_or_default();
    let size = len.checked_mul(size_of::<T>()).expect("scratch memory within the address space");
    let bytes = buffer.at_least(size);
    // SAFETY: the bytes are initialised, on 64 bytes, as many as `len` values take, and any bits are such a value.
    let values = unsafe { std::slice::from_raw_parts_mut(bytes.as_mut_ptr().cast::<T>(), len) };
    let result = run(values);
    SCRATCH.with_borrow_mut(|kept| kept.push(buffer));
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scratch_is_aligned_kept_and_apart() {
        let first = with_scratch::<f32, _>(100, |outer| {
            outer.fill(1.0);
            let inner = with_scratch::<u8, _>(1000, |inner| {
                inner.fill(7);
                inner.as_ptr() as usize
            });
            assert!(outer.iter().all(|&x| x == 1.0));
            assert_eq!(inner % ALIGNMENT, 0);
            outer.as_ptr() as usize
        });
        assert_eq!(first % ALIGNMENT, 0);
        assert_eq!(first, with_scratch::<f32, _>(50, |again| again.as_ptr() as usize));
        assert!(Buffer::<f32>::zeros(0).is_empty());
        const { assert!(align_of::<Line>() == ALIGNMENT) };
        // On a thread that has no scratch yet, too.
        let none =
            std::thread::spawn(|| with_scratch::<f32, _>(0, |none| (none.len(), none.as_ptr() as usize)));
        let (count, start) = none.join().expect("no panic");
        assert_eq!((count, start % ALIGNMENT), (0, 0));
    }
}
