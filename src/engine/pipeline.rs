//! A pipeline as the engine sees it.

use std::sync::Arc;

use super::sync::{Mutex, lock};
use super::{ImageCost, Model, Progress, Towers};
use crate::image::{Geometry, ImageOptions, Patches, naflex_grid};
use crate::model::Siglip;
use crate::pipeline::{ModelInfo, Pipeline, Processor};
use crate::text::{Canonicalization, TokenIds};
use crate::{Error, Result};

/// A [`Pipeline`] whose towers can leave the memory.
pub struct PipelineModel {
    processor: Processor,
    /// The towers as they were loaded with the rest, until the engine takes them.
    loaded: Mutex<Vec<Siglip>>,
}

impl From<Pipeline> for PipelineModel {
    fn from(pipeline: Pipeline) -> Self {
        let (processor, towers) = pipeline.into_parts();
        Self { processor, loaded: Mutex::new(towers) }
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
            Geometry::Squash { .. } => spec.grid().len(),
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

    fn prepare_text(&self, text: &str, canonicalization: Option<Canonicalization>) -> Result<TokenIds> {
        self.processor.prepare_text(text, canonicalization)
    }

    fn prepare_ids(&self, ids: &[u32]) -> Result<TokenIds> {
        self.processor.prepare_ids(ids)
    }

    fn load_towers(self: Arc<Self>, _: &Progress) -> Result<Vec<Arc<dyn Towers>>> {
        let loaded = std::mem::take(&mut *lock(&self.loaded));
        if loaded.is_empty() {
            return Err(Error::Config("the towers of this model cannot be loaded again".into()));
        }
        Ok(loaded.into_iter().map(|towers| Arc::new(towers) as Arc<dyn Towers>).collect())
    }
}

impl Towers for Siglip {
    fn embed_images(&self, batch: &[&Patches]) -> Result<Vec<Vec<f32>>> {
        Ok(Siglip::embed_images(self, batch)?)
    }

    fn embed_texts(&self, batch: &[&TokenIds]) -> Result<Vec<Vec<f32>>> {
        Ok(Siglip::embed_texts(self, batch)?)
    }
}
