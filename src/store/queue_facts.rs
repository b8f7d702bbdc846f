//! The queue in figures, for whoever watches it.

use std::time::Duration;

use super::{Result, Store};
use crate::metrics::{Pool, QueueFacts};

impl Store {
    /// How much waits, for how long, and the workers there are, in one statement that reads the queue's own index; and what
    /// could slow it down.
    pub async fn queue_facts(&self) -> Result<QueueFacts> {
        let rows: Vec<(bool, String, i64, i64)> = sqlx::query_as(
            "select true, model, count(*),
                    greatest(0, extract(epoch from now() - min(created_at)) * 1000000)::bigint
             from predictions where status = 'queued' group by model
             union all
             select false, phase, count(*), 0 from workers group by phase",
        )
        .fetch_all(&self.pool)
        .await?;
        // A snapshot that is kept open keeps every row that died since, and claims slow down long before the disk fills.
        let (dead_rows, oldest): (i64, i64) = sqlx::query_as(
            "select
                 coalesce((select n_dead_tup from pg_stat_user_tables where relid = 'predictions'::regclass), 0),
                 coalesce((select extract(epoch from clock_timestamp() - min(xact_start)) * 1000000
                           from pg_stat_activity
                           where backend_xmin is not null and datname = current_database()
                             -- Vacuum of a large table takes its time, and keeps nobody's dead rows.
                             and backend_type <> 'autovacuum worker'
                             and pid <> pg_backend_pid()), 0)::bigint",
        )
        .fetch_one(&self.pool)
        .await?;
        let mut facts = QueueFacts {
            dead_rows: dead_rows.unsigned_abs(),
            oldest_snapshot: Duration::from_micros(oldest.unsigned_abs()),
            ..QueueFacts::default()
        };
        for (waits, name, count, oldest) in rows {
            let count = count.unsigned_abs();
            match waits {
                true => facts.waiting.push((name, count, Duration::from_micros(oldest.unsigned_abs()))),
                false => facts.workers.push((name, count)),
            }
        }
        Ok(facts)
    }

    /// The connections of this process, without asking the database.
    pub fn pool_facts(&self) -> Pool {
        let pool = self.pool.pool();
        let (open, idle) = (pool.size(), pool.num_idle() as u32);
        Pool {
            idle,
            used: open.saturating_sub(idle),
            most: pool.options().get_max_connections(),
            waiters: self.pool.waiters(),
        }
    }
}
