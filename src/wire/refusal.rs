//! A request refused, before a face has put it in its words.

use http::StatusCode;

use crate::domain::InvalidField;

/// What every face's error body is made of.
#[derive(Clone, Debug)]
pub struct Refusal {
    /// As HTTP has it. A face whose vendor has another habit changes it.
    pub status: StatusCode,
    /// For programs; the native face's word.
    pub code: &'static str,
    /// For people.
    pub detail: String,
    /// What was wrong where, if it was the request's content.
    pub invalid_fields: Vec<InvalidField>,
}
