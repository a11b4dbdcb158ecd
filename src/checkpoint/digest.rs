//! A digest of the weights, whatever files they came in.

use rayon::prelude::*;
use sha2::{Digest, Sha256};

use super::weights::CheckpointWeights;

/// Values hashed at once: 16 MiB, so that one large table keeps all cores busy.
const CHUNK: usize = 4 << 20;

/// Four bytes to a value.
const VALUE: usize = 4;

impl CheckpointWeights {
    /// SHA-256 over the weights, for the fingerprint of the embedding space: 32 bytes.
    ///
    /// What is hashed is what the towers compute with: for every tensor, by its canonical name in
    /// sorted order, the name, the shape, and the values as little-endian f32, in pieces of 16 MiB
    /// of which the digests are hashed together. So the same weights have the same digest in every
    /// layout, sharded or not, and in every type that holds them exactly; weights rounded to bf16
    /// are other weights. It reads everything once: call it when it is wanted, not at every start.
    ///
    /// # Errors
    /// If a tensor cannot be read.
    pub fn digest(&self) -> crate::Result<[u8; 32]> {
        let names: Vec<(&str, &[usize])> = self.shapes().collect();
        let digests: Vec<[u8; 32]> = names
            .par_iter()
            .map(|(name, shape)| self.tensor_digest(name, shape))
            .collect::<Result<_, _>>()?;
        let mut all = Sha256::new();
        digests.iter().for_each(|digest| all.update(digest));
        Ok(all.finalize().into())
    }

    fn tensor_digest(&self, name: &str, shape: &[usize]) -> crate::Result<[u8; 32]> {
        let chunks: Vec<[u8; 32]> = match self.plain(name) {
            Some(bytes) => {
                bytes.par_chunks(CHUNK * VALUE).map(|chunk| Sha256::digest(chunk).into()).collect()
            }
            None => (self.values(name)?.par_chunks(CHUNK))
                .map(|chunk| {
                    let mut hash = Sha256::new();
                    for values in chunk.chunks(4096) {
                        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
                        hash.update(bytes);
                    }
                    hash.finalize().into()
                })
                .collect(),
        };
        let mut hash = Sha256::new();
        hash.update((name.len() as u64).to_le_bytes());
        hash.update(name);
        hash.update((shape.len() as u64).to_le_bytes());
        shape.iter().for_each(|size| hash.update((*size as u64).to_le_bytes()));
        chunks.iter().for_each(|chunk| hash.update(chunk));
        Ok(hash.finalize().into())
    }
}
