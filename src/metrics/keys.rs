//! Keys as labels. There is no end to keys, and there must be one to series.

use std::{
    collections::BTreeSet,
    sync::{Mutex, PoisonError},
};

/// As many keys have a series of their own in a process; the rest share one.
const MOST: usize = 200;

static LABELED: Mutex<BTreeSet<i64>> = Mutex::new(BTreeSet::new());

/// The label of the key of this id: its number, which is `key_id` in the log, or `other`.
pub(super) fn label(key_id: i64) -> String {
    let mut labeled = LABELED.lock().unwrap_or_else(PoisonError::into_inner);
    label_among(&mut labeled, key_id)
}

fn label_among(labeled: &mut BTreeSet<i64>, key_id: i64) -> String {
    if labeled.len() < MOST {
        labeled.insert(key_id);
    }
    if labeled.contains(&key_id) { key_id.to_string() } else { "other".to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_keys_have_a_series_each_and_all_others_one_together() {
        let mut labeled = BTreeSet::new();
        let labels: BTreeSet<String> = (0..1000).map(|key_id| label_among(&mut labeled, key_id)).collect();
        assert_eq!(labels.len(), MOST + 1);
        assert_eq!(label_among(&mut labeled, 7), "7");
        assert_eq!(label_among(&mut labeled, 999), "other");
    }
}
