//! What follows when predictions end, whoever ends them: the one place where money moves at an end, and where it is posted
//! to be told.

/// What its owner is told of a prediction that its deadline has ended.
pub(super) const DEADLINE_MESSAGE: &str = "the deadline passed before the prediction finished";

/// The end of every statement that ends predictions. The statement itself begins `with …, ended as (…)`, where `ended` has,
/// of the rows that have just become terminal and of no others, the columns of [`ended_columns`]; and it goes on with a
/// `select` after this.
///
/// One statement, so either all of it happens or nothing. Rows are locked in the same order everywhere: predictions, their
/// accounts, their keys, their usage; and of several each kind by their numbers, which an update alone does not promise.
macro_rules! when_ended {
    () => {
        concat!(
            ",
         -- Once for each prediction, as the ledger's constraint has it. A failure is not charged, not even with nothing.
         charged as (
             insert into ledger
                 (account_id, key_id, prediction_id, model, kind, device_us, amount_nano, from_balance, worker_id)
             select account_id, key_id, id, model, 'charge', device_us, cost_nano, held_balance, worker_id from ended
             where status = 'succeeded' or (status = 'canceled' and device_us > 0)
             returning prediction_id, device_us
         ),
         locked_accounts as materialized (
             select id from accounts
             where id in (select account_id from ended where held_balance or held_place)
             order by id for no key update
         ),
         settled_accounts as (
             update accounts set
                 balance_nano = balance_nano - due.cost,
                 held_nano = held_nano - due.hold,
                 in_flight = in_flight - due.places
             from (
                 select account_id,
                        coalesce(sum(cost_nano) filter (where held_balance), 0) as cost,
                        coalesce(sum(hold_nano) filter (where held_balance), 0) as hold,
                        count(*) filter (where held_place) as places
                 -- Counted only to have them locked first; so it is below.
                 from ended where (held_balance or held_place) and (select count(*) from locked_accounts) >= 0
                 group by account_id
             ) as due
             where accounts.id = due.account_id
             returning accounts.id
         ),
         locked_keys as materialized (
             select id from api_keys
             where id in (select key_id from ended where held_budget is not null)
               and (select count(*) from settled_accounts) >= 0
             order by id for no key update
         ),
         settled_keys as (
             update api_keys set
                 spent_nano = spent_nano + due.cost,
                 -- An older version forgets holds of a period that it begins a second time; an end must not fail of that.
                 held_nano = greatest(held_nano - due.hold, 0)
             from (
                 select key_id, held_budget, sum(cost_nano) as cost, sum(hold_nano) as hold
                 from ended where held_budget is not null and (select count(*) from locked_keys) >= 0
                 group by key_id, held_budget
             ) as due
             -- What was held in a period that is over was forgotten with it.
             where api_keys.id = due.key_id and api_keys.period_start = due.held_budget
             returning api_keys.id
         ),
         used as (
             ",
            $crate::store::usage::add_usage!(
                "select (now() at time zone 'UTC')::date, account_id, key_id, model, pg_backend_pid() % 32,
                        count(*) filter (where status = 'succeeded'), count(*) filter (where status = 'failed'),
                        count(*) filter (where status = 'canceled'),
                        coalesce(sum(charged.device_us), 0), coalesce(sum(cost_nano), 0)
                 from ended left join charged on charged.prediction_id = ended.id
                 where (select count(*) from settled_keys) >= 0
                 group by account_id, key_id, model order by account_id, key_id, model"
            ),
            "
         )",
            $crate::store::outbox::post_ended!()
        )
    };
}
pub(super) use when_ended;

/// What [`when_ended`] has to know of a prediction.
macro_rules! ended_columns {
    () => {
        "id, account_id, key_id, model, dialect, status, worker_id, device_us, cost_nano, \
         hold_nano, held_balance, held_budget, held_place"
    };
}
pub(super) use ended_columns;
