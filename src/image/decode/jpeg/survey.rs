//! All markers of a JPEG: what it is, before a single coefficient is decoded.

use super::damaged;
use crate::image::ImageError;

/// What the markers say.
pub(super) struct Survey<'a> {
    pub(super) width: u16,
    pub(super) height: u16,
    /// Bits of a sample.
    pub(super) precision: u8,
    pub(super) coding: Coding,
    pub(super) components: Vec<Component>,
    pub(super) scans: Vec<Scan>,
    pub(super) colours: ColourSpace,
    /// The EXIF block before the first scan.
    pub(super) exif: Option<Vec<u8>>,
    /// The XMP packet before the first scan.
    pub(super) xmp: Option<&'a [u8]>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Coding {
    Sequential,
    Progressive,
    /// Arithmetic, lossless or hierarchical: left to the library.
    Other,
}

/// What the components are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ColourSpace {
    /// No conversion: grey, RGB or CMYK.
    Plain,
    /// YCbCr, or YCCK.
    Luma,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Component {
    pub(super) id: u8,
    /// Samples across and down in a unit of the picture.
    pub(super) across: usize,
    pub(super) down: usize,
    pub(super) quantiser: usize,
}

/// A scan: which coefficients of which components, and where its data are.
#[derive(Debug, Clone)]
pub(super) struct Scan {
    /// Component, table of DC codes, table of AC codes.
    pub(super) parts: Vec<(usize, usize, usize)>,
    pub(super) first: usize,
    pub(super) last: usize,
    /// The bit that the scan before left (0 in a first scan), and the one that this scan leaves.
    pub(super) high: u8,
    pub(super) low: u8,
    /// The offset of its entropy-coded data.
    pub(super) data: usize,
    /// The offset of its marker segment.
    pub(super) marker: usize,
}

/// A frame may be followed by so many scans before the count alone is the reason to refuse it.
const SCANS_READ: usize = 1000;

impl<'a> Survey<'a> {
    pub(super) fn of(bytes: &'a [u8]) -> Result<Self, ImageError> {
        let mut frame = None;
        let mut survey = Survey {
            width: 0,
            height: 0,
            precision: 8,
            coding: Coding::Other,
            components: Vec::new(),
            scans: Vec::new(),
            colours: ColourSpace::Luma,
            exif: None,
            xmp: None,
        };
        let (mut adobe, mut has_jfif) = (None, false);
        let segments = Segments { bytes, at: 2 };
        for (code, start, body) in segments {
            match code {
                0xc0..=0xc3 | 0xc5..=0xc7 | 0xc9..=0xcb | 0xcd..=0xcf if frame.is_none() => {
                    frame = Some(code);
                    survey.read_frame(code, body)?;
                }
                0xda => {
                    if frame.is_none() {
                        return Err(damaged("a scan comes before the size"));
                    }
                    if survey.scans.len() < SCANS_READ {
                        let scan = survey.read_scan(body, start)?;
                        survey.scans.push(scan);
                    }
                }
                0xe0 if body.starts_with(b"JFIF\0") => has_jfif = true,
                0xe1 if survey.scans.is_empty() && body.starts_with(b"Exif\0\0") => match &mut survey.exif {
                    Some(exif) => exif.extend(&body[6..]),
                    None => survey.exif = Some(body.to_vec()),
                },
                0xe1 if survey.scans.is_empty() && body.starts_with(b"http://ns.adobe.com/xap/1.0/\0") => {
                    survey.xmp = Some(&body[29..]);
                }
                0xee if body.starts_with(b"Adobe") && body.len() >= 12 => adobe = Some(body[11]),
                _ => {}
            }
        }
        if frame.is_none() {
            return Err(damaged("there is no picture in it"));
        }
        let ids: Vec<u8> = survey.components.iter().map(|component| component.id).collect();
        let is_luma = match (ids.len(), adobe) {
            (3, _) if has_jfif => true,
            (3, Some(transform)) => transform != 0,
            (3, None) => ids != *b"RGB",
            (4, Some(transform)) => transform != 0,
            _ => false,
        };
        survey.colours = if is_luma { ColourSpace::Luma } else { ColourSpace::Plain };
        Ok(survey)
    }

    fn read_frame(&mut self, code: u8, body: &[u8]) -> Result<(), ImageError> {
        let short = |at: usize| Some(u16::from_be_bytes([*body.get(at)?, *body.get(at + 1)?]));
        let incomplete = || damaged("its frame header is incomplete");
        self.coding = match code {
            0xc0 | 0xc1 => Coding::Sequential,
            0xc2 => Coding::Progressive,
            _ => Coding::Other,
        };
        self.precision = *body.first().ok_or_else(incomplete)?;
        self.height = short(1).ok_or_else(incomplete)?;
        self.width = short(3).ok_or_else(incomplete)?;
        let count = usize::from(*body.get(5).ok_or_else(incomplete)?);
        let parts = body.get(6..6 + count * 3).ok_or_else(incomplete)?;
        self.components = parts
            .chunks_exact(3)
            .map(|part| Component {
                id: part[0],
                across: usize::from(part[1] >> 4),
                down: usize::from(part[1] & 15),
                quantiser: usize::from(part[2]),
            })
            .collect();
        let valid = |factor: usize| (1..=4).contains(&factor);
        if self.components.iter().any(|c| !valid(c.across) || !valid(c.down)) {
            return Err(damaged("its sampling factors are not valid"));
        }
        Ok(())
    }

    fn read_scan(&self, body: &[u8], marker: usize) -> Result<Scan, ImageError> {
        let invalid = || damaged("a scan header is not valid");
        let count = usize::from(*body.first().ok_or_else(invalid)?);
        let parts = body.get(1..1 + count * 2).ok_or_else(invalid)?;
        let rest = body.get(1 + count * 2..4 + count * 2).ok_or_else(invalid)?;
        let mut scan = Scan {
            parts: Vec::new(),
            first: usize::from(rest[0]),
            last: usize::from(rest[1]),
            high: rest[2] >> 4,
            low: rest[2] & 15,
            data: marker + 4 + body.len(),
            marker,
        };
        for part in parts.chunks_exact(2) {
            // Where ids are used twice, each takes the first component that is still free.
            let found = self.components.iter().enumerate().find(|(index, component)| {
                component.id == part[0] && scan.parts.iter().all(|(taken, _, _)| taken != index)
            });
            let (index, _) = found.ok_or_else(invalid)?;
            scan.parts.push((index, usize::from(part[1] >> 4), usize::from(part[1] & 15)));
        }
        if scan.parts.is_empty() {
            return Err(invalid());
        }
        Ok(scan)
    }

    pub(super) fn is_progressive(&self) -> bool {
        self.coding == Coding::Progressive
    }

    /// The largest sampling factors.
    pub(super) fn unit(&self) -> (usize, usize) {
        let most = |factor: fn(&Component) -> usize| self.components.iter().map(factor).max().unwrap_or(1);
        (most(|component| component.across), most(|component| component.down))
    }

    /// Blocks of a component across and down: those that hold pixels, and those of whole units.
    pub(super) fn blocks(&self, component: &Component) -> Blocks {
        let (across, down) = self.unit();
        let real = |side: u16, factor: usize, most: usize| (usize::from(side) * factor).div_ceil(8 * most);
        let units = |side: u16, most: usize| usize::from(side).div_ceil(8 * most);
        Blocks {
            across: real(self.width, component.across, across),
            down: real(self.height, component.down, down),
            padded_across: units(self.width, across) * component.across,
            padded_down: units(self.height, down) * component.down,
        }
    }

    /// Samples of all components, in whole units.
    pub(super) fn samples(&self) -> u64 {
        let blocks = self.components.iter().map(|component| self.blocks(component));
        blocks.map(|blocks| blocks.padded_across as u64 * blocks.padded_down as u64 * 64).sum()
    }

    /// Samples that all scans together go over.
    pub(super) fn work(&self) -> u64 {
        let one = |component: usize| {
            let blocks = self.blocks(&self.components[component]);
            blocks.padded_across as u64 * blocks.padded_down as u64 * 64
        };
        self.scans.iter().flat_map(|scan| &scan.parts).map(|(component, _, _)| one(*component)).sum()
    }

    /// Whether the library cannot be trusted with it: chroma that is not a plain fraction of luma, inks of different
    /// sizes, ids that are used twice, scans of some of the components, or coefficients that never come.
    pub(super) fn is_odd(&self) -> bool {
        if self.coding == Coding::Other || self.precision != 8 {
            return false;
        }
        let components = &self.components;
        let has_twins =
            (1..components.len()).any(|at| components[..at].iter().any(|c| c.id == components[at].id));
        has_twins || self.has_odd_sizes() || self.is_partly_interleaved() || self.is_incomplete()
    }

    /// Whether the components have sizes that the library gets wrong or panics on.
    pub(super) fn has_odd_sizes(&self) -> bool {
        let components = &self.components;
        let (across, down) = self.unit();
        let full = |component: &Component| (component.across, component.down) == (across, down);
        match components.len() {
            3 => {
                let same = |a: &Component, b: &Component| (a.across, a.down) == (b.across, b.down);
                let usual = [(1, 1), (2, 1), (1, 2), (2, 2), (4, 1), (4, 2)];
                let chroma = &components[1];
                !full(&components[0])
                    || !same(chroma, &components[2])
                    || (chroma.across, chroma.down) != (1, 1)
                    || !usual.contains(&(across, down))
            }
            4 => !components.iter().all(full),
            _ => false,
        }
    }

    /// A sequential file of several scans, of which one has some of the components and not just one.
    fn is_partly_interleaved(&self) -> bool {
        let all = self.components.len();
        self.coding == Coding::Sequential && all > 1 && {
            let sizes = self.scans.iter().map(|scan| scan.parts.len());
            self.scans.len() > 1 && sizes.clone().any(|size| size > 1) || sizes.sum::<usize>() != all
        }
    }

    /// A progressive file whose scans leave coefficients unknown, which libjpeg then guesses.
    fn is_incomplete(&self) -> bool {
        self.is_progressive()
            && (self.known_bits().iter().flatten().any(|bits| *bits != 0) || self.refines_the_unknown())
    }

    /// Whether a scan refines bits that no scan before it left.
    fn refines_the_unknown(&self) -> bool {
        let mut known = vec![[-1; 64]; self.components.len()];
        self.scans.iter().any(|scan| {
            scan.parts.iter().any(|(component, _, _)| {
                let bits = known[*component].iter_mut().take(scan.last + 1).skip(scan.first);
                bits.fold(false, |wrong, bits| {
                    let expected: i8 = if scan.high == 0 { -1 } else { scan.high as i8 };
                    wrong | (std::mem::replace(bits, scan.low as i8) != expected)
                })
            })
        })
    }

    /// For each coefficient of each component the lowest bit that is still unknown: 0 where all are known, −1 where
    /// nothing is.
    pub(super) fn known_bits(&self) -> Vec<[i8; 64]> {
        let mut known = vec![[-1; 64]; self.components.len()];
        for scan in &self.scans {
            for (component, _, _) in &scan.parts {
                for bits in known[*component].iter_mut().take(scan.last + 1).skip(scan.first) {
                    *bits = scan.low as i8;
                }
            }
        }
        known
    }
}

/// Blocks of a component.
pub(super) struct Blocks {
    pub(super) across: usize,
    pub(super) down: usize,
    pub(super) padded_across: usize,
    pub(super) padded_down: usize,
}

/// The marker segments of a file: code, offset of the marker, body. Entropy-coded data are skipped.
pub(super) struct Segments<'a> {
    pub(super) bytes: &'a [u8],
    pub(super) at: usize,
}

impl<'a> Iterator for Segments<'a> {
    type Item = (u8, usize, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let rest = self.bytes.get(self.at..)?;
            self.at += rest.iter().position(|byte| *byte == 0xff)?;
            let code = *self.bytes.get(self.at + 1)?;
            match code {
                0xff => self.at += 1,
                0 | 1 | 0xd0..=0xd8 => self.at += 2,
                0xd9 => return None,
                _ => {
                    let start = self.at;
                    let length = self.bytes.get(start + 2..start + 4)?;
                    let length = usize::from(u16::from_be_bytes([length[0], length[1]]));
                    let body = self.bytes.get(start + 4..start + 2 + length.max(2))?;
                    self.at = start + 2 + length.max(2);
                    return Some((code, start, body));
                }
            }
        }
    }
}
