//! Embeddings as one array: bare little-endian rows, or NumPy's `.npy` file format.

use super::quantize::{EmbeddingType, Quantized};

/// Rows one after the other, little-endian.
pub fn rows(vectors: &[Quantized]) -> Vec<u8> {
    let mut out = Vec::new();
    for vector in vectors {
        vector.write_le(&mut out);
    }
    out
}

/// A `.npy` file, version 1.0, of shape `[vectors.len(), width]` in C order
/// (<https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html>).
pub fn npy(vectors: &[Quantized], width: usize, kind: EmbeddingType) -> Vec<u8> {
    const MAGIC: &[u8] = b"\x93NUMPY\x01\x00";
    let mut header = format!(
        "{{'descr': '{}', 'fortran_order': False, 'shape': ({}, {width}), }}",
        kind.npy_descr(),
        vectors.len()
    );
    // Magic, the header's length in two bytes, the header and its newline together are a multiple of 64.
    let padding = 64 - (MAGIC.len() + 2 + header.len() + 1) % 64;
    header.extend(std::iter::repeat_n(' ', padding % 64));
    header.push('\n');
    let mut out = Vec::with_capacity(MAGIC.len() + 2 + header.len());
    out.extend_from_slice(MAGIC);
    // The header is about a hundred bytes: two numbers of at most twenty digits.
    out.extend_from_slice(&(header.len() as u16).to_le_bytes());
    out.extend_from_slice(header.as_bytes());
    for vector in vectors {
        vector.write_le(&mut out);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_is_numpys() {
        let vectors = [Quantized::F32(vec![1.0, 2.0]), Quantized::F32(vec![3.0, 4.0])];
        let file = npy(&vectors, 2, EmbeddingType::Float32);
        let length = usize::from(u16::from_le_bytes([file[8], file[9]]));
        assert_eq!((10 + length) % 64, 0);
        let header = std::str::from_utf8(&file[10..10 + length]).unwrap();
        assert!(header.starts_with("{'descr': '<f4', 'fortran_order': False, 'shape': (2, 2), }"));
        assert!(header.ends_with(" \n"));
        assert_eq!(&file[10 + length..], rows(&vectors));
    }
}
