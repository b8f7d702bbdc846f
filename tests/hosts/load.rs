//! Clients that create on one server and wait on the other, and what they were told.

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
use sqlx::PgPool;
use tokio::{sync::Mutex, task::JoinSet};

use crate::{checker::History, process::Client};

/// A request to wait, seconds; less than clients have patience for.
const WAIT: u32 = 3;
/// Before what was not answered is asked again.
const AGAIN: Duration = Duration::from_millis(20);

/// What the clients of a server have got of it.
#[derive(Default)]
struct Served {
    created: AtomicU64,
    /// Ends it told, of predictions that the other had made.
    ended: AtomicU64,
}

/// Everything the clients share.
#[derive(Default)]
pub(crate) struct Told {
    served: [Served; 2],
    pub(crate) history: Mutex<History>,
    /// Ends, as they were told first: status and cost.
    ends: Mutex<HashMap<String, (Value, Value)>>,
    /// Of those made at a pace: from the create to its end.
    pub(crate) took: Mutex<Vec<Duration>>,
    over: AtomicBool,
}

/// Clients at work.
#[derive(Default)]
pub(crate) struct Load {
    pub(crate) told: Arc<Told>,
    clients: JoinSet<()>,
}

impl Load {
    /// One more client of two servers. Numbers differ.
    pub(crate) fn run(&mut self, clients: &[Client; 2], number: usize) {
        self.clients.spawn(create_and_wait(clients.clone(), number, Arc::clone(&self.told)));
    }

    /// Creates at a pace for two accounts in turn, each with a client of either server.
    pub(crate) fn run_every(&mut self, every: Duration, clients: &[[Client; 2]; 2]) {
        self.clients.spawn(keep_pace(clients.clone(), every, Arc::clone(&self.told)));
    }

    /// Returns when both servers create, and tell of the ends of what the other made: how long that took, if it was in
    /// time.
    pub(crate) async fn until_served(&self, patience: Duration) -> Option<Duration> {
        let served = &self.told.served;
        let counts = || served.each_ref().map(|served| (served.created.load(SeqCst), served.ended.load(SeqCst)));
        let (before, begun) = (counts(), Instant::now());
        while counts().iter().zip(before).any(|(now, before)| now.0 < before.0 + 2 || now.1 < before.1 + 2) {
            if begun.elapsed() > patience {
                return None;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Some(begun.elapsed())
    }

    /// Lets every client finish what it has begun.
    pub(crate) async fn end(&mut self) {
        self.told.over.store(true, SeqCst);
        while let Some(ended) = self.clients.join_next().await {
            ended.unwrap();
        }
    }

    /// I2: the ends that were told are the ends there are. These are clients of all the accounts there were.
    pub(crate) async fn check_ends(&self, clients: &[&Client]) {
        for (id, (status, metrics)) in &*self.told.ends.lock().await {
            let mut now = None;
            for client in clients {
                now = now.or(client.get(id, 0).await.ok());
            }
            let now = now.unwrap();
            assert_eq!(
                (&now["status"], &now["metrics"]),
                (status, metrics),
                "I2: the end of {id} is not what was told"
            );
        }
    }
}

/// Over and over.
async fn create_and_wait(clients: [Client; 2], number: usize, told: Arc<Told>) {
    for repetition in 0.. {
        if told.over.load(SeqCst) {
            return;
        }
        once(&clients, (number + repetition) % 2, &format!("{number}-{repetition}"), &told).await;
    }
}

/// Creates on one server and waits on the other. What is not answered is asked again, of the other. Returns how long it
/// took.
async fn once(clients: &[Client; 2], mut at: usize, key: &str, told: &Told) -> Duration {
    let begun = Instant::now();
    let id = loop {
        match clients[at].create_with_key(key).await {
            Ok(id) => break id,
            Err(_) => at = 1 - at,
        }
        tokio::time::sleep(AGAIN).await;
    };
    told.served[at].created.fetch_add(1, SeqCst);
    told.history.lock().await.acknowledged(&id, &clients[at], Some(key));
    at = 1 - at;
    let ended = loop {
        match clients[at].get(&id, WAIT).await {
            Ok(prediction) if !prediction["completed_at"].is_null() => break prediction,
            Ok(_) => {}
            Err(_) => at = 1 - at,
        }
        tokio::time::sleep(AGAIN).await;
    };
    told.served[at].ended.fetch_add(1, SeqCst);
    told.history.lock().await.shown(&ended);
    let end = (ended["status"].clone(), ended["metrics"].clone());
    told.ends.lock().await.insert(id, end);
    begun.elapsed()
}

/// Creates so often, whatever becomes of what was created before, until the load is over.
async fn keep_pace(clients: [[Client; 2]; 2], every: Duration, told: Arc<Told>) {
    let (mut ticks, mut under_way) = (tokio::time::interval(every), JoinSet::new());
    for number in 0.. {
        ticks.tick().await;
        if told.over.load(SeqCst) {
            break;
        }
        let (of, shared) = (clients[number % 2].clone(), Arc::clone(&told));
        under_way.spawn(async move { once(&of, number / 2 % 2, &format!("{number}"), &shared).await });
        while let Some(took) = under_way.try_join_next() {
            told.took.lock().await.push(took.unwrap());
        }
    }
    while let Some(took) = under_way.join_next().await {
        told.took.lock().await.push(took.unwrap());
    }
}

/// A key of another account than the first.
pub(crate) async fn another_key(pool: &PgPool) -> String {
    let key = ApiKey::generate().unwrap();
    let name = NewKey {
        account: "another".to_owned(),
        name: "usual".to_owned(),
        scopes: Scopes::USUAL,
        budget: None,
        expires_at: None,
    };
    Store::with_pool(pool.clone()).issue_key(&name, &key).await.unwrap();
    key.expose().to_owned()
}
