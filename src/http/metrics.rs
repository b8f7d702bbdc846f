//! `GET /metrics`, for Prometheus.
//!
//! On the API's listener it needs a key with the scope `admin`: what is sold and how much waits is the operator's business.
//! On a listener of its own, `metrics.listen`, which is not meant to be reached from outside, it needs none, and there it
//! also answers while the database is away.

use axum::{
    Router,
    extract::State,
    http::header::{CACHE_CONTROL, CONTENT_TYPE},
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

/// Serves `/metrics` alone, to everybody who reaches the listener, until `shutdown`.
pub async fn serve_metrics(listener: TcpListener, scrape: Scrape, shutdown: CancellationToken) {
    let routes = Router::new().route("/metrics", get(async |State(scrape): State<Scrape>| answer(&scrape).await));
    super::server::serve_routes(listener, routes.with_state(scrape), super::server::Limits::FEW, shutdown).await;
}

async fn answer(scrape: &Scrape) -> Response {
    ([(CONTENT_TYPE, TEXT), (CACHE_CONTROL, "no-store")], scrape.text().await).into_response()
}
