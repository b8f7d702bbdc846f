//! Images on their way into the pipeline: from files to pixels of the right size, as Pillow prepares them.

use std::{
    fs,
    io::Write,
    time::{Duration, Instant},
};

use fourstep::{
    picture::{self, MAX_BYTES, Unreadable},
    pipeline::image::resize,
};
use image::{DynamicImage, ImageFormat, RgbImage};

use crate::support::{fixtures, image_fixture};

fn file(name: &str) -> Vec<u8> {
    fs::read(fixtures().join("images").join(name)).unwrap()
}

fn mean_difference(found: &RgbImage, expected: &RgbImage) -> f32 {
    assert_eq!(found.dimensions(), expected.dimensions());
    let sum: u32 = found.iter().zip(expected.iter()).map(|(a, b)| u32::from(a.abs_diff(*b))).sum();
    sum as f32 / expected.len() as f32
}

#[test]
fn an_image_is_resized_to_the_very_levels_of_pillow() {
    let start = image_fixture("start");
    for (width, height) in [(56, 80), (24, 40), (160, 100), (61, 30), (1, 1)] {
        let expected = image_fixture(&format!("resized-{width}x{height}"));
        assert_eq!(resize(&start, width, height), expected, "{width}x{height}");
    }
    assert_eq!(resize(&start, 61, 83), start);
}

#[test]
fn pictures_are_turned_as_their_exif_orientation_says() {
    let upright = image_fixture("upright");
    for orientation in 1..=8 {
        let turned = picture::read(&file(&format!("orientation-{orientation}.jpg"))).unwrap();
        let difference = mean_difference(&turned, &upright);
        // What JPEG loses; a picture turned otherwise is some 60 levels off.
        assert!(difference < 4.0, "orientation {orientation}: {difference} levels off");
    }
}

#[test]
fn transparent_pictures_are_laid_on_white_as_pillow_lays_them() {
    assert_eq!(picture::read(&file("transparent.png")).unwrap(), image_fixture("on-white"));
}

#[test]
fn every_format_is_known_by_its_bytes() {
    let start = DynamicImage::from(image_fixture("start"));
    for (format, tolerance) in [(ImageFormat::Png, 0.0), (ImageFormat::WebP, 0.0), (ImageFormat::Jpeg, 10.0)] {
        let mut bytes = std::io::Cursor::new(Vec::new());
        start.write_to(&mut bytes, format).unwrap();
        let read = picture::read(bytes.get_ref()).unwrap();
        let difference = mean_difference(&read, &image_fixture("start"));
        assert!(difference <= tolerance, "{format:?} is {difference} levels off");
    }
    for depth in [DynamicImage::from(start.to_luma8()), start.to_rgb16().into(), start.to_luma_alpha16().into()] {
        let mut bytes = std::io::Cursor::new(Vec::new());
        depth.write_to(&mut bytes, ImageFormat::Png).unwrap();
        assert_eq!(picture::read(bytes.get_ref()).unwrap().dimensions(), (61, 83), "{:?}", depth.color());
    }
}

#[test]
fn what_is_no_picture_is_refused_in_words() {
    let png = file("start.png");
    for (bytes, expected) in [
        (&b""[..], Unreadable::UnknownFormat),
        (b"<svg/>", Unreadable::UnknownFormat),
        (b"GIF89a\x01\x00\x01\x00\x00\x00\x00;", Unreadable::UnknownFormat),
        (&vec![0; MAX_BYTES + 1], Unreadable::TooLong),
    ] {
        assert_eq!(picture::read(bytes), Err(expected));
    }
    for length in [9, 40, png.len() / 2] {
        assert!(matches!(picture::read(&png[..length]), Err(Unreadable::Broken(_))), "{length} bytes of a PNG");
    }
}

/// A PNG of one-bit pixels, all black, with whatever other chunks.
fn black_png(width: u32, height: u32, chunks: &[([u8; 4], Vec<u8>)], rows: u32) -> Vec<u8> {
    let mut png = b"\x89PNG\r\n\x1a\n".to_vec();
    let mut chunk = |kind: [u8; 4], data: &[u8]| {
        png.extend((data.len() as u32).to_be_bytes());
        let body = [&kind[..], data].concat();
        png.extend(&body);
        png.extend(crc32fast::hash(&body).to_be_bytes());
    };
    let header = [&width.to_be_bytes()[..], &height.to_be_bytes(), &[1, 0, 0, 0, 0]].concat();
    chunk(*b"IHDR", &header);
    for (kind, data) in chunks {
        chunk(*kind, data);
    }
    let row = vec![0; 1 + width.div_ceil(8) as usize];
    let mut deflated = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::best());
    (0..rows).for_each(|_| deflated.write_all(&row).unwrap());
    chunk(*b"IDAT", &deflated.finish().unwrap());
    chunk(*b"IEND", &[]);
    png
}

fn deflated_zeros(megabytes: usize) -> Vec<u8> {
    let mut deflated = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::best());
    (0..megabytes).for_each(|_| deflated.write_all(&[0; 1_000_000]).unwrap());
    deflated.finish().unwrap()
}

/// Quicker than this every time but for those in which the machine was busy with something else.
fn quickest(read: impl Fn() -> Result<RgbImage, Unreadable>) -> (Duration, Result<RgbImage, Unreadable>) {
    let timed = || {
        let begun = Instant::now();
        let result = read();
        (begun.elapsed(), result)
    };
    (0..5).map(|_| timed()).min_by_key(|(elapsed, _)| *elapsed).unwrap()
}

/// A progressive JPEG of the largest size, with so many scans.
fn scanned_jpeg(scans: usize) -> Vec<u8> {
    let head = b"\xFF\xD8\xFF\xC2\x00\x0B\x08\x10\x00\x10\x00\x01\x01\x11\x00";
    let scan = b"\xFF\xDA\x00\x08\x01\x01\x00\x00\x00\x00\x00";
    [&head[..], &scan.repeat(scans), b"\xFF\xD9"].concat()
}

/// A JPEG of four components of which no scan has the last, so that its decoder goes on for as long as there are scans. All
/// but the first are in a segment of this kind, which the decoder does not see as one: of the APP0 before it it reads a byte
/// too many.
fn hidden_scans(kind: u8, scans: usize) -> Vec<u8> {
    let head = [
        &b"\xFF\xD8\xFF\xDB\x00\x43\x00"[..],
        &[1; 64],
        b"\xFF\xC0\x00\x14\x08\x00\x40\x10\x00\x04\x01\x11\x00\x02\x11\x00\x03\x11\x00\x04\x11\x00",
        // One code of one bit, for nothing and for the end of a block.
        b"\xFF\xC4\x00\x14\x00\x01",
        &[0; 16],
        b"\xFF\xC4\x00\x14\x10\x01",
        &[0; 16],
    ]
    .concat();
    let scan = b"\xFF\xDA\x00\x0C\x03\x01\x00\x02\x00\x03\x00\x00\x3F\x00\x00";
    let hidden = scan.repeat(scans);
    let length = (hidden.len() as u16 + 2).to_be_bytes();
    [&head[..], scan, b"\xFF\xE0\x00\x06abcd\xFF", &[kind], &length, &hidden, b"\xFF\xD9"].concat()
}

/// Puts bits together as WebP's lossless data has them.
#[derive(Default)]
struct Bits {
    bytes: Vec<u8>,
    bits: usize,
}

impl Bits {
    /// So many bits, the least first.
    fn put(&mut self, value: usize, bits: usize) {
        for bit in 0..bits {
            if self.bits.is_multiple_of(8) {
                self.bytes.push(0);
            }
            *self.bytes.last_mut().unwrap() |= ((value >> bit & 1) as u8) << (self.bits % 8);
            self.bits += 1;
        }
    }

    /// A prefix code of one symbol, which takes no bits.
    fn put_one(&mut self, symbol: usize) {
        self.put(0b101, 3);
        self.put(symbol, 8);
    }

    /// A prefix code of lengths 1, 2, and so on to 9, and 10 twice: so long that its table is the largest.
    fn put_long(&mut self) {
        self.put(0, 1);
        self.put(14 - 4, 4);
        // The lengths of the codes of lengths 17, 18, 0, 1, 2, 3, 4, 5, 16, 6, 7, 8, 9, 10.
        for length in [0, 0, 0, 3, 3, 3, 3, 3, 0, 3, 4, 4, 4, 4] {
            self.put(length, 3);
        }
        // Eleven of them, a number of four bits.
        self.put(1, 1);
        self.put(1, 3);
        self.put(11 - 2, 4);
        for length in [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 10] {
            let (code, bits): (usize, usize) = if length <= 6 { (length - 1, 3) } else { (12 + length - 7, 4) };
            (0..bits).rev().for_each(|bit| self.put(code >> bit, 1));
        }
    }
}

/// A WebP whose lossless data has so many groups of prefix codes, each with the largest tables: in the picture itself, or in
/// the transparency of a lossy one.
fn webp_with_groups(groups: usize, side: u32, is_transparency: bool) -> Vec<u8> {
    let mut data = Bits::default();
    if is_transparency {
        data.put(1, 8);
    } else {
        data.put(0x2F, 8);
        data.put(side as usize - 1, 14);
        data.put(side as usize - 1, 14);
        data.put(0, 4);
    }
    // No transform, no color cache, groups by tiles of 512 pixels, and no color cache in the picture that says which.
    for (value, bits) in [(0, 1), (0, 1), (1, 1), (7, 3), (0, 1)] {
        data.put(value, bits);
    }
    let last = groups - 1;
    for symbol in [last & 0xFF, last >> 8, 0, 0, 0] {
        data.put_one(symbol);
    }
    (0..5 * groups).for_each(|_| data.put_long());
    // The shortest code for everything.
    data.bytes.resize(data.bytes.len() + (side * side / 2) as usize + 8, 0);
    let chunk = |kind: &[u8], data: &[u8]| {
        let padding = if data.len().is_multiple_of(2) { &[][..] } else { &[0] };
        [kind, &(data.len() as u32).to_le_bytes(), data, padding].concat()
    };
    let chunks = if is_transparency {
        let side = (side - 1).to_le_bytes();
        let header = [&[0x10, 0, 0, 0][..], &side[..3], &side[..3]].concat();
        [chunk(b"VP8X", &header), chunk(b"ALPH", &data.bytes), lossy_webp()].concat()
    } else {
        chunk(b"VP8L", &data.bytes)
    };
    chunk(b"RIFF", &[&b"WEBP"[..], &chunks].concat())
}

/// The chunk of two by two red pixels.
fn lossy_webp() -> Vec<u8> {
    let hex = "5650382030000000d00100 9d012a02000200 02003425a00274ba01f80003b000fef0c40bff20b96175c8d7ff203fe407fc80fff8f2000000";
    let digits: Vec<_> = hex.chars().filter_map(|digit| digit.to_digit(16)).collect();
    digits.chunks(2).map(|pair| (pair[0] << 4 | pair[1]) as u8).collect()
}

#[test]
fn of_a_jpeg_scans_count_wherever_its_decoder_finds_them() {
    let scans = Unreadable::Broken("it has more than 40 scans".to_owned());
    // What is no part of the picture is not shown to the decoder.
    let (elapsed, result) = quickest(|| picture::read(&hidden_scans(0xE5, 4000)));
    assert!(elapsed < Duration::from_millis(50), "{elapsed:?}, {:?}", result.map(|image| image.dimensions()));
    let (elapsed, result) = quickest(|| picture::read(&hidden_scans(0xDB, 4000)));
    assert_eq!(result.map(|image| image.dimensions()), Err(scans), "{elapsed:?}");
    assert!(elapsed < Duration::from_millis(50), "{elapsed:?}");
}

#[test]
fn a_photo_may_have_a_film_behind_it_and_profiles_within() {
    let plain = file("orientation-6.jpg");
    let profile = [&b"\xFF\xE2\xFF\xFEICC_PROFILE\0"[..], &b"\xFF\xDA".repeat((0xFFFC - 12) / 2)].concat();
    let whole = [&plain[..2], &profile, &plain[2..], &b"\xFF\xDA\x00\x02".repeat(1000)].concat();
    assert!(picture::read(&whole).unwrap() == picture::read(&plain).unwrap());
}

#[test]
fn an_animation_whose_first_picture_is_smaller_than_itself_is_read() {
    assert_eq!(picture::read(&file("animated.webp")).unwrap().dimensions(), (160, 160));
}

#[test]
fn a_webp_takes_no_more_memory_than_its_pixels_and_a_bound() {
    let megabytes = |what: &str| {
        let child = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "preparation::reads_in_a_process_of_its_own", "--ignored", "--nocapture"])
            .env(WEBP, what)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&child.stdout).into_owned();
        let peak = said.lines().find_map(|line| line.split("peak ").nth(1)?.parse::<u64>().ok());
        eprintln!("{what}: {}", said.lines().find(|line| line.contains("peak")).unwrap_or_default());
        peak.unwrap_or_else(|| panic!("{said}")) / 1024
    };
    for what in ["a pixel", "transparency", "many pixels"] {
        let peak = megabytes(what);
        assert!(peak < 200, "{what} took {peak} MB");
    }
}

const WEBP: &str = "FOURSTEP_TEST_WEBP";

#[test]
#[ignore = "is started by a_webp_takes_no_more_memory_than_its_pixels_and_a_bound, with its environment"]
fn reads_in_a_process_of_its_own() {
    let bytes = match std::env::var(WEBP).unwrap().as_str() {
        "a pixel" => webp_with_groups(65_536, 1, false),
        "transparency" => webp_with_groups(65_536, 2, true),
        _ => webp_with_groups(65_536, 1024, false),
    };
    let result = picture::read(&bytes);
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB")).unwrap();
    writeln!(std::io::stdout(), "\npeak {peak}").unwrap();
    assert_eq!(result.err(), Some(Unreadable::Broken("its prefix codes take more than 128 MB".to_owned())));
}

#[test]
fn a_webp_with_several_groups_of_prefix_codes_is_read() {
    for (side, is_transparency) in [(1, false), (300, false), (2, true)] {
        let read = picture::read(&webp_with_groups(3, side, is_transparency));
        assert_eq!(read.map(|image| image.width()), Ok(side), "{side} {is_transparency}");
    }
}

#[test]
fn a_webp_whose_picture_is_larger_than_it_says_is_refused_before_it_is_decoded() {
    let mut bytes = webp_with_groups(1, 2, true);
    let sides = bytes.windows(3).position(|window| window == [0x9D, 0x01, 0x2A]).unwrap() + 3;
    bytes[sides..sides + 4].copy_from_slice(&[0xFF, 0x3F, 0xFF, 0x3F]);
    let (elapsed, result) = quickest(|| picture::read(&bytes));
    assert!(elapsed < Duration::from_millis(50), "{elapsed:?}");
    assert_eq!(result.err(), Some(Unreadable::TooLarge { width: 16_383, height: 16_383 }));
}

#[test]
fn bombs_are_refused_at_once() {
    let profile = [&b"bomb\0\0"[..], &deflated_zeros(200)].concat();
    let too_large = || Some(Unreadable::TooLarge { width: 60_000, height: 60_000 });
    let scans = Unreadable::Broken("it has more than 40 scans".to_owned());
    for (what, bytes, reason) in [
        ("a header that promises 60 000 squared", black_png(60_000, 60_000, &[], 1), too_large()),
        ("one that keeps it", black_png(60_000, 60_000, &[], 60_000), too_large()),
        ("a color profile of 200 MB", black_png(8, 8, &[(*b"iCCP", profile)], 8), None),
        ("a thousand times the rows it promises", black_png(4096, 8, &[], 8_000), None),
        ("a picture that is gone over a thousand times", scanned_jpeg(1000), Some(scans)),
    ] {
        let (elapsed, result) = quickest(|| picture::read(&bytes));
        assert!(elapsed < Duration::from_millis(50), "{what} took {elapsed:?}");
        eprintln!("{what}: {elapsed:?}, {:?}", result.as_ref().map(RgbImage::dimensions));
        if let Some(reason) = reason {
            assert_eq!(result, Err(reason), "{what}");
        }
    }
}
