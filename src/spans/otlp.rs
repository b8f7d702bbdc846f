//! OpenTelemetry's part: its library keeps spans, makes batches of them and puts them into OTLP's form; they are sent
//! by the client that all else is sent by.

use std::{collections::HashMap, pin::Pin, time::Duration};

use opentelemetry::{
    propagation::TextMapPropagator,
    trace::{TraceContextExt, TracerProvider},
};
use opentelemetry_http::{Bytes, HttpClient, HttpError};
use opentelemetry_otlp::{SpanExporter, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::{Resource, propagation::TraceContextPropagator, trace::SdkTracerProvider};
use tokio::runtime::Handle;
use tracing::{Span, Subscriber};
use tracing_opentelemetry::OpenTelemetrySpanExt;
use tracing_subscriber::{Layer, registry::LookupSpan};

use super::{Error, ExportLayer};

const TRACEPARENT: &str = "traceparent";
/// How long a batch may take on its way.
const SEND_WITHIN: Duration = Duration::from_secs(10);
/// How long the last one may, when the program ends.
const CLOSE_WITHIN: Duration = Duration::from_secs(5);

pub(super) fn go_on(span: &Span, traceparent: &str) {
    let carrier = HashMap::from([(TRACEPARENT.to_owned(), traceparent.to_owned())]);
    let parent = TraceContextPropagator::new().extract(&carrier);
    if parent.span().span_context().is_valid() {
        // It fails where nothing is exported.
        let _ = span.set_parent(parent);
    }
}

pub(super) fn place_of(span: &Span) -> Option<String> {
    let mut carrier = HashMap::new();
    TraceContextPropagator::new().inject_context(&span.context(), &mut carrier);
    carrier.remove(TRACEPARENT)
}

pub(super) fn start<S>(url: &str) -> Result<(SdkTracerProvider, ExportLayer<S>), Error>
where
    S: Subscriber + for<'span> LookupSpan<'span> + Send + Sync,
{
    let unusable = |error: String| Error::Unusable(error);
    let http = reqwest::Client::builder().timeout(SEND_WITHIN).build().map_err(|error| unusable(error.to_string()))?;
    let runtime = Handle::try_current().map_err(|error| unusable(error.to_string()))?;
    let exporter = SpanExporter::builder()
        .with_http()
        .with_http_client(Sender { http, runtime })
        .with_endpoint(format!("{}/v1/traces", url.trim_end_matches('/')))
        .with_timeout(SEND_WITHIN)
        .build()
        .map_err(|error| unusable(error.to_string()))?;
    let mut resource = Resource::builder();
    if std::env::var_os("OTEL_SERVICE_NAME").is_none() {
        resource = resource.with_service_name("fourstep");
    }
    let version = opentelemetry::KeyValue::new("service.version", env!("CARGO_PKG_VERSION"));
    let resource = resource.with_attribute(version).build();
    let provider = SdkTracerProvider::builder().with_resource(resource).with_batch_exporter(exporter).build();
    let layer = tracing_opentelemetry::layer()
        .with_tracer(provider.tracer("fourstep"))
        // Where in the code a span is made, and on which thread, is nobody's who looks at requests.
        .with_location(false)
        .with_threads(false)
        .with_target(false);
    Ok((provider, layer.boxed()))
}

pub(super) async fn close(provider: SdkTracerProvider) {
    // It waits for the thread that sends, which waits for the runtime.
    let closed = tokio::task::spawn_blocking(move || provider.shutdown_with_timeout(CLOSE_WITHIN)).await;
    if let Ok(Err(error)) = closed {
        tracing::debug!(%error, "The last traces were not sent");
    }
}

/// The client that batches are sent by. They come from a thread of OpenTelemetry's, outside of the runtime.
#[derive(Debug)]
struct Sender {
    http: reqwest::Client,
    runtime: Handle,
}

impl HttpClient for Sender {
    fn send_bytes<'this, 'sent>(
        &'this self,
        request: http::Request<Bytes>,
    ) -> Pin<Box<dyn Future<Output = Result<http::Response<Bytes>, HttpError>> + Send + 'sent>>
    where
        'this: 'sent,
        Self: 'sent,
    {
        let http = self.http.clone();
        let sent = self.runtime.spawn(async move {
            let response = http.execute(request.try_into()?).await?;
            let mut answer = http::Response::builder().status(response.status());
            if let Some(headers) = answer.headers_mut() {
                headers.clone_from(response.headers());
            }
            Ok(answer.body(response.bytes().await?)?)
        });
        Box::pin(async move { sent.await? })
    }
}
