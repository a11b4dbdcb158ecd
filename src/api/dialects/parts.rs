//! The inputs of a request as several services write them: contents of one part, strings alone or in a list.

use std::fmt;

use serde::Deserialize;
use serde::de::{self, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use crate::api::edge::error::{ApiError, ApiResult, quoted};
use crate::api::inputs::{Batch, EACH_INPUT, check_count};
use crate::api::read::{Heap, OneOrMany};
use crate::api::source::is_data_url;
use crate::budget::Charge;

/// Defines the JSON object of a request: every field may be left out, and unknown ones are passed over.
macro_rules! request {
    ($(#[$meta:meta])* $visibility:vis struct $name:ident { $( $(#[$field_meta:meta])* $field:ident: $type:ty, )* }) => {
        $(#[$meta])*
        #[derive(Debug, Default, serde::Deserialize)]
        $visibility struct $name {
            $( $(#[$field_meta])* #[serde(default)] pub $field: Option<$type>, )*
        }

        impl $crate::api::read::Heap for $name {
            fn heap(&self) -> usize {
                0 $( + $crate::api::read::Heap::heap(&self.$field) )*
            }
        }
    };
}
pub(super) use request;

/// One text or one picture, as it was sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    /// A text.
    Text(String),
    /// A picture: base64, a data: URL or an http(s) URL.
    Picture(String),
}

impl Heap for Part {
    fn heap(&self) -> usize {
        match self {
            Self::Text(text) | Self::Picture(text) => text.heap(),
        }
    }
}

impl Part {
    /// A string in a place for texts: a data: URL is a picture.
    pub fn of(text: String) -> Self {
        if is_data_url(&text) { Self::Picture(text) } else { Self::Text(text) }
    }

    /// Whether it is a picture.
    pub fn is_picture(&self) -> bool {
        matches!(self, Self::Picture(_))
    }

    /// Adds it to the inputs. Not for the async runtime where it is large.
    pub fn push(self, batch: &mut Batch, place: String) {
        match self {
            Self::Text(text) => batch.push_text(place, text),
            Self::Picture(text) => {
                batch.push_encoded(place, &text);
                batch.memory.shrink(text.heap());
            }
        }
    }
}

/// Parts to inputs, with at most `most` pictures among them. `place` says what an error calls each.
///
/// # Errors
/// 422 if there is none, 413 if there are too many pictures, 413 or 429 without room. What is wrong with one is in its place.
pub fn batch_of(
    field: &str,
    parts: Vec<Part>,
    most: usize,
    memory: Charge,
    place: impl Fn(usize) -> String,
) -> ApiResult<Batch> {
    if parts.is_empty() {
        return Err(ApiError::field(field, "at least one is needed"));
    }
    let pictures = parts.iter().filter(|part| part.is_picture()).count();
    if pictures > 0 {
        check_count(field, pictures, most)?;
    }
    let mut batch = Batch::new(memory);
    batch.memory.grow(parts.len() * (EACH_INPUT + size_of::<Part>()))?;
    for (index, part) in parts.into_iter().enumerate() {
        part.push(&mut batch, place(index));
    }
    Ok(batch)
}

/// `{"type": "text", "text": …}`, `{"type": "image_url", "image_url": … or {"url": …}}`, `{"image_base64": …}`,
/// `{"image": …}`: a part of a content, as OpenAI, Cohere and Voyage write it.
impl<'de> Deserialize<'de> for Part {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct PartVisitor;

        impl<'de> Visitor<'de> for PartVisitor {
            type Value = Part;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a part with \"text\" or \"image_url\"")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Part, A::Error> {
                let mut part = None;
                let mut set = |found: Part| match part.replace(found) {
                    None => Ok(()),
                    Some(_) => Err(de::Error::custom("a part is either a text or a picture")),
                };
                while let Some(key) = map.next_key::<String>()? {
                    match key.as_str() {
                        "text" => set(Part::Text(map.next_value()?))?,
                        "image" | "image_base64" => set(Part::Picture(map.next_value()?))?,
                        "image_url" => set(Part::Picture(map.next_value::<Address>()?.0))?,
                        key if key.starts_with("video") || key.contains("audio") => {
                            let message = format!("{}: the model takes texts and pictures only", quoted(key));
                            return Err(de::Error::custom(message));
                        }
                        _ => {
                            map.next_value::<IgnoredAny>()?;
                        }
                    }
                }
                part.ok_or_else(|| de::Error::custom("a part has \"text\" or \"image_url\""))
            }
        }

        deserializer.deserialize_map(PartVisitor)
    }
}

/// A URL, or `{"url": …}`.
struct Address(String);

impl<'de> Deserialize<'de> for Address {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct AddressVisitor;

        impl<'de> Visitor<'de> for AddressVisitor {
            type Value = Address;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a URL or {\"url\": …}")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Address, E> {
                Ok(Address(text.to_owned()))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Address, A::Error> {
                let mut url = None;
                while let Some(key) = map.next_key::<String>()? {
                    if key == "url" {
                        url = Some(Address(map.next_value()?));
                    } else {
                        map.next_value::<IgnoredAny>()?;
                    }
                }
                url.ok_or_else(|| de::Error::missing_field("url"))
            }
        }

        deserializer.deserialize_any(AddressVisitor)
    }
}

/// A list of exactly one element. No model here makes one vector of several parts, so that a second one is an error, and a
/// list costs no memory.
#[derive(Debug, Clone)]
pub struct Only<T>(pub T);

impl<T: Heap> Heap for Only<T> {
    fn heap(&self) -> usize {
        self.0.heap()
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Only<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OnlyVisitor<T>(std::marker::PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for OnlyVisitor<T> {
            type Value = Only<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list with one element")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Only<T>, A::Error> {
                let first = seq.next_element()?.ok_or_else(|| de::Error::custom("the list is empty"))?;
                match seq.next_element::<IgnoredAny>()? {
                    None => Ok(Only(first)),
                    Some(_) => Err(de::Error::custom(
                        "more than one: this model makes a vector of one text or of one picture, not of several together",
                    )),
                }
            }
        }

        deserializer.deserialize_seq(OnlyVisitor(std::marker::PhantomData))
    }
}

/// An input that has a content of one part: Cohere's and Voyage's.
#[derive(Debug, Deserialize)]
pub struct Content {
    content: Only<Part>,
}

impl Content {
    /// The part.
    pub fn into_part(self) -> Part {
        self.content.0
    }
}

impl Heap for Content {
    fn heap(&self) -> usize {
        self.content.heap()
    }
}

/// A string or a list of strings.
pub type Strings = OneOrMany<String>;

#[cfg(test)]
mod tests {
    use super::*;

    fn part(json: &str) -> Result<Part, String> {
        serde_json::from_str(json).map_err(|error| error.to_string())
    }

    #[test]
    fn parts_as_each_service_writes_them() {
        let (text, picture) = (Part::Text("a".into()), Part::Picture("p".into()));
        assert_eq!(part(r#"{"type": "text", "text": "a"}"#).unwrap(), text);
        for json in [
            r#"{"type": "image_url", "image_url": {"url": "p", "detail": "low"}}"#,
            r#"{"image_url": "p", "uuid": {"x": [1]}}"#,
            r#"{"type": "image_base64", "image_base64": "p"}"#,
            r#"{"image": "p"}"#,
        ] {
            assert_eq!(part(json).unwrap(), picture, "{json}");
        }
        assert!(part(r#"{"text": "a", "image": "p"}"#).unwrap_err().contains("either"));
        assert!(
            part(r#"{"type": "video_url", "video_url": "x"}"#)
                .unwrap_err()
                .contains("texts and pictures only")
        );
        assert!(part("{}").unwrap_err().contains("has \"text\""));
        let only = |json: &str| serde_json::from_str::<Only<Part>>(json).map_err(|error| error.to_string());
        assert_eq!(only(r#"[{"text": "a"}]"#).unwrap().0, text);
        assert!(only("[]").unwrap_err().contains("empty"));
        assert!(only(r#"[{"text": "a"}, {"text": "b"}]"#).unwrap_err().contains("not of several together"));
    }
}
