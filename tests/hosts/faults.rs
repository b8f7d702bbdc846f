//! Lines cut, hosts without power and a database that crashes, while clients of both servers wait for each other's
//! predictions.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use crate::{
    clients::Clients,
    here,
    installed::javascript,
    load::Load,
    network::in_a_network_of_its_own,
    site::{Files, Site},
};

/// From the end of a fault until both servers create and tell of the ends of what the other created. A line that is
/// found cut after seven seconds (`store/pulse.rs`) and everything that has to be connected again fit in.
const RECOVERED_WITHIN: Duration = Duration::from_secs(15);
/// Long enough that TCP alone, which asks half as often each time, would find the way back only later than that.
const LONG_CUT: Duration = Duration::from_secs(30);

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

impl Site {
    /// Does it, and returns when it is over.
    async fn suffer(&mut self, fault: Fault, cut_for: Duration) {
        let host = match fault {
            Fault::CutServer(number) => &self.servers[number].host,
            Fault::CutWorkers(number) => &self.workers[number].host,
            Fault::CutDatabase => self.database.host(),
            Fault::CutBucket => self.s3.host(),
            Fault::ServerLosesPower(number) => return self.server_loses_power(number),
            Fault::WorkersLosePower(number) => return self.workers_lose_power(number),
            Fault::DatabaseCrashes => return self.database.crash().await,
        };
        host.cut();
        tokio::time::sleep(cut_for).await;
        host.mend();
    }
}

async fn lines_are_cut_and_hosts_die() {
    let (rounds, cuts) = scale();
    let mut site = Site::start(Files::Bucket, &[]).await;
    let pool = site.database.pool().await;
    let mut clients = Clients::of(&site, &pool).await;
    let mut load = Load::default();
    for number in 0..6 {
        load.run(if number % 3 == 2 { &clients.seconds } else { &clients.firsts }, number);
    }
    load.until_served(RECOVERED_WITHIN).await.expect("served in the beginning");
    let begun = Instant::now();
    let mut slowest: HashMap<String, Duration> = HashMap::new();
    for round in 0..rounds {
        for (number, fault) in FAULTS.into_iter().enumerate() {
            let cut_for = match fault {
                Fault::CutDatabase => LONG_CUT,
                _ => cuts[(round + number) % cuts.len()],
            };
            site.suffer(fault, cut_for).await;
            let Some(took) = load.until_served(RECOVERED_WITHIN).await else {
                panic!("not served again after {fault:?}\n{}", site.logs());
            };
            println!("{fault:?} for {cut_for:?}: served again after {took:.1?}");
            let slowest = slowest.entry(format!("{fault:?}")).or_default();
            *slowest = took.max(*slowest);
            for machine in site.servers.iter_mut().chain(&mut site.workers) {
                assert!(machine.is_running(), "no process ends for {fault:?}");
            }
            load.told.history.lock().await.look(&pool).await;
        }
    }
    load.end().await;
    let mut history = load.told.history.lock().await;
    clients.check(&mut history, &pool, &site).await;
    load.check_ends(&[&clients.firsts[0], &clients.seconds[0]]).await;
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
        "{} faults in {:.0} s: {} predictions, the ends of {} told, {retried} after workers were lost, {most} at most",
        rounds * FAULTS.len(),
        begun.elapsed().as_secs_f64(),
        history.len(),
        history.ends_told()
    );
}

#[test]
fn cut_lines_and_dead_hosts_lose_nothing_and_charge_nothing_twice() {
    // What it runs is installed from a registry.
    let prepare = || drop(javascript(&here("s3_server.js")));
    in_a_network_of_its_own(prepare, lines_are_cut_and_hosts_die());
}
