//! Turns: the order in which accounts are served. Start-time fair queueing, with one prediction as the unit of work.

use super::{Result, Store};
use crate::domain::NewPrediction;

impl Store {
    /// The turn of a new prediction: the account's next, but none that is over. What another account has queued does not
    /// put it back, and what its own account was served while nobody else asked is not held against it.
    ///
    /// A statement of its own: in the one that creates the prediction it would keep the account's other creates waiting
    /// for the disk. A turn that is taken and not used harms nobody.
    pub(super) async fn take_turn(&self, new: &NewPrediction) -> Result<i64> {
        Ok(sqlx::query_scalar(
            "insert into turns as known (model, account_id, turn)
             select $1, $2, coalesce(
                 -- Whose turn it is.
                 (select turn from predictions where model = $1 and status = 'queued'
                  order by priority, turn, created_at, id limit 1),
                 -- Nobody waits: everything that was given out is served.
                 (select max(turn) from turns where model = $1),
                 0)
             on conflict (model, account_id) do update set turn = greatest(known.turn + 1, excluded.turn)
             returning turn",
        )
        .bind(&new.model)
        .bind(new.account_id)
        .fetch_one(&self.pool)
        .await?)
    }
}
