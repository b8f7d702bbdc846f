//! How single values are read: durations by their unit, empty text as "not set", lists also from one line of text.

use std::{fmt, net::SocketAddr, time::Duration};

use serde::{
    Deserialize, Deserializer,
    de::{Error as _, IntoDeserializer, SeqAccess, Visitor},
};

/// Longer than anything can be meant, and short enough to be added to a point in time.
const LONGEST_HOURS: f64 = 24.0 * 366.0 * 100.0;

pub(super) fn milliseconds<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    // A mock may take no time at all; everything else that is measured in seconds or hours must take some.
    let number = f64::deserialize(deserializer)?;
    duration(number, 0.001).ok_or_else(|| D::Error::custom(format!("{number:?} is not a number of milliseconds")))
}

pub(super) fn seconds<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    positive(deserializer, 1.0, "seconds")
}

pub(super) fn hours<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    positive(deserializer, 3600.0, "hours")
}

pub(super) fn address<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SocketAddr, D::Error> {
    let text = String::deserialize(deserializer)?;
    text.parse().map_err(|_| D::Error::custom(format!("{text:?} is not an address and a port, as 127.0.0.1:8000")))
}

/// Empty text is `None`.
pub(super) fn optional_address<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<SocketAddr>, D::Error> {
    let text = String::deserialize(deserializer)?;
    if text.is_empty() { Ok(None) } else { address(text.into_deserializer()).map(Some) }
}

/// Empty text is `None`.
pub(super) fn optional<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    let text = String::deserialize(deserializer)?;
    if text.is_empty() { Ok(None) } else { T::deserialize(text.into_deserializer()).map(Some) }
}

/// A list, or text with commas.
pub(super) fn list<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    struct List;

    impl<'de> Visitor<'de> for List {
        type Value = Vec<String>;

        fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
            formatter.write_str("a list of texts")
        }

        fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
            Ok(text.split(',').map(str::trim).filter(|item| !item.is_empty()).map(str::to_owned).collect())
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self::Value, A::Error> {
            let mut list = Vec::new();
            while let Some(item) = items.next_element()? {
                list.push(item);
            }
            Ok(list)
        }
    }

    deserializer.deserialize_any(List)
}

fn positive<'de, D: Deserializer<'de>>(deserializer: D, unit: f64, name: &str) -> Result<Duration, D::Error> {
    let number = f64::deserialize(deserializer)?;
    duration(number, unit)
        .filter(|duration| !duration.is_zero())
        .ok_or_else(|| D::Error::custom(format!("{number:?} is not a positive number of {name}")))
}

fn duration(number: f64, unit: f64) -> Option<Duration> {
    let seconds = number * unit;
    (seconds <= LONGEST_HOURS * 3600.0).then(|| Duration::try_from_secs_f64(seconds).ok()).flatten()
}
