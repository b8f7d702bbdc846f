//! How predictions come to be: those that an account creates at the same time, in one statement.

use std::collections::HashSet;

use sqlx::{FromRow as _, Row as _, postgres::PgRow, types::Json};

use super::{
    Error, Result, Store,
    durable::{Milestone, without_waiting},
    outbox::keep_webhooks,
    predictions::{Row, columns, microseconds},
};
use crate::domain::{Idempotency, NewPrediction, NewWebhook, Prediction, WebhookRequest};

/// How often a create looks for room that others take before it.
const MOST_TRIES: usize = 100;

/// A prediction about to be created.
#[derive(Debug)]
pub(super) struct Entry {
    new: NewPrediction,
    turn: i64,
    /// Of its webhook; sealed.
    secret: Option<Vec<u8>>,
}

impl Entry {
    fn webhook(&self) -> Option<&NewWebhook> {
        self.new.webhook.as_ref()
    }

    fn webhook_request(&self) -> Option<&WebhookRequest> {
        self.webhook().map(|webhook| &webhook.webhook.request)
    }

    /// Its events are words, without commas.
    fn webhook_events(&self) -> Option<String> {
        let events = |request: &WebhookRequest| request.events.iter().map(|event| event.as_str()).collect::<Vec<_>>();
        self.webhook_request().map(|request| events(request).join(","))
    }

    fn idempotency(&self) -> Option<&Idempotency> {
        self.new.idempotency.as_ref()
    }

    fn logs(&self) -> String {
        self.new.notes.iter().map(|note| format!("{note}\n")).collect()
    }
}

/// The row of a prediction that was created, or nothing if it was not.
pub(super) type Created = Option<PgRow>;

/// What a statement is told of each prediction: parameter, column, type and value, in the order of the parameters. Both the
/// table (`unnest!`) and what is bound (`bind!`) come from this one list, so that no column gets another's values.
macro_rules! told {
    ($use:ident $($argument:ident)*) => {
        $use! {
            $($argument)* entry:
             2 told_id uuid = entry.new.id.as_uuid();
             3 told_key bigint = entry.new.key_id;
             4 told_dialect text = entry.new.dialect.as_str();
             5 told_model text = entry.new.model.as_str();
             6 told_version text = entry.new.version.as_str();
             7 told_raw_input jsonb = Json(&entry.new.raw_input);
             8 told_input jsonb = Json(&entry.new.input);
             9 told_price bigint = entry.new.price.per_second().get();
            10 told_logs text = entry.logs();
            11 told_cancel_after_us bigint = entry.new.cancel_after.map(microseconds);
            12 told_idempotency_key text = entry.idempotency().map(|idempotency| idempotency.key.as_str());
            13 told_hash bytea = entry.idempotency().map(|idempotency| &idempotency.request_hash[..]);
            14 told_priority smallint = entry.new.priority;
            15 told_limit_us bigint = microseconds(entry.new.time_limit);
            16 told_hold bigint = entry.new.hold().get();
            17 told_turn bigint = entry.turn;
            18 told_url text = entry.webhook_request().map(|request| request.url.as_str());
            19 told_receiver text = entry.webhook().map(|webhook| webhook.receiver.as_str());
            20 told_events text = entry.webhook_events();
            21 told_secret bytea = entry.secret.as_deref();
            22 told_server_url text = entry.webhook().map(|webhook| webhook.webhook.server_url.as_str());
            23 told_mount text = entry.webhook().map(|webhook| webhook.webhook.mount.as_str());
            24 told_request text = entry.new.request_id.as_deref();
            25 told_longest_us bigint = microseconds(entry.new.longest_run);
            26 told_trace text = entry.new.trace_parent.as_deref();
        }
    };
}

/// The table of what is told, an array for each column, with the place of each row in `told_place`.
macro_rules! unnest {
    ($entry:ident:
     $first:literal $first_column:ident $first_type:ident = $first_value:expr;
     $($parameter:literal $column:ident $type:ident = $value:expr;)*) => {
        concat!(
            "unnest($", $first, "::", stringify!($first_type), "[]",
            $(", $", $parameter, "::", stringify!($type), "[]",)*
            ") with ordinality as told (", stringify!($first_column), $(", ", stringify!($column),)* ", told_place)"
        )
    };
}

/// A query with what is told of these entries bound to it.
macro_rules! bind {
    ($query:ident $entries:ident $entry:ident:
     $($parameter:literal $column:ident $type:ident = $value:expr;)*) => {
        $query$(.bind($entries.iter().map(|$entry| $value).collect::<Vec<_>>()))*
    };
}

/// `payer`: what is told, with whether its account and its key can pay for it, by what is read without a lock.
macro_rules! payer {
    () => {
        "payer as (
                 select told.*, mode = 'prepaid' as holds_balance, max_in_flight is not null as holds_place,
                        -- Null without a budget. What began later, by another process' clock or while the budget was
                        -- for other periods, goes on: no period comes back.
                        case when budget_nano is not null
                             then greatest(date_trunc(budget_period, now(), 'UTC'), period_start) end as period,
                        mode <> 'prepaid' or balance_nano - accounts.held_nano >= sum(told_hold) over places
                            as has_balance,
                        max_in_flight is null or in_flight + row_number() over places <= max_in_flight as has_place,
                        budget_nano is null
                            or budget_nano >= sum(told_hold) over (partition by told_key order by told_place)
                                              + case when period_start >= date_trunc(budget_period, now(), 'UTC')
                                                     then spent_nano + api_keys.held_nano else 0 end as has_budget
                 from told
                 join accounts on accounts.id = $1
                 join api_keys on api_keys.id = told_key and account_id = accounts.id
                 window places as (order by told_place)
             )"
    };
}

/// `created`: the rows of those who can be paid for and are not there yet.
macro_rules! created {
    () => {
        concat!(
            "created as (
                 insert into predictions
                     (id, account_id, key_id, dialect, model, version, raw_input, input, price_nano, logs, deadline,
                      idempotency_key, request_hash, priority, time_limit_us, hold_nano, turn,
                      held_balance, held_budget, held_place, request_id, trace_parent)
                 select told_id, $1, told_key, told_dialect, told_model, told_version, told_raw_input, told_input,
                        told_price, told_logs, now() + told_cancel_after_us * interval '1 microsecond',
                        told_idempotency_key, told_hash, told_priority,
                        -- Where nothing is held nothing can be overdrawn, and a slow device may take its time.
                        case when holds_balance or period is not null then told_limit_us else told_longest_us end,
                        case when holds_balance or period is not null then told_hold else 0 end,
                        told_turn, holds_balance, period, holds_place, told_request, told_trace
                 from payer
                 where has_balance and has_place and has_budget
                 -- In the order of their idempotency keys, so that two processes that insert some of the same keys
                 -- cannot deadlock.
                 order by told_idempotency_key, told_id
                 on conflict do nothing
                 returning held_balance, held_budget, held_place, hold_nano, ",
            columns!(),
            ")"
        )
    };
}

/// `held`, `locked_keys` and `budgeted`: holds what was created may cost, or undoes the statement if that is too much.
macro_rules! held {
    () => {
        "held as (
                 update accounts set
                     held_nano = held_nano + due.hold,
                     in_flight = case when due.places = 0 then in_flight
                                      when in_flight + due.places <= max_in_flight then in_flight + due.places
                                      else refuse('predictions in flight') end
                 from (
                     select coalesce(sum(hold_nano) filter (where held_balance), 0) as hold,
                            count(*) filter (where held_place) as places
                     from created where held_balance or held_place having count(*) > 0
                 ) as due
                 where accounts.id = $1
                 returning accounts.id
             ),
             locked_keys as materialized (
                 select id from api_keys
                 where id in (select key_id from created where held_budget is not null)
                   -- Counted only to have the account locked first; so it is below.
                   and (select count(*) from held) >= 0
                 order by id for no key update
             ),
             budgeted as (
                 update api_keys set
                     period_start = due.held_budget,
                     spent_nano = case when period_start = due.held_budget then spent_nano else 0 end,
                     held_nano = case
                         -- It has begun meanwhile, and is found there at the next try.
                         when period_start > due.held_budget then refuse('a period that is over')
                         when budget_nano < due.hold + case when period_start = due.held_budget
                                                            then spent_nano + held_nano else 0 end
                             then refuse('budget')
                         when period_start = due.held_budget then held_nano + due.hold
                         else due.hold end
                 from (
                     select key_id, held_budget, sum(hold_nano) as hold
                     from created where held_budget is not null and (select count(*) from locked_keys) >= 0
                     group by key_id, held_budget
                 ) as due
                 where api_keys.id = due.key_id
                 returning api_keys.id
             )"
    };
}

impl Store {
    /// Puts a prediction in the queue, holds what it may cost and keeps its webhook, in one statement, which does so for all
    /// that its account creates in this process by then. `None` when its id is taken, by whomever, or its idempotency key,
    /// by its account. Of creates with the same key at the same time, one succeeds, and the others wait until it has.
    ///
    /// Fails with [`Error::Refused`] when its account or key may not spend that much more; however many try at once, the
    /// limit is not passed.
    pub async fn create(&self, new: &NewPrediction) -> Result<Option<Prediction>> {
        let creates = self.creates.guard(new.account_id);
        let turn = self.take_turn(new).await?;
        for _ in 0..MOST_TRIES {
            let secret = new.webhook.as_ref().map(|webhook| self.seal_secret(webhook)).transpose()?.flatten();
            let entry = Entry { new: new.clone(), turn, secret };
            let created = creates.done(entry, async |entries: &[Entry]| self.insert(entries).await).await;
            match created {
                Ok(Some(row)) => {
                    self.until_safe(new.id, Milestone::Created).await?;
                    self.changes.announce_queued();
                    return Prediction::try_from(Row::from_row(&row)?).map(Some);
                }
                Ok(None) => {}
                Err(Error::OverLimit) => {}
                Err(error) => return Err(error),
            }
            // Why not? If there is no reason left, there is room again.
            if self.is_taken(new).await? {
                // By one who may be waiting for the disk yet.
                self.until_durable().await?;
                return Ok(None);
            }
            if let Some(shortage) = self.shortage(new).await? {
                return Err(Error::Refused(shortage));
            }
        }
        Err(Error::unknown("no room was found for a prediction, and no reason why"))
    }

    /// Fails with [`Error::Refused`] when a create would now. One that was made before would not.
    pub async fn check_means(&self, new: &NewPrediction) -> Result<()> {
        match self.shortage(new).await? {
            Some(shortage) if !self.is_taken(new).await? => Err(Error::Refused(shortage)),
            _ => Ok(()),
        }
    }

    /// The row of each that was created; all are of one account. Of those with the same id it is the first.
    ///
    /// Who pays is looked at twice: first without a lock (`payer`), so that most refusals leave no trace, then by the
    /// updates at the end (`held`), which lock what they change for the shortest time and undo the whole statement if there
    /// is too little. It does not wait for the disk with these locks in its hands.
    async fn insert(&self, entries: &[Entry]) -> Result<Vec<Created>> {
        let Some(account_id) = entries.first().map(|entry| entry.new.account_id) else { return Ok(Vec::new()) };
        let mut ids = HashSet::new();
        let (places, firsts): (Vec<usize>, Vec<&Entry>) =
            entries.iter().enumerate().filter(|(_, entry)| ids.insert(entry.new.id)).unzip();
        let query = sqlx::query(concat!(
            "with told as materialized (
                 select * from ",
            told!(unnest),
            // There are no more, which the planner does not know of an array.
            " limit $27
             ),
             ",
            payer!(),
            ", ",
            created!(),
            ", ",
            held!(),
            keep_webhooks!(),
            "select ",
            columns!(),
            ", told_place, ",
            without_waiting!(),
            " from created join told on told_id = id"
        ))
        .bind(account_id);
        let rows = told!(bind query firsts).bind(firsts.len() as i64).fetch_all(&self.pool).await?;
        let mut created: Vec<Created> = entries.iter().map(|_| None).collect();
        for row in rows {
            let place: i64 = row.try_get("told_place")?;
            let place = usize::try_from(place - 1).ok().and_then(|index| places.get(index));
            if let Some(created) = place.and_then(|place| created.get_mut(*place)) {
                *created = Some(row);
            }
        }
        Ok(created)
    }
}
