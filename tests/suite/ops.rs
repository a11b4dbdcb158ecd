//! Every kernel against its plain-candle reference, over odd shapes.

use candle_core::{Device, Tensor};
use siglip::testing::ops::attention::attention_reference;
use siglip::testing::ops::{
    Activation, Epilogue, LayerNorm, Linear, Numerics, Probe, Segments, WeightFormat, attention,
};

/// Values between −1 and 1 that are the same at every run.
fn values(count: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    (0..count)
        .map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
        })
        .collect()
}

pub fn tensor(shape: &[usize], seed: u64) -> Tensor {
    Tensor::from_vec(values(shape.iter().product(), seed), shape, &Device::Cpu).unwrap()
}

pub fn largest_difference(a: &Tensor, b: &Tensor) -> f32 {
    assert_eq!(a.dims(), b.dims());
    let (a, b) = (a.flatten_all().unwrap(), b.flatten_all().unwrap());
    let (a, b) = (a.to_vec1::<f32>().unwrap(), b.to_vec1::<f32>().unwrap());
    assert!(a.iter().all(|x| x.is_finite()));
    a.iter().zip(&b).map(|(x, y)| (x - y).abs()).fold(0.0, f32::max)
}

#[test]
fn linear_with_every_epilogue() {
    for (rows, inner, out) in
        (1..=70).map(|rows| (rows, 17 + rows % 3, 33)).chain([(200, 96, 160), (1, 1, 1), (3, 588, 7)])
    {
        let x = tensor(&[rows, inner], 1);
        let residual = tensor(&[rows, out], 2);
        let bias = Some(tensor(&[out], 4));
        for bias in [bias, None] {
            let weight = tensor(&[out, inner], 3);
            let layer = Linear::packed(&weight, bias.clone(), WeightFormat::F32).unwrap();
            let oracle = Linear::new(weight, bias);
            for epilogue in [
                Epilogue::None,
                Epilogue::Activation(Activation::GeluTanh),
                Epilogue::Activation(Activation::GeluErf),
                Epilogue::Residual(&residual),
            ] {
                let found = layer.forward(&x, epilogue).unwrap();
                let expected = oracle.reference(&x, epilogue).unwrap();
                let worst = largest_difference(&found, &expected);
                assert!(worst < 2e-5, "{rows} × {inner} → {out}, {epilogue:?}: {worst}");
            }
        }
    }
}

#[test]
fn layer_norm_of_odd_widths() {
    for (rows, width) in [(1, 1), (1, 15), (7, 16), (33, 17), (70, 96), (5, 1152), (2, 344)] {
        let norm = LayerNorm::new(tensor(&[width], 5), tensor(&[width], 6), 1e-6);
        let x = (tensor(&[rows, width], 7) * 30.0).unwrap();
        // A width of 1 leaves the bias alone: the reference divides 0 by √eps just as well.
        let worst = largest_difference(&norm.forward(&x).unwrap(), &norm.reference(&x).unwrap());
        assert!(worst < 2e-5, "{rows} × {width}: {worst}");
    }
}

#[test]
fn attention_over_segments_of_any_length() {
    for (lengths, heads, head_dim) in [
        (vec![1], 1, 8),
        (vec![1, 1, 1], 2, 9),
        (vec![64, 65, 63, 1, 128, 7], 3, 72),
        (vec![196, 196], 2, 64),
        (vec![5, 300], 2, 96),
    ] {
        let segments = Segments::new(lengths.iter().copied());
        let qkv = (tensor(&[segments.rows(), 3 * heads * head_dim], 8) * 3.0).unwrap();
        let found = attention(&qkv, &segments, heads).unwrap();
        let expected = attention_reference(&qkv, &segments, heads).unwrap();
        let worst = largest_difference(&found, &expected);
        assert!(worst < 2e-5, "{lengths:?}: {worst}");
    }
}

#[test]
fn attention_does_not_see_other_segments() {
    let (heads, width) = (2, 16);
    let first = tensor(&[5, 3 * width], 9);
    let alone = attention(&first, &Segments::new([5]), heads).unwrap();
    let packed = Tensor::cat(&[&first, &tensor(&[9, 3 * width], 10)], 0).unwrap();
    let both = attention(&packed, &Segments::new([5, 9]), heads).unwrap();
    assert_eq!(largest_difference(&both.narrow(0, 0, 5).unwrap(), &alone), 0.0);
}

#[test]
fn the_probe_looks_at_every_token_once() {
    let (heads, width) = (3, 24);
    let segments = Segments::new([4, 4, 1, 9]);
    let tokens = tensor(&[segments.rows(), width], 11);
    let (weight, bias) = (tensor(&[2 * width, width], 13), tensor(&[2 * width], 14));
    let numerics = Numerics::cpu(WeightFormat::F32);
    let probe = Probe::new(&tensor(&[width], 12), &weight, &bias, heads, &numerics).unwrap();
    let (pooled, maps) = probe.forward(&tokens, &segments).unwrap();
    assert_eq!(pooled.dims(), [4, width]);
    assert_eq!(
        maps.iter().map(|map| map.dims().to_vec()).collect::<Vec<_>>(),
        [[3, 4], [3, 4], [3, 1], [3, 9]]
    );
    for map in &maps {
        for row in map.to_vec2::<f32>().unwrap() {
            assert!((row.iter().sum::<f32>() - 1.0).abs() < 1e-5);
        }
    }
    // With a single token there is nothing to choose: its value is the answer.
    let values =
        Linear::new(weight.narrow(0, width, width).unwrap(), Some(bias.narrow(0, width, width).unwrap()));
    let value = values.reference(&tokens.narrow(0, 8, 1).unwrap(), Epilogue::None).unwrap();
    assert!(largest_difference(&pooled.narrow(0, 2, 1).unwrap(), &value) < 2e-6);
}

#[test]
fn what_does_not_fit_is_an_error() {
    let layer = Linear::packed(&tensor(&[4, 3], 1), None, WeightFormat::F32).unwrap();
    assert!(layer.forward(&tensor(&[2, 5], 2), Epilogue::None).is_err());
    let qkv = tensor(&[4, 12], 3);
    assert!(attention(&qkv, &Segments::new([3]), 2).is_err());
    assert!(attention(&qkv, &Segments::new([4, 0]), 2).is_err());
    assert!(attention(&qkv, &Segments::new([4]), 5).is_err());
}
