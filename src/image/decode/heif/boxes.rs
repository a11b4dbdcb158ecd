//! The boxes of a HEIF file, as far as they say how much has to be decoded: a picture may be made of others, many times over.

use std::collections::HashMap;

/// How deep pictures may be made of others.
const DEPTH: usize = 4;

type Parsed<T> = Result<T, &'static str>;

/// Pixels of all pictures that have to be decoded for the first one, each as often as it is used.
pub(super) fn pixels(bytes: &[u8]) -> Parsed<u64> {
    let meta = Boxes(bytes).find_map(|(name, body)| (name == *b"meta").then_some(body));
    // Version and flags come first.
    let meta = meta.and_then(|meta| meta.get(4..)).ok_or("it has no meta box")?;
    let mut items = Items::default();
    for (name, body) in Boxes(meta) {
        match &name {
            b"pitm" => items.primary = primary(body)?,
            b"iref" => references(body, &mut items)?,
            b"iprp" => properties(body, &mut items)?,
            _ => {}
        }
    }
    // What is laid over it (alpha) is decoded with it: pictures that say that they belong to another.
    let mut known = HashMap::new();
    let own = items.cost(items.primary, DEPTH, &mut known)?;
    let others = items.auxiliary.iter().filter(|(_, of)| of.contains(&items.primary));
    others
        .map(|(item, _)| *item)
        .try_fold(own, |sum, item| Ok(sum.saturating_add(items.cost(item, DEPTH, &mut known)?)))
}

#[derive(Default)]
struct Items {
    primary: u32,
    /// Pictures that one is made of.
    parts: HashMap<u32, Vec<u32>>,
    auxiliary: Vec<(u32, Vec<u32>)>,
    sizes: Vec<Option<u64>>,
    /// Which sizes an item has, by their numbers.
    of: HashMap<u32, Vec<usize>>,
}

impl Items {
    /// `known` are those of pictures that were looked at: each is, once.
    fn cost(&self, item: u32, depth: usize, known: &mut HashMap<u32, u64>) -> Parsed<u64> {
        if let Some(&cost) = known.get(&item) {
            return Ok(cost);
        }
        let depth = depth.checked_sub(1).ok_or("its pictures are made of others, too often")?;
        let sizes =
            self.of.get(&item).into_iter().flatten().filter_map(|&i| self.sizes.get(i).copied().flatten());
        let mut sum = sizes.max().unwrap_or(0);
        for &part in self.parts.get(&item).into_iter().flatten() {
            sum = sum.saturating_add(self.cost(part, depth, known)?);
        }
        known.insert(item, sum);
        Ok(sum)
    }
}

fn primary(body: &[u8]) -> Parsed<u32> {
    let mut fields = Fields(body);
    let version = fields.number(1)?;
    fields.skip(3)?;
    fields.number(if version == 0 { 2 } else { 4 })
}

fn references(body: &[u8], items: &mut Items) -> Parsed<()> {
    let mut fields = Fields(body);
    let size = if fields.number(1)? == 0 { 2 } else { 4 };
    fields.skip(3)?;
    for (name, body) in Boxes(fields.0) {
        let mut fields = Fields(body);
        let from = fields.number(size)?;
        let count = fields.number(2)?;
        let to: Vec<u32> = (0..count).map(|_| fields.number(size)).collect::<Parsed<_>>()?;
        match &name {
            b"dimg" => items.parts.entry(from).or_default().extend(to),
            b"auxl" => items.auxiliary.push((from, to)),
            _ => {}
        }
    }
    Ok(())
}

fn properties(body: &[u8], items: &mut Items) -> Parsed<()> {
    for (name, body) in Boxes(body) {
        match &name {
            b"ipco" => {
                for (name, body) in Boxes(body) {
                    let mut fields = Fields(body);
                    items.sizes.push(match &name {
                        b"ispe" => {
                            fields.skip(4)?;
                            Some(u64::from(fields.number(4)?) * u64::from(fields.number(4)?))
                        }
                        _ => None,
                    });
                }
            }
            b"ipma" => {
                let mut fields = Fields(body);
                let version = fields.number(1)?;
                let long = fields.number(3)? & 1 == 1;
                for _ in 0..fields.number(4)? {
                    let item = fields.number(if version == 0 { 2 } else { 4 })?;
                    for _ in 0..fields.number(1)? {
                        let number = fields.number(if long { 2 } else { 1 })?;
                        // The first bit says whether it matters.
                        let number = number & if long { 0x7fff } else { 0x7f };
                        // From 1; 0 is none.
                        if let Some(place) = (number as usize).checked_sub(1) {
                            items.of.entry(item).or_default().push(place);
                        }
                    }
                }
            }
            _ => {}
        }
    }
    Ok(())
}

/// Boxes one after the other: name and content. What does not fit is the end.
struct Boxes<'a>(&'a [u8]);

impl<'a> Iterator for Boxes<'a> {
    type Item = ([u8; 4], &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let mut fields = Fields(self.0);
        let size = fields.number(4).ok()? as usize;
        let name = fields.number(4).ok()?.to_be_bytes();
        let (head, size) = match size {
            0 => (8, self.0.len()),
            1 => {
                let (high, low) = (fields.number(4).ok()?, fields.number(4).ok()?);
                (16, usize::try_from(u64::from(high) << 32 | u64::from(low)).ok()?)
            }
            size => (8, size),
        };
        let whole = self.0.get(..size)?;
        let body = whole.get(head..)?;
        self.0 = &self.0[size..];
        Some((name, body))
    }
}

struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    /// A number of up to four bytes.
    fn number(&mut self, size: usize) -> Parsed<u32> {
        let (field, rest) = self.0.split_at_checked(size).ok_or("a box ends too early")?;
        self.0 = rest;
        Ok(field.iter().fold(0, |number, &byte| number << 8 | u32::from(byte)))
    }

    fn skip(&mut self, size: usize) -> Parsed<()> {
        self.0 = self.0.get(size..).ok_or("a box ends too early")?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn boxed(name: &[u8; 4], body: &[u8]) -> Vec<u8> {
        [&(body.len() as u32 + 8).to_be_bytes()[..], name, body].concat()
    }

    /// A file whose first picture (1) is made of pictures as `parts` says; picture 2 has 100 × 10 pixels.
    fn file(parts: &[u16]) -> Vec<u8> {
        let number = |value: u16| value.to_be_bytes();
        let mut references = [&number(1)[..], &number(parts.len() as u16)].concat();
        parts.iter().for_each(|part| references.extend(number(*part)));
        let iref = boxed(b"iref", &[&[0; 4][..], &boxed(b"dimg", &references)].concat());
        let size = |width: u32, height: u32| {
            boxed(b"ispe", &[&[0; 4][..], &width.to_be_bytes(), &height.to_be_bytes()].concat())
        };
        let ipco = boxed(b"ipco", &[boxed(b"colr", b"nclx"), size(50, 50), size(100, 10)].concat());
        let ipma = [&[0; 4][..], &[0, 0, 0, 2], &number(1), &[1, 0x82], &number(2), &[2, 1, 3]].concat();
        let iprp = boxed(b"iprp", &[ipco, boxed(b"ipma", &ipma)].concat());
        let pitm = boxed(b"pitm", &[0, 0, 0, 0, 0, 1]);
        let meta = boxed(b"meta", &[&[0; 4][..], &pitm, &iref, &iprp].concat());
        [boxed(b"ftyp", b"heic\0\0\0\0mif1heic"), meta].concat()
    }

    #[test]
    fn parts_are_counted_as_often_as_they_are_used() {
        assert_eq!(pixels(&file(&[])), Ok(2500));
        assert_eq!(pixels(&file(&[2, 2, 2])), Ok(2500 + 3000));
        assert_eq!(pixels(&file(&[2; 60_000])), Ok(2500 + 60_000_000));
        assert!(pixels(&file(&[1])).is_err(), "made of itself");
        let whole = file(&[2, 2]);
        for end in 0..whole.len() {
            // A file that is cut off has an end or says so.
            let _ = pixels(&whole[..end]);
        }
        assert!(pixels(b"").is_err() && pixels(&[0; 40]).is_err());
    }
}
