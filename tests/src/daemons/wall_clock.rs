//! A wall clock of a daemon's own, which can be set while the daemon runs, by faketime(1).

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The wall clock of one daemon. Its other clocks, and the times of its files, are the system's.
#[derive(Debug)]
pub struct WallClock {
    library: String,
    offset: PathBuf,
}

impl WallClock {
    /// A clock that is right, kept in `scratch` under a master's name; none without faketime(1), which is
    /// said.
    #[must_use]
    pub fn of(scratch: &Path, name: &str) -> Option<Self> {
        if !super::have("faketime") {
            return None;
        }
        let shown =
            Command::new("faketime").args(["-m", "-f", "+0", "printenv", "LD_PRELOAD"]).output();
        let library = String::from_utf8(shown.ok()?.stdout).ok()?.trim().to_owned();
        let clock = Self { library, offset: scratch.join(format!("{name}.clock")) };
        clock.set("+0");
        Some(clock)
    }

    /// Sets it to be off by so much: `+40d`, `-3h`, `+0`.
    ///
    /// # Panics
    ///
    /// When the scratch directory can't be written.
    pub fn set(&self, offset: &str) {
        // Whoever looks at the clock never finds half of it.
        let new = self.offset.with_extension("new");
        fs::write(&new, format!("{offset}\n")).expect("a scratch file");
        fs::rename(&new, &self.offset).expect("a scratch file");
    }

    /// What the daemon has to be started with.
    ///
    /// # Panics
    ///
    /// When the scratch directory has a name that is not UTF-8.
    #[must_use]
    pub fn environment(&self) -> [(&str, &str); 5] {
        [
            ("LD_PRELOAD", &self.library),
            ("FAKETIME_TIMESTAMP_FILE", self.offset.to_str().expect("a name of ours")),
            ("FAKETIME_NO_CACHE", "1"),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
            ("NO_FAKE_STAT", "1"),
        ]
    }
}
