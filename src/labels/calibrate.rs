//! Thresholds out of labelled pictures.

/// Points of a curve at most.
const POINTS: usize = 50;

/// What a threshold does to the pictures that it was made from.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Point {
    /// The score that is reached.
    pub threshold: f32,
    /// Of the pictures that reach it, the share that has the label.
    pub precision: f32,
    /// Of the pictures that have the label, the share that reaches it.
    pub recall: f32,
}

/// The threshold of one label.
#[derive(Debug, Clone, PartialEq)]
pub struct Calibration {
    /// The one with the largest recall among those of the wanted precision; none if there is no such.
    pub chosen: Option<Point>,
    /// Pictures that have the label.
    pub positives: usize,
    /// Every threshold that changes something, from the strictest; of many, fifty that are evenly spread.
    pub curve: Vec<Point>,
}

/// Chooses a threshold by the scores of pictures that have the label and of those that have not.
///
/// A threshold lies between two scores, in the middle of their logits where they are probabilities, so that new pictures like
/// those of the calibration fall on the same side.
pub fn calibrate(mut scores: Vec<(f32, bool)>, precision: f32) -> Calibration {
    scores.sort_by(|a, b| b.0.total_cmp(&a.0));
    let positives = scores.iter().filter(|(_, has)| *has).count();
    let (mut right, mut curve) = (0, Vec::new());
    for (index, &(score, has)) in scores.iter().enumerate() {
        right += usize::from(has);
        let next = scores.get(index + 1).map(|(score, _)| *score);
        if next == Some(score) || positives == 0 {
            continue;
        }
        curve.push(Point {
            threshold: next.map_or(score, |next| between(next, score)),
            precision: right as f32 / (index + 1) as f32,
            recall: right as f32 / positives as f32,
        });
    }
    // Of equal recall the strictest comes first.
    let fits = curve.iter().filter(|point| point.precision >= precision && point.recall > 0.0);
    let chosen = fits.copied().reduce(|best, next| if next.recall > best.recall { next } else { best });
    if curve.len() > POINTS {
        let last = curve.len() - 1;
        curve = (0..POINTS).map(|i| curve[i * last / (POINTS - 1)]).collect();
    }
    Calibration { chosen, positives, curve }
}

/// A number above `low` and at most `high`.
fn between(low: f32, high: f32) -> f32 {
    let logit = |p: f32| (f64::from(p) / (1.0 - f64::from(p))).ln();
    let is_probability = |p: f32| p > 0.0 && p < 1.0;
    let middle = match is_probability(low) && is_probability(high) {
        true => 1.0 / (1.0 + (-(logit(low) + logit(high)) / 2.0).exp()),
        false => f64::midpoint(low.into(), high.into()),
    };
    let middle = middle as f32;
    if middle > low && middle <= high { middle } else { high }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_threshold_has_the_wanted_precision_and_the_most_recall() {
        let scores = vec![(0.9, true), (0.8, true), (0.6, false), (0.5, true), (0.4, true), (0.1, false)];
        let chosen = |precision: f32| calibrate(scores.clone(), precision).chosen;
        let strict = chosen(1.0).unwrap();
        assert_eq!((strict.precision, strict.recall), (1.0, 0.5));
        assert!(strict.threshold > 0.6 && strict.threshold <= 0.8);
        let middle = chosen(0.8).unwrap();
        assert_eq!((middle.precision, middle.recall), (0.8, 1.0));
        assert!(middle.threshold > 0.1 && middle.threshold <= 0.4);
        assert_eq!(calibrate(scores.clone(), 0.0).curve.len(), 6);
        // Every point says what its threshold does.
        for point in calibrate(scores.clone(), 0.5).curve {
            let reach: Vec<bool> =
                scores.iter().filter(|(score, _)| *score >= point.threshold).map(|(_, has)| *has).collect();
            let right = reach.iter().filter(|has| **has).count() as f32;
            assert_eq!(point.precision, right / reach.len() as f32);
            assert_eq!(point.recall, right / 4.0);
        }
    }

    #[test]
    fn what_cannot_be_had_is_not_promised() {
        let none = calibrate(vec![(0.9, false), (0.5, true)], 0.9);
        assert_eq!((none.chosen, none.positives), (None, 1));
        assert_eq!(calibrate(vec![(0.9, false)], 0.5).curve, []);
        assert_eq!(calibrate(Vec::new(), 0.5).chosen, None);
        // Scores that are equal are on one side.
        let equal = calibrate(vec![(0.5, true), (0.5, false)], 0.6);
        assert_eq!((equal.chosen, equal.curve.len()), (None, 1));
    }

    #[test]
    fn thresholds_lie_between_scores_however_small_they_are() {
        for (low, high) in [(1e-12, 1e-4), (0.99999, 0.999_999), (-3.0, 5.0), (0.0, 1.0), (0.0, 1e-40)] {
            let middle = between(low, high);
            assert!(middle > low && middle <= high, "{low} {middle} {high}");
        }
        assert!((between(1e-6, 1e-2) - 1e-4).abs() < 1e-5, "in the middle of the logits");
        let many = calibrate((0..1000).map(|i| (i as f32 / 1000.0, i % 2 == 0)).collect(), 0.9);
        assert_eq!(many.curve.len(), POINTS);
        assert_eq!((many.curve[0].threshold > 0.99, many.curve[49].recall), (true, 1.0));
    }
}
