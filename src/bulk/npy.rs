//! The header of a `.npy` file of vectors: version 1.0 of NumPy's format (`numpy/lib/format.py`).

/// Length of the headers that are written, whatever the number of rows in them.
pub const HEADER: usize = 128;

/// The header of `[rows, width]` numbers of 32 bits, padded to a fixed length.
pub fn header(rows: usize, width: usize) -> [u8; HEADER] {
    let mut header = [b' '; HEADER];
    let text = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({rows}, {width}), }}");
    header[..8].copy_from_slice(b"\x93NUMPY\x01\x00");
    header[8..10].copy_from_slice(&((HEADER - 10) as u16).to_le_bytes());
    header[10..10 + text.len()].copy_from_slice(text.as_bytes());
    header[HEADER - 1] = b'\n';
    header
}

/// Where the values begin, rows and width, of a file of little-endian `f32` in two dimensions.
///
/// # Errors
/// What is wrong with it.
pub fn parse(bytes: &[u8]) -> Result<(usize, usize, usize), String> {
    let wrong = || "not a .npy file".to_owned();
    let version = bytes.strip_prefix(b"\x93NUMPY").and_then(|rest| rest.first()).ok_or_else(wrong)?;
    let (from, length): (usize, Option<usize>) = match version {
        1 => (10, bytes.get(8..10).map(|field| usize::from(field[0]) | usize::from(field[1]) << 8)),
        2 | 3 => {
            let field = bytes.get(8..12).and_then(|field| field.try_into().ok()).map(u32::from_le_bytes);
            (12, field.map(|length| length as usize))
        }
        _ => return Err(wrong()),
    };
    let to = length.and_then(|length| from.checked_add(length)).ok_or_else(wrong)?;
    let text = bytes.get(from..to).and_then(|text| std::str::from_utf8(text).ok()).ok_or_else(wrong)?;
    let plain: String = text.chars().filter(|c| !c.is_whitespace()).collect();
    if !plain.contains("'descr':'<f4'") || !plain.contains("'fortran_order':False") {
        return Err("not an array of little-endian f32 in rows".to_owned());
    }
    let shape = plain.split_once("'shape':(").and_then(|(_, rest)| rest.split_once(')')).ok_or_else(wrong)?.0;
    let sides: Vec<usize> =
        shape.split(',').filter(|side| !side.is_empty()).map_while(|side| side.parse().ok()).collect();
    match sides.as_slice() {
        &[rows, width] if shape.split(',').filter(|side| !side.is_empty()).count() == 2 => {
            Ok((to, rows, width))
        }
        _ => Err(format!("an array of shape ({shape}), which is not two-dimensional")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_read_as_they_are_written() {
        assert_eq!(parse(&header(12, 768)), Ok((HEADER, 12, 768)));
        let mut other = header(1, 2).to_vec();
        let text = String::from_utf8_lossy(&other[10..]).replace("(1, 2)", "(1, 2, 3)");
        other.splice(10.., text.bytes());
        assert!(parse(&other[..128]).unwrap_err().contains("two-dimensional"));
        for wrong in [&b""[..], b"\x93NUMPY", b"\x93NUMPY\x01\x00\xff\xff{", b"PK\x03\x04"] {
            assert!(parse(wrong).is_err());
        }
    }
}
