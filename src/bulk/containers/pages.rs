//! A Parquet file whose pages are looked at before they are decompressed: what a page says of its size is bounded, and gzip,
//! whose decoder goes on to the end whatever the page says, is measured first.

use std::io::Read;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use flate2::read::MultiGzDecoder;
use parquet::basic::Compression;
use parquet::errors::{ParquetError, Result};
use parquet::file::metadata::ParquetMetaData;
use parquet::file::reader::{ChunkReader, Length};

use crate::bulk::stored::{Sequential, Stored, exactly};

/// Bytes of a page at most, decompressed: writers end one at a megabyte, but some only after a thousand photographs.
const PAGE_BYTES: u64 = 1 << 30;
/// What is looked at of a page's header; what is needed of it comes before any statistics.
const HEAD_BYTES: usize = 256;

/// A Parquet file.
#[derive(Clone)]
pub(super) struct Pages {
    stored: Arc<dyn Stored>,
    chunks: Arc<[Chunk]>,
}

/// The pages of a column in a group of rows.
struct Chunk {
    place: Range<u64>,
    gzip: bool,
    /// What the header of the page said that comes next.
    next: Mutex<Option<Head>>,
}

/// What a header says of its page.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Head {
    /// Bytes when it is decompressed.
    size: u64,
    /// Bytes at its beginning that are never compressed.
    plain: u64,
    /// Whether the rest may be compressed.
    compressed: bool,
}

impl Pages {
    /// The file before its metadata is known.
    pub(super) fn new(stored: Arc<dyn Stored>) -> Self {
        Self { stored, chunks: Arc::new([]) }
    }

    /// The file with the places of its columns.
    ///
    /// # Errors
    /// If one of these columns is compressed in a way that is not read here.
    pub(super) fn with(self, metadata: &ParquetMetaData, columns: &[usize]) -> Result<Self> {
        let mut chunks = Vec::new();
        for group in metadata.row_groups() {
            for (i, column) in group.columns().iter().enumerate() {
                let read = columns.contains(&i);
                if read
                    && matches!(
                        column.compression(),
                        Compression::LZO | Compression::BROTLI(_) | Compression::LZ4
                    )
                {
                    let text = format!(
                        "a column is compressed with {}; snappy, gzip, zstd and lz4_raw can be read",
                        name(column.compression())
                    );
                    return Err(ParquetError::NYI(text));
                }
                let (start, length) = column.byte_range();
                let gzip = matches!(column.compression(), Compression::GZIP(_));
                chunks.push(Chunk {
                    place: start..start.saturating_add(length),
                    gzip,
                    next: Mutex::new(None),
                });
            }
        }
        chunks.sort_by_key(|chunk| (chunk.place.start, chunk.place.end));
        // Else a page would be looked at as one of another column.
        if chunks.windows(2).any(|pair| pair[0].place.end > pair[1].place.start) {
            return Err(ParquetError::General("columns that lie over each other".to_owned()));
        }
        Ok(Self { chunks: chunks.into(), ..self })
    }

    fn chunk(&self, at: u64) -> Option<usize> {
        let after = self.chunks.partition_point(|chunk| chunk.place.start <= at);
        after.checked_sub(1).filter(|&i| self.chunks[i].place.contains(&at))
    }
}

fn name(compression: Compression) -> &'static str {
    match compression {
        Compression::LZO => "lzo",
        Compression::BROTLI(_) => "brotli",
        _ => "lz4 as Hadoop has it",
    }
}

impl Length for Pages {
    fn len(&self) -> u64 {
        self.stored.length()
    }
}

impl ChunkReader for Pages {
    type T = PageRead;

    fn get_read(&self, start: u64) -> Result<PageRead> {
        let input = Sequential::new(Arc::clone(&self.stored), start);
        let chunk = self.chunk(start).map(|chunk| (self.clone(), chunk));
        Ok(PageRead { input, chunk, head: Bytes::new() })
    }

    fn get_bytes(&self, start: u64, length: usize) -> Result<Bytes> {
        let bytes = exactly(&*self.stored, start, length)?;
        if let Some(chunk) = self.chunk(start).map(|i| &self.chunks[i])
            && let Some(head) = chunk.next.lock().unwrap_or_else(PoisonError::into_inner).take()
            && chunk.gzip
        {
            measure(&bytes, head)?;
        }
        Ok(bytes)
    }
}

/// Refuses a page that becomes larger than its header says.
fn measure(page: &[u8], head: Head) -> Result<()> {
    let plain =
        usize::try_from(head.plain).ok().filter(|&plain| plain <= page.len() && head.plain <= head.size);
    let plain = plain.ok_or_else(|| odd("levels that are longer than the page"))?;
    if !head.compressed || head.size == head.plain {
        return Ok(());
    }
    let most = head.size - head.plain;
    let mut decoded = MultiGzDecoder::new(&page[plain..]).take(most + 1);
    match std::io::copy(&mut decoded, &mut std::io::sink())? > most {
        true => Err(odd("more in it than its header says")),
        false => Ok(()),
    }
}

/// A file from a place on. What is read first is the header of a page, if the place is one of a column.
pub(super) struct PageRead {
    input: Sequential,
    chunk: Option<(Pages, usize)>,
    head: Bytes,
}

impl Read for PageRead {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        if let Some((pages, chunk)) = self.chunk.take() {
            let mut head = Vec::with_capacity(HEAD_BYTES);
            (&mut self.input).take(HEAD_BYTES as u64).read_to_end(&mut head)?;
            let found = Header(&head).page().ok_or_else(|| std::io::Error::other(odd("no header")))?;
            if found.size > PAGE_BYTES {
                let text = format!("{} bytes; a page may have {PAGE_BYTES}", found.size);
                return Err(std::io::Error::other(odd(&text)));
            }
            *pages.chunks[chunk].next.lock().unwrap_or_else(PoisonError::into_inner) = Some(found);
            self.head = head.into();
        }
        if self.head.is_empty() {
            return self.input.read(buffer);
        }
        let length = buffer.len().min(self.head.len());
        buffer[..length].copy_from_slice(&self.head.split_to(length));
        Ok(length)
    }
}

fn odd(what: &str) -> ParquetError {
    ParquetError::General(format!("a page with {what}"))
}

/// The beginning of a page's header, in Thrift's compact protocol: fields in their order, each with its distance from the one
/// before and its type.
struct Header<'a>(&'a [u8]);

impl Header<'_> {
    const TRUE: u8 = 1;
    const FALSE: u8 = 2;
    const INTEGER: u8 = 5;
    const STRUCT: u8 = 12;
    /// The second version of data pages.
    const DATA_PAGE_V2: i64 = 3;

    /// None where it is not as writers make it.
    fn page(&mut self) -> Option<Head> {
        let (mut field, mut kind, mut head) = (0, None, Head { compressed: true, ..Head::default() });
        let mut compressed_size = None;
        loop {
            let wire = self.field(&mut field)?;
            match (field, wire) {
                (1, Self::INTEGER) => kind = Some(self.integer()?),
                (2, Self::INTEGER) => head.size = u64::try_from(self.integer()?).ok()?,
                (3, Self::INTEGER) => compressed_size = Some(self.integer()?),
                // A checksum.
                (4, Self::INTEGER) => drop(self.integer()?),
                (5..=8, Self::STRUCT) => {
                    compressed_size?;
                    if kind? == Self::DATA_PAGE_V2 && field == 8 {
                        (head.plain, head.compressed) = self.levels()?;
                    }
                    return Some(head);
                }
                _ => return None,
            }
        }
    }

    /// Of a data page of the second version: the bytes of its levels, and whether the rest is compressed.
    fn levels(&mut self) -> Option<(u64, bool)> {
        let (mut field, mut plain, mut compressed) = (0, 0u64, true);
        loop {
            match (self.field(&mut field), field) {
                (Some(Self::INTEGER), 1..=4) => drop(self.integer()?),
                (Some(Self::INTEGER), 5 | 6) => plain += u64::try_from(self.integer()?).ok()?,
                (Some(wire @ (Self::TRUE | Self::FALSE)), 7) => compressed = wire == Self::TRUE,
                // Statistics, or the end.
                (Some(_), _) => return Some((plain, compressed)),
                (None, _) => return None,
            }
        }
    }

    /// The type of the next field; 0 at the end.
    fn field(&mut self, field: &mut u8) -> Option<u8> {
        let byte = self.byte()?;
        *field = field.checked_add(byte >> 4)?;
        Some(byte & 0x0f)
    }

    fn integer(&mut self) -> Option<i64> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some((value >> 1) as i64 ^ -((value & 1) as i64));
            }
        }
        None
    }

    fn byte(&mut self) -> Option<u8> {
        let (&byte, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(byte)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::*;

    #[test]
    fn headers_are_read_as_far_as_sizes_go() {
        // A data page of 300 bytes out of 100, with a checksum; a dictionary; the second version, with levels of 2 and 7 bytes.
        let v1 = [0x15, 0, 0x15, 0xd8, 4, 0x15, 0xc8, 1, 0x15, 7, 0x1c, 0x15, 2, 0];
        assert_eq!(Header(&v1).page(), Some(Head { size: 300, plain: 0, compressed: true }));
        let dictionary = [0x15, 4, 0x15, 0xd8, 4, 0x15, 0xc8, 1, 0x4c, 0x15, 2, 0];
        assert_eq!(Header(&dictionary).page(), Some(Head { size: 300, plain: 0, compressed: true }));
        let v2 = [
            0x15, 6, 0x15, 0xd8, 4, 0x15, 0xc8, 1, 0x5c, 0x15, 2, 0x15, 0, 0x15, 2, 0x15, 0, 0x15, 4, 0x15,
            14,
        ];
        let with = |rest: &[u8]| Header(&[&v2[..], rest].concat()).page();
        assert_eq!(with(&[0x12, 0x1c]), Some(Head { size: 300, plain: 9, compressed: false }));
        assert_eq!(with(&[0x11, 0]), Some(Head { size: 300, plain: 9, compressed: true }));
        assert_eq!(with(&[0]), Some(Head { size: 300, plain: 9, compressed: true }));
        for cut in 0..v1.len() - 4 {
            assert_eq!(Header(&v1[..cut]).page(), None);
        }
        for wrong in [&[0x15, 0, 0x15, 1][..], &[0xff; 40], &[0x15, 0, 0x1c], b"PAR1PAR1"] {
            assert_eq!(Header(wrong).page(), None, "{wrong:?}");
        }
    }

    #[test]
    fn gzip_is_measured() {
        let mut page = b"levels".to_vec();
        let mut encoder = GzEncoder::new(&mut page, Compression::best());
        encoder.write_all(&[0; 10_000]).unwrap();
        encoder.finish().unwrap();
        let head = |size| Head { size, plain: 6, compressed: true };
        assert!(measure(&page, head(10_006)).is_ok());
        assert!(measure(&page, head(10_005)).unwrap_err().to_string().contains("more in it"));
        assert!(measure(&page, Head { plain: 1000, ..head(10_006) }).is_err());
        assert!(measure(&page, Head { compressed: false, ..head(6) }).is_ok());
    }
}
