//! Embeddings that a client has stored: lists of numbers, or base64 of little-endian f32.

use std::fmt;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde::de::{self, Deserializer, SeqAccess, Visitor};
use serde_json::json;
use utoipa::openapi::{RefOr, schema::Schema};
use utoipa::{PartialSchema, ToSchema};

use crate::api::edge::error::{ApiError, ApiResult};
use crate::api::read::{Heap, within};

/// Numbers of an embedding at most, whatever the model's width is.
const LONGEST: usize = 16_384;

/// One embedding.
#[derive(Debug, Clone, PartialEq)]
pub struct Vector(pub Arc<[f32]>);

/// A list of embeddings.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Vectors(pub Vec<Vector>);

impl Vector {
    /// Checks that it can be an embedding of a model of this width.
    ///
    /// # Errors
    /// 422 if it is of another width, or a number is not finite.
    pub fn check(&self, place: &str, width: usize) -> ApiResult<()> {
        if self.0.len() != width {
            let message = format!("{} numbers; the embeddings of this model have {width}", self.0.len());
            return Err(ApiError::unprocessable("invalid_embedding", message).at(place));
        }
        match self.0.iter().position(|x| !x.is_finite()) {
            None => Ok(()),
            Some(at) => {
                let message = format!("number {at} is not finite");
                Err(ApiError::unprocessable("invalid_embedding", message).at(place))
            }
        }
    }
}

impl Heap for Vector {
    fn heap(&self) -> usize {
        const COUNTS: usize = 16;
        size_of_val(&*self.0) + COUNTS
    }
}

impl Heap for Vectors {
    fn heap(&self) -> usize {
        self.0.heap()
    }
}

impl PartialSchema for Vector {
    fn schema() -> RefOr<Schema> {
        super::literal(json!({
            "description": "An embedding of this model: its numbers, or base64 of them as little-endian f32",
            "oneOf": [
                {"type": "array", "minItems": 1, "items": {"type": "number"}},
                {"type": "string", "description": "Base64."},
            ],
        }))
    }
}

impl ToSchema for Vector {}

impl PartialSchema for Vectors {
    fn schema() -> RefOr<Schema> {
        super::literal(json!({
            "type": "array", "minItems": 1, "items": {"$ref": "#/components/schemas/Vector"},
        }))
    }
}

impl ToSchema for Vectors {
    fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
        schemas.push((Vector::name().into_owned(), Vector::schema()));
    }
}

impl<'de> Deserialize<'de> for Vector {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(VectorVisitor)
    }
}

impl<'de> Deserialize<'de> for Vectors {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(VectorsVisitor)
    }
}

struct VectorVisitor;

impl<'de> Visitor<'de> for VectorVisitor {
    type Value = Vector;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an embedding: a list of numbers, or base64 of little-endian f32")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Vector, E> {
        if text.len() > LONGEST * 4 * 4 / 3 + 4 {
            return Err(E::custom(format_args!("an embedding of more than {LONGEST} numbers")));
        }
        let bytes = STANDARD.decode(text).map_err(|_| E::custom("an embedding that is not base64"))?;
        let (values, rest) = bytes.as_chunks::<4>();
        if values.is_empty() || !rest.is_empty() {
            return Err(E::custom(format_args!("{} bytes are no embedding in f32", bytes.len())));
        }
        Ok(Vector(values.iter().map(|&value| f32::from_le_bytes(value)).collect()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Vector, A::Error> {
        // What grows is dropped: the list takes no more than its numbers.
        let mut numbers: Vec<f32> = Vec::new();
        while let Some(number) = seq.next_element()? {
            if numbers.len() == LONGEST {
                return Err(de::Error::custom(format_args!("an embedding of more than {LONGEST} numbers")));
            }
            numbers.push(number);
        }
        if numbers.is_empty() {
            return Err(de::Error::custom("an embedding without numbers"));
        }
        Ok(Vector(numbers.as_slice().into()))
    }
}

struct VectorsVisitor;

impl<'de> Visitor<'de> for VectorsVisitor {
    type Value = Vectors;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of embeddings")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Vectors, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element::<Vector>()? {
            items.push(item);
            within::<A::Error>(items.len())?;
        }
        Ok(Vectors(items))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_base64_are_the_same() {
        let bytes: Vec<u8> = [0.5_f32, -2.0].iter().flat_map(|x| x.to_le_bytes()).collect();
        let json = json!([[0.5, -2], STANDARD.encode(&bytes)]);
        let Vectors(vectors) = serde_json::from_value(json).unwrap();
        assert_eq!(*vectors[0].0, [0.5, -2.0]);
        assert_eq!(vectors[0], vectors[1]);
    }

    #[test]
    fn what_is_no_embedding_is_named() {
        let parse = |json: serde_json::Value| serde_json::from_value::<Vectors>(json);
        for (json, part) in [
            (json!([[]]), "without numbers"),
            (json!([["a"]]), "expected f32"),
            (json!([1.0]), "an embedding: a list of numbers"),
            (json!(["AAA="]), "2 bytes are no embedding"),
            (json!(["?"]), "not base64"),
            (json!([vec![0; LONGEST + 1]]), "more than 16384"),
        ] {
            let error = parse(json.clone()).unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
        }
        let Vectors(found) = parse(json!([[1.0, 1e39], [1.0]])).unwrap();
        let message = |i: usize| found[i].check("embeddings[0]", 2).unwrap_err().detail.message;
        assert!(message(0).contains("number 1 is not finite"), "{}", message(0));
        assert!(message(1).contains("1 numbers; the embeddings of this model have 2"));
    }
}
