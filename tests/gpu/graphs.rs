//! Batches as CUDA graphs, and batches of several threads: the same vectors as of one ordinary run after the other, bit for
//! bit. Small towers, so that the emulated driver (tests/gpu/emulate/host) gets through them too.

use candle_core::{DType, Device};
use siglip::testing::image::{Geometry, Grid, ImageSpec, Patches, Resample};
use siglip::testing::model::{
    EncoderSpec, ImagePooling, ImageTower, ImageTowerSpec, PositionResize, TextTower, TextTowerSpec,
};
use siglip::testing::ops::Activation;

use crate::{Random, open, values};

fn encoder() -> EncoderSpec {
    EncoderSpec { width: 128, depth: 2, heads: 2, mlp: 160, activation: Activation::GeluTanh, norm_eps: 1e-6 }
}

fn images(device: &Device, dtype: DType, pooling: ImagePooling) -> ImageTower {
    let image = ImageSpec {
        geometry: Geometry::NaFlex { max_num_patches: 64 },
        resample: Resample::Bilinear,
        patch: 4,
        mean: [0.5; 3],
        std: [0.5; 3],
        rescale: 1.0 / 255.0,
    };
    let spec = ImageTowerSpec {
        encoder: encoder(),
        patch: 4,
        positions: Grid { rows: 4, cols: 4 },
        position_resize: PositionResize::BilinearAntialias,
        pooling,
    };
    ImageTower::load(&spec, &image, &Random, &crate::numerics(device, dtype)).unwrap()
}

fn texts(device: &Device, dtype: DType) -> TextTower {
    let spec =
        TextTowerSpec { encoder: encoder(), vocab: 50, context: 16, projection: Some(24), long_head: false };
    TextTower::load(&spec, &Random, &crate::numerics(device, dtype)).unwrap()
}

fn pictures(grids: &[(usize, usize)], seed: u64) -> Vec<Patches> {
    let picture = |(i, &(rows, cols)): (usize, &(usize, usize))| {
        let noise = values(rows * cols * 48, seed + 1000 * i as u64);
        let pixels = noise.iter().map(|x| (127.0 * x + 128.0) as u8).collect();
        Patches { pixels, grid: Grid { rows, cols }, source: (4, 4) }
    };
    grids.iter().enumerate().map(picture).collect()
}

fn embed(tower: &ImageTower, pictures: &[Patches]) -> Vec<Vec<f32>> {
    tower.embed(&pictures.iter().collect::<Vec<_>>(), &|| ()).unwrap()
}

fn ids(count: usize, seed: usize) -> Vec<Vec<u32>> {
    (0..count).map(|i| (0..16).map(|j| ((i * 13 + j * 7 + seed * 3) % 50) as u32).collect()).collect()
}

fn embed_texts(tower: &TextTower, texts: &[Vec<u32>]) -> Vec<Vec<f32>> {
    tower.embed(&texts.iter().map(Vec::as_slice).collect::<Vec<_>>()).unwrap()
}

/// Whether the emulated driver breaks graphs: then there must be none, and everything else as ever.
fn broken() -> bool {
    std::env::var_os("SIGLIP_EMULATE_FAULT").is_some()
}

/// One picture, several alike, and a mixture.
const SHAPES: [&[(usize, usize)]; 3] =
    [&[(4, 4)], &[(4, 4), (4, 4), (4, 4)], &[(3, 5), (4, 4), (1, 2), (1, 2)]];

#[test]
fn graphs_give_what_ordinary_runs_give() {
    let (with, without) = (open(true), open(false));
    for dtype in [DType::F32, DType::BF16] {
        for pooling in [ImagePooling::MapHead, ImagePooling::Mean] {
            let (graphs, plain) = (images(&with, dtype, pooling), images(&without, dtype, pooling));
            for seed in 0..4 {
                for grids in SHAPES {
                    let pictures = pictures(grids, seed);
                    assert_eq!(
                        embed(&graphs, &pictures),
                        embed(&plain, &pictures),
                        "{dtype:?} {grids:?} {seed}"
                    );
                }
                // A shape that comes a second time becomes a graph.
                let expected = if broken() || seed == 0 { 0 } else { SHAPES.len() };
                assert_eq!((graphs.graphs(), plain.graphs()), (expected, 0), "{dtype:?} {pooling:?} {seed}");
            }
        }
        let (graphs, plain) = (texts(&with, dtype), texts(&without, dtype));
        for seed in 0..4 {
            for count in [1, 3] {
                let ids = ids(count, seed);
                assert_eq!(embed_texts(&graphs, &ids), embed_texts(&plain, &ids), "{dtype:?} {count} {seed}");
            }
        }
        assert_eq!(graphs.graphs(), if broken() { 0 } else { 2 });
    }
}

#[test]
fn what_a_tower_gives_of_a_batch_is_what_it_embeds() {
    let device = open(false);
    let tower = images(&device, DType::BF16, ImagePooling::MapHead);
    let pictures = pictures(SHAPES[2], 9);
    let outputs = tower.forward(&pictures.iter().collect::<Vec<_>>()).unwrap();
    assert_eq!(outputs.embeddings.to_vec2::<f32>().unwrap(), embed(&tower, &pictures));
    assert_eq!(outputs.attention.len(), pictures.len());
}

#[test]
fn batches_of_several_threads_do_not_mix() {
    for graphs in [false, true] {
        let device = open(graphs);
        let (tower, plain) = (
            images(&device, DType::F32, ImagePooling::MapHead),
            images(&open(false), DType::F32, ImagePooling::MapHead),
        );
        let text = texts(&device, DType::F32);
        let expected: Vec<_> = (0..12).map(|i| embed(&plain, &pictures(SHAPES[i % 3], i as u64))).collect();
        let expected_text = embed_texts(&texts(&open(false), DType::F32), &ids(2, 5));
        std::thread::scope(|scope| {
            for thread in 0..3 {
                let (tower, expected, text, expected_text) = (&tower, &expected, &text, &expected_text);
                scope.spawn(move || {
                    for round in 0..8 {
                        let i = (5 * round + thread) % expected.len();
                        let found = embed(tower, &pictures(SHAPES[i % 3], i as u64));
                        assert_eq!(found, expected[i], "thread {thread}, round {round}, graphs {graphs}");
                        assert_eq!(&embed_texts(text, &ids(2, 5)), expected_text);
                    }
                });
            }
        });
        assert_eq!(tower.graphs() > 0, graphs && !broken());
    }
}
