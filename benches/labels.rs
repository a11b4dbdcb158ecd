//! What a stored set of labels costs beside one embedding, through the engine as the service uses it: `cargo bench --bench labels`.
//!
//! Two models: towers of base/16-224 with made-up weights (embeddings of 768 numbers), and the embedded model (192). A picture is
//! embedded, and embedded and compared with 1,000 and with 100,000 labels, of which the five best are wanted and whether any
//! fits. The kinds of requests take turns, so that whatever else the machine does is the same for all of them; the table has the
//! lowest and the median time of each.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use candle_core::{Device, Tensor};
use siglip::testing::Result;
use siglip::testing::checkpoint::HubOptions;
use siglip::testing::engine::{
    EmbedOptions, Engine, EngineConfig, ImageCost, Input, Labels, Model, ModelHandle, PipelineModel,
    Progress, ScoreOptions, Towers,
};
use siglip::testing::image::{
    Geometry, Grid, ImageDecode, ImageLimits, ImageOptions, ImageSpec, Patches, Preprocessor, Resample,
};
use siglip::testing::model::zero_shot::Ranking;
use siglip::testing::model::{
    EncoderSpec, ImagePooling, ImageTowerSpec, LabelSet, ModelSpec, NoneTest, PositionResize, Question,
    Scores, Siglip, Thresholds, Weights,
};
use siglip::testing::ops::cpu::{Isa, WeightFormat};
use siglip::testing::ops::{Activation, Numerics};
use siglip::testing::pipeline::{DeviceKind, LoadOptions, ModelInfo, Precision};
use siglip::testing::text::{Canonicalization, TokenIds};

/// What the project holds itself to: more than the time of one embedding by less than this.
const MOST_SHARE: f64 = 0.05;
const MOST_TIME: Duration = Duration::from_millis(20);
/// How long each model is measured.
const SECONDS: u64 = 30;

/// Numbers between −1 and 1.
fn numbers(seed: usize, count: usize) -> Vec<f32> {
    let mut state = (seed as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1_u64 << 23) as f32 - 1.0
    };
    std::iter::repeat_with(next).take(count).collect()
}

/// Weights that are made up.
struct MadeUp;

impl Weights for MadeUp {
    fn tensor(&self, name: &str, shape: &[usize]) -> siglip::testing::model::Result<Tensor> {
        let is_gain = name.contains("norm") && name.ends_with("weight");
        let scale = if shape.len() == 2 { 1.0 / (shape[1] as f32).sqrt() } else { 0.1 };
        let mut values = numbers(name.len(), shape.iter().product());
        values.iter_mut().for_each(|x| *x = *x * scale + f32::from(u8::from(is_gain)));
        Ok(Tensor::from_vec(values, shape, &Device::Cpu)?)
    }
}

/// Image towers of base/16-224.
struct Base {
    info: ModelInfo,
    preprocessor: Preprocessor,
    format: WeightFormat,
}

impl Base {
    fn new() -> Result<Self> {
        let encoder = EncoderSpec {
            width: 768,
            depth: 12,
            heads: 12,
            mlp: 3072,
            activation: Activation::GeluTanh,
            norm_eps: 1e-6,
        };
        let tower = ImageTowerSpec {
            encoder,
            patch: 16,
            positions: Grid { rows: 14, cols: 14 },
            position_resize: PositionResize::Bicubic,
            pooling: ImagePooling::MapHead,
        };
        let image = ImageSpec {
            geometry: Geometry::Squash { height: 224, width: 224 },
            resample: Resample::Bilinear,
            patch: 16,
            mean: [0.5; 3],
            std: [0.5; 3],
            rescale: 1.0 / 255.0,
        };
        let narrow = Isa::active().multiplies_bf16();
        let info = ModelInfo {
            name: "base/16-224".to_owned(),
            source: "made up".to_owned(),
            family: "siglip2".to_owned(),
            embedding_dim: 768,
            parameters: 0,
            spec: ModelSpec { image: Some(tower), text: None, scores: false, classifier: None },
            image: Some(image.clone()),
            text: None,
            logit_scale: None,
            logit_bias: None,
            template: "{}".to_owned(),
            fingerprint: "made up".to_owned(),
            image_decode: ImageDecode::Exact,
            dtype: if narrow { Precision::Bf16 } else { Precision::F32 },
            device: DeviceKind::Cpu,
        };
        let format = if narrow { WeightFormat::Bf16 } else { WeightFormat::F32 };
        Ok(Self { info, preprocessor: Preprocessor::new(image, ImageLimits::default())?, format })
    }
}

impl Model for Base {
    fn info(&self) -> &ModelInfo {
        &self.info
    }

    fn probe_image(&self, bytes: &[u8], _: Option<usize>) -> Result<ImageCost> {
        let header = self.preprocessor.probe(bytes)?;
        let decoded_bytes = usize::try_from(header.decoded_bytes).unwrap_or(usize::MAX);
        Ok(ImageCost { decoded_bytes, tokens: self.preprocessor.spec().grid().len() })
    }

    fn prepare_image(&self, bytes: &[u8], max_num_patches: Option<usize>) -> Result<Patches> {
        Ok(self.preprocessor.from_bytes(bytes, &ImageOptions { max_num_patches })?)
    }

    fn prepare_text(&self, _: &str, _: Option<Canonicalization>) -> Result<TokenIds> {
        Err(siglip::testing::Error::Request("no texts".to_owned()))
    }

    fn prepare_ids(&self, _: &[u32]) -> Result<TokenIds> {
        Err(siglip::testing::Error::Request("no texts".to_owned()))
    }

    fn memory_bytes(&self) -> u64 {
        400 << 20
    }

    fn load_towers(self: Arc<Self>, _: &Progress) -> Result<Vec<Arc<dyn Towers>>> {
        let numerics = Numerics::cpu(self.format);
        let towers = Siglip::load(&self.info.spec, self.info.image.as_ref(), &MadeUp, &numerics)?;
        Ok(vec![Arc::new(towers)])
    }
}

/// Times of one kind of work.
#[derive(Default)]
struct Times(Vec<Duration>);

impl Times {
    fn lowest(&self) -> Duration {
        self.0.iter().copied().min().unwrap_or_default()
    }

    fn median(&self) -> Duration {
        let mut sorted = self.0.clone();
        sorted.sort_unstable();
        sorted.get(sorted.len() / 2).copied().unwrap_or_default()
    }
}

fn labels(model: &ModelHandle, count: usize) -> Arc<LabelSet> {
    let info = model.info();
    let names = (0..count).map(|i| Arc::from(format!("label {i}"))).collect();
    let scale = 1.0 / (info.embedding_dim as f32 / 3.0).sqrt();
    let mut rows = numbers(count, count * info.embedding_dim);
    rows.iter_mut().for_each(|x| *x *= scale);
    Arc::new(LabelSet::of_directions(names, &rows, info.fingerprint.as_str().into()).expect("labels"))
}

async fn embed(model: &ModelHandle, picture: &Bytes) -> Arc<[f32]> {
    let output = model.embed(vec![Input::Image(picture.clone())], EmbedOptions::default()).await;
    let result = output.expect("it is admitted").results.pop().expect("one result");
    result.expect("an embedding").vector
}

async fn measure(model: &ModelHandle, picture: &Bytes) {
    let scores = Scores { scale: 100.0, bias: -10.0 };
    let ranking = Ranking { top_k: Some(5), ..Ranking::default() };
    let none = Some(NoneTest::Sigmoid(Thresholds::All(0.01)));
    let question = Question { ranking, none, ..Question::default() };
    let sets = [1000, 100_000].map(|count| labels(model, count));
    let mut alone = Times::default();
    let mut beside: [Times; 2] = Default::default();
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(SECONDS) {
        let at = Instant::now();
        embed(model, picture).await;
        alone.0.push(at.elapsed());
        for (set, times) in sets.iter().zip(&mut beside) {
            let vector = embed(model, picture).await;
            let at = Instant::now();
            let labels = Labels::Set(Arc::clone(set));
            let judged =
                model.judge(vec![vector], labels, scores, question.clone(), ScoreOptions::default()).await;
            times.0.push(at.elapsed());
            assert_eq!(judged.expect("scores").value[0].matches.len(), 5);
        }
    }
    let ms = |time: Duration| time.as_secs_f64() * 1000.0;
    let info = model.info();
    let name = format!("{}, {}, {} numbers", model.name(), info.dtype.name(), info.embedding_dim);
    println!("\n{name}; {} rounds: lowest and median time in ms", alone.0.len());
    println!("  {:<28}{:>10.3}{:>10.3}", "one embedding", ms(alone.lowest()), ms(alone.median()));
    for (set, times) in sets.iter().zip(&beside) {
        let what = format!("{} labels beside it", set.len());
        let (lowest, median) = (times.lowest(), times.median());
        let share = median.as_secs_f64() / alone.median().as_secs_f64();
        let (bar, met) = match set.len() {
            1000 => (format!("{:.0} %", MOST_SHARE * 100.0), share < MOST_SHARE),
            _ => (format!("{} ms", MOST_TIME.as_millis()), median < MOST_TIME),
        };
        let verdict = if met { "met" } else { "missed" };
        println!(
            "  {what:<28}{:>10.3}{:>10.3}   {:.1} % of an embedding; less than {bar}: {verdict}",
            ms(lowest),
            ms(median),
            share * 100.0
        );
    }
}

fn main() {
    let picture = concat!(env!("CARGO_MANIFEST_DIR"), "/models/demo/examples/cat-face.png");
    let picture = Bytes::from(std::fs::read(picture).expect("the picture"));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    println!("labels on {}, {} threads", Isa::active(), rayon::current_num_threads());
    runtime.expect("a runtime").block_on(async {
        let engine = Engine::start(EngineConfig::default());
        let base = engine.insert(&["base/16-224"], Arc::new(Base::new().expect("a tower")));
        let demo = "demo".parse().expect("the embedded model");
        let demo = PipelineModel::open(&demo, &HubOptions::default(), &LoadOptions::default());
        let demo = engine.insert(&["demo"], Arc::new(demo.expect("the embedded model")));
        engine.warmed_up().await.expect("both are warm");
        for model in [base.expect("loaded"), demo.expect("loaded")] {
            measure(&model, &picture).await;
        }
    });
}
