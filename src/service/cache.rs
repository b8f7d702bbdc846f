//! What is believed for a while, so that not every request asks the database for it.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

/// Bounds each cache.
const CACHE_ENTRIES: usize = 10_000;

/// Values believed for a while.
#[derive(Debug)]
pub(super) struct Cache<K, V> {
    lifetime: Duration,
    entries: Mutex<Entries<K, V>>,
}

#[derive(Debug)]
struct Entries<K, V> {
    map: HashMap<K, (Instant, V)>,
    /// When what is no longer believed was last looked for.
    tidied: Option<Instant>,
}

impl<K: std::hash::Hash + Eq, V: Clone> Cache<K, V> {
    pub(super) fn new(lifetime: Duration) -> Self {
        Self { lifetime, entries: Mutex::new(Entries { map: HashMap::new(), tidied: None }) }
    }

    pub(super) fn get<Q: std::hash::Hash + Eq + ?Sized>(&self, key: &Q) -> Option<V>
    where
        K: std::borrow::Borrow<Q>,
    {
        let entries = self.lock();
        entries.map.get(key).filter(|(since, _)| since.elapsed() < self.lifetime).map(|(_, value)| value.clone())
    }

    /// Believes nothing any more.
    pub(super) fn forget(&self) {
        self.lock().map.clear();
    }

    pub(super) fn put(&self, key: K, value: V) {
        let mut entries = self.lock();
        // Not each time: whoever fills it with entries that live would have all of them looked at for each more.
        let was_tidied = entries.tidied.is_some_and(|tidied| tidied.elapsed() < self.lifetime / 4);
        if entries.map.len() >= CACHE_ENTRIES && !was_tidied {
            entries.map.retain(|_, (since, _)| since.elapsed() < self.lifetime);
            entries.tidied = Some(Instant::now());
        }
        // Full of live entries: do without the cache rather than grow.
        if entries.map.len() < CACHE_ENTRIES {
            entries.map.insert(key, (Instant::now(), value));
        }
    }

    fn lock(&self) -> MutexGuard<'_, Entries<K, V>> {
        // Nothing under the lock can leave it half changed.
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
