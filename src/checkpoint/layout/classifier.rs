//! The trained classifier of `SiglipForImageClassification` and its NaFlex form: its labels, and how its scores become
//! probabilities.

use serde_json::Value;

use crate::checkpoint::CheckpointError;
use crate::checkpoint::json::Object;
use crate::checkpoint::store::Store;
use crate::model::{ClassifierSpec, LabelActivation};

/// Its weight in the file.
pub(super) const WEIGHT: &str = "classifier.weight";

/// The classifier of a checkpoint, if its weights have one.
pub(super) fn read(config: &Object, store: &Store) -> Result<Option<ClassifierSpec>, CheckpointError> {
    let Some(rows) = store.get(WEIGHT).and_then(|tensor| tensor.shape.first().copied()) else {
        return Ok(None);
    };
    let labels = labels(config, rows)?;
    let activation = match config.text("problem_type")? {
        Some("multi_label_classification") => LabelActivation::Sigmoid,
        Some("single_label_classification") => LabelActivation::Softmax,
        // transformers' pipeline (`image_classification.py`) decides by their number.
        None if rows == 1 => LabelActivation::Sigmoid,
        None => LabelActivation::Softmax,
        Some(other) => {
            return Err(config.error(
                "problem_type",
                format!(
                    "expected single_label_classification or multi_label_classification, found {other:?}: its scores \
                     are no probabilities"
                ),
            ));
        }
    };
    Ok(Some(ClassifierSpec { labels, activation }))
}

/// `id2label`, in order; without it `LABEL_0` and so on, as transformers calls them.
fn labels(config: &Object, rows: usize) -> Result<Vec<String>, CheckpointError> {
    let Some(names) = config.object("id2label")? else {
        return Ok((0..rows).map(|id| format!("LABEL_{id}")).collect());
    };
    let count = names.keys().count();
    if count != rows {
        return Err(config.error("id2label", format!("{count} labels for the {rows} rows of {WEIGHT}")));
    }
    let label = |id: usize| match names.get(&id.to_string()) {
        Some(Value::String(label)) => Ok(label.clone()),
        _ => Err(config.error("id2label", format!("no label {id}, where {WEIGHT} has {rows} rows"))),
    };
    (0..rows).map(label).collect()
}
