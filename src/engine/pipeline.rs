//! A pipeline as the engine sees it.

use std::sync::Arc;

use super::{ImageCost, Model, Progress, Towers, ViewsCost};
use crate::Result;
use crate::checkpoint::{HubOptions, ModelRef};
use crate::image::{Geometry, ImageOptions, Patches, ViewOptions, Views, naflex_grid};
use crate::model::{PatchVectors, Pause, Siglip};
use crate::pipeline::{self, LoadOptions, ModelInfo, OwnClassifier, Processor, TowerSource};
use crate::text::{Canonicalization, TextReading, TokenIds};

/// A checkpoint's model, whose towers can leave the memory and come back.
pub struct PipelineModel {
    processor: Processor,
    towers: TowerSource,
}

impl PipelineModel {
    /// Finds or downloads a checkpoint and makes ready what stays in memory.
    ///
    /// # Errors
    /// As [`pipeline::open`].
    pub fn open(reference: &ModelRef, hub: &HubOptions, options: &LoadOptions) -> Result<Self> {
        let (processor, towers) = pipeline::open(reference, hub, options)?;
        Ok(Self { processor, towers })
    }
}

impl Model for PipelineModel {
    fn info(&self) -> &ModelInfo {
        self.processor.info()
    }

    fn probe_image(&self, bytes: &[u8], max_num_patches: Option<usize>) -> Result<ImageCost> {
        let preprocessor = self.processor.image()?;
        preprocessor.check(&ImageOptions { max_num_patches })?;
        let header = preprocessor.probe(bytes)?;
        let spec = preprocessor.spec();
        let tokens = match spec.geometry {
            Geometry::Squash { .. } | Geometry::Crop { .. } => spec.grid().len(),
            // Turning a picture by EXIF swaps its sides, and a swapped grid has as many patches.
            Geometry::NaFlex { max_num_patches: own } => {
                naflex_grid(header.height, header.width, spec.patch, max_num_patches.unwrap_or(own)).len()
            }
        };
        Ok(ImageCost { decoded_bytes: usize::try_from(header.decoded_bytes).unwrap_or(usize::MAX), tokens })
    }

    fn prepare_image(&self, bytes: &[u8], max_num_patches: Option<usize>) -> Result<Patches> {
        self.processor.prepare_image(bytes, max_num_patches)
    }

    fn probe_views(
        &self,
        bytes: &[u8],
        max_num_patches: Option<usize>,
        views: &ViewOptions,
    ) -> Result<ViewsCost> {
        let (preprocessor, options) = (self.processor.image()?, ImageOptions { max_num_patches });
        preprocessor.check(&options)?;
        let header = preprocessor.probe(bytes)?;
        let cover = preprocessor.cover((header.height, header.width), &options, views)?;
        let decoded = usize::try_from(header.decoded_bytes).unwrap_or(usize::MAX);
        Ok(ViewsCost {
            decoded_bytes: decoded.saturating_add(preprocessor.view_bytes(&header, &options, views)),
            tokens: preprocessor.view_tokens(&cover, &options, views),
        })
    }

    fn prepare_views(
        &self,
        bytes: &[u8],
        max_num_patches: Option<usize>,
        views: &ViewOptions,
        cancelled: &dyn Fn() -> bool,
    ) -> Result<Option<Views>> {
        let options = ImageOptions { max_num_patches };
        Ok(self.processor.image()?.views_from_bytes(bytes, &options, views, cancelled)?)
    }

    fn prepare_text(&self, text: &str, canonicalization: Option<Canonicalization>) -> Result<TokenIds> {
        self.processor.prepare_text(text, canonicalization)
    }

    fn read_text(&self, text: &str, canonicalization: Option<Canonicalization>) -> Result<TextReading> {
        Ok(self.processor.text()?.reading(text, canonicalization)?)
    }

    fn token(&self, id: u32) -> Option<String> {
        self.processor.text().ok()?.token(id)
    }

    fn prepare_ids(&self, ids: &[u32]) -> Result<TokenIds> {
        self.processor.prepare_ids(ids)
    }

    fn classifier(&self) -> Option<&OwnClassifier> {
        self.towers.classifier()
    }

    fn memory_bytes(&self) -> u64 {
        self.towers.memory_bytes()
    }

    fn load_towers(self: Arc<Self>, _: &Progress) -> Result<Vec<Arc<dyn Towers>>> {
        let towers = self.towers.load()?;
        Ok(towers.into_iter().map(|towers| Arc::new(towers) as Arc<dyn Towers>).collect())
    }
}

impl Towers for Siglip {
    fn embed_images(&self, batch: &[&Patches], pause: &Pause<'_>) -> Result<Vec<Vec<f32>>> {
        Ok(self.embed_images_pausing(batch, pause)?)
    }

    fn embed_patches(
        &self,
        batch: &[&Patches],
        wanted: PatchVectors,
        pause: &Pause<'_>,
    ) -> Result<Vec<Vec<f32>>> {
        Ok(Siglip::embed_patches(self, batch, wanted, pause)?)
    }

    fn embed_texts(&self, batch: &[&TokenIds]) -> Result<Vec<Vec<f32>>> {
        Ok(Siglip::embed_texts(self, batch)?)
    }
}
