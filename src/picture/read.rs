//! From a file somebody sent to upright, opaque pixels. The file may be hostile.

use std::io::Cursor;

use image::{
    DynamicImage, ImageDecoder, ImageError, ImageFormat, ImageReader, Limits, RgbImage, metadata::Orientation,
};

/// Greatest length of a file, in bytes.
pub const MAX_BYTES: usize = 20_000_000;
/// Greatest width and height, in pixels.
pub const MAX_SIDE: u32 = 4096;

/// What the PNG decoder may allocate beside the pixels: rows, and the profile and texts some tools put in front.
const MAX_PNG_EXTRAS: u64 = 4 << 20;
/// What the WebP decoder may allocate: the largest picture, in four bytes a pixel, and its frame.
const MAX_WEBP_MEMORY: u64 = 2 * 4 * MAX_SIDE as u64 * MAX_SIDE as u64;
/// Scans of a JPEG, each of which goes over the whole picture: progressive pictures have some ten. Decoding as many as this
/// at the largest size takes about a second.
const MAX_JPEG_SCANS: usize = 40;
/// Segments of extended XMP in a JPEG: what else there is about a picture, 64 KB in each. Its decoder goes over all of them
/// again at every marker that follows.
const MAX_JPEG_XMP_SEGMENTS: usize = 1000;
/// Of them, times the markers: some seconds at most. A photo with a depth map has a hundred, and 0xFF in a hundredth of its
/// bytes.
const MAX_JPEG_XMP_STEPS: usize = 200_000_000;
const WHITE: u32 = 255;

/// Why a file is no picture we take. Goes on where a sentence begins with the file's name.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    /// Longer than [`MAX_BYTES`].
    #[error("must be at most {} MB long", MAX_BYTES / 1_000_000)]
    TooLong,
    /// By its first bytes.
    #[error("must be a PNG, JPEG or WebP picture")]
    UnknownFormat,
    /// Said by its header; nothing was decoded.
    #[error("must be at most {MAX_SIDE} pixels wide and high, not {width}x{height}")]
    TooLarge {
        /// Pixels.
        width: u32,
        /// Pixels.
        height: u32,
    },
    /// Its decoder gave up.
    #[error("cannot be decoded: {0}")]
    Broken(String),
}

/// The media types of the files that are taken.
pub const MEDIA_TYPES: [&str; 3] = ["image/png", "image/jpeg", "image/webp"];

/// The media type of a file, by its first bytes; what its sender calls it does not matter.
pub fn media_type(bytes: &[u8]) -> Result<&'static str, Unreadable> {
    match image::guess_format(bytes) {
        Ok(ImageFormat::Png) => Ok("image/png"),
        Ok(ImageFormat::Jpeg) => Ok("image/jpeg"),
        Ok(ImageFormat::WebP) => Ok("image/webp"),
        _ => Err(Unreadable::UnknownFormat),
    }
}

/// What the names of files of this media type end in.
pub fn extension(media_type: &str) -> &'static str {
    match media_type {
        "image/jpeg" => "jpg",
        "image/webp" => "webp",
        _ => "png",
    }
}

/// Decodes a PNG, JPEG or WebP file, by its bytes and not its name: turned as its EXIF orientation says, and on white where
/// it is transparent. What is too large is refused before anything is allocated for it.
pub fn read(bytes: &[u8]) -> Result<RgbImage, Unreadable> {
    if bytes.len() > MAX_BYTES {
        return Err(Unreadable::TooLong);
    }
    let format = image::guess_format(bytes).map_err(|_| Unreadable::UnknownFormat)?;
    if format == ImageFormat::Jpeg && jpeg_scans(bytes).nth(MAX_JPEG_SCANS).is_some() {
        return Err(Unreadable::Broken(format!("it has more than {MAX_JPEG_SCANS} scans")));
    }
    if format == ImageFormat::Jpeg && has_too_much_xmp(bytes) {
        return Err(Unreadable::Broken("it has too many segments of extended XMP".to_owned()));
    }
    let mut limits = Limits::no_limits();
    limits.max_alloc = match format {
        ImageFormat::Png => Some(MAX_PNG_EXTRAS),
        ImageFormat::WebP => Some(MAX_WEBP_MEMORY),
        // Allocates by the size its header says, which is looked at first.
        ImageFormat::Jpeg => None,
        _ => return Err(Unreadable::UnknownFormat),
    };
    let mut reader = ImageReader::with_format(Cursor::new(bytes), format);
    reader.limits(limits);
    let mut decoder = reader.into_decoder().map_err(broken)?;
    let (width, height) = decoder.dimensions();
    if width > MAX_SIDE || height > MAX_SIDE {
        return Err(Unreadable::TooLarge { width, height });
    }
    if width == 0 || height == 0 {
        return Err(Unreadable::Broken("it has no pixels".to_owned()));
    }
    // What the camera says of itself may be nonsense; the pixels still stand.
    let orientation = decoder.orientation().unwrap_or(Orientation::NoTransforms);
    let mut image = DynamicImage::from_decoder(decoder).map_err(broken)?;
    image.apply_orientation(orientation);
    Ok(if image.color().has_alpha() { on_white(&image) } else { image.into_rgb8() })
}

/// Where the scans of a JPEG begin. A segment says how long it is; in the data of a scan 0xFF is followed by 0, or is the
/// marker of a restart.
fn jpeg_scans(bytes: &[u8]) -> impl Iterator<Item = usize> {
    const START_OF_SCAN: u8 = 0xDA;
    let has_no_length = |marker: u8| matches!(marker, 0x00 | 0x01 | 0xD0..=0xD9 | 0xFF);
    let mut position = 0;
    std::iter::from_fn(move || {
        loop {
            position += bytes.get(position..)?.iter().position(|byte| *byte == 0xFF)?;
            let marker = *bytes.get(position + 1)?;
            if has_no_length(marker) {
                position += 1;
                continue;
            }
            let begin = position;
            position += 2 + usize::from(u16::from_be_bytes([*bytes.get(position + 2)?, *bytes.get(position + 3)?]));
            if marker == START_OF_SCAN {
                return Some(begin);
            }
        }
    })
}

/// Whether the decoder of a JPEG would be busy for minutes with what is not the picture. Counts what begins a segment
/// wherever it is, so that nothing depends on where the decoder thinks that a segment is.
fn has_too_much_xmp(bytes: &[u8]) -> bool {
    const BEGIN: &[u8] = b"http://ns.adobe.com/xmp/extension/\0";
    let segments = bytes.windows(BEGIN.len()).filter(|window| window[0] == BEGIN[0] && *window == BEGIN);
    let segments = segments.take(MAX_JPEG_XMP_SEGMENTS + 1).count();
    // Nearly no picture has one.
    let markers = || bytes.iter().filter(|byte| **byte == 0xFF).count();
    segments > MAX_JPEG_XMP_SEGMENTS || segments > 0 && segments * markers() > MAX_JPEG_XMP_STEPS
}

fn broken(error: ImageError) -> Unreadable {
    Unreadable::Broken(error.to_string())
}

/// Pillow's `white.paste(image, mask=alpha)`, with its rounding.
fn on_white(image: &DynamicImage) -> RgbImage {
    let image = image.to_rgba8();
    let mut opaque = RgbImage::new(image.width(), image.height());
    for (pixel, source) in opaque.pixels_mut().zip(image.pixels()) {
        let [red, green, blue, alpha] = source.0.map(u32::from);
        pixel.0 = [red, green, blue].map(|level| {
            let sum = level * alpha + WHITE * (255 - alpha) + 128;
            (((sum >> 8) + sum) >> 8) as u8
        });
    }
    opaque
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scans_are_counted_and_what_only_looks_like_one_is_not() {
        let start = [0xFF, 0xDA, 0, 3, 0];
        let looks_like_one = [0xFF, 0xE1, 0, 4, 0xFF, 0xDA];
        let data = [7, 0xFF, 0, 0xDA, 0xFF, 0xD3, 0xFF, 0xFF];
        let file = [&[0xFF, 0xD8][..], &looks_like_one, &start, &data, &start, &data, &[0xFF, 0xD9]].concat();
        assert_eq!(jpeg_scans(&file).collect::<Vec<_>>(), [8, 21]);
        for end in 0..file.len() {
            jpeg_scans(&file[..end]).for_each(drop);
        }
    }

    #[test]
    fn a_jpeg_with_too_many_segments_of_extended_xmp_is_refused_before_it_is_decoded() {
        let content =
            [&b"http://ns.adobe.com/xmp/extension/\0"[..], &[b'0'; 32], &[0, 0, 3, 0xE8, 0, 0, 0, 5]].concat();
        let segment = [&[0xFF, 0xE1, 0, content.len() as u8 + 2][..], &content].concat();
        let file = |segments: usize, others: usize| {
            [&[0xFF, 0xD8][..], &segment.repeat(segments), &[0xFF, 0xE2, 0, 2].repeat(others)].concat()
        };
        let refused = Err(Unreadable::Broken("it has too many segments of extended XMP".to_owned()));
        assert_eq!(read(&file(1001, 0)), refused);
        assert_eq!(read(&file(900, 250_000)), refused);
        // Nor are these pictures, for another reason.
        for file in [file(1000, 0), file(0, 1000), file(1, 1000)] {
            assert!(!has_too_much_xmp(&file));
            assert_ne!(read(&file), refused);
        }
    }
}
