//! From embeddings to scores: cosine, logit, sigmoid probability.

/// Divides a vector by its Euclidean length, as transformers does (`x / x.norm()`); a vector of
/// zeros stays as it is.
pub fn l2_normalize(vector: &mut [f32]) {
    let norm = vector.iter().map(|&x| f64::from(x) * f64::from(x)).sum::<f64>().sqrt();
    if norm > 0.0 {
        for x in vector {
            *x = (f64::from(*x) / norm) as f32;
        }
    }
}

/// Cosine of the angle between two vectors of the same length; 0 where one of them is zero.
pub fn cosine(a: &[f32], b: &[f32]) -> f32 {
    let dot = |x: &[f32], y: &[f32]| x.iter().zip(y).map(|(&p, &q)| f64::from(p) * f64::from(q)).sum::<f64>();
    let norms = (dot(a, a) * dot(b, b)).sqrt();
    if norms > 0.0 { (dot(a, b) / norms) as f32 } else { 0.0 }
}

/// `cosine · scale + bias`: the logit of the sigmoid loss (Zhai et al. 2023, eq. 1), with `scale`
/// already exponentiated.
pub fn logit(cosine: f32, scale: f32, bias: f32) -> f32 {
    cosine * scale + bias
}

/// The probability that a picture and a text belong together: the logistic function of a logit.
pub fn sigmoid(logit: f32) -> f32 {
    1.0 / (1.0 + (-logit).exp())
}

/// Softmax over the logits of one picture's labels. SigLIP is not trained for it: on request only.
pub fn softmax(logits: &[f32]) -> Vec<f32> {
    let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let exps: Vec<f32> = logits.iter().map(|x| (x - max).exp()).collect();
    let sum: f32 = exps.iter().sum();
    exps.into_iter().map(|x| x / sum).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_published_probabilities_of_a_logit() {
        // transformers, tests/models/siglip/test_modeling_siglip.py: logits and their probabilities.
        for (logit, probability) in [(-0.7567, 3.1937e-1), (-10.3354, 3.2463e-5)] {
            assert!((sigmoid(logit) - probability).abs() < 1e-4 * probability.max(1e-2), "{logit}");
        }
    }

    #[test]
    fn softmax_sums_to_one_and_survives_large_logits() {
        let p = softmax(&[1000.0, 999.0, -1000.0]);
        assert!((p.iter().sum::<f32>() - 1.0).abs() < 1e-6);
        assert!((p[0] - 0.731_058_6).abs() < 1e-6);
    }

    #[test]
    fn a_zero_vector_has_no_direction() {
        let mut zero = [0.0; 4];
        l2_normalize(&mut zero);
        assert_eq!(zero, [0.0; 4]);
        assert_eq!(cosine(&zero, &[1.0; 4]), 0.0);
    }
}
