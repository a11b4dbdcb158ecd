//! A digest of the weights, whatever files they came in.

use blake3::Hasher;
use rayon::prelude::*;

use super::CheckpointError;
use super::weights::CheckpointWeights;
use crate::model::ModelError;

/// Values hashed at once: 16 MiB, so that one large table keeps all cores busy.
const CHUNK: usize = 4 << 20;

/// Values widened at once: they stay in a core's cache.
const PIECE: usize = 64 << 10;

/// Four bytes to a value.
const VALUE: usize = 4;

impl CheckpointWeights {
    /// BLAKE3 over the weights, for the fingerprint of the embedding space: 32 bytes.
    ///
    /// What is hashed is what the towers compute with: for every tensor, by its canonical name in
    /// sorted order, the name, the shape, and the values as little-endian f32, in pieces of 16 MiB
    /// of which the digests are hashed together. So the same weights have the same digest in every
    /// layout, sharded or not, and in every type that holds them exactly; weights rounded to bf16
    /// are other weights. It reads everything once: call it when it is wanted, not at every start.
    ///
    /// # Errors
    /// If a tensor cannot be read.
    pub fn digest(&self) -> Result<[u8; 32], ModelError> {
        let names: Vec<(&str, &[usize])> = self.shapes().collect();
        let digests: Vec<[u8; 32]> = names
            .par_iter()
            .map(|(name, shape)| self.tensor_digest(name, shape))
            .collect::<Result<_, _>>()?;
        let mut all = Hasher::new();
        for digest in &digests {
            all.update(digest);
        }
        Ok(all.finalize().into())
    }

    fn tensor_digest(&self, name: &str, shape: &[usize]) -> Result<[u8; 32], ModelError> {
        let chunks: Vec<[u8; 32]> = if let Some(bytes) = self.plain(name) {
            bytes.par_chunks(CHUNK * VALUE).map(|chunk| blake3::hash(chunk).into()).collect()
        } else if let Some(read) = self.part_reader(name) {
            // Widened piece by piece: a vocabulary in bf16 takes a gigabyte in f32.
            let count: usize = shape.iter().product();
            let starts = (0..count).into_par_iter().step_by(CHUNK);
            let digest = |start: usize| {
                let end = count.min(start + CHUNK);
                let mut hash = Hasher::new();
                for at in (start..end).step_by(PIECE) {
                    update(&mut hash, &read(at..end.min(at + PIECE))?);
                }
                Ok::<_, CheckpointError>(hash.finalize().into())
            };
            starts.map(digest).collect::<Result<_, _>>()?
        } else {
            let digest = |chunk: &[f32]| {
                let mut hash = Hasher::new();
                chunk.chunks(PIECE).for_each(|values| update(&mut hash, values));
                hash.finalize().into()
            };
            self.values(name)?.par_chunks(CHUNK).map(digest).collect()
        };
        let mut hash = Hasher::new();
        hash.update(&(name.len() as u64).to_le_bytes());
        hash.update(name.as_bytes());
        hash.update(&(shape.len() as u64).to_le_bytes());
        for size in shape {
            hash.update(&(*size as u64).to_le_bytes());
        }
        for chunk in &chunks {
            hash.update(chunk);
        }
        Ok(hash.finalize().into())
    }
}

fn update(hash: &mut Hasher, values: &[f32]) {
    let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    hash.update(&bytes);
}
