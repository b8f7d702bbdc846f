//! Every request's name and its line in the log.
//!
//! A request is known by an id, its client's or one made here: in the span around everything that is done for it, in the
//! answer's `X-Request-Id`, and in the body of a refusal, which is written here for that reason. The line says how it
//! ended and how long it took, also if its client hung up. No header is ever logged: keys are in them.

use std::{fmt, time::Instant};

use axum::{
    extract::{MatchedPath, Request},
    http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode},
    middleware::Next,
    response::Response,
};
use tracing::{Instrument, Span, field::Empty};
use uuid::Uuid;

use super::{face::Face, trace::TraceParent};
use crate::{metrics, service::for_request, spans};

const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// Longest id taken from a client.
const MAX_ID_LENGTH: usize = 128;

/// The outermost layer.
pub(super) async fn observe(mut request: Request, next: Next) -> Response {
    let id = RequestId::of(request.headers());
    let span = tracing::info_span!("request", request_id = %id, trace_id = Empty, parent_span_id = Empty);
    if let Some(TraceParent { trace_id, span_id, text }) = TraceParent::of(request.headers()) {
        spans::go_on(&span, &text);
        span.record("trace_id", trace_id).record("parent_span_id", span_id);
    }
    let face = Face::of(&request);
    // Inside a mount a request no longer knows its whole URL.
    request.extensions_mut().insert(face);
    let mut line = LogLine::start(&request, span.clone());
    let mut response = for_request(Some(id.to_string()), next.run(request)).instrument(span).await;
    line.status = Some(response.status());
    if let Some(refusal) = response.extensions_mut().remove() {
        face.write(refusal, id.to_string(), &mut response);
    }
    response.headers_mut().insert(X_REQUEST_ID, id.0);
    response
}

/// Printable, short, and harmless in a log.
#[derive(Clone, Debug)]
struct RequestId(HeaderValue);

impl RequestId {
    fn of(headers: &HeaderMap) -> Self {
        let is_sane = |id: &&HeaderValue| {
            let harmless = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.:/+=".contains(byte);
            (1..=MAX_ID_LENGTH).contains(&id.len()) && id.as_bytes().iter().all(harmless)
        };
        let given = headers.get(X_REQUEST_ID).filter(is_sane).cloned();
        Self(given.unwrap_or_else(|| {
            let id = Uuid::new_v4().simple().to_string();
            HeaderValue::try_from(id).unwrap_or(HeaderValue::from_static("unknown"))
        }))
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.0.to_str().unwrap_or_default())
    }
}

/// One line in the log, written when it is dropped, whatever happened until then.
struct LogLine {
    span: Span,
    method: Method,
    /// As in the URL table: ids and file keys stay out of it.
    path: Option<MatchedPath>,
    started: Instant,
    status: Option<StatusCode>,
}

impl LogLine {
    fn start(request: &Request, span: Span) -> Self {
        let path = request.extensions().get().cloned();
        Self { span, method: request.method().clone(), path, started: Instant::now(), status: None }
    }
}

impl Drop for LogLine {
    fn drop(&mut self) {
        let _in_request = self.span.enter();
        let (method, latency_ms) = (self.method.as_str(), self.started.elapsed().as_secs_f64() * 1000.0);
        let route = self.path.as_ref().map(MatchedPath::as_str);
        let (path, status) = (route.unwrap_or("(unknown URL)"), self.status.map(|status| status.as_u16()));
        metrics::request_ended(method, route, status, self.started.elapsed());
        match status {
            Some(status) => tracing::info!(method, path, status, latency_ms, "{method} {path} {status}"),
            None => tracing::info!(method, path, latency_ms, "{method} {path}: the client hung up"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sane_id_is_kept_and_any_other_replaced() {
        let id_for = |given: &[u8]| {
            let given = HeaderValue::from_bytes(given).expect("a header value");
            RequestId::of(&HeaderMap::from_iter([(X_REQUEST_ID, given)])).to_string()
        };
        for sane in ["a", "0197f3a0-5bd3-7cc2", "Root=1-67891233-abcdef012345678912345678", &"x".repeat(128)] {
            assert_eq!(id_for(sane.as_bytes()), sane);
        }
        for strange in [&b""[..], b"a b", b"a\tb", b"\xff", b"{}", &[b'x'; 129]] {
            assert_eq!(id_for(strange).len(), 32, "{strange:?} was kept");
        }
    }
}
