//! One master: its directory, its daemon's process, its log.

use std::ffi::OsStr;
use std::fmt;
use std::fs::{self, File};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::{Host, Tree, pleach_path, run, wait_until};

/// What a command printed and how it ended.
#[derive(Clone, Debug)]
pub struct Ran {
    /// The command, for messages.
    pub command: String,
    /// Its exit code; -1 if a signal ended it.
    pub code: i32,
    /// What it printed.
    pub stdout: String,
    /// What it complained about.
    pub stderr: String,
}

impl Ran {
    /// Its standard output as JSON.
    ///
    /// # Panics
    ///
    /// When it is none.
    #[must_use]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout)
            .unwrap_or_else(|error| panic!("no JSON: {error}\n{self}"))
    }

    /// Itself, if it ended with 0.
    ///
    /// # Panics
    ///
    /// When it didn't.
    #[must_use]
    pub fn ok(self) -> Self {
        assert!(self.code == 0, "{self}");
        self
    }
}

impl fmt::Display for Ran {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} ended with {}", self.command, self.code)?;
        write!(f, "stdout: {}\nstderr: {}", self.stdout, self.stderr)
    }
}

/// A master on this machine.
#[derive(Debug)]
pub struct Master {
    name: String,
    directory: PathBuf,
    port: u16,
    /// The network namespace that it runs in, if not this one.
    host: Option<String>,
    listen: String,
    log: PathBuf,
    daemon: Option<Child>,
    /// How long its log was when the daemon was started.
    said_before: usize,
}

impl Master {
    /// A master called `name` with an empty directory in `scratch`; nothing runs yet.
    ///
    /// # Panics
    ///
    /// When the directory can't be made.
    #[must_use]
    pub fn new(scratch: &Path, name: &str) -> Self {
        let directory = scratch.join(name);
        fs::create_dir_all(&directory).expect("a scratch directory can be made");
        let log = scratch.join(format!("{name}.log"));
        let port = free_port();
        let listen = format!("/ip4/127.0.0.1/tcp/{port}");
        Self {
            name: name.to_owned(),
            directory,
            port,
            host: None,
            listen,
            log,
            daemon: None,
            said_before: 0,
        }
    }

    /// The same on a host of its own, listening at a multiaddress of that.
    #[must_use]
    pub fn on(host: &Host, listen: &str, scratch: &Path, name: &str) -> Self {
        let mut master = Self::new(scratch, name);
        master.host = Some(host.name().to_owned());
        listen.clone_into(&mut master.listen);
        master
    }

    /// The binary, to be run where it runs.
    fn binary(&self) -> Command {
        match &self.host {
            None => Command::new(pleach_path()),
            Some(host) => {
                let mut command = Command::new("ip");
                command.args(["netns", "exec", host]).arg(pleach_path());
                command
            }
        }
    }

    /// What it is called.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its directory.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// A path in its directory.
    #[must_use]
    pub fn path(&self, path: &str) -> PathBuf {
        self.directory.join(path)
    }

    /// The port that it listens on.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// What its daemon has logged so far.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read(&self.log).map(|b| String::from_utf8_lossy(&b).into_owned()).unwrap_or_default()
    }

    /// Runs `pleach` in its directory.
    pub fn pleach<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Ran {
        run(self.binary().args(arguments).current_dir(&self.directory))
    }

    /// Makes its directory the first master of a new store, with this machine's settings for tests.
    pub fn init(&self) {
        let _ = self.pleach(["init", ".", "--name", &self.name]).ok();
        self.configure();
    }

    /// Makes its directory a master of the store of `inviter`, which must run. Both must run then
    /// until they are equal.
    pub fn join(&self, inviter: &Self) {
        let ticket = inviter.invite();
        let _ = self.pleach(["join", ".", &ticket, "--name", &self.name]).ok();
        self.configure();
    }

    /// A ticket for its store.
    ///
    /// # Panics
    ///
    /// When its daemon gives none.
    #[must_use]
    pub fn invite(&self) -> String {
        let ran = self.pleach(["invite", "."]).ok();
        let ticket = ran.stdout.trim().to_owned();
        assert!(!ticket.is_empty() && !ticket.contains(char::is_whitespace), "one line: {ran}");
        ticket
    }

    /// Adds to its own settings what keeps tests apart from the rest of the machine.
    ///
    /// # Panics
    ///
    /// When they can't be written.
    pub fn configure(&self) {
        let path = self.path(".pleach/config.toml");
        let text = fs::read_to_string(&path).unwrap_or_default();
        if !text.lines().any(|line| line.trim_start().starts_with("mdns")) {
            fs::write(&path, format!("mdns = false\n{text}")).expect("its settings can be written");
        }
    }

    /// Starts the command that makes it a master of the ticket's store and then is its daemon.
    ///
    /// # Panics
    ///
    /// When it runs already.
    pub fn start_joining(&mut self, ticket: &str) {
        let name = self.name.clone();
        self.spawn(&["up", "--join", ticket, "--name", &name], &[]);
    }

    /// Starts its daemon and waits until it answers.
    ///
    /// # Panics
    ///
    /// When it runs already, or ends before it answers.
    pub fn start(&mut self) {
        self.start_with(&[]);
    }

    /// Starts its daemon with more environment, and waits until it answers.
    ///
    /// # Panics
    ///
    /// When it runs already, or ends before it answers.
    pub fn start_with(&mut self, environment: &[(&str, &str)]) {
        if let Err(ran) = self.try_start_with(environment) {
            panic!("the daemon of {} ended before it answered\n{ran}", self.name);
        }
    }

    /// Starts its daemon and waits until it answers; errs with what it said and its exit code if it ends
    /// before.
    ///
    /// # Panics
    ///
    /// When it runs already, or does neither.
    pub fn try_start(&mut self) -> Result<(), Ran> {
        self.try_start_with(&[])
    }

    fn try_start_with(&mut self, environment: &[(&str, &str)]) -> Result<(), Ran> {
        self.spawn(&["daemon"], environment);
        let what = format!("the daemon of {} answers", self.name);
        wait_until(&what, Duration::from_secs(60), || {
            if let Some(ran) = self.take_end() {
                return Ok(Err(ran));
            }
            let ran = self.pleach(["status", ".", "--json"]);
            if ran.code == 0 { Ok(Ok(())) } else { Err(ran.to_string()) }
        })
    }

    fn spawn(&mut self, command: &[&str], environment: &[(&str, &str)]) {
        assert!(self.daemon.is_none(), "{} runs already", self.name);
        let log = File::options().create(true).append(true).open(&self.log).expect("a log file");
        let said_before = self.log().len();
        let daemon = self
            .binary()
            .args(command)
            .arg(&self.directory)
            .args(["--listen", &self.listen])
            .envs(environment.iter().copied())
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a file can be opened twice"))
            .stderr(log)
            .spawn()
            .expect("the binary can be started");
        self.daemon = Some(daemon);
        self.said_before = said_before;
    }

    /// How its daemon ended and what it had logged since its start, if it has ended.
    pub fn take_end(&mut self) -> Option<Ran> {
        let status = self.ended()?;
        self.daemon = None;
        Some(Ran {
            command: format!("the daemon of {}", self.name),
            code: status.code().unwrap_or(-1),
            stdout: String::new(),
            stderr: self.log().split_off(self.said_before),
        })
    }

    fn ended(&mut self) -> Option<std::process::ExitStatus> {
        self.daemon.as_mut().and_then(|daemon| daemon.try_wait().expect("it is our child"))
    }

    /// Its daemon's process id.
    ///
    /// # Panics
    ///
    /// When it doesn't run.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.daemon.as_ref().expect("the daemon runs").id()
    }

    /// Whether its daemon was started and not ended by us.
    #[must_use]
    pub fn runs(&self) -> bool {
        self.daemon.is_some()
    }

    /// Asks its daemon to end, as an init system does.
    ///
    /// # Panics
    ///
    /// When it takes more than ten seconds, or ends with anything but 0.
    pub fn stop(&mut self) {
        self.signal(Signal::TERM);
        let what = format!("the daemon of {} stops", self.name);
        let status = wait_until(&what, Duration::from_secs(10), || {
            self.ended().ok_or_else(|| "it still runs".to_owned())
        });
        self.daemon = None;
        assert!(status.success(), "{} ended with {status}\n{}", self.name, self.log());
    }

    /// Ends its daemon at once, wherever it is (kill -9).
    pub fn kill(&mut self) {
        if let Some(mut daemon) = self.daemon.take() {
            let _ = daemon.kill();
            let _ = daemon.wait();
        }
    }

    /// Sends its daemon a signal.
    ///
    /// # Panics
    ///
    /// When it doesn't run.
    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.pid()).expect("pids are small"))
            .expect("a child has a pid");
        kill_process(pid, signal).expect("it is our child");
    }

    /// What `pleach status` says.
    #[must_use]
    pub fn status(&self) -> Status {
        Status(self.pleach(["status", ".", "--json"]).ok().json())
    }

    /// The open conflicts, as `pleach conflicts` lists them.
    ///
    /// # Panics
    ///
    /// When it lists none as an array.
    #[must_use]
    pub fn conflicts(&self) -> Vec<Value> {
        match self.pleach(["conflicts", ".", "--json"]).ok().json() {
            Value::Array(conflicts) => conflicts,
            other => panic!("an array was promised: {other}"),
        }
    }

    /// What is on its disk.
    ///
    /// # Panics
    ///
    /// When it can't be read.
    #[must_use]
    pub fn tree(&self) -> Tree {
        Tree::read(&self.directory).expect("a test's own directory can be read")
    }

    /// What is below one of its directories; empty if that isn't there.
    #[must_use]
    pub fn tree_below(&self, directory: &str) -> Tree {
        Tree::read(&self.path(directory)).unwrap_or_default()
    }

    /// The CPU time that its daemon has used, in clock ticks of 10 ms (proc(5)).
    ///
    /// # Panics
    ///
    /// When it doesn't run.
    #[must_use]
    pub fn cpu_ticks(&self) -> u64 {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid())).expect("it runs");
        let fields: Vec<&str> = stat.rsplit(") ").next().unwrap_or("").split(' ').collect();
        [11, 12].iter().filter_map(|&at| fields.get(at)?.parse::<u64>().ok()).sum()
    }

    /// The bytes that its daemon has had written to disk (proc(5), `write_bytes`).
    ///
    /// # Panics
    ///
    /// When it doesn't run.
    #[must_use]
    pub fn disk_bytes_written(&self) -> u64 {
        let io = fs::read_to_string(format!("/proc/{}/io", self.pid())).expect("it runs");
        let line = io.lines().find_map(|line| line.strip_prefix("write_bytes: "));
        line.and_then(|count| count.parse().ok()).expect("proc(5) promises the line")
    }
}

impl Drop for Master {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            let log = self.log();
            let lines: Vec<&str> = log.lines().collect();
            let tail = lines.get(lines.len().saturating_sub(60)..).unwrap_or_default();
            eprintln!("--- the log of {}, its end:\n{}", self.name, tail.join("\n"));
        }
    }
}

/// A port that nothing listens on, outside of what the kernel hands out to others.
fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let start = (std::process::id() % 500) as u16 * 20;
    for _ in 0..2000 {
        let port = 20_000 + (start + NEXT.fetch_add(1, Ordering::Relaxed)) % 12_000;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
    panic!("no port is free between 20000 and 32000");
}

/// What `pleach status --json` says.
#[derive(Clone, Debug)]
pub struct Status(pub Value);

impl Status {
    /// A number by its JSON pointer.
    ///
    /// # Panics
    ///
    /// When there is none.
    #[must_use]
    pub fn number(&self, pointer: &str) -> u64 {
        let number = self.0.pointer(pointer).and_then(Value::as_u64);
        number.unwrap_or_else(|| panic!("no number at {pointer} in {:#}", self.0))
    }

    /// A list by its JSON pointer.
    ///
    /// # Panics
    ///
    /// When there is none.
    #[must_use]
    pub fn list(&self, pointer: &str) -> &[Value] {
        let list = self.0.pointer(pointer).and_then(Value::as_array);
        list.unwrap_or_else(|| panic!("no list at {pointer} in {:#}", self.0))
    }
}
