//! Calls that come again with other numbers of the same sizes, recorded to be played from then on. The first of a kind are made,
//! for a recording pays only where many follow. Then one is made and recorded. The next is made, too, and the recording played
//! beside it: only what plays as the call was made, with numbers that it was not recorded with, is believed after that. What
//! fails or differs ends all recording, and calls are made as if there had never been any.

use std::fmt;

use super::error::Error;

/// Kinds of calls that are remembered. Of the others, those that were called longest ago are forgotten.
const KINDS: usize = 8;

/// A call that can be made, recorded and played.
pub(super) trait Call {
    /// What calls have in common that one recording serves.
    type Kind: PartialEq;
    /// What it results in.
    type Output;
    /// What is played.
    type Recording;

    /// Its kind.
    fn kind(&self) -> Self::Kind;
    /// Makes it.
    fn make(&self) -> Result<Self::Output, Error>;
    /// Whether there is room for a recording.
    fn has_room(&self) -> bool;
    /// Records it, which has just been made.
    fn record(&self, made: &Self::Output) -> Result<Self::Recording, Error>;
    /// Plays a recording of its kind with its own numbers.
    fn play(&self, recording: &mut Self::Recording) -> Result<Self::Output, Error>;
    /// Whether what was played is what was made, up to arithmetic.
    fn is_same(&self, played: &Self::Output, made: &Self::Output) -> Result<bool, Error>;
}

/// What is known of a kind of calls.
enum State<R> {
    /// So many have been made.
    Made(usize),
    Recorded(R),
    Trusted(R),
}

/// What is known of a kind after a call, or why there should be no recordings.
type After<R> = Result<State<R>, String>;

/// Recordings of a network's calls.
pub(super) struct Recordings<K, R> {
    /// The latest last.
    kinds: Vec<(K, State<R>)>,
    /// Calls of a kind until one is recorded.
    calls: usize,
    is_over: bool,
}

impl<K: PartialEq, R> Recordings<K, R> {
    /// Records a kind's call of this number, counted from 1.
    pub(super) fn of_call(calls: usize) -> Self {
        Self { kinds: Vec::new(), calls, is_over: false }
    }

    /// The result of a call, made or played.
    pub(super) fn call<C: Call<Kind = K, Recording = R>>(&mut self, call: &C) -> Result<C::Output, Error> {
        if self.is_over {
            return call.make();
        }
        let kind = call.kind();
        let place = self.kinds.iter().position(|(known, _)| *known == kind);
        let state = place.map_or(State::Made(0), |place| self.kinds.remove(place).1);
        let (output, state) = advance(state, call, self.calls);
        match state {
            Ok(state) => {
                self.kinds.push((kind, state));
                self.kinds.drain(..self.kinds.len().saturating_sub(KINDS));
            }
            Err(reason) => self.end(&reason),
        }
        match output {
            // They may have what it lacks.
            Err(error) if !self.kinds.is_empty() => {
                self.end(&format!("a call failed beside them: {error}"));
                call.make()
            }
            output => output,
        }
    }

    fn end(&mut self, reason: &str) {
        tracing::warn!("Calls of the UNet are made and no longer played, which is slower: {reason}");
        self.is_over = true;
        self.kinds.clear();
    }
}

/// The call's result, and what that tells of its kind.
fn advance<C: Call>(
    state: State<C::Recording>,
    call: &C,
    calls: usize,
) -> (Result<C::Output, Error>, After<C::Recording>) {
    match state {
        State::Made(before) => {
            let made = call.make();
            let state = match &made {
                Ok(made) if before + 1 >= calls && call.has_room() => match call.record(made) {
                    Ok(recording) => Ok(State::Recorded(recording)),
                    Err(error) => Err(format!("they could not be recorded: {error}")),
                },
                _ => Ok(State::Made(before + 1)),
            };
            (made, state)
        }
        State::Recorded(recording) => {
            let made = call.make();
            let state = match &made {
                Ok(made) => tried(recording, call, made),
                Err(_) => Ok(State::Recorded(recording)),
            };
            (made, state)
        }
        State::Trusted(mut recording) => match call.play(&mut recording) {
            Ok(played) => (Ok(played), Ok(State::Trusted(recording))),
            Err(error) => {
                drop(recording);
                (call.make(), Err(could_not_play(&error)))
            }
        },
    }
}

fn tried<C: Call>(mut recording: C::Recording, call: &C, made: &C::Output) -> After<C::Recording> {
    let is_same = call.play(&mut recording).and_then(|played| call.is_same(&played, made));
    match is_same {
        Ok(true) => Ok(State::Trusted(recording)),
        Ok(false) => Err("the recording plays something else".to_owned()),
        Err(error) => Err(could_not_play(&error)),
    }
}

fn could_not_play(error: &impl fmt::Display) -> String {
    format!("the recording could not be played: {error}")
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

    impl Call for Double<'_> {
        type Kind = usize;
        type Output = i32;
        type Recording = i32;

        fn kind(&self) -> usize {
            self.kind
        }

        fn make(&self) -> Result<i32, Error> {
            self.does("make").map(|()| 2 * self.number)
        }

        fn has_room(&self) -> bool {
            self.fails.get() != "room"
        }

        fn record(&self, _: &i32) -> Result<i32, Error> {
            self.does("record").map(|()| 2 * self.number)
        }

        fn play(&self, recorded: &mut i32) -> Result<i32, Error> {
            self.does("play")?;
            Ok(if self.fails.get() == "new numbers" { *recorded } else { 2 * self.number })
        }

        fn is_same(&self, played: &i32, made: &i32) -> Result<bool, Error> {
            self.does("compare").map(|()| played == made)
        }
    }

    /// Calls of these kinds, each with a number of its own; what was done for them, and each call's result. Before the call
    /// `from`, counted from 0, `fails` begins to.
    fn calls(kinds: &[usize], from: usize, fails: &'static str) -> (Vec<&'static str>, Vec<Option<i32>>) {
        let (diary, failing) = (RefCell::new(Vec::new()), Cell::new(""));
        let mut recordings = Recordings::of_call(2);
        let results = kinds.iter().enumerate().map(|(i, &kind)| {
            if i == from {
                failing.set(fails);
            }
            let call = Double { kind, number: i as i32, diary: &diary, fails: &failing };
            recordings.call(&call).ok()
        });
        let results = results.collect();
        (diary.into_inner(), results)
    }

    const RIGHT: [Option<i32>; 5] = [Some(0), Some(2), Some(4), Some(6), Some(8)];

    #[test]
    fn calls_are_made_then_recorded_then_compared_and_then_played() {
        let (done, results) = calls(&[7; 5], 9, "");
        assert_eq!(done, ["make", "make", "record", "make", "play", "compare", "play", "play"]);
        assert_eq!(results, RIGHT);
    }

    #[test]
    fn every_kind_has_a_recording_of_its_own() {
        let (done, _) = calls(&[1, 2, 1, 2, 1, 2, 1, 2], 9, "");
        assert_eq!(done.iter().filter(|&&what| what == "record").count(), 2);
        assert_eq!(&done[done.len() - 2..], ["play", "play"]);
    }

    #[test]
    fn whatever_fails_the_result_is_right_and_nothing_is_tried_again() {
        for (from, fails, before) in [
            (0, "record", vec!["make", "make", "record"]),
            (0, "play", vec!["make", "make", "record", "make", "play"]),
            (0, "compare", vec!["make", "make", "record", "make", "play", "compare"]),
            (3, "play", vec!["make", "make", "record", "make", "play", "compare", "play"]),
        ] {
            let (done, results) = calls(&[7; 5], from, fails);
            assert_eq!(results, RIGHT, "{fails}");
            assert_eq!(done[..before.len()], before, "{fails}");
            assert!(done[before.len()..].iter().all(|&what| what == "make"), "{fails}: {done:?}");
        }
    }

    #[test]
    fn a_recording_that_plays_its_own_numbers_is_found_out() {
        let (done, results) = calls(&[7; 5], 0, "new numbers");
        assert_eq!(results, RIGHT);
        assert_eq!(done, ["make", "make", "record", "make", "play", "compare", "make", "make"]);
    }

    #[test]
    fn without_room_calls_are_made_until_there_is_some() {
        let (done, _) = calls(&[7; 5], 0, "room");
        assert_eq!(done, ["make"; 5]);
    }

    #[test]
    fn a_call_that_fails_beside_recordings_is_made_again_without_them() {
        let (done, results) = calls(&[1, 1, 2], 2, "make");
        assert_eq!(done, ["make", "make", "record", "make", "make"]);
        assert_eq!(results, [Some(0), Some(2), None]);
    }

    #[test]
    fn what_was_called_long_ago_is_forgotten() {
        let many: Vec<usize> = (0..=KINDS).chain([0, 0]).collect();
        let (done, _) = calls(&many, 99, "");
        // Kind 0 had been made, and had to begin again.
        assert_eq!(done.iter().position(|&what| what == "record"), Some(KINDS + 3));
    }
}
