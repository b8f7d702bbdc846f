//! The checker of fault tests: what clients were told, held against the database and the files when all is over.
//!
//! A test records every acknowledgment in a [`History`] while it breaks things, and calls [`History::check`] at the
//! end, when a server runs that nothing happens to any more.
//! The laws are those every run must keep, whatever was killed: each has its place below.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use chrono::{DateTime, Utc};
use fourstep::{artifacts::Artifacts, domain::ApiKey, store::Store};
use reqwest::StatusCode;
use serde_json::Value;
use sqlx::PgPool;
use uuid::Uuid;

use crate::{
    process::Client,
    receiver::{Receiver, Told},
};

/// Of each client's predictions, as many are asked for by every other.
const ASKED_FOR: usize = 20;

/// What clients know.
#[derive(Debug, Default)]
pub(crate) struct History {
    /// Ids of acknowledged creates, each with the API key and the idempotency key it was asked for with.
    acknowledged: HashMap<Uuid, (String, Option<String>)>,
    /// What was read of predictions that were terminal by then: status and cost.
    terminal: HashMap<Uuid, (String, i64)>,
    /// What clients were told of predictions that had ended: status, end and cost.
    told: HashMap<Uuid, (String, DateTime<Utc>, i64)>,
}

impl History {
    /// A create was acknowledged to a client. Two acknowledgments of one key of one client must name the same
    /// prediction.
    pub(crate) fn acknowledged(&mut self, id: &str, client: &Client, key: Option<&str>) {
        let id = id.parse().unwrap();
        let asked = (client.key.clone(), key.map(str::to_owned));
        let known = self.acknowledged.insert(id, asked.clone());
        assert!(known.is_none_or(|known| known == asked), "{id} was made for two keys");
    }

    /// A client was shown a prediction, which may have ended. What it was told of an end stays true, whatever breaks
    /// then.
    pub(crate) fn shown(&mut self, prediction: &Value) {
        let text = |name: &str| prediction[name].as_str().unwrap().to_owned();
        if !prediction["completed_at"].is_null() {
            let dollars = prediction["metrics"]["cost"].as_f64().unwrap_or(0.0);
            let end = (text("status"), text("completed_at").parse().unwrap(), (dollars * 1e9).round() as i64);
            let before = self.told.insert(text("id").parse().unwrap(), end.clone());
            assert!(before.is_none_or(|before| before == end), "I2: {} ended twice", text("id"));
        }
    }

    /// How many ends clients were told of.
    pub(crate) fn ends_told(&self) -> usize {
        self.told.len()
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
    pub(crate) async fn check(&mut self, pool: &PgPool, outputs: &Artifacts, patience: Duration) {
        self.all_end(pool, patience).await;
        self.look(pool).await;
        self.told_ends_are_kept(pool).await;
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

    /// I6: the receiver of everybody's webhooks was told every end at least once, and as it is in the row.
    pub(crate) async fn check_webhooks(&self, pool: &PgPool, receiver: &mut Receiver, patience: Duration) {
        // The clock moves on: pauses and the leases of deliverers that died are over.
        sqlx::query("update webhook_deliveries set due_at = now(), lease_until = null where state = 'pending'")
            .execute(pool)
            .await
            .unwrap();
        let deadline = Instant::now() + patience;
        let posted = loop {
            let posted: Vec<(Uuid, Uuid, String, String)> = sqlx::query_as(
                "select delivery.id, predictions.id, predictions.status, delivery.state
                 from webhook_deliveries as delivery join predictions on predictions.id = prediction_id
                 where event = 'completed'",
            )
            .fetch_all(pool)
            .await
            .unwrap();
            let untold = posted.iter().filter(|(.., state)| state != "delivered").count();
            if untold == 0 {
                break posted;
            }
            assert!(Instant::now() < deadline, "I6: {untold} ends are not told");
            tokio::time::sleep(Duration::from_millis(50)).await;
        };
        let mut told: HashMap<Uuid, Vec<Told>> = HashMap::new();
        // What was noted as delivered has been received before.
        while let Ok(delivery) = receiver.told.try_recv() {
            told.entry(delivery.header("webhook-id").parse().unwrap()).or_default().push(delivery);
        }
        let of: HashMap<Uuid, Uuid> = posted.iter().map(|(delivery, id, ..)| (*id, *delivery)).collect();
        assert_eq!(of.len(), posted.len(), "I6: an end was posted twice");
        let told_ids: Vec<Uuid> = told.keys().copied().collect();
        let kept: Vec<Uuid> = sqlx::query_scalar("select id from webhook_deliveries where id = any ($1)")
            .bind(&told_ids)
            .fetch_all(pool)
            .await
            .unwrap();
        let forgotten: Vec<_> = told_ids.iter().filter(|id| !kept.contains(id)).collect();
        assert!(forgotten.is_empty(), "I6: told, of whatever event, and nobody knows it any more: {forgotten:?}");
        for id in self.acknowledged.keys() {
            assert!(of.contains_key(id), "I6: the end of {id} was not posted");
        }
        for (delivery, id, status, _) in posted {
            let told = told.get(&delivery).map(Vec::as_slice).unwrap_or_default();
            assert!(!told.is_empty(), "I6: the end of {id} is noted as told, and was not");
            for told in told.iter().map(Told::json) {
                let (told_id, told_status) = (told["id"].as_str().unwrap(), told["status"].as_str().unwrap());
                assert_eq!((told_id, told_status), (id.to_string().as_str(), status.as_str()), "I6");
                assert!(!told["completed_at"].is_null(), "I6: {id} was told as if it went on");
            }
        }
    }

    /// I8: what was acknowledged to a key is its account's, and nobody else is shown it. These clients are all there
    /// were, each of an account of its own.
    pub(crate) async fn check_owners(&self, pool: &PgPool, clients: &[Client]) {
        for client in clients {
            let (own, foreign): (Vec<_>, Vec<_>) =
                self.acknowledged.iter().partition(|(_, (key, _))| *key == client.key);
            let own: Vec<Uuid> = own.into_iter().map(|(id, _)| *id).collect();
            assert!(!own.is_empty(), "a client that has done nothing");
            let account: i64 = sqlx::query_scalar("select account_id from api_keys where lookup = $1")
                .bind(ApiKey::parse(&client.key).unwrap().lookup())
                .fetch_one(pool)
                .await
                .unwrap();
            let astray: Vec<Uuid> =
                sqlx::query_scalar("select id from predictions where id = any ($1) and account_id <> $2")
                    .bind(&own)
                    .bind(account)
                    .fetch_all(pool)
                    .await
                    .unwrap();
            assert!(astray.is_empty(), "I8: made for one account and kept by another: {astray:?}");
            assert_eq!(client.status_of(&own[0].to_string()).await, StatusCode::OK);
            for (id, _) in foreign.into_iter().take(ASKED_FOR) {
                assert_eq!(client.status_of(&id.to_string()).await, StatusCode::NOT_FOUND, "I8: {id}");
            }
            for id in client.listed().await {
                let owner = self.acknowledged.get(&id.parse().unwrap()).map(|(key, _)| key);
                assert!(owner.is_none_or(|owner| *owner == client.key), "I8: {id} is listed");
            }
        }
    }

    /// I2: what a client was told of an end is in the row.
    async fn told_ends_are_kept(&self, pool: &PgPool) {
        let ended: Vec<(Uuid, String, DateTime<Utc>, i64)> = sqlx::query_as(
            "select id, status, completed_at, cost_nano from predictions where id = any ($1) and completed_at is not null",
        )
        .bind(self.told.keys().copied().collect::<Vec<_>>())
        .fetch_all(pool)
        .await
        .unwrap();
        let kept: HashMap<_, _> = ended.into_iter().map(|(id, status, at, cost)| (id, (status, at, cost))).collect();
        for (id, told) in &self.told {
            assert_eq!(kept.get(id), Some(told), "I2: the end of {id} is not what was told");
        }
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
        let deadline = Instant::now() + patience;
        loop {
            let left = waiting().await;
            if left.is_empty() {
                return;
            }
            let lost: Vec<_> = left.iter().filter(|(_, status)| status.is_none()).collect();
            assert!(lost.is_empty(), "I1: acknowledged and not there: {lost:?}");
            assert!(Instant::now() < deadline, "I1: these do not end: {left:?}");
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
async fn outputs_exist(pool: &PgPool, outputs: &Artifacts) {
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
            let file = outputs.find(key).await.unwrap().unwrap_or_else(|| panic!("I5: {key} is not there"));
            assert_eq!(Some(file.size), artifact["bytes"].as_u64(), "I5: {key} is not whole");
        }
    }
}
