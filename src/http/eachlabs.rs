//! Eachlabs' face: its URLs, each a handler that extracts, asks and answers.
//!
//! Its clients ask for a prediction again and again. Each time they are held for a few seconds, as many as the most
//! impatient of them put up with, so that most are answered with the result the first time.

use std::time::Duration;

use axum::{
    Json,
    extract::{FromRequestParts, State},
    http::{StatusCode, request::Parts},
    response::{IntoResponse, Response},
};
use chrono::{TimeDelta, Utc};

use super::{
    Api, Error,
    caller::{Creator, Reader, Writer},
    extract::{JsonBody, KnownId},
    hangup::Client,
    idempotency::{IdempotencyKey, Replayed},
    query::Parameters,
    timing::hold,
    webhooks,
};
use crate::{
    domain::{Caller, Dialect, InvalidInput, Status},
    service::{self, CreateRequest, Created, ListFilter},
    wire::{
        FaceUrl,
        eachlabs::{self, Canceled, CreatePrediction, Execution, Executions, Finished, TimedOut},
    },
};

/// How long a client that asks for a prediction is held.
const POLL: Duration = Duration::from_secs(5);
/// How long a client that runs a prediction is held.
const RUN: Duration = Duration::from_secs(60);
/// How far back executions are listed unless the client says otherwise.
const LISTED_DAYS: i64 = 90;

/// `POST /prediction`
#[utoipa::path(
    post,
    path = "/prediction",
    summary = "Create a prediction",
    tag = "Eachlabs",
    params(
        IdempotencyKey,
    ),
    request_body = eachlabs::body::CreatePrediction,
    responses(
        (status = 200, description = "The prediction's id.", body = eachlabs::Created),
    ),
    security(("key" = ["predictions:write"])),
)]
pub(super) async fn create(
    State(api): State<Api>,
    Creator(caller): Creator,
    face: FaceUrl,
    key: IdempotencyKey,
    JsonBody(body): JsonBody,
) -> Result<Response, Error> {
    let created = create_prediction(&api, caller, &face, key, CreatePrediction::parse(body)?).await?;
    Ok((Replayed::of(&created), Json(eachlabs::Created::new(created.prediction.id))).into_response())
}

/// `POST /prediction/run`: a create that is answered with the result.
#[utoipa::path(
    post,
    path = "/prediction/run",
    summary = "Create a prediction and wait for its result",
    tag = "Eachlabs",
    params(
        IdempotencyKey,
    ),
    request_body = eachlabs::body::CreatePrediction,
    responses(
        (status = 200, description = "How it ended.", body = eachlabs::Finished),
        (status = 408, description = "It did not end within a minute, and goes on.", body = eachlabs::TimedOut),
    ),
    security(("key" = ["predictions:write"])),
)]
pub(super) async fn run(
    State(api): State<Api>,
    Creator(caller): Creator,
    face: FaceUrl,
    client: Client,
    key: IdempotencyKey,
    JsonBody(body): JsonBody,
) -> Result<Response, Error> {
    let body = CreatePrediction::parse(body)?;
    let held = api.service.hold_for_result(caller)?;
    let created = create_prediction(&api, caller, &face, key, body).await?;
    let replayed = Replayed::of(&created);
    let prediction = hold(&api.service, &held, created, RUN, &client).await;
    Ok(match Finished::new(&prediction, &face) {
        Some(finished) => (replayed, Json(finished)).into_response(),
        None => (StatusCode::REQUEST_TIMEOUT, replayed, Json(TimedOut::new(prediction.id))).into_response(),
    })
}

/// `GET /prediction/{id}`
#[utoipa::path(
    get,
    path = "/prediction/{id}",
    summary = "Get a prediction",
    tag = "Eachlabs",
    params(
        ("id" = uuid::Uuid, Path, description = "The prediction's id."),
    ),
    responses(
        (status = 200, description = "The prediction.", body = eachlabs::Prediction),
    ),
    security(("key" = ["predictions:read"])),
)]
pub(super) async fn get(
    State(api): State<Api>,
    Reader(caller): Reader,
    KnownId(id): KnownId,
    face: FaceUrl,
) -> Result<Response, Error> {
    let prediction = match api.service.wait(caller, id, POLL).await {
        // Its client has not asked to be held, and comes again soon.
        Err(service::Error::TooManyHeld { .. }) => api.service.get(caller, id).await?,
        waited => waited?,
    };
    Ok(Json(eachlabs::Prediction::new(&prediction, &face)).into_response())
}

/// `POST /prediction/{id}/cancel`. What has ended otherwise cannot be canceled; doing it twice is no mistake.
#[utoipa::path(
    post,
    path = "/prediction/{id}/cancel",
    summary = "Cancel a prediction",
    tag = "Eachlabs",
    params(
        ("id" = uuid::Uuid, Path, description = "The prediction's id."),
    ),
    responses(
        (status = 200, description = "It is being canceled.", body = Canceled),
    ),
    security(("key" = ["predictions:write"])),
)]
pub(super) async fn cancel(
    State(api): State<Api>,
    Writer(caller): Writer,
    KnownId(id): KnownId,
) -> Result<Response, Error> {
    let prediction = api.service.cancel(caller, id).await?;
    match prediction.status {
        Status::Succeeded | Status::Failed => Err(InvalidInput::one("Prediction", "already completed").into()),
        Status::Queued | Status::Processing | Status::Canceled => Ok(Json(Canceled::new(id)).into_response()),
    }
}

/// `GET /models`. What there is to run is no secret.
#[utoipa::path(
    get,
    path = "/models",
    summary = "List the models",
    tag = "Eachlabs",
    params(
        ("name" = Option<String>, Query, description = "A part of the name."),
        ("limit" = Option<u32>, Query, minimum = 1, maximum = 500, description = "Entries at most; 50 if left out."),
        ("offset" = Option<u32>, Query, description = "Entries to leave out from the start."),
    ),
    responses(
        (status = 200, description = "Models.", body = Vec<eachlabs::Model>),
    ),
)]
pub(super) async fn list_models(State(api): State<Api>, query: ModelsQuery) -> Response {
    let is_meant = |text: &str| text.to_lowercase().contains(&query.name);
    let models = api.service.catalog().models().iter().filter(|model| is_meant(&model.slug) || is_meant(&model.title));
    let page = models.skip(query.page.offset as usize).take(query.page.limit as usize);
    Json(page.map(eachlabs::Model::new).collect::<Vec<_>>()).into_response()
}

/// `GET /model?slug=`
#[utoipa::path(
    get,
    path = "/model",
    summary = "Get a model",
    tag = "Eachlabs",
    params(
        ("slug" = String, Query, description = "The model's slug."),
    ),
    responses(
        (status = 200, description = "The model.", body = eachlabs::Model),
    ),
)]
pub(super) async fn get_model(State(api): State<Api>, Slug(slug): Slug) -> Result<Response, Error> {
    let model = api.service.catalog().find(&slug).ok_or(service::Error::UnknownModel(slug))?;
    Ok(Json(eachlabs::Model::new(model)).into_response())
}

/// `GET /executions`
#[utoipa::path(
    get,
    path = "/executions",
    summary = "List what was run, and what it cost",
    tag = "Eachlabs",
    params(
        ("limit" = Option<u32>, Query, minimum = 1, maximum = 100, description = "Entries at most; 20 if left out."),
        ("offset" = Option<u32>, Query, description = "Entries to leave out from the start."),
        ("model" = Option<String>, Query, description = "Only of this model."),
        ("status" = Option<String>, Query, description = "Some of `created`, `starting`, `success`, `error`, with commas."),
        ("error_classification" = Option<String>, Query, description = "Only those that failed for one of these reasons, the vendor's words with commas."),
        ("workflow_id" = Option<String>, Query, description = "None belongs to one."),
        ("workflow_execution_id" = Option<String>, Query, description = "None belongs to one."),
        ("from" = Option<chrono::DateTime<chrono::Utc>>, Query, description = "Only later ones; of the last 90 days if left out."),
        ("to" = Option<chrono::DateTime<chrono::Utc>>, Query, description = "Only earlier ones."),
    ),
    responses(
        (status = 200, description = "Some of your predictions, with what each cost.", body = Executions),
    ),
    security(("key" = ["predictions:read"])),
)]
pub(super) async fn list(
    State(api): State<Api>,
    Reader(caller): Reader,
    face: FaceUrl,
    query: ExecutionsQuery,
) -> Result<Response, Error> {
    let ListFilter { offset, limit, .. } = query.filter;
    let (predictions, total) = match query.of_workflow {
        // No prediction belongs to one.
        true => (Vec::new(), service::Count::default()),
        false => (api.service.list(caller, &query.filter).await?, api.service.count(caller, &query.filter).await?),
    };
    let executions = predictions.iter().map(|prediction| Execution::new(prediction, &face.server)).collect();
    let (total_count, total_capped) = (total.counted, total.has_more);
    Ok(Json(Executions { executions, total_count, total_capped, offset, limit }).into_response())
}

async fn create_prediction(
    api: &Api,
    caller: Caller,
    face: &FaceUrl,
    IdempotencyKey(idempotency_key): IdempotencyKey,
    body: CreatePrediction,
) -> Result<Created, Error> {
    let defaults = body.defaults();
    let CreatePrediction { model, input, webhook } = body;
    let request = CreateRequest {
        id: None,
        model: Some(model),
        version: None,
        input,
        dialect: Dialect::Eachlabs,
        defaults,
        cancel_after: None,
        idempotency_key,
        priority: None,
        webhook: webhook.map(|request| webhooks::placed(request, face)),
    };
    Ok(api.service.create(caller, request).await?)
}

/// Which part of a list is wanted: `limit=&offset=`.
pub(super) struct PageQuery {
    pub(super) offset: u32,
    pub(super) limit: u32,
}

impl PageQuery {
    pub(super) fn read(parameters: &Parameters, default_limit: u32, max_limit: u32) -> Result<Self, InvalidInput> {
        let number = |name, default, least, most| match parameters.get(name).map(str::parse::<u32>) {
            None => Ok(default),
            Some(Ok(number)) if (least..=most).contains(&number) => Ok(number),
            Some(_) => Err(InvalidInput::one(name, format!("must be an integer between {least} and {most}"))),
        };
        let most_offset = u32::MAX / 2;
        Ok(Self { limit: number("limit", default_limit, 1, max_limit)?, offset: number("offset", 0, 0, most_offset)? })
    }
}

/// Which models to list: `?name=&limit=&offset=`.
pub(super) struct ModelsQuery {
    /// In lower case; empty for all.
    name: String,
    page: PageQuery,
}

impl FromRequestParts<Api> for ModelsQuery {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, _: &Api) -> Result<Self, Error> {
        let parameters = Parameters::read(parts, &["name", "limit", "offset"])?;
        let name = parameters.get("name").unwrap_or_default().to_lowercase();
        Ok(Self { name, page: PageQuery::read(&parameters, 50, 500)? })
    }
}

/// Which model is meant: `?slug=`.
pub(super) struct Slug(String);

impl FromRequestParts<Api> for Slug {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, _: &Api) -> Result<Self, Error> {
        let parameters = Parameters::read(parts, &["slug"])?;
        let slug = parameters.get("slug").filter(|slug| !slug.is_empty());
        Ok(Self(slug.ok_or_else(|| InvalidInput::one("slug", "parameter is required"))?.to_owned()))
    }
}

/// Which executions to list.
pub(super) struct ExecutionsQuery {
    filter: ListFilter,
    /// Asks for those of a workflow.
    of_workflow: bool,
}

impl FromRequestParts<Api> for ExecutionsQuery {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, _: &Api) -> Result<Self, Error> {
        let workflow = ["workflow_id", "workflow_execution_id"];
        let known = ["limit", "offset", "model", "status", "error_classification", "from", "to"];
        let parameters = Parameters::read(parts, &[&known[..], &workflow].concat())?;
        let page = PageQuery::read(&parameters, 20, 100)?;
        let statuses = parameters.get("status").map(|words| words.split(',').map(eachlabs::parse_status).collect());
        if statuses == Some(None) {
            return Err(InvalidInput::one("status", "must be a list of created, starting, success, error").into());
        }
        let failures = parameters.get("error_classification").map(eachlabs::parse_classifications).transpose();
        let failures = failures.map_err(|reason| InvalidInput::one("error_classification", reason))?;
        // No model has it in its name, and the database cannot be asked for it.
        if parameters.get("model").is_some_and(|model| model.contains('\0')) {
            return Err(InvalidInput::one("model", "must not contain the NUL character").into());
        }
        let from = parameters.time("from")?.unwrap_or_else(|| Utc::now() - TimeDelta::days(LISTED_DAYS));
        let filter = ListFilter {
            statuses: statuses.flatten(),
            failures,
            model: parameters.get("model").map(str::to_owned),
            from: Some(from),
            until: parameters.time("to")?,
            offset: page.offset,
            limit: page.limit,
            ..ListFilter::default()
        };
        let of_workflow = workflow.iter().any(|name| parameters.get(name).is_some());
        Ok(Self { filter, of_workflow })
    }
}
