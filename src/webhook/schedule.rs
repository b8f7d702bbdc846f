//! When a delivery that failed is tried again.

use std::time::Duration;

/// The longest a receiver may ask to be left alone.
const LONGEST_REQUEST: Duration = Duration::from_secs(24 * 60 * 60);

/// The pauses between attempts. After the last one a delivery is given up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schedule(Vec<Duration>);

impl Default for Schedule {
    /// Quickly, for a receiver that is restarted, then for most of a day, for one that must be repaired.
    fn default() -> Self {
        let (minute, hour) = (60, 60 * 60);
        Self::new([5, 30, 2 * minute, 10 * minute, hour, 6 * hour, 12 * hour].map(Duration::from_secs).to_vec())
    }
}

impl Schedule {
    /// These pauses, each up to a fifth shorter or longer when it comes to it.
    pub const fn new(pauses: Vec<Duration>) -> Self {
        Self(pauses)
    }

    /// The pause after so many failures, at least as long as the receiver asked for; none when it is given up. `chance`
    /// is between 0 and 1, so that many deliveries that failed together do not come back together.
    pub(super) fn pause(&self, failures: u32, requested: Option<Duration>, chance: f64) -> Option<Duration> {
        let pause = self.0.get(usize::try_from(failures).ok()?.checked_sub(1)?)?;
        let pause = pause.mul_f64(0.8 + 0.4 * chance);
        Some(requested.map_or(pause, |requested| pause.max(requested.min(LONGEST_REQUEST))))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_failure_has_a_longer_pause_and_the_last_one_none() {
        let schedule = Schedule::default();
        let pauses: Vec<u64> =
            (1..=8).map_while(|failures| schedule.pause(failures, None, 0.5)).map(|pause| pause.as_secs()).collect();
        assert_eq!(pauses, [5, 30, 120, 600, 3600, 21_600, 43_200]);
        assert_eq!(schedule.pause(8, Some(Duration::from_secs(5)), 0.5), None);
        assert_eq!(Schedule::new(Vec::new()).pause(1, None, 0.5), None);
    }

    #[test]
    fn a_receiver_may_ask_for_more_time_and_not_for_less() {
        let schedule = Schedule::default();
        let pause =
            |requested| schedule.pause(1, Some(Duration::from_secs(requested)), 0.5).expect("a pause").as_secs();
        assert_eq!((pause(1), pause(77), pause(u64::MAX)), (5, 77, 86_400));
    }

    proptest! {
        #[test]
        fn chance_moves_a_pause_by_a_fifth_at_most(failures in 1u32..=7, chance in 0.0..=1.0f64) {
            let schedule = Schedule::default();
            let (even, moved) = (schedule.pause(failures, None, 0.5), schedule.pause(failures, None, chance));
            let (even, moved) = (even.expect("a pause"), moved.expect("a pause"));
            prop_assert!(moved >= even.mul_f64(0.799) && moved <= even.mul_f64(1.201));
        }
    }
}
