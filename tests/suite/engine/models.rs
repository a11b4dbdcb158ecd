//! Models that come, go and are replaced while others serve.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use siglip::testing::engine::{
    EmbedOptions, Engine, EngineConfig, EngineError, ImageCost, Labels, Load, Model, ModelState, Progress,
    ScoreOptions, Towers,
};
use siglip::testing::image::Patches;
use siglip::testing::model::Pause;
use siglip::testing::pipeline::ModelInfo;
use siglip::testing::text::{Canonicalization, TokenIds};
use siglip::testing::{Error, Result};

use super::fake::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_model_says_how_far_it_is_and_the_others_serve() {
    let engine = Engine::start(config());
    assert!(!engine.ready() && !engine.failing() && engine.models().is_empty());
    let (step, steps) = mpsc::channel::<()>();
    let loader = move |progress: &Progress| {
        progress.downloading(10, Some(30));
        steps.recv().unwrap();
        progress.loading();
        steps.recv().unwrap();
        Ok(Fake::new() as _)
    };
    engine.add(&["slow"], loader).unwrap();
    let state = || engine.status()[0].state.clone();
    eventually("the download", || state() == ModelState::Downloading { bytes: 10, total: Some(30) });
    let error = engine.model(Some("slow")).err().unwrap();
    let EngineError::Loading { model, state: found, retry_after } = &error else { panic!("{error}") };
    assert_eq!((model.as_str(), found.label()), ("slow", "downloading"));
    assert!(!retry_after.is_zero());

    let other = engine.insert(&["other"], Fake::new()).unwrap();
    assert_eq!(ok(&other.embed(images("a", 3), client(1)).await.unwrap()).len(), 3);
    assert!(!engine.ready(), "one of those at the start is still being loaded");
    step.send(()).unwrap();
    eventually("the load", || state() == ModelState::Loading);
    step.send(()).unwrap();
    eventually("readiness", || engine.ready());
    assert_eq!(state(), ModelState::Ready);
    engine.model(None).unwrap().embed(images("b", 1), client(1)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_model_that_cannot_be_loaded_says_why_and_spoils_no_other() {
    let engine = Engine::start(config());
    engine.add(&["broken"], |_| Err(Error::Config("no such file".into()))).unwrap();
    engine.add(&["panics"], |_| panic!("the reader fell over")).unwrap();
    let other = engine.insert(&["other"], Fake::new()).unwrap();
    let error = engine.warmed_up().await.unwrap_err();
    assert!(error.to_string().contains("no such file"), "{error}");
    let reasons: Vec<_> = engine.status().into_iter().map(|status| status.state).collect();
    assert!(matches!(&reasons[0], ModelState::Failed { reason } if reason.contains("no such file")));
    assert!(
        matches!(&reasons[1], ModelState::Failed { reason } if reason.contains("fell over")),
        "{reasons:?}"
    );
    assert!(engine.ready() && !engine.failing());
    other.embed(images("a", 1), client(1)).await.unwrap();
    let error = engine.model(Some("broken")).err().unwrap();
    assert!(!error.to_string().contains("no such file"), "the reason is for operators: {error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failing_model_does_not_fail_the_process() {
    let (lost, whole) = (Fake::new(), Fake::new());
    lost.memory.store(0, Ordering::SeqCst);
    let engine = Engine::start(EngineConfig { warm_up: true, ..config() });
    engine.insert(&["lost"], Arc::clone(&lost) as _).unwrap();
    engine.insert(&["whole"], Arc::clone(&whole) as _).unwrap();
    engine.warmed_up().await.unwrap_err();
    assert!(engine.ready() && !engine.failing());
    let labels: Vec<_> = engine.status().iter().map(|status| status.state.label()).collect();
    assert_eq!(labels, ["failed", "ready"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_old_model_serves_until_the_new_one_is_in_its_place() {
    let (old, new) = (Fake::held(), Fake::new());
    let engine = Engine::start(config());
    let handle = engine.insert(&["m"], Arc::clone(&old) as _).unwrap();
    let running = send(&engine, &handle, images("old", 15), client(1));
    old.gate.wait_for(1);

    // A load that fails changes nothing.
    engine.replace("m", |_| Err(Error::Config("no such revision".into()))).unwrap();
    let replacement = || engine.status()[0].replacement.clone();
    eventually("the failure", || matches!(replacement(), Some(ModelState::Failed { .. })));
    assert_eq!(engine.status()[0].state, ModelState::Ready);

    let (go, wait) = mpsc::channel::<()>();
    let next = Arc::clone(&new);
    engine
        .replace("m", move |_| {
            wait.recv().unwrap();
            Ok(next as _)
        })
        .unwrap();
    eventually("the load", || replacement() == Some(ModelState::Loading));
    assert!(matches!(engine.replace("m", |_| unreachable!()), Err(EngineError::Loading { .. })));
    let meanwhile = send(&engine, &engine.model(Some("m")).unwrap(), images("meanwhile", 1), client(1));
    go.send(()).unwrap();
    eventually("the replacement", || replacement().is_none());
    engine.model(Some("m")).unwrap().embed(images("new", 2), client(1)).await.unwrap();
    assert_eq!(new.computed(), ["new0", "new1"]);

    // What the old one has, it finishes; then it is freed.
    old.gate.open();
    assert_eq!(ok(&running.await.unwrap().unwrap()).len(), 15);
    meanwhile.await.unwrap().unwrap();
    drop(handle);
    eventually("the old model to be freed", || Arc::strong_count(&old) == 1);
    assert_eq!(engine.load(), Load::default());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_removed_model_finishes_what_it_has_and_is_freed() {
    let (gone, stays) = (Fake::held(), Fake::new());
    let engine = Engine::start(config());
    let handle = engine.insert(&["gone", "alias"], Arc::clone(&gone) as _).unwrap();
    engine.insert(&["stays"], Arc::clone(&stays) as _).unwrap();
    let running = send(&engine, &handle, images("a", 25), client(1));
    gone.gate.wait_for(1);
    engine.remove("alias").unwrap();
    assert!(matches!(engine.remove("gone"), Err(EngineError::UnknownModel { .. })));
    assert!(matches!(engine.model(Some("gone")), Err(EngineError::UnknownModel { .. })));
    assert_eq!(engine.model(None).unwrap().name(), "stays");
    gone.gate.open();
    assert_eq!(ok(&running.await.unwrap().unwrap()).len(), 25);
    // Who still holds it is told to ask again by name, once it has nothing left to do.
    eventually("its end", || gone.computed().len() == 25 && Arc::strong_count(&gone) <= 2);
    let error = handle.embed(images("late", 1), client(1)).await.unwrap_err();
    assert!(matches!(error, EngineError::Loading { .. }), "{error}");
    drop(handle);
    eventually("its memory", || Arc::strong_count(&gone) == 1);
    assert_eq!(engine.load(), Load::default());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn models_of_one_space_share_their_texts() {
    let engine = Engine::start(config());
    let fake = Fake::new();
    let loads = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&loads);
    let (first, again) = (Arc::clone(&fake), Arc::clone(&fake));
    engine.insert(&["m"], first as _).unwrap().embed(vec![text("cat")], client(1)).await.unwrap();
    // The same checkpoint under its name again: what was computed stays valid.
    engine
        .replace("m", move |_| {
            counted.fetch_add(1, Ordering::SeqCst);
            Ok(again as _)
        })
        .unwrap();
    eventually("the load", || loads.load(Ordering::SeqCst) == 1 && engine.status()[0].replacement.is_none());
    let output = engine.model(None).unwrap().embed(vec![text("cat")], client(1)).await.unwrap();
    assert!(output.results[0].as_ref().unwrap().cached);
}

/// A fake whose towers are loaded by the test's leave and which counts how often.
struct Reloadable {
    fake: Arc<Fake>,
    loads: AtomicUsize,
    lost: AtomicBool,
    /// Before each load but the first.
    gate: Gate,
}

impl Reloadable {
    fn new() -> Arc<Self> {
        let (fake, gate) = (Fake::new(), Gate::new(true));
        Arc::new(Self { fake, loads: AtomicUsize::new(0), lost: AtomicBool::new(false), gate })
    }

    fn loads(&self) -> usize {
        self.loads.load(Ordering::SeqCst)
    }
}

impl Model for Reloadable {
    fn info(&self) -> &ModelInfo {
        self.fake.info()
    }

    fn probe_image(&self, bytes: &[u8], max_num_patches: Option<usize>) -> Result<ImageCost> {
        self.fake.probe_image(bytes, max_num_patches)
    }

    fn prepare_image(&self, bytes: &[u8], max_num_patches: Option<usize>) -> Result<Patches> {
        self.fake.prepare_image(bytes, max_num_patches)
    }

    fn prepare_text(&self, text: &str, canonicalization: Option<Canonicalization>) -> Result<TokenIds> {
        self.fake.prepare_text(text, canonicalization)
    }

    fn prepare_ids(&self, ids: &[u32]) -> Result<TokenIds> {
        self.fake.prepare_ids(ids)
    }

    fn memory_bytes(&self) -> u64 {
        MEMORY
    }

    fn load_towers(self: Arc<Self>, _: &Progress) -> Result<Vec<Arc<dyn Towers>>> {
        if self.loads.fetch_add(1, Ordering::SeqCst) > 0 {
            self.gate.pass();
        }
        match self.lost.load(Ordering::SeqCst) {
            true => Err(Error::Config("the disk is gone".into())),
            false => Ok(vec![Arc::new(Loaded(Arc::clone(&self.fake)))]),
        }
    }
}

/// The towers of one load: as many holders of the fake as there are in memory.
struct Loaded(Arc<Fake>);

impl Towers for Loaded {
    fn embed_images(&self, batch: &[&Patches], pause: &Pause<'_>) -> Result<Vec<Vec<f32>>> {
        self.0.embed_images(batch, pause)
    }

    fn embed_texts(&self, batch: &[&TokenIds]) -> Result<Vec<Vec<f32>>> {
        self.0.embed_texts(batch)
    }
}

/// Whether the towers are in memory: the model has one handle on the fake, the towers another.
fn resident(model: &Reloadable) -> bool {
    Arc::strong_count(&model.fake) > 1
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn towers_that_nobody_uses_leave_the_memory_and_come_back() {
    let model = Reloadable::new();
    let idle_unload = Some(Duration::from_millis(30));
    let engine = Engine::start(EngineConfig { idle_unload, ..config() });
    let handle = engine.insert(&["m"], Arc::clone(&model) as _).unwrap();
    assert_eq!(ok(&handle.embed(images("a", 3), client(1)).await.unwrap()).len(), 3);
    eventually("the unload", || !resident(&model));
    assert_eq!(handle.state(), ModelState::Unloaded);
    assert!(engine.ready() && !engine.failing(), "it comes back when it is asked");

    // A request waits for it, up to its deadline; what it is costs nothing meanwhile.
    model.gate.close();
    let deadline = Some(Instant::now() + Duration::from_millis(20));
    let late = handle.embed(images("late", 2), EmbedOptions { deadline, ..client(1) }).await.unwrap_err();
    assert!(matches!(late, EngineError::Deadline(_)), "{late}");
    let waiting = send(&engine, &handle, images("b", 25), client(1));
    model.gate.wait_for(1);
    assert_eq!(handle.state(), ModelState::Loading);
    assert!(engine.ready());
    model.gate.open();
    assert_eq!(ok(&waiting.await.unwrap().unwrap()).len(), 25);
    assert!(model.loads() >= 2);
    eventually("the next unload", || !resident(&model));
    assert!(!model.fake.computed().iter().any(|name| name.starts_with("late")));
    assert_eq!(engine.load(), Load::default());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn towers_are_not_dropped_while_they_warm_up() {
    let model = Reloadable::new();
    model.fake.gate.close();
    let config = EngineConfig { warm_up: true, idle_unload: Some(Duration::from_millis(10)), ..config() };
    let engine = Engine::start(config);
    let handle = engine.insert(&["m"], Arc::clone(&model) as _).unwrap();
    model.fake.gate.wait_for(1);
    std::thread::sleep(Duration::from_millis(50));
    assert_eq!(handle.state(), ModelState::Warming);
    model.fake.gate.open();
    eventually("the unload", || handle.state() == ModelState::Unloaded);
    assert_eq!(model.fake.batches().len(), 2, "it was warm before");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn towers_that_do_not_come_back_are_told_and_tried_again() {
    let model = Reloadable::new();
    let idle_unload = Some(Duration::from_millis(20));
    let engine = Engine::start(EngineConfig { idle_unload, ..config() });
    let handle = engine.insert(&["m"], Arc::clone(&model) as _).unwrap();
    model.lost.store(true, Ordering::SeqCst);
    eventually("the unload", || !resident(&model));
    // Whether it waits or is being prepared when the load fails.
    for _ in 0..20 {
        let error = handle.embed(images("a", 30), client(1)).await.unwrap_err();
        assert!(matches!(&error, EngineError::Loading { state: ModelState::Failed { .. }, .. }), "{error}");
    }
    let vector: Arc<[f32]> = [1.0, 0.0].into();
    let labels = Labels::unnamed(vec![Arc::clone(&vector)]);
    let scored = handle.cosines(vec![vector], labels, ScoreOptions::default()).await;
    assert!(matches!(scored, Err(EngineError::Loading { .. })), "{scored:?}");
    assert_eq!(engine.load(), Load::default());
    assert!(!engine.ready());
    model.lost.store(false, Ordering::SeqCst);
    assert_eq!(ok(&handle.embed(images("b", 1), client(1)).await.unwrap()).len(), 1);
    assert!(engine.ready());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn under_a_bound_of_memory_the_least_recently_used_makes_room() {
    let models = [Reloadable::new(), Reloadable::new(), Reloadable::new()];
    let engine = Engine::start(EngineConfig { max_model_memory: Some(2 * MEMORY), ..config() });
    let in_memory = || models.iter().map(|model| resident(model)).collect::<Vec<_>>();
    let mut handles = Vec::new();
    for (i, model) in models.iter().enumerate() {
        handles.push(engine.insert(&[&i.to_string()], Arc::clone(model) as _).unwrap());
        // Towers that compute their first batch are left alone.
        eventually("the first batch", || handles[i].state() == ModelState::Ready);
    }
    assert_eq!(in_memory(), [false, true, true], "the third had the room of the first");
    let ask = async |i: usize| ok(&handles[i].embed(images("a", 2), client(1)).await.unwrap()).len();
    assert_eq!(ask(1).await, 2);
    assert_eq!(ask(0).await, 2);
    assert_eq!(in_memory(), [true, true, false]);
    assert_eq!(ask(2).await, 2);
    assert_eq!(in_memory(), [true, false, true]);
    // One that works is left alone: the other makes room, though it was used later.
    models[0].fake.gate.close();
    let working = send(&engine, &handles[0], images("held", 1), client(1));
    eventually("the batch", || models[0].fake.computed().contains(&"held0".to_owned()));
    assert_eq!(ask(2).await, 2);
    assert_eq!(ask(1).await, 2);
    assert_eq!(in_memory(), [true, true, false]);
    models[0].fake.gate.open();
    working.await.unwrap().unwrap();
    // What can never fit is said.
    let small = Engine::start(EngineConfig { max_model_memory: Some(MEMORY - 1), ..config() });
    let error = small.insert(&["m"], Reloadable::new()).err().unwrap().to_string();
    assert!(error.contains("1000 bytes, --max-model-memory is 999"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_models_in_the_room_of_one_answer_everything() {
    let models = [Reloadable::new(), Reloadable::new()];
    let engine = Engine::start(EngineConfig { max_model_memory: Some(MEMORY), ..config() });
    let handles: Vec<_> =
        (0..2).map(|i| engine.insert(&[&i.to_string()], Arc::clone(&models[i]) as _).unwrap()).collect();
    let requests: Vec<_> = (0..40)
        .map(|i| {
            let model = handles[i % 2].clone();
            tokio::spawn(async move { model.embed(images(&format!("r{i}-"), 3), client(i as u64)).await })
        })
        .collect();
    for request in requests {
        assert_eq!(ok(&request.await.unwrap().unwrap()).len(), 3);
    }
    let computed = models.iter().flat_map(|model| model.fake.computed()).collect();
    assert!(counts(computed).values().all(|&times| times == 1));
    assert_eq!(engine.load(), Load::default());
    assert!(models.iter().filter(|model| resident(model)).count() <= 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_does_not_wait_for_towers_that_are_on_their_way() {
    let model = Reloadable::new();
    let engine = Engine::start(EngineConfig { idle_unload: Some(Duration::from_millis(20)), ..config() });
    let handle = engine.insert(&["m"], Arc::clone(&model) as _).unwrap();
    eventually("the unload", || !resident(&model));
    model.gate.close();
    let waiting = send(&engine, &handle, images("a", 3), client(1));
    model.gate.wait_for(1);
    let report = engine.drain(Duration::from_millis(20)).await;
    assert_eq!(report.abandoned, 3);
    assert_eq!(waiting.await.unwrap().unwrap_err(), EngineError::ShuttingDown);
    model.gate.open();
    eventually("the towers to be dropped again", || !resident(&model));
}
