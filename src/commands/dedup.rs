//! `siglip dedup`: rows of an index that are nearly the same.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use serde_json::json;

use super::error::{Result, failed};
use crate::bulk::vectors::{Duplicate, duplicates, escaped, load};
use crate::config::{DedupArgs, start_threads};

/// Between two lines of progress.
const INTERVAL: Duration = Duration::from_secs(60);

pub(super) fn run(args: &DedupArgs) -> Result<ExitCode> {
    if !(-1.0..=1.0).contains(&args.threshold) {
        return Err(failed(format!("--threshold {}: a cosine is between -1 and 1", args.threshold)));
    }
    start_threads(args.threads)?;
    let vectors = load(&args.index)?;
    let mut told = Instant::now();
    let found = duplicates(&vectors, args.threshold, |share| {
        if told.elapsed() >= INTERVAL {
            told = Instant::now();
            eprintln!("{:.1} % of the pairs are compared", share * 100.0);
        }
    })?;
    let groups: Vec<&[Duplicate]> = found.chunk_by(|a, b| a.group == b.group).collect();
    for group in &groups {
        if args.json {
            let rows: Vec<_> = group
                .iter()
                .map(|found| json!({ "name": vectors.names[found.row], "cosine": found.cosine }))
                .collect();
            outln!("{}", json!({ "group": group[0].group, "rows": rows }));
        } else {
            for found in *group {
                outln!("{}\t{:.6}\t{}", found.group, found.cosine, escaped(&vectors.names[found.row]));
            }
        }
    }
    eprintln!("{} of {} rows are in {} groups", found.len(), vectors.len(), groups.len());
    Ok(ExitCode::SUCCESS)
}
