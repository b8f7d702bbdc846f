//! Cursors: a place in a list of predictions, as an opaque word for the URL of the next page.

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use chrono::{DateTime, Utc};
use uuid::Uuid;

use crate::domain::{Prediction, PredictionId};

/// Microseconds since 1970, then the id.
const LENGTH: usize = size_of::<i64>() + size_of::<Uuid>();

/// The place just after a prediction.
pub fn after(prediction: &Prediction) -> String {
    let mut bytes = [0; LENGTH];
    let (time, id) = bytes.split_at_mut(size_of::<i64>());
    time.copy_from_slice(&prediction.created_at.timestamp_micros().to_be_bytes());
    id.copy_from_slice(prediction.id.as_uuid().as_bytes());
    BASE64_URL_SAFE_NO_PAD.encode(bytes)
}

/// Reads a cursor back: the creation and the id of the prediction it follows. `None` if it is none of ours.
pub fn parse(cursor: &str) -> Option<(DateTime<Utc>, PredictionId)> {
    let bytes: [u8; LENGTH] = BASE64_URL_SAFE_NO_PAD.decode(cursor).ok()?.try_into().ok()?;
    let (time, id) = bytes.split_first_chunk()?;
    let created_at = DateTime::from_timestamp_micros(i64::from_be_bytes(*time))?;
    // The database's calendar ends earlier than this one's.
    let sensible = DateTime::UNIX_EPOCH..DateTime::from_timestamp_secs(253_402_300_800)?;
    let id = Uuid::from_slice(id).ok()?;
    sensible.contains(&created_at).then_some((created_at, id.into()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn whatever_it_is_given_it_does_not_panic(text: String, bytes: [u8; LENGTH]) {
            parse(&text);
            parse(&BASE64_URL_SAFE_NO_PAD.encode(bytes));
        }
    }

    #[test]
    fn a_time_the_database_cannot_hold_is_refused() {
        for time in [i64::MIN, -1, 253_402_300_800_000_000, i64::MAX] {
            let mut bytes = [0; LENGTH];
            bytes[..8].copy_from_slice(&time.to_be_bytes());
            assert_eq!(parse(&BASE64_URL_SAFE_NO_PAD.encode(bytes)), None);
        }
    }
}
