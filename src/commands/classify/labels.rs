//! The labels of a classification: of the command line, or of a file; with examples, and with what they must beat.

use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::StreamExt;

use crate::budget::MemoryBudget;
use crate::bulk::Session;
use crate::bulk::inputs::read_texts;
use crate::commands::embed::find_images;
use crate::commands::error::{Result, failed};
use crate::commands::session::{self, Source};
use crate::config::{ClassifyArgs, FindArgs};
use crate::engine::ScoreOptions;
use crate::labels::store::read_set;
use crate::labels::{
    BACKGROUND_THRESHOLD, Background, Condition, Content, Definition, Example, LabelError, LabelSets,
    NEGATIVES_THRESHOLD, NONE_THRESHOLD, NoneRule, Resolved, Templates, Version, built_in, check_share,
    read_file,
};
use crate::model::zero_shot::SLOT;
use crate::model::{LabelSet, NoneTest, PatchVectors, Scores, Thresholds};

/// What the sets of one command are called.
const LABELS: &str = "labels";
const NEGATIVES: &str = "negatives";
const BACKGROUND: &str = "background";

/// Labels that can be used.
pub(super) struct Ready {
    pub(super) version: Arc<Version>,
    pub(super) set: Arc<LabelSet>,
    pub(super) none: Option<NoneTest>,
    /// What they look at in place of embeddings.
    pub(super) looks_at: Option<PatchVectors>,
}

/// The labels that the arguments name; none where the checkpoint's own are meant.
///
/// # Errors
/// What is wrong with them.
pub(super) fn content(args: &ClassifyArgs) -> Result<Option<Content>> {
    if args.labels.iter().any(|label| label.trim().is_empty()) {
        return Err(failed("--labels: a label is empty"));
    }
    let mut content = match (&args.label_set, &args.data_dir) {
        (Some(name), Some(data)) => {
            let read = read_set(data, &name.to_string_lossy());
            read.map_err(|error| failed(format!("--label-set: {error}")))?
        }
        (Some(file), None) => read_file(file).map_err(|error| failed(format!("--label-set: {error}")))?,
        (None, _) => {
            if args.labels.is_empty() {
                let without = !args.examples.is_empty() || args.none.is_some();
                let message = "--examples and --none need --labels or --label-set";
                return if without { Err(failed(message)) } else { Ok(None) };
            }
            Content::of(Definition::of(names(&args.labels)?))
        }
    };
    // There is one model here, whatever it was called elsewhere.
    content.definition.model = None;
    match args.templates.as_slice() {
        [] => {}
        [name] if built_in(name).is_some() => {
            content.definition.templates = Some(Templates::Named(name.clone()));
        }
        templates => {
            if let Some(template) = templates.iter().find(|template| !template.contains(SLOT)) {
                return Err(failed(format!("--template {template:?} has no {SLOT} where the label goes")));
            }
            content.definition.templates = Some(Templates::Own(templates.to_vec()));
        }
    }
    content.definition.check().map_err(|error| failed(format!("the labels: {error}")))?;
    Ok(Some(content))
}

/// The labels of the command line: `@file` stands for the lines of a file.
fn names(given: &[String]) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for label in given.iter().map(|label| label.trim()) {
        match label.strip_prefix('@') {
            Some(file) => read_texts(Path::new(file), |line| {
                let line = line.trim();
                if !line.is_empty() {
                    names.push(line.to_owned());
                }
            })?,
            None => names.push(label.to_owned()),
        }
    }
    Ok(names)
}

/// Encodes labels, fits them to examples, and reads what they must beat. Without `content` they are those of the checkpoint's own
/// classifier.
///
/// # Errors
/// What is wrong with the labels, the examples or the negatives.
pub(super) async fn ready(
    bulk: &Session,
    args: &ClassifyArgs,
    content: Option<Content>,
    scores: Scores,
) -> Result<Ready> {
    // What the user asks for on his own machine is not bounded.
    let sets = LabelSets::in_memory(bulk.engine().clone(), MemoryBudget::new(usize::MAX), 2);
    let Some(content) = content else {
        let own = sets.own(bulk.model()).map_err(|error| failed(error.to_string()))?;
        let Some(Resolved { version, ready, looks_at }) = own else {
            return Err(failed("--labels: this checkpoint has no classifier of its own"));
        };
        return Ok(Ready { set: Arc::clone(ready.set()), version, none: None, looks_at });
    };
    put(&sets, LABELS, content)?;
    let mut resolved = encoded(&sets, LABELS, bulk).await?;
    if !args.examples.is_empty() {
        add_examples(&sets, bulk, args, &resolved.version).await?;
        resolved = encoded(&sets, LABELS, bulk).await?;
        if let Some(fit) = resolved.ready.fit() {
            eprintln!(
                "{} examples: {} are right by the words of the labels, {} with the other examples",
                fit.before.of, fit.before.right, fit.after.right
            );
        }
    }
    let Resolved { version, ready, looks_at } = resolved.clone();
    let rule = match &args.none {
        Some(text) => none_rule(text, &sets)?,
        None => version.definition().none.clone().unwrap_or(NoneRule::Off),
    };
    let none = match rule {
        NoneRule::Off => None,
        NoneRule::On => Some(NoneTest::Sigmoid(version.none_thresholds(NONE_THRESHOLD))),
        NoneRule::Threshold(threshold) => Some(NoneTest::Sigmoid(Thresholds::All(threshold))),
        NoneRule::Against { against, threshold } if against == NEGATIVES => {
            let negatives = encoded(&sets, NEGATIVES, bulk).await?;
            let set = Arc::clone(negatives.ready.set());
            if set.is_head() || ready.set().is_head() {
                return Err(failed("--none: a head has no texts that negatives could be compared with"));
            }
            let left_out = version.left_out_of(&negatives.version);
            let threshold = threshold.unwrap_or(NEGATIVES_THRESHOLD);
            Some(NoneTest::Negatives { set, left_out, threshold })
        }
        NoneRule::Background { background, threshold } => {
            let (place, options) = (("--none", &*background), ScoreOptions::default());
            let levels = sets.levels(&resolved, place, bulk.model(), scores, options).await;
            let levels = levels.map_err(|error| failed(error.to_string()))?;
            Some(NoneTest::Background { levels, threshold: threshold.unwrap_or(BACKGROUND_THRESHOLD) })
        }
        NoneRule::Against { against, .. } => {
            let message =
                format!("the label set is used against another, {against:?}: give that as --none=FILE");
            return Err(failed(message));
        }
    };
    Ok(Ready { set: Arc::clone(ready.set()), version, none, looks_at })
}

fn put(sets: &LabelSets, name: &str, content: Content) -> Result<()> {
    sets.put_content(name, content, &Condition::Any).map_err(|error| failed(error.to_string()))?;
    Ok(())
}

/// A set once it is encoded; how far that is goes to standard error now and then.
async fn encoded(sets: &LabelSets, name: &str, bulk: &Session) -> Result<Resolved> {
    loop {
        let deadline = Instant::now() + Duration::from_secs(5);
        match sets.when_ready(name, bulk.model(), deadline).await {
            Ok(resolved) => return Ok(resolved),
            Err(LabelError::Encoding { done, total, .. }) => {
                eprintln!("{done} of {total} {name} are encoded");
            }
            Err(LabelError::Failed { reason, .. }) => return Err(failed(reason)),
            Err(error) => return Err(failed(error.to_string())),
        }
    }
}

/// `--none`: `true`, a probability, a file of negatives, or embeddings of a background.
fn none_rule(text: &str, sets: &LabelSets) -> Result<NoneRule> {
    if text == "true" {
        return Ok(NoneRule::On);
    }
    if let Ok(threshold) = text.parse::<f32>() {
        check_share("--none", threshold).map_err(|error| failed(error.to_string()))?;
        return Ok(NoneRule::Threshold(threshold));
    }
    if Path::new(text).extension().is_some_and(|extension| extension.eq_ignore_ascii_case("npy")) {
        let background =
            Background::read(Path::new(text)).map_err(|error| failed(format!("--none: {error}")))?;
        sets.add_background(BACKGROUND, background).map_err(|error| failed(format!("--none: {error}")))?;
        return Ok(NoneRule::Background { background: BACKGROUND.to_owned(), threshold: None });
    }
    let content = read_file(Path::new(text)).map_err(|error| failed(format!("--none: {error}")))?;
    put(sets, NEGATIVES, content)?;
    Ok(NoneRule::Against { against: NEGATIVES.to_owned(), threshold: None })
}

/// Embeds the pictures of `--examples` and adds them to the labels.
async fn add_examples(
    sets: &LabelSets,
    bulk: &Session,
    args: &ClassifyArgs,
    version: &Version,
) -> Result<()> {
    let mut files: Vec<(String, Source)> = Vec::new();
    for text in &args.examples {
        let wrong = |message: &str| failed(format!("--examples {text:?}: {message}"));
        let (label, path) = text.split_once('=').ok_or_else(|| wrong("not LABEL=PATH"))?;
        if !version.names().iter().any(|name| **name == *label) {
            return Err(wrong("there is no such label"));
        }
        let found = find_images(&[PathBuf::from(path)], &FindArgs::default())?.0;
        if found.is_empty() {
            return Err(wrong("there is no image"));
        }
        files.extend(found.into_iter().map(|file| (label.to_owned(), Source::File(file))));
    }
    let mut results = pin!(session::embed(bulk, files, args.max_num_patches));
    let mut examples: Vec<(String, Arc<[f32]>)> = Vec::new();
    while let Some((label, result)) = results.next().await {
        examples.push((label, result?.vector));
    }
    let info = bulk.model().info();
    let added: Vec<Example> = examples.iter().map(|(label, vector)| (label.as_str(), &**vector)).collect();
    let space = (info.fingerprint.as_str(), info.embedding_dim);
    sets.add_examples(LABELS, &Condition::Any, space, &added).map_err(|error| failed(error.to_string()))?;
    Ok(())
}
