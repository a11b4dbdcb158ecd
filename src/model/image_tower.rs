//! The image tower: patches in, one vector a picture out.

use candle_core::{DType, Tensor};

use super::encoder::Encoder;
use super::loader::Loader;
use super::pooling::Pooling;
use super::positions::Positions;
use super::{ImageTowerSpec, Weights};
use crate::image::{ImageSpec, Patches};
use crate::ops::pixels::pixel_table;
use crate::ops::{Epilogue, LayerNorm, Linear, Numerics, PixelValues, Segments};
use crate::{Error, Result};

/// A ViT over packed patches: fixed resolution and NaFlex are the same tower.
/// Source: big_vision, `models/vit.py` and `models/proj/image_text/naflex_vit.py`.
pub struct ImageTower {
    spec: ImageTowerSpec,
    patch: Linear,
    positions: Positions,
    encoder: Encoder,
    norm: LayerNorm,
    pooling: Pooling,
    pixels: PixelValues,
}

/// What the tower can give of a batch; rows of `tokens` follow the pictures' order.
pub struct ImageOutputs {
    /// `[pictures, width]`, f32, not normalised.
    pub embeddings: Tensor,
    /// Patch tokens before pooling (after the final norm), `[patches of all pictures, width]`.
    pub tokens: Tensor,
    /// How much each head of the pooling probe looks at each patch: one `[heads, patches]` (f32,
    /// rows sum to 1) a picture; empty for towers without a probe.
    pub attention: Vec<Tensor>,
    /// Which rows of `tokens` belong to which picture.
    pub segments: Segments,
}

impl ImageTower {
    /// Reads the tower's tensors.
    ///
    /// # Errors
    /// If a tensor is missing or misshapen.
    pub fn load(
        spec: &ImageTowerSpec,
        image: &ImageSpec,
        weights: &dyn Weights,
        numerics: &Numerics,
    ) -> Result<Self> {
        let at = Loader::new(weights, numerics).at("vision_model");
        let width = spec.encoder.width;
        let embeddings = at.at("embeddings");
        let table = embeddings.at("position_embedding").host("weight", &[spec.positions.len(), width])?;
        Ok(Self {
            patch: embeddings.linear("patch_embedding", spec.patch * spec.patch * 3, width)?,
            positions: Positions::new(table, spec.positions, spec.position_resize, numerics),
            encoder: Encoder::load(&at.at("encoder"), &spec.encoder)?,
            norm: at.layer_norm("post_layernorm", width, spec.encoder.norm_eps)?,
            pooling: Pooling::load(&at, &spec.encoder, spec.pooling)?,
            pixels: PixelValues::new(pixel_table(image.mean, image.std, image.rescale), numerics)?,
            spec: spec.clone(),
        })
    }

    /// Runs the tower over pictures of any mixture of grids.
    ///
    /// # Errors
    /// If a picture's patches are not of this tower's size, or if the device fails.
    pub fn forward(&self, pictures: &[&Patches]) -> Result<ImageOutputs> {
        let columns = self.spec.patch * self.spec.patch * 3;
        for picture in pictures {
            if picture.grid.is_empty() || picture.pixels.len() != picture.grid.len() * columns {
                return Err(Error::Request(format!(
                    "a picture of {} × {} patches with {} bytes does not fit a tower with patches of {columns}",
                    picture.grid.rows,
                    picture.grid.cols,
                    picture.pixels.len(),
                )));
            }
        }
        let segments = Segments::new(pictures.iter().map(|p| p.grid.len()));
        let pieces: Vec<&[u8]> = pictures.iter().map(|p| p.pixels.as_slice()).collect();
        let x = self.pixels.of(&pieces, segments.rows(), columns)?;
        let x = self.patch.forward(&x, Epilogue::Residual(&self.position_rows(pictures)?))?;
        let tokens = self.norm.forward(&self.encoder.forward(x, &segments)?)?;
        let (embeddings, attention) = self.pooling.forward(&tokens, &segments)?;
        Ok(ImageOutputs { embeddings: embeddings.to_dtype(DType::F32)?, tokens, attention, segments })
    }

    /// The positions of every patch of a batch, `[patches of all pictures, width]`.
    fn position_rows(&self, pictures: &[&Patches]) -> Result<Tensor> {
        if let [first, others @ ..] = pictures
            && others.iter().all(|other| other.grid == first.grid)
        {
            let table = self.positions.for_grid(first.grid)?;
            // On a GPU one operation instead of one a picture.
            if table.device().is_cuda() {
                let (rows, width) = table.dims2()?;
                let all = table.unsqueeze(0)?.broadcast_as((pictures.len(), rows, width))?;
                return Ok(all.contiguous()?.reshape((pictures.len() * rows, width))?);
            }
        }
        let tables = pictures.iter().map(|p| self.positions.for_grid(p.grid)).collect::<Result<Vec<_>>>()?;
        Ok(Tensor::cat(&tables, 0)?)
    }
}
