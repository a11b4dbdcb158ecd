//! Which instructions the kernels may use: found once, at the first use.

use std::fmt;
use std::str::FromStr;
use std::sync::OnceLock;

/// The variable that forces a path: names of [`Feature::name`] joined by `+`, or `portable`.
pub const VARIABLE: &str = "SIGLIP_CPU_KERNELS";

/// Instructions that kernels are made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Feature {
    /// AVX2 and FMA: Haswell, Zen and later.
    Avx2,
    /// AVX-VNNI, dot products of bytes without AVX-512: Alder Lake to Arrow Lake, N100, Zen 5.
    AvxVnni,
    /// AVX-512 F, BW, DQ and VL: Skylake-X.
    Avx512,
    /// AVX512-VNNI, dot products of bytes: Cascade Lake, Ice Lake.
    Avx512Vnni,
    /// AVX512-BF16: Cooper Lake, Zen 4.
    Avx512Bf16,
    /// AMX tiles of bf16 and bytes: Sapphire Rapids.
    Amx,
    /// NEON: every 64-bit ARM.
    Neon,
    /// Dot products of bytes, FEAT_DotProd: Cortex-A76, Neoverse N1 (Graviton 2), Apple M1.
    DotProd,
    /// Matrix products of bytes, FEAT_I8MM: Neoverse V1 and N2 (Graviton 3 and 4, Axion, Cobalt), Apple M2.
    I8mm,
    /// Matrix products of bf16, FEAT_BF16: the same processors.
    Bf16,
}

impl Feature {
    /// All of them, those of x86 and then those of ARM, each behind those that it includes.
    pub const ALL: [Self; 10] = [
        Self::Avx2,
        Self::AvxVnni,
        Self::Avx512,
        Self::Avx512Vnni,
        Self::Avx512Bf16,
        Self::Amx,
        Self::Neon,
        Self::DotProd,
        Self::I8mm,
        Self::Bf16,
    ];

    /// The name that [`VARIABLE`] and the log use.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Avx2 => "avx2",
            Self::AvxVnni => "avx-vnni",
            Self::Avx512 => "avx512",
            Self::Avx512Vnni => "avx512-vnni",
            Self::Avx512Bf16 => "avx512-bf16",
            Self::Amx => "amx",
            Self::Neon => "neon",
            Self::DotProd => "dotprod",
            Self::I8mm => "i8mm",
            Self::Bf16 => "bf16",
        }
    }

    /// The feature that every processor with this one has, if there is one.
    const fn includes(self) -> Option<Self> {
        match self {
            Self::Avx2 | Self::Neon => None,
            Self::AvxVnni | Self::Avx512 => Some(Self::Avx2),
            Self::Avx512Vnni => Some(Self::Avx512),
            Self::Avx512Bf16 => Some(Self::Avx512Vnni),
            Self::Amx => Some(Self::Avx512Bf16),
            Self::DotProd | Self::Bf16 => Some(Self::Neon),
            Self::I8mm => Some(Self::DotProd),
        }
    }

    const fn bit(self) -> u16 {
        1 << self as u16
    }
}

/// A set of [`Feature`]s, each with those that it includes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Isa(u16);

impl Isa {
    /// What any processor has: no feature.
    pub const PORTABLE: Self = Self(0);

    /// A feature and those that it includes.
    pub const fn of(feature: Feature) -> Self {
        let mut set = feature.bit();
        let mut next = feature.includes();
        while let Some(feature) = next {
            set |= feature.bit();
            next = feature.includes();
        }
        Self(set)
    }

    /// [`Isa::PORTABLE`] and one set for each feature, of any processor.
    pub fn all() -> impl Iterator<Item = Self> {
        std::iter::once(Self::PORTABLE).chain(Feature::ALL.map(Self::of))
    }

    /// Those of [`Isa::all`] that this processor has, and all that it has together.
    pub fn available() -> Vec<Self> {
        let mut sets: Vec<_> = Self::all().filter(|isa| isa.is_available()).collect();
        if !sets.contains(&Self::best()) {
            sets.push(Self::best());
        }
        sets
    }

    /// Whether the set has the feature.
    pub const fn has(self, feature: Feature) -> bool {
        self.0 & feature.bit() != 0
    }

    /// Whether this processor and its operating system offer all of the set.
    pub fn is_available(self) -> bool {
        self.0 & !Self::best().0 == 0
    }

    /// Whether bf16 is multiplied by instructions of its own.
    pub fn multiplies_bf16(self) -> bool {
        [Feature::Avx512Bf16, Feature::Amx, Feature::Bf16].iter().any(|&feature| self.has(feature))
    }

    const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// All that this processor and its operating system offer.
    pub fn best() -> Self {
        static BEST: OnceLock<Isa> = OnceLock::new();
        // A feature counts with all that it includes: a hypervisor may hide some.
        *BEST.get_or_init(|| {
            let found = |feature: &Feature| {
                std::iter::successors(Some(*feature), |feature| feature.includes()).all(detected)
            };
            let found = Feature::ALL.into_iter().filter(found);
            found.fold(Self::PORTABLE, |set, feature| set.and(Self::of(feature)))
        })
    }

    /// The best, but for instructions that this processor has and is slow at: Intel's cores multiply bf16 at about half the
    /// speed of f32 where they do it without AMX. That was measured on one, a Sapphire Rapids with its tiles hidden by the
    /// hypervisor (85 G multiplications a second on two cores, 150 of f32); the others are taken to be alike.
    fn preferred() -> Self {
        let best = Self::best();
        if best.has(Feature::Avx512Bf16) && !best.has(Feature::Amx) && is_intel() {
            Self(best.0 & !Feature::Avx512Bf16.bit())
        } else {
            best
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
                    if !wanted.is_available() {
                        return Err(format!("{VARIABLE}={wanted}: this processor has only {}", Self::best()));
                    }
                    Ok(wanted)
                }
                _ => Ok(Self::preferred()),
            })
            .clone()
    }
}

/// The features that no other of the set includes, joined by `+`.
impl fmt::Display for Isa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let present = || Feature::ALL.into_iter().filter(|feature| self.has(*feature));
        let names: Vec<_> = present()
            .filter(|feature| !present().any(|other| other.includes() == Some(*feature)))
            .map(Feature::name)
            .collect();
        let joined = names.join("+");
        f.write_str(if names.is_empty() { "portable" } else { &joined })
    }
}

impl FromStr for Isa {
    type Err = String;

    fn from_str(names: &str) -> Result<Self, String> {
        if names == "portable" {
            return Ok(Self::PORTABLE);
        }
        names.split('+').try_fold(Self::PORTABLE, |set, name| {
            let found = Feature::ALL.into_iter().find(|feature| feature.name() == name);
            found.map(|feature| set.and(Self::of(feature))).ok_or_else(|| {
                let names = Feature::ALL.map(Feature::name).join(", ");
                format!("{name:?} is none of {names}, joined by +, and not auto or portable alone")
            })
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

/// Whether the processor and the operating system have the feature's own instructions.
#[cfg(target_arch = "x86_64")]
fn detected(feature: Feature) -> bool {
    match feature {
        Feature::Avx2 => is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma"),
        Feature::AvxVnni => is_x86_feature_detected!("avxvnni"),
        Feature::Avx512 => {
            is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512dq")
                && is_x86_feature_detected!("avx512vl")
        }
        Feature::Avx512Vnni => is_x86_feature_detected!("avx512vnni"),
        Feature::Avx512Bf16 => is_x86_feature_detected!("avx512bf16"),
        Feature::Amx => has_amx(),
        Feature::Neon | Feature::DotProd | Feature::I8mm | Feature::Bf16 => false,
    }
}

/// Whether the processor and the operating system have the feature's own instructions.
#[cfg(target_arch = "aarch64")]
fn detected(feature: Feature) -> bool {
    use std::arch::is_aarch64_feature_detected;

    match feature {
        Feature::Neon => is_aarch64_feature_detected!("neon"),
        Feature::DotProd => is_aarch64_feature_detected!("dotprod"),
        Feature::I8mm => is_aarch64_feature_detected!("i8mm"),
        Feature::Bf16 => is_aarch64_feature_detected!("bf16"),
        _ => false,
    }
}

/// Whether the processor and the operating system have the feature's own instructions.
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn detected(_: Feature) -> bool {
    false
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
        for isa in Isa::all().chain(Isa::available()) {
            assert_eq!(isa.to_string().parse(), Ok(isa));
        }
        for feature in Feature::ALL {
            assert_eq!(Isa::of(feature).to_string(), feature.name());
        }
        assert_eq!(Isa::PORTABLE.to_string(), "portable");
        assert!("sse".parse::<Isa>().unwrap_err().contains("avx2"));
        assert!("".parse::<Isa>().is_err() && "avx2+".parse::<Isa>().is_err());
    }

    #[test]
    fn a_set_has_what_its_features_include() {
        let zen5: Isa = "avx-vnni+avx512-bf16".parse().unwrap();
        assert!(zen5.has(Feature::Avx2) && zen5.has(Feature::Avx512Vnni) && !zen5.has(Feature::Amx));
        assert_eq!(zen5.to_string(), "avx-vnni+avx512-bf16");
        let graviton3: Isa = "bf16+i8mm".parse().unwrap();
        assert!(graviton3.has(Feature::DotProd) && graviton3.multiplies_bf16());
        assert_eq!(graviton3.to_string(), "i8mm+bf16");
        assert!(!"avx512-vnni".parse::<Isa>().unwrap().multiplies_bf16());
    }

    #[test]
    fn what_is_available_is_part_of_the_best() {
        assert!(Isa::PORTABLE.is_available() && Isa::best().is_available());
        assert!(Isa::available().contains(&Isa::PORTABLE) && Isa::available().contains(&Isa::best()));
        // No processor is of two kinds.
        assert!(!(Isa::of(Feature::Avx2).is_available() && Isa::of(Feature::Neon).is_available()));
    }
}
