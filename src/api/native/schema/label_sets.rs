//! `/v1/label-sets`.

use serde::Serialize;
use serde_json::json;
use utoipa::openapi::{RefOr, schema::Schema};
use utoipa::{PartialSchema, ToSchema};

use super::ListTag;
use crate::api::edge::error::shortened;
use crate::api::read::{JsonBody, options};
use crate::labels::{Definition, LabelSets, LabelSpec, MAX_LABELS, NoneRule, SpaceState, Version};

options! {
    /// How a label set is stored.
    pub struct PutLabelSetRequest {
        inputs {}
        lists {}
        options {
            /// Whether the answer waits until the set is encoded for its model, or the request's time is over.
            wait: bool,
        }
    }
}

/// `label_set`.
#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum LabelSetTag {
    /// The only value.
    LabelSet,
}

/// What the scores of a set come from.
#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum LabelSetKind {
    /// Texts, and examples where there are some.
    Texts,
    /// A linear layer over embeddings.
    Head,
}

/// A stored label set.
#[derive(Debug, Serialize, ToSchema)]
pub struct LabelSetAnswer<'a> {
    /// Always `label_set`.
    pub object: LabelSetTag,
    /// Its name.
    pub name: String,
    /// Names all that its scores follow from but for the model; also the entity tag.
    pub version: String,
    /// What its scores come from.
    pub kind: LabelSetKind,
    /// Number of labels.
    pub labels: usize,
    /// Number of examples.
    pub examples: usize,
    /// Whether it is there after a restart.
    pub persistent: bool,
    /// How it is for each model that is loaded.
    pub models: Vec<LabelSetModel>,
    /// The set as it was sent; not in lists.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Definition>)]
    pub definition: Option<&'a Definition>,
}

/// How a label set is for one model.
#[derive(Debug, Serialize, ToSchema)]
pub struct LabelSetModel {
    /// The model's name.
    pub model: String,
    /// Its embedding space.
    pub fingerprint: String,
    /// `waiting` until somebody asks for it, `encoding`, `ready` or `failed`.
    #[schema(example = "ready")]
    pub state: &'static str,
    /// Labels that are done.
    pub done: usize,
    /// Why it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// Every label set.
#[derive(Debug, Serialize, ToSchema)]
pub struct LabelSetList<'a> {
    /// Always `list`.
    pub object: ListTag,
    /// The sets by name, without their labels.
    pub data: Vec<LabelSetAnswer<'a>>,
    /// Whether they are there after a restart.
    pub persistent: bool,
}

/// Which version of which set was used.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct LabelSetUsed {
    /// Its name.
    pub name: String,
    /// Its version; until a new one is encoded, the one before.
    pub version: String,
}

impl LabelSetUsed {
    /// Of a version.
    pub fn of(version: &Version) -> Self {
        Self { name: version.name().to_string(), version: version.id().to_owned() }
    }
}

impl<'a> LabelSetAnswer<'a> {
    /// What is said of a version, without its definition.
    pub fn of(sets: &LabelSets, version: &'a Version) -> Self {
        const LONGEST_REASON: usize = 500;
        let models = sets.states(version).into_iter().map(|of| {
            let (state, done, reason) = match of.state {
                SpaceState::Waiting => ("waiting", 0, None),
                SpaceState::Encoding { done, .. } => ("encoding", done, None),
                SpaceState::Ready => ("ready", version.names().len(), None),
                SpaceState::Failed { reason } => {
                    ("failed", 0, Some(shortened(&reason, LONGEST_REASON).into_owned()))
                }
            };
            LabelSetModel { model: of.model, fingerprint: of.fingerprint, state, done, reason }
        });
        let kind = if version.content().head.is_some() { LabelSetKind::Head } else { LabelSetKind::Texts };
        Self {
            object: LabelSetTag::LabelSet,
            name: version.name().to_string(),
            version: version.id().to_owned(),
            kind,
            labels: version.names().len(),
            examples: version.examples(),
            persistent: sets.is_persistent(),
            models: models.collect(),
            definition: None,
        }
    }
}

impl JsonBody for Definition {
    /// Every label, synonym and prompt is a string in quotation marks. A label becomes a large entry and the others a string,
    /// in lists that are copied as they grow: there are the old list and the new one, of twice the size.
    fn bound(body: &[u8]) -> usize {
        const GROWTH: usize = 3;
        let strings = memchr::memchr_iter(b'"', body).count() / 2 + 1;
        let labels = strings.min(MAX_LABELS).saturating_mul(GROWTH * size_of::<LabelSpec>());
        let words = strings.saturating_mul(GROWTH * size_of::<String>());
        body.len().saturating_mul(2).saturating_add(labels).saturating_add(words)
    }

    fn held(&self) -> usize {
        self.heap()
    }
}

impl PartialSchema for Definition {
    fn schema() -> RefOr<Schema> {
        super::literal(json!({
            "type": "object", "required": ["labels"], "additionalProperties": false,
            "description": "Labels, what they are put into and how they are scored.",
            "properties": {
                "labels": {
                    "type": "array", "minItems": 1, "maxItems": 100_000,
                    "description": "The labels, each name once.",
                    "items": {"oneOf": [
                        {"type": "string", "maxLength": 1000},
                        {"type": "object", "required": ["name"], "additionalProperties": false, "properties": {
                            "name": {"type": "string", "maxLength": 1000},
                            "synonyms": {"type": "array", "maxItems": 64, "items": {"type": "string"},
                                "description": "Other words for it; each is put into every template."},
                            "prompts": {"type": "array", "maxItems": 64, "items": {"type": "string"},
                                "description": "Whole texts in place of templates; `{}` is the name."},
                            "threshold": {"type": "number", "description": "The score that it must reach to be answered."},
                        }},
                    ]},
                },
                "templates": {"oneOf": [
                    {"type": "string", "description":
                        "A built-in set (imagenet-80, imagenet-7, pets, flowers, aircraft, textures, satellite, food, actions, \
                         siglip), or one template."},
                    {"type": "array", "minItems": 1, "maxItems": 256, "items": {"type": "string"},
                     "description": "Texts with `{}` where the label goes."},
                ], "description": "What labels are put into; the model's own template if left out."},
                "activation": {"$ref": "#/components/schemas/Activation"},
                "threshold": {"type": "number", "description":
                    "The score that labels without a threshold of their own must reach to be answered."},
                "none": {"$ref": "#/components/schemas/NoneRule"},
                "canonicalization": {"$ref": "#/components/schemas/Canonicalization"},
                "model": {"type": "string", "description":
                    "The model that the set is encoded for at once; the service's first if left out. Others follow when they are \
                     asked for."},
                "close_modality_gap": {"type": "boolean", "description":
                    "Whether examples are moved to where texts are before both are combined: the mean of the examples becomes that \
                     of their labels' texts. Off if left out."},
            },
            "example": {"labels": ["cat", {"name": "dog", "synonyms": ["puppy"], "threshold": 0.05}],
                        "templates": "imagenet-7", "none": true},
        }))
    }
}

impl ToSchema for Definition {
    fn name() -> std::borrow::Cow<'static, str> {
        "LabelSet".into()
    }

    fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
        use crate::model::zero_shot::Activation;
        use crate::text::Canonicalization;
        fn add<T: ToSchema>(schemas: &mut Vec<(String, RefOr<Schema>)>) {
            schemas.push((T::name().into_owned(), T::schema()));
        }
        add::<NoneRule>(schemas);
        add::<Activation>(schemas);
        add::<Canonicalization>(schemas);
    }
}

impl PartialSchema for NoneRule {
    fn schema() -> RefOr<Schema> {
        super::literal(json!({
            "description": "When none of the labels fits; then the prediction is null.",
            "oneOf": [
                {"type": "boolean", "description":
                    "Whether it is asked: no label reaches its threshold, or 0.01 where it has none."},
                {"type": "number", "minimum": 0, "maximum": 1, "description": "No label has this probability."},
                {"type": "object", "required": ["against"], "additionalProperties": false, "properties": {
                    "against": {"type": "string", "description":
                        "A stored label set, or the built-in `imagenet-1k`, of things that the picture may be of instead (NegLabel, \
                         arXiv 2403.20078). Those that are labels, too, are left out."},
                    "threshold": {"type": "number", "minimum": 0, "maximum": 1, "description":
                        "The share of the labels among labels, negatives and the model's own no; 0.1 if left out."},
                }},
                {"type": "object", "required": ["background"], "additionalProperties": false, "properties": {
                    "background": {"type": "string", "description":
                        "A background of the service (`--background`): the best label's logit is not far enough above those that \
                         the best labels of these pictures have. Stored sets only."},
                    "threshold": {"type": "number", "description":
                        "How far above the median of the best labels of the background's pictures, in their standard deviations; 2 if left out."},
                }},
            ],
        }))
    }
}

impl ToSchema for NoneRule {}
