//! Patch tokens before pooling and the attention map of the pooling head, as raw little-endian f32:
//!
//!     cargo run --example hidden_states -- MODEL IMAGE > values.bin
//!
//! `[patches, width]` tokens, then `[heads, patches]` weights of the probe.

use std::io::Write;

use siglip::testing::checkpoint::{self, HubOptions, ModelRef};
use siglip::testing::pipeline::{LoadOptions, Pipeline, Precision};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let (Some(model), Some(image)) = (args.next(), args.next()) else {
        return Err("usage: hidden_states MODEL IMAGE".into());
    };
    let checkpoint = checkpoint::open(&model.parse::<ModelRef>()?, &HubOptions::default())?;
    let pipeline =
        Pipeline::load(checkpoint, &LoadOptions { precision: Precision::F32, ..LoadOptions::default() })?;
    let patches = pipeline.prepare_image(&std::fs::read(image)?, None)?;
    let outputs = pipeline.model().image()?.forward(&[&patches])?;
    let mut values = outputs.tokens.flatten_all()?.to_vec1::<f32>()?;
    for map in &outputs.attention {
        values.extend(map.flatten_all()?.to_vec1::<f32>()?);
    }
    let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    std::io::stdout().write_all(&bytes)?;
    Ok(())
}
