//! A value per key, kept while a guard for that key is alive.

use std::{
    collections::{HashMap, hash_map::Entry},
    hash::Hash,
    ops::Deref,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// A `V` for each `K` that has a guard. Cheap to clone.
#[derive(Debug)]
pub(super) struct PerKey<K, V> {
    kept: Arc<Mutex<HashMap<K, Kept<V>>>>,
}

#[derive(Debug)]
struct Kept<V> {
    guards: usize,
    value: Arc<V>,
}

impl<K, V> Clone for PerKey<K, V> {
    fn clone(&self) -> Self {
        Self { kept: Arc::clone(&self.kept) }
    }
}

impl<K, V> Default for PerKey<K, V> {
    fn default() -> Self {
        Self { kept: Arc::default() }
    }
}

impl<K: Clone + Eq + Hash, V: Default> PerKey<K, V> {
    /// A guard of this key's value, which is shared with its other guards, or new if there are none.
    pub(super) fn guard(&self, key: K) -> Guard<'_, K, V> {
        let mut kept = self.kept();
        let this = kept.entry(key.clone()).or_insert_with(|| Kept { guards: 0, value: Arc::default() });
        this.guards += 1;
        Guard { all: self, key, value: Arc::clone(&this.value) }
    }

    /// How many guards this key's value has.
    pub(super) fn count(&self, key: &K) -> usize {
        self.kept().get(key).map_or(0, |this| this.guards)
    }
}

impl<K, V> PerKey<K, V> {
    fn kept(&self) -> MutexGuard<'_, HashMap<K, Kept<V>>> {
        // Nothing under the lock can leave the map half changed.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Keeps a key's value until it is dropped.
pub(super) struct Guard<'a, K: Clone + Eq + Hash, V> {
    all: &'a PerKey<K, V>,
    key: K,
    value: Arc<V>,
}

impl<K: Clone + Eq + Hash, V> Deref for Guard<'_, K, V> {
    type Target = V;

    fn deref(&self) -> &V {
        &self.value
    }
}

impl<K: Clone + Eq + Hash, V> Drop for Guard<'_, K, V> {
    fn drop(&mut self) {
        if let Entry::Occupied(mut this) = self.all.kept().entry(self.key.clone()) {
            this.get_mut().guards -= 1;
            if this.get().guards == 0 {
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
    fn the_guards_of_a_key_share_its_value_and_the_last_to_go_takes_it_along() {
        let all = PerKey::<u8, AtomicUsize>::default();
        let (first, second, other) = (all.guard(1), all.guard(1), all.guard(2));
        first.store(7, Relaxed);
        assert_eq!((second.load(Relaxed), other.load(Relaxed)), (7, 0));
        assert_eq!(all.kept().len(), 2);
        assert_eq!([1, 2, 3].map(|about| all.count(&about)), [2, 1, 0]);
        drop((first, other));
        assert_eq!(all.kept().len(), 1);
        drop(second);
        assert_eq!(all.kept().len(), 0);
        assert_eq!(all.guard(1).load(Relaxed), 0);
    }
}
