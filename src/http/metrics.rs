//! `GET /metrics`, for Prometheus.
//!
//! On the API's listener it needs a key with the scope `admin`: what is sold and how much waits is the operator's business.
//! On a listener of its own, `metrics.listen`, which is not meant to be reached from outside, it needs none, and there it
//! also answers while the database is away.

use std::net::IpAddr;

use axum::{
    Router,
    extract::State,
    http::{
        HeaderMap, StatusCode, Uri,
        header::{CACHE_CONTROL, CONTENT_TYPE, HOST},
        uri::Authority,
    },
    response::{IntoResponse, Response},
    routing::get,
};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::{Api, caller::Operator};
use crate::service::scrape::Scrape;

/// The text format's, as Prometheus' own libraries send it.
const TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// `GET /metrics` of the API.
#[utoipa::path(
    get,
    path = "/metrics",
    summary = "Read the metrics, for Prometheus",
    tag = "Admin",
    responses(
        (status = 200, description = "For Prometheus.", body = String, content_type = "text/plain"),
    ),
    security(("key" = ["admin"])),
)]
pub(super) async fn get_with_key(State(api): State<Api>, _: Operator) -> Response {
    answer(&api.service.scrape()).await
}

/// Serves `/metrics` alone, to everybody who reaches the listener, until `shutdown`. On a loopback address those may be
/// pages of this machine's browsers, whose names lead here by a trick (DNS rebinding): there it answers to no name but
/// `localhost`. On any other it may be asked by whatever name its network has for it.
pub async fn serve_metrics(listener: TcpListener, scrape: Scrape, shutdown: CancellationToken) {
    let is_local = listener.local_addr().is_ok_and(|address| address.ip().is_loopback());
    let routes = Router::new().route(
        "/metrics",
        get(async move |State(scrape): State<Scrape>, headers: HeaderMap, uri: Uri| match is_local {
            true if !is_asked_by_address(&headers, &uri) => {
                (StatusCode::MISDIRECTED_REQUEST, "ask by an address, or by localhost\n").into_response()
            }
            _ => answer(&scrape).await,
        }),
    );
    super::server::serve_routes(listener, routes.with_state(scrape), super::server::Limits::FEW, shutdown).await;
}

/// Whether a request names its server by an address or as `localhost`, or not at all, as no browser does.
fn is_asked_by_address(headers: &HeaderMap, uri: &Uri) -> bool {
    let authority = match (uri.authority(), headers.get(HOST)) {
        (Some(authority), _) => Some(authority.clone()),
        (None, Some(host)) => match Authority::try_from(host.as_bytes()) {
            Ok(authority) => Some(authority),
            Err(_) => return false,
        },
        (None, None) => None,
    };
    authority.is_none_or(|authority| {
        let host = authority.host().trim_start_matches('[').trim_end_matches(']');
        host.eq_ignore_ascii_case("localhost") || host.parse::<IpAddr>().is_ok()
    })
}

async fn answer(scrape: &Scrape) -> Response {
    ([(CONTENT_TYPE, TEXT), (CACHE_CONTROL, "no-store")], scrape.text().await).into_response()
}
