//! Matrices of numbers out of safetensors files: those of heads and of backgrounds.

use std::collections::HashMap;

use half::{bf16, f16};
use safetensors::tensor::{Dtype, SafeTensors, TensorView};

/// Numbers of an embedding at most.
pub(super) const WIDEST: usize = 16_384;

/// A safetensors file.
pub(super) struct TensorFile<'a> {
    tensors: SafeTensors<'a>,
    metadata: HashMap<String, String>,
}

impl<'a> TensorFile<'a> {
    /// Reads the head of a file, and checks it against its length.
    ///
    /// # Errors
    /// What is wrong with it, in words.
    pub(super) fn read(bytes: &'a [u8]) -> Result<Self, String> {
        let (_, header) = SafeTensors::read_metadata(bytes).map_err(|error| error.to_string())?;
        let tensors = SafeTensors::deserialize(bytes).map_err(|error| error.to_string())?;
        Ok(Self { tensors, metadata: header.metadata().clone().unwrap_or_default() })
    }

    /// What the metadata says under a name.
    pub(super) fn says(&self, name: &str) -> Option<&str> {
        self.metadata.get(name).map(String::as_str)
    }

    /// Every tensor with its name.
    pub(super) fn tensors(&self) -> impl Iterator<Item = (&str, TensorView<'a>)> {
        self.tensors.iter()
    }
}

/// Rows and width of a matrix; a tensor of one axis is one row. It has at most `most` of both.
///
/// # Errors
/// If the tensor is no such matrix, in words.
pub(super) fn matrix(tensor: &TensorView<'_>, most: (usize, usize)) -> Result<(usize, usize), String> {
    let (rows, width) = match *tensor.shape() {
        [rows, width] => (rows, width),
        [width] => (1, width),
        _ => return Err(format!("a tensor of shape {:?}, not [rows, width]", tensor.shape())),
    };
    if rows == 0 || rows > most.0 || width == 0 || width > most.1 {
        return Err(format!(
            "{rows} rows of width {width}; at least one, and at most {} of {}",
            most.0, most.1
        ));
    }
    Ok((rows, width))
}

/// The numbers of a tensor; its file was checked to hold as many as its shape says.
///
/// # Errors
/// If they are of another type than f64, f32, f16 or bf16, in words.
pub(super) fn values(tensor: &TensorView<'_>) -> Result<Vec<f32>, String> {
    let data = tensor.data();
    Ok(match tensor.dtype() {
        Dtype::F32 => data.as_chunks::<4>().0.iter().map(|&x| f32::from_le_bytes(x)).collect(),
        Dtype::F64 => data.as_chunks::<8>().0.iter().map(|&x| f64::from_le_bytes(x) as f32).collect(),
        Dtype::F16 => data.as_chunks::<2>().0.iter().map(|&x| f16::from_le_bytes(x).to_f32()).collect(),
        Dtype::BF16 => data.as_chunks::<2>().0.iter().map(|&x| bf16::from_le_bytes(x).to_f32()).collect(),
        other => return Err(format!("numbers of type {other:?}; f32, f64, f16 and bf16 are read")),
    })
}
