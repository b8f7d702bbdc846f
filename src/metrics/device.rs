//! How long a device works: exact at every moment, also in the middle of a run.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::{Duration, Instant},
};

/// How far back the busy ratio looks, about.
const WINDOW: Duration = Duration::from_secs(15);
/// Looks closer together than this share a sample, so that nobody can shorten the window by asking often.
const SAMPLE_EVERY: Duration = Duration::from_secs(1);

/// Every device of the process that is still there.
static DEVICES: Mutex<Vec<Weak<Device>>> = Mutex::new(Vec::new());

/// A device's clock. Its thread says when it works; whoever asks is told how much.
#[derive(Debug)]
pub struct Device {
    name: String,
    clock: Mutex<Clock>,
}

#[derive(Debug)]
struct Clock {
    up: bool,
    /// Bytes in use on a device with a memory of its own.
    memory: Option<u64>,
    /// Runs that are over.
    worked: Duration,
    /// Since when the present one goes on.
    working_since: Option<Instant>,
    /// When it was looked at, and what it had worked by then; the oldest first.
    samples: VecDeque<(Instant, Duration)>,
}

impl Device {
    /// A clock for the device of this name, which is reported until the last `Arc` is dropped.
    pub fn register(name: &str) -> Arc<Self> {
        let clock = Clock {
            up: false,
            memory: None,
            worked: Duration::ZERO,
            working_since: None,
            samples: VecDeque::from([(Instant::now(), Duration::ZERO)]),
        };
        let device = Arc::new(Self { name: name.to_owned(), clock: Mutex::new(clock) });
        let mut devices = DEVICES.lock().unwrap_or_else(PoisonError::into_inner);
        devices.retain(|device| device.strong_count() > 0);
        devices.push(Arc::downgrade(&device));
        device
    }

    /// The worker takes predictions from now on, or no more.
    pub fn set_up(&self, up: bool) {
        self.clock().up = up;
    }

    /// So many bytes of the device's own memory are in use; `None` if it has none.
    pub fn set_memory(&self, bytes: Option<u64>) {
        self.clock().memory = bytes;
    }

    /// A run begins.
    pub fn begin(&self) {
        self.clock().working_since = Some(Instant::now());
    }

    /// The run is over.
    pub fn end(&self) {
        let mut clock = self.clock();
        if let Some(begun) = clock.working_since.take() {
            clock.worked += begun.elapsed();
        }
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn is_up(&self) -> bool {
        self.clock().up
    }

    pub(super) fn memory(&self) -> Option<u64> {
        self.clock().memory
    }

    pub(super) fn busy(&self) -> Duration {
        self.clock().busy_at(Instant::now())
    }

    pub(super) fn busy_ratio(&self) -> f64 {
        self.clock().ratio_at(Instant::now())
    }

    fn clock(&self) -> MutexGuard<'_, Clock> {
        // Nothing under the lock can leave it half changed.
        self.clock.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Clock {
    fn busy_at(&self, now: Instant) -> Duration {
        self.worked + self.working_since.map_or(Duration::ZERO, |begun| now.saturating_duration_since(begun))
    }

    fn ratio_at(&mut self, now: Instant) -> f64 {
        let busy = self.busy_at(now);
        // The first that is kept is the youngest that is as old as the window.
        while self.samples.get(1).is_some_and(|(at, _)| now.saturating_duration_since(*at) >= WINDOW) {
            self.samples.pop_front();
        }
        let Some(&(from, busy_then)) = self.samples.front() else { return 0.0 };
        if self.samples.back().is_some_and(|(at, _)| now.saturating_duration_since(*at) >= SAMPLE_EVERY) {
            self.samples.push_back((now, busy));
        }
        let window = now.saturating_duration_since(from).as_secs_f64();
        if window > 0.0 { (busy.saturating_sub(busy_then).as_secs_f64() / window).min(1.0) } else { 0.0 }
    }
}

/// The devices of this process.
pub(super) fn all() -> Vec<Arc<Device>> {
    DEVICES.lock().unwrap_or_else(PoisonError::into_inner).iter().filter_map(Weak::upgrade).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_is_busy_for_as_long_as_it_worked_in_about_the_last_window() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut clock = Clock {
            up: true,
            memory: None,
            worked: Duration::ZERO,
            working_since: Some(at(5)),
            samples: VecDeque::from([(start, Duration::ZERO)]),
        };
        assert_eq!(clock.ratio_at(at(10)), 0.5, "five of ten seconds, and the run goes on");
        (clock.worked, clock.working_since) = (Duration::from_secs(5), None);
        assert_eq!(clock.ratio_at(at(25)), 0.0, "idle since the look fifteen seconds ago");
        assert_eq!(clock.busy_at(at(30)), Duration::from_secs(5));
    }

    #[test]
    fn asking_often_does_not_shorten_the_window() {
        let start = Instant::now();
        let mut clock = Clock {
            up: true,
            memory: None,
            worked: Duration::ZERO,
            working_since: Some(start),
            samples: VecDeque::from([(start, Duration::ZERO)]),
        };
        for milliseconds in 1..5000 {
            assert_eq!(clock.ratio_at(start + Duration::from_millis(milliseconds)), 1.0);
        }
        assert!(clock.samples.len() <= 6, "{}", clock.samples.len());
    }
}
