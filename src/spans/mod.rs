//! The program's spans as traces, for who collects them (OpenTelemetry): one trace from the request, over the queue, to
//! the device and to the receiver of a webhook, in however many processes.
//!
//! A span is made with `tracing`, as for the log. Here is what `tracing` does not know: where a trace goes on that
//! began in another process, told as W3C Trace Context writes it (`traceparent`), and how traces leave this one. Unless
//! they do ([`Export`]), and in a program that was built without the feature `otlp`, all of it does nothing.

#[cfg(feature = "otlp")]
mod otlp;

use tracing::{Span, Subscriber};
use tracing_subscriber::{Layer, registry::LookupSpan};

/// What a subscriber needs to have its spans exported.
pub type ExportLayer<S> = Box<dyn Layer<S> + Send + Sync>;

/// Why traces cannot be exported.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The program cannot.
    #[error("this program was built without the feature `otlp`")]
    NotBuilt,
    /// The collector's URL, or a variable of OpenTelemetry's, is not as it should be.
    #[error("traces cannot be exported: {0}")]
    Unusable(String),
}

/// Has a span, which nobody has entered yet, go on where this `traceparent` is. What cannot be read is ignored, as the
/// standard has it.
pub fn go_on(span: &Span, traceparent: &str) {
    #[cfg(feature = "otlp")]
    otlp::go_on(span, traceparent);
    #[cfg(not(feature = "otlp"))]
    let _ = (span, traceparent);
}

/// Where a span is, as `traceparent` tells it; `None` if no traces are exported.
pub fn place_of(span: &Span) -> Option<String> {
    #[cfg(feature = "otlp")]
    return otlp::place_of(span);
    #[cfg(not(feature = "otlp"))]
    {
        let _ = span;
        None
    }
}

/// Traces on their way to a collector. What has not left is sent when this is closed.
#[derive(Debug)]
pub struct Export {
    #[cfg(feature = "otlp")]
    provider: opentelemetry_sdk::trace::SdkTracerProvider,
}

impl Export {
    /// Exports to the collector at this URL, over HTTP in OTLP's binary form, to its `/v1/traces`. To be called where a
    /// runtime of tokio's is.
    ///
    /// OpenTelemetry's own variables say the rest: `OTEL_EXPORTER_OTLP_HEADERS`, `OTEL_SERVICE_NAME`,
    /// `OTEL_TRACES_SAMPLER`.
    pub fn start<S>(url: &str) -> Result<(Self, ExportLayer<S>), Error>
    where
        S: Subscriber + for<'span> LookupSpan<'span> + Send + Sync,
    {
        #[cfg(feature = "otlp")]
        return otlp::start(url).map(|(provider, layer)| (Self { provider }, layer));
        #[cfg(not(feature = "otlp"))]
        {
            let _ = url;
            Err(Error::NotBuilt)
        }
    }

    /// Sends what is left, for a few seconds at most, and exports no more.
    pub async fn close(self) {
        #[cfg(feature = "otlp")]
        otlp::close(self.provider).await;
    }
}
