//! Changes to a part of a stored set: its examples and its thresholds. Each gives a new version.

use std::collections::HashMap;
use std::sync::Arc;

use super::content::Content;
use super::error::{LabelError, quoted};
use super::examples::Examples;
use super::sets::{LabelSets, Put};
use super::version::{Condition, Version};

/// An example: the name of its label, and its embedding.
pub type Example<'a> = (&'a str, &'a [f32]);

impl LabelSets {
    /// Adds examples, which are embeddings of the space `space`, `width` numbers each.
    ///
    /// # Errors
    /// As [`LabelSets::update`]; [`LabelError::Invalid`] for a label that the set does not have, an embedding that has no direction, a
    /// head, or examples of another space; [`LabelError::TooLarge`] for more than a set may have.
    pub fn add_examples(
        &self,
        name: &str,
        condition: &Condition,
        (space, width): (&str, usize),
        added: &[Example<'_>],
    ) -> Result<Put, LabelError> {
        self.update(name, condition, |version| {
            let content = version.content();
            if content.head.is_some() {
                let message = "a head has no words that examples could be added to";
                return Err(LabelError::invalid("label_set", message));
            }
            let mut examples = match &content.examples {
                Some(examples) if **examples.space() != *space => {
                    let message = format!(
                        "the set has examples of the embedding space {}, these are of {space}: remove those first",
                        examples.space()
                    );
                    return Err(LabelError::invalid("examples", message));
                }
                Some(examples) => (**examples).clone(),
                None => Examples::new(space.into(), width),
            };
            let index = Index::of(version);
            for (at, (label, vector)) in added.iter().enumerate() {
                let place = format!("examples[{at}]");
                let label = index.label(label, &place)?;
                examples.add(label, vector).map_err(|message| LabelError::invalid(place, message))?;
            }
            let examples = Some(Arc::new(examples));
            Ok(Content { definition: content.definition.clone(), examples, head: None })
        })
    }

    /// Removes the examples of some labels, or all.
    ///
    /// # Errors
    /// As [`LabelSets::update`]; [`LabelError::Invalid`] for a label that the set does not have.
    pub fn remove_examples(
        &self,
        name: &str,
        condition: &Condition,
        labels: Option<&[String]>,
    ) -> Result<Put, LabelError> {
        self.update(name, condition, |version| {
            let index = Index::of(version);
            let labels =
                labels.map(|labels| labels.iter().map(|label| index.label(label, "labels")).collect());
            let labels: Option<Vec<u32>> = labels.transpose()?;
            let mut content = (**version.content()).clone();
            let mut examples = content.examples.as_deref().cloned();
            if let Some(examples) = &mut examples {
                examples.remove(labels.as_deref());
            }
            content.examples = examples.filter(|examples| !examples.is_empty()).map(Arc::new);
            Ok(content)
        })
    }

    /// Stores thresholds of labels, by their indices, with a set that is still at this version.
    ///
    /// # Errors
    /// As [`LabelSets::update`]; [`LabelError::Changed`] if it is at another version.
    pub fn set_thresholds(
        &self,
        version: &Version,
        condition: &Condition,
        thresholds: &[(u32, f32)],
    ) -> Result<Put, LabelError> {
        let name = version.name();
        self.update(name, condition, |current| {
            Condition::Match(vec![version.id().to_owned()]).check(name, Some(current))?;
            let mut content = (**current.content()).clone();
            for &(label, threshold) in thresholds {
                if let Some(label) = content.definition.labels.0.get_mut(label as usize) {
                    label.threshold = Some(threshold);
                }
            }
            Ok(content)
        })
    }
}

/// The labels of a version by their names.
#[derive(Debug)]
pub struct Index<'a> {
    version: &'a Version,
    labels: HashMap<&'a str, u32>,
}

impl<'a> Index<'a> {
    /// Of a version.
    pub fn of(version: &'a Version) -> Self {
        let labels =
            version.names().iter().enumerate().map(|(index, name)| (&**name, index as u32)).collect();
        Self { version, labels }
    }

    /// The index of a label; `place` names it in an error.
    ///
    /// # Errors
    /// [`LabelError::Invalid`] if there is no such label.
    pub fn label(&self, name: &str, place: &str) -> Result<u32, LabelError> {
        self.labels.get(name).copied().ok_or_else(|| {
            let message = format!("the label set {:?} has no label {}", self.version.name(), quoted(name));
            LabelError::invalid(place, message)
        })
    }
}
