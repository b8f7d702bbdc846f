//! Reads of long histories touch what they answer with, not the histories.

use fourstep::{
    domain::{PredictionId, Status},
    store::{Cursor, ListFilter},
};
use sqlx::{PgPool, postgres::PgPoolOptions};

use crate::queue::Queue;

/// How a statement is run on tables that were filled and analyzed.
async fn plan(pool: &PgPool, statement: &str) -> String {
    let lines: Vec<String> = sqlx::query_scalar(sqlx::AssertSqlSafe(format!("explain (costs off) {statement}")))
        .fetch_all(pool)
        .await
        .unwrap();
    lines.join("\n")
}

/// The same database over one connection, whose reads [`rows_read`] counts.
async fn alone(pool: &PgPool) -> PgPool {
    PgPoolOptions::new().max_connections(1).connect_with((*pool.connect_options()).clone()).await.unwrap()
}

/// How many rows and entries of indexes were read so far, whoever's statements they were. Connections say so when they
/// are asked to, or when they please.
async fn rows_read(alone: &PgPool) -> i64 {
    sqlx::query("select pg_stat_force_next_flush()").execute(alone).await.unwrap();
    sqlx::query_scalar(
        "select (select sum(seq_tup_read)::bigint from pg_stat_user_tables)
              + (select sum(idx_tup_read)::bigint from pg_stat_user_indexes)",
    )
    .fetch_one(alone)
    .await
    .unwrap()
}

async fn run(pool: &PgPool, statements: &[&'static str]) {
    for statement in statements {
        sqlx::query(*statement).execute(pool).await.unwrap();
    }
}

/// Twenty thousand predictions of one account, each like one that was created; every hundredth failed, the others were
/// canceled. Those that failed are the oldest.
const MANY_PREDICTIONS: [&str; 2] = [
    "insert into predictions
         (id, account_id, key_id, dialect, model, version, raw_input, input, price_nano, created_at,
          status, completed_at, device_us, cost_nano, failure_code, failure_message)
     select gen_random_uuid(), account_id, key_id, dialect, model, version, raw_input, input, price_nano,
            created_at - (20001 - number) * interval '1 minute',
            case when number <= 200 then 'failed' else 'canceled' end, now(), 0, 0,
            case when number <= 200 then 'internal' end, case when number <= 200 then 'broken' end
     from predictions cross join generate_series(1, 20000) as number",
    "analyze predictions",
];

/// Each prediction tells its end to one receiver.
const WEBHOOKS_OF_ALL: &str =
    "insert into webhooks (prediction_id, account_id, url, receiver, events, server_url, mount)
     select id, account_id, 'http://a/', 'a:80', '{completed}', '', '' from predictions";

#[sqlx::test]
async fn what_was_told_of_one_prediction_is_found_among_all_that_was_told(pool: PgPool) {
    let queue = Queue::new(pool.clone()).await;
    queue.create().await;
    run(&pool, &MANY_PREDICTIONS).await;
    run(
        &pool,
        &[
            WEBHOOKS_OF_ALL,
            "insert into webhook_deliveries (prediction_id, receiver, event, state)
             select prediction_id, receiver, 'completed', 'delivered' from webhooks",
            "analyze webhooks",
            "analyze webhook_deliveries",
        ],
    )
    .await;
    for statement in [
        // The foreign key's own, when a webhook is forgotten.
        "delete from only webhook_deliveries where prediction_id = gen_random_uuid()",
        "select * from webhooks left join webhook_deliveries as delivery
             on delivery.prediction_id = webhooks.prediction_id
         where webhooks.prediction_id = '00000000-0000-0000-0000-000000000000'",
    ] {
        let plan = plan(&pool, &statement.replace("gen_random_uuid()", "'00000000-0000-0000-0000-000000000000'")).await;
        assert!(plan.contains("webhook_deliveries_by_prediction"), "{plan}");
        assert!(!plan.contains("Seq Scan"), "{plan}");
    }
}

/// An autoscaler asks it every few seconds.
#[sqlx::test]
async fn what_is_left_to_do_is_counted_without_reading_what_was_done(pool: PgPool) {
    let queue = Queue::new(pool.clone()).await;
    queue.create().await;
    run(&pool, &MANY_PREDICTIONS).await;
    let plan = plan(&pool, "select * from queue_drain where model = 'sdxl-lightning-4step'").await;
    assert!(!plan.contains("Seq Scan") && !plan.contains("predictions_by_account_and_status"), "{plan}");
    let (waiting, seconds): (i64, i64) =
        sqlx::query_as("select predictions, seconds from queue_drain").fetch_one(&pool).await.unwrap();
    assert_eq!((waiting, seconds), (1, 2));
}

#[sqlx::test]
async fn the_few_of_a_status_are_listed_in_order_and_without_reading_the_many(pool: PgPool) {
    let queue = Queue::new(pool.clone()).await;
    let newest = queue.create().await;
    run(&pool, &MANY_PREDICTIONS).await;
    // As `list` asks for each status.
    let plan = plan(
        &pool,
        "select id from predictions
         where account_id = 1 and status = (select 'failed')
         order by created_at desc, id desc limit 20",
    )
    .await;
    assert!(plan.contains("predictions_by_account_and_status"), "{plan}");
    assert!(!plan.contains("Sort"), "{plan}");

    let list = async |statuses: Option<&[Status]>, after: Option<Cursor>, offset, limit| {
        let statuses = statuses.map(<[Status]>::to_vec);
        let filter = ListFilter { statuses, after, offset, limit, ..ListFilter::default() };
        queue.store.list(queue.caller.account_id, &filter).await.unwrap()
    };
    let ids = |list: &[fourstep::domain::Prediction]| list.iter().map(|one| one.id).collect::<Vec<PredictionId>>();
    let all = list(None, None, 0, 20_001).await;
    assert_eq!((all.len(), all[0].id), (20_001, newest.id));
    let failed = list(Some(&[Status::Failed]), None, 0, 1000).await;
    assert_eq!((ids(&failed), failed.len()), (ids(&all[19_801..]), 200));
    // Across the border between two of them, from a place and with some left out.
    let both = [Status::Canceled, Status::Failed, Status::Failed];
    assert_eq!(ids(&list(Some(&both), None, 19_790, 20).await), ids(&all[19_791..19_811]));
    let after = Cursor { created_at: all[19_790].created_at, id: all[19_790].id };
    assert_eq!(ids(&list(Some(&both), Some(after), 5, 20).await), ids(&all[19_796..19_816]));
    assert_eq!(ids(&list(Some(&[Status::Queued]), None, 0, 20).await), [newest.id]);
    assert!(list(Some(&[]), None, 0, 20).await.is_empty());
}

#[sqlx::test]
async fn the_latest_runs_of_a_model_are_found_beside_those_of_others(pool: PgPool) {
    run(
        &pool,
        &[
            "insert into ledger (account_id, key_id, prediction_id, model, kind, device_us, amount_nano)
             select 1, 1, gen_random_uuid(), 'rare', 'charge', 1000000 * number, 1 from generate_series(1, 5) as number",
            "insert into ledger (account_id, key_id, prediction_id, model, kind, device_us, amount_nano)
             select 1, 1, gen_random_uuid(), 'common', 'charge', 1, 1 from generate_series(1, 20000)",
            "analyze ledger",
        ],
    )
    .await;
    let latest = "select device_us from ledger where model = 'rare' order by id desc limit 100";
    let plan = plan(&pool, latest).await;
    assert!(plan.contains("ledger_by_model"), "{plan}");
}

#[sqlx::test]
async fn what_was_given_up_is_found_among_all_that_was_told(pool: PgPool) {
    let pool = alone(&pool).await;
    let queue = Queue::new(pool.clone()).await;
    queue.create().await;
    run(&pool, &MANY_PREDICTIONS).await;
    run(
        &pool,
        &[
            WEBHOOKS_OF_ALL,
            "insert into webhook_deliveries (prediction_id, receiver, event, state, attempt)
             select prediction_id, receiver, 'completed',
                    case when prediction_id in (select id from predictions where status = 'queued') then 'failed'
                         else 'delivered' end, 1
             from webhooks",
            "insert into webhook_attempts (delivery_id, attempt, took_us, succeeded) select id, 1, 1, false from webhook_deliveries",
            "analyze webhooks",
            "analyze webhook_deliveries",
            "analyze webhook_attempts",
        ],
    )
    .await;
    let before = rows_read(&pool).await;
    assert_eq!(queue.store.given_up_webhooks(None, 100).await.unwrap().len(), 1);
    assert_eq!(queue.store.given_up_webhooks(Some("owner"), 100).await.unwrap().len(), 1);
    assert_eq!(queue.store.redeliver_given_up_webhooks(None).await.unwrap(), 1);
    assert_eq!(queue.store.redeliver_given_up_webhooks(Some("owner")).await.unwrap(), 0);
    let read = rows_read(&pool).await - before;
    assert!(read < 1000, "{read} rows");
}

#[sqlx::test]
async fn the_days_to_add_up_are_found_among_all_that_were(pool: PgPool) {
    let pool = alone(&pool).await;
    let queue = Queue::new(pool.clone()).await;
    run(
        &pool,
        &[
            "insert into usage (day, account_id, key_id, model, stripe)
             select date '1970-01-01' + number, 1, 1, 'm', 0 from generate_series(1, 20000) as number",
            "insert into usage (day, account_id, key_id, model, stripe)
             select (now() at time zone 'UTC')::date, account, 1, 'm', 7 from generate_series(1, 20000) as account",
            "insert into usage (day, account_id, key_id, model, stripe) values ('2026-01-01', 1, 1, 'm', 7)",
            "vacuum analyze usage",
        ],
    )
    .await;
    let before = rows_read(&pool).await;
    assert_eq!(queue.store.compact_usage(100).await.unwrap(), 1);
    let read = rows_read(&pool).await - before;
    assert!(read < 100, "{read} rows");
}
