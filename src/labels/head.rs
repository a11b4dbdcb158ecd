//! Linear heads over the pooled embedding: an aesthetic score, a filter, a user's probe.

use std::sync::Arc;

use safetensors::tensor::TensorView;

use super::content::Content;
use super::definition::{Definition, MAX_LABELS};
use super::error::quoted;
use super::tensors::{TensorFile, WIDEST, matrix, values};
use crate::model::zero_shot::Activation;

/// The rows and biases of a linear layer over embeddings.
#[derive(Debug, Clone, PartialEq)]
pub struct HeadWeights {
    /// `[labels, width]`.
    pub rows: Arc<[f32]>,
    /// One for each label.
    pub bias: Arc<[f32]>,
    /// Width of the embeddings.
    pub width: usize,
    /// Whether embeddings are divided by their length first.
    pub normalize: bool,
    /// The embedding space that it was trained in; any of this width where it is not known.
    pub space: Option<Arc<str>>,
}

/// Reads a head: one tensor `[labels, width]` (or `[width]` for one label), and one `[labels]` where there are biases, as a
/// `torch.nn.Linear` is saved. The metadata of the file may say `labels` (a JSON list of names), `normalize` (`true` if left
/// out: the head is of embeddings of length 1), `activation` (`sigmoid`, `softmax`, `none`) and `fingerprint`. Without names
/// the labels are called `default` if there is one, else `label 0` and so on.
///
/// # Errors
/// What is wrong with it, in words.
pub fn read_head(bytes: &[u8], default: &str) -> Result<Content, String> {
    let file = TensorFile::read(bytes)?;
    let (mut weight, mut bias): (Option<TensorView>, Option<TensorView>) = (None, None);
    for (name, tensor) in file.tensors() {
        let is_bias = name == "bias" || name.ends_with(".bias");
        let place = if is_bias { &mut bias } else { &mut weight };
        if place.replace(tensor).is_some() {
            return Err(format!("{} is a second tensor: a head is one linear layer", quoted(name)));
        }
    }
    let weight = weight.ok_or("there is no tensor with the rows of the head")?;
    let (labels, width) = matrix(&weight, (MAX_LABELS, WIDEST))?;
    let rows = values(&weight)?;
    let bias = match bias {
        None => vec![0.0; labels],
        Some(bias) if bias.shape().iter().product::<usize>() == labels => values(&bias)?,
        Some(bias) => return Err(format!("biases of shape {:?} for {labels} labels", bias.shape())),
    };
    if rows.iter().chain(&bias).any(|x| !x.is_finite()) {
        return Err("a number in it is not finite".to_owned());
    }

    let names: Vec<String> = match file.says("labels") {
        Some(names) => {
            serde_json::from_str(names).map_err(|error| format!("its labels are no JSON list: {error}"))?
        }
        None if labels == 1 => vec![default.to_owned()],
        None => (0..labels).map(|label| format!("label {label}")).collect(),
    };
    if names.len() != labels {
        return Err(format!("{} names for {labels} labels", names.len()));
    }
    let normalize = match file.says("normalize") {
        None | Some("true") => true,
        Some("false") => false,
        Some(other) => return Err(format!("normalize is true or false, not {}", quoted(other))),
    };
    let activation = match file.says("activation") {
        None => None,
        Some("sigmoid") => Some(Activation::Sigmoid),
        Some("softmax") => Some(Activation::Softmax),
        Some("none") => Some(Activation::None),
        Some(other) => return Err(format!("activation is sigmoid, softmax or none, not {}", quoted(other))),
    };
    let definition = Definition { activation, ..Definition::of(names) };
    definition.check().map_err(|error| error.to_string())?;
    let space = file.says("fingerprint").map(Arc::from);
    let head = HeadWeights { rows: rows.into(), bias: bias.into(), width, normalize, space };
    Ok(Content { definition, examples: None, head: Some(Arc::new(head)) })
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use half::f16;
    use safetensors::tensor::Dtype;

    use super::*;

    fn file(tensors: &[(&str, Dtype, &[usize], Vec<u8>)], metadata: &[(&str, &str)]) -> Vec<u8> {
        let views = tensors.iter().map(|(name, dtype, shape, data)| {
            (*name, TensorView::new(*dtype, shape.to_vec(), data).unwrap())
        });
        let metadata: HashMap<String, String> =
            metadata.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        safetensors::serialize(views, Some(metadata)).unwrap()
    }

    fn f32s(values: &[f32]) -> Vec<u8> {
        values.iter().flat_map(|x| x.to_le_bytes()).collect()
    }

    #[test]
    fn a_linear_layer_is_a_head() {
        let rows = f32s(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
        let tensors = [
            ("head.weight", Dtype::F32, &[2, 3][..], rows),
            ("head.bias", Dtype::F32, &[2][..], f32s(&[0.5, -0.5])),
        ];
        let metadata =
            [("labels", r#"["safe", "not"]"#), ("activation", "softmax"), ("fingerprint", "space")];
        let content = read_head(&file(&tensors, &metadata), "x").unwrap();
        let head = content.head.unwrap();
        assert_eq!((head.width, head.normalize, head.space.as_deref()), (3, true, Some("space")));
        assert_eq!((&head.rows[..], &head.bias[..]), (&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0][..], &[0.5, -0.5][..]));
        assert_eq!(content.definition.labels.0[1].name, "not");
        assert_eq!(content.definition.activation, Some(Activation::Softmax));
        // One row, no bias, in half precision.
        let half: Vec<u8> = [1.0, -2.0].iter().flat_map(|&x| f16::from_f32(x).to_le_bytes()).collect();
        let content =
            read_head(&file(&[("w", Dtype::F16, &[2], half)], &[("normalize", "false")]), "aesthetic")
                .unwrap();
        let head = content.head.unwrap();
        assert_eq!((&head.rows[..], &head.bias[..], head.normalize), (&[1.0, -2.0][..], &[0.0][..], false));
        assert_eq!(content.definition.labels.0[0].name, "aesthetic");
    }

    #[test]
    fn what_is_no_head_is_refused() {
        let weight = |shape: &'static [usize], values: &[f32]| ("weight", Dtype::F32, shape, f32s(values));
        let error = |tensors: &[(&str, Dtype, &[usize], Vec<u8>)], metadata: &[(&str, &str)]| {
            read_head(&file(tensors, metadata), "x").unwrap_err()
        };
        let one = || weight(&[1, 2], &[1.0, 2.0]);
        error(&[], &[]);
        assert!(error(&[one(), ("other", Dtype::F32, &[1], f32s(&[1.0]))], &[]).contains("one linear layer"));
        assert!(error(&[weight(&[1, 1, 1], &[1.0])], &[]).contains("shape [1, 1, 1]"));
        assert!(error(&[weight(&[0, 2], &[])], &[]).contains("0 rows"));
        assert!(error(&[weight(&[1, 1], &[f32::NAN])], &[]).contains("not finite"));
        assert!(
            error(&[one(), ("bias", Dtype::F32, &[2], f32s(&[1.0, 1.0]))], &[])
                .contains("biases of shape [2]")
        );
        assert!(error(&[("weight", Dtype::I64, &[1], vec![0; 8])], &[]).contains("I64"));
        assert!(error(&[one()], &[("labels", r#"["a", "b"]"#)]).contains("2 names for 1 labels"));
        assert!(error(&[one()], &[("labels", "a")]).contains("no JSON list"));
        assert!(error(&[one()], &[("activation", "relu")]).contains("\"relu\""));
        let bytes = file(&[one()], &[]);
        for length in 0..bytes.len() {
            assert!(read_head(&bytes[..length], "x").is_err(), "cut at {length}");
        }
    }
}
