//! `siglip search`: rows of an index that are nearest to something.

use std::pin::pin;
use std::process::ExitCode;
use std::time::Instant;

use futures::StreamExt;
use serde_json::json;

use super::error::{Result, failed};
use super::session::{self, Source};
use crate::bulk::vectors::{Vectors, escaped, load, search};
use crate::bulk::{Fault, FaultKind};
use crate::config::{SearchArgs, start_threads};

pub(super) fn run(args: &SearchArgs) -> Result<ExitCode> {
    if args.texts.is_empty() && args.images.is_empty() && args.like.is_empty() {
        return Err(failed("nothing to look for: give --text, --image or --like"));
    }
    let needs_model = !args.texts.is_empty() || !args.images.is_empty();
    if needs_model {
        args.model.chosen()?;
    }
    // Reading the vectors uses them, too.
    start_threads(args.model.compute.threads)?;
    let started = Instant::now();
    let vectors = load(&args.index)?;
    let loaded = started.elapsed();
    let (mut names, mut queries) = (Vec::new(), Vec::new());
    for name in &args.like {
        let row = vectors.names.iter().position(|other| other == name);
        let row = row.ok_or_else(|| failed(format!("--like: there is no row {name:?}")))?;
        names.push(name.clone());
        queries.extend_from_slice(&vectors.values[row * vectors.width..][..vectors.width]);
    }
    if needs_model {
        embed(args, &vectors, &mut names, &mut queries)?;
    }
    let started = Instant::now();
    let found = search(&vectors, &queries, args.top_k, args.threshold)?;
    tracing::info!(
        "{} vectors of width {}: read in {:.2} s, compared in {:.3} s",
        vectors.len(),
        vectors.width,
        loaded.as_secs_f64(),
        started.elapsed().as_secs_f64()
    );
    for (query, hits) in names.iter().zip(&found) {
        for hit in hits {
            let name = &vectors.names[hit.row];
            if args.json {
                outln!("{}", json!({ "query": query, "name": name, "cosine": hit.cosine }));
            } else {
                outln!("{}\t{:.6}\t{}", escaped(query), hit.cosine, escaped(name));
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Embeds the texts and images that are looked for.
fn embed(
    args: &SearchArgs,
    vectors: &Vectors,
    names: &mut Vec<String>,
    queries: &mut Vec<f32>,
) -> Result<()> {
    let session = session::load(&args.model, None)?;
    let info = session.info();
    let fingerprint = info.fingerprint_with(None, args.max_num_patches);
    if let Some(there) = vectors.fingerprint.as_ref().filter(|there| **there != fingerprint) {
        let text = format!(
            "{} is of {} ({there:.12}), not of {} ({fingerprint:.12}): their vectors cannot be compared",
            args.index.display(),
            vectors.model.as_deref().unwrap_or("another model"),
            info.name
        );
        return Err(Fault::new(FaultKind::OtherSpace, text).into());
    }
    if !vectors.is_empty() && vectors.width != info.embedding_dim {
        let text = format!(
            "{} has vectors of width {}, not {}",
            args.index.display(),
            vectors.width,
            info.embedding_dim
        );
        return Err(Fault::new(FaultKind::OtherSpace, text).into());
    }
    let texts = args.texts.iter().map(|text| (text.clone(), Source::Text(text.clone())));
    let images = args.images.iter().map(|path| (path.display().to_string(), Source::File(path.clone())));
    let inputs = texts.chain(images).collect();
    session.block_on(async {
        let mut results = pin!(session::embed(&session, inputs, args.max_num_patches));
        while let Some((name, result)) = results.next().await {
            let embedding = result.map_err(|error| failed(format!("{name}: {error}")))?;
            names.push(name);
            queries.extend_from_slice(&embedding.vector);
        }
        Ok(())
    })
}
