//! What must hold of a world: at every step, and once it has settled.

use std::collections::BTreeSet;
use std::fmt;

use pleach_core::values::{Body, Version};
use pleach_core::vocabulary::{Mode, Timestamp, TreePath, VersionVector};

use super::disk::{Entry, Listing, listing_of};
use super::driver::Running;
use super::oracle::key_of;
use super::world::World;

/// What must hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Property {
    /// Nothing panics.
    NoPanic,
    /// What was made durable can be opened.
    Opens,
    /// At most one look or batch of effects is under way.
    OneTurnOfTheDisk,
    /// Nobody is told of a change that is not durable yet.
    RecordedBeforeTold,
    /// What is recorded of a disk is on it, whenever the power is cut.
    DurableBeforeRecorded,
    /// A healed world comes to rest.
    Settles,
    /// All disks show the same.
    EqualDisks,
    /// Each disk shows what the merged tree has.
    DiskShowsTree,
    /// All masters know the same conflicts.
    EqualConflicts,
    /// All masters know the same changes.
    EqualHeads,
    /// What a user closed is in the tree or in an open conflict, unless a user destroyed it.
    NothingLost,
    /// Every version of an open conflict that a user closed is on every master, unless its author
    /// overwrote it before anyone could ask for it.
    VersionsRetained,
    /// Nothing waits in the staging area once all is done.
    StagingEmpty,
    /// No work, problem or wish is left.
    NothingPending,
    /// A full look finds nothing new.
    NoEcho,
    /// Everybody knows that everything is on everybody's disk.
    Projected,
    /// In a settled store an act has the effect that it has on a plain directory.
    PlainDirectory,
    /// A conflict that is closed on one master is closed on all.
    ConflictsClose,
}

/// A property that did not hold.
#[derive(Clone, Debug)]
pub struct Failure {
    /// Which.
    pub property: Property,
    /// What was found.
    pub detail: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} does not hold: {}", self.property, self.detail)
    }
}

/// How often each disk was changed and how many changes each master knows.
pub(super) type Marks = Vec<(u64, usize)>;

impl World {
    pub(super) fn marks(&self) -> Marks {
        let mark =
            |master: &super::driver::Master| (master.disk.mutations(), master.durable.log.len());
        self.masters.iter().map(mark).collect()
    }

    pub(super) fn running_masters(&self) -> Vec<&Running> {
        let running = |master: &'_ super::driver::Master| master.running.is_some();
        assert!(self.masters.iter().all(running), "a healed world has all its daemons running");
        self.masters.iter().filter_map(|master| master.running.as_ref()).collect()
    }

    /// Everything that holds once nothing moves any more.
    pub(super) fn check_settled(&mut self) {
        if self.failure.is_some() {
            return;
        }
        let found = self.find_violation();
        if let Some((property, detail)) = found {
            self.fail(property, detail);
        }
    }

    fn find_violation(&self) -> Option<(Property, String)> {
        let running = self.running_masters();
        self.unequal_heads(&running)
            .or_else(|| self.unequal_disks())
            .or_else(|| self.disk_unlike_tree(&running))
            .or_else(|| unequal_conflicts(&running))
            .or_else(|| self.leftovers(&running))
            .or_else(|| self.lost(&running))
            .or_else(|| self.unretained(&running))
    }

    fn unequal_heads(&self, running: &[&Running]) -> Option<(Property, String)> {
        let first = running[0].engine.replica();
        let differs = running.iter().position(|other| {
            let other = other.engine.replica();
            other.heads_hash() != first.heads_hash()
                || other.version_vector() != first.version_vector()
        })?;
        let detail = format!(
            "master 0 knows {:?}, master {differs} knows {:?}",
            first.version_vector(),
            running[differs].engine.replica().version_vector()
        );
        Some((Property::EqualHeads, detail))
    }

    pub(super) fn unequal_disks(&self) -> Option<(Property, String)> {
        let running = self.running_masters();
        let nowhere = self.unobtainable(&listing_of(running[0].engine.replica().tree()));
        let obtainable = |master: &super::driver::Master| {
            let mut listing = master.disk.listing();
            listing.retain(|path, _| !nowhere.contains(path));
            listing
        };
        let first = obtainable(&self.masters[0]);
        self.masters.iter().enumerate().find_map(|(index, master)| {
            let difference = difference(&first, &obtainable(master))?;
            Some((Property::EqualDisks, format!("master 0 against master {index}: {difference}")))
        })
    }

    fn disk_unlike_tree(&self, running: &[&Running]) -> Option<(Property, String)> {
        self.masters.iter().zip(running).find_map(|(master, running)| {
            let mut tree = listing_of(running.engine.replica().tree());
            let mut disk = master.disk.listing();
            for path in self.unobtainable(&tree) {
                tree.remove(&path);
                disk.remove(&path);
            }
            let difference = difference(&disk, &tree)?;
            let detail = format!("disk of master {} against its tree: {difference}", master.index);
            Some((Property::DiskShowsTree, detail))
        })
    }

    /// Paths of the tree with contents that are nowhere any more: published while a program was still
    /// writing, and overwritten by it before anybody could ask; or removed by its author before, while
    /// somebody else moved the file.
    fn unobtainable(&self, tree: &Listing) -> Vec<TreePath> {
        let gone = |body: &Body| match body {
            Body::File(content) => {
                content.size > 0 && !self.masters.iter().any(|m| m.holds(&content.hash))
            }
            Body::Directory { .. } | Body::Symlink { .. } => false,
        };
        tree.iter().filter(|(_, entry)| gone(&entry.body)).map(|(path, _)| path.clone()).collect()
    }

    /// Whether the tree has a content that nobody holds any more.
    pub(super) fn waits_for_ever(&self) -> bool {
        let trees = self.masters.iter().filter_map(|master| master.running.as_ref());
        let mut trees = trees.map(|running| listing_of(running.engine.replica().tree()));
        trees.any(|tree| !self.unobtainable(&tree).is_empty())
    }

    pub(super) fn leftovers(&self, running: &[&Running]) -> Option<(Property, String)> {
        let waits_for_ever = self.waits_for_ever();
        for (master, running) in self.masters.iter().zip(running) {
            let index = master.index;
            if !master.disk.parked().is_empty() {
                return Some((Property::StagingEmpty, format!("an entry is parked on {index}")));
            }
            if waits_for_ever {
                continue;
            }
            if !master.durable.staged.is_empty() {
                let left: Vec<_> = master.durable.staged.keys().collect();
                return Some((Property::StagingEmpty, format!("{left:?} are staged on {index}")));
            }
            let told = self.told_missing(running);
            let problems =
                running.engine.problems().filter(|problem| !told.contains(&problem.path));
            let problems: Vec<_> = problems.collect();
            if !problems.is_empty() || !running.engine.is_quiet() || !running.is_idle() {
                let status = running.engine.status();
                let detail = format!("master {index}: {status:?}, problems {problems:?}");
                return Some((Property::NothingPending, detail));
            }
        }
        None
    }

    /// Paths of conflicts with a version that is nowhere any more: that is listed, as it should be.
    fn told_missing(&self, running: &Running) -> BTreeSet<TreePath> {
        let conflicts = running.engine.replica().conflicts();
        let is_nowhere = |version: &Version| match &version.body {
            Body::File(content) => !self.masters.iter().any(|m| m.holds(&content.hash)),
            Body::Directory { .. } | Body::Symlink { .. } => false,
        };
        let missing =
            conflicts.into_iter().filter(|conflict| conflict.versions.iter().any(is_nowhere));
        missing.map(|conflict| conflict.path).collect()
    }

    fn lost(&self, running: &[&Running]) -> Option<(Property, String)> {
        let listing = self.masters[0].disk.listing();
        let tree = listing.values().filter_map(|entry| key_of(&entry.body)).collect();
        let conflicts = running[0].engine.replica().conflicts();
        let versions = conflicts.iter().flat_map(|conflict| &conflict.versions);
        let is_held = |version: &&Version| match &version.body {
            Body::File(content) => self.masters.iter().any(|m| m.holds(&content.hash)),
            Body::Directory { .. } | Body::Symlink { .. } => true,
        };
        let held = versions.filter(is_held);
        let disputed = held.filter_map(|version| key_of(&version.body)).collect();
        let nowhere = self.unobtainable(&listing_of(running[0].engine.replica().tree()));
        let mut retained = BTreeSet::new();
        for master in &self.masters {
            // What is there in the place of a content that never comes stays.
            let disk = master.disk.listing();
            let stands_in = nowhere.iter().filter_map(|path| disk.get(path));
            retained.extend(stands_in.filter_map(|entry| key_of(&entry.body)));
            retained.extend(master.disk.version_hashes());
            retained.extend(master.durable.retained.keys());
        }
        // The text of a link is in the change itself, and kept as long as that.
        retained.extend(&self.links);
        // It was retained for as long as it had to be.
        retained.extend(&self.let_go);
        let lost = self.oracle.lost(&tree, &disputed, &retained);
        (!lost.is_empty()).then(|| (Property::NothingLost, lost.join("; ")))
    }

    fn unretained(&self, running: &[&Running]) -> Option<(Property, String)> {
        for conflict in running[0].engine.replica().conflicts() {
            for version in &conflict.versions {
                let Body::File(content) = &version.body else { continue };
                let is_somewhere = self.masters.iter().any(|m| m.holds(&content.hash));
                if !is_somewhere || !self.oracle.wants(&content.hash) {
                    continue;
                }
                if let Some(master) = self.masters.iter().find(|m| !m.holds(&content.hash)) {
                    let path = &conflict.path;
                    let detail = format!("{:?} of {path} is not on {}", content.hash, master.index);
                    return Some((Property::VersionsRetained, detail));
                }
            }
        }
        None
    }

    pub(super) fn check_no_echo(&mut self, before: &Marks) {
        let after = self.marks();
        if self.failure.is_none() && after != *before {
            let detail = format!("(writes, changes) were {before:?} and are {after:?}");
            self.fail(Property::NoEcho, detail);
        }
    }

    /// Every master has told every other that everything is on its disk.
    pub(super) fn check_projected(&mut self) {
        if self.failure.is_some() {
            return;
        }
        let tree = listing_of(self.running_masters()[0].engine.replica().tree());
        if !self.unobtainable(&tree).is_empty() {
            return;
        }
        let mut unequal = None;
        for (index, running) in self.running_masters().iter().enumerate() {
            let engine = &running.engine;
            let known = engine.replica().version_vector();
            let covered = |projected: &VersionVector| projected.covers(known);
            if !covered(&engine.status().projected) {
                unequal = Some(format!("master {index} has not projected all it knows"));
            }
            for (peer, state) in engine.peers() {
                if !covered(&state.projected) {
                    unequal = Some(format!("master {index} does not know that {peer:?} has all"));
                }
            }
        }
        if let Some(detail) = unequal {
            self.fail(Property::Projected, detail);
        }
    }

    /// All disks show what the acting user's disk showed after the act.
    pub(super) fn check_plain(&mut self, master: usize, plain: &Listing) {
        if self.failure.is_some() {
            return;
        }
        // What is open at a path goes with that, or by names that come from its new one.
        let (before, after) = (plain.clone(), self.masters[master].disk.listing());
        let [before, after] = [before, after].map(|listing| self.without_siblings(listing));
        if let Some(difference) = difference(&before, &after) {
            let detail =
                format!("after master {master}'s user was done, against now: {difference}");
            self.fail(Property::PlainDirectory, detail);
        }
    }

    /// Without what has a name as siblings have, where these are shown.
    fn without_siblings(&self, mut listing: Listing) -> Listing {
        let is_sibling = |path: &TreePath| path.to_string().contains(" (conflict m");
        listing.retain(|path, _| !self.history.profile.siblings || !is_sibling(path));
        listing
    }

    pub(super) fn check_closed(&mut self, before: &Listing) {
        if self.failure.is_some() {
            return;
        }
        let open = self.running_masters()[0].engine.replica().conflicts();
        if !open.is_empty() {
            self.fail(Property::ConflictsClose, format!("still open: {open:?}"));
            return;
        }
        let (before, after) = (bare(before), bare(&self.masters[0].disk.listing()));
        let [before, after] = [before, after].map(|listing| self.without_siblings(listing));
        if let Some(difference) = difference(&before, &after) {
            self.fail(
                Property::ConflictsClose,
                format!("keeping what stands changed {difference}"),
            );
        }
    }
}

fn unequal_conflicts(running: &[&Running]) -> Option<(Property, String)> {
    let first = running[0].engine.replica().conflicts();
    running.iter().enumerate().find_map(|(index, other)| {
        let other = other.engine.replica().conflicts();
        (other != first).then(|| {
            let detail = format!("master 0 has {first:?}, master {index} has {other:?}");
            (Property::EqualConflicts, detail)
        })
    })
}

/// Without what directories have of their own: of two that were shown as one, one may have been there
/// for its conflict only.
fn bare(listing: &Listing) -> Listing {
    let mut bare = listing.clone();
    for entry in bare.values_mut() {
        if let Body::Directory { mtime } = &mut entry.body {
            (*mtime, entry.mode) = (Timestamp::default(), Mode::new(0o755));
        }
    }
    bare
}

/// The first paths at which two listings differ.
fn difference(left: &Listing, right: &Listing) -> Option<String> {
    let paths: BTreeSet<_> = left.keys().chain(right.keys()).collect();
    let show = |entry: Option<&Entry>| entry.map_or("nothing".to_owned(), |e| format!("{e:?}"));
    let differing: Vec<String> = paths
        .into_iter()
        .filter(|path| left.get(*path) != right.get(*path))
        .map(|path| format!("{path}: {} / {}", show(left.get(path)), show(right.get(path))))
        .take(4)
        .collect();
    (!differing.is_empty()).then(|| differing.join("; "))
}
