//! Rows of words of 32 bits turned into columns: how packing interleaves the lanes of a panel where a unit of a lane is 4
//! bytes, as it is for f32, pairs of bf16 and fours of bytes.

use super::vectorised::Level;

/// Rows that are interleaved at once, and words of each.
pub const BLOCK: usize = 8;

/// Writes `rows` `[8][words]` as columns: word `k` of row `i` goes to `to[k · lanes + i]`.
///
/// # Panics
/// If `rows` is not 8 rows of the same number of words, or `to` is too short.
pub fn interleave(rows: &[u32], to: &mut [u32], lanes: usize) {
    let words = rows.len() / BLOCK;
    assert!(rows.len() == words * BLOCK && lanes >= BLOCK, "eight rows, of which each has a lane");
    assert!(words == 0 || to.len() >= (words - 1) * lanes + BLOCK, "room for the last column");
    let whole = words / BLOCK * BLOCK;
    match Level::active() {
        // SAFETY: the level is one that the processor has, and the sizes were checked.
        #[cfg(target_arch = "x86_64")]
        Level::Avx2 | Level::Avx512 => unsafe {
            for k in (0..whole).step_by(BLOCK) {
                block(rows.as_ptr().add(k), words, to.as_mut_ptr().add(k * lanes), lanes);
            }
        },
        _ => columns(rows, words, 0..whole, to, lanes),
    }
    columns(rows, words, whole..words, to, lanes);
}

fn columns(rows: &[u32], words: usize, range: std::ops::Range<usize>, to: &mut [u32], lanes: usize) {
    for k in range {
        for (i, to) in to[k * lanes..][..BLOCK].iter_mut().enumerate() {
            *to = rows[i * words + k];
        }
    }
}

/// Turns one block of 8 × 8: pairs of rows, then fours, then halves of registers.
///
/// # Safety
/// The processor must have AVX2; `from` must point to 8 rows of 8 words, `words` apart, and `to` to 8 rows of 8, `lanes`
/// apart.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
unsafe fn block(from: *const u32, words: usize, to: *mut u32, lanes: usize) {
    use std::arch::x86_64::*;

    // SAFETY: the caller promises the rows.
    let rows: [__m256i; BLOCK] =
        std::array::from_fn(|i| unsafe { _mm256_loadu_si256(from.add(i * words).cast()) });
    // In each half of a register: words of rows 0 and 1 by turns, of 2 and 3, and so on.
    let pairs: [__m256i; BLOCK] = std::array::from_fn(|i| {
        let (a, b) = (rows[i / 2 * 2], rows[i / 2 * 2 + 1]);
        if i % 2 == 0 { _mm256_unpacklo_epi32(a, b) } else { _mm256_unpackhi_epi32(a, b) }
    });
    // Words k and k + 4 of four rows: `fours[4 · h + k]` of the rows from 4 · h on.
    let fours: [__m256i; BLOCK] = std::array::from_fn(|i| {
        let (h, k) = (i / 4, i % 4);
        let (a, b) = (pairs[4 * h + k / 2], pairs[4 * h + 2 + k / 2]);
        if k % 2 == 0 { _mm256_unpacklo_epi64(a, b) } else { _mm256_unpackhi_epi64(a, b) }
    });
    for k in 0..4 {
        let (a, b) = (fours[k], fours[4 + k]);
        // SAFETY: the caller promises these columns.
        unsafe {
            _mm256_storeu_si256(to.add(k * lanes).cast(), _mm256_permute2x128_si256::<0x20>(a, b));
            _mm256_storeu_si256(to.add((k + 4) * lanes).cast(), _mm256_permute2x128_si256::<0x31>(a, b));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::cpu::vectorised::tests::at_every_level;

    #[test]
    fn rows_become_columns() {
        at_every_level(|level| {
            for words in [0, 1, 7, 8, 9, 64, 77] {
                for lanes in [8, 16, 48] {
                    let rows: Vec<u32> = (0..(words * BLOCK) as u32).collect();
                    let mut to = vec![u32::MAX; words * lanes];
                    interleave(&rows, &mut to, lanes);
                    for (k, group) in to.chunks_exact(lanes).enumerate() {
                        let expected = (0..BLOCK).map(|i| (i * words + k) as u32);
                        assert!(group[..BLOCK].iter().copied().eq(expected), "{level:?} {words} {lanes}");
                        assert!(group[BLOCK..].iter().all(|&word| word == u32::MAX), "{level:?}");
                    }
                }
            }
        });
    }
}
