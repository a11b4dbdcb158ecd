//! Both towers of a checkpoint and what turns their cosines into probabilities.

use std::ops::Range;

use serde::Serialize;

use super::error::{ModelError, Result};
use super::{ImageTower, ModelSpec, PatchVectors, TextTower, Weights, in_pool, scores};
use crate::image::{ImageSpec, Patches};
use crate::ops::Numerics;
use crate::text::TokenIds;

/// The learned scale and bias of the sigmoid loss.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Scores {
    /// Factor of the cosine, exponentiated (checkpoints store its logarithm).
    pub scale: f32,
    /// Added to the scaled cosine.
    pub bias: f32,
}

impl Scores {
    /// Reads them from a checkpoint.
    ///
    /// # Errors
    /// If one is missing, or is no number that a cosine can be scaled with.
    pub fn read(weights: &dyn Weights) -> Result<Self> {
        let number = |name: &str| -> Result<f32> { Ok(weights.tensor(name, &[1])?.to_vec1::<f32>()?[0]) };
        let (logarithm, bias) = (number("logit_scale")?, number("logit_bias")?);
        let scale = logarithm.exp();
        if scale.is_finite() && bias.is_finite() {
            return Ok(Self { scale, bias });
        }
        Err(ModelError::Scores { logarithm, bias })
    }

    /// Logit of a cosine.
    pub fn logit(&self, cosine: f32) -> f32 {
        scores::logit(cosine, self.scale, self.bias)
    }
}

/// Called where a computation that takes long can wait while something shorter is done.
pub type Pause<'a> = dyn Fn() + Sync + 'a;

/// A loaded model.
pub struct Siglip {
    image: Option<ImageTower>,
    text: Option<TextTower>,
    scores: Option<Scores>,
    /// Tokens that go through the layers at once.
    pass: usize,
    /// Whether the towers compute on the processor.
    on_cpu: bool,
}

/// Tokens that go through the layers at once on a processor with so many threads: more would only leave its caches between
/// one layer and the next, fewer would leave threads without work.
fn tokens_at_once(threads: usize) -> usize {
    1024.max(threads.saturating_mul(256))
}

/// Items in runs of about equal numbers of tokens, as few as `limit` tokens a run allow; an item of more is one alone.
fn passes(lengths: impl Iterator<Item = usize>, limit: usize) -> Vec<Range<usize>> {
    let lengths: Vec<usize> = lengths.collect();
    let total = lengths.iter().sum::<usize>().max(1);
    let count = total.div_ceil(limit.max(1));
    let (mut passes, mut first, mut tokens, mut before) = (Vec::new(), 0, 0, 0);
    let mut pass = 0;
    for (i, &length) in lengths.iter().enumerate() {
        // An item belongs to the pass in which its middle is.
        let at = (before + length / 2) * count / total;
        if i > first && (at != pass || tokens + length > limit) {
            passes.push(first..i);
            (first, tokens) = (i, 0);
        }
        pass = at;
        tokens += length;
        before += length;
    }
    passes.push(first..lengths.len());
    passes
}

impl Siglip {
    /// Reads the towers that `spec` names.
    ///
    /// # Errors
    /// If a tensor is missing or misshapen, or if the device has no room for it.
    pub fn load(
        spec: &ModelSpec,
        image: Option<&ImageSpec>,
        weights: &dyn Weights,
        numerics: &Numerics,
    ) -> Result<Self> {
        let image = match (&spec.image, image) {
            (Some(tower), Some(image)) => Some(ImageTower::load(tower, image, weights, numerics)?),
            _ => None,
        };
        let text = spec.text.as_ref().map(|tower| TextTower::load(tower, weights, numerics)).transpose()?;
        let scores = spec.scores.then(|| Scores::read(weights)).transpose()?;
        let on_cpu = numerics.device().is_cpu();
        let pass = if on_cpu { tokens_at_once(rayon::current_num_threads()) } else { usize::MAX };
        Ok(Self { image, text, scores, pass, on_cpu })
    }

    /// The image tower.
    ///
    /// # Errors
    /// If the checkpoint has none.
    pub fn image(&self) -> Result<&ImageTower> {
        self.image.as_ref().ok_or(ModelError::NoImageTower)
    }

    /// The text tower.
    ///
    /// # Errors
    /// If the checkpoint has none.
    pub fn text(&self) -> Result<&TextTower> {
        self.text.as_ref().ok_or(ModelError::NoTextTower)
    }

    /// Scale and bias, where the checkpoint has them.
    pub fn scores(&self) -> Option<Scores> {
        self.scores
    }

    /// Computes a pass, of towers on the processor on a thread of the pool.
    fn in_pool<T: Send>(&self, pass: impl FnOnce() -> T + Send) -> T {
        if self.on_cpu { in_pool(pass) } else { pass() }
    }

    /// One vector a picture, not normalised.
    ///
    /// # Errors
    /// If there is no image tower, or as [`ImageTower::forward`].
    pub fn embed_images(&self, pictures: &[&Patches]) -> Result<Vec<Vec<f32>>> {
        self.embed_images_pausing(pictures, &|| ())
    }

    /// As [`Self::embed_images`]. On the processor it calls `pause` between the layers, on a thread of the pool; other
    /// work may be done there, with these towers too.
    ///
    /// # Errors
    /// As [`Self::embed_images`].
    pub fn embed_images_pausing(&self, pictures: &[&Patches], pause: &Pause<'_>) -> Result<Vec<Vec<f32>>> {
        if pictures.is_empty() {
            return Ok(Vec::new());
        }
        let tower = self.image()?;
        let mut vectors = Vec::with_capacity(pictures.len());
        for pass in passes(pictures.iter().map(|picture| picture.grid.len()), self.pass) {
            vectors.extend(self.in_pool(|| tower.embed(&pictures[pass], pause))?);
        }
        Ok(vectors)
    }

    /// The vectors of patches, not normalised: for each picture [`PatchVectors::count`] of them. Calls `pause` as
    /// [`Self::embed_images_pausing`] does.
    ///
    /// # Errors
    /// If there is no image tower, or as [`ImageTower::forward`].
    pub fn embed_patches(
        &self,
        pictures: &[&Patches],
        wanted: PatchVectors,
        pause: &Pause<'_>,
    ) -> Result<Vec<Vec<f32>>> {
        if pictures.is_empty() {
            return Ok(Vec::new());
        }
        let tower = self.image()?;
        let mut vectors = Vec::with_capacity(pictures.len());
        for pass in passes(pictures.iter().map(|picture| picture.grid.len()), self.pass) {
            vectors.extend(self.in_pool(|| tower.embed_patches(&pictures[pass], wanted, pause))?);
        }
        Ok(vectors)
    }

    /// One vector a text, not normalised.
    ///
    /// # Errors
    /// If there is no text tower, or as [`TextTower::forward`].
    pub fn embed_texts(&self, texts: &[&TokenIds]) -> Result<Vec<Vec<f32>>> {
        if texts.is_empty() {
            return Ok(Vec::new());
        }
        let ids: Vec<&[u32]> = texts.iter().map(|text| text.ids.as_slice()).collect();
        let tower = self.text()?;
        let mut vectors = Vec::with_capacity(texts.len());
        for pass in passes(ids.iter().map(|ids| ids.len()), self.pass) {
            vectors.extend(self.in_pool(|| tower.embed(&ids[pass]))?);
        }
        Ok(vectors)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passes_hold_every_item_once_in_order_and_about_as_much_each() {
        for (count, length, limit) in
            [(32, 196, 1024), (1, 5000, 1024), (100, 64, 1024), (7, 1000, 1024), (0, 1, 9)]
        {
            let found = passes(std::iter::repeat_n(length, count), limit);
            assert_eq!(
                found.iter().flat_map(Clone::clone).collect::<Vec<_>>(),
                (0..count).collect::<Vec<_>>()
            );
            let sizes: Vec<usize> = found.iter().map(|pass| pass.len()).collect();
            assert!(sizes.iter().max().unwrap() - sizes.iter().min().unwrap() <= 1, "{sizes:?}");
            assert!(sizes.iter().all(|&size| size <= 1 || size * length <= limit), "{sizes:?}");
        }
        assert_eq!(passes([300, 300, 300, 300, 9].into_iter(), 1000), [0..2, 2..5]);
        assert_eq!(passes([600; 3].into_iter(), 1000), [0..1, 1..2, 2..3]);
        assert_eq!(passes([5, 2000, 5].into_iter(), 1000), [0..1, 1..2, 2..3]);
        assert_eq!(passes([5; 4].into_iter(), usize::MAX).len(), 1);
    }
}
