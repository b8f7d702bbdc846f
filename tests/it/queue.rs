//! The laws of the queue, statement by statement, on a real database.

use std::time::Duration;

use fourstep::{
    domain::{
        ApiKey, Artifact, Caller, Dialect, Failure, FailureCode, Input, NanoUsd, NewPrediction, Outcome, OutputFormat,
        Prediction, PredictionId, PricePerSecond, Progress, Scheduler, Status,
    },
    store::{Audience, Claim, Error, Phase, Store, WorkerRecord, WorkerSession},
};
use futures_util::FutureExt;
use sqlx::{PgPool, postgres::PgPoolOptions};
use uuid::Uuid;

use crate::{process::TestFolder, support::eventually};

pub(crate) const MODEL: &str = "sdxl-lightning-4step";
const LEASE: Duration = Duration::from_secs(15);
const MAX_LOSSES: i16 = 5;
const TWO_SECONDS: Duration = Duration::from_secs(2);

/// A store with one account, and workers that can be killed.
pub(crate) struct Queue {
    pub(crate) store: Store,
    pub(crate) pool: PgPool,
    pub(crate) caller: Caller,
    /// Where its workers store what they draw.
    pub(crate) outputs: TestFolder,
}

/// A worker that shows its sign of life until it is dropped, which is its `kill -9`.
struct LiveWorker {
    id: Uuid,
    _session: WorkerSession,
}

impl Queue {
    pub(crate) async fn new(pool: PgPool) -> Self {
        let store = Store::with_pool(pool.clone());
        let caller = store.create_key("owner", "test", &ApiKey::from_entropy([1; 8], [2; 32])).await.unwrap();
        Self { store, pool, caller, outputs: TestFolder::new() }
    }

    pub(crate) fn new_prediction(&self) -> NewPrediction {
        NewPrediction {
            id: PredictionId::generate(),
            account_id: self.caller.account_id,
            key_id: self.caller.key_id,
            dialect: Dialect::Native,
            model: MODEL.to_owned(),
            version: "1".to_owned(),
            raw_input: serde_json::json!({"prompt": "a cat"}),
            input: Input {
                prompt: "a cat".to_owned(),
                negative_prompt: None,
                width: 256,
                height: 256,
                num_outputs: 1,
                scheduler: Scheduler::KEuler,
                num_inference_steps: 4,
                guidance_scale: 0.0,
                seed: 7,
                disable_safety_checker: false,
                image: None,
                prompt_strength: 0.8,
                output_format: OutputFormat::Png,
                output_quality: 80,
                embed_metadata: true,
            },
            notes: Vec::new(),
            price: PricePerSecond::new(1_540_000),
            time_limit: Duration::from_secs(60),
            longest_run: Duration::from_secs(3600),
            priority: 0,
            cancel_after: None,
            idempotency: None,
            webhook: None,
            request_id: None,
            trace_parent: None,
        }
    }

    pub(crate) async fn create(&self) -> Prediction {
        self.store.create(&self.new_prediction()).await.unwrap().unwrap()
    }

    async fn live_worker(&self) -> LiveWorker {
        let id = Uuid::new_v4();
        let mut session = self.store.worker_session().await.unwrap();
        session.hold(id).await.unwrap();
        LiveWorker { id, _session: session }
    }

    async fn report_ready(&self, worker: &LiveWorker) {
        let record = WorkerRecord {
            id: worker.id,
            models: vec![MODEL.to_owned()],
            device: "test".to_owned(),
            host: "here".to_owned(),
            phase: Phase::Ready,
            percent: 100,
            picture: None,
        };
        self.store.report_worker(&record).await.unwrap();
    }

    async fn claim(&self, worker: &LiveWorker) -> Claim {
        self.store.claim(MODEL, worker.id, LEASE).await.unwrap().expect("something to claim")
    }

    pub(crate) async fn get(&self, id: PredictionId) -> Prediction {
        self.store.get(self.caller.account_id, id).await.unwrap().unwrap()
    }

    pub(crate) async fn charges(&self, id: PredictionId) -> Vec<i64> {
        sqlx::query_scalar("select amount_nano from ledger where prediction_id = $1")
            .bind(id.as_uuid())
            .fetch_all(&self.pool)
            .await
            .unwrap()
    }

    /// A prediction whose deadline passes as it is created.
    fn late(&self) -> NewPrediction {
        NewPrediction { cancel_after: Some(Duration::ZERO), ..self.new_prediction() }
    }

    /// Makes a prediction's deadline pass now.
    async fn pass_deadline(&self, id: PredictionId) {
        let passed = sqlx::query("update predictions set deadline = now() where id = $1").bind(id.as_uuid());
        passed.execute(&self.pool).await.unwrap();
    }

    /// Makes every lease run out now, as fifteen silent seconds would.
    async fn expire_leases(&self) {
        sqlx::query("update predictions set lease_until = now() - interval '1 s' where status = 'processing'")
            .execute(&self.pool)
            .await
            .unwrap();
    }

    /// Sweeps until the database has noticed that a worker's session is gone.
    async fn sweep_until_requeued(&self) {
        // Just after a start of the database only leases count.
        let settled = "select pg_postmaster_start_time() < now() - interval '5 s'";
        eventually("the database has been there for a while", async || {
            sqlx::query_scalar::<_, bool>(settled).fetch_one(&self.pool).await.unwrap()
        })
        .await;
        let noticed = async {
            while self.store.sweep(MAX_LOSSES).await.unwrap().requeued.is_empty() {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(TWO_SECONDS, noticed).await.expect("the lost worker is noticed within two seconds");
    }
}

pub(crate) fn succeeded() -> Outcome {
    let artifact = Artifact {
        key: "outputs/x/1-y/out-0.png".to_owned(),
        content_type: "image/png".to_owned(),
        width: 256,
        height: 256,
        bytes: 3,
        seed: 7,
        safety: None,
    };
    Outcome::Succeeded { output: vec![artifact], device_time: TWO_SECONDS }
}

#[sqlx::test]
async fn a_prediction_is_claimed_once_and_in_order_of_creation(pool: PgPool) {
    let queue = Queue::new(pool).await;
    let (first, second) = (queue.create().await, queue.create().await);
    let worker = queue.live_worker().await;
    assert_eq!(queue.claim(&worker).await.id, first.id);
    assert_eq!(queue.claim(&worker).await.id, second.id);
    assert!(queue.store.claim(MODEL, worker.id, LEASE).await.unwrap().is_none());
    assert!(queue.store.claim("another-model", worker.id, LEASE).await.unwrap().is_none());
}

#[sqlx::test]
async fn many_workers_claiming_at_once_never_share_a_prediction(pool: PgPool) {
    let queue = Queue::new(pool).await;
    for _ in 0..40 {
        queue.create().await;
    }
    let claims = futures_util::future::join_all((0..60).map(|_| queue.store.claim(MODEL, Uuid::new_v4(), LEASE))).await;
    let mut claimed: Vec<PredictionId> = claims.into_iter().filter_map(Result::unwrap).map(|claim| claim.id).collect();
    claimed.sort();
    claimed.dedup();
    assert_eq!(claimed.len(), 40);
}

#[sqlx::test]
async fn what_can_be_drawn_beside_a_claim_is_claimed_in_order_and_leaves_the_other_workers_theirs(pool: PgPool) {
    let queue = Queue::new(pool).await;
    let (here, there) = (queue.live_worker().await, queue.live_worker().await);
    queue.report_ready(&here).await;
    let mut created = Vec::new();
    for number in 0..8 {
        let mut new = queue.new_prediction();
        new.input.seed = number;
        // Every fourth is larger.
        new.input.width = if number % 4 == 3 { 512 } else { 256 };
        created.push(queue.store.create(&new).await.unwrap().unwrap().id);
    }
    let first = queue.claim(&here).await;
    assert_eq!(first.id, created[0]);
    let ids = |claims: Vec<Claim>| claims.into_iter().map(|claim| claim.id).collect::<Vec<_>>();
    let beside = queue.store.claim_beside(&first, 2, LEASE).await.unwrap();
    assert!(beside.iter().all(|claim| claim.worker_id == here.id && claim.attempt == 1));
    assert_eq!(ids(beside), [created[1], created[2]], "as many as there is room for");
    queue.report_ready(&there).await;
    let large = queue.claim(&there).await;
    assert_eq!(large.id, created[3]);
    let beside = queue.store.claim_beside(&large, 7, LEASE).await.unwrap();
    assert_eq!(ids(beside), [], "the other large one is the other worker's share");
    // Three small ones are left, and the claim itself is a fourth: two for each worker.
    let beside = queue.store.claim_beside(&first, 7, LEASE).await.unwrap();
    assert_eq!(ids(beside), [created[4]]);
}

#[sqlx::test]
async fn finishing_charges_the_device_time_once(pool: PgPool) {
    let queue = Queue::new(pool).await;
    let prediction = queue.create().await;
    let worker = queue.live_worker().await;
    let claim = queue.claim(&worker).await;
    let cost = queue.store.finish(&claim, &succeeded(), "done\n").await.unwrap();
    assert_eq!(cost, NanoUsd::new(3_080_000));

    let finished = queue.get(prediction.id).await;
    assert_eq!(
        (finished.status, finished.cost, finished.device_time),
        (Status::Succeeded, Some(cost), Some(TWO_SECONDS))
    );
    assert_eq!((finished.output.map(|output| output.len()), finished.logs.as_str()), (Some(1), "done\n"));
    assert_eq!(queue.charges(prediction.id).await, [3_080_000]);

    let again = queue.store.finish(&claim, &succeeded(), "").await;
    assert!(matches!(again, Err(Error::LeaseLost)));
    assert_eq!(queue.charges(prediction.id).await.len(), 1);
}

#[sqlx::test]
async fn a_failure_is_free_and_leaves_no_charge(pool: PgPool) {
    let queue = Queue::new(pool).await;
    let prediction = queue.create().await;
    let worker = queue.live_worker().await;
    let claim = queue.claim(&worker).await;
    let failure = Failure { code: FailureCode::OutOfMemory, message: "not enough memory".to_owned() };
    let outcome = Outcome::Failed { failure: failure.clone(), device_time: TWO_SECONDS };
    assert_eq!(queue.store.finish(&claim, &outcome, "").await.unwrap(), NanoUsd::ZERO);
    let failed = queue.get(prediction.id).await;
    assert_eq!((failed.status, failed.failure, failed.cost), (Status::Failed, Some(failure), Some(NanoUsd::ZERO)));
    assert!(queue.charges(prediction.id).await.is_empty());
}

#[sqlx::test]
async fn a_live_worker_is_left_alone_by_the_sweep(pool: PgPool) {
    let queue = Queue::new(pool).await;
    queue.create().await;
    let worker = queue.live_worker().await;
    let claim = queue.claim(&worker).await;
    assert!(queue.store.sweep(MAX_LOSSES).await.unwrap().requeued.is_empty());
    queue.store.finish(&claim, &succeeded(), "").await.unwrap();
}

#[sqlx::test]
async fn a_killed_worker_is_noticed_by_its_lock_and_its_late_finish_is_fenced(pool: PgPool) {
    let queue = Queue::new(pool).await;
    let prediction = queue.create().await;
    let killed = queue.live_worker().await;
    let stale = queue.claim(&killed).await;
    drop(killed);
    queue.sweep_until_requeued().await;

    let rescuer = queue.live_worker().await;
    let claim = queue.claim(&rescuer).await;
    assert_eq!((claim.id, claim.attempt), (prediction.id, 2));
    assert!(matches!(queue.store.finish(&stale, &succeeded(), "late").await, Err(Error::LeaseLost)));
    assert!(matches!(queue.store.record_logs(&stale, "late").await, Err(Error::LeaseLost)));
    assert!(matches!(queue.store.hand_back(&stale).await, Err(Error::LeaseLost)));
    queue.store.finish(&claim, &succeeded(), "").await.unwrap();
    assert_eq!(queue.charges(prediction.id).await.len(), 1);
}

#[sqlx::test]
async fn a_hanging_worker_loses_its_lease_and_is_told_when_it_renews(pool: PgPool) {
    let queue = Queue::new(pool).await;
    queue.create().await;
    let hanging = queue.live_worker().await;
    let claim = queue.claim(&hanging).await;
    let held = [(claim.id, claim.attempt)];
    assert_eq!(queue.store.renew(hanging.id, &held, LEASE).await.unwrap().len(), 1);
    queue.expire_leases().await;
    assert_eq!(queue.store.sweep(MAX_LOSSES).await.unwrap().requeued, [claim.id]);
    assert!(queue.store.renew(hanging.id, &held, LEASE).await.unwrap().is_empty());
    assert!(matches!(queue.store.finish(&claim, &succeeded(), "").await, Err(Error::LeaseLost)));
}

#[sqlx::test]
async fn a_renewal_under_way_does_not_take_back_what_was_given_up(pool: PgPool) {
    let queue = Queue::new(pool).await;
    queue.create().await;
    let giving_up = queue.live_worker().await;
    let claim = queue.claim(&giving_up).await;
    queue.store.give_up(&claim).await.unwrap();
    assert!(queue.store.renew(giving_up.id, &[(claim.id, claim.attempt)], LEASE).await.unwrap().is_empty());
    assert_eq!(queue.store.sweep(MAX_LOSSES).await.unwrap().requeued, [claim.id]);
}

#[sqlx::test]
async fn a_prediction_that_kills_every_worker_fails_at_the_fifth_and_costs_nothing(pool: PgPool) {
    let queue = Queue::new(pool).await;
    let prediction = queue.create().await;
    let worker = queue.live_worker().await;
    for loss in 1..=MAX_LOSSES {
        queue.claim(&worker).await;
        queue.expire_leases().await;
        let swept = queue.store.sweep(MAX_LOSSES).await.unwrap();
        assert_eq!(swept.requeued.is_empty(), loss == MAX_LOSSES);
    }
    let failed = queue.get(prediction.id).await;
    assert_eq!(failed.failure.map(|failure| failure.code), Some(FailureCode::WorkerLost));
    assert_eq!((failed.status, failed.cost), (Status::Failed, Some(NanoUsd::ZERO)));
    assert!(queue.charges(prediction.id).await.is_empty());
}

#[sqlx::test]
async fn handing_back_does_not_count_as_a_loss(pool: PgPool) {
    let queue = Queue::new(pool).await;
    let prediction = queue.create().await;
    let worker = queue.live_worker().await;
    for _ in 0..2 * MAX_LOSSES {
        let claim = queue.claim(&worker).await;
        queue.store.hand_back(&claim).await.unwrap();
    }
    assert_eq!(queue.get(prediction.id).await.status, Status::Queued);
}

#[sqlx::test]
async fn canceling_a_queued_prediction_ends_it_at_once_and_free(pool: PgPool) {
    let queue = Queue::new(pool).await;
    let prediction = queue.create().await;
    let canceled = queue.store.request_cancel(queue.caller.account_id, prediction.id).await.unwrap().unwrap();
    assert_eq!((canceled.status, canceled.cost, canceled.started_at), (Status::Canceled, Some(NanoUsd::ZERO), None));
    assert!(queue.store.claim(MODEL, Uuid::new_v4(), LEASE).await.unwrap().is_none());
}

#[sqlx::test]
async fn canceling_a_running_prediction_tells_its_worker_and_charges_the_time_used(pool: PgPool) {
    let queue = Queue::new(pool).await;
    let prediction = queue.create().await;
    let worker = queue.live_worker().await;
    let claim = queue.claim(&worker).await;
    let asked = queue.store.request_cancel(queue.caller.account_id, prediction.id).await.unwrap().unwrap();
    assert_eq!((asked.status, asked.cancel_requested), (Status::Processing, true));
    let renewals = queue.store.renew(worker.id, &[(claim.id, claim.attempt)], LEASE).await.unwrap();
    assert!(renewals[0].cancel_requested);

    let outcome = Outcome::Canceled { device_time: Duration::from_millis(500) };
    assert_eq!(queue.store.finish(&claim, &outcome, "").await.unwrap(), NanoUsd::new(770_000));
    assert_eq!(queue.charges(prediction.id).await, [770_000]);
    let canceled = queue.get(prediction.id).await;
    assert_eq!((canceled.status, canceled.failure), (Status::Canceled, None));
}

#[sqlx::test]
async fn a_terminal_prediction_never_changes(pool: PgPool) {
    let queue = Queue::new(pool).await;
    let prediction = queue.create().await;
    let worker = queue.live_worker().await;
    let claim = queue.claim(&worker).await;
    queue.store.finish(&claim, &succeeded(), "done\n").await.unwrap();
    let before = format!("{:?}", queue.get(prediction.id).await);

    queue.store.request_cancel(queue.caller.account_id, prediction.id).await.unwrap();
    queue.store.sweep(MAX_LOSSES).await.unwrap();
    assert!(queue.store.hand_back(&claim).await.is_err());
    assert!(queue.store.finish(&claim, &Outcome::Canceled { device_time: TWO_SECONDS }, "").await.is_err());
    assert_eq!(format!("{:?}", queue.get(prediction.id).await), before);
}

#[sqlx::test]
async fn a_cancel_asked_of_a_worker_that_died_ends_the_prediction_without_another_run(pool: PgPool) {
    let queue = Queue::new(pool).await;
    let prediction = queue.create().await;
    let worker = queue.live_worker().await;
    queue.claim(&worker).await;
    queue.store.request_cancel(queue.caller.account_id, prediction.id).await.unwrap();
    queue.expire_leases().await;
    assert_eq!(queue.store.sweep(MAX_LOSSES).await.unwrap().ended, [prediction.id]);
    let canceled = queue.get(prediction.id).await;
    assert_eq!((canceled.status, canceled.cost), (Status::Canceled, Some(NanoUsd::ZERO)));
}

/// While a site is upgraded, newer servers make predictions that older workers find.
#[sqlx::test]
async fn a_worker_leaves_a_few_that_it_cannot_read_at_a_time(pool: PgPool) {
    let queue = Queue::new(pool).await;
    for _ in 0..9 {
        queue.create().await;
    }
    let newer = "update predictions set input = input || '{\"scheduler\": \"of a newer version\"}'";
    sqlx::query(newer).execute(&queue.pool).await.unwrap();
    let readable = queue.create().await.id;
    let claim = async || queue.store.claim(MODEL, Uuid::new_v4(), LEASE).await.unwrap();
    assert!(claim().await.is_none(), "others may have the ninth");
    assert_eq!(claim().await.map(|claim| claim.id), Some(readable));
}

#[sqlx::test]
async fn what_a_worker_cannot_read_is_left_to_another_and_keeps_it_from_nothing_else(pool: PgPool) {
    let queue = Queue::new(pool).await;
    let worker = queue.live_worker().await;
    queue.report_ready(&worker).await;
    let mut created = Vec::new();
    for _ in 0..4 {
        created.push(queue.create().await.id);
    }
    let newer = "update predictions set input = input || '{\"scheduler\": \"of a newer version\"}' where id = $1";
    for id in [created[0], created[2]] {
        sqlx::query(newer).bind(id.as_uuid()).execute(&queue.pool).await.unwrap();
    }
    let claim = queue.claim(&worker).await;
    assert_eq!(claim.id, created[1], "what can be read behind it");
    let left = "select status, losses, run_after > now() from predictions where id = $1";
    let left = sqlx::query_as::<_, (String, i16, bool)>(left).bind(created[0].as_uuid());
    assert_eq!(left.fetch_one(&queue.pool).await.unwrap(), ("queued".to_owned(), 0, true));

    let beside = queue.store.claim_beside(&claim, 4, LEASE).await.unwrap();
    assert_eq!(beside.iter().map(|claim| claim.id).collect::<Vec<_>>(), [created[3]]);
    // A word that only the claim meets.
    let last = queue.create().await.id;
    let newer = "update predictions set failure_code = 'of a newer version', failure_message = '' where id = $1";
    for id in [queue.create().await.id, queue.create().await.id] {
        sqlx::query(newer).bind(id.as_uuid()).execute(&queue.pool).await.unwrap();
    }
    let beside = queue.store.claim_beside(&claim, 4, LEASE).await.unwrap();
    assert_eq!(beside.iter().map(|claim| claim.id).collect::<Vec<_>>(), [last], "the readable one of a batch");
    let kept: i64 = sqlx::query_scalar("select count(*) from predictions where status = 'processing'")
        .fetch_one(&queue.pool)
        .await
        .unwrap();
    assert_eq!(kept, 3);
}

#[sqlx::test]
async fn what_is_past_its_deadline_is_not_claimed(pool: PgPool) {
    let queue = Queue::new(pool).await;
    let worker = queue.live_worker().await;
    queue.report_ready(&worker).await;
    queue.store.create(&queue.late()).await.unwrap();
    assert!(queue.store.claim(MODEL, worker.id, LEASE).await.unwrap().is_none());
    queue.create().await;
    let claim = queue.claim(&worker).await;
    assert!(queue.store.claim_beside(&claim, 4, LEASE).await.unwrap().is_empty());
}

#[sqlx::test]
async fn a_deadline_ends_a_queued_prediction_and_stops_a_running_one(pool: PgPool) {
    let queue = Queue::new(pool).await;
    let worker = queue.live_worker().await;
    queue.create().await;
    let claim = queue.claim(&worker).await;
    queue.pass_deadline(claim.id).await;
    let queued = queue.late();
    queue.store.create(&queued).await.unwrap();

    let swept = queue.store.sweep(MAX_LOSSES).await.unwrap();
    assert_eq!(swept.ended, [queued.id]);
    let ended = queue.get(queued.id).await;
    assert_eq!(ended.failure.map(|failure| failure.code), Some(FailureCode::DeadlineExceeded));
    let renewals = queue.store.renew(worker.id, &[(claim.id, claim.attempt)], LEASE).await.unwrap();
    assert!(renewals[0].cancel_requested);
    queue.store.finish(&claim, &Outcome::Canceled { device_time: TWO_SECONDS }, "").await.unwrap();
    let stopped = queue.get(claim.id).await;
    assert_eq!(stopped.failure.map(|failure| failure.code), Some(FailureCode::DeadlineExceeded));
}

/// What it is canceled for, whoever ends it.
#[sqlx::test]
async fn a_deadline_is_the_reason_if_it_passed_before_anybody_asked(pool: PgPool) {
    let queue = Queue::new(pool).await;
    let worker = queue.live_worker().await;
    let canceled = Outcome::Canceled { device_time: Duration::ZERO };
    for (by, is_asked_first) in
        [("finish", true), ("hand back", true), ("sweep", true), ("sweep", false), ("lost", false)]
    {
        queue.create().await;
        let claim = queue.claim(&worker).await;
        if is_asked_first {
            queue.store.request_cancel(queue.caller.account_id, claim.id).await.unwrap();
        }
        queue.pass_deadline(claim.id).await;
        match by {
            "finish" => assert_eq!(queue.store.finish(&claim, &canceled, "").await.unwrap(), NanoUsd::ZERO),
            "hand back" => assert!(!queue.store.hand_back(&claim).await.unwrap()),
            "sweep" => {
                // It is told to stop, and its worker is lost.
                queue.store.sweep(MAX_LOSSES).await.unwrap();
                queue.expire_leases().await;
                assert_eq!(queue.store.sweep(MAX_LOSSES).await.unwrap().ended, [claim.id]);
            }
            _ => {
                queue.expire_leases().await;
                assert_eq!(queue.store.sweep(MAX_LOSSES).await.unwrap().ended, [claim.id]);
            }
        }
        let ended = queue.get(claim.id).await;
        assert_eq!(ended.status, Status::Canceled, "{by}");
        let reason = (!is_asked_first).then_some(FailureCode::DeadlineExceeded);
        assert_eq!(ended.failure.map(|failure| failure.code), reason, "{by}");
    }
}

#[sqlx::test]
async fn an_id_is_taken_once(pool: PgPool) {
    let queue = Queue::new(pool).await;
    let new = queue.new_prediction();
    assert!(queue.store.create(&new).await.unwrap().is_some());
    assert!(queue.store.create(&new).await.unwrap().is_none());
}

#[sqlx::test]
async fn place_and_eta_count_those_ahead_and_the_workers_that_are_ready(pool: PgPool) {
    let queue = Queue::new(pool).await;
    for _ in 0..4 {
        queue.create().await;
    }
    let last = queue.create().await;
    let place = queue.store.queue_place(&last, TWO_SECONDS).await.unwrap();
    assert_eq!((place.ahead, place.eta), (4, TWO_SECONDS * 5));
}

#[sqlx::test]
async fn pruning_takes_the_data_and_leaves_the_charge(pool: PgPool) {
    let queue = Queue::new(pool).await;
    let (old, waiting) = (queue.create().await, queue.create().await);
    let worker = queue.live_worker().await;
    let claim = queue.claim(&worker).await;
    queue.store.finish(&claim, &succeeded(), "done\n").await.unwrap();
    assert!(queue.store.prune(Duration::from_secs(3600), 100).await.unwrap().is_empty());
    assert_eq!(queue.store.prune(Duration::ZERO, 100).await.unwrap(), [old.id]);
    let pruned = queue.get(old.id).await;
    assert!(pruned.data_removed && pruned.output.is_none() && pruned.logs.is_empty());
    assert!(pruned.input.prompt.is_empty() && pruned.raw_input == serde_json::json!({}));
    assert_eq!(pruned.cost, Some(NanoUsd::new(3_080_000)));
    assert_eq!(queue.get(waiting.id).await.status, Status::Queued);
}

#[sqlx::test]
async fn the_table_refuses_rows_that_make_no_sense(pool: PgPool) {
    let queue = Queue::new(pool.clone()).await;
    let id = queue.create().await.id.as_uuid();
    let nonsense = [
        "update predictions set status = 'succeeded' where id = $1",
        "update predictions set status = 'processing' where id = $1",
        "update predictions set status = 'processing', lease_until = now() where id = $1",
        "update predictions set completed_at = now() where id = $1",
        "update predictions set cost_nano = 5 where id = $1",
        "update predictions set status = 'failed', completed_at = now(), cost_nano = 0, device_us = 0 where id = $1",
        "update predictions set output = '[]' where id = $1",
        "update predictions set status = 'canceled', completed_at = now(), cost_nano = 5, device_us = 1 where id = $1",
        "update predictions set status = 'lost' where id = $1",
    ];
    for statement in nonsense {
        let refused = sqlx::query(statement).bind(id).execute(&pool).await;
        let code =
            refused.expect_err(statement).into_database_error().expect("from the database").code().map(String::from);
        assert_eq!(code.as_deref(), Some("23514"), "{statement}");
    }
}

/// The store of another process, and the news that the two exchange.
fn beside(queue: &Queue, pool: PgPool) -> (Store, tokio::task::JoinHandle<((), ())>) {
    let elsewhere = Store::with_pool(pool);
    let (here, there) = (queue.store.clone(), elsewhere.clone());
    (
        elsewhere,
        tokio::spawn(async move {
            tokio::join!(here.spread_changes(Audience::Clients), there.spread_changes(Audience::Clients))
        }),
    )
}

#[sqlx::test]
async fn news_of_work_reaches_another_process_by_notification(pool: PgPool) {
    let queue = Queue::new(pool.clone()).await;
    let (elsewhere, spreading) = beside(&queue, pool);
    // Nothing but a notification wakes this one: the regular re-reading is for predictions that are waited for.
    let heard = async {
        loop {
            // What is said before the other side listens is lost, so it is said until it is heard.
            queue.create().await;
            if tokio::time::timeout(Duration::from_millis(100), elsewhere.changes().queued()).await.is_ok() {
                break;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(5), heard).await.expect("heard");
    spreading.abort();
}

#[sqlx::test]
async fn workers_alone_hear_of_work_and_ends_and_not_of_steps(pool: PgPool) {
    let queue = Queue::new(pool.clone()).await;
    let worker = Store::with_pool(pool);
    let spreading = tokio::spawn({
        let (here, there) = (queue.store.clone(), worker.clone());
        async move { tokio::join!(here.spread_changes(Audience::Clients), there.spread_changes(Audience::Workers)) }
    });
    let running = queue.create().await.id;
    let claim = queue.store.claim(MODEL, Uuid::new_v4(), LEASE).await.unwrap().unwrap();
    let progress = Progress {
        attempt: claim.attempt,
        done: 1,
        total: 4,
        finished_images: 0,
        elapsed: Duration::ZERO,
        preview: None,
    };
    let until_heard = async || {
        loop {
            queue.store.record_progress(&claim, &progress).await.unwrap();
            let queued = worker.changes().queued();
            queue.create().await;
            if tokio::time::timeout(Duration::from_millis(100), queued).await.is_ok() {
                break;
            }
        }
    };
    // From when it listens; and once more, since steps go out after what was heard beside them.
    until_heard().await;
    let mut steps = worker.changes().subscribe_progress(running);
    until_heard().await;
    until_heard().await;
    assert!(steps.changed().now_or_never().is_none());
    spreading.abort();
}

#[sqlx::test]
async fn who_waits_is_brought_what_ended_in_another_process(pool: PgPool) {
    let queue = Queue::new(pool.clone()).await;
    let (elsewhere, spreading) = beside(&queue, pool);
    let heard = async {
        loop {
            // One after the other, until the other side listens.
            let id = queue.create().await.id;
            let mut waits = elsewhere.changes().subscribe(id);
            queue.store.request_cancel(queue.caller.account_id, id).await.unwrap();
            while tokio::time::timeout(Duration::from_millis(100), waits.changed()).await.is_ok() {
                if let Some(ended) = waits.ended() {
                    return (id, ended);
                }
            }
        }
    };
    let (id, ended) = tokio::time::timeout(Duration::from_secs(5), heard).await.expect("heard");
    assert_eq!((ended.id, ended.status), (id, Status::Canceled));
    spreading.abort();
}

#[sqlx::test]
async fn a_database_that_only_reads_is_one_that_is_away(pool: PgPool) {
    let queue = Queue::new(pool.clone()).await;
    let claimed = queue.create().await;
    let claim = queue.store.claim(MODEL, Uuid::new_v4(), LEASE).await.unwrap().unwrap();
    // As after a failover, where connections lead to the old server for a while.
    let standby = (*pool.connect_options()).clone().options([("default_transaction_read_only", "on")]);
    let standby = Store::with_pool(PgPoolOptions::new().connect_lazy_with(standby));
    let created = standby.create(&queue.new_prediction()).await;
    assert!(matches!(created, Err(Error::Unavailable(_))), "{created:?}");
    let finished = standby.finish(&claim, &succeeded(), "").await;
    assert!(matches!(finished, Err(Error::Unavailable(_))), "{finished:?}");
    // No sweep looks there for the lock that says who lives.
    let mut session = standby.worker_session().await.unwrap();
    for shown in [session.hold(Uuid::new_v4()).await, session.check().await] {
        assert!(matches!(shown, Err(Error::Unavailable(_))), "{shown:?}");
    }
    queue.store.finish(&claim, &succeeded(), "").await.unwrap();
    assert_eq!(queue.charges(claimed.id).await.len(), 1);
}

#[sqlx::test]
async fn a_connection_whose_server_turned_out_to_only_read_is_not_used_again(pool: PgPool) {
    let only = PgPoolOptions::new().max_connections(1).connect_with((*pool.connect_options()).clone()).await.unwrap();
    let queue = Queue::new(only.clone()).await;
    // As one that has stayed open while its server became a standby of another.
    sqlx::query("set default_transaction_read_only = on").execute(&only).await.unwrap();
    let refused = queue.store.create(&queue.new_prediction()).await;
    assert!(matches!(refused, Err(Error::Unavailable(_))), "{refused:?}");
    queue.create().await;
}
