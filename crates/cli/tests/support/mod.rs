//! The built `pleach`, and daemons of it that end with their test.

#![allow(dead_code, reason = "each test program uses its part")]

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// What a command printed, and how it ended.
pub(crate) struct Ran {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Ran {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|e| panic!("{e}: {:?}", self.out))
    }
}

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code().unwrap(),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

/// `pleach` in `current`, to be run.
pub(crate) fn command(program: &str, current: &Path) -> Command {
    let mut command = Command::new(program);
    command.current_dir(current).env_remove("RUST_LOG");
    command
}

/// Runs `pleach` in `current`.
pub(crate) fn pleach(current: &Path, arguments: &[&str]) -> Ran {
    let pleach = env!("CARGO_BIN_EXE_pleach");
    command(pleach, current).args(arguments).output().unwrap().into()
}

/// A directory for one test, without links in its path.
pub(crate) fn scratch() -> (TempDir, PathBuf) {
    let dir = TempDir::new().unwrap();
    let path = dir.path().canonicalize().unwrap();
    (dir, path)
}

/// Waits until `seen`, looking now and then.
pub(crate) fn until(what: &str, mut seen: impl FnMut() -> bool) {
    let start = Instant::now();
    while !seen() {
        assert!(start.elapsed() < PATIENCE, "waited in vain until {what}");
        std::thread::park_timeout(Duration::from_millis(10));
    }
}

/// A running daemon; killed when dropped.
pub(crate) struct Daemon {
    child: Child,
    log: PathBuf,
}

impl Daemon {
    /// Starts `pleach daemon` on `root`, and waits until `status` says that it runs.
    pub(crate) fn start(root: &Path) -> Self {
        Self::start_as(root, command(env!("CARGO_BIN_EXE_pleach"), root))
    }

    /// The same by a command of the caller's, which ends with the program.
    pub(crate) fn start_as(root: &Path, mut command: Command) -> Self {
        let log = root.with_extension("log");
        command.arg("daemon").arg(root).args(["--listen", "/ip4/127.0.0.1/tcp/0"]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(File::create(&log).unwrap());
        let mut daemon = Self { child: command.spawn().unwrap(), log };
        until("the daemon runs", || {
            let ended = daemon.child.try_wait().unwrap();
            assert!(ended.is_none(), "the daemon ended: {}", daemon.log());
            pleach(root, &["status"]).code == 0
        });
        daemon
    }

    /// What it has logged.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap()
    }

    /// Sends it `signal`.
    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Ends it with `signal`; its exit code.
    pub(crate) fn stop(mut self, signal: Signal) -> i32 {
        self.signal(signal);
        let mut ended = None;
        until("the daemon ends", || {
            ended = self.child.try_wait().unwrap();
            ended.is_some()
        });
        ended.unwrap().code().unwrap()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
