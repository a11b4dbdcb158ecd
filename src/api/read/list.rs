//! Lists that a small body cannot make large.

use std::fmt;
use std::marker::PhantomData;

use serde::Deserialize;
use serde::de::value::{MapAccessDeserializer, SeqAccessDeserializer};
use serde::de::{self, DeserializeOwned, Deserializer, IntoDeserializer, MapAccess, SeqAccess, Visitor};

use super::Heap;

/// No list of a request is longer than this, whatever the service's own limits are: it bounds what a small body
/// of many tiny elements can become.
pub const MOST: usize = 65_536;

/// A list of at most [`MOST`] elements. Reading stops at the first one too many.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Bounded<T>(pub Vec<T>);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Bounded<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ListVisitor<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for ListVisitor<T> {
            type Value = Bounded<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Bounded<T>, A::Error> {
                let mut items = Vec::new();
                while let Some(item) = seq.next_element()? {
                    items.push(item);
                    within::<A::Error>(items.len())?;
                }
                Ok(Bounded(items))
            }
        }

        deserializer.deserialize_seq(ListVisitor(PhantomData))
    }
}

/// What a request may hold once or in a list.
pub trait Listed: DeserializeOwned {
    /// What is expected where one or many of them may be, for messages.
    const ONE_OR_MANY: &'static str;
}

impl Listed for String {
    const ONE_OR_MANY: &'static str = "a string or a list of strings";
}

/// A string or an object that is one element, or a list of at most [`MOST`] elements, of whatever kind these are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OneOrMany<T> {
    /// The elements in their order.
    pub items: Vec<T>,
    /// Whether there was no list around it.
    pub single: bool,
}

impl<T: Heap> Heap for OneOrMany<T> {
    fn heap(&self) -> usize {
        self.items.heap()
    }
}

impl<'de, T: Listed> Deserialize<'de> for OneOrMany<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OneOrManyVisitor<T>(PhantomData<T>);

        impl<'de, T: Listed> Visitor<'de> for OneOrManyVisitor<T> {
            type Value = OneOrMany<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(T::ONE_OR_MANY)
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<OneOrMany<T>, E> {
                one(T::deserialize(text.into_deserializer()))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<OneOrMany<T>, A::Error> {
                one(T::deserialize(MapAccessDeserializer::new(map)))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<OneOrMany<T>, A::Error> {
                let list = Bounded::deserialize(SeqAccessDeserializer::new(seq))?;
                Ok(OneOrMany { items: list.0, single: false })
            }
        }

        fn one<T, E>(item: Result<T, E>) -> Result<OneOrMany<T>, E> {
            Ok(OneOrMany { items: vec![item?], single: true })
        }

        deserializer.deserialize_any(OneOrManyVisitor(PhantomData))
    }
}

/// Whether a list may have so many elements.
///
/// # Errors
/// If it may not.
pub fn within<E: de::Error>(len: usize) -> Result<(), E> {
    if len <= MOST { Ok(()) } else { Err(E::custom(format!("a list of more than {MOST} elements"))) }
}
