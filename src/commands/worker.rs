//! `siglip worker`: Arrow streams in, Arrow streams with embeddings out.

use std::process::ExitCode;
use std::time::Instant;

use super::session::{self, Interrupt};
use crate::bulk::worker::{Kind, RowLabels, Summary, Wanted, Worker, WorkerOptions};
use crate::bulk::{Fault, FaultKind, Session};
use crate::config::WorkerArgs;

pub(super) fn run(args: &WorkerArgs) -> ExitCode {
    match work(args) {
        Ok(code) => code,
        Err(fault) => {
            if fault.kind != FaultKind::Gone {
                eprintln!("error: {fault}");
            }
            ExitCode::from(fault.kind.exit_code())
        }
    }
}

fn work(args: &WorkerArgs) -> Result<ExitCode, Fault> {
    let started = Instant::now();
    let options = options(args)?;
    let session = session::start_or_fault(&args.model, args.work.max_batch_tokens)?;
    let labels = match &args.label_set {
        Some(file) => Some(RowLabels::open(&session, file, args.top_k.unwrap_or(1))?),
        None => None,
    };
    let worker = Worker::new(&session, labels, options);
    #[cfg(unix)]
    if let Some(address) = &args.listen {
        return session.block_on(listen(&session, worker, address, args));
    }
    ready(&session, &worker, "");
    let (input, output) = standard().map_err(|error| Fault::new(FaultKind::Output, error.to_string()))?;
    let summary = session.block_on(worker.answer(input, output))?;
    eprintln!("siglip worker: {}", line(&summary, started));
    Ok(ExitCode::SUCCESS)
}

fn options(args: &WorkerArgs) -> Result<WorkerOptions, Fault> {
    let kind = |text: &str| match text {
        "image" => Ok(Kind::Image),
        "text" => Ok(Kind::Text),
        other => Err(Fault::new(FaultKind::Usage, format!("--column {other}: image or text, then a name"))),
    };
    let wanted = match args.column.as_slice() {
        [kind_of, name] => Wanted { name: Some(name.clone()), kind: Some(kind(kind_of)?) },
        [name] => Wanted { name: Some(name.clone()), kind: kind(name).ok() },
        _ => Wanted::default(),
    };
    Ok(WorkerOptions {
        wanted,
        keep_input: args.keep_input,
        embedding: args.embedding_dtype.into(),
        normalize: !args.work.no_normalize,
        max_num_patches: args.work.max_num_patches,
        max_batch_bytes: args.max_batch_bytes,
        top_k: args.top_k,
    })
}

/// The line that a program waits for: words with `=`, separated by spaces.
fn ready(session: &Session, worker: &Worker, more: &str) {
    let info = session.info();
    let fingerprint = worker.facts().iter().find(|(key, _)| key == crate::bulk::facts::FINGERPRINT);
    eprintln!(
        "siglip worker: ready fingerprint={} dimensions={} dtype={} model={}{more}",
        fingerprint.map_or("", |(_, value)| value),
        info.embedding_dim,
        info.dtype.name(),
        info.name,
    );
}

fn line(summary: &Summary, started: Instant) -> String {
    let Summary { rows, bad, batches } = summary;
    let seconds = started.elapsed().as_secs_f64();
    format!("done rows={rows} bad={bad} batches={batches} seconds={seconds:.1}")
}

/// Standard input and output without buffers of their own.
#[cfg(unix)]
fn standard() -> std::io::Result<(std::fs::File, std::fs::File)> {
    use std::os::fd::AsFd;
    let input = std::io::stdin().as_fd().try_clone_to_owned()?;
    let output = std::io::stdout().as_fd().try_clone_to_owned()?;
    Ok((input.into(), output.into()))
}

#[cfg(not(unix))]
fn standard() -> std::io::Result<(std::io::Stdin, std::io::Stdout)> {
    Ok((std::io::stdin(), std::io::stdout()))
}

#[cfg(unix)]
async fn listen(
    session: &Session,
    worker: Worker,
    address: &crate::bulk::worker::Address,
    args: &WorkerArgs,
) -> Result<ExitCode, Fault> {
    use crate::bulk::worker::Listener;

    let mut interrupt =
        Interrupt::listen().map_err(|error| Fault::new(FaultKind::Temporary, error.to_string()))?;
    let listener = Listener::bind(address).await?;
    ready(session, &worker, &format!(" listen={}", listener.address()));
    let started = Instant::now();
    let report = |number: usize, result: &Result<Summary, Fault>| match result {
        Ok(summary) => eprintln!("siglip worker: stream {number}: {}", line(summary, started)),
        Err(fault) => eprintln!("siglip worker: stream {number}: error: {fault}"),
    };
    let (most, drain) = (usize::from(args.max_streams), args.drain_timeout);
    let left = listener.serve(std::sync::Arc::new(worker), most, interrupt.wait(), drain, report).await;
    match left {
        0 => Ok(ExitCode::SUCCESS),
        left => {
            Err(Fault::new(FaultKind::Temporary, format!("{left} streams were broken off (--drain-timeout)")))
        }
    }
}
