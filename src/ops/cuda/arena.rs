//! Where the buffers of a recorded batch lie in one block of memory.

/// Every buffer begins at a multiple of this, as allocations of the driver do: kernels and algorithms were chosen for such
/// addresses.
pub(super) const ALIGNMENT: usize = 256;

/// A buffer, and the first and last step that use it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Lifetime {
    pub(super) bytes: usize,
    pub(super) first: usize,
    pub(super) last: usize,
}

/// The offset of each buffer, and the bytes that they take together. Buffers that are used at the same time do not overlap.
///
/// The largest are placed first, each at the lowest offset that is free for its lifetime ("greedy by size", Pisarchyk and
/// Lee, 2020).
pub(super) fn pack(buffers: &[Lifetime]) -> (Vec<usize>, usize) {
    let mut order: Vec<usize> = (0..buffers.len()).collect();
    order.sort_by_key(|&i| std::cmp::Reverse(buffers[i].bytes));
    let mut offsets = vec![0; buffers.len()];
    // Offset, end and lifetime of what is placed, by offset.
    let mut placed: Vec<(usize, usize, Lifetime)> = Vec::new();
    let mut total = 0;
    for i in order {
        let buffer = buffers[i];
        let bytes = buffer.bytes.next_multiple_of(ALIGNMENT);
        let mut offset = 0;
        for (start, end, other) in &placed {
            let together = buffer.first <= other.last && other.first <= buffer.last;
            if together && offset + bytes > *start {
                offset = offset.max(*end);
            }
        }
        offsets[i] = offset;
        total = total.max(offset + bytes);
        let at = placed.partition_point(|(start, ..)| *start <= offset);
        placed.insert(at, (offset, offset + bytes, buffer));
    }
    (offsets, total)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lifetime(bytes: usize, first: usize, last: usize) -> Lifetime {
        Lifetime { bytes, first, last }
    }

    #[test]
    fn what_is_used_together_does_not_overlap() {
        // A generator, so that many shapes are seen.
        let mut state = 7u64;
        let mut next = |below: usize| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) as usize % below
        };
        for _ in 0..200 {
            let buffers: Vec<Lifetime> = (0..1 + next(40))
                .map(|_| {
                    let first = next(30);
                    lifetime(1 + next(5000), first, first + next(6))
                })
                .collect();
            let (offsets, total) = pack(&buffers);
            for (i, a) in buffers.iter().enumerate() {
                assert!(offsets[i].is_multiple_of(ALIGNMENT) && offsets[i] + a.bytes <= total);
                for (j, b) in buffers.iter().enumerate().skip(i + 1) {
                    let together = a.first <= b.last && b.first <= a.last;
                    let apart = offsets[i] + a.bytes <= offsets[j] || offsets[j] + b.bytes <= offsets[i];
                    assert!(!together || apart, "{a:?} at {} and {b:?} at {}", offsets[i], offsets[j]);
                }
            }
        }
    }

    #[test]
    fn memory_is_used_again() {
        // A chain: each step reads what the one before it wrote.
        let chain: Vec<Lifetime> = (0..50).map(|i| lifetime(1000, i, i + 1)).collect();
        assert_eq!(pack(&chain).1, 2048);
        assert_eq!(pack(&[]), (vec![], 0));
    }
}
