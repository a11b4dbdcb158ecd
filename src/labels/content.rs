//! All of a label set as bytes, and the version that they hash to.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::definition::{Definition, hex};
use super::error::LabelError;
use super::examples::{Examples, MAX_CELLS, MAX_EXAMPLES};
use super::head::HeadWeights;

/// What a file of a label set begins with.
const MAGIC: &[u8] = b"SIGLIP LABEL SET 1\n";
/// Bytes of SHA-256 at the end.
const CHECKSUM: usize = 32;
/// Hexadecimal digits of a version.
const VERSION: usize = 32;

/// All of a label set.
#[derive(Debug, Clone, PartialEq)]
pub struct Content {
    /// What was sent.
    pub definition: Definition,
    /// Embeddings that labels are to fit, where there are any.
    pub examples: Option<Arc<Examples>>,
    /// The rows of a set of kind `head`.
    pub head: Option<Arc<HeadWeights>>,
}

/// What comes before the numbers.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    definition: Definition,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    examples: Option<ExamplesHeader>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    head: Option<HeadHeader>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ExamplesHeader {
    space: String,
    width: usize,
    /// Label and number of its examples.
    counts: Vec<(u32, u32)>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct HeadHeader {
    width: usize,
    normalize: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    space: Option<String>,
}

impl Content {
    /// A set without examples.
    pub fn of(definition: Definition) -> Self {
        Self { definition, examples: None, head: None }
    }

    /// Its bytes, and the version: the first half of their SHA-256 in hex.
    ///
    /// # Errors
    /// If the definition cannot be written as JSON.
    pub fn encode(&self) -> Result<(Vec<u8>, String), serde_json::Error> {
        let examples = self.examples.as_deref();
        let header = Header {
            definition: self.definition.clone(),
            examples: examples.map(|examples| ExamplesHeader {
                space: examples.space().to_string(),
                width: examples.width(),
                counts: examples.counts().map(|(label, count)| (label, count as u32)).collect(),
            }),
            head: self.head.as_deref().map(|head| HeadHeader {
                width: head.width,
                normalize: head.normalize,
                space: head.space.as_deref().map(str::to_owned),
            }),
        };
        let json = serde_json::to_vec(&header)?;
        let mut bytes = MAGIC.to_vec();
        bytes.extend_from_slice(&(json.len() as u64).to_le_bytes());
        bytes.extend_from_slice(&json);
        drop(json);
        let mut add = |values: &[f32]| values.iter().for_each(|x| bytes.extend_from_slice(&x.to_le_bytes()));
        if let Some(examples) = examples {
            examples.vectors().for_each(|(_, vector)| add(vector));
        }
        if let Some(head) = self.head.as_deref() {
            add(&head.rows);
            add(&head.bias);
        }
        let hash = Sha256::digest(&bytes);
        bytes.extend_from_slice(&hash);
        Ok((bytes, version_of(&hash)))
    }

    /// Reads what [`Content::encode`] wrote, and its version.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn decode(bytes: &[u8]) -> Result<(Self, String), String> {
        let end = bytes.len().checked_sub(CHECKSUM).ok_or("it is cut short")?;
        let (bytes, checksum) = bytes.split_at(end);
        let hash = Sha256::digest(bytes);
        if hash.as_slice() != checksum {
            return Err("its checksum does not fit: it is cut short or damaged".to_owned());
        }
        let rest = bytes.strip_prefix(MAGIC).ok_or("it is no label set of this version of the program")?;
        let (length, rest) = rest.split_first_chunk::<8>().ok_or("it is cut short")?;
        let length = usize::try_from(u64::from_le_bytes(*length)).unwrap_or(usize::MAX);
        let (json, numbers) = rest.split_at_checked(length).ok_or("it is cut short")?;
        let Header { definition, examples, head } =
            serde_json::from_slice(json).map_err(|error| format!("its definition: {error}"))?;
        definition.check().map_err(|error| format!("its definition: {error}"))?;
        let mut numbers = Numbers(numbers);
        let labels = definition.labels.0.len();
        let examples = examples.map(|header| read_examples(header, labels, &mut numbers)).transpose()?;
        let head = head.map(|header| read_head(header, labels, &mut numbers)).transpose()?;
        if !numbers.0.is_empty() {
            return Err("there are more numbers than its header says".to_owned());
        }
        let content = Self { definition, examples: examples.map(Arc::new), head: head.map(Arc::new) };
        content.check_examples().map_err(|error| error.to_string())?;
        Ok((content, version_of(&hash)))
    }

    /// Checks that there are not more examples than a set may have, whichever way they came.
    ///
    /// # Errors
    /// [`LabelError::TooLarge`].
    pub fn check_examples(&self) -> Result<(), LabelError> {
        let (count, labels) =
            (self.examples.as_ref().map_or(0, |examples| examples.len()), self.definition.labels.0.len());
        if count > MAX_EXAMPLES || count.saturating_mul(labels) > MAX_CELLS {
            let message = format!(
                "{count} examples for {labels} labels; a set has at most {MAX_EXAMPLES}, and at most {MAX_CELLS} examples \
                 times labels"
            );
            return Err(LabelError::too_large("examples", message));
        }
        Ok(())
    }

    /// Bytes on the heap, about.
    pub fn heap(&self) -> usize {
        let examples = self.examples.as_deref().map_or(0, Examples::heap);
        let head = self.head.as_deref().map_or(0, |head| (head.rows.len() + head.bias.len()) * 4);
        self.definition.heap() + examples + head
    }
}

fn version_of(hash: &[u8]) -> String {
    let mut version = hex(hash);
    version.truncate(VERSION);
    version
}

/// Numbers that are read one run after the other.
struct Numbers<'a>(&'a [u8]);

impl Numbers<'_> {
    fn take(&mut self, count: usize) -> Result<Vec<f32>, String> {
        let (bytes, rest) = count
            .checked_mul(4)
            .and_then(|length| self.0.split_at_checked(length))
            .ok_or("there are fewer numbers than its header says")?;
        self.0 = rest;
        let (values, _) = bytes.as_chunks::<4>();
        Ok(values.iter().map(|&value| f32::from_le_bytes(value)).collect())
    }
}

fn read_examples(header: ExamplesHeader, labels: usize, numbers: &mut Numbers) -> Result<Examples, String> {
    let ExamplesHeader { space, width, counts } = header;
    let mut examples = Examples::new(space.into(), width);
    for (label, count) in counts {
        if label as usize >= labels {
            return Err(format!("examples of label {label} of {labels}"));
        }
        for _ in 0..count {
            let vector = numbers.take(width)?;
            examples.add_unit(label, vector).map_err(|message| format!("its examples: {message}"))?;
        }
    }
    Ok(examples)
}

fn read_head(header: HeadHeader, labels: usize, numbers: &mut Numbers) -> Result<HeadWeights, String> {
    let HeadHeader { width, normalize, space } = header;
    let rows = numbers.take(labels.checked_mul(width).ok_or("a head that is too large")?)?;
    let bias = numbers.take(labels)?;
    Ok(HeadWeights { rows: rows.into(), bias: bias.into(), width, normalize, space: space.map(Into::into) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn content() -> Content {
        let definition = serde_json::from_str(
            r#"{"labels": ["cat", {"name": "dog", "synonyms": ["puppy"], "threshold": 0.3}], "none": true}"#,
        );
        let mut examples = Examples::new("space".into(), 3);
        examples.add(1, &[0.0, 1.0, 0.0]).unwrap();
        examples.add(1, &[0.0, 0.6, 0.8]).unwrap();
        Content { examples: Some(Arc::new(examples)), ..Content::of(definition.unwrap()) }
    }

    #[test]
    fn what_was_written_is_read_and_its_version_is_that_of_its_bytes() {
        let (bytes, version) = content().encode().unwrap();
        assert_eq!(version.len(), 32);
        let (read, same) = Content::decode(&bytes).unwrap();
        assert_eq!((read, same), (content(), version.clone()));
        let head = HeadWeights {
            rows: vec![1.0; 6].into(),
            bias: vec![0.0, 1.0].into(),
            width: 3,
            normalize: true,
            space: Some("space".into()),
        };
        let head = Content { head: Some(Arc::new(head)), examples: None, ..content() };
        let (bytes, other) = head.encode().unwrap();
        assert_ne!(version, other);
        assert_eq!(Content::decode(&bytes).unwrap(), (head, other));
    }

    #[test]
    fn nothing_that_is_damaged_is_read() {
        let (bytes, _) = content().encode().unwrap();
        for length in 0..bytes.len() {
            assert!(Content::decode(&bytes[..length]).is_err(), "cut at {length}");
        }
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1;
            assert!(Content::decode(&damaged).is_err(), "byte {at}");
        }
    }

    #[test]
    fn sizes_that_a_header_only_claims_are_not_believed() {
        let claim = |examples: &str| {
            let json = format!(r#"{{"definition": {{"labels": ["a"]}}, "examples": {examples}}}"#);
            let mut bytes = MAGIC.to_vec();
            bytes.extend_from_slice(&(json.len() as u64).to_le_bytes());
            bytes.extend_from_slice(json.as_bytes());
            let hash = Sha256::digest(&bytes);
            bytes.extend_from_slice(&hash);
            Content::decode(&bytes).unwrap_err()
        };
        let error = claim(r#"{"space": "s", "width": 4611686018427387904, "counts": [[0, 1]]}"#);
        assert!(error.contains("fewer numbers"), "{error}");
        assert!(claim(r#"{"space": "s", "width": 1, "counts": [[1, 1]]}"#).contains("label 1 of 1"));
    }
}
