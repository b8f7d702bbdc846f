//! A whole site: two servers, two hosts of workers, Postgres and a bucket, each on a host of its own.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use fourstep::artifacts::Artifacts;

use crate::{
    database::Database,
    network::{self, Host},
    process::{Client, Program, TestFolder},
    s3::S3,
};

/// Leases short enough that several run out in a minute.
const VARIABLES: [(&str, &str); 6] = [
    ("FOURSTEP_QUEUE__LEASE_SECONDS", "2"),
    ("FOURSTEP_QUEUE__RENEW_SECONDS", "0.5"),
    ("FOURSTEP_QUEUE__SWEEP_SECONDS", "0.25"),
    ("FOURSTEP_MOCK_STEP_MS", "20"),
    // With a worker each, six processes have to share the usual hundred connections with those that died.
    ("FOURSTEP_DATABASE__POOL_SIZE", "5"),
    ("RUST_LOG", "info"),
];
const PORT: u16 = 8000;
/// Of clients.
const PATIENCE: Duration = Duration::from_secs(5);

/// Where outputs are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Files {
    Bucket,
    /// In a folder that all hosts share, as one of a network file system.
    Folder,
}

/// A host and the program on it, if it is switched on.
pub(crate) struct Machine {
    name: &'static str,
    pub(crate) host: Host,
    program: Option<Program>,
}

pub(crate) struct Site {
    pub(crate) folder: TestFolder,
    pub(crate) database: Database,
    pub(crate) s3: S3,
    pub(crate) servers: [Machine; 2],
    pub(crate) workers: [Machine; 2],
    files: Files,
    more: &'static [(&'static str, &'static str)],
}

impl Site {
    /// Everything, ready, with these variables besides the usual ones.
    pub(crate) async fn start(files: Files, more: &'static [(&'static str, &'static str)]) -> Self {
        let (database, s3) = (Database::start(Host::join(2)).await, S3::start(Host::join(3)));
        let off = |name, number| Machine { name, host: Host::join(number), program: None };
        let mut site = Self {
            folder: TestFolder::new(),
            database,
            s3,
            servers: [off("server-a", 11), off("server-b", 12)],
            workers: [off("worker-a", 21), off("worker-b", 22)],
            files,
            more,
        };
        for number in [0, 1] {
            site.start_server(number);
            site.start_workers(number);
        }
        site
    }

    /// A client of each server, which gives up what a cut line does not answer.
    pub(crate) fn clients(&self) -> [Client; 2] {
        let [a, b] = &self.servers;
        // The first server has made the first key.
        let at = |machine: &Machine| {
            let mut client = Client::of(machine.program.as_ref().unwrap(), &self.folder.0.join("server-a"));
            let http = reqwest::Client::builder().connect_timeout(PATIENCE).timeout(PATIENCE).build();
            client.http = http.unwrap();
            client
        };
        [at(a), at(b)]
    }

    pub(crate) fn start_server(&mut self, number: usize) {
        let machine = &self.servers[number];
        let listen = format!("{}:{PORT}", machine.host.address);
        let reaches = format!("{}/32", network::address(1));
        let mut command = self.fourstep(machine, &["serve", "--listen", &listen, "--workers", "0"]);
        // Receivers of webhooks are on the host of the test.
        command.env("FOURSTEP_FETCH__ALLOWED_NETWORKS", reaches);
        self.servers[number].program = Some(Program::server(command));
    }

    pub(crate) fn start_workers(&mut self, number: usize) {
        let command = self.fourstep(&self.workers[number], &["worker"]);
        self.workers[number].program = Some(Program::workers(command));
    }

    /// It does, and gets it back.
    pub(crate) fn server_loses_power(&mut self, number: usize) {
        self.servers[number].lose_power();
        self.start_server(number);
    }

    /// They do, and get it back.
    pub(crate) fn workers_lose_power(&mut self, number: usize) {
        self.workers[number].lose_power();
        self.start_workers(number);
    }

    fn fourstep(&self, machine: &Machine, arguments: &[&str]) -> Command {
        let data = self.folder.0.join(machine.name);
        let mut command = machine.host.command(env!("CARGO_BIN_EXE_fourstep"));
        command.args(arguments).args(["--predictor", "mock", "--data-dir"]).arg(&data);
        command.env("DATABASE_URL", self.database.url()).envs(VARIABLES).envs(self.more.iter().copied());
        match self.files {
            Files::Bucket => command.envs(self.s3.variables()),
            Files::Folder => command.env("FOURSTEP_ARTIFACTS__FOLDER", self.outputs()),
        };
        command.stdout(Stdio::piped()).stderr(log(&self.folder.0, machine.name));
        command
    }

    fn outputs(&self) -> PathBuf {
        self.folder.0.join("outputs")
    }

    /// The files, as the programs see them.
    pub(crate) fn artifacts(&self) -> Artifacts {
        match self.files {
            Files::Bucket => self.s3.artifacts(),
            Files::Folder => Artifacts::in_folder(&self.outputs(), false).unwrap(),
        }
    }

    /// What all programs have said.
    pub(crate) fn logs(&self) -> String {
        let machines = self.servers.iter().chain(&self.workers);
        machines
            .map(|machine| {
                let text = std::fs::read_to_string(log_file(&self.folder.0, machine.name)).unwrap();
                let last: Vec<_> = text.lines().rev().take(15).collect();
                format!("{}:\n{}\n", machine.name, last.into_iter().rev().collect::<Vec<_>>().join("\n"))
            })
            .collect()
    }
}

impl Machine {
    /// Its power goes: nobody hears of it, and what it was doing is lost.
    pub(crate) fn lose_power(&mut self) {
        self.host.cut();
        self.program.take().unwrap().kill();
        self.host.mend();
    }

    /// Memory of its program, bytes.
    pub(crate) fn memory(&self) -> u64 {
        let status = format!("/proc/{}/status", self.program.as_ref().unwrap().process.id());
        let status = std::fs::read_to_string(status).unwrap();
        let kib = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        kib.trim_end_matches("kB").trim().parse::<u64>().unwrap() * 1024
    }

    /// Whether its program runs still.
    pub(crate) fn is_running(&mut self) -> bool {
        self.program.as_mut().is_some_and(Program::is_running)
    }
}

fn log_file(folder: &Path, name: &str) -> PathBuf {
    folder.join(format!("{name}.log"))
}

fn log(folder: &Path, name: &str) -> std::fs::File {
    std::fs::OpenOptions::new().create(true).append(true).open(log_file(folder, name)).unwrap()
}
