//! The checker of fault tests: what clients were told, held against the database and the files when all is over.
//!
//! A test records every acknowledgment in a [`History`] while it breaks things, and calls [`History::check`] at the end.
//! The laws are those every run must keep, whatever was killed: each has its place below.

use std::{collections::HashMap, path::Path, time::Duration};

use fourstep::store::Store;
use sqlx::PgPool;
use uuid::Uuid;

/// What clients know.
#[derive(Debug, Default)]
pub(crate) struct History {
    /// Ids of acknowledged creates, each with the idempotency key it was asked for with.
    acknowledged: HashMap<Uuid, Option<String>>,
    /// What was read of predictions that were terminal by then: status and cost.
    terminal: HashMap<Uuid, (String, i64)>,
}

impl History {
    /// A create was acknowledged. Two acknowledgments of one key must name the same prediction.
    pub(crate) fn acknowledged(&mut self, id: &str, key: Option<&str>) {
        let id = id.parse().unwrap();
        let known = self.acknowledged.insert(id, key.map(str::to_owned));
        assert!(known.is_none_or(|known| known.as_deref() == key), "{id} was made for two keys");
    }

    /// How many creates were acknowledged.
    pub(crate) fn len(&self) -> usize {
        self.acknowledged.len()
    }

    /// I2: what was terminal before still is, and the same. Remembers what is by now.
    pub(crate) async fn look(&mut self, pool: &PgPool) {
        let ended: Vec<(Uuid, String, i64)> =
            sqlx::query_as("select id, status, cost_nano from predictions where completed_at is not null")
                .fetch_all(pool)
                .await
                .unwrap();
        let ended: HashMap<_, _> = ended.into_iter().map(|(id, status, cost)| (id, (status, cost))).collect();
        for (id, before) in &self.terminal {
            assert_eq!(ended.get(id), Some(before), "I2: the end of {id} is not what it was");
        }
        self.terminal = ended;
    }

    /// Every law at rest. `patience` is for what was acknowledged to end.
    pub(crate) async fn check(&mut self, pool: &PgPool, outputs: &Path, patience: Duration) {
        self.all_end(pool, patience).await;
        self.look(pool).await;
        one_prediction_per_key(pool).await;
        one_charge_each(pool).await;
        let audit = Store::with_pool(pool.clone()).audit().await.unwrap();
        let wrong: Vec<_> = audit.findings.iter().filter(|finding| finding.wrong > 0).collect();
        assert!(wrong.is_empty(), "I4, I7: the books do not add up: {wrong:#?}");
        let held: i64 = sqlx::query_scalar("select coalesce(sum(held_nano), 0)::bigint from accounts")
            .fetch_one(pool)
            .await
            .unwrap();
        assert_eq!(held, 0, "I4: nothing is held at rest");
        outputs_exist(pool, outputs).await;
    }

    /// I1: every acknowledged prediction ends, and exactly once, since its row has one status.
    async fn all_end(&self, pool: &PgPool, patience: Duration) {
        let ids: Vec<Uuid> = self.acknowledged.keys().copied().collect();
        let waiting = async || -> Vec<(Uuid, Option<String>)> {
            sqlx::query_as(
                "select wanted, status from unnest($1::uuid[]) as wanted left join predictions on id = wanted
                 where completed_at is null",
            )
            .bind(&ids)
            .fetch_all(pool)
            .await
            .unwrap()
        };
        let deadline = std::time::Instant::now() + patience;
        loop {
            let left = waiting().await;
            if left.is_empty() {
                return;
            }
            let lost: Vec<_> = left.iter().filter(|(_, status)| status.is_none()).collect();
            assert!(lost.is_empty(), "I1: acknowledged and not there: {lost:?}");
            assert!(std::time::Instant::now() < deadline, "I1: these do not end: {left:?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

/// However often a create with a key was repeated.
async fn one_prediction_per_key(pool: &PgPool) {
    let twice: Vec<(String, i64)> = sqlx::query_as(
        "select idempotency_key, count(*) from predictions
         where idempotency_key is not null group by account_id, idempotency_key having count(*) > 1",
    )
    .fetch_all(pool)
    .await
    .unwrap();
    assert!(twice.is_empty(), "made more than once: {twice:?}");
}

/// I3: one charge for each prediction that succeeded or was canceled on a device, none for any other.
async fn one_charge_each(pool: &PgPool) {
    let wrong: Vec<(Uuid, String, i64)> = sqlx::query_as(
        "select id, status, (select count(*) from ledger where prediction_id = predictions.id and kind = 'charge') as charges
         from predictions
         where (select count(*) from ledger where prediction_id = predictions.id and kind = 'charge')
               <> case when status = 'succeeded' or (status = 'canceled' and device_us > 0) then 1 else 0 end
           and not (status = 'canceled' and cost_nano = 0)",
    )
    .fetch_all(pool)
    .await
    .unwrap();
    assert!(wrong.is_empty(), "I3: {wrong:?}");
}

/// I5: what a result names is there, whole, and of the attempt that ended the prediction: no other wrote into it.
async fn outputs_exist(pool: &PgPool, outputs: &Path) {
    let succeeded: Vec<(Uuid, i32, serde_json::Value)> = sqlx::query_as(
        "select id, attempt, output from predictions where status = 'succeeded' and data_removed_at is null",
    )
    .fetch_all(pool)
    .await
    .unwrap();
    for (id, attempt, output) in succeeded {
        // Behind the attempt's number comes what cannot be guessed.
        let folder = format!("outputs/{id}/{attempt}-");
        for artifact in output.as_array().unwrap() {
            let key = artifact["key"].as_str().unwrap();
            assert!(key.starts_with(&folder), "I5: {key} is not of attempt {attempt}");
            let file = std::fs::metadata(outputs.join(key)).unwrap_or_else(|error| panic!("I5: {key}: {error}"));
            assert_eq!(Some(file.len()), artifact["bytes"].as_u64(), "I5: {key} is not whole");
        }
    }
}
