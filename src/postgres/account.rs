//! The account Postgres runs under: this process's own, or, when this process is root, one without privileges.
//!
//! Postgres refuses root, and being root is normal in containers and on rented machines. So every program of the
//! cluster is started through [`Account::command`], which drops user, group and supplementary groups. Root makes and
//! writes its own files beside the account's folder, not in it, and never follows a link in doing so.

use std::ffi::OsStr;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::{env, io};

use nix::errno::Errno;
use nix::unistd::{Uid, User};

use super::Error;

/// The account when the server is root and nothing else decides. Packages of Postgres make it. Not `nobody`: what else runs
/// as that could read the database and change it.
const UNPRIVILEGED: &str = "postgres";

/// All that Postgres gets to see of our environment, which may hold secrets: enough to find its libraries.
const KEPT_VARIABLES: [&str; 2] = ["PATH", "LD_LIBRARY_PATH"];

/// Who the programs of the cluster run as.
#[derive(Debug)]
pub(super) struct Account {
    user: User,
    /// Names that may connect: the account itself, and the server when that is another.
    admitted: Vec<String>,
    drops_privileges: bool,
}

impl Account {
    /// Decides: root takes the owner of an existing cluster, else the configured account, else the customary one;
    /// everybody else is themselves.
    pub(super) fn choose(cluster: &Path, owner: Option<Uid>, configured: Option<&str>) -> Result<Self, Error> {
        let own_uid = Uid::effective();
        let own = by_uid(own_uid)?;
        if own_uid.is_root() {
            let user = match owner {
                Some(owner) => existing_owner(cluster, owner)?,
                None => unprivileged(configured)?,
            };
            let own_name = own.map_or_else(|| "root".to_owned(), |own| own.name);
            return Ok(Self { admitted: vec![own_name, user.name.clone()], user, drops_privileges: true });
        }
        let user = own.ok_or(Error::NoName { uid: own_uid.as_raw() })?;
        match owner {
            Some(owner) if owner != own_uid => Err(Error::ForeignOwner {
                cluster: cluster.to_owned(),
                owner: name_of(owner),
                user: user.name,
                fix: "run the server as that account or as root".to_owned(),
            }),
            _ => Ok(Self { admitted: vec![user.name.clone()], user, drops_privileges: false }),
        }
    }

    /// The account's name.
    pub(super) fn name(&self) -> &str {
        &self.user.name
    }

    /// The account's user id.
    pub(super) fn uid(&self) -> Uid {
        self.user.uid
    }

    /// Names of the accounts that may connect to the database.
    pub(super) fn admitted(&self) -> &[String] {
        &self.admitted
    }

    /// A command that runs as this account, out of the terminal's reach: Ctrl-C goes to the foreground process group,
    /// and the database has to outlive the requests that are being finished.
    pub(super) fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command.env_clear().env("LC_ALL", "C");
        for name in KEPT_VARIABLES {
            if let Some(value) = env::var_os(name) {
                command.env(name, value);
            }
        }
        // The folder we stand in may be closed to the account.
        command.current_dir("/").process_group(0).stdin(Stdio::null());
        #[cfg(target_os = "linux")]
        in_pages_of_the_system(&mut command);
        if self.drops_privileges {
            // The standard library also clears the supplementary groups when root names another user.
            command.uid(self.user.uid.as_raw()).gid(self.user.gid.as_raw());
        }
        command
    }

    /// Gives a folder that this process has just made to the account.
    pub(super) fn take_over(&self, folder: &Path) -> Result<(), Error> {
        if !self.drops_privileges {
            return Ok(());
        }
        std::os::unix::fs::lchown(folder, Some(self.user.uid.as_raw()), Some(self.user.gid.as_raw()))
            .map_err(Error::io("change the owner of", folder))
    }

    /// The first folder on the way to `folder` that the account may not enter. The account itself is asked, because
    /// only the kernel knows all the rules (modes, access lists, security modules).
    pub(super) fn blocked_at(&self, folder: &Path) -> Result<Option<PathBuf>, Error> {
        if !self.drops_privileges {
            return Ok(None);
        }
        let mut on_the_way: Vec<&Path> = folder.ancestors().collect();
        on_the_way.reverse();
        // Prints how many of the folders can be entered.
        let count = r#"entered=0; for folder; do cd "$folder" || break; entered=$((entered + 1)); done; echo $entered"#;
        let shell = Path::new("/bin/sh");
        let output = self
            .command(shell)
            .args([OsStr::new("-c"), OsStr::new(count), OsStr::new("sh")])
            .args(&on_the_way)
            .output()
            .map_err(Error::io("run", shell))?;
        let entered: usize = String::from_utf8_lossy(&output.stdout).trim().parse().unwrap_or(0);
        Ok(on_the_way.get(entered).map(|blocked| (*blocked).to_owned()))
    }
}

/// A server without workers keeps to small pages (`keep_to_small_pages`), which its children would inherit. How Postgres
/// has its memory is its own business, and the system's.
#[cfg(target_os = "linux")]
fn in_pages_of_the_system(command: &mut Command) {
    // SAFETY: between fork and exec, the closure makes one system call, allocates nothing and takes no lock.
    #[expect(unsafe_code)]
    unsafe {
        command.pre_exec(|| {
            // A kernel that does not know how has not kept to small pages either.
            let _ = nix::sys::prctl::set_thp_disable(false);
            Ok(())
        });
    }
}

fn existing_owner(cluster: &Path, owner: Uid) -> Result<User, Error> {
    let foreign =
        |fix| Error::ForeignOwner { cluster: cluster.to_owned(), owner: name_of(owner), user: "root".to_owned(), fix };
    if owner.is_root() {
        let fix = format!(
            "Postgres refuses to run as root: give it to another account (chown -R {UNPRIVILEGED} {})",
            cluster.display()
        );
        return Err(foreign(fix));
    }
    by_uid(owner)?.ok_or_else(|| foreign("that account has no name here: give the folder to one that has".to_owned()))
}

fn unprivileged(configured: Option<&str>) -> Result<User, Error> {
    let wanted = configured.unwrap_or(UNPRIVILEGED);
    let user = User::from_name(wanted).map_err(lookup_failed)?.filter(|user| !user.uid.is_root());
    user.ok_or_else(|| Error::NoAccount { wanted: wanted.to_owned() })
}

fn by_uid(uid: Uid) -> Result<Option<User>, Error> {
    User::from_uid(uid).map_err(lookup_failed)
}

fn name_of(uid: Uid) -> String {
    by_uid(uid).ok().flatten().map_or_else(|| format!("user id {uid}"), |user| user.name)
}

fn lookup_failed(errno: Errno) -> Error {
    Error::io("look up accounts in", Path::new("/etc/passwd"))(io::Error::from(errno))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_takes_no_account_that_others_run_as() {
        match unprivileged(None) {
            Ok(user) => assert_eq!(user.name, "postgres"),
            Err(error) => {
                let said = error.to_string();
                assert!(said.contains("no account named postgres on") && said.contains("useradd"), "{said}");
            }
        }
        assert!(matches!(unprivileged(Some("root")), Err(Error::NoAccount { .. })));
    }
}
