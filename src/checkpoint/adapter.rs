//! Low-rank adapters (`adapter_config.json`, as peft writes it), merged into the weights that they were trained for.

use std::collections::BTreeMap;

use candle_core::{Device, Tensor};

use super::files::Files;
use super::json::Object;
use super::store::Store;
use super::wanted::{Tower, Wanted};
use super::weights::Change;
use super::{CheckpointError, ModelRef, weights_file};

/// What says how it was made.
pub(super) const CONFIG: &str = "adapter_config.json";
/// The weights of an adapter.
pub(super) const WEIGHTS: &str = "adapter_model.safetensors";
/// What peft puts before every name.
const ROOT: &str = "base_model.model.";

/// Whether a folder holds an adapter and no checkpoint.
pub(super) fn is_one(files: &Files) -> bool {
    files.has(CONFIG) && !weights_file::SAFETENSORS.iter().any(|file| files.has(file))
}

/// An adapter, read.
pub(super) struct Adapter {
    config: Object,
    /// The checkpoint that it changes.
    pub(super) base: ModelRef,
}

impl Adapter {
    /// The adapter in a folder, if there is one.
    pub(super) fn find(files: &Files) -> Result<Option<Self>, CheckpointError> {
        let Some(config) = Object::read(files, CONFIG)? else { return Ok(None) };
        let kind = config.text("peft_type")?.unwrap_or_default();
        if kind != "LORA" {
            return Err(config.error("peft_type", format!("expected LORA, found {kind:?}")));
        }
        for name in ["use_dora", "fan_in_fan_out"] {
            if config.flag(name)?.unwrap_or(false) {
                return Err(config.error(name, "such adapters cannot be merged here"));
            }
        }
        let base = config
            .text("base_model_name_or_path")?
            .ok_or_else(|| config.error("base_model_name_or_path", "it names the checkpoint to change"))?;
        let base = match (base.parse()?, config.text("revision")?) {
            (ModelRef::Hub { id, revision: None }, revision) => {
                ModelRef::Hub { id, revision: revision.map(str::to_string) }
            }
            (base, _) => base,
        };
        Ok(Some(Self { config, base }))
    }

    /// What it adds to the weights, by canonical name. `shape` gives the shapes of the base.
    pub(super) fn changes(
        &self,
        files: &Files,
        wanted: Wanted,
        shape: impl Fn(&str) -> Option<Vec<usize>>,
    ) -> Result<BTreeMap<String, Change>, CheckpointError> {
        let store = weights_file::open(files, WEIGHTS, |_| true)?;
        let mut changes = BTreeMap::new();
        for (name, _) in store.iter() {
            let unknown = || CheckpointError::UnexpectedTensor {
                file: store.label(),
                tensor: name.clone(),
                found: store.get(name).map(|tensor| tensor.shape.clone()).unwrap_or_default(),
                others: 0,
            };
            let inner = name.strip_prefix(ROOT).unwrap_or(name);
            if (inner.starts_with("vision_model.") && !wanted.image())
                || (inner.starts_with("text_model.") && !wanted.text())
            {
                continue;
            }
            if wanted.tower == Some(Tower::Text) && !inner.starts_with("text_model.") {
                // Without the name of a tower it may be of the other one, whose shapes are the same.
                return Err(unknown());
            }
            let Some(module) = inner.strip_suffix(".lora_A.weight") else {
                if inner.ends_with(".lora_B.weight") {
                    continue;
                }
                // `modules_to_save`: whole tensors that were trained.
                let inner = inner.replace(".modules_to_save.default", "").replace(".modules_to_save", "");
                let (canonical, shape) = canonical(&inner, &shape).ok_or_else(unknown)?;
                let values = read(&store, name, &shape)?;
                changes.insert(canonical, Change { values, replaces: true });
                continue;
            };
            let (canonical, shape) = canonical(&format!("{module}.weight"), &shape).ok_or_else(unknown)?;
            let [out, inner] = shape[..] else { return Err(unknown()) };
            let rank = store.get(name).and_then(|tensor| tensor.shape.first().copied()).unwrap_or(0);
            let down = read(&store, name, &[rank, inner])?;
            let up = read(&store, &name.replace(".lora_A.", ".lora_B."), &[out, rank])?;
            let scale = self.scale(module, rank)?;
            let product = || -> candle_core::Result<Vec<f32>> {
                let down = Tensor::from_vec(down, (rank, inner), &Device::Cpu)?;
                let up = Tensor::from_vec(up, (out, rank), &Device::Cpu)?;
                (up.matmul(&down)? * scale)?.flatten_all()?.to_vec1()
            };
            let values = product().map_err(|error| self.config.error("r", error.to_string()))?;
            changes.insert(canonical, Change { values, replaces: false });
        }
        Ok(changes)
    }

    /// What the product of both matrices is multiplied with: `alpha / r`, for rsLoRA `alpha / √r`.
    fn scale(&self, module: &str, rank: usize) -> Result<f64, CheckpointError> {
        if rank == 0 {
            return Err(self.config.error("r", format!("the matrices of {module} have no rows")));
        }
        let alpha = match self.config.object("alpha_pattern")? {
            // peft takes the first pattern that the end of the module's name matches.
            Some(patterns) => patterns
                .keys()
                .find(|pattern| module == pattern.as_str() || module.ends_with(&format!(".{pattern}")))
                .map(|pattern| patterns.number(pattern))
                .transpose()?
                .flatten(),
            None => None,
        };
        let alpha = match alpha {
            Some(alpha) => alpha,
            None => self
                .config
                .number("lora_alpha")?
                .ok_or_else(|| self.config.error("lora_alpha", "it is missing"))?,
        };
        let rank = rank as f64;
        let root = self.config.flag("use_rslora")?.unwrap_or(false);
        Ok(alpha / if root { rank.sqrt() } else { rank })
    }
}

/// The canonical name that an adapter means, and its shape: a class of one tower leaves out the tower's name.
fn canonical(name: &str, shape: impl Fn(&str) -> Option<Vec<usize>>) -> Option<(String, Vec<usize>)> {
    ["", "vision_model.", "text_model."].iter().find_map(|tower| {
        let name = format!("{tower}{name}");
        shape(&name).map(|shape| (name, shape))
    })
}

fn read(store: &Store, name: &str, expected: &[usize]) -> Result<Vec<f32>, CheckpointError> {
    let file = store.label();
    let Some(tensor) = store.get(name) else {
        return Err(CheckpointError::MissingTensor {
            file,
            tensor: name.into(),
            expected: expected.to_vec(),
        });
    };
    if tensor.shape != expected {
        return Err(CheckpointError::Shape {
            file,
            tensor: name.into(),
            expected: expected.to_vec(),
            found: tensor.shape.clone(),
        });
    }
    store.values(name, None)
}
