//! What is guessed from how long runs have taken: the next one, and the wait until a worker begins with it.

use std::time::Duration;

/// From how many runs on a median says something.
const ENOUGH: usize = 3;

/// The median of how long runs took, once there are a few.
pub fn median(times: impl Iterator<Item = Duration>) -> Option<Duration> {
    let mut times: Vec<Duration> = times.collect();
    times.sort_unstable();
    (times.len() >= ENOUGH).then(|| times[times.len() / 2])
}

/// How long until a worker begins with a prediction that has so many ahead of it: the whole rounds that the workers which
/// are ready have before. With none ready, as if there were one.
pub fn queue_wait(ahead: u64, workers: u64, run: Duration) -> Duration {
    run.saturating_mul(u32::try_from(ahead / workers.max(1)).unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    const RUN: Duration = Duration::from_secs(2);

    #[test]
    fn a_few_runs_have_a_median_and_fewer_have_none() {
        let of = |seconds: &[u64]| median(seconds.iter().map(|seconds| Duration::from_secs(*seconds)));
        assert_eq!(of(&[1, 9]), None);
        assert_eq!(of(&[9, 1, 2]), Some(RUN));
    }

    #[test]
    fn the_wait_is_in_whole_rounds_of_all_workers() {
        for (ahead, workers, rounds) in [(0, 0, 0), (3, 0, 3), (0, 2, 0), (1, 2, 0), (2, 2, 1), (5, 2, 2)] {
            assert_eq!(queue_wait(ahead, workers, RUN), RUN * rounds, "{ahead} ahead, {workers} workers");
        }
        assert_eq!(queue_wait(u64::MAX, 1, Duration::MAX), Duration::MAX);
    }
}
