//! The frames of an Arrow stream: what a message says of its size is checked before any of its body is read, and what its
//! compressed buffers say of theirs before any is decompressed.

use std::collections::{HashMap, VecDeque};
use std::io::{Error, ErrorKind, Read, Result};
use std::sync::Arc;

use arrow_ipc::{Message, MessageHeader, RecordBatch, root_as_message};

use crate::bulk::gate::{Gate, Permit};

/// Bytes of a message without its body, at most: names, types and sizes of columns.
const HEAD_BYTES: usize = 16 << 20;
const CONTINUATION: [u8; 4] = [0xff; 4];
/// What a compressed buffer says before its bytes: how many they become, -1 for bytes as they are.
const PREFIX: u64 = 8;

/// Passes a stream on, message by message. The body of one that is too large is never read.
pub(in crate::bulk) struct Frames<R> {
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
    /// Bytes of its body, and how many of them were passed on.
    body: u64,
    body_passed: u64,
    /// Where its compressed buffers begin, as far as they are still to come; what of the next prefix came already; whose
    /// bytes they are.
    prefixes: VecDeque<u64>,
    prefix: Vec<u8>,
    of: Of,
    /// Bytes of each dictionary: they stay until the end.
    dictionaries: HashMap<i64, u64>,
    ended: bool,
}

/// What a message is of.
#[derive(Debug, Clone, Copy)]
enum Of {
    /// Neither: nothing is charged.
    Schema,
    /// A batch, and what it costs by now.
    Batch { rows: u64, cost: u64 },
    /// A dictionary of this number.
    Dictionary(i64),
}

impl<R: Read> Frames<R> {
    pub(in crate::bulk) fn new(input: R, most: usize, row_bytes: usize, gate: Arc<Gate>) -> Self {
        Self {
            input,
            most: most as u64,
            row_bytes: row_bytes as u64,
            gate,
            permit: None,
            head: Vec::new(),
            passed: 0,
            body: 0,
            body_passed: 0,
            prefixes: VecDeque::new(),
            prefix: Vec::new(),
            of: Of::Schema,
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
        (self.of, self.prefixes) = check(&message, body, self.most, self.row_bytes, &mut self.dictionaries)?;
        if let Of::Batch { cost, .. } = self.of {
            // What is held by earlier batches is free again when they were written.
            self.permit = Some(self.gate.acquire(cost));
        }
        (self.body, self.body_passed) = (body, 0);
        self.prefix.clear();
        Ok(true)
    }

    /// Looks at what is passed on of a body: what compressed buffers become is charged before the reader has all of it.
    fn look(&mut self, bytes: &[u8]) -> Result<()> {
        let (from, to) = (self.body_passed, self.body_passed + bytes.len() as u64);
        self.body_passed = to;
        while let Some(start) = self.prefixes.front().copied().filter(|&start| start < to) {
            let end = start + PREFIX;
            let place = |at: u64| usize::try_from(at - from).unwrap_or(bytes.len()).min(bytes.len());
            self.prefix.extend_from_slice(&bytes[place(start.max(from))..place(end.min(to))]);
            let Ok(prefix) = <[u8; PREFIX as usize]>::try_from(self.prefix.as_slice()) else { break };
            self.prefixes.pop_front();
            self.prefix.clear();
            self.charge(i64::from_le_bytes(prefix))?;
        }
        Ok(())
    }

    fn charge(&mut self, size: i64) -> Result<()> {
        let more = match size {
            -1 => return Ok(()),
            size => u64::try_from(size).map_err(|_| wrong("a compressed buffer of negative length"))?,
        };
        let most = self.most;
        match &mut self.of {
            Of::Schema => {}
            Of::Batch { rows, cost } => {
                *cost = cost.saturating_add(more);
                if *cost > most {
                    return Err(wrong(format!(
                        "a record batch of {rows} rows needs at least {cost} bytes when it is decompressed; the limit is \
                         {most} (--max-batch-bytes)"
                    )));
                }
                if let Some(permit) = &mut self.permit {
                    permit.grow(more);
                }
            }
            Of::Dictionary(id) => {
                let held = self.dictionaries.entry(*id).or_default();
                *held = held.saturating_add(more);
                check_dictionaries(&self.dictionaries, most)?;
            }
        }
        Ok(())
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

/// What a message is, with what it costs while its batch is worked on; and where its compressed buffers begin.
fn check(
    message: &Message<'_>,
    body: u64,
    most: u64,
    row_bytes: u64,
    dictionaries: &mut HashMap<i64, u64>,
) -> Result<(Of, VecDeque<u64>)> {
    let (batch, dictionary) = match message.header_type() {
        MessageHeader::RecordBatch => (message.header_as_record_batch(), None),
        MessageHeader::DictionaryBatch => {
            let dictionary = message.header_as_dictionary_batch();
            (dictionary.and_then(|dictionary| dictionary.data()), dictionary)
        }
        // A schema has no body, and what else there is the reader refuses.
        _ if body > HEAD_BYTES as u64 => return Err(wrong("a message without rows that has a body")),
        _ => return Ok((Of::Schema, VecDeque::new())),
    };
    let batch: RecordBatch<'_> = batch.ok_or_else(|| wrong("a batch without a header"))?;
    let prefixes = prefixes(&batch, body)?;
    let rows = u64::try_from(batch.length()).map_err(|_| wrong("a batch of negative length"))?;
    if let Some(dictionary) = dictionary {
        // Values without a body (a dictionary of nulls) are counted by their number.
        let own = body.max(rows);
        let held = dictionaries.entry(dictionary.id()).or_default();
        *held = if dictionary.isDelta() { held.saturating_add(own) } else { own };
        check_dictionaries(dictionaries, most)?;
        return Ok((Of::Dictionary(dictionary.id()), prefixes));
    }
    let made = rows.saturating_mul(row_bytes);
    let cost = body.saturating_add(made);
    if cost > most {
        return Err(wrong(format!(
            "a record batch of {rows} rows and {body} bytes needs {cost} bytes with its embeddings; \
             the limit is {most} (--max-batch-bytes)"
        )));
    }
    Ok((Of::Batch { rows, cost }, prefixes))
}

fn check_dictionaries(dictionaries: &HashMap<i64, u64>, most: u64) -> Result<()> {
    let all = dictionaries.values().fold(0u64, |sum, &bytes| sum.saturating_add(bytes));
    match all > most {
        true => Err(wrong(format!("dictionaries of {all} bytes; the limit is {most} (--max-batch-bytes)"))),
        false => Ok(()),
    }
}

/// Where the compressed buffers of a batch begin; none where it is not compressed.
fn prefixes(batch: &RecordBatch<'_>, body: u64) -> Result<VecDeque<u64>> {
    let mut prefixes = VecDeque::new();
    if batch.compression().is_none() {
        return Ok(prefixes);
    }
    let mut end = 0;
    for buffer in batch.buffers().into_iter().flatten() {
        let (start, length) = (u64::try_from(buffer.offset()), u64::try_from(buffer.length()));
        let (Ok(start), Ok(length)) = (start, length) else {
            return Err(wrong("a buffer of negative length"));
        };
        if length == 0 {
            continue;
        }
        let after =
            start.checked_add(length).filter(|&after| start >= end && length >= PREFIX && after <= body);
        end = after.ok_or_else(|| wrong("compressed buffers that are not one after the other"))?;
        prefixes.push_back(start);
    }
    Ok(prefixes)
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
            if self.body_passed < self.body {
                let left = self.body - self.body_passed;
                let room = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
                let read = self.input.read(&mut buffer[..room])?;
                self.look(&buffer[..read])?;
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
    use arrow_array::{ArrayRef, BinaryArray, BinaryViewArray, NullArray, RecordBatch};
    use arrow_ipc::CompressionType;
    use arrow_ipc::reader::StreamReader;
    use arrow_ipc::writer::{IpcWriteOptions, StreamWriter};
    use proptest::prelude::*;

    use super::*;

    const MOST: usize = 1 << 20;
    const COMPRESSIONS: [Option<CompressionType>; 3] =
        [None, Some(CompressionType::LZ4_FRAME), Some(CompressionType::ZSTD)];

    fn stream(compression: Option<CompressionType>) -> Vec<u8> {
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
            ("long", Arc::new(BinaryArray::from_iter_values((0..5).map(|_| vec![1u8; 1000])))),
        ];
        let batch = RecordBatch::try_from_iter(columns).unwrap();
        let options = IpcWriteOptions::default().try_with_compression(compression).unwrap();
        let mut writer = StreamWriter::try_new_with_options(Vec::new(), &batch.schema(), options).unwrap();
        writer.write(&batch).unwrap();
        writer.write(&batch).unwrap();
        writer.into_inner().unwrap()
    }

    /// Rows of a stream, until it ends or is wrong.
    fn rows(bytes: &[u8]) -> usize {
        rows_within(bytes, MOST)
    }

    fn rows_within(bytes: &[u8], most: usize) -> usize {
        let frames = Frames::new(bytes, most, 100, Gate::new(2 * most as u64));
        let Ok(stream) = StreamReader::try_new(frames, None) else { return 0 };
        stream.map_while(std::result::Result::ok).map(|batch| batch.num_rows()).sum()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        /// Whatever is changed, nothing larger than the limit comes out, and nothing waits for ever.
        #[test]
        fn damaged_streams_end(
            compression in prop::sample::select(&COMPRESSIONS[..]),
            changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        ) {
            let mut bytes = stream(compression);
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
        for compression in COMPRESSIONS {
            let bytes = stream(compression);
            assert_eq!(rows(&bytes), 10);
            assert!((0..bytes.len()).all(|end| rows(&bytes[..end]) <= 10));
        }
    }

    #[test]
    fn what_compressed_buffers_become_is_charged_before_they_are_decompressed() {
        for compression in &COMPRESSIONS[1..] {
            let zeros = BinaryArray::from_iter_values([vec![0u8; 300_000]]);
            let batch = RecordBatch::try_from_iter([("image", Arc::new(zeros) as ArrayRef)]).unwrap();
            let options = IpcWriteOptions::default().try_with_compression(*compression).unwrap();
            let mut writer =
                StreamWriter::try_new_with_options(Vec::new(), &batch.schema(), options).unwrap();
            (0..3).for_each(|_| writer.write(&batch).unwrap());
            let bytes = writer.into_inner().unwrap();
            assert!(bytes.len() < 20_000, "{}", bytes.len());
            assert_eq!((rows_within(&bytes, 310_000), rows_within(&bytes, 300_000)), (3, 0));
            // One that says that it is of exabytes.
            // The mark of the codec tells it from the offsets.
            let mark = if *compression == Some(CompressionType::ZSTD) { 0xfd2f_b528u32 } else { 0x184d_2204 };
            let size = [&300_000i64.to_le_bytes()[..], &mark.to_le_bytes()].concat();
            let at = bytes.windows(size.len()).position(|window| window == size).unwrap();
            let mut bomb = bytes.clone();
            bomb[at..at + 8].copy_from_slice(&i64::MAX.to_le_bytes());
            assert_eq!(rows(&bomb), 0);
            // One that says less than it is.
            bomb[at..at + 8].copy_from_slice(&100i64.to_le_bytes());
            assert_eq!(rows(&bomb), 0);
            // Byte by byte, as a slow pipe gives it.
            let frames = Frames::new(Drops(&bytes), MOST, 100, Gate::new(2 * MOST as u64));
            assert_eq!(StreamReader::try_new(frames, None).unwrap().flatten().count(), 3);
        }
    }

    struct Drops<'a>(&'a [u8]);

    impl Read for Drops<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> Result<usize> {
            let most = buffer.len().min(1);
            self.0.read(&mut buffer[..most])
        }
    }
}
