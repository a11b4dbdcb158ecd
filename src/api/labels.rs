//! The labels and templates of a classification, and the prompts that they make. Sizes are known before a prompt is built.

use std::sync::Arc;

use crate::api::edge::error::{ApiError, ApiResult};
use crate::api::inputs::{Batch, check_count};
use crate::engine::{self, Embedding};
use crate::labels::{check_label, check_template};
use crate::model::zero_shot::{self, SLOT};

/// Labels and the templates they are put into.
#[derive(Debug, Clone)]
pub struct Labels {
    names: Arc<[Arc<str>]>,
    templates: Vec<String>,
}

impl Labels {
    /// Checks labels and templates; without one, the model's own template is used.
    ///
    /// # Errors
    /// 422 if there is no label, an empty or a long one, or a template without `{}` or with many; 413 if labels times
    /// templates are more than `limit`.
    pub fn new(
        names: Vec<String>,
        template: Option<String>,
        templates: Option<Vec<String>>,
        default: &str,
        limit: usize,
    ) -> ApiResult<Self> {
        check_count("labels", names.len(), limit)?;
        for (index, name) in names.iter().enumerate() {
            check_label(name).map_err(|message| ApiError::field(&format!("labels[{index}]"), message))?;
        }
        let templates = match (template, templates) {
            (Some(_), Some(_)) => {
                return Err(ApiError::field("templates", "give either template or templates"));
            }
            (Some(template), None) => vec![checked("template", template)?],
            (None, Some(templates)) => {
                check_count("templates", templates.len(), limit)?;
                let checked = |(i, template)| checked(&format!("templates[{i}]"), template);
                templates.into_iter().enumerate().map(checked).collect::<ApiResult<_>>()?
            }
            (None, None) => vec![default.to_owned()],
        };
        // Both are at most the length of a list.
        let texts = names.len() * templates.len();
        if texts > limit {
            let message = format!(
                "{} labels times {} templates are {texts} texts; the service takes {limit}",
                names.len(),
                templates.len()
            );
            return Err(ApiError::too_large(message).at("labels"));
        }
        Ok(Self { names: names.into_iter().map(Arc::from).collect(), templates })
    }

    /// The labels as they were sent.
    pub fn names(&self) -> &Arc<[Arc<str>]> {
        &self.names
    }

    /// Bytes of all prompts with what a list holds for each: with the limits above at most 20 kB per prompt.
    fn prompt_bytes(&self) -> usize {
        const EACH: usize = 128;
        let names: usize = self.names.iter().map(|name| name.len()).sum();
        let of = |template: &String| {
            let slots = template.matches(SLOT).count();
            let fixed = template.len() - slots * SLOT.len() + EACH;
            fixed.saturating_mul(self.names.len()).saturating_add(slots.saturating_mul(names))
        };
        self.templates.iter().map(of).fold(0, usize::saturating_add)
    }

    /// Every prompt with its place in the request: all templates of the first label, then of the second…
    fn prompts(&self) -> impl Iterator<Item = (String, String)> {
        zero_shot::texts(&self.names, &self.templates).map(|(label, text)| (format!("labels[{label}]"), text))
    }

    /// Adds every prompt to the inputs of a request.
    ///
    /// # Errors
    /// 413 or 429 if there is no room for them.
    pub fn push_prompts(&self, batch: &mut Batch) -> ApiResult<()> {
        batch.memory.grow(self.prompt_bytes())?;
        for (place, text) in self.prompts() {
            batch.push_text(place, text);
        }
        Ok(())
    }

    /// What the engine scores with; `texts` are the embeddings of the prompts.
    pub fn embedded(self, texts: Vec<Embedding>) -> engine::Labels {
        engine::Labels::Inline {
            names: self.names,
            texts: texts.into_iter().map(|text| text.vector).collect(),
            templates: self.templates.len(),
        }
    }
}

fn checked(place: &str, template: String) -> ApiResult<String> {
    check_template(&template).map_err(|message| ApiError::field(place, message))?;
    Ok(template)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(names: &[&str], template: Option<&str>, templates: Option<&[&str]>) -> ApiResult<Labels> {
        let owned = |list: &[&str]| list.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>();
        Labels::new(owned(names), template.map(str::to_owned), templates.map(owned), "photo of {}.", 6)
    }

    #[test]
    fn prompts_are_label_major() {
        let labels = labels(&["cat", "dog"], None, Some(&["a {}", "{} and {}"])).unwrap();
        let texts: Vec<_> = labels.prompts().map(|(_, text)| text).collect();
        assert_eq!(texts, ["a cat", "cat and cat", "a dog", "dog and dog"]);
        let length: usize = texts.iter().map(String::len).sum();
        assert_eq!(labels.prompt_bytes(), length + 4 * 128);
        let own = Labels::new(vec!["x".into()], None, None, "photo of {}.", 1).unwrap();
        assert_eq!(own.prompts().next().unwrap(), ("labels[0]".into(), "photo of x.".into()));
    }

    #[test]
    fn what_is_wrong_is_named() {
        let message = |r: ApiResult<Labels>| r.unwrap_err().detail.message.clone();
        assert!(message(labels(&[], None, None)).starts_with("labels: at least one"));
        assert!(message(labels(&["a", " "], None, None)).starts_with("labels[1]: the label is empty"));
        let long = "x".repeat(1001);
        assert!(message(labels(&["a", &long], None, None)).starts_with("labels[1]: 1001 bytes"));
        assert!(
            message(labels(&["a"], Some("no slot"), None)).starts_with("template: \"no slot\" has no {}")
        );
        assert!(message(labels(&["a"], Some(&"{}".repeat(17)), None)).starts_with("template: 17 times {}"));
        assert!(
            message(labels(&["a"], Some(&"{}".repeat(50_000)), None)).starts_with("template: 100000 bytes")
        );
        assert!(message(labels(&["a"], None, Some(&["{}", "x"]))).starts_with("templates[1]"));
        assert!(message(labels(&["a"], Some("{}"), Some(&["{}"]))).contains("either"));
        assert!(message(labels(&["a", "b", "c"], None, Some(&["{}", "{} ", "a{}"]))).contains("are 9 texts"));
    }
}
