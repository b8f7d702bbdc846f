//! Turns: the order in which accounts are served. Start-time fair queueing, with one prediction as the unit of work.

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::oneshot;

use super::{Result, Store};
use crate::domain::NewPrediction;

/// Those of this process that want a turn while one is being asked for. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(super) struct Turns {
    lines: Arc<Mutex<HashMap<Line, Vec<oneshot::Sender<Answer>>>>>,
}

/// Model and account.
type Line = (String, i64);

/// What somebody in line is told.
#[derive(Debug)]
enum Answer {
    /// This is yours.
    Turn(i64),
    /// Ask, for yourself and for these.
    Ask(Asking, Vec<oneshot::Sender<Answer>>),
}

/// The right to ask for a line, which goes to the next one in it on drop.
#[derive(Debug)]
struct Asking {
    turns: Turns,
    line: Line,
}

impl Turns {
    fn lines(&self) -> MutexGuard<'_, HashMap<Line, Vec<oneshot::Sender<Answer>>>> {
        // Nothing under the lock can leave the map half changed.
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The right to ask, or a place in the line of those who wait for it.
    fn line_up(&self, line: Line) -> std::result::Result<Asking, oneshot::Receiver<Answer>> {
        match self.lines().entry(line) {
            Entry::Vacant(vacant) => {
                let line = vacant.key().clone();
                vacant.insert(Vec::new());
                Ok(Asking { turns: self.clone(), line })
            }
            Entry::Occupied(mut occupied) => {
                let (sender, receiver) = oneshot::channel();
                occupied.get_mut().push(sender);
                Err(receiver)
            }
        }
    }

    /// Whoever is first in the line and still there asks for all of it.
    fn hand_on(&self, line: &Line) {
        let mut lines = self.lines();
        let mut waiting = lines.get_mut(line).map(std::mem::take).unwrap_or_default();
        waiting.retain(|waiter| !waiter.is_closed());
        if waiting.is_empty() {
            lines.remove(line);
            return;
        }
        drop(lines);
        let first = waiting.remove(0);
        let asking = Asking { turns: self.clone(), line: line.clone() };
        // Should it be gone by now, this hands on to those who have come since.
        drop(first.send(Answer::Ask(asking, waiting)));
    }
}

impl Drop for Asking {
    fn drop(&mut self) {
        self.turns.hand_on(&self.line);
    }
}

impl Store {
    /// The turn of a new prediction: the account's next, but none that is over. What another account has queued does not
    /// put it back, and what its own account was served while nobody else asked is not held against it.
    ///
    /// A statement of its own: in the one that creates the prediction it would keep the account's other creates waiting
    /// for the disk. Those that come while one is under way share the next. A turn that is taken and not used harms
    /// nobody.
    pub(super) async fn take_turn(&self, new: &NewPrediction) -> Result<i64> {
        let (asking, behind) = match self.turns.line_up((new.model.clone(), new.account_id)) {
            Ok(asking) => (asking, Vec::new()),
            Err(answer) => match answer.await {
                Ok(Answer::Turn(turn)) => return Ok(turn),
                Ok(Answer::Ask(asking, behind)) => (asking, behind),
                // Whoever asked was refused, and everybody learns why from the database.
                Err(_) => return self.number(new, 1).await,
            },
        };
        let last = self.number(new, 1 + behind.len()).await?;
        drop(asking);
        let own = last - behind.len() as i64;
        for (turn, waiter) in (own + 1..=last).zip(behind) {
            // It may have gone.
            let _ = waiter.send(Answer::Turn(turn));
        }
        Ok(own)
    }

    /// The last of so many turns on end.
    async fn number(&self, new: &NewPrediction, count: usize) -> Result<i64> {
        Ok(sqlx::query_scalar(
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
        .bind(count as i64)
        .fetch_one(&self.pool)
        .await?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line() -> Line {
        ("m".to_owned(), 1)
    }

    #[tokio::test]
    async fn those_who_wait_are_asked_for_together_and_a_line_that_is_over_is_forgotten() {
        let turns = Turns::default();
        let first = turns.line_up(line()).expect("nobody asks");
        let waiting: Vec<_> = (0..3).map(|_| turns.line_up(line()).expect_err("somebody asks")).collect();
        assert!(turns.line_up(("m".to_owned(), 2)).is_ok(), "of another account");
        drop(first);
        let mut waiting = waiting.into_iter();
        let Answer::Ask(second, behind) = waiting.next().expect("three").await.expect("asked to ask") else {
            panic!("a turn from nowhere")
        };
        assert_eq!(behind.len(), 2);
        drop(behind);
        for refused in waiting {
            assert!(refused.await.is_err(), "nobody asks for it any more");
        }
        drop(second);
        assert!(turns.lines().is_empty());
    }

    #[tokio::test]
    async fn the_right_to_ask_passes_by_those_who_are_gone() {
        let turns = Turns::default();
        let first = turns.line_up(line()).expect("nobody asks");
        drop(turns.line_up(line()));
        let there = turns.line_up(line()).expect_err("somebody asks");
        drop(first);
        let answer = there.await.expect("asked to ask");
        drop(answer);
        assert!(turns.lines().is_empty(), "also when it is dropped unread");
    }
}
