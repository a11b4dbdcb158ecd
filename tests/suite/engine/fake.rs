//! A model without weights: its vectors follow from the input, and a test says when it answers.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use siglip::testing::engine::{
    EmbedOptions, Embedding, Engine, EngineConfig, EngineError, ImageCost, Input, Model, ModelHandle, Output,
    Progress, Towers, ViewsCost,
};
use siglip::testing::image::{
    Geometry, Grid, ImageDecode, ImageError, ImageLimits, ImageOptions, ImageSpec, Patches, Preprocessor,
    Resample, ViewOptions, Views,
};
use siglip::testing::model::{ModelSpec, Pause};
use siglip::testing::pipeline::{DeviceKind, ModelInfo, Precision};
use siglip::testing::text::{Canonicalization, TextFamily, TextSpec, TokenIds};
use siglip::testing::{Error, Result};

/// Tokens of a text.
pub const CONTEXT: usize = 4;
/// Bytes that the towers of a fake are said to take.
pub const MEMORY: u64 = 1000;
/// No step of a test takes this long; a test that waits longer fails.
const PATIENCE: Duration = Duration::from_secs(20);

/// A door that calls go through: open, or one call at a time as the test lets them.
pub struct Gate {
    state: Mutex<GateState>,
    changed: Condvar,
}

struct GateState {
    open: bool,
    allowed: usize,
    arrived: usize,
}

impl Gate {
    pub fn new(open: bool) -> Self {
        Self { state: Mutex::new(GateState { open, allowed: 0, arrived: 0 }), changed: Condvar::new() }
    }

    /// Waits for the test, as the model.
    pub fn pass(&self) {
        let mut state = self.state.lock().unwrap();
        state.arrived += 1;
        self.changed.notify_all();
        while !state.open && state.allowed == 0 {
            state = self.changed.wait(state).unwrap();
        }
        state.allowed = state.allowed.saturating_sub(1);
    }

    /// Lets that many calls through.
    pub fn allow(&self, calls: usize) {
        self.state.lock().unwrap().allowed += calls;
        self.changed.notify_all();
    }

    /// Lets all calls through.
    pub fn open(&self) {
        self.state.lock().unwrap().open = true;
        self.changed.notify_all();
    }

    /// Lets no call through that has not come yet.
    pub fn close(&self) {
        self.state.lock().unwrap().open = false;
    }

    pub fn is_open(&self) -> bool {
        self.state.lock().unwrap().open
    }

    /// Calls that have come so far.
    pub fn arrived(&self) -> usize {
        self.state.lock().unwrap().arrived
    }

    /// Waits, as the test, until that many calls have come.
    pub fn wait_for(&self, calls: usize) {
        eventually(&format!("{calls} calls"), || self.arrived() >= calls);
    }
}

/// The model.
pub struct Fake {
    info: ModelInfo,
    /// Before each batch.
    pub gate: Gate,
    /// While it is closed, batches of pictures pause and do not end.
    pub layers_gate: Gate,
    /// Before each preparation.
    pub prepare_gate: Gate,
    /// What each batch held: names of pictures, first ids of texts.
    pub batches: Mutex<Vec<Vec<String>>>,
    /// What was prepared.
    pub prepared: Mutex<Vec<String>>,
    /// Views that were cut out of pictures.
    pub cut: AtomicUsize,
    /// A batch of more items than this runs out of memory.
    pub memory: AtomicUsize,
    /// Whether every vector is full of NaN.
    pub broken: AtomicBool,
    decoding: Mutex<usize>,
    /// Most bytes of pixels at once, and pictures at once while the largest was one of them.
    pub decode_peak: AtomicUsize,
}

impl Fake {
    pub fn new() -> Arc<Self> {
        Self::with_gates(true, true)
    }

    /// With a worker that waits for the test.
    pub fn held() -> Arc<Self> {
        Self::with_gates(false, true)
    }

    /// With preparation threads that wait for the test.
    pub fn unprepared() -> Arc<Self> {
        Self::with_gates(true, false)
    }

    fn with_gates(compute: bool, prepare: bool) -> Arc<Self> {
        Arc::new(Self {
            info: info(),
            gate: Gate::new(compute),
            layers_gate: Gate::new(true),
            prepare_gate: Gate::new(prepare),
            batches: Mutex::default(),
            prepared: Mutex::default(),
            cut: AtomicUsize::new(0),
            memory: AtomicUsize::new(usize::MAX),
            broken: AtomicBool::new(false),
            decoding: Mutex::new(0),
            decode_peak: AtomicUsize::new(0),
        })
    }

    pub fn batches(&self) -> Vec<Vec<String>> {
        self.batches.lock().unwrap().clone()
    }

    /// Everything that a batch held, in order.
    pub fn computed(&self) -> Vec<String> {
        self.batches().concat()
    }

    pub fn prepared(&self) -> Vec<String> {
        self.prepared.lock().unwrap().clone()
    }

    fn embed(&self, names: Vec<String>, vectors: Vec<Vec<f32>>) -> Result<Vec<Vec<f32>>> {
        let names_of_faults: Vec<Option<String>> =
            names.iter().map(|name| name.split_once(':').map(|(fault, _)| fault.to_owned())).collect();
        let fault = names_of_faults.iter().flatten().next().cloned();
        let too_many = names.len() > self.memory.load(Ordering::SeqCst);
        self.batches.lock().unwrap().push(names);
        self.gate.pass();
        if too_many {
            let text = "DriverError(CUDA_ERROR_OUT_OF_MEMORY, \"out of memory\")";
            return Err(Error::Compute(candle_core::Error::Msg(text.to_owned())));
        }
        match fault.as_deref() {
            Some("panic") => panic!("the tower fell over"),
            _ if self.broken.load(Ordering::SeqCst) => Ok(vec![vec![f32::NAN; 2]; vectors.len()]),
            Some("nan" | "short") => Ok(names_of_faults
                .iter()
                .zip(vectors)
                .map(|(fault, vector)| match fault.as_deref() {
                    Some("nan") => vec![f32::NAN; 2],
                    Some("short") => vec![1.0],
                    _ => vector,
                })
                .collect()),
            Some("fail") => Err(Error::Compute(candle_core::Error::Msg("shape mismatch".to_owned()))),
            _ => Ok(vectors),
        }
    }

    fn prepare(&self, name: String) {
        self.prepared.lock().unwrap().push(name.clone());
        self.prepare_gate.pass();
        assert!(!name.starts_with("panic-prepare"), "the decoder fell over");
    }
}

impl Model for Fake {
    fn info(&self) -> &ModelInfo {
        &self.info
    }

    fn probe_image(&self, bytes: &[u8], max_num_patches: Option<usize>) -> Result<ImageCost> {
        let Picture { name, tokens, pixels } = Picture::read(bytes);
        match name.as_str() {
            "no-header" => Err(ImageError::Empty.into()),
            "panic-probe" => panic!("the header fell over"),
            _ if max_num_patches == Some(0) => Err(Error::Request("no patches".to_owned())),
            _ => Ok(ImageCost { decoded_bytes: pixels, tokens }),
        }
    }

    fn prepare_image(&self, bytes: &[u8], _: Option<usize>) -> Result<Patches> {
        let Picture { name, tokens, pixels } = Picture::read(bytes);
        {
            let mut decoding = self.decoding.lock().unwrap();
            *decoding += pixels;
            self.decode_peak.fetch_max(*decoding, Ordering::SeqCst);
        }
        let held = scopeguard(|| *self.decoding.lock().unwrap() -= pixels);
        self.prepare(name.clone());
        drop(held);
        if name == "bad" {
            return Err(ImageError::Empty.into());
        }
        Ok(Patches { pixels: bytes.to_vec(), grid: Grid { rows: 1, cols: tokens }, source: (7, 9) })
    }

    /// Four views of one token each, of a grid of 2 × 2 patches.
    fn probe_views(&self, bytes: &[u8], max: Option<usize>, _: &ViewOptions) -> Result<ViewsCost> {
        let ImageCost { decoded_bytes, .. } = self.probe_image(bytes, max)?;
        Ok(ViewsCost { decoded_bytes, tokens: vec![1; 4] })
    }

    fn prepare_views(
        &self,
        bytes: &[u8],
        max: Option<usize>,
        _: &ViewOptions,
        cancelled: &dyn Fn() -> bool,
    ) -> Result<Option<Views>> {
        let whole = self.prepare_image(bytes, max)?;
        let spec = self.info.image.clone().unwrap();
        let views = ViewOptions { side: Some(1), ..ViewOptions::default() };
        let preprocessor = Preprocessor::new(spec, ImageLimits::default())?;
        let cover = preprocessor.cover((9, 9), &ImageOptions::default(), &views)?;
        let name = Picture::read(bytes).name;
        let lost = usize::from(name == "lossy");
        let mut patches = Vec::new();
        for i in lost..4 {
            if cancelled() {
                return Ok(None);
            }
            self.cut.fetch_add(1, Ordering::SeqCst);
            let pixels = format!("{name}/{i}").into_bytes();
            patches.push(Patches { pixels, grid: Grid { rows: 1, cols: 1 }, source: whole.source });
        }
        Ok(Some(Views { patches, cover, preview: None }))
    }

    fn prepare_text(&self, text: &str, canonicalization: Option<Canonicalization>) -> Result<TokenIds> {
        self.prepare(text.to_owned());
        Ok(tokens(text, canonicalization))
    }

    fn prepare_ids(&self, ids: &[u32]) -> Result<TokenIds> {
        self.prepare("ids".to_owned());
        let mut padded = ids.to_vec();
        padded.resize(CONTEXT, 0);
        Ok(TokenIds { ids: padded, used: ids.len(), truncated: false })
    }

    fn memory_bytes(&self) -> u64 {
        MEMORY
    }

    fn load_towers(self: Arc<Self>, _: &Progress) -> Result<Vec<Arc<dyn Towers>>> {
        Ok(vec![self])
    }
}

impl Towers for Fake {
    fn embed_images(&self, batch: &[&Patches], pause: &Pause<'_>) -> Result<Vec<Vec<f32>>> {
        let names = batch.iter().map(|patches| Picture::read(&patches.pixels).name).collect();
        let vectors = self.embed(names, batch.iter().map(|patches| vector(&patches.pixels)).collect());
        while !self.layers_gate.is_open() {
            pause();
            std::thread::yield_now();
        }
        vectors
    }

    fn embed_texts(&self, batch: &[&TokenIds]) -> Result<Vec<Vec<f32>>> {
        let names = batch.iter().map(|ids| ids.ids[0].to_string()).collect();
        self.embed(names, batch.iter().map(|ids| text_vector(ids)).collect())
    }
}

/// What the bytes of a picture say: `name tokens pixels`.
struct Picture {
    name: String,
    tokens: usize,
    pixels: usize,
}

impl Picture {
    fn read(bytes: &[u8]) -> Self {
        let text = std::str::from_utf8(bytes).unwrap();
        let mut words = text.split(' ');
        let name = words.next().unwrap().to_owned();
        let mut number = |otherwise| words.next().map_or(otherwise, |word| word.parse().unwrap());
        Self { name, tokens: number(1), pixels: number(0) }
    }
}

/// The ids of a text differ with its text and its canonicalisation.
pub fn tokens(text: &str, canonicalization: Option<Canonicalization>) -> TokenIds {
    let hash =
        text.bytes().fold(7u32, |hash, byte| hash.wrapping_mul(31).wrapping_add(byte.into()) % 1_000_003);
    let mode = canonicalization.map_or(0, |mode| mode as u32 + 1);
    TokenIds { ids: vec![hash, mode, 0, 0], used: 2, truncated: text.len() > 20 }
}

/// The vector of a picture: different for different bytes.
pub fn vector(bytes: &[u8]) -> Vec<f32> {
    let sum = bytes.iter().zip(1..).map(|(&byte, i)| f32::from(byte) * i as f32).sum();
    vec![bytes.len() as f32, sum]
}

/// The vector of a text.
pub fn text_vector(ids: &TokenIds) -> Vec<f32> {
    ids.ids[..2].iter().map(|&id| id as f32).collect()
}

pub fn image(text: &str) -> Input {
    Input::Image(Bytes::copy_from_slice(text.as_bytes()))
}

pub fn images(prefix: &str, count: usize) -> Vec<Input> {
    (0..count).map(|i| image(&format!("{prefix}{i}"))).collect()
}

pub fn text(text: &str) -> Input {
    Input::Text(text.to_owned())
}

pub fn client(client: u64) -> EmbedOptions {
    EmbedOptions { client, ..EmbedOptions::default() }
}

/// One preparation thread of each kind, batches of ten tokens, no warm-up.
pub fn config() -> EngineConfig {
    EngineConfig {
        prepare_threads: 1,
        tokenize_threads: 1,
        max_batch_tokens: Some(10),
        retry: Duration::from_millis(50),
        warm_up: false,
        ..EngineConfig::default()
    }
}

pub fn start(fake: &Arc<Fake>, config: EngineConfig) -> (Engine, ModelHandle) {
    let engine = Engine::start(config);
    let model = engine.insert(&["fake"], Arc::clone(fake) as _).unwrap();
    (engine, model)
}

pub type Answer = tokio::task::JoinHandle<Result<Output, EngineError>>;

/// Sends a request and goes on once it is admitted.
pub fn send(engine: &Engine, model: &ModelHandle, inputs: Vec<Input>, options: EmbedOptions) -> Answer {
    let expected = engine.load().items + inputs.len();
    let model = model.clone();
    let answer = tokio::spawn(async move { model.embed(inputs, options).await });
    eventually("admission", || engine.load().items >= expected);
    answer
}

/// Goes on once everything sent before by this client is ready for a worker: the only preparation
/// thread has come to a picture sent after it.
pub fn settle(engine: &Engine, model: &ModelHandle, fake: &Fake, options: EmbedOptions) -> Answer {
    let answer = send(engine, model, vec![image("last")], options);
    eventually("preparation", || fake.prepared().iter().any(|name| name == "last"));
    answer
}

pub fn ok(output: &Output) -> Vec<Vec<f32>> {
    output.results.iter().map(|result| vector_of(result.as_ref().unwrap())).collect()
}

fn vector_of(embedding: &Embedding) -> Vec<f32> {
    embedding.vector.to_vec()
}

/// Waits for something that is bound to happen.
#[track_caller]
pub fn eventually(what: &str, mut happened: impl FnMut() -> bool) {
    let start = Instant::now();
    while !happened() {
        assert!(start.elapsed() < PATIENCE, "waited in vain for {what}");
        std::thread::sleep(Duration::from_micros(200));
    }
}

/// How often each name was computed.
pub fn counts(names: Vec<String>) -> BTreeMap<String, usize> {
    names.into_iter().fold(BTreeMap::new(), |mut counts, name| {
        *counts.entry(name).or_default() += 1;
        counts
    })
}

fn scopeguard(run: impl FnMut()) -> impl Drop {
    struct Guard<F: FnMut()>(F);
    impl<F: FnMut()> Drop for Guard<F> {
        fn drop(&mut self) {
            (self.0)();
        }
    }
    Guard(run)
}

/// Every fake is a model of its own.
fn fingerprint() -> String {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    NEXT.fetch_add(1, Ordering::SeqCst).to_string()
}

fn info() -> ModelInfo {
    ModelInfo {
        name: "fake".to_owned(),
        source: "a test".to_owned(),
        family: "siglip2-naflex".to_owned(),
        embedding_dim: 2,
        parameters: 0,
        spec: ModelSpec { image: None, text: None, scores: false, classifier: None },
        image: Some(ImageSpec {
            geometry: Geometry::NaFlex { max_num_patches: 4 },
            resample: Resample::Bilinear,
            patch: 1,
            mean: [0.5; 3],
            std: [0.5; 3],
            rescale: 1.0 / 255.0,
        }),
        text: Some(TextSpec {
            family: TextFamily::SigLip2,
            canonicalization: Canonicalization::Hf,
            context: CONTEXT,
            vocab: 1_000_003,
        }),
        logit_scale: None,
        logit_bias: None,
        template: "{}".to_owned(),
        fingerprint: fingerprint(),
        image_decode: ImageDecode::Exact,
        dtype: Precision::F32,
        device: DeviceKind::Cpu,
    }
}
