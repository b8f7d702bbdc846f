//! Usage: what was used and what it cost, to the nano-dollar and for ever.

use std::time::Duration;

use fourstep::{
    domain::{ApiKey, Outcome},
    worker::{Settings, WorkerPool},
};
use reqwest::{StatusCode, header::CONTENT_TYPE};
use serde_json::{Value, json};
use sqlx::PgPool;

use crate::{
    ledger::usual_key,
    support::{TestApp, eventually, json},
    worker::settings,
};

async fn usage(app: &TestApp, query: &str) -> Value {
    let response = app.get(&format!("/usage{query}")).send().await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    json(response).await
}

#[sqlx::test]
async fn usage_is_added_up_by_day_key_and_model_and_outlives_the_data(pool: PgPool) {
    let app = TestApp::start(pool).await;
    for _ in 0..3 {
        app.create_small().await;
        app.run_one().await;
    }
    app.create_small().await;
    app.end(&app.claim().await, Outcome::Canceled { device_time: Duration::from_micros(500_001) }).await;
    let canceled = app.create_small().await;
    app.post(&format!("/predictions/{canceled}/cancel")).send().await.unwrap();
    assert_eq!(app.store.prune(Duration::ZERO, 100).await.unwrap().len(), 5);

    let today = chrono::Utc::now().date_naive().to_string();
    let figures = json!({"succeeded": 3, "failed": 0, "canceled": 2, "predict_time": 6.500001, "cost": 0.010010002});
    let with = |group: &str| {
        let mut line = figures.clone();
        line["group"] = json!(group);
        line
    };
    let by_day = usage(&app, "").await;
    assert_eq!((&by_day["group_by"], &by_day["total"]), (&json!("day"), &figures));
    assert_eq!(by_day["results"], json!([with(&today)]));
    assert_eq!(usage(&app, "?group_by=model").await["results"], json!([with("sdxl-lightning-4step")]));
    let by_key = usage(&app, &format!("?group_by=key&from={today}&to={today}")).await;
    let lookup = ApiKey::parse(&app.key).unwrap().lookup().to_owned();
    assert_eq!(by_key["results"], json!([with(&format!("fs_{lookup} test"))]));
    assert_eq!(usage(&app, "?from=2020-01-01&to=2020-12-31").await["results"], json!([]));
    assert_eq!(usage(&app, "?from=0001-01-01&to=9999-12-31").await["total"], figures);
    assert!(app.store.audit().await.unwrap().is_clean());
}

#[sqlx::test]
async fn usage_comes_as_a_table_to_who_asks_for_one(pool: PgPool) {
    let app = TestApp::start(pool).await;
    app.create_small().await;
    app.run_one().await;
    let table = "model,succeeded,failed,canceled,predict_time_seconds,cost_usd\r\n\
                 sdxl-lightning-4step,1,0,0,2.000000,0.00308\r\n";
    let asked = app.get("/usage?group_by=model&format=csv");
    let accepted = app.get("/usage?group_by=model").header("Accept", "text/csv, */*;q=0.1");
    for request in [asked, accepted] {
        let response = request.send().await.unwrap();
        assert_eq!(response.headers()[CONTENT_TYPE], "text/csv; charset=utf-8");
        assert_eq!(response.text().await.unwrap(), table);
    }
}

#[sqlx::test]
async fn usage_is_its_accounts_own_and_a_question_that_makes_no_sense_is_refused(pool: PgPool) {
    let app = TestApp::start(pool).await;
    app.create_small().await;
    app.run_one().await;
    let key = ApiKey::generate().unwrap();
    app.store.issue_key(&usual_key("stranger"), &key).await.unwrap();
    let request = app.client.get(format!("{}/usage", app.url)).bearer_auth(key.expose());
    assert_eq!(json(request.send().await.unwrap()).await["results"], json!([]));
    for (query, field) in [
        ("?group_by=week", "group_by"),
        ("?from=yesterday", "from"),
        ("?from=2026-02-01&to=2026-01-01", "from"),
        ("?from=-5000-01-01", "from"),
        ("?from=0000-12-31", "from"),
        ("?to=%2B10000-01-01", "to"),
        ("?format=xml", "format"),
        ("?until=2026-01-01", "until"),
    ] {
        let response = app.get(&format!("/usage{query}")).send().await.unwrap();
        assert_eq!(response.status(), StatusCode::UNPROCESSABLE_ENTITY, "{query}");
        assert_eq!(json(response).await["invalid_fields"][0]["field"], field, "{query}");
    }
}

/// Three predictions that ended so many days ago, each in a session of its own.
async fn use_long_ago(app: &TestApp, days: i32) {
    for stripe in 101..104_i16 {
        app.create_small().await;
        app.run_one().await;
        let moved = sqlx::query("update usage set day = day - $1, stripe = $2 where stripe < 100").bind(days);
        moved.bind(stripe).execute(&app.pool).await.unwrap();
    }
}

/// Of each day its rows, the oldest first.
async fn rows_by_day(app: &TestApp) -> Vec<i64> {
    let counted = sqlx::query_scalar("select count(*) from usage group by day order by day");
    counted.fetch_all(&app.pool).await.unwrap()
}

#[sqlx::test]
async fn servers_keep_one_row_of_what_was_used_on_a_day_that_is_over(pool: PgPool) {
    let app = TestApp::start(pool).await;
    use_long_ago(&app, 9).await;
    use_long_ago(&app, 1).await;
    let before = usage(&app, "?from=2020-01-01").await;
    assert_eq!(rows_by_day(&app).await, [3, 3]);
    let settings = Settings { retention: Some(Duration::from_secs(3600)), ..settings() };
    let upkeep = WorkerPool::start(&app.store, &app.artifacts, &settings, Vec::new()).unwrap();
    eventually("the older day is one row", async || rows_by_day(&app).await == [1, 3]).await;
    upkeep.drain(&app.store, Duration::ZERO).await;
    assert_eq!(usage(&app, "?from=2020-01-01").await, before);
    assert!(app.store.audit().await.unwrap().is_clean());
}

#[sqlx::test]
async fn past_days_are_added_up_a_few_rows_at_a_time_beside_who_still_adds_to_them(pool: PgPool) {
    let app = TestApp::start(pool).await;
    use_long_ago(&app, 9).await;
    let before = usage(&app, "?from=2020-01-01").await;
    let mut late = app.pool.begin().await.unwrap();
    sqlx::query("update usage set failed = failed + 1 where stripe = 101").execute(&mut *late).await.unwrap();
    assert_eq!(app.store.compact_usage(1).await.unwrap(), 1);
    assert_eq!(usage(&app, "?from=2020-01-01").await, before);
    assert_eq!(app.store.compact_usage(100).await.unwrap(), 1, "not the one that somebody is at");
    assert_eq!(usage(&app, "?from=2020-01-01").await, before);
    late.commit().await.unwrap();
    assert_eq!(app.store.compact_usage(100).await.unwrap(), 1);
    assert_eq!(app.store.compact_usage(100).await.unwrap(), 0);
    let now = usage(&app, "?from=2020-01-01").await;
    assert_eq!((&now["total"]["cost"], &now["total"]["failed"]), (&before["total"]["cost"], &json!(1)));
    assert_eq!(rows_by_day(&app).await, [1]);
    assert!(app.store.audit().await.unwrap().is_clean());
}
