//! What `siglip serve` is told of label sets.

use std::path::{Path, PathBuf};

use clap::Args;

use super::serve::wrong;
use crate::labels::{Background, Content, SetLimits, check_name, read_file};
use crate::{Error, Result};

/// Arguments about label sets, as they were given.
#[derive(Debug, Clone, Args)]
pub(crate) struct LabelSetArgs {
    /// A label set out of a file (.json, .csv, .txt, or a linear head in .safetensors); repeat it for several
    #[arg(
        long = "label-set",
        value_name = "NAME=FILE",
        env = "SIGLIP_LABEL_SET",
        value_delimiter = ',',
        help_heading = "Label sets"
    )]
    pub(super) label_sets: Vec<String>,
    /// Embeddings of images of all kinds (.npy of `siglip embed`, or .safetensors), which labels can be measured against; repeat it
    /// for several
    #[arg(
        long = "background",
        value_name = "NAME=FILE",
        env = "SIGLIP_BACKGROUND",
        value_delimiter = ',',
        help_heading = "Label sets"
    )]
    pub(super) backgrounds: Vec<String>,
    /// Folder in which label sets are kept; without it they are gone when the service ends
    #[arg(long, value_name = "FOLDER", env = "SIGLIP_DATA_DIR", help_heading = "Label sets")]
    pub(super) data_dir: Option<PathBuf>,
    /// Label sets that are stored
    #[arg(
        long,
        value_name = "N",
        default_value_t = 256,
        env = "SIGLIP_MAX_LABEL_SETS",
        help_heading = "Limits"
    )]
    pub(super) max_label_sets: usize,
    /// Label sets of each API key [default: as many as of all]
    #[arg(long, value_name = "N", env = "SIGLIP_MAX_LABEL_SETS_PER_KEY", help_heading = "Limits")]
    pub(super) max_label_sets_per_key: Option<usize>,
}

/// Label sets and backgrounds to begin with, and where sets are kept.
#[derive(Debug, Clone)]
pub struct LabelSetConfig {
    /// Label sets, by name.
    pub sets: Vec<(String, Content)>,
    /// What labels can be measured against, by name.
    pub backgrounds: Vec<(String, Background)>,
    /// Where sets are kept; in memory where it is `None`.
    pub data_dir: Option<PathBuf>,
}

impl LabelSetArgs {
    /// How many sets may be stored.
    pub(super) fn limits(&self) -> SetLimits {
        let all = self.max_label_sets;
        SetLimits { all, per_key: self.max_label_sets_per_key.unwrap_or(all) }
    }
}

impl TryFrom<&LabelSetArgs> for LabelSetConfig {
    type Error = Error;

    fn try_from(args: &LabelSetArgs) -> Result<Self> {
        let (sets, most) = (named_files("--label-set", &args.label_sets, read_file)?, args.max_label_sets);
        if sets.len() > most {
            let message = format!("{} times --label-set, and --max-label-sets is {most}", sets.len());
            return Err(Error::Config(message));
        }
        let backgrounds = named_files("--background", &args.backgrounds, Background::read)?;
        Ok(Self { sets, backgrounds, data_dir: args.data_dir.clone() })
    }
}

/// Reads files that are given as `NAME=FILE`, each name once.
fn named_files<T>(
    flag: &str,
    given: &[String],
    read: impl Fn(&Path) -> Result<T, String>,
) -> Result<Vec<(String, T)>> {
    let mut files: Vec<(String, T)> = Vec::new();
    for text in given.iter().map(|text| text.trim()).filter(|text| !text.is_empty()) {
        let wrong = |message: &dyn std::fmt::Display| wrong(format!("{flag} {text:?}: {message}"));
        let (name, file) = text.split_once('=').ok_or_else(|| wrong(&"not NAME=FILE"))?;
        check_name(name).map_err(|error| wrong(&error))?;
        if files.iter().any(|(known, _)| known == name) {
            return Err(wrong(&"that name is there already"));
        }
        files.push((name.to_owned(), read(Path::new(file)).map_err(|error| wrong(&error))?));
    }
    Ok(files)
}
