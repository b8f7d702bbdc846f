//! From a file somebody sent to upright, opaque pixels. The file may be hostile.

use std::{borrow::Cow, io::Cursor};

use image::{
    DynamicImage, ImageDecoder, ImageError, ImageFormat, ImageReader, Limits, RgbImage, metadata::Orientation,
};

use super::webp;

/// Greatest length of a file, in bytes.
pub const MAX_BYTES: usize = 20_000_000;
/// Greatest width and height, in pixels.
pub const MAX_SIDE: u32 = 4096;

/// What the PNG decoder may allocate beside the pixels: rows, and the profile and texts some tools put in front.
const MAX_PNG_EXTRAS: u64 = 4 << 20;
/// Scans of a JPEG, each of which goes over the whole picture: progressive pictures have some ten. Decoding as many as this
/// at the largest size takes about a second.
const MAX_JPEG_SCANS: usize = 40;
/// Segments of extended XMP in a JPEG: what else there is about a picture, 64 KB in each. Its decoder goes over all of them
/// again at every marker that follows. It is shown none, but for those that only it takes for such.
const MAX_JPEG_XMP_SEGMENTS: usize = 1000;
/// Of them, times the markers: some seconds at most.
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
    let mut limits = Limits::no_limits();
    let bytes = match format {
        ImageFormat::Png => {
            limits.max_alloc = Some(MAX_PNG_EXTRAS);
            Cow::Borrowed(bytes)
        }
        // These decoders heed no limit: they allocate by the size their header says, which is looked at first.
        ImageFormat::WebP => {
            webp::check(bytes)?;
            Cow::Borrowed(bytes)
        }
        ImageFormat::Jpeg => Cow::Owned(checked_jpeg(bytes)?),
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

/// The picture in a JPEG, for its decoder, unless that would be busy with it for minutes.
fn checked_jpeg(bytes: &[u8]) -> Result<Vec<u8>, Unreadable> {
    let picture = jpeg_picture(bytes);
    // Wherever they are: nothing depends on where the decoder thinks that a segment ends. In the data of a scan 0xFF is
    // followed by 0, or is the marker of a restart.
    if picture.windows(2).filter(|window| *window == [0xFF, 0xDA]).nth(MAX_JPEG_SCANS).is_some() {
        return Err(Unreadable::Broken(format!("it has more than {MAX_JPEG_SCANS} scans")));
    }
    if has_too_much_xmp(&picture) {
        return Err(Unreadable::Broken("it has too many segments of extended XMP".to_owned()));
    }
    Ok(picture)
}

/// A JPEG up to its end, without the segments that say nothing about how it is decoded or turned: profiles, XMP, thumbnails
/// of applications, comments. These, and what is behind the end (the film of a photo, the pictures of a stereo camera), may be
/// megabytes in which anything looks like a scan.
fn jpeg_picture(bytes: &[u8]) -> Vec<u8> {
    const END: u8 = 0xD9;
    let has_no_length = |marker: u8| matches!(marker, 0x00 | 0x01 | 0xD0..=0xD9 | 0xFF);
    let is_aside = |marker: u8, content: &[u8]| match marker {
        // JFIF's, and Adobe's about the colors.
        0xE0 | 0xEE => false,
        0xE1 => !content.starts_with(b"Exif\0"),
        0xE2..=0xEF | 0xFE => true,
        _ => false,
    };
    let mut picture = Vec::with_capacity(bytes.len());
    // What is kept and not yet copied begins at the one, and is looked at from the other.
    let (mut begin, mut position) = (0, 0);
    let rest = |position: usize| bytes.get(position..).unwrap_or_default();
    while let Some(skipped) = rest(position).iter().position(|byte| *byte == 0xFF) {
        position += skipped;
        let Some(&marker) = bytes.get(position + 1) else { break };
        if marker == END {
            picture.extend_from_slice(&bytes[begin..position + 2]);
            return picture;
        }
        if has_no_length(marker) {
            position += 1;
            continue;
        }
        let Some(&[high, low]) = bytes.get(position + 2..position + 4) else { break };
        let next = position + 2 + usize::from(u16::from_be_bytes([high, low]));
        if is_aside(marker, rest(position + 4)) {
            picture.extend_from_slice(&bytes[begin..position]);
            begin = next;
        }
        position = next;
    }
    picture.extend_from_slice(rest(begin));
    picture
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
    fn of_a_jpeg_the_picture_is_kept_up_to_its_end() {
        let head = [&[0xFF, 0xD8][..], &[0xFF, 0xE0, 0, 4, 7, 7], &[0xFF, 0xE1, 0, 8], b"Exif\0\0"].concat();
        let asides = [&[0xFF, 0xE1, 0, 4, 0xFF, 0xDA][..], &[0xFF, 0xE5, 0, 3, 0xFF], &[0xFF, 0xFE, 0, 2]].concat();
        let scan = [0xFF, 0xDA, 0, 3, 0, 7, 0xFF, 0, 0xDA, 0xFF, 0xD3, 0xFF, 0xFF];
        let end = [0xFF, 0xD9];
        let file = [&head[..], &asides, &scan, &asides, &scan, &end, &scan].concat();
        assert_eq!(jpeg_picture(&file), [&head[..], &scan, &scan, &end].concat());
        for end in 0..file.len() {
            assert!(jpeg_picture(&file[..end]).len() <= end);
        }
    }

    #[test]
    fn a_jpeg_with_too_many_segments_of_extended_xmp_is_refused_before_it_is_decoded() {
        let content =
            [&b"http://ns.adobe.com/xmp/extension/\0"[..], &[b'0'; 32], &[0, 0, 3, 0xE8, 0, 0, 0, 5]].concat();
        // In what is none, which a decoder may yet take for one.
        let segment = [&[0xFF, 0xDB, 0, content.len() as u8 + 2][..], &content].concat();
        let file = |segments: usize, others: usize| {
            [&[0xFF, 0xD8][..], &segment.repeat(segments), &[0xFF, 0xDC, 0, 2].repeat(others)].concat()
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
