//! A device's time, split between the predictions that ran side by side: evenly, between those who were there.

use std::time::{Duration, Instant};

use crate::domain::split;

/// The shares of a batch that runs.
#[derive(Debug)]
pub(super) struct Shares {
    begun: Instant,
    /// What has been split, from the beginning on.
    settled: Duration,
    members: Vec<Member>,
}

#[derive(Clone, Copy, Debug)]
struct Member {
    time: Duration,
    is_there: bool,
}

impl Shares {
    /// The run of so many begins.
    pub(super) fn begin(members: usize) -> Self {
        let member = Member { time: Duration::ZERO, is_there: true };
        Self { begun: Instant::now(), settled: Duration::ZERO, members: vec![member; members] }
    }

    /// What one who is there has had until now.
    pub(super) fn of(&self, place: usize) -> Duration {
        let since = self.begun.elapsed().saturating_sub(self.settled);
        self.members[place].time + since / self.there()
    }

    /// One of them is there no more: from now on the time is the others'. The last one keeps the device to the end.
    pub(super) fn leave(&mut self, place: usize) {
        if self.there() > 1 {
            self.settle(self.begun.elapsed());
            self.members[place].is_there = false;
        }
    }

    /// The run is over: each one's share, and their sum, which is all of it in whole microseconds.
    pub(super) fn end(mut self) -> (Vec<Duration>, Duration) {
        self.settle(self.begun.elapsed());
        (self.members.iter().map(|member| member.time).collect(), self.settled)
    }

    fn there(&self) -> u32 {
        self.members.iter().filter(|member| member.is_there).count() as u32
    }

    /// Splits what has passed since it was last split.
    fn settle(&mut self, passed: Duration) {
        // What is left of a microsecond is split with the next.
        let passed = Duration::from_micros(u64::try_from(passed.as_micros()).unwrap_or(u64::MAX));
        let since = passed.saturating_sub(self.settled);
        self.settled += since;
        let shares = split(since, self.there() as usize);
        self.members.iter_mut().filter(|member| member.is_there).zip(shares).for_each(|(member, share)| {
            member.time += share;
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_is_evenly_that_of_those_who_are_there() {
        let mut shares = Shares::begin(3);
        shares.settle(Duration::from_micros(10));
        shares.members[1].is_there = false;
        shares.settle(Duration::from_micros(15));
        let micros: Vec<u128> = shares.members.iter().map(|member| member.time.as_micros()).collect();
        assert_eq!(micros, [4 + 3, 3, 3 + 2]);
        assert_eq!(micros.iter().sum::<u128>(), 15);
    }

    #[test]
    fn whoever_is_left_alone_has_the_device_to_the_end() {
        let mut shares = Shares::begin(2);
        shares.leave(0);
        shares.leave(1);
        assert!(!shares.members[0].is_there && shares.members[1].is_there);
        let (times, whole) = shares.end();
        assert_eq!(times.iter().sum::<Duration>(), whole);
    }
}
