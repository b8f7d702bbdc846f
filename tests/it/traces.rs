//! Traces: one from a request to the device and to its webhook's receiver, through whatever processes, for a collector
//! that hears of them over HTTP.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{Router, body::Bytes, http::StatusCode, routing::post};
use nix::sys::signal::Signal;
use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceRequest,
    common::v1::{KeyValue, any_value},
    trace::v1::Span,
};
use prost::Message;
use serde_json::json;
use sqlx::PgPool;
use tokio::{net::TcpListener, task::JoinHandle};

use crate::{
    process::{Client, Program, TestFolder, url_of},
    receiver::Receiver,
    support::PICTURES,
};

/// A caller's trace, and the span it calls from.
const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const CALLER: &str = "00f067aa0ba902b7";

/// A collector on a real socket.
struct Collector {
    address: SocketAddr,
    exports: Arc<Mutex<Vec<ExportTraceServiceRequest>>>,
    server: JoinHandle<()>,
}

impl Collector {
    async fn start() -> Self {
        let exports: Arc<Mutex<Vec<_>>> = Arc::default();
        let kept = Arc::clone(&exports);
        let collect = async move |body: Bytes| {
            kept.lock().unwrap().push(ExportTraceServiceRequest::decode(body).unwrap());
            StatusCode::OK
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let routes = Router::new().route("/v1/traces", post(collect));
        let server = tokio::spawn(async move { axum::serve(listener, routes).await.unwrap() });
        Self { address, exports, server }
    }

    /// The spans it was told of, each with the service that told it.
    fn spans(&self) -> Vec<(String, Span)> {
        let mut spans = Vec::new();
        for of_process in self.exports.lock().unwrap().iter().flat_map(|export| &export.resource_spans) {
            let service = texts(&of_process.resource.as_ref().unwrap().attributes)["service.name"].clone();
            for span in of_process.scope_spans.iter().flat_map(|scope| &scope.spans) {
                spans.push((service.clone(), span.clone()));
            }
        }
        spans
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.server.abort();
    }
}

/// Those attributes that are texts.
fn texts(attributes: &[KeyValue]) -> BTreeMap<String, String> {
    let text = |attribute: &KeyValue| match attribute.value.as_ref()?.value.as_ref()? {
        any_value::Value::StringValue(text) => Some((attribute.key.clone(), text.clone())),
        _ => None,
    };
    attributes.iter().filter_map(text).collect()
}

async fn end(mut program: Program) {
    program.signal(Signal::SIGTERM);
    assert!(program.ended_within(Duration::from_secs(35)).await.success());
}

fn traced(endpoint: &str) -> [(&str, &str); 3] {
    // Not even trouble is worth a line: what is in the traces does not depend on it.
    [("FOURSTEP_TRACES__ENDPOINT", endpoint), ("FOURSTEP_FETCH__ALLOWED_NETWORKS", PICTURES), ("RUST_LOG", "off")]
}

fn serve(folder: &Path, url: &str, endpoint: &str) -> Program {
    let variables = [&traced(endpoint)[..], &[("FOURSTEP_WORKER__COUNT", "0")]].concat();
    Program::serve_logging(folder, url, &variables, &folder.join("server.log"))
}

#[sqlx::test]
async fn a_trace_goes_from_the_request_to_the_device_and_the_webhook_through_every_process(pool: PgPool) {
    let collector = Collector::start().await;
    let endpoint = format!("http://{}", collector.address);
    let (folder, url) = (TestFolder::new(), url_of(&pool));
    let server = serve(&folder.0, &url, &endpoint);
    let worker = Program::worker_logging(&folder.0, &url, &traced(&endpoint), &folder.0.join("worker.log"));
    let mut receiver = Receiver::start().await;
    let response = reqwest::Client::new()
        .post(format!("{}/predictions?wait=60", server.url))
        .header("X-Request-Id", "abc-7")
        .header("traceparent", format!("00-{TRACE}-{CALLER}-01"))
        .bearer_auth(Client::of(&server, &folder.0).key)
        .json(&json!({"input": {"prompt": "canaryprompt", "width": 256, "height": 264}, "webhook": receiver.url()}))
        .send()
        .await
        .unwrap();
    assert_eq!(response.status(), StatusCode::CREATED);
    receiver.next().await;
    end(server).await;
    end(worker).await;

    let spans = collector.spans();
    let of_trace: Vec<_> = spans.iter().filter(|(_, span)| hex::encode(&span.trace_id) == TRACE).collect();
    let named = |name: &str| {
        let found: Vec<_> = of_trace.iter().filter(|(_, span)| span.name == name).map(|(_, span)| span).collect();
        assert_eq!(found.len(), 1, "{name} in {of_trace:#?}");
        found[0]
    };
    let request = named("request");
    assert_eq!(hex::encode(&request.parent_span_id), CALLER, "the caller's trace goes on");
    let prediction = named("prediction");
    for (name, parent) in [
        ("prediction", request),
        ("webhook", request),
        ("device", prediction),
        ("store", prediction),
        ("finish", prediction),
    ] {
        assert_eq!(
            hex::encode(&named(name).parent_span_id),
            hex::encode(&parent.span_id),
            "{name} is a part of {}",
            parent.name
        );
    }
    for span in [request, prediction] {
        assert_eq!(texts(&span.attributes)["request_id"], "abc-7", "{}", span.name);
    }
    let device = named("device");
    assert!(prediction.start_time_unix_nano <= device.start_time_unix_nano);
    assert!(device.end_time_unix_nano <= prediction.end_time_unix_nano && device.end_time_unix_nano > 0);
    assert!(of_trace.iter().all(|(service, _)| service == "fourstep"));
    let told = format!("{spans:?}");
    assert!(!told.contains("canaryprompt") && !told.contains("t0ken"), "{told}");
}

#[sqlx::test]
async fn a_collector_that_is_away_costs_nobody_anything(pool: PgPool) {
    // Nobody listens there any more.
    let endpoint = format!("http://{}", TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap());
    let (folder, url) = (TestFolder::new(), url_of(&pool));
    let server = serve(&folder.0, &url, &endpoint);
    let worker = Program::worker_logging(&folder.0, &url, &traced(&endpoint), &folder.0.join("worker.log"));
    let prediction = Client::of(&server, &folder.0).create_and_wait(60).await.unwrap();
    assert_eq!(prediction["status"], "succeeded");
    end(server).await;
    end(worker).await;
}
