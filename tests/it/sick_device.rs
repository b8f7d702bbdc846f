//! A device that fails whatever it is given takes no more than a few predictions with it.

use std::{
    ops::ControlFlow,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::SeqCst},
    },
    time::Duration,
};

use fourstep::{
    domain::{Failure, FailureCode, Input, NewPrediction, Safety, Status},
    worker::{
        Load, Settings, WorkerPool,
        predictor::{Drawn, PredictError, Predictor, Step},
    },
};
use sqlx::PgPool;

use crate::{
    queue::Queue,
    worker::{gated, mock, settings},
};

/// Longer than anything here takes; only a failing test waits for it.
const PATIENCE: Duration = Duration::from_secs(10);

fn broken() -> Failure {
    Failure { code: FailureCode::Internal, message: "the model failed".to_owned() }
}

/// Draws twice and fails from then on, or, if a warm-up cures it, until the next one.
struct Sick {
    runs: u32,
    warm_ups: Arc<AtomicU32>,
    is_curable: bool,
}

impl Predictor for Sick {
    fn warm_up(&mut self) -> Result<(), Failure> {
        let is_first = self.warm_ups.fetch_add(1, SeqCst) == 0;
        self.runs = 0;
        if is_first || self.is_curable { Ok(()) } else { Err(broken()) }
    }

    fn predict(
        &mut self,
        input: &Input,
        _: Option<&image::RgbImage>,
        _: &mut dyn FnMut(Step) -> ControlFlow<()>,
    ) -> Result<Drawn, PredictError> {
        self.runs += 1;
        if self.runs > 2 {
            return Err(PredictError::Failed(broken()));
        }
        let images = vec![Some(image::RgbImage::new(input.width, input.height))];
        Ok(Drawn { images, safety: Safety::Unavailable, notes: Vec::new() })
    }
}

fn sick(is_curable: bool) -> (Load, Arc<AtomicU32>) {
    let warm_ups = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&warm_ups);
    (Box::new(move || Ok(Box::new(Sick { runs: 0, warm_ups: counted, is_curable }))), warm_ups)
}

#[sqlx::test]
async fn a_device_that_fails_everything_ends_its_worker_and_others_draw_the_rest(pool: PgPool) {
    let queue = Queue::new(pool).await;
    let mut created = Vec::new();
    for _ in 0..60 {
        created.push(queue.create().await.id);
    }
    let mut failing = queue.start(vec![sick(false).0]);
    let error = tokio::time::timeout(PATIENCE, failing.failed()).await.expect("the worker ends");
    assert!(format!("{error:#}").contains("3 runs in a row failed, and so did the warm-up after them"), "{error:#}");
    // As its process would, which ends: with it goes the session by which its workers are known to live.
    failing.drain(&queue.store, PATIENCE).await;
    let healthy = queue.start(vec![mock()]);
    let mut statuses = Vec::new();
    for id in created {
        statuses.push(queue.terminal(id).await.status);
    }
    let count = |wanted: Status| statuses.iter().filter(|status| **status == wanted).count();
    assert_eq!((count(Status::Failed), count(Status::Succeeded)), (3, 57), "{statuses:?}");
    let lost: i64 = sqlx::query_scalar("select sum(losses) from predictions").fetch_one(&queue.pool).await.unwrap();
    assert!(lost <= 1, "what was claimed before the device was given up counts as lost: {lost}");
    healthy.drain(&queue.store, PATIENCE).await;
}

#[sqlx::test]
async fn a_device_that_a_warm_up_cures_goes_on(pool: PgPool) {
    let queue = Queue::new(pool).await;
    let (load, warm_ups) = sick(true);
    let workers = queue.start(vec![load]);
    let mut statuses = Vec::new();
    for _ in 0..10 {
        let id = queue.create().await.id;
        statuses.push(queue.terminal(id).await.status);
    }
    let (drawn, failed) = ([Status::Succeeded; 2], [Status::Failed; 3]);
    let round: Vec<Status> = drawn.into_iter().chain(failed).collect();
    assert_eq!(statuses, [round.clone(), round].concat());
    assert_eq!(warm_ups.load(SeqCst), 3, "one to begin with, and one after every third failure");
    workers.drain(&queue.store, PATIENCE).await;
}

#[sqlx::test]
async fn a_device_that_hangs_in_a_step_does_not_keep_its_prediction(pool: PgPool) {
    const LIMIT: Duration = Duration::from_secs(2);
    let queue = Queue::new(pool).await;
    let (load, mut reached, open) = gated();
    let settings = Settings { hang: Duration::ZERO, ..settings() };
    let mut hanging = WorkerPool::start(&queue.store, &queue.artifacts(), &settings, vec![load]).unwrap();
    let new = NewPrediction { time_limit: LIMIT, longest_run: LIMIT, ..queue.new_prediction() };
    queue.store.create(&new).await.unwrap();
    assert_eq!(reached.recv().await, Some(1));
    let error = tokio::time::timeout(PATIENCE, hanging.failed()).await.expect("the worker ends");
    assert!(error.to_string().contains("the device hangs"), "{error:#}");
    let healthy = queue.start(vec![mock()]);
    assert_eq!(queue.terminal(new.id).await.status, Status::Succeeded);
    let losses: i16 = sqlx::query_scalar("select losses from predictions").fetch_one(&queue.pool).await.unwrap();
    assert_eq!(losses, 1);
    healthy.drain(&queue.store, PATIENCE).await;
    drop(open);
}
