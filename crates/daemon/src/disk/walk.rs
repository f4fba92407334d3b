//! Opening what is below a directory, by handle, so that no path ever leads out of it.
//!
//! Every open is `openat2` with `RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS |
//! RESOLVE_NO_XDEV` (openat2(2)): a link or a mount that somebody puts in the way is an error, never a
//! detour. Paths longer than `PATH_MAX` are walked in pieces.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;

use pleach_core::vocabulary::{Name, TreePath};
use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

/// The longest piece of a path given to the kernel at once; `PATH_MAX` is 4096 with the NUL.
const PIECE_BYTES_MAX: usize = 4000;

/// How often an open is tried again that the kernel gave up because of a concurrent rename.
const OPEN_TRIES_MAX: u32 = 16;

/// How many directories one batch keeps open.
const PARENTS_MAX: usize = 256;

fn beneath() -> ResolveFlags {
    ResolveFlags::BENEATH
        | ResolveFlags::NO_SYMLINKS
        | ResolveFlags::NO_MAGICLINKS
        | ResolveFlags::NO_XDEV
}

fn open_piece(top: BorrowedFd<'_>, piece: &[u8], flags: OFlags) -> Result<OwnedFd, Errno> {
    let flags = flags | OFlags::CLOEXEC;
    let mut tries = 0;
    loop {
        match rustix::fs::openat2(top, piece, flags, Mode::empty(), beneath()) {
            Err(Errno::AGAIN | Errno::INTR) if tries < OPEN_TRIES_MAX => tries += 1,
            opened => return opened,
        }
    }
}

/// Opens `names` below `top` with `flags`; no names open `top` itself anew.
pub(crate) fn open_below(top: impl AsFd, names: &[Name], flags: OFlags) -> Result<OwnedFd, Errno> {
    let mut held: Option<OwnedFd> = None;
    let mut piece = Vec::new();
    for name in names {
        if !piece.is_empty() && piece.len() + 1 + name.as_bytes().len() > PIECE_BYTES_MAX {
            let from = held.as_ref().map_or_else(|| top.as_fd(), AsFd::as_fd);
            held = Some(open_piece(from, &piece, OFlags::PATH | OFlags::DIRECTORY)?);
            piece.clear();
        }
        if !piece.is_empty() {
            piece.push(b'/');
        }
        piece.extend_from_slice(name.as_bytes());
    }
    if piece.is_empty() {
        piece.push(b'.');
    }
    open_piece(held.as_ref().map_or_else(|| top.as_fd(), AsFd::as_fd), &piece, flags)
}

/// Opens the directory at `names` below `top` as a place to act in: search permission is enough.
pub(crate) fn open_place(top: impl AsFd, names: &[Name]) -> Result<OwnedFd, Errno> {
    open_below(top, names, OFlags::PATH | OFlags::DIRECTORY)
}

/// The directories that one batch of effects acts in, each opened once.
///
/// A handle follows its directory when somebody renames it, which is as if the effect had come just
/// before the rename. What the batch itself renames or removes is forgotten by [`Parents::forget`].
#[derive(Debug, Default)]
pub(crate) struct Parents {
    open: BTreeMap<TreePath, Rc<OwnedFd>>,
}

impl Parents {
    /// The directory at `path` below `top`.
    pub(crate) fn open(&mut self, top: impl AsFd, path: &TreePath) -> Result<Rc<OwnedFd>, Errno> {
        if let Some(open) = self.open.get(path) {
            return Ok(Rc::clone(open));
        }
        let opened = Rc::new(open_place(top, path.names())?);
        if self.open.len() >= PARENTS_MAX {
            self.open.clear();
        }
        self.open.insert(path.clone(), Rc::clone(&opened));
        Ok(opened)
    }

    /// Forgets the directory at `path` and all below: they are not there any more, or others are.
    pub(crate) fn forget(&mut self, path: &TreePath) {
        self.open.retain(|known, _| !known.starts_with(path));
    }
}
