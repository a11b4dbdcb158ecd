//! Labels in a small world: concepts, words that point about there, pictures with a part in common.

use super::*;

const WIDTH: usize = 32;
const SCORES: Scores = Scores { scale: 100.0, bias: -10.0 };

/// Numbers in −1…1 that follow from a seed.
fn noise(seed: u64) -> impl FnMut() -> f32 {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    }
}

fn unit(mut vector: Vec<f32>) -> Vec<f32> {
    l2_normalize(&mut vector);
    vector
}

fn random(seed: u64) -> Vec<f32> {
    let mut next = noise(seed);
    unit((0..WIDTH).map(|_| next()).collect())
}

fn mixed(parts: &[(f32, Vec<f32>)]) -> Vec<f32> {
    let sum = |i: usize| parts.iter().map(|(weight, vector)| weight * vector[i]).sum();
    unit((0..WIDTH).map(sum).collect())
}

/// Labels whose words point about where their pictures do, or anywhere; and pictures of each. All pictures have a part in
/// common, as those of a trained model do.
fn world(labels: usize, each: usize, words: f32) -> (LabelSet, Examples, Vec<(usize, Vec<f32>)>) {
    let concept = |label: usize| random(label as u64 + 1);
    let common = random(1000);
    let picture = |label: usize, i: usize| {
        let own = random((10_000 + label * 100 + i) as u64);
        mixed(&[(1.0, concept(label)), (1.0, common.clone()), (0.7, own)])
    };
    let texts: Vec<f32> = (0..labels)
        .flat_map(|label| {
            let text = mixed(&[(words, concept(label)), (1.0, random(500 + label as u64))]);
            // Texts lie elsewhere: their cosines with pictures are small.
            mixed(&[(0.3, text), (1.0, random(2000))])
        })
        .collect();
    let names = (0..labels).map(|label| Arc::from(format!("label {label}"))).collect();
    let text = LabelSet::of_directions(names, &texts, "space".into()).unwrap();
    let mut examples = Examples::new("space".into(), WIDTH);
    for label in 0..labels {
        (0..each).for_each(|i| examples.add(label as u32, &picture(label, i)).unwrap());
    }
    let unseen = (0..labels).flat_map(|label| (50..60).map(move |i| (label, i)));
    (text, examples, unseen.map(|(label, i)| (label, picture(label, i))).collect())
}

/// The share of pictures that a set gets right, and the mean logits of the right and of the other labels.
fn judge(set: &LabelSet, pictures: &[(usize, Vec<f32>)]) -> (f32, f32, f32) {
    let (mut right, mut own, mut others) = (0, 0.0, 0.0);
    for (label, picture) in pictures {
        let logits = set.logits(&[picture.as_slice().into()], SCORES).unwrap();
        right += usize::from(best(logits.iter().copied()) == *label);
        own += logits[*label];
        others += (logits.iter().sum::<f32>() - logits[*label]) / (logits.len() - 1) as f32;
    }
    let count = pictures.len() as f32;
    (right as f32 / count, own / count, others / count)
}

#[test]
fn examples_help_most_where_words_do_not() {
    for (words, each) in [(1.5, 1), (1.5, 4), (0.0, 1), (0.0, 4)] {
        let (text, examples, unseen) = world(10, each, words);
        let fitted = fit(&text, &examples, SCORES, false).unwrap();
        let (before, after) = (judge(&text, &unseen).0, judge(&fitted.set, &unseen).0);
        assert!(after >= before && after > 0.6, "words {words}, {each} examples: {before} to {after}");
        let trust = fitted.labels.iter().map(|label| label.words).sum::<f32>() / 10.0;
        assert!(if words > 0.0 { trust > 0.5 } else { trust < 0.5 }, "{trust}");
        assert_eq!((fitted.before.of, fitted.labels.len()), (10 * each, 10));
        if each > 1 {
            assert!(fitted.after.right >= fitted.before.right);
        }
    }
}

#[test]
fn the_formula_is_the_one_that_is_written() {
    let (text, examples, _) = world(3, 2, 1.0);
    let fitted = fit(&text, &examples, SCORES, false).unwrap();
    let (rows, made) = (text.rows().unwrap(), fitted.set.rows().unwrap());
    for label in fitted.labels.iter().filter(|label| !label.keeps_words) {
        let at = label.label as usize * WIDTH;
        let own: Vec<&Arc<[f32]>> =
            examples.vectors().filter(|(of, _)| *of == label.label).map(|(_, vector)| vector).collect();
        let mean = unit((0..WIDTH).map(|i| own[0][i] + own[1][i]).collect());
        let wanted = unit((0..WIDTH).map(|i| 4.0 * label.words * rows[at + i] + 2.0 * mean[i]).collect());
        let found = unit(made[at..at + WIDTH].to_vec());
        assert!((dot(&wanted, &found) - 1.0).abs() < 1e-5);
    }
}

#[test]
fn logits_stay_on_the_level_of_words() {
    let (text, examples, unseen) = world(10, 4, 3.0);
    let fitted = fit(&text, &examples, SCORES, false).unwrap();
    let ((_, own, others), (_, own_after, others_after)) =
        (judge(&text, &unseen), judge(&fitted.set, &unseen));
    let gap = own - others;
    assert!((own - own_after).abs() < 0.4 * gap, "{own} {own_after}");
    assert!((others - others_after).abs() < 0.2 * gap, "{others} {others_after}");
    // Labels without examples are compared fairly with those that have some: pictures of theirs get no more than before.
    let mut some = examples.clone();
    some.remove(Some(&[0, 1, 2, 3, 4]));
    let half = fit(&text, &some, SCORES, false).unwrap();
    let without: Vec<_> = unseen.iter().filter(|(label, _)| *label < 5).cloned().collect();
    let (before, after) = (judge(&text, &without), judge(&half.set, &without));
    assert!((before.2 - after.2).abs() < 0.4 * gap && after.0 > 0.5, "{before:?} {after:?}");
    let made_up = world(10, 4, 0.0);
    let fitted = fit(&made_up.0, &made_up.1, SCORES, false).unwrap();
    let own = judge(&fitted.set, &made_up.2).1;
    assert!((-3.0..3.0).contains(&own), "about an even chance where words say nothing: {own}");
}

#[test]
fn a_closed_gap_brings_examples_to_the_texts() {
    let (text, examples, unseen) = world(10, 4, 1.0);
    let rows = text.rows().unwrap();
    let apart = |set: &LabelSet| {
        let rows = set.rows().unwrap();
        let cosines = (0..10).map(|label| {
            let row = unit(rows[label * WIDTH..][..WIDTH].to_vec());
            dot(&row, &random(2000))
        });
        mean_of(cosines)
    };
    let open = fit(&text, &examples, SCORES, false).unwrap();
    let closed = fit(&text, &examples, SCORES, true).unwrap();
    // All texts have a part in common that pictures do not have; with the gap closed, fitted directions have more of it.
    assert!(apart(&closed.set) > apart(&open.set) + 0.2, "{} {}", apart(&open.set), apart(&closed.set));
    assert!(judge(&closed.set, &unseen).0 >= judge(&text, &unseen).0);
    // The formula, with the examples moved.
    let mean = |rows: &mut dyn Iterator<Item = Vec<f32>>| {
        let rows: Vec<Vec<f32>> = rows.collect();
        (0..WIDTH)
            .map(|i| rows.iter().map(|row| row[i]).sum::<f32>() / rows.len() as f32)
            .collect::<Vec<f32>>()
    };
    let of_texts = mean(&mut rows.chunks_exact(WIDTH).map(<[f32]>::to_vec));
    let of_examples = mean(&mut examples.vectors().map(|(_, vector)| vector.to_vec()));
    let made = closed.set.rows().unwrap();
    for label in closed.labels.iter().filter(|label| !label.keeps_words) {
        let own = mean(&mut examples.vectors().filter(|(of, _)| *of == label.label).map(|(_, v)| v.to_vec()));
        let moved = unit((0..WIDTH).map(|i| own[i] + of_texts[i] - of_examples[i]).collect());
        let at = label.label as usize * WIDTH;
        let wanted = unit((0..WIDTH).map(|i| 4.0 * label.words * rows[at + i] + 4.0 * moved[i]).collect());
        assert!((dot(&wanted, &unit(made[at..at + WIDTH].to_vec())) - 1.0).abs() < 1e-5);
    }
}

#[test]
fn a_label_that_would_lose_most_of_its_examples_keeps_its_words() {
    let (text, mut examples, _) = world(6, 4, 4.0);
    // The pictures of another label are said to be of this one, too.
    let others: Vec<Arc<[f32]>> =
        examples.vectors().filter(|(of, _)| *of == 1).map(|(_, vector)| Arc::clone(vector)).collect();
    examples.remove(Some(&[0]));
    for picture in &others {
        examples.add(0, picture).unwrap();
    }
    let fitted = fit(&text, &examples, SCORES, false).unwrap();
    for label in &fitted.labels {
        assert!(label.after.right + 2 >= label.before.right || label.keeps_words, "{label:?}");
    }
    assert!(fitted.labels.iter().any(|label| label.keeps_words), "{:?}", fitted.labels);
}

#[test]
fn examples_that_have_no_direction_or_fit_no_label_are_refused() {
    let mut examples = Examples::new("space".into(), 2);
    assert!(examples.add(0, &[1.0]).unwrap_err().contains("1 numbers"));
    for bad in [[0.0, 0.0], [f32::NAN, 1.0], [f32::INFINITY, 1.0]] {
        assert!(examples.add(0, &bad).unwrap_err().contains("no direction"), "{bad:?}");
    }
    examples.add(5, &[3.0, 4.0]).unwrap();
    let names: Arc<[Arc<str>]> = vec![Arc::from("a")].into();
    let text = LabelSet::of_directions(names, &[1.0, 0.0], "space".into()).unwrap();
    assert!(fit(&text, &examples, SCORES, false).is_err());
    let moved = examples.mapped(|label| (label == 5).then_some(0));
    let fitted = fit(&text, &moved, SCORES, false).unwrap();
    assert_eq!((fitted.before.right, fitted.after.of), (1, 1));
    assert!(examples.mapped(|_| None).is_empty());
}
