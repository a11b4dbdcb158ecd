//! Parts of a checkpoint: one tower, or the text tower for long texts.

use serde_json::json;
use siglip::testing::checkpoint::{
    Checkpoint, CheckpointError, HubOptions, ModelRef, Tower, Wanted, open_part,
};
use siglip::testing::ops::{Numerics, WeightFormat};

use super::{open_tiny, values};
use crate::support::tiny::{Array, CONTEXT, Family, Tiny, VOCAB, WIDTH};

fn part(tiny: &Tiny, wanted: Wanted) -> Result<Checkpoint, CheckpointError> {
    let folder = tempfile::tempdir().unwrap();
    tiny.write(folder.path());
    open_part(&ModelRef::Path(folder.path().to_path_buf()), &HubOptions::default(), wanted)
}

fn only(tower: Tower) -> Wanted {
    Wanted { tower: Some(tower), ..Wanted::default() }
}

#[test]
fn one_tower_is_that_of_both() {
    let both = open_tiny(&Tiny::new(Family::SigLip1)).unwrap();
    for (tower, image, text) in [(Tower::Image, true, false), (Tower::Text, false, true)] {
        let found = part(&Tiny::new(Family::SigLip1), only(tower)).unwrap();
        assert_eq!((found.spec.image.is_some(), found.spec.text.is_some()), (image, text));
        assert_eq!((found.image.is_some(), found.text.is_some(), found.spec.scores), (image, text, false));
        for tensor in found.spec.tensors() {
            let [one, other] = [&found, &both].map(|c| values(c, &tensor.name, &tensor.shape));
            assert_eq!(one, other, "{}", tensor.name);
        }
    }
}

#[test]
fn a_tower_that_is_not_wanted_may_be_broken_and_one_that_is_must_be_there() {
    let mut tiny = Tiny::new(Family::SigLip1);
    tiny.arrays.remove("text_model.final_layer_norm.weight");
    tiny.arrays.insert("text_model.unheard_of".into(), Array { shape: vec![1], values: vec![0.0] });
    assert!(open_tiny(&tiny).is_err());
    part(&tiny, only(Tower::Image)).unwrap();
    tiny.arrays.retain(|name, _| name.starts_with("vision_model."));
    let error = part(&tiny, only(Tower::Text)).unwrap_err().to_string();
    assert!(error.contains("no text tower"), "{error}");
}

/// FG-CLIP 2 with 30 positions for long texts, of which the first 20 are in a table of their own.
fn fg_clip() -> Tiny {
    let mut tiny = Tiny::new(Family::NaFlex);
    tiny.config["model_type"] = json!("fgclip2");
    tiny.config["text_config"]["keep_len"] = json!(20);
    let mut add = |name: &str, shape: &[usize], value: fn(usize) -> f32| {
        let values = (0..shape.iter().product()).map(value).collect();
        tiny.arrays.insert(name.into(), Array { shape: shape.to_vec(), values });
    };
    add("text_model.embeddings.position_embedding_ori.weight", &[30, WIDTH], |i| i as f32);
    add("text_model.embeddings.position_embedding_res.weight", &[30, WIDTH], |i| -(i as f32));
    // Twice each value, and 1.
    add("longtext_head.weight", &[WIDTH, WIDTH], |i| if i % (WIDTH + 1) == 0 { 2.0 } else { 0.0 });
    add("longtext_head.bias", &[WIDTH], |_| 1.0);
    tiny
}

#[test]
fn long_texts_have_positions_of_two_tables_and_a_second_head() {
    let long = Wanted { long_texts: true, ..Wanted::default() };
    let short = part(&fg_clip(), Wanted::default()).unwrap();
    assert_eq!(short.text.as_ref().unwrap().context, CONTEXT);
    let mut found = part(&fg_clip(), long).unwrap();
    assert_eq!(found.text.as_ref().unwrap().context, 30);
    let positions = values(&found, "text_model.embeddings.position_embedding.weight", &[30, WIDTH]);
    let expected = |i: usize| if i < 20 * WIDTH { i as f32 } else { -(i as f32) };
    assert_eq!(positions, (0..30 * WIDTH).map(expected).collect::<Vec<_>>());

    // The second head of what the first one gives.
    let ids: Vec<u32> = (0..30).map(|i| i % VOCAB as u32).collect();
    let embed = |checkpoint: &Checkpoint| {
        let text = checkpoint.spec.text.as_ref().unwrap();
        let tower = siglip::testing::model::TextTower::load(
            text,
            &checkpoint.weights,
            &Numerics::cpu(WeightFormat::F32),
        )
        .unwrap();
        tower.embed(&[&ids]).unwrap().remove(0)
    };
    let with = embed(&found);
    found.spec.text.as_mut().unwrap().long_head = false;
    let without = embed(&found);
    for (with, without) in with.iter().zip(&without) {
        assert!((with - (2.0 * without + 1.0)).abs() < 1e-5, "{with} {without}");
    }
}

#[test]
fn what_has_nothing_for_long_texts_says_so() {
    let long = Wanted { long_texts: true, ..Wanted::default() };
    let error = part(&Tiny::new(Family::SigLip1), long).unwrap_err().to_string();
    assert!(error.contains("--long-texts"), "{error}");
    let mut wrong = fg_clip();
    wrong.config["text_config"]["keep_len"] = json!(30);
    let error = part(&wrong, long).unwrap_err().to_string();
    assert!(error.contains("keep_len"), "{error}");
}
