//! One strip or tile to exactly the bytes that it must hold.

use std::io::Read;

use flate2::{Decompress, FlushDecompress, Status};
use weezl::{BitOrder, LzwStatus, decode::Decoder as LzwDecoder};

use super::layout::Compression;
use super::{ccitt, damaged, refused};
use crate::image::ImageError;

/// What the CCITT codes need to know of a chunk.
#[derive(Clone, Copy)]
pub(super) struct Fax {
    pub(super) width: usize,
    pub(super) rows: usize,
    /// The tag `T4Options`: bit 0 says that rows refer to the row before.
    pub(super) options: u64,
}

/// Fills `out`; data that end before are an error, data that go on are ignored.
pub(super) fn expand(
    source: &[u8],
    out: &mut [u8],
    compression: Compression,
    fax: Fax,
) -> Result<(), ImageError> {
    match compression {
        Compression::None => {
            let source = source.get(..out.len()).ok_or_else(too_early)?;
            out.copy_from_slice(source);
            Ok(())
        }
        Compression::PackBits => pack_bits(source, out),
        Compression::Lzw => lzw(source, out),
        Compression::Deflate => deflate(source, out),
        Compression::Zstd => {
            let mut decoder = ruzstd::decoding::StreamingDecoder::new(source).map_err(damaged)?;
            decoder.read_exact(out).map_err(|_| too_early())
        }
        Compression::Rle | Compression::Group3 | Compression::Group4 => {
            let code = match compression {
                Compression::Rle => ccitt::Code::Rle,
                Compression::Group3 => ccitt::Code::Group3 { two_dimensional: fax.options & 1 == 1 },
                _ => ccitt::Code::Group4,
            };
            ccitt::expand(source, out, code, fax.width, fax.rows)
        }
        Compression::Jpeg => Err(refused("JPEG compression of such samples")),
    }
}

fn too_early() -> ImageError {
    damaged("the data of a strip or tile end too early")
}

fn pack_bits(source: &[u8], out: &mut [u8]) -> Result<(), ImageError> {
    let (mut at, mut filled) = (0, 0);
    while filled < out.len() {
        let head = *source.get(at).ok_or_else(too_early)?;
        at += 1;
        let count = match head {
            0..128 => usize::from(head) + 1,
            128 => continue,
            129.. => 257 - usize::from(head),
        };
        // What does not fit is cut off, as in libtiff.
        let count = count.min(out.len() - filled);
        let target = &mut out[filled..filled + count];
        if head < 128 {
            target.copy_from_slice(source.get(at..at + count).ok_or_else(too_early)?);
            at += usize::from(head) + 1;
        } else {
            target.fill(*source.get(at).ok_or_else(too_early)?);
            at += 1;
        }
        filled += count;
    }
    Ok(())
}

fn lzw(mut source: &[u8], mut out: &mut [u8]) -> Result<(), ImageError> {
    if source.first() == Some(&0) && source.get(1).is_some_and(|byte| byte & 1 == 1) {
        return Err(refused("the LZW compression of before 1988"));
    }
    let mut decoder = LzwDecoder::with_tiff_size_switch(BitOrder::Msb, 8);
    while !out.is_empty() {
        let result = decoder.decode_bytes(source, out);
        source = &source[result.consumed_in..];
        out = &mut out[result.consumed_out..];
        match result.status.map_err(damaged)? {
            LzwStatus::Ok if result.consumed_in + result.consumed_out > 0 => {}
            _ if out.is_empty() => {}
            _ => return Err(too_early()),
        }
    }
    Ok(())
}

fn deflate(source: &[u8], out: &mut [u8]) -> Result<(), ImageError> {
    let mut decoder = Decompress::new(true);
    loop {
        let (read, written) = (decoder.total_in() as usize, decoder.total_out() as usize);
        if written == out.len() {
            return Ok(());
        }
        let status = decoder.decompress(&source[read..], &mut out[written..], FlushDecompress::None);
        let status = status.map_err(damaged)?;
        let moved = decoder.total_in() as usize > read || decoder.total_out() as usize > written;
        if decoder.total_out() as usize != out.len() && (status == Status::StreamEnd || !moved) {
            return Err(too_early());
        }
    }
}
