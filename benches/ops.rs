//! Each operation of the towers on the processor, for every format of weights, on the instruction set in use
//! (SIGLIP_CPU_KERNELS forces one): `cargo bench --bench ops`.
//!
//! The shapes are those of base/16-224: one picture (196 tokens) and a pass of five (980), texts of 64 tokens.

use std::hint::black_box;
use std::sync::Arc;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use half::bf16;
use siglip::testing::model::zero_shot::Ranking;
use siglip::testing::model::{LabelSet, NoneTest, Question, Scores, Thresholds};
use siglip::testing::ops::cpu::attention::Inputs;
use siglip::testing::ops::cpu::linear::Finish;
use siglip::testing::ops::cpu::pooling::Folded;
use siglip::testing::ops::cpu::weight::{attend, normalize};
use siglip::testing::ops::cpu::{Isa, PackedWeight, WeightFormat};
use siglip::testing::ops::{Activation, Segments};

const WIDTH: usize = 768;
const HEADS: usize = 12;
const FORMATS: [WeightFormat; 3] = [WeightFormat::F32, WeightFormat::Bf16, WeightFormat::Int8];

fn values(count: usize) -> Vec<f32> {
    (0..count).map(|i| (i * 7919 % 1000) as f32 / 500.0 - 1.0).collect()
}

fn narrow(values: &[f32]) -> Vec<bf16> {
    values.iter().map(|&x| bf16::from_f32(x)).collect()
}

fn linear(c: &mut Criterion) {
    let mut group = c.benchmark_group(format!("linear/{}", Isa::active()));
    for (name, inner, out, activation) in [
        ("qkv", WIDTH, 3 * WIDTH, None),
        ("fc1+gelu", WIDTH, 4 * WIDTH, Some(Activation::GeluTanh)),
        ("fc1+gelu by erf", WIDTH, 4 * WIDTH, Some(Activation::GeluErf)),
        ("fc2+residual", 4 * WIDTH, WIDTH, None),
    ] {
        for format in FORMATS {
            let weight =
                PackedWeight::new(&values(inner * out), out, inner, format, Isa::active()).expect("a weight");
            for rows in [64, 196, 980] {
                let (x, bias, residual) = (values(rows * inner), values(out), values(rows * out));
                let x16 = narrow(&x);
                let residual = name.ends_with("residual").then_some(&*residual);
                let finish = Finish { bias: Some(&bias), activation, centre: None, residual };
                group.throughput(Throughput::Elements((rows * inner * out) as u64));
                group.bench_function(BenchmarkId::new(format!("{name}/{format:?}"), rows), |b| {
                    b.iter(|| match format {
                        WeightFormat::F32 => weight.forward::<f32>(black_box(&x), rows, finish, false),
                        _ => weight.forward::<bf16>(black_box(&x16), rows, finish, residual.is_none()),
                    });
                });
            }
        }
    }
}

fn attention(c: &mut Criterion) {
    let isa = Isa::active();
    let mut group = c.benchmark_group(format!("attention/{isa}"));
    for (items, tokens) in [(1, 196), (5, 196), (16, 64), (1, 1024)] {
        let segments = Segments::uniform(items, tokens);
        let qkv = values(items * tokens * 3 * WIDTH);
        let qkv16 = narrow(&qkv);
        let inputs = Inputs::every_row(&qkv, WIDTH, &segments).expect("every row");
        let inputs16 = Inputs::every_row(&qkv16, WIDTH, &segments).expect("every row");
        group.throughput(Throughput::Elements((2 * items * tokens * tokens * WIDTH) as u64));
        group.bench_function(BenchmarkId::new("F32", format!("{items}x{tokens}")), |b| {
            b.iter(|| attend(black_box(inputs), &segments, HEADS, isa));
        });
        group.bench_function(BenchmarkId::new("Bf16", format!("{items}x{tokens}")), |b| {
            b.iter(|| attend(black_box(inputs16), &segments, HEADS, isa));
        });
    }
}

fn by_rows(c: &mut Criterion) {
    let mut group = c.benchmark_group(format!("rows/{}", Isa::active()));
    let (rows, gain) = (980, values(WIDTH));
    let (x, tokens) = (values(rows * WIDTH), narrow(&values(rows * WIDTH)));
    let folded = Folded::new(&gain, &values(2 * WIDTH * WIDTH), &values(2 * WIDTH), HEADS).expect("a probe");
    let segments = Segments::uniform(5, 196);
    group.throughput(Throughput::Elements((rows * WIDTH) as u64));
    for narrow in [false, true] {
        group.bench_function(format!("layer norm/{}", if narrow { "bf16" } else { "f32" }), |b| {
            b.iter(|| normalize(black_box(&x), &gain, &gain, 1e-6, narrow));
        });
    }
    group.bench_function("pooling by the probe", |b| {
        b.iter(|| folded.pool::<bf16>(black_box(&tokens), &segments));
    });
}

/// One picture against a stored set of labels: its five best, and whether any fits.
fn labels(c: &mut Criterion) {
    let mut group = c.benchmark_group(format!("labels/{}", Isa::active()));
    let picture: Vec<Arc<[f32]>> = vec![values(WIDTH).into()];
    let scores = Scores { scale: 100.0, bias: -10.0 };
    let ranking = Ranking { top_k: Some(5), ..Ranking::default() };
    let none = Some(NoneTest::Sigmoid(Thresholds::All(0.01)));
    let question = Question { ranking, none, ..Question::default() };
    for count in [1000, 100_000] {
        let names = (0..count).map(|i| Arc::from(format!("label {i}"))).collect();
        let set = LabelSet::of_directions(names, &values(count * WIDTH), "space".into()).expect("labels");
        group.throughput(Throughput::Elements(count as u64));
        group.bench_function(format!("{count} labels"), |b| {
            b.iter(|| set.judge(black_box(&picture), scores, &question, &|| false).expect("scores"));
        });
    }
}

criterion_group!(benches, linear, attention, by_rows, labels);
criterion_main!(benches);
