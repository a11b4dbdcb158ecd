//! Zero-shot labels: templates, the direction of a label, and which labels of a picture are answered.

use serde::{Deserialize, Serialize};

use super::scores::l2_normalize;

/// Where the label goes in a template.
pub const SLOT: &str = "{}";

/// The template of transformers' zero-shot pipeline.
pub const DEFAULT_TEMPLATE: &str = "This is a photo of {}.";

/// The texts of labels: every template of the first label, then of the second. Each comes with the index of its label.
pub fn texts<'a, N: AsRef<str>, T: AsRef<str>>(
    names: &'a [N],
    templates: &'a [T],
) -> impl Iterator<Item = (usize, String)> + 'a {
    let of_label = |(index, name): (usize, &'a N)| {
        templates.iter().map(move |template| (index, template.as_ref().replace(SLOT, name.as_ref())))
    };
    names.iter().enumerate().flat_map(of_label)
}

/// How the logits of one picture become the scores of its labels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Activation {
    /// The probability that the label fits, each label for itself: what SigLIP is trained for. The scores of a
    /// picture need not add up to 1, and all may be small.
    #[default]
    Sigmoid,
    /// Shares among the labels that add up to 1.
    Softmax,
    /// The logits as they are.
    None,
}

/// The direction of a label: the mean of its templates' normalised embeddings, normalised again (CLIP's
/// `zeroshot_classifier`; big_vision, `evaluators/proj/image_text/discriminative_classifier.py`).
pub fn mean_direction<'a>(templates: impl IntoIterator<Item = &'a [f32]>) -> Vec<f32> {
    let mut sum: Vec<f32> = Vec::new();
    for template in templates {
        let mut direction = template.to_vec();
        l2_normalize(&mut direction);
        if sum.is_empty() {
            sum = direction;
        } else {
            sum.iter_mut().zip(&direction).for_each(|(s, d)| *s += d);
        }
    }
    // Dividing by the number of templates would not change the direction.
    l2_normalize(&mut sum);
    sum
}

/// Which labels of a picture are answered, and in which order.
#[derive(Debug, Clone, Copy, Default)]
pub struct Ranking {
    /// How logits become scores.
    pub activation: Activation,
    /// At most this many.
    pub top_k: Option<usize>,
    /// Only those with at least this score.
    pub threshold: Option<f32>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_label_major() {
        let found: Vec<_> = texts(&["cat", "dog"], &["a {}", "{} and {}"]).collect();
        let expected = [(0, "a cat"), (0, "cat and cat"), (1, "a dog"), (1, "dog and dog")];
        assert_eq!(found, expected.map(|(index, text)| (index, text.to_owned())));
    }

    #[test]
    fn templates_count_alike_whatever_their_length() {
        let direction = mean_direction([&[10.0, 0.0][..], &[0.0, 0.1][..]]);
        assert!((direction[0] - direction[1]).abs() < 1e-6);
        assert!(mean_direction([]).is_empty());
    }
}
