//! Numbers and times as clients read them, written digit by digit from integers.
//!
//! A JSON number is a decimal; only a float in between would make it inexact, so there is none.

use std::time::Duration;

use chrono::{DateTime, SecondsFormat, Utc};
use serde::{Serialize, Serializer, ser::Error};
use serde_json::value::RawValue;

use utoipa::{
    PartialSchema, ToSchema,
    openapi::{
        ObjectBuilder, RefOr, Schema,
        schema::{KnownFormat, SchemaFormat, Type},
    },
};

use crate::domain::NanoUsd;

/// Seconds with as many of six decimals as it takes, at least one: `2.0`, `1.234567`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Seconds(pub(super) Duration);

/// US dollars with as many of nine decimals as it takes, at least two: `0.00308`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Dollars(pub(super) NanoUsd);

/// A moment in UTC to the microsecond: `2026-01-31T12:00:00.000001Z`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Moment(pub(super) DateTime<Utc>);

impl Serialize for Seconds {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let micros = format!("{:06}", self.0.subsec_micros());
        let digits = micros.trim_end_matches('0').len().max(1);
        number(format!("{}.{}", self.0.as_secs(), &micros[..digits]), serializer)
    }
}

impl Serialize for Dollars {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        number(self.0.to_string(), serializer)
    }
}

impl Serialize for Moment {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0.to_rfc3339_opts(SecondsFormat::Micros, true))
    }
}

/// How each is described. All are written out where they stand: a name for them would say less.
macro_rules! described {
    ($name:ident, $schema:expr) => {
        impl PartialSchema for $name {
            fn schema() -> RefOr<Schema> {
                $schema.into()
            }
        }

        impl ToSchema for $name {}
    };
}

described!(Seconds, ObjectBuilder::new().schema_type(Type::Number).minimum(Some(0.0)).description(Some("Seconds.")));
described!(
    Dollars,
    ObjectBuilder::new().schema_type(Type::Number).description(Some("US dollars, with as many decimals as it takes."))
);
described!(
    Moment,
    ObjectBuilder::new().schema_type(Type::String).format(Some(SchemaFormat::KnownFormat(KnownFormat::DateTime)))
);

fn number<S: Serializer>(decimal: String, serializer: S) -> Result<S::Ok, S::Error> {
    RawValue::from_string(decimal).map_err(S::Error::custom)?.serialize(serializer)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(value: impl Serialize) -> String {
        serde_json::to_string(&value).expect("serializable")
    }

    #[test]
    fn every_digit_arrives_and_none_is_made_up() {
        // 0.1 + 0.2 and its like would show here.
        for (micros, text) in
            [(0, "0.0"), (2_000_000, "2.0"), (300_000, "0.3"), (1, "0.000001"), (1_234_567, "1.234567")]
        {
            assert_eq!(json(Seconds(Duration::from_micros(micros))), text);
        }
        for (nano, text) in [(3_080_000, "0.00308"), (i64::MAX, "9223372036.854775807"), (0, "0.00")] {
            assert_eq!(json(Dollars(NanoUsd::new(nano))), text);
        }
    }

    #[test]
    fn a_time_always_has_six_decimals() {
        let moment = DateTime::from_timestamp_micros(1_700_000_000_000_000).expect("valid");
        assert_eq!(json(Moment(moment)), r#""2023-11-14T22:13:20.000000Z""#);
    }
}
