//! The towers over made-up weights: what must hold whatever the numbers are.

use std::collections::HashSet;
use std::sync::Mutex;

use candle_core::{Device, Tensor};
use siglip::testing::image::{Geometry, Grid, ImageSpec, Patches, Resample};
use siglip::testing::model::scores::cosine;
use siglip::testing::model::{
    EncoderSpec, ImagePooling, ImageTowerSpec, ModelSpec, PatchVectors, PositionResize, Siglip,
    TextTowerSpec, Weights,
};
use siglip::testing::model::{ModelError, Result};
use siglip::testing::ops::{Activation, Numerics, WeightFormat};
use siglip::testing::text::TokenIds;

/// Weights made up from their names; remembers which were asked for.
#[derive(Default)]
struct MadeUp {
    asked: Mutex<HashSet<String>>,
    missing: Option<&'static str>,
}

impl Weights for MadeUp {
    fn tensor(&self, name: &str, shape: &[usize]) -> Result<Tensor> {
        if self.missing == Some(name) {
            return Err(ModelError::Input(format!("{name} is missing")));
        }
        self.asked.lock().unwrap().insert(name.to_owned());
        let count: usize = shape.iter().product();
        let mut state = name
            .bytes()
            .fold(0xcbf2_9ce4_8422_2325u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x100_0000_01b3));
        let norm = name.contains("norm") && name.ends_with("weight");
        let gain = if shape.len() == 2 { 2.0 / (shape[1] as f32).sqrt() } else { 0.3 };
        let values = (0..count).map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let x = (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0;
            if norm { 1.0 + 0.2 * x } else { gain * x }
        });
        Ok(Tensor::from_vec(values.collect::<Vec<_>>(), shape, &Device::Cpu)?)
    }
}

const PATCH: usize = 4;
const WIDTH: usize = 24;

fn encoder(width: usize) -> EncoderSpec {
    EncoderSpec { width, depth: 2, heads: 3, mlp: 50, activation: Activation::GeluTanh, norm_eps: 1e-6 }
}

fn spec(pooling: ImagePooling) -> ModelSpec {
    ModelSpec {
        image: Some(ImageTowerSpec {
            encoder: encoder(WIDTH),
            patch: PATCH,
            positions: Grid { rows: 4, cols: 4 },
            position_resize: PositionResize::BilinearAntialias,
            pooling,
        }),
        text: Some(TextTowerSpec {
            encoder: encoder(18),
            vocab: 50,
            context: 8,
            projection: Some(WIDTH),
            long_head: false,
        }),
        scores: true,
        classifier: None,
    }
}

fn image_spec() -> ImageSpec {
    ImageSpec {
        geometry: Geometry::NaFlex { max_num_patches: 64 },
        resample: Resample::Bilinear,
        patch: PATCH,
        mean: [0.5; 3],
        std: [0.5; 3],
        rescale: 1.0 / 255.0,
    }
}

fn load(spec: &ModelSpec, weights: &MadeUp) -> Result<Siglip> {
    Siglip::load(spec, Some(&image_spec()), weights, &Numerics::cpu(WeightFormat::F32))
}

fn picture(rows: usize, cols: usize, seed: u8) -> Patches {
    let bytes = rows * cols * PATCH * PATCH * 3;
    let pixels = (0..bytes).map(|i| (i as u8).wrapping_mul(37).wrapping_add(seed)).collect();
    Patches { pixels, grid: Grid { rows, cols }, source: (1, 1) }
}

fn text(ids: &[u32]) -> TokenIds {
    let mut padded = ids.to_vec();
    padded.resize(8, 0);
    TokenIds { ids: padded, used: ids.len(), truncated: false }
}

fn assert_same(a: &[f32], b: &[f32]) {
    let worst = a.iter().zip(b).map(|(x, y)| (x - y).abs()).fold(0.0, f32::max);
    assert!(a.len() == b.len() && worst < 1e-5, "{worst}");
}

#[test]
fn a_batch_of_mixed_shapes_gives_what_each_gives_alone() {
    for pooling in [ImagePooling::MapHead, ImagePooling::Mean] {
        let model = load(&spec(pooling), &MadeUp::default()).unwrap();
        let pictures =
            [picture(4, 4, 1), picture(2, 7, 2), picture(1, 1, 3), picture(2, 7, 4), picture(9, 3, 5)];
        let together = model.embed_images(&pictures.iter().collect::<Vec<_>>()).unwrap();
        for (picture, vector) in pictures.iter().zip(&together) {
            assert_eq!(vector.len(), WIDTH);
            assert_same(&model.embed_images(&[picture]).unwrap()[0], vector);
        }
        assert!(
            cosine(&together[1], &together[3]) < 0.9999,
            "different pictures must have different vectors"
        );
    }
    let model = load(&spec(ImagePooling::MapHead), &MadeUp::default()).unwrap();
    let texts = [text(&[1, 2, 3]), text(&[7]), text(&[1, 2, 3, 4, 5, 6, 7, 8])];
    let together = model.embed_texts(&texts.iter().collect::<Vec<_>>()).unwrap();
    for (text, vector) in texts.iter().zip(&together) {
        assert_same(&model.embed_texts(&[text]).unwrap()[0], vector);
    }
}

#[test]
fn patches_have_vectors_of_their_own() {
    for pooling in [ImagePooling::MapHead, ImagePooling::Mean] {
        let model = load(&spec(pooling), &MadeUp::default()).unwrap();
        let pictures = [picture(2, 3, 1), picture(1, 1, 2), picture(4, 4, 3)];
        let all: Vec<&Patches> = pictures.iter().collect();
        let outputs = model.image().unwrap().forward(&all).unwrap();
        let tokens = outputs.tokens.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        let found = model.embed_patches(&all, PatchVectors::Tokens, &|| ()).unwrap();
        assert_eq!(found.iter().map(Vec::len).collect::<Vec<_>>(), [6 * WIDTH, WIDTH, 16 * WIDTH]);
        assert_same(&found.concat(), &tokens);
        // A picture of one patch is pooled as that patch is.
        let pooled = model.embed_patches(&all, PatchVectors::Pooled, &|| ()).unwrap();
        assert_same(&pooled[1], &model.embed_images(&[&pictures[1]]).unwrap()[0]);
        assert_eq!(pooled[2].len(), 16 * WIDTH);
        assert!(model.embed_patches(&[], PatchVectors::Tokens, &|| ()).unwrap().is_empty());
    }
}

#[test]
fn padding_is_attended_to() {
    // SigLIP has no attention mask: another pad id gives another vector.
    let model = load(&spec(ImagePooling::MapHead), &MadeUp::default()).unwrap();
    let mut other = text(&[1, 2, 3]);
    other.ids[7] = 9;
    let vectors = model.embed_texts(&[&text(&[1, 2, 3]), &other]).unwrap();
    assert!(cosine(&vectors[0], &vectors[1]) < 0.999);
}

#[test]
fn hidden_states_belong_to_their_pictures() {
    let model = load(&spec(ImagePooling::MapHead), &MadeUp::default()).unwrap();
    let pictures = [picture(2, 3, 1), picture(4, 4, 2)];
    let outputs = model.image().unwrap().forward(&[&pictures[0], &pictures[1]]).unwrap();
    assert_eq!(outputs.tokens.dims(), [22, WIDTH]);
    assert_eq!(
        outputs.attention.iter().map(|map| map.dims().to_vec()).collect::<Vec<_>>(),
        [[3, 6], [3, 16]]
    );
    let alone = model.image().unwrap().forward(&[&pictures[1]]).unwrap();
    let rows: Vec<f32> = outputs.tokens.narrow(0, 6, 16).unwrap().flatten_all().unwrap().to_vec1().unwrap();
    assert_same(&rows, &alone.tokens.flatten_all().unwrap().to_vec1::<f32>().unwrap());
}

#[test]
fn one_tower_says_what_it_lacks() {
    let both = spec(ImagePooling::MapHead);
    let images = ModelSpec { text: None, scores: false, ..both.clone() };
    let weights = MadeUp::default();
    let model = load(&images, &weights).unwrap();
    assert!(weights.asked.lock().unwrap().iter().all(|name| name.starts_with("vision_model.")));
    assert!(model.scores().is_none());
    assert!(model.embed_texts(&[&text(&[1])]).unwrap_err().to_string().contains("no text tower"));
    let texts = ModelSpec { image: None, ..both };
    let model = Siglip::load(&texts, None, &MadeUp::default(), &Numerics::cpu(WeightFormat::F32)).unwrap();
    assert!(model.embed_images(&[&picture(1, 1, 1)]).unwrap_err().to_string().contains("no image tower"));
}

#[test]
fn no_input_makes_a_tower_panic() {
    let model = load(&spec(ImagePooling::MapHead), &MadeUp::default()).unwrap();
    assert_eq!(model.embed_images(&[]).unwrap().len(), 0);
    assert_eq!(model.embed_texts(&[]).unwrap().len(), 0);
    let mut short = picture(2, 2, 1);
    short.pixels.pop();
    assert!(model.embed_images(&[&short]).is_err());
    assert!(model.embed_images(&[&picture(0, 5, 1)]).is_err());
    assert!(model.embed_texts(&[&text(&[50])]).unwrap_err().to_string().contains("outside the vocabulary"));
    let long = TokenIds { ids: vec![1; 9], used: 9, truncated: false };
    assert!(model.embed_texts(&[&long]).is_err());
}

#[test]
fn a_missing_tensor_is_an_error() {
    let weights = MadeUp { missing: Some("vision_model.head.probe"), ..MadeUp::default() };
    let error = load(&spec(ImagePooling::MapHead), &weights).err().unwrap();
    assert!(error.to_string().contains("vision_model.head.probe"));
}

#[test]
fn scale_is_stored_as_its_logarithm() {
    struct Known;
    impl Weights for Known {
        fn tensor(&self, name: &str, shape: &[usize]) -> Result<Tensor> {
            match name {
                "logit_scale" => Ok(Tensor::new(&[110f32.ln()], &Device::Cpu)?),
                "logit_bias" => Ok(Tensor::new(&[-12f32], &Device::Cpu)?),
                _ => MadeUp::default().tensor(name, shape),
            }
        }
    }
    let model = Siglip::load(
        &spec(ImagePooling::MapHead),
        Some(&image_spec()),
        &Known,
        &Numerics::cpu(WeightFormat::F32),
    )
    .unwrap();
    let scores = model.scores().unwrap();
    assert!((scores.scale - 110.0).abs() < 1e-3 && scores.bias == -12.0);
    assert!((scores.logit(0.1) + 1.0).abs() < 1e-4);
}
