//! What a label set is: its labels with their texts, how they are scored, and the version that follows from all of it.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::error::{LabelError, quoted};
use super::read::{LabelList, NoneRule, Templates};
use super::templates::{built_in, built_in_names};
use crate::model::zero_shot::{Activation, SLOT};
use crate::text::Canonicalization;

/// Labels of a set at most.
pub const MAX_LABELS: usize = 100_000;
/// Synonyms and prompts of a label at most, each.
pub const MAX_WORDS: usize = 64;
/// Templates of a set at most.
pub const MAX_TEMPLATES: usize = 256;
/// Texts that a set is encoded from at most.
pub const MAX_TEXTS: usize = 10_000_000;
/// Bytes of a label at most: the context of SigLIP is 64 tokens.
pub const LABEL_BYTES: usize = 1000;
/// Bytes of a template or a prompt at most.
pub const TEMPLATE_BYTES: usize = 4000;
/// Places for the label in a template at most.
const SLOTS: usize = 16;
/// The probability that the best label must reach where `none` is asked for and no threshold is given. It says that a
/// pair is a hundred times as likely as most are to SigLIP (`docs/thresholds.md`).
pub const NONE_THRESHOLD: f32 = 0.01;
/// The share that the set's labels together must reach against negatives, where none is given.
pub const NEGATIVES_THRESHOLD: f32 = 0.1;

/// How far above the pictures of a background the best label must be, in spreads, where nothing is given. Measured with the embedded
/// model: of sets of 5 to 50 labels about one picture in thirteen passes it that no label fits; of larger sets fewer, since more
/// of the background's pictures show a label (`models/demo/evaluate/none.py`).
pub const BACKGROUND_THRESHOLD: f32 = 2.0;

/// A label set as it was sent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Definition {
    /// The labels, in the order of answers with equal scores.
    pub labels: LabelList,
    /// What labels are put into; the model's own template if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub templates: Option<Templates>,
    /// How logits become scores, where a request does not say so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub activation: Option<Activation>,
    /// The score that labels without a threshold of their own must reach.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub threshold: Option<f32>,
    /// When none of the labels fits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub none: Option<NoneRule>,
    /// Another canonicalisation of texts than the checkpoint's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub canonicalization: Option<Canonicalization>,
    /// The model that the set is encoded for at once; the service's first if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// Whether examples are moved to where texts are before both are combined.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub close_modality_gap: Option<bool>,
}

/// One label.
#[derive(Debug, Clone, PartialEq)]
pub struct LabelSpec {
    /// What it is called in answers.
    pub name: String,
    /// Other words for it: each is put into every template, as the name is.
    pub synonyms: Vec<String>,
    /// Whole texts in place of templates; `{}` is the name.
    pub prompts: Vec<String>,
    /// The score that it must reach.
    pub threshold: Option<f32>,
}

impl Definition {
    /// A set of these labels and nothing else.
    pub fn of(names: impl IntoIterator<Item = String>) -> Self {
        let label = |name| LabelSpec { name, synonyms: Vec::new(), prompts: Vec::new(), threshold: None };
        Self {
            labels: LabelList(names.into_iter().map(label).collect()),
            templates: None,
            activation: None,
            threshold: None,
            none: None,
            canonicalization: None,
            model: None,
            close_modality_gap: None,
        }
    }

    /// Checks everything that can be checked without a model.
    ///
    /// # Errors
    /// The first field at fault, and what is wrong with it.
    pub fn check(&self) -> Result<(), LabelError> {
        let labels = &self.labels.0;
        if labels.is_empty() {
            return Err(LabelError::invalid("labels", "at least one is needed"));
        }
        if labels.len() > MAX_LABELS {
            let message = format!("{} labels; a set has at most {MAX_LABELS}", labels.len());
            return Err(LabelError::too_large("labels", message));
        }
        let mut known = std::collections::HashMap::with_capacity(labels.len());
        for (index, label) in labels.iter().enumerate() {
            label.check(index)?;
            if let Some(first) = known.insert(label.name.as_str(), index) {
                let message = format!("{} is a label already (labels[{first}])", quoted(&label.name));
                return Err(LabelError::invalid(format!("labels[{index}]"), message));
            }
        }
        self.check_templates()?;
        if let Some(NoneRule::Against { threshold: Some(threshold), .. } | NoneRule::Threshold(threshold)) =
            &self.none
        {
            check_share("none", *threshold)?;
        }
        if let Some(NoneRule::Against { against, .. }) = &self.none {
            check_name(against).map_err(|error| LabelError::invalid("none.against", error.to_string()))?;
        }
        if let Some(NoneRule::Background { background, threshold }) = &self.none {
            check_name(background)
                .map_err(|error| LabelError::invalid("none.background", error.to_string()))?;
            if threshold.is_some_and(|threshold| !threshold.is_finite()) {
                return Err(LabelError::invalid("none.threshold", "must be a finite number"));
            }
        }
        if let Some(model) = &self.model
            && model.len() > LABEL_BYTES
        {
            let message = format!("{} bytes; the name of a model has at most {LABEL_BYTES}", model.len());
            return Err(LabelError::invalid("model", message));
        }
        if let Some(threshold) = self.threshold
            && !threshold.is_finite()
        {
            return Err(LabelError::invalid("threshold", "must be a finite number"));
        }
        let templates = match &self.templates {
            Some(templates) => templates.len(),
            None => 1,
        };
        let texts = labels.iter().map(|label| label.count(templates)).sum::<usize>();
        if texts > MAX_TEXTS {
            let message = format!("{texts} texts; a set is encoded from at most {MAX_TEXTS}");
            return Err(LabelError::too_large("labels", message));
        }
        Ok(())
    }

    fn check_templates(&self) -> Result<(), LabelError> {
        match &self.templates {
            None => Ok(()),
            Some(Templates::Named(name)) if built_in(name).is_some() => Ok(()),
            Some(Templates::Named(name)) => {
                let known: Vec<&str> = built_in_names().collect();
                let message = format!(
                    "{} is neither a template with {SLOT} in it nor a built-in set ({})",
                    quoted(name),
                    known.join(", ")
                );
                Err(LabelError::invalid("templates", message))
            }
            Some(Templates::Own(templates)) => {
                if templates.is_empty() {
                    return Err(LabelError::invalid("templates", "at least one is needed"));
                }
                if templates.len() > MAX_TEMPLATES {
                    let message = format!("{} templates; a set has at most {MAX_TEMPLATES}", templates.len());
                    return Err(LabelError::too_large("templates", message));
                }
                for (index, template) in templates.iter().enumerate() {
                    check_template(template)
                        .map_err(|message| LabelError::invalid(format!("templates[{index}]"), message))?;
                }
                Ok(())
            }
        }
    }

    /// What every label without prompts of its own is put into; `own` is the model's template.
    pub fn templates<'a>(&'a self, own: &'a str) -> Vec<&'a str> {
        match &self.templates {
            None => vec![own],
            Some(Templates::Own(templates)) => templates.iter().map(String::as_str).collect(),
            Some(Templates::Named(name)) => built_in(name).unwrap_or_default().to_vec(),
        }
    }

    /// The text `i` of a label, whose direction is the mean of those of its texts, and whether it is the last; `None` behind
    /// it. Texts are made one by one, since they may be far larger than what they are made of.
    pub fn text(&self, label: usize, i: usize, templates: &[&str]) -> Option<(String, bool)> {
        let label = self.labels.0.get(label)?;
        let last = label.count(templates.len()).checked_sub(1)?;
        let text = match label.prompts.get(i) {
            Some(prompt) => prompt.replace(SLOT, &label.name),
            None if i > last => return None,
            None => {
                let word = match i / templates.len() {
                    0 => &label.name,
                    n => label.synonyms.get(n - 1)?,
                };
                templates[i % templates.len()].replace(SLOT, word)
            }
        };
        Some((text, i == last))
    }

    /// Bytes of the longest text at most.
    pub fn longest_text(&self, templates: &[&str]) -> usize {
        let filled = |text: &str, word: usize| {
            let slots = text.matches(SLOT).count();
            text.len() - slots * SLOT.len() + slots * word
        };
        let (mut word, mut longest) = (0, 0);
        for label in &self.labels.0 {
            let words = std::iter::once(&label.name).chain(&label.synonyms);
            word = words.map(String::len).fold(word, usize::max);
            let prompts = label.prompts.iter().map(|prompt| filled(prompt, label.name.len()));
            longest = prompts.fold(longest, usize::max);
        }
        templates.iter().map(|template| filled(template, word)).fold(longest, usize::max)
    }

    /// The threshold of each label, where any label or the set has one.
    pub fn thresholds(&self) -> Option<Vec<f32>> {
        let labels = &self.labels.0;
        if self.threshold.is_none() && labels.iter().all(|label| label.threshold.is_none()) {
            return None;
        }
        let all = self.threshold.unwrap_or(f32::NEG_INFINITY);
        Some(labels.iter().map(|label| label.threshold.unwrap_or(all)).collect())
    }

    /// Names all that the directions follow from but for the model: SHA-256 in hex.
    pub fn texts_key(&self, own_template: &str) -> String {
        let mut hash = Sha256::new();
        let mut add = |kind: u8, text: &str| {
            hash.update([kind]);
            hash.update((text.len() as u64).to_le_bytes());
            hash.update(text);
        };
        if let Some(rules) = self.canonicalization {
            add(b'c', &rules.to_string());
        }
        self.templates(own_template).iter().for_each(|template| add(b't', template));
        for label in &self.labels.0 {
            add(b'n', &label.name);
            label.synonyms.iter().for_each(|word| add(b's', word));
            label.prompts.iter().for_each(|prompt| add(b'p', prompt));
        }
        hex(&hash.finalize())
    }

    /// Bytes on the heap, about.
    pub fn heap(&self) -> usize {
        let text = |text: &String| text.capacity() + size_of::<String>();
        let texts = |texts: &[String]| texts.iter().map(text).sum::<usize>();
        let label = |label: &LabelSpec| {
            size_of::<LabelSpec>() + label.name.capacity() + texts(&label.synonyms) + texts(&label.prompts)
        };
        let own = match &self.templates {
            Some(Templates::Own(templates)) => texts(templates),
            Some(Templates::Named(name)) => name.capacity(),
            None => 0,
        };
        self.labels.0.iter().map(label).sum::<usize>() + own
    }
}

impl LabelSpec {
    /// Texts that it is encoded from.
    fn count(&self, templates: usize) -> usize {
        match self.prompts.len() {
            0 => (1 + self.synonyms.len()).saturating_mul(templates),
            prompts => prompts,
        }
    }

    fn check(&self, index: usize) -> Result<(), LabelError> {
        let place = |field: &str| format!("labels[{index}]{field}");
        check_label(&self.name).map_err(|message| LabelError::invalid(place(""), message))?;
        for (i, word) in self.synonyms.iter().enumerate() {
            check_label(word)
                .map_err(|message| LabelError::invalid(place(&format!(".synonyms[{i}]")), message))?;
        }
        for (i, prompt) in self.prompts.iter().enumerate() {
            let slots = prompt.matches(SLOT).count();
            let wrong = if prompt.trim().is_empty() {
                Some("the prompt is empty".to_owned())
            } else if slots > SLOTS {
                Some(format!("{slots} times {SLOT}; a prompt has at most {SLOTS}"))
            } else {
                too_long("prompt", prompt)
            };
            if let Some(message) = wrong {
                return Err(LabelError::invalid(place(&format!(".prompts[{i}]")), message));
            }
        }
        if !self.prompts.is_empty() && !self.synonyms.is_empty() {
            let message =
                "give either synonyms, which go into the templates, or prompts, which are whole texts";
            return Err(LabelError::invalid(place(""), message));
        }
        match self.threshold {
            Some(threshold) if !threshold.is_finite() => {
                Err(LabelError::invalid(place(".threshold"), "must be a finite number"))
            }
            _ => Ok(()),
        }
    }

    /// Whether it is a name and nothing else.
    pub(super) fn is_bare(&self) -> bool {
        self.synonyms.is_empty() && self.prompts.is_empty() && self.threshold.is_none()
    }
}

/// Checks the name of a label or another word for it.
///
/// # Errors
/// What is wrong with it.
pub fn check_label(label: &str) -> Result<(), String> {
    if label.len() > LABEL_BYTES {
        return Err(format!("{} bytes; a label has at most {LABEL_BYTES}", label.len()));
    }
    if label.trim().is_empty() {
        return Err("the label is empty".to_owned());
    }
    Ok(())
}

/// Checks a template.
///
/// # Errors
/// What is wrong with it.
pub fn check_template(template: &str) -> Result<(), String> {
    if let Some(message) = too_long("template", template) {
        return Err(message);
    }
    match template.matches(SLOT).count() {
        0 => Err(format!("{} has no {SLOT} where the label goes", quoted(template))),
        slots if slots > SLOTS => Err(format!("{slots} times {SLOT}; a template has at most {SLOTS}")),
        _ => Ok(()),
    }
}

/// Checks a probability or a share.
///
/// # Errors
/// If it lies outside of 0 to 1.
pub fn check_share(field: &str, share: f32) -> Result<(), LabelError> {
    match (0.0..=1.0).contains(&share) {
        true => Ok(()),
        false => Err(LabelError::invalid(field, format!("{share} is not between 0 and 1"))),
    }
}

fn too_long(what: &str, text: &str) -> Option<String> {
    (text.len() > TEMPLATE_BYTES)
        .then(|| format!("{} bytes; a {what} has at most {TEMPLATE_BYTES}", text.len()))
}

/// Checks the name of a set: it is part of addresses and of file names.
///
/// # Errors
/// If it is not 1 to 100 letters, digits, `.`, `_` or `-` (ASCII), the first a letter or a digit.
pub fn check_name(name: &str) -> Result<(), LabelError> {
    const LONGEST: usize = 100;
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    let first = name.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric());
    if first && name.len() <= LONGEST && name.bytes().all(plain) {
        return Ok(());
    }
    let message = format!(
        "{} is no name for a label set: 1 to {LONGEST} letters, digits, '.', '_' or '-', the first a letter or a digit",
        quoted(name)
    );
    Err(LabelError::invalid("name", message))
}

/// Bytes as two hexadecimal digits each.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(json: &str) -> Definition {
        serde_json::from_str(json).unwrap()
    }

    fn error(json: &str) -> String {
        parse(json).check().unwrap_err().to_string()
    }

    #[test]
    fn the_texts_of_a_label_are_its_words_in_every_template_or_its_own_prompts() {
        let set = parse(
            r#"{"labels": ["cat", {"name": "dog", "synonyms": ["puppy"]}, {"name": "car", "prompts": ["my {}", "a van"]}],
                "templates": ["a {}", "the {}"]}"#,
        );
        set.check().unwrap();
        let texts_of = |set: &Definition, label| -> Vec<String> {
            let texts: Vec<_> = (0..).map_while(|i| set.text(label, i, &set.templates("own {}"))).collect();
            assert!(texts.iter().enumerate().all(|(i, (_, is_last))| *is_last == (i + 1 == texts.len())));
            texts.into_iter().map(|(text, _)| text).collect()
        };
        let texts = |label| texts_of(&set, label);
        assert_eq!(texts(0), ["a cat", "the cat"]);
        assert_eq!(texts(1), ["a dog", "the dog", "a puppy", "the puppy"]);
        assert_eq!(texts(2), ["my car", "a van"]);
        let own = Definition::of(["cat".to_owned()]);
        assert_eq!(texts_of(&own, 0), ["own cat"]);
        assert!(texts_of(&own, 1).is_empty());
        assert_eq!(set.longest_text(&set.templates("own {}")), "the puppy".len());
        assert_eq!(own.longest_text(&["{} and {}"]), "cat and cat".len());
        let named = parse(r#"{"labels": ["cat"], "templates": "imagenet-7"}"#);
        assert_eq!(texts_of(&named, 0)[2], "a origami cat.");
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (json, part) in [
            (r#"{"labels": []}"#, "labels: at least one"),
            (r#"{"labels": ["a", " "]}"#, "labels[1]: the label is empty"),
            (r#"{"labels": ["a", "b", "a"]}"#, "labels[2]: \"a\" is a label already (labels[0])"),
            (r#"{"labels": [{"name": "a", "synonyms": [""]}]}"#, "labels[0].synonyms[0]: the label is empty"),
            (r#"{"labels": [{"name": "a", "prompts": [" "]}]}"#, "labels[0].prompts[0]: the prompt is empty"),
            (
                &*format!(r#"{{"labels": [{{"name": "a", "prompts": ["{}"]}}]}}"#, "{}".repeat(17)),
                "17 times {}",
            ),
            (r#"{"labels": [{"name": "a", "prompts": ["x"], "synonyms": ["b"]}]}"#, "either synonyms"),
            (r#"{"labels": ["a"], "templates": "pet"}"#, "templates: \"pet\" is neither"),
            (r#"{"labels": ["a"], "templates": []}"#, "templates: at least one"),
            (r#"{"labels": ["a"], "templates": ["{}", "x"]}"#, "templates[1]: \"x\" has no {}"),
            (r#"{"labels": ["a"], "none": 2}"#, "none: 2 is not between 0 and 1"),
        ] {
            assert!(error(json).contains(part), "{json}: {}", error(json));
        }
        let mut long = Definition::of(["x".repeat(1001)]);
        assert!(long.check().unwrap_err().to_string().starts_with("labels[0]: 1001 bytes"));
        long = Definition::of((0..=MAX_LABELS).map(|i| i.to_string()));
        assert!(matches!(long.check(), Err(LabelError::TooLarge { .. })));
        let mut many = Definition::of((0..MAX_LABELS).map(|i| i.to_string()));
        many.templates = Some(Templates::Own((0..101).map(|i| format!("{i} {{}}")).collect()));
        assert!(many.check().unwrap_err().to_string().contains("10100000 texts"));
    }

    #[test]
    fn names_are_file_names() {
        for name in ["a", "imagenet-1k", "v1.2_x", &"x".repeat(100)] {
            check_name(name).unwrap();
        }
        for name in ["", ".", "..", "-a", "a/b", "a b", "ä", "a\0", "a@1", &"x".repeat(101)] {
            assert!(check_name(name).unwrap_err().to_string().contains("is no name"), "{name:?}");
        }
    }

    #[test]
    fn the_key_of_the_texts_changes_with_what_is_encoded_and_with_nothing_else() {
        let key = |json: &str| parse(json).texts_key("own {}");
        let plain = key(r#"{"labels": ["a", "b"]}"#);
        assert_eq!(
            plain,
            key(r#"{"labels": ["a", {"name": "b", "threshold": 0.5}], "none": true, "threshold": 0.1}"#)
        );
        assert_eq!(plain, key(r#"{"labels": ["a", "b"], "templates": "own {}"}"#));
        for other in [
            r#"{"labels": ["a", "c"]}"#,
            r#"{"labels": ["ab"]}"#,
            r#"{"labels": ["a", {"name": "b", "synonyms": ["c"]}]}"#,
            r#"{"labels": ["a", {"name": "b", "prompts": ["c"]}]}"#,
            r#"{"labels": ["a", "b"], "templates": "other {}"}"#,
            r#"{"labels": ["a", "b"], "canonicalization": "none"}"#,
        ] {
            assert_ne!(plain, key(other), "{other}");
        }
    }

    #[test]
    fn thresholds_of_labels_go_before_that_of_the_set() {
        let thresholds = |json: &str| parse(json).thresholds();
        assert_eq!(thresholds(r#"{"labels": ["a", "b"]}"#), None);
        let own = thresholds(r#"{"labels": ["a", {"name": "b", "threshold": 0.5}]}"#).unwrap();
        assert_eq!(own, [f32::NEG_INFINITY, 0.5]);
        let both = thresholds(r#"{"labels": ["a", {"name": "b", "threshold": 0.5}], "threshold": 0.1}"#);
        assert_eq!(both.unwrap(), [0.1, 0.5]);
    }
}
