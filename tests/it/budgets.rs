//! What a key's budget holds is given back exactly, whatever becomes of its period.

use std::{sync::Arc, time::Duration};

use fourstep::{
    domain::{ApiKey, Budget, Caller, NanoUsd, NewKey, NewPrediction, Period, PredictionId, PricePerSecond, Shortage},
    store::{Error, Store},
};
use sqlx::PgPool;
use uuid::Uuid;

use crate::{
    ledger::usual_key,
    queue::{MODEL, Queue, succeeded},
    support::eventually,
};

const LEASE: Duration = Duration::from_secs(60);

/// A key with a budget for so many predictions.
struct Spender {
    queue: Queue,
    caller: Caller,
    lookup: String,
    budget: Budget,
}

impl Spender {
    async fn new(pool: PgPool, predictions: i64) -> Self {
        let queue = Queue::new(pool).await;
        let amount = NanoUsd::new(predictions * queue.new_prediction().hold().get());
        let budget = Budget { amount, period: Period::Day };
        let key = ApiKey::generate().unwrap();
        let new = NewKey { budget: Some(budget), ..usual_key("spender") };
        let caller = queue.store.issue_key(&new, &key).await.unwrap();
        Self { queue, caller, lookup: key.lookup().to_owned(), budget }
    }

    fn store(&self) -> &Store {
        &self.queue.store
    }

    fn prediction(&self) -> NewPrediction {
        let Caller { account_id, key_id, .. } = self.caller;
        NewPrediction { id: PredictionId::generate(), account_id, key_id, ..self.queue.new_prediction() }
    }

    async fn create(&self) {
        self.store().create(&self.prediction()).await.unwrap().unwrap();
    }

    /// Claims and finishes the prediction that was created first.
    async fn finish_one(&self) {
        let claim = self.store().claim(MODEL, Uuid::new_v4(), LEASE).await.unwrap().unwrap();
        self.store().finish(&claim, &succeeded(), "").await.unwrap();
    }

    async fn set_budget(&self, period: Period) {
        assert!(self.store().set_budget(&self.lookup, Some(Budget { period, ..self.budget })).await.unwrap());
    }

    /// For how many predictions something is held, when the books have been found to add up.
    async fn held(&self) -> i64 {
        let audit = self.store().audit().await.unwrap();
        assert!(audit.is_clean(), "{audit:#?}");
        let held: i64 = sqlx::query_scalar("select held_nano from api_keys where id = $1")
            .bind(self.caller.key_id)
            .fetch_one(&self.queue.pool)
            .await
            .unwrap();
        held / self.queue.new_prediction().hold().get()
    }
}

/// What the key's first creates after some time have done, which another process' clock has reached before ours.
const LATER: [&str; 2] = [
    "update api_keys set period_start = period_start + $1 * interval '1 day' where budget_nano is not null",
    "update predictions set held_budget = held_budget + $1 * interval '1 day' where held_budget is not null",
];

#[sqlx::test]
async fn a_budget_that_is_changed_to_months_and_back_gives_back_what_it_holds(pool: PgPool) {
    let spender = Spender::new(pool, 100).await;
    spender.create().await;
    spender.set_budget(Period::Month).await;
    spender.create().await;
    assert_eq!(spender.held().await, 2, "what is held of a day is held of its month");
    spender.set_budget(Period::Day).await;
    spender.create().await;
    for _ in 0..3 {
        spender.finish_one().await;
    }
    assert_eq!(spender.held().await, 0);
}

#[sqlx::test]
async fn a_create_that_midnight_overtakes_is_held_in_the_new_day(pool: PgPool) {
    let spender = Arc::new(Spender::new(pool.clone(), 100).await);
    spender.create().await;
    // Its key is in the hands of one who finds that it is tomorrow.
    let mut tomorrow = pool.begin().await.unwrap();
    for statement in LATER {
        sqlx::query(statement).bind(1).execute(&mut *tomorrow).await.unwrap();
    }
    let overtaken = tokio::spawn({
        let spender = Arc::clone(&spender);
        async move { spender.create().await }
    });
    eventually("it waits for the key", async || {
        let waits = "select exists (select from pg_stat_activity
                                    where datname = current_database() and wait_event_type = 'Lock')";
        sqlx::query_scalar::<_, bool>(waits).fetch_one(&pool).await.unwrap()
    })
    .await;
    tomorrow.commit().await.unwrap();
    overtaken.await.unwrap();
    assert_eq!(spender.held().await, 2);
    // Nor does one that begins today, by its clock.
    spender.create().await;
    assert_eq!(spender.held().await, 3);
    for _ in 0..3 {
        spender.finish_one().await;
    }
    assert_eq!(spender.held().await, 0);
}

#[sqlx::test]
async fn a_period_that_a_wrong_clock_began_far_ahead_ends_when_the_budget_is_set(pool: PgPool) {
    let spender = Spender::new(pool.clone(), 1).await;
    spender.create().await;
    for statement in LATER {
        sqlx::query(statement).bind(400).execute(&pool).await.unwrap();
    }
    let refused = spender.store().create(&spender.prediction()).await;
    assert!(matches!(refused, Err(Error::Refused(Shortage::Budget { .. }))), "{refused:?}");
    spender.set_budget(Period::Day).await;
    spender.create().await;
    assert_eq!(spender.held().await, 1);
    spender.finish_one().await;
    assert_eq!(spender.held().await, 1, "the first one's was forgotten with its period");
    spender.finish_one().await;
    assert_eq!(spender.held().await, 0);
}

#[sqlx::test]
async fn a_budget_that_is_overspent_refuses_what_is_free_as_well(pool: PgPool) {
    let spender = Spender::new(pool, 1).await;
    spender.create().await;
    spender.finish_one().await;
    let less = Budget { amount: NanoUsd::new(1), ..spender.budget };
    assert!(spender.store().set_budget(&spender.lookup, Some(less)).await.unwrap());
    let free = NewPrediction { price: PricePerSecond::new(0), ..spender.prediction() };
    let created = tokio::time::timeout(Duration::from_secs(10), spender.store().create(&free)).await;
    let refused = created.expect("it ends");
    assert!(matches!(refused, Err(Error::Refused(Shortage::Budget { .. }))), "{refused:?}");
}

/// Which an older version, still running beside this one, may bring about.
#[sqlx::test]
async fn a_hold_that_was_forgotten_keeps_no_prediction_from_ending(pool: PgPool) {
    let spender = Spender::new(pool.clone(), 100).await;
    spender.create().await;
    sqlx::query("update api_keys set held_nano = 1 where budget_nano is not null").execute(&pool).await.unwrap();
    spender.finish_one().await;
    assert_eq!(spender.held().await, 0);
}

/// A newer version may know more than this one, which must not show less than there is.
#[sqlx::test]
async fn a_period_or_a_mode_that_is_not_known_is_reported(pool: PgPool) {
    let spender = Spender::new(pool.clone(), 100).await;
    let store = spender.store();
    let newer = "alter table api_keys drop constraint api_keys_budget_period_check;
                 update api_keys set budget_period = 'week' where budget_nano is not null;
                 alter table accounts drop constraint accounts_mode_check;
                 update accounts set mode = 'postpaid'";
    sqlx::raw_sql(newer).execute(&pool).await.unwrap();
    let keys = store.list_keys().await;
    assert!(matches!(&keys, Err(Error::Unreadable(why)) if why.contains("week")), "{keys:?}");
    let accounts = store.list_accounts().await;
    assert!(matches!(&accounts, Err(Error::Unreadable(why)) if why.contains("postpaid")), "{accounts:?}");
}
