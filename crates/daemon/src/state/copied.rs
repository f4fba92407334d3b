//! Whether the database was copied to where it is: a backup was restored, or the machine copied.
//!
//! It then knows of less than this master has done to the tree, or of another disk's inodes, and the engine is
//! to know that: what differs from the base may be its own doing. A copy has another inode, or was born at
//! another time. A whole disk that is rolled back, or copied block by block, keeps both, and the tree fits.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::UNIX_EPOCH;

use pleach_core::engine::COPIED_HERE;
use pleach_core::values::Record;

use super::{MetaKey, State, StateError};

impl State {
    /// Finds out whether the database was copied since this was last asked. If so, it is noted among the effects
    /// in flight, where the engine finds it, until that has looked at everything.
    ///
    /// # Errors
    /// If the disk will not have the note.
    pub fn note_if_copied(&mut self) -> Result<(), StateError> {
        let Some(now) = file_of(&self.path) else { return Ok(()) };
        let before: Option<[u8; 24]> = self.meta_array(MetaKey::File)?;
        if before == Some(now) {
            return Ok(());
        }
        if before.is_some() {
            tracing::warn!(path = %self.path.display(), "the state was copied to where it is");
            self.commit(&[Record::Intent { id: COPIED_HERE, row: Some(Vec::new()) }])?;
        }
        self.remember_file()
    }

    /// From now on, another file is a copy.
    pub(super) fn remember_file(&mut self) -> Result<(), StateError> {
        match file_of(&self.path) {
            Some(now) => self.set_meta(&[(MetaKey::File, &now)]),
            None => Ok(()),
        }
    }
}

/// None where the file system knows of no births: inode numbers alone are used again.
fn file_of(path: &Path) -> Option<[u8; 24]> {
    let metadata = std::fs::metadata(path).ok()?;
    let born = metadata.created().ok()?.duration_since(UNIX_EPOCH).ok()?;
    let mut file = [0; 24];
    file[..8].copy_from_slice(&metadata.ino().to_le_bytes());
    file[8..].copy_from_slice(&born.as_nanos().to_le_bytes());
    Some(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn database_that_was_copied_is_told_from_one_that_was_only_opened_again() {
        let dir = tempfile::tempdir().unwrap();
        let (path, copy) = (dir.path().join("state.db"), dir.path().join("copy"));
        let mut state = State::create(&path, &[]).unwrap();
        state.note_if_copied().unwrap();
        assert_eq!(state.intents().unwrap(), []);
        drop(state);
        let mut again = State::open(&path).unwrap();
        again.note_if_copied().unwrap();
        assert_eq!(again.intents().unwrap(), []);
        drop(again);

        std::fs::copy(&path, &copy).unwrap();
        std::fs::rename(&copy, &path).unwrap();
        let mut copied = State::open(&path).unwrap();
        if file_of(&path).is_none() {
            return;
        }
        copied.note_if_copied().unwrap();
        assert_eq!(copied.intents().unwrap(), [(COPIED_HERE, Vec::new())]);
        copied.commit(&[Record::Intent { id: COPIED_HERE, row: None }]).unwrap();
        copied.note_if_copied().unwrap();
        assert_eq!(copied.intents().unwrap(), [], "it is told once");
    }
}
