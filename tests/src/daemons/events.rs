//! Listening to what a daemon says has happened.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::Value;

use super::{Master, pleach_path, wait_until, write};

/// A running `pleach events`, whose lines pile up in a file.
#[derive(Debug)]
pub struct Events {
    child: Child,
    lines: PathBuf,
    skip: usize,
}

impl Events {
    /// Listens from now on.
    ///
    /// # Panics
    ///
    /// When nothing is heard of a file that is made and removed to see whether anything is.
    #[must_use]
    pub fn of(master: &Master) -> Self {
        let mut lines = master.directory().as_os_str().to_owned();
        lines.push(".events");
        let lines = PathBuf::from(lines);
        let file = File::create(&lines).expect("a scratch file can be made");
        let child = Command::new(pleach_path())
            .args(["events", "."])
            .current_dir(master.directory())
            .stdin(Stdio::null())
            .stdout(file)
            .stderr(Stdio::inherit())
            .spawn()
            .expect("the binary can be started");
        let mut events = Self { child, lines, skip: 0 };
        let name = "are you listening?";
        let mentions = |events: &Self| {
            let heard = events.heard_of("local_change");
            heard.iter().filter(|event| event["paths"].to_string().contains(name)).count()
        };
        let mut number = 0;
        wait_until("events are heard", Duration::from_secs(20), || {
            number += 1;
            write(&master.path(name), number.to_string());
            if mentions(&events) == 0 { Err("none yet".to_owned()) } else { Ok(()) }
        });
        let _ = master.pleach(["wait", ".", "--timeout", "60"]).ok();
        let before = mentions(&events);
        fs::remove_file(master.path(name)).expect("it was just written");
        wait_until("its removal is heard", Duration::from_secs(20), || {
            if mentions(&events) > before { Ok(()) } else { Err("not yet".to_owned()) }
        });
        // Else another master still has it, and a test may take that for what is to be.
        let _ = master.pleach(["wait", ".", "--timeout", "60"]).ok();
        events.forget();
        events
    }

    /// Everything heard since it began or [`Events::forget`] was called, in order.
    #[must_use]
    pub fn heard(&self) -> Vec<Value> {
        let text = fs::read_to_string(&self.lines).unwrap_or_default();
        let complete = text.rfind('\n').map_or("", |end| &text[..end]);
        complete
            .lines()
            .skip(self.skip)
            .map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{line}: {e}")))
            .collect()
    }

    /// What was heard of one sort, `event` being its tag.
    #[must_use]
    pub fn heard_of(&self, event: &str) -> Vec<Value> {
        self.heard().into_iter().filter(|heard| heard["event"] == event).collect()
    }

    /// Starts anew.
    pub fn forget(&mut self) {
        self.skip += self.heard().len();
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
