//! Sizes and times as people write them.

use std::num::NonZeroUsize;
use std::time::Duration;

/// `67108864`, `64MiB`, `1GiB`, `500kB`.
pub fn bytes(text: &str) -> Result<usize, String> {
    const UNITS: [(&str, usize); 9] = [
        ("kib", 1 << 10),
        ("mib", 1 << 20),
        ("gib", 1 << 30),
        ("kb", 1_000),
        ("mb", 1_000_000),
        ("gb", 1_000_000_000),
        ("k", 1 << 10),
        ("m", 1 << 20),
        ("g", 1 << 30),
    ];
    let lower = text.trim().to_ascii_lowercase();
    let (number, unit) = UNITS
        .iter()
        .find_map(|(suffix, unit)| lower.strip_suffix(suffix).map(|number| (number.trim_end(), *unit)))
        .unwrap_or((lower.as_str(), 1));
    let wrong = || format!("{text:?} is not a size such as 67108864 or 64MiB");
    number.parse::<usize>().ok().and_then(|n| n.checked_mul(unit)).ok_or_else(wrong)
}

/// A number that is not 0.
pub fn at_least_one(text: &str) -> Result<usize, String> {
    text.trim().parse::<NonZeroUsize>().map(NonZeroUsize::get).map_err(|error| format!("{text:?}: {error}"))
}

/// `30`, `30s`, `1.5s`, `250ms`, `2m`; without a unit, seconds.
pub fn duration(text: &str) -> Result<Duration, String> {
    let lower = text.trim().to_ascii_lowercase();
    let (number, unit) = [("ms", 1e-3), ("s", 1.0), ("m", 60.0), ("h", 3600.0)]
        .iter()
        .find_map(|(suffix, unit)| lower.strip_suffix(suffix).map(|number| (number.trim_end(), *unit)))
        .unwrap_or((lower.as_str(), 1.0));
    let wrong = || format!("{text:?} is not a time such as 30, 30s or 250ms");
    let seconds = number.parse::<f64>().map_err(|_| wrong())? * unit;
    // A year is as good as never, and keeps sums of instants far from overflow.
    if !(0.0..=31_536_000.0).contains(&seconds) {
        return Err(wrong());
    }
    Ok(Duration::from_secs_f64(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        assert_eq!(bytes("64MiB"), Ok(64 << 20));
        assert_eq!(bytes(" 2 GB "), Ok(2_000_000_000));
        assert_eq!(bytes("4k"), Ok(4096));
        assert_eq!(bytes("17"), Ok(17));
        for wrong in ["", "MiB", "-1", "1.5G", "1TiB", "99999999999999999999", "18446744073709551615k"] {
            assert!(bytes(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn times() {
        assert_eq!(duration("30"), Ok(Duration::from_secs(30)));
        assert_eq!(duration("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(duration("1.5s"), Ok(Duration::from_millis(1500)));
        assert_eq!(duration("2m"), Ok(Duration::from_secs(120)));
        for wrong in ["", "s", "-1", "inf", "NaN", "1d", "1e12"] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
    }
}
