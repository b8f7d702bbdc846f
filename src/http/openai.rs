//! OpenAI's face: its URLs, each a handler that extracts, asks and answers.
//!
//! Its clients ask once and are given the pictures, so a create is held until its prediction ends. One that takes too long
//! for that goes on, and its client is told not to begin another. A server that shuts down holds it for as long as it may.

use std::collections::VecDeque;

use axum::{
    Json,
    extract::State,
    http::{HeaderMap, header::CACHE_CONTROL},
    response::{
        IntoResponse, Response,
        sse::{KeepAlive, Sse},
    },
};
use futures_util::{Stream, stream};
use tokio::time::Instant;

use super::{
    Api, Error,
    caller::{Creator, Reader, Writer},
    error::NOT_AGAIN,
    events::{HEARTBEAT, X_ACCEL_BUFFERING},
    extract::{JsonBody, Rest},
    files,
    form::FormBody,
    hangup::Client,
    idempotency::{IdempotencyKey, Replayed},
    summary,
    timing::hold,
};
use crate::{
    domain::{Caller, Dialect, InputLimits, Prediction, PredictionId, Status},
    service::{self, CreateRequest, Follow, Sight},
    wire::{
        BaseUrl,
        native::events::ServerSentEvent,
        openai::{
            self, Answer, Completed, CreateImages, Event, Failed, FormValue, Image, Images, Partial, PartialPlan,
        },
    },
};

/// `POST /images/generations`
#[utoipa::path(
    post,
    path = "/images/generations",
    summary = "Make pictures of a prompt",
    tag = "OpenAI",
    params(
        IdempotencyKey,
    ),
    request_body = openai::body::Generation,
    responses(
        (status = 200, description = "The pictures; with `stream`, server-sent events.", content((openai::Images = "application/json"), (ServerSentEvent = "text/event-stream"))),
        (status = 409, description = "The prediction was canceled."),
        (status = 503, description = "Not now; `Retry-After` says when to come back. Without `Retry-After`, and with `x-should-retry: false`: the pictures took longer than `server.openai_hold_seconds`. Their prediction goes on and is charged; `message` and `Fourstep-Prediction-Id` have its id, and `GET /predictions/{id}?wait=60` waits on for it."),
    ),
    security(("key" = ["predictions:write"])),
)]
pub(super) async fn generate(
    State(api): State<Api>,
    Creator(caller): Creator,
    base: BaseUrl,
    client: Client,
    key: IdempotencyKey,
    JsonBody(body): JsonBody,
) -> Result<Response, Error> {
    let limits = limits(&api, body.get("model").and_then(|model| model.as_str()));
    let images = CreateImages::parse(body, &limits)?;
    create(&api, caller, &base, &client, key, images, Event::Generation).await
}

/// `POST /images/edits`: a picture out of another.
#[utoipa::path(
    post,
    path = "/images/edits",
    summary = "Make a picture of another",
    tag = "OpenAI",
    params(
        IdempotencyKey,
    ),
    request_body(content = openai::body::Edit, content_type = "multipart/form-data"),
    responses(
        (status = 200, description = "The pictures; with `stream`, server-sent events.", content((openai::Images = "application/json"), (ServerSentEvent = "text/event-stream"))),
        (status = 409, description = "The prediction was canceled."),
        (status = 503, description = "Not now; `Retry-After` says when to come back. Without `Retry-After`, and with `x-should-retry: false`: the pictures took longer than `server.openai_hold_seconds`. Their prediction goes on and is charged; `message` and `Fourstep-Prediction-Id` have its id, and `GET /predictions/{id}?wait=60` waits on for it."),
    ),
    security(("key" = ["predictions:write"])),
)]
pub(super) async fn edit(
    State(api): State<Api>,
    Creator(caller): Creator,
    base: BaseUrl,
    client: Client,
    key: IdempotencyKey,
    FormBody(form): FormBody,
) -> Result<Response, Error> {
    let model = form.iter().find_map(|(name, value)| match value {
        FormValue::Text(text) if name == "model" => Some(text.as_str()),
        _ => None,
    });
    let limits = limits(&api, model);
    let images = CreateImages::parse_form(form, &limits)?;
    create(&api, caller, &base, &client, key, images, Event::Edit).await
}

/// `POST /images/variations`. Being told so is better than pictures of something else.
#[utoipa::path(
    post,
    path = "/images/variations",
    summary = "Make variations of a picture: not offered",
    tag = "OpenAI",
    responses(
        (status = 501, description = "There are none here."),
    ),
    security(("key" = ["predictions:write"])),
)]
pub(super) async fn vary(_: Writer) -> Error {
    Error::NotBuilt("variations")
}

/// `GET /models`
#[utoipa::path(
    get,
    path = "/models",
    summary = "List the models",
    tag = "OpenAI",
    responses(
        (status = 200, description = "Every model.", body = openai::Models),
    ),
    security(("key" = ["predictions:read"])),
)]
pub(super) async fn list_models(State(api): State<Api>, _: Reader) -> Response {
    Json(openai::Models::new(api.service.catalog().models())).into_response()
}

/// `GET /models/{id}`
#[utoipa::path(
    get,
    path = "/models/{id}",
    summary = "Get a model",
    tag = "OpenAI",
    params(
        ("id" = String, Path, description = "The model's slug."),
    ),
    responses(
        (status = 200, description = "The model.", body = openai::Model),
    ),
    security(("key" = ["predictions:read"])),
)]
pub(super) async fn get_model(State(api): State<Api>, _: Reader, Rest(name): Rest) -> Result<Response, Error> {
    let model = api.service.catalog().find(&name).ok_or(service::Error::UnknownModel(name))?;
    Ok(Json(openai::Model::new(model)).into_response())
}

/// Of the model that will draw; whether there is such a model is found out later.
fn limits(api: &Api, model: Option<&str>) -> InputLimits {
    let catalog = api.service.catalog();
    let asked = model.and_then(|name| catalog.find(name)).unwrap_or_else(|| catalog.default_model());
    catalog.answering(asked).limits
}

async fn create(
    api: &Api,
    caller: Caller,
    base: &BaseUrl,
    client: &Client,
    IdempotencyKey(idempotency_key): IdempotencyKey,
    CreateImages { model, input, answer }: CreateImages,
    event: Event,
) -> Result<Response, Error> {
    let request = CreateRequest {
        id: None,
        model,
        version: None,
        input,
        dialect: Dialect::OpenAi,
        defaults: openai::DEFAULTS,
        cancel_after: None,
        idempotency_key,
        priority: None,
        webhook: None,
    };
    // Before it is made: without its pictures the answer would be of no use.
    let held = api.service.hold_for_result(caller)?;
    let created = api.service.create(caller, request).await?;
    let replayed = Replayed::of(&created);
    let by_url = match answer {
        Answer::Stream { partial_images } => {
            let (about, id) = (summary::of(&created.prediction), created.prediction.id);
            let follow = api.service.follow_unseen(held, id);
            match api.service.get(caller, id).await {
                // It is looked at again.
                Ok(_) | Err(service::Error::Unavailable(_)) => {}
                Err(error) => return Ok((replayed, about, [NOT_AGAIN], Error::from(error)).into_response()),
            }
            let pictures = Pictures {
                api: api.clone(),
                id,
                follow,
                plan: PartialPlan::new(partial_images),
                event,
                ready: VecDeque::new(),
                has_ended: false,
                unseen_since: None,
            };
            let events =
                Sse::new(pictures.events()).keep_alive(KeepAlive::new().interval(HEARTBEAT).text("still here"));
            let unbuffered = [(CACHE_CONTROL, "no-store"), (X_ACCEL_BUFFERING, "no")];
            return Ok((replayed, about, unbuffered, events).into_response());
        }
        Answer::Urls => true,
        Answer::Inline => false,
    };
    let prediction = hold(&api.service, &held, created, api.settings.openai_hold, client).await;
    // In every case: the client learns which prediction it is that failed, too.
    let about: HeaderMap = summary::of(&prediction);
    Ok(match images(api, &prediction, by_url, base).await {
        Ok(images) => (replayed, about, Json(images)).into_response(),
        // Whatever it is: the prediction is there, and most likely paid for.
        Err(error) => (replayed, about, [NOT_AGAIN], error).into_response(),
    })
}

async fn images(api: &Api, prediction: &Prediction, by_url: bool, base: &BaseUrl) -> Result<Images, Error> {
    let mut images = Vec::new();
    for file in pictures_of(prediction)? {
        images.push(match by_url {
            true => Image::at(file, base.file(&file.key)),
            false => Image::inline(file, &files::read(api, file).await?),
        });
    }
    Ok(Images::new(prediction, images))
}

/// The pictures of a prediction, or why there are none.
fn pictures_of(prediction: &Prediction) -> Result<&[crate::domain::Artifact], Error> {
    match (prediction.status, &prediction.output, &prediction.failure) {
        (Status::Succeeded, Some(files), _) => Ok(files),
        // A repetition, after retention has deleted them.
        (Status::Succeeded, None, _) => Err(service::Error::NotFound.into()),
        (Status::Queued | Status::Processing, ..) => Err(Error::NotInTime(prediction.id)),
        (Status::Failed | Status::Canceled, _, Some(failure)) => Err(Error::Failed(failure.clone())),
        (Status::Failed | Status::Canceled, _, None) => Err(Error::Canceled),
    }
}

/// A client that watches its pictures come about.
struct Pictures {
    api: Api,
    id: PredictionId,
    follow: Follow,
    plan: PartialPlan,
    event: Event,
    /// To be sent, in order.
    ready: VecDeque<SentEvent>,
    has_ended: bool,
    /// Since when the database or the artifact store is away.
    unseen_since: Option<Instant>,
}

type SentEvent = axum::response::sse::Event;

impl Pictures {
    fn events(self) -> impl Stream<Item = Result<SentEvent, axum::Error>> {
        stream::try_unfold(self, async |mut pictures| {
            loop {
                if let Some(event) = pictures.ready.pop_front() {
                    return Ok(Some((event, pictures)));
                }
                if pictures.has_ended {
                    return Ok(None);
                }
                match pictures.look().await {
                    Ok(()) => pictures.unseen_since = None,
                    // What is drawn is paid for, and its client would begin another.
                    Err(Error::Service(service::Error::Unavailable(error))) if pictures.has_patience() => {
                        tracing::debug!("A stream's prediction cannot be looked at now: {error:#}");
                    }
                    Err(error) => {
                        // Too late for a status.
                        pictures.has_ended = true;
                        let event = SentEvent::default().event(Failed::NAME);
                        pictures.ready.push_back(event.json_data(Failed::new(error.into_refusal()))?);
                    }
                }
            }
        })
    }

    /// Whether nothing has been seen for no longer than is waited for.
    fn has_patience(&mut self) -> bool {
        self.unseen_since.get_or_insert_with(Instant::now).elapsed() < self.api.settings.openai_hold
    }

    /// Looks at the prediction when there is something to see, and makes events of it.
    async fn look(&mut self) -> Result<(), Error> {
        let Some(Sight { prediction, progress, .. }) = self.follow.next().await? else {
            // The server shuts down.
            return Err(Error::NotInTime(self.id));
        };
        let unwritable = |error: axum::Error| service::Error::Internal(error.into());
        if !prediction.status.is_terminal() {
            let partial = progress.and_then(|progress| Some((self.plan.next(&progress)?, progress.preview?)));
            if let Some((index, preview)) = partial {
                let event = SentEvent::default().event(self.event.partial());
                let partial = Partial::new(self.event, &prediction, index, &preview);
                self.ready.push_back(event.json_data(partial).map_err(unwritable)?);
            }
            return Ok(());
        }
        let mut completed = Vec::new();
        for file in pictures_of(&prediction)? {
            let bytes = files::read(&self.api, file).await?;
            let event = SentEvent::default().event(self.event.completed());
            let picture = Completed::new(self.event, &prediction, file, &bytes);
            completed.push(event.json_data(picture).map_err(unwritable)?);
        }
        self.ready.extend(completed);
        self.has_ended = true;
        Ok(())
    }
}
