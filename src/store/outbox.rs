//! The outbox: what is still to be told to the receivers of webhooks.
//!
//! It is written by the statement that changes the prediction (the macros here are parts of such statements), so that
//! nothing is told that did not happen and nothing that happened goes untold. It is read as the queue of predictions is:
//! with a lease, and an attempt number that fences a deliverer who was taken for dead.

use std::{fmt, time::Duration};

use sqlx::{Connection, FromRow, postgres::PgRow};
use uuid::Uuid;

use super::{
    Error, Result, Store,
    predictions::{Row, columns, microseconds},
};
use crate::domain::{Dialect, Prediction, SigningSecret, WebhookEvent, WebhookSecret};

/// Keeps the webhooks of predictions about to be created: a part of the statement that creates them, after one called
/// `created` that has their ids and account, and one called `told` that has what was asked for.
macro_rules! keep_webhooks {
    () => {
        ", kept_webhooks as (
             insert into webhooks (prediction_id, account_id, url, receiver, events, secret, server_url, mount)
             select id, account_id, told_url, told_receiver, string_to_array(told_events, ','), told_secret,
                    told_server_url, told_mount
             from created join told on told_id = id
             where told_url is not null
         ) "
    };
}
pub(super) use keep_webhooks;

/// Posts that predictions were taken by a worker: a part of the statement that does it, after one called `claimed` that has
/// their ids. It is said once, however often they are taken.
macro_rules! post_started {
    () => {
        ", posted as (
             insert into webhook_deliveries (prediction_id, receiver, event)
             select prediction_id, receiver, 'start'
             from claimed join webhooks on prediction_id = claimed.id
             where 'start' = any (events) and gone_at is null
             on conflict do nothing
             returning id
         ) "
    };
}
pub(super) use post_started;

/// Posts that predictions have ended: a part of every statement that ends some, after one called `ended` that has their
/// `id`, `status` and `dialect`. Eachlabs tells of no cancel.
macro_rules! post_ended {
    () => {
        ", posted as (
             insert into webhook_deliveries (prediction_id, receiver, event)
             select prediction_id, receiver, event
             from ended join webhooks on prediction_id = ended.id
                  cross join unnest(array['output', 'completed']) as event
             where event = any (events) and gone_at is null
               and (event = 'completed' or ended.status = 'succeeded')
               and not (ended.dialect = 'eachlabs' and ended.status = 'canceled')
             on conflict do nothing
         ) "
    };
}
pub(super) use post_ended;

/// Posts that a prediction's logs have grown: after one called `recorded` that has its id. What is not yet told says it
/// all, and twice a second is enough.
macro_rules! post_logs {
    () => {
        ", posted as (
             insert into webhook_deliveries (prediction_id, receiver, event)
             select prediction_id, receiver, 'logs'
             from recorded join webhooks on prediction_id = recorded.id
             where 'logs' = any (events) and gone_at is null and not exists (
                 select from webhook_deliveries as earlier
                 where earlier.prediction_id = recorded.id and earlier.event = 'logs'
                   and (earlier.state = 'pending' or earlier.created_at > now() - interval '500 ms')
             )
             returning id
         ) "
    };
}
pub(super) use post_logs;

/// Orders the claims of all processes, so that none counts what another is about to take.
const CLAIMING: i64 = 0x776562686f6f6b73;

/// As long as less is due, a claim looks at what is due, and else at all receivers with something pending. That is dear where
/// thousands are down and wait for their next attempt, but no backlog of one can hide the others.
const FEW_DUE: i64 = 1000;

/// A delivery in the hands of a process, and the proof that it is.
#[derive(Clone)]
pub struct DueWebhook {
    /// What its receiver knows it by.
    pub id: Uuid,
    /// The number of this attempt.
    pub attempt: i32,
    /// Attempts that failed before.
    pub failures: u32,
    /// What is told.
    pub event: WebhookEvent,
    /// Of which prediction, as it was when this was taken.
    pub prediction: Prediction,
    /// Where its trace goes on.
    pub trace_parent: Option<String>,
    /// Where.
    pub url: String,
    /// Host and port of it.
    pub receiver: String,
    /// For the URLs in it.
    pub server_url: String,
    /// For the URLs in it.
    pub mount: String,
    /// Of its request; sealed.
    secret: Option<Vec<u8>>,
    /// Of its account, the current one first; sealed. None before the first is made.
    account_secrets: Vec<Vec<u8>>,
}

#[derive(FromRow)]
struct DueRow {
    delivery_id: Uuid,
    delivery_attempt: i32,
    failures: i32,
    event: String,
    url: String,
    receiver: String,
    secret: Option<Vec<u8>>,
    account_secrets: Vec<Vec<u8>>,
    server_url: String,
    mount: String,
    #[sqlx(flatten)]
    prediction: Row,
}

/// Without its URL, which may have a secret in it.
impl fmt::Debug for DueWebhook {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "DueWebhook({} of {} to {})", self.event.as_str(), self.prediction.id, self.receiver)
    }
}

impl DueRow {
    fn into_due(mut self) -> Result<DueWebhook> {
        Ok(DueWebhook {
            id: self.delivery_id,
            attempt: self.delivery_attempt,
            failures: self.failures.unsigned_abs(),
            event: self.event.parse()?,
            trace_parent: self.prediction.trace_parent.take(),
            prediction: self.prediction.try_into()?,
            url: self.url,
            receiver: self.receiver,
            server_url: self.server_url,
            mount: self.mount,
            secret: self.secret,
            account_secrets: self.account_secrets,
        })
    }
}

impl Store {
    /// Takes up to `limit` deliveries that are due, under a lease. Receivers take turns, and to none are more than
    /// `per_receiver` under way at a time, in all processes together: one that does not answer holds up only itself. Nor are
    /// more than `per_account` of one account's: with many receivers that do not answer it holds up only itself.
    ///
    /// All that is told and proves it comes with them: a delivery is one statement to take, with others, and one to settle.
    ///
    /// Waits for the disk, and so for everything it has seen: nothing is told of what a crash could still take away.
    pub async fn claim_webhooks(
        &self,
        limit: u32,
        per_receiver: u32,
        per_account: u32,
        lease: Duration,
    ) -> Result<Vec<DueWebhook>> {
        let mut lent = self.pool.lend().await?;
        let claiming = async {
            let mut transaction = lent.begin().await?;
            // In a statement of its own: the next one sees what was committed before the lock was had. It has a time of
            // its own, too: a lease is not counted from before the wait.
            sqlx::query("select pg_advisory_xact_lock($1)").bind(CLAIMING).execute(&mut *transaction).await?;
            let rows = sqlx::query(concat!(
                "with recursive soonest as materialized (
                     select receiver from webhook_deliveries where state = 'pending' and due_at <= statement_timestamp()
                     order by due_at limit $5
                 ),
                 jumps as (
                     -- If that was not all: through the index from receiver to receiver, however much each has waiting.
                     (select receiver from webhook_deliveries
                      where state = 'pending' and (select count(*) from soonest) = $5
                      order by receiver limit 1)
                     union all
                     select (select next.receiver from webhook_deliveries as next
                             where next.state = 'pending' and next.receiver > jumps.receiver
                             order by next.receiver limit 1)
                     from jumps where jumps.receiver is not null
                 ),
                 waiting as (
                     select receiver from soonest union select receiver from jumps where receiver is not null
                 ),
                 busy as materialized (
                     select account_id, count(*) as count
                     from webhook_deliveries join webhooks using (prediction_id)
                     where lease_until > statement_timestamp() group by account_id
                 ),
                 free as (
                     select due.id, due.place, due.due_at, due.account_id,
                            row_number() over (partition by due.account_id order by due.place, due.due_at, due.id) as turn
                     from waiting
                     cross join lateral (
                         select count(*) as count from webhook_deliveries as other
                         where other.receiver = waiting.receiver and other.lease_until > statement_timestamp()
                     ) as under_way
                     cross join lateral (
                         select first.id, first.due_at, webhooks.account_id,
                                row_number() over (order by first.due_at, first.id) as place
                         from (
                             select id, due_at, prediction_id from webhook_deliveries as one
                             where one.receiver = waiting.receiver and one.state = 'pending'
                               and one.due_at <= statement_timestamp()
                               -- The end is told last: whoever keeps what came last would take it back.
                               and (one.event <> 'completed' or not exists (
                                   select from webhook_deliveries as earlier
                                   where earlier.prediction_id = one.prediction_id and earlier.state = 'pending'
                                     and earlier.event <> 'completed'))
                             order by due_at, id limit $2
                         ) as first
                         join webhooks using (prediction_id)
                     ) as due
                     where due.place + under_way.count <= $2
                 ),
                 chosen as materialized (
                     select free.id from free left join busy using (account_id)
                     where free.turn + coalesce(busy.count, 0) <= $4
                     order by free.place, free.due_at
                     limit $1
                 ),
                 taken as (
                     update webhook_deliveries as delivery set
                         attempt = delivery.attempt + 1,
                         -- Should this process die, it is due again by itself.
                         due_at = statement_timestamp() + $3::bigint * interval '1 microsecond',
                         lease_until = statement_timestamp() + $3::bigint * interval '1 microsecond'
                     from chosen
                     where delivery.id = chosen.id and delivery.state = 'pending'
                       and delivery.due_at <= statement_timestamp()
                     returning delivery.id as delivery_id, delivery.attempt as delivery_attempt, delivery.failures,
                               delivery.event, delivery.receiver, delivery.prediction_id
                 ),
                 told as (
                     select taken.*, url, secret, server_url, mount,
                            array(select signing.secret from webhook_secrets as signing
                                  where signing.account_id = webhooks.account_id
                                    and (signs_until is null or signs_until > statement_timestamp())
                                  order by signs_until desc nulls first) as account_secrets
                     from taken join webhooks using (prediction_id)
                 )
                 select delivery_id, delivery_attempt, failures, event, receiver, url, secret, server_url, mount,
                        account_secrets, ",
                columns!(),
                " from told join predictions on id = prediction_id"
            ))
            .bind(i64::from(limit))
            .bind(i64::from(per_receiver))
            .bind(microseconds(lease))
            .bind(i64::from(per_account))
            .bind(FEW_DUE)
            .fetch_all(&mut *transaction)
            .await?;
            transaction.commit().await?;
            Ok(rows)
        };
        let rows: Vec<PgRow> = self.pool.awaited::<_, Error>(claiming).await?;
        lent.answered();
        // What a newer version wrote is left to it, when the lease is over; it holds up no other.
        let read = |row| DueRow::from_row(row).map_err(Error::from).and_then(DueRow::into_due);
        let unreadable = |error: &Error| tracing::warn!(%error, "A webhook to deliver cannot be read");
        Ok(rows.iter().filter_map(|row| read(row).inspect_err(unreadable).ok()).collect())
    }

    /// What proves a delivery, if its request brought a secret.
    pub fn webhook_secret(&self, due: &DueWebhook) -> Result<Option<WebhookSecret>> {
        let is_eachlabs = due.prediction.dialect == Dialect::Eachlabs;
        due.secret.as_deref().map(|kept| self.open_secret(kept, is_eachlabs)).transpose()
    }

    /// What signs a delivery for its account: the current secret first, which is made if there is none.
    pub async fn secrets_for(&self, due: &DueWebhook) -> Result<Vec<SigningSecret>> {
        match due.account_secrets.is_empty() {
            true => self.signing_secrets(due.prediction.account_id).await,
            false => due.account_secrets.iter().map(|kept| self.open_signing_secret(kept)).collect(),
        }
    }

    /// Forgets webhooks kept for longer than `retention`, with everything told of them, once their predictions have ended
    /// and nothing more is to be told. At most `limit` at a time; returns how many.
    pub async fn forget_webhooks(&self, retention: Duration, limit: u64) -> Result<u64> {
        let forgotten = sqlx::query(
            "with old as materialized (
                 select prediction_id as old_id from webhooks join predictions on id = prediction_id
                 where webhooks.created_at < now() - $1::bigint * interval '1 microsecond' and completed_at is not null
                   and not exists (
                       select from webhook_deliveries
                       where webhook_deliveries.prediction_id = webhooks.prediction_id and state = 'pending')
                 order by webhooks.created_at
                 limit $2
                 for update of webhooks skip locked
             )
             delete from webhooks using old where prediction_id = old_id",
        )
        .bind(microseconds(retention))
        .bind(limit.cast_signed())
        .execute(&self.pool)
        .await?;
        Ok(forgotten.rows_affected())
    }
}
