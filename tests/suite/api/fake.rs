//! A model whose vectors follow from the bytes of its inputs.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex};
use std::time::Duration;

use siglip::testing::engine::{ImageCost, Model, Progress, Towers, ViewsCost};
use siglip::testing::image::{
    Area, Cover, Geometry, Grid, ImageDecode, ImageError, ImageLimits, ImageOptions, ImageSpec, Patches,
    Picture, Preprocessor, Resample, ViewMethod, ViewOptions, Views,
};
use siglip::testing::model::{
    EncoderSpec, ImagePooling, ImageTowerSpec, ModelSpec, PatchVectors, Pause, PositionResize, TextTowerSpec,
};
use siglip::testing::ops::Activation;
use siglip::testing::pipeline::{DeviceKind, ModelInfo, Precision};
use siglip::testing::text::{Canonicalization, TextFamily, TextSpec, TokenIds};
use siglip::testing::{Error, Result};

/// Width of the fake embeddings.
pub const DIM: usize = 12;
/// Context length of the fake text tower.
pub const CONTEXT: usize = 16;
pub const SCALE: f32 = 10.0;
pub const BIAS: f32 = -1.0;

/// Height and width of a picture of which views are taken.
pub const SOURCE: (u32, u32) = (200, 400);

/// Texts and pictures that one of the fakes has computed.
pub static COMPUTED: AtomicUsize = AtomicUsize::new(0);

/// A picture is `PIC` and anything; a text that holds `slow` takes 200 ms, one that holds `panic` panics, and one that
/// holds `held` waits while the test says so, as does one that begins with `stuck` when it is tokenised.
pub struct Fake {
    info: ModelInfo,
    /// While true, nothing can be computed.
    pub lost: AtomicBool,
    /// Texts that were tokenised, or are being.
    pub tokenized: AtomicUsize,
    held: Mutex<bool>,
    released: Condvar,
}

/// What the fake computes for some bytes: 12 numbers in −3…3, not normalised.
pub fn vector(content: &[u8]) -> Vec<f32> {
    let mut state = content.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, &byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3)
    });
    let next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((state >> 40) as f32 / (1u64 << 24) as f32 - 0.5) * 6.0
    };
    std::iter::repeat_with(next).take(DIM).collect()
}

/// The content of a view of a picture.
pub fn view(content: &[u8], Area { top, left, rows, cols }: Area) -> Vec<u8> {
    [content, &[top, left, rows, cols].map(|x| x as u8)].concat()
}

/// The vector of one patch of a picture.
pub fn patch(content: &[u8], wanted: PatchVectors, at: usize) -> Vec<f32> {
    vector(&[content, &[u8::from(wanted == PatchVectors::Tokens), at as u8]].concat())
}

impl Fake {
    pub fn new(name: &str) -> Self {
        let encoder = EncoderSpec {
            width: DIM,
            depth: 1,
            heads: 1,
            mlp: 4,
            activation: Activation::GeluTanh,
            norm_eps: 1e-6,
        };
        let spec = ModelSpec {
            image: Some(ImageTowerSpec {
                encoder: encoder.clone(),
                patch: 16,
                positions: Grid { rows: 14, cols: 14 },
                position_resize: PositionResize::Bicubic,
                pooling: ImagePooling::MapHead,
            }),
            text: Some(TextTowerSpec {
                encoder,
                vocab: 256,
                context: CONTEXT,
                projection: Some(DIM),
                long_head: false,
            }),
            scores: true,
            classifier: None,
        };
        let image = ImageSpec {
            geometry: Geometry::Squash { height: 224, width: 224 },
            resample: Resample::Bicubic,
            patch: 16,
            mean: [0.5; 3],
            std: [0.5; 3],
            rescale: 1.0 / 255.0,
        };
        let text = TextSpec {
            family: TextFamily::SigLip1,
            canonicalization: Canonicalization::Hf,
            context: CONTEXT,
            vocab: 256,
        };
        let info = ModelInfo {
            name: name.to_owned(),
            source: "fake".to_owned(),
            family: "siglip".to_owned(),
            embedding_dim: DIM,
            parameters: 1,
            spec,
            image: Some(image),
            text: Some(text),
            logit_scale: Some(SCALE),
            logit_bias: Some(BIAS),
            template: "a {}".to_owned(),
            fingerprint: format!("finger-{name}"),
            image_decode: ImageDecode::Exact,
            dtype: Precision::F32,
            device: DeviceKind::Cpu,
        };
        Self {
            info,
            lost: AtomicBool::new(false),
            tokenized: AtomicUsize::new(0),
            held: Mutex::new(false),
            released: Condvar::new(),
        }
    }
}

impl Fake {
    /// From now on texts with `held` in them wait.
    #[allow(dead_code, reason = "the test of limits holds nothing")]
    pub fn hold(&self) {
        *self.held.lock().unwrap() = true;
    }

    /// Those that wait go on.
    #[allow(dead_code, reason = "the test of limits holds nothing")]
    pub fn release(&self) {
        *self.held.lock().unwrap() = false;
        self.released.notify_all();
    }

    fn wait(&self) {
        drop(self.released.wait_while(self.held.lock().unwrap(), |held| *held).unwrap());
    }

    fn cover(&self, views: &ViewOptions) -> Result<(Preprocessor, Cover)> {
        let spec = self.info.image.clone().expect("there is an image side");
        let preprocessor = Preprocessor::new(spec, ImageLimits::default())?;
        let cover = preprocessor.cover(SOURCE, &ImageOptions::default(), views)?;
        Ok((preprocessor, cover))
    }

    fn compute(&self, items: usize) -> Result<()> {
        COMPUTED.fetch_add(items, Ordering::SeqCst);
        match self.lost.load(Ordering::SeqCst) {
            true => Err(Error::Compute(candle_core::Error::Msg("the device is lost".to_owned()))),
            false => Ok(()),
        }
    }
}

impl Model for Fake {
    fn info(&self) -> &ModelInfo {
        &self.info
    }

    fn probe_image(&self, bytes: &[u8], max_num_patches: Option<usize>) -> Result<ImageCost> {
        if max_num_patches.is_some() {
            return Err(Error::Request("max_num_patches is for NaFlex models".to_owned()));
        }
        if !bytes.starts_with(b"PIC") {
            return Err(ImageError::Empty.into());
        }
        Ok(ImageCost { decoded_bytes: bytes.len(), tokens: 196 })
    }

    fn prepare_image(&self, bytes: &[u8], _: Option<usize>) -> Result<Patches> {
        Ok(Patches { pixels: bytes.to_vec(), grid: Grid { rows: 14, cols: 14 }, source: (2, 3) })
    }

    fn probe_views(&self, bytes: &[u8], max: Option<usize>, views: &ViewOptions) -> Result<ViewsCost> {
        let ImageCost { decoded_bytes, .. } = self.probe_image(bytes, max)?;
        let (preprocessor, cover) = self.cover(views)?;
        let tokens = preprocessor.view_tokens(&cover, &ImageOptions::default(), views);
        Ok(ViewsCost { decoded_bytes, tokens })
    }

    fn prepare_views(
        &self,
        bytes: &[u8],
        _: Option<usize>,
        views: &ViewOptions,
        _: &dyn Fn() -> bool,
    ) -> Result<Option<Views>> {
        if bytes.ends_with(b"bad") {
            return Err(ImageError::Empty.into());
        }
        let (preprocessor, cover) = self.cover(views)?;
        let tokens = preprocessor.view_tokens(&cover, &ImageOptions::default(), views);
        if views.method == ViewMethod::Values {
            let patches = vec![Patches { source: SOURCE, ..self.prepare_image(bytes, None)? }];
            return Ok(Some(Views { patches, cover, preview: None }));
        }
        let patches = cover.areas().zip(tokens).map(|(area, tokens)| Patches {
            pixels: view(bytes, area),
            grid: Grid { rows: 1, cols: tokens },
            source: SOURCE,
        });
        let patches = patches.collect();
        let preview = views.preview.map(|_| Picture::new(4, 2, vec![90; 24]).expect("eight pixels"));
        Ok(Some(Views { patches, cover, preview }))
    }

    fn prepare_text(&self, text: &str, mode: Option<Canonicalization>) -> Result<TokenIds> {
        self.tokenized.fetch_add(1, Ordering::SeqCst);
        if text.starts_with("stuck") {
            self.wait();
        }
        // Nothing is made of what the context does not hold.
        let text = &text[..text.floor_char_boundary(4 * CONTEXT)];
        let text = if mode == Some(Canonicalization::None) { text.to_owned() } else { text.to_lowercase() };
        let mut ids: Vec<u32> = text.bytes().map(u32::from).collect();
        let truncated = ids.len() > CONTEXT;
        ids.truncate(CONTEXT);
        let used = ids.len();
        ids.resize(CONTEXT, 0);
        Ok(TokenIds { ids, used, truncated })
    }

    fn token(&self, id: u32) -> Option<String> {
        char::from_u32(id).map(String::from)
    }

    fn prepare_ids(&self, ids: &[u32]) -> Result<TokenIds> {
        if let Some(id) = ids.iter().find(|&&id| id >= 256) {
            return Err(Error::Request(format!("the token id {id} is outside of the vocabulary")));
        }
        let mut padded = ids.to_vec();
        padded.resize(CONTEXT, 0);
        Ok(TokenIds { ids: padded, used: ids.len(), truncated: false })
    }

    fn memory_bytes(&self) -> u64 {
        1 << 20
    }

    fn load_towers(self: Arc<Self>, _: &Progress) -> Result<Vec<Arc<dyn Towers>>> {
        Ok(vec![self])
    }
}

impl Towers for Fake {
    fn embed_images(&self, batch: &[&Patches], _: &Pause<'_>) -> Result<Vec<Vec<f32>>> {
        self.compute(batch.len())?;
        Ok(batch.iter().map(|patches| vector(&patches.pixels)).collect())
    }

    fn embed_patches(
        &self,
        batch: &[&Patches],
        wanted: PatchVectors,
        _: &Pause<'_>,
    ) -> Result<Vec<Vec<f32>>> {
        self.compute(batch.len())?;
        let of = |patches: &&Patches| {
            (0..patches.grid.len()).flat_map(|at| patch(&patches.pixels, wanted, at)).collect()
        };
        Ok(batch.iter().map(of).collect())
    }

    fn embed_texts(&self, batch: &[&TokenIds]) -> Result<Vec<Vec<f32>>> {
        self.compute(batch.len())?;
        let content: Vec<Vec<u8>> =
            batch.iter().map(|text| text.ids[..text.used].iter().map(|&id| id as u8).collect()).collect();
        let holds = |part: &[u8]| content.iter().any(|c| c.windows(part.len()).any(|w| w == part));
        if holds(b"panic") {
            panic!("as the text asked for");
        }
        if holds(b"held") {
            self.wait();
        }
        if holds(b"slow") {
            std::thread::sleep(Duration::from_millis(200));
        }
        Ok(content.iter().map(|c| vector(c)).collect())
    }
}
