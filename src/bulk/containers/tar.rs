//! Pictures in a tar, as webdataset keeps them. Of the format only what is needed: names, sizes and kinds of members, in
//! ustar, GNU's and POSIX's (pax) forms. What a header says is bounded before it is used.

use std::io::{Error, ErrorKind, Read, Result};
use std::ops::ControlFlow;

use bytes::Bytes;

use super::{Contained, ContainerOptions, wrong};
use crate::bulk::fault::Fault;
use crate::bulk::inputs::FileEntry;
use crate::bulk::stored::Sequential;
use crate::engine::Input;

const BLOCK: u64 = 512;
/// Bytes of a long name, and of extended headers.
const NAME_BYTES: u64 = 1 << 20;
/// Ends of the names of pictures.
const EXTENSIONS: [&str; 13] =
    ["jpg", "jpeg", "jpe", "jfif", "png", "webp", "gif", "bmp", "tif", "tiff", "avif", "heic", "heif"];

pub(super) fn read(
    file: &FileEntry,
    options: &ContainerOptions,
    each: &mut dyn FnMut(Contained) -> ControlFlow<()>,
) -> std::result::Result<(), Fault> {
    let stored = file.open().map_err(|error| wrong(file, error))?;
    let mut members = Members { input: Sequential::new(stored, 0) };
    while let Some(member) = members.next().map_err(|error| wrong(file, error))? {
        let is_picture = member.is_file && has_image_extension(&member.name);
        let fits = member.size <= options.max_bytes as u64;
        if !is_picture || !fits {
            members.skip(member.padded()).map_err(|error| wrong(file, error))?;
            if !is_picture {
                continue;
            }
        }
        let input = match fits {
            true => {
                let bytes = members.take(member.size).map_err(|error| wrong(file, error))?;
                members.skip(member.padded() - member.size).map_err(|error| wrong(file, error))?;
                Ok(Input::Image(Bytes::from(bytes)))
            }
            false => Err(format!("the file has {} bytes; the limit is {}", member.size, options.max_bytes)),
        };
        if each(Contained::new(format!("{}/{}", file.name, member.name), input)).is_break() {
            break;
        }
    }
    Ok(())
}

fn has_image_extension(name: &str) -> bool {
    let extension = name.rsplit_once('.').map_or("", |(_, extension)| extension).to_ascii_lowercase();
    EXTENSIONS.contains(&extension.as_str())
}

struct Member {
    name: String,
    size: u64,
    is_file: bool,
}

impl Member {
    /// Its size up to the next header.
    fn padded(&self) -> u64 {
        self.size.div_ceil(BLOCK).saturating_mul(BLOCK)
    }
}

struct Members<R> {
    input: R,
}

impl<R: Read> Members<R> {
    /// The next member, up to its content.
    fn next(&mut self) -> Result<Option<Member>> {
        let (mut long_name, mut long_size) = (None, None);
        loop {
            let Some(header) = self.header()? else { return Ok(None) };
            let size = number(&header[124..136]).ok_or_else(|| odd("a size that is no number"))?;
            match header[156] {
                // A name that is too long for a header, and what POSIX says instead of the header.
                kind @ (b'L' | b'x') => {
                    if size > NAME_BYTES {
                        return Err(odd("an extended header of more than a megabyte"));
                    }
                    let content = self.take(size)?;
                    self.skip(size.div_ceil(BLOCK) * BLOCK - size)?;
                    if kind == b'L' {
                        long_name = Some(until_nul(&content).to_vec());
                    } else {
                        let (name, size) = pax(&content);
                        long_name = name.or(long_name);
                        long_size = size.or(long_size);
                    }
                }
                // For all that follow, and names of links.
                b'g' | b'K' => self.skip(size.div_ceil(BLOCK).saturating_mul(BLOCK))?,
                kind => {
                    let name = long_name.take().unwrap_or_else(|| short_name(&header));
                    let name = String::from_utf8_lossy(&name).trim_start_matches("./").to_owned();
                    let size = long_size.unwrap_or(size);
                    return Ok(Some(Member { name, size, is_file: matches!(kind, b'0' | 0 | b'7') }));
                }
            }
        }
    }

    /// The next header; none at the end, which is a block of zeros or the end of the file.
    fn header(&mut self) -> Result<Option<[u8; BLOCK as usize]>> {
        let mut header = [0; BLOCK as usize];
        let mut have = 0;
        while have < header.len() {
            match self.input.read(&mut header[have..]) {
                Ok(0) if have == 0 => return Ok(None),
                Ok(0) => return Err(odd("it is cut off")),
                Ok(read) => have += read,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        if header.iter().all(|&byte| byte == 0) {
            return Ok(None);
        }
        let sum =
            |range: std::ops::Range<usize>| header[range].iter().map(|&byte| u64::from(byte)).sum::<u64>();
        // The field of the sum itself counts as spaces.
        let sum = sum(0..148) + 8 * u64::from(b' ') + sum(156..512);
        match number(&header[148..156]) == Some(sum) {
            true => Ok(Some(header)),
            false => Err(odd("no tar, or damaged: a header whose sum is wrong")),
        }
    }

    fn take(&mut self, size: u64) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        (&mut self.input).take(size).read_to_end(&mut bytes)?;
        if (bytes.len() as u64) < size { Err(odd("it is cut off")) } else { Ok(bytes) }
    }

    fn skip(&mut self, size: u64) -> Result<()> {
        let skipped = std::io::copy(&mut (&mut self.input).take(size), &mut std::io::sink())?;
        if skipped < size { Err(odd("it is cut off")) } else { Ok(()) }
    }
}

/// A number in octal digits, or in binary where its first bit is set.
fn number(field: &[u8]) -> Option<u64> {
    if field[0] & 0x80 != 0 {
        let (high, low) = field.split_at(field.len() - 8);
        let fits = high[0] == 0x80 && high[1..].iter().all(|&byte| byte == 0);
        return fits.then(|| low.iter().fold(0, |number, &byte| number << 8 | u64::from(byte)));
    }
    let text = std::str::from_utf8(until_nul(field)).ok()?.trim();
    if text.is_empty() { Some(0) } else { u64::from_str_radix(text, 8).ok() }
}

fn until_nul(bytes: &[u8]) -> &[u8] {
    &bytes[..memchr::memchr(0, bytes).unwrap_or(bytes.len())]
}

fn short_name(header: &[u8]) -> Vec<u8> {
    let (name, prefix) = (until_nul(&header[..100]), until_nul(&header[345..500]));
    match header[257..].starts_with(b"ustar\0") && !prefix.is_empty() {
        true => [prefix, b"/", name].concat(),
        false => name.to_vec(),
    }
}

/// Name and size out of lines `length key=value`.
fn pax(mut content: &[u8]) -> (Option<Vec<u8>>, Option<u64>) {
    let (mut name, mut size) = (None, None);
    while let Some(space) = memchr::memchr(b' ', content) {
        let length = std::str::from_utf8(&content[..space]).ok().and_then(|text| text.parse::<usize>().ok());
        let Some(record) = length.and_then(|length| content.get(space + 1..length)) else { break };
        let record = record.strip_suffix(b"\n").unwrap_or(record);
        if let Some(value) = record.strip_prefix(b"path=") {
            name = Some(value.to_vec());
        } else if let Some(value) = record.strip_prefix(b"size=") {
            size = std::str::from_utf8(value).ok().and_then(|text| text.parse().ok());
        }
        content = &content[length.unwrap_or(content.len())..];
    }
    (name, size)
}

fn odd(what: &str) -> Error {
    Error::new(ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A member as `tar` writes it.
    fn member(name: &[u8], kind: u8, content: &[u8]) -> Vec<u8> {
        let mut header = [0; 512];
        header[..name.len()].copy_from_slice(name);
        header[124..135].copy_from_slice(format!("{:011o}", content.len()).as_bytes());
        header[156] = kind;
        header[257..263].copy_from_slice(b"ustar\0");
        header[148..156].fill(b' ');
        let sum: u64 = header.iter().map(|&byte| u64::from(byte)).sum();
        header[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
        let mut bytes = header.to_vec();
        bytes.extend_from_slice(content);
        bytes.resize(bytes.len().next_multiple_of(512), 0);
        bytes
    }

    fn list(bytes: &[u8]) -> Result<Vec<(String, u64)>> {
        let mut members = Members { input: bytes };
        let mut found = Vec::new();
        while let Some(member) = members.next()? {
            members.skip(member.padded())?;
            found.push((member.name, member.size));
        }
        Ok(found)
    }

    #[test]
    fn long_names_come_before_their_members() {
        let long = "x".repeat(300) + ".png";
        let pax = format!("{} path={long}\n", long.len() + 10);
        assert_eq!(pax.len(), long.len() + 10);
        let bytes = [
            member(b"./a.png", b'0', b"abc"),
            member(b"././@LongLink", b'L', format!("{long}\0").as_bytes()),
            member(b"cut", b'0', &[1; 700]),
            member(b"header", b'x', pax.as_bytes()),
            member(b"cut", b'0', b""),
            vec![0; 1024],
        ]
        .concat();
        assert_eq!(list(&bytes).unwrap(), [("a.png".to_owned(), 3), (long.clone(), 700), (long, 0)]);
    }

    #[test]
    fn what_is_cut_off_damaged_or_absurd_is_refused() {
        let whole = member(b"a.png", b'0', &[1; 700]);
        assert!(list(&whole[..1000]).is_err() && list(&whole[..300]).is_err());
        let mut damaged = whole.clone();
        damaged[3] ^= 1;
        assert!(list(&damaged).unwrap_err().to_string().contains("sum"));
        let mut huge = member(b"name", b'L', b"");
        huge[124..136].copy_from_slice(&[0x80, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]);
        huge[148..156].fill(b' ');
        let sum: u64 = huge[..512].iter().map(|&byte| u64::from(byte)).sum();
        huge[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
        assert!(list(&huge).unwrap_err().to_string().contains("more than a megabyte"));
        assert!(list(b"no tar").is_err() && list(b"").unwrap().is_empty());
    }
}
