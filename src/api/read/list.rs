//! Lists that a small body cannot make large.

use std::fmt;
use std::marker::PhantomData;

use serde::Deserialize;
use serde::de::{self, Deserializer, SeqAccess, Visitor};

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

/// Whether a list may have so many elements.
///
/// # Errors
/// If it may not.
pub fn within<E: de::Error>(len: usize) -> Result<(), E> {
    if len <= MOST { Ok(()) } else { Err(E::custom(format!("a list of more than {MOST} elements"))) }
}
