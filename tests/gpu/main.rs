//! Every GPU operation against the CPU's reference, and whole towers of random weights. Needs a GPU: `tests/gpu/run`
//! starts it.

mod graphs;

use std::sync::OnceLock;

use candle_core::{DType, Device, Tensor};
use siglip::testing::image::{Geometry, Grid, ImageSpec, Patches, Resample};
use siglip::testing::model::{
    EncoderSpec, ImagePooling, ImageTower, ImageTowerSpec, PositionResize, TextTower, TextTowerSpec, Weights,
};
use siglip::testing::ops::attention::{
    attention_reference, probe_attention_reference, query_attention_reference,
};
use siglip::testing::ops::pixels::pixel_table;
use siglip::testing::ops::rows::{convert, embed_tokens, id_bytes, last_rows, mean_rows, stack_rows};
use siglip::testing::ops::{
    Activation, Epilogue, Input, LayerNorm, Linear, Numerics, PixelValues, Segments, WeightFormat, attention,
    normalize_pixels, probe_attention, query_attention,
};

/// Types, and the largest difference that an operation may make, relative to its largest result: a few roundings.
const TYPES: [(DType, f32); 3] = [(DType::F32, 2e-5), (DType::F16, 2e-3), (DType::BF16, 1.2e-2)];

fn gpu() -> &'static Device {
    static GPU: OnceLock<Device> = OnceLock::new();
    GPU.get_or_init(|| open(true))
}

fn open(graphs: bool) -> Device {
    let options = siglip::testing::ops::cuda::Options { graphs, ..Default::default() };
    siglip::testing::ops::cuda::open(0, options).expect("these tests need a GPU")
}

/// Everything on a GPU in one type; the processor in f32.
fn numerics(device: &Device, dtype: DType) -> Numerics {
    if device.is_cpu() { Numerics::cpu(WeightFormat::F32) } else { Numerics::gpu(device.clone(), dtype) }
}

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

/// A tensor on the GPU in a type, and the same values in f32 on the CPU.
fn both(shape: &[usize], seed: u64, scale: f64, dtype: DType) -> (Tensor, Tensor) {
    let host = Tensor::from_vec(values(shape.iter().product(), seed), shape, &Device::Cpu).unwrap();
    let host = (host * scale).unwrap().to_dtype(dtype).unwrap();
    (host.to_device(gpu()).unwrap(), host.to_dtype(DType::F32).unwrap())
}

fn numbers(x: &Tensor) -> Vec<f32> {
    let x = x.to_device(&Device::Cpu).unwrap().to_dtype(DType::F32).unwrap();
    x.flatten_all().unwrap().to_vec1().unwrap()
}

#[track_caller]
fn close(found: &Tensor, expected: &Tensor, tolerance: f32, what: &str) {
    assert_eq!(found.dims(), expected.dims(), "{what}");
    let (found, expected) = (numbers(found), numbers(expected));
    let largest = expected.iter().fold(1e-6f32, |most, x| most.max(x.abs()));
    let worst = found
        .iter()
        .zip(&expected)
        .map(|(a, b)| (a - b).abs())
        .fold(0.0, |most: f32, d| if d.is_nan() { f32::INFINITY } else { most.max(d) });
    assert!(worst <= tolerance * largest, "{what}: differs by {worst}, of at most {largest}");
}

#[test]
fn linear_with_every_epilogue() {
    for (dtype, tolerance) in TYPES {
        for (rows, inner, out) in [
            (1, 5, 9),
            (1, 768, 768),
            (3, 588, 7),
            (17, 100, 33),
            (64, 72, 136),
            (196, 768, 2304),
            (70, 4304, 1152),
        ] {
            let scale = 1.0 / (inner as f64).sqrt();
            let (x, x32) = both(&[rows, inner], 1, 1.0, dtype);
            let (w, w32) = both(&[out, inner], 2, 3.0 * scale, dtype);
            let (b, b32) = both(&[out], 3, 0.5, dtype);
            let (r, r32) = both(&[rows, out], 4, 1.0, dtype);
            for bias in [true, false] {
                let layer = Linear::new(w.clone(), bias.then(|| b.clone()));
                let oracle = Linear::new(w32.clone(), bias.then(|| b32.clone()));
                for (end, end32) in [
                    (Epilogue::None, Epilogue::None),
                    (Epilogue::Activation(Activation::GeluTanh), Epilogue::Activation(Activation::GeluTanh)),
                    (Epilogue::Activation(Activation::GeluErf), Epilogue::Activation(Activation::GeluErf)),
                    (Epilogue::Residual(&r), Epilogue::Residual(&r32)),
                ] {
                    let what = format!("{dtype:?}, {rows} x {inner} to {out}, bias {bias}, {end32:?}");
                    let found = layer.forward(&x, end).unwrap();
                    close(&found, &oracle.reference(&x32, end32).unwrap(), tolerance, &what);
                }
            }
        }
    }
}

#[test]
fn linear_of_a_part_that_is_not_aligned() {
    let (x, x32) = both(&[6, 40], 1, 1.0, DType::BF16);
    let (w, w32) = both(&[24, 40], 2, 0.3, DType::BF16);
    // Five rows of 40 in: 400 bytes.
    let found = Linear::new(w, None).forward(&x.narrow(0, 5, 1).unwrap(), Epilogue::None).unwrap();
    let expected = Linear::new(w32, None).reference(&x32.narrow(0, 5, 1).unwrap(), Epilogue::None).unwrap();
    close(&found, &expected, 1.2e-2, "the last row");
}

#[test]
fn layer_norm_of_odd_widths() {
    for (dtype, tolerance) in TYPES {
        for (rows, width) in [(1, 1), (1, 7), (70, 33), (5, 64), (3, 100), (196, 768), (729, 1152), (2, 1536)]
        {
            let (x, x32) = both(&[rows, width], 5, 3.0, dtype);
            let ((w, w32), (b, b32)) = (both(&[width], 6, 1.0, dtype), both(&[width], 7, 1.0, dtype));
            let found = LayerNorm::new(w, b, 1e-6).forward(&x).unwrap();
            let expected = LayerNorm::new(w32, b32, 1e-6).reference(&x32).unwrap();
            close(&found, &expected, tolerance, &format!("{dtype:?}, {rows} x {width}"));
        }
    }
}

#[test]
fn attention_over_odd_segments() {
    for (dtype, tolerance) in TYPES {
        for dim in [8, 48, 64, 72, 96, 128] {
            for lengths in [&[1, 15, 16, 17, 63, 64, 65][..], &[729], &[196, 256, 1, 130], &[64; 9]] {
                let segments = Segments::new(lengths.iter().copied());
                let (qkv, qkv32) = both(&[segments.rows(), 3 * 3 * dim], 8, 3.0, dtype);
                let found = attention(&qkv, &segments, 3).unwrap();
                let expected = attention_reference(&qkv32, &segments, 3).unwrap();
                close(&found, &expected, tolerance, &format!("{dtype:?}, heads of {dim}, {lengths:?}"));
            }
        }
    }
}

#[test]
fn probe_attention_and_its_maps() {
    for (dtype, tolerance) in TYPES {
        for dim in [8, 64, 72, 96, 128] {
            let segments = Segments::new([1, 7, 64, 196, 256, 729]);
            let (query, query32) = both(&[2 * dim], 9, 1.0, dtype);
            let (kv, kv32) = both(&[segments.rows(), 2 * 2 * dim], 10, 2.0, dtype);
            let (found, maps) = probe_attention(&query, &kv, &segments, 2).unwrap();
            let (expected, maps32) = probe_attention_reference(&query32, &kv32, &segments, 2).unwrap();
            close(&found, &expected, tolerance, &format!("{dtype:?}, heads of {dim}"));
            for (found, expected) in maps.iter().zip(&maps32) {
                close(found, expected, tolerance, &format!("{dtype:?}, heads of {dim}, maps"));
            }
            let (queries, queries32) = both(&[segments.len(), 2 * dim], 11, 1.0, dtype);
            let found = query_attention(&queries, &kv, &segments, 2).unwrap();
            let expected = query_attention_reference(&queries32, &kv32, &segments, 2).unwrap();
            close(&found, &expected, tolerance, &format!("{dtype:?}, heads of {dim}, one query an item"));
        }
    }
}

#[test]
fn heads_that_no_kernel_takes() {
    for (dtype, tolerance) in TYPES {
        let segments = Segments::new([5, 64, 64, 33]);
        let (qkv, qkv32) = both(&[segments.rows(), 3 * 2 * 160], 8, 3.0, dtype);
        let found = attention(&qkv, &segments, 2).unwrap();
        close(&found, &attention_reference(&qkv32, &segments, 2).unwrap(), tolerance, "attention");
        let ((query, query32), (kv, kv32)) =
            (both(&[320], 9, 1.0, dtype), both(&[segments.rows(), 640], 10, 2.0, dtype));
        let (found, _) = probe_attention(&query, &kv, &segments, 2).unwrap();
        let (expected, _) = probe_attention_reference(&query32, &kv32, &segments, 2).unwrap();
        close(&found, &expected, tolerance, "probe attention");
    }
}

#[test]
fn pixels_become_the_same_values() {
    let table = pixel_table([0.5, 0.4, 0.3], [0.5, 0.3, 0.2], 1.0 / 255.0);
    for (dtype, _) in TYPES {
        let of = PixelValues::new(table, &numerics(gpu(), dtype)).unwrap();
        // More than once: the pinned memory is used again, and grows.
        for (rows, columns) in [(1, 3), (5, 588), (64, 768), (3, 27), (1500, 768)] {
            let bytes: Vec<u8> = (0..rows * columns).map(|i| (i * 37 % 256) as u8).collect();
            let (one, two) = bytes.split_at(columns * (rows / 2));
            let pieces = [one, two];
            let found = of.of(&Input::new(&pieces, gpu()).unwrap(), rows, columns).unwrap();
            let expected = normalize_pixels([&bytes[..]].into_iter(), rows, columns, &table).unwrap();
            let expected = expected.to_dtype(dtype).unwrap();
            assert_eq!(numbers(&found), numbers(&expected), "{dtype:?}, {rows} x {columns}");
        }
    }
}

#[test]
fn rows_put_where_they_belong() {
    for (dtype, tolerance) in TYPES {
        for width in [1, 7, 64, 100, 1152] {
            let what = format!("{dtype:?}, {width} wide");
            let (tokens, tokens32) = both(&[30, width], 1, 1.0, dtype);
            let (positions, positions32) = both(&[5, width], 2, 1.0, dtype);
            let ids = id_bytes((0..15).map(|i| (i * 7 + 3) % 30));
            let pieces = [&ids[..20], &ids[20..]];
            let found = embed_tokens(&Input::new(&pieces, gpu()).unwrap(), &tokens, &positions).unwrap();
            let expected = embed_tokens(&Input::Host(&pieces), &tokens32, &positions32).unwrap();
            close(&found, &expected, tolerance, &format!("{what}, embedding"));
            let segments = Segments::new([1, 5, 9]);
            let host = found.to_device(&Device::Cpu).unwrap().to_dtype(DType::F32).unwrap();
            let (last, last32) =
                (last_rows(&found, &segments).unwrap(), last_rows(&host, &segments).unwrap());
            assert_eq!(numbers(&last), numbers(&last32), "{what}");
            close(
                &mean_rows(&found, &segments).unwrap(),
                &mean_rows(&host, &segments).unwrap(),
                tolerance,
                &what,
            );
            let wide = convert(&found, DType::F32).unwrap();
            assert_eq!((wide.dtype(), numbers(&wide)), (DType::F32, numbers(&host)), "{what}");
            let back = convert(&wide, dtype).unwrap();
            assert_eq!((back.dtype(), numbers(&back)), (dtype, numbers(&host)), "{what}");
            let stacked = stack_rows(&[(tokens.clone(), 3), (positions.clone(), 1)]).unwrap();
            let expected = stack_rows(&[(tokens32, 3), (positions32, 1)]).unwrap();
            assert_eq!(numbers(&stacked), numbers(&expected), "{what}");
        }
    }
}

/// Random weights of a trained tower's size, the same for every type.
struct Random;

impl Weights for Random {
    fn tensor(&self, name: &str, shape: &[usize]) -> siglip::testing::model::Result<Tensor> {
        let seed = name.bytes().fold(7u64, |hash, byte| hash.wrapping_mul(31).wrapping_add(byte.into()));
        let x = Tensor::from_vec(values(shape.iter().product(), seed), shape, &Device::Cpu)?;
        let norm = name.contains("norm");
        Ok(match shape {
            // Variance 1 in, variance 1 out.
            [.., inner] if shape.len() > 1 && !name.contains("embedding.weight") => {
                (x * (3.0 / *inner as f64).sqrt())?
            }
            _ if norm && name.ends_with("weight") => ((x * 0.2)? + 1.0)?,
            _ => (x * 0.1)?,
        })
    }
}

fn encoder(width: usize, heads: usize, mlp: usize, activation: Activation) -> EncoderSpec {
    EncoderSpec { width, depth: 6, heads, mlp, activation, norm_eps: 1e-6 }
}

fn cosines(found: &Tensor, expected: &Tensor) -> Vec<f64> {
    assert_eq!(found.dims(), expected.dims());
    let width = found.dims()[1];
    let (found, expected) = (numbers(found), numbers(expected));
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(x, y)| f64::from(*x) * f64::from(*y)).sum::<f64>();
    found
        .chunks(width)
        .zip(expected.chunks(width))
        .map(|(a, b)| dot(a, b) / (dot(a, a) * dot(b, b)).sqrt())
        .collect()
}

/// What the cosine to the f32 tower of the CPU must be.
const COSINES: [(DType, f64); 3] = [(DType::F32, 0.999_999), (DType::F16, 0.9999), (DType::BF16, 0.9995)];

#[track_caller]
fn faithful(found: &Tensor, expected: &Tensor, bound: f64, what: &str) {
    let cosines = cosines(found, expected);
    let least = cosines.iter().fold(f64::INFINITY, |least, cosine| least.min(*cosine));
    println!("{what}: least cosine {least:.7}");
    assert!(cosines.iter().all(|cosine| *cosine >= bound), "{what}: {least}");
}

#[test]
fn image_towers_of_mixed_grids() {
    let image = ImageSpec {
        geometry: Geometry::NaFlex { max_num_patches: 256 },
        resample: Resample::Bilinear,
        patch: 14,
        mean: [0.5; 3],
        std: [0.5; 3],
        rescale: 1.0 / 255.0,
    };
    let grids = [(1, 1), (16, 16), (16, 16), (13, 19), (3, 5), (27, 27)];
    let pictures: Vec<Patches> = (0..)
        .zip(grids)
        .map(|(seed, (rows, cols))| {
            let pixels =
                values(rows * cols * 14 * 14 * 3, seed).iter().map(|x| (127.0 * x + 128.0) as u8).collect();
            Patches { pixels, grid: Grid { rows, cols }, source: (14, 14) }
        })
        .collect();
    let pictures: Vec<&Patches> = pictures.iter().collect();
    for (width, heads, mlp, activation, pooling) in [
        (768, 12, 3072, Activation::GeluTanh, ImagePooling::MapHead),
        (1152, 16, 4304, Activation::GeluTanh, ImagePooling::MapHead),
        (768, 8, 1000, Activation::GeluErf, ImagePooling::Mean),
    ] {
        let spec = ImageTowerSpec {
            encoder: encoder(width, heads, mlp, activation),
            patch: 14,
            positions: Grid { rows: 16, cols: 16 },
            position_resize: PositionResize::BilinearAntialias,
            pooling,
        };
        let load = |device: &Device, dtype| {
            ImageTower::load(&spec, &image, &Random, &numerics(device, dtype)).unwrap()
        };
        let expected = load(&Device::Cpu, DType::F32).forward(&pictures).unwrap();
        for (dtype, bound) in COSINES {
            let tower = load(gpu(), dtype);
            let found = tower.forward(&pictures).unwrap();
            let what = format!("image tower of {width}, {dtype:?}");
            faithful(&found.embeddings, &expected.embeddings, bound, &what);
            faithful(&found.tokens, &expected.tokens, bound, &format!("{what}, tokens"));
            // Alone as in company.
            let alone = tower.forward(&pictures[3..4]).unwrap();
            faithful(&alone.embeddings, &expected.embeddings.narrow(0, 3, 1).unwrap(), bound, &what);
        }
    }
}

#[test]
fn text_towers() {
    for (width, heads, mlp) in [(768, 12, 3072), (1152, 16, 4304)] {
        let spec = TextTowerSpec {
            encoder: encoder(width, heads, mlp, Activation::GeluTanh),
            vocab: 1000,
            context: 64,
            projection: Some(width),
            long_head: false,
        };
        let texts: Vec<Vec<u32>> =
            (0..9u32).map(|i| (0..64u32).map(|j| (i * 131 + j * 17) % 1000).collect()).collect();
        let texts: Vec<&[u32]> = texts.iter().map(Vec::as_slice).collect();
        let load =
            |device: &Device, dtype| TextTower::load(&spec, &Random, &numerics(device, dtype)).unwrap();
        let expected = load(&Device::Cpu, DType::F32).forward(&texts).unwrap();
        for (dtype, bound) in COSINES {
            let found = load(gpu(), dtype).forward(&texts).unwrap();
            faithful(&found, &expected, bound, &format!("text tower of {width}, {dtype:?}"));
        }
    }
}
