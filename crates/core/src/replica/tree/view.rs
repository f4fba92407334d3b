//! What others may ask of the tree.

use std::sync::Arc;

use super::Tree;
use super::node::{DirectoryPlace, Key, Keys, Placement};
use crate::replica::register::{Carried, Content, Place};
use crate::replica::sibling_names::Stem;
use crate::values::{Body, EntryView, Seen, TreeView};
use crate::vocabulary::{Attributes, Kind, Name, NodeId, Stamp, TreePath, Xattrs};

/// What a file or link holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contents {
    /// The write that stands: the largest stamp.
    pub stamp: Stamp,
    /// What it wrote; of several writes of equal bytes, with the newest mtime (R7).
    pub body: Body,
    /// Versions that nobody has closed: concurrent ones and those carried along (R7, R9), each of other
    /// bytes than what stands, each once, by falling stamp.
    pub open: Vec<Carried>,
}

/// Nodes. One that is not known answers as one that is not there.
impl Tree {
    /// What sort of thing `node` is; none if no such node was ever born.
    #[must_use]
    pub fn kind(&self, node: NodeId) -> Option<Kind> {
        self.nodes[self.key(node)?.0 as usize].kind()
    }

    /// Whether `node` is in the tree: not deleted, or kept by a live child. It may be hidden.
    #[must_use]
    pub fn is_live(&self, node: NodeId) -> bool {
        self.key(node).is_some_and(|key| self.nodes[key.0 as usize].is_attached)
    }

    /// Whether `node` is a deleted directory that a live child keeps in the tree (R5).
    #[must_use]
    pub fn is_held(&self, node: NodeId) -> bool {
        let node = self.key(node).map(|key| &self.nodes[key.0 as usize]);
        node.is_some_and(|node| node.is_dead && node.is_attached)
    }

    /// Whether `node` lives although somebody has deleted it, who had not seen all of it (R3).
    #[must_use]
    pub fn is_disputed(&self, node: NodeId) -> bool {
        let lives = |key: Key| {
            let node = &self.nodes[key.0 as usize];
            node.is_attached && !node.is_dead
        };
        self.key(node).is_some_and(lives) && self.was_deleted(node)
    }

    /// Whether somebody has deleted `node`, and that holds (R4), dead as it is or not.
    #[must_use]
    pub fn was_deleted(&self, node: NodeId) -> bool {
        self.key(node).is_some_and(|key| {
            let mut removals = self.nodes[key.0 as usize].removals.iter().flatten();
            removals.any(|removal| !self.is_void(removal))
        })
    }

    /// The directories that stand elsewhere than at their newest place, since that made a cycle (R2).
    pub fn fallen(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.fallen.iter().map(|&key| self.id(key))
    }

    /// Whether `node` is one of [`Self::fallen`].
    #[must_use]
    pub fn is_fallen(&self, node: NodeId) -> bool {
        self.key(node).is_some_and(|key| self.fallen.contains(&key))
    }

    /// The directories below `directory` that stand there by a repair: fallen back (R2), or deleted and
    /// kept by a live child (R5).
    #[must_use]
    pub fn repaired_below(&self, directory: NodeId) -> Vec<NodeId> {
        let repaired = self.fallen.union(&self.held).map(|&key| self.id(key));
        repaired.filter(|&node| self.above(node).contains(&directory)).collect()
    }

    /// Where `node` stands, live or not, and the write that put it there; none of the root.
    #[must_use]
    pub fn place(&self, node: NodeId) -> Option<(Stamp, Place)> {
        let place = self.nodes[self.key(node)?.0 as usize].place.as_ref()?;
        Some(self.stamped(place))
    }

    /// All places that a directory ever had, and of other nodes the current ones; newest first.
    #[must_use]
    pub fn place_history(&self, node: NodeId) -> Vec<(Stamp, Place)> {
        let Some(key) = self.key(node) else { return Vec::new() };
        let node = &self.nodes[key.0 as usize];
        if let Some(directory) = node.directory() {
            return directory.history.iter().map(|entry| self.stamped(&entry.place)).collect();
        }
        let places = node.other_places().iter().chain(&node.place);
        let mut places: Vec<_> = places.map(|place| self.stamped(place)).collect();
        places.reverse();
        places
    }

    /// What a file or link holds; none of a directory.
    #[must_use]
    pub fn contents(&self, node: NodeId) -> Option<Contents> {
        let key = self.key(node)?;
        let node = &self.nodes[key.0 as usize];
        let body = node.body().filter(|body| body.kind() != Kind::Directory)?;
        let stamp = self.interner.stamp(node.stamp);
        Some(Contents { stamp, body, open: self.open_versions(key) })
    }

    /// All current values of the node's content register that no delete has seen and nobody has closed, by
    /// rising stamp; none of a directory.
    #[must_use]
    pub fn content_values(&self, node: NodeId) -> Vec<(Stamp, Content)> {
        let Some(key) = self.key(node) else { return Vec::new() };
        let node = &self.nodes[key.0 as usize];
        let Some(body) = node.body().filter(|body| body.kind() != Kind::Directory) else {
            return Vec::new();
        };
        match &*self.live_contents(key) {
            [] => {
                let content = Content { body, carried: Vec::new() };
                vec![(self.interner.stamp(node.stamp), content)]
            }
            several => several
                .iter()
                .filter(|value| {
                    let stamp = self.interner.stamp(value.stamp);
                    value.stamp == node.stamp || !self.is_closed(key, stamp)
                })
                .map(|value| {
                    let carried = self.live_carried(key, value).cloned().collect();
                    let content = Content { body: value.body.clone(), carried };
                    (self.interner.stamp(value.stamp), content)
                })
                .collect(),
        }
    }

    /// What the node itself holds, with the mtime to be shown, whether it stands, is hidden or is dead.
    #[must_use]
    pub fn body(&self, node: NodeId) -> Option<Body> {
        self.shown_body(self.key(node)?)
    }

    /// The node's own attributes, whether it stands, is hidden or is dead.
    #[must_use]
    pub fn attributes(&self, node: NodeId) -> Option<Attributes> {
        Some(self.attributes_of(self.key(node)?))
    }

    /// The stamps that a delete of `node` has to list now (R3).
    #[must_use]
    pub fn seen(&self, node: NodeId) -> Option<Seen> {
        let key = self.key(node)?;
        self.nodes[key.0 as usize].kind()?;
        Some(self.seen_of(key))
    }

    /// The directories above where `node` stands, innermost first, without the root.
    #[must_use]
    pub fn above(&self, node: NodeId) -> Vec<NodeId> {
        let mut above = Vec::new();
        let mut here = self.key(node);
        while let Some(key) = here {
            here = self.nodes[key.0 as usize].place.as_ref().map(|place| place.parent);
            here = here.filter(|&parent| parent != Key::ROOT);
            above.extend(here.map(|parent| self.id(parent)));
        }
        above
    }

    /// All nodes of the entry that `node` is part of, in the order of R6, the standing one first: the
    /// directories, then the rest, each by the stamps of their places. Empty if it is not in the tree.
    #[must_use]
    pub fn members_of_entry(&self, node: NodeId) -> Vec<NodeId> {
        let Some(key) = self.key(node) else { return Vec::new() };
        self.entry_keys(key).iter().map(|&key| self.id(key)).collect()
    }

    /// The directories that are shown as one with `directory`, itself among them, the standing one first.
    #[must_use]
    pub fn united_directories(&self, directory: NodeId) -> Vec<NodeId> {
        let Some(key) = self.key(directory) else { return Vec::new() };
        self.united(key).iter().map(|&key| self.id(key)).collect()
    }
}

/// Paths.
impl Tree {
    /// The standing node at `path`.
    #[must_use]
    pub fn lookup(&self, path: &TreePath) -> Option<NodeId> {
        let mut here = Key::ROOT;
        for (index, name) in path.names().iter().enumerate() {
            match self.keys_at(here, name.as_bytes()).first() {
                Some(&there) => here = there,
                None if index + 1 == path.names().len() => return self.sibling_called(here, name),
                None => return None,
            }
        }
        Some(self.id(here))
    }

    /// The path of the entry that `node` is part of; none if it is not in the tree.
    #[must_use]
    pub fn path(&self, node: NodeId) -> Option<TreePath> {
        self.sibling_path(node).or_else(|| self.path_of(self.key(node)?))
    }

    /// All nodes that were ever born, the root first, dead ones among them.
    pub fn nodes(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.nodes.iter().map(|node| node.id)
    }

    /// All entries, each directory before what it holds, names in order.
    #[must_use]
    pub fn entries(&self) -> Entries<'_> {
        let mut entries = Entries { tree: self, ahead: Vec::new() };
        entries.push_children(&TreePath::root(), NodeId::ROOT);
        entries
    }

    pub(super) fn path_of(&self, key: Key) -> Option<TreePath> {
        let mut names = Vec::new();
        let mut here = key;
        while here != Key::ROOT {
            let node = &self.nodes[here.0 as usize];
            if !node.is_attached {
                return None;
            }
            let place = node.place.as_ref()?;
            names.push(name_of(place));
            here = place.parent;
        }
        names.reverse();
        Some(TreePath::new(names))
    }

    /// The path that a node at this place would have; none if its directory is not in the tree.
    pub(super) fn path_of_spot(&self, place: &Placement) -> Option<TreePath> {
        Some(self.path_of(place.parent)?.join(&name_of(place)))
    }
}

impl TreeView for Tree {
    fn entry(&self, node: NodeId) -> Option<EntryView> {
        let sibling = self.sibling_view(node);
        sibling.or_else(|| self.entry_of(&self.without_siblings(self.entry_keys(self.key(node)?))))
    }

    fn child(&self, directory: NodeId, name: &Name) -> Option<NodeId> {
        let directory = self.key(directory)?;
        let standing = self.keys_at(directory, name.as_bytes()).first().map(|&key| self.id(key));
        standing.or_else(|| self.sibling_called(directory, name))
    }

    fn children(&self, directory: NodeId) -> Vec<(Name, NodeId)> {
        let Some(key) = self.key(directory) else { return Vec::new() };
        let children = self.children_of(key).into_iter();
        let mut children: Vec<_> = children.map(|key| (self.name(key), self.id(key))).collect();
        let siblings = self.siblings_in(key);
        if !siblings.is_empty() {
            children.extend(siblings);
            children.sort();
        }
        children
    }

    fn siblings(&self, node: NodeId) -> Vec<NodeId> {
        self.siblings_of(node)
    }

    fn sibling_of(&self, node: NodeId) -> Option<NodeId> {
        self.path_of_sibling(node)
    }

    fn was_sibling(&self, node: NodeId, name: &Name) -> bool {
        let node = self.key(node).map(|key| &self.nodes[key.0 as usize]);
        let gone = node.filter(|node| !node.is_attached && node.directory().is_none());
        let place = gone.and_then(|node| node.place.as_ref());
        place.is_some_and(|place| *place.name != *name.as_bytes())
            && Stem::of_name(name.as_bytes()).is_some()
    }

    fn knows(&self, node: NodeId) -> bool {
        self.key(node).is_some() || self.path_of_sibling(node).is_some()
    }
}

impl Tree {
    /// The nodes of the entry that `key` is part of; none of the root and of what is not in the tree.
    pub(super) fn entry_keys(&self, key: Key) -> Keys {
        let node = &self.nodes[key.0 as usize];
        match &node.place {
            Some(place) if node.is_attached => self.keys_at(place.parent, &place.name),
            _ => Keys::new(),
        }
    }

    fn entry_of(&self, keys: &Keys) -> Option<EntryView> {
        let &standing = keys.first()?;
        let place = self.nodes[standing.0 as usize].place.as_ref()?;
        Some(EntryView {
            nodes: keys.iter().map(|&key| self.seen_of(key)).collect(),
            parent: self.id(self.united(place.parent)[0]),
            name: name_of(place),
            body: self.shown_body(standing)?,
            attributes: self.attributes_of(standing),
        })
    }

    /// The standing nodes in the directory that `key` is part of, by name.
    fn children_of(&self, key: Key) -> Vec<Key> {
        let united = self.united(key);
        if let [alone] = united[..] {
            let Some(directory) = self.directory(alone) else { return Vec::new() };
            let standing = directory.children.iter().map(|(name, keys)| match keys[..] {
                [only] => only,
                _ => self.keys_at(alone, name)[0],
            });
            return standing.collect();
        }
        let names: std::collections::BTreeSet<&[u8]> = united
            .iter()
            .filter_map(|&member| self.directory(member))
            .flat_map(|directory| directory.children.keys().map(|name| &**name))
            .collect();
        names.into_iter().map(|name| self.keys_at(key, name)[0]).collect()
    }

    fn name(&self, key: Key) -> Name {
        name_of(self.nodes[key.0 as usize].place.as_ref().expect("a child stands at a place"))
    }

    fn stamped(&self, place: &Placement) -> (Stamp, Place) {
        let name = name_of(place);
        (self.interner.stamp(place.stamp), Place { parent: self.id(place.parent), name })
    }

    pub(super) fn seen_of(&self, key: Key) -> Seen {
        let node = &self.nodes[key.0 as usize];
        let stamp = |tick| self.interner.stamp(tick);
        let (mut places, mut contents) = (smallvec::SmallVec::new(), smallvec::SmallVec::new());
        if let Some(directory) = node.directory() {
            let current = directory.current().map(|entry: &DirectoryPlace| entry.place.stamp);
            places.extend(current.map(stamp));
            places.reverse();
        } else {
            let current = node.other_places().iter().chain(&node.place);
            places.extend(current.map(|place| stamp(place.stamp)));
            match &*self.live_contents(key) {
                [] => contents.push(stamp(node.stamp)),
                several => contents.extend(several.iter().map(|content| stamp(content.stamp))),
            }
        }
        Seen { node: node.id, places, contents }
    }

    /// What stands in the node, with the mtime to be shown: a later touch wins over the write's.
    pub(super) fn shown_body(&self, key: Key) -> Option<Body> {
        let node = &self.nodes[key.0 as usize];
        let body = node.body()?;
        let touch = node.rare.as_ref().and_then(|rare| rare.touch);
        match touch {
            Some((tick, mtime)) if self.interner.stamp(tick) > self.interner.stamp(node.stamp) => {
                Some(body.with_mtime(mtime))
            }
            _ => Some(body),
        }
    }

    pub(super) fn attributes_of(&self, key: Key) -> Attributes {
        let node = &self.nodes[key.0 as usize];
        Attributes {
            mode: node.mode,
            owner: self.interner.owner(node.owner).cloned(),
            xattrs: node.rare.as_ref().map_or_else(Xattrs::new, |rare| rare.xattrs.clone()),
        }
    }
}

/// All entries of a tree; see [`Tree::entries`].
#[derive(Debug)]
pub struct Entries<'a> {
    tree: &'a Tree,
    /// The standing nodes of entries still to come, the next one last.
    ahead: Vec<(TreePath, NodeId)>,
}

impl Entries<'_> {
    fn push_children(&mut self, path: &TreePath, directory: NodeId) {
        let children = self.tree.children(directory).into_iter().rev();
        self.ahead.extend(children.map(|(name, node)| (path.join(&name), node)));
    }
}

impl Iterator for Entries<'_> {
    type Item = (TreePath, EntryView);

    fn next(&mut self) -> Option<Self::Item> {
        let (path, node) = self.ahead.pop()?;
        let entry = self.tree.entry(node)?;
        if entry.body.kind() == Kind::Directory {
            self.push_children(&path, node);
        }
        Some((path, entry))
    }
}

pub(super) fn name_of(place: &Placement) -> Name {
    Name::new(Arc::clone(&place.name)).expect("it came from a name")
}
