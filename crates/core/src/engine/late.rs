//! Late writes: what a program wrote through a handle to a file that had been replaced or removed by then.
//!
//! Its bytes are no longer at any path. They are a change all the same, of the file that was there when the
//! program opened it, and concurrent to what took its place: that stays open beside them (R7). Of a file that
//! was removed, they are what is there again, as an edit wins over a delete (R3).

use smallvec::SmallVec;

use super::{Engine, Output};
use crate::values::{
    Act, Acts, Body, DirectoryIndex, DirectoryRef, Event, LateWrite, Seen, SeenDirectory, TreeView,
};
use crate::vocabulary::{Kind, TreePath};

/// How many files are remembered of which a late write is known.
const FILES_MAX: usize = 1_024;

impl Engine {
    /// Takes in a late write, if there is still a place for it. Otherwise its bytes are among the versions.
    pub(super) fn late_write(&mut self, late: LateWrite) {
        let hash = late.content.hash;
        let Some((path, acts)) = self.acts_of_late_writer(late) else {
            if !self.transfer.at_hand.is_staged(&hash) {
                self.queued.push(Output::Unstage(hash));
            }
            return;
        };
        // Nobody wants it yet, and the version may have other bytes by the time somebody does.
        self.staged(hash);
        let (local, performed) = self.replica.perform(&acts);
        let written = performed.first().and_then(|performed| performed.written.first());
        if let Some(&(node, stamp)) = written {
            if self.late.len() >= FILES_MAX {
                self.late.clear();
            }
            self.late.insert(node, stamp);
        }
        self.event(Event::LocalChange { paths: vec![path], acts: 1 });
        self.publish(local, Vec::new());
    }

    fn acts_of_late_writer(&self, late: LateWrite) -> Option<(TreePath, Acts)> {
        let LateWrite { path, content, mode } = late;
        let (above, name) = path.split_last()?;
        let directories = self.directories_to(&above)?;
        let directory = DirectoryIndex(u32::try_from(directories.len() - 1).ok()?);
        let tree = self.replica.tree();
        let standing = tree.lookup(&path).and_then(|node| tree.entry(node));
        // Beside what is shown for an open version, it is a file of its own.
        let standing = standing.filter(|entry| tree.version_shown(entry.standing()).is_none());
        let act = match standing {
            Some(entry) if entry.body.same_bytes(&Body::File(content)) => return None,
            Some(entry) => {
                // A link may stand there, with the file as its conflict. For a directory nothing can be done.
                let mut nodes = entry.nodes.iter();
                let file = nodes.find(|seen| tree.kind(seen.node) == Some(Kind::File))?;
                let Seen { node, places, .. } = file.clone();
                // It has seen itself, and nothing of what took its place.
                let contents = self.late.get(&node).copied().into_iter().collect();
                let entry = SmallVec::from_elem(Seen { node, places, contents }, 1);
                Act::Edit { directory, entry, content, inherits: SmallVec::new() }
            }
            None => Act::Create {
                directory,
                name: name.clone(),
                body: Body::File(content),
                mode,
                owner: None,
                xattrs: Default::default(),
            },
        };
        Some((path, Acts { directories, acts: vec![act] }))
    }

    /// The directories down to `path`, as they are in the tree; none if it leads to no directory.
    fn directories_to(&self, path: &TreePath) -> Option<Vec<SeenDirectory>> {
        let tree = self.replica.tree();
        let root = SeenDirectory { parent: None, directory: DirectoryRef::Root };
        let mut directories = vec![root];
        let mut at = TreePath::root();
        for name in path.names() {
            at = at.join(name);
            let entry = tree.entry(tree.lookup(&at)?)?;
            if entry.body.kind() != Kind::Directory {
                return None;
            }
            let above = u32::try_from(directories.len() - 1).ok()?;
            let directory = DirectoryRef::Seen(entry.nodes);
            directories.push(SeenDirectory { parent: Some(DirectoryIndex(above)), directory });
        }
        Some(directories)
    }
}
