//! The boxes of a HEIF file (ISO/IEC 23008-12), as far as they say how large the first picture is and how much has to be decoded for
//! it: a picture may be made of others, many times over.

use std::collections::HashMap;

/// How deep pictures may be made of others.
const DEPTH: usize = 5;
/// Items and properties of a file; a photograph of 65 megapixels in tiles has some hundred.
const ITEMS: usize = 10_000;
/// Properties of one item.
const PROPERTIES_OF_ONE: usize = 64;
/// Pictures that others are made of, each as often as it is used.
const REFERENCES: usize = 1 << 16;

/// What `auxC` calls alpha: in files of HEVC, of AVC, and of everything since.
const ALPHA: [&[u8]; 3] = [
    b"urn:mpeg:hevc:2015:auxid:1",
    b"urn:mpeg:avc:2015:auxid:1",
    b"urn:mpeg:mpegB:cicp:systems:auxiliary:alpha",
];

type Parsed<T> = Result<T, &'static str>;

/// What a file says of its first picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Contents {
    /// Width and height as it is shown: cut and turned.
    pub width: u32,
    pub height: u32,
    /// Pixels of all pictures that have to be decoded for it, each as often as it is used.
    pub pixels: u64,
    /// Pixels that are held at once: of the picture itself before it is cut, of the one of its parts that is being decoded, of a part
    /// of that.
    pub held: u64,
}

pub(super) fn contents(bytes: &[u8]) -> Parsed<Contents> {
    let mut metas = Boxes(bytes).filter_map(|(name, body)| (name == *b"meta").then_some(body));
    // Version and flags come first.
    let meta = metas.next().and_then(|meta| meta.get(4..)).ok_or("it has no meta box")?;
    if metas.next().is_some() {
        return Err("it has two meta boxes");
    }
    let mut read = Read::default();
    for (name, body) in Boxes(meta) {
        match &name {
            b"pitm" => read.primary = primary(body)?,
            b"iref" => references(body, &mut read)?,
            b"iprp" => properties(body, &mut read)?,
            _ => {}
        }
    }
    let primary = read.primary;
    let items = Items::new(read)?;
    let (width, height) =
        items.of.get(&primary).and_then(|item| item.shown).ok_or("it does not say how large it is")?;
    let cost = items.cost(primary, DEPTH, &mut HashMap::new())?;
    Ok(Contents { width, height, pixels: cost.sum, held: cost.held })
}

/// What is said of an item, in the order of `ipco`.
#[derive(Clone, Copy)]
enum Property {
    /// `ispe`: width and height as it is coded.
    Size(u32, u32),
    /// `clap`: width and height that are left of it.
    Cut(u32, u32),
    /// `irot`: whether its sides are swapped.
    Turned(bool),
    /// `auxC`: what it holds of another is alpha.
    Alpha,
    Other,
}

/// The boxes as they stand in the file.
#[derive(Default)]
struct Read {
    primary: u32,
    /// Pictures that one is made of.
    parts: HashMap<u32, Vec<u32>>,
    /// Pictures that belong to another.
    auxiliary: Vec<(u32, u32)>,
    references: usize,
    properties: Vec<Property>,
    /// Which properties an item has, by their numbers, in their order.
    of: HashMap<u32, Vec<u16>>,
}

impl Read {
    /// Counts pictures that others are made of.
    fn count(&mut self, more: usize) -> Parsed<()> {
        self.references += more;
        if self.references > REFERENCES { Err("it refers to too many pictures") } else { Ok(()) }
    }
}

/// One picture of the file.
#[derive(Default)]
struct Item {
    /// Width and height as libheif shows it: the size, then cuts and turns in their order.
    shown: Option<(u32, u32)>,
    /// Pixels before it is cut.
    coded: u64,
    is_alpha: bool,
    /// Pictures that are decoded for it: those that it is made of, and its alpha. Depths and gain maps are not.
    parts: Vec<u32>,
}

impl Item {
    fn new(properties: impl Iterator<Item = Property> + Clone) -> Parsed<Self> {
        let mut item = Self::default();
        for property in properties.clone() {
            match property {
                Property::Size(width, height) => {
                    item.shown = Some((width, height));
                    item.coded = item.coded.max(u64::from(width) * u64::from(height));
                }
                Property::Alpha => item.is_alpha = true,
                _ => {}
            }
        }
        for property in properties {
            item.shown = match (property, item.shown) {
                (Property::Cut(width, height), Some((from_width, from_height))) => {
                    if width > from_width || height > from_height {
                        return Err("what is cut out of it is larger than it is");
                    }
                    Some((width, height))
                }
                (Property::Turned(true), Some((width, height))) => Some((height, width)),
                (_, shown) => shown,
            };
        }
        Ok(item)
    }
}

/// Pixels that are decoded for an item, with its parts.
#[derive(Clone, Copy)]
struct Cost {
    /// All of them.
    sum: u64,
    /// Those that are held at once.
    held: u64,
}

struct Items {
    of: HashMap<u32, Item>,
}

impl Items {
    fn new(mut read: Read) -> Parsed<Self> {
        let mut of = HashMap::with_capacity(read.of.len());
        for (id, numbers) in &read.of {
            let properties = numbers.iter().filter_map(|&at| read.properties.get(usize::from(at)).copied());
            let parts = read.parts.remove(id).unwrap_or_default();
            of.insert(*id, Item { parts, ..Item::new(properties)? });
        }
        // Of what has no properties, only the parts count.
        of.extend(read.parts.into_iter().map(|(id, parts)| (id, Item { parts, ..Item::default() })));
        for (id, belongs_to) in read.auxiliary {
            if of.get(&id).is_some_and(|item| item.is_alpha)
                && let Some(item) = of.get_mut(&belongs_to)
            {
                item.parts.push(id);
            }
        }
        Ok(Self { of })
    }

    /// `known` are those of pictures that were looked at: each is, once.
    fn cost(&self, id: u32, depth: usize, known: &mut HashMap<u32, Cost>) -> Parsed<Cost> {
        if let Some(&cost) = known.get(&id) {
            return Ok(cost);
        }
        let depth = depth.checked_sub(1).ok_or("its pictures are made of others, too often")?;
        let Some(item) = self.of.get(&id) else { return Ok(Cost { sum: 0, held: 0 }) };
        let (mut sum, mut largest) = (item.coded, 0);
        for &part in &item.parts {
            let part = self.cost(part, depth, known)?;
            sum = sum.saturating_add(part.sum);
            largest = part.held.max(largest);
        }
        let cost = Cost { sum, held: item.coded.saturating_add(largest) };
        known.insert(id, cost);
        Ok(cost)
    }
}

fn primary(body: &[u8]) -> Parsed<u32> {
    let mut fields = Fields(body);
    let version = fields.number(1)?;
    fields.skip(3)?;
    fields.number(if version == 0 { 2 } else { 4 })
}

fn references(body: &[u8], read: &mut Read) -> Parsed<()> {
    let mut fields = Fields(body);
    let size = if fields.number(1)? == 0 { 2 } else { 4 };
    fields.skip(3)?;
    for (name, body) in Boxes(fields.0) {
        let mut fields = Fields(body);
        let from = fields.number(size)?;
        let count = fields.number(2)?;
        if !matches!(&name, b"dimg" | b"auxl") {
            continue;
        }
        read.count(count as usize)?;
        for _ in 0..count {
            let to = fields.number(size)?;
            match &name {
                b"dimg" => read.parts.entry(from).or_default().push(to),
                _ => read.auxiliary.push((from, to)),
            }
        }
    }
    Ok(())
}

fn properties(body: &[u8], read: &mut Read) -> Parsed<()> {
    for (name, body) in Boxes(body) {
        match &name {
            b"ipco" => {
                for (name, body) in Boxes(body) {
                    if read.properties.len() == ITEMS {
                        return Err("it has too many properties");
                    }
                    read.properties.push(property(name, Fields(body))?);
                }
            }
            b"ipma" => {
                let mut fields = Fields(body);
                let version = fields.number(1)?;
                let long = fields.number(3)? & 1 == 1;
                for _ in 0..fields.number(4)? {
                    let item = fields.number(if version == 0 { 2 } else { 4 })?;
                    let is_new = !read.of.contains_key(&item);
                    if is_new && read.of.len() == ITEMS {
                        return Err("it has too many pictures");
                    }
                    let numbers = read.of.entry(item).or_default();
                    for _ in 0..fields.number(1)? {
                        if numbers.len() == PROPERTIES_OF_ONE {
                            return Err("one of its pictures has too many properties");
                        }
                        let number = fields.number(if long { 2 } else { 1 })?;
                        // The first bit says whether it matters.
                        let number = number & if long { 0x7fff } else { 0x7f };
                        // From 1; 0 is none.
                        if let Some(place) = number.checked_sub(1) {
                            numbers.push(place as u16);
                        }
                    }
                }
            }
            _ => {}
        }
    }
    Ok(())
}

fn property(name: [u8; 4], mut fields: Fields<'_>) -> Parsed<Property> {
    Ok(match &name {
        b"ispe" => {
            fields.skip(4)?;
            Property::Size(fields.number(4)?, fields.number(4)?)
        }
        b"clap" => Property::Cut(fields.rounded()?, fields.rounded()?),
        // By so many times 90 degrees.
        b"irot" => Property::Turned(fields.number(1)? & 1 == 1),
        b"auxC" if ALPHA.contains(&fields.text()) => Property::Alpha,
        _ => Property::Other,
    })
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

    /// A fraction of two numbers of four bytes, to the nearest whole number.
    fn rounded(&mut self) -> Parsed<u32> {
        let (numerator, denominator) = (u64::from(self.number(4)?), u64::from(self.number(4)?));
        let rounded =
            (numerator + denominator / 2).checked_div(denominator).ok_or("a fraction of nothing")?;
        u32::try_from(rounded).map_err(|_| "a side is too long")
    }

    /// A text up to its zero, after version and flags.
    fn text(&self) -> &[u8] {
        let rest = self.0.get(4..).unwrap_or_default();
        rest.split(|&byte| byte == 0).next().unwrap_or_default()
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

    /// A file whose first picture (1) is made of pictures as `parts` says; it is coded in 50 × 40 pixels, picture 2 in 100 × 10.
    /// `more` are further properties of the first; `of_second` is what picture 2 is called by `auxC`, as belonging to picture 1.
    fn file(parts: &[u16], more: &[Vec<u8>], of_second: Option<&str>) -> Vec<u8> {
        let number = |value: u16| value.to_be_bytes();
        let mut made_of = [&number(1)[..], &number(parts.len() as u16)].concat();
        parts.iter().for_each(|part| made_of.extend(number(*part)));
        let mut references = [&[0; 4][..], &boxed(b"dimg", &made_of)].concat();
        if of_second.is_some() {
            references.extend(boxed(b"auxl", &[number(2), number(1), number(1)].concat()));
        }
        let size = |width: u32, height: u32| {
            boxed(b"ispe", &[&[0; 4][..], &width.to_be_bytes(), &height.to_be_bytes()].concat())
        };
        let called = boxed(b"auxC", &[&[0; 4][..], of_second.unwrap_or_default().as_bytes(), &[0]].concat());
        let properties = [boxed(b"colr", b"nclx"), size(50, 40), size(100, 10), called, more.concat()];
        let ipco = boxed(b"ipco", &properties.concat());
        let numbers: Vec<u8> = [2].into_iter().chain((0..more.len() as u8).map(|i| 5 + i)).collect();
        let first = [&number(1)[..], &[numbers.len() as u8], &numbers].concat();
        let ipma = [&[0; 4][..], &[0, 0, 0, 2], &first, &number(2), &[3, 1, 0x83, 4]].concat();
        let iprp = boxed(b"iprp", &[ipco, boxed(b"ipma", &ipma)].concat());
        let pitm = boxed(b"pitm", &[0, 0, 0, 0, 0, 1]);
        let meta = boxed(b"meta", &[&[0; 4][..], &pitm, &boxed(b"iref", &references), &iprp].concat());
        [boxed(b"ftyp", b"heic\0\0\0\0mif1heic"), meta].concat()
    }

    fn pixels(bytes: &[u8]) -> Parsed<u64> {
        contents(bytes).map(|contents| contents.pixels)
    }

    #[test]
    fn parts_are_counted_as_often_as_they_are_used() {
        assert_eq!(pixels(&file(&[], &[], None)), Ok(2000));
        assert_eq!(pixels(&file(&[2, 2, 2], &[], None)), Ok(2000 + 3000));
        assert_eq!(pixels(&file(&[2; 60_000], &[], None)), Ok(2000 + 60_000_000));
        let mut twice = file(&[], &[], None);
        twice.extend(boxed(b"meta", &[0; 4]));
        assert!(pixels(&twice).is_err(), "two meta boxes");
        assert!(pixels(&file(&[1], &[], None)).is_err(), "made of itself");
        let whole = file(&[2, 2], &[boxed(b"irot", &[1])], None);
        for end in 0..whole.len() {
            // A file that is cut off has an end or says so.
            let _ = contents(&whole[..end]);
        }
        assert!(pixels(b"").is_err() && pixels(&[0; 40]).is_err());
    }

    #[test]
    fn what_a_file_lists_is_counted_before_it_is_kept() {
        let meta = |inner: &[u8]| boxed(b"meta", &[&[0; 4][..], inner].concat());
        // Two lists of 40,000 parts, of one picture.
        let list = [&[0, 1][..], &40_000_u16.to_be_bytes(), &[0, 2].repeat(40_000)].concat();
        let lists = [&[0; 4][..], &boxed(b"dimg", &list).repeat(2)].concat();
        assert_eq!(contents(&meta(&boxed(b"iref", &lists))), Err("it refers to too many pictures"));
        let properties = boxed(b"ipco", &boxed(b"irot", &[0]).repeat(ITEMS + 1));
        assert_eq!(contents(&meta(&boxed(b"iprp", &properties))), Err("it has too many properties"));
        // Pictures without a property, each with a number of its own.
        let pictures: Vec<u8> =
            (0..=ITEMS as u16).flat_map(|id| [&id.to_be_bytes()[..], &[0]].concat()).collect();
        let of = [&[0; 4][..], &(ITEMS as u32 + 1).to_be_bytes(), &pictures].concat();
        assert_eq!(contents(&meta(&boxed(b"iprp", &boxed(b"ipma", &of)))), Err("it has too many pictures"));
    }

    #[test]
    fn a_picture_is_as_large_as_it_is_shown_and_costs_what_is_coded() {
        let shown = |more: &[Vec<u8>]| {
            let Contents { width, height, held, .. } = contents(&file(&[], more, None)).unwrap();
            assert_eq!(held, 2000);
            (width, height)
        };
        let turned = |times: u8| boxed(b"irot", &[times]);
        let cut = |width: [u32; 2], height: [u32; 2]| {
            boxed(
                b"clap",
                &[width, height, [0, 1], [0, 1]]
                    .concat()
                    .iter()
                    .flat_map(|n| n.to_be_bytes())
                    .collect::<Vec<_>>(),
            )
        };
        assert_eq!(shown(&[]), (50, 40));
        assert_eq!(shown(&[turned(2)]), (50, 40));
        assert_eq!(shown(&[turned(3)]), (40, 50));
        assert_eq!(shown(&[cut([49, 2], [8, 1]), turned(1)]), (8, 25));
        assert!(contents(&file(&[], &[cut([51, 1], [8, 1])], None)).is_err(), "a cut that is larger");
        assert!(contents(&file(&[], &vec![turned(0); 64], None)).is_err(), "too many properties");
        assert!(contents(&file(&[], &[cut([1, 0], [1, 1])], None)).is_err());
        let held = |file: &[u8]| contents(file).unwrap().held;
        assert_eq!(held(&file(&[2, 2], &[], None)), 2000 + 1000, "one part at a time");
        assert_eq!(held(&file(&[], &[], Some("urn:mpeg:hevc:2015:auxid:1"))), 2000 + 1000, "alpha");
        assert_eq!(held(&file(&[], &[], Some("urn:com:apple:photo:2020:aux:hdrgainmap"))), 2000);
    }
}
