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
