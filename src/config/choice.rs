//! Which models are served, and under which names.

use std::sync::Arc;
use std::time::Instant;

use super::ComputeArgs;
use crate::checkpoint::{HubOptions, ModelRef};
use crate::engine::{Model, PipelineModel, Progress};
use crate::{Error, Result};

/// A model to load, and the names that requests use.
#[derive(Debug, Clone)]
pub struct ModelChoice {
    /// The name that answers use.
    pub name: String,
    /// Other names that find it.
    pub aliases: Vec<String>,
    /// A hub id, a folder, a file, or `demo`.
    pub reference: ModelRef,
}

impl ModelChoice {
    /// All names, that of answers first.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        std::iter::once(&self.name).chain(&self.aliases).map(String::as_str)
    }

    /// Finds or downloads the model and makes ready what stays in memory; the engine asks it for its towers.
    ///
    /// # Errors
    /// If it cannot be had or used, or if the device or the precision cannot be had.
    pub fn load(&self, compute: &ComputeArgs, progress: &Progress) -> Result<Arc<dyn Model>> {
        let started = Instant::now();
        let watch = {
            let progress = progress.clone();
            Arc::new(move |bytes, total| match bytes < total {
                true => progress.downloading(bytes, Some(total)),
                false => progress.loading(),
            })
        };
        let hub = HubOptions { watch: Some(watch), ..HubOptions::default() };
        let options = compute.load_options(Some(self.name.clone()));
        let model = PipelineModel::open(&self.reference, &hub, &options)?;
        let info = model.info();
        tracing::info!(
            name = self.name,
            source = info.source,
            dimensions = info.embedding_dim,
            dtype = ?info.dtype,
            device = ?info.device,
            fingerprint = info.fingerprint,
            "opened in {:.1} s",
            started.elapsed().as_secs_f32()
        );
        Ok(Arc::new(model))
    }
}

/// The models of `--model`; the embedded one where none is given. Each is found under its name, under its hub id and
/// under the last part of that, unless an earlier model has the name.
///
/// # Errors
/// [`Error::Config`] if a text names no model, or if two would have one name.
pub(super) fn models(given: &[String]) -> Result<Vec<ModelChoice>> {
    let mut choices: Vec<ModelChoice> = Vec::new();
    for text in given.iter().map(|text| text.trim()).filter(|text| !text.is_empty()) {
        let choice = model_choice(text)?;
        if choices.iter().any(|known| known.name == choice.name) {
            let message = format!(
                "--model {text:?}: there is a model named {:?} already; give it another name: other={}",
                choice.name, choice.reference
            );
            return Err(Error::Config(message));
        }
        choices.push(choice);
    }
    if choices.is_empty() {
        choices.push(model_choice("demo")?);
    }
    // Names go before aliases, and earlier models before later ones.
    let mut taken: Vec<String> = choices.iter().map(|choice| choice.name.clone()).collect();
    for choice in &mut choices {
        choice.aliases.retain(|alias| !taken.contains(alias));
        taken.extend(choice.aliases.iter().cloned());
    }
    Ok(choices)
}

pub(super) fn model_choice(text: &str) -> Result<ModelChoice> {
    let wrong = |what: &str| Error::Config(format!("--model {text:?}{what}"));
    let (name, reference) = match text.split_once('=') {
        // A name has no slash: `/runs/lr=3/m` is a path.
        Some((name, reference)) if !name.contains('/') => (Some(name.trim()), reference.trim()),
        _ => (None, text),
    };
    let last = last_part(reference);
    let chosen = name.unwrap_or(last);
    if chosen.is_empty() || reference.is_empty() {
        return Err(wrong(" is not MODEL or NAME=MODEL"));
    }
    if chosen.chars().any(|c| c.is_control() || c.is_whitespace()) {
        return Err(wrong(": a name has no spaces"));
    }
    let name = chosen.to_owned();
    let reference: ModelRef = reference.parse().map_err(|error| wrong(&format!(": {error}")))?;
    let mut aliases = Vec::new();
    if let ModelRef::Hub { id, .. } = &reference {
        aliases = vec![id.clone(), last.to_owned()];
        aliases.retain(|alias| *alias != name);
    }
    Ok(ModelChoice { name, aliases, reference })
}

/// `siglip2-base-patch16-224` of `google/siglip2-base-patch16-224`, of a path, and of an id with `@revision`.
fn last_part(reference: &str) -> &str {
    let path = reference.trim_end_matches('/');
    let last = path.rsplit('/').next().unwrap_or(path);
    last.split('@').next().unwrap_or(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(given: &[&str]) -> Result<Vec<String>> {
        let given: Vec<String> = given.iter().map(|&text| text.to_owned()).collect();
        let choices = models(&given)?;
        Ok(choices
            .iter()
            .map(|choice| format!("{} <- {}", choice.names().collect::<Vec<_>>().join(" "), choice.reference))
            .collect())
    }

    fn names(given: &[&str]) -> Vec<String> {
        named(given).unwrap_or_else(|error| panic!("{given:?}: {error}"))
    }

    #[test]
    fn models_and_their_names() {
        assert_eq!(names(&[]), ["demo <- demo"]);
        assert_eq!(
            names(&["google/siglip2-base@main", "x=./models/b/"]),
            ["siglip2-base google/siglip2-base <- google/siglip2-base@main", "x <- ./models/b/"]
        );
        assert_eq!(names(&["x=google/m"]), ["x google/m m <- google/m"]);
        assert_eq!(names(&["./models/b/", "demo"]), ["b <- ./models/b/", "demo <- demo"]);
        assert_eq!(names(&["/runs/lr=3/m"]), ["m <- /runs/lr=3/m"]);
        assert_eq!(names(&["y=/runs/lr=3/m"]), ["y <- /runs/lr=3/m"]);
        // A name that was chosen goes before the last part of an id.
        assert_eq!(names(&["x=a/m", "m=b/n"]), ["x a/m <- a/m", "m b/n n <- b/n"]);
        assert_eq!(names(&["x=a/m", "y=b/m"]), ["x a/m m <- a/m", "y b/m <- b/m"]);
    }

    #[test]
    fn names_that_cannot_be_are_refused() {
        for (given, part) in
            [(&["a/m", "b/m"][..], "named \"m\" already"), (&["=x"], "NAME=MODEL"), (&["a b=x"], "no spaces")]
        {
            let error = named(given).expect_err("refused").to_string();
            assert!(error.contains(part), "{given:?}: {error}");
        }
    }
}
