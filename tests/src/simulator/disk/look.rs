//! How a disk answers a look: faithfully, and no more than was asked.

use std::collections::{BTreeMap, BTreeSet};

use pleach_core::values::{
    DirectoryState, Found, FoundBody, ListRequest, Listed, Problem, ProblemKind, ReadRequest,
    ReadState,
};
use pleach_core::vocabulary::{ContentHash, Name, TreePath, Xattrs};

use super::{Disk, Errno, InodeKey, Node};

/// Files up to this size come back with their bytes, to travel inside a change's message.
const INLINE_BYTES_MAX: usize = 64;

impl Disk {
    /// Lists a directory, or stats names in it.
    #[must_use]
    pub fn list(&self, request: &ListRequest) -> Listed {
        let state = match self.readable_directory(&request.path) {
            Ok(directory) => self.list_directory(directory, request),
            Err(state) => *state,
        };
        Listed { path: request.path.clone(), state }
    }

    /// Whether no look finds what stands at `path`, for a directory above it can't be read.
    #[must_use]
    pub fn is_hidden(&self, path: &TreePath) -> bool {
        path.split_last().is_some_and(|(above, _)| self.readable_directory(&above).is_err())
    }

    fn readable_directory(&self, path: &TreePath) -> Result<InodeKey, Box<DirectoryState>> {
        let mut directory = self.root;
        for (depth, name) in path.names().iter().enumerate() {
            if self.unreadable.contains(&directory) {
                return Err(Box::new(unknown(TreePath::new(path.names()[..depth].to_vec()))));
            }
            directory = match self.entries(directory).map(|entries| entries.get(name)) {
                Ok(Some(&key)) => key,
                Ok(None) | Err(_) => return Err(Box::new(DirectoryState::Missing)),
            };
        }
        match self.entries(directory) {
            Ok(_) if self.unreadable.contains(&directory) => Err(Box::new(unknown(path.clone()))),
            Ok(_) => Ok(directory),
            Err(_) => Err(Box::new(DirectoryState::Missing)),
        }
    }

    fn list_directory(&self, directory: InodeKey, request: &ListRequest) -> DirectoryState {
        let entries = self.entries(directory).expect("it was found to be a directory");
        let wanted: Option<BTreeSet<&Name>> =
            request.only.as_ref().map(|only| only.iter().collect());
        let asked = |name: &Name| wanted.as_ref().is_none_or(|wanted| wanted.contains(name));
        let known: BTreeMap<_, _> =
            request.known.iter().map(|(name, print)| (name, print)).collect();
        let mut found = Vec::new();
        let mut unchanged = 0;
        for (name, &key) in entries.iter().filter(|(name, _)| asked(name)) {
            if known.get(name).is_some_and(|print| **print == self.fingerprint(key)) {
                unchanged += 1;
            } else {
                found.push(Found { name: name.clone(), body: self.found(key) });
            }
        }
        let is_gone = |name: &Name| asked(name) && !entries.contains_key(name);
        let gone = known.keys().filter(|name| is_gone(name)).map(|name| (*name).clone()).collect();
        DirectoryState::Readable {
            fingerprint: self.fingerprint(directory),
            found,
            gone,
            unchanged,
        }
    }

    fn found(&self, key: InodeKey) -> FoundBody {
        let fingerprint = self.fingerprint(key);
        match &self.inode(key).node {
            Node::Directory(_) => {
                FoundBody::Directory { fingerprint, owner: None, xattrs: Xattrs::new() }
            }
            Node::File(_) => FoundBody::File { fingerprint, owner: None, xattrs: Xattrs::new() },
            Node::Symlink(target) => {
                FoundBody::Symlink { fingerprint, owner: None, target: target.clone() }
            }
        }
    }

    /// Reads a file if it still is what was found.
    #[must_use]
    pub fn read_request(&self, request: &ReadRequest) -> ReadState {
        let key = match self.lookup(&request.path) {
            Ok(key) => key,
            Err(Errno::NotFound | Errno::NotDirectory) | Err(_) => return ReadState::Unsettled,
        };
        let fingerprint = self.fingerprint(key);
        match &self.inode(key).node {
            Node::File(bytes) if fingerprint == request.fingerprint => ReadState::Stable {
                hash: ContentHash::of(bytes),
                fingerprint,
                bytes: (bytes.len() <= INLINE_BYTES_MAX).then(|| bytes.clone()),
            },
            _ => ReadState::Unsettled,
        }
    }
}

fn unknown(path: TreePath) -> DirectoryState {
    DirectoryState::Unknown(Problem {
        kind: ProblemKind::PermissionDenied,
        path,
        reason: "the directory can't be listed".to_owned(),
    })
}
