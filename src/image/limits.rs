//! How much one picture may cost.

/// Limits that are checked before anything of the named size is allocated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ImageLimits {
    /// Bytes of the file. Default 64 MiB.
    pub max_bytes: usize,
    /// Width × height. Default 65 million: phones take photographs of 9248 × 6944.
    pub max_pixels: u64,
    /// Pixels along the longer side. Default 65,535, which is also the most that JPEG and GIF can say.
    pub max_side: u32,
    /// Most memory that a decode may hold at once, in bytes, as the header foretells it. Default 1 GiB:
    /// the largest picture that the other limits allow needs up to 12 bytes a pixel (a progressive JPEG); HEIC and AVIF need 19, so
    /// that 50 million pixels pass.
    pub max_decoded_bytes: u64,
    /// Samples that all scans of a JPEG together may go over: a file of a few kilobytes can ask for a hundred passes
    /// over the largest picture. Default 1.3 billion, which is 20 passes over 65 million pixels and some seconds.
    pub max_decode_work: u64,
    /// Frames of an animation, of which only the first is decoded. Default 10,000.
    pub max_frames: u32,
    /// The largest patch budget that a request may ask for (NaFlex). Default 4,096.
    pub max_num_patches: usize,
    /// Where HEIC and AVIF are decoded, if the feature `heif` is built in. Default: in this process.
    pub heif: HeifDecoder,
}

/// Where HEIC and AVIF are decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum HeifDecoder {
    /// By the thread that asks for it. libheif before 1.19 does not hold its decoders to the size that a file says: a kilobyte can
    /// take gigabytes, whatever the limits are, and a fault of theirs ends the process. For files that are trusted.
    #[default]
    InProcess,
    /// By a process for each picture, which has the memory that the size asks for and may only compute. It is this program
    /// once more, called with `decode-heif`: only for the program `siglip`. Elsewhere than on Linux these pictures are refused.
    Child,
}

/// Passes over the largest picture that the scans of a JPEG may make: an encoder's script makes about 10.
const PASSES: u64 = 20;

/// Bytes a pixel that the most costly format holds while it is decoded, HEIC and AVIF, with something for small ones.
const MOST_PIXEL_BYTES: u64 = 20;

impl ImageLimits {
    /// The defaults, for pictures of up to so many pixels.
    #[must_use]
    pub fn for_pixels(max_pixels: u64) -> Self {
        let default = Self::default();
        // Who asks for larger pictures means those of every format.
        let max_decoded_bytes = match max_pixels > default.max_pixels {
            true => max_pixels.saturating_mul(MOST_PIXEL_BYTES),
            false => default.max_decoded_bytes,
        };
        let max_decode_work = max_pixels.saturating_mul(PASSES);
        Self { max_pixels, max_decode_work, max_decoded_bytes, ..default }
    }
}

impl Default for ImageLimits {
    fn default() -> Self {
        Self {
            max_bytes: 64 << 20,
            max_pixels: 65_000_000,
            max_side: 65_535,
            max_decoded_bytes: 1 << 30,
            max_decode_work: 65_000_000 * PASSES,
            max_frames: 10_000,
            max_num_patches: 4096,
            heif: HeifDecoder::InProcess,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_photographs_of_phones_pass() {
        let limits = ImageLimits::default();
        let pixels = 9248 * 6944;
        assert!(pixels <= limits.max_pixels);
        assert!(pixels * 12 <= limits.max_decoded_bytes, "as a progressive JPEG");
    }
}
