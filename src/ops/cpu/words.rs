//! Rows of words of 32 bits turned into columns: how packing interleaves the lanes of a panel where a unit of a lane is 4
//! bytes, as it is for f32, pairs of bf16 and fours of bytes.

use super::vectorised::Level;

/// Rows that are interleaved at once, and words of each.
pub const BLOCK: usize = 8;

/// Writes rows as columns: word `k` of row `i` goes to `to[k · lanes + i]`. Where there are fewer lanes than rows, the rest of the
/// rows is left out.
///
/// # Panics
/// If the rows are not of the same length, `to` is too short, or there is no lane.
pub fn interleave(rows: [&[u32]; BLOCK], to: &mut [u32], lanes: usize) {
    let (words, used) = (rows[0].len(), lanes.min(BLOCK));
    assert!(rows.iter().all(|row| row.len() == words), "rows of the same length");
    assert!(lanes > 0 && (words == 0 || to.len() >= (words - 1) * lanes + used), "room for the last column");
    // A block writes eight words for each column. With fewer lanes, the next column is written over what is too much. The last
    // block has none behind it and is left to `columns`: the eight columns after a block have room for what it writes too much,
    // since there is a lane.
    let whole = if lanes < BLOCK { words.saturating_sub(BLOCK) } else { words } / BLOCK * BLOCK;
    match Level::active() {
        // SAFETY: the level is one that the processor has, and the sizes were checked.
        #[cfg(target_arch = "x86_64")]
        Level::Avx2 | Level::Avx512 => unsafe {
            for k in (0..whole).step_by(BLOCK) {
                block(rows.map(|row| row.as_ptr().add(k)), to.as_mut_ptr().add(k * lanes), lanes);
            }
        },
        // SAFETY: every processor of this kind has NEON, and the sizes were checked.
        #[cfg(target_arch = "aarch64")]
        _ => unsafe {
            for k in (0..whole).step_by(BLOCK / 2) {
                block(rows.map(|row| row.as_ptr().add(k)), to.as_mut_ptr().add(k * lanes), lanes);
            }
        },
        #[cfg(not(target_arch = "aarch64"))]
        _ => columns(rows, 0..whole, to, lanes),
    }
    columns(rows, whole..words, to, lanes);
}

fn columns(rows: [&[u32]; BLOCK], range: std::ops::Range<usize>, to: &mut [u32], lanes: usize) {
    for k in range {
        for (row, to) in rows.iter().zip(to[k * lanes..].iter_mut().take(lanes)) {
            *to = row[k];
        }
    }
}

/// Turns one block of 8 × 8: pairs of rows, then fours, then halves of registers.
///
/// # Safety
/// The processor must have AVX2; each of `rows` must point to 8 words, and `to` to 8 times 8, `lanes` apart.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
unsafe fn block(rows: [*const u32; BLOCK], to: *mut u32, lanes: usize) {
    use std::arch::x86_64::*;

    // SAFETY: the caller promises the rows.
    let rows: [__m256i; BLOCK] = rows.map(|row| unsafe { _mm256_loadu_si256(row.cast()) });
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
    // In ascending order: with fewer lanes than rows each covers what the one before wrote too much.
    for k in 0..BLOCK {
        let (a, b) = (fours[k % 4], fours[4 + k % 4]);
        let column = if k < 4 {
            _mm256_permute2x128_si256::<0x20>(a, b)
        } else {
            _mm256_permute2x128_si256::<0x31>(a, b)
        };
        // SAFETY: the caller promises this column.
        unsafe { _mm256_storeu_si256(to.add(k * lanes).cast(), column) };
    }
}

/// Turns half a block, 8 rows of 4 words.
///
/// # Safety
/// Each of `rows` must point to 4 words, and `to` to 4 times 8, `lanes` apart.
#[cfg(target_arch = "aarch64")]
#[target_feature(enable = "neon")]
unsafe fn block(rows: [*const u32; BLOCK], to: *mut u32, lanes: usize) {
    use std::arch::aarch64::*;

    let turn = |rows: [*const u32; 4]| {
        // SAFETY: the caller promises the rows.
        let rows = rows.map(|row| unsafe { vld1q_u32(row) });
        let pair = |a, b| (vreinterpretq_u64_u32(vtrn1q_u32(a, b)), vreinterpretq_u64_u32(vtrn2q_u32(a, b)));
        let ((a, b), (c, d)) = (pair(rows[0], rows[1]), pair(rows[2], rows[3]));
        [vtrn1q_u64(a, c), vtrn1q_u64(b, d), vtrn2q_u64(a, c), vtrn2q_u64(b, d)]
    };
    let [r0, r1, r2, r3, r4, r5, r6, r7] = rows;
    let (upper, lower) = (turn([r0, r1, r2, r3]), turn([r4, r5, r6, r7]));
    // In ascending order: with fewer lanes than rows each covers what the one before wrote too much.
    for (k, (upper, lower)) in upper.into_iter().zip(lower).enumerate() {
        // SAFETY: the caller promises this column.
        unsafe {
            vst1q_u32(to.add(k * lanes), vreinterpretq_u32_u64(upper));
            vst1q_u32(to.add(k * lanes + 4), vreinterpretq_u32_u64(lower));
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
            for words in [0usize, 1, 7, 8, 9, 15, 16, 17, 64, 77] {
                for lanes in [1, 4, 6, 8, 16, 48] {
                    let all: Vec<u32> = (0..(words * BLOCK) as u32).collect();
                    let rows = std::array::from_fn(|i| &all[i * words..][..words]);
                    let used = lanes.min(BLOCK);
                    // Not one word more than the columns take.
                    let mut to = vec![u32::MAX; (words * lanes).saturating_sub(lanes - used)];
                    interleave(rows, &mut to, lanes);
                    for (k, group) in to.chunks(lanes).enumerate() {
                        let expected = (0..used).map(|i| (i * words + k) as u32);
                        assert!(group[..used].iter().copied().eq(expected), "{level:?} {words} {lanes}");
                        assert!(group[used..].iter().all(|&word| word == u32::MAX), "{level:?}");
                    }
                }
            }
        });
    }
}
