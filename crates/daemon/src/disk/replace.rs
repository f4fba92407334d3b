//! Replacing: exchange the staged file with what stands there, and look at what came out.
//!
//! Whatever came out and is not what was expected goes back, the newest last. Nothing is unlinked that is
//! not our own.

use pleach_core::values::Location;
use pleach_core::vocabulary::{Fingerprint, Kind};
use rustix::fs::RenameFlags;
use rustix::io::Errno;

use super::apply::{Before, Run, Spot, Stop, shown_path, untouched};
use super::stage::Staged;
use super::stat::stat_at;
use super::versions::KeptBecause;

/// How often an entry that came out of the tree is tried to be put back while somebody keeps replacing
/// what stands there. Then it is kept in the versions.
const PUT_BACK_TRIES: u32 = 3;

impl Run<'_> {
    /// Exchanges, and looks at what came out.
    pub(crate) fn replace(
        &mut self,
        staged: &mut Staged,
        at: &Location,
        spot: &Spot,
        expected: &Fingerprint,
    ) -> Result<(), Stop> {
        let before = self.guard(at, spot, expected)?;
        if before.kind == Kind::Directory {
            return Err(Stop::Differs);
        }
        self.disk.name_for_exchange(staged)?;
        self.disk.at(Before::Replace);
        self.exchange(staged, spot)?;
        let came = stat_at(self.disk.staging.directory(), &*staged.name)?.node();
        match came {
            Some(came) if untouched(&before, &came) => {
                let path = shown_path(at);
                let kept =
                    self.disk.keep_staged(&staged.name, Some(&path), KeptBecause::Replaced, &came);
                if kept.is_err() {
                    self.put_back(staged, spot);
                }
                Ok(kept?)
            }
            _ => {
                self.disk.at(Before::PutBack);
                self.put_back(staged, spot);
                Err(Stop::Differs)
            }
        }
    }

    fn exchange(&self, staged: &Staged, spot: &Spot) -> Result<(), Errno> {
        let from = self.disk.staging.directory();
        let (to, name) = (&spot.directory, spot.name.as_bytes());
        rustix::fs::renameat_with(from, &*staged.name, to, name, RenameFlags::EXCHANGE)
    }

    /// Puts back what came out by an exchange. Whatever else comes out while doing so is a user's, and
    /// newer: it goes back in turn. At the end either our own file is in the staging area, or a user's
    /// older one, which [`Disk::unstage`] keeps in the versions.
    fn put_back(&self, staged: &Staged, spot: &Spot) {
        for _ in 0..PUT_BACK_TRIES {
            let from = self.disk.staging.directory();
            match self.exchange(staged, spot) {
                Ok(()) => {}
                Err(Errno::NOENT) => {
                    let (to, name) = (&spot.directory, spot.name.as_bytes());
                    let flags = RenameFlags::NOREPLACE;
                    if rustix::fs::renameat_with(from, &*staged.name, to, name, flags).is_ok() {
                        return;
                    }
                    continue;
                }
                Err(_) => return,
            }
            let out = stat_at(from, &*staged.name).ok().and_then(|seen| seen.node());
            if out.is_none_or(|out| out.same_object(&staged.fingerprint)) {
                return;
            }
            // A user has replaced our file meanwhile: theirs is the newest, so it goes back and what
            // it had replaced stays out.
            if self.exchange(staged, spot).is_ok() {
                return;
            }
        }
    }
}
