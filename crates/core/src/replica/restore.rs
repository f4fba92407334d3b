//! What was, and making it so again: a change like any other, that all masters follow.
//!
//! How a node was at a moment is how the last change before it that is about the node left it, in the eyes of
//! its author. What is restored in place is an edit (R7, R9): what is open beside it stays open. What had been
//! deleted lives again at its last place, by places, contents and lives written anew, so that no delete on
//! its way has seen them (R3).

use std::collections::BTreeSet;

use automerge::ChangeHash;

use super::acts;
use super::document::Draft;
use super::register::{Content, Deletion, Place, Register, Value};
use super::tree::Tree;
use super::{Local, Replica, gate};
use crate::values::{
    Act, Acts, Body, DirectoryIndex, DirectoryRef, Former, Life, Restoring, SeenDirectory,
    SignedChange, TreeView,
};
use crate::vocabulary::{Kind, NodeId};

/// How large a change gets before what is left goes into another, in bytes.
const CHANGE_BYTES_TARGET: usize = 1 << 20;

/// A moment of the past: when a change had just been made, where it was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PastMoment(ChangeHash);

impl PastMoment {
    /// When `change` had just been made.
    ///
    /// # Errors
    /// If the change can't be read.
    pub fn after(change: &SignedChange) -> Result<Self, gate::Refusal> {
        gate::hash_of(&change.bytes).map(Self)
    }
}

impl Replica {
    /// How a node was at a moment, as the author of that change saw it; the change must be part of the
    /// replica, and about the node. None if that is not known.
    ///
    /// Of a directory the parent is not told.
    #[must_use]
    pub fn as_of(&self, node: NodeId, moment: PastMoment) -> Option<Former> {
        let at = [moment.0];
        let document = &self.document;
        let newest = |register: Register| {
            let values = document.values_before(node, &register, &at).into_iter();
            values.max_by_key(|written| written.stamp)
        };
        let content = newest(Register::Content)?;
        let Value::Content(Content { body, .. }) = content.value else { return None };
        let mode = newest(Register::Mode).and_then(|written| match written.value {
            Value::Mode(mode) => Some(mode),
            _ => None,
        });
        let parent = match (body.kind(), newest(Register::Place).map(|written| written.value)) {
            (Kind::File | Kind::Symlink, Some(Value::Place(place))) => Some(place.parent),
            _ => None,
        };
        let life = match newest(Register::Deleted).map(|written| written.value) {
            Some(Value::Deleted(Some(Deletion { observed, .. })))
                if body.kind() == Kind::Directory || observed.contains(&content.stamp) =>
            {
                Life::Deleted
            }
            _ => Life::There,
        };
        Some(Former { node, parent, stamp: content.stamp, body, mode, life })
    }

    /// How a node was when it was made, and when that was, in milliseconds since 1970.
    #[must_use]
    pub fn as_born(&self, node: NodeId) -> Option<(i64, Former)> {
        let birth = self.document.birth(node)?;
        let time_ms = self.document.written_ms(birth.stamp)?;
        let stamp = birth.stamp;
        let super::Birth { place: Place { parent, .. }, body, mode, .. } = birth.value;
        let (parent, mode, life) = (Some(parent), Some(mode), Life::There);
        Some((time_ms, Former { node, parent, stamp, body, mode, life }))
    }

    /// Makes nodes be as they were. What is so already costs nothing; what is no node is passed over.
    ///
    /// That bytes can be had is the caller's to see to.
    pub fn restore(&mut self, wanted: &[Restoring]) -> Local {
        let (there, gone): (Vec<&Restoring>, Vec<&Restoring>) = wanted
            .iter()
            .partition(|wanted| self.tree.is_live(wanted.node) && !self.tree.is_held(wanted.node));
        let (mut local, mut updates) = (Local::default(), Vec::new());
        let acts = acts_of(&self.tree, &there);
        let mut progress = acts::Progress::default();
        while progress.performed.len() < acts.acts.len() {
            let mut draft = self.document.begin();
            draft.set_time(self.unix_ms);
            let before = progress.performed.len();
            acts::perform(&self.tree, &mut draft, &acts, &mut progress);
            // What tells it from an edit, and lets a deletion on its way not win.
            let performed = progress.performed[before..].iter();
            for (node, _) in performed.filter_map(|performed| performed.written.first()) {
                draft.register(*node, Register::Deleted, Value::Deleted(None));
            }
            let committed = draft.commit();
            self.note(committed, &mut local, &mut updates);
        }
        let mut revived = BTreeSet::new();
        let mut gone = gone.into_iter().peekable();
        while gone.peek().is_some() {
            let mut draft = self.document.begin();
            draft.set_time(self.unix_ms);
            while draft.size_estimate() < CHANGE_BYTES_TARGET
                && let Some(wanted) = gone.next()
            {
                revive(&self.tree, &mut draft, wanted, &mut revived);
            }
            let committed = draft.commit();
            self.note(committed, &mut local, &mut updates);
        }
        local.delta = self.absorb(updates);
        local
    }
}

/// Brings back a node, and the directories above that are not there.
fn revive(tree: &Tree, draft: &mut Draft<'_>, wanted: &Restoring, revived: &mut BTreeSet<NodeId>) {
    let node = wanted.node;
    if tree.kind(node).is_none() || !revived.insert(node) {
        return;
    }
    let above = tree.above(node);
    if above.iter().any(|&directory| tree.is_fallen(directory)) {
        // What a user relies on is written down (R15).
        for fallen in tree.fallen().collect::<Vec<_>>() {
            put(tree, draft, fallen);
        }
    }
    let mut parent = NodeId::ROOT;
    for &directory in above.iter().rev() {
        let Some((_, Place { name, .. })) = tree.place(directory) else { continue };
        // What has been made anew under its name takes its place.
        let standing = tree
            .child(parent, &name)
            .filter(|&node| tree.kind(node) == Some(Kind::Directory) && !tree.is_held(node));
        let dead = standing.is_none().then_some(directory);
        if let Some(directory) = dead.filter(|&directory| revived.insert(directory)) {
            let place = Place { parent, name };
            draft.register(directory, Register::Place, Value::Place(place));
            draft.register(directory, Register::Deleted, Value::Deleted(None));
        }
        parent = standing.unwrap_or(directory);
    }
    if let Some((_, Place { name, .. })) = tree.place(node) {
        draft.register(node, Register::Place, Value::Place(Place { parent, name }));
    }
    draft.register(node, Register::Deleted, Value::Deleted(None));
    let body = wanted.body.clone().or_else(|| tree.body(node));
    if let Some(body) = body.filter(|body| body.kind() != Kind::Directory) {
        let content = Content { body, carried: Vec::new() };
        draft.register(node, Register::Content, Value::Content(content));
    }
    if let Some(mode) = wanted.mode {
        draft.register(node, Register::Mode, Value::Mode(mode));
    }
}

/// Writes down where a node stands.
fn put(tree: &Tree, draft: &mut Draft<'_>, node: NodeId) {
    if let Some((_, place)) = tree.place(node) {
        draft.register(node, Register::Place, Value::Place(place));
    }
}

/// What a user would do who wrote it all back, and had seen all that is there.
fn acts_of(tree: &Tree, wanted: &[&Restoring]) -> Acts {
    let root = SeenDirectory { parent: None, directory: DirectoryRef::Root };
    let mut acts = Acts { directories: vec![root], acts: Vec::new() };
    let mut known = std::collections::BTreeMap::from([(NodeId::ROOT, DirectoryIndex(0))]);
    for Restoring { node, body, mode } in wanted.iter().copied() {
        let Some(entry) = tree.entry(*node) else { continue };
        let mut chain = tree.above(*node);
        chain.reverse();
        let mut directory = DirectoryIndex(0);
        for above in chain {
            let parent = Some(directory);
            directory = *known.entry(above).or_insert_with(|| {
                let seen = tree.entry(above).map(|entry| entry.nodes).unwrap_or_default();
                acts.directories
                    .push(SeenDirectory { parent, directory: DirectoryRef::Seen(seen) });
                let index =
                    u32::try_from(acts.directories.len() - 1).expect("a tree fits in memory");
                DirectoryIndex(index)
            });
        }
        let nodes = entry.nodes;
        let other = body.as_ref().filter(|body| !body.same_bytes(&entry.body));
        match other {
            Some(Body::File(content)) if entry.body.kind() == Kind::File => {
                let (entry, content) = (nodes.clone(), *content);
                acts.acts.push(Act::Edit {
                    directory,
                    entry,
                    content,
                    inherits: Default::default(),
                });
            }
            Some(Body::Symlink { target, mtime }) if entry.body.kind() == Kind::Symlink => {
                let (entry, target, mtime) = (nodes.clone(), target.clone(), *mtime);
                acts.acts.push(Act::Relink { directory, entry, target, mtime });
            }
            _ => {}
        }
        if let Some(mode) = mode.filter(|mode| *mode != entry.attributes.mode) {
            acts.acts.push(Act::SetMode { directory, entry: nodes, mode });
        }
    }
    acts
}
