//! A decoder of Huffman-coded JPEGs of any shape, written after the standard (ITU-T T.81) and exact to libjpeg-turbo:
//! all coefficients first, then guesses for those that never came, then blocks, planes and colours.

mod colours;
mod entropy;
mod idct;
mod planes;
mod smoothing;

use super::super::buffer;
use super::damaged;
use super::survey::{Blocks, Coding, ColourSpace, Scan, Segments, Survey};
use crate::image::{Format, ImageError};
use entropy::{BitReader, Codes, Scanner};

/// The coefficients of one component, and what multiplies them.
struct Coefficients {
    blocks: Blocks,
    /// `[padded_down, padded_across, 64]`, each block by rows.
    values: Vec<i16>,
    /// By rows; known from the component's first scan on.
    quantisers: Option<[u16; 64]>,
}

/// `[height, width, 3]` bytes, or 4 inks as stored.
pub(super) fn decode(bytes: &[u8], survey: &Survey) -> Result<Vec<u8>, ImageError> {
    let mut all = Vec::new();
    for component in &survey.components {
        let blocks = survey.blocks(component);
        let count = blocks.padded_across * blocks.padded_down * 64;
        let mut values = Vec::new();
        values
            .try_reserve_exact(count)
            .map_err(|_| damaged(format!("no memory for {count} coefficients")))?;
        values.resize(count, 0);
        all.push(Coefficients { blocks, values, quantisers: None });
    }
    read_scans(bytes, survey, &mut all)?;
    if survey.is_progressive() {
        smoothing::guess(survey, &mut all);
    }
    let size = (usize::from(survey.width), usize::from(survey.height));
    let unit = survey.unit();
    let mut full = Vec::new();
    for (component, coefficients) in survey.components.iter().zip(&mut all) {
        let plane = idct::plane(coefficients)?;
        coefficients.values = Vec::new();
        full.push(planes::upsample(&plane, coefficients.blocks.padded_across * 8, component, unit, size)?);
    }
    let channels = if full.len() == 4 { 4 } else { 3 };
    let mut out = buffer(Format::Jpeg, size.0 * size.1 * channels)?;
    colours::convert(&full, survey.colours == ColourSpace::Luma, &mut out);
    Ok(out)
}

/// The order of coefficients in a file.
const ZIGZAG: [u8; 64] = [
    0, 1, 8, 16, 9, 2, 3, 10, 17, 24, 32, 25, 18, 11, 4, 5, 12, 19, 26, 33, 40, 48, 41, 34, 27, 20, 13, 6, 7,
    14, 21, 28, 35, 42, 49, 56, 57, 50, 43, 36, 29, 22, 15, 23, 30, 37, 44, 51, 58, 59, 52, 45, 38, 31, 39,
    46, 53, 60, 61, 54, 47, 55, 62, 63,
];

/// Tables that stay until they are defined anew.
#[derive(Default)]
struct Tables<'a> {
    quantisers: [Option<[u16; 64]>; 4],
    /// Counts of codes by length, and values.
    dc: [Option<&'a [u8]>; 4],
    ac: [Option<&'a [u8]>; 4],
    restart: usize,
}

impl<'a> Tables<'a> {
    fn read(&mut self, code: u8, mut body: &'a [u8]) -> Result<(), ImageError> {
        match code {
            0xdb => {
                while let Some((&head, rest)) = body.split_first() {
                    let wide = head >> 4 != 0;
                    let size = if wide { 128 } else { 64 };
                    let values =
                        rest.get(..size).ok_or_else(|| damaged("a quantisation table is incomplete"))?;
                    let mut table = [0; 64];
                    for (index, place) in ZIGZAG.iter().enumerate() {
                        table[usize::from(*place)] = if wide {
                            u16::from_be_bytes([values[index * 2], values[index * 2 + 1]])
                        } else {
                            u16::from(values[index])
                        };
                    }
                    let slot = self.quantisers.get_mut(usize::from(head & 15));
                    *slot.ok_or_else(|| damaged("a quantisation table has no such number"))? = Some(table);
                    body = &rest[size..];
                }
            }
            0xc4 => {
                while let Some((&head, rest)) = body.split_first() {
                    let counts = rest.get(..16).ok_or_else(|| damaged("a Huffman table is incomplete"))?;
                    let size = 16 + counts.iter().map(|count| usize::from(*count)).sum::<usize>();
                    let table = rest.get(..size).ok_or_else(|| damaged("a Huffman table is incomplete"))?;
                    let set = if head >> 4 == 0 { &mut self.dc } else { &mut self.ac };
                    let slot = set.get_mut(usize::from(head & 15));
                    *slot.ok_or_else(|| damaged("a Huffman table has no such number"))? = Some(table);
                    body = &rest[size..];
                }
            }
            0xdd => {
                let field = body.get(..2).ok_or_else(|| damaged("a restart interval is incomplete"))?;
                self.restart = usize::from(u16::from_be_bytes([field[0], field[1]]));
            }
            _ => {}
        }
        Ok(())
    }
}

fn read_scans(bytes: &[u8], survey: &Survey, all: &mut [Coefficients]) -> Result<(), ImageError> {
    let mut tables = Tables::default();
    let mut scans = survey.scans.iter().peekable();
    let mut segments = Segments { bytes, at: 2 };
    let mut ended = false;
    while let Some((code, start, body)) = segments.next() {
        if code != 0xda {
            tables.read(code, body)?;
            continue;
        }
        let Some(scan) = scans.next_if(|scan| scan.marker == start) else { break };
        for (component, _, _) in &scan.parts {
            let coefficients = &mut all[*component];
            if coefficients.quantisers.is_none() {
                let number = survey.components[*component].quantiser;
                let table = tables.quantisers.get(number).copied().flatten();
                coefficients.quantisers =
                    Some(table.ok_or_else(|| damaged("a quantisation table is missing"))?);
            }
        }
        let end = read_scan(&bytes[scan.data..], survey, scan, &tables, all)?;
        segments.at = scan.data + end;
        ended = true;
    }
    // A file that stops between two scans is cut off.
    let is_whole = bytes.get(segments.at..segments.at + 2).is_some_and(|marker| marker == [0xff, 0xd9]);
    if !ended || scans.next().is_some() || !is_whole {
        return Err(damaged("the data ends too early"));
    }
    Ok(())
}

/// Decodes one scan and returns how many bytes it takes.
fn read_scan(
    data: &[u8],
    survey: &Survey,
    scan: &Scan,
    tables: &Tables,
    all: &mut [Coefficients],
) -> Result<usize, ImageError> {
    let progressive = survey.coding == Coding::Progressive;
    let invalid = || damaged("a scan's parameters are not valid");
    if progressive {
        let of_dc = scan.first == 0;
        if scan.last > 63 || scan.first > scan.last || scan.low > 13 || (of_dc && scan.last != 0) {
            return Err(invalid());
        }
        if (!of_dc && scan.parts.len() > 1) || (scan.high != 0 && scan.high != scan.low + 1) {
            return Err(invalid());
        }
    }
    let needs_dc = !progressive || (scan.first == 0 && scan.high == 0);
    let needs_ac = !progressive || scan.first > 0;
    let codes = |set: &[Option<&[u8]>; 4], number: usize, needed: bool| -> Result<Codes, ImageError> {
        if !needed {
            return Ok(Codes::default());
        }
        let table = set.get(number).copied().flatten();
        Codes::new(table.ok_or_else(|| damaged("a Huffman table is missing"))?)
    };
    let mut scanners = Vec::new();
    for (_, dc, ac) in &scan.parts {
        scanners.push(Scanner {
            dc: codes(&tables.dc, *dc, needs_dc)?,
            ac: codes(&tables.ac, *ac, needs_ac)?,
            predicted: 0,
        });
    }
    let mut reader = BitReader::new(data);
    let mut run_of_ends = 0;
    // Alone a component's blocks come row by row; together each unit has those of all of them.
    let alone = scan.parts.len() == 1;
    let (across, down) = if alone {
        let blocks = &all[scan.parts[0].0].blocks;
        (blocks.across, blocks.down)
    } else {
        let first = scan.parts[0].0;
        let (blocks, component) = (&all[first].blocks, &survey.components[first]);
        (blocks.padded_across / component.across, blocks.padded_down / component.down)
    };
    for unit in 0..across * down {
        if tables.restart > 0 && unit > 0 && unit % tables.restart == 0 {
            reader.restart()?;
            run_of_ends = 0;
            scanners.iter_mut().for_each(|scanner| scanner.predicted = 0);
        }
        let (x, y) = (unit % across, unit / across);
        for ((component, _, _), scanner) in scan.parts.iter().zip(&mut scanners) {
            let coefficients = &mut all[*component];
            let (wide, high) = match (alone, survey.components[*component]) {
                (true, _) => (1, 1),
                (false, component) => (component.across, component.down),
            };
            for block in 0..wide * high {
                let (column, row) = (x * wide + block % wide, y * high + block / wide);
                let start = (row * coefficients.blocks.padded_across + column) * 64;
                let values = coefficients.values[start..].first_chunk_mut::<64>().ok_or_else(invalid)?;
                if progressive {
                    scanner.progressive(&mut reader, scan, values, &mut run_of_ends)?;
                } else {
                    scanner.sequential(&mut reader, values)?;
                }
            }
        }
        reader.check()?;
    }
    Ok(reader.end())
}
