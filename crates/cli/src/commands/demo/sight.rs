//! Looking at directories: what is in them, and when something arrived.

use std::collections::BTreeMap;
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::failure::Failure;

/// How often one path is looked at while something is waited for.
const GLANCE_EVERY: Duration = Duration::from_micros(250);

/// How often whole directories are compared: reading them takes from the masters what it takes.
const COMPARE_EVERY: Duration = Duration::from_millis(5);

/// How long anything in the demo may take before it is called broken.
const PATIENCE: Duration = Duration::from_secs(20);

/// What there is to see of one entry: type and mode, mtime of files, bytes or link text.
#[derive(Clone, PartialEq, Eq)]
struct Entry {
    mode: u32,
    modified: Option<(i64, i64)>,
    bytes: Vec<u8>,
}

/// A directory as it is, without what is pleach's own.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Picture(BTreeMap<PathBuf, Entry>);

impl Picture {
    /// Takes everything below `root` in.
    pub(super) fn of(root: &Path) -> io::Result<Self> {
        let mut entries = BTreeMap::new();
        let mut waiting = vec![root.to_owned()];
        while let Some(dir) = waiting.pop() {
            for entry in dir.read_dir()? {
                let path = entry?.path();
                if path.file_name().is_some_and(|name| name == ".pleach") {
                    continue;
                }
                let meta = path.symlink_metadata()?;
                let kind = meta.file_type();
                let bytes = if kind.is_symlink() {
                    path.read_link()?.into_os_string().into_encoded_bytes()
                } else if kind.is_file() {
                    std::fs::read(&path)?
                } else {
                    waiting.push(path.clone());
                    Vec::new()
                };
                let modified = kind.is_file().then(|| (meta.mtime(), meta.mtime_nsec()));
                let mode = meta.permissions().mode();
                let below = path.strip_prefix(root).unwrap_or(&path).to_owned();
                entries.insert(below, Entry { mode, modified, bytes });
            }
        }
        Ok(Self(entries))
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}

/// Waits until `seen`, and says how long after `since` that was. What can't be seen at the moment (a
/// directory that is just being renamed) is not there yet.
pub(super) async fn until(
    what: &str,
    since: Instant,
    seen: impl FnMut() -> io::Result<bool>,
) -> Result<Duration, Failure> {
    until_seen(what, since, GLANCE_EVERY, seen).await
}

async fn until_seen(
    what: &str,
    since: Instant,
    every: Duration,
    mut seen: impl FnMut() -> io::Result<bool>,
) -> Result<Duration, Failure> {
    loop {
        if matches!(seen(), Ok(true)) {
            return Ok(since.elapsed());
        }
        if since.elapsed() > PATIENCE {
            let message = format!("waited {} s in vain until {what}", PATIENCE.as_secs());
            return Err(Failure::new(message).next("repeat it with --log debug --keep"));
        }
        tokio::time::sleep(every).await;
    }
}

/// Waits until all directories look the same. Says how long after `since` that was, and what they hold.
pub(super) async fn until_equal(
    dirs: &[&Path],
    since: Instant,
) -> Result<(Duration, Picture), Failure> {
    let [first, others @ ..] = dirs else {
        return Err(Failure::new("there is no directory to look at"));
    };
    let mut agreed = None;
    let elapsed = until_seen("all directories are equal", since, COMPARE_EVERY, || {
        let picture = Picture::of(first)?;
        for other in others {
            if Picture::of(other)? != picture {
                return Ok(false);
            }
        }
        agreed = Some(picture);
        Ok(true)
    })
    .await?;
    agreed.map(|picture| (elapsed, picture)).ok_or_else(|| Failure::new("nothing was seen"))
}
