//! A minimal EXIF block: a description and a user's comment.
//!
//! The layout is TIFF's: a header, and directories of entries of twelve bytes that say where their values are.
//! Big-endian, because the comment is UTF-16 of that order where the community's tools write it.

const HEADER: &[u8] = b"MM\0\x2A\0\0\0\x08";
const IMAGE_DESCRIPTION: u16 = 0x010E;
const EXIF_DIRECTORY: u16 = 0x8769;
const USER_COMMENT: u16 = 0x9286;

const ASCII: u16 = 2;
const LONG: u16 = 4;
const UNDEFINED: u16 = 7;

/// The block, without the name that JPEG puts in front of it.
pub(super) fn block(description: Option<&str>, user_comment: &str) -> Vec<u8> {
    // Readers take UTF-8 where the standard has ASCII. The value ends with NUL and at an even place.
    let description = description.map(|text| [text.as_bytes(), b"\0"].concat());
    let comment: Vec<u8> =
        b"UNICODE\0".iter().copied().chain(user_comment.encode_utf16().flat_map(u16::to_be_bytes)).collect();

    let entries = 1 + u16::from(description.is_some());
    let values_at = HEADER.len() + directory_length(entries);
    let described = description.as_ref().map_or(0, |text| text.len().next_multiple_of(2));
    let directory_at = values_at + described;

    let mut block = HEADER.to_vec();
    block.extend(entries.to_be_bytes());
    if let Some(text) = &description {
        entry(&mut block, IMAGE_DESCRIPTION, ASCII, text.len(), values_at);
    }
    entry(&mut block, EXIF_DIRECTORY, LONG, 1, directory_at);
    block.extend(NO_NEXT_DIRECTORY);
    block.extend(description.unwrap_or_default());
    block.resize(directory_at, 0);
    block.extend(1u16.to_be_bytes());
    entry(&mut block, USER_COMMENT, UNDEFINED, comment.len(), directory_at + directory_length(1));
    block.extend(NO_NEXT_DIRECTORY);
    block.extend(comment);
    block
}

const NO_NEXT_DIRECTORY: [u8; 4] = [0; 4];

fn directory_length(entries: u16) -> usize {
    2 + 12 * usize::from(entries) + NO_NEXT_DIRECTORY.len()
}

/// A value of more than four bytes is at an offset; of a directory the offset is the value.
fn entry(block: &mut Vec<u8>, tag: u16, kind: u16, count: usize, offset: usize) {
    block.extend(tag.to_be_bytes());
    block.extend(kind.to_be_bytes());
    block.extend((count as u32).to_be_bytes());
    block.extend((offset as u32).to_be_bytes());
}
