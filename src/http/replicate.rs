//! Replicate's face: its URLs, each a handler that extracts, asks and answers.
//!
//! A create is answered with 201, and with 202 if it was to wait and the wait ran out. A held request is answered a little
//! before the time it names, because the vendor's clients do not wait a moment longer.

use std::time::Duration;

use axum::{
    Json,
    extract::{FromRequestParts, Path, State},
    http::{StatusCode, header::LOCATION, request::Parts},
    response::{IntoResponse, Response},
};
use chrono::{DateTime, Utc};
use futures_util::{StreamExt, stream};

use super::{
    Api, Error,
    caller::{Creator, Reader, Writer},
    error::with_causes,
    extract::{JsonBody, KnownId, Several},
    files,
    idempotency::{IdempotencyKey, Replayed},
    model_of,
    query::Parameters,
    timing::{CancelAfter, Wait},
    webhooks,
};
use crate::{
    domain::{Artifact, Caller, Dialect, InvalidInput, Model, Prediction},
    service::{self, CreateRequest, Created, Cursor, ListFilter},
    wire::{
        FaceUrl, cursor,
        replicate::{self, Account, CreatePrediction, Page, Version},
    },
};

/// Predictions on a page.
const PAGE: u32 = 100;

/// `POST /predictions`
#[utoipa::path(
    post,
    path = "/predictions",
    summary = "Create a prediction",
    tag = "Replicate",
    params(
        Wait, CancelAfter, IdempotencyKey,
    ),
    request_body = replicate::body::CreatePrediction,
    responses(
        (status = 201, description = "The prediction.", body = replicate::Prediction),
        (status = 202, description = "It did not end in the time it was to be waited for.", body = replicate::Prediction),
    ),
    security(("key" = ["predictions:write"])),
)]
pub(super) async fn create(
    State(api): State<Api>,
    Creator(caller): Creator,
    face: FaceUrl,
    terms: Terms,
    JsonBody(body): JsonBody,
) -> Result<Response, Error> {
    let body = CreatePrediction::parse(body)?.with_version()?;
    let created =
        api.service.create(caller, create_request(body, &terms, &face)).await.map_err(|error| match error {
            // The version named the model.
            service::Error::UnknownModel(name) => service::Error::UnknownVersion(name),
            error => error,
        })?;
    Ok(answer_created(&api, caller, created, terms.wait, &face).await)
}

/// `POST /models/{owner}/{name}/predictions`
#[utoipa::path(
    post,
    path = "/models/{owner}/{name}/predictions",
    summary = "Create a prediction by a model",
    tag = "Replicate",
    params(
        ("owner" = String, Path, description = "Who lists the model."), ("name" = String, Path, description = "Its slug."),
        Wait, CancelAfter, IdempotencyKey,
    ),
    request_body = replicate::body::CreatePrediction,
    responses(
        (status = 201, description = "The prediction.", body = replicate::Prediction),
        (status = 202, description = "It did not end in the time it was to be waited for.", body = replicate::Prediction),
    ),
    security(("key" = ["predictions:write"])),
)]
pub(super) async fn create_of_model(
    State(api): State<Api>,
    Creator(caller): Creator,
    NamedModel(model): NamedModel,
    face: FaceUrl,
    terms: Terms,
    JsonBody(body): JsonBody,
) -> Result<Response, Error> {
    let body = CreatePrediction { model: Some(model.full_name()), ..CreatePrediction::parse(body)? };
    let created = api.service.create(caller, create_request(body, &terms, &face)).await?;
    Ok(answer_created(&api, caller, created, terms.wait, &face).await)
}

/// `GET /predictions/{id}`
#[utoipa::path(
    get,
    path = "/predictions/{id}",
    summary = "Get a prediction",
    tag = "Replicate",
    params(
        ("id" = uuid::Uuid, Path, description = "The prediction's id."),
        Wait,
    ),
    responses(
        (status = 200, description = "The prediction.", body = replicate::Prediction),
    ),
    security(("key" = ["predictions:read"])),
)]
pub(super) async fn get(
    State(api): State<Api>,
    Reader(caller): Reader,
    KnownId(id): KnownId,
    face: FaceUrl,
    wait: Wait,
) -> Result<Response, Error> {
    let prediction = api.service.wait(caller, id, wait.patience.unwrap_or(Duration::ZERO)).await?;
    Ok((wait, Json(document(&api, &prediction, &face).await)).into_response())
}

/// `POST /predictions/{id}/cancel`. One that has ended stays as it is, which its client learns from the answer.
#[utoipa::path(
    post,
    path = "/predictions/{id}/cancel",
    summary = "Cancel a prediction",
    tag = "Replicate",
    params(
        ("id" = uuid::Uuid, Path, description = "The prediction's id."),
    ),
    responses(
        (status = 200, description = "The prediction. One that has ended stays as it is.", body = replicate::Prediction),
    ),
    security(("key" = ["predictions:write"])),
)]
pub(super) async fn cancel(
    State(api): State<Api>,
    Writer(caller): Writer,
    KnownId(id): KnownId,
    face: FaceUrl,
) -> Result<Response, Error> {
    let prediction = api.service.cancel(caller, id).await?;
    Ok(Json(document(&api, &prediction, &face).await).into_response())
}

/// `GET /predictions`
#[utoipa::path(
    get,
    path = "/predictions",
    summary = "List your predictions",
    tag = "Replicate",
    params(
        ("created_after" = Option<chrono::DateTime<chrono::Utc>>, Query, description = "Only later ones."),
        ("created_before" = Option<chrono::DateTime<chrono::Utc>>, Query, description = "Only earlier ones."),
        ("source" = Option<String>, Query, description = "`web`: none."),
        ("cursor" = Option<String>, Query, description = "From the `next` of a page."),
    ),
    responses(
        (status = 200, description = "Some of your predictions, newest first.", body = replicate::Page<replicate::Prediction>),
    ),
    security(("key" = ["predictions:read"])),
)]
pub(super) async fn list(
    State(api): State<Api>,
    Reader(caller): Reader,
    face: FaceUrl,
    query: ListQuery,
) -> Result<Response, Error> {
    let mut predictions = match query.from_web {
        true => Vec::new(),
        // One more than a page tells whether there is a next.
        false => api.service.list(caller, &ListFilter { limit: PAGE + 1, ..query.filter }).await?,
    };
    let has_more = predictions.len() > PAGE as usize;
    predictions.truncate(PAGE as usize);
    let next = predictions.last().filter(|_| has_more).map(cursor::after);
    let next = next.map(|cursor| format!("{face}/predictions?cursor={cursor}{}", query.rest));
    let results = predictions.iter().map(|prediction| {
        // Not in data URIs, whatever the server's scheme: a page of those would have hundreds of megabytes.
        let output = prediction.output.as_ref();
        let output = output.map(|files| files.iter().map(|file| face.server.file(&file.key)).collect());
        replicate::Prediction::new(prediction, model_of(&api, prediction), output, &face)
    });
    Ok(Json(Page::new(results.collect(), next)).into_response())
}

/// `GET /models`
#[utoipa::path(
    get,
    path = "/models",
    summary = "List the models",
    tag = "Replicate",
    responses(
        (status = 200, description = "Every model.", body = replicate::Page<replicate::Model>),
    ),
    security(("key" = ["predictions:read"])),
)]
pub(super) async fn list_models(State(api): State<Api>, _: Reader, face: FaceUrl) -> Response {
    let models = api.service.catalog().models().iter().map(|model| replicate::Model::new(model, &face)).collect();
    Json(Page::new(models, None)).into_response()
}

/// `GET /models/{owner}/{name}`
#[utoipa::path(
    get,
    path = "/models/{owner}/{name}",
    summary = "Get a model",
    tag = "Replicate",
    params(
        ("owner" = String, Path, description = "Who lists the model."), ("name" = String, Path, description = "Its slug."),
    ),
    responses(
        (status = 200, description = "The model.", body = replicate::Model),
    ),
    security(("key" = ["predictions:read"])),
)]
pub(super) async fn get_model(_: Reader, NamedModel(model): NamedModel, face: FaceUrl) -> Response {
    Json(replicate::Model::new(&model, &face)).into_response()
}

/// `GET /models/{owner}/{name}/versions`: the one there is. The vendors' ids for it are other names, not other versions.
#[utoipa::path(
    get,
    path = "/models/{owner}/{name}/versions",
    summary = "List a model's versions",
    tag = "Replicate",
    params(
        ("owner" = String, Path, description = "Who lists the model."), ("name" = String, Path, description = "Its slug."),
    ),
    responses(
        (status = 200, description = "The one there is.", body = replicate::Page<Version>),
    ),
    security(("key" = ["predictions:read"])),
)]
pub(super) async fn list_versions(_: Reader, NamedModel(model): NamedModel) -> Response {
    Json(Page::new(vec![Version::new(&model, &model.version)], None)).into_response()
}

/// `GET /models/{owner}/{name}/versions/{id}`
#[utoipa::path(
    get,
    path = "/models/{owner}/{name}/versions/{id}",
    summary = "Get a version of a model",
    tag = "Replicate",
    params(
        ("owner" = String, Path, description = "Who lists the model."), ("name" = String, Path, description = "Its slug."),
        ("id" = String, Path, description = "The version's id, ours or a vendor's."),
    ),
    responses(
        (status = 200, description = "The version.", body = Version),
    ),
    security(("key" = ["predictions:read"])),
)]
pub(super) async fn get_version(
    State(api): State<Api>,
    _: Reader,
    Several((owner, name, id)): Several<(String, String, String)>,
) -> Result<Response, Error> {
    let model = api.service.catalog().find(&format!("{owner}/{name}:{id}")).ok_or(service::Error::NotFound)?;
    Ok(Json(Version::new(model, &id)).into_response())
}

/// `GET /account`
#[utoipa::path(
    get,
    path = "/account",
    summary = "Get the account of the key",
    tag = "Replicate",
    responses(
        (status = 200, description = "Whose key it is.", body = Account),
    ),
    security(("key" = ["predictions:read"])),
)]
pub(super) async fn get_account(State(api): State<Api>, Reader(caller): Reader) -> Result<Response, Error> {
    Ok(Json(Account::new(api.service.account_name(caller).await?)).into_response())
}

/// `GET /hardware`: there is none to choose from.
#[utoipa::path(
    get,
    path = "/hardware",
    summary = "List hardware to choose from",
    tag = "Replicate",
    responses(
        (status = 200, description = "There is none to choose from.", body = Vec<String>),
    ),
    security(("key" = ["predictions:read"])),
)]
pub(super) async fn list_hardware(_: Reader) -> Response {
    Json(Vec::<()>::new()).into_response()
}

/// `GET /collections`: models are few enough without.
#[utoipa::path(
    get,
    path = "/collections",
    summary = "List collections of models",
    tag = "Replicate",
    responses(
        (status = 200, description = "There are none.", body = replicate::Page<String>),
    ),
    security(("key" = ["predictions:read"])),
)]
pub(super) async fn list_collections(_: Reader) -> Response {
    Json(Page::<()>::new(Vec::new(), None)).into_response()
}

/// What a create says in its headers.
pub(super) struct Terms {
    wait: Wait,
    cancel_after: Option<Duration>,
    idempotency_key: Option<String>,
}

impl FromRequestParts<Api> for Terms {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, Error> {
        let wait = Wait::from_request_parts(parts, api).await?;
        let CancelAfter(cancel_after) = CancelAfter::from_request_parts(parts, api).await?;
        let IdempotencyKey(idempotency_key) = IdempotencyKey::from_request_parts(parts, api).await?;
        Ok(Self { wait, cancel_after, idempotency_key })
    }
}

/// The model in a URL's path.
pub(super) struct NamedModel(Model);

impl FromRequestParts<Api> for NamedModel {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, Error> {
        let path = Path::<(String, String)>::from_request_parts(parts, api).await.ok();
        let model = path.and_then(|Path((owner, name))| api.service.catalog().find(&format!("{owner}/{name}")));
        Ok(Self(model.ok_or(service::Error::NotFound)?.clone()))
    }
}

/// Which predictions to list: `?created_after=&created_before=&source=&cursor=`.
pub(super) struct ListQuery {
    filter: ListFilter,
    /// Asks for those made by hand on the vendor's site, of which there are none here.
    from_web: bool,
    /// The parameters but for the cursor, for the next page.
    rest: String,
}

impl FromRequestParts<Api> for ListQuery {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, _: &Api) -> Result<Self, Error> {
        let parameters = Parameters::read(parts, &["created_after", "created_before", "source", "cursor"])?;
        let (from, until) = (parameters.time("created_after")?, parameters.time("created_before")?);
        let after = match parameters.get("cursor").map(cursor::parse) {
            Some(None) => return Err(InvalidInput::one("cursor", "must be one that a list has returned").into()),
            after => after.flatten().map(|(created_at, id)| Cursor { created_at, id }),
        };
        let from_web = match parameters.get("source") {
            None => false,
            Some("web") => true,
            Some(_) => return Err(InvalidInput::one("source", "must be web").into()),
        };
        let written = |name, time: Option<DateTime<Utc>>| {
            // In UTC with a Z, which needs no escape.
            time.map(|time| format!("&{name}={}", time.to_rfc3339_opts(chrono::SecondsFormat::AutoSi, true)))
        };
        let rest = [written("created_after", from), written("created_before", until)].into_iter().flatten().collect();
        Ok(Self { filter: ListFilter { from, until, after, ..ListFilter::default() }, from_web, rest })
    }
}

fn create_request(body: CreatePrediction, terms: &Terms, face: &FaceUrl) -> CreateRequest {
    let CreatePrediction { model, version, input, webhook } = body;
    CreateRequest {
        id: None,
        model,
        version,
        input,
        dialect: Dialect::Replicate,
        defaults: replicate::DEFAULTS,
        cancel_after: terms.cancel_after,
        idempotency_key: terms.idempotency_key.clone(),
        priority: None,
        webhook: webhook.map(|request| webhooks::placed(request, face)),
    }
}

/// The answer to a create that succeeded. Nothing after it can fail the request: its client would repeat it.
async fn answer_created(api: &Api, caller: Caller, created: Created, wait: Wait, face: &FaceUrl) -> Response {
    let replayed = Replayed::of(&created);
    let mut wait = wait.shortened();
    let prediction = wait.for_result(&api.service, caller, created).await;
    let document = document(api, &prediction, face).await;
    let (status, document) = match prediction.status.is_terminal() {
        true => (StatusCode::CREATED, document),
        false if wait.patience.is_some() => (StatusCode::ACCEPTED, document.not_yet()),
        false => (StatusCode::CREATED, document.not_yet()),
    };
    let location = [(LOCATION, replicate::prediction_url(face, prediction.id))];
    (status, wait, replayed, location, Json(document)).into_response()
}

async fn document<'a>(api: &Api, prediction: &'a Prediction, face: &FaceUrl) -> replicate::Prediction<'a> {
    let output = match &prediction.output {
        None => None,
        Some(files) => Some(stream::iter(files).then(|file| file_url(api, file, face)).collect().await),
    };
    replicate::Prediction::new(prediction, model_of(api, prediction), output, face)
}

/// Where an image can be read. The vendor's clients take `https:` and `data:` for files and leave any other URL a text,
/// so without TLS the image itself is sent.
async fn file_url(api: &Api, file: &Artifact, face: &FaceUrl) -> String {
    let url = face.server.file(&file.key);
    if face.server.is_https() {
        return url;
    }
    match files::read(api, file).await {
        Ok(bytes) => replicate::data_uri(&file.content_type, &bytes),
        Err(error) => {
            tracing::warn!(
                error = with_causes(error),
                key = file.key,
                "An output could not be read into its prediction"
            );
            url
        }
    }
}
