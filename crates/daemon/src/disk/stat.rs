//! What `statx` says, as a [`Fingerprint`]; and what an errno says, as a [`Problem`].
//!
//! Every stat of this module goes through `statx`, so that fingerprints are comparable whether they were
//! taken by name or by handle, and so that the root of a mount is recognised even when a directory of the
//! same file system is bound there (`STATX_ATTR_MOUNT_ROOT`, Linux 5.8).

use std::os::fd::AsFd;

use pleach_core::values::{Problem, ProblemKind};
use pleach_core::vocabulary::{Fingerprint, Kind, Mode, Timestamp, TreePath};
use rustix::fs::{AtFlags, FileType, Statx, StatxAttributes, StatxFlags, Timespec, Timestamps};
use rustix::io::Errno;
use rustix::path::Arg;

/// What is asked of the system.
const WANTED: StatxFlags = StatxFlags::BASIC_STATS.union(StatxFlags::BTIME);

/// What stands at a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Seen {
    /// A directory, file or link.
    Node(Fingerprint),
    /// Another file system, or the same one bound once more.
    MountPoint,
    /// A FIFO, socket or device; what it is called.
    Special(&'static str),
}

impl Seen {
    /// The fingerprint of a directory, file or link.
    pub(crate) fn node(self) -> Option<Fingerprint> {
        match self {
            Self::Node(fingerprint) => Some(fingerprint),
            Self::MountPoint | Self::Special(_) => None,
        }
    }
}

/// Stats `name` in `directory`, itself if it is a link.
pub(crate) fn stat_at(directory: impl AsFd, name: impl Arg) -> Result<Seen, Errno> {
    let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
    rustix::fs::statx(directory, name, flags, WANTED).map(|stat| seen(&stat))
}

/// Stats what `handle` refers to.
///
/// The root of a mount counts as what it is: whoever holds a handle has decided to cross.
pub(crate) fn stat_handle(handle: impl AsFd) -> Result<Fingerprint, Errno> {
    let stat = rustix::fs::statx(handle, c"", AtFlags::EMPTY_PATH, WANTED)?;
    kind_of(&stat).map(|kind| fingerprint(&stat, kind)).map_err(|_| Errno::INVAL)
}

fn seen(stat: &Statx) -> Seen {
    if stat.stx_attributes.contains(StatxAttributes::MOUNT_ROOT) {
        return Seen::MountPoint;
    }
    match kind_of(stat) {
        Ok(kind) => Seen::Node(fingerprint(stat, kind)),
        Err(special) => Seen::Special(special),
    }
}

fn kind_of(stat: &Statx) -> Result<Kind, &'static str> {
    match FileType::from_raw_mode(u32::from(stat.stx_mode)) {
        FileType::Directory => Ok(Kind::Directory),
        FileType::RegularFile => Ok(Kind::File),
        FileType::Symlink => Ok(Kind::Symlink),
        FileType::Fifo => Err("FIFO"),
        FileType::Socket => Err("socket"),
        FileType::CharacterDevice => Err("character device"),
        FileType::BlockDevice => Err("block device"),
        FileType::Unknown => Err("file of unknown type"),
    }
}

fn fingerprint(stat: &Statx, kind: Kind) -> Fingerprint {
    let time =
        |time: rustix::fs::StatxTimestamp| Timestamp { seconds: time.tv_sec, nanos: time.tv_nsec };
    Fingerprint {
        device: rustix::fs::makedev(stat.stx_dev_major, stat.stx_dev_minor),
        inode: stat.stx_ino,
        kind,
        mode: Mode::new(u32::from(stat.stx_mode)),
        uid: stat.stx_uid,
        gid: stat.stx_gid,
        size: if kind == Kind::Directory { 0 } else { stat.stx_size },
        modified: time(stat.stx_mtime),
        changed: time(stat.stx_ctime),
        born: match StatxFlags::from_bits_retain(stat.stx_mask).contains(StatxFlags::BTIME) {
            true => time(stat.stx_btime),
            false => Timestamp::default(),
        },
    }
}

/// The times to set: the mtime as given, the access time left alone.
pub(crate) fn times_with_mtime(mtime: Timestamp) -> Timestamps {
    Timestamps {
        last_access: Timespec { tv_sec: 0, tv_nsec: rustix::fs::UTIME_OMIT },
        last_modification: Timespec { tv_sec: mtime.seconds, tv_nsec: i64::from(mtime.nanos) },
    }
}

/// Puts an errno into words for people; `path` is what it is about.
pub(crate) fn problem(errno: Errno, path: &TreePath) -> Problem {
    let (kind, reason) = match errno {
        Errno::ACCESS => (
            ProblemKind::PermissionDenied,
            "permission denied: let the daemon's user read and write here".to_owned(),
        ),
        Errno::PERM => (
            ProblemKind::PermissionDenied,
            "operation not permitted: immutable (see lsattr), or owned by another user".to_owned(),
        ),
        Errno::NOSPC => (ProblemKind::NoSpace, "no space left: free some on this disk".to_owned()),
        Errno::DQUOT => {
            (ProblemKind::NoSpace, "over the disk quota: raise it or free some".to_owned())
        }
        Errno::ROFS => (ProblemKind::ReadOnly, "the file system is mounted read-only".to_owned()),
        Errno::XDEV => (
            ProblemKind::MountPoint,
            "another file system is mounted on the way: mounts are not crossed".to_owned(),
        ),
        Errno::NAMETOOLONG => {
            (ProblemKind::UnsupportedName, "the name is too long for this file system".to_owned())
        }
        Errno::INVAL | Errno::ILSEQ => {
            (ProblemKind::UnsupportedName, format!("this file system refuses it: {errno}"))
        }
        other => (ProblemKind::Io, format!("the system says: {other}")),
    };
    Problem { kind, path: path.clone(), reason }
}
