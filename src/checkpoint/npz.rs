//! Reads numpy's `.npz`: a zip archive of `.npy` arrays, stored or deflated.
//!
//! Nothing that a header claims is trusted: every range is checked against the file, every shape
//! against the size of its entry, and what is inflated is bounded by what the shape says.

use std::borrow::Cow;
use std::io::{Cursor, Read};

use flate2::Crc;
use flate2::read::DeflateDecoder;
use half::{bf16, f16};
use zip::{CompressionMethod, ZipArchive};

use super::CheckpointError;
use super::files::Blob;
use super::store::{Bytes, Dtype, Store, Stored};

/// Longest `.npy` header that is read; real ones have 128 bytes.
const HEADER_LIMIT: usize = 1 << 16;
/// Bytes that a deflated archive may hold beyond [`INFLATION`] times its own: a gigabyte of zeros deflates to a megabyte.
const INFLATED: u64 = 1 << 30;
/// Trained weights deflate by a tenth.
const INFLATION: u64 = 16;
const MAGIC: &[u8] = b"\x93NUMPY";

/// Adds the arrays of one file to a store. A name loses its `.npy`.
pub(super) fn add(store: &mut Store, label: String, blob: Blob) -> Result<(), CheckpointError> {
    let tensors = read(&blob).map_err(|reason| CheckpointError::Header {
        file: label.clone(),
        format: "npz",
        reason,
    })?;
    store.add(label, blob, tensors)
}

fn read(bytes: &[u8]) -> Result<Vec<(String, Stored)>, String> {
    let mut archive = ZipArchive::new(Cursor::new(bytes)).map_err(|error| error.to_string())?;
    let mut tensors = Vec::with_capacity(archive.len());
    let limit = INFLATION.saturating_mul(bytes.len() as u64).saturating_add(INFLATED);
    let mut inflated = 0u64;
    for index in 0..archive.len() {
        let entry = archive.by_index_raw(index).map_err(|error| error.to_string())?;
        let name = entry.name().map_err(|error| error.to_string())?.to_string();
        let Some(tensor) = name.strip_suffix(".npy") else { continue };
        let deflated = match entry.compression() {
            CompressionMethod::Stored => false,
            CompressionMethod::Deflated => true,
            other => return Err(format!("{name}: compressed by {other}, not stored or deflated")),
        };
        inflated = inflated.saturating_add(if deflated { entry.size() } else { 0 });
        if inflated > limit {
            return Err(format!(
                "its {} bytes would inflate to more than {limit}: no weights deflate that well",
                bytes.len()
            ));
        }
        if entry.encrypted() {
            return Err(format!("{name}: it is encrypted"));
        }
        let size = usize::try_from(entry.size()).map_err(|_| format!("{name}: it is too large"))?;
        let range = entry
            .data_start()
            .and_then(|start| Some((start, start.checked_add(entry.compressed_size())?)))
            .and_then(|(start, end)| Some(usize::try_from(start).ok()?..usize::try_from(end).ok()?))
            .ok_or_else(|| format!("{name}: it lies outside the file"))?;
        let raw = bytes.get(range.clone()).ok_or_else(|| format!("{name}: it lies outside the file"))?;
        if !deflated && raw.len() != size {
            return Err(format!("{name}: {size} bytes by its header, {} in the file", raw.len()));
        }
        let mut beginning = Vec::new();
        let limit = HEADER_LIMIT.min(size) as u64;
        match deflated {
            true => DeflateDecoder::new(raw).take(limit).read_to_end(&mut beginning),
            false => raw.take(limit).read_to_end(&mut beginning),
        }
        .map_err(|error| format!("{name}: {error}"))?;
        let npy = Npy::parse(&beginning).map_err(|reason| format!("{name}: {reason}"))?;
        npy.check_size(size).map_err(|reason| format!("{name}: {reason}"))?;
        let bytes = Bytes::Zip { range, deflated, header: npy.length, crc: entry.crc32() };
        let stored = Stored { file: 0, dtype: npy.dtype, shape: npy.shape, fortran: npy.fortran, bytes };
        tensors.push((tensor.to_string(), stored));
    }
    Ok(tensors)
}

/// The numbers of a `.npy` file with a matrix, row by row, and its shape `(rows, columns)`.
///
/// # Errors
/// If it is no such file, of another type than f64, f32, f16 or bf16, or has at most none or more than `most` numbers.
pub fn read_npy_matrix(bytes: &[u8], most: usize) -> Result<((usize, usize), Vec<f32>), String> {
    let npy = Npy::parse(&bytes[..bytes.len().min(HEADER_LIMIT)])?;
    npy.check_size(bytes.len())?;
    let (rows, columns) = match *npy.shape {
        [rows, columns] if !npy.fortran => (rows, columns),
        [_, _] => return Err("its columns, not its rows, are one after the other (fortran_order)".into()),
        _ => return Err(format!("an array of shape {:?}, not a matrix", npy.shape)),
    };
    let count = rows.checked_mul(columns).filter(|&count| (1..=most).contains(&count));
    if count.is_none() {
        return Err(format!("{rows} rows of {columns} numbers; from 1 to {most} numbers are read"));
    }
    let values = &bytes[npy.length..];
    let numbers = match npy.dtype? {
        Dtype::F64 => values.as_chunks::<8>().0.iter().map(|&x| f64::from_le_bytes(x) as f32).collect(),
        Dtype::F32 => values.as_chunks::<4>().0.iter().map(|&x| f32::from_le_bytes(x)).collect(),
        Dtype::F16 => values.as_chunks::<2>().0.iter().map(|&x| f16::from_le_bytes(x).to_f32()).collect(),
        Dtype::Bf16 => values.as_chunks::<2>().0.iter().map(|&x| bf16::from_le_bytes(x).to_f32()).collect(),
    };
    Ok(((rows, columns), numbers))
}

/// The header of an `.npy` file.
#[derive(Debug, PartialEq, Eq)]
struct Npy {
    dtype: Result<Dtype, String>,
    fortran: bool,
    shape: Vec<usize>,
    /// Bytes before the values.
    length: usize,
}

impl Npy {
    fn parse(bytes: &[u8]) -> Result<Self, String> {
        let rest = bytes.strip_prefix(MAGIC).ok_or("no .npy array")?;
        let (size, start) = match rest {
            [1, _, low, high, ..] => (usize::from(u16::from_le_bytes([*low, *high])), 10),
            [2 | 3, _, a, b, c, d, ..] => (u32::from_le_bytes([*a, *b, *c, *d]) as usize, 12),
            _ => return Err("an unknown version of .npy".into()),
        };
        let length = start + size;
        let text = bytes.get(start..length).ok_or("its .npy header is cut off or too long")?;
        let text = str::from_utf8(text).map_err(|_| "its .npy header is not text")?;
        let descr = quoted(value(text, "descr")?).ok_or("its dtype is a structure")?;
        let fortran = match value(text, "fortran_order")? {
            v if v.starts_with("True") => true,
            v if v.starts_with("False") => false,
            _ => return Err("fortran_order is neither True nor False".into()),
        };
        let shape = tuple(value(text, "shape")?).ok_or("its shape is not a tuple of sizes")?;
        Ok(Self { dtype: dtype(descr), fortran, shape, length })
    }

    /// Checks that header and values make exactly `size` bytes.
    fn check_size(&self, size: usize) -> Result<(), String> {
        let elements = self.shape.iter().try_fold(1usize, |product, size| product.checked_mul(*size));
        let elements = elements.ok_or_else(|| format!("shape {:?} overflows", self.shape))?;
        // A type that cannot be read is reported when it is wanted.
        let Ok(dtype) = &self.dtype else { return Ok(()) };
        let expected = elements.checked_mul(dtype.bytes()).and_then(|bytes| bytes.checked_add(self.length));
        match expected {
            Some(expected) if expected == size => Ok(()),
            _ => Err(format!(
                "shape {:?} of {} and a header of {} bytes do not make {size} bytes",
                self.shape,
                dtype.name(),
                self.length
            )),
        }
    }
}

/// What follows `'key':` in the Python dictionary of a header.
fn value<'a>(text: &'a str, key: &str) -> Result<&'a str, String> {
    let (_, after) =
        text.split_once(&format!("'{key}'")).ok_or_else(|| format!("its header has no {key}"))?;
    let after = after.trim_start().strip_prefix(':').ok_or_else(|| format!("its header has no {key}"))?;
    Ok(after.trim_start())
}

fn quoted(text: &str) -> Option<&str> {
    Some(text.strip_prefix('\'')?.split_once('\'')?.0)
}

fn tuple(text: &str) -> Option<Vec<usize>> {
    let (inner, _) = text.strip_prefix('(')?.split_once(')')?;
    let sizes = inner.split(',').map(str::trim).filter(|size| !size.is_empty());
    sizes.map(|size| size.parse().ok()).collect()
}

fn dtype(descr: &str) -> Result<Dtype, String> {
    match descr {
        "<f8" => Ok(Dtype::F64),
        "<f4" => Ok(Dtype::F32),
        "<f2" => Ok(Dtype::F16),
        // numpy has no bfloat16: ml_dtypes' arrays are saved as two opaque bytes.
        "|V2" | "<V2" | "bfloat16" => Ok(Dtype::Bf16),
        other => Err(format!("numpy's {other}")),
    }
}

/// The values of one entry: exactly `length` bytes after the `header` bytes, of which the checksum
/// over both is right.
pub(super) fn entry(
    raw: &[u8],
    deflated: bool,
    header: usize,
    length: usize,
    crc: u32,
) -> Result<Cow<'_, [u8]>, String> {
    let total = header.checked_add(length).ok_or("its size overflows")?;
    let all = if deflated {
        let mut inflated = Vec::new();
        // One byte more than wanted tells an entry that goes on from one that ends.
        let reader = DeflateDecoder::new(raw).take(total as u64 + 1);
        { reader }.read_to_end(&mut inflated).map_err(|error| error.to_string())?;
        Cow::Owned(inflated)
    } else {
        Cow::Borrowed(raw)
    };
    if all.len() != total {
        return Err(format!("expected {total} bytes, found {}", all.len()));
    }
    let mut sum = Crc::new();
    sum.update(&all);
    if sum.sum() != crc {
        return Err("its checksum (CRC-32) is wrong".into());
    }
    Ok(match all {
        Cow::Borrowed(bytes) => Cow::Borrowed(&bytes[header..]),
        Cow::Owned(mut bytes) => {
            bytes.drain(..header);
            Cow::Owned(bytes)
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(text: &str) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        bytes.extend([1, 0]);
        bytes.extend((text.len() as u16).to_le_bytes());
        bytes.extend(text.as_bytes());
        bytes
    }

    #[test]
    fn headers_as_numpy_writes_them() {
        let bytes = header("{'descr': '<f4', 'fortran_order': False, 'shape': (3, 4), }    \n");
        let npy = Npy::parse(&bytes).unwrap();
        assert_eq!((npy.dtype.clone(), npy.fortran, npy.shape.clone()), (Ok(Dtype::F32), false, vec![3, 4]));
        npy.check_size(bytes.len() + 48).unwrap();
        npy.check_size(bytes.len() + 47).unwrap_err();
        let scalar = Npy::parse(&header("{'descr': '|V2', 'fortran_order': True, 'shape': (), }\n")).unwrap();
        assert_eq!((scalar.dtype, scalar.fortran, scalar.shape), (Ok(Dtype::Bf16), true, vec![]));
        let vector =
            Npy::parse(&header("{'descr': '<i8', 'fortran_order': False, 'shape': (5,), }\n")).unwrap();
        assert_eq!((vector.dtype, vector.shape), (Err("numpy's <i8".into()), vec![5]));
    }

    #[test]
    fn a_matrix_is_read_as_numpy_writes_it() {
        let file = |text: &str, values: &[u8]| [header(text), values.to_vec()].concat();
        let of = |descr: &str, shape: &str| {
            format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}\n")
        };
        let floats: Vec<u8> =
            [1.0_f32, 2.0, 3.0, 4.0, 5.0, 6.0].iter().flat_map(|x| x.to_le_bytes()).collect();
        let (shape, numbers) = read_npy_matrix(&file(&of("<f4", "(2, 3)"), &floats), 6).unwrap();
        assert_eq!((shape, numbers), ((2, 3), vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0]));
        let halves: Vec<u8> = [0.5_f32, -2.0].iter().flat_map(|&x| f16::from_f32(x).to_le_bytes()).collect();
        assert_eq!(read_npy_matrix(&file(&of("<f2", "(1, 2)"), &halves), 6).unwrap().1, [0.5, -2.0]);
        let transposed = of("<f4", "(2, 3)").replace("False", "True");
        for (text, values, said) in [
            (of("<f4", "(2, 3)"), &floats[..20], "do not make"),
            (of("<f4", "(6,)"), &floats, "not a matrix"),
            (of("<f4", "(0, 3)"), &[], "from 1 to 6"),
            (of("<f4", "(3, 3)"), &[0; 36], "from 1 to 6"),
            (of("<i8", "(1, 2)"), &[0; 16], "<i8"),
            (transposed, &floats, "fortran_order"),
        ] {
            let error = read_npy_matrix(&file(&text, values), 6).unwrap_err();
            assert!(error.contains(said), "{text}: {error}");
        }
    }

    #[test]
    fn what_would_inflate_to_gigabytes_is_refused_before_it_does() {
        use std::io::Write;
        let mut writer = zip::ZipWriter::new(Cursor::new(Vec::new()));
        let options =
            zip::write::SimpleFileOptions::default().compression_method(CompressionMethod::Deflated);
        writer.start_file("t.npy", options).unwrap();
        let header = header("{'descr': '<f4', 'fortran_order': False, 'shape': (536870912,), }\n");
        writer.write_all(&header).unwrap();
        writer.write_all(&[0; 4096]).unwrap();
        let mut bytes = writer.finish().unwrap().into_inner();
        // The central directory says how large the entry is: 2 GiB of zeros, and the header of the array.
        let entry = bytes.windows(4).position(|window| window == b"PK\x01\x02").unwrap();
        let claimed = (1u32 << 31) + header.len() as u32;
        bytes[entry + 24..entry + 28].copy_from_slice(&claimed.to_le_bytes());
        let error = read(&bytes).unwrap_err();
        assert!(error.contains("would inflate to more than"), "{error}");
    }

    #[test]
    fn headers_that_lie_are_refused() {
        let huge = u64::MAX;
        let npy = Npy::parse(&header(&format!(
            "{{'descr': '<f4', 'fortran_order': False, 'shape': ({huge}, {huge}), }}"
        )));
        npy.unwrap().check_size(100).unwrap_err();
        for text in [
            "",
            "{}",
            "{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (1,)}",
            "{'descr': '<f4', 'fortran_order': 0, 'shape': (1,)}",
            "{'descr': '<f4', 'fortran_order': False, 'shape': (-1,)}",
            "{'descr': '<f4', 'fortran_order': False, 'shape': (1",
        ] {
            Npy::parse(&header(text)).unwrap_err();
        }
        Npy::parse(b"\x93NUMPY\x02\x00\xff\xff\xff\xff").unwrap_err();
    }
}
