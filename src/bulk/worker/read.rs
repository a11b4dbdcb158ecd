//! The reader of a stream: a thread that has the next batch ready while the present one is computed.

use std::io::Read;

use arrow_array::RecordBatch;
use arrow_ipc::reader::StreamReader;
use arrow_schema::{ArrowError, Schema};
use tokio::sync::mpsc::Sender;

use super::columns::{Cells, Columns};
use super::frames::Frames;
use crate::bulk::fault::{Fault, Kind};
use crate::bulk::gate::Permit;

/// What the reader gives.
pub(super) enum Part {
    /// First of all.
    Columns(std::sync::Arc<Columns>),
    /// A batch.
    Batch(Work),
    /// The input is not such a stream; nothing comes after it.
    Fault(Fault),
    /// The end, as the input has it. Without it the thread was lost.
    End,
}

/// A batch that was read.
pub(super) struct Work {
    pub(super) cells: Cells,
    /// The whole batch, for its columns that go through.
    pub(super) batch: RecordBatch,
    /// Its memory.
    pub(super) permit: Option<Permit>,
}

/// Starts to read. The thread ends with the input, or when nobody takes what it reads.
pub(super) fn start<R: Read + Send + 'static>(
    frames: Frames<R>,
    plan: impl FnOnce(&Schema) -> Result<Columns, Fault> + Send + 'static,
    parts: Sender<Part>,
) -> Result<(), Fault> {
    let read = move || {
        let last = match read_all(frames, plan, &parts) {
            Ok(()) => Part::End,
            Err(fault) => Part::Fault(fault),
        };
        let _ = parts.blocking_send(last);
    };
    let thread = std::thread::Builder::new().name("arrow-read".to_owned()).spawn(read);
    thread.map(drop).map_err(|error| Fault::new(Kind::Temporary, format!("no thread for the input: {error}")))
}

fn read_all<R: Read>(
    frames: Frames<R>,
    plan: impl FnOnce(&Schema) -> Result<Columns, Fault>,
    parts: &Sender<Part>,
) -> Result<(), Fault> {
    let mut stream = StreamReader::try_new(frames, None).map_err(fault)?;
    let columns = std::sync::Arc::new(plan(&stream.schema())?);
    let input = columns.input;
    if parts.blocking_send(Part::Columns(columns)).is_err() {
        return Ok(());
    }
    while let Some(batch) = stream.next() {
        let batch = batch.map_err(fault)?;
        let permit = stream.get_mut().take_permit();
        let cells = Cells::new(std::sync::Arc::clone(batch.column(input)));
        if parts.blocking_send(Part::Batch(Work { cells, batch, permit })).is_err() {
            return Ok(());
        }
    }
    Ok(())
}

/// What was wrong with the input.
fn fault(error: ArrowError) -> Fault {
    let text = match error {
        ArrowError::IoError(_, error) if error.kind() == std::io::ErrorKind::UnexpectedEof => {
            "it is cut off in the middle of a message".to_owned()
        }
        ArrowError::IoError(_, error) => error.to_string(),
        error => error.to_string(),
    };
    Fault::input(format!("the input: {}", text.lines().next().unwrap_or_default()))
}
