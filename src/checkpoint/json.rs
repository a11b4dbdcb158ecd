//! Typed access to the fields of a configuration file, with errors that name the file and the field.

use serde_json::{Map, Value};

use super::CheckpointError;
use super::files::Files;

/// Largest configuration file; a sharded index of a large language model is about 100 KB.
const LIMIT: u64 = 16 << 20;

/// An object in a JSON file, and where it is.
#[derive(Debug, Clone)]
pub(super) struct Object {
    pub(super) file: String,
    path: String,
    map: Map<String, Value>,
}

impl Object {
    /// Reads a file; `None` where there is none.
    pub(super) fn read(files: &Files, name: &str) -> Result<Option<Self>, CheckpointError> {
        let Some(bytes) = files.read(name, LIMIT)? else { return Ok(None) };
        Self::parse(files.label(name), &bytes).map(Some)
    }

    /// Parses the bytes of a file.
    pub(super) fn parse(file: String, bytes: &[u8]) -> Result<Self, CheckpointError> {
        match serde_json::from_slice(bytes) {
            Ok(Value::Object(map)) => Ok(Self { file, path: String::new(), map }),
            Ok(_) => Err(CheckpointError::Json { file, reason: "expected an object".into() }),
            Err(error) => Err(CheckpointError::Json { file, reason: error.to_string() }),
        }
    }

    /// An empty object in the same file: every field has its default.
    pub(super) fn empty(&self, name: &str) -> Self {
        Self { file: self.file.clone(), path: self.field(name), map: Map::new() }
    }

    fn field(&self, name: &str) -> String {
        if self.path.is_empty() { name.to_string() } else { format!("{}.{name}", self.path) }
    }

    /// An error about a field of this object.
    pub(super) fn error(&self, name: &str, reason: impl Into<String>) -> CheckpointError {
        CheckpointError::Field { file: self.file.clone(), field: self.field(name), reason: reason.into() }
    }

    fn wrong(&self, name: &str, expected: &str, found: &Value) -> CheckpointError {
        let mut found = found.to_string();
        if found.len() > 80 {
            found = found.chars().take(80).chain("…".chars()).collect();
        }
        self.error(name, format!("expected {expected}, found {found}"))
    }

    /// The raw value; `null` counts as absent, as in Python's configuration classes.
    pub(super) fn get(&self, name: &str) -> Option<&Value> {
        self.map.get(name).filter(|value| !value.is_null())
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    pub(super) fn keys(&self) -> impl Iterator<Item = &String> {
        self.map.keys()
    }

    pub(super) fn object(&self, name: &str) -> Result<Option<Self>, CheckpointError> {
        match self.get(name) {
            None => Ok(None),
            Some(Value::Object(map)) => {
                Ok(Some(Self { file: self.file.clone(), path: self.field(name), map: map.clone() }))
            }
            Some(other) => Err(self.wrong(name, "an object", other)),
        }
    }

    pub(super) fn text(&self, name: &str) -> Result<Option<&str>, CheckpointError> {
        match self.get(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(other) => Err(self.wrong(name, "a string", other)),
        }
    }

    pub(super) fn flag(&self, name: &str) -> Result<Option<bool>, CheckpointError> {
        match self.get(name) {
            None => Ok(None),
            Some(Value::Bool(flag)) => Ok(Some(*flag)),
            Some(other) => Err(self.wrong(name, "true or false", other)),
        }
    }

    pub(super) fn number(&self, name: &str) -> Result<Option<f64>, CheckpointError> {
        match self.get(name) {
            None => Ok(None),
            Some(value) => match value.as_f64().filter(|number| number.is_finite()) {
                Some(number) => Ok(Some(number)),
                None => Err(self.wrong(name, "a number", value)),
            },
        }
    }

    /// A size from 1 to `limit`.
    pub(super) fn size(&self, name: &str, limit: usize) -> Result<Option<usize>, CheckpointError> {
        self.get(name).map(|value| self.as_size(name, value, limit)).transpose()
    }

    fn as_size(&self, name: &str, value: &Value, limit: usize) -> Result<usize, CheckpointError> {
        value
            .as_u64()
            .and_then(|size| usize::try_from(size).ok())
            .filter(|size| (1..=limit).contains(size))
            .ok_or_else(|| self.wrong(name, &format!("a whole number from 1 to {limit}"), value))
    }

    /// Height and width, given as one number or as a list of two.
    pub(super) fn pair(&self, name: &str, limit: usize) -> Result<Option<(usize, usize)>, CheckpointError> {
        match self.get(name) {
            None => Ok(None),
            Some(Value::Array(items)) if items.len() == 2 => {
                Ok(Some((self.as_size(name, &items[0], limit)?, self.as_size(name, &items[1], limit)?)))
            }
            Some(value) => self.as_size(name, value, limit).map(|size| Some((size, size))),
        }
    }

    /// A list of exactly three finite numbers.
    pub(super) fn triple(&self, name: &str) -> Result<Option<[f32; 3]>, CheckpointError> {
        let Some(value) = self.get(name) else { return Ok(None) };
        let numbers: Option<Vec<f32>> = value
            .as_array()
            .filter(|items| items.len() == 3)
            .map(|items| items.iter().filter_map(Value::as_f64).map(|number| number as f32).collect());
        match numbers.as_deref() {
            Some(&[red, green, blue]) if [red, green, blue].iter().all(|n| n.is_finite()) => {
                Ok(Some([red, green, blue]))
            }
            _ => Err(self.wrong(name, "a list of three numbers", value)),
        }
    }
}
