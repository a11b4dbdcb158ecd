//! The labels and templates of a classification request.

use crate::api::edge::error::{ApiError, ApiResult};
use crate::api::native::work::check_count;
use crate::model::zero_shot::{self, SLOT};

/// Labels and the templates they are put into.
#[derive(Debug, Clone)]
pub struct Labels {
    names: Vec<String>,
    templates: Vec<String>,
}

impl Labels {
    /// Checks labels and templates; without one, the model's own template is used.
    ///
    /// # Errors
    /// 422 if there is no label, an empty one, or a template without `{}`; 413 if labels times templates are more
    /// than `limit`.
    pub fn new(
        names: Vec<String>,
        template: Option<String>,
        templates: Option<Vec<String>>,
        default: &str,
        limit: usize,
    ) -> ApiResult<Self> {
        check_count("labels", names.len(), limit)?;
        if let Some(index) = names.iter().position(|name| name.trim().is_empty()) {
            return Err(ApiError::field(&format!("labels[{index}]"), "the label is empty"));
        }
        let templates = match (template, templates) {
            (Some(_), Some(_)) => {
                return Err(ApiError::field("templates", "give either template or templates"));
            }
            (Some(template), None) => vec![checked("template", template)?],
            (None, Some(templates)) => {
                check_count("templates", templates.len(), limit)?;
                let place = |i: usize| format!("templates[{i}]");
                templates
                    .into_iter()
                    .enumerate()
                    .map(|(i, t)| checked(&place(i), t))
                    .collect::<ApiResult<_>>()?
            }
            (None, None) => vec![default.to_owned()],
        };
        let texts = names.len() * templates.len();
        if texts > limit {
            let message = format!(
                "{} labels times {} templates are {texts} texts; the service takes {limit}",
                names.len(),
                templates.len()
            );
            return Err(ApiError::too_large(message).at("labels"));
        }
        Ok(Self { names, templates })
    }

    /// The labels as they were sent.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// Number of templates.
    pub fn templates(&self) -> usize {
        self.templates.len()
    }

    /// Every text to embed with its place in the request: all templates of the first label, then of the second…
    pub fn texts(&self) -> impl Iterator<Item = (String, String)> {
        zero_shot::texts(&self.names, &self.templates).map(|(label, text)| (format!("labels[{label}]"), text))
    }
}

fn checked(place: &str, template: String) -> ApiResult<String> {
    if template.contains(SLOT) {
        return Ok(template);
    }
    Err(ApiError::field(place, format!("{template:?} has no {SLOT} where the label goes")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(names: &[&str], template: Option<&str>, templates: Option<&[&str]>) -> ApiResult<Labels> {
        let owned = |list: &[&str]| list.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>();
        Labels::new(owned(names), template.map(str::to_owned), templates.map(owned), "photo of {}.", 6)
    }

    #[test]
    fn texts_are_label_major() {
        let labels = labels(&["cat", "dog"], None, Some(&["a {}", "{} and {}"])).unwrap();
        let texts: Vec<_> = labels.texts().map(|(_, text)| text).collect();
        assert_eq!(texts, ["a cat", "cat and cat", "a dog", "dog and dog"]);
        let own = Labels::new(vec!["x".into()], None, None, "photo of {}.", 1).unwrap();
        assert_eq!(own.texts().next().unwrap(), ("labels[0]".into(), "photo of x.".into()));
    }

    #[test]
    fn what_is_wrong_is_named() {
        let message = |r: ApiResult<Labels>| r.unwrap_err().detail.message.clone();
        assert!(message(labels(&[], None, None)).starts_with("labels: at least one"));
        assert!(message(labels(&["a", " "], None, None)).starts_with("labels[1]: the label is empty"));
        assert!(
            message(labels(&["a"], Some("no slot"), None)).starts_with("template: \"no slot\" has no {}")
        );
        assert!(message(labels(&["a"], None, Some(&["{}", "x"]))).starts_with("templates[1]"));
        assert!(message(labels(&["a"], Some("{}"), Some(&["{}"]))).contains("either"));
        assert!(message(labels(&["a", "b", "c"], None, Some(&["{}", "{} ", "a{}"]))).contains("are 9 texts"));
    }
}
