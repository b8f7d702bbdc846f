//! Regular work that one process does for all: who takes it on, what becomes of old data, and of which files.

use std::time::Duration;

use uuid::Uuid;

use super::{Result, Store, durable::without_waiting, predictions::microseconds};
use crate::domain::PredictionId;

impl Store {
    /// Which site's database this is.
    pub async fn site(&self) -> Result<Uuid> {
        Ok(sqlx::query_scalar("select id from site").fetch_one(&self.pool).await?)
    }

    /// Takes on a chore that nobody has begun for this long. Of any number who ask at once, one is told yes; the others have
    /// locked and written nothing, so that hundreds may ask every second.
    pub async fn take_chore(&self, name: &str, every: Duration) -> Result<bool> {
        let taken = sqlx::query(concat!(
            "insert into chores (name, begun_at)
             select $1, now() where not exists (
                 select from chores where name = $1
                   and begun_at between now() - $2::bigint * interval '1 microsecond' and now() + interval '1 minute')
             on conflict (name) do update set begun_at = now()
             where chores.begun_at < now() - $2::bigint * interval '1 microsecond'
                -- The clock was set back, or is another one after a failover.
                or chores.begun_at > now() + interval '1 minute'
             -- Should a crash of the database take it away, the chore is done once more.
             returning ",
            without_waiting!(),
        ))
        .bind(name)
        .bind(microseconds(every))
        .fetch_optional(&self.pool)
        .await?;
        Ok(taken.is_some())
    }

    /// Which of these stored files no row refers to, nor ever will: an input that is not its prediction's, an output of an
    /// attempt that did not end its prediction, an upload that was deleted. The keys must have a UUID in their second part.
    pub async fn unknown_files(&self, keys: &[String]) -> Result<Vec<String>> {
        self.files_without_use(keys, false).await
    }

    /// The same, and inputs of predictions that were canceled or failed. No worker asks for them again and nobody else
    /// ever could, and they may have cost nothing, so that whoever makes many would fill the store for it. What
    /// succeeded has been paid for, and keeps its input as long as its images.
    pub async fn unused_files(&self, keys: &[String]) -> Result<Vec<String>> {
        self.files_without_use(keys, true).await
    }

    /// An end of the last minute may be lost with a crash of the database (`ended_lately`): its prediction runs again.
    async fn files_without_use(&self, keys: &[String], with_unsuccessful: bool) -> Result<Vec<String>> {
        Ok(sqlx::query_scalar(
            "select key from unnest($1::text[]) as key
             where not exists (select from uploads where artifact_key = key)
               and not exists (
                   select from predictions
                   where id = split_part(key, '/', 2)::uuid and data_removed_at is null
                     and case split_part(key, '/', 1)
                             when 'inputs' then input ->> 'image' = key and not (
                                 $2 and status in ('canceled', 'failed') and completed_at < now() - interval '1 minute'
                             )
                             else completed_at is null or output @> jsonb_build_array(jsonb_build_object('key', key))
                         end
               )",
        )
        .bind(keys)
        .bind(with_unsuccessful)
        .fetch_all(&self.pool)
        .await?)
    }

    /// Takes the data out of predictions that ended longer than `retention` ago, at most `limit` at a time. Returns
    /// whose artifacts may be deleted now. The row itself stays, for usage and for honest answers.
    pub async fn prune(&self, retention: Duration, limit: i64) -> Result<Vec<PredictionId>> {
        let pruned: Vec<Uuid> = sqlx::query_scalar(
            r#"with old as materialized (
                 select id as old_id from predictions
                 where completed_at < now() - $1::bigint * interval '1 microsecond' and data_removed_at is null
                 order by completed_at
                 limit $2
                 for update skip locked
             )
             update predictions set
                 data_removed_at = now(), output = null, logs = '', raw_input = '{}',
                 idempotency_key = null, request_hash = null, request_id = null, trace_parent = null,
                 input = input || '{"prompt": "", "negative_prompt": null, "image": null}'
             from old where id = old_id
             returning id"#,
        )
        .bind(microseconds(retention))
        .bind(limit)
        .fetch_all(&self.pool)
        .await?;
        Ok(pruned.into_iter().map(PredictionId::from).collect())
    }
}
