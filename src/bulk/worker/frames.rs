//! The frames of an Arrow stream: what a message says of its size is checked before any of its body is read.

use std::collections::HashMap;
use std::io::{Error, ErrorKind, Read, Result};
use std::sync::Arc;

use arrow_ipc::{Message, MessageHeader, RecordBatch, root_as_message};

use super::gate::{Gate, Permit};

/// Bytes of a message without its body, at most: names, types and sizes of columns.
const HEAD_BYTES: usize = 16 << 20;
const CONTINUATION: [u8; 4] = [0xff; 4];

/// Passes a stream on, message by message. The body of one that is too large is never read.
pub(super) struct Frames<R> {
    input: R,
    /// Bytes of a batch at most: its own and those of what is made of it.
    most: u64,
    /// Bytes that are made of each row.
    row_bytes: u64,
    gate: Arc<Gate>,
    permit: Option<Permit>,
    /// The prefix and the metadata of the present message, and how much of them was passed on.
    head: Vec<u8>,
    passed: usize,
    /// What is left of its body.
    body: u64,
    /// Bytes of each dictionary: they stay until the end.
    dictionaries: HashMap<i64, u64>,
    ended: bool,
}

impl<R: Read> Frames<R> {
    pub(super) fn new(input: R, most: usize, row_bytes: usize, gate: Arc<Gate>) -> Self {
        Self {
            input,
            most: most as u64,
            row_bytes: row_bytes as u64,
            gate,
            permit: None,
            head: Vec::new(),
            passed: 0,
            body: 0,
            dictionaries: HashMap::new(),
            ended: false,
        }
    }

    /// The memory of the batch that was read last.
    pub(super) fn take_permit(&mut self) -> Option<Permit> {
        self.permit.take()
    }

    /// Reads the next message up to its body; whether there is one.
    fn next_head(&mut self) -> Result<bool> {
        self.head.clear();
        self.passed = 0;
        if self.ended || !self.read_first_word()? {
            return Ok(false);
        }
        if self.head[..4] == CONTINUATION {
            self.fill(4)?;
        }
        let prefix = self.head.len();
        let length: [u8; 4] = self.head[prefix - 4..].try_into().map_err(Error::other)?;
        let length = i32::from_le_bytes(length);
        if length == 0 {
            self.ended = true;
            return Ok(true);
        }
        let length = usize::try_from(length).ok().filter(|&length| length <= HEAD_BYTES);
        let length = length.ok_or_else(|| {
            wrong(format!(
                "not an Arrow stream: a message whose metadata is not between 0 and {HEAD_BYTES} bytes"
            ))
        })?;
        self.fill(length)?;
        let message = root_as_message(&self.head[prefix..])
            .map_err(|error| wrong(format!("a message that cannot be read: {error}")))?;
        let body = u64::try_from(message.bodyLength()).map_err(|_| wrong("a body of negative length"))?;
        self.permit = None;
        let cost = check(&message, body, self.most, self.row_bytes, &mut self.dictionaries)?;
        if cost > 0 {
            // What is held by earlier batches is free again when they were written.
            self.permit = Some(self.gate.acquire(cost));
        }
        self.body = body;
        Ok(true)
    }

    /// The first four bytes of a message; false at the end of the input.
    fn read_first_word(&mut self) -> Result<bool> {
        let mut word = [0; 4];
        let mut have = 0;
        while have < word.len() {
            match self.input.read(&mut word[have..]) {
                Ok(0) if have == 0 => return Ok(false),
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(read) => have += read,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.head.extend_from_slice(&word);
        Ok(true)
    }

    fn fill(&mut self, more: usize) -> Result<()> {
        let have = self.head.len();
        let read = (&mut self.input).take(more as u64).read_to_end(&mut self.head)?;
        debug_assert!(self.head.len() == have + read);
        if read < more { Err(ErrorKind::UnexpectedEof.into()) } else { Ok(()) }
    }
}

/// What a message costs while its batch is worked on; nothing for a schema or a dictionary.
fn check(
    message: &Message<'_>,
    body: u64,
    most: u64,
    row_bytes: u64,
    dictionaries: &mut HashMap<i64, u64>,
) -> Result<u64> {
    let (batch, dictionary) = match message.header_type() {
        MessageHeader::RecordBatch => (message.header_as_record_batch(), None),
        MessageHeader::DictionaryBatch => {
            let dictionary = message.header_as_dictionary_batch();
            (dictionary.and_then(|dictionary| dictionary.data()), dictionary)
        }
        // A schema has no body, and what else there is the reader refuses.
        _ if body > HEAD_BYTES as u64 => return Err(wrong("a message without rows that has a body")),
        _ => return Ok(0),
    };
    let batch: RecordBatch<'_> = batch.ok_or_else(|| wrong("a batch without a header"))?;
    if batch.compression().is_some() {
        return Err(wrong("the bodies are compressed: write the stream without compression"));
    }
    let rows = u64::try_from(batch.length()).map_err(|_| wrong("a batch of negative length"))?;
    if let Some(dictionary) = dictionary {
        // Values without a body (a dictionary of nulls) are counted by their number.
        let own = body.max(rows);
        let held = dictionaries.entry(dictionary.id()).or_default();
        *held = if dictionary.isDelta() { held.saturating_add(own) } else { own };
        let all = dictionaries.values().fold(0u64, |sum, &bytes| sum.saturating_add(bytes));
        return match all > most {
            true => {
                Err(wrong(format!("dictionaries of {all} bytes; the limit is {most} (--max-batch-bytes)")))
            }
            false => Ok(0),
        };
    }
    let made = rows.saturating_mul(row_bytes);
    let cost = body.saturating_add(made);
    if cost > most {
        return Err(wrong(format!(
            "a record batch of {rows} rows and {body} bytes needs {cost} bytes with its embeddings; \
             the limit is {most} (--max-batch-bytes)"
        )));
    }
    Ok(cost)
}

fn wrong(text: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidData, text.into())
}

impl<R: Read> Read for Frames<R> {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize> {
        loop {
            if self.passed < self.head.len() {
                let read = (&self.head[self.passed..]).read(buffer)?;
                self.passed += read;
                return Ok(read);
            }
            if self.body > 0 {
                let room = usize::try_from(self.body).unwrap_or(usize::MAX).min(buffer.len());
                let read = self.input.read(&mut buffer[..room])?;
                self.body -= read as u64;
                return Ok(read);
            }
            if !self.next_head()? {
                return Ok(0);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow_array::builder::{ListBuilder, StringBuilder, StringDictionaryBuilder};
    use arrow_array::types::Int32Type;
    use arrow_array::{ArrayRef, BinaryViewArray, NullArray, RecordBatch};
    use arrow_ipc::reader::StreamReader;
    use arrow_ipc::writer::StreamWriter;
    use proptest::prelude::*;

    use super::*;

    const MOST: usize = 1 << 20;

    fn stream() -> Vec<u8> {
        let mut words = StringDictionaryBuilder::<Int32Type>::new();
        let mut lists = ListBuilder::new(StringBuilder::new());
        for row in 0..5 {
            words.append_value(["a", "b"][row % 2]);
            lists.append_value((0..row).map(|i| Some(i.to_string())));
        }
        let views = BinaryViewArray::from_iter((0..5).map(|row| (row != 1).then(|| vec![7u8; row * 9])));
        let columns: Vec<(&str, ArrayRef)> = vec![
            ("word", Arc::new(words.finish())),
            ("list", Arc::new(lists.finish())),
            ("view", Arc::new(views)),
            ("none", Arc::new(NullArray::new(5))),
        ];
        let batch = RecordBatch::try_from_iter(columns).unwrap();
        let mut writer = StreamWriter::try_new(Vec::new(), &batch.schema()).unwrap();
        writer.write(&batch).unwrap();
        writer.write(&batch).unwrap();
        writer.into_inner().unwrap()
    }

    /// Rows of a stream, until it ends or is wrong.
    fn rows(bytes: &[u8]) -> usize {
        let frames = Frames::new(bytes, MOST, 100, Gate::new(2 * MOST as u64));
        let Ok(stream) = StreamReader::try_new(frames, None) else { return 0 };
        stream.map_while(std::result::Result::ok).map(|batch| batch.num_rows()).sum()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        /// Whatever is changed, nothing larger than the limit comes out, and nothing waits for ever.
        #[test]
        fn damaged_streams_end(changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4)) {
            let mut bytes = stream();
            for (at, value) in changes {
                let at = at.index(bytes.len());
                bytes[at] = value;
            }
            // A panic of the library ends the stream with an error (`rows.rs`).
            let found = std::panic::catch_unwind(|| rows(&bytes)).unwrap_or(0);
            prop_assert!(found * 100 <= MOST);
        }
    }

    #[test]
    fn a_whole_stream_passes_and_a_cut_one_does_not_hang() {
        let bytes = stream();
        assert_eq!(rows(&bytes), 10);
        assert!((0..bytes.len()).all(|end| rows(&bytes[..end]) <= 10));
    }
}
