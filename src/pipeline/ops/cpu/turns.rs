//! Work in pieces, on all cores.

use std::sync::atomic::{AtomicUsize, Ordering};

use rayon::prelude::*;

/// Does the pieces `0..count`: each core takes the next one until none is left. What `memory` makes is a core's own,
/// for all of its pieces; rayon's `for_each_init` would make it anew whenever it divides what is left.
pub(super) fn in_turns<M>(count: usize, memory: impl Fn() -> M + Sync, piece: impl Fn(&mut M, usize) + Sync) {
    let next = AtomicUsize::new(0);
    (0..rayon::current_num_threads()).into_par_iter().with_max_len(1).for_each(|_| {
        let mut memory = memory();
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= count {
                return;
            }
            piece(&mut memory, number);
        }
    });
}
