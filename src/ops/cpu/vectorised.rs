//! Functions of slices that are compiled once for each width of registers, and chosen as the kernels are: by
//! [`Isa::active`], and so by `SIGLIP_CPU_KERNELS`.

use std::sync::OnceLock;

use super::isa::{Feature, Isa};

/// How `a · b + c` is computed. Rust never joins the two operations by itself.
pub trait Arithmetic {
    /// `a · b + c`.
    fn mul_add(a: f32, b: f32, c: f32) -> f32;
}

/// In one instruction, rounded once.
pub struct Fused;

/// In two, where the processor need not have that instruction: there it would be a function call.
#[cfg_attr(target_arch = "aarch64", allow(dead_code, reason = "for the tests"))]
pub struct Separate;

impl Arithmetic for Fused {
    #[inline(always)]
    fn mul_add(a: f32, b: f32, c: f32) -> f32 {
        a.mul_add(b, c)
    }
}

impl Arithmetic for Separate {
    #[inline(always)]
    fn mul_add(a: f32, b: f32, c: f32) -> f32 {
        a * b + c
    }
}

/// What every processor of this kind has.
#[cfg(target_arch = "aarch64")]
pub type Least = Fused;
/// What every processor of this kind has.
#[cfg(not(target_arch = "aarch64"))]
pub type Least = Separate;

/// Which of a function's forms runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// Any processor.
    Portable,
    /// AVX2 and FMA.
    Avx2,
    /// AVX-512 F, BW, DQ and VL.
    Avx512,
}

impl Level {
    /// That of a set of instructions.
    fn of(isa: Isa) -> Self {
        if isa.has(Feature::Avx512) {
            Self::Avx512
        } else if isa.has(Feature::Avx2) {
            Self::Avx2
        } else {
            Self::Portable
        }
    }

    /// That of the kernels in use, which this processor has.
    #[inline]
    pub fn active() -> Self {
        #[cfg(test)]
        if let Some(forced) = tests::FORCED.get() {
            return forced;
        }
        static ACTIVE: OnceLock<Level> = OnceLock::new();
        *ACTIVE.get_or_init(|| Self::of(Isa::active()))
    }
}

/// Defines a function `name [generics: bounds] (arguments)` whose body is compiled for each [`Level`]. In the body,
/// `A` is its [`Arithmetic`]; what it calls must be `#[inline(always)]`, closures included, to be compiled likewise.
macro_rules! vectorised {
    ($(#[$meta:meta])* pub unsafe fn $name:ident $($rest:tt)*) => {
        vectorised!(@define [$(#[$meta])*] [pub] [unsafe] $name $($rest)*);
    };
    ($(#[$meta:meta])* pub fn $name:ident $($rest:tt)*) => {
        vectorised!(@define [$(#[$meta])*] [pub] [] $name $($rest)*);
    };
    ($(#[$meta:meta])* fn $name:ident $($rest:tt)*) => {
        vectorised!(@define [$(#[$meta])*] [] [] $name $($rest)*);
    };
    (@define [$($meta:tt)*] [$($vis:tt)?] [$($safety:tt)?] $name:ident
        [$($generic:ident: $bound:path),*] ($($arg:ident: $type:ty),* $(,)?) $(-> $ret:ty)? $body:block
    ) => {
        $($meta)*
        #[allow(unused_unsafe)]
        $($vis)? $($safety)? fn $name<$($generic: $bound),*>($($arg: $type),*) $(-> $ret)? {
            // Not every body adds products.
            #[allow(clippy::extra_unused_type_parameters)]
            #[inline(always)]
            $($safety)? fn body<A: $crate::ops::cpu::vectorised::Arithmetic, $($generic: $bound),*>(
                $($arg: $type),*
            ) $(-> $ret)? $body

            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
            $($safety)? fn avx512<$($generic: $bound),*>($($arg: $type),*) $(-> $ret)? {
                // SAFETY: the caller promises what the function needs.
                unsafe { body::<$crate::ops::cpu::vectorised::Fused, $($generic),*>($($arg),*) }
            }

            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma")]
            $($safety)? fn avx2<$($generic: $bound),*>($($arg: $type),*) $(-> $ret)? {
                // SAFETY: the caller promises what the function needs.
                unsafe { body::<$crate::ops::cpu::vectorised::Fused, $($generic),*>($($arg),*) }
            }

            // SAFETY: the caller promises what the function needs, and `Level::active` that the processor has the
            // instructions.
            unsafe {
                match $crate::ops::cpu::vectorised::Level::active() {
                    #[cfg(target_arch = "x86_64")]
                    $crate::ops::cpu::vectorised::Level::Avx512 => avx512::<$($generic),*>($($arg),*),
                    #[cfg(target_arch = "x86_64")]
                    $crate::ops::cpu::vectorised::Level::Avx2 => avx2::<$($generic),*>($($arg),*),
                    _ => body::<$crate::ops::cpu::vectorised::Least, $($generic),*>($($arg),*),
                }
            }
        }
    };
}

pub(super) use vectorised;

#[cfg(test)]
/// What other tests need of this one.
pub mod tests {
    use std::cell::Cell;

    use super::*;

    thread_local! {
        /// What this thread runs in the place of [`Level::active`].
        pub static FORCED: Cell<Option<Level>> = const { Cell::new(None) };
    }

    /// Runs a test at every level that this processor has.
    pub fn at_every_level(test: impl Fn(Level)) {
        for (level, isa) in [
            (Level::Portable, Isa::PORTABLE),
            (Level::Avx2, Isa::of(Feature::Avx2)),
            (Level::Avx512, Isa::of(Feature::Avx512)),
        ] {
            if isa.is_available() {
                FORCED.set(Some(level));
                test(level);
                FORCED.set(None);
            }
        }
    }

    #[test]
    fn the_level_is_that_of_the_kernels() {
        for isa in ["portable", "neon", "i8mm+bf16"] {
            assert_eq!(Level::of(isa.parse().unwrap()), Level::Portable);
        }
        for isa in ["avx2", "avx-vnni"] {
            assert_eq!(Level::of(isa.parse().unwrap()), Level::Avx2);
        }
        for isa in ["avx512", "avx512-vnni", "avx512-bf16", "avx-vnni+avx512-bf16", "amx"] {
            assert_eq!(Level::of(isa.parse().unwrap()), Level::Avx512);
        }
        assert_eq!(Level::active(), Level::of(Isa::active()));
        at_every_level(|level| assert_eq!(Level::active(), level));
    }
}
