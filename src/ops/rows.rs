//! Rows put where they belong: token embeddings, repeated tables, last rows, means, and changes of type.

use candle_core::{DType, Device, Result, Tensor};

#[cfg(feature = "cuda")]
use super::on_gpu;
use super::{Input, Segments};

/// Token ids as the bytes of an [`Input`].
pub fn id_bytes(ids: impl IntoIterator<Item = u32>) -> Vec<u8> {
    ids.into_iter().flat_map(u32::to_ne_bytes).collect()
}

/// Rows `tokens` `[vocab, width]` at the ids of `input` ([`id_bytes`]), plus `positions` `[context, width]` over and over
/// → `[ids, width]`. There must be whole contexts of ids.
///
/// # Errors
/// If an id lies outside the vocabulary, or the device fails; on a GPU ids are the caller's to check.
pub fn embed_tokens(input: &Input<'_>, tokens: &Tensor, positions: &Tensor) -> Result<Tensor> {
    #[cfg(feature = "cuda")]
    if let Input::Device(bytes) = input
        && on_gpu(tokens)
    {
        return super::cuda::rows::embed(bytes, tokens, positions);
    }
    let (context, width) = positions.dims2()?;
    let ids = input.ids()?;
    let count = ids.len();
    let ids = Tensor::from_vec(ids, count, tokens.device())?;
    let x = tokens.index_select(&ids, 0)?.reshape((count / context, context, width))?;
    x.broadcast_add(positions)?.reshape((count, width))
}

/// Tables `[rows, width]` of one width, each repeated so many times, one behind the other. The tables are constants: the
/// same for every batch of the same shape.
///
/// # Errors
/// If there is none, or their widths differ.
pub fn stack_rows(tables: &[(Tensor, usize)]) -> Result<Tensor> {
    match tables {
        #[cfg(feature = "cuda")]
        [(table, 1)] if on_gpu(table) => {
            super::cuda::constant(table)?;
            Ok(table.clone())
        }
        #[cfg(feature = "cuda")]
        [(table, _), ..] if on_gpu(table) => super::cuda::rows::stack(tables),
        _ => {
            let all: Vec<&Tensor> =
                tables.iter().flat_map(|(table, count)| std::iter::repeat_n(table, *count)).collect();
            Tensor::cat(&all, 0)
        }
    }
}

/// The last row of each item of `x` `[rows, width]` → `[items, width]`.
///
/// # Errors
/// If the rows are not those of the segments.
pub fn last_rows(x: &Tensor, segments: &Segments) -> Result<Tensor> {
    #[cfg(feature = "cuda")]
    if on_gpu(x) {
        return super::cuda::rows::last(x, segments);
    }
    let last = segments.iter().filter(|rows| !rows.is_empty()).map(|rows| rows.end as u32 - 1);
    let last: Vec<u32> = last.collect();
    let count = last.len();
    x.index_select(&Tensor::from_vec(last, count, x.device())?, 0)
}

/// The mean of each item's rows of `x` `[rows, width]` → `[items, width]`, elsewhere than on a GPU in f32.
///
/// # Errors
/// If the rows are not those of the segments, or an item has none.
pub fn mean_rows(x: &Tensor, segments: &Segments) -> Result<Tensor> {
    #[cfg(feature = "cuda")]
    if on_gpu(x) {
        return super::cuda::rows::mean(x, segments);
    }
    let x = x.to_dtype(DType::F32)?; // candle would sum in the type of the values
    let means = segments.iter().map(|rows| x.narrow(0, rows.start, rows.len())?.mean_keepdim(0));
    Tensor::cat(&means.collect::<Result<Vec<_>>>()?, 0)
}

/// `x` `[rows, width]` in f32 in another type, or in another type in f32.
///
/// # Errors
/// If the device fails.
pub fn convert(x: &Tensor, dtype: DType) -> Result<Tensor> {
    match x.device() {
        #[cfg(feature = "cuda")]
        Device::Cuda(_) if on_gpu(x) => super::cuda::rows::convert(x, dtype),
        Device::Cuda(_) | Device::Cpu | Device::Metal(_) => x.to_dtype(dtype),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matrix(rows: usize, width: usize) -> Tensor {
        let values = (0..rows * width).map(|i| i as f32).collect();
        Tensor::from_vec(values, (rows, width), &Device::Cpu).unwrap()
    }

    #[test]
    fn ids_become_rows_with_positions() {
        let bytes = id_bytes([2, 0, 1, 2]);
        let pieces = [&bytes[..8], &bytes[8..]];
        let positions = (matrix(2, 3) * 100.0).unwrap();
        let y = embed_tokens(&Input::Host(&pieces), &matrix(3, 3), &positions).unwrap();
        assert_eq!(
            y.to_vec2::<f32>().unwrap(),
            [[6.0, 107.0, 208.0], [300.0, 401.0, 502.0], [3.0, 104.0, 205.0], [306.0, 407.0, 508.0]]
        );
        let wrong = id_bytes([3, 0]);
        assert!(embed_tokens(&Input::Host(&[&wrong]), &matrix(3, 3), &positions).is_err());
    }

    #[test]
    fn tables_are_repeated_in_their_order() {
        let y = stack_rows(&[(matrix(1, 2), 2), (matrix(2, 2), 1)]).unwrap();
        assert_eq!(y.to_vec2::<f32>().unwrap(), [[0.0, 1.0], [0.0, 1.0], [0.0, 1.0], [2.0, 3.0]]);
    }

    #[test]
    fn items_give_their_last_row_and_their_mean() {
        let segments = Segments::new([1, 3]);
        let x = matrix(4, 2);
        assert_eq!(last_rows(&x, &segments).unwrap().to_vec2::<f32>().unwrap(), [[0.0, 1.0], [6.0, 7.0]]);
        assert_eq!(mean_rows(&x, &segments).unwrap().to_vec2::<f32>().unwrap(), [[0.0, 1.0], [4.0, 5.0]]);
    }
}
