//! Dashboards and alerts ask for metrics that there are.

use std::collections::BTreeSet;

use serde_json::Value;
use sqlx::PgPool;

use crate::{
    process::{Client, Program, TestFolder, url_of},
    text,
};

/// The metrics that expressions name: words of ours, HTTP's and the process's, without the endings of a histogram's
/// series.
fn named<'a>(expressions: impl Iterator<Item = &'a str>) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for expression in expressions {
        for word in expression.split(|character: char| !(character.is_ascii_alphanumeric() || character == '_')) {
            if ["fourstep_", "http_server_", "process_"].iter().any(|ours| word.starts_with(ours)) {
                let family = ["_bucket", "_sum", "_count"].iter().find_map(|ending| word.strip_suffix(ending));
                names.insert(family.unwrap_or(word).to_owned());
            }
        }
    }
    names
}

/// The metrics that a scrape explains.
fn explained(scrape: &str) -> BTreeSet<String> {
    let helps = scrape.lines().filter_map(|line| line.strip_prefix("# HELP "));
    helps.map(|help| help.split(' ').next().unwrap().to_owned()).collect()
}

/// The value of a series of whole numbers.
pub(crate) fn metric(scrape: &str, series: &str) -> u64 {
    let line =
        scrape.lines().find_map(|line| line.strip_prefix(series)).unwrap_or_else(|| panic!("no {series}: {scrape}"));
    line.trim().parse().unwrap()
}

pub(crate) async fn scrape(server: &Program, key: &str) -> String {
    let request = reqwest::Client::new().get(format!("{}/metrics", server.url)).bearer_auth(key);
    request.send().await.unwrap().error_for_status().unwrap().text().await.unwrap()
}

/// All that a server tells, in the course of a prediction's life.
async fn exported(pool: &PgPool) -> BTreeSet<String> {
    let (folder, url) = (TestFolder::new(), url_of(pool));
    // What waits is told while it waits, and the rest when it has been done.
    let server = Program::serve(&folder.0, Some(&url), &["--workers", "0"]);
    let client = Client::of(&server, &folder.0);
    let id = client.create().await.unwrap();
    let mut exported = explained(&scrape(&server, &client.key).await);
    drop(server);
    let server = Program::serve(&folder.0, Some(&url), &[]);
    let client = Client::of(&server, &folder.0);
    assert_eq!(client.terminal(&id).await["status"], "succeeded");
    exported.extend(explained(&scrape(&server, &client.key).await));
    exported
}

#[sqlx::test]
async fn what_is_exported_is_what_is_documented(pool: PgPool) {
    let manual = text("docs/metrics.md");
    let rows = manual.lines().filter_map(|line| line.strip_prefix("| `")?.split_once('`'));
    let documented: BTreeSet<String> = rows.map(|(name, _)| name.to_owned()).collect();
    assert_eq!(exported(&pool).await, documented);
}

#[sqlx::test]
async fn every_metric_of_the_dashboard_and_the_alerts_is_exported(pool: PgPool) {
    let exported = exported(&pool).await;
    let dashboard: Value = serde_json::from_str(&text("deploy/grafana/dashboards/fourstep.json")).unwrap();
    let targets = dashboard["panels"].as_array().unwrap().iter().flat_map(|panel| panel["targets"].as_array().unwrap());
    let shown = named(targets.map(|target| target["expr"].as_str().unwrap()));
    let alerts = text("deploy/prometheus/alerts.yaml");
    let alerted = named(alerts.lines());
    assert!(shown.len() > 10 && alerted.len() > 5, "{shown:?} {alerted:?}");
    let missing: Vec<_> = shown.union(&alerted).filter(|name| !exported.contains(*name)).collect();
    assert!(missing.is_empty(), "{missing:?} are not among {exported:?}");
}

/// However many predictions are kept.
#[sqlx::test]
async fn vacuum_begins_long_before_the_alert_of_dead_rows(pool: PgPool) {
    let options: Vec<String> =
        sqlx::query_scalar("select unnest(reloptions) from pg_class where relname = 'predictions'")
            .fetch_all(&pool)
            .await
            .unwrap();
    let option = |name: &str| -> f64 {
        options.iter().find_map(|option| option.strip_prefix(&format!("{name}="))?.parse().ok()).expect(name)
    };
    let begins = option("autovacuum_vacuum_threshold") + 100_000_000.0 * option("autovacuum_vacuum_scale_factor");
    let alerts = text("deploy/prometheus/alerts.yaml");
    let (_, limit) = alerts.split_once("max(fourstep_dead_rows) > ").unwrap();
    let limit: f64 = limit.lines().next().unwrap().trim().parse().unwrap();
    assert!(begins * 10.0 <= limit, "vacuum at {begins}, alert at {limit}");
}
