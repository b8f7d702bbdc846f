//! Where the program's memory comes from.
//!
//! A picture on the CPU takes thousands of short-lived buffers of up to hundreds of megabytes. The system's allocator
//! gives each back and has the kernel clear it again for the next; jemalloc keeps them for ten seconds. In pages of two
//! megabytes matrix products are faster, since their operands are read at many places at once (`benches/README.md` has the
//! figures).

#[cfg(target_os = "linux")]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// What jemalloc reads when it starts: large pages where the system allows them, no exception for large buffers, and a
/// thread that returns what nobody used for a while.
#[cfg(target_os = "linux")]
#[expect(unsafe_code, reason = "the name under which jemalloc looks for its options")]
#[unsafe(export_name = "_rjem_malloc_conf")]
#[used]
static OPTIONS: &std::ffi::CStr = c"thp:always,oversize_threshold:0,background_thread:true";

/// Keeps this process to pages of the usual size. A server without workers multiplies nothing, and where ten thousand
/// clients wait most of their buffers are empty: in large pages those would be memory all the same. Where the kernel does
/// not know how, it stays as it is.
pub(crate) fn keep_to_small_pages() {
    #[cfg(target_os = "linux")]
    let _ = nix::sys::prctl::set_thp_disable(true);
}
