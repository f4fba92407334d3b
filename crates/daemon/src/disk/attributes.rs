//! Owner and extended attributes: reading them for a look, setting them for an effect.
//!
//! Paths through `/proc/self/fd` reach a file by the handle of its directory without opening the file
//! itself: nothing is followed, nothing is read, and no permission beyond stat's is needed.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use pleach_core::vocabulary::{Attributes, Fingerprint, Kind, Mode, Owner, Timestamp, Xattrs};
use rustix::fs::{AtFlags, Gid, Uid, XattrFlags};
use rustix::io::Errno;

use super::stat::{stat_handle, times_with_mtime};

/// The longest list of attribute names that Linux gives (xattr(7), `XATTR_LIST_MAX`).
const LIST_BYTES_MAX: usize = 64 << 10;

/// The largest value (xattr(7), `XATTR_SIZE_MAX`).
const VALUE_BYTES_MAX: usize = 64 << 10;

/// How long names of users and groups are remembered.
const NAMES_KEPT: Duration = Duration::from_secs(60);

/// Whether owners and groups are part of the store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Owners {
    /// Seen and set: the daemon runs as root.
    Replicate,
    /// Neither seen nor set.
    #[default]
    Leave,
}

/// Whether setuid, setgid and sticky come from other masters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SpecialBits {
    /// They are set as the tree has them.
    Replicate,
    /// What is there stays there.
    #[default]
    Leave,
}

/// Reads and sets attributes. Clones of the disk share its memory of names.
#[derive(Debug, Default)]
pub(crate) struct AttributeRules {
    pub(crate) owners: Owners,
    pub(crate) special_bits: SpecialBits,
    names: Mutex<Names>,
}

#[derive(Debug, Default)]
struct Names {
    since: Option<Instant>,
    users: BTreeMap<u32, Arc<str>>,
    groups: BTreeMap<u32, Arc<str>>,
    uids: BTreeMap<Arc<str>, Option<u32>>,
    gids: BTreeMap<Arc<str>, Option<u32>>,
}

impl Names {
    fn expire(&mut self) {
        if self.since.is_none_or(|since| since.elapsed() > NAMES_KEPT) {
            *self = Self { since: Some(Instant::now()), ..Self::default() };
        }
    }
}

impl AttributeRules {
    pub(crate) fn new(owners: Owners, special_bits: SpecialBits) -> Self {
        Self { owners, special_bits, names: Mutex::default() }
    }

    /// The owner by name and number, where owners are replicated.
    pub(crate) fn owner(&self, fingerprint: &Fingerprint) -> Option<Owner> {
        if self.owners == Owners::Leave {
            return None;
        }
        let (uid, gid) = (fingerprint.uid, fingerprint.gid);
        let mut names = self.names.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        names.expire();
        let text = |name: &OsStr| Arc::from(name.to_string_lossy());
        let user = names.users.entry(uid).or_insert_with(|| {
            uzers::get_user_by_uid(uid).map_or_else(Arc::default, |user| text(user.name()))
        });
        let user = user.clone();
        let group = names.groups.entry(gid).or_insert_with(|| {
            uzers::get_group_by_gid(gid).map_or_else(Arc::default, |group| text(group.name()))
        });
        Some(Owner { user, uid, group: group.clone(), gid })
    }

    /// The numbers to set for `owner` here: by name if it is known here, else as given.
    fn numbers(&self, owner: &Owner) -> (Uid, Gid) {
        let mut names = self.names.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        names.expire();
        let uid = *names
            .uids
            .entry(owner.user.clone())
            .or_insert_with(|| uzers::get_user_by_name(&*owner.user).map(|user| user.uid()));
        let gid = *names
            .gids
            .entry(owner.group.clone())
            .or_insert_with(|| uzers::get_group_by_name(&*owner.group).map(|group| group.gid()));
        (Uid::from_raw(uid.unwrap_or(owner.uid)), Gid::from_raw(gid.unwrap_or(owner.gid)))
    }

    /// The mode to set where `current` stands: special bits only if they are replicated.
    fn mode_over(&self, wanted: Mode, current: Mode) -> rustix::fs::Mode {
        let bits = match self.special_bits {
            SpecialBits::Replicate => wanted.bits(),
            SpecialBits::Leave => (wanted.bits() & 0o777) | (current.bits() & 0o7000),
        };
        rustix::fs::Mode::from_raw_mode(bits)
    }

    /// Sets what `attributes` and `mtime` say on the file or directory behind `handle`, which may be
    /// an `O_PATH` one. `current` is what stands there. The times come last: all else may change them.
    pub(crate) fn set(
        &self,
        handle: impl AsFd,
        current: &Fingerprint,
        attributes: &Attributes,
        mtime: Option<Timestamp>,
    ) -> Result<(), Errno> {
        let handle = handle.as_fd();
        self.set_owner(handle, current, attributes)?;
        if current.kind != Kind::Symlink {
            // chown clears setuid and setgid, so `current` says what was there before it.
            let mode = self.mode_over(attributes.mode, current.mode);
            let path = format!("/proc/self/fd/{}", handle.as_raw_fd());
            if mode.bits() != current.mode.bits() || attributes.owner.is_some() {
                rustix::fs::chmodat(rustix::fs::CWD, path.as_str(), mode, AtFlags::empty())?;
            }
            set_xattrs(&path, &attributes.xattrs)?;
        }
        match mtime {
            Some(mtime) if mtime != current.modified => {
                let times = times_with_mtime(mtime);
                rustix::fs::utimensat(handle, c"", &times, AtFlags::EMPTY_PATH)
            }
            _ => Ok(()),
        }
    }

    /// The mode to make a file with that is to get `attributes`: no special bits before it has its owner.
    pub(crate) fn mode_to_make(&self, attributes: &Attributes) -> rustix::fs::Mode {
        rustix::fs::Mode::from_raw_mode(attributes.mode.bits() & 0o777)
    }

    /// Sets attributes and mtime of a file just made, by its ordinary handle; owner and mode as far as
    /// they are not what it was made with. Says how it was left.
    pub(crate) fn set_new(
        &self,
        file: BorrowedFd<'_>,
        attributes: &Attributes,
        mtime: Timestamp,
    ) -> Result<Fingerprint, Errno> {
        for (name, value) in &attributes.xattrs {
            match rustix::fs::fsetxattr(file, &**name, value, XattrFlags::empty()) {
                Err(Errno::OPNOTSUPP) => {}
                result => result?,
            }
        }
        rustix::fs::futimens(file, &times_with_mtime(mtime))?;
        let made = stat_handle(file)?;
        let owner = self.owner_to_set(attributes);
        let owner = owner.filter(|(uid, gid)| (uid.as_raw(), gid.as_raw()) != (made.uid, made.gid));
        let mode = self.mode_over(attributes.mode, Mode::new(0));
        if owner.is_none() && mode.bits() == made.mode.bits() {
            return Ok(made);
        }
        // chown clears setuid and setgid: it comes first.
        if let Some((uid, gid)) = owner {
            rustix::fs::fchown(file, Some(uid), Some(gid))?;
        }
        rustix::fs::fchmod(file, mode)?;
        stat_handle(file)
    }

    fn owner_to_set(&self, attributes: &Attributes) -> Option<(Uid, Gid)> {
        match (self.owners, &attributes.owner) {
            (Owners::Replicate, Some(owner)) => Some(self.numbers(owner)),
            _ => None,
        }
    }

    fn set_owner(
        &self,
        handle: BorrowedFd<'_>,
        current: &Fingerprint,
        attributes: &Attributes,
    ) -> Result<(), Errno> {
        match self.owner_to_set(attributes) {
            Some((uid, gid)) if (uid.as_raw(), gid.as_raw()) != (current.uid, current.gid) => {
                rustix::fs::chownat(handle, c"", Some(uid), Some(gid), AtFlags::EMPTY_PATH)
            }
            _ => Ok(()),
        }
    }
}

/// Whether an attribute is part of the store.
fn is_replicated(name: &[u8]) -> bool {
    name.starts_with(b"user.")
        || name == b"system.posix_acl_access"
        || name == b"system.posix_acl_default"
}

/// The replicated attributes of `name` in `directory`, not following it. Empty where the file system
/// has none.
///
/// # Errors
/// If they can't be read: else they would pass for removed ones.
pub(crate) fn xattrs_at(directory: BorrowedFd<'_>, name: &[u8]) -> Result<Xattrs, Errno> {
    let mut path = format!("/proc/self/fd/{}/", directory.as_raw_fd()).into_bytes();
    path.extend_from_slice(name);
    match read_xattrs(&path) {
        Err(Errno::OPNOTSUPP | Errno::NOENT | Errno::NOTDIR) => Ok(Xattrs::new()),
        read => read,
    }
}

/// The replicated attributes at `path`, whose last component is not followed.
fn read_xattrs(path: &[u8]) -> Result<Xattrs, Errno> {
    let mut small = [0_u8; 1024];
    let large: Vec<u8>;
    let names = match rustix::fs::llistxattr(path, &mut small) {
        Ok(0) => return Ok(Xattrs::new()),
        Ok(length) => &small[..length],
        Err(Errno::RANGE) => {
            let mut buffer = vec![0; LIST_BYTES_MAX];
            let length = rustix::fs::llistxattr(path, &mut buffer[..])?;
            buffer.truncate(length);
            large = buffer;
            &large[..]
        }
        Err(errno) => return Err(errno),
    };
    let mut found = Xattrs::new();
    for name in names.split(|byte| *byte == 0).filter(|name| is_replicated(name)) {
        match read_xattr(path, name) {
            Ok(value) => {
                found.insert(name.into(), value.into());
            }
            Err(Errno::NODATA) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(found)
}

fn read_xattr(path: &[u8], name: &[u8]) -> Result<Vec<u8>, Errno> {
    let mut small = [0_u8; 256];
    match rustix::fs::lgetxattr(path, name, &mut small) {
        Ok(length) => Ok(small[..length].to_vec()),
        Err(Errno::RANGE) => {
            let mut buffer = vec![0; VALUE_BYTES_MAX];
            let length = rustix::fs::lgetxattr(path, name, &mut buffer[..])?;
            buffer.truncate(length);
            Ok(buffer)
        }
        Err(errno) => Err(errno),
    }
}

/// Makes the replicated attributes of what `path` (a `/proc/self/fd` one) leads to equal to `wanted`.
fn set_xattrs(path: &str, wanted: &Xattrs) -> Result<(), Errno> {
    // A trailing `/.` would fail on files, so list through the link itself: it is followed.
    let current = match list_followed(path) {
        Ok(current) => current,
        Err(Errno::OPNOTSUPP) => return Ok(()),
        Err(errno) => return Err(errno),
    };
    for name in &current {
        if !wanted.contains_key(&name[..]) {
            match rustix::fs::removexattr(path, &name[..]) {
                Ok(()) | Err(Errno::NODATA) => {}
                Err(errno) => return Err(errno),
            }
        }
    }
    for (name, value) in wanted {
        if !is_replicated(name) {
            continue;
        }
        match rustix::fs::setxattr(path, OsStr::from_bytes(name), value, XattrFlags::empty()) {
            Ok(()) | Err(Errno::OPNOTSUPP) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

fn list_followed(path: &str) -> Result<Vec<Vec<u8>>, Errno> {
    let mut small = [0_u8; 1024];
    let length = match rustix::fs::listxattr(path, &mut small) {
        Ok(length) => length,
        Err(Errno::RANGE) => {
            let mut buffer = vec![0; LIST_BYTES_MAX];
            let length = rustix::fs::listxattr(path, &mut buffer[..])?;
            return Ok(replicated(&buffer[..length]));
        }
        Err(errno) => return Err(errno),
    };
    Ok(replicated(&small[..length]))
}

fn replicated(list: &[u8]) -> Vec<Vec<u8>> {
    list.split(|byte| *byte == 0).filter(|name| is_replicated(name)).map(<[u8]>::to_vec).collect()
}
