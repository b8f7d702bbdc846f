//! Uploads. Each goes through three statements, so that its row is there before its bytes and its bytes are counted before
//! they are stored: begin, make room, finish. What stops in between is swept like what has expired.

use std::time::Duration;

use chrono::{DateTime, Utc};
use sqlx::FromRow;
use uuid::Uuid;

use super::{Result, Store, predictions::microseconds};
use crate::domain::{Checksums, NewUpload, Upload, UploadId};

/// So long whoever makes room is the only one who may store the bytes. Longer than any store takes for them, tried twice;
/// who takes longer has crashed, and the client may send them again while its ticket is good.
const WRITING: Duration = Duration::from_secs(5 * 60);

/// What becomes of the wish to store an upload's bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Room {
    /// They are counted, and nobody else may store others.
    Made(Writing),
    /// The account would have more than it may.
    Full,
    /// Somebody else is storing its bytes.
    Taken,
    /// It was finished or deleted meanwhile.
    Gone,
}

/// The right to store an upload's bytes, by when it was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Writing(DateTime<Utc>);

/// The columns of [`Row`].
macro_rules! columns {
    () => {
        "id, account_id, name, content_type, size, sha256, md5, metadata, artifact_key, created_at, expires_at"
    };
}

#[derive(Debug, FromRow)]
struct Row {
    id: Uuid,
    account_id: i64,
    name: String,
    content_type: String,
    size: i64,
    sha256: Option<Vec<u8>>,
    md5: Option<Vec<u8>>,
    metadata: serde_json::Value,
    artifact_key: String,
    created_at: DateTime<Utc>,
    expires_at: DateTime<Utc>,
}

impl From<Row> for Upload {
    fn from(row: Row) -> Self {
        Self {
            id: row.id.into(),
            account_id: row.account_id,
            name: row.name,
            content_type: row.content_type,
            size: row.size.unsigned_abs(),
            checksums: row
                .sha256
                .zip(row.md5)
                .map(|(sha256, md5)| Checksums { sha256: hex::encode(sha256), md5: hex::encode(md5) }),
            metadata: row.metadata,
            key: row.artifact_key,
            created_at: row.created_at,
            expires_at: row.expires_at,
        }
    }
}

impl Store {
    /// Begins an upload, which counts for nothing yet.
    pub async fn begin_upload(&self, new: &NewUpload) -> Result<Upload> {
        let row: Row = sqlx::query_as(concat!(
            "with counter as (insert into uploaded_bytes (account_id) values ($2) on conflict do nothing)
             insert into uploads (id, account_id, name, content_type, metadata, artifact_key, ticket, expires_at)
             values ($1, $2, $3, $4, $5, $6, $7, now() + $8::bigint * interval '1 microsecond')
             returning ",
            columns!()
        ))
        .bind(new.id.as_uuid())
        .bind(new.account_id)
        .bind(&new.name)
        .bind(new.content_type)
        .bind(serde_json::Value::Object(new.metadata.clone()))
        .bind(&new.key)
        .bind(new.ticket.as_ref().map(|ticket| &ticket[..]))
        .bind(microseconds(new.keep))
        .fetch_one(&self.pool)
        .await?;
        Ok(row.into())
    }

    /// The upload that whoever holds this ticket may send the bytes of, for so long after it was begun.
    pub async fn find_announced(&self, id: UploadId, ticket: [u8; 32], valid: Duration) -> Result<Option<Upload>> {
        let row: Option<Row> = sqlx::query_as(concat!(
            "select ",
            columns!(),
            " from uploads
             where id = $1 and ticket = $2 and stored_at is null
               and created_at > now() - $3::bigint * interval '1 microsecond'"
        ))
        .bind(id.as_uuid())
        .bind(&ticket[..])
        .bind(microseconds(valid))
        .fetch_optional(&self.pool)
        .await?;
        Ok(row.map(Upload::from))
    }

    /// Counts the bytes of an upload that are about to be stored, by nobody else. Of any number who ask at once, no more
    /// are let in than fit, and one for each upload.
    pub async fn make_room(&self, id: UploadId, size: u64, quota: u64) -> Result<Room> {
        let made: Option<(bool, Option<DateTime<Utc>>)> = sqlx::query_as(
            "with upload as (
                 select id as upload_id, account_id as owner, size as before,
                     coalesce(writing_since <= now() - $4::bigint * interval '1 microsecond', true) as is_free
                 from uploads
                 where id = $1 and stored_at is null
                 for update
             ),
             counted as (
                 update uploaded_bytes set bytes = bytes + $2 - before
                 from upload where account_id = owner and is_free and bytes + $2 - before <= $3
                 returning account_id
             ),
             made as (
                 update uploads set size = $2, writing_since = now() from upload, counted where id = upload_id
                 returning writing_since
             )
             select is_free, (select writing_since from made) from upload",
        )
        .bind(id.as_uuid())
        .bind(size.cast_signed())
        .bind(i64::try_from(quota).unwrap_or(i64::MAX))
        .bind(microseconds(WRITING))
        .fetch_optional(&self.pool)
        .await?;
        Ok(match made {
            Some((_, Some(since))) => Room::Made(Writing(since)),
            Some((true, None)) => Room::Full,
            Some((false, None)) => Room::Taken,
            None => Room::Gone,
        })
    }

    /// Lets others store the bytes of an upload, which could not be stored. They stay counted: something may be there.
    pub async fn give_up_writing(&self, id: UploadId, writing: Writing) -> Result<()> {
        sqlx::query(
            "update uploads set writing_since = null where id = $1 and stored_at is null and writing_since = $2",
        )
        .bind(id.as_uuid())
        .bind(writing.0)
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    /// Finishes an upload whose bytes are stored. `None` if it was deleted meanwhile, or is somebody else's by now.
    pub async fn finish_upload(
        &self,
        id: UploadId,
        writing: Writing,
        sha256: [u8; 32],
        md5: [u8; 16],
    ) -> Result<Option<Upload>> {
        let row: Option<Row> = sqlx::query_as(concat!(
            "update uploads set stored_at = now(), sha256 = $3, md5 = $4, writing_since = null
             where id = $1 and stored_at is null and writing_since = $2
             returning ",
            columns!()
        ))
        .bind(id.as_uuid())
        .bind(writing.0)
        .bind(&sha256[..])
        .bind(&md5[..])
        .fetch_optional(&self.pool)
        .await?;
        Ok(row.map(Upload::from))
    }

    /// An account's upload, while it is kept.
    pub async fn find_upload(&self, account_id: i64, id: UploadId) -> Result<Option<Upload>> {
        let row: Option<Row> = sqlx::query_as(concat!(
            "select ",
            columns!(),
            " from uploads where id = $1 and account_id = $2 and stored_at is not null and expires_at > now()"
        ))
        .bind(id.as_uuid())
        .bind(account_id)
        .fetch_optional(&self.pool)
        .await?;
        Ok(row.map(Upload::from))
    }

    /// An account's uploads, newest first.
    pub async fn list_uploads(&self, account_id: i64, limit: u32) -> Result<Vec<Upload>> {
        let rows: Vec<Row> = sqlx::query_as(concat!(
            "select ",
            columns!(),
            " from uploads where account_id = $1 and stored_at is not null and expires_at > now()
             order by created_at desc, id desc limit $2"
        ))
        .bind(account_id)
        .bind(i64::from(limit))
        .fetch_all(&self.pool)
        .await?;
        Ok(rows.into_iter().map(Upload::from).collect())
    }

    /// Deletes an upload of an account and returns where its bytes are. `None` if there is no such upload.
    pub async fn delete_upload(&self, account_id: i64, id: UploadId) -> Result<Option<String>> {
        Ok(sqlx::query_scalar(
            "with gone as (
                 delete from uploads where id = $1 and account_id = $2 returning account_id as owner, size, artifact_key
             ),
             counted as (update uploaded_bytes set bytes = bytes - size from gone where account_id = owner)
             select artifact_key from gone",
        )
        .bind(id.as_uuid())
        .bind(account_id)
        .fetch_optional(&self.pool)
        .await?)
    }

    /// Deletes uploads of one account that have expired, or whose bytes have not come for so long, and returns where their
    /// bytes are. Of one account, so that those who do this at the same time cannot wait for each other in a circle.
    pub async fn expire_uploads(&self, unsent: Duration, limit: i64) -> Result<Vec<String>> {
        Ok(sqlx::query_scalar(
            "with due as (
                 select id as due_id, account_id as owner from uploads
                 where expires_at <= now()
                    or stored_at is null and created_at <= now() - $1::bigint * interval '1 microsecond'
             ),
             chosen as (
                 select id as chosen_id from uploads
                 where id in (select due_id from due where owner = (select owner from due limit 1))
                 limit $2
                 for update skip locked
             ),
             gone as (
                 delete from uploads using chosen where id = chosen_id
                 returning account_id as owner, size, artifact_key
             ),
             counted as (
                 update uploaded_bytes set bytes = bytes - total
                 from (select owner, sum(size)::bigint as total from gone group by owner) as sums
                 where account_id = owner
             )
             select artifact_key from gone",
        )
        .bind(microseconds(unsent))
        .bind(limit)
        .fetch_all(&self.pool)
        .await?)
    }
}
