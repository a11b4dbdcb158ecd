//! What cannot be loaded, and one sentence for each kind that says what to do instead.

use super::files::Files;
use super::json::Object;
use super::{CheckpointError, known};

/// Architectures that hold a SigLIP tower, or are taken for one, and compute something else: the beginning of their
/// `model_type`, and why.
const OTHERS: &[(&str, &str)] = &[
    ("idefics", FRACTIONAL),
    ("smolvlm", FRACTIONAL),
    ("clip", "it is a CLIP model, whatever its name says: its texts and pictures are prepared otherwise"),
    ("tipsv2", "TIPS is another architecture: class and register tokens, and no bias"),
];

const FRACTIONAL: &str = "its tower takes positions by fractions of the picture's sides, so that a SigLIP tower would give other vectors";

/// The error for an architecture that is not in `known`.
pub(super) fn architecture(config: &Object, found: &str, known: String) -> CheckpointError {
    let file = config.file.clone();
    match OTHERS.iter().find(|(start, _)| found.starts_with(start)) {
        Some((_, why)) => CheckpointError::Unsupported { file, what: format!("model_type {found:?}: {why}") },
        None => CheckpointError::UnknownArchitecture { file, found: found.to_string(), known },
    }
}

/// Refuses weights that were quantised by another program: MLX writes `quantization`, transformers
/// `quantization_config`.
pub(super) fn quantised(config: &Object) -> Result<(), CheckpointError> {
    let by = match (config.get("quantization_config"), config.get("quantization")) {
        (Some(config), _) => {
            config.get("quant_method").and_then(serde_json::Value::as_str).unwrap_or("transformers")
        }
        (None, Some(_)) => "MLX",
        (None, None) => return Ok(()),
    };
    Err(CheckpointError::Unsupported {
        file: config.file.clone(),
        what: format!(
            "its weights were quantised by {by}: name the original checkpoint, and let this program quantise it \
             (--dtype int8)"
        ),
    })
}

/// Refuses a model that is loaded by code in its repository. `ours` are entries of `auto_map` that do not change what the
/// towers compute.
pub(super) fn remote_code(config: &Object) -> Result<(), CheckpointError> {
    const OURS: &[&str] = &["AutoConfig", "AutoProcessor", "AutoTokenizer", "AutoImageProcessor"];
    let Some(map) = config.object("auto_map")? else { return Ok(()) };
    let Some(class) = map.keys().find(|key| !OURS.contains(&key.as_str())) else { return Ok(()) };
    let code = map.get(class).map_or_else(String::new, ToString::to_string);
    Err(CheckpointError::Unsupported {
        file: config.file.clone(),
        what: format!(
            "its model is code of its own (auto_map: {class} is {code}), which may compute something else than \
             SigLIP: if it does not, remove auto_map from the file"
        ),
    })
}

/// The error for a place with a configuration and no weights. `names` are the files there, with those of a hub
/// repository's folders.
pub(super) fn no_weights(files: &Files, names: &[String], wanted: &str) -> CheckpointError {
    let place = files.place();
    let folder = |name: &str| matches!(files, Files::Dir(folder) if folder.join(name).is_dir());
    let ends = |end: &str| names.iter().any(|name| name.ends_with(end));
    let what = if ends(".gguf") {
        "only GGUF files, which hold no pooling head and no text tower: name the checkpoint they were made from".into()
    } else if ends(".onnx") || ends(".onnx_data") || folder("onnx") {
        format!("only ONNX files: name the checkpoint they were made from{}", origin(&place))
    } else if ends(".msgpack") || ends(".h5") || ends(".ckpt") {
        "only weights for JAX, TensorFlow or a training program: convert them to safetensors".into()
    } else {
        return CheckpointError::UnknownLayout {
            place,
            reason: format!("neither {wanted} nor {wanted}.index.json is there"),
        };
    };
    CheckpointError::Unsupported { file: place, what }
}

/// The public checkpoint that a converted one is named after.
fn origin(place: &str) -> String {
    let found = known::all().iter().find(|known| {
        known.name.split_once('/').is_some_and(|(_, short)| {
            let rest = place.rsplit_once(short).map(|(_, rest)| rest);
            rest.is_some_and(|rest| matches!(rest, "" | "-ONNX") || rest.starts_with('/'))
        })
    });
    found.map_or_else(String::new, |known| format!(" ({})", known.name))
}
