//! Repeated calls of the same shapes, captured once and replayed. The first calls of a kind run normally, because a
//! capture pays only if many follow; then one is run and captured. The next is run and also replayed: the replay is
//! trusted only if both agree on inputs it was not captured with. Any failure or difference ends capturing for good,
//! and calls run normally.

use std::fmt;

use super::error::Error;

/// Kinds of calls that are remembered. Of the others, those that were called longest ago are forgotten.
const KINDS: usize = 8;

/// A call that can be run, captured and replayed.
pub(super) trait Replayable {
    /// What calls have in common that one capture serves: the shapes of their inputs.
    type Kind: PartialEq;
    /// What it results in.
    type Output;
    /// What is replayed.
    type Capture;

    /// Its kind.
    fn kind(&self) -> Self::Kind;
    /// Runs it.
    fn run(&self) -> Result<Self::Output, Error>;
    /// Whether there is memory for a capture.
    fn has_room(&self) -> bool;
    /// Captures the call, which has just been run.
    fn capture(&self, output: &Self::Output) -> Result<Self::Capture, Error>;
    /// Replays a capture of its kind with its own inputs.
    fn replay(&self, capture: &mut Self::Capture) -> Result<Self::Output, Error>;
    /// Whether a replay's output is that of the run, up to arithmetic.
    fn agree(&self, replayed: &Self::Output, run: &Self::Output) -> Result<bool, Error>;
}

/// How far calls of a kind have come.
enum State<C> {
    /// So many have run normally.
    Warmup(usize),
    /// One was captured; its replay has not been compared with a run yet.
    Captured(C),
    /// A replay agreed with a run.
    Verified(C),
}

/// The state of a kind after a call, or why capturing should end.
type After<C> = Result<State<C>, String>;

/// Captures of a network's calls.
pub(super) struct Captures<K, C> {
    /// The latest last.
    kinds: Vec<(K, State<C>)>,
    /// Calls of a kind until one is captured.
    warmup: usize,
    is_over: bool,
}

impl<K: PartialEq, C> Captures<K, C> {
    /// Captures a kind's call of this number, counted from 1.
    pub(super) fn at_call(warmup: usize) -> Self {
        Self { kinds: Vec::new(), warmup, is_over: false }
    }

    /// The output of a call, run or replayed.
    pub(super) fn call<R: Replayable<Kind = K, Capture = C>>(&mut self, call: &R) -> Result<R::Output, Error> {
        if self.is_over {
            return call.run();
        }
        let kind = call.kind();
        let index = self.kinds.iter().position(|(known, _)| *known == kind);
        let state = index.map_or(State::Warmup(0), |index| self.kinds.remove(index).1);
        let (output, state) = advance(state, call, self.warmup);
        match state {
            Ok(state) => {
                self.kinds.push((kind, state));
                self.kinds.drain(..self.kinds.len().saturating_sub(KINDS));
            }
            Err(reason) => self.end(&reason),
        }
        match output {
            // The captures may hold what it lacks, memory above all.
            Err(error) if !self.kinds.is_empty() => {
                self.end(&format!("a call failed beside the captures: {error}"));
                call.run()
            }
            output => output,
        }
    }

    fn end(&mut self, reason: &str) {
        tracing::warn!("Calls of the UNet are run and no longer replayed, which is slower: {reason}");
        self.is_over = true;
        self.kinds.clear();
    }
}

/// The call's output, and the state of its kind after it.
fn advance<R: Replayable>(
    state: State<R::Capture>,
    call: &R,
    warmup: usize,
) -> (Result<R::Output, Error>, After<R::Capture>) {
    match state {
        State::Warmup(before) => {
            let output = call.run();
            let state = match &output {
                Ok(output) if before + 1 >= warmup && call.has_room() => match call.capture(output) {
                    Ok(capture) => Ok(State::Captured(capture)),
                    Err(error) => Err(format!("they could not be captured: {error}")),
                },
                _ => Ok(State::Warmup(before + 1)),
            };
            (output, state)
        }
        State::Captured(capture) => {
            let output = call.run();
            let state = match &output {
                Ok(output) => verified(capture, call, output),
                Err(_) => Ok(State::Captured(capture)),
            };
            (output, state)
        }
        State::Verified(mut capture) => match call.replay(&mut capture) {
            Ok(output) => (Ok(output), Ok(State::Verified(capture))),
            Err(error) => {
                drop(capture);
                (call.run(), Err(could_not_replay(&error)))
            }
        },
    }
}

fn verified<R: Replayable>(mut capture: R::Capture, call: &R, run: &R::Output) -> After<R::Capture> {
    let agree = call.replay(&mut capture).and_then(|replayed| call.agree(&replayed, run));
    match agree {
        Ok(true) => Ok(State::Verified(capture)),
        Ok(false) => Err("a replay differs from the same call run".to_owned()),
        Err(error) => Err(could_not_replay(&error)),
    }
}

fn could_not_replay(error: &impl fmt::Display) -> String {
    format!("a capture could not be replayed: {error}")
}

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};

    use super::*;

    /// Doubles a number, and keeps a diary.
    struct Double<'a> {
        kind: usize,
        number: i32,
        diary: &'a RefCell<Vec<&'static str>>,
        /// What fails.
        fails: &'a Cell<&'static str>,
    }

    impl Double<'_> {
        fn does(&self, what: &'static str) -> Result<(), Error> {
            self.diary.borrow_mut().push(what);
            if self.fails.get() == what { Err(Error::Params(format!("no {what}"))) } else { Ok(()) }
        }
    }

    impl Replayable for Double<'_> {
        type Kind = usize;
        type Output = i32;
        type Capture = i32;

        fn kind(&self) -> usize {
            self.kind
        }

        fn run(&self) -> Result<i32, Error> {
            self.does("run").map(|()| 2 * self.number)
        }

        fn has_room(&self) -> bool {
            self.fails.get() != "room"
        }

        fn capture(&self, _: &i32) -> Result<i32, Error> {
            self.does("capture").map(|()| 2 * self.number)
        }

        fn replay(&self, captured: &mut i32) -> Result<i32, Error> {
            self.does("replay")?;
            Ok(if self.fails.get() == "new inputs" { *captured } else { 2 * self.number })
        }

        fn agree(&self, replayed: &i32, run: &i32) -> Result<bool, Error> {
            self.does("compare").map(|()| replayed == run)
        }
    }

    /// Calls of these kinds, each with a number of its own; what was done for them, and each call's result. Before the
    /// call `from`, counted from 0, `fails` begins to.
    fn calls(kinds: &[usize], from: usize, fails: &'static str) -> (Vec<&'static str>, Vec<Option<i32>>) {
        let (diary, failing) = (RefCell::new(Vec::new()), Cell::new(""));
        let mut captures = Captures::at_call(2);
        let results = kinds.iter().enumerate().map(|(i, &kind)| {
            if i == from {
                failing.set(fails);
            }
            let call = Double { kind, number: i as i32, diary: &diary, fails: &failing };
            captures.call(&call).ok()
        });
        let results = results.collect();
        (diary.into_inner(), results)
    }

    const RIGHT: [Option<i32>; 5] = [Some(0), Some(2), Some(4), Some(6), Some(8)];

    #[test]
    fn calls_are_run_then_captured_then_compared_and_then_replayed() {
        let (done, results) = calls(&[7; 5], 9, "");
        assert_eq!(done, ["run", "run", "capture", "run", "replay", "compare", "replay", "replay"]);
        assert_eq!(results, RIGHT);
    }

    #[test]
    fn every_kind_has_a_capture_of_its_own() {
        let (done, _) = calls(&[1, 2, 1, 2, 1, 2, 1, 2], 9, "");
        assert_eq!(done.iter().filter(|&&what| what == "capture").count(), 2);
        assert_eq!(&done[done.len() - 2..], ["replay", "replay"]);
    }

    #[test]
    fn whatever_fails_the_result_is_right_and_nothing_is_tried_again() {
        for (from, fails, before) in [
            (0, "capture", vec!["run", "run", "capture"]),
            (0, "replay", vec!["run", "run", "capture", "run", "replay"]),
            (0, "compare", vec!["run", "run", "capture", "run", "replay", "compare"]),
            (3, "replay", vec!["run", "run", "capture", "run", "replay", "compare", "replay"]),
        ] {
            let (done, results) = calls(&[7; 5], from, fails);
            assert_eq!(results, RIGHT, "{fails}");
            assert_eq!(done[..before.len()], before, "{fails}");
            assert!(done[before.len()..].iter().all(|&what| what == "run"), "{fails}: {done:?}");
        }
    }

    #[test]
    fn a_capture_that_replays_its_own_inputs_is_found_out() {
        let (done, results) = calls(&[7; 5], 0, "new inputs");
        assert_eq!(results, RIGHT);
        assert_eq!(done, ["run", "run", "capture", "run", "replay", "compare", "run", "run"]);
    }

    #[test]
    fn without_room_calls_are_run_until_there_is_some() {
        let (done, _) = calls(&[7; 5], 0, "room");
        assert_eq!(done, ["run"; 5]);
    }

    #[test]
    fn a_call_that_fails_beside_captures_is_run_again_without_them() {
        let (done, results) = calls(&[1, 1, 2], 2, "run");
        assert_eq!(done, ["run", "run", "capture", "run", "run"]);
        assert_eq!(results, [Some(0), Some(2), None]);
    }

    #[test]
    fn what_was_called_long_ago_is_forgotten() {
        let many: Vec<usize> = (0..=KINDS).chain([0, 0]).collect();
        let (done, _) = calls(&many, 99, "");
        // Kind 0 had been run once, and had to begin again.
        assert_eq!(done.iter().position(|&what| what == "capture"), Some(KINDS + 3));
    }
}
