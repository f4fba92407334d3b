//! A file system of its own on a loop device, whose power can be cut.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tempfile::TempDir;

/// The image's size: what xfs takes at least, and some.
const IMAGE_BYTES: u64 = 400 << 20;

/// How the power of a file system is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Switch {
    /// The file system itself shuts down: from then on every call fails (xfs's and ext4's GOINGDOWN).
    Shutdown,
    /// The image is copied at one moment, and the copy is what is left. Whoever writes there goes on.
    Copy,
}

impl Switch {
    fn of(kind: &str) -> Self {
        match kind {
            // It has learnt to shut down in Linux 6.19 only.
            "btrfs" => Self::Copy,
            _ => Self::Shutdown,
        }
    }
}

/// A file system on a loop device; unmounted when dropped.
#[derive(Debug)]
pub struct LoopDisk {
    at: PathBuf,
    switch: Switch,
    // Last, for the image may lie on it.
    image: Image,
}

/// Where the image is, until it is dropped.
#[derive(Debug)]
struct Image {
    /// What copies of a file at one moment are made on, if they are.
    below: Option<Box<LoopDisk>>,
    scratch: TempDir,
}

impl Image {
    /// A place for an image of `size` bytes.
    fn new(switch: Switch, size: u64) -> Result<Self, String> {
        let scratch = TempDir::new().map_err(|error| error.to_string())?;
        let below = match switch {
            Switch::Shutdown => None,
            Switch::Copy => {
                // The image and two copies of it, with room for what xfs wants itself.
                let at = scratch.path().join("below");
                std::fs::create_dir(&at).map_err(|error| error.to_string())?;
                Some(Box::new(LoopDisk::of_size("xfs", 3 * size + IMAGE_BYTES, &at)?))
            }
        };
        let image = Self { below, scratch };
        let file = std::fs::File::create(image.path()).map_err(|error| error.to_string())?;
        file.set_len(size).map_err(|error| error.to_string())?;
        Ok(image)
    }

    fn path(&self) -> PathBuf {
        let below = self.below.as_ref().map(|below| below.at.as_path());
        below.unwrap_or(self.scratch.path()).join("image")
    }

    fn copy(&self) -> PathBuf {
        self.path().with_file_name("copy")
    }
}

impl LoopDisk {
    /// Makes a file system of a kind (`btrfs`, `ext4`, `xfs`) and mounts it at `at`. Errs with the reason, if
    /// that can't be done here.
    pub fn mount(kind: &str, at: &Path) -> Result<Self, String> {
        Self::with_more_room(kind, 0, at)
    }

    /// The same with room for so many bytes more than a few minutes' work takes.
    ///
    /// # Errors
    /// If that can't be done here, with the reason.
    pub fn with_more_room(kind: &str, bytes: u64, at: &Path) -> Result<Self, String> {
        done(Command::new("xfs_io").arg("-V"))?;
        Self::with_switch(kind, Switch::of(kind), IMAGE_BYTES + bytes, at)
    }

    /// The same of a size in bytes, without the power switch.
    ///
    /// # Errors
    /// If that can't be done here, with the reason.
    pub fn of_size(kind: &str, size: u64, at: &Path) -> Result<Self, String> {
        Self::with_switch(kind, Switch::Shutdown, size, at)
    }

    fn with_switch(kind: &str, switch: Switch, size: u64, at: &Path) -> Result<Self, String> {
        let disk = Self { at: at.to_owned(), switch, image: Image::new(switch, size)? };
        done(Command::new(format!("mkfs.{kind}")).arg("-q").arg(disk.image.path()))?;
        disk.mount_again()?;
        // ext4 has a directory of its own.
        let _ = std::fs::remove_dir(at.join("lost+found"));
        Ok(disk)
    }

    /// Whether those who write there go on after the power was cut. What they say from then on, nobody
    /// says who was cut off: they are to be stopped before.
    #[must_use]
    pub fn writers_survive_cuts(&self) -> bool {
        self.switch == Switch::Copy
    }

    /// Cuts the power: nothing more reaches the disk, and what was not written back is gone. Whoever has
    /// anything open there must be ended before [`LoopDisk::power_on`].
    ///
    /// # Errors
    /// If it can't be done.
    pub fn cut_power(&self) -> Result<(), String> {
        match self.switch {
            Switch::Shutdown => {
                done(Command::new("xfs_io").args(["-x", "-c", "shutdown"]).arg(&self.at))
            }
            // No write to the image gets in between (ioctl_ficlone(2): the copy is atomic).
            Switch::Copy => {
                let (image, copy) = (self.image.path(), self.image.copy());
                done(Command::new("cp").arg("--reflink=always").arg(image).arg(copy))
            }
        }
    }

    /// Sets how many bytes may be on it, or takes the limit away: a quota of its own, which holds for root
    /// too. For btrfs.
    ///
    /// # Errors
    /// If it can't be done, with the reason.
    pub fn set_quota(&self, bytes: Option<u64>) -> Result<(), String> {
        let btrfs = |arguments: &[&str]| done(Command::new("btrfs").args(arguments).arg(&self.at));
        let Some(bytes) = bytes else { return btrfs(&["qgroup", "limit", "none"]) };
        btrfs(&["quota", "enable"])?;
        btrfs(&["qgroup", "limit", &bytes.to_string()])?;
        // What is counted lags behind what is written until it is written back.
        btrfs(&["filesystem", "sync"])
    }

    /// Mounts what is left, as after a boot.
    ///
    /// # Errors
    /// If it can't be done.
    pub fn power_on(&self) -> Result<(), String> {
        done(Command::new("umount").arg(&self.at))?;
        if self.switch == Switch::Copy {
            std::fs::rename(self.image.copy(), self.image.path()).map_err(|e| e.to_string())?;
        }
        self.mount_again()
    }

    fn mount_again(&self) -> Result<(), String> {
        done(Command::new("mount").args(["-o", "loop"]).arg(self.image.path()).arg(&self.at))
    }
}

impl Drop for LoopDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.at).stderr(Stdio::null()).status();
    }
}

fn done(command: &mut Command) -> Result<(), String> {
    let ran = command.stdin(Stdio::null()).output();
    match ran {
        Ok(ran) if ran.status.success() => Ok(()),
        Ok(ran) => Err(format!("{command:?}: {}", String::from_utf8_lossy(&ran.stderr).trim())),
        Err(error) => Err(format!("{command:?}: {error}")),
    }
}
