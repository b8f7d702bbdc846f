//! A network of a test's own: network namespaces of the kernel for hosts, a bridge between them for a switch.
//!
//! The test runs once more, alone in a namespace, and makes the others from there. Each lives as long as a process in
//! it, so nothing of it can be seen outside and nothing stays behind, however the test ends.

use std::{
    fs,
    net::Ipv4Addr,
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

/// Says to a test that it has a network of its own.
const INSIDE: &str = "FOURSTEP_TEST_HAS_ITS_OWN_NETWORK";
const SWITCH: &str = "switch";
const PATIENCE: Duration = Duration::from_secs(20);

/// Runs a test in a network of its own, where its process is the host 1. `prepare` comes first, with the network of
/// everybody.
///
/// Where the kernel does not give namespaces to us, the test does not run, and says why; it fails if they should be
/// had.
pub(crate) fn in_a_network_of_its_own(prepare: impl FnOnce(), test: impl Future<Output = ()>) {
    if std::env::var_os(INSIDE).is_some() {
        open_switch();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
        return runtime.unwrap().block_on(test);
    }
    let probe = isolated().arg("true").output().unwrap();
    if !probe.status.success() {
        let why = String::from_utf8_lossy(&probe.stderr).trim().to_owned();
        assert!(!may_make_namespaces(), "no network namespace, which this process may make: {why}");
        println!(
            "NOT RUN: this needs network namespaces, which take root with CAP_SYS_ADMIN or user namespaces: {why}"
        );
        return;
    }
    prepare();
    let name = std::thread::current().name().unwrap().to_owned();
    let mut again = isolated();
    again.arg(std::env::current_exe().unwrap()).args(["--exact", &name, "--nocapture"]).env(INSIDE, "1");
    for proxy in ["http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"] {
        again.env_remove(proxy);
    }
    let output = again.output().unwrap();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    println!("{out}\n{err}");
    assert!(output.status.success(), "in a network of its own the test failed: {}", output.status);
    assert!(out.contains("1 passed"), "in a network of its own the test was not found");
}

/// A command that runs a program in a new network namespace.
fn isolated() -> Command {
    let mut unshare = Command::new("unshare");
    if !nix::unistd::Uid::effective().is_root() {
        unshare.args(["--user", "--map-current-user", "--keep-caps"]);
    }
    unshare.args(["--net", "--"]);
    unshare
}

/// Whether the kernel lets us make namespaces: `CAP_SYS_ADMIN` is bit 21.
fn may_make_namespaces() -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:")).unwrap();
    u64::from_str_radix(effective.trim(), 16).unwrap() & (1 << 21) != 0
}

fn open_switch() {
    ip(&["link", "set", "lo", "up"]);
    ip(&["link", "add", SWITCH, "type", "bridge"]);
    ip(&["addr", "add", &format!("{}/24", address(1)), "dev", SWITCH]);
    ip(&["link", "set", SWITCH, "up"]);
}

/// The address of a host by its number.
pub(crate) fn address(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 77, 0, number)
}

fn ip(arguments: &[&str]) {
    run(Command::new("ip").args(arguments));
}

fn run(command: &mut Command) {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}; run tools/set-up --tests"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// A host on the switch. Gone when dropped; what runs on it then has no network any more.
pub(crate) struct Host {
    pub(crate) address: Ipv4Addr,
    /// Ends when its input does, with this process.
    holder: Child,
    /// The switch's end of its line.
    line: String,
}

impl Host {
    /// A new host, on line. Its number is the last part of its address.
    pub(crate) fn join(number: u8) -> Self {
        let mut holder = Command::new("unshare");
        holder.args(["--net", "cat"]).stdin(Stdio::piped()).stdout(Stdio::null());
        let holder = holder.spawn().unwrap();
        let host = Self { address: address(number), holder, line: format!("line{number}") };
        let (ours, deadline) = (fs::read_link("/proc/self/ns/net").unwrap(), Instant::now() + PATIENCE);
        while fs::read_link(host.namespace()).unwrap() == ours {
            assert!(Instant::now() < deadline, "the host does not come up");
            std::thread::yield_now();
        }
        let pid = host.holder.id().to_string();
        ip(&["link", "add", &host.line, "type", "veth", "peer", "name", "eth0", "netns", &pid]);
        ip(&["link", "set", &host.line, "master", SWITCH, "up"]);
        let address = format!("{}/24", host.address);
        for inside in [
            &["link", "set", "lo", "up"][..],
            &["addr", "add", &address, "dev", "eth0"],
            &["link", "set", "eth0", "up"],
        ] {
            run(host.command("ip").args(inside));
        }
        host
    }

    fn namespace(&self) -> PathBuf {
        PathBuf::from(format!("/proc/{}/ns/net", self.holder.id()))
    }

    /// A command that runs a program there.
    pub(crate) fn command(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", self.namespace().display())).arg("--").arg(program);
        command
    }

    /// Runs another command there instead.
    pub(crate) fn running(&self, command: &Command) -> Command {
        let mut there = self.command(command.get_program().to_str().unwrap());
        there.args(command.get_args());
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => there.env(name, value),
                None => there.env_remove(name),
            };
        }
        there
    }

    /// Cuts its line: what it sends arrives nowhere, and nobody tells.
    pub(crate) fn cut(&self) {
        ip(&["link", "set", &self.line, "down"]);
    }

    /// Mends its line.
    pub(crate) fn mend(&self) {
        ip(&["link", "set", &self.line, "up"]);
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}
