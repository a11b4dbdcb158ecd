//! Huffman codes to coefficients (T.81, annexes F and G).

use super::super::damaged;
use super::super::survey::Scan;
use super::ZIGZAG;
use crate::image::ImageError;

/// Entropy-coded bits, up to the next marker.
pub(super) struct BitReader<'a> {
    data: &'a [u8],
    at: usize,
    /// The next bits, from the highest one on.
    bits: u64,
    count: u32,
    /// Of `count`, zeros that stand for bits behind the end.
    padding: u32,
}

impl<'a> BitReader<'a> {
    pub(super) fn new(data: &'a [u8]) -> Self {
        Self { data, at: 0, bits: 0, count: 0, padding: 0 }
    }

    /// Makes at least 32 bits ready.
    fn fill(&mut self) {
        while self.count <= 56 {
            let byte = match (self.data.get(self.at), self.data.get(self.at + 1)) {
                (Some(0xff), Some(0)) => {
                    self.at += 2;
                    0xff
                }
                (Some(0xff), _) | (None, _) => {
                    self.padding += 8;
                    0
                }
                (Some(byte), _) => {
                    self.at += 1;
                    *byte
                }
            };
            self.bits |= u64::from(byte) << (56 - self.count);
            self.count += 8;
        }
    }

    fn peek(&mut self, count: u32) -> usize {
        if self.count < count {
            self.fill();
        }
        if count == 0 { 0 } else { (self.bits >> (64 - count)) as usize }
    }

    fn skip(&mut self, count: u32) {
        self.bits = self.bits.checked_shl(count).unwrap_or(0);
        self.count = self.count.saturating_sub(count);
    }

    fn take(&mut self, count: u32) -> i32 {
        let value = self.peek(count);
        self.skip(count);
        value as i32
    }

    /// A difference of `size` bits: the first half of the values is negative.
    fn difference(&mut self, size: u32) -> i32 {
        let value = self.take(size);
        if size > 0 && value < 1 << (size - 1) { value - (1 << size) + 1 } else { value }
    }

    /// # Errors
    /// Where bits behind the end were used.
    pub(super) fn check(&self) -> Result<(), ImageError> {
        if self.padding > self.count { Err(damaged("the data of a scan ends too early")) } else { Ok(()) }
    }

    /// Goes on behind the restart marker, which must be next.
    pub(super) fn restart(&mut self) -> Result<(), ImageError> {
        self.check()?;
        let mut at = self.end();
        while self.data.get(at + 1) == Some(&0xff) {
            at += 1;
        }
        match self.data.get(at..at + 2) {
            Some([0xff, 0xd0..=0xd7]) => {
                *self = Self { data: self.data, at: at + 2, bits: 0, count: 0, padding: 0 };
                Ok(())
            }
            _ => Err(damaged("a restart marker is missing")),
        }
    }

    /// The offset of the next marker, or the end of the data.
    pub(super) fn end(&self) -> usize {
        let mut at = self.at;
        while let Some(found) =
            self.data.get(at..).and_then(|rest| rest.iter().position(|byte| *byte == 0xff))
        {
            at += found;
            if self.data.get(at + 1) != Some(&0) {
                return at;
            }
            at += 2;
        }
        self.data.len()
    }
}

/// A Huffman code.
pub(super) struct Codes {
    /// Length and value of the code that the next 8 bits start with; length 0 where it is longer.
    short: [(u8, u8); 256],
    /// For each length the first code behind the last one of it, left-aligned in 16 bits.
    limits: [usize; 17],
    /// For each length what a code's number is to be added to, for the place of its value.
    places: [isize; 17],
    values: Vec<u8>,
}

impl Default for Codes {
    fn default() -> Self {
        Self { short: [(0, 0); 256], limits: [0; 17], places: [0; 17], values: Vec::new() }
    }
}

impl Codes {
    /// From the number of codes of each length and their values.
    pub(super) fn new(table: &[u8]) -> Result<Self, ImageError> {
        let (counts, values) =
            table.split_at_checked(16).ok_or_else(|| damaged("a Huffman table is incomplete"))?;
        let mut codes = Self { values: values.to_vec(), ..Self::default() };
        let (mut code, mut place) = (0_usize, 0_usize);
        for (index, count) in counts.iter().enumerate() {
            let (length, count) = (index + 1, usize::from(*count));
            codes.places[length] = place as isize - code as isize;
            if length <= 8 {
                for number in 0..count {
                    let first = (code + number) << (8 - length);
                    let entries = codes.short.get_mut(first..first + (1 << (8 - length)));
                    let value = *values
                        .get(place + number)
                        .ok_or_else(|| damaged("a Huffman table is incomplete"))?;
                    entries
                        .ok_or_else(|| damaged("a Huffman table is not valid"))?
                        .fill((length as u8, value));
                }
            }
            code += count;
            place += count;
            if code > 1 << length {
                return Err(damaged("a Huffman table is not valid"));
            }
            codes.limits[length] = code << (16 - length);
            code <<= 1;
        }
        Ok(codes)
    }

    fn read(&self, reader: &mut BitReader) -> Result<u8, ImageError> {
        let window = reader.peek(16);
        let (length, value) = self.short[window >> 8];
        if length > 0 {
            reader.skip(u32::from(length));
            return Ok(value);
        }
        for length in 9..=16 {
            if window < self.limits[length] {
                reader.skip(length as u32);
                let place = (window >> (16 - length)) as isize + self.places[length];
                let value = usize::try_from(place).ok().and_then(|place| self.values.get(place));
                return value.copied().ok_or_else(|| damaged("a Huffman code is not valid"));
            }
        }
        Err(damaged("a Huffman code is not valid"))
    }
}

/// The codes of one component of a scan.
pub(super) struct Scanner {
    pub(super) dc: Codes,
    pub(super) ac: Codes,
    /// The DC coefficient of the block before.
    pub(super) predicted: i32,
}

impl Scanner {
    pub(super) fn sequential(
        &mut self,
        reader: &mut BitReader,
        block: &mut [i16; 64],
    ) -> Result<(), ImageError> {
        block[0] = self.dc_coefficient(reader)? as i16;
        let mut index = 1;
        while index < 64 {
            let symbol = self.ac.read(reader)?;
            let (run, size) = (usize::from(symbol >> 4), u32::from(symbol & 15));
            if size == 0 {
                if run != 15 {
                    break;
                }
                index += 16;
                continue;
            }
            index += run;
            let value = reader.difference(size);
            let place = ZIGZAG.get(index).ok_or_else(|| damaged("a block has too many coefficients"))?;
            block[usize::from(*place)] = value as i16;
            index += 1;
        }
        Ok(())
    }

    pub(super) fn progressive(
        &mut self,
        reader: &mut BitReader,
        scan: &Scan,
        block: &mut [i16; 64],
        run_of_ends: &mut u32,
    ) -> Result<(), ImageError> {
        match (scan.first, scan.high) {
            (0, 0) => block[0] = (self.dc_coefficient(reader)? << scan.low) as i16,
            (0, _) => block[0] |= (reader.take(1) << scan.low) as i16,
            (_, 0) => self.first_ac(reader, scan, block, run_of_ends)?,
            _ => self.refined_ac(reader, scan, block, run_of_ends)?,
        }
        Ok(())
    }

    fn dc_coefficient(&mut self, reader: &mut BitReader) -> Result<i32, ImageError> {
        let size = self.dc.read(reader)?;
        if size > 15 {
            return Err(damaged("a DC coefficient has more than 15 bits"));
        }
        self.predicted = self.predicted.wrapping_add(reader.difference(u32::from(size)));
        Ok(self.predicted)
    }

    fn first_ac(
        &self,
        reader: &mut BitReader,
        scan: &Scan,
        block: &mut [i16; 64],
        run_of_ends: &mut u32,
    ) -> Result<(), ImageError> {
        if *run_of_ends > 0 {
            *run_of_ends -= 1;
            return Ok(());
        }
        let mut index = scan.first;
        while index <= scan.last {
            let symbol = self.ac.read(reader)?;
            let (run, size) = (usize::from(symbol >> 4), u32::from(symbol & 15));
            if size == 0 {
                if run != 15 {
                    *run_of_ends = (1 << run) - 1 + reader.take(run as u32) as u32;
                    break;
                }
                index += 16;
                continue;
            }
            index += run;
            let value = reader.difference(size) << scan.low;
            let place = ZIGZAG.get(index).ok_or_else(|| damaged("a block has too many coefficients"))?;
            block[usize::from(*place)] = value as i16;
            index += 1;
        }
        Ok(())
    }

    fn refined_ac(
        &self,
        reader: &mut BitReader,
        scan: &Scan,
        block: &mut [i16; 64],
        run_of_ends: &mut u32,
    ) -> Result<(), ImageError> {
        let one = 1_i16 << scan.low;
        let mut index = scan.first;
        if *run_of_ends == 0 {
            while index <= scan.last {
                let symbol = self.ac.read(reader)?;
                let (mut run, size) = (usize::from(symbol >> 4), symbol & 15);
                let mut fresh = 0;
                if size == 0 {
                    if run != 15 {
                        *run_of_ends = (1 << run) + reader.take(run as u32) as u32;
                        break;
                    }
                } else {
                    fresh = if reader.take(1) == 1 { one } else { -one };
                }
                // Over `run` coefficients that are zero; each one in between that is not gets its next bit.
                while index <= scan.last {
                    let value = &mut block[usize::from(ZIGZAG[index])];
                    if *value != 0 {
                        refine(reader, value, one);
                    } else if run == 0 {
                        break;
                    } else {
                        run -= 1;
                    }
                    index += 1;
                }
                if fresh != 0 {
                    let place =
                        ZIGZAG.get(index).ok_or_else(|| damaged("a block has too many coefficients"))?;
                    block[usize::from(*place)] = fresh;
                }
                index += 1;
            }
        }
        if *run_of_ends > 0 {
            for place in ZIGZAG.iter().take(scan.last + 1).skip(index) {
                let value = &mut block[usize::from(*place)];
                if *value != 0 {
                    refine(reader, value, one);
                }
            }
            *run_of_ends -= 1;
        }
        Ok(())
    }
}

/// The next bit of a coefficient that is not zero.
fn refine(reader: &mut BitReader, value: &mut i16, one: i16) {
    if reader.take(1) == 1 && *value & one == 0 {
        *value = if *value > 0 { value.wrapping_add(one) } else { value.wrapping_sub(one) };
    }
}
