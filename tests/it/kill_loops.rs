//! Faults in series, on the real binary under load, with the checker at the end.
//!
//! `make test` runs a short form of those that are not ignored. The long form, with the figures in [`Scale::LONG`], is
//! `FOURSTEP_FAULTS=long tools/with-postgres cargo test --test it kill_loops -- --include-ignored --test-threads 1 --nocapture`.
#![expect(clippy::print_stdout, reason = "the long form is run for its figures")]

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use fourstep::{
    artifacts::Artifacts,
    domain::ApiKey,
    postgres::{Options, PrivateCluster},
    store::Store,
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use sqlx::{PgPool, postgres::PgPoolOptions};
use tokio::sync::{Mutex, watch};
use uuid::Uuid;

use crate::{
    checker::History,
    ledger::usual_key,
    process::{Client, Program, TestFolder, url_of},
    receiver::Receiver,
    support::PICTURES,
};

/// For everything acknowledged to end, after the last fault.
const PATIENCE: Duration = Duration::from_secs(120);

/// How much is done and broken.
struct Scale {
    predictions: usize,
    workers: usize,
    worker_kills: usize,
    worker_stops: usize,
    server_kills: usize,
    database_restarts: usize,
}

impl Scale {
    const SHORT: Self =
        Self { predictions: 150, workers: 3, worker_kills: 12, worker_stops: 3, server_kills: 6, database_restarts: 3 };
    const LONG: Self = Self {
        predictions: 3000,
        workers: 8,
        worker_kills: 200,
        worker_stops: 50,
        server_kills: 100,
        database_restarts: 20,
    };

    fn wanted() -> Self {
        match std::env::var("FOURSTEP_FAULTS").as_deref() {
            Ok("long") => Self::LONG,
            _ => Self::SHORT,
        }
    }
}

/// Leases short enough that one runs out in a test. A worker is otherwise missed by its lock, within a sweep.
const QUEUE: [(&str, &str); 4] = [
    ("FOURSTEP_QUEUE__LEASE_SECONDS", "2"),
    ("FOURSTEP_QUEUE__RENEW_SECONDS", "0.5"),
    ("FOURSTEP_QUEUE__SWEEP_SECONDS", "0.25"),
    ("FOURSTEP_MOCK_STEP_MS", "40"),
];

/// The receiver of webhooks is on an address of this machine, and two clients create more in a minute than two usually
/// may.
const SERVER: [(&str, &str); 2] =
    [("FOURSTEP_FETCH__ALLOWED_NETWORKS", PICTURES), ("FOURSTEP_ADMISSION__CREATES_PER_MINUTE", "0")];

struct Worker {
    id: Uuid,
    program: Program,
}

/// `known` are the ids of all workers there ever were: one that was stopped may say again at any time that it is there.
async fn start_worker(folder: &Path, url: &str, pool: &PgPool, known: &mut Vec<Uuid>) -> Worker {
    let log = folder.join(format!("worker-{}.log", Uuid::new_v4()));
    let program = Program::worker_logging(folder, url, &QUEUE, &log);
    let new = sqlx::query_scalar("select id from workers where id <> all ($1)").bind(&*known).fetch_one(pool).await;
    let id = new.unwrap();
    known.push(id);
    Worker { id, program }
}

/// What a worker holds: prediction and attempt.
async fn held_by(worker: Uuid, pool: &PgPool) -> Vec<(Uuid, i32)> {
    sqlx::query_as("select id, attempt from predictions where status = 'processing' and worker_id = $1")
        .bind(worker)
        .fetch_all(pool)
        .await
        .unwrap()
}

/// A server without workers, whose webhooks lead to receivers of tests.
fn serve_api(folder: &Path, url: &str) -> Program {
    let variables = [&SERVER[..], &[("FOURSTEP_WORKER__COUNT", "0")]].concat();
    Program::serve_logging(folder, url, &variables, &folder.join(format!("server-{}.log", Uuid::new_v4())))
}

/// The outputs of a server with this data folder.
fn outputs_of(folder: &Path) -> Artifacts {
    Artifacts::in_folder(&folder.join("artifacts"), false).unwrap()
}

/// A client of another account.
async fn another(client: &Client, pool: &PgPool) -> Client {
    let key = ApiKey::generate().unwrap();
    Store::with_pool(pool.clone()).issue_key(&usual_key("another"), &key).await.unwrap();
    client.with_key(key.expose())
}

/// Returns when no more than so many predictions are left to do.
async fn until_waiting(most: usize, pool: &PgPool) {
    let left = "select count(*) from predictions where completed_at is null";
    let deadline = Instant::now() + PATIENCE;
    while sqlx::query_scalar::<_, i64>(left).fetch_one(pool).await.unwrap() > most as i64 {
        assert!(Instant::now() < deadline, "nothing is done any more");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// A worker that was stopped while it held something.
struct Stopped {
    worker: Worker,
    held: Vec<(Uuid, i32)>,
}

#[sqlx::test]
async fn killed_and_stopped_workers_lose_nothing_and_charge_nothing_twice(pool: PgPool) {
    let scale = Scale::wanted();
    let (folder, url) = (TestFolder::new(), url_of(&pool));
    let server = serve_api(&folder.0, &url);
    let mut receiver = Receiver::start().await;
    let client = Client::of(&server, &folder.0).telling(&receiver.url());
    let clients = [another(&client, &pool).await, client];
    let mut history = History::default();
    let (mut workers, mut known) = (Vec::new(), Vec::new());
    for _ in 0..scale.workers {
        workers.push(start_worker(&folder.0, &url, &pool, &mut known).await);
    }
    let (mut kills, mut stops, mut created, mut in_the_middle) = (0, 0, 0, 0);
    let mut taken = Vec::new();
    let mut stopped: Option<Stopped> = None;
    let begun = Instant::now();
    while kills < scale.worker_kills || stops < scale.worker_stops || stopped.is_some() {
        // As many as keep every worker busy, spread over all faults.
        let due = scale.predictions * (kills + 1).min(scale.worker_kills) / scale.worker_kills;
        let queued: i64 = sqlx::query_scalar("select count(*) from predictions where status = 'queued'")
            .fetch_one(&pool)
            .await
            .unwrap();
        let short_of_work = (scale.workers * 2).saturating_sub(queued.unsigned_abs() as usize);
        for _ in 0..due.saturating_sub(created).max(short_of_work) {
            let client = &clients[created % clients.len()];
            history.acknowledged(&client.create().await.unwrap(), client, None);
            created += 1;
        }
        if kills < scale.worker_kills {
            // A worker that is killed sooner than it can do anything proves nothing, and the same few predictions,
            // which are first in the queue again each time, would be lost with one after the other.
            until_waiting(scale.workers * 2, &pool).await;
            let victim = workers.remove(0);
            in_the_middle += usize::from(!held_by(victim.id, &pool).await.is_empty());
            victim.program.kill();
            workers.push(start_worker(&folder.0, &url, &pool, &mut known).await);
            kills += 1;
        }
        stopped = match stopped {
            None if stops < scale.worker_stops => stop(&mut workers, &pool).await,
            None => None,
            Some(Stopped { worker, held }) => {
                // Its session lives, so that only its lease tells. Once all it held is taken away it may go on.
                let still_held = held_by(worker.id, &pool).await;
                if still_held.is_empty() {
                    worker.program.signal(Signal::SIGCONT);
                    workers.push(worker);
                    taken.extend(held);
                    stops += 1;
                    None
                } else {
                    Some(Stopped { worker, held })
                }
            }
        };
        history.look(&pool).await;
        if kills == scale.worker_kills {
            // Only leases are waited for.
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    history.check(&pool, &outputs_of(&folder.0), PATIENCE).await;
    history.check_webhooks(&pool, &mut receiver, PATIENCE).await;
    history.check_owners(&pool, &clients).await;
    let (succeeded, retried, most): (i64, i64, i16) = sqlx::query_as(
        "select count(*) filter (where status = 'succeeded'), count(*) filter (where losses > 0), max(losses)
         from predictions",
    )
    .fetch_one(&pool)
    .await
    .unwrap();
    let given_up: Vec<(Uuid, String, i16, Option<String>)> =
        sqlx::query_as("select id, status, losses, failure_message from predictions where status <> 'succeeded'")
            .fetch_all(&pool)
            .await
            .unwrap();
    // One that was just about to finish may have: the statement was on its way.
    let fenced: i64 = sqlx::query_scalar(
        "select count(*) from predictions join unnest($1::uuid[], $2::int[]) as taken (taken_id, taken_attempt)
         on id = taken_id and attempt > taken_attempt",
    )
    .bind(taken.iter().map(|(id, _)| *id).collect::<Vec<_>>())
    .bind(taken.iter().map(|(_, attempt)| *attempt).collect::<Vec<_>>())
    .fetch_one(&pool)
    .await
    .unwrap();
    println!(
        "{kills} kills ({in_the_middle} in the middle of a prediction) and {stops} stops in {:.0} s: {succeeded} of {created} \
         succeeded, {retried} after workers were lost, {most} at most; {fenced} of {} were done by others when their workers \
         came back",
        begun.elapsed().as_secs_f64(),
        taken.len()
    );
    assert_eq!((succeeded, &given_up[..]), (created as i64, &[][..]), "nobody gave up");
    assert!(in_the_middle * 2 > kills, "most kills hit: {in_the_middle} of {kills}");
    assert!(fenced as usize * 2 > stops, "most stops hit: {fenced} of {stops}");
}

/// Stops the first worker that is in the middle of a prediction, and is still after it was stopped.
async fn stop(workers: &mut Vec<Worker>, pool: &PgPool) -> Option<Stopped> {
    for index in 0..workers.len() {
        if held_by(workers[index].id, pool).await.is_empty() {
            continue;
        }
        workers[index].program.signal(Signal::SIGSTOP);
        let held = held_by(workers[index].id, pool).await;
        if !held.is_empty() {
            return Some(Stopped { worker: workers.remove(index), held });
        }
        workers[index].program.signal(Signal::SIGCONT);
    }
    None
}

/// Clients of two accounts of the server as it is now, or `None` while there is none.
type Place = watch::Receiver<Option<[Client; 2]>>;

/// Creates with a key of its own each, and repeats every create until it is acknowledged, and once more then. Of the
/// same `number` there is one of each account: their keys are the same, and nothing else is.
async fn create_with_keys(
    mut place: Place,
    history: Arc<Mutex<History>>,
    (number, account): (usize, usize),
    over: Arc<AtomicBool>,
) {
    let mut repetition = 0;
    while !over.load(SeqCst) {
        let key = format!("{number}-{repetition}");
        let mut known = None;
        while known.is_none() {
            let clients = place.wait_for(Option::is_some).await.unwrap().clone().unwrap();
            known = clients[account].create_with_key(&key).await.ok();
        }
        // Perhaps of another process.
        let (again, client) = loop {
            let clients = place.wait_for(Option::is_some).await.unwrap().clone().unwrap();
            if let Ok(id) = clients[account].create_with_key(&key).await {
                break (id, clients[account].clone());
            }
        };
        assert_eq!(known.as_deref(), Some(again.as_str()), "one prediction per key");
        history.lock().await.acknowledged(&again, &client, Some(&key));
        repetition += 1;
    }
}

#[sqlx::test]
async fn a_server_killed_in_the_middle_of_creates_makes_one_prediction_per_key(pool: PgPool) {
    let scale = Scale::wanted();
    let (folder, url) = (TestFolder::new(), url_of(&pool));
    let _worker = {
        // The schema and the first key are a server's to make.
        drop(Program::serve(&folder.0, Some(&url), &["--workers", "0"]));
        Program::worker(&folder.0, &url, 0)
    };
    let data = folder.0.clone();
    let (here, place) = watch::channel(None);
    let mut receiver = Receiver::start().await;
    let mut accounts: Option<[Client; 2]> = None;
    let (history, over) = (Arc::new(Mutex::new(History::default())), Arc::new(AtomicBool::new(false)));
    let mut clients = tokio::task::JoinSet::new();
    for client in 0..8 {
        let one = (client / 2, client % 2);
        clients.spawn(create_with_keys(place.clone(), Arc::clone(&history), one, Arc::clone(&over)));
    }
    for number in 0..=scale.server_kills {
        let (at, url) = (data.clone(), url.clone());
        let server = tokio::task::spawn_blocking(move || serve_api(&at, &url)).await.unwrap();
        let first = Client::of(&server, &data).telling(&receiver.url());
        let second = match &accounts {
            None => another(&first, &pool).await,
            Some([_, second]) => first.with_key(&second.key),
        };
        let both = [first, second];
        accounts = Some(both.clone());
        let rows =
            async || -> i64 { sqlx::query_scalar("select count(*) from predictions").fetch_one(&pool).await.unwrap() };
        let before = rows().await;
        here.send_replace(Some(both.clone()));
        // A different moment each time, and always some request on its way.
        while rows().await < before + 8 + (number % 7) as i64 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        if number == scale.server_kills {
            over.store(true, SeqCst);
            while let Some(ended) = clients.join_next().await {
                ended.unwrap();
            }
            let mut history = history.lock().await;
            history.check(&pool, &outputs_of(&data), PATIENCE).await;
            history.check_webhooks(&pool, &mut receiver, PATIENCE).await;
            history.check_owners(&pool, &both).await;
        } else {
            here.send_replace(None);
        }
        server.kill();
    }
    let history = history.lock().await;
    println!("{} kills, {} keys", scale.server_kills, history.len());
    assert!(history.len() >= 8 * scale.server_kills / 2, "there was load: {}", history.len());
}

/// A Postgres that the test may crash.
async fn cluster(folder: &TestFolder) -> PrivateCluster {
    PrivateCluster::start(&folder.0.join("data"), Options::default()).await.unwrap()
}

/// Postgres' immediate shutdown, as `pg_ctl stop -m immediate`: no checkpoint, every session cut, recovery at the next
/// start.
async fn crash(cluster: PrivateCluster) {
    let pid_file = std::fs::read_to_string(cluster.cluster_folder().join("postmaster.pid")).unwrap();
    let postmaster: i32 = pid_file.lines().next().unwrap().parse().unwrap();
    kill(Pid::from_raw(postmaster), Signal::SIGQUIT).unwrap();
    cluster.exited().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crashed_database_costs_no_acknowledged_prediction_and_is_found_again_in_five_seconds() {
    const RECOVERED_WITHIN: Duration = Duration::from_secs(5);
    let scale = Scale::wanted();
    let (place, folder) = (TestFolder::new(), TestFolder::new());
    let mut database = cluster(&place).await;
    let url = database.url().to_owned();
    let own = [("FOURSTEP_MOCK_STEP_MS", "5"), ("FOURSTEP_WORKER__COUNT", "4")];
    let variables = [&QUEUE[..3], &own, &SERVER].concat();
    let mut server = Program::serve_logging(&folder.0, &url, &variables, &folder.0.join("server.log"));
    let mut receiver = Receiver::start().await;
    let client = Client::of(&server, &folder.0).telling(&receiver.url());
    let clients = {
        let pool = PgPoolOptions::new().max_connections(2).connect(&url).await.unwrap();
        let another = another(&client, &pool).await;
        pool.close().await;
        [client.clone(), another]
    };
    let (history, over) = (Arc::new(Mutex::new(History::default())), Arc::new(AtomicBool::new(false)));
    let acknowledged = Arc::new(AtomicU64::new(0));
    let mut creating = tokio::task::JoinSet::new();
    for number in 0..4 {
        let client = clients[number % clients.len()].clone();
        let (history, over, acknowledged) = (Arc::clone(&history), Arc::clone(&over), Arc::clone(&acknowledged));
        creating.spawn(async move {
            for repetition in 0.. {
                if over.load(SeqCst) {
                    return;
                }
                // The same of both accounts.
                let key = format!("{}-{repetition}", number / 2);
                match client.create_with_key(&key).await {
                    Ok(id) => {
                        history.lock().await.acknowledged(&id, &client, Some(&key));
                        acknowledged.fetch_add(1, SeqCst);
                        if let Ok(prediction) = client.get(&id, 1).await {
                            history.lock().await.shown(&prediction);
                        }
                    }
                    // Until the database is back; not as fast as it can be.
                    Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
                }
            }
        });
    }
    let mut slowest = Duration::ZERO;
    for _ in 0..scale.database_restarts {
        let before = acknowledged.load(SeqCst);
        while acknowledged.load(SeqCst) < before + 20 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        crash(database).await;
        let refused = client.try_create().await.unwrap();
        assert_eq!(refused.status(), 503, "while it is away");
        assert!(refused.headers().contains_key("retry-after"));
        database = cluster(&place).await;
        assert_eq!(database.url(), url, "a restart is found in the same place");
        let back = Instant::now();
        while client.create().await.map(|id| id.is_empty()).unwrap_or(true) {
            assert!(back.elapsed() < RECOVERED_WITHIN, "not found again");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        slowest = slowest.max(back.elapsed());
        assert!(server.is_running(), "no process ends for it");
    }
    over.store(true, SeqCst);
    while let Some(ended) = creating.join_next().await {
        ended.unwrap();
    }
    let pool = PgPoolOptions::new().max_connections(2).connect(&url).await.unwrap();
    let mut history = history.lock().await;
    history.check(&pool, &outputs_of(&folder.0), PATIENCE).await;
    history.check_webhooks(&pool, &mut receiver, PATIENCE).await;
    history.check_owners(&pool, &clients).await;
    println!(
        "{} restarts, {} predictions, {} of whose ends clients had been told; found again after {slowest:?} at most",
        scale.database_restarts,
        history.len(),
        history.ends_told()
    );
    assert!(history.ends_told() * 2 > history.len(), "most ends were told: {}", history.ends_told());
    pool.close().await;
    server.signal(Signal::SIGTERM);
    assert!(server.ended_within(Duration::from_secs(35)).await.success());
    database.stop().await;
}
