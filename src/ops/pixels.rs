//! From bytes to the values a tower was trained on.

use candle_core::{Result, Tensor};

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
    Tensor::from_vec(values, (rows, columns), &candle_core::Device::Cpu)
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
