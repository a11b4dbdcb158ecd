//! AVX-VNNI: dot products of four bytes in registers of AVX2, for processors without AVX-512 or whose hypervisor hides it.

use std::arch::x86_64::*;

use super::Micro;
use super::avx2::bytes;

/// Bytes in fours, 6 × 16 sums in twelve registers.
#[derive(Debug, Clone, Copy)]
pub struct Int8;

bytes!(Int8, "avx2,avxvnni", (255, 254), _mm256_dpbusd_avx_epi32);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::cpu::micro::tests::sums_are_exact;

    /// The same loop over AVX-512's encoding of the instruction, for processors that have no other.
    #[derive(Debug, Clone, Copy)]
    struct Evex;

    bytes!(Evex, "avx2,avx512f,avx512vl,avx512vnni", (255, 254), _mm256_dpbusd_epi32);

    #[test]
    fn the_other_encoding_computes_the_same() {
        if is_x86_feature_detected!("avx512vnni") && is_x86_feature_detected!("avx512vl") {
            sums_are_exact::<Evex>();
        } else {
            println!("this processor does not have that encoding");
        }
    }
}
