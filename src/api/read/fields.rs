//! Options as text: the parameters of a query, the fields of a form.

use std::borrow::Cow;

use serde::de::value::{Error, MapDeserializer, SeqDeserializer};
use serde::de::{self, Deserializer, IntoDeserializer, Visitor};
use serde::forward_to_deserialize_any;

use super::{Bounded, MOST, Options};
use crate::api::edge::error::{ApiError, ApiResult, quoted};

/// Bytes of one option at most; lists may be longer.
const LONGEST: usize = 64 << 10;
/// The one list whose elements may also be separated by commas: nobody's template is free of them.
const WITH_COMMAS: &str = "labels";

/// Options out of names and values.
///
/// A list is a field repeated, each value one element or a JSON list; `labels[]` and `label` are `labels`.
///
/// # Errors
/// 400 for a field that the route does not have (with those that it has), that is given twice, or that is not of its type.
pub fn options_of<'a, T: Options>(
    fields: impl IntoIterator<Item = (Cow<'a, str>, Cow<'a, str>)>,
) -> ApiResult<T> {
    let mut found: Vec<(Cow<'a, str>, Field<'a>)> = Vec::new();
    for (name, value) in fields {
        let name = listed::<T>(&name).map_or(name, Cow::Borrowed);
        if T::INPUTS.contains(&&*name) {
            let message = "it goes into a JSON body; files go into a form or are the body";
            return Err(ApiError::bad_request("invalid_request", message).at(&name));
        }
        if !T::LISTS.contains(&&*name) {
            if value.len() > LONGEST {
                let message = format!("{} bytes are too long for an option", value.len());
                return Err(ApiError::bad_request("invalid_request", message).at(&name));
            }
            found.push((name, Field::Text(value)));
            continue;
        }
        let at = match found.iter().position(|(known, _)| *known == name) {
            Some(at) => at,
            None => {
                found.push((name.clone(), Field::List(Vec::new())));
                found.len() - 1
            }
        };
        if let Field::List(list) = &mut found[at].1 {
            extend(list, &value, name == WITH_COMMAS).map_err(|error| error.at(&name))?;
        }
    }
    serde_path_to_error::deserialize(MapDeserializer::new(found.into_iter())).map_err(|error| {
        let path = error.path().to_string();
        let error = ApiError::bad_request("invalid_request", error.into_inner().to_string());
        if path == "." { error } else { error.at(path) }
    })
}

/// The list that a field of that name belongs to.
fn listed<T: Options>(name: &str) -> Option<&'static str> {
    let name = name.strip_suffix("[]").unwrap_or(name);
    T::LISTS
        .iter()
        .copied()
        .find(|list| *list == name || list.strip_suffix('s') == Some(name) && name != "template")
}

fn extend(list: &mut Vec<String>, value: &str, commas: bool) -> ApiResult<()> {
    let too_many = || ApiError::too_large(format!("a list of more than {MOST} elements"));
    if value.trim_start().starts_with('[') {
        let Bounded(more) = serde_json::from_str::<Bounded<String>>(value).map_err(|error| {
            ApiError::bad_request("invalid_request", format!("not a JSON list of strings: {error}"))
        })?;
        list.extend(more);
    } else if commas {
        for element in value.split(',') {
            if list.len() > MOST {
                break;
            }
            list.push(element.trim().to_owned());
        }
    } else {
        list.push(value.to_owned());
    }
    if list.len() > MOST { Err(too_many()) } else { Ok(()) }
}

/// The value of a field, which becomes what the option is.
enum Field<'a> {
    Text(Cow<'a, str>),
    List(Vec<String>),
}

impl<'de> IntoDeserializer<'de, Error> for Field<'de> {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

/// Reads what the text says, or says what it should have been.
macro_rules! parsed {
    ($($method:ident $visit:ident $type:ty, $wanted:literal;)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
            let Self::Text(text) = &self else { return self.deserialize_any(visitor) };
            match text.trim().parse::<$type>() {
                Ok(value) => visitor.$visit(value),
                Err(_) => Err(de::Error::custom(format!(concat!("{} is not ", $wanted), quoted(text)))),
            }
        }
    )*};
}

impl<'de> Deserializer<'de> for Field<'de> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self {
            Self::Text(text) => visitor.visit_str(&text),
            Self::List(list) => visitor.visit_seq(SeqDeserializer::new(list.into_iter())),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_some(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        match self {
            Self::Text(text) => text.into_deserializer().deserialize_enum(name, variants, visitor),
            Self::List(_) => self.deserialize_any(visitor),
        }
    }

    parsed! {
        deserialize_bool visit_bool bool, "true or false";
        deserialize_u64 visit_u64 u64, "a whole number";
        deserialize_f32 visit_f32 f32, "a number";
    }

    forward_to_deserialize_any! {
        i8 i16 i32 i64 i128 u8 u16 u32 u128 f64 char str string bytes byte_buf unit unit_struct newtype_struct seq
        tuple tuple_struct map struct identifier ignored_any
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::native::schema::ClassifyRequest;
    use crate::model::zero_shot::Activation;

    fn read(fields: &[(&str, &str)]) -> ApiResult<ClassifyRequest> {
        options_of(fields.iter().map(|(name, value)| (Cow::Borrowed(*name), Cow::Borrowed(*value))))
    }

    #[test]
    fn every_type_of_option() {
        let all = read(&[
            ("top_k", " 3"),
            ("threshold", "0.5"),
            ("partial", "true"),
            ("activation", "softmax"),
            ("model", "m"),
            ("labels", "a, b"),
            ("labels[]", r#"["c,d"]"#),
            ("label", "e"),
            ("templates", "one {}, two"),
            ("template", "{}"),
        ])
        .unwrap();
        assert_eq!((all.top_k, all.threshold, all.partial), (Some(3), Some(0.5), Some(true)));
        assert_eq!((all.activation, all.model.as_deref()), (Some(Activation::Softmax), Some("m")));
        assert_eq!(all.labels.unwrap().0, ["a", "b", "c,d", "e"]);
        assert_eq!(all.templates.unwrap().0, ["one {}, two"]);
        assert_eq!(all.template.as_deref(), Some("{}"));
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (fields, part) in [
            (&[("top_k", "three")][..], "top_k: \"three\" is not a whole number"),
            (&[("top_k", "-1")], "top_k: \"-1\" is not a whole number"),
            (&[("activation", "tanh")], "activation: unknown variant `tanh`"),
            (&[("input", "x")], "input: it goes into a JSON body"),
            (&[("modell", "x")], "unknown field `modell`, expected one of"),
            (&[("model", "a"), ("model", "b")], "duplicate field `model`"),
            (&[("labels", "[1]")], "labels: not a JSON list of strings"),
        ] {
            let error = read(fields).unwrap_err();
            assert_eq!(error.status, 400);
            assert!(error.detail.message.contains(part), "{fields:?}: {}", error.detail.message);
        }
        let commas = ",".repeat(MOST + 1);
        assert_eq!(read(&[("labels", &commas)]).unwrap_err().status, 413);
        let long = "x".repeat(LONGEST + 1);
        assert!(read(&[("model", &long)]).is_err());
        assert!(read(&[(&long, "x")]).unwrap_err().detail.message.len() < 1000);
    }
}
