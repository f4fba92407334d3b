//! A file system of its own on a loop device, whose power can be cut.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tempfile::TempDir;

/// The image's size: what xfs takes at least, and some.
const IMAGE_BYTES: u64 = 400 << 20;

/// A file system on a loop device; unmounted when dropped.
#[derive(Debug)]
pub struct LoopDisk {
    scratch: TempDir,
    at: PathBuf,
}

impl LoopDisk {
    /// Makes a file system of a kind (`ext4`, `xfs`) and mounts it at `at`. Errs with the reason, if that
    /// can't be done here.
    pub fn mount(kind: &str, at: &Path) -> Result<Self, String> {
        done(Command::new("xfs_io").arg("-V"))?;
        Self::of_size(kind, IMAGE_BYTES, at)
    }

    /// The same of a size in bytes, without the power switch.
    ///
    /// # Errors
    /// If that can't be done here, with the reason.
    pub fn of_size(kind: &str, size: u64, at: &Path) -> Result<Self, String> {
        let scratch = TempDir::new().map_err(|error| error.to_string())?;
        let disk = Self { scratch, at: at.to_owned() };
        let image = std::fs::File::create(disk.image()).map_err(|error| error.to_string())?;
        image.set_len(size).map_err(|error| error.to_string())?;
        done(Command::new(format!("mkfs.{kind}")).arg("-q").arg(disk.image()))?;
        disk.mount_again()?;
        // ext4 has a directory of its own.
        let _ = std::fs::remove_dir(at.join("lost+found"));
        Ok(disk)
    }

    /// Cuts the power: nothing more reaches the disk, and what was not written back is gone. Whoever has
    /// anything open there must be ended before [`LoopDisk::power_on`].
    ///
    /// # Errors
    /// If it can't be done.
    pub fn cut_power(&self) -> Result<(), String> {
        done(Command::new("xfs_io").args(["-x", "-c", "shutdown"]).arg(&self.at))
    }

    /// Mounts what is left, as after a boot.
    ///
    /// # Errors
    /// If it can't be done.
    pub fn power_on(&self) -> Result<(), String> {
        done(Command::new("umount").arg(&self.at))?;
        self.mount_again()
    }

    fn mount_again(&self) -> Result<(), String> {
        done(Command::new("mount").args(["-o", "loop"]).arg(self.image()).arg(&self.at))
    }

    fn image(&self) -> PathBuf {
        self.scratch.path().join("image")
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
