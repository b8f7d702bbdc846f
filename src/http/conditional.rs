//! Conditional requests and ranges (RFC 9110): what need not be sent again, and which part of a file is wanted.

use std::{convert::Infallible, ops::Range};

use axum::{
    extract::FromRequestParts,
    http::{
        HeaderMap, HeaderName,
        header::{IF_NONE_MATCH, IF_RANGE, RANGE},
        request::Parts,
    },
};
use sha2::{Digest, Sha256};

/// An entity tag for these bytes.
pub(super) fn etag(bytes: &[u8]) -> String {
    format!("\"{}\"", hex::encode(&Sha256::digest(bytes)[..16]))
}

/// Whether the client has what this tag stands for.
pub(super) fn is_known(headers: &HeaderMap, etag: &str) -> bool {
    Known::of(headers).has(etag)
}

/// The tags of what the client has. A copy: a client that waits must not keep the buffer that its request came in.
#[derive(Clone, Debug)]
pub(super) struct Known(Vec<Box<str>>);

impl Known {
    fn of(headers: &HeaderMap) -> Self {
        let values = headers.get_all(IF_NONE_MATCH).into_iter().filter_map(|value| value.to_str().ok());
        Self(values.map(Box::from).collect())
    }

    /// Whether what this tag stands for is there.
    pub(super) fn has(&self, etag: &str) -> bool {
        self.0.iter().flat_map(|value| value.split(',')).map(str::trim).any(|known| {
            // A proxy that compresses on the way weakens the tag; the comparison does not mind.
            known == "*" || known.trim_start_matches("W/") == etag.trim_start_matches("W/")
        })
    }
}

impl<S: Sync> FromRequestParts<S> for Known {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(Self::of(&parts.headers))
    }
}

/// What part of a file a request is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    /// All of it.
    Whole,
    /// These bytes.
    Part(Range<u64>),
    /// Bytes that it does not have.
    Nothing,
}

/// Reads `Range`. Several ranges at once, and what cannot be understood, are answered with the whole file, as they may
/// be; so is a range of a file that is no longer the one the client has (`If-Range`).
pub(super) fn wanted(headers: &HeaderMap, size: u64, etag: &str) -> Wanted {
    let text = |name: HeaderName| headers.get(name).map(|value| value.to_str().unwrap_or_default());
    if text(IF_RANGE).is_some_and(|condition| condition != etag) {
        return Wanted::Whole;
    }
    let bounds = text(RANGE).and_then(|range| range.trim().strip_prefix("bytes=")?.split_once('-'));
    let Some((first, last)) = bounds else {
        return Wanted::Whole;
    };
    let (first, last) = (position(first), position(last));
    let range = match (first, last) {
        (Some(Some(first)), Some(Some(last))) if last < first => return Wanted::Whole,
        (Some(Some(first)), Some(Some(last))) => first..last.saturating_add(1).min(size),
        (Some(Some(first)), Some(None)) => first..size,
        (Some(None), Some(Some(suffix))) => size.saturating_sub(suffix)..size,
        _ => return Wanted::Whole,
    };
    if range.is_empty() { Wanted::Nothing } else { Wanted::Part(range) }
}

/// One side of a range: `Some(None)` if it is left open, `None` if it is no number.
fn position(text: &str) -> Option<Option<u64>> {
    let text = text.trim();
    if text.is_empty() {
        return Some(None);
    }
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().unwrap_or(u64::MAX)).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(fields: &[(HeaderName, &str)]) -> HeaderMap {
        fields.iter().map(|(name, value)| (name.clone(), value.parse().expect("a header value"))).collect()
    }

    #[test]
    fn ranges_are_cut_to_the_file() {
        for (range, wanted_of_ten) in [
            ("bytes=0-3", Wanted::Part(0..4)),
            ("bytes=8-99", Wanted::Part(8..10)),
            ("bytes=8-", Wanted::Part(8..10)),
            ("bytes=-3", Wanted::Part(7..10)),
            ("bytes=-30", Wanted::Part(0..10)),
            ("bytes=0-99999999999999999999", Wanted::Part(0..10)),
            ("bytes=10-", Wanted::Nothing),
            ("bytes=-0", Wanted::Nothing),
            ("bytes=3-2", Wanted::Whole),
            ("bytes=-", Wanted::Whole),
            ("bytes=0-1,3-4", Wanted::Whole),
            ("bytes=a-b", Wanted::Whole),
            ("lines=1-2", Wanted::Whole),
        ] {
            assert_eq!(wanted(&headers(&[(RANGE, range)]), 10, "\"a\""), wanted_of_ten, "{range}");
        }
        assert_eq!(wanted(&headers(&[(RANGE, "bytes=0-")]), 0, "\"a\""), Wanted::Nothing);
    }

    #[test]
    fn a_part_of_a_file_the_client_does_not_have_is_of_no_use_to_it() {
        let stale = headers(&[(RANGE, "bytes=0-3"), (IF_RANGE, "\"b\"")]);
        assert_eq!(wanted(&stale, 10, "\"a\""), Wanted::Whole);
        let fresh = headers(&[(RANGE, "bytes=0-3"), (IF_RANGE, "\"a\"")]);
        assert_eq!(wanted(&fresh, 10, "\"a\""), Wanted::Part(0..4));
    }

    #[test]
    fn a_tag_is_found_in_a_list_and_weakened() {
        for known in ["\"a\"", "\"b\", \"a\"", "W/\"a\"", "*"] {
            assert!(is_known(&headers(&[(IF_NONE_MATCH, known)]), "\"a\""), "{known}");
        }
        for unknown in ["\"b\"", "a", ""] {
            assert!(!is_known(&headers(&[(IF_NONE_MATCH, unknown)]), "\"a\""), "{unknown}");
        }
    }
}
