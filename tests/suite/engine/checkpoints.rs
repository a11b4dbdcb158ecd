//! Real checkpoints, small ones, whose towers leave the memory and come back.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use siglip::testing::checkpoint::{HubOptions, ModelRef};
use siglip::testing::engine::{
    EmbedOptions, Engine, EngineConfig, EngineError, Input, Model, ModelHandle, PipelineModel,
};
use siglip::testing::pipeline::{DeviceChoice, LoadOptions, Precision};

use crate::engine::fake::eventually;
use crate::support::tiny::{Family, Tiny};

fn open(folder: &Path) -> Arc<PipelineModel> {
    let options =
        LoadOptions { device: DeviceChoice::Cpu, precision: Precision::F32, ..LoadOptions::default() };
    let reference = ModelRef::Path(folder.to_owned());
    Arc::new(PipelineModel::open(&reference, &HubOptions::default(), &options).unwrap())
}

async fn embed(model: &ModelHandle, ids: &[u32]) -> Result<Vec<f32>, EngineError> {
    let inputs = vec![Input::TokenIds(ids.to_vec())];
    let output = model.embed(inputs, EmbedOptions::default()).await?;
    Ok(output.results.into_iter().next().unwrap().unwrap().vector.to_vec())
}

fn config() -> EngineConfig {
    // Without a cache every vector is computed.
    EngineConfig { cache_bytes: 0, ..EngineConfig::default() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_checkpoints_share_the_memory_of_one() {
    let folders = [Family::SigLip1, Family::NaFlex].map(|family| {
        let folder = tempfile::tempdir().unwrap();
        Tiny::new(family).write(folder.path());
        folder
    });
    let models: Vec<_> = folders.iter().map(|folder| open(folder.path())).collect();
    let most = models.iter().map(|model| model.memory_bytes()).max().unwrap();
    let engine = Engine::start(EngineConfig { max_model_memory: Some(most), ..config() });
    let handles: Vec<_> = models
        .into_iter()
        .enumerate()
        .map(|(i, model)| engine.insert(&[&i.to_string()], model).unwrap())
        .collect();
    let mut vectors: [Vec<Vec<f32>>; 2] = Default::default();
    for _ in 0..3 {
        for (handle, vectors) in handles.iter().zip(&mut vectors) {
            vectors.push(embed(handle, &[3, 4, 5]).await.unwrap());
            let resident = handles.iter().filter(|handle| handle.state().label() != "unloaded").count();
            assert_eq!(resident, 1);
        }
    }
    for vectors in &vectors {
        assert!(vectors.windows(2).all(|pair| pair[0] == pair[1]), "the same before and after");
    }
    assert_ne!(vectors[0], vectors[1]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn weights_that_changed_meanwhile_are_not_those_of_the_fingerprint() {
    let folder = tempfile::tempdir().unwrap();
    Tiny::new(Family::SigLip1).write(folder.path());
    let engine = Engine::start(EngineConfig { idle_unload: Some(Duration::from_millis(20)), ..config() });
    let handle = engine.insert(&["m"], open(folder.path())).unwrap();
    let vector = embed(&handle, &[3, 4]).await.unwrap();
    let unloaded = || eventually("the unload", || handle.state().label() == "unloaded");
    unloaded();
    // Touched, but the same: the digest is taken again.
    let file = folder.path().join("model.safetensors");
    let handle_of = std::fs::File::options().write(true).open(&file).unwrap();
    handle_of.set_modified(SystemTime::now() + Duration::from_secs(5)).unwrap();
    assert_eq!(embed(&handle, &[3, 4]).await.unwrap(), vector);
    unloaded();
    // One value is another.
    let mut bytes = std::fs::read(&file).unwrap();
    let last = bytes.len() - 2;
    bytes[last] ^= 1;
    let other = folder.path().join("other");
    std::fs::write(&other, bytes).unwrap();
    std::fs::rename(other, &file).unwrap();
    let error = embed(&handle, &[3, 4]).await.unwrap_err();
    let EngineError::Loading { state, .. } = &error else { panic!("{error}") };
    assert!(format!("{state:?}").contains("have changed since"), "{state:?}");
}
