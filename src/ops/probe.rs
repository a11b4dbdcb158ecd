//! The attention of MAP pooling: a constant query to the tokens of each item, with the projections of keys and values.

use candle_core::{DType, Result, Tensor};
use half::bf16;

use super::cpu::pooling::Folded;
use super::profile::timed;
use super::{Epilogue, Linear, Numerics, Segments, cpu, probe_attention};

/// A probe that attends to tokens.
pub struct Probe {
    form: Form,
    heads: usize,
}

enum Form {
    /// On the processor: neither keys nor values are computed.
    Folded(Folded),
    /// On a GPU: query `[width]`, and the projection of keys and values.
    Projected(Tensor, Linear),
}

impl Probe {
    /// From the projected `query` `[width]`, and the projection of keys and values side by side, `weight`
    /// `[2 · width, width]` and `bias` `[2 · width]`, all f32 on the CPU.
    ///
    /// # Errors
    /// If they are not that, or the device has no room.
    pub fn new(
        query: &Tensor,
        weight: &Tensor,
        bias: &Tensor,
        heads: usize,
        numerics: &Numerics,
    ) -> Result<Self> {
        let form = if numerics.device().is_cpu() {
            let values = |x: &Tensor| x.flatten_all()?.to_vec1::<f32>();
            Form::Folded(Folded::new(&values(query)?, &values(weight)?, &values(bias)?, heads)?)
        } else {
            Form::Projected(numerics.place(query)?, numerics.linear(weight, bias)?)
        };
        Ok(Self { form, heads })
    }

    /// `tokens` `[rows, width]` → the pooled values `[items, width]`, and, one tensor `[heads, tokens]` (f32) an item,
    /// how much each head looked at each token.
    ///
    /// # Errors
    /// If the tokens are not those of the segments, or an item has none.
    pub fn forward(&self, tokens: &Tensor, segments: &Segments) -> Result<(Tensor, Vec<Tensor>)> {
        match &self.form {
            Form::Folded(folded) => pool(folded, tokens, segments),
            Form::Projected(query, kv) => {
                probe_attention(query, &kv.forward(tokens, Epilogue::None)?, segments, self.heads)
            }
        }
    }
}

fn pool(folded: &Folded, tokens: &Tensor, segments: &Segments) -> Result<(Tensor, Vec<Tensor>)> {
    if segments.iter().any(|rows| rows.is_empty()) {
        candle_core::bail!("attention: an item without tokens");
    }
    let tokens = tokens.contiguous()?;
    let (storage, layout) = tokens.storage_and_layout();
    let width = folded.width();
    let multiplications = width * (2 * folded.heads() * segments.rows() + segments.len() * width);
    let (pooled, maps) = timed(
        || "pooling by the probe".into(),
        multiplications,
        || match tokens.dtype() {
            DType::BF16 => folded.pool::<bf16>(cpu::tensor_slice(&storage, layout)?, segments),
            _ => folded.pool::<f32>(cpu::tensor_slice(&storage, layout)?, segments),
        },
    )?;
    let device = tokens.device();
    let map = |(map, rows): (Vec<f32>, std::ops::Range<usize>)| {
        Tensor::from_vec(map, (folded.heads(), rows.len()), device)
    };
    let maps = maps.into_iter().zip(segments.iter()).map(map).collect::<Result<_>>()?;
    Ok((Tensor::from_vec(pooled, (segments.len(), width), device)?, maps))
}
