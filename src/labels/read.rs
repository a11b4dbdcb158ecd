//! The parts of a definition that may be written in more than one way. Lists stop at their first element too many.

use std::fmt;
use std::marker::PhantomData;

use serde::de::{self, Deserializer, MapAccess, SeqAccess, Visitor};
use serde::ser::{SerializeMap, Serializer};
use serde::{Deserialize, Serialize};

use super::definition::{LabelSpec, MAX_LABELS, MAX_TEMPLATES, MAX_WORDS};
use crate::model::zero_shot::SLOT;

/// The labels of a set.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LabelList(pub Vec<LabelSpec>);

/// What labels are put into.
#[derive(Debug, Clone, PartialEq)]
pub enum Templates {
    /// A built-in set.
    Named(String),
    /// Texts with `{}` where the label goes.
    Own(Vec<String>),
}

/// When none of the labels fits.
#[derive(Debug, Clone, PartialEq)]
pub enum NoneRule {
    /// It is not asked.
    Off,
    /// No label reaches its threshold.
    On,
    /// No label has this probability.
    Threshold(f32),
    /// The labels together have less than this share beside those of another set (NegLabel, arXiv 2403.20078).
    Against {
        /// The stored set of negatives.
        against: String,
        /// The share.
        threshold: Option<f32>,
    },
    /// The best label is not far enough above what the best labels of a background's pictures have.
    Background {
        /// The background.
        background: String,
        /// Spreads above their median, see [`crate::model::BestLevel`].
        threshold: Option<f32>,
    },
}

impl Templates {
    /// Number of templates; 0 for a name that is not known.
    pub fn len(&self) -> usize {
        match self {
            Self::Named(name) => super::templates::built_in(name).map_or(0, <[_]>::len),
            Self::Own(templates) => templates.len(),
        }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Reads a list of at most `MOST` elements.
struct ListVisitor<T, const MOST: usize>(PhantomData<T>);

impl<'de, T: Deserialize<'de>, const MOST: usize> Visitor<'de> for ListVisitor<T, MOST> {
    type Value = Vec<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Vec<T>, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element()? {
            if items.len() == MOST {
                return Err(de::Error::custom(format_args!("a list of more than {MOST} elements")));
            }
            items.push(item);
        }
        Ok(items)
    }
}

impl<'de> Deserialize<'de> for LabelList {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(ListVisitor::<LabelSpec, MAX_LABELS>(PhantomData)).map(Self)
    }
}

fn words<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    deserializer.deserialize_seq(ListVisitor::<String, MAX_WORDS>(PhantomData))
}

/// A label as an object.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LabelObject {
    name: String,
    #[serde(default, deserialize_with = "words")]
    synonyms: Vec<String>,
    #[serde(default, deserialize_with = "words")]
    prompts: Vec<String>,
    threshold: Option<f32>,
}

impl<'de> Deserialize<'de> for LabelSpec {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct LabelVisitor;

        impl<'de> Visitor<'de> for LabelVisitor {
            type Value = LabelSpec;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a label: a string, or an object with its name")
            }

            fn visit_str<E: de::Error>(self, name: &str) -> Result<LabelSpec, E> {
                self.visit_string(name.to_owned())
            }

            fn visit_string<E: de::Error>(self, name: String) -> Result<LabelSpec, E> {
                Ok(LabelSpec { name, synonyms: Vec::new(), prompts: Vec::new(), threshold: None })
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<LabelSpec, A::Error> {
                let LabelObject { name, synonyms, prompts, threshold } =
                    LabelObject::deserialize(de::value::MapAccessDeserializer::new(map))?;
                Ok(LabelSpec { name, synonyms, prompts, threshold })
            }
        }

        deserializer.deserialize_any(LabelVisitor)
    }
}

impl Serialize for LabelSpec {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.is_bare() {
            return serializer.serialize_str(&self.name);
        }
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("name", &self.name)?;
        if !self.synonyms.is_empty() {
            map.serialize_entry("synonyms", &self.synonyms)?;
        }
        if !self.prompts.is_empty() {
            map.serialize_entry("prompts", &self.prompts)?;
        }
        if let Some(threshold) = self.threshold {
            map.serialize_entry("threshold", &threshold)?;
        }
        map.end()
    }
}

impl<'de> Deserialize<'de> for Templates {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TemplatesVisitor;

        impl<'de> Visitor<'de> for TemplatesVisitor {
            type Value = Templates;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the name of a built-in set, a template, or a list of templates")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Templates, E> {
                Ok(match text.contains(SLOT) {
                    true => Templates::Own(vec![text.to_owned()]),
                    false => Templates::Named(text.to_owned()),
                })
            }

            fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<Templates, A::Error> {
                ListVisitor::<String, MAX_TEMPLATES>(PhantomData).visit_seq(seq).map(Templates::Own)
            }
        }

        deserializer.deserialize_any(TemplatesVisitor)
    }
}

impl Serialize for Templates {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Named(name) => serializer.serialize_str(name),
            Self::Own(templates) => templates.serialize(serializer),
        }
    }
}

/// `none` as an object.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Against {
    against: Option<String>,
    background: Option<String>,
    threshold: Option<f32>,
}

impl Against {
    fn rule<E: de::Error>(self) -> Result<NoneRule, E> {
        let threshold = self.threshold;
        match (self.against, self.background) {
            (Some(against), None) => Ok(NoneRule::Against { against, threshold }),
            (None, Some(background)) => Ok(NoneRule::Background { background, threshold }),
            _ => Err(E::custom("either \"against\", a label set, or \"background\"")),
        }
    }
}

impl<'de> Deserialize<'de> for NoneRule {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct NoneVisitor;

        impl<'de> Visitor<'de> for NoneVisitor {
            type Value = NoneRule;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("true, a probability, {\"against\": the name of a label set}, or {\"background\": a name}")
            }

            fn visit_bool<E: de::Error>(self, on: bool) -> Result<NoneRule, E> {
                Ok(if on { NoneRule::On } else { NoneRule::Off })
            }

            fn visit_f64<E: de::Error>(self, threshold: f64) -> Result<NoneRule, E> {
                Ok(NoneRule::Threshold(threshold as f32))
            }

            fn visit_u64<E: de::Error>(self, threshold: u64) -> Result<NoneRule, E> {
                self.visit_f64(threshold as f64)
            }

            fn visit_i64<E: de::Error>(self, threshold: i64) -> Result<NoneRule, E> {
                self.visit_f64(threshold as f64)
            }

            /// In a query or a form everything is a text.
            fn visit_str<E: de::Error>(self, text: &str) -> Result<NoneRule, E> {
                let text = text.trim();
                if text.starts_with('{') {
                    return serde_json::from_str::<Against>(text).map_err(E::custom)?.rule();
                }
                match (text.parse::<bool>(), text.parse::<f32>()) {
                    (Ok(on), _) => self.visit_bool(on),
                    (_, Ok(threshold)) => Ok(NoneRule::Threshold(threshold)),
                    _ => Err(E::invalid_value(de::Unexpected::Str(text), &self)),
                }
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<NoneRule, A::Error> {
                Against::deserialize(de::value::MapAccessDeserializer::new(map))?.rule()
            }
        }

        deserializer.deserialize_any(NoneVisitor)
    }
}

impl Serialize for NoneRule {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Off => serializer.serialize_bool(false),
            Self::On => serializer.serialize_bool(true),
            Self::Threshold(threshold) => serializer.serialize_f32(*threshold),
            Self::Against { against, threshold } => {
                let mut map = serializer.serialize_map(None)?;
                map.serialize_entry("against", against)?;
                if let Some(threshold) = threshold {
                    map.serialize_entry("threshold", threshold)?;
                }
                map.end()
            }
            Self::Background { background, threshold } => {
                let mut map = serializer.serialize_map(None)?;
                map.serialize_entry("background", background)?;
                if let Some(threshold) = threshold {
                    map.serialize_entry("threshold", threshold)?;
                }
                map.end()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::definition::Definition;
    use super::*;

    #[test]
    fn a_definition_is_written_as_it_was_read() {
        let sent = json!({
            "labels": ["cat", {"name": "dog", "synonyms": ["puppy"], "threshold": 0.5}, {"name": "car", "prompts": ["a van"]}],
            "templates": "imagenet-7", "activation": "softmax", "threshold": 0.25,
            "none": {"against": "nouns", "threshold": 0.5}, "canonicalization": "none", "model": "demo",
        });
        let definition: Definition = serde_json::from_value(sent.clone()).unwrap();
        assert_eq!(serde_json::to_value(&definition).unwrap(), sent);
        for none in [json!(true), json!(false), json!(0.25)] {
            let rule: NoneRule = serde_json::from_value(none.clone()).unwrap();
            assert_eq!(serde_json::to_value(&rule).unwrap(), none);
        }
        let one: Templates = serde_json::from_value(json!("a {}")).unwrap();
        assert_eq!(serde_json::to_value(&one).unwrap(), json!(["a {}"]));
    }

    #[test]
    fn a_form_has_the_rule_as_text() {
        let rule = |text: &str| serde_json::from_value::<NoneRule>(Value::String(text.to_owned()));
        assert_eq!(rule("true").unwrap(), NoneRule::On);
        assert_eq!(rule("0.1").unwrap(), NoneRule::Threshold(0.1));
        let against = NoneRule::Against { against: "x".to_owned(), threshold: None };
        assert_eq!(rule(r#"{"against": "x"}"#).unwrap(), against);
        assert!(rule("maybe").unwrap_err().to_string().contains("a probability"));
    }

    #[test]
    fn lists_stop_at_the_first_element_too_many() {
        let error = |value: Value| serde_json::from_value::<Definition>(value).unwrap_err().to_string();
        let many = error(json!({"labels": vec![""; MAX_LABELS + 1]}));
        assert!(many.contains("more than 100000"), "{many}");
        let many = error(json!({"labels": [{"name": "a", "synonyms": vec![""; MAX_WORDS + 1]}]}));
        assert!(many.contains("more than 64"), "{many}");
        assert!(error(json!({"labels": [5]})).contains("a label"));
        assert!(error(json!({"labels": ["a"], "lables": []})).contains("unknown field `lables`"));
        assert!(error(json!({"labels": [{"nam": "a"}]})).contains("nam"));
    }
}
