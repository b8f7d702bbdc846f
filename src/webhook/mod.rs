//! Tells the receivers of webhooks what was posted to the outbox: any number of processes at once, each due delivery
//! once at a time, until it is received or given up.
//!
//! A delivery is taken under a lease and settled with the number of its attempt, as a prediction is by its worker. A
//! process that dies in between leaves it to be told again, so a receiver may be told twice: by the same `webhook-id`,
//! so that it knows. A receiver that does not answer holds up nobody else: receivers take turns, and a few deliveries
//! to one are under way at a time. Nor does an account with many such receivers: of its deliveries only so many are.

mod deliver;
mod schedule;
mod sign;

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::{Notify, Semaphore},
    time::{MissedTickBehavior, interval, sleep},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use self::deliver::Deliverer;
pub use self::schedule::Schedule;
use crate::{domain::Catalog, fetch::Fetcher, store::Store};

/// Deliveries under way in this process at a time.
const AT_ONCE: usize = 64;
/// Between two looks at the outbox, however much happens.
const PACE: Duration = Duration::from_millis(10);
/// Beyond the longest attempt: to make the account's first secret and to note how it went.
const SLACK: Duration = Duration::from_secs(20);
/// How often old webhooks are looked for.
const FORGET_EVERY: Duration = Duration::from_secs(60);
/// How many are forgotten by one statement.
const FORGET_CHUNK: u64 = 1000;

/// How to deliver.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The longest an attempt may take.
    pub timeout: Duration,
    /// Deliveries to one receiver under way at a time, in all processes together.
    pub per_receiver: u32,
    /// Deliveries of one account under way at a time, in all processes together.
    pub per_account: u32,
    /// How often the outbox is looked at if nothing is heard.
    pub poll: Duration,
    /// When a failed delivery is tried again.
    pub schedule: Schedule,
}

/// Forgets webhooks that are older than `retention` and all told, with what was told of them, until dropped.
pub async fn keep_forgetting(store: Store, retention: Duration) {
    let mut looks = interval(FORGET_EVERY);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        looks.tick().await;
        loop {
            match store.forget_webhooks(retention, FORGET_CHUNK).await {
                Ok(FORGET_CHUNK..) => {}
                Ok(_) => break,
                Err(error) => {
                    tracing::debug!(%error, "Could not forget what was told to webhooks");
                    break;
                }
            }
        }
    }
}

/// Delivers until told to stop, then finishes what is under way. What is not, another process or the next start
/// delivers.
pub async fn deliver(store: Store, fetcher: Fetcher, catalog: Catalog, settings: Settings, stop: CancellationToken) {
    let lease = settings.timeout + SLACK;
    let poll = settings.poll;
    let (per_receiver, per_account) = (settings.per_receiver, settings.per_account);
    let deliverer = Arc::new(Deliverer { store: store.clone(), fetcher, catalog, settings });
    let (under_way, places, done) = (TaskTracker::new(), Arc::new(Semaphore::new(AT_ONCE)), Arc::new(Notify::new()));
    // Subscribed before the first look: what is posted after it wakes us.
    let mut posted = store.changes().subscribe_posted();
    while !stop.is_cancelled() {
        posted.mark_unchanged();
        let free = u32::try_from(places.available_permits()).unwrap_or(u32::MAX);
        let claimed = match free {
            0 => Ok(Vec::new()),
            free => store.claim_webhooks(free, per_receiver, per_account, lease).await,
        };
        match claimed {
            Ok(claimed) => {
                for due in claimed {
                    // There are as many as were free, and nobody else takes them.
                    let Ok(place) = Arc::clone(&places).acquire_owned().await else { break };
                    let (deliverer, done) = (Arc::clone(&deliverer), Arc::clone(&done));
                    under_way.spawn(async move {
                        deliverer.deliver(due).await;
                        drop(place);
                        done.notify_one();
                    });
                }
            }
            Err(error) => tracing::debug!(%error, "Could not look for webhooks to deliver"),
        }
        tokio::select! {
            // The sender lives in the store.
            _ = posted.changed() => {}
            // A place is free, or its receiver may be told more.
            () = done.notified() => {}
            () = sleep(poll) => {}
            () = stop.cancelled() => {}
        }
        tokio::select! {
            () = sleep(PACE) => {}
            () = stop.cancelled() => {}
        }
    }
    under_way.close();
    under_way.wait().await;
}
