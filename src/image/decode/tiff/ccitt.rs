//! The codes of ITU-T T.4 and T.6: fax machines' compression of black and white rows.

use std::sync::LazyLock;

use super::damaged;
use crate::image::ImageError;

/// Which code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Code {
    /// Rows of runs; each row starts on a byte.
    Rle,
    /// Rows of runs, or of changes against the row before, each behind an end-of-line code.
    Group3 { two_dimensional: bool },
    /// Rows of changes against the row before.
    Group4,
}

/// Fills `out` with `rows` rows of `width` bits, black being 1.
pub(super) fn expand(
    source: &[u8],
    out: &mut [u8],
    code: Code,
    width: usize,
    rows: usize,
) -> Result<(), ImageError> {
    let mut bits = Bits { source, at: 0 };
    // Where the colour changes, in the row before and in this one; both end with the width.
    let (mut before, mut changes) = (Vec::new(), Vec::new());
    for line in out.chunks_exact_mut(width.div_ceil(8)).take(rows) {
        changes.clear();
        let in_runs = match code {
            Code::Rle => {
                bits.align();
                true
            }
            Code::Group3 { two_dimensional } => {
                let marked = bits.skip_end_of_line()?;
                !two_dimensional || !marked || bits.take(1) == 1
            }
            Code::Group4 => false,
        };
        if in_runs {
            row_of_runs(&mut bits, width, &mut changes)?;
        } else {
            row_of_changes(&mut bits, width, &before, &mut changes)?;
        }
        draw(line, &changes, width);
        std::mem::swap(&mut before, &mut changes);
    }
    Ok(())
}

fn too_early() -> ImageError {
    damaged("its CCITT code ends too early")
}

fn invalid() -> ImageError {
    damaged("its CCITT code is not valid")
}

struct Bits<'a> {
    source: &'a [u8],
    /// In bits.
    at: usize,
}

impl Bits<'_> {
    /// The next `count` bits, at most 16; zeros behind the end.
    fn peek(&self, count: usize) -> usize {
        let byte = |at: usize| usize::from(self.source.get(at).copied().unwrap_or(0));
        let first = self.at / 8;
        let window = byte(first) << 16 | byte(first + 1) << 8 | byte(first + 2);
        window >> (24 - self.at % 8 - count) & ((1 << count) - 1)
    }

    fn take(&mut self, count: usize) -> usize {
        let value = self.peek(count);
        self.at += count;
        value
    }

    fn align(&mut self) {
        self.at = self.at.next_multiple_of(8);
    }

    fn is_over(&self) -> bool {
        self.at > self.source.len() * 8
    }

    /// Reads an end-of-line code, eleven or more zeros and a one, if there is one.
    fn skip_end_of_line(&mut self) -> Result<bool, ImageError> {
        if self.peek(11) != 0 {
            return Ok(false);
        }
        self.at += 11;
        while self.take(1) == 0 {
            if self.is_over() {
                return Err(too_early());
            }
        }
        Ok(true)
    }

    /// The length of a run: any number of codes for multiples of 64 and one for the rest.
    fn run(&mut self, black: bool) -> Result<usize, ImageError> {
        let table = &TABLES[usize::from(black)];
        let mut length = 0;
        loop {
            let (part, bits) = table[self.peek(CODE_BITS)];
            if bits == 0 {
                return Err(if self.is_over() { too_early() } else { invalid() });
            }
            self.at += usize::from(bits);
            length += usize::from(part);
            if self.is_over() || length > 1 << 20 {
                return Err(too_early());
            }
            if part < 64 {
                return Ok(length);
            }
        }
    }
}

fn row_of_runs(bits: &mut Bits, width: usize, changes: &mut Vec<usize>) -> Result<(), ImageError> {
    let (mut at, mut black) = (0, false);
    while at < width {
        at += bits.run(black)?;
        changes.push(at.min(width));
        black = !black;
        if changes.len() > width * 2 + 2 {
            return Err(invalid());
        }
    }
    Ok(())
}

fn row_of_changes(
    bits: &mut Bits,
    width: usize,
    before: &[usize],
    changes: &mut Vec<usize>,
) -> Result<(), ImageError> {
    let (mut at, mut black) = (0, false);
    // The first change in the row before that may still matter.
    let mut next = 0_usize;
    let mut started = false;
    while at < width {
        if changes.len() > width * 2 + 2 {
            return Err(invalid());
        }
        // b1: the first change behind `at` to the colour that is not the present one; b2: the one after it.
        next = next.saturating_sub(2);
        while next < before.len()
            && (before[next] < at + usize::from(started) || next % 2 != usize::from(black))
        {
            next += 1;
        }
        let b1 = before.get(next).copied().unwrap_or(width);
        let b2 = before.get(next + 1).copied().unwrap_or(width);
        let offset = match bits.peek(7) {
            code if code >> 6 == 1 => (1, 0),
            code if code >> 4 == 0b011 => (3, 1),
            code if code >> 4 == 0b010 => (3, -1),
            code if code >> 4 == 0b001 => {
                bits.at += 3;
                for _ in 0..2 {
                    at += bits.run(black)?;
                    changes.push(at.min(width));
                    black = !black;
                }
                started = true;
                continue;
            }
            code if code >> 3 == 0b0001 => {
                bits.at += 4;
                at = b2;
                started = true;
                continue;
            }
            code if code >> 1 == 0b00_0011 => (6, 2),
            code if code >> 1 == 0b00_0010 => (6, -2),
            0b000_0011 => (7, 3),
            0b000_0010 => (7, -3),
            _ => return Err(if bits.is_over() { too_early() } else { invalid() }),
        };
        bits.at += offset.0;
        if bits.is_over() {
            return Err(too_early());
        }
        let change = b1.checked_add_signed(offset.1).ok_or_else(invalid)?;
        if change < at {
            return Err(invalid());
        }
        at = change;
        changes.push(at.min(width));
        black = !black;
        started = true;
    }
    Ok(())
}

/// Sets the bits of every second run.
fn draw(line: &mut [u8], changes: &[usize], width: usize) {
    line.fill(0);
    for run in changes.chunks(2) {
        let (start, end) = (run[0], run.get(1).copied().unwrap_or(width));
        if start >= end {
            continue;
        }
        let (first, last) = (start / 8, (end - 1) / 8);
        let (head, tail) = (0xff >> (start % 8), 0xff_u8 << (7 - (end - 1) % 8));
        if first == last {
            line[first] |= head & tail;
        } else {
            line[first] |= head;
            line[first + 1..last].fill(0xff);
            line[last] |= tail;
        }
    }
}

/// The longest code of a run.
const CODE_BITS: usize = 13;

/// For white and for black: the run and the code's length behind every 13 bits; length 0 where there is no code.
static TABLES: LazyLock<[Vec<(u16, u8)>; 2]> = LazyLock::new(|| {
    let table = |codes: &str, long: &str| {
        let mut table = vec![(0, 0); 1 << CODE_BITS];
        let short = codes.split_whitespace().enumerate();
        let long = long.split_whitespace().chain(SHARED.split_whitespace()).enumerate();
        for (run, code) in short.chain(long.map(|(index, code)| ((index + 1) * 64, code))) {
            let bits = code.len();
            let first = code.bytes().fold(0, |value, digit| value << 1 | usize::from(digit == b'1'))
                << (CODE_BITS - bits);
            table[first..first + (1 << (CODE_BITS - bits))].fill((run as u16, bits as u8));
        }
        table
    };
    [table(WHITE, WHITE_64), table(BLACK, BLACK_64)]
});

/// T.4, table 2: white runs of 0 to 63.
const WHITE: &str = "00110101 000111 0111 1000 1011 1100 1110 1111 10011 10100 00111 01000 001000 000011 110100 110101 \
    101010 101011 0100111 0001100 0001000 0010111 0000011 0000100 0101000 0101011 0010011 0100100 0011000 00000010 \
    00000011 00011010 00011011 00010010 00010011 00010100 00010101 00010110 00010111 00101000 00101001 00101010 \
    00101011 00101100 00101101 00000100 00000101 00001010 00001011 01010010 01010011 01010100 01010101 00100100 \
    00100101 01011000 01011001 01011010 01011011 01001010 01001011 00110010 00110011 00110100";

/// T.4, table 3: white runs of 64, 128, … 1,728.
const WHITE_64: &str = "11011 10010 010111 0110111 00110110 00110111 01100100 01100101 01101000 01100111 011001100 \
    011001101 011010010 011010011 011010100 011010101 011010110 011010111 011011000 011011001 011011010 011011011 \
    010011000 010011001 010011010 011000 010011011";

/// T.4, table 2: black runs of 0 to 63.
const BLACK: &str = "0000110111 010 11 10 011 0011 0010 00011 000101 000100 0000100 0000101 0000111 00000100 00000111 \
    000011000 0000010111 0000011000 0000001000 00001100111 00001101000 00001101100 00000110111 00000101000 \
    00000010111 00000011000 000011001010 000011001011 000011001100 000011001101 000001101000 000001101001 \
    000001101010 000001101011 000011010010 000011010011 000011010100 000011010101 000011010110 000011010111 \
    000001101100 000001101101 000011011010 000011011011 000001010100 000001010101 000001010110 000001010111 \
    000001100100 000001100101 000001010010 000001010011 000000100100 000000110111 000000111000 000000100111 \
    000000101000 000001011000 000001011001 000000101011 000000101100 000001011010 000001100110 000001100111";

/// T.4, table 3: black runs of 64, 128, … 1,728.
const BLACK_64: &str = "0000001111 000011001000 000011001001 000001011011 000000110011 000000110100 000000110101 \
    0000001101100 0000001101101 0000001001010 0000001001011 0000001001100 0000001001101 0000001110010 0000001110011 \
    0000001110100 0000001110101 0000001110110 0000001110111 0000001010010 0000001010011 0000001010100 0000001010101 \
    0000001011010 0000001011011 0000001100100 0000001100101";

/// T.4, table 3: runs of 1,792, 1,856, … 2,560 of either colour.
const SHARED: &str = "00000001000 00000001100 00000001101 000000010010 000000010011 000000010100 000000010101 \
    000000010110 000000010111 000000011100 000000011101 000000011110 000000011111";
