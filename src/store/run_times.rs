//! How long runs took, for guesses at how long the next ones will.

use std::time::Duration;

use super::{Result, Store};
use crate::domain::Input;

/// Enough for a median, and few enough to read each time.
const LATEST: i64 = 100;

impl Store {
    /// The inputs and device times of those of the model's latest charges that are for successes: what was canceled is charged
    /// as well, and says nothing of how long a run takes.
    pub async fn latest_runs(&self, model: &str) -> Result<Vec<(Input, Duration)>> {
        let rows: Vec<(serde_json::Value, i64)> = sqlx::query_as(
            "select input, latest.device_us
             from (select prediction_id, device_us from ledger where model = $1 order by id desc limit $2) as latest
             join predictions on id = prediction_id
             where status = 'succeeded'",
        )
        .bind(model)
        .bind(LATEST)
        .fetch_all(&self.pool)
        .await?;
        // What a newer version drew, with a word that this one does not know, tells it nothing.
        let run = |(input, device_us): (serde_json::Value, i64)| {
            Some((serde_json::from_value(input).ok()?, Duration::from_micros(device_us.unsigned_abs())))
        };
        Ok(rows.into_iter().filter_map(run).collect())
    }
}
