//! What looks have found and nobody made durable yet: it is to be, before it is recorded and told.
//!
//! Only what is to be done is decided here, from looks and records alone, so that the simulator decides by
//! the same code what its disks keep.

use pleach_core::values::{DirectoryState, FoundBody, Look, Looked, Record};
use pleach_core::vocabulary::{Fingerprint, MasterId, TreePath};

/// With more files than these, one syncfs is cheaper than an fsync for each.
const FILES_MAX: usize = 3;

/// What looks have found since that was last made durable.
///
/// To begin with, that is what an earlier run may have left: it was killed between its effects and making
/// them durable, and what is parked or put aside the base learns at the start.
#[derive(Debug)]
pub struct Fresh {
    files: Vec<(TreePath, Fingerprint)>,
    /// Whether there are more files than that.
    many: bool,
    /// Whether files have been renamed to where they are, or made there.
    placed: bool,
    /// Whether something that is no file came, or anything went.
    names: bool,
}

/// Whether what was found is to be durable before these are recorded.
#[must_use]
pub fn must_be_durable(records: &[Record], me: MasterId) -> bool {
    records.iter().any(|record| match record {
        Record::Change(change) => change.author == me,
        // What was found and is somebody else's already counts as here: a torn file in its place would pass
        // for an edit later, and what is gone for something new.
        Record::Base { .. } => true,
        Record::Mark(_) | Record::Intent { .. } => false,
    })
}

impl Default for Fresh {
    fn default() -> Self {
        Self { names: true, ..Self::nothing() }
    }
}

impl Fresh {
    fn nothing() -> Self {
        Self { files: Vec::new(), many: false, placed: false, names: false }
    }

    /// Takes note of what a look has found.
    pub fn note(&mut self, look: &Look, looked: &Looked) {
        for (request, listed) in look.lists.iter().zip(&looked.lists) {
            let DirectoryState::Readable { found, gone, .. } = &listed.state else { continue };
            self.names |= !gone.is_empty();
            for entry in found {
                let known = request.known.iter().find(|(name, _)| *name == entry.name);
                let known = known.map(|(_, fingerprint)| fingerprint);
                let same = |now: &Fingerprint| known.is_some_and(|known| known.same_object(now));
                match &entry.body {
                    FoundBody::File { fingerprint, .. } => {
                        self.placed |= !same(fingerprint);
                        self.note_file(fingerprint, || listed.path.join(&entry.name));
                    }
                    // Of one that was there, only what is in it has changed.
                    FoundBody::Directory { fingerprint, .. } => self.names |= !same(fingerprint),
                    FoundBody::Symlink { .. } => self.names = true,
                    FoundBody::Ignored | FoundBody::Skipped(_) => {}
                }
            }
        }
    }

    /// All that was found; from now on nothing is.
    #[must_use]
    pub fn take(&mut self) -> Self {
        std::mem::replace(self, Self::nothing())
    }

    /// The files that were found, if they are few. One that is no longer there was renamed, it or a directory
    /// above, and is found by making everything durable.
    #[must_use]
    pub fn files(&self) -> &[(TreePath, Fingerprint)] {
        &self.files
    }

    /// Whether there are more files than are remembered.
    #[must_use]
    pub fn has_many(&self) -> bool {
        self.many
    }

    /// Whether something is new or gone of which no fsync of a file tells.
    #[must_use]
    pub fn has_names(&self) -> bool {
        self.names
    }

    /// Whether no name is new or gone, and the files that were written to are few.
    #[must_use]
    pub fn is_only_written_to(&self) -> bool {
        !(self.many || self.placed || self.names)
    }

    fn note_file(&mut self, fingerprint: &Fingerprint, path: impl FnOnce() -> TreePath) {
        if self.files.len() < FILES_MAX {
            let found = (path(), *fingerprint);
            if !self.files.contains(&found) {
                self.files.push(found);
            }
        } else {
            self.many = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_recorded_of_the_disk_must_be_durable_whoever_changed_it() {
        let me = MasterId([1; 32]);
        let found = Record::Base { id: 7, row: Some(Vec::new()) };
        let gone = Record::Base { id: 7, row: None };
        let intent = Record::Intent { id: 7, row: None };
        assert!(must_be_durable(&[intent.clone(), found], me));
        assert!(must_be_durable(&[gone], me));
        assert!(!must_be_durable(&[intent], me));
    }

    #[test]
    fn what_an_earlier_run_did_and_was_killed_before_it_was_durable_is_made_durable_first() {
        let mut fresh = Fresh::default();
        assert!(fresh.take().has_names(), "it may have parked something or put it aside");
        assert!(!fresh.take().has_names());
    }
}
