//! `siglip bench`: the engine alone, without decoding and without HTTP; or decoding alone.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use serde_json::json;

use super::error::{Result, failed};
use crate::checkpoint::Tower;
use crate::config::BenchArgs;
use crate::image::Patches;
use crate::ops::cpu::{Isa, WeightFormat, weight};
use crate::ops::profile::{self, Operation};
use crate::pipeline::{Pipeline, Precision};
use crate::text::TokenIds;

/// For how long the inner loop is measured, three times.
const PEAK_TIME: Duration = Duration::from_millis(100);

pub(super) fn run(args: &BenchArgs) -> Result<ExitCode> {
    if !(args.seconds > 0.0 && args.seconds <= 3600.0) {
        return Err(failed(format!("--seconds {}: it must be above 0, at most 3600", args.seconds)));
    }
    let started = Instant::now();
    let pipeline = args.model.load()?;
    let load = started.elapsed();
    let tower = args.model.compute.tower.unwrap_or(Tower::Image);
    let (what, batch) = match (&args.prepare, tower) {
        (Some(_), _) => ("preparation", 1),
        (None, Tower::Image) => ("image tower", usize::from(args.batch)),
        (None, Tower::Text) => ("text tower", usize::from(args.batch)),
    };
    let (times, work) = match (&args.prepare, tower) {
        (Some(file), _) => {
            let bytes =
                std::fs::read(file).map_err(|error| failed(format!("{}: {error}", file.display())))?;
            (measure(args.seconds, || Ok(pipeline.prepare_image(&bytes, None).map(drop)?))?, None)
        }
        (None, Tower::Image) => {
            let pictures = pictures(&pipeline, batch)?;
            let pictures: Vec<&Patches> = pictures.iter().collect();
            measure_tower(args, &pipeline, || Ok(pipeline.model().embed_images(&pictures).map(drop)?))?
        }
        (None, Tower::Text) => {
            let texts = texts(&pipeline, batch)?;
            let texts: Vec<&TokenIds> = texts.iter().collect();
            measure_tower(args, &pipeline, || Ok(pipeline.model().embed_texts(&texts).map(drop)?))?
        }
    };
    let median = times[times.len() / 2];
    let rate = batch as f64 / median.as_secs_f64();
    let info = pipeline.info();
    outln!(
        "{} {what}, batch {batch}, {} on {:?}: {rate:.2} items/s, median {:.2} ms, fastest {:.2} ms, slowest {:.2} ms \
         of {} runs; loaded in {:.2} s",
        info.name,
        info.dtype.name(),
        info.device,
        ms(median),
        ms(times[0]),
        ms(times[times.len() - 1]),
        times.len(),
        load.as_secs_f64(),
    );
    let speed = work.as_ref().map(|work| work.multiplications as f64 / median.as_secs_f64());
    if let (Some(work), Some(speed)) = (&work, speed) {
        work.print(speed, args.profile);
    }
    if args.json {
        outln!(
            "{}",
            json!({
                "multiplications_per_second": speed,
                "peak_multiplications_per_second": work.as_ref().map(|work| work.peak),
                "model": info.name, "tower": what.trim_end_matches(" tower"), "batch": batch, "dtype": info.dtype, "device": info.device,
                "threads": rayon::current_num_threads(),
                "items_per_second": rate, "median_ms": ms(median), "fastest_ms": ms(times[0]),
                "slowest_ms": ms(times[times.len() - 1]), "runs": times.len(), "load_s": load.as_secs_f64(),
            })
        );
    }
    Ok(ExitCode::SUCCESS)
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// What one batch computes on the processor, and how fast the processor could.
struct Work {
    /// Of one batch, each with an addition.
    multiplications: u64,
    /// Of the inner loop, a second, on all threads.
    peak: f64,
    threads: usize,
    /// The longest first, and the time of the whole batch.
    operations: Vec<(String, Operation)>,
    batch: Duration,
}

impl Work {
    fn print(&self, speed: f64, operations: bool) {
        outln!(
            "{:.1} G multiplications a second, {:.0} % of the {:.1} of the inner loop on {} threads with its operands in the \
             first-level cache",
            speed / 1e9,
            100.0 * speed / self.peak,
            self.peak / 1e9,
            self.threads,
        );
        if !operations {
            return;
        }
        let mut rest = self.batch;
        outln!("{:<34} {:>6} {:>10} {:>6} {:>8}", "operation", "calls", "ms", "time", "of peak");
        let share = |time: Duration| 100.0 * time.as_secs_f64() / self.batch.as_secs_f64();
        for (name, operation) in &self.operations {
            let time = operation.time;
            let reached = operation.multiplications as f64 / time.as_secs_f64() / self.peak;
            let reached = if operation.multiplications > 0 {
                format!("{:.0} %", 100.0 * reached)
            } else {
                String::new()
            };
            outln!(
                "{name:<34} {:>6} {:>10.2} {:>4.1} % {reached:>8}",
                operation.calls,
                ms(time),
                share(time)
            );
            rest = rest.saturating_sub(time);
        }
        outln!("{:<34} {:>6} {:>10.2} {:>4.1} %", "everything else", "", ms(rest), share(rest));
    }
}

/// The times of a tower's batches and, on the processor, what a batch computes.
fn measure_tower(
    args: &BenchArgs,
    pipeline: &Pipeline,
    mut run: impl FnMut() -> Result<()>,
) -> Result<(Vec<Duration>, Option<Work>)> {
    let times = measure(args.seconds, &mut run)?;
    let format = match pipeline.info().dtype {
        Precision::F32 => WeightFormat::F32,
        Precision::Bf16 => WeightFormat::Bf16,
        Precision::Int8 => WeightFormat::Int8,
        Precision::Auto | Precision::F16 => return Ok((times, None)),
    };
    let started = Instant::now();
    let (result, operations) = profile::of(&mut run);
    let batch = started.elapsed();
    result?;
    let multiplications = operations.iter().map(|(_, operation)| operation.multiplications).sum();
    // On a GPU there is nothing to be found.
    if multiplications == 0 {
        return Ok((times, None));
    }
    let mut peak = 0.0f64;
    for _ in 0..3 {
        let found =
            weight::peak(format, Isa::active(), PEAK_TIME).map_err(|error| failed(error.to_string()))?;
        peak = peak.max(found);
    }
    let threads = rayon::current_num_threads();
    Ok((times, Some(Work { multiplications, peak, threads, operations, batch })))
}

/// Runs once to warm up, then for so many seconds and at least three times; the times in ascending order.
fn measure(seconds: f64, mut run: impl FnMut() -> Result<()>) -> Result<Vec<Duration>> {
    run()?;
    let mut times = Vec::new();
    let end = Instant::now() + Duration::from_secs_f64(seconds);
    while Instant::now() < end || times.len() < 3 {
        let started = Instant::now();
        run()?;
        times.push(started.elapsed());
    }
    times.sort();
    Ok(times)
}

/// Bytes that look random and are the same at every run (Knuth's linear congruential generator).
fn noise(count: usize, seed: usize) -> Vec<u8> {
    let mut state = seed as u64 + 1;
    (0..count)
        .map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 56) as u8
        })
        .collect()
}

fn pictures(pipeline: &Pipeline, batch: usize) -> Result<Vec<Patches>> {
    let spec = pipeline.image()?.spec();
    let grid = spec.grid();
    let bytes = grid.len() * spec.patch * spec.patch * 3;
    let source = ((grid.rows * spec.patch) as u32, (grid.cols * spec.patch) as u32);
    Ok((0..batch).map(|i| Patches { pixels: noise(bytes, i), grid, source }).collect())
}

fn texts(pipeline: &Pipeline, batch: usize) -> Result<Vec<TokenIds>> {
    let spec = pipeline.text()?.spec();
    let (context, vocab) = (spec.context, spec.vocab.min(1000) as u32);
    let text = |i| {
        let ids = noise(context, i).into_iter().map(|byte| u32::from(byte) % vocab).collect();
        TokenIds { ids, used: context, truncated: false }
    };
    Ok((0..batch).map(text).collect())
}
