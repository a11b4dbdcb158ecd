//! A model with several replicas, as on several GPUs: one fake each.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use siglip::testing::Result;
use siglip::testing::engine::{
    Engine, EngineConfig, ImageCost, Input, Load, Model, ModelHandle, Progress, Towers,
};
use siglip::testing::image::Patches;
use siglip::testing::pipeline::ModelInfo;
use siglip::testing::text::{Canonicalization, TokenIds};

use super::fake::*;

/// Prepares as the first fake does, and computes on each.
struct Replicas(Vec<Arc<Fake>>);

impl Model for Replicas {
    fn info(&self) -> &ModelInfo {
        self.0[0].info()
    }

    fn probe_image(&self, bytes: &[u8], max_num_patches: Option<usize>) -> Result<ImageCost> {
        self.0[0].probe_image(bytes, max_num_patches)
    }

    fn prepare_image(&self, bytes: &[u8], max_num_patches: Option<usize>) -> Result<Patches> {
        self.0[0].prepare_image(bytes, max_num_patches)
    }

    fn prepare_text(&self, text: &str, canonicalization: Option<Canonicalization>) -> Result<TokenIds> {
        self.0[0].prepare_text(text, canonicalization)
    }

    fn prepare_ids(&self, ids: &[u32]) -> Result<TokenIds> {
        self.0[0].prepare_ids(ids)
    }

    fn memory_bytes(&self) -> u64 {
        MEMORY
    }

    fn load_towers(self: Arc<Self>, _: &Progress) -> Result<Vec<Arc<dyn Towers>>> {
        Ok(self.0.iter().map(|fake| Arc::clone(fake) as Arc<dyn Towers>).collect())
    }
}

fn start(fakes: &[Arc<Fake>], config: EngineConfig) -> (Engine, ModelHandle) {
    let engine = Engine::start(config);
    let model = engine.insert(&["fake"], Arc::new(Replicas(fakes.to_vec()))).unwrap();
    (engine, model)
}

/// Sends a request that may be answered at any time.
fn request(model: &ModelHandle, inputs: Vec<Input>) -> Answer {
    let model = model.clone();
    tokio::spawn(async move { model.embed(inputs, client(1)).await })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_replica_computes_at_once_and_all_share_the_queue() {
    let fakes = [Fake::held(), Fake::held(), Fake::held()];
    let (engine, model) = start(&fakes, config());
    let answers: Vec<_> =
        (0..3).map(|i| send(&engine, &model, images(&format!("batch{i}-"), 10), client(1))).collect();
    // All three hold a batch while none has finished.
    for fake in &fakes {
        fake.gate.wait_for(1);
    }
    fakes.iter().for_each(|fake| fake.gate.open());
    for answer in answers {
        assert_eq!(ok(&answer.await.unwrap().unwrap()).len(), 10);
    }
    let answers: Vec<_> = (0..20).map(|i| request(&model, images(&format!("{i}-"), 10))).collect();
    for answer in answers {
        assert_eq!(ok(&answer.await.unwrap().unwrap()).len(), 10);
    }
    let computed = fakes.iter().flat_map(|fake| fake.computed()).collect();
    assert!(counts(computed).values().all(|&times| times == 1), "each is computed once");
    assert_eq!(engine.load(), Load::default());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_replica_is_warmed_up() {
    let fakes = [Fake::new(), Fake::held()];
    let (engine, _) = start(&fakes, EngineConfig { warm_up: true, ..config() });
    fakes[1].gate.wait_for(1);
    assert!(!engine.ready());
    fakes[1].gate.open();
    engine.warmed_up().await.unwrap();
    assert!(engine.ready() && fakes.iter().all(|fake| fake.batches().len() == 2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_device_answers_nobody_while_another_works() {
    let (lost, whole) = (Fake::new(), Fake::held());
    lost.memory.store(0, Ordering::SeqCst);
    // Two workers on each device, as on GPUs.
    let config = EngineConfig { workers_per_replica: Some(2), ..config() };
    let (engine, model) = start(&[Arc::clone(&lost), Arc::clone(&whole)], config);
    // The device that works is held with two batches: what comes now, the lost one takes.
    let mut answers = Vec::new();
    while whole.gate.arrived() < 2 {
        answers.push(request(&model, images("first", 1)));
        let before = whole.gate.arrived();
        eventually("a batch", || whole.gate.arrived() > before || lost.batches().len() > answers.len());
    }
    for i in 0..20 {
        answers.push(request(&model, images(&format!("more{i}"), 3)));
        answers.push(request(&model, vec![text(&format!("more {i}"))]));
    }
    eventually("a failure", || !lost.batches().is_empty());
    whole.gate.open();
    for answer in answers {
        ok(&answer.await.unwrap().unwrap());
    }
    assert!(!engine.failing() && engine.ready());
    assert_eq!(engine.load(), Load::default());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_is_handed_on_once() {
    let fakes = [Fake::new(), Fake::new()];
    let (engine, model) = start(&fakes, config());
    // Both panic on it: the second answers, and both go on.
    let results = model.embed(vec![image("panic:a")], client(1)).await.unwrap().results;
    assert!(results[0].is_err());
    let tries: usize =
        fakes.iter().map(|fake| fake.computed().iter().filter(|n| *n == "panic:a").count()).sum();
    assert_eq!(tries, 2);
    assert_eq!(ok(&model.embed(images("b", 30), client(1)).await.unwrap()).len(), 30);
    // With no device left everything is answered all the same.
    fakes.iter().for_each(|fake| fake.memory.store(0, Ordering::SeqCst));
    for _ in 0..6 {
        assert!(model.embed(images("c", 2), client(1)).await.unwrap().results.iter().all(|r| r.is_err()));
    }
    eventually("health", || engine.failing());
    fakes[1].memory.store(usize::MAX, Ordering::SeqCst);
    eventually("health", || engine.ready());
    assert_eq!(ok(&model.embed(images("d", 9), client(1)).await.unwrap()).len(), 9);
    assert_eq!(engine.load(), Load::default());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_fails_leaves_the_work_to_the_others() {
    let (broken, whole) = (Fake::new(), Fake::held());
    broken.memory.store(0, Ordering::SeqCst);
    let (engine, model) = start(&[Arc::clone(&broken), Arc::clone(&whole)], config());
    let mut answers = Vec::new();
    // Until the one that works is held with a batch.
    while whole.gate.arrived() == 0 {
        let answer = request(&model, images("first", 1));
        eventually("a batch", || answer.is_finished() || whole.gate.arrived() > 0);
        answers.push(answer);
    }
    // Three failures and then known inputs, which fail too.
    while broken.batches().len() < 4 {
        let before = broken.batches().len();
        answers.push(request(&model, images("more", 1)));
        eventually("a failure", || broken.batches().len() > before);
    }
    whole.gate.open();
    for answer in answers {
        answer.await.unwrap().unwrap();
    }
    let failed = broken.batches().len();
    for _ in 0..20 {
        ok(&model.embed(images("after", 3), client(1)).await.unwrap());
    }
    // Known inputs may have been tried again, nothing else.
    assert!(broken.computed()[failed..].iter().all(|name| !name.starts_with("after")));
    assert!(!engine.failing() && engine.ready());
}
