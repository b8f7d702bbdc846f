//! Where the program's memory comes from.
//!
//! A picture on the CPU takes thousands of short-lived buffers of up to hundreds of megabytes. The system's allocator
//! gives each back and has the kernel clear it again for the next; jemalloc keeps them for ten seconds, and for minutes
//! where pictures are drawn. In pages of two megabytes matrix products are faster, since their operands are read at
//! many places at once (`benches/README.md` has the figures).

#[cfg(target_os = "linux")]
use std::{
    ffi::{CStr, CString},
    ptr,
};

#[cfg(target_os = "linux")]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// What jemalloc reads when it starts: large pages where the system allows them, no exception for large buffers, and a
/// thread that returns what nobody used for a while.
#[cfg(target_os = "linux")]
#[expect(unsafe_code, reason = "the name under which jemalloc looks for its options")]
#[unsafe(export_name = "_rjem_malloc_conf")]
#[used]
static OPTIONS: &CStr = c"thp:always,oversize_threshold:0,background_thread:true";

/// Has memory that was given back stay at hand for five minutes, where pictures are drawn and memory is not to be
/// saved: a call of the UNet may take half a minute, and the largest buffers are needed once a picture.
pub(crate) fn keep_for_the_next_picture() {
    #[cfg(target_os = "linux")]
    {
        const DECAY_MS: isize = 300_000;
        // What arenas yet to be made begin with.
        set_option("arenas.dirty_decay_ms", DECAY_MS);
        // Those that there are. The first is made before jemalloc has looked at what it shall do with large buffers.
        let arenas = (0..).take_while(|arena| set_option(&format!("arena.{arena}.dirty_decay_ms"), DECAY_MS));
        for arena in arenas {
            set_option(&format!("arena.{arena}.oversize_threshold"), usize::MAX);
        }
    }
}

/// Whether jemalloc took an option's new value, which is of the option's type.
#[cfg(target_os = "linux")]
fn set_option<T>(name: &str, mut value: T) -> bool {
    let Ok(name) = CString::new(name) else { return false };
    // SAFETY: `name` ends with a zero, and jemalloc reads `size` bytes of `value`, or none if its option has another
    // size.
    #[expect(unsafe_code)]
    let refused = unsafe {
        let (value, size) = ((&raw mut value).cast(), size_of::<T>());
        tikv_jemalloc_sys::mallctl(name.as_ptr(), ptr::null_mut(), ptr::null_mut(), value, size)
    };
    refused == 0
}

/// Keeps this process to pages of the usual size. A server without workers multiplies nothing, and where ten thousand
/// clients wait most of their buffers are empty: in large pages those would be memory all the same. Where the kernel
/// does not know how, it stays as it is.
pub(crate) fn keep_to_small_pages() {
    #[cfg(target_os = "linux")]
    let _ = nix::sys::prctl::set_thp_disable(true);
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use nix::sys::resource::{UsageWho, getrusage};

    use super::*;

    /// Pages that this thread has been given.
    fn faults() -> i64 {
        getrusage(UsageWho::RUSAGE_THREAD).expect("always known").minor_page_faults()
    }

    #[test]
    fn a_large_buffer_is_not_cleared_again_for_the_next() {
        // Of the main thread's arena, the one that is different.
        assert!(set_option("thread.arena", 0_u32), "no such option");
        keep_for_the_next_picture();
        let picture = || drop(std::hint::black_box(vec![1_u8; 64 << 20]));
        picture();
        let before = faults();
        picture();
        let faults = faults() - before;
        assert!(faults < 8, "{faults} pages were mapped anew");
    }
}
