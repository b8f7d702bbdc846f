//! From pixels to the bytes of a file, and in it, where wanted, how the picture was made.

use image::{
    ExtendedColorType, ImageEncoder, ImageResult, RgbImage,
    codecs::{jpeg::JpegEncoder, webp::WebPEncoder},
    error::{EncodingError, ImageError, ImageFormatHint},
};
use png::{BitDepth, ColorType, Compression, Encoder, Filter};

use super::exif;

/// The longest EXIF block a JPEG can hold: its segment's length has two bytes, and counts itself and the block's name.
const MAX_JPEG_EXIF: usize = 65_535 - 2 - 6;

/// What to write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Lossless.
    Png,
    /// 1 to 100.
    Jpeg(u8),
    /// Lossless as well.
    WebP,
}

/// How a picture was made. PNG keeps both texts under their names; the other formats have EXIF, where the parameters
/// are the user's comment, as the community's tools expect, and the JSON is the description.
#[derive(Clone, Debug)]
pub struct Provenance {
    /// The text that those tools call `parameters`.
    pub parameters: String,
    /// The same for programs: a JSON object.
    pub json: String,
}

/// The file's bytes.
pub fn write(image: &RgbImage, format: Format, provenance: Option<&Provenance>) -> ImageResult<Vec<u8>> {
    let mut bytes = Vec::with_capacity(image.len() / 2);
    let (width, height) = image.dimensions();
    match format {
        Format::Png => write_png(image, provenance, &mut bytes)
            .map_err(|error| EncodingError::new(ImageFormatHint::Name("PNG".into()), error))
            .map_err(ImageError::Encoding)?,
        Format::Jpeg(quality) => {
            let mut encoder = JpegEncoder::new_with_quality(&mut bytes, quality);
            if let Some(exif) = provenance.and_then(jpeg_exif) {
                encoder.set_exif_metadata(exif).map_err(ImageError::Unsupported)?;
            }
            encoder.write_image(image.as_raw(), width, height, ExtendedColorType::Rgb8)?;
        }
        Format::WebP => {
            let mut encoder = WebPEncoder::new_lossless(&mut bytes);
            if let Some(provenance) = provenance {
                let exif = exif::block(Some(&provenance.json), &provenance.parameters);
                encoder.set_exif_metadata(exif).map_err(ImageError::Unsupported)?;
            }
            encoder.write_image(image.as_raw(), width, height, ExtendedColorType::Rgb8)?;
        }
    }
    Ok(bytes)
}

/// Generated pictures barely shrink further at higher levels, and a level that takes ten times as long would be felt.
fn write_png(image: &RgbImage, provenance: Option<&Provenance>, bytes: &mut Vec<u8>) -> Result<(), png::EncodingError> {
    let mut encoder = Encoder::new(bytes, image.width(), image.height());
    encoder.set_color(ColorType::Rgb);
    encoder.set_depth(BitDepth::Eight);
    encoder.set_compression(Compression::Fast);
    encoder.set_filter(Filter::Adaptive);
    if let Some(Provenance { parameters, json }) = provenance {
        for (keyword, text) in [("parameters", parameters), ("fourstep", json)] {
            // Not every reader of the old chunk knows the one for all of Unicode.
            if text.chars().all(|letter| u32::from(letter) < 256) {
                encoder.add_text_chunk(keyword.into(), text.clone())?;
            } else {
                encoder.add_itxt_chunk(keyword.into(), text.clone())?;
            }
        }
    }
    let mut writer = encoder.write_header()?;
    writer.write_image_data(image)?;
    writer.finish()
}

/// Both texts, or the one that tools read, or neither: as much as there is room for.
fn jpeg_exif(Provenance { parameters, json }: &Provenance) -> Option<Vec<u8>> {
    let fits = |block: &Vec<u8>| block.len() <= MAX_JPEG_EXIF;
    Some(exif::block(Some(json), parameters)).filter(fits).or_else(|| Some(exif::block(None, parameters))).filter(fits)
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use image::{ImageDecoder, ImageFormat, ImageReader};

    use super::*;
    use crate::picture;

    fn picture() -> RgbImage {
        RgbImage::from_fn(40, 24, |x, y| image::Rgb([(x * 6) as u8, (y * 10) as u8, 99]))
    }

    fn provenance(prompt: &str) -> Provenance {
        Provenance { parameters: format!("{prompt}\nSteps: 4"), json: format!("{{\"prompt\":\"{prompt}\"}}") }
    }

    fn utf_16(text: &str) -> Vec<u8> {
        text.encode_utf16().flat_map(u16::to_be_bytes).collect()
    }

    fn contains(bytes: &[u8], part: &[u8]) -> bool {
        bytes.windows(part.len()).any(|window| window == part)
    }

    #[test]
    fn lossless_formats_lose_nothing_and_jpeg_little() {
        for format in [Format::Png, Format::WebP, Format::Jpeg(95)] {
            let bytes = write(&picture(), format, None).expect("written");
            let read = picture::read(&bytes).expect("readable");
            let largest = read.iter().zip(picture().iter()).map(|(a, b)| a.abs_diff(*b)).max();
            let tolerance = if matches!(format, Format::Jpeg(_)) { 20 } else { 0 };
            assert!(largest.is_some_and(|largest| largest <= tolerance), "{format:?}: {largest:?}");
        }
        let lengths =
            [100, 80, 20].map(|quality| write(&picture(), Format::Jpeg(quality), None).expect("written").len());
        assert!(lengths.is_sorted_by(|a, b| a > b), "{lengths:?}");
    }

    #[test]
    fn a_png_keeps_both_texts_whatever_their_letters() {
        for prompt in ["a café", "a 🙂 in 東京"] {
            let provenance = provenance(prompt);
            let bytes = write(&picture(), Format::Png, Some(&provenance)).expect("written");
            let reader = png::Decoder::new(Cursor::new(&bytes)).read_info().expect("a PNG");
            let info = reader.info();
            let old = info.uncompressed_latin1_text.iter().map(|chunk| (chunk.keyword.clone(), chunk.text.clone()));
            let new = info.utf8_text.iter().map(|chunk| (chunk.keyword.clone(), chunk.get_text().expect("UTF-8")));
            let texts: Vec<_> = old.chain(new).collect();
            let expected = [("parameters", provenance.parameters), ("fourstep", provenance.json)];
            assert_eq!(texts, expected.map(|(keyword, text)| (keyword.to_owned(), text)));
        }
    }

    #[test]
    fn jpeg_and_webp_keep_both_in_their_exif() {
        let provenance = provenance("a 🙂 in 東京");
        for (format, image_format) in [(Format::Jpeg(80), ImageFormat::Jpeg), (Format::WebP, ImageFormat::WebP)] {
            let bytes = write(&picture(), format, Some(&provenance)).expect("written");
            let mut decoder =
                ImageReader::with_format(Cursor::new(&bytes), image_format).into_decoder().expect("readable");
            let exif = decoder.exif_metadata().expect("readable").expect("there");
            assert!(contains(&exif, &[b"UNICODE\0", &utf_16(&provenance.parameters)[..]].concat()), "{format:?}");
            assert!(contains(&exif, provenance.json.as_bytes()), "{format:?}");
            // The pixels are the same as without.
            let plain = picture::read(&write(&picture(), format, None).expect("written"));
            assert_eq!(picture::read(&bytes), plain, "{format:?}");
        }
    }

    #[test]
    fn a_prompt_too_long_for_a_jpeg_is_left_out_of_it_and_not_the_picture() {
        for (length, is_kept) in [(20_000, true), (40_000, false)] {
            let provenance = provenance(&"x".repeat(length));
            let bytes = write(&picture(), Format::Jpeg(80), Some(&provenance)).expect("written");
            assert!(picture::read(&bytes).is_ok());
            assert_eq!(contains(&bytes, &utf_16("Steps: 4")), is_kept, "{length}");
        }
    }
}
