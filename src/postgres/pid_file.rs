//! `postmaster.pid`: what a running Postgres says of itself, and whether the process it names is still that Postgres.
//!
//! Process ids are used again, above all after a reboot or in a new container with an old volume, so a living process
//! proves nothing. Nothing here trusts the number alone: a stranger must never be signaled, and a Postgres that does
//! run on the folder must never get a second one beside it.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::errno::Errno;
use nix::sys::signal;
use nix::unistd::Pid;

use super::{Error, folder};

const NAME: &str = "postmaster.pid";

/// The contents of a `postmaster.pid`.
#[derive(Debug)]
pub(super) struct PidFile {
    /// The process that wrote it.
    pub(super) pid: Pid,
    /// Where its socket is.
    pub(super) socket_folder: PathBuf,
    /// Whether it takes connections.
    pub(super) ready: bool,
}

/// Who the process named in a `postmaster.pid` is today.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Holder {
    /// It is gone.
    Nobody,
    /// A Postgres that runs on this cluster.
    Postmaster,
    /// Something else that has been given the same number.
    Unrelated,
    /// It could not be found out.
    Unclear,
}

impl PidFile {
    /// Reads the file of a cluster; nothing when there is none, or when it is only being written.
    pub(super) fn read(cluster: &Path) -> Result<Option<Self>, Error> {
        let path = cluster.join(NAME);
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Error::io("read", &path)(error)),
        };
        Ok(Self::parse(&text))
    }

    /// The lines are: process id, data directory, start time, port, socket folder, listen address, shared memory,
    /// status.
    fn parse(text: &str) -> Option<Self> {
        let mut lines = text.lines();
        // Negative when a single-user Postgres wrote it.
        let pid = lines.next()?.trim().parse::<i32>().ok()?.checked_abs().filter(|&pid| pid > 0)?;
        let socket_folder = PathBuf::from(lines.nth(3).unwrap_or_default());
        let ready = lines.nth(2).is_some_and(|status| status.trim() == "ready");
        Some(Self { pid: Pid::from_raw(pid), socket_folder, ready })
    }

    /// Finds out who the process is today.
    pub(super) fn holder(&self, cluster: &Path) -> Holder {
        if is_gone(self.pid) {
            return Holder::Nobody;
        }
        match command_line(self.pid) {
            Some(command_line) => recognize(&command_line, cluster),
            None => Holder::Unclear,
        }
    }
}

/// Makes Postgres regard the file as stale whatever the process it names: a stranger, or a zombie, which Postgres
/// takes for alive. Postgres ignores a file that names its own parent, which is us. Removing the file would also
/// remove the key to its second safeguard, the check that no process of an earlier server is still attached to the
/// shared memory.
pub(super) fn disown(cluster: &Path) -> Result<(), Error> {
    let path = cluster.join(NAME);
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        // Postgres removes it when it stops in order.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(Error::io("read", &path)(error)),
    };
    let rest = text.split_once('\n').map_or("", |(_, rest)| rest);
    folder::in_place(File::options().write(true).truncate(true))
        .open(&path)
        .and_then(|mut file| file.write_all(format!("{}\n{rest}", std::process::id()).as_bytes()))
        .map_err(Error::io("write", &path))
}

/// Whether a process has ended. A zombie has: it only waits for a parent that may never look.
pub(super) fn is_gone(pid: Pid) -> bool {
    match signal::kill(pid, None) {
        Err(Errno::ESRCH) => true,
        _ => fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| is_zombie(&stat)),
    }
}

/// The state is the first word after the name, which is in parentheses and may itself contain any character.
fn is_zombie(stat: &str) -> bool {
    stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('Z'))
}

/// The command line of a process, words separated by spaces.
fn command_line(pid: Pid) -> Option<String> {
    if let Ok(bytes) = fs::read(format!("/proc/{pid}/cmdline")) {
        return Some(String::from_utf8_lossy(&bytes).replace('\0', " ").trim_end().to_owned());
    }
    let output = Command::new("ps").args(["-o", "args=", "-p", &pid.to_string()]).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim_end().to_owned())
}

fn recognize(command_line: &str, cluster: &Path) -> Holder {
    let is_postgres = command_line.contains("postgres") || command_line.contains("postmaster");
    // Its children call themselves `postgres: name: what they do`; none of them ever writes the file.
    if !is_postgres || command_line.starts_with("postgres: ") {
        return Holder::Unrelated;
    }
    // A server is always started by us with the full path.
    let Some((_, folder)) = command_line.split_once(" -D ") else { return Holder::Unclear };
    let ours = cluster.to_string_lossy();
    match folder.strip_prefix(&*ours) {
        Some(rest) if rest.is_empty() || rest.starts_with(' ') => Holder::Postmaster,
        _ if folder.starts_with('/') && !leads_to(folder, cluster) => Holder::Unrelated,
        _ => Holder::Unclear,
    }
}

/// Whether the first word is another path to the same folder.
fn leads_to(folder: &str, cluster: &Path) -> bool {
    let folder = folder.split(' ').next().unwrap_or_default();
    Path::new(folder).canonicalize().is_ok_and(|folder| folder == cluster)
}

#[cfg(test)]
mod tests {
    use super::*;

    const OURS: &str = "/srv/data/postgres/cluster";

    fn recognized(command_line: &str) -> Holder {
        recognize(command_line, Path::new(OURS))
    }

    #[test]
    fn a_postmaster_is_ours_only_on_exactly_our_folder() {
        assert_eq!(
            recognized("/usr/lib/postgresql/15/bin/postgres -D /srv/data/postgres/cluster -c fsync=on"),
            Holder::Postmaster
        );
        assert_eq!(recognized("postgres -D /srv/data/postgres/cluster"), Holder::Postmaster);
        assert_eq!(recognized("postgres -D /srv/data/postgres/cluster2"), Holder::Unrelated);
        assert_eq!(recognized("/usr/bin/postgres -D /var/lib/postgresql/15/main -c config_file=x"), Holder::Unrelated);
    }

    #[test]
    fn a_stranger_with_the_same_number_is_unrelated() {
        assert_eq!(recognized("/usr/sbin/sshd -D /srv/data/postgres/other"), Holder::Unrelated);
        assert_eq!(recognized("sleep 60"), Holder::Unrelated);
        assert_eq!(recognized("postgres: 15/main: checkpointer "), Holder::Unrelated);
    }

    #[test]
    fn a_postgres_that_does_not_say_where_it_runs_is_unclear() {
        assert_eq!(recognized("postgres"), Holder::Unclear);
        assert_eq!(recognized("postgres -D ."), Holder::Unclear);
    }

    #[test]
    fn a_pid_file_is_ready_when_its_last_line_says_so() {
        let text =
            "4711\n/srv/data/postgres/cluster\n1763900000\n5432\n/srv/data/postgres/socket\n\n  5234 7\nready   \n";
        let pid_file = PidFile::parse(text).expect("the file is whole");
        assert_eq!(pid_file.pid.as_raw(), 4711);
        assert_eq!(pid_file.socket_folder, Path::new("/srv/data/postgres/socket"));
        assert!(pid_file.ready);
        assert!(!PidFile::parse(&text.replace("ready", "starting")).expect("the file is whole").ready);
        assert!(!PidFile::parse("4711\n/srv").expect("the first line is there").ready);
        assert!(PidFile::parse("").is_none());
        assert!(PidFile::parse("0\n").is_none(), "signaling process 0 would signal ourselves");
    }

    #[test]
    fn a_zombie_is_told_by_its_state_whatever_its_name() {
        assert!(is_zombie("12 (postgres) Z 1 12 12"));
        assert!(!is_zombie("12 (a) Z (b) S 1 12 12"));
    }
}
