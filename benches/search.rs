//! A million vectors against one query and against a hundred, as `siglip search` compares them.

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use siglip::testing::bulk::vectors::{Vectors, search};

const ROWS: usize = 1_000_000;
const WIDTH: usize = 512;

fn benches(criterion: &mut Criterion) {
    let mut state = 1u32;
    let mut random = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 24) as f32 - 0.5
    };
    let vectors = Vectors {
        values: (0..ROWS * WIDTH).map(|_| random()).collect(),
        width: WIDTH,
        names: vec![String::new(); ROWS],
        ..Vectors::default()
    };
    let queries: Vec<f32> = (0..100 * WIDTH).map(|_| random()).collect();
    let mut group = criterion.benchmark_group("search");
    group.sample_size(10);
    for count in [1, 100] {
        let queries = &queries[..count * WIDTH];
        group.bench_function(format!("{count} of 1,000,000 x 512"), |bencher| {
            bencher.iter(|| search(black_box(&vectors), black_box(queries), 10, -1.0));
        });
    }
    group.finish();
}

criterion_group!(search_benches, benches);
criterion_main!(search_benches);
