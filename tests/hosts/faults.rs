//! Lines cut, hosts without power and a database that crashes, while clients of both servers wait for each other's
//! predictions.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use fourstep::{
    domain::{ApiKey, NewKey, Scopes},
    store::Store,
};
use serde_json::Value;
use tokio::{net::TcpListener, sync::Mutex, task::JoinSet};

use crate::{
    checker::History,
    here,
    installed::javascript,
    network::{self, in_a_network_of_its_own},
    process::Client,
    receiver::Receiver,
    site::Site,
};

/// For everything acknowledged to end, after the last fault.
const PATIENCE: Duration = Duration::from_secs(120);
/// From the end of a fault until both servers create and tell of the ends of what the other created. A line that is found cut
/// after seven seconds (`store/pulse.rs`) and everything that has to be connected again fit in.
const RECOVERED_WITHIN: Duration = Duration::from_secs(15);
/// Long enough that TCP alone, which asks half as often each time, would find the way back only later than that.
const LONG_CUT: Duration = Duration::from_secs(30);
/// A client's request to wait, seconds; less than it has patience for.
const WAIT: u32 = 3;

/// What happens to the site.
#[derive(Clone, Copy, Debug)]
enum Fault {
    CutServer(usize),
    CutWorkers(usize),
    CutDatabase,
    CutBucket,
    ServerLosesPower(usize),
    WorkersLosePower(usize),
    DatabaseCrashes,
}

const FAULTS: [Fault; 9] = [
    Fault::CutWorkers(0),
    Fault::CutDatabase,
    Fault::WorkersLosePower(1),
    Fault::CutServer(0),
    Fault::DatabaseCrashes,
    Fault::ServerLosesPower(1),
    Fault::CutBucket,
    Fault::WorkersLosePower(0),
    Fault::CutServer(1),
];

/// How often there is every fault, and how long lines are cut, in turn. That of the database is always cut for long.
fn scale() -> (usize, &'static [Duration]) {
    const SHORT: [Duration; 1] = [Duration::from_secs(3)];
    const LONG: [Duration; 4] = [Duration::from_secs(1), LONG_CUT, Duration::from_secs(8), Duration::from_secs(3)];
    match std::env::var("FOURSTEP_FAULTS").as_deref() {
        Ok("long") => (4, &LONG),
        _ => (1, &SHORT),
    }
}

/// What the clients of a server have got of it.
#[derive(Default)]
struct Served {
    created: AtomicU64,
    /// Ends it told, of predictions that the other had made.
    ended: AtomicU64,
}

/// Everything the clients share.
#[derive(Default)]
struct Told {
    served: [Served; 2],
    history: Mutex<History>,
    /// Ends, as they were told first: status and cost.
    ends: Mutex<HashMap<String, (Value, Value)>>,
    over: AtomicBool,
}

/// Creates on one server and waits on the other, over and over. What is not answered is asked again, of the other.
async fn create_and_wait(clients: [Client; 2], number: usize, told: Arc<Told>) {
    for repetition in 0.. {
        if told.over.load(SeqCst) {
            return;
        }
        let key = format!("{number}-{repetition}");
        let mut at = (number + repetition) % 2;
        let id = loop {
            match clients[at].create_with_key(&key).await {
                Ok(id) => break id,
                Err(_) => at = 1 - at,
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        };
        told.served[at].created.fetch_add(1, SeqCst);
        told.history.lock().await.acknowledged(&id, &clients[at], Some(&key));
        at = 1 - at;
        let ended = loop {
            match clients[at].get(&id, WAIT).await {
                Ok(prediction) if !prediction["completed_at"].is_null() => break prediction,
                Ok(_) => {}
                Err(_) => at = 1 - at,
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        };
        told.served[at].ended.fetch_add(1, SeqCst);
        let end = (ended["status"].clone(), ended["metrics"].clone());
        told.ends.lock().await.insert(id, end);
    }
}

impl Site {
    /// Does it, and returns when it is over.
    async fn suffer(&mut self, fault: Fault, cut_for: Duration) {
        let host = match fault {
            Fault::CutServer(number) => &self.servers[number].host,
            Fault::CutWorkers(number) => &self.workers[number].host,
            Fault::CutDatabase => self.database.host(),
            Fault::CutBucket => self.s3.host(),
            Fault::ServerLosesPower(number) => {
                self.servers[number].lose_power();
                return self.start_server(number);
            }
            Fault::WorkersLosePower(number) => {
                self.workers[number].lose_power();
                return self.start_workers(number);
            }
            Fault::DatabaseCrashes => return self.database.crash().await,
        };
        host.cut();
        tokio::time::sleep(cut_for).await;
        host.mend();
    }

    /// Returns when both servers create, and tell of the ends of what the other made.
    async fn until_served(&self, told: &Told, fault: Fault) -> Duration {
        let counts = || told.served.each_ref().map(|served| (served.created.load(SeqCst), served.ended.load(SeqCst)));
        let (before, begun) = (counts(), Instant::now());
        while counts().iter().zip(before).any(|(now, before)| now.0 < before.0 + 2 || now.1 < before.1 + 2) {
            assert!(begun.elapsed() < RECOVERED_WITHIN, "not served again after {fault:?}\n{}", self.logs());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        begun.elapsed()
    }
}

async fn lines_are_cut_and_hosts_die() {
    let (rounds, cuts) = scale();
    let mut site = Site::start().await;
    let pool = site.database.pool().await;
    let mut receiver = Receiver::on(TcpListener::bind((network::address(1), 0)).await.unwrap());
    let firsts = site.clients().map(|client| client.telling(&receiver.url()));
    let key = ApiKey::generate().unwrap();
    let name = NewKey {
        account: "another".to_owned(),
        name: "usual".to_owned(),
        scopes: Scopes::USUAL,
        budget: None,
        expires_at: None,
    };
    Store::with_pool(pool.clone()).issue_key(&name, &key).await.unwrap();
    let seconds = firsts.each_ref().map(|client| client.with_key(key.expose()));
    let (told, mut clients) = (Arc::new(Told::default()), JoinSet::new());
    for number in 0..6 {
        let of = if number % 3 == 2 { &seconds } else { &firsts };
        clients.spawn(create_and_wait(of.clone(), number, Arc::clone(&told)));
    }
    site.until_served(&told, FAULTS[0]).await;
    let begun = Instant::now();
    let mut slowest: HashMap<String, Duration> = HashMap::new();
    for round in 0..rounds {
        for (number, fault) in FAULTS.into_iter().enumerate() {
            let cut_for = match fault {
                Fault::CutDatabase => LONG_CUT,
                _ => cuts[(round + number) % cuts.len()],
            };
            site.suffer(fault, cut_for).await;
            let took = site.until_served(&told, fault).await;
            println!("{fault:?} for {cut_for:?}: served again after {took:.1?}");
            let slowest = slowest.entry(format!("{fault:?}")).or_default();
            *slowest = took.max(*slowest);
            for machine in site.servers.iter_mut().chain(&mut site.workers) {
                assert!(machine.is_running(), "no process ends for {fault:?}");
            }
            told.history.lock().await.look(&pool).await;
        }
    }
    told.over.store(true, SeqCst);
    while let Some(ended) = clients.join_next().await {
        ended.unwrap();
    }
    let mut history = told.history.lock().await;
    history.check(&pool, &site.s3.artifacts(), PATIENCE).await;
    history.check_webhooks(&pool, &mut receiver, PATIENCE).await;
    history.check_owners(&pool, &[firsts[0].clone(), seconds[1].clone()]).await;
    for (id, end) in &*told.ends.lock().await {
        let mut now = firsts[0].get(id, 0).await;
        if now.is_err() {
            now = seconds[0].get(id, 0).await;
        }
        let now = now.unwrap();
        assert_eq!((&now["status"], &now["metrics"]), (&end.0, &end.1), "I2: the end of {id} is not what was told");
    }
    let (retried, most): (i64, i16) =
        sqlx::query_as("select count(*) filter (where losses > 0), max(losses) from predictions")
            .fetch_one(&pool)
            .await
            .unwrap();
    let given_up: i64 = sqlx::query_scalar("select count(*) from predictions where status <> 'succeeded'")
        .fetch_one(&pool)
        .await
        .unwrap();
    assert_eq!(given_up, 0, "nobody gave up\n{}", site.logs());
    println!(
        "{} faults in {:.0} s: {} predictions, {retried} after workers were lost, {most} at most",
        rounds * FAULTS.len(),
        begun.elapsed().as_secs_f64(),
        history.len()
    );
}

#[test]
fn cut_lines_and_dead_hosts_lose_nothing_and_charge_nothing_twice() {
    // What it runs is installed from a registry.
    let prepare = || drop(javascript(&here("s3_server.js")));
    in_a_network_of_its_own(prepare, lines_are_cut_and_hosts_die());
}
