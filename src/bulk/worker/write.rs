//! The writer of a stream: a thread of its own, so that a slow output does not hold up what is computed meanwhile.

use std::io::{BufWriter, Write};

use arrow_array::RecordBatch;
use arrow_ipc::writer::StreamWriter;
use arrow_schema::{ArrowError, SchemaRef};
use tokio::sync::{mpsc, oneshot};

use crate::bulk::fault::{Fault, Kind};
use crate::bulk::gate::Permit;

/// What is written.
pub(super) enum Part {
    /// A batch, and the memory that is free when it was written.
    Batch(RecordBatch, Option<Permit>),
    /// The mark of the end. Without it the stream was broken off.
    End,
}

/// Where parts go, and how writing ended.
type Writer = (mpsc::Sender<Part>, oneshot::Receiver<Result<(), Fault>>);

/// Starts to write: the schema at once.
pub(super) fn start(output: impl Write + Send + 'static, schema: SchemaRef) -> Result<Writer, Fault> {
    let (sender, parts) = mpsc::channel(1);
    let (done, ended) = oneshot::channel();
    let write = move || {
        let _ = done.send(write_all(output, &schema, parts).map_err(|error| match error {
            ArrowError::IoError(_, error) => Fault::of_output(&error),
            error => Fault::new(Kind::Output, format!("the output: {error}")),
        }));
    };
    let thread = std::thread::Builder::new().name("arrow-write".to_owned()).spawn(write);
    thread.map_err(|error| Fault::new(Kind::Temporary, format!("no thread for the output: {error}")))?;
    Ok((sender, ended))
}

fn write_all(
    output: impl Write,
    schema: &SchemaRef,
    mut parts: mpsc::Receiver<Part>,
) -> Result<(), ArrowError> {
    let mut stream = StreamWriter::try_new(BufWriter::new(output), schema)?;
    stream.flush()?;
    while let Some(part) = parts.blocking_recv() {
        match part {
            Part::Batch(batch, permit) => {
                stream.write(&batch)?;
                drop((batch, permit));
                stream.flush()?;
            }
            Part::End => {
                stream.finish()?;
                return stream.flush();
            }
        }
    }
    Ok(())
}
