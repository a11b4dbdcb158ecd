//! Zero-shot labels: templates, the direction of a label, and the ranking of its scores.

use super::scores::{l2_normalize, sigmoid, softmax};

/// Where the label goes in a template.
pub const SLOT: &str = "{}";

/// The template of transformers' zero-shot pipeline.
pub const DEFAULT_TEMPLATE: &str = "This is a photo of {}.";

/// How the logits of one picture become the scores of its labels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Activation {
    /// Each label's own probability: what SigLIP is trained for.
    #[default]
    Sigmoid,
    /// Shares that sum to 1 over the labels.
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
    /// Only so many.
    pub top_k: Option<usize>,
    /// Only those with at least this score.
    pub threshold: Option<f32>,
}

impl Ranking {
    /// Index and score of the labels, best first; equals stay in the order they were sent in.
    pub fn rank(&self, logits: &[f32]) -> Vec<(usize, f32)> {
        let scores: Vec<f32> = match self.activation {
            Activation::Sigmoid => logits.iter().map(|&x| sigmoid(x)).collect(),
            Activation::Softmax => softmax(logits),
            Activation::None => logits.to_vec(),
        };
        let mut order: Vec<usize> = (0..logits.len()).collect();
        // By the logit: sigmoid saturates, and labels that differ would come out in the order they were sent in.
        order.sort_by(|&a, &b| logits[b].total_cmp(&logits[a]));
        order
            .into_iter()
            .map(|index| (index, scores[index]))
            .filter(|(_, score)| self.threshold.is_none_or(|threshold| *score >= threshold))
            .take(self.top_k.unwrap_or(usize::MAX))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranking_keeps_order_where_probabilities_saturate() {
        let ranking = Ranking::default();
        let order: Vec<usize> = ranking.rank(&[40.0, 60.0, 50.0, 50.0]).into_iter().map(|(i, _)| i).collect();
        assert_eq!(order, [1, 2, 3, 0]);
        let top = Ranking { top_k: Some(2), threshold: Some(0.5), ..ranking };
        assert_eq!(top.rank(&[-1.0, 0.0, 3.0, 2.0]).iter().map(|p| p.0).collect::<Vec<_>>(), [2, 3]);
        assert_eq!(top.rank(&[-1.0]), []);
    }

    #[test]
    fn templates_count_alike_whatever_their_length() {
        let direction = mean_direction([&[10.0, 0.0][..], &[0.0, 0.1][..]]);
        assert!((direction[0] - direction[1]).abs() < 1e-6);
        assert!(mean_direction([]).is_empty());
    }
}
