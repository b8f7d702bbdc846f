//! Turns: the order in which accounts are served. Start-time fair queueing, with one prediction as the unit of work.

use super::{Result, Store, batcher::Batcher, per_key::PerKey};
use crate::domain::NewPrediction;

/// Those of this process that want a turn, by model and account.
pub(super) type Turns = PerKey<(String, i64), Batcher<(), i64>>;

impl Store {
    /// The turn of a new prediction: the account's next, but none that is over. What another account has queued does not
    /// put it back, and what its own account was served while nobody else asked is not held against it.
    ///
    /// A statement of its own: in the one that creates the prediction it would keep the account's other creates waiting
    /// for the disk. Those that come while one is under way share the next. A turn that is taken and not used harms
    /// nobody.
    pub(super) async fn take_turn(&self, new: &NewPrediction) -> Result<i64> {
        let line = self.turns.guard((new.model.clone(), new.account_id));
        line.done((), async |all: &[()]| self.number(new, all.len()).await).await
    }

    /// So many turns on end.
    async fn number(&self, new: &NewPrediction, count: usize) -> Result<Vec<i64>> {
        let count = count as i64;
        let last: i64 = sqlx::query_scalar(
            "insert into turns as known (model, account_id, turn)
             select $1, $2, $3 - 1 + coalesce(
                 -- Whose turn it is.
                 (select turn from predictions where model = $1 and status = 'queued'
                  order by priority, turn, created_at, id limit 1),
                 -- Nobody waits: everything that was given out is served.
                 (select max(turn) from turns where model = $1),
                 0)
             on conflict (model, account_id) do update set turn = greatest(known.turn + $3, excluded.turn)
             returning turn",
        )
        .bind(&new.model)
        .bind(new.account_id)
        .bind(count)
        .fetch_one(&self.pool)
        .await?;
        Ok((last - count + 1..=last).collect())
    }
}
