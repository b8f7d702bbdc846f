//! Turns: the order in which accounts are served. Start-time fair queueing, with one prediction as the unit of work.

use super::{Result, Store, batcher::Batcher, per_key::PerKey};
use crate::domain::NewPrediction;

/// Those of this process that want a turn, by model, account and priority.
pub(super) type Turns = PerKey<(String, i64, i16), Batcher<(), i64>>;

impl Store {
    /// The turn of a new prediction: the account's next, but none that is over. What another account has queued does not
    /// put it back, and what its own account was served while nobody else asked, or what was refused or canceled, is
    /// not held against it. To be asked with a place among the account's creates, which is kept until the prediction is
    /// there.
    ///
    /// A statement of its own: in the one that creates the prediction it would keep the account's other creates waiting
    /// for the disk. Those that come while one is under way share the next.
    pub(super) async fn take_turn(&self, new: &NewPrediction) -> Result<i64> {
        let line = self.turns.guard((new.model.clone(), new.account_id, new.priority));
        line.done((), async |all: &[()]| self.number(new, all.len()).await).await
    }

    /// So many turns on end.
    async fn number(&self, new: &NewPrediction, count: usize) -> Result<Vec<i64>> {
        // Those that were given a turn in this process and are not in the queue yet are among them.
        let under_way = self.creates.count(&new.account_id).saturating_sub(count);
        let count = count as i64;
        let last: i64 = sqlx::query_scalar(
            "with behind as (
                 select (select turn from predictions
                         where account_id = $2 and status = 'queued' and model = $1 and priority = $4
                         order by created_at desc, turn desc limit 1) as turn
             )
             insert into turns as known (model, account_id, turn)
             select $1, $2, $3 - 1 + coalesce(
                 -- Whose turn it is. Turns are compared only where the priority is the same.
                 (select turn from predictions where model = $1 and status = 'queued' and priority = $4
                  order by turn, created_at, id limit 1),
                 -- Nobody waits: whose turn it was last.
                 (select max(turn) from predictions where model = $1 and status = 'processing'),
                 -- Nobody is served: everything that was given out is over.
                 (select max(turn) from turns where model = $1),
                 0)
             on conflict (model, account_id) do update set given_at = now(), turn = greatest(
                 excluded.turn,
                 -- Behind its last one in the queue.
                 $3 + (select turn from behind),
                 case
                     -- What was given a moment ago may be on its way into the queue, in another process.
                     when known.given_at > now() - interval '1 s' then known.turn + $3
                     -- Beyond its last one in the queue, and those on their way in this process, are only those that were
                     -- refused, canceled or served.
                     else least(known.turn + $3, $3 + $5 + coalesce((select turn from behind), excluded.turn - $3))
                 end)
             returning turn",
        )
        .bind(&new.model)
        .bind(new.account_id)
        .bind(count)
        .bind(new.priority)
        .bind(under_way as i64)
        .fetch_one(&self.pool)
        .await?;
        Ok((last - count + 1..=last).collect())
    }
}
