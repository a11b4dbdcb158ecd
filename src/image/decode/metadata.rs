//! The orientation that a file's metadata asks for.

use super::ifd::Directory;
use crate::image::orientation::Orientation;

const ORIENTATION: u16 = 274;

/// The orientation in an EXIF block, or else in an XMP packet, as Pillow looks for it. A broken block is
/// as good as none.
pub(super) fn orientation(exif: Option<&[u8]>, xmp: Option<&[u8]>) -> Orientation {
    let directory = exif.and_then(|exif| Directory::first(without_prefix(exif)));
    of_directory(directory.as_ref(), xmp)
}

/// The same where the directory is already read: a TIFF's own.
pub(super) fn of_directory(directory: Option<&Directory>, xmp: Option<&[u8]>) -> Orientation {
    let number = match directory {
        // A value of another type is there, but says nothing.
        Some(directory) if directory.count(ORIENTATION) > 0 => directory.integer(ORIENTATION),
        _ => xmp.and_then(xmp_orientation),
    };
    Orientation::from_number(number.unwrap_or(1))
}

/// Pillow takes away one or two of these marks.
fn without_prefix(exif: &[u8]) -> &[u8] {
    let mark = b"Exif\0\0";
    let once = exif.strip_prefix(mark).unwrap_or(exif);
    once.strip_prefix(mark).unwrap_or(once)
}

/// The digit after the first `tiff:Orientation="` or `tiff:Orientation>`.
fn xmp_orientation(xmp: &[u8]) -> Option<u64> {
    let name = b"tiff:Orientation";
    xmp.windows(name.len()).enumerate().filter(|(_, window)| window == name).find_map(|(at, _)| {
        let rest = &xmp[at + name.len()..];
        let digit = rest.strip_prefix(b"=\"").or_else(|| rest.strip_prefix(b">"))?.first()?;
        digit.is_ascii_digit().then(|| u64::from(digit - b'0'))
    })
}

/// The EXIF block that ImageMagick writes into a PNG as text: a name, a length and hexadecimal digits, each on its line.
pub(super) fn raw_profile(text: &str) -> Option<Vec<u8>> {
    let mut lines = text.split('\n').skip(3);
    let mut digits = Vec::with_capacity(text.len());
    lines.try_for_each(|line| {
        for byte in line.bytes().filter(|byte| !byte.is_ascii_whitespace()) {
            digits.push(char::from(byte).to_digit(16)? as u8);
        }
        Some(())
    })?;
    let (pairs, rest) = digits.as_chunks::<2>();
    rest.is_empty().then(|| pairs.iter().map(|[high, low]| high << 4 | low).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exif(kind: u16, value: u32) -> Vec<u8> {
        let mut block = b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01".to_vec();
        block.extend(kind.to_le_bytes());
        block.extend(1_u32.to_le_bytes());
        block.extend(value.to_le_bytes());
        block.extend([0; 4]);
        block
    }

    #[test]
    fn only_numbers_turn_a_picture() {
        for kind in [3, 4, 8, 9] {
            assert_eq!(orientation(Some(&exif(kind, 6)), None), Orientation::Rotate90, "type {kind}");
        }
        for kind in [1, 2, 7, 99] {
            assert_eq!(orientation(Some(&exif(kind, 6)), None), Orientation::Upright, "type {kind}");
        }
        let xmp: &[u8] = b"tiff:Orientation=6 tiff:Orientation=\"8\"";
        assert_eq!(orientation(None, Some(xmp)), Orientation::Rotate270);
        assert_eq!(orientation(Some(&exif(3, 1)), Some(xmp)), Orientation::Upright);
        assert_eq!(orientation(Some(&exif(7, 6)), Some(xmp)), Orientation::Upright);
        assert_eq!(orientation(Some(&exif(99, 6)), Some(xmp)), Orientation::Rotate270);
        assert_eq!(orientation(Some(&exif(3, 6)[..20]), Some(xmp)), Orientation::Rotate270);
    }

    #[test]
    fn profiles_in_text_are_hexadecimal() {
        assert_eq!(raw_profile("\nexif\n       4\n4578\n6966\n").as_deref(), Some(&b"Exif"[..]));
        assert_eq!(raw_profile("\nexif\n4\n45787"), None);
        assert_eq!(raw_profile("\nexif\n4\nxy"), None);
        assert_eq!(raw_profile("").as_deref(), Some(&b""[..]));
    }
}
