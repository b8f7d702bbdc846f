//! A client's patience: how long a request is held for a result (`Prefer: wait`, `?wait`), and after how long the
//! prediction itself is given up (`Cancel-After`).

use std::time::Duration;

use axum::{
    extract::FromRequestParts,
    http::{HeaderMap, HeaderName, request::Parts},
    response::{IntoResponseParts, ResponseParts},
};
use utoipa::{
    IntoParams, PartialSchema,
    openapi::path::{Parameter, ParameterIn},
};

use super::{
    Api, Error,
    hangup::Client,
    openapi::{header, parameter},
    query::Parameters,
};
use crate::{
    domain::{Caller, InvalidInput, Prediction},
    service::{Created, Held, PredictionService},
};

/// Longest hold, and what a bare `wait` asks for. Proxies give up on silent connections soon after.
const MAX_WAIT: u64 = 60;
/// Shortest time after which a prediction may be given up: less is no time to run anything.
const MIN_CANCEL_AFTER: u64 = 5;
/// Longest.
const MAX_CANCEL_AFTER: u64 = 24 * 60 * 60;

const PREFER: HeaderName = HeaderName::from_static("prefer");
const PREFERENCE_APPLIED: HeaderName = HeaderName::from_static("preference-applied");
const CANCEL_AFTER: HeaderName = HeaderName::from_static("cancel-after");

/// How long the client wants its request held. As a part of a response it says so (`Preference-Applied`).
#[derive(Clone, Debug)]
pub(super) struct Wait {
    /// `None`: not at all.
    pub(super) patience: Option<Duration>,
    /// Whether it was asked for in a `Prefer` header, which is told if it was heeded.
    preferred: bool,
    client: Client,
}

impl IntoParams for Wait {
    fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        let held = "Seconds to hold the answer until the prediction has ended, at most 60.";
        vec![
            parameter(ParameterIn::Query, "wait", held, u32::schema()),
            header("Prefer", "`wait` or `wait=N` holds the answer as `?wait` does."),
        ]
    }
}

impl Wait {
    /// As long as it may be, unless the client says otherwise.
    pub(super) fn or_longest(self) -> Self {
        Self { patience: self.patience.or(Some(Duration::from_secs(MAX_WAIT))), ..self }
    }

    /// The wait for clients that give up half a second after the time they ask for, as Replicate's do: a little less.
    pub(super) fn shortened(self) -> Self {
        let shortened = |patience: Duration| {
            let margin = if patience >= Duration::from_secs(5) { 1000 } else { 200 };
            patience.saturating_sub(Duration::from_millis(margin))
        };
        Self { patience: self.patience.map(shortened), ..self }
    }

    /// The prediction as it is once it is terminal, or when the client's patience is at its end, or the client is gone.
    /// Should the database fail meanwhile, or the key have as many requests held as it may, as it was before.
    pub(super) async fn for_result(
        &mut self,
        service: &PredictionService,
        caller: Caller,
        created: Created,
    ) -> Prediction {
        let Some(patience) = self.patience else { return created.prediction };
        // The prediction is made, and its client would make it again, were this refused.
        let Ok(held) = service.hold(caller) else {
            self.preferred = false;
            return created.prediction;
        };
        hold(service, &held, created, patience, &self.client).await
    }
}

/// A new prediction as it is once it is terminal, or after `patience`, or when the client is gone. Should the database
/// fail meanwhile, as it was before.
pub(super) async fn hold(
    service: &PredictionService,
    held: &Held,
    Created { prediction, mark, .. }: Created,
    patience: Duration,
    client: &Client,
) -> Prediction {
    if prediction.status.is_terminal() {
        return prediction;
    }
    tokio::select! {
        waited = service.wait_since(held, prediction.id, mark, patience) => waited.unwrap_or(prediction),
        () = client.hung_up() => prediction,
    }
}

impl FromRequestParts<Api> for Wait {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, Error> {
        let asked = Parameters::read(parts, &["wait"])?.get("wait").map(wait_seconds);
        let (seconds, preferred) = match asked {
            Some(None) => return Err(InvalidInput::one("wait", "must be a whole number of seconds").into()),
            Some(seconds) => (seconds, false),
            None => {
                let seconds = preferred_wait(&parts.headers);
                (seconds, seconds.is_some())
            }
        };
        let Ok(client) = Client::from_request_parts(parts, api).await;
        Ok(Self { patience: seconds.map(Duration::from_secs), preferred, client })
    }
}

impl IntoResponseParts for Wait {
    type Error = std::convert::Infallible;

    fn into_response_parts(self, mut response: ResponseParts) -> Result<ResponseParts, Self::Error> {
        if let Some(patience) = self.patience.filter(|_| self.preferred)
            && let Ok(applied) = format!("wait={}", patience.as_secs()).try_into()
        {
            response.headers_mut().insert(PREFERENCE_APPLIED, applied);
        }
        Ok(response)
    }
}

/// RFC 7240. `respond-async` wins over `wait`; what cannot be understood is ignored, as a preference may be.
fn preferred_wait(headers: &HeaderMap) -> Option<u64> {
    let values = headers.get_all(PREFER).into_iter().filter_map(|value| value.to_str().ok());
    let mut wait = None;
    for preference in values.flat_map(|value| value.split(',')) {
        // Parameters after a semicolon are none of those we know.
        let preference = preference.split(';').next().unwrap_or_default();
        let (name, value) = preference.split_once('=').unwrap_or((preference, ""));
        match name.trim().to_ascii_lowercase().as_str() {
            "respond-async" => return None,
            // The first counts.
            "wait" => wait = wait.or_else(|| wait_seconds(value.trim().trim_matches('"'))),
            _ => {}
        }
    }
    wait
}

/// Seconds to hold, no more than we do; nothing means as long as possible.
fn wait_seconds(text: &str) -> Option<u64> {
    match text {
        "" => Some(MAX_WAIT),
        text if !text.bytes().all(|byte| byte.is_ascii_digit()) => None,
        // All digits and yet no number is one that is too large.
        text => Some(text.parse().unwrap_or(MAX_WAIT).min(MAX_WAIT)),
    }
}

/// `Cancel-After`: when to give a new prediction up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct CancelAfter(pub(super) Option<Duration>);

impl IntoParams for CancelAfter {
    fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        let when = "When to give the prediction up if it has not ended: 5s to 24h, like 30, 90s, 5m or 1h30m45s.";
        vec![header("Cancel-After", when)]
    }
}

impl FromRequestParts<Api> for CancelAfter {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, _: &Api) -> Result<Self, Error> {
        let Some(value) = parts.headers.get(CANCEL_AFTER) else {
            return Ok(Self(None));
        };
        let seconds = value.to_str().ok().and_then(duration_seconds);
        match seconds.filter(|seconds| (MIN_CANCEL_AFTER..=MAX_CANCEL_AFTER).contains(seconds)) {
            Some(seconds) => Ok(Self(Some(Duration::from_secs(seconds)))),
            None => {
                let reason = "must be a time between 5s and 24h, like 30, 90s, 5m or 1h30m45s";
                Err(InvalidInput::one("Cancel-After", reason).into())
            }
        }
    }
}

/// Replicate's durations: seconds, or numbers with the units h, m and s, each at most once and in this order.
fn duration_seconds(text: &str) -> Option<u64> {
    let text = text.trim();
    if let Some(seconds) = number(text) {
        return Some(seconds);
    }
    let (mut seconds, mut rest) = (0u64, text);
    for (unit, unit_seconds) in [('h', 3600), ('m', 60), ('s', 1)] {
        if let Some((count, after)) = rest.split_once(unit) {
            seconds = seconds.checked_add(number(count)?.checked_mul(unit_seconds)?)?;
            rest = after;
        }
    }
    (rest.is_empty() && !text.is_empty()).then_some(seconds)
}

fn number(digits: &str) -> Option<u64> {
    // `parse` would take a sign as well.
    digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_replicate_writes_them() {
        let read =
            [("30", 30), ("30s", 30), ("5m", 300), ("1h", 3_600), ("1h30m45s", 5_445), ("1h1s", 3_601), (" 7s ", 7)];
        for (text, seconds) in read {
            assert_eq!(duration_seconds(text), Some(seconds), "{text}");
        }
        for text in ["", "s", "1", "1d", "1s1m", "1m1m", "-5", "+5", "5 s", "1.5h", "٣", "99999999999999999999h"] {
            let seconds = duration_seconds(text);
            assert!(seconds.is_none_or(|seconds| seconds < MIN_CANCEL_AFTER), "{text} was read as {seconds:?}");
        }
    }

    fn preferred(values: &[&str]) -> Option<u64> {
        preferred_wait(&values.iter().map(|value| (PREFER, value.parse().expect("a header value"))).collect())
    }

    #[test]
    fn a_preference_is_found_among_others_and_capped() {
        for (values, seconds) in [
            (&["wait"][..], 60),
            (&["wait=5"], 5),
            (&["WAIT = 5"], 5),
            (&["wait=\"7\"; strict"], 7),
            (&["return=minimal, wait=10"], 10),
            (&["return=minimal", "wait=10"], 10),
            (&["wait=61"], 60),
            (&["wait=99999999999999999999"], 60),
            (&["wait=0"], 0),
            (&["wait=3, wait=4"], 3),
        ] {
            assert_eq!(preferred(values), Some(seconds), "{values:?}");
        }
    }

    #[test]
    fn a_malformed_preference_is_no_preference() {
        for values in
            [&[][..], &["wait=-1"], &["wait=5s"], &["wait=1.5"], &["waiting"], &[","], &["respond-async, wait=5"]]
        {
            assert_eq!(preferred(values), None, "{values:?}");
        }
    }
}
