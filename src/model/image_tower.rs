//! The image tower: patches in, one vector a picture out.

use std::ops::Range;

use candle_core::{DType, Device, Tensor};

use super::encoder::Encoder;
use super::error::{ModelError, Result};
use super::loader::Loader;
use super::pooling::Pooling;
use super::positions::Positions;
use super::{ImageTowerSpec, Pause, Weights};
use crate::image::{Grid, ImageSpec, Patches};
use crate::ops::pixels::pixel_table;
use crate::ops::rows::{convert, mean_rows, stack_rows};
use crate::ops::{Batch, Epilogue, Input, LayerNorm, Linear, Numerics, PixelValues, Runner, Segments};

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
    /// Batches of the same grids are computed alike.
    runner: Runner<Vec<Grid>>,
    device: Device,
}

/// What is made of the patches of a picture in place of its embedding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PatchVectors {
    /// The patch's token after the final norm. Aligned with no text.
    Tokens,
    /// What the pooling head makes of the patch's token alone: a vector like an embedding.
    Pooled,
    /// The mean of the tokens, one vector for the picture: what a trained classifier looks at. In a tower without a pooling
    /// head it is the embedding.
    Mean,
}

impl PatchVectors {
    /// Vectors of a picture of so many patches.
    #[must_use]
    pub fn count(self, patches: usize) -> usize {
        match self {
            Self::Tokens | Self::Pooled => patches,
            Self::Mean => 1,
        }
    }
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
        let fine = numerics.fine();
        let fine = Loader::new(weights, &fine).at("vision_model");
        let embeddings = fine.at("embeddings");
        let table = embeddings.at("position_embedding").host("weight", &[spec.positions.len(), width])?;
        Ok(Self {
            patch: embeddings.linear("patch_embedding", spec.patch * spec.patch * 3, width)?,
            positions: Positions::new(table, spec.positions, spec.position_resize, numerics),
            encoder: Encoder::load(&at.at("encoder"), &spec.encoder)?,
            norm: at.layer_norm("post_layernorm", width, spec.encoder.norm_eps)?,
            pooling: Pooling::load(&fine, &spec.encoder, spec.pooling)?,
            pixels: PixelValues::new(pixel_table(image.mean, image.std, image.rescale), numerics)?,
            runner: Runner::new(numerics.device())?,
            device: numerics.device().clone(),
            spec: spec.clone(),
        })
    }

    /// One vector a picture, f32, on the host, not normalised: [`Self::forward`]'s embeddings, on a GPU in less time.
    /// On the processor it calls `pause` between the layers.
    ///
    /// # Errors
    /// As [`Self::forward`].
    pub fn embed(&self, pictures: &[&Patches], pause: &Pause<'_>) -> Result<Vec<Vec<f32>>> {
        let segments = self.segments(pictures)?;
        let pieces: Vec<&[u8]> = pictures.iter().map(|p| p.pixels.as_slice()).collect();
        let batch = Batch {
            key: pictures.iter().map(|p| p.grid).collect(),
            rows: segments.rows(),
            pieces: &pieces,
            other: &|| pieces.iter().copied().flatten().map(|byte| !byte).collect(),
        };
        let forward = |input: &Input<'_>| {
            Ok::<_, ModelError>(self.outputs(input, pictures, &segments, pause)?.embeddings)
        };
        let values = self.runner.run(&batch, &forward)?;
        Ok(values.chunks(self.spec.encoder.width).map(<[f32]>::to_vec).collect())
    }

    /// The vectors of patches, f32, on the host, not normalised: for each picture [`PatchVectors::count`] of them, row by row. On
    /// the processor it calls `pause` between the layers.
    ///
    /// # Errors
    /// As [`Self::forward`].
    pub fn embed_patches(
        &self,
        pictures: &[&Patches],
        wanted: PatchVectors,
        pause: &Pause<'_>,
    ) -> Result<Vec<Vec<f32>>> {
        let segments = self.segments(pictures)?;
        let pieces: Vec<&[u8]> = pictures.iter().map(|p| p.pixels.as_slice()).collect();
        let tokens = self.tokens(&Input::new(&pieces, &self.device)?, pictures, &segments, pause)?;
        let vectors = match wanted {
            PatchVectors::Tokens => tokens,
            PatchVectors::Pooled => self.pooling.forward(&tokens, &Segments::uniform(segments.rows(), 1))?.0,
            PatchVectors::Mean => mean_rows(&tokens, &segments)?,
        };
        let vectors =
            convert(&vectors, DType::F32)?.to_device(&Device::Cpu)?.flatten_all()?.to_vec1::<f32>()?;
        let mut rest = vectors.as_slice();
        let of_picture = |rows: Range<usize>| {
            let (own, others) = rest.split_at(wanted.count(rows.len()) * self.spec.encoder.width);
            rest = others;
            own.to_vec()
        };
        Ok(segments.iter().map(of_picture).collect())
    }

    /// How many shapes of batches run as CUDA graphs.
    pub fn graphs(&self) -> usize {
        self.runner.graphs()
    }

    /// Runs the tower over pictures of any mixture of grids.
    ///
    /// # Errors
    /// If a picture's patches are not of this tower's size, or if the device fails.
    pub fn forward(&self, pictures: &[&Patches]) -> Result<ImageOutputs> {
        let segments = self.segments(pictures)?;
        let pieces: Vec<&[u8]> = pictures.iter().map(|p| p.pixels.as_slice()).collect();
        self.outputs(&Input::new(&pieces, &self.device)?, pictures, &segments, &|| ())
    }

    /// The segments of pictures that fit the tower.
    fn segments(&self, pictures: &[&Patches]) -> Result<Segments> {
        let columns = self.spec.patch * self.spec.patch * 3;
        for picture in pictures {
            if picture.grid.is_empty() || picture.pixels.len() != picture.grid.len() * columns {
                return Err(ModelError::Input(format!(
                    "a picture of {} × {} patches with {} bytes does not fit a tower with patches of {columns}",
                    picture.grid.rows,
                    picture.grid.cols,
                    picture.pixels.len(),
                )));
            }
        }
        Ok(Segments::new(pictures.iter().map(|p| p.grid.len())))
    }

    fn outputs(
        &self,
        input: &Input<'_>,
        pictures: &[&Patches],
        segments: &Segments,
        pause: &Pause<'_>,
    ) -> Result<ImageOutputs> {
        let tokens = self.tokens(input, pictures, segments, pause)?;
        let (embeddings, attention) = self.pooling.forward(&tokens, segments)?;
        let embeddings = convert(&embeddings, DType::F32)?;
        Ok(ImageOutputs { embeddings, tokens, attention, segments: segments.clone() })
    }

    /// Patch tokens after the final norm, `[patches of all pictures, width]`.
    fn tokens(
        &self,
        input: &Input<'_>,
        pictures: &[&Patches],
        segments: &Segments,
        pause: &Pause<'_>,
    ) -> Result<Tensor> {
        let on_cpu = self.device.is_cpu();
        // On a GPU layers are only launched here, or recorded.
        let pause = || {
            if on_cpu {
                pause()
            }
        };
        let x = self.pixels.of(input, segments.rows(), self.spec.patch * self.spec.patch * 3)?;
        let x = self.patch.forward(&x, Epilogue::Residual(&self.position_rows(pictures)?))?;
        Ok(self.norm.forward(&self.encoder.forward_pausing(x, segments, &pause)?)?)
    }

    /// The positions of every patch of a batch, `[patches of all pictures, width]`.
    fn position_rows(&self, pictures: &[&Patches]) -> Result<Tensor> {
        let runs = pictures.chunk_by(|a, b| a.grid == b.grid);
        let tables = runs.map(|run| Ok((self.positions.for_grid(run[0].grid)?, run.len())));
        Ok(stack_rows(&tables.collect::<Result<Vec<_>>>()?)?)
    }
}
