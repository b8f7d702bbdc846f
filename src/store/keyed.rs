//! Things by what they are about, for as long as somebody is at them.

use std::{
    collections::{HashMap, hash_map::Entry},
    hash::Hash,
    ops::Deref,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// Something of type `V` for each `K` that somebody is at. Nothing is kept of one that nobody is at. Cheap to clone.
#[derive(Debug)]
pub(super) struct Keyed<K, V> {
    kept: Arc<Mutex<HashMap<K, Kept<V>>>>,
}

#[derive(Debug)]
struct Kept<V> {
    by: usize,
    value: Arc<V>,
}

impl<K, V> Clone for Keyed<K, V> {
    fn clone(&self) -> Self {
        Self { kept: Arc::clone(&self.kept) }
    }
}

impl<K, V> Default for Keyed<K, V> {
    fn default() -> Self {
        Self { kept: Arc::default() }
    }
}

impl<K: Copy + Eq + Hash, V: Default> Keyed<K, V> {
    /// A place at what is about this, with those who are at it already.
    pub(super) fn place(&self, about: K) -> Place<'_, K, V> {
        let mut kept = self.kept();
        let this = kept.entry(about).or_insert_with(|| Kept { by: 0, value: Arc::default() });
        this.by += 1;
        Place { all: self, about, value: Arc::clone(&this.value) }
    }
}

impl<K, V> Keyed<K, V> {
    fn kept(&self) -> MutexGuard<'_, HashMap<K, Kept<V>>> {
        // Nothing under the lock can leave the map half changed.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A place among those who are at the same, given up on drop.
pub(super) struct Place<'a, K: Copy + Eq + Hash, V> {
    all: &'a Keyed<K, V>,
    about: K,
    value: Arc<V>,
}

impl<K: Copy + Eq + Hash, V> Deref for Place<'_, K, V> {
    type Target = V;

    fn deref(&self) -> &V {
        &self.value
    }
}

impl<K: Copy + Eq + Hash, V> Drop for Place<'_, K, V> {
    fn drop(&mut self) {
        if let Entry::Occupied(mut this) = self.all.kept().entry(self.about) {
            this.get_mut().by -= 1;
            if this.get().by == 0 {
                this.remove();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

    use super::*;

    #[test]
    fn those_at_the_same_share_it_and_the_last_to_leave_takes_it_along() {
        let all = Keyed::<u8, AtomicUsize>::default();
        let (first, second, other) = (all.place(1), all.place(1), all.place(2));
        first.store(7, Relaxed);
        assert_eq!((second.load(Relaxed), other.load(Relaxed)), (7, 0));
        assert_eq!(all.kept().len(), 2);
        drop((first, other));
        assert_eq!(all.kept().len(), 1);
        drop(second);
        assert_eq!(all.kept().len(), 0);
        assert_eq!(all.place(1).load(Relaxed), 0);
    }
}
