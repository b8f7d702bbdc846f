//! The native face: its URLs, each a handler that extracts, asks and answers.
//!
//! A create is answered with 202 while its prediction is not terminal. With `wait` it may be: then with 201 if this
//! request made it, and with 200 if an earlier one with the same id or idempotency key did. Everything else is 200, failed predictions included: failing is
//! the prediction's, not the request's.

use std::time::Duration;

use axum::{
    Json,
    extract::State,
    http::{
        HeaderName, StatusCode,
        header::{CACHE_CONTROL, CONTENT_TYPE, ETAG, LOCATION},
    },
    response::{IntoResponse, Response},
};

use super::{
    Api, Error,
    caller::{Creator, Reader, Writer},
    conditional::{self, Known},
    error::with_causes,
    extract::{ChosenId, KnownId, Rest},
    files,
    form::CreateBody,
    idempotency::{IdempotencyKey, Replayed},
    model_of,
    query::ListQuery,
    summary,
    timing::{CancelAfter, Wait},
    wanted::Wanted,
};
use crate::{
    domain::{Caller, Dialect, Model, Prediction, Webhook},
    service::{self, CreateRequest, Created, ListFilter},
    wire::{
        BaseUrl, cursor,
        native::{self, CreatePrediction, Page},
    },
};

const FOURSTEP_MODEL: HeaderName = HeaderName::from_static("fourstep-model");

/// `POST /predictions`
#[utoipa::path(
    post,
    path = "/predictions",
    summary = "Create a prediction",
    tag = "Predictions",
    params(
        Wait, Wanted, CancelAfter, IdempotencyKey,
    ),
    request_body(content((native::body::CreatePrediction = "application/json"), (native::body::CreateForm = "multipart/form-data"))),
    responses(
        (status = 200, description = "An earlier request with the same id or key made it, and it has ended.", content((native::Prediction = "application/json"), (Vec<u8> = "image/png"), (Vec<u8> = "image/jpeg"), (Vec<u8> = "image/webp"))),
        (status = 201, description = "This request made it, and it ended within the wait.", content((native::Prediction = "application/json"), (Vec<u8> = "image/png"), (Vec<u8> = "image/jpeg"), (Vec<u8> = "image/webp"))),
        (status = 202, description = "Accepted; it has not ended.", body = native::Prediction),
    ),
    security(("key" = ["predictions:write"])),
)]
pub(super) async fn create(
    State(api): State<Api>,
    Creator(caller): Creator,
    base: BaseUrl,
    (wait, wanted): (Wait, Wanted),
    CancelAfter(cancel_after): CancelAfter,
    IdempotencyKey(idempotency_key): IdempotencyKey,
    CreateBody(body): CreateBody,
) -> Result<Response, Error> {
    let mut body = CreatePrediction::parse(body)?;
    wanted.shape(&mut body.input)?;
    let request = CreateRequest { cancel_after, idempotency_key, ..create_request(body, &base) };
    let created = api.service.create(caller, request).await?;
    Ok(answer_created(&api, caller, created, (wait, wanted), &base).await)
}

/// `PUT /predictions/{id}`: a create that may be repeated.
#[utoipa::path(
    put,
    path = "/predictions/{id}",
    summary = "Create a prediction under an id of your own",
    tag = "Predictions",
    params(
        ("id" = uuid::Uuid, Path, description = "A UUID of your own."),
        Wait, Wanted, CancelAfter,
    ),
    request_body(content((native::body::CreatePrediction = "application/json"), (native::body::CreateForm = "multipart/form-data"))),
    responses(
        (status = 200, description = "An earlier request with the same id or key made it, and it has ended.", content((native::Prediction = "application/json"), (Vec<u8> = "image/png"), (Vec<u8> = "image/jpeg"), (Vec<u8> = "image/webp"))),
        (status = 201, description = "This request made it, and it ended within the wait.", content((native::Prediction = "application/json"), (Vec<u8> = "image/png"), (Vec<u8> = "image/jpeg"), (Vec<u8> = "image/webp"))),
        (status = 202, description = "Accepted; it has not ended.", body = native::Prediction),
        (status = 409, description = "The id belongs to a different prediction."),
    ),
    security(("key" = ["predictions:write"])),
)]
pub(super) async fn create_with_id(
    State(api): State<Api>,
    Creator(caller): Creator,
    ChosenId(id): ChosenId,
    base: BaseUrl,
    (wait, wanted): (Wait, Wanted),
    CancelAfter(cancel_after): CancelAfter,
    CreateBody(body): CreateBody,
) -> Result<Response, Error> {
    let mut body = CreatePrediction::parse(body)?;
    wanted.shape(&mut body.input)?;
    let request = CreateRequest { id: Some(id), cancel_after, ..create_request(body, &base) };
    let created = api.service.create(caller, request).await?;
    Ok(answer_created(&api, caller, created, (wait, wanted), &base).await)
}

/// `GET /predictions/{id}`
#[utoipa::path(
    get,
    path = "/predictions/{id}",
    summary = "Get a prediction, or wait for it",
    tag = "Predictions",
    params(
        ("id" = uuid::Uuid, Path, description = "The prediction's id."),
        Wait,
        ("If-None-Match" = Option<String>, Header, description = "The ETag of an earlier answer."),
    ),
    responses(
        (status = 200, description = "The prediction.", body = native::Prediction),
        (status = 304, description = "Not modified."),
    ),
    security(("key" = ["predictions:read"])),
)]
pub(super) async fn get(
    State(api): State<Api>,
    Reader(caller): Reader,
    KnownId(id): KnownId,
    base: BaseUrl,
    wait: Wait,
    known: Known,
) -> Result<Response, Error> {
    let prediction = api.service.wait(caller, id, wait.patience.unwrap_or(Duration::ZERO)).await?;
    // In a box of its own: while ten thousand wait, there is none of it.
    let body = serde_json::to_vec(&Box::pin(document(&api, &prediction, &base)).await)
        .map_err(|error| service::Error::Internal(error.into()))?;
    // Of the document and not of the row: a queued prediction moves up without a change to it.
    let etag = conditional::etag(&body);
    let is_known = known.has(&etag);
    // Answers to one key must not be given to another by a cache that knows only of `Authorization`.
    let cached = [(ETAG, etag), (CACHE_CONTROL, "private, no-cache".to_owned())];
    let (model, timing) = (model_header(&api, &prediction), summary::timing(&prediction));
    if is_known {
        return Ok((StatusCode::NOT_MODIFIED, wait, model, timing, cached).into_response());
    }
    Ok((wait, model, timing, cached, [(CONTENT_TYPE, "application/json")], body).into_response())
}

/// `GET /predictions`
#[utoipa::path(
    get,
    path = "/predictions",
    summary = "List your predictions",
    tag = "Predictions",
    params(
        ("status" = Option<String>, Query, description = "Only those of this status."),
        ("cursor" = Option<String>, Query, description = "From the `next` of a page."),
        ("limit" = Option<u32>, Query, minimum = 1, maximum = 100, description = "Entries at most; 20 if left out."),
    ),
    responses(
        (status = 200, description = "Some of your predictions, newest first.", body = native::Page<native::Prediction>),
    ),
    security(("key" = ["predictions:read"])),
)]
pub(super) async fn list(
    State(api): State<Api>,
    Reader(caller): Reader,
    base: BaseUrl,
    query: ListQuery,
) -> Result<Response, Error> {
    // One more than asked for tells whether there is a next page.
    let filter = ListFilter {
        statuses: query.status.map(|status| vec![status]),
        after: query.after,
        limit: query.limit + 1,
        ..ListFilter::default()
    };
    let mut predictions = api.service.list(caller, &filter).await?;
    let limit = query.limit as usize;
    let has_more = predictions.len() > limit;
    predictions.truncate(limit);
    let next = predictions.last().filter(|_| has_more).map(cursor::after);
    let next = next.map(|cursor| format!("{base}/predictions?{}", query.next(&cursor)));
    // Places in the queue are left out: each would be a question to the database.
    let document = |prediction| native::Prediction::new(prediction, model_of(&api, prediction), None, &base);
    Ok(Json(Page { results: predictions.iter().map(document).collect(), next }).into_response())
}

/// `POST /predictions/{id}/cancel`
#[utoipa::path(
    post,
    path = "/predictions/{id}/cancel",
    summary = "Cancel a prediction",
    tag = "Predictions",
    params(
        ("id" = uuid::Uuid, Path, description = "The prediction's id."),
    ),
    responses(
        (status = 200, description = "The prediction. One that has ended stays as it is.", body = native::Prediction),
    ),
    security(("key" = ["predictions:write"])),
)]
pub(super) async fn cancel(
    State(api): State<Api>,
    Writer(caller): Writer,
    KnownId(id): KnownId,
    base: BaseUrl,
) -> Result<Response, Error> {
    let prediction = api.service.cancel(caller, id).await?;
    Ok(Json(document(&api, &prediction, &base).await).into_response())
}

/// `DELETE /predictions/{id}`
#[utoipa::path(
    delete,
    path = "/predictions/{id}",
    summary = "Cancel a prediction",
    tag = "Predictions",
    params(("id" = uuid::Uuid, Path, description = "The prediction's id.")),
    responses((status = 200, description = "As canceled by the other URL.", body = native::Prediction)),
    security(("key" = ["predictions:write"])),
)]
pub(super) async fn delete(api: State<Api>, caller: Writer, id: KnownId, base: BaseUrl) -> Result<Response, Error> {
    cancel(api, caller, id, base).await
}

/// `GET /models`
#[utoipa::path(
    get,
    path = "/models",
    summary = "List the models",
    tag = "Models",
    responses(
        (status = 200, description = "Every model.", body = native::Page<native::Model>),
    ),
    security(("key" = ["predictions:read"])),
)]
pub(super) async fn list_models(State(api): State<Api>, _: Reader, base: BaseUrl) -> Result<Response, Error> {
    let mut results = Vec::new();
    let catalog = api.service.catalog();
    for model in catalog.models() {
        let typical_run = api.service.typical_run(&model.slug).await?;
        results.push(native::Model::new(model, catalog.answering(model), typical_run, &base));
    }
    Ok(Json(Page { results, next: None }).into_response())
}

/// `GET /models/{name}`
#[utoipa::path(
    get,
    path = "/models/{name}",
    summary = "Get a model",
    tag = "Models",
    params(
        ("name" = String, Path, description = "A slug, or owner/slug."),
    ),
    responses(
        (status = 200, description = "The model, with a JSON Schema of its input.", body = native::Model),
    ),
    security(("key" = ["predictions:read"])),
)]
pub(super) async fn get_model(
    State(api): State<Api>,
    _: Reader,
    Rest(name): Rest,
    base: BaseUrl,
) -> Result<Response, Error> {
    let catalog = api.service.catalog();
    let model = catalog.find(&name).ok_or(service::Error::NotFound)?;
    let typical_run = api.service.typical_run(&model.slug).await?;
    Ok(Json(native::Model::new(model, catalog.answering(model), typical_run, &base)).into_response())
}

pub(super) fn create_request(body: CreatePrediction, base: &BaseUrl) -> CreateRequest {
    let CreatePrediction { model, version, input, priority, webhook } = body;
    CreateRequest {
        id: None,
        model,
        version,
        input,
        dialect: Dialect::Native,
        defaults: native::DEFAULTS,
        cancel_after: None,
        idempotency_key: None,
        priority,
        webhook: webhook.map(|request| Webhook { request, server_url: base.to_string(), mount: String::new() }),
    }
}

/// The answer to a create that succeeded. Nothing after it can fail the request: its client would repeat it.
async fn answer_created(
    api: &Api,
    caller: Caller,
    created: Created,
    (wait, wanted): (Wait, Wanted),
    base: &BaseUrl,
) -> Response {
    // A picture is worth waiting for.
    let mut wait = if wanted == Wanted::Document { wait } else { wait.or_longest() };
    let replayed = Replayed::of(&created);
    let is_new = created.is_new;
    let prediction = wait.for_result(&api.service, caller, created).await;
    let status = match prediction.status.is_terminal() {
        true if is_new => StatusCode::CREATED,
        true => StatusCode::OK,
        false => StatusCode::ACCEPTED,
    };
    let location = [(LOCATION, native::prediction_url(base, prediction.id))];
    let (model, timing) = (model_header(api, &prediction), summary::timing(&prediction));
    (status, wait, replayed, location, model, timing, body(api, &prediction, wanted, base).await).into_response()
}

/// The picture if that is wanted and there is one, else the document.
async fn body(api: &Api, prediction: &Prediction, wanted: Wanted, base: &BaseUrl) -> Response {
    if let (Wanted::Picture(_), Some([file])) = (wanted, prediction.output.as_deref()) {
        match files::read(api, file).await {
            Ok(bytes) => {
                return (summary::of(prediction), [(CONTENT_TYPE, file.content_type.clone())], bytes).into_response();
            }
            Err(error) => {
                tracing::warn!(
                    error = with_causes(error),
                    key = file.key,
                    "An output could not be read into its answer"
                );
            }
        }
    }
    Json(document(api, prediction, base).await).into_response()
}

async fn document<'a>(api: &Api, prediction: &'a Prediction, base: &BaseUrl) -> native::Prediction<'a> {
    let place = api.service.queue_place(prediction).await.unwrap_or_else(|error| {
        // Worth less than the rest of the document.
        tracing::warn!(error = with_causes(error), "A place in the queue could not be found out");
        None
    });
    native::Prediction::new(prediction, model_of(api, prediction), place, base)
}

/// Which model runs it, for whoever reads only the head: another one may stand in for the model that was asked for.
fn model_header(api: &Api, prediction: &Prediction) -> [(HeaderName, String); 1] {
    let name = model_of(api, prediction).map_or_else(|| prediction.model.clone(), Model::full_name);
    [(FOURSTEP_MODEL, name)]
}
