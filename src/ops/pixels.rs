//! From bytes to the values a tower was trained on.

use candle_core::{DType, Device, Result, Tensor};

use super::{Input, Numerics};

/// The value of each byte in each channel: `(byte · rescale − mean) / std`, in f32 and in this order
/// as transformers does it (`rescale`, then `normalize`).
pub fn pixel_table(mean: [f32; 3], std: [f32; 3], rescale: f32) -> [[f32; 256]; 3] {
    std::array::from_fn(|channel| {
        std::array::from_fn(|byte| (byte as f32 * rescale - mean[channel]) / std[channel])
    })
}

/// Bytes `[rows, columns]`, channels innermost, through a [`pixel_table`], as f32 on the CPU.
///
/// # Errors
/// If there are not `rows · columns` bytes.
pub fn normalize_pixels<'a>(
    pieces: impl Iterator<Item = &'a [u8]>,
    rows: usize,
    columns: usize,
    table: &[[f32; 256]; 3],
) -> Result<Tensor> {
    let mut values = Vec::with_capacity(rows * columns);
    for piece in pieces {
        values.extend(
            piece.chunks_exact(3).flat_map(|p| std::array::from_fn::<f32, 3, _>(|c| table[c][p[c] as usize])),
        );
    }
    Tensor::from_vec(values, (rows, columns), &Device::Cpu)
}

/// A [`pixel_table`] where it is applied: bytes go up to a GPU as they are and become values there.
#[derive(Debug, Clone)]
pub struct PixelValues {
    table: [[f32; 256]; 3],
    #[cfg(feature = "cuda")]
    on_gpu: Option<Tensor>,
    device: Device,
    dtype: DType,
}

impl PixelValues {
    /// For values where and of the type that the towers compute.
    ///
    /// # Errors
    /// If the device has no room for the table.
    pub fn new(table: [[f32; 256]; 3], numerics: &Numerics) -> Result<Self> {
        let device = numerics.device();
        Ok(Self {
            #[cfg(feature = "cuda")]
            on_gpu: device.is_cuda().then(|| Tensor::new(&table, device)).transpose()?,
            table,
            device: device.clone(),
            dtype: numerics.dtype(),
        })
    }

    /// Bytes `[rows, columns]`, channels innermost → values of that shape.
    ///
    /// # Errors
    /// If there are not `rows · columns` bytes, or the device fails.
    pub fn of(&self, input: &Input<'_>, rows: usize, columns: usize) -> Result<Tensor> {
        #[cfg(feature = "cuda")]
        if let (Input::Device(bytes), Some(table), Device::Cuda(device)) = (input, &self.on_gpu, &self.device)
        {
            return super::cuda::pixels::normalize(bytes, rows, columns, table, device, self.dtype);
        }
        let x = normalize_pixels(input.pieces()?.iter().copied(), rows, columns, &self.table)?;
        x.to_device(&self.device)?.to_dtype(self.dtype)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_become_minus_one_to_one() {
        let table = pixel_table([0.5; 3], [0.5; 3], 1.0 / 255.0);
        let bytes = [0u8, 255, 51];
        let x = normalize_pixels([&bytes[..]].into_iter(), 1, 3, &table).unwrap();
        let x = x.to_vec2::<f32>().unwrap();
        assert_eq!(x[0][0], -1.0);
        assert_eq!(x[0][1], 1.0);
        assert!((x[0][2] + 0.6).abs() < 1e-6);
    }

    #[test]
    fn a_wrong_number_of_bytes_is_an_error() {
        let table = pixel_table([0.5; 3], [0.5; 3], 1.0 / 255.0);
        assert!(normalize_pixels([&[0u8; 6][..]].into_iter(), 1, 3, &table).is_err());
    }
}
