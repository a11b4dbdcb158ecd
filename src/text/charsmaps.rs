//! A look at the compiled character maps of a `tokenizer.json`, before the library reads it.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::de::{self, Deserialize, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};

use super::sentencepiece::check_charsmap;

/// The key of a compiled character map.
const KEY: &str = "precompiled_charsmap";

/// JSON of which every compiled character map is sound: the library reserves as much memory as one claims to need. Nothing
/// is kept of it: a vocabulary may be large.
pub(super) struct Checked;

impl<'de> Deserialize<'de> for Checked {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(CheckedVisitor { charsmap: false })
    }
}

#[derive(Clone, Copy)]
struct CheckedVisitor {
    /// The value is that of [`KEY`].
    charsmap: bool,
}

impl<'de> DeserializeSeed<'de> for CheckedVisitor {
    type Value = Checked;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Checked, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for CheckedVisitor {
    type Value = Checked;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Checked, E> {
        if self.charsmap {
            let bytes =
                STANDARD.decode(text).map_err(|_| E::custom("its precompiled_charsmap is not base64"))?;
            check_charsmap(&bytes).map_err(E::custom)?;
        }
        Ok(Checked)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Checked, A::Error> {
        while let Some(key) = map.next_key::<String>()? {
            map.next_value_seed(CheckedVisitor { charsmap: key == KEY })?;
        }
        Ok(Checked)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<Checked, A::Error> {
        while sequence.next_element::<Checked>()?.is_some() {}
        Ok(Checked)
    }

    fn visit_unit<E>(self) -> Result<Checked, E> {
        Ok(Checked)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Checked, E> {
        Ok(Checked)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Checked, E> {
        Ok(Checked)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Checked, E> {
        Ok(Checked)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Checked, E> {
        Ok(Checked)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(json: &str) -> Result<(), String> {
        serde_json::from_str::<Checked>(json).map(|_| ()).map_err(|error| error.to_string())
    }

    #[test]
    fn maps_are_found_at_any_depth_and_however_the_key_is_written() {
        assert_eq!(
            check(r#"{"a": [1, -2, 0.5, null, true, {"precompiled_charsmap": null}], "b": "?"}"#),
            Ok(())
        );
        // 255 bytes of a trie are claimed, none are there.
        for key in ["precompiled_charsmap", r"\u0070recompiled_charsmap"] {
            let error = check(&format!(r#"{{"n": {{"list": [{{"{key}": "/wAAAA=="}}]}}}}"#)).unwrap_err();
            assert!(error.contains("says a trie of 255 bytes"), "{error}");
        }
        assert!(check(r#"{"precompiled_charsmap": "%"}"#).unwrap_err().contains("not base64"));
        assert!(check("{").is_err());
    }
}
