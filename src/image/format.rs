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
    /// AVIF, where the feature `avif` is built in.
    Avif,
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
        })
    }
}

impl Format {
    /// The format of `bytes`.
    ///
    /// # Errors
    /// [`ImageError::Empty`] for no bytes, [`ImageError::UnknownFormat`] with the first bytes otherwise.
    pub fn sniff(bytes: &[u8]) -> Result<Self, ImageError> {
        let brand = bytes.get(4..12).unwrap_or_default();
        match bytes {
            [] => Err(ImageError::Empty),
            [0xff, 0xd8, 0xff, ..] => Ok(Self::Jpeg),
            [0x89, b'P', b'N', b'G', 0x0d, 0x0a, 0x1a, 0x0a, ..] => Ok(Self::Png),
            [b'G', b'I', b'F', b'8', b'7' | b'9', b'a', ..] => Ok(Self::Gif),
            [b'B', b'M', ..] => Ok(Self::Bmp),
            [b'I', b'I', 42 | 43, 0, ..] | [b'M', b'M', 0, 42 | 43, ..] => Ok(Self::Tiff),
            [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..] => Ok(Self::WebP),
            _ if brand == b"ftypavif" || brand == b"ftypavis" => Ok(Self::Avif),
            _ => Err(ImageError::UnknownFormat { head: head(bytes) }),
        }
    }
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
        assert_eq!(Format::sniff(b""), Err(ImageError::Empty));
    }
}
