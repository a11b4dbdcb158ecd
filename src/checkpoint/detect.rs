//! Tells by its files which layout a checkpoint has and which file has its weights.
//!
//! A configuration says how large the towers are, and the tensors' names which layout they are in: where more than one
//! pair of both could be meant, the one whose names fit is taken, and the log says so.

use super::CheckpointError;
use super::files::Files;
use super::json::Object;
use super::layout::{Layout, huggingface, open_clip};
use super::refuse;
use super::wanted::Wanted;
use super::weights_file::{self, PYTORCH, SAFETENSORS};

/// What was found.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) layout: Layout,
    /// The configuration, where the layout has one.
    pub(super) config: Option<Object>,
    /// The weights: a `.npz`, a `.safetensors` (of which there may be shards instead) or a `.bin`.
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
}

/// Gives the names of the tensors in a file, where they can be had.
pub(super) type TensorsOf<'a> = dyn Fn(&str) -> Result<Option<Vec<String>>, CheckpointError> + 'a;

/// Where to look: the weights may not be here yet.
pub(super) struct Place<'a> {
    /// The configuration files.
    pub(super) files: &'a Files,
    /// All files that there are or will be.
    pub(super) names: &'a [String],
    /// The names of the tensors in a weights file, where they can be had.
    pub(super) tensors: &'a TensorsOf<'a>,
    /// Which part of it is read.
    pub(super) wanted: Wanted,
}

impl Place<'_> {
    fn has(&self, name: &str) -> bool {
        self.names.iter().any(|known| known == name)
    }
}

/// Looks at files that are all here.
pub(super) fn detect_here(
    files: &Files,
    weights: Option<&str>,
    wanted: Wanted,
) -> Result<Plan, CheckpointError> {
    let names = files.names()?;
    let tensors = |file: &str| weights_file::names(files, file);
    detect(&Place { files, names: &names, tensors: &tensors, wanted }, weights)
}

/// Looks at the configuration files of a place. `weights` is the file that the user named.
pub(super) fn detect(place: &Place<'_>, weights: Option<&str>) -> Result<Plan, CheckpointError> {
    if let Some(file) = weights.filter(|file| file.ends_with(".npz")) {
        return Ok(Plan { layout: Layout::BigVision, config: None, file: file.to_string() });
    }
    let mut configs = configs(place)?;
    if configs.is_empty() {
        return archive(place);
    }
    let found: Vec<&str> = match weights {
        Some(file) => vec![file],
        None => {
            let there = |file: &&&str| weights_file::is_there(|name| place.has(name), file);
            let found: Vec<&str> = SAFETENSORS.iter().filter(there).copied().collect();
            if found.is_empty() { PYTORCH.iter().filter(there).copied().collect() } else { found }
        }
    };
    // Of a configuration the file that goes with it first.
    let pairs: Vec<(usize, &str)> = (0..configs.len())
        .flat_map(|config| {
            let usual = usual(configs[config].0);
            let mut files = found.clone();
            files.sort_by_key(|file| !usual.contains(file));
            files.into_iter().map(move |file| (config, file))
        })
        .collect();
    let Some(&first) = pairs.first() else {
        check(&configs[0], place.wanted)?;
        return Err(refuse::no_weights(place.files, place.names, usual(configs[0].0)[0]));
    };
    let alone = configs.len() == 1 && (found.len() == 1 || usual(configs[0].0).contains(&first.1));
    let chosen = if alone { first } else { fitting(place, &configs, &pairs)?.unwrap_or(first) };
    let (layout, config) = configs.swap_remove(chosen.0);
    if chosen != first {
        tracing::info!(
            "{}: the tensors of {} are named as in the {} layout: {} says what they are",
            place.files.place(),
            chosen.1,
            layout.name(),
            config.file,
        );
    }
    let config = (layout, config);
    check(&config, place.wanted)?;
    Ok(Plan { layout, config: Some(config.1), file: chosen.1.to_string() })
}

/// Refuses what cannot be loaded before its weights are downloaded.
fn check((layout, config): &(Layout, Object), wanted: Wanted) -> Result<(), CheckpointError> {
    match layout {
        Layout::HuggingFace => huggingface::check(config),
        Layout::OpenClip => open_clip::spec(config, wanted).map(drop),
        Layout::Timm => open_clip::timm_spec(config).map(drop),
        Layout::BigVision => Ok(()),
    }
}

/// The configurations that are here, the likeliest first.
fn configs(place: &Place<'_>) -> Result<Vec<(Layout, Object)>, CheckpointError> {
    let mut configs = Vec::new();
    let open_clip = Object::read(place.files, "open_clip_config.json")?;
    if let Some(config) = Object::read(place.files, "config.json")? {
        if huggingface::is_config(&config) {
            configs.push((Layout::HuggingFace, config));
        } else if config.has("architecture") {
            configs.push((Layout::Timm, config));
        } else if open_clip.is_none() {
            let reason = "neither model_type (transformers) nor architecture (timm) is there";
            return Err(config.error("model_type", reason));
        }
    }
    configs.extend(open_clip.map(|config| (Layout::OpenClip, config)));
    Ok(configs)
}

/// What the weights of a layout are called.
fn usual(layout: Layout) -> [&'static str; 2] {
    match layout {
        Layout::OpenClip => [SAFETENSORS[1], PYTORCH[1]],
        _ => [SAFETENSORS[0], PYTORCH[0]],
    }
}

/// The first pair of configuration and weights that belong together by the tensors' names.
fn fitting<'f>(
    place: &Place<'_>,
    configs: &[(Layout, Object)],
    pairs: &[(usize, &'f str)],
) -> Result<Option<(usize, &'f str)>, CheckpointError> {
    let mut read: Vec<(&str, Option<Layout>)> = Vec::new();
    for &(config, file) in pairs {
        let known = read.iter().find(|(name, _)| *name == file).map(|(_, layout)| *layout);
        let layout = match known {
            Some(layout) => layout,
            None => {
                let layout = (place.tensors)(file)?.and_then(|names| layout_of(&names));
                read.push((file, layout));
                layout
            }
        };
        if layout == Some(configs[config].0) {
            return Ok(Some((config, file)));
        }
    }
    Ok(None)
}

/// The layout that tensors are named after.
fn layout_of(names: &[String]) -> Option<Layout> {
    let any = |part: &str| names.iter().any(|name| name.contains(part));
    if any("visual.trunk.") {
        Some(Layout::OpenClip)
    } else if any("embeddings.patch_embedding.") || any("embeddings.token_embedding.") {
        Some(Layout::HuggingFace)
    } else if any("patch_embed.proj.") || any("embeds.proj.") {
        Some(Layout::Timm)
    } else {
        None
    }
}

/// A single `.npz`, which needs no configuration.
fn archive(place: &Place<'_>) -> Result<Plan, CheckpointError> {
    let archives: Vec<&String> = place.names.iter().filter(|name| name.ends_with(".npz")).collect();
    let reason = match archives.as_slice() {
        [file] => return Ok(Plan { layout: Layout::BigVision, config: None, file: (*file).clone() }),
        [] if place.names.iter().any(|name| name.ends_with(".gguf")) => {
            return Err(refuse::no_weights(place.files, place.names, SAFETENSORS[0]));
        }
        [] => "no config.json, no open_clip_config.json and no .npz".to_string(),
        several => format!("{} .npz files: name one of them", several.len()),
    };
    Err(CheckpointError::UnknownLayout { place: place.files.place(), reason })
}
