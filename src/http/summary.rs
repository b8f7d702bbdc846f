//! What an answer says of its prediction in its head, for whoever gets a picture in the body and not a document, and for
//! whoever looks at where the time went (`Server-Timing`).

use std::time::Duration;

use axum::http::{HeaderMap, HeaderName, HeaderValue};

use crate::domain::Prediction;

const FOURSTEP_PREDICTION_ID: HeaderName = HeaderName::from_static("fourstep-prediction-id");
const FOURSTEP_COST_USD: HeaderName = HeaderName::from_static("fourstep-cost-usd");
const FOURSTEP_SEED: HeaderName = HeaderName::from_static("fourstep-seed");
const SERVER_TIMING: HeaderName = HeaderName::from_static("server-timing");

/// Its id, the seed of its first image, what it cost, and its times.
pub(super) fn of(prediction: &Prediction) -> HeaderMap {
    let mut headers = timing(prediction);
    put(&mut headers, FOURSTEP_PREDICTION_ID, prediction.id.to_string());
    put(&mut headers, FOURSTEP_SEED, prediction.input.seed.to_string());
    if let Some(cost) = prediction.cost {
        put(&mut headers, FOURSTEP_COST_USD, cost.to_string());
    }
    headers
}

/// How long a prediction that has ended waited, and how long it was on the device, in milliseconds.
pub(super) fn timing(prediction: &Prediction) -> HeaderMap {
    let mut headers = HeaderMap::new();
    let Some(ended) = prediction.completed_at else { return headers };
    let since_created = |moment: chrono::DateTime<chrono::Utc>| (moment - prediction.created_at).to_std().ok();
    let metrics = [
        ("queue", prediction.started_at.and_then(since_created)),
        ("device", prediction.device_time),
        ("total", since_created(ended)),
    ];
    let metrics = metrics.into_iter().filter_map(|(name, time)| Some(format!("{name};dur={}", milliseconds(time?))));
    put(&mut headers, SERVER_TIMING, metrics.collect::<Vec<_>>().join(", "));
    headers
}

/// To the microsecond.
fn milliseconds(time: Duration) -> String {
    format!("{}.{:03}", time.as_millis(), time.subsec_micros() % 1000)
}

fn put(headers: &mut HeaderMap, name: HeaderName, value: String) {
    headers.extend(HeaderValue::try_from(value).ok().map(|value| (name, value)));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn milliseconds_have_three_decimals() {
        assert_eq!(milliseconds(Duration::from_micros(2_000_007)), "2000.007");
        assert_eq!(milliseconds(Duration::ZERO), "0.000");
    }
}
