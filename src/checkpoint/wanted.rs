//! Which part of a checkpoint is wanted.

use clap::ValueEnum;

use super::CheckpointError;
use crate::model::ModelSpec;

/// A tower.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Tower {
    /// Pictures.
    Image,
    /// Texts.
    Text,
}

/// What is taken of a checkpoint. By default everything, with texts of the usual length.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Only this tower. The tensors of the other one, and the scores of both, are not looked at.
    pub tower: Option<Tower>,
    /// The text tower for long texts, of a checkpoint that has positions and a head for them (FG-CLIP 2).
    pub long_texts: bool,
}

impl Wanted {
    /// Refuses long texts without a text tower.
    pub(super) fn check(self) -> Result<(), CheckpointError> {
        match self {
            Self { tower: Some(Tower::Image), long_texts: true } => Err(CheckpointError::Unsupported {
                file: "--tower image".to_owned(),
                what: "--long-texts is for the text tower".to_owned(),
            }),
            _ => Ok(()),
        }
    }

    /// Whether the image tower is.
    pub(super) fn image(self) -> bool {
        self.tower != Some(Tower::Text)
    }

    /// Whether the text tower is.
    pub(super) fn text(self) -> bool {
        self.tower != Some(Tower::Image)
    }

    /// Takes the other tower out of a spec.
    pub(super) fn choose(self, spec: &mut ModelSpec, file: &str) -> Result<(), CheckpointError> {
        let missing = |tower: &str| CheckpointError::Unsupported {
            file: file.to_owned(),
            what: format!("there is no {tower} tower in it (--tower {tower})"),
        };
        match self.tower {
            None => return Ok(()),
            Some(Tower::Image) if spec.image.is_none() => return Err(missing("image")),
            Some(Tower::Text) if spec.text.is_none() => return Err(missing("text")),
            Some(Tower::Image) => spec.text = None,
            Some(Tower::Text) => (spec.image, spec.classifier) = (None, None),
        }
        spec.scores = false;
        Ok(())
    }

    /// Refuses long texts in a layout that has nothing for them.
    pub(super) fn only_short_texts(self, file: &str) -> Result<(), CheckpointError> {
        if self.long_texts { Err(no_long_texts(file)) } else { Ok(()) }
    }
}

/// Says that a checkpoint has nothing for long texts.
pub(super) fn no_long_texts(file: &str) -> CheckpointError {
    CheckpointError::Unsupported {
        file: file.to_owned(),
        what: "it has no positions and no head for long texts (--long-texts), as FG-CLIP 2 has".to_owned(),
    }
}
