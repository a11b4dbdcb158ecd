//! Products of many vectors with many, on the processor, out of plain slices.

use candle_core::{CpuStorage, Error, Result};

use super::cpu::linear::Finish;
use super::cpu::{Isa, PackedWeight, WeightFormat};

/// Vectors that others are multiplied with, packed for this processor.
pub struct Products(PackedWeight);

impl Products {
    /// Packs `vectors`, `[count, width]`.
    ///
    /// # Errors
    /// If they are not whole vectors.
    pub fn new(vectors: &[f32], width: usize) -> Result<Self> {
        if width == 0 || vectors.is_empty() || !vectors.len().is_multiple_of(width) {
            return Err(Error::Msg(format!("{} values are no vectors of width {width}", vectors.len())));
        }
        let count = vectors.len() / width;
        Ok(Self(PackedWeight::new(vectors, count, width, WeightFormat::F32, Isa::best())?))
    }

    /// The product of every row of `rows`, `[rows, width]`, with every packed vector: `[rows, count]`, in f32, by all
    /// threads.
    ///
    /// # Errors
    /// If `rows` are not whole vectors of the same width.
    pub fn with(&self, rows: &[f32]) -> Result<Vec<f32>> {
        let (_, width) = self.0.shape();
        let plain = Finish { bias: None, activation: None, centre: None, residual: None };
        match self.0.forward::<f32>(rows, rows.len() / width, plain, false)? {
            CpuStorage::F32(products) => Ok(products),
            _ => Err(Error::Msg("a product in f32 gave another type".to_owned())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_meets_every_vector() {
        let vectors = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0];
        let products = Products::new(&vectors, 3).unwrap();
        assert_eq!(products.with(&[1.0, 0.0, 0.0, 0.0, 1.0, 1.0]).unwrap(), [1.0, 4.0, 5.0, 11.0]);
        assert!(products.with(&[1.0; 4]).is_err());
        assert!(Products::new(&vectors, 4).is_err() && Products::new(&[], 3).is_err());
    }
}
