//! Webhooks over HTTP: what was told, telling it again, and the secret that signs; natively and as the vendors have it.

use axum::{
    Json,
    extract::{FromRequestParts, Path, State},
    http::{HeaderName, HeaderValue, StatusCode, header::CACHE_CONTROL, request::Parts},
    response::{IntoResponse, Response},
};

use super::{
    Api, Error,
    caller::{Reader, Writer},
    eachlabs::PageQuery,
    extract::KnownId,
    query::Parameters,
};
use crate::{
    domain::{InvalidInput, Prediction, PredictionId, Webhook, WebhookEvent, WebhookLog, WebhookRequest},
    service,
    wire::{BaseUrl, FaceUrl, eachlabs, native, webhook},
};

/// Secrets are for no cache.
const UNCACHED: [(HeaderName, HeaderValue); 1] = [(CACHE_CONTROL, HeaderValue::from_static("no-store"))];

/// A webhook asked for on a vendor's face.
pub(super) fn placed(request: WebhookRequest, face: &FaceUrl) -> Webhook {
    Webhook { request, server_url: face.server.to_string(), mount: face.mount.to_owned() }
}

/// `GET /predictions/{id}/webhook`
#[utoipa::path(
    get,
    path = "/predictions/{id}/webhook",
    summary = "List what was told to a prediction's webhook",
    tag = "Webhooks",
    params(
        ("id" = uuid::Uuid, Path, description = "The prediction's id."),
    ),
    responses(
        (status = 200, description = "Everything told, or to be told, to its receiver.", body = native::Webhook),
    ),
    security(("key" = ["predictions:read"])),
)]
pub(super) async fn get(
    State(api): State<Api>,
    Reader(caller): Reader,
    KnownId(id): KnownId,
) -> Result<Response, Error> {
    let log = api.service.webhook_of(caller, id).await?.ok_or(Error::NoWebhook)?;
    Ok(Json(native::Webhook::new(&log)).into_response())
}

/// `POST /predictions/{id}/webhook/redeliver`
#[utoipa::path(
    post,
    path = "/predictions/{id}/webhook/redeliver",
    summary = "Tell a prediction's end again",
    tag = "Webhooks",
    params(
        ("id" = uuid::Uuid, Path, description = "The prediction's id."),
    ),
    responses(
        (status = 202, description = "The end is told again.", body = native::Webhook),
    ),
    security(("key" = ["predictions:write"])),
)]
pub(super) async fn redeliver(
    State(api): State<Api>,
    Writer(caller): Writer,
    KnownId(id): KnownId,
) -> Result<Response, Error> {
    let log = api.service.redeliver_webhook(caller, id).await?.ok_or(Error::NoWebhook)?;
    Ok((StatusCode::ACCEPTED, Json(native::Webhook::new(&log))).into_response())
}

/// `GET /webhooks/secret`
#[utoipa::path(
    get,
    path = "/webhooks/secret",
    summary = "Get the secret that signs your webhooks",
    tag = "Webhooks",
    responses(
        (status = 200, description = "What signs your account's webhooks.", body = native::Secret),
    ),
    security(("key" = ["predictions:write"])),
)]
pub(super) async fn get_secret(State(api): State<Api>, Writer(caller): Writer) -> Result<Response, Error> {
    let secret = api.service.signing_secret(caller).await?;
    Ok((UNCACHED, Json(native::Secret::new(&secret))).into_response())
}

/// Replicate's `GET /webhooks/default/secret`
#[utoipa::path(
    get,
    path = "/webhooks/default/secret",
    summary = "Get the secret that signs your webhooks",
    tag = "Replicate",
    responses((status = 200, description = "What signs your account's webhooks.", body = native::Secret)),
    security(("key" = ["predictions:write"])),
)]
pub(super) async fn get_default_secret(api: State<Api>, caller: Writer) -> Result<Response, Error> {
    get_secret(api, caller).await
}

/// `POST /webhooks/secret/rotate`
#[utoipa::path(
    post,
    path = "/webhooks/secret/rotate",
    summary = "Replace the secret that signs your webhooks",
    tag = "Webhooks",
    responses(
        (status = 200, description = "A new secret, beside which the old one signs for a day.", body = native::Secret),
    ),
    security(("key" = ["predictions:write"])),
)]
pub(super) async fn rotate_secret(State(api): State<Api>, Writer(caller): Writer) -> Result<Response, Error> {
    let secret = api.service.rotate_signing_secret(caller).await?;
    Ok((UNCACHED, Json(native::Secret::new(&secret))).into_response())
}

/// Which part of Eachlabs' log: `?limit=&offset=`.
pub(super) struct LogQuery(PageQuery);

impl FromRequestParts<Api> for LogQuery {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, _: &Api) -> Result<Self, Error> {
        let parameters = Parameters::read(parts, &["limit", "offset"])?;
        Ok(Self(PageQuery::read(&parameters, 50, 100)?))
    }
}

/// The prediction in the path of Eachlabs' log.
pub(super) struct ExecutionId(PredictionId);

impl FromRequestParts<Api> for ExecutionId {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, Error> {
        let id = Path::<String>::from_request_parts(parts, api).await.ok().and_then(|Path(id)| id.parse().ok());
        Ok(Self(id.ok_or_else(|| InvalidInput::one("execution_id", "must be the id of a prediction"))?))
    }
}

/// `GET /webhooks`, as Eachlabs has it
#[utoipa::path(
    get,
    path = "/webhooks",
    summary = "List what was told to webhooks",
    tag = "Eachlabs",
    params(
        ("limit" = Option<u32>, Query, minimum = 1, maximum = 100, description = "Entries at most; 50 if left out."),
        ("offset" = Option<u32>, Query, description = "Entries to leave out from the start."),
    ),
    responses(
        (status = 200, description = "What was told.", body = eachlabs::Webhooks),
    ),
    security(("key" = ["predictions:read"])),
)]
pub(super) async fn list_log(
    State(api): State<Api>,
    Reader(caller): Reader,
    LogQuery(PageQuery { offset, limit }): LogQuery,
) -> Result<Response, Error> {
    let log = api.service.webhook_log(caller, offset, limit).await?;
    let mut webhooks = Vec::with_capacity(log.len());
    for (entry, prediction) in &log {
        webhooks.push(eachlabs::Webhook::new(entry, request(&api, entry, prediction)?));
    }
    Ok(Json(eachlabs::Webhooks { webhooks, limit, offset }).into_response())
}

/// `GET /webhooks/{execution_id}`, as Eachlabs has it
#[utoipa::path(
    get,
    path = "/webhooks/{execution_id}",
    summary = "Get what was told of one prediction",
    tag = "Eachlabs",
    params(
        ("execution_id" = uuid::Uuid, Path, description = "The prediction's id."),
    ),
    responses(
        (status = 200, description = "What was told of one.", body = eachlabs::Webhook),
        (status = 404, description = "Nothing was to be told."),
    ),
    security(("key" = ["predictions:read"])),
)]
pub(super) async fn get_log(
    State(api): State<Api>,
    Reader(caller): Reader,
    ExecutionId(id): ExecutionId,
) -> Result<Response, Error> {
    let log = api.service.webhook_of(caller, id).await?.ok_or(Error::NoWebhook)?;
    let prediction = api.service.get(caller, id).await?;
    let webhook = eachlabs::Webhook::new(&log, request(&api, &log, &prediction)?).with_attempts(&log);
    Ok(Json(webhook).into_response())
}

/// What is told when the prediction has ended; nothing before.
fn request(api: &Api, log: &WebhookLog, prediction: &Prediction) -> Result<String, Error> {
    if !prediction.status.is_terminal() {
        return Ok(String::new());
    }
    let server: BaseUrl =
        log.server_url.parse().map_err(|error| service::Error::Internal(anyhow::Error::from(error)))?;
    let model = api.service.catalog().by_slug(&prediction.model);
    let body = webhook::body(prediction, WebhookEvent::Completed, model, &server, &log.mount);
    let body = body.map_err(|error| service::Error::Internal(error.into()))?;
    Ok(String::from_utf8_lossy(&body).into_owned())
}
