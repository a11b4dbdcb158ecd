//! The options of a request, written once for JSON bodies, queries and forms.

use serde::de::DeserializeOwned;

use crate::api::answer::EmbeddingType;
use crate::api::edge::error::{ApiError, ApiResult};
use crate::api::native::schema::{EncodingFormat, Modality};
use crate::api::read::{Bounded, parsed_bound};
use crate::labels::NoneRule;
use crate::model::zero_shot::Activation;
use crate::text::Canonicalization;

/// A request as a struct whose fields are all optional: the body, the query and the fields of a form each fill some.
pub trait Options: Default + DeserializeOwned + Heap + Send + 'static {
    /// Fields that only a JSON body can hold.
    const INPUTS: &'static [&'static str];
    /// Lists of strings; in a query or a form, repeated fields.
    const LISTS: &'static [&'static str];

    /// These and those of `other`, which came by another way.
    ///
    /// # Errors
    /// 400 if both hold the same field.
    fn and(self, other: Self) -> ApiResult<Self>;
}

/// A JSON body that a route reads.
pub trait JsonBody: DeserializeOwned + Send + 'static {
    /// Bytes that parsing a body can make at most.
    fn bound(body: &[u8]) -> usize {
        parsed_bound(body.len())
    }

    /// Bytes on the heap once it is parsed.
    fn held(&self) -> usize;
}

impl<T: DeserializeOwned + Heap + Send + 'static> JsonBody for T {
    fn held(&self) -> usize {
        self.heap()
    }
}

/// Bytes of a value on the heap.
pub trait Heap {
    /// Bytes of this value on the heap.
    fn heap(&self) -> usize {
        0
    }
}

impl Heap for bool {}
impl Heap for usize {}
impl Heap for f32 {}
impl Heap for EmbeddingType {}
impl Heap for EncodingFormat {}
impl Heap for Modality {}
impl Heap for Activation {}
impl Heap for Canonicalization {}

impl Heap for NoneRule {
    fn heap(&self) -> usize {
        match self {
            Self::Against { against, .. } => against.heap(),
            Self::Background { background, .. } => background.heap(),
            Self::Off | Self::On | Self::Threshold(_) => 0,
        }
    }
}

impl Heap for String {
    fn heap(&self) -> usize {
        self.capacity()
    }
}

impl<T: Heap> Heap for Vec<T> {
    fn heap(&self) -> usize {
        self.capacity() * size_of::<T>() + self.iter().map(Heap::heap).sum::<usize>()
    }
}

impl<T: Heap> Heap for Bounded<T> {
    fn heap(&self) -> usize {
        self.0.heap()
    }
}

impl<T: Heap> Heap for Option<T> {
    fn heap(&self) -> usize {
        self.as_ref().map_or(0, Heap::heap)
    }
}

/// 400: a field that the request cannot do without is missing.
pub fn missing(field: &str) -> ApiError {
    ApiError::bad_request("invalid_request", format!("missing field `{field}`"))
}

/// Defines a request: a struct with its schema, its [`Options`], and nothing written twice. `inputs` are needed and only a JSON
/// body can hold them; of `either` there is one or the other. `foreign` fields are those of dialects that share the route: they
/// are read from JSON bodies and are no part of our contract.
macro_rules! options {
    (
        $(#[$meta:meta])*
        pub struct $name:ident {
            inputs { $( $(#[$input_meta:meta])* $input:ident: $input_type:ty, )* }
            $( either { $( $(#[$either_meta:meta])* $either:ident: $either_type:ty, )* } )?
            lists { $( $(#[$list_meta:meta])* $list:ident, )* }
            options { $( $(#[$field_meta:meta])* $field:ident: $type:ty, )* }
            $(foreign { $( $(#[$foreign_meta:meta])* $foreign:ident: $foreign_type:ty, )* })?
        }
    ) => {
        #[derive(Debug, Clone, Default, serde::Deserialize, utoipa::ToSchema)]
        $(#[$meta])*
        #[serde(deny_unknown_fields)]
        pub struct $name {
            $( $(#[$input_meta])* #[schema(value_type = $input_type, required = true)] pub $input: Option<$input_type>, )*
            $( $( $(#[$either_meta])* pub $either: Option<$either_type>, )* )?
            $( $(#[$list_meta])* pub $list: Option<$crate::api::read::Bounded<String>>, )*
            $( $(#[$field_meta])* pub $field: Option<$type>, )*
            $($( $(#[$foreign_meta])* #[schema(ignore)] pub $foreign: Option<$foreign_type>, )*)?
        }

        impl $crate::api::read::Options for $name {
            const INPUTS: &'static [&'static str] =
                &[$(stringify!($input),)* $($(stringify!($either),)*)? $($(stringify!($foreign),)*)?];
            const LISTS: &'static [&'static str] = &[$(stringify!($list)),*];

            fn and(self, other: Self) -> $crate::api::edge::error::ApiResult<Self> {
                fn one<T>(field: &str, a: Option<T>, b: Option<T>) -> $crate::api::edge::error::ApiResult<Option<T>> {
                    match (a, b) {
                        (Some(_), Some(_)) => Err($crate::api::edge::error::ApiError::bad_request(
                            "invalid_request",
                            "it is in the query and in the body; send it once",
                        )
                        .at(field)),
                        (a, b) => Ok(a.or(b)),
                    }
                }
                Ok(Self {
                    $( $input: one(stringify!($input), self.$input, other.$input)?, )*
                    $( $( $either: one(stringify!($either), self.$either, other.$either)?, )* )?
                    $( $list: one(stringify!($list), self.$list, other.$list)?, )*
                    $( $field: one(stringify!($field), self.$field, other.$field)?, )*
                    $($( $foreign: one(stringify!($foreign), self.$foreign, other.$foreign)?, )*)?
                })
            }
        }

        impl $crate::api::read::Heap for $name {
            fn heap(&self) -> usize {
                0 $( + $crate::api::read::Heap::heap(&self.$input) )*
                  $( $( + $crate::api::read::Heap::heap(&self.$either) )* )?
                  $( + $crate::api::read::Heap::heap(&self.$list) )*
                  $( + $crate::api::read::Heap::heap(&self.$field) )*
                  $($( + $crate::api::read::Heap::heap(&self.$foreign) )*)?
            }
        }
    };
}
pub(crate) use options;
