//! The oracle of "nothing lost": a journal of every content that a user closed.
//!
//! At the end, each of them must be in the tree or in an open conflict, unless a user destroyed it whose
//! disk showed it. Three lesser cases need only be among some master's retained versions: a content whose
//! file was no longer in the tree when it was closed (written through an old descriptor), one that was in
//! a conflict at a path that a user removed or settled (R9), and one that its user had moved elsewhere on
//! a disk that was then restored from a backup, before anybody was told where to.

use std::collections::{BTreeMap, BTreeSet};

use pleach_core::values::{Body, Conflict};
use pleach_core::vocabulary::{ContentHash, TreePath};

/// What is to become of a content.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Duty {
    /// It must be in the tree or in an open conflict.
    Standing,
    /// It must be retained somewhere.
    Retained,
    /// A user has destroyed it.
    Released,
}

#[derive(Debug)]
struct Written {
    duty: Duty,
    master: usize,
    path: Option<TreePath>,
    at_us: u64,
    /// All masters on which it was closed; none if it was only ever shown by a disk.
    writers: BTreeSet<usize>,
    /// The masters whose users destroyed it.
    destroyers: BTreeSet<usize>,
}

/// The journal.
#[derive(Debug, Default)]
pub struct Oracle {
    contents: BTreeMap<ContentHash, Written>,
    /// Contents that were open versions of a conflict, and where.
    disputed: BTreeMap<ContentHash, BTreeSet<TreePath>>,
    /// Paths at which a user removed something or settled a conflict.
    closed: BTreeSet<TreePath>,
    /// What a user renamed, from where, by what it was called then.
    renamed: BTreeMap<TreePath, BTreeSet<TreePath>>,
    /// Paths at which a user put one thing over another, since everybody had last looked.
    replaced: BTreeSet<TreePath>,
}

/// The key under which a body is in the journal; none for what is not kept there.
#[must_use]
pub fn key_of(body: &Body) -> Option<ContentHash> {
    match body {
        Body::Directory { .. } => None,
        Body::File(content) => Some(content.hash),
        Body::Symlink { target, .. } => Some(ContentHash::of(target.as_bytes())),
    }
}

impl Oracle {
    /// A user closed a file, or made a link. `path` is none if it is no longer in the tree.
    pub fn written(
        &mut self,
        hash: ContentHash,
        master: usize,
        path: Option<TreePath>,
        at_us: u64,
    ) {
        if hash == ContentHash::of(b"") {
            return;
        }
        let duty = if path.is_some() { Duty::Standing } else { Duty::Retained };
        let (writers, destroyers) = Default::default();
        let first = Written { duty, master, path, at_us, writers, destroyers };
        let written = self.contents.entry(hash).or_insert(first);
        written.duty = written.duty.max(duty);
        written.writers.insert(master);
    }

    /// Whether a user closed this content and none has destroyed it since.
    #[must_use]
    pub fn wants(&self, hash: &ContentHash) -> bool {
        self.contents.get(hash).is_some_and(|written| written.duty != Duty::Released)
    }

    /// A user overwrote or removed a content that the disk showed. It may be shown before it is closed.
    pub fn destroyed(&mut self, hash: &ContentHash, master: usize) {
        let duty = Duty::Released;
        let (writers, destroyers) = Default::default();
        let never = Written { duty, master, path: None, at_us: 0, writers, destroyers };
        let written = self.contents.entry(*hash).or_insert(never);
        written.duty = duty;
        written.destroyers.insert(master);
    }

    /// A user had a content back that was removed.
    pub fn brought_back(&mut self, hash: &ContentHash, master: usize) {
        if let Some(written) = self.contents.get_mut(hash) {
            written.duty = Duty::Standing;
            written.writers = BTreeSet::from([master]);
            written.destroyers.clear();
        }
    }

    /// It was not after all.
    pub fn not_brought_back(&mut self, hash: &ContentHash) {
        if let Some(written) = self.contents.get_mut(hash) {
            written.duty = Duty::Released;
        }
    }

    /// Paths at which a user removed something or settled a conflict.
    pub fn closed(&self) -> impl Iterator<Item = &TreePath> {
        self.closed.iter()
    }

    /// The power of a master was cut: what its users had written, and nobody had been told of, may be gone.
    pub fn power_cut(&mut self, master: usize, is_kept: impl Fn(&ContentHash) -> bool) {
        for (hash, written) in &mut self.contents {
            if !is_kept(hash) && written.writers.remove(&master) && written.writers.is_empty() {
                written.duty = Duty::Released;
            }
        }
    }

    /// What only the users of a master had destroyed, and nobody had been told of, may be there again.
    pub fn back_again(&mut self, master: usize, is_back: impl Fn(&ContentHash) -> bool) {
        for (hash, written) in &mut self.contents {
            let only_here = written.destroyers.iter().eq([&master]);
            if only_here && !written.writers.is_empty() && is_back(hash) {
                written.duty = Duty::Standing;
                written.destroyers.clear();
            }
        }
    }

    /// A backup was restored: what is nowhere any more was only there.
    pub fn undone(&mut self, is_kept: impl Fn(&ContentHash) -> bool) {
        for (hash, written) in &mut self.contents {
            if written.duty != Duty::Released && !is_kept(hash) {
                written.duty = Duty::Released;
            }
        }
    }

    /// A backup was restored: what only the tree that is gone still had need only be retained.
    pub fn undone_in_tree(&mut self, is_undone: impl Fn(&ContentHash) -> bool) {
        for (hash, written) in &mut self.contents {
            if written.duty == Duty::Standing && is_undone(hash) {
                written.duty = Duty::Retained;
            }
        }
    }

    /// A user removed what a path named, or settled its conflicts.
    pub fn path_closed(&mut self, path: &TreePath) {
        self.closed.insert(path.clone());
        self.forget_renamed(path);
    }

    /// A user renamed something. What had just been put over another thing is renamed by a name that
    /// nobody has seen it at: to whoever looks only now, the other was removed.
    pub fn path_renamed(&mut self, from: &TreePath, to: &TreePath) {
        if self.replaced.remove(from) {
            self.path_closed(from);
        }
        let mut names = self.renamed.get(from).cloned().unwrap_or_default();
        names.insert(from.clone());
        self.renamed.entry(to.clone()).or_default().append(&mut names);
    }

    /// Whether a user renamed something to the path at any time.
    #[must_use]
    pub fn was_renamed_to(&self, path: &TreePath) -> bool {
        self.renamed.contains_key(path)
    }

    /// A user put something else where a path had been renamed to: to whoever looks only now, it was
    /// removed where it was before.
    pub fn path_replaced(&mut self, path: &TreePath) {
        self.replaced.insert(path.clone());
        self.forget_renamed(path);
    }

    /// Everybody has looked at everything.
    pub fn all_have_looked(&mut self) {
        self.replaced.clear();
    }

    fn forget_renamed(&mut self, path: &TreePath) {
        self.closed.extend(self.renamed.get(path).into_iter().flatten().cloned());
    }

    /// Some master knows of these conflicts.
    pub fn saw_conflicts(&mut self, conflicts: &[Conflict]) {
        for conflict in conflicts {
            for version in &conflict.versions {
                if let Some(hash) = key_of(&version.body) {
                    self.disputed.entry(hash).or_default().insert(conflict.path.clone());
                }
            }
        }
    }

    /// What has been lost, given what the tree holds, what open conflicts hold and what is retained on
    /// any master.
    #[must_use]
    pub fn lost(
        &self,
        tree: &BTreeSet<ContentHash>,
        conflicts: &BTreeSet<ContentHash>,
        retained: &BTreeSet<ContentHash>,
    ) -> Vec<String> {
        let mut lost = Vec::new();
        for (hash, written) in &self.contents {
            let kept = match self.duty(hash, written) {
                Duty::Released => true,
                Duty::Standing => tree.contains(hash) || conflicts.contains(hash),
                Duty::Retained => {
                    tree.contains(hash) || conflicts.contains(hash) || retained.contains(hash)
                }
            };
            if !kept {
                let Written { duty, master, path, at_us, .. } = written;
                let path = path.as_ref().map_or("a removed file".to_owned(), ToString::to_string);
                let versions = if retained.contains(hash) { "is" } else { "not even" };
                lost.push(format!(
                    "{hash:?} ({duty:?}) closed at {at_us} us on master {master} as {path}; \
                     it {versions} among the versions"
                ));
            }
        }
        lost
    }

    fn duty(&self, hash: &ContentHash, written: &Written) -> Duty {
        let closed = |path: &TreePath| self.closed.iter().any(|closed| path.starts_with(closed));
        let was_closed = self.disputed.get(hash).is_some_and(|paths| paths.iter().any(closed));
        if was_closed { written.duty.max(Duty::Retained) } else { written.duty }
    }
}
