//! The JSON of a request, of which there may be so much and no more.

use serde_json::Value;

/// Values in one body. In memory each takes hundreds of bytes though it may have been sent as five, so a long body of
/// short ones would take a hundred times its length. An input that is short enough to be kept has fewer.
pub const MOST_VALUES: usize = 20_000;

/// Why bytes are not read as JSON.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    /// What the parser says.
    #[error("{0}")]
    NotJson(String),
    /// More than [`MOST_VALUES`], by their punctuation; nothing was parsed.
    #[error("must not have more than {MOST_VALUES} values")]
    TooManyValues,
}

/// Reads what a client sent. Nothing else may make values of a request's bytes.
pub fn parse(bytes: &[u8]) -> Result<Value, Unreadable> {
    let not_json = |error: &dyn std::error::Error| Unreadable::NotJson(error.to_string());
    if has_more_values_than(MOST_VALUES, bytes) {
        return Err(Unreadable::TooManyValues);
    }
    let text = std::str::from_utf8(bytes).map_err(|error| not_json(&error))?;
    serde_json::from_str(text).map_err(|error| not_json(&error))
}

/// Every value but the first follows one of `{`, `[` and `,`, outside of strings. What is no JSON may be miscounted:
/// the parser gives up where that begins, and up to there the count is right.
fn has_more_values_than(most: usize, bytes: &[u8]) -> bool {
    let (mut values, mut rest) = (1, bytes);
    while let Some((byte, after)) = rest.split_first() {
        rest = after;
        match byte {
            b'"' => rest = after_string(rest),
            b'{' | b'[' | b',' => values += 1,
            _ => {}
        }
        if values > most {
            return true;
        }
    }
    false
}

/// What comes after the string that has begun.
fn after_string(mut bytes: &[u8]) -> &[u8] {
    while let Some(at) = bytes.iter().position(|byte| matches!(byte, b'"' | b'\\')) {
        if bytes[at] == b'"' {
            return &bytes[at + 1..];
        }
        bytes = bytes.get(at + 2..).unwrap_or_default();
    }
    &[]
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn values_are_counted_and_what_only_looks_like_one_is_not() {
        for (text, values) in [
            ("5", 1),
            ("[1, 2, 3]", 4),
            (r#"{"a": [{"b": 1}, 2], "c": 3}"#, 6),
            (r#"["{[,", "\"{[,", "\\", "\\\"{[,", "ä,"]"#, 6),
            (r#"["never ended, ["#, 2),
            (r#"["\"#, 2),
        ] {
            assert!(has_more_values_than(values - 1, text.as_bytes()), "{text}");
            assert!(!has_more_values_than(values, text.as_bytes()), "{text}");
        }
    }

    #[test]
    fn a_long_string_is_one_value() {
        let picture = format!("data:{}", ",".repeat(MOST_VALUES));
        assert_eq!(parse(json!([picture]).to_string().as_bytes()), Ok(json!([picture])));
    }

    #[test]
    fn more_values_than_are_taken_are_not_parsed() {
        let list = |length: usize| format!("[{}0]", "0,".repeat(length - 1));
        assert!(parse(list(MOST_VALUES - 2).as_bytes()).is_ok());
        for text in [list(MOST_VALUES), "{\"\":0},".repeat(MOST_VALUES), "[".repeat(MOST_VALUES)] {
            assert_eq!(parse(text.as_bytes()), Err(Unreadable::TooManyValues));
        }
        assert!(matches!(parse(b"\xff"), Err(Unreadable::NotJson(_))));
        assert!(matches!(parse(b"[1,"), Err(Unreadable::NotJson(_))));
    }
}
