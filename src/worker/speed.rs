//! How fast a worker's device is: what a picture has taken it lately.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

/// The weight of the latest run in the mean, one in so many.
const REMEMBERED: u64 = 8;

/// The time of a picture, microseconds; 0 before the first.
#[derive(Debug, Default)]
pub(super) struct Speed(AtomicU64);

impl Speed {
    /// A run that succeeded took the device so long for so many pictures. Returns whether it was the first.
    pub(super) fn made(&self, device_time: Duration, pictures: u32) -> bool {
        let took = u64::try_from(device_time.as_micros()).unwrap_or(u64::MAX) / u64::from(pictures.max(1));
        let before = self.0.load(Ordering::Relaxed);
        let mean = match before {
            0 => took,
            mean => (mean.saturating_mul(REMEMBERED - 1)).saturating_add(took) / REMEMBERED,
        };
        // Runs of a device end one after the other, so nobody else writes.
        self.0.store(mean.max(1), Ordering::Relaxed);
        before == 0
    }

    /// How long a picture takes, if one was made.
    pub(super) fn picture(&self) -> Option<Duration> {
        Some(self.0.load(Ordering::Relaxed)).filter(|mean| *mean > 0).map(Duration::from_micros)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mean_follows_the_latest_pictures() {
        let speed = Speed::default();
        assert_eq!(speed.picture(), None);
        assert!(speed.made(Duration::from_millis(400), 4));
        assert_eq!(speed.picture(), Some(Duration::from_millis(100)));
        assert!(!speed.made(Duration::from_millis(180), 1));
        assert_eq!(speed.picture(), Some(Duration::from_millis(110)));
        for _ in 0..100 {
            speed.made(Duration::from_millis(50), 1);
        }
        assert!(speed.picture().is_some_and(|mean| mean < Duration::from_millis(51)), "{speed:?}");
    }
}
