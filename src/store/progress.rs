//! The progress of running predictions: written by the worker that holds the claim, read by those who watch, and swept
//! away when the attempt is over.

use std::time::Duration;

use super::{Error, Result, Store, predictions::microseconds, queue::Claim};
use crate::domain::{PredictionId, Progress};

/// Attempt, done, total, finished images, microseconds, preview.
type Row = (i32, i32, i32, i32, i64, Option<Vec<u8>>);

impl Store {
    /// Replaces what is known of a claim's progress, and tells those who watch it.
    pub async fn record_progress(&self, claim: &Claim, progress: &Progress) -> Result<()> {
        let recorded = sqlx::query(
            "insert into progress (prediction_id, attempt, done, total, finished_images, elapsed_us, preview)
             select id, attempt, $4, $5, $6, $7, $8 from predictions
             where id = $1 and attempt = $2 and worker_id = $3 and status = 'processing'
             on conflict (prediction_id) do update set
                 attempt = excluded.attempt, done = excluded.done, total = excluded.total,
                 finished_images = excluded.finished_images, elapsed_us = excluded.elapsed_us, preview = excluded.preview",
        )
        .bind(claim.id.as_uuid())
        .bind(claim.attempt)
        .bind(claim.worker_id)
        .bind(i32::try_from(progress.done).unwrap_or(i32::MAX))
        .bind(i32::try_from(progress.total).unwrap_or(i32::MAX))
        .bind(i32::try_from(progress.finished_images).unwrap_or(i32::MAX))
        .bind(microseconds(progress.elapsed))
        .bind(progress.preview.as_deref())
        .execute(&self.pool)
        .await?;
        if recorded.rows_affected() == 0 {
            return Err(Error::LeaseLost);
        }
        self.changes.announce_progress(claim.id);
        Ok(())
    }

    /// What is known of the progress of a prediction's running attempt.
    pub async fn progress(&self, account_id: i64, id: PredictionId) -> Result<Option<Progress>> {
        let row: Option<Row> = sqlx::query_as(
            "select progress.attempt, done, total, finished_images, elapsed_us, preview
             from progress join predictions on id = prediction_id and predictions.attempt = progress.attempt
             where id = $1 and account_id = $2 and status = 'processing'",
        )
        .bind(id.as_uuid())
        .bind(account_id)
        .fetch_optional(&self.pool)
        .await?;
        Ok(row.map(|(attempt, done, total, finished_images, elapsed, preview)| Progress {
            attempt,
            done: done.unsigned_abs(),
            total: total.unsigned_abs(),
            finished_images: finished_images.unsigned_abs(),
            elapsed: Duration::from_micros(elapsed.unsigned_abs()),
            preview,
        }))
    }

    /// Forgets the progress of attempts that are over. The pictures in it belong to somebody.
    pub async fn forget_progress(&self) -> Result<u64> {
        let forgotten = sqlx::query(
            "delete from progress where not exists (
                 select from predictions
                 where id = prediction_id and predictions.attempt = progress.attempt and status = 'processing'
             )",
        )
        .execute(&self.pool)
        .await?;
        Ok(forgotten.rows_affected())
    }
}
