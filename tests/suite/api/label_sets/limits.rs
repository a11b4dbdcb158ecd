//! How many sets there may be, and how much they may hold.

use serde_json::json;
use siglip::testing::api::{ApiConfig, ApiKeys};
use siglip::testing::budget::{MemoryBudget, MemoryKind};
use siglip::testing::labels::{Condition, Definition, LabelError, LabelSets, SetLimits};

use super::super::{Service, form};
use super::CLASSIFY;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sets_are_charged_to_the_budget() {
    let config = ApiConfig { memory: MemoryBudget::new(16 << 20), ..ApiConfig::default() };
    let service = Service::configured(config).await;
    let labels = |n: usize| -> Vec<String> { (0..n).map(|i| format!("{i:05}{}", "x".repeat(300))).collect() };
    let message = service
        .put("/v1/label-sets/a", json!({"labels": labels(10_000)}))
        .await
        .error(413, "payload_too_large");
    assert!(message.contains("bytes of memory are needed"), "{message}");
    service.stored("a", json!({"labels": labels(1000)})).await;
    let held = service.state.memory().of_kind(MemoryKind::Labels);
    assert!((500_000..1_500_000).contains(&held), "{held}");
    assert_eq!(service.state.memory().total(), held, "requests hold nothing any more");
    assert_eq!(service.delete("/v1/label-sets/a", &[]).await.status, 204);
    assert_eq!(service.state.memory().total(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_key_has_its_number_of_sets() {
    let max_label_sets = SetLimits { all: 4, per_key: 2 };
    let api_keys = ApiKeys::new(["ann", "bob"]);
    let service = Service::configured(ApiConfig { max_label_sets, api_keys, ..ApiConfig::default() }).await;
    let put = async |name: &str, key: &str| {
        let path = format!("/v1/label-sets/{name}");
        service.put_if(&path, json!({"labels": [name]}), &[("x-api-key", key)]).await
    };
    for (name, key) in [("a", "ann"), ("b", "ann"), ("c", "bob")] {
        assert_eq!(put(name, key).await.status, 201);
    }
    let message = put("d", "ann").await.error(409, "too_many_label_sets");
    assert!(message.contains("for each key 2") && message.contains("--max-label-sets-per-key"), "{message}");
    // Whoever changes a set, it stays its maker's.
    assert_eq!(
        service.put_if("/v1/label-sets/a", json!({"labels": ["x"]}), &[("x-api-key", "bob")]).await.status,
        200
    );
    assert_eq!(put("d", "bob").await.status, 201);
    put("e", "bob").await.error(409, "too_many_label_sets");
    assert_eq!(service.delete("/v1/label-sets/b", &[("x-api-key", "bob")]).await.status, 204);
    assert_eq!(put("e", "ann").await.status, 201);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_set_needs_all_in_all_never_fits_or_fits_later() {
    // Texts on their way and labels: each fits into what sets may hold, both do not.
    let template = format!("{} {{}}", "x".repeat(3900));
    let definition: Definition = serde_json::from_value(json!({
        "labels": (0..1000).map(|i| format!("{i:0100}")).collect::<Vec<_>>(), "templates": template,
    }))
    .unwrap();
    let service = Service::new().await;
    for (memory, never_fits) in [(2_500_000, true), (4_000_000, false)] {
        let budget = MemoryBudget::new(memory);
        let sets = LabelSets::in_memory(service.state.engine().clone(), budget.clone(), 4);
        let put = || sets.put("a", definition.clone(), &Condition::Any, None);
        if never_fits {
            let Err(LabelError::Memory(exceeded)) = put() else { panic!("it fits into {memory}") };
            assert!(exceeded.never_fits && exceeded.wanted > exceeded.share, "{exceeded}");
        } else {
            put().unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_needs_too_much_all_in_all_is_too_large() {
    // Bodies and answers of up to 40 MB.
    let config = ApiConfig { memory: MemoryBudget::new(80_000_000), ..ApiConfig::default() };
    let service = Service::configured(config).await;
    let labels: Vec<String> = (0..8000).map(|i| format!("{i:05}")).collect();
    service.stored("many", json!({ "labels": labels })).await;
    let ask = async |picture: usize| {
        let picture = [&b"PIC"[..], &vec![0; picture]].concat();
        let mut parts = vec![("image", Some("a"), None, &*picture); 32];
        parts.push(("label_set", None, None, b"many"));
        let (kind, body) = form(&parts);
        service.post(CLASSIFY, &kind, body).await
    };
    ask(10).await.ok();
    // The body has room, the answer has room; both together never have, however often the client comes again.
    let message = ask(250_000).await.error(413, "payload_too_large");
    assert!(message.contains("larger than the service takes at once"), "{message}");
    assert_eq!(service.state.memory().total(), service.state.memory().of_kind(MemoryKind::Labels));
}
