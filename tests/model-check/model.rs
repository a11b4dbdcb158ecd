//! A model that computes at once: what matters is when.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use siglip::testing::engine::{ImageCost, Model, Progress, Towers};
use siglip::testing::image::{Geometry, Grid, ImageDecode, ImageSpec, Patches, Resample};
use siglip::testing::model::{ModelSpec, Pause};
use siglip::testing::pipeline::{DeviceKind, ModelInfo, Precision};
use siglip::testing::text::{Canonicalization, TokenIds};
use siglip::testing::{Error, Result};

/// Bytes that the towers are said to take.
pub const MEMORY: u64 = 100;

/// A model on some devices.
pub struct Tiny {
    info: ModelInfo,
    lost: Vec<Arc<AtomicBool>>,
    /// Whether its towers cannot be loaded.
    pub unreadable: AtomicBool,
    computed: Arc<AtomicUsize>,
    memory: Arc<Memory>,
}

/// Where models that share it are in memory.
#[derive(Default)]
pub struct Memory {
    now: AtomicUsize,
    most: AtomicUsize,
}

impl Memory {
    /// The most towers that were in memory at once.
    pub fn most(&self) -> usize {
        self.most.load(Ordering::SeqCst)
    }
}

/// The towers of one device.
struct Device {
    lost: Arc<AtomicBool>,
    computed: Arc<AtomicUsize>,
    memory: Arc<Memory>,
}

/// The vector of a picture.
pub fn value(bytes: &[u8]) -> f32 {
    f32::from(bytes[0])
}

impl Tiny {
    pub fn new(devices: usize) -> Arc<Self> {
        Self::within(devices, &Arc::default())
    }

    /// Shares a memory with other models.
    pub fn within(devices: usize, memory: &Arc<Memory>) -> Arc<Self> {
        Arc::new(Self {
            info: info(),
            lost: (0..devices).map(|_| Arc::default()).collect(),
            unreadable: AtomicBool::new(false),
            computed: Arc::default(),
            memory: Arc::clone(memory),
        })
    }

    /// From now on this device fails.
    pub fn lose(&self, device: usize) {
        self.lost[device].store(true, Ordering::SeqCst);
    }

    /// Pictures that were computed.
    pub fn computed(&self) -> usize {
        self.computed.load(Ordering::SeqCst)
    }
}

impl Model for Tiny {
    fn info(&self) -> &ModelInfo {
        &self.info
    }

    fn probe_image(&self, _: &[u8], _: Option<usize>) -> Result<ImageCost> {
        Ok(ImageCost { decoded_bytes: 1, tokens: 1 })
    }

    fn prepare_image(&self, bytes: &[u8], _: Option<usize>) -> Result<Patches> {
        Ok(Patches { pixels: bytes.to_vec(), grid: Grid { rows: 1, cols: 1 }, source: (1, 1) })
    }

    fn prepare_text(&self, _: &str, _: Option<Canonicalization>) -> Result<TokenIds> {
        Err(Error::Request("no texts".to_owned()))
    }

    fn prepare_ids(&self, _: &[u32]) -> Result<TokenIds> {
        Err(Error::Request("no texts".to_owned()))
    }

    fn memory_bytes(&self) -> u64 {
        MEMORY
    }

    fn load_towers(self: Arc<Self>, _: &Progress) -> Result<Vec<Arc<dyn Towers>>> {
        if self.unreadable.load(Ordering::SeqCst) {
            shuttle::thread::yield_now();
            return Err(Error::Config("the disk is gone".into()));
        }
        let towers = self.lost.iter().map(|lost| {
            let now = self.memory.now.fetch_add(1, Ordering::SeqCst) + 1;
            self.memory.most.fetch_max(now, Ordering::SeqCst);
            let (lost, computed) = (Arc::clone(lost), Arc::clone(&self.computed));
            Arc::new(Device { lost, computed, memory: Arc::clone(&self.memory) }) as Arc<dyn Towers>
        });
        Ok(towers.collect())
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        self.memory.now.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Towers for Device {
    fn embed_images(&self, batch: &[&Patches], pause: &Pause<'_>) -> Result<Vec<Vec<f32>>> {
        shuttle::thread::yield_now();
        pause();
        if self.lost.load(Ordering::SeqCst) {
            return Err(Error::Compute(candle_core::Error::Msg("the device is lost".to_owned())));
        }
        self.computed.fetch_add(batch.len(), Ordering::SeqCst);
        Ok(batch.iter().map(|patches| vec![value(&patches.pixels)]).collect())
    }

    fn embed_texts(&self, _: &[&TokenIds]) -> Result<Vec<Vec<f32>>> {
        Err(Error::Request("no texts".to_owned()))
    }
}

fn info() -> ModelInfo {
    ModelInfo {
        name: "tiny".to_owned(),
        source: "a test".to_owned(),
        family: "siglip2-naflex".to_owned(),
        embedding_dim: 1,
        parameters: 0,
        spec: ModelSpec { image: None, text: None, scores: false, classifier: None },
        image: Some(ImageSpec {
            geometry: Geometry::NaFlex { max_num_patches: 1 },
            resample: Resample::Bilinear,
            patch: 1,
            mean: [0.5; 3],
            std: [0.5; 3],
            rescale: 1.0 / 255.0,
        }),
        text: None,
        logit_scale: None,
        logit_bias: None,
        template: "{}".to_owned(),
        fingerprint: "tiny".to_owned(),
        image_decode: ImageDecode::Exact,
        dtype: Precision::F32,
        device: DeviceKind::Cpu,
    }
}
