//! The system calls of a user's program, on the virtual disk.

use std::collections::BTreeMap;

use pleach_core::values::LinkTarget;
use pleach_core::vocabulary::{Mode, Timestamp, TreePath};

use super::{Disk, Errno, InodeKey, Node, Parent};

/// What open(2) does with the bytes that are there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Truncate {
    /// O_TRUNC
    ToEmpty,
    /// They stay.
    Keep,
}

/// Whether open(2) made the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opened {
    /// It was there.
    Existing,
    /// It is new.
    Created,
}

/// System calls as programs make them.
impl Disk {
    /// open(2) with O_CREAT, and O_TRUNC if asked. Holds the inode open until [`Disk::close`].
    pub fn open(
        &mut self,
        path: &TreePath,
        truncate: Truncate,
    ) -> Result<(InodeKey, Opened), Errno> {
        let (parent, name) = self.parent_of(path)?;
        let (key, opened) = match self.entries(parent)?.get(&name) {
            Some(&key) => {
                match &self.inode(key).node {
                    Node::File(_) => {}
                    Node::Directory(_) => return Err(Errno::IsDirectory),
                    Node::Symlink(_) => return Err(Errno::Loop),
                }
                if truncate == Truncate::ToEmpty {
                    self.write(key, |bytes| bytes.clear());
                }
                (key, Opened::Existing)
            }
            None => {
                let key = self.make(Node::File(Vec::new()), Mode::new(0o644));
                self.link(parent, name, key);
                self.log();
                (key, Opened::Created)
            }
        };
        self.inode_mut(key).open += 1;
        Ok((key, opened))
    }

    /// write(2) on an open file.
    pub fn write(&mut self, key: InodeKey, change: impl FnOnce(&mut Vec<u8>)) {
        let now = self.tick();
        let inode = self.inode_mut(key);
        if let Node::File(bytes) = &mut inode.node {
            change(bytes);
            inode.modified = now;
            inode.changed = now;
            self.log();
        }
    }

    /// close(2).
    pub fn close(&mut self, key: InodeKey) {
        self.inode_mut(key).open -= 1;
        self.collect(key);
    }

    /// mkdir(2).
    pub fn make_directory(&mut self, path: &TreePath) -> Result<(), Errno> {
        self.create(path, Node::Directory(BTreeMap::new()), Mode::new(0o755))
    }

    /// symlink(2).
    pub fn make_symlink(&mut self, path: &TreePath, target: LinkTarget) -> Result<(), Errno> {
        self.create(path, Node::Symlink(target), Mode::new(0o777))
    }

    fn create(&mut self, path: &TreePath, node: Node, mode: Mode) -> Result<(), Errno> {
        let (parent, name) = self.parent_of(path)?;
        if self.entries(parent)?.contains_key(&name) {
            return Err(Errno::Exists);
        }
        let key = self.make(node, mode);
        self.link(parent, name, key);
        self.log();
        Ok(())
    }

    /// unlink(2).
    pub fn unlink(&mut self, path: &TreePath) -> Result<(), Errno> {
        let (parent, name) = self.parent_of(path)?;
        let key = *self.entries(parent)?.get(&name).ok_or(Errno::NotFound)?;
        if self.entries(key).is_ok() {
            return Err(Errno::IsDirectory);
        }
        self.unlink_name(parent, &name);
        self.stamp_changed(key);
        self.collect(key);
        self.log();
        Ok(())
    }

    /// rmdir(2).
    pub fn remove_directory(&mut self, path: &TreePath) -> Result<(), Errno> {
        let (parent, name) = self.parent_of(path)?;
        let key = *self.entries(parent)?.get(&name).ok_or(Errno::NotFound)?;
        if !self.entries(key)?.is_empty() {
            return Err(Errno::NotEmpty);
        }
        self.unlink_name(parent, &name);
        self.collect(key);
        self.log();
        Ok(())
    }

    /// rename(2).
    pub fn rename(&mut self, from: &TreePath, to: &TreePath) -> Result<(), Errno> {
        let (from_parent, from_name) = self.parent_of(from)?;
        let key = *self.entries(from_parent)?.get(&from_name).ok_or(Errno::NotFound)?;
        let (to_parent, to_name) = self.parent_of(to)?;
        if self.is_at_or_below(to_parent, key) {
            return Err(Errno::Invalid);
        }
        if let Some(&over) = self.entries(to_parent)?.get(&to_name) {
            if over == key {
                return Ok(());
            }
            match (self.entries(key).is_ok(), self.entries(over)) {
                (true, Err(_)) => return Err(Errno::NotDirectory),
                (false, Ok(_)) => return Err(Errno::IsDirectory),
                (true, Ok(entries)) if !entries.is_empty() => return Err(Errno::NotEmpty),
                _ => {}
            }
            self.unlink_name(to_parent, &to_name);
            self.collect(over);
        }
        self.unlink_name(from_parent, &from_name);
        self.link(to_parent, to_name, key);
        self.stamp_changed(key);
        self.log();
        Ok(())
    }

    pub(super) fn is_at_or_below(&self, directory: InodeKey, top: InodeKey) -> bool {
        let mut next = directory;
        loop {
            if next == top {
                return true;
            }
            match self.inode(next).parent {
                Some(Parent::Directory(parent, _)) => next = parent,
                _ => return false,
            }
        }
    }

    /// chmod(2); a link has no mode of its own.
    pub fn change_mode(&mut self, path: &TreePath, mode: Mode) -> Result<(), Errno> {
        let key = self.lookup(path)?;
        if matches!(self.inode(key).node, Node::Symlink(_)) {
            return Err(Errno::Loop);
        }
        self.inode_mut(key).mode = mode;
        self.stamp_changed(key);
        self.log();
        Ok(())
    }

    /// utimensat(2) with AT_SYMLINK_NOFOLLOW; none is now.
    pub fn touch(&mut self, path: &TreePath, modified: Option<Timestamp>) -> Result<(), Errno> {
        let key = self.lookup(path)?;
        let now = self.tick();
        let inode = self.inode_mut(key);
        inode.modified = modified.unwrap_or(now);
        inode.changed = now;
        self.log();
        Ok(())
    }

    /// The mtime of what is there.
    #[must_use]
    pub fn modified(&self, path: &TreePath) -> Option<Timestamp> {
        Some(self.inode(self.lookup(path).ok()?).modified)
    }

    /// Makes a directory impossible to list, or everything possible again.
    pub fn set_unreadable(&mut self, directory: Option<&TreePath>) {
        match directory {
            None => self.unreadable.clear(),
            Some(path) => {
                if let Ok(key) = self.lookup(path) {
                    self.unreadable.insert(key);
                }
            }
        }
    }
}
