//! `traceparent` (W3C Trace Context): the trace a request is a part of, for the log beside our own id.

use axum::http::HeaderMap;

const TRACEPARENT: &str = "traceparent";

/// A place in somebody's trace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct TraceParent {
    /// 32 hexadecimal digits.
    pub(super) trace_id: String,
    /// Of the caller's span, 16 hexadecimal digits.
    pub(super) span_id: String,
    /// As it came.
    pub(super) text: String,
}

impl TraceParent {
    /// Reads the header. One that is not as the standard has it is as good as none, by the standard.
    pub(super) fn of(headers: &HeaderMap) -> Option<Self> {
        let mut values = headers.get_all(TRACEPARENT).iter();
        let text = values.next().filter(|_| values.next().is_none())?.to_str().ok()?;
        let fields: Vec<&str> = text.trim().split('-').collect();
        let [version, trace_id, span_id, flags, ref later @ ..] = fields[..] else { return None };
        let is_hex = |field: &str, length| {
            field.len() == length && field.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
        };
        let is_set = |field: &str| field.bytes().any(|byte| byte != b'0');
        let is_whole = is_hex(version, 2) && is_hex(trace_id, 32) && is_hex(span_id, 16) && is_hex(flags, 2);
        // Later versions may have more fields; there is no version ff.
        let is_known = version != "ff" && (version != "00" || later.is_empty());
        (is_whole && is_known && is_set(trace_id) && is_set(span_id)).then(|| Self {
            trace_id: trace_id.to_owned(),
            span_id: span_id.to_owned(),
            text: text.trim().to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(value: &str) -> Option<TraceParent> {
        TraceParent::of(&HeaderMap::from_iter([(
            TRACEPARENT.parse().expect("a name"),
            value.parse().expect("a value"),
        )]))
    }

    #[test]
    fn a_trace_is_read_as_the_standard_has_it() {
        const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
        const SPAN: &str = "00f067aa0ba902b7";
        for known in [format!("00-{TRACE}-{SPAN}-01"), format!("01-{TRACE}-{SPAN}-01-more")] {
            let (trace_id, span_id) = (TRACE.to_owned(), SPAN.to_owned());
            let expected = TraceParent { trace_id, span_id, text: known.clone() };
            assert_eq!(read(&known), Some(expected), "{known}");
        }
        for strange in [
            String::new(),
            format!("ff-{TRACE}-{SPAN}-01"),
            format!("00-{TRACE}-{SPAN}"),
            format!("00-{TRACE}-{SPAN}-01-more"),
            format!("00-{}-{SPAN}-01", "0".repeat(32)),
            format!("00-{TRACE}-{}-01", "0".repeat(16)),
            format!("00-{}-{SPAN}-01", TRACE.to_uppercase()),
            format!("00-{}-{SPAN}-01", &TRACE[1..]),
        ] {
            assert_eq!(read(&strange), None, "{strange}");
        }
    }
}
