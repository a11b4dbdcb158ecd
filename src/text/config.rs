//! What `tokenizer_config.json` and `special_tokens_map.json` say about special tokens.

use serde_json::Value;

use super::{TextError, TokenizerFiles};

/// A special token as the configuration describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SpecialToken {
    /// Its text.
    pub content: String,
    /// Its id, where `added_tokens_decoder` says it.
    pub id: Option<u32>,
    /// White space to its left is swallowed.
    pub lstrip: bool,
    /// White space to its right is swallowed.
    pub rstrip: bool,
}

/// What the two files say together.
#[derive(Debug, Default)]
pub(super) struct TokenizerConfig {
    /// The padding token and the file that names it.
    pub pad: Option<(String, &'static str)>,
    /// The end token and the file that names it.
    pub eos: Option<(String, &'static str)>,
    /// The unknown token.
    pub unk: Option<String>,
    /// Every token of `added_tokens_decoder`.
    pub added: Vec<SpecialToken>,
}

const CONFIG: &str = "tokenizer_config.json";
const MAP: &str = "special_tokens_map.json";

impl TokenizerConfig {
    /// Reads both files; either may be absent.
    pub fn read(files: &TokenizerFiles) -> Result<Self, TextError> {
        let config = object(files.config.as_deref(), CONFIG)?;
        let map = object(files.special_tokens.as_deref(), MAP)?;
        let named = |key: &str| -> Result<Option<(String, &'static str)>, TextError> {
            for (object, kind) in [(&config, CONFIG), (&map, MAP)] {
                if let Some(content) = token(object.get(key), key, kind)? {
                    return Ok(Some((content, kind)));
                }
            }
            Ok(None)
        };
        let (pad, eos) = (named("pad_token")?, named("eos_token")?);
        let unk = named("unk_token")?.map(|(content, _)| content);
        let mut added = Vec::new();
        if let Some(tokens) = config.get("added_tokens_decoder").and_then(Value::as_object) {
            for (id, token) in tokens {
                let bad = |what: &str| TextError::Tokenizer {
                    kind: CONFIG,
                    reason: format!("added_tokens_decoder[{id:?}] {what}"),
                };
                let flag = |key: &str| token.get(key).and_then(Value::as_bool).unwrap_or(false);
                added.push(SpecialToken {
                    content: token
                        .get("content")
                        .and_then(Value::as_str)
                        .filter(|content| !content.is_empty())
                        .ok_or_else(|| bad("has no content"))?
                        .to_owned(),
                    id: Some(id.parse().map_err(|_| bad("is not keyed by a token id"))?),
                    lstrip: flag("lstrip"),
                    rstrip: flag("rstrip"),
                });
            }
        }
        Ok(Self { pad, eos, unk, added })
    }

    /// The id that `added_tokens_decoder` gives to a token.
    pub fn added_id(&self, content: &str) -> Option<u32> {
        self.added.iter().find(|token| token.content == content).and_then(|token| token.id)
    }
}

fn object(bytes: Option<&[u8]>, kind: &'static str) -> Result<Value, TextError> {
    let Some(bytes) = bytes else { return Ok(Value::Null) };
    match serde_json::from_slice(bytes) {
        Ok(value @ Value::Object(_)) => Ok(value),
        Ok(_) => Err(TextError::Tokenizer { kind, reason: "it is not a JSON object".into() }),
        Err(error) => Err(TextError::Tokenizer { kind, reason: error.to_string() }),
    }
}

/// A token is a string or an object with its `content`; `null` is none.
fn token(value: Option<&Value>, key: &str, kind: &'static str) -> Result<Option<String>, TextError> {
    match value {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(content)) => Ok(Some(content.clone())),
        Some(value) => match value.get("content").and_then(Value::as_str) {
            Some(content) => Ok(Some(content.to_owned())),
            None => {
                Err(TextError::Tokenizer { kind, reason: format!("{key} is neither a string nor a token") })
            }
        },
    }
}
