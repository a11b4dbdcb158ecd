//! Which format some bytes are, by their first bytes and never by a file's name.

use std::fmt;

use serde::Serialize;

use super::ImageError;

/// A format that pictures come in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Format {
    /// JPEG: baseline, progressive or arithmetic-coded, 8 bits.
    Jpeg,
    /// PNG, and the first frame of an animated PNG.
    Png,
    /// WebP, and the first frame of an animated WebP.
    WebP,
    /// GIF, and the first frame of an animated GIF.
    Gif,
    /// Windows bitmap.
    Bmp,
    /// TIFF: the first directory.
    Tiff,
    /// AVIF: the first picture, where the feature `heif` is built in.
    Avif,
    /// HEIC: the first picture, where the feature `heif` is built in.
    Heic,
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Jpeg => "JPEG",
            Self::Png => "PNG",
            Self::WebP => "WebP",
            Self::Gif => "GIF",
            Self::Bmp => "BMP",
            Self::Tiff => "TIFF",
            Self::Avif => "AVIF",
            Self::Heic => "HEIC",
        })
    }
}

impl Format {
    /// The format of `bytes`.
    ///
    /// # Errors
    /// [`ImageError::Empty`] for no bytes, [`ImageError::UnreadableFormat`] for a format that is known and never read,
    /// [`ImageError::UnknownFormat`] with the first bytes otherwise.
    pub fn sniff(bytes: &[u8]) -> Result<Self, ImageError> {
        match bytes {
            [] => Err(ImageError::Empty),
            [0xff, 0xd8, 0xff, ..] => Ok(Self::Jpeg),
            [0x89, b'P', b'N', b'G', 0x0d, 0x0a, 0x1a, 0x0a, ..] => Ok(Self::Png),
            [b'G', b'I', b'F', b'8', b'7' | b'9', b'a', ..] => Ok(Self::Gif),
            [b'B', b'M', ..] => Ok(Self::Bmp),
            [b'I', b'I', 42 | 43, 0, ..] | [b'M', b'M', 0, 42 | 43, ..] => Ok(Self::Tiff),
            [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..] => Ok(Self::WebP),
            _ if is_avif(bytes) => Ok(Self::Avif),
            _ if is_heic(bytes) => Ok(Self::Heic),
            [0xff, 0x0a, ..] | [0, 0, 0, 0x0c, b'J', b'X', b'L', b' ', ..] => {
                Err(ImageError::UnreadableFormat { name: "JPEG XL" })
            }
            [0, 0, 0, 0x0c, b'j', b'P', b' ' | 0x1a, b' ' | 0x1a, ..] | [0xff, 0x4f, 0xff, 0x51, ..] => {
                Err(ImageError::UnreadableFormat { name: "JPEG 2000" })
            }
            _ => Err(ImageError::UnknownFormat { head: head(bytes) }),
        }
    }
}

/// AVIF by its brand, or by a compatible one where the brand is HEIF's general one.
fn is_avif(bytes: &[u8]) -> bool {
    if bytes.get(4..8) != Some(b"ftyp") {
        return false;
    }
    let length = bytes[..4].iter().fold(0_usize, |length, byte| length << 8 | usize::from(*byte));
    let brands = bytes.get(8..length.clamp(12, 256).min(bytes.len())).unwrap_or_default().as_chunks::<4>().0;
    let is = |brand: &[u8; 4]| matches!(brand.as_slice(), b"avif" | b"avis");
    match brands.first() {
        Some(brand) if matches!(brand.as_slice(), b"mif1" | b"msf1") => brands.iter().any(is),
        Some(brand) => is(brand),
        None => false,
    }
}

/// What telephones write: a file of boxes whose brand is one of HEIF's. An AVIF may have `mif1` as its brand and say
/// `avif` among the compatible ones.
fn is_heic(bytes: &[u8]) -> bool {
    let brands: [&[u8; 4]; 10] =
        [b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1"];
    bytes.get(4..8) == Some(b"ftyp")
        && bytes.get(8..12).is_some_and(|brand| brands.iter().any(|known| known.as_slice() == brand))
}

/// The first bytes for a message: text as text, anything else in hexadecimal.
fn head(bytes: &[u8]) -> String {
    let head = &bytes[..bytes.len().min(12)];
    if head.iter().all(|byte| byte.is_ascii_graphic() || *byte == b' ') {
        format!("{:?}", String::from_utf8_lossy(head))
    } else {
        head.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(" ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_formats_show_their_first_bytes() {
        let error = Format::sniff(b"<!DOCTYPE html>").unwrap_err();
        assert!(error.to_string().contains("\"<!DOCTYPE ht\""), "{error}");
        let error = Format::sniff(&[0, 1, 254]).unwrap_err();
        assert!(error.to_string().contains("00 01 fe"), "{error}");
        for (bytes, name) in [
            (&b"\xff\x0a\xfa\x1f"[..], "JPEG XL"),
            (b"\0\0\0\x0cJXL \r\n\x87\n", "JPEG XL"),
            (b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG 2000"),
        ] {
            let error = Format::sniff(bytes).unwrap_err();
            assert!(error.to_string().contains(name), "{error}");
        }
        for brands in [&b"\0\0\0\x1cftypavif\0\0\0\0"[..], b"\0\0\0\x18ftypmif1\0\0\0\0mif1avif"] {
            assert_eq!(Format::sniff(brands), Ok(Format::Avif));
        }
        for brands in [&b"\0\0\0\x18ftypheic\0\0\0\0mif1heic"[..], b"\0\0\0\x18ftypmif1\0\0\0\0mif1heic"] {
            assert_eq!(Format::sniff(brands), Ok(Format::Heic));
        }
        assert_eq!(Format::sniff(b""), Err(ImageError::Empty));
    }
}
