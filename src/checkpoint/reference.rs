//! What `--model` may name.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use super::CheckpointError;

/// Where a checkpoint comes from.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ModelRef {
    /// A folder, or a single `.npz` or `.safetensors` file.
    Path(PathBuf),
    /// A repository on the Hugging Face hub.
    Hub {
        /// `owner/name`.
        id: String,
        /// A branch, tag or commit; `main` where none is given.
        revision: Option<String>,
    },
    /// The model inside the program.
    Demo,
}

impl FromStr for ModelRef {
    type Err = CheckpointError;

    /// `demo`; else a path if there is one of that name, or if it is written like one (`./x`, `/x`,
    /// `~/x`, `x.npz`, `x.safetensors`); else a hub id `owner/name[@revision]`.
    fn from_str(text: &str) -> Result<Self, CheckpointError> {
        if text == "demo" {
            return Ok(Self::Demo);
        }
        let path = Path::new(text);
        let file = path.extension().is_some_and(|end| end == "npz" || end == "safetensors");
        let written_as_path = text.starts_with(['.', '/', '~', '\\']) || path.is_absolute();
        if !text.is_empty() && (written_as_path || file || path.exists()) {
            return Ok(Self::Path(path.to_path_buf()));
        }
        let (id, revision) = match text.split_once('@') {
            Some((id, revision)) => (id, Some(revision)),
            None => (text, None),
        };
        let invalid = |reason: &str| CheckpointError::InvalidReference {
            reference: text.to_string(),
            reason: reason.to_string(),
        };
        let parts: Vec<&str> = id.split('/').collect();
        if parts.len() != 2 || !parts.iter().all(|part| is_name(part)) {
            return Err(invalid(
                "neither an existing folder or file, nor a Hugging Face id (owner/name[@revision]), nor demo",
            ));
        }
        // A revision may hold slashes (refs/pr/1), but becomes a path in the cache.
        if revision.is_some_and(|revision| !revision.split('/').all(is_name)) {
            return Err(invalid("what follows the @ is not a branch, a tag or a commit"));
        }
        Ok(Self::Hub { id: id.to_string(), revision: revision.map(str::to_string) })
    }
}

fn is_name(part: &str) -> bool {
    let known = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    !part.is_empty() && part.len() <= 96 && part.bytes().all(known) && part.bytes().any(|byte| byte != b'.')
}

impl fmt::Display for ModelRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Path(path) => write!(f, "{}", path.display()),
            Self::Hub { id, revision: None } => write!(f, "{id}"),
            Self::Hub { id, revision: Some(revision) } => write!(f, "{id}@{revision}"),
            Self::Demo => write!(f, "demo"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hub(id: &str, revision: Option<&str>) -> ModelRef {
        ModelRef::Hub { id: id.into(), revision: revision.map(str::to_string) }
    }

    #[test]
    fn names_are_told_apart() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().display().to_string();
        assert_eq!(path.parse::<ModelRef>().unwrap(), ModelRef::Path(folder.path().to_path_buf()));
        assert_eq!("demo".parse::<ModelRef>().unwrap(), ModelRef::Demo);
        assert_eq!("a/b.npz".parse::<ModelRef>().unwrap(), ModelRef::Path("a/b.npz".into()));
        assert_eq!("./nowhere".parse::<ModelRef>().unwrap(), ModelRef::Path("./nowhere".into()));
        assert_eq!("google/x-1".parse::<ModelRef>().unwrap(), hub("google/x-1", None));
        assert_eq!("google/x@refs/pr/1".parse::<ModelRef>().unwrap(), hub("google/x", Some("refs/pr/1")));
    }

    #[test]
    fn nothing_leads_out_of_the_cache() {
        for bad in ["", "x", "a/b/c", "a/..", "../b", "a/b@", "a/b@../../x", "a/b@x//y", "a/b c", "a\\b/c"] {
            let parsed = bad.parse::<ModelRef>();
            assert!(!matches!(parsed, Ok(ModelRef::Hub { .. })), "{bad:?} gave {parsed:?}");
        }
    }
}
