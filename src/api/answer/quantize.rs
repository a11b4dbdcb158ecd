//! From a normalised vector to the element type the client asked for.
//!
//! `int8` is `round(127·x)`, `uint8` the same plus 128; `binary` and `ubinary` keep the sign of each
//! element (1 where it is greater than zero), eight to a byte, the first in the highest bit; `ubinary` is that
//! byte, `binary` the byte minus 128 as a signed one. These are the definitions that Cohere, Jina and
//! sentence-transformers (`quantize_embeddings`, ranges −1…1) use.

use half::f16;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The element type of embeddings.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum EmbeddingType {
    /// IEEE single precision.
    #[default]
    #[serde(alias = "float")]
    Float32,
    /// IEEE half precision, rounded to nearest even.
    Float16,
    /// `round(127·x)` of the normalised vector, −127…127.
    Int8,
    /// `int8` plus 128: 1…255, zero is 128.
    Uint8,
    /// Signs, eight to a byte (first element in the highest bit), each byte minus 128 as a signed one.
    Binary,
    /// Signs, eight to a byte (first element in the highest bit).
    Ubinary,
}

impl EmbeddingType {
    /// NumPy's name of the element type, little-endian.
    pub fn npy_descr(self) -> &'static str {
        match self {
            Self::Float32 => "<f4",
            Self::Float16 => "<f2",
            Self::Int8 | Self::Binary => "|i1",
            Self::Uint8 | Self::Ubinary => "|u1",
        }
    }

    /// Number of elements that a vector of `dim` becomes.
    pub fn len(self, dim: usize) -> usize {
        match self {
            Self::Binary | Self::Ubinary => dim.div_ceil(8),
            _ => dim,
        }
    }

    /// Whether the numbers only mean something for vectors of length 1.
    pub fn needs_unit_length(self) -> bool {
        matches!(self, Self::Int8 | Self::Uint8)
    }
}

/// A vector in the element type asked for.
#[derive(Debug, Clone, PartialEq)]
pub enum Quantized {
    /// `float32`.
    F32(Vec<f32>),
    /// `float16`.
    F16(Vec<f16>),
    /// `int8` and `binary`.
    I8(Vec<i8>),
    /// `uint8` and `ubinary`.
    U8(Vec<u8>),
}

impl Quantized {
    /// Converts one vector; `int8` and `uint8` expect it normalised and saturate beyond −1…1.
    pub fn new(vector: Vec<f32>, kind: EmbeddingType) -> Self {
        match kind {
            EmbeddingType::Float32 => Self::F32(vector),
            EmbeddingType::Float16 => Self::F16(vector.into_iter().map(f16::from_f32).collect()),
            EmbeddingType::Int8 => Self::I8(vector.into_iter().map(int8).collect()),
            EmbeddingType::Uint8 => {
                Self::U8(vector.into_iter().map(|x| (i16::from(int8(x)) + 128) as u8).collect())
            }
            EmbeddingType::Ubinary => Self::U8(signs(&vector)),
            EmbeddingType::Binary => {
                Self::I8(signs(&vector).into_iter().map(|byte| (i16::from(byte) - 128) as i8).collect())
            }
        }
    }

    /// Appends the little-endian bytes.
    pub fn write_le(&self, out: &mut Vec<u8>) {
        match self {
            Self::F32(v) => v.iter().for_each(|x| out.extend_from_slice(&x.to_le_bytes())),
            Self::F16(v) => v.iter().for_each(|x| out.extend_from_slice(&x.to_le_bytes())),
            Self::I8(v) => out.extend(v.iter().map(|&x| x as u8)),
            Self::U8(v) => out.extend_from_slice(v),
        }
    }

    /// The little-endian bytes.
    pub fn to_le_bytes(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.write_le(&mut out);
        out
    }
}

fn int8(x: f32) -> i8 {
    // `as` saturates and takes NaN to 0; −128 is left out so that the range is symmetric.
    ((x * 127.0).round() as i8).max(-127)
}

/// `numpy.packbits(x > 0)`: the last byte is filled with zero bits.
fn signs(vector: &[f32]) -> Vec<u8> {
    vector
        .chunks(8)
        .map(|chunk| chunk.iter().enumerate().fold(0, |byte, (i, &x)| byte | (u8::from(x > 0.0) << (7 - i))))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn eight_bits() {
        let v = vec![1.0, -1.0, 0.0, 0.5, -0.25, 2.0, -2.0, f32::NAN];
        assert_eq!(
            Quantized::new(v.clone(), EmbeddingType::Int8),
            Quantized::I8(vec![127, -127, 0, 64, -32, 127, -127, 0])
        );
        assert_eq!(
            Quantized::new(v, EmbeddingType::Uint8),
            Quantized::U8(vec![255, 1, 128, 192, 96, 255, 1, 128])
        );
    }

    #[test]
    fn signs_are_numpys_packbits() {
        // numpy.packbits([1,0,0,1,0,1,1,0, 1]) == [150, 128]
        let v = vec![0.1, -0.1, 0.0, 0.2, -0.5, 0.3, 0.4, -0.2, 0.9];
        assert_eq!(Quantized::new(v.clone(), EmbeddingType::Ubinary), Quantized::U8(vec![150, 128]));
        assert_eq!(Quantized::new(v, EmbeddingType::Binary), Quantized::I8(vec![22, 0]));
        assert_eq!(EmbeddingType::Binary.len(9), 2);
    }

    #[test]
    fn bytes_are_little_endian() {
        assert_eq!(Quantized::new(vec![1.0], EmbeddingType::Float32).to_le_bytes(), [0, 0, 0x80, 0x3f]);
        assert_eq!(Quantized::new(vec![1.0], EmbeddingType::Float16).to_le_bytes(), [0, 0x3c]);
        assert_eq!(Quantized::new(vec![-1.0], EmbeddingType::Int8).to_le_bytes(), [0x81]);
    }
}
