//! A prediction as it happens: a stream of server-sent events.
//!
//! `queued` with the position, `started`, `step` with a preview, and in the end `finished` with the prediction itself,
//! after which the stream ends. Every client hears how things are now, whenever it comes, so coming back after a broken
//! connection needs no memory here, and none is kept for longer than some minutes: one that is not wanted any more, behind a
//! proxy that does not say so, would be there for ever. Waiting costs a socket and no database connection.

use std::time::Duration;

use axum::{
    extract::State,
    http::{HeaderMap, HeaderName, StatusCode, header::CACHE_CONTROL},
    response::{
        IntoResponse, Response,
        sse::{Event, KeepAlive, Sse},
    },
};
use futures_util::{Stream, stream};
use tokio::time::Instant;

use super::{Api, Error, caller::Reader, extract::KnownId, model_of};
use crate::{
    domain::chance,
    service::{self, Follow, Sight},
    wire::{
        BaseUrl,
        native::{self, events::Heard},
    },
};

const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");
/// nginx would keep the stream to itself until it has a buffer full.
pub(super) const X_ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");
/// Proxies give up on connections that are silent for a minute, some for half of one.
pub(super) const HEARTBEAT: Duration = Duration::from_secs(15);
/// How soon a client is to come back.
const RECONNECT: Duration = Duration::from_secs(1);

/// `GET /predictions/{id}/events`
#[utoipa::path(
    get,
    path = "/predictions/{id}/events",
    summary = "Follow a prediction as it happens",
    tag = "Predictions",
    params(
        ("id" = uuid::Uuid, Path, description = "The prediction's id."),
        ("Last-Event-ID" = Option<String>, Header, description = "The last event that was heard."),
    ),
    responses(
        (status = 200, description = "Events `queued`, `started`, `step` and `finished`.", body = native::events::ServerSentEvent, content_type = "text/event-stream"),
        (status = 204, description = "Everything has been heard."),
    ),
    security(("key" = ["predictions:read"])),
)]
pub(super) async fn follow(
    State(api): State<Api>,
    Reader(caller): Reader,
    KnownId(id): KnownId,
    base: BaseUrl,
    headers: HeaderMap,
) -> Result<Response, Error> {
    let last = headers.get(LAST_EVENT_ID).and_then(|id| id.to_str().ok()).unwrap_or_default();
    let Ok(heard) = last.parse::<Heard>();
    if heard == Heard::Finished {
        api.service.get(caller, id).await?;
        // What tells a browser's EventSource that there is nothing to come back for.
        return Ok(StatusCode::NO_CONTENT.into_response());
    }
    let follow = api.service.follow(api.service.hold(caller)?, id).await?;
    let end = Instant::now() + lasts(api.settings.event_stream);
    let events = Sse::new(events(Listener { api, base, follow, heard, greeted: false, end }));
    let events = events.keep_alive(KeepAlive::new().interval(HEARTBEAT).text("still here"));
    Ok(([(CACHE_CONTROL, "no-store"), (X_ACCEL_BUFFERING, "no")], events).into_response())
}

/// One client of one prediction.
struct Listener {
    api: Api,
    base: BaseUrl,
    follow: Follow,
    heard: Heard,
    greeted: bool,
    end: Instant,
}

/// How long a stream lasts: up to half as long again, so that those that began together do not come back together.
fn lasts(least: Duration) -> Duration {
    least.mul_f64(1.0 + chance() / 2.0)
}

fn events(listener: Listener) -> impl Stream<Item = Result<Event, service::Error>> {
    stream::try_unfold(listener, async |mut listener| {
        while listener.heard != Heard::Finished {
            // Time ends the stream, or a shutdown; its client comes back, perhaps to another server.
            let sight = tokio::time::timeout_at(listener.end, listener.follow.next()).await.ok().transpose()?;
            let Some(sight) = sight.flatten() else { break };
            if let Some(event) = listener.event(sight)? {
                return Ok(Some((event, listener)));
            }
        }
        Ok(None)
    })
}

impl Listener {
    fn event(&mut self, Sight { prediction, place, progress }: Sight) -> Result<Option<Event>, service::Error> {
        let Some(news) = self.heard.news(&prediction, place, progress) else { return Ok(None) };
        self.heard = news.heard();
        let document = native::Prediction::new(&prediction, model_of(&self.api, &prediction), place, &self.base);
        let data = news.data(&prediction, &document).map_err(|error| service::Error::Internal(error.into()))?;
        let event = Event::default().event(news.name()).id(self.heard.to_string()).data(data);
        // Once is enough.
        let is_first = !std::mem::replace(&mut self.greeted, true);
        Ok(Some(if is_first { event.retry(RECONNECT) } else { event }))
    }
}
