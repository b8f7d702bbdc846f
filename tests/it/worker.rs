//! Workers over a real queue, with predictors that the tests hold by the hand.

use std::{ops::ControlFlow, pin::pin, sync::mpsc, time::Duration};

use fourstep::{
    artifacts::Artifacts,
    domain::{Failure, Input, NewPrediction, Prediction, PredictionId, PricePerSecond, Safety, Status},
    worker::{
        Load, Settings, WorkerPool,
        predictor::{Drawn, Mock, PredictError, Predictor, Step},
    },
};
use futures_util::FutureExt;
use sqlx::PgPool;
use tokio::sync::mpsc as channel;

use crate::queue::{MODEL, Queue};

/// Longer than anything here takes; only a failing test waits for it.
const PATIENCE: Duration = Duration::from_secs(10);

pub(crate) fn settings() -> Settings {
    Settings {
        models: vec![MODEL.to_owned()],
        device_name: "test".to_owned(),
        host: "here".to_owned(),
        max_batch: 1,
        lease: Duration::from_secs(15),
        renew: Duration::from_secs(5),
        poll: Duration::from_secs(1),
        record_logs: Duration::from_millis(500),
        hang: Duration::from_secs(600),
        sweep: Duration::from_secs(1),
        max_losses: 5,
        retention: Some(Duration::from_secs(3600)),
    }
}

pub(crate) fn mock() -> Load {
    Box::new(|| Ok(Box::new(Mock::new(Duration::ZERO))))
}

/// So many steps that a stop is heard of long before the last, however the threads take turns.
const MANY_STEPS: u32 = 100_000;

/// Stops before each step until the test lets it go on, and says when it is there.
struct Gated {
    reached: channel::UnboundedSender<u32>,
    gate: mpsc::Receiver<()>,
}

impl Predictor for Gated {
    fn warm_up(&mut self) -> Result<(), Failure> {
        Ok(())
    }

    fn predict(
        &mut self,
        input: &Input,
        _: Option<&image::RgbImage>,
        on_step: &mut dyn FnMut(Step) -> ControlFlow<()>,
    ) -> Result<Drawn, PredictError> {
        let total = input.num_inference_steps;
        for done in 1..=total {
            let _ = self.reached.send(done);
            // A closed gate is an open one: the test is over.
            let _ = self.gate.recv();
            let elapsed = Duration::from_secs(done.into());
            if on_step(Step { done, total, finished_images: 0, elapsed, preview: None }).is_break() {
                return Err(PredictError::Canceled);
            }
        }
        let images = vec![Some(image::RgbImage::new(input.width, input.height))];
        Ok(Drawn { images, safety: Safety::Unavailable, notes: Vec::new() })
    }
}

/// A gated predictor, where it has got to, and the hand that lets it take a step.
pub(crate) fn gated() -> (Load, channel::UnboundedReceiver<u32>, mpsc::Sender<()>) {
    let (reached_sender, reached) = channel::unbounded_channel();
    let (open, gate) = mpsc::channel();
    (Box::new(move || Ok(Box::new(Gated { reached: reached_sender, gate }))), reached, open)
}

impl Queue {
    pub(crate) fn artifacts(&self) -> Artifacts {
        Artifacts::in_folder(&self.outputs.0, false).unwrap()
    }

    pub(crate) fn start(&self, loads: Vec<Load>) -> WorkerPool {
        WorkerPool::start(&self.store, &self.artifacts(), &settings(), loads).unwrap()
    }

    async fn create_long(&self) -> Prediction {
        let mut new = self.new_prediction();
        new.input.num_inference_steps = MANY_STEPS;
        self.store.create(&new).await.unwrap().unwrap()
    }

    /// Waits for the end of a prediction.
    pub(crate) async fn terminal(&self, id: PredictionId) -> Prediction {
        let mut subscription = self.store.changes().subscribe(id);
        let ended = async {
            loop {
                let prediction = self.get(id).await;
                if prediction.status.is_terminal() {
                    return prediction;
                }
                subscription.changed().await;
            }
        };
        tokio::time::timeout(PATIENCE, ended).await.expect("the prediction ends")
    }
}

#[sqlx::test]
async fn a_worker_runs_a_prediction_from_the_queue_to_a_stored_png(pool: PgPool) {
    let queue = Queue::new(pool).await;
    let artifacts = queue.artifacts();
    let workers = WorkerPool::start(&queue.store, &artifacts, &settings(), vec![mock()]).unwrap();
    let prediction = queue.create().await;
    let ended = queue.terminal(prediction.id).await;
    assert_eq!(ended.status, Status::Succeeded);
    assert!(ended.logs.starts_with("Using seed: 7\n") && ended.logs.contains("4/4"), "{}", ended.logs);
    let output = ended.output.unwrap();
    let file = artifacts.find(&output[0].key).await.unwrap().expect("stored");
    let bytes = artifacts.read(&file, 0..file.size).await.unwrap();
    let bytes: Vec<u8> = futures_util::TryStreamExt::try_concat(bytes).await.unwrap();
    let image = image::load_from_memory_with_format(&bytes, image::ImageFormat::Png).unwrap();
    assert_eq!((image.width(), image.height(), bytes.len() as u64), (256, 256, output[0].bytes));
    assert_eq!(queue.charges(prediction.id).await, [ended.cost.unwrap().get()]);
    workers.drain(&queue.store, PATIENCE).await;
}

#[sqlx::test]
async fn every_image_of_a_request_has_the_next_seed(pool: PgPool) {
    let queue = Queue::new(pool).await;
    let workers = queue.start(vec![mock()]);
    let mut new = queue.new_prediction();
    new.input.num_outputs = 3;
    queue.store.create(&new).await.unwrap();
    let output = queue.terminal(new.id).await.output.unwrap();
    assert_eq!(output.iter().map(|artifact| artifact.seed).collect::<Vec<_>>(), [7, 8, 9]);
    workers.drain(&queue.store, PATIENCE).await;
}

#[sqlx::test]
async fn what_goes_together_is_drawn_side_by_side_each_as_alone_and_billed_its_share(pool: PgPool) {
    const STEP: Duration = Duration::from_millis(10);
    let queue = Queue::new(pool).await;
    let create = async || {
        let mut created = Vec::new();
        for seed in 0..5 {
            let mut new = queue.new_prediction();
            new.input.seed = seed;
            // One does not fit in.
            new.input.height = if seed == 2 { 320 } else { 256 };
            created.push(queue.store.create(&new).await.unwrap().unwrap().id);
        }
        created
    };
    let run = async |ids: &[PredictionId], max_batch| {
        let settings = Settings { max_batch, ..settings() };
        let load: Load = Box::new(|| Ok(Box::new(Mock::new(STEP))));
        let workers = WorkerPool::start(&queue.store, &queue.artifacts(), &settings, vec![load]).unwrap();
        let mut ended = Vec::new();
        for id in ids {
            ended.push(queue.terminal(*id).await);
        }
        workers.drain(&queue.store, PATIENCE).await;
        ended
    };
    // The worker begins when all are there.
    let together = run(&create().await, 4).await;
    let alone = run(&create().await, 1).await;
    let file = async |prediction: &Prediction| {
        let artifacts = queue.artifacts();
        let file = artifacts.find(&prediction.output.as_ref().unwrap()[0].key).await.unwrap().expect("stored");
        let bytes = artifacts.read(&file, 0..file.size).await.unwrap();
        futures_util::TryStreamExt::try_concat(bytes).await.unwrap() as Vec<u8>
    };
    for (together, alone) in together.iter().zip(&alone) {
        assert_eq!(file(together).await, file(alone).await, "seed {}", alone.input.seed);
        assert_eq!(queue.charges(together.id).await, [together.cost.unwrap().get()]);
        assert!(!alone.logs.contains("side by side"), "{}", alone.logs);
        let is_odd = together.input.height == 320;
        let says = together.logs.contains("Drawn side by side with 3 more, which share its time");
        assert_eq!(says, !is_odd, "{}", together.logs);
    }
    let shares: Vec<Duration> =
        together.iter().filter(|one| one.input.height == 256).map(|one| one.device_time.unwrap()).collect();
    let whole: Duration = shares.iter().sum();
    assert!(whole >= 4 * STEP, "four steps that all of them took part in: {shares:?}");
    assert!(shares.iter().all(|share| *share < whole / 3), "nobody pays for the others: {shares:?}");
    let (most, least) = (shares.iter().max().unwrap(), shares.iter().min().unwrap());
    assert!(*most - *least <= Duration::from_micros(1), "{shares:?}");
    let price = PricePerSecond::new(1_540_000);
    let costs: i64 = together.iter().filter(|one| one.input.height == 256).map(|one| one.cost.unwrap().get()).sum();
    assert!((costs - price.cost_of(whole).get()).abs() <= 2, "half a nano-dollar for each");
}

/// Draws what is asked for and leaves out the second image, as the safety checker would.
struct Prudish;

impl Predictor for Prudish {
    fn warm_up(&mut self) -> Result<(), Failure> {
        Ok(())
    }

    fn predict(
        &mut self,
        input: &Input,
        _: Option<&image::RgbImage>,
        _: &mut dyn FnMut(Step) -> ControlFlow<()>,
    ) -> Result<Drawn, PredictError> {
        let image = |seed| (seed != input.seed + 1).then(|| image::RgbImage::new(input.width, input.height));
        let notes = vec!["NSFW content detected in image 1".to_owned()];
        Ok(Drawn { images: input.seeds().map(image).collect(), safety: Safety::Checked, notes })
    }
}

#[sqlx::test]
async fn a_flagged_image_is_left_out_and_the_result_says_so(pool: PgPool) {
    let queue = Queue::new(pool).await;
    let artifacts = queue.artifacts();
    let workers = queue.start(vec![Box::new(|| Ok(Box::new(Prudish)))]);
    let mut new = queue.new_prediction();
    new.input.num_outputs = 3;
    queue.store.create(&new).await.unwrap();
    let ended = queue.terminal(new.id).await;
    assert_eq!(ended.status, Status::Succeeded);
    assert!(ended.logs.contains("NSFW content detected in image 1\n"), "{}", ended.logs);
    let output = ended.output.unwrap();
    let shown: Vec<_> = output.iter().map(|artifact| (artifact.seed, artifact.safety)).collect();
    assert_eq!(shown, [(7, Some(Safety::Checked)), (9, Some(Safety::Checked))]);
    for (artifact, name) in output.iter().zip(["out-0.png", "out-2.png"]) {
        assert!(artifact.key.ends_with(name), "the numbering keeps the gap: {}", artifact.key);
        assert!(artifacts.find(&artifact.key).await.unwrap().is_some());
    }
    let flagged = output[0].key.replace("out-0", "out-1");
    assert!(artifacts.find(&flagged).await.unwrap().is_none(), "nothing is kept of it");
    workers.drain(&queue.store, PATIENCE).await;
}

#[sqlx::test]
async fn a_cancel_stops_a_running_prediction_before_its_next_step(pool: PgPool) {
    let queue = Queue::new(pool).await;
    let (load, mut reached, open) = gated();
    let workers = queue.start(vec![load]);
    let prediction = queue.create_long().await;
    assert_eq!(reached.recv().await, Some(1));
    queue.store.request_cancel(queue.caller.account_id, prediction.id).await.unwrap();
    // The device goes on step by step until the worker has heard of it.
    let ended = queue.terminal(prediction.id);
    tokio::pin!(ended);
    let ended = loop {
        let _ = open.send(());
        tokio::select! {
            ended = &mut ended => break ended,
            Some(step) = reached.recv() => assert!(step < MANY_STEPS, "ran to the end"),
        }
    };
    assert_eq!(ended.status, Status::Canceled);
    assert_eq!(queue.charges(prediction.id).await, [ended.cost.unwrap().get()]);
    assert!(ended.device_time.is_some_and(|device_time| device_time > Duration::ZERO));
    workers.drain(&queue.store, PATIENCE).await;
}

#[sqlx::test]
async fn a_drain_finishes_what_runs_and_claims_nothing_more(pool: PgPool) {
    let queue = Queue::new(pool).await;
    let (load, mut reached, open) = gated();
    let workers = queue.start(vec![load]);
    let running = queue.create().await;
    assert_eq!(reached.recv().await, Some(1));
    let waiting = queue.create().await;
    let mut draining = pin!(workers.drain(&queue.store, PATIENCE));
    // It has begun before the running one may end.
    assert!(draining.as_mut().now_or_never().is_none());
    drop(open);
    draining.await;
    assert_eq!(queue.get(running.id).await.status, Status::Succeeded);
    assert_eq!(queue.get(waiting.id).await.status, Status::Queued);
}

#[sqlx::test]
async fn a_drain_hands_back_what_takes_too_long_and_another_worker_finishes_it(pool: PgPool) {
    let queue = Queue::new(pool).await;
    let (load, mut reached, open) = gated();
    let workers = queue.start(vec![load]);
    let prediction = queue.create_long().await;
    assert_eq!(reached.recv().await, Some(1));
    let store = queue.store.clone();
    let draining = tokio::spawn(async move { workers.drain(&store, Duration::ZERO).await });
    // Patience is over at once; the step that runs ends and no other begins.
    let mut last = 1;
    let drained = async {
        tokio::pin!(draining);
        loop {
            let _ = open.send(());
            tokio::select! {
                drained = &mut draining => break drained.unwrap(),
                Some(step) = reached.recv() => last = step,
            }
        }
    };
    tokio::time::timeout(PATIENCE, drained).await.expect("drained");
    assert!(last < MANY_STEPS, "ran to the end");
    let handed_back = queue.get(prediction.id).await;
    assert_eq!((handed_back.status, handed_back.attempt), (Status::Queued, 1));
    let successor = queue.start(vec![mock()]);
    assert_eq!(queue.terminal(prediction.id).await.status, Status::Succeeded);
    successor.drain(&queue.store, PATIENCE).await;
}

#[sqlx::test]
async fn a_drain_does_not_wait_for_a_step_without_end(pool: PgPool) {
    let queue = Queue::new(pool).await;
    let (load, mut reached, open) = gated();
    let workers = queue.start(vec![load]);
    let prediction = queue.create().await;
    assert_eq!(reached.recv().await, Some(1));
    // The gate stays shut: the device is inside step one for as long as the test lasts.
    workers.drain(&queue.store, Duration::ZERO).await;
    assert_eq!(queue.get(prediction.id).await.status, Status::Queued);
    drop(open);
}

#[sqlx::test]
async fn the_device_takes_the_next_prediction_while_images_are_encoded(pool: PgPool) {
    let queue = Queue::new(pool).await;
    let workers = queue.start(vec![mock()]);
    let mut ids = Vec::new();
    for _ in 0..30 {
        let new = NewPrediction { id: PredictionId::generate(), ..queue.new_prediction() };
        queue.store.create(&new).await.unwrap();
        ids.push(new.id);
    }
    let mut device_time = Duration::ZERO;
    for id in ids {
        let ended = queue.terminal(id).await;
        assert_eq!(ended.status, Status::Succeeded);
        device_time += ended.device_time.unwrap();
    }
    // What is billed is the device's time, not the encoder's.
    assert!(device_time < PATIENCE);
    workers.drain(&queue.store, PATIENCE).await;
}

/// The database has it, and could not say so at once.
#[sqlx::test]
async fn an_end_that_is_saved_only_at_the_second_try_is_told_as_any_other(pool: PgPool) {
    let queue = Queue::new(pool.clone()).await;
    let (load, mut reached, open) = gated();
    let workers = queue.start(vec![load]);
    let prediction = queue.create().await;
    assert_eq!(reached.recv().await, Some(1));
    // From now on nobody sweeps, who would note that the database is another one, as after a promotion.
    for statement in [
        "update chores set begun_at = now() + interval '30 s' where name = 'sweep'",
        "update chores set name = 'timeline 00000000' where name like 'timeline %'",
    ] {
        sqlx::query(statement).execute(&pool).await.unwrap();
    }
    let mut subscription = queue.store.changes().subscribe(prediction.id);
    drop(open);
    let told = async {
        while subscription.ended().is_none() {
            subscription.changed().await;
        }
    };
    tokio::time::timeout(PATIENCE, told).await.expect("whoever waits is told");
    assert_eq!(subscription.ended().unwrap().status, Status::Succeeded);
    workers.drain(&queue.store, PATIENCE).await;
}

#[sqlx::test]
async fn a_model_that_cannot_be_loaded_ends_the_pool_with_the_reason(pool: PgPool) {
    let queue = Queue::new(pool).await;
    let mut workers = queue.start(vec![Box::new(|| anyhow::bail!("unet/config.json is missing"))]);
    let error = tokio::time::timeout(PATIENCE, workers.failed()).await.expect("fails");
    assert!(format!("{error:#}").contains("unet/config.json is missing"));
}

#[sqlx::test]
async fn readiness_follows_the_worker(pool: PgPool) {
    let queue = Queue::new(pool).await;
    assert_eq!(queue.store.readiest_worker().await.unwrap(), None);
    let workers = queue.start(vec![mock()]);
    let prediction = queue.create().await;
    queue.terminal(prediction.id).await;
    assert_eq!(queue.store.readiest_worker().await.unwrap(), Some(("ready".to_owned(), 100)));
    workers.drain(&queue.store, PATIENCE).await;
    assert_eq!(queue.store.readiest_worker().await.unwrap(), None);
}
