//! The latest changes, for those who learn too late what they wanted to hear of.
//!
//! A worker knows which prediction it takes only when it has it. What is said of that prediction until the worker has
//! subscribed would be lost, so the worker marks its place before, and afterwards asks what was said since.

use std::collections::VecDeque;

use crate::domain::PredictionId;

/// How many changes are remembered. Whoever is further behind is told to look.
const REMEMBERED: usize = 256;

/// A place in the course of changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark(u64);

/// The latest changes, in order.
#[derive(Debug, Default)]
pub(super) struct Recent {
    changed: VecDeque<PredictionId>,
    /// How many there have ever been.
    count: u64,
}

impl Recent {
    pub(super) const fn mark(&self) -> Mark {
        Mark(self.count)
    }

    pub(super) fn add(&mut self, id: PredictionId) {
        if self.changed.len() == REMEMBERED {
            self.changed.pop_front();
        }
        self.changed.push_back(id);
        self.count += 1;
    }

    /// Whether a prediction may have changed since.
    pub(super) fn may_have_changed(&self, id: PredictionId, Mark(mark): Mark) -> bool {
        let since = usize::try_from(self.count - mark).unwrap_or(usize::MAX);
        since > self.changed.len() || self.changed.iter().rev().take(since).any(|changed| *changed == id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_remembered_from_its_mark_on_and_no_longer_than_there_is_room() {
        let (ours, other) = (PredictionId::generate(), PredictionId::generate());
        let mut recent = Recent::default();
        let before = recent.mark();
        assert!(!recent.may_have_changed(ours, before));
        recent.add(ours);
        let after = recent.mark();
        recent.add(other);
        assert!(recent.may_have_changed(ours, before) && recent.may_have_changed(other, before));
        assert!(!recent.may_have_changed(ours, after));
        (0..REMEMBERED).for_each(|_| recent.add(other));
        assert!(recent.may_have_changed(ours, after), "nobody knows any more");
    }
}
