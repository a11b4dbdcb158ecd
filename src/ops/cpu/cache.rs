//! How large this processor's second-level cache is, and so how much of an operand a task works on at a time.

use std::sync::OnceLock;

/// What is taken where the processor does not say: the size that most x86 processors have had.
const USUAL: usize = 512 << 10;

/// Bytes of packed activations that a task keeps in its core's second-level cache: half of it, the rest being weights and
/// results on their way. A virtual machine may say anything, so there are bounds.
pub fn block_bytes() -> usize {
    static BYTES: OnceLock<usize> = OnceLock::new();
    *BYTES.get_or_init(|| block_of(second_level()))
}

fn block_of(cache: Option<usize>) -> usize {
    (cache.unwrap_or(USUAL) / 2).clamp(128 << 10, 1 << 20)
}

/// Bytes of the second-level cache of one core: the share of one, where several have it together.
#[cfg(target_arch = "x86_64")]
fn second_level() -> Option<usize> {
    use std::arch::x86_64::{__cpuid, __cpuid_count};

    let vendor = __cpuid(0);
    // "AuthenticAMD" and "HygonGenuine" describe their caches in leaf 8000001D, in the form of Intel's leaf 4 (AMD64
    // Architecture Programmer's Manual, volume 3, appendix E; Intel SDM, volume 2, CPUID).
    let (leaf, largest) = match vendor.ebx {
        0x6874_7541 | 0x6f67_7948 => (0x8000_001d, __cpuid(0x8000_0000).eax),
        _ => (4, vendor.eax),
    };
    if largest < leaf {
        return None;
    }
    let caches = (0..16).map(|index| __cpuid_count(leaf, index));
    caches.take_while(|cache| cache.eax & 31 != 0).find_map(|cache| size([cache.eax, cache.ebx, cache.ecx]))
}

/// What Linux says of the first processor, `None` elsewhere: programs may not ask an ARM for it. The share of one core, where several
/// have the cache together.
#[cfg(not(target_arch = "x86_64"))]
fn second_level() -> Option<usize> {
    let file = |cache: usize, name: &str| {
        std::fs::read_to_string(format!("/sys/devices/system/cpu/cpu0/cache/index{cache}/{name}")).ok()
    };
    let cache = (0..8).find(|&cache| {
        file(cache, "level").is_some_and(|level| level.trim() == "2")
            && file(cache, "type").is_some_and(|kind| kind.trim() != "Instruction")
    })?;
    let sharing = file(cache, "shared_cpu_list").map_or(1, |list| count(&list));
    Some(kibibytes(&file(cache, "size")?)? / sharing.max(1))
}

/// How many processors a list of Linux names, `0-3,8`.
#[cfg_attr(target_arch = "x86_64", allow(dead_code))]
fn count(list: &str) -> usize {
    let one = |range: &str| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        Some(last.parse::<usize>().ok()?.checked_sub(first.parse().ok()?)? + 1)
    };
    list.trim().split(',').filter_map(one).sum()
}

/// A size as Linux writes it, `1024K`.
#[cfg_attr(target_arch = "x86_64", allow(dead_code))]
fn kibibytes(size: &str) -> Option<usize> {
    size.trim().strip_suffix('K')?.parse::<usize>().ok()?.checked_mul(1024)
}

/// The size in EAX, EBX and ECX of one cache, if it is a second-level one of data.
#[cfg_attr(not(target_arch = "x86_64"), allow(dead_code))]
fn size([eax, ebx, ecx]: [u32; 3]) -> Option<usize> {
    let (kind, level) = (eax & 31, eax >> 5 & 7);
    // 1 is a cache of data, 2 of instructions, 3 of both.
    if level != 2 || kind == 2 {
        return None;
    }
    let field = |value: u32, low: u32, bits: u32| (value >> low & ((1 << bits) - 1)) as usize + 1;
    let bytes =
        field(ebx, 22, 10) * field(ebx, 12, 10) * field(ebx, 0, 12) * (ecx as usize).saturating_add(1);
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_the_manuals_say() {
        // 8 ways, 1 partition, lines of 64, 1,024 sets: Zen 3. 16 ways, 2,048 sets: Sapphire Rapids.
        assert_eq!(size([0x0000_0043, 7 << 22 | 63, 1023]), Some(512 << 10));
        assert_eq!(size([0x0000_0043, 15 << 22 | 63, 2047]), Some(2 << 20));
        // First level, third level, instructions.
        assert_eq!(size([0x0000_0021, 7 << 22 | 63, 63]), None);
        assert_eq!(size([0x0000_0063, 15 << 22 | 63, 32767]), None);
        assert_eq!(size([0x0000_0042, 7 << 22 | 63, 1023]), None);
    }

    #[test]
    fn sizes_are_read_as_linux_writes_them() {
        assert_eq!(kibibytes("1024K\n"), Some(1 << 20));
        assert_eq!(kibibytes("0K"), Some(0));
        assert_eq!(["0", "0-3\n", "0,8", "0-3,8-11", "", "3-1"].map(count), [1, 4, 2, 8, 0, 0]);
        assert!(["", "K", "1M", "-1K", "99999999999999999999K"].iter().all(|size| kibibytes(size).is_none()));
    }

    #[test]
    fn blocks_have_bounds_whatever_the_processor_says() {
        assert_eq!(block_of(None), 256 << 10);
        assert_eq!(block_of(Some(512 << 10)), 256 << 10);
        assert_eq!(block_of(Some(2 << 20)), 1 << 20);
        assert_eq!(block_of(Some(0)), 128 << 10);
        assert_eq!(block_of(Some(usize::MAX)), 1 << 20);
        assert!((128 << 10..=1 << 20).contains(&block_bytes()));
    }
}
