//! Tells by its files which layout a checkpoint has and which file has its weights.

use super::CheckpointError;
use super::files::Files;
use super::json::Object;
use super::layout::{Layout, huggingface};

/// What was found.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) layout: Layout,
    /// The configuration, where the layout has one.
    pub(super) config: Option<Object>,
    /// The weights: a `.npz`, or the `.safetensors` (of which there may be shards instead).
    pub(super) file: String,
}

impl Plan {
    /// Whether a tensor of a sharded checkpoint is one that is read.
    pub(super) fn wants(&self, tensor: &str) -> bool {
        match (&self.config, self.layout) {
            (Some(config), Layout::HuggingFace) => huggingface::wants(config, tensor),
            _ => true,
        }
    }

    /// The weights file without its ending.
    pub(super) fn stem(&self) -> &str {
        self.file.strip_suffix(".safetensors").unwrap_or(&self.file)
    }
}

/// Looks at the configuration files in `files`. The weights may not be there yet: `has` says which
/// files there are or will be, and `names` lists them. `weights` is the file that the user named.
pub(super) fn detect(
    files: &Files,
    weights: Option<&str>,
    has: impl Fn(&str) -> bool,
    names: &[String],
) -> Result<Plan, CheckpointError> {
    if let Some(file) = weights.filter(|file| file.ends_with(".npz")) {
        return Ok(Plan { layout: Layout::BigVision, config: None, file: file.to_string() });
    }
    let plan = |layout, config, default: &str| Plan {
        layout,
        config: Some(config),
        file: weights.unwrap_or(default).to_string(),
    };
    let config = Object::read(files, "config.json")?;
    let open_clip = Object::read(files, "open_clip_config.json")?;
    match (config, open_clip) {
        // Some repositories have both: the weights that are there decide.
        (Some(config), None) if huggingface::is_config(&config) => {
            Ok(plan(Layout::HuggingFace, config, "model.safetensors"))
        }
        (Some(config), Some(_))
            if huggingface::is_config(&config)
                && (has("model.safetensors") || !has("open_clip_model.safetensors")) =>
        {
            Ok(plan(Layout::HuggingFace, config, "model.safetensors"))
        }
        (_, Some(config)) => Ok(plan(Layout::OpenClip, config, "open_clip_model.safetensors")),
        (Some(config), None) if config.has("architecture") => {
            Ok(plan(Layout::Timm, config, "model.safetensors"))
        }
        (Some(config), None) => {
            let reason = "neither model_type (transformers) nor architecture (timm) is there";
            Err(config.error("model_type", reason))
        }
        (None, None) => {
            let archives: Vec<&String> = names.iter().filter(|name| name.ends_with(".npz")).collect();
            let reason = match archives.as_slice() {
                [file] => {
                    return Ok(Plan { layout: Layout::BigVision, config: None, file: (*file).clone() });
                }
                [] => "no config.json, no open_clip_config.json and no .npz".to_string(),
                several => format!("{} .npz files: name one of them", several.len()),
            };
            Err(CheckpointError::UnknownLayout { place: files.place(), reason })
        }
    }
}
