//! For long: twenty predictions a second, a host without power every half minute, old data pruned, and nothing that
//! grows.
//!
//! `make test` runs five minutes. `FOURSTEP_SOAK=3600 cargo test --test hosts soak -- --nocapture` runs an hour.

use std::time::{Duration, Instant};

use sqlx::PgPool;

use crate::{
    clients::Clients,
    here,
    installed::javascript,
    load::Load,
    network::in_a_network_of_its_own,
    site::{Files, Site},
};

const SHORT: Duration = Duration::from_secs(300);
/// Between two predictions.
const PACE: Duration = Duration::from_millis(50);
const KILL_EVERY: Duration = Duration::from_secs(30);
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// From the first part of a run nothing is concluded: pools, caches and the allocator fill.
const WARM_UP: f64 = 0.34;
/// How much a server may grow, in a run that is long enough to tell.
const GROWTH_AN_HOUR: f64 = 2e6;
/// The same in a short run, where the line moves by 35 MB an hour either way with what happens to be in use. What leaks
/// a kilobyte for each prediction, 72 MB an hour, is found all the same.
const GROWTH_IN_A_SHORT_RUN: f64 = 60e6;
const LONG: Duration = Duration::from_secs(1800);
/// How many dead rows a table may have, besides as many as it has living ones. Half of it is what autovacuum leaves of
/// `predictions`; it looks every minute.
const DEAD_ROWS: i64 = 10_000;

const VARIABLES: &[(&str, &str)] = &[
    ("FOURSTEP_ADMISSION__CREATES_PER_MINUTE", "0"),
    ("FOURSTEP_ADMISSION__REQUESTS_PER_MINUTE", "0"),
    ("FOURSTEP_MOCK_STEP_MS", "5"),
    // 72 seconds, so that most of what is made is also pruned.
    ("FOURSTEP_QUEUE__RETENTION_HOURS", "0.02"),
    ("RUST_LOG", "warn"),
];

/// The slope of the line through these points, a second.
fn slope(points: &[(f64, f64)]) -> f64 {
    let count = points.len() as f64;
    let (x, y) = points.iter().fold((0.0, 0.0), |(x, y), point| (x + point.0 / count, y + point.1 / count));
    let above: f64 = points.iter().map(|point| (point.0 - x) * (point.1 - y)).sum();
    above / points.iter().map(|point| (point.0 - x).powi(2)).sum::<f64>()
}

/// The table with the most dead rows beyond its living ones: its name, dead and living ones.
async fn most_dead(pool: &PgPool) -> (String, i64, i64) {
    sqlx::query_as(
        "select relname::text, n_dead_tup, n_live_tup from pg_stat_user_tables
         order by n_dead_tup - n_live_tup desc, n_dead_tup desc limit 1",
    )
    .fetch_one(pool)
    .await
    .unwrap()
}

async fn nothing_grows() {
    let length = std::env::var("FOURSTEP_SOAK").map_or(SHORT, |seconds| Duration::from_secs(seconds.parse().unwrap()));
    let mut site = Site::start(Files::Folder, VARIABLES).await;
    let pool = site.database.pool().await;
    let mut clients = Clients::of(&site, &pool).await;
    let mut load = Load::default();
    load.run_every(PACE, &[clients.firsts.clone(), clients.seconds.clone()]);
    let begun = Instant::now();
    let (mut kills, mut memory, mut dead) = (0, Vec::new(), ("".to_owned(), 0, 0));
    while begun.elapsed() < length {
        tokio::time::sleep(LOOK_EVERY).await;
        if begun.elapsed() >= KILL_EVERY / 2 + KILL_EVERY * kills {
            // The first server stays, to be looked at.
            match kills % 3 {
                2 => site.server_loses_power(1),
                number => site.workers_lose_power(number as usize),
            }
            kills += 1;
        }
        if begun.elapsed() > length.mul_f64(WARM_UP) {
            memory.push((begun.elapsed().as_secs_f64(), site.servers[0].memory() as f64));
        }
        let now = most_dead(&pool).await;
        assert!(now.1 <= now.2 + DEAD_ROWS, "bloat: {now:?}");
        if now.1 - now.2 > dead.1 - dead.2 || dead.0.is_empty() {
            dead = now;
        }
    }
    load.end().await;
    let mut history = load.told.history.lock().await;
    clients.check(&mut history, &pool, &site).await;
    let (ended, pruned, failed): (i64, i64, i64) = sqlx::query_as(
        "select count(*), count(*) filter (where data_removed_at is not null),
                count(*) filter (where status <> 'succeeded') from predictions",
    )
    .fetch_one(&pool)
    .await
    .unwrap();
    let mut took = load.told.took.lock().await;
    took.sort();
    let growth = slope(&memory) * 3600.0;
    let last = memory.last().unwrap().1;
    println!(
        "{kills} kills in {:.0} s: {ended} predictions, {pruned} of them pruned; created to ended p50 {:.0?}, p99 {:.0?}, \
         {:.1?} at most; the server has {:.1} MB, and grows by {:.2} MB an hour; most dead rows beyond the living in {}: {} \
         besides {}",
        begun.elapsed().as_secs_f64(),
        took[took.len() / 2],
        took[took.len() * 99 / 100],
        took[took.len() - 1],
        last / 1e6,
        growth / 1e6,
        dead.0,
        dead.1,
        dead.2
    );
    assert_eq!(failed, 0, "nobody gave up\n{}", site.logs());
    assert!(ended as f64 > length.as_secs_f64() / PACE.as_secs_f64() * 0.9, "the pace was kept: {ended}");
    assert!(pruned > 0, "retention");
    let may_grow = if length >= LONG { GROWTH_AN_HOUR } else { GROWTH_IN_A_SHORT_RUN };
    assert!(growth < may_grow, "the server grows by {growth} an hour: {memory:?}");
}

#[test]
fn a_soak_with_hosts_that_die_loses_nothing_and_grows_nothing() {
    in_a_network_of_its_own(|| drop(javascript(&here("s3_server.js"))), nothing_grows());
}
