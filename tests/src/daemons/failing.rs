//! System calls of a running daemon that fail: strace attached to some of its threads, which answers in the
//! kernel's place. It lets go when it is dropped.

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use super::{Master, probe_until};

/// How long strace may take to attach, and to let go.
const PATIENCE: Duration = Duration::from_secs(20);

/// Which threads of a daemon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Threads {
    /// The one that looks at the tree and writes to it.
    Hand,
    /// The one that writes the database.
    Driver,
    /// The one that watches directories.
    Watcher,
    /// Any, with what is being fetched.
    Fetching,
}

impl Threads {
    fn is_one(self, name: &str) -> bool {
        match self {
            Self::Hand => name == "hand",
            Self::Driver => name == "driver",
            Self::Watcher => name.starts_with("notify"),
            Self::Fetching => true,
        }
    }
}

/// When a call fails, counted for each thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// Each time.
    Always,
    /// The `n`th time only, from 1.
    Once(u32),
}

/// A call that fails, as long as this lives.
#[derive(Debug)]
pub struct Failing {
    strace: Child,
    scratch: TempDir,
}

impl Failing {
    /// Lets a call of these threads fail with an errno; of those that fetch, as far as it is about one of
    /// these contents. Errs with the reason if that can't be had here.
    pub fn of(
        master: &Master,
        threads: Threads,
        contents: &[blake3::Hash],
        (call, errno, when): (&str, &str, When),
    ) -> Result<Self, String> {
        let tasks = format!("/proc/{}/task", master.pid());
        let listed = fs::read_dir(&tasks).map_err(|error| format!("{tasks}: {error}"))?;
        let directories = listed.filter_map(|task| Some(task.ok()?.path()));
        let chosen: Vec<PathBuf> = directories
            .filter(|task| {
                let name = fs::read_to_string(task.join("comm")).unwrap_or_default();
                threads.is_one(name.trim())
            })
            .collect();
        let scratch = TempDir::new().map_err(|error| error.to_string())?;
        let when = match when {
            When::Always => String::new(),
            When::Once(number) => format!(":when={number}"),
        };
        let mut command = Command::new("strace");
        command.args(["-qq", "-e", "signal=none", "-e", &format!("trace={call}")]);
        command.args(["-e", &format!("inject={call}:error={errno}{when}")]);
        command.arg("-o").arg(scratch.path().join("calls"));
        if threads == Threads::Fetching {
            command.arg("-f");
            for content in contents {
                // As strace finds it behind a handle, and as it stands in a call.
                let name = format!("{content}.part");
                command.arg("-P").arg(master.path(".pleach/staging").join(&name));
                command.arg("-P").arg(name);
            }
        }
        for task in &chosen {
            command.arg("-p").arg(task.file_name().expect("a task has a number"));
        }
        let errors = fs::File::create(scratch.path().join("errors")).map_err(|e| e.to_string())?;
        let strace = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(errors).spawn();
        let strace = strace.map_err(|error| format!("strace: {error}"))?;
        let mut failing = Self { strace, scratch };
        probe_until(PATIENCE, || {
            if let Ok(Some(ended)) = failing.strace.try_wait() {
                let errors = fs::read_to_string(failing.scratch.path().join("errors"));
                return Ok(Err(format!("strace: {ended}: {}", errors.unwrap_or_default())));
            }
            // A thread may have ended meanwhile.
            let is_traced = |task: &PathBuf| match fs::read_to_string(task.join("status")) {
                Ok(status) => !status.contains("TracerPid:\t0\n"),
                Err(_) => true,
            };
            if chosen.iter().all(is_traced) { Ok(Ok(())) } else { Err("not yet".to_owned()) }
        })??;
        Ok(failing)
    }

    /// How often the call has failed so far.
    #[must_use]
    pub fn count(&self) -> usize {
        let calls = fs::read_to_string(self.scratch.path().join("calls")).unwrap_or_default();
        calls.matches("(INJECTED)").count()
    }

    /// Lets the calls succeed again; how often they have failed.
    pub fn end(mut self) -> usize {
        self.let_go();
        self.count()
    }

    fn let_go(&mut self) {
        let _ = kill_process(Pid::from_child(&self.strace), Signal::TERM);
        let ended = probe_until(PATIENCE, || match self.strace.try_wait() {
            Ok(None) => Err("it still runs".to_owned()),
            Ok(Some(_)) | Err(_) => Ok(()),
        });
        if ended.is_err() {
            // Then the kernel lets go for it.
            let _ = self.strace.kill();
            let _ = self.strace.wait();
        }
    }
}

impl Drop for Failing {
    fn drop(&mut self) {
        self.let_go();
    }
}
