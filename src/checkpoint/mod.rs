//! Finds or downloads a checkpoint, reads its configuration, and maps every layout to one spec and
//! one set of tensor names.
//!
//! [`open`] takes what `--model` names and gives a [`Checkpoint`]: the spec of its towers, its
//! preprocessing, its tokenizer's files and its weights, which stay memory-mapped and are checked
//! against the spec before anything is computed.

mod adapter;
mod demo;
mod detect;
mod digest;
mod error;
mod files;
mod hub;
mod json;
pub mod known;
mod layout;
mod npz;
mod preprocessing;
mod pth;
mod reference;
mod refuse;
mod safetensors;
mod sentence_transformers;
mod store;
mod tokenizer;
mod wanted;
mod weights;
mod weights_file;

use std::path::Path;

pub use error::CheckpointError;
pub use files::Files;
pub use hub::HubOptions;
#[cfg(feature = "object-store")]
pub(crate) use hub::certificates;
pub use layout::Layout;
pub use npz::read_npy_matrix;
pub use reference::ModelRef;
pub use store::FileStamp;
pub use wanted::{Tower, Wanted};
pub use weights::CheckpointWeights;

use self::adapter::Adapter;
use crate::image::ImageSpec;
use crate::model::ModelSpec;
use crate::text::{TextSpec, TokenizerFiles};

/// A checkpoint, opened and checked.
#[derive(Debug)]
pub struct Checkpoint {
    /// The hub id, the last part of the path, or `demo`.
    pub name: String,
    /// The commit, for one from the hub.
    pub revision: Option<String>,
    /// How its files are arranged.
    pub layout: Layout,
    /// The towers.
    pub spec: ModelSpec,
    /// Image preprocessing; there if the image tower is.
    pub image: Option<ImageSpec>,
    /// Text preprocessing; there if the text tower is.
    pub text: Option<TextSpec>,
    /// The tokenizer's files; all absent where the checkpoint has none.
    pub tokenizer: TokenizerFiles,
    /// The weights.
    pub weights: CheckpointWeights,
}

/// Opens what a model reference names.
///
/// # Errors
/// If it cannot be found, downloaded, read or understood, or if its parts contradict each other.
pub fn open(model: &ModelRef, options: &HubOptions) -> Result<Checkpoint, CheckpointError> {
    open_part(model, options, Wanted::default())
}

/// Opens a part of what a model reference names.
///
/// # Errors
/// As [`open`], and if it has not what is wanted of it.
pub fn open_part(
    model: &ModelRef,
    options: &HubOptions,
    wanted: Wanted,
) -> Result<Checkpoint, CheckpointError> {
    wanted.check()?;
    let (files, weights, name, revision) = find(model, options, wanted)?;
    let files = sentence_transformers::inside(files)?;
    let is_adapter =
        weights.as_deref().is_none_or(|file| file == adapter::WEIGHTS) && adapter::is_one(&files);
    let mut checkpoint = match Adapter::find(&files)?.filter(|_| is_adapter) {
        Some(adapter) => adapted(&adapter, &files, name, options, wanted)?,
        None => open_files(files, weights, name, wanted)?,
    };
    checkpoint.revision = revision;
    Ok(checkpoint)
}

/// The files that a reference means, the one with the weights if it names one, its name and its revision.
type Found = (Files, Option<String>, String, Option<String>);

fn find(model: &ModelRef, options: &HubOptions, wanted: Wanted) -> Result<Found, CheckpointError> {
    match model {
        ModelRef::Path(path) => find_path(path),
        ModelRef::Hub { id, revision } => {
            let snapshot = hub::fetch(id, revision.as_deref(), options, wanted)?;
            Ok((Files::Dir(snapshot.folder), None, id.clone(), Some(snapshot.commit)))
        }
        ModelRef::Demo => Ok((demo::files()?, None, "demo".into(), None)),
    }
}

/// The checkpoint that an adapter was trained for, changed by it.
fn adapted(
    adapter: &Adapter,
    files: &Files,
    name: String,
    options: &HubOptions,
    wanted: Wanted,
) -> Result<Checkpoint, CheckpointError> {
    let (base_files, weights, ..) = find(&adapter.base, options, wanted)?;
    // Not `open`: an adapter of an adapter could name itself.
    let mut base = open_files(sentence_transformers::inside(base_files)?, weights, name, wanted)?;
    let shapes: std::collections::BTreeMap<String, Vec<usize>> =
        base.weights.shapes().map(|(name, shape)| (name.to_string(), shape.to_vec())).collect();
    let changes = adapter.changes(files, wanted, |name| shapes.get(name).cloned())?;
    base.weights.change(changes);
    Ok(base)
}

/// The spec that a configuration file describes: transformers' `config.json`, open_clip's
/// `open_clip_config.json` or timm's `config.json`. `file` is how messages call it.
///
/// # Errors
/// If it is not JSON, of an unknown architecture, or if a field cannot be used.
pub fn model_spec(file: &str, config: &[u8]) -> Result<ModelSpec, CheckpointError> {
    let config = json::Object::parse(file.to_string(), config)?;
    if config.has("text_cfg") || config.has("model_cfg") {
        return layout::open_clip::spec(&config, Wanted::default()).map(|(spec, ..)| spec);
    }
    if config.has("architecture") && !layout::huggingface::is_config(&config) {
        let (image, _) = layout::open_clip::timm_spec(&config)?;
        return Ok(ModelSpec { image: Some(image), text: None, scores: false, classifier: None });
    }
    layout::huggingface::spec(&config)
}

/// The image preprocessing that open_clip's `open_clip_config.json` or timm's `config.json` describes; `None` for
/// transformers, which has it in a file of its own.
///
/// # Errors
/// As [`model_spec`].
pub fn image_spec(file: &str, config: &[u8]) -> Result<Option<ImageSpec>, CheckpointError> {
    let config = json::Object::parse(file.to_string(), config)?;
    if config.has("text_cfg") || config.has("model_cfg") {
        return layout::open_clip::spec(&config, Wanted::default()).map(|(_, image, _)| Some(image));
    }
    if config.has("architecture") && !layout::huggingface::is_config(&config) {
        return layout::open_clip::timm_spec(&config).map(|(_, image)| Some(image));
    }
    Ok(None)
}

fn find_path(path: &Path) -> Result<Found, CheckpointError> {
    if !path.exists() {
        return Err(CheckpointError::NotFound(path.to_path_buf()));
    }
    let canonical = path.canonicalize().unwrap_or_else(|_| path.to_path_buf());
    let name = canonical.file_stem().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
    if path.is_dir() {
        let name = canonical.file_name().map_or(name, |name| name.to_string_lossy().into_owned());
        return Ok((Files::Dir(path.to_path_buf()), None, name, None));
    }
    if path.extension().is_some_and(|end| end == "gguf" || end == "onnx") {
        let place = Files::Dir(path.to_path_buf());
        return Err(refuse::no_weights(&place, &[path.display().to_string()], "model.safetensors"));
    }
    let folder = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let file = path.file_name().map(|file| file.to_string_lossy().into_owned());
    Ok((Files::Dir(folder.to_path_buf()), file, name, None))
}

/// Opens a set of files, of which `weights` (if given) is the file that has the weights.
///
/// # Errors
/// As [`open`].
pub fn open_files(
    files: Files,
    weights: Option<String>,
    name: String,
    wanted: Wanted,
) -> Result<Checkpoint, CheckpointError> {
    let plan = detect::detect_here(&files, weights.as_deref(), wanted)?;
    let opened = match (plan.layout, &plan.config) {
        (Layout::HuggingFace, Some(config)) => layout::huggingface::open(&files, config, &plan.file, wanted)?,
        (Layout::OpenClip, Some(config)) => layout::open_clip::open(&files, config, &plan.file, wanted)?,
        (Layout::Timm, Some(config)) => layout::open_clip::open_timm(&files, config, &plan.file, wanted)?,
        _ => layout::big_vision::open(&files, &plan.file, wanted)?,
    };
    Ok(Checkpoint {
        name,
        revision: None,
        layout: plan.layout,
        spec: opened.spec,
        image: opened.image,
        text: opened.text,
        tokenizer: tokenizer::files(&files)?,
        weights: opened.weights,
    })
}
