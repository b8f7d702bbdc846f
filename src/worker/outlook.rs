//! When the device will be free, guessed from how long runs like the present one took.
//!
//! The way to the database and back can be as long as a part of a short run. Where the end of a run can be foreseen,
//! the next prediction is claimed that much earlier and waits at the device. Never sooner, and never two: what one
//! worker holds no other can take, and it has had its turn.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, OnceLock},
    time::Duration,
};

use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};

use crate::store::Claim;

/// A claim's usual time is doubled, and this is added for the clock and the scheduler.
const MARGIN: Duration = Duration::from_millis(3);
/// No claim is made earlier than this, however slow the database is.
const EARLIEST: Duration = Duration::from_millis(500);
/// As many kinds of runs are remembered. Callers choose sizes, so there is no end to them.
const MOST_KINDS: usize = 256;

/// What is on its way to the device or on it, and what is known of runs.
#[derive(Debug)]
pub(super) struct Outlook {
    state: Arc<watch::Sender<State>>,
}

#[derive(Debug, Default)]
struct State {
    /// Given to the device and not done: the first is on it.
    given: VecDeque<Given>,
    count: u64,
    known: HashMap<Kind, Duration>,
    claim: Duration,
}

#[derive(Debug)]
struct Given {
    number: u64,
    kind: Kind,
    begun: Instant,
}

/// Runs that take the same time.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Kind {
    model: String,
    /// How many are drawn side by side.
    batch: usize,
    size: (u32, u32),
    steps: u32,
    outputs: u32,
    scheduler: &'static str,
    is_guided: bool,
    strength: Option<u64>,
}

impl Kind {
    fn of(claim: &Claim, batch: usize) -> Self {
        let input = &claim.input;
        Self {
            model: claim.model.clone(),
            batch,
            size: (input.width, input.height),
            steps: input.num_inference_steps,
            outputs: input.num_outputs,
            scheduler: input.scheduler.as_str(),
            is_guided: input.guidance_scale > 1.0,
            strength: input.image.as_ref().map(|_| input.prompt_strength.to_bits()),
        }
    }
}

/// The place at the device of what is drawn side by side, given up on drop.
#[derive(Debug)]
pub(super) struct AtDevice {
    state: Arc<watch::Sender<State>>,
    number: u64,
    took: OnceLock<Duration>,
}

impl AtDevice {
    /// The device is done with all of it, after so long. Not to be called for a run that was cut short.
    pub(super) fn took(&self, batch_time: Duration) {
        // All say the same.
        let _ = self.took.set(batch_time);
    }
}

impl Drop for AtDevice {
    fn drop(&mut self) {
        self.state.send_modify(|state| state.done(self.number, self.took.get().copied(), Instant::now()));
    }
}

impl Outlook {
    pub(super) fn new() -> Self {
        Self { state: Arc::new(watch::Sender::new(State::default())) }
    }

    /// Returns when the next prediction should be claimed: the device is free, or will be by the time it is here.
    pub(super) async fn nearly_free(&self) {
        let mut changes = self.state.subscribe();
        loop {
            let moment = changes.borrow_and_update().moment();
            let arrived = async {
                match moment {
                    Some(moment) => sleep_until(moment).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = arrived => return,
                // The sender is ours.
                _ = changes.changed() => {}
            }
        }
    }

    /// A claim took so long, whether there was one or not.
    pub(super) fn claimed_in(&self, took: Duration) {
        // Nobody has to look again for it.
        self.state.send_if_modified(|state| {
            state.claim = settled(state.claim, took);
            false
        });
    }

    /// So many predictions like this one are on their way to the device, to be drawn side by side.
    pub(super) fn give(&self, claim: &Claim, batch: usize) -> AtDevice {
        let mut number = 0;
        self.state.send_modify(|state| number = state.give(Kind::of(claim, batch), Instant::now()));
        AtDevice { state: Arc::clone(&self.state), number, took: OnceLock::new() }
    }
}

impl State {
    /// From when on to claim, or `None` if that cannot be told before something changes.
    fn moment(&self) -> Option<Instant> {
        match (self.given.front(), self.given.len()) {
            (None, _) => Some(Instant::now()),
            (Some(first), 1) => {
                let end = first.begun + *self.known.get(&first.kind)?;
                let lead = (2 * self.claim + MARGIN).min(EARLIEST);
                Some(end.checked_sub(lead).unwrap_or(end))
            }
            _ => None,
        }
    }

    fn give(&mut self, kind: Kind, now: Instant) -> u64 {
        self.count += 1;
        self.given.push_back(Given { number: self.count, kind, begun: now });
        self.count
    }

    fn done(&mut self, number: u64, took: Option<Duration>, now: Instant) {
        let Some(index) = self.given.iter().position(|given| given.number == number) else { return };
        let Some(done) = self.given.remove(index) else { return };
        if let Some(next) = self.given.front_mut().filter(|_| index == 0) {
            next.begun = now;
        }
        let Some(took) = took else { return };
        if self.known.len() >= MOST_KINDS && !self.known.contains_key(&done.kind) {
            self.known.clear();
        }
        let known = self.known.entry(done.kind).or_insert(took);
        *known = took.min(settled(*known, took));
    }
}

/// What has been usual, moved a little towards the latest.
fn settled(usual: Duration, latest: Duration) -> Duration {
    if usual.is_zero() { latest } else { (7 * usual + latest) / 8 }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RUN: Duration = Duration::from_secs(2);

    fn kind(steps: u32) -> Kind {
        Kind {
            model: "m".to_owned(),
            batch: 1,
            size: (256, 256),
            steps,
            outputs: 1,
            scheduler: "K_EULER",
            is_guided: false,
            strength: None,
        }
    }

    /// A device that has done one run of four steps, and begins another.
    fn begun(now: Instant) -> (State, u64) {
        let mut state = State { claim: Duration::from_millis(10), ..State::default() };
        let first = state.give(kind(4), now);
        state.done(first, Some(RUN), now);
        let second = state.give(kind(4), now);
        (state, second)
    }

    #[tokio::test]
    async fn the_next_is_claimed_two_ways_to_the_database_before_a_known_run_ends() {
        let now = Instant::now();
        let (state, _) = begun(now);
        assert_eq!(state.moment(), Some(now + RUN - Duration::from_millis(20) - MARGIN));
    }

    #[tokio::test]
    async fn no_more_than_one_waits_at_the_device() {
        let now = Instant::now();
        let (mut state, second) = begun(now);
        let third = state.give(kind(4), now);
        assert_eq!(state.moment(), None);
        let later = now + RUN;
        state.done(second, Some(RUN), later);
        assert!(state.moment().is_some_and(|moment| moment > later), "the third begins now");
        state.done(third, None, later);
        assert!(state.moment().is_some_and(|moment| moment <= Instant::now()), "free");
    }

    #[tokio::test]
    async fn nothing_is_claimed_early_beside_a_run_of_unknown_length() {
        let now = Instant::now();
        let (mut state, second) = begun(now);
        state.done(second, Some(RUN), now);
        state.give(kind(8), now);
        assert_eq!(state.moment(), None);
    }

    #[tokio::test]
    async fn a_run_that_was_faster_is_believed_at_once_and_a_slower_one_by_and_by() {
        let now = Instant::now();
        let (mut state, second) = begun(now);
        state.done(second, Some(RUN / 2), now);
        assert_eq!(state.known[&kind(4)], RUN / 2);
        let third = state.give(kind(4), now);
        state.done(third, Some(RUN), now);
        assert_eq!(state.known[&kind(4)], RUN / 2 + RUN / 16);
    }

    #[tokio::test]
    async fn whoever_waits_for_the_device_hears_that_it_is_free() {
        let outlook = Outlook::new();
        outlook.nearly_free().await;
        let mut number = 0;
        outlook.state.send_modify(|state| number = state.give(kind(4), Instant::now()));
        let place = AtDevice { state: Arc::clone(&outlook.state), number, took: OnceLock::new() };
        tokio::join!(outlook.nearly_free(), async { drop(place) });
    }
}
