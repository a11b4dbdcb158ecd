//! Backgrounds: embeddings of pictures of all kinds, which tell how high the scores of a label usually are.

use std::path::Path;
use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::definition::hex;
use super::files::read_bytes;
use super::tensors::{TensorFile, WIDEST, matrix, values};
use crate::checkpoint::read_npy_matrix;
use crate::model::scores::l2_normalize;

/// Pictures of a background at most; of more, so many are taken, evenly.
const MOST_PICTURES: usize = 10_000;
/// Numbers of a file at most.
const MOST_NUMBERS: usize = 1 << 28;
/// Pictures times labels at most: each picture is compared with each label.
const MOST_CELLS: usize = 50_000_000;

/// Embeddings of pictures of all kinds.
#[derive(Debug, Clone)]
pub struct Background {
    /// Of length 1.
    vectors: Vec<Arc<[f32]>>,
    width: usize,
    /// The fingerprint of the model that gave them; any of this width where it is not known.
    space: Option<Arc<str>>,
    id: Arc<str>,
}

impl Background {
    /// Reads the embeddings of a file: a matrix `[pictures, width]` in `.npy`, as `siglip embed` and `/v1/embeddings` write it, or one
    /// tensor in `.safetensors`, whose metadata may say `fingerprint`. Pictures whose embedding is not finite or zero are refused.
    ///
    /// # Errors
    /// What is wrong with the file, in words.
    pub fn read(path: &Path) -> Result<Self, String> {
        let about = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
        let bytes = read_bytes(path)?;
        let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
        let read = match extension.to_ascii_lowercase().as_str() {
            "npy" => read_npy_matrix(&bytes, MOST_NUMBERS).map(|(shape, numbers)| (shape, numbers, None)),
            "safetensors" => of_safetensors(&bytes),
            _ => Err("not a .npy or .safetensors file".to_owned()),
        };
        let ((pictures, width), numbers, space) = read.map_err(|error| about(&error))?;
        if pictures < 2 {
            return Err(about(&"one picture; at least two are needed, and some hundreds are of use"));
        }
        let step = pictures.div_ceil(MOST_PICTURES);
        let mut vectors = Vec::with_capacity(pictures.div_ceil(step));
        for (row, values) in numbers.chunks_exact(width).enumerate().step_by(step) {
            let mut unit = values.to_vec();
            l2_normalize(&mut unit);
            let is_unit = (unit.iter().map(|x| x * x).sum::<f32>() - 1.0).abs() <= 1e-3;
            if !is_unit {
                return Err(about(&format!("row {row} has no direction: it is zero, or not finite")));
            }
            vectors.push(unit.into());
        }
        let id = hex(&Sha256::digest(&bytes)[..16]).into();
        Ok(Self { vectors, width, space, id })
    }

    /// Names what is in it.
    pub(super) fn id(&self) -> &Arc<str> {
        &self.id
    }

    /// Number of pictures.
    #[expect(clippy::len_without_is_empty, reason = "one without pictures cannot be made")]
    pub fn len(&self) -> usize {
        self.vectors.len()
    }

    /// Bytes on the heap, about.
    pub(super) fn heap(&self) -> usize {
        self.vectors.len().saturating_mul(self.width * size_of::<f32>() + 32)
    }

    /// Whether it can be compared with labels of an embedding space.
    ///
    /// # Errors
    /// Why it cannot, in words.
    pub(super) fn fits(&self, space: &str, width: usize) -> Result<(), String> {
        if self.space.as_deref().is_some_and(|own| own != space) {
            return Err("it is of another embedding space".to_owned());
        }
        if self.width != width {
            return Err(format!("its embeddings have {} numbers, those of the model {width}", self.width));
        }
        Ok(())
    }

    /// The pictures that so many labels are compared with: all, or some, evenly, where there are very many labels.
    pub(super) fn pictures(&self, labels: usize) -> Vec<Arc<[f32]>> {
        let most = (MOST_CELLS / labels.max(1)).max(2);
        self.vectors.iter().step_by(self.vectors.len().div_ceil(most)).cloned().collect()
    }
}

/// Shape and numbers of a file, and the fingerprint that it names.
type Read = ((usize, usize), Vec<f32>, Option<Arc<str>>);

fn of_safetensors(bytes: &[u8]) -> Result<Read, String> {
    let file = TensorFile::read(bytes)?;
    let mut tensors = file.tensors();
    let (Some((_, tensor)), None) = (tensors.next(), tensors.next()) else {
        return Err(format!("{} tensors; one is read", file.tensors().count()));
    };
    let shape = matrix(&tensor, (MOST_NUMBERS, WIDEST))?;
    if shape.0.saturating_mul(shape.1) > MOST_NUMBERS {
        return Err(format!("{} pictures of width {}; at most {MOST_NUMBERS} numbers", shape.0, shape.1));
    }
    Ok((shape, values(&tensor)?, file.says("fingerprint").map(Arc::from)))
}

#[cfg(test)]
mod tests {
    use safetensors::tensor::{Dtype, TensorView, serialize};

    use super::*;

    fn file(name: &str, bytes: &[u8]) -> (tempfile::TempDir, std::path::PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        (folder, path)
    }

    fn tensor(rows: &[[f32; 2]], metadata: &[(&str, &str)]) -> Vec<u8> {
        let data: Vec<u8> = rows.iter().flatten().flat_map(|x| x.to_le_bytes()).collect();
        let view = TensorView::new(Dtype::F32, vec![rows.len(), 2], &data).unwrap();
        let metadata = metadata.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        serialize([("x", view)], Some(metadata)).unwrap()
    }

    #[test]
    fn pictures_are_read_and_thinned_for_many_labels() {
        let rows: Vec<[f32; 2]> = (0..300).map(|i| [1.0 + i as f32, 2.0]).collect();
        let (_folder, path) = file("a.safetensors", &tensor(&rows, &[("fingerprint", "here")]));
        let background = Background::read(&path).unwrap();
        assert_eq!((background.len(), background.pictures(1).len()), (300, 300));
        // 50,000,000 cells of 1,000,000 labels are 50 pictures.
        let some = background.pictures(1_000_000);
        assert!((25..=50).contains(&some.len()), "{}", some.len());
        assert!(background.fits("here", 2).is_ok());
        assert!(background.fits("there", 2).unwrap_err().contains("another embedding space"));
        assert!(background.fits("here", 3).unwrap_err().contains("2 numbers"));
        let unit = &background.pictures(1)[0];
        assert!((unit[0] - 1.0 / 5.0_f32.sqrt()).abs() < 1e-6);
    }

    #[test]
    fn what_cannot_be_used_is_named() {
        let infinite = tensor(&[[1.0, 0.0], [f32::INFINITY, 0.0]], &[]);
        for (name, bytes, said) in [
            ("a.safetensors", tensor(&[[1.0, 0.0], [0.0, 0.0]], &[]), "row 1 has no direction"),
            ("a.safetensors", infinite, "row 1 has no direction"),
            ("a.safetensors", tensor(&[[1.0, 0.0]], &[]), "at least two"),
            ("a.safetensors", b"x".to_vec(), "a.safetensors: "),
            ("a.npy", b"x".to_vec(), "no .npy array"),
            ("a.csv", b"1,2".to_vec(), "not a .npy or .safetensors file"),
        ] {
            let (_folder, path) = file(name, &bytes);
            let error = Background::read(&path).unwrap_err();
            assert!(error.contains(said), "{name}: {error}");
        }
    }
}
