//! The inputs of a request, in every form they are sent in.

use std::fmt;

use serde::Deserialize;
use serde::de::{self, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::json;
use utoipa::openapi::{RefOr, schema::Schema};
use utoipa::{PartialSchema, ToSchema};

use crate::api::edge::error::quoted;
use crate::api::inputs::EACH_INPUT;
use crate::api::read::{Bounded, Heap, Listed, OneOrMany};

/// One input as it was sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// A string of which the place decides what it is.
    Bare(String),
    /// `{"text": …}`.
    Text(String),
    /// `{"image": …}`: a URL, a data: URL or base64.
    Image(String),
    /// A list of token ids.
    TokenIds(Vec<u32>),
}

/// One or many inputs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inputs {
    /// The inputs in their order.
    pub items: Vec<Input>,
    /// Whether there was no list around it.
    pub single: bool,
}

impl Heap for Input {
    fn heap(&self) -> usize {
        match self {
            Self::Bare(text) | Self::Text(text) | Self::Image(text) => text.heap(),
            Self::TokenIds(ids) => ids.capacity() * size_of::<u32>(),
        }
    }
}

impl Heap for Inputs {
    /// With the names that the inputs get.
    fn heap(&self) -> usize {
        self.items.heap() + self.items.len() * EACH_INPUT
    }
}

impl PartialSchema for Input {
    fn schema() -> RefOr<Schema> {
        super::literal(json!({
            "description": "A string (a text, or a picture as a data: URL), an object with one key, or a list of token ids",
            "oneOf": [
                {"type": "string"},
                {"type": "object", "required": ["text"], "additionalProperties": false,
                 "properties": {"text": {"type": "string", "description": "A text."}}},
                {"type": "object", "required": ["image"], "additionalProperties": false,
                 "properties": {"image": {"type": "string", "description":
                    "A picture: base64 with or without a data: URL, or an http(s) URL where the service fetches those."}}},
                {"type": "array", "minItems": 1, "items": {"type": "integer", "minimum": 0, "maximum": u32::MAX},
                 "description": "Token ids of one text, without padding; only with `token_ids`."},
            ],
        }))
    }
}

impl ToSchema for Input {}

impl PartialSchema for Inputs {
    fn schema() -> RefOr<Schema> {
        super::literal(json!({
            "description": "One input, or a list of them; texts and pictures may be mixed. A list of integers is one text as token ids.",
            "oneOf": [
                {"$ref": "#/components/schemas/Input"},
                {"type": "array", "minItems": 1, "items": {"$ref": "#/components/schemas/Input"}},
            ],
        }))
    }
}

impl ToSchema for Inputs {
    fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
        schemas.push((Input::name().into_owned(), Input::schema()));
    }
}

impl<'de> Deserialize<'de> for Input {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(InputVisitor)
    }
}

impl<'de> Deserialize<'de> for Inputs {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let OneOrMany { items: elements, single } = OneOrMany::deserialize(deserializer)?;
        let (mut items, mut ids) = (Vec::new(), Vec::new());
        for element in elements {
            match element {
                Element::Id(id) => ids.push(id),
                Element::Input(input) => items.push(input),
            }
        }
        match (ids.is_empty(), items.is_empty()) {
            (true, _) => Ok(Inputs { items, single }),
            (false, true) => Ok(Inputs { items: vec![Input::TokenIds(ids)], single: true }),
            (false, false) => {
                Err(de::Error::custom("a number among other inputs: token ids go in a list of their own"))
            }
        }
    }
}

struct InputVisitor;

impl<'de> Visitor<'de> for InputVisitor {
    type Value = Input;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string, {\"text\": …}, {\"image\": …} or a list of token ids")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Input, E> {
        Ok(Input::Bare(text.to_owned()))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Input, A::Error> {
        const EXPECTED: &str = "an input object has exactly one key, \"text\" or \"image\"";
        let input = match map.next_key::<String>()?.as_deref() {
            Some("text") => Input::Text(map.next_value()?),
            // The last two are Jina's older names.
            Some("image" | "url" | "bytes") => Input::Image(map.next_value()?),
            Some(key) => return Err(de::Error::custom(format!("{EXPECTED}, not {}", quoted(key)))),
            None => return Err(de::Error::custom(EXPECTED)),
        };
        match map.next_key::<String>()? {
            None => Ok(input),
            Some(key) => Err(de::Error::custom(format!("{EXPECTED}; there is also {}", quoted(&key)))),
        }
    }

    fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<Input, A::Error> {
        let ids = de::value::SeqAccessDeserializer::new(seq);
        Bounded::deserialize(ids).map(|ids| Input::TokenIds(ids.0))
    }
}

/// An element of the outer list: an input, or a number when the list itself is one.
enum Element {
    Id(u32),
    Input(Input),
}

impl Listed for Element {
    const ONE_OR_MANY: &'static str = "one input or a list of inputs";
}

impl<'de> Deserialize<'de> for Element {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ElementVisitor;

        impl<'de> Visitor<'de> for ElementVisitor {
            type Value = Element;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                InputVisitor.expecting(f)
            }

            fn visit_u64<E: de::Error>(self, id: u64) -> Result<Element, E> {
                u32::try_from(id)
                    .map(Element::Id)
                    .map_err(|_| E::invalid_value(de::Unexpected::Unsigned(id), &"a token id"))
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Element, E> {
                InputVisitor.visit_str(text).map(Element::Input)
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Element, A::Error> {
                InputVisitor.visit_map(map).map(Element::Input)
            }

            fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<Element, A::Error> {
                InputVisitor.visit_seq(seq).map(Element::Input)
            }
        }

        deserializer.deserialize_any(ElementVisitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::read::MOST;

    fn one(input: Input) -> Inputs {
        Inputs { items: vec![input], single: true }
    }

    fn parse(json: &str) -> Result<Inputs, String> {
        serde_json::from_str(json).map_err(|e| e.to_string())
    }

    #[test]
    fn every_form() {
        let bare = |s: &str| Input::Bare(s.to_owned());
        assert_eq!(parse(r#""a""#).unwrap(), one(bare("a")));
        assert_eq!(parse("[5, 6]").unwrap(), one(Input::TokenIds(vec![5, 6])));
        for key in ["image", "bytes", "url"] {
            assert_eq!(parse(&format!(r#"{{"{key}": "AAAA"}}"#)).unwrap(), one(Input::Image("AAAA".into())));
        }
        let mixed = parse(r#"["a", {"text": "b"}, {"image": "c"}, [7]]"#).unwrap();
        let wanted =
            vec![bare("a"), Input::Text("b".into()), Input::Image("c".into()), Input::TokenIds(vec![7])];
        assert_eq!(mixed, Inputs { items: wanted, single: false });
        assert_eq!(parse("[]").unwrap(), Inputs { items: vec![], single: false });
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (json, part) in [
            (r#"["a", 5]"#, "token ids go in a list of their own"),
            (r#"{"txt": "a"}"#, r#"not "txt""#),
            (r#"{"text": "a", "image": "b"}"#, r#"also "image""#),
            ("{}", "exactly one key"),
            ("[[1, -2]]", "invalid value: integer `-2`"),
            ("[4294967296]", "a token id"),
            ("true", "one input or a list"),
            ("[1.5]", "a list of token ids"),
        ] {
            let error = parse(json).unwrap_err();
            assert!(error.contains(part), "{json}: {error}");
        }
        let many = format!("[{}]", vec!["[]"; MOST + 1].join(","));
        assert!(parse(&many).unwrap_err().contains("more than 65536"));
    }
}
