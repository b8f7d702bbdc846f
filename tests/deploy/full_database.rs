//! A disk of the private database that is full: creates are refused, what was acknowledged is still there when there is
//! room again, and nothing is charged that did not succeed.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use crate::{
    process::{Client, Program, TestFolder},
    watching::{metric, scrape},
};

/// Enough for an empty database and its first segments of log.
const DISK: &str = "size=128m";
const PATIENCE: Duration = Duration::from_secs(60);

/// A namespace of mounts with a small disk in it, gone when dropped.
struct SmallDisk {
    holder: Child,
    folder: PathBuf,
}

impl SmallDisk {
    fn at(folder: &Path) -> Self {
        let mut command = Command::new("unshare");
        if !nix::unistd::Uid::effective().is_root() {
            command.args(["--user", "--map-root-user"]);
        }
        let script = format!("mount -t tmpfs -o {DISK} tmpfs '{}' && echo && exec sleep infinity", folder.display());
        command.args(["--mount", "sh", "-c", &script]).stdout(Stdio::piped());
        let mut holder = command.spawn().unwrap();
        let mut mounted = [0];
        std::io::Read::read_exact(holder.stdout.as_mut().unwrap(), &mut mounted).unwrap();
        Self { holder, folder: folder.to_owned() }
    }

    /// `fourstep serve` with its data on the disk.
    fn serve(&self, outputs: &Path, log: &Path) -> Program {
        let mut command = Command::new("nsenter");
        command.args(["--target", &self.holder.id().to_string(), "--mount"]);
        if !nix::unistd::Uid::effective().is_root() {
            command.args(["--user", "--preserve-credentials"]);
        }
        command.arg(env!("CARGO_BIN_EXE_fourstep"));
        command.args(["serve", "--listen", "127.0.0.1:0", "--predictor", "mock", "--data-dir"]).arg(&self.folder);
        command.env_remove("DATABASE_URL").env("FOURSTEP_ARTIFACTS__FOLDER", outputs).env("RUST_LOG", "info");
        command.env("FOURSTEP_MOCK_STEP_MS", "1");
        command.stdout(Stdio::piped()).stderr(fs::OpenOptions::new().create(true).append(true).open(log).unwrap());
        Program::server(command)
    }

    /// The disk's folder, as it is seen from outside of the namespace.
    fn outside(&self) -> PathBuf {
        let root = PathBuf::from(format!("/proc/{}/root", self.holder.id()));
        root.join(self.folder.strip_prefix("/").unwrap())
    }

    /// Writes until nothing more goes on it.
    fn fill(&self) {
        let mut filler = fs::OpenOptions::new().create(true).append(true).open(self.outside().join("filler")).unwrap();
        while std::io::Write::write_all(&mut filler, &[0; 4096]).is_ok() {}
    }

    fn make_room(&self) {
        fs::remove_file(self.outside().join("filler")).unwrap();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

#[tokio::test]
async fn nothing_acknowledged_is_lost_when_the_disk_of_the_private_database_is_full() {
    let folder = TestFolder::new();
    let [data, outputs, log] = ["data", "outputs", "log"].map(|name| folder.0.join(name));
    fs::create_dir_all(&data).unwrap();
    let disk = SmallDisk::at(&data);
    let mut server = disk.serve(&outputs, &log);
    let client = Client::of(&server, &disk.outside());
    let mut acknowledged = vec![client.create().await.unwrap()];
    assert_eq!(client.terminal(&acknowledged[0]).await["status"], "succeeded");

    let free = async || metric(&scrape(&server, &client.key).await, "fourstep_disk_free_bytes{disk=\"database\"}");
    assert!(free().await > 0);
    disk.fill();
    assert_eq!(free().await, 0, "what the alert looks at");
    // Pages and log that are there already take some more.
    let refused = loop {
        match client.create().await {
            Ok(id) => acknowledged.push(id),
            Err(error) => break error,
        }
        assert!(acknowledged.len() < 20_000, "the disk is not full");
    };
    // An answer of the server, or none because its database, and it, have ended.
    assert!(refused.status().is_none_or(|status| status.is_server_error()), "{refused}");

    disk.make_room();
    if server.is_running() {
        server.signal(nix::sys::signal::Signal::SIGTERM);
    }
    // However it ended: with its database, it may have.
    server.ended_within(PATIENCE).await;
    let server = disk.serve(&outputs, &log);
    let client = Client::of(&server, &disk.outside());
    for id in &acknowledged {
        let prediction = client.terminal(id).await;
        assert_eq!(prediction["status"], "succeeded", "{prediction}");
        let picture = reqwest::get(prediction["output"][0].as_str().unwrap()).await.unwrap();
        assert!(picture.status().is_success(), "{prediction}");
    }
    let said = fs::read_to_string(&log).unwrap();
    assert!(said.contains("No space left on device"), "nobody was told: {said}");
}
