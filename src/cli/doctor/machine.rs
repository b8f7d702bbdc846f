//! The machine itself: processor, limits, disk.

use std::{fs, io, path::Path};

use fourstep::config::Config;
use nix::{
    sys::{
        resource::{Resource, getrlimit},
        statvfs::statvfs,
    },
    unistd::{AccessFlags, access},
};

use super::Finding;

/// Files a process opens for itself, beside one for each client: database, weights, outputs under way.
const OWN_FILES: u64 = 200;
/// A private database is about 50 MB when it is new, and grows with every prediction until retention catches up.
const LEAST_FREE: u64 = 1 << 30;

pub(super) fn processor() -> Finding {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let cores = if cores == 1 { "1 core".to_owned() } else { format!("{cores} cores") };
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::is_x86_feature_detected as has;
        if has!("avx512f") {
            return Finding::good("processor", format!("{cores} with AVX-512"));
        }
        if has!("avx2") && has!("fma") {
            return Finding::good("processor", format!("{cores} with AVX2"));
        }
        Finding::poor(
            "processor",
            format!("{cores} without AVX2"),
            "The model runs many times slower than on a newer processor. A virtual machine may hide what the processor can do: expose its features to the guest.",
        )
    }
    #[cfg(not(target_arch = "x86_64"))]
    Finding::good("processor", cores)
}

pub(super) fn open_files(config: &Config) -> Finding {
    let subject = "open files";
    let wanted = config.server.max_connections as u64 + OWN_FILES;
    match getrlimit(Resource::RLIMIT_NOFILE) {
        // The server raises the soft limit itself.
        Ok((_, most)) if most >= wanted => Finding::good(subject, format!("up to {most}")),
        Ok((_, most)) => Finding::poor(
            subject,
            format!("up to {most}, which is not enough for {} connections", config.server.max_connections),
            format!(
                "Raise the hard limit (ulimit -Hn {wanted}, or LimitNOFILE={wanted} in a systemd unit), or lower server.max_connections."
            ),
        ),
        Err(error) => Finding::poor(subject, format!("the limit cannot be read: {error}"), ""),
    }
}

pub(super) fn data_folder(config: &Config) -> Finding {
    let subject = "data";
    let dir = &config.data.dir;
    let shown = dir.display();
    let there = nearest_existing(dir);
    let fix = "Choose another folder with --data-dir, or make this one yours.";
    if !there.is_dir() {
        return Finding::bad(subject, format!("{} is not a folder", there.display()), fix);
    }
    match access(there, AccessFlags::R_OK | AccessFlags::W_OK | AccessFlags::X_OK) {
        Ok(()) if there == dir => Finding::good(subject, format!("{shown} is writable")),
        Ok(()) => Finding::good(subject, format!("{shown} will be made at the first start")),
        Err(error) => Finding::bad(subject, format!("{} cannot be written to: {}", there.display(), error.desc()), fix),
    }
}

pub(super) fn disk_space(config: &Config) -> Finding {
    let subject = "disk";
    let dir = nearest_existing(&config.data.dir);
    match free_bytes(dir) {
        Ok(free) => {
            let detail = format!("{:.1} GiB free at {}", free as f64 / f64::from(1 << 30), dir.display());
            if free >= LEAST_FREE {
                Finding::good(subject, detail)
            } else {
                Finding::bad(subject, detail, "Free at least 1 GiB, or choose another folder with --data-dir.")
            }
        }
        Err(error) => Finding::poor(subject, format!("free space cannot be read: {error}"), ""),
    }
}

fn free_bytes(dir: &Path) -> io::Result<u64> {
    let disk = statvfs(dir)?;
    // Narrower types on some systems.
    Ok(disk.blocks_available() as u64 * disk.fragment_size() as u64)
}

/// The folder itself, or the one in which it would be made.
fn nearest_existing(dir: &Path) -> &Path {
    dir.ancestors().find(|folder| fs::symlink_metadata(folder).is_ok()).unwrap_or(dir)
}
