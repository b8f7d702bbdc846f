//! What a load balancer, an operator or a curious visitor asks first. None of it needs a key.

use axum::{
    Json,
    extract::State,
    http::{
        StatusCode,
        header::{CACHE_CONTROL, RETRY_AFTER},
    },
    response::{IntoResponse, Response},
};
use serde::Serialize;
use utoipa::ToSchema;

use super::{Api, Error, error::RETRY_SECONDS};
use crate::{
    service::Readiness,
    wire::{BaseUrl, mounts},
};

#[derive(Serialize, ToSchema)]
#[schema(as = server::Live)]
pub(super) struct Live {
    /// Always `ok`.
    status: &'static str,
}

impl Live {
    /// All that a process says which answers.
    pub(super) const OK: Self = Self { status: "ok" };
}

/// `GET /livez`: the process answers. Restarting it would not help with anything else.
#[utoipa::path(
    get,
    path = "/livez",
    summary = "See whether the process answers",
    tag = "Server",
    responses(
        (status = 200, description = "The process answers.", body = Live),
    ),
)]
pub(super) async fn live() -> Response {
    uncached(StatusCode::OK, Live::OK)
}

#[derive(Serialize, ToSchema)]
#[schema(as = server::Ready)]
pub(super) struct Ready {
    /// Whether a prediction made now is run.
    ready: bool,
    /// What is being waited for.
    phase: String,
    /// How far that is.
    percent: i16,
}

impl Ready {
    /// The document of how ready the server is.
    pub(super) fn of(Readiness { ready, phase, percent }: Readiness) -> Self {
        Self { ready, phase, percent }
    }
}

/// `GET /readyz`: a prediction made now will be run; until then 503, what is being waited for and how far it is.
#[utoipa::path(
    get,
    path = "/readyz",
    summary = "See whether predictions are being run",
    tag = "Server",
    responses(
        (status = 200, description = "A prediction made now will be run.", body = Ready),
        (status = 503, description = "What is being waited for.", body = Ready),
    ),
)]
pub(super) async fn ready(State(api): State<Api>) -> Response {
    let body = Ready::of(api.service.readiness().await);
    if body.ready {
        return uncached(StatusCode::OK, body);
    }
    ([(RETRY_AFTER, RETRY_SECONDS)], uncached(StatusCode::SERVICE_UNAVAILABLE, body)).into_response()
}

#[derive(Serialize, ToSchema)]
#[schema(as = server::Version)]
pub(super) struct Version {
    /// The program.
    name: &'static str,
    /// Its version.
    version: &'static str,
}

impl Version {
    /// What runs here.
    pub(super) fn ours() -> Self {
        Self { name: env!("CARGO_PKG_NAME"), version: crate::version() }
    }
}

/// `GET /version`
#[utoipa::path(
    get,
    path = "/version",
    summary = "Get the version",
    tag = "Server",
    responses(
        (status = 200, description = "What runs here.", body = Version),
    ),
)]
pub(super) async fn version() -> Response {
    uncached(StatusCode::OK, Version::ours())
}

#[derive(Serialize, ToSchema)]
#[schema(as = server::Discovery)]
pub(super) struct Discovery {
    /// What runs here.
    #[serde(flatten)]
    version: Version,
    /// Ours.
    predictions: String,
    /// What can be run.
    models: String,
    /// For Replicate's clients.
    replicate: String,
    /// For Eachlabs' clients.
    eachlabs: String,
    /// For OpenAI's clients.
    openai: String,
    /// For load balancers.
    ready: String,
    /// All of it, for people.
    docs: String,
    /// The same for programs.
    openapi: String,
}

impl Discovery {
    /// Where everything is on this server.
    pub(super) fn at(server: &BaseUrl) -> Self {
        let url = |path| format!("{server}{path}");
        Self {
            version: Version::ours(),
            predictions: url("/predictions"),
            models: url("/models"),
            replicate: url(mounts::REPLICATE),
            eachlabs: url(mounts::EACHLABS),
            openai: url(mounts::OPENAI),
            ready: url("/readyz"),
            docs: url("/docs"),
            openapi: url("/openapi.json"),
        }
    }
}

/// `GET /`: where everything is.
#[utoipa::path(
    get,
    path = "/",
    summary = "Show the playground, or where everything is",
    tag = "Server",
    responses(
        (status = 200, description = "Where everything is; for a browser, the playground.", content((Discovery = "application/json"), (String = "text/html"))),
        (status = 304, description = "Not modified."),
    ),
)]
pub(super) async fn discover(base: BaseUrl) -> Result<Response, Error> {
    Ok(uncached(StatusCode::OK, Discovery::at(&base)))
}

fn uncached(status: StatusCode, body: impl Serialize) -> Response {
    (status, [(CACHE_CONTROL, "no-store")], Json(body)).into_response()
}
