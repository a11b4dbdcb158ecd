//! The processor's kernels, on every instruction set that this machine has, over odd shapes.
//!
//! The oracle is plain candle in f32, given what the kernels multiply: values rounded to bf16, or to bytes as the
//! quantisation's documentation says.

use candle_core::{CpuStorage, DType, Device, Tensor};
use half::bf16;
use siglip::testing::ops::attention::{
    attention_reference, probe_attention_reference, query_attention_reference,
};
use siglip::testing::ops::cpu::attention::Inputs;
use siglip::testing::ops::cpu::linear::Finish;
use siglip::testing::ops::cpu::panels::Element;
use siglip::testing::ops::cpu::weight::attend;
use siglip::testing::ops::cpu::{Isa, PackedWeight, WeightFormat};
use siglip::testing::ops::{Activation, Epilogue, Linear, Numerics, Probe, Segments, query_attention};

use crate::ops::{largest_difference, tensor};

const FORMATS: [WeightFormat; 3] = [WeightFormat::F32, WeightFormat::Bf16, WeightFormat::Int8];

/// The instruction sets that this machine can run.
fn sets() -> Vec<Isa> {
    println!("the best that this machine has: {}", Isa::best());
    Isa::available()
}

fn rounded(x: &Tensor) -> Tensor {
    x.to_dtype(DType::BF16).unwrap().to_dtype(DType::F32).unwrap()
}

fn slice(x: &Tensor) -> Vec<f32> {
    x.flatten_all().unwrap().to_vec1().unwrap()
}

fn narrow(x: &Tensor) -> Vec<bf16> {
    x.to_dtype(DType::BF16).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

fn result(storage: CpuStorage, shape: (usize, usize)) -> Tensor {
    match storage {
        CpuStorage::F32(values) => Tensor::from_vec(values, shape, &Device::Cpu).unwrap(),
        CpuStorage::BF16(values) => {
            Tensor::from_vec(values, shape, &Device::Cpu).unwrap().to_dtype(DType::F32).unwrap()
        }
        _ => panic!("neither f32 nor bf16"),
    }
}

fn attend_rows<T: Element>(
    qkv: &[T],
    width: usize,
    segments: &Segments,
    heads: usize,
    isa: Isa,
) -> candle_core::Result<CpuStorage> {
    attend(Inputs::every_row(qkv, width, segments)?, segments, heads, isa)
}

/// Each row to the nearest of `most` steps over its own range: what bytes can say of it.
fn in_steps(x: &Tensor, most: u8) -> Tensor {
    by_row(x, |low, high, _| {
        let step = (high - low) / f32::from(most);
        (step, (-low / step).round())
    })
}

/// Each row of a weight to the nearest of its steps, over its largest value, or its largest two neighbours where these are bounded.
fn weight_in_steps(x: &Tensor, pair: u8) -> Tensor {
    by_row(x, |low, high, row| {
        let pairs = row.chunks(2).map(|pair| pair.iter().map(|x| x.abs()).sum::<f32>());
        let step = high.max(-low) / 127.0;
        let bounded = pairs.fold(0.0, f32::max) / (f32::from(pair) - 1.0);
        (if pair < 254 { step.max(bounded) } else { step }, 0.0)
    })
}

/// Each row in its steps, of its step and the number of steps below 0.
fn by_row(x: &Tensor, of: impl Fn(f32, f32, &[f32]) -> (f32, f32)) -> Tensor {
    let rows: Vec<Vec<f32>> = x.to_vec2().unwrap();
    let rows = rows.into_iter().map(|row| {
        let low = row.iter().fold(0.0f32, |m, &x| m.min(x));
        let high = row.iter().fold(0.0f32, |m, &x| m.max(x));
        let (step, zero) = of(low, high, &row);
        row.into_iter()
            .map(|x| if step > 0.0 { ((x / step + zero).round_ties_even() - zero) * step } else { 0.0 })
            .collect::<Vec<f32>>()
    });
    Tensor::new(rows.collect::<Vec<_>>(), &Device::Cpu).unwrap()
}

/// What a kernel of this format multiplies, and by how much its result may differ from the oracle's.
fn as_multiplied(
    x: &Tensor,
    weight: &Tensor,
    format: WeightFormat,
    (most, pair): (u8, u8),
) -> (Tensor, Tensor, f32) {
    // The sums are made in another order than the oracle's: each addition rounds a sum that grows with the square root
    // of what was added, so that the difference grows with the number of terms.
    let order = 2e-5 + f32::EPSILON / 2.0 * x.dim(1).unwrap() as f32;
    match format {
        WeightFormat::F32 => (x.clone(), weight.clone(), order),
        WeightFormat::Bf16 => (rounded(x), rounded(weight), order),
        // A value between two steps may be rounded to either: 1/255 of a row's range times a weight, seldom.
        WeightFormat::Int8 => (in_steps(x, most), weight_in_steps(weight, pair), 2e-2),
    }
}

fn check_linear(rows: usize, inner: usize, out: usize, isa: Isa, format: WeightFormat) {
    let (x, weight) = (tensor(&[rows, inner], 1), tensor(&[out, inner], 3));
    let (residual, bias, centre) = (tensor(&[rows, out], 2), tensor(&[out], 4), tensor(&[out], 5));
    let packed = PackedWeight::new(&slice(&weight), out, inner, format, isa).unwrap();
    let (multiplied, by, bound) = as_multiplied(&x, &weight, format, packed.bounds());
    for (activation, add, with_bias, narrowed) in [
        (None, false, true, false),
        (None, true, false, false),
        (None, true, true, false),
        (Some(Activation::GeluTanh), false, true, false),
        (Some(Activation::GeluErf), false, false, false),
        (Some(Activation::GeluTanh), false, true, true),
    ] {
        // As a layer before bytes has it.
        let centred = activation.is_some() && with_bias;
        let oracle = Linear::new(by.clone(), with_bias.then(|| bias.clone()));
        let epilogue = match (activation, add) {
            (Some(activation), _) => Epilogue::Activation(activation),
            (None, true) => Epilogue::Residual(&residual),
            (None, false) => Epilogue::None,
        };
        let mut expected = oracle.reference(&multiplied, epilogue).unwrap();
        if centred {
            expected = expected.broadcast_sub(&centre).unwrap();
        }
        let (bias, residual, centre) = (slice(&bias), slice(&residual), slice(&centre));
        let finish = Finish {
            bias: with_bias.then_some(&*bias),
            activation,
            centre: centred.then_some(&*centre),
            residual: add.then_some(&*residual),
        };
        let found = packed.forward::<f32>(&slice(&x), rows, finish, narrowed).unwrap();
        let found = result(found, (rows, out));
        // A result in bf16 has eight bits.
        let bound = if narrowed {
            bound + 0.004 * slice(&expected).iter().fold(0.0f32, |m, x| m.max(x.abs()))
        } else {
            bound
        };
        let worst = largest_difference(&found, &expected);
        assert!(worst < bound, "{isa} {format:?}: {rows} × {inner} → {out}, {activation:?} {add}: {worst}");
        if format == WeightFormat::Int8 {
            // Nearly all values lie between no two steps, which are wider where there are fewer.
            let mean =
                ((found - expected).unwrap().abs().unwrap().mean_all().unwrap()).to_scalar::<f32>().unwrap();
            let bound = if narrowed { bound } else { 2e-4 * 255.0 / f32::from(packed.bounds().0) };
            assert!(mean < bound, "{isa}: {rows} × {inner} → {out}: mean {mean}");
        }
    }
    // Activations that come in bf16 are what f32 of the same values is.
    let x = rounded(&x);
    let finish = Finish { bias: None, activation: None, centre: None, residual: None };
    let wide = packed.forward::<f32>(&slice(&x), rows, finish, false).unwrap();
    let same = packed.forward::<bf16>(&narrow(&x), rows, finish, false).unwrap();
    assert_eq!(slice(&result(wide, (rows, out))), slice(&result(same, (rows, out))), "{isa} {format:?}");
}

#[test]
fn linear_on_every_instruction_set() {
    for isa in sets() {
        for format in FORMATS {
            for rows in 1..=70 {
                check_linear(rows, 17 + rows % 50, 1 + 7 * rows % 101, isa, format);
            }
            for (rows, inner, out) in [
                (200, 96, 160),
                (1, 1, 1),
                (3, 588, 7),
                (33, 64, 48),
                (1, 4304, 3),
                (65, 65, 97),
                (210, 1100, 33),
                (40, 4304, 70),
            ] {
                check_linear(rows, inner, out, isa, format);
            }
        }
    }
}

/// So many rows that each task packs its own.
#[test]
fn tall_products_are_cut_into_blocks_of_rows() {
    for isa in sets() {
        for format in FORMATS {
            // So long a K comes in pieces.
            let (inner, out) = (4304, 5);
            let weight = slice(&tensor(&[out, inner], 3));
            let packed = PackedWeight::new(&weight, out, inner, format, isa).unwrap();
            let rows = 2100;
            let x = tensor(&[rows, inner], 1);
            let finish = Finish { bias: None, activation: None, centre: None, residual: None };
            let all =
                slice(&result(packed.forward::<f32>(&slice(&x), rows, finish, false).unwrap(), (rows, out)));
            for first in [0, 1, 700, 2099] {
                let row = slice(&x.narrow(0, first, 1).unwrap());
                let alone = slice(&result(packed.forward::<f32>(&row, 1, finish, false).unwrap(), (1, out)));
                assert_eq!(all[first * out..][..out], alone, "{isa} {format:?}: row {first}");
            }
        }
    }
}

/// However many threads there are, on however few cores: the same bits.
#[test]
fn the_number_of_threads_changes_no_bit() {
    let (inner, out) = (300, 200);
    let weight = slice(&tensor(&[out, inner], 3));
    let segments = Segments::new([64, 1, 196, 40]);
    let rows = segments.rows();
    let (x, qkv) = (slice(&tensor(&[rows, inner], 1)), slice(&tensor(&[rows, 3 * 96], 8)));
    let finish = Finish { bias: None, activation: Some(Activation::GeluTanh), centre: None, residual: None };
    for format in FORMATS {
        let packed = PackedWeight::new(&weight, out, inner, format, Isa::active()).unwrap();
        let at = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| {
                let y = packed.forward::<f32>(&x, rows, finish, false).unwrap();
                let attended = attend_rows(&qkv, 96, &segments, 3, Isa::active()).unwrap();
                (slice(&result(y, (rows, out))), slice(&result(attended, (rows, 96))))
            })
        };
        let one = at(1);
        for threads in [2, 3, 8, 32, 64] {
            assert_eq!(at(threads), one, "{format:?} on {threads} threads");
        }
    }
}

#[test]
fn attention_on_every_instruction_set() {
    for isa in sets() {
        for (lengths, heads, head_dim) in [
            (vec![1], 1, 8),
            (vec![1, 1, 1], 2, 9),
            (vec![64, 65, 63, 1, 33, 7], 3, 72),
            (vec![196], 2, 64),
            (vec![5, 300], 2, 96),
        ] {
            let segments = Segments::new(lengths.iter().copied());
            let (rows, width) = (segments.rows(), heads * head_dim);
            let qkv = (tensor(&[rows, 3 * width], 8) * 3.0).unwrap();
            let found =
                result(attend_rows(&slice(&qkv), width, &segments, heads, isa).unwrap(), (rows, width));
            let expected = attention_reference(&qkv, &segments, heads).unwrap();
            let worst = largest_difference(&found, &expected);
            assert!(worst < 2e-5, "{isa} f32 {lengths:?}: {worst}");

            let found =
                result(attend_rows(&narrow(&qkv), width, &segments, heads, isa).unwrap(), (rows, width));
            let expected = attention_reference(&rounded(&qkv), &segments, heads).unwrap();
            let worst = largest_difference(&found, &expected);
            // Weights and results are rounded to eight bits; values are at most 3.
            assert!(worst < 0.03, "{isa} bf16 {lengths:?}: {worst}");
            let mean =
                ((found - expected).unwrap().abs().unwrap().mean_all().unwrap()).to_scalar::<f32>().unwrap();
            assert!(mean < 4e-3, "{isa} bf16 {lengths:?}: mean {mean}");
        }
    }
}

/// The last row's query alone gives the last row's result, bit for bit: which columns of a panel are used changes no sum.
#[test]
fn one_query_an_item_attends_as_it_does_among_others() {
    for isa in sets() {
        for (lengths, heads, head_dim) in
            [(vec![1], 1, 8), (vec![64, 65, 63, 1, 33, 7], 3, 72), (vec![5, 300], 2, 96)]
        {
            let segments = Segments::new(lengths.iter().copied());
            let (rows, width) = (segments.rows(), heads * head_dim);
            let qkv = (tensor(&[rows, 3 * width], 8) * 3.0).unwrap();
            let last: Vec<u32> = segments.iter().map(|rows| rows.end as u32 - 1).collect();
            let last = Tensor::new(last, &Device::Cpu).unwrap();
            let queries = qkv.narrow(1, 0, width).unwrap().contiguous().unwrap();
            let queries = queries.index_select(&last, 0).unwrap();
            let kv = qkv.narrow(1, width, 2 * width).unwrap().contiguous().unwrap();
            let shape = (segments.len(), width);

            let among =
                result(attend_rows(&slice(&qkv), width, &segments, heads, isa).unwrap(), (rows, width));
            let (q, pairs) = (slice(&queries), slice(&kv));
            let inputs = Inputs::one_query(&q, &pairs, width, &segments).unwrap();
            let alone = result(attend(inputs, &segments, heads, isa).unwrap(), shape);
            assert_eq!(slice(&among.index_select(&last, 0).unwrap()), slice(&alone), "{isa} {lengths:?}");
            let expected = query_attention_reference(&queries, &kv, &segments, heads).unwrap();
            assert!(largest_difference(&alone, &expected) < 2e-5, "{isa} {lengths:?}");

            let among =
                result(attend_rows(&narrow(&qkv), width, &segments, heads, isa).unwrap(), (rows, width));
            let (q, pairs) = (narrow(&queries), narrow(&kv));
            let inputs = Inputs::one_query(&q, &pairs, width, &segments).unwrap();
            let alone = result(attend(inputs, &segments, heads, isa).unwrap(), shape);
            assert_eq!(slice(&among.index_select(&last, 0).unwrap()), slice(&alone), "{isa} {lengths:?}");
        }
    }
    let segments = Segments::new([2, 3]);
    assert!(Inputs::one_query(&[0.0f32; 4], &[0.0; 20], 2, &segments).is_ok());
    assert!(Inputs::one_query(&[0.0f32; 3], &[0.0; 20], 2, &segments).is_err());
    assert!(Inputs::one_query(&[0.0f32; 4], &[0.0; 19], 2, &segments).is_err());
    assert!(Inputs::every_row(&[0.0f32; 29], 2, &segments).is_err());
    let (queries, kv) = (tensor(&[2, 4], 1), tensor(&[5, 8], 2));
    assert!(query_attention(&queries, &kv, &segments, 2).is_ok());
    assert!(query_attention(&queries.narrow(0, 0, 1).unwrap(), &kv, &segments, 2).is_err());
    assert!(query_attention(&queries, &kv, &Segments::new([5, 0]), 2).is_err());
}

/// The projections that a probe folds away, computed by the reference, give the same.
#[test]
fn the_probe_agrees_with_its_reference() {
    for (lengths, heads, head_dim) in
        [(vec![1], 1, 3), (vec![196, 196, 7], 3, 24), (vec![64; 5], 2, 72), (vec![5, 300], 13, 16)]
    {
        let segments = Segments::new(lengths.iter().copied());
        let width = heads * head_dim;
        let scale = 1.0 / (width as f64).sqrt();
        let weight = (tensor(&[2 * width, width], 11) * scale).unwrap();
        let (query, bias) = ((tensor(&[width], 12) * 4.0).unwrap(), tensor(&[2 * width], 13));
        let probe = Probe::new(&query, &weight, &bias, heads, &Numerics::cpu(WeightFormat::F32)).unwrap();
        let tokens = tensor(&[segments.rows(), width], 14);
        for tokens in [tokens.clone(), tokens.to_dtype(DType::BF16).unwrap()] {
            let wide = tokens.to_dtype(DType::F32).unwrap();
            let kv =
                Linear::new(weight.clone(), Some(bias.clone())).reference(&wide, Epilogue::None).unwrap();
            let (expected, expected_maps) = probe_attention_reference(&query, &kv, &segments, heads).unwrap();
            let (found, maps) = probe.forward(&tokens, &segments).unwrap();
            let worst = largest_difference(&found, &expected);
            assert!(worst < 1e-6, "{lengths:?} {heads} × {head_dim}: {worst}");
            assert_eq!(maps.len(), expected_maps.len());
            for (map, expected) in maps.iter().zip(&expected_maps) {
                let worst = largest_difference(map, expected);
                assert!(worst < 1e-6, "{lengths:?} {heads} × {head_dim}: maps {worst}");
            }
        }
        assert!(probe.forward(&tokens.narrow(0, 0, 1).unwrap(), &Segments::new([2])).is_err());
        assert!(probe.forward(&tokens, &Segments::new([segments.rows(), 0])).is_err());
    }
    let numerics = Numerics::cpu(WeightFormat::F32);
    let (query, weight, bias) = (tensor(&[6], 1), tensor(&[12, 6], 2), tensor(&[12], 3));
    assert!(Probe::new(&query, &weight, &bias, 4, &numerics).is_err());
    assert!(Probe::new(&query, &weight, &query, 3, &numerics).is_err());
}

/// A number that is not finite must not become one that is.
#[test]
fn what_is_not_finite_stays_so() {
    for isa in sets() {
        for format in FORMATS {
            let weight = slice(&tensor(&[40, 50], 3));
            let packed = PackedWeight::new(&weight, 40, 50, format, isa).unwrap();
            let mut x = slice(&tensor(&[3, 50], 1));
            x[50 + 7] = f32::NAN;
            for (activation, narrow) in
                [(None, false), (Some(Activation::GeluTanh), false), (Some(Activation::GeluTanh), true)]
            {
                let finish = Finish { bias: None, activation, centre: None, residual: None };
                let y = slice(&result(packed.forward::<f32>(&x, 3, finish, narrow).unwrap(), (3, 40)));
                assert!(y[40..80].iter().all(|y| !y.is_finite()), "{isa} {format:?} {activation:?}");
                assert!(y[..40].iter().chain(&y[80..]).all(|y| y.is_finite()), "{isa} {format:?}");
            }
        }
    }
}

#[test]
fn what_does_not_fit_is_an_error() {
    let finish = Finish { bias: None, activation: None, centre: None, residual: None };
    for format in FORMATS {
        assert!(PackedWeight::new(&[0.0; 5], 2, 3, format, Isa::best()).is_err());
        let packed = PackedWeight::new(&[0.0; 6], 2, 3, format, Isa::best()).unwrap();
        assert!(packed.forward::<f32>(&[0.0; 7], 2, finish, false).is_err());
        let bias = Finish { bias: Some(&[0.0; 3]), ..finish };
        assert!(packed.forward::<f32>(&[0.0; 6], 2, bias, false).is_err());
    }
    // No processor has the instructions of all kinds.
    let lacking: Vec<_> = Isa::all().filter(|isa| !isa.is_available()).collect();
    assert!(!lacking.is_empty());
    for isa in lacking {
        assert!(PackedWeight::new(&[0.0; 6], 2, 3, WeightFormat::Bf16, isa).is_err());
        assert!(attend_rows(&[0.0f32; 6], 2, &Segments::new([1]), 1, isa).is_err());
    }
}
