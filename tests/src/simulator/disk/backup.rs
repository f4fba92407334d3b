//! Backups: a disk as it was at one moment, and ways to bring that back.

use std::collections::BTreeMap;

use pleach_core::vocabulary::TreePath;

use super::journal::Image;
use super::{Disk, InodeKey, Node, Parent};

/// A disk as it was: the tree, and what pleach keeps beside it.
#[derive(Clone, Debug)]
pub struct Backup(Image);

/// How a tree is brought back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Copying {
    /// It is emptied, and everything is copied to it.
    All,
    /// What differs is copied over it, and what is too much removed, as rsync does.
    Differing,
}

impl Disk {
    /// Takes a backup, unless something waits in the parking area.
    #[must_use]
    pub fn backup(&self) -> Option<Backup> {
        self.parked.is_empty().then(|| Backup(self.image()))
    }

    /// The whole disk is as it was, down to the inode numbers: a snapshot is rolled back.
    pub fn roll_back(&mut self, backup: &Backup) {
        self.set_image(backup.0.clone());
        self.close_all();
        self.tick();
        self.restart_journal();
    }

    /// The tree holds what it held, in other inodes.
    pub fn restore_tree(&mut self, backup: &Backup, copying: Copying) {
        self.close_all();
        let mut before = self.clone_with(backup);
        before.unreadable.clear();
        let wanted: BTreeMap<TreePath, InodeKey> = before.paths().into_iter().collect();
        for (path, key) in self.paths().into_iter().rev() {
            let stays = copying == Copying::Differing
                && wanted.get(&path).is_some_and(|&want| self.is_alike(key, &before, want));
            if !stays {
                let (directory, name) = self.parent_of(&path).expect("it was just listed");
                if self.entries(key).is_ok_and(|entries| !entries.is_empty()) {
                    continue;
                }
                self.unlink_name(directory, &name);
                self.collect(key);
            }
        }
        for (path, &want) in &wanted {
            if self.lookup(path).is_err() {
                let (directory, name) = self.parent_of(path).expect("parents come first");
                let inode = before.inode(want).clone();
                let node = match inode.node {
                    Node::Directory(_) => Node::Directory(BTreeMap::new()),
                    node => node,
                };
                let key = self.make(node, inode.mode);
                self.link(directory, name, key);
            }
        }
        for (path, &want) in wanted.iter().rev() {
            let (mode, modified) = (before.inode(want).mode, before.inode(want).modified);
            let key = self.lookup(path).expect("it was just made");
            let inode = self.inode_mut(key);
            if (inode.mode, inode.modified) != (mode, modified) {
                (inode.mode, inode.modified) = (mode, modified);
                self.stamp_changed(key);
            }
        }
        self.restart_journal();
    }

    /// What pleach keeps beside the tree is what it was: the versions.
    pub fn restore_state(&mut self, backup: &Backup) {
        self.close_all();
        let before = self.clone_with(backup);
        for key in std::mem::take(&mut self.versions) {
            self.inode_mut(key).parent = None;
            self.displaced_from.remove(&key);
            self.collect(key);
        }
        for (_, key) in std::mem::take(&mut self.parked) {
            self.forget_tree(key);
        }
        for &old in &before.versions {
            let inode = before.inode(old).clone();
            let key = self.make(inode.node, inode.mode);
            self.inode_mut(key).modified = inode.modified;
            self.inode_mut(key).parent = Some(Parent::Versions);
            self.versions.push(key);
            if let Some(path) = before.displaced_from.get(&old) {
                self.displaced_from.insert(key, path.clone());
            }
        }
        self.restart_journal();
    }

    /// Another disk with the same on it, in other inodes.
    #[must_use]
    pub fn clone_to(&self, device: u64) -> Self {
        let everything = Backup(self.image());
        let mut clone = Self::new(device, self.numbers, self.clock);
        if self.has_journal() {
            clone.keep_journal();
        }
        clone.restore_tree(&everything, Copying::All);
        clone.restore_state(&everything);
        clone
    }

    fn clone_with(&self, backup: &Backup) -> Self {
        let mut disk = Self::new(self.device, self.numbers, self.clock);
        disk.set_image(backup.0.clone());
        disk
    }

    fn is_alike(&self, key: InodeKey, other: &Self, theirs: InodeKey) -> bool {
        let (ours, theirs) = (self.inode(key), other.inode(theirs));
        match (&ours.node, &theirs.node) {
            (Node::Directory(_), Node::Directory(_)) => true,
            (Node::File(a), Node::File(b)) => {
                (a.len(), ours.modified) == (b.len(), theirs.modified)
            }
            (Node::Symlink(a), Node::Symlink(b)) => a == b,
            _ => false,
        }
    }

    fn forget_tree(&mut self, top: InodeKey) {
        let inside: Vec<InodeKey> = self
            .entries(top)
            .map(|entries| entries.values().copied().collect())
            .unwrap_or_default();
        inside.into_iter().for_each(|key| self.forget_tree(key));
        self.inode_mut(top).parent = None;
        self.collect(top);
    }

    /// The programs that held files open are gone.
    pub(super) fn close_all(&mut self) {
        for key in self.inodes.keys().copied().collect::<Vec<_>>() {
            if self.inode(key).open > 0 {
                self.inode_mut(key).open = 0;
            }
            self.collect(key);
        }
    }
}
