//! Which directory is meant, and whether it is a store, in one, or around one.

use std::io;
use std::path::{Path, PathBuf};

use super::StoreError;

/// The mark that [`crate::disk::Root`] makes first.
const INCARNATION_FILE: &str = "incarnation";

/// The store that `path` is in or is: the nearest directory upwards that has been made one.
#[must_use]
pub fn find(path: &Path) -> Option<PathBuf> {
    path.ancestors().find(|above| is_store(above)).map(Path::to_path_buf)
}

fn is_store(dir: &Path) -> bool {
    let state = dir.join(".pleach");
    // Two of the three may be lost.
    [INCARNATION_FILE, super::STATE_FILE, super::STARTED_FILE].iter().any(|mark| {
        match state.join(mark).symlink_metadata() {
            Ok(_) => true,
            // Somebody else's: nobody but its owner may look in.
            Err(e) if e.kind() == io::ErrorKind::PermissionDenied => state.is_dir(),
            Err(_) => false,
        }
    })
}

/// Refuses a store whose incarnation can't be read any more.
pub(super) fn require_incarnation(path: &Path) -> Result<(), StoreError> {
    match path.join(".pleach").join(INCARNATION_FILE).symlink_metadata() {
        Ok(metadata) if metadata.len() == 16 => Ok(()),
        Err(e) if e.kind() != io::ErrorKind::NotFound => Ok(()),
        _ if is_store(path) => Err(StoreError::Incomplete {
            path: path.to_owned(),
            what: "its incarnation (.pleach/incarnation)",
        }),
        _ => Ok(()),
    }
}

/// Whether the store in `path` was made to the end.
///
/// # Errors
/// If it belongs to another user, or it was, and its state is gone.
pub(super) fn is_finished(path: &Path) -> Result<bool, StoreError> {
    let exists = |at: PathBuf| {
        at.try_exists().map_err(|source| match source.kind() {
            io::ErrorKind::PermissionDenied => {
                StoreError::NotPermitted { path: path.to_owned(), source }
            }
            _ => StoreError::of_system(at, source),
        })
    };
    if exists(super::state_path(path))? {
        return Ok(true);
    }
    if exists(path.join(".pleach").join(super::STARTED_FILE))? {
        return Err(StoreError::StateLost { path: path.to_owned() });
    }
    Ok(false)
}

/// The root of the store that `dir` itself is, absolute and without links.
///
/// # Errors
/// If it is no directory, no store, or one whose making was interrupted.
pub fn root_at(dir: &Path) -> Result<PathBuf, StoreError> {
    let path = directory(dir)?;
    if !is_store(&path) {
        refuse_inside(&path)?;
        return Err(StoreError::NotAStore { path });
    }
    if !is_finished(&path)? {
        return Err(StoreError::Unfinished { path });
    }
    Ok(path)
}

/// The directory at `path`, absolute and without links.
pub(super) fn directory(path: &Path) -> Result<PathBuf, StoreError> {
    let failed = |source: io::Error| match source.kind() {
        io::ErrorKind::NotFound => StoreError::NoDirectory { path: path.to_owned() },
        io::ErrorKind::NotADirectory => StoreError::NotADirectory { path: path.to_owned() },
        _ => StoreError::of_system(path.to_owned(), source),
    };
    let absolute = path.canonicalize().map_err(failed)?;
    if !absolute.metadata().map_err(failed)?.is_dir() {
        return Err(StoreError::NotADirectory { path: path.to_owned() });
    }
    Ok(absolute)
}

/// Refuses a directory that is in a store, or in the state of one.
pub(super) fn refuse_inside(path: &Path) -> Result<(), StoreError> {
    match path.parent().and_then(find) {
        Some(outer) => Err(StoreError::Inside { path: path.to_owned(), outer }),
        None => Ok(()),
    }
}

/// Refuses a directory that has a store in it. Looks at the names of all directories below, once; what
/// can't be read is left to the scan, which lists it.
pub(super) fn refuse_around(path: &Path) -> Result<(), StoreError> {
    let mut waiting = vec![path.to_owned()];
    while let Some(dir) = waiting.pop() {
        if dir != path && is_store(&dir) {
            return Err(StoreError::Around { path: path.to_owned(), inner: dir });
        }
        let Ok(entries) = dir.read_dir() else { continue };
        let directories = entries
            .filter_map(Result::ok)
            .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
            .filter(|entry| entry.file_name() != ".pleach");
        waiting.extend(directories.map(|entry| entry.path()));
    }
    Ok(())
}
