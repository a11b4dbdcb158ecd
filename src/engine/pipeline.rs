//! A pipeline as the engine sees it.

use super::{ImageCost, Model};
use crate::Result;
use crate::image::{Geometry, ImageOptions, Patches, naflex_grid};
use crate::pipeline::{ModelInfo, Pipeline};
use crate::text::{Canonicalization, TokenIds};

impl Model for Pipeline {
    fn info(&self) -> &ModelInfo {
        Pipeline::info(self)
    }

    fn probe_image(&self, bytes: &[u8], max_num_patches: Option<usize>) -> Result<ImageCost> {
        let preprocessor = self.image()?;
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
        Pipeline::prepare_image(self, bytes, max_num_patches)
    }

    fn prepare_text(&self, text: &str, canonicalization: Option<Canonicalization>) -> Result<TokenIds> {
        Pipeline::prepare_text(self, text, canonicalization)
    }

    fn prepare_ids(&self, ids: &[u32]) -> Result<TokenIds> {
        Pipeline::prepare_ids(self, ids)
    }

    fn replicas(&self) -> usize {
        Pipeline::replicas(self).len()
    }

    fn embed_images_on(&self, replica: usize, batch: &[&Patches]) -> Result<Vec<Vec<f32>>> {
        Ok(Pipeline::replicas(self)[replica].embed_images(batch)?)
    }

    fn embed_texts_on(&self, replica: usize, batch: &[&TokenIds]) -> Result<Vec<Vec<f32>>> {
        Ok(Pipeline::replicas(self)[replica].embed_texts(batch)?)
    }

    fn embed_images(&self, batch: &[&Patches]) -> Result<Vec<Vec<f32>>> {
        Ok(self.model().embed_images(batch)?)
    }

    fn embed_texts(&self, batch: &[&TokenIds]) -> Result<Vec<Vec<f32>>> {
        Ok(self.model().embed_texts(batch)?)
    }
}
