//! The `pleach` binary: where it is, and running it.

use std::env;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use super::Ran;

/// The binary under test: `$PLEACH_BIN`, or the one beside this test in the target folder, brought up
/// to date by cargo once per process.
///
/// # Panics
///
/// When cargo can't build it.
#[must_use]
pub fn pleach_path() -> &'static Path {
    static PATH: OnceLock<PathBuf> = OnceLock::new();
    PATH.get_or_init(|| env::var_os("PLEACH_BIN").map_or_else(build, PathBuf::from))
}

fn build() -> PathBuf {
    let own = env::current_exe().expect("a test knows its own path");
    let profile = own
        .ancestors()
        .skip(1)
        .find(|directory| !directory.ends_with("deps") && !directory.ends_with("examples"))
        .expect("a test lies in the target folder");
    let path = profile.join("pleach");
    // The cargo that runs these tests has built it already where it was told to test the workspace.
    let fresh = env::var_os("CI").is_some() && path.exists();
    if !fresh {
        let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        cargo.args(["build", "--quiet", "-p", "pleach"]);
        cargo.arg("--target-dir").arg(profile.parent().expect("a profile is in the target folder"));
        if profile.ends_with("release") {
            cargo.arg("--release");
        }
        let status = cargo
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .status()
            .expect("cargo runs, as it runs this test");
        assert!(status.success(), "cargo could not build the pleach binary");
    }
    path
}

/// Runs `pleach` with these arguments to its end, without a terminal.
pub fn pleach<S: AsRef<OsStr>>(arguments: impl IntoIterator<Item = S>) -> Ran {
    run(Command::new(pleach_path()).args(arguments))
}

/// Runs a command to its end and takes what it printed.
///
/// # Panics
///
/// When it can't be started.
pub fn run(command: &mut Command) -> Ran {
    let output = command
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|error| panic!("{command:?} can't be started: {error}"));
    Ran {
        command: format!("{command:?}"),
        code: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}
