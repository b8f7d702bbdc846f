//! What a WebP file would have its decoder allocate beside the pixels, found before it does.
//!
//! The decoder heeds no limit. Lossless data (a picture, or the transparency of a lossy one) says how many groups of five
//! prefix codes follow, up to 65,536 however small the picture is, and each code becomes a table of kilobytes: four megabytes
//! of a file become more than a gigabyte. Lossy data has a size of its own, which the decoder compares with the file's when it
//! has decoded it. So both are read here as far as these: only the first of each kind, which is all that is decoded.
//!
//! The format of lossless data is RFC 9649, section 3.

use std::array;

use super::read::{MAX_SIDE, Unreadable};

/// What the prefix codes may take, bytes. libwebp makes at most 2600 groups, of some 30 KB at most.
const MAX_CODES: usize = 128 << 20;
/// What a code takes beside its tables.
const CODE: usize = 192;
/// Lengths of codes that go into the first table of the decoder; for each longer one there are two nodes.
const TABLE_BITS: usize = 10;
const NODE: usize = 16;
const LONGEST_CODE: usize = 15;

/// In a group: green, lengths of copies and the color cache; red; blue; alpha; distances of copies.
const ALPHABETS: [usize; 5] = [256 + COPIES, 256, 256, 256, 40];
const COPIES: usize = 24;
/// The lengths of a code are coded themselves, and the lengths of that code come in this order.
const LENGTHS_ORDER: [usize; 19] = [17, 18, 0, 1, 2, 3, 4, 5, 16, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15];

/// A part of the file: what it is, how long it says it is, and everything from there on.
struct Chunk<'a> {
    kind: [u8; 4],
    length: usize,
    rest: &'a [u8],
}

/// Refuses a file whose decoding takes more than its pixels and [`MAX_CODES`], or that cannot be decoded.
pub(super) fn check(file: &[u8]) -> Result<(), Unreadable> {
    let all = || chunks(file.get(12..).unwrap_or_default());
    let first = |kind: &[u8; 4]| all().find(|chunk| chunk.kind == *kind);
    let canvas = first(b"VP8X").and_then(|chunk| size_at(chunk.rest, 4));
    for chunk in [first(b"VP8L"), first(b"VP8 "), first(b"ALPH")].into_iter().flatten() {
        check_data(&chunk, canvas)?;
    }
    // An animation's first frame: its place, size and more, and then one or two parts.
    if let Some(frame) = first(b"ANMF") {
        let size = size_at(frame.rest, 6);
        for chunk in chunks(frame.rest.get(16..).unwrap_or_default()).take(2) {
            check_data(&chunk, size)?;
        }
    }
    Ok(())
}

fn chunks(mut bytes: &[u8]) -> impl Iterator<Item = Chunk<'_>> {
    std::iter::from_fn(move || {
        let (kind, rest) = bytes.split_first_chunk::<4>()?;
        let (length, rest) = rest.split_first_chunk::<4>()?;
        let length = u32::from_le_bytes(*length) as usize;
        bytes = rest.get(length.next_multiple_of(2)..).unwrap_or_default();
        Some(Chunk { kind: *kind, length, rest })
    })
}

/// Width and height, each less by one and in three bytes.
fn size_at(bytes: &[u8], position: usize) -> Option<(usize, usize)> {
    let side = |bytes: &[u8]| bytes.iter().rev().fold(0, |side, byte| side << 8 | usize::from(*byte)) + 1;
    let bytes = bytes.get(position..position + 6)?;
    Some((side(&bytes[..3]), side(&bytes[3..])))
}

/// `size` is what transparency belongs to, which does not say it again.
fn check_data(chunk: &Chunk, size: Option<(usize, usize)>) -> Result<(), Unreadable> {
    let data = &chunk.rest[..chunk.length.min(chunk.rest.len())];
    let checked = match (&chunk.kind, data) {
        (b"VP8 ", [_, _, _, 0x9D, 0x01, 0x2A, size @ ..]) => return check_lossy(size),
        (b"VP8L", _) => Lossless { bytes: data, position: 0 }.check(None),
        // Compressed, that is: otherwise it is as it is.
        (b"ALPH", [how, data @ ..]) if how & 3 == 1 && size.is_some() => {
            Lossless { bytes: data, position: 0 }.check(size)
        }
        _ => return Ok(()),
    };
    match checked {
        Some(true) => Ok(()),
        Some(false) => Err(Unreadable::Broken(format!("its prefix codes take more than {} MB", MAX_CODES >> 20))),
        None => Err(Unreadable::Broken("its lossless data is malformed".to_owned())),
    }
}

fn check_lossy(size: &[u8]) -> Result<(), Unreadable> {
    let Some(&[a, b, c, d]) = size.get(..4) else { return Ok(()) };
    let [width, height] = [[a, b], [c, d]].map(|side| u32::from(u16::from_le_bytes(side) & 0x3FFF));
    if width > MAX_SIDE || height > MAX_SIDE { Err(Unreadable::TooLarge { width, height }) } else { Ok(()) }
}

/// Lossless data, and how many of its bits have been read. Its methods return `None` where it is malformed.
struct Lossless<'a> {
    bytes: &'a [u8],
    position: usize,
}

/// A prefix code.
struct Code {
    /// How many symbols have a code of so many bits.
    counts: [usize; LONGEST_CODE + 1],
    /// By the length of their code, and then by themselves. The only one takes no bits.
    symbols: Vec<u16>,
}

impl Lossless<'_> {
    /// Whether the prefix codes take no more than they may.
    fn check(&mut self, size: Option<(usize, usize)>) -> Option<bool> {
        let (mut width, height) = match size {
            Some(size) => size,
            None => {
                (self.take(8)? == 0x2F).then_some(())?;
                let size = (self.take(14)? + 1, self.take(14)? + 1);
                let _has_alpha = self.take(1)?;
                (self.take(3)? == 0).then_some(())?;
                size
            }
        };
        if width.max(height) > MAX_SIDE as usize {
            // Not decoded: the file says another size, or none that is taken.
            return Some(true);
        }
        let mut transforms = [false; 4];
        while self.take(1)? == 1 {
            let kind = self.take(2)?;
            (!std::mem::replace(&mut transforms[kind], true)).then_some(())?;
            match kind {
                0 | 1 => self.skip_tiles(width, height).map(drop)?,
                2 => {}
                _ => {
                    let colors = self.take(8)? + 1;
                    self.greatest_pixel(colors)?;
                    let in_a_byte =
                        [(2, 8), (4, 4), (16, 2), (256, 1)].into_iter().find(|(most, _)| colors <= *most)?.1;
                    width = width.div_ceil(in_a_byte);
                }
            }
        }
        let cached = self.color_cache()?;
        let groups = if self.take(1)? == 1 { self.skip_tiles(width, height)? + 1 } else { 1 };
        let mut taken = 0;
        for _ in 0..groups {
            for code in self.group(cached)? {
                taken += code.memory();
            }
            if taken > MAX_CODES {
                return Some(false);
            }
        }
        Some(true)
    }

    /// So many bits, at most 24, the first one being the least.
    fn take(&mut self, bits: usize) -> Option<usize> {
        let begin = self.position / 8;
        let window = self.bytes.get(begin..self.bytes.len().min(begin + 4))?;
        let window = window.iter().rev().fold(0, |window, byte| window << 8 | usize::from(*byte));
        let taken = window >> (self.position % 8) & ((1 << bits) - 1);
        self.position += bits;
        (self.position <= 8 * self.bytes.len()).then_some(taken)
    }

    /// A picture with a pixel for each square tile of the whole one. Returns what [`Self::greatest_pixel`] does.
    fn skip_tiles(&mut self, width: usize, height: usize) -> Option<usize> {
        let side = 1 << (self.take(3)? + 2);
        self.greatest_pixel(width.div_ceil(side) * height.div_ceil(side))
    }

    /// The greatest number in red and green of so many pixels. Where pixels are copied, or come from the color cache, they
    /// have been there before.
    fn greatest_pixel(&mut self, pixels: usize) -> Option<usize> {
        let cached = self.color_cache()?;
        let [green, red, blue, alpha, distance] = self.group(cached)?;
        let is_one_color = [&green, &red, &blue, &alpha].iter().all(|code| code.symbols.len() == 1);
        let (mut position, mut greatest) = (0, 0);
        while position < pixels {
            match usize::from(green.read(self)?) {
                green @ 0..256 => {
                    greatest = greatest.max(usize::from(red.read(self)?) << 8 | green);
                    blue.read(self)?;
                    alpha.read(self)?;
                    position += if is_one_color { pixels } else { 1 };
                }
                copy if copy < ALPHABETS[0] => {
                    position += self.number(copy - 256)?;
                    let distance = distance.read(self)?;
                    self.number(distance.into())?;
                }
                _ => position += 1,
            }
        }
        Some(greatest)
    }

    /// How many colors are remembered.
    fn color_cache(&mut self) -> Option<usize> {
        if self.take(1)? == 0 {
            return Some(0);
        }
        let bits = self.take(4)?;
        (1..=11).contains(&bits).then_some(1 << bits)
    }

    /// A length or a distance, of which the symbol says how many bits follow.
    fn number(&mut self, symbol: usize) -> Option<usize> {
        if symbol < 4 {
            return Some(symbol + 1);
        }
        let bits = (symbol - 2) / 2;
        Some(((2 + symbol % 2) << bits) + self.take(bits)? + 1)
    }

    fn group(&mut self, cached: usize) -> Option<[Code; 5]> {
        let [first, others @ ..] = ALPHABETS;
        let green = self.code(first + cached)?;
        let [red, blue, alpha, distance] = others.map(|alphabet| self.code(alphabet));
        Some([green, red?, blue?, alpha?, distance?])
    }

    /// The code of an alphabet of so many symbols.
    fn code(&mut self, alphabet: usize) -> Option<Code> {
        if self.take(1)? == 1 {
            let has_two = self.take(1)? == 1;
            let bits = if self.take(1)? == 1 { 8 } else { 1 };
            let first = self.take(bits)?;
            let symbols = if has_two { vec![first, self.take(8)?] } else { vec![first] };
            symbols.iter().all(|symbol| *symbol < alphabet).then_some(())?;
            let counts = array::from_fn(|length| if length == 1 { symbols.len() } else { 0 });
            return Some(Code { counts, symbols: symbols.into_iter().map(|symbol| symbol as u16).collect() });
        }
        let mut lengths_of_lengths = [0; LENGTHS_ORDER.len()];
        for &symbol in &LENGTHS_ORDER[..4 + self.take(4)?] {
            lengths_of_lengths[symbol] = self.take(3)? as u8;
        }
        let code_of_lengths = Code::new(&lengths_of_lengths)?;
        let mut to_read = alphabet;
        if self.take(1)? == 1 {
            let bits = 2 + 2 * self.take(3)?;
            to_read = 2 + self.take(bits)?;
            (to_read <= alphabet).then_some(())?;
        }
        let mut lengths: Vec<u8> = Vec::with_capacity(alphabet);
        let mut previous = 8;
        while lengths.len() < alphabet && to_read > 0 {
            to_read -= 1;
            let (length, times) = match code_of_lengths.read(self)? {
                16 => (previous, 3 + self.take(2)?),
                17 => (0, 3 + self.take(3)?),
                18 => (0, 11 + self.take(7)?),
                length => (length as u8, 1),
            };
            previous = if length == 0 { previous } else { length };
            lengths.extend(std::iter::repeat_n(length, times));
        }
        (lengths.len() <= alphabet).then_some(())?;
        Code::new(&lengths)
    }
}

impl Code {
    /// The code that has so many bits for each symbol, 0 for one that does not occur. It has to be complete.
    fn new(lengths: &[u8]) -> Option<Self> {
        let mut counts = [0; LONGEST_CODE + 1];
        let mut symbols: Vec<u16> =
            (0..lengths.len() as u16).filter(|symbol| lengths[usize::from(*symbol)] > 0).collect();
        symbols.sort_by_key(|symbol| lengths[usize::from(*symbol)]);
        for symbol in &symbols {
            counts[usize::from(lengths[usize::from(*symbol)])] += 1;
        }
        let share: usize = (1..=LONGEST_CODE).map(|length| counts[length] << (LONGEST_CODE - length)).sum();
        (symbols.len() == 1 || share == 1 << LONGEST_CODE).then_some(Self { counts, symbols })
    }

    /// The next symbol. A code is read from its highest bit.
    fn read(&self, data: &mut Lossless) -> Option<u16> {
        if let [only] = self.symbols[..] {
            return Some(only);
        }
        let (mut code, mut first, mut before) = (0, 0, 0);
        for count in &self.counts[1..] {
            code = code << 1 | data.take(1)?;
            first <<= 1;
            if code < first + count {
                return self.symbols.get(before + code - first).copied();
            }
            first += count;
            before += count;
        }
        None
    }

    /// Bytes that it takes in the decoder.
    fn memory(&self) -> usize {
        let longest = (1..=LONGEST_CODE).rev().find(|length| self.counts[*length] > 0).unwrap_or(0);
        let nodes = 2 * self.counts[TABLE_BITS + 1..].iter().sum::<usize>();
        CODE + (4 << longest.min(TABLE_BITS)) + NODE * nodes
    }
}
