//! What is believed for a while, so that not every request asks the database for it.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

/// Bounds each cache, against floods of made-up keys.
const CACHE_ENTRIES: usize = 10_000;

/// Values believed for a while.
#[derive(Debug)]
pub(super) struct Cache<K, V> {
    lifetime: Duration,
    entries: Mutex<HashMap<K, (Instant, V)>>,
}

impl<K: std::hash::Hash + Eq, V: Clone> Cache<K, V> {
    pub(super) fn new(lifetime: Duration) -> Self {
        Self { lifetime, entries: Mutex::default() }
    }

    pub(super) fn get<Q: std::hash::Hash + Eq + ?Sized>(&self, key: &Q) -> Option<V>
    where
        K: std::borrow::Borrow<Q>,
    {
        let entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        entries.get(key).filter(|(since, _)| since.elapsed() < self.lifetime).map(|(_, value)| value.clone())
    }

    /// Believes nothing any more.
    pub(super) fn forget(&self) {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    pub(super) fn put(&self, key: K, value: V) {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        if entries.len() >= CACHE_ENTRIES {
            entries.retain(|_, (since, _)| since.elapsed() < self.lifetime);
        }
        // Full of live entries: do without the cache rather than grow.
        if entries.len() < CACHE_ENTRIES {
            entries.insert(key, (Instant::now(), value));
        }
    }
}
