//! `/v1/label-sets/{name}/examples` and `/calibrate`.

use std::fmt;

use serde::de::{self, Deserializer, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::openapi::{RefOr, schema::Schema};
use utoipa::{PartialSchema, ToSchema};

use super::vectors::Vector;
use crate::api::inputs::EACH_INPUT;
use crate::api::read::{Heap, options};

/// Pictures of one request at most.
const MOST: usize = 16_384;
/// Labels of one picture at most.
const MOST_LABELS: usize = 16;

options! {
    /// Pictures, or embeddings of pictures, that labels are to fit.
    #[schema(example = json!({"examples": [{"label": "cat", "image": "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAIAAACQd1PeAAAADElEQVR4nGP4z8AAAAMBAQDJ/pLvAAAAAElFTkSuQmCC"}]}))]
    pub struct ExamplesRequest {
        inputs {
            /// Each with one label.
            examples: LabelledPictures,
        }
        lists {}
        options {
            /// The model's name; if left out, that of the set, else the service's first.
            model: String,
            /// Another patch budget than the checkpoint's; NaFlex models only.
            #[schema(minimum = 1)]
            max_num_patches: usize,
        }
    }
}

options! {
    /// Whose examples are removed.
    pub struct RemoveExamplesRequest {
        inputs {}
        lists {
            /// The labels; all if left out.
            #[schema(value_type = Option<Vec<String>>)]
            labels,
        }
        options {}
    }
}

options! {
    /// Pictures, or embeddings of pictures, of which all labels are known.
    #[schema(example = json!({"precision": 0.9, "pictures": [{"labels": ["cat"], "embedding": [0.1, -0.2]}]}))]
    pub struct CalibrateRequest {
        inputs {
            /// Each with all labels of the set that it has, which may be none.
            pictures: LabelledPictures,
        }
        lists {}
        options {
            /// The share of pictures above a threshold that is to have the label; 0.9 if left out.
            #[schema(minimum = 0, maximum = 1)]
            precision: f32,
            /// Whether the thresholds are stored with the set.
            apply: bool,
            /// The model's name; if left out, that of the set, else the service's first.
            model: String,
            /// Another patch budget than the checkpoint's; NaFlex models only.
            #[schema(minimum = 1)]
            max_num_patches: usize,
        }
    }
}

/// A picture, or its embedding, with its labels.
#[derive(Debug, Clone, PartialEq)]
pub struct LabelledPicture {
    /// Its labels.
    pub labels: Vec<Box<str>>,
    /// What it is.
    pub picture: PictureOrVector,
}

/// A picture, or its embedding.
#[derive(Debug, Clone, PartialEq)]
pub enum PictureOrVector {
    /// Base64, a data: URL or an http(s) URL.
    Image(String),
    /// An embedding.
    Embedding(Vector),
}

/// Pictures with their labels.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct LabelledPictures(pub Vec<LabelledPicture>);

impl Heap for LabelledPicture {
    fn heap(&self) -> usize {
        let labels: usize = self.labels.iter().map(|label| label.len() + size_of::<Box<str>>()).sum();
        let picture = match &self.picture {
            PictureOrVector::Image(text) => text.heap(),
            PictureOrVector::Embedding(vector) => vector.heap(),
        };
        EACH_INPUT + labels + picture
    }
}

impl Heap for LabelledPictures {
    fn heap(&self) -> usize {
        self.0.heap()
    }
}

/// A picture as it is sent.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Sent {
    label: Option<Box<str>>,
    #[serde(default)]
    labels: Labels,
    image: Option<String>,
    embedding: Option<Vector>,
}

#[derive(Default)]
struct Labels(Vec<Box<str>>);

impl<'de> Deserialize<'de> for Labels {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let list = bounded::<D, Box<str>>(deserializer, "a list of labels", MOST_LABELS)?;
        // A list that has grown holds more than it needs.
        Ok(Self(list.into_boxed_slice().into_vec()))
    }
}

impl<'de> Deserialize<'de> for LabelledPicture {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Sent { label, labels: Labels(mut labels), image, embedding } = Sent::deserialize(deserializer)?;
        let picture = match (image, embedding) {
            (Some(image), None) => PictureOrVector::Image(image),
            (None, Some(embedding)) => PictureOrVector::Embedding(embedding),
            _ => return Err(de::Error::custom("a picture is either an image or an embedding")),
        };
        match label {
            Some(_) if !labels.is_empty() => {
                return Err(de::Error::custom("a picture has either a label or labels"));
            }
            Some(label) => labels = vec![label],
            None => {}
        }
        Ok(Self { labels, picture })
    }
}

impl<'de> Deserialize<'de> for LabelledPictures {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        bounded(deserializer, "a list of pictures with their labels", MOST).map(Self)
    }
}

/// A list of at most `most` elements.
fn bounded<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    deserializer: D,
    what: &'static str,
    most: usize,
) -> Result<Vec<T>, D::Error> {
    struct ListVisitor<T>(&'static str, usize, std::marker::PhantomData<T>);

    impl<'de, T: Deserialize<'de>> Visitor<'de> for ListVisitor<T> {
        type Value = Vec<T>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str(self.0)
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Vec<T>, A::Error> {
            let mut items = Vec::new();
            while let Some(item) = seq.next_element()? {
                if items.len() == self.1 {
                    return Err(de::Error::custom(format_args!("a list of more than {} elements", self.1)));
                }
                items.push(item);
            }
            Ok(items)
        }
    }

    deserializer.deserialize_seq(ListVisitor(what, most, std::marker::PhantomData))
}

impl PartialSchema for LabelledPictures {
    fn schema() -> RefOr<Schema> {
        super::literal(json!({
            "type": "array", "minItems": 1, "maxItems": MOST,
            "items": {"type": "object", "additionalProperties": false, "properties": {
                "label": {"type": "string", "description": "Its label."},
                "labels": {"type": "array", "maxItems": MOST_LABELS, "items": {"type": "string"},
                    "description": "Or all its labels."},
                "image": {"type": "string", "description":
                    "The picture: base64 with or without a data: URL, or an http(s) URL where the service fetches those."},
                "embedding": {"$ref": "#/components/schemas/Vector"},
            }},
        }))
    }
}

impl ToSchema for LabelledPictures {
    fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
        schemas.push((Vector::name().into_owned(), Vector::schema()));
    }
}

/// `label_set_examples`.
#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ExamplesTag {
    /// The only value.
    LabelSetExamples,
}

/// What the examples of a set do.
#[derive(Debug, Serialize, ToSchema)]
pub struct ExamplesResponse {
    /// Always `label_set_examples`.
    pub object: ExamplesTag,
    /// The set's name.
    pub name: String,
    /// The set's version with these examples.
    pub version: String,
    /// The embedding space of the examples.
    pub fingerprint: String,
    /// Number of examples.
    pub examples: usize,
    /// The share of examples of which their label is the best, by the words of the labels alone; null without examples.
    pub accuracy_before: Option<f32>,
    /// The same with the other examples, each left out in turn. A label with one example is judged by its words.
    pub accuracy_after: Option<f32>,
    /// Every label with examples.
    pub labels: Vec<LabelExamples>,
}

/// What the examples of one label do.
#[derive(Debug, Serialize, ToSchema)]
pub struct LabelExamples {
    /// The label.
    pub label: String,
    /// Number of its examples.
    pub examples: usize,
    /// How well its words explain its examples, 0 to 1: they count as up to four examples.
    pub words: f32,
    /// Its accuracy by words.
    pub accuracy_before: f32,
    /// Its accuracy with the other examples.
    pub accuracy_after: f32,
    /// Whether it keeps the direction of its words, since it would lose too many of its examples.
    pub keeps_words: bool,
}

/// `label_set_calibration`.
#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum CalibrationTag {
    /// The only value.
    LabelSetCalibration,
}

/// Thresholds of a set's labels.
#[derive(Debug, Serialize, ToSchema)]
pub struct CalibrateResponse {
    /// Always `label_set_calibration`.
    pub object: CalibrationTag,
    /// The set's name.
    pub name: String,
    /// The set's version: with the thresholds, if they were stored.
    pub version: String,
    /// Whether the thresholds were stored.
    pub applied: bool,
    /// Every label that a picture has.
    pub labels: Vec<LabelThreshold>,
}

/// The threshold of one label.
#[derive(Debug, Serialize, ToSchema)]
pub struct LabelThreshold {
    /// The label.
    pub label: String,
    /// Pictures that have it.
    pub pictures: usize,
    /// The threshold with the largest recall among those of the wanted precision; null if there is none.
    pub threshold: Option<f32>,
    /// Its precision on these pictures.
    pub precision: Option<f32>,
    /// Its recall on these pictures.
    pub recall: Option<f32>,
    /// At most fifty thresholds, from the strictest.
    pub curve: Vec<CurvePoint>,
}

/// What a threshold does.
#[derive(Debug, Serialize, ToSchema)]
pub struct CurvePoint {
    /// The threshold.
    pub threshold: f32,
    /// Of the pictures that reach it, the share that has the label.
    pub precision: f32,
    /// Of the pictures that have the label, the share that reaches it.
    pub recall: f32,
}
