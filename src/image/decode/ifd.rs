//! A directory of tags, of a TIFF or of the EXIF block of another format, read as Pillow reads it.

/// A directory: where each tag's values are. Bytes outside the file are never touched.
pub(super) struct Directory<'a> {
    bytes: &'a [u8],
    little_endian: bool,
    entries: Vec<Entry>,
}

struct Entry {
    tag: u16,
    kind: u16,
    count: usize,
    start: usize,
}

/// The numbers of the types in a directory.
const BYTE: u16 = 1;
const SHORT: u16 = 3;
const LONG: u16 = 4;
const UNDEFINED: u16 = 7;

/// Tags that a directory may have; more are never looked at.
const MAX_ENTRIES: u64 = 4096;

impl<'a> Directory<'a> {
    /// The first directory behind the header `II` or `MM`; of TIFF, or of BigTIFF with offsets of 64 bits.
    pub(super) fn first(bytes: &'a [u8]) -> Option<Self> {
        let little_endian = match bytes.get(..2)? {
            b"II" => true,
            b"MM" => false,
            _ => return None,
        };
        let number = |at: usize, size: usize| number(bytes, little_endian, at, size);
        // Pillow also takes a 42 in the other byte order.
        let big = match bytes.get(2..4)? {
            [42, 0] | [0, 42] => false,
            [43, 0] | [0, 43] => true,
            _ => return None,
        };
        let (directory, count_size, entry_size) =
            if big { (number(8, 8)?, 8, 20) } else { (number(4, 4)?, 2, 12) };
        let directory = usize::try_from(directory).ok()?;
        let count = number(directory, count_size)?.min(MAX_ENTRIES) as usize;
        let mut entries = Vec::new();
        for index in 0..count {
            let at = directory.checked_add(count_size + index * entry_size)?;
            let value_size = if big { 8 } else { 4 };
            let (Some(tag), Some(kind), Some(values)) =
                (number(at, 2), number(at + 2, 2), number(at + 4, value_size))
            else {
                break;
            };
            let Some(size) = type_size(kind as u16) else { continue };
            let Ok(values) = usize::try_from(values) else { continue };
            let Some(length) = values.checked_mul(size) else { continue };
            let inline = at + 4 + value_size;
            let start = if length > value_size {
                match number(inline, value_size).and_then(|start| usize::try_from(start).ok()) {
                    Some(start) => start,
                    None => continue,
                }
            } else {
                inline
            };
            let fits = start.checked_add(length).is_some_and(|end| end <= bytes.len());
            let tag = tag as u16;
            if length > 0 && fits && !entries.iter().any(|entry: &Entry| entry.tag == tag) {
                entries.push(Entry { tag, kind: kind as u16, count: values, start });
            }
        }
        Some(Self { bytes, little_endian, entries })
    }

    /// Whether numbers have their low byte first.
    pub(super) fn is_little_endian(&self) -> bool {
        self.little_endian
    }

    /// The first value of a tag that holds integers. Bytes and undefined values are none: Pillow gives them as text.
    pub(super) fn integer(&self, tag: u16) -> Option<u64> {
        let entry = self.entry(tag)?;
        self.value(entry, 0)
    }

    /// Up to `limit` values of a tag that holds integers, or `None` where it holds none or more.
    pub(super) fn integers(&self, tag: u16, limit: usize) -> Option<Vec<u64>> {
        let entry = self.entry(tag)?;
        if entry.count > limit {
            return None;
        }
        (0..entry.count).map(|index| self.value(entry, index)).collect()
    }

    /// The values of a tag that holds fractions.
    pub(super) fn fractions(&self, tag: u16, limit: usize) -> Option<Vec<f32>> {
        let entry = self.entry(tag)?;
        if entry.kind != 5 || entry.count > limit {
            return None;
        }
        let part = |at: usize| self.number(entry.start + at * 4, 4).map(|value| value as f64);
        (0..entry.count).map(|index| Some((part(index * 2)? / part(index * 2 + 1)?) as f32)).collect()
    }

    /// How many values a tag has.
    pub(super) fn count(&self, tag: u16) -> usize {
        self.entry(tag).map_or(0, |entry| entry.count)
    }

    /// The bytes of a tag that holds bytes or something undefined.
    pub(super) fn data(&self, tag: u16) -> Option<&'a [u8]> {
        let entry = self.entry(tag)?;
        matches!(entry.kind, BYTE | UNDEFINED)
            .then(|| self.bytes.get(entry.start..entry.start + entry.count))?
    }

    fn entry(&self, tag: u16) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.tag == tag)
    }

    fn value(&self, entry: &Entry, index: usize) -> Option<u64> {
        let size = type_size(entry.kind)?;
        let at = entry.start + index * size;
        match entry.kind {
            SHORT | LONG | 13 | 16 => self.number(at, size),
            // Signed integers: none of those that matter here is below zero.
            6 | 8 | 9 => self.number(at, size).filter(|value| value >> (size * 8 - 1) == 0),
            // A fraction that is a whole number.
            5 => {
                let (over, under) = (self.number(at, 4)?, self.number(at + 4, 4)?);
                (under != 0 && over.is_multiple_of(under)).then(|| over / under)
            }
            11 => whole(f64::from(f32::from_bits(self.number(at, size)? as u32))),
            12 => whole(f64::from_bits(self.number(at, size)?)),
            _ => None,
        }
    }

    fn number(&self, at: usize, size: usize) -> Option<u64> {
        number(self.bytes, self.little_endian, at, size)
    }
}

/// A number that happens to be whole.
fn whole(value: f64) -> Option<u64> {
    (value >= 0.0 && value <= f64::from(u32::MAX) && value.fract() == 0.0).then_some(value as u64)
}

fn number(bytes: &[u8], little_endian: bool, at: usize, size: usize) -> Option<u64> {
    let field = bytes.get(at..at.checked_add(size)?)?;
    let fold = |value: u64, byte: &u8| value << 8 | u64::from(*byte);
    Some(if little_endian { field.iter().rev().fold(0, fold) } else { field.iter().fold(0, fold) })
}

/// Bytes of one value; nothing for types that Pillow does not know.
fn type_size(kind: u16) -> Option<usize> {
    Some(match kind {
        BYTE | 2 | 6 | UNDEFINED => 1,
        SHORT | 8 => 2,
        LONG | 9 | 11 | 13 => 4,
        5 | 10 | 12 | 16 => 8,
        _ => return None,
    })
}
