//! Which instructions the kernels may use: found once, at the first use.

use std::fmt;
use std::str::FromStr;
use std::sync::OnceLock;

/// The variable that forces a path: one of the names of [`Isa`].
pub const VARIABLE: &str = "SIGLIP_CPU_KERNELS";

/// Sets of instructions, each with all that come before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Isa {
    /// Any processor.
    Portable,
    /// AVX2 and FMA: Haswell, Zen and later.
    Avx2,
    /// AVX-512 F, BW, DQ and VL: Skylake-X.
    Avx512,
    /// AVX512-VNNI, dot products of bytes: Cascade Lake, Ice Lake.
    Avx512Vnni,
    /// AVX512-BF16: Cooper Lake, Zen 4.
    Avx512Bf16,
    /// AMX tiles of bf16 and bytes: Sapphire Rapids.
    Amx,
}

impl Isa {
    /// All of them, the least first.
    pub const ALL: [Self; 6] =
        [Self::Portable, Self::Avx2, Self::Avx512, Self::Avx512Vnni, Self::Avx512Bf16, Self::Amx];

    /// The name that [`VARIABLE`] and the log use.
    pub fn name(self) -> &'static str {
        match self {
            Self::Portable => "portable",
            Self::Avx2 => "avx2",
            Self::Avx512 => "avx512",
            Self::Avx512Vnni => "avx512-vnni",
            Self::Avx512Bf16 => "avx512-bf16",
            Self::Amx => "amx",
        }
    }

    /// The best that this processor and its operating system offer.
    pub fn best() -> Self {
        static BEST: OnceLock<Isa> = OnceLock::new();
        *BEST.get_or_init(detect)
    }

    /// The best, but for instructions that this processor has and is slow at: Intel's cores multiply bf16 at about half the
    /// speed of f32 where they do it without AMX. That was measured on one, a Sapphire Rapids with its tiles hidden by the
    /// hypervisor (85 G multiplications a second on two cores, 150 of f32); the others are taken to be alike.
    fn preferred() -> Self {
        match Self::best() {
            Self::Avx512Bf16 if is_intel() => Self::Avx512Vnni,
            best => best,
        }
    }

    /// What the kernels of this process use: [`Isa::chosen`], or the best where that is an error, which
    /// [`Isa::chosen`]'s caller at start-up reports.
    pub fn active() -> Self {
        Self::chosen().unwrap_or_else(|_| Self::best())
    }

    /// What the kernels should use: the best that is worth it, or what [`VARIABLE`] says.
    ///
    /// # Errors
    /// If the variable names none, or one that this processor does not have.
    pub fn chosen() -> Result<Self, String> {
        static CHOSEN: OnceLock<Result<Isa, String>> = OnceLock::new();
        CHOSEN
            .get_or_init(|| match std::env::var(VARIABLE) {
                Ok(name) if !name.is_empty() && name != "auto" => {
                    let wanted: Isa = name.parse().map_err(|error| format!("{VARIABLE}: {error}"))?;
                    if wanted > Self::best() {
                        return Err(format!("{VARIABLE}={wanted}: this processor has only {}", Self::best()));
                    }
                    Ok(wanted)
                }
                _ => Ok(Self::preferred()),
            })
            .clone()
    }
}

impl fmt::Display for Isa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Isa {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|isa| isa.name() == name).ok_or_else(|| {
            let names: Vec<_> = Self::ALL.iter().map(|isa| isa.name()).collect();
            format!("{name:?} is not one of auto, {}", names.join(", "))
        })
    }
}

/// Whether the processor says that Intel made it.
#[cfg(target_arch = "x86_64")]
fn is_intel() -> bool {
    let vendor = std::arch::x86_64::__cpuid(0);
    [vendor.ebx, vendor.edx, vendor.ecx].map(u32::to_le_bytes).as_flattened() == b"GenuineIntel"
}

#[cfg(not(target_arch = "x86_64"))]
fn is_intel() -> bool {
    false
}

#[cfg(not(target_arch = "x86_64"))]
fn detect() -> Isa {
    Isa::Portable
}

#[cfg(target_arch = "x86_64")]
fn detect() -> Isa {
    let has_avx512 = is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512dq")
        && is_x86_feature_detected!("avx512vl");
    if !(is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma")) {
        Isa::Portable
    } else if !has_avx512 {
        Isa::Avx2
    } else if !is_x86_feature_detected!("avx512vnni") {
        Isa::Avx512
    } else if !is_x86_feature_detected!("avx512bf16") {
        Isa::Avx512Vnni
    } else if !has_amx() {
        Isa::Avx512Bf16
    } else {
        Isa::Amx
    }
}

/// Whether there are AMX tiles of bf16 and bytes, and the operating system lets this process use them.
#[cfg(target_arch = "x86_64")]
fn has_amx() -> bool {
    /// AMX-BF16, AMX-TILE and AMX-INT8 in EDX of leaf 7 (Intel SDM, volume 2, CPUID).
    const AMX: u32 = 1 << 22 | 1 << 24 | 1 << 25;
    std::arch::x86_64::__cpuid_count(7, 0).edx & AMX == AMX && tiles_permitted()
}

/// Asks Linux for the tile registers: it gives their 8 KiB of state only to processes that ask
/// (Documentation/arch/x86/xstate.rst).
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
fn tiles_permitted() -> bool {
    const SYS_ARCH_PRCTL: usize = 158;
    const ARCH_REQ_XCOMP_PERM: usize = 0x1023;
    const XFEATURE_XTILEDATA: usize = 18;
    let result: isize;
    // SAFETY: this system call takes two numbers, touches no memory of ours, and clobbers only the registers named.
    unsafe {
        std::arch::asm!(
            "syscall",
            inlateout("rax") SYS_ARCH_PRCTL => result,
            in("rdi") ARCH_REQ_XCOMP_PERM,
            in("rsi") XFEATURE_XTILEDATA,
            lateout("rcx") _,
            lateout("r11") _,
            options(nostack),
        );
    }
    result == 0
}

#[cfg(all(target_arch = "x86_64", not(target_os = "linux")))]
fn tiles_permitted() -> bool {
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_back() {
        for isa in Isa::ALL {
            assert_eq!(isa.name().parse(), Ok(isa));
        }
        assert!("sse".parse::<Isa>().unwrap_err().contains("avx2"));
    }
}
