//! Weights that are made ready for bytes: the same function, in numbers for which bytes are finer.
//!
//! A row of activations has one step for all its bytes, so that a few channels that are much larger than the others (as trained
//! transformers have) leave little for these. Two such kinds can be told from the weights alone, without a picture:
//!
//! - a norm whose gain is large in a channel: the gain goes over into the weights that follow, by half as in SmoothQuant (Xiao et
//!   al. 2022, equation 4 with α = ½, the size of an activation taken from gain and bias);
//! - a hidden unit whose bias holds it far from 0: what the activation makes of the bias is taken off its values, and what the next
//!   weights make of that is added to their bias.

use candle_core::Tensor;

use super::error::Result;
use crate::ops::Activation;

/// Channels that would be divided by more than this (so that they are more than its square times the usual one) are. Others are left as
/// they are: they do no harm, and weights keep their own bytes.
const LARGE: f32 = 2.0;

/// By what each channel of a norm with `gain` and `bias` `[width]` is divided, and the weights `[out, width]` that follow are
/// multiplied; nothing where no channel is large.
pub(super) fn balance(gain: &Tensor, bias: &Tensor, weights: &[Tensor]) -> Result<Option<Tensor>> {
    let activations = (gain.sqr()? + bias.sqr()?)?.sqrt()?.to_vec1::<f32>()?;
    let mut squares = vec![0.0f32; activations.len()];
    for weight in weights {
        let sums = weight.sqr()?.sum(0)?.to_vec1::<f32>()?;
        squares.iter_mut().zip(sums).for_each(|(square, sum)| *square += sum);
    }
    let rows: usize = weights.iter().map(|weight| weight.dims()[0]).sum();
    let ratio = |(&activation, &square): (&f32, &f32)| activation / (square / rows as f32).sqrt();
    // A channel that no weight looks at has none.
    let ratios: Vec<f32> = activations.iter().zip(&squares).map(ratio).collect();
    let mut known: Vec<f32> = ratios.iter().copied().filter(|ratio| ratio.is_finite()).collect();
    known.sort_by(f32::total_cmp);
    let Some(&usual) = known.get(known.len() / 2).filter(|usual| **usual > 0.0) else { return Ok(None) };
    let factors: Vec<f32> = ratios.iter().map(|ratio| factor(ratio / usual)).collect();
    if factors.iter().all(|&factor| factor == 1.0) {
        return Ok(None);
    }
    Ok(Some(Tensor::from_vec(factors, gain.shape(), gain.device())?))
}

fn factor(ratio: f32) -> f32 {
    let half = ratio.sqrt();
    if half.is_finite() && half > LARGE { half } else { 1.0 }
}

/// Where the values of hidden units lie when their input is the bias `[width]` of the norm before: `weight` is `[units, width]`,
/// `own` their bias.
pub(super) fn centre(weight: &Tensor, own: &Tensor, bias: &Tensor, activation: Activation) -> Result<Tensor> {
    let input = (weight.matmul(&bias.unsqueeze(1)?)?.squeeze(1)? + own)?;
    Ok(match activation {
        Activation::GeluTanh => input.gelu()?,
        Activation::GeluErf => input.gelu_erf()?,
    })
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    fn tensor(values: &[f32], shape: (usize, usize)) -> Tensor {
        Tensor::from_slice(values, shape, &Device::Cpu).unwrap()
    }

    fn row(values: &[f32]) -> Tensor {
        Tensor::from_slice(values, values.len(), &Device::Cpu).unwrap()
    }

    #[test]
    fn only_channels_that_are_large_are_made_smaller() {
        let weight = tensor(&[1.0, 1.0, 0.01, 1.0, -1.0, 1.0, 0.01, 0.0], (2, 4));
        let zero = row(&[0.0; 4]);
        assert!(
            balance(&row(&[1.0, 2.0, 1.0 / 64.0, 0.5]), &zero, std::slice::from_ref(&weight))
                .unwrap()
                .is_none()
        );
        let factors =
            balance(&row(&[1.0, 1.0, 100.0, 0.9]), &zero, std::slice::from_ref(&weight)).unwrap().unwrap();
        let factors = factors.to_vec1::<f32>().unwrap();
        assert_eq!((factors[0], factors[1], factors[3]), (1.0, 1.0, 1.0));
        assert!((factors[2] - 100.0).abs() < 15.0, "{factors:?}");
        // A channel of which nothing comes, and one that is not a number, change nothing.
        let dead = tensor(&[1.0, 1.0, 0.0, 1.0], (1, 4));
        assert!(balance(&row(&[1.0, 1.0, 9.0, f32::NAN]), &zero, &[dead]).unwrap().is_none());
        assert!(balance(&zero, &zero, &[weight]).unwrap().is_none());
    }

    #[test]
    fn the_centre_is_what_the_biases_alone_give() {
        let weight = tensor(&[1.0, 2.0, 0.0, 0.0], (2, 2));
        let found = centre(&weight, &row(&[4.0, -3.0]), &row(&[10.0, 3.0]), Activation::GeluErf).unwrap();
        let found = found.to_vec1::<f32>().unwrap();
        assert!((found[0] - 20.0).abs() < 1e-5 && (found[1] + 0.004_05).abs() < 1e-5, "{found:?}");
    }
}
