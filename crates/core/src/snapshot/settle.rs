//! The snapshot: what a survey came to, and how the base takes it in once the acts are performed.

use std::collections::{BTreeMap, BTreeSet};

use smallvec::{SmallVec, smallvec};

use super::survey::Dir;
use crate::values::{
    Act, Acts, Base, BaseEntry, BaseId, Body, Performed, Problem, Seen, SeenNodes,
};
use crate::vocabulary::{
    Attributes, ContentHash, Fingerprint, Kind, Name, NodeId, Stamp, TreePath,
};

/// What a survey came to.
#[derive(Debug, Default)]
#[must_use = "what the disk holds is lost to the base unless the snapshot is settled"]
pub struct Snapshot {
    /// What the user did, in an order in which it can be done: directories before what is in them,
    /// and what left a directory before its removal; removals deepest first, then mtimes.
    pub acts: Acts,
    /// Small contents that the acts name, by hash; at most 2 MiB in all.
    pub contents: Vec<(ContentHash, Vec<u8>)>,
    /// Nodes whose entry the disk was found to hold already: to be planned by checkout, which sets
    /// what differs and learns which nodes are there.
    pub adopted: BTreeSet<NodeId>,
    /// Paths that were changing while looked at: to be looked at again, with their names.
    pub reread: BTreeSet<TreePath>,
    /// Entries that were not found, and whose absence does not count yet.
    pub missed: Vec<BaseId>,
    /// Entries that are gone, and were not removed because that would be too much, with all below.
    pub withheld: Vec<BaseId>,
    /// Entries that were found, and not just as the base has them.
    pub seen: BTreeSet<BaseId>,
    /// What could not be looked at.
    pub problems: Vec<Problem>,
    pub(super) steps: Vec<Step>,
    pub(super) root: Option<Fingerprint>,
}

/// One thing that the base learns.
#[derive(Debug)]
pub(super) enum Step {
    Insert {
        sighting: usize,
        directory: Dir,
        name: Name,
        nodes: Origin,
        body: Body,
        attributes: Attributes,
        fingerprint: Fingerprint,
    },
    Change {
        id: BaseId,
        to: Option<(Dir, Name)>,
        /// What it is by now, if that is adopted.
        nodes: Option<SeenNodes>,
        body: Body,
        attributes: Attributes,
        fingerprint: Fingerprint,
        /// The acts on it, by position.
        acts: SmallVec<[usize; 2]>,
    },
    Remove(BaseId),
}

/// Where the nodes of a new entry come from.
#[derive(Debug)]
pub(super) enum Origin {
    /// The act at this position.
    Created(usize),
    /// The merged tree.
    Adopted(SeenNodes),
}

impl Snapshot {
    /// Entries that are no more.
    pub fn removed(&self) -> impl Iterator<Item = BaseId> {
        self.steps.iter().filter_map(|step| match step {
            Step::Remove(id) => Some(*id),
            Step::Insert { .. } | Step::Change { .. } => None,
        })
    }

    /// Entries that are elsewhere than the base has them, by a user's act or as the tree has them already.
    pub fn moved(&self) -> impl Iterator<Item = BaseId> {
        self.steps.iter().filter_map(|step| match step {
            Step::Change { id, to: Some(_), .. } => Some(*id),
            Step::Insert { .. } | Step::Change { .. } | Step::Remove(_) => None,
        })
    }

    /// Writes into the base what the disk holds, and whose nodes that is now.
    ///
    /// `performed` has one element for each act, in order; `base` is the one that the survey was
    /// made with. An act that was not performed (an empty element) leaves the nodes as they were.
    pub fn settle(&self, base: &mut Base, performed: &[Performed]) {
        if let Some(root) = self.root {
            base.update(BaseId::ROOT, |entry| entry.fingerprint = root);
        }
        for step in &self.steps {
            if let Step::Change { id, to: Some(_), .. } = step {
                base.park(*id);
            }
        }
        for step in &self.steps {
            if let Step::Remove(id) = step {
                base.remove(*id);
            }
        }
        let mut inserted = BTreeMap::new();
        for step in &self.steps {
            self.take(base, performed, &mut inserted, step);
        }
        for &(node, stamp) in performed.iter().flat_map(|performed| &performed.pinned) {
            let Some(id) = base.by_node(node) else { continue };
            base.update(id, |entry| {
                for seen in entry.nodes.iter_mut().filter(|seen| seen.node == node) {
                    seen.places.push(stamp);
                }
            });
        }
    }

    fn take(
        &self,
        base: &mut Base,
        performed: &[Performed],
        inserted: &mut BTreeMap<usize, BaseId>,
        step: &Step,
    ) {
        match step {
            Step::Insert { sighting, directory, name, nodes, body, attributes, fingerprint } => {
                let nodes = match nodes {
                    Origin::Adopted(nodes) => nodes.clone(),
                    Origin::Created(act) => created(performed.get(*act), body.kind()),
                };
                let Some(parent) = resolve(inserted, *directory) else { return };
                // Without a node it would never be found by the tree: the next scan finds it anew.
                if nodes.is_empty() {
                    return;
                }
                let entry = BaseEntry {
                    parent,
                    name: name.clone(),
                    nodes,
                    body: body.clone(),
                    attributes: attributes.clone(),
                    fingerprint: *fingerprint,
                };
                inserted.insert(*sighting, base.insert(entry));
            }
            Step::Change { id, to, nodes, body, attributes, fingerprint, acts } => {
                if let Some((directory, name)) = to
                    && let Some(parent) = resolve(inserted, *directory)
                {
                    base.relocate(*id, parent, name.clone());
                }
                base.update(*id, |entry| {
                    if let Some(nodes) = nodes {
                        entry.nodes = nodes.clone();
                    }
                    entry.body = body.clone();
                    entry.attributes = attributes.clone();
                    entry.fingerprint = *fingerprint;
                    for &act in acts {
                        if let (Some(act), Some(performed)) =
                            (self.acts.acts.get(act), performed.get(act))
                        {
                            take_stamps(&mut entry.nodes, act, performed);
                        }
                    }
                });
            }
            Step::Remove(_) => {}
        }
    }
}

fn resolve(inserted: &BTreeMap<usize, BaseId>, directory: Dir) -> Option<BaseId> {
    match directory {
        Dir::Known(id) => Some(id),
        Dir::New(at) => inserted.get(&at).copied(),
    }
}

fn created(performed: Option<&Performed>, kind: Kind) -> SeenNodes {
    let written = performed.map(|p| p.written.as_slice()).unwrap_or_default();
    let contents = |stamp: Stamp| match kind {
        Kind::Directory => smallvec![],
        Kind::File | Kind::Symlink => smallvec![stamp],
    };
    written
        .iter()
        .map(|&(node, stamp)| Seen { node, places: smallvec![stamp], contents: contents(stamp) })
        .collect()
}

/// Learns the writes of an act on an entry: its author has seen them, and nothing older.
fn take_stamps(nodes: &mut SeenNodes, act: &Act, performed: &Performed) {
    if let Some((node, stamp)) = performed.made {
        let (places, contents) = (smallvec![stamp], smallvec![stamp]);
        *nodes = smallvec![Seen { node, places, contents }];
        return;
    }
    nodes.retain(|seen| !performed.absorbed.contains(&seen.node));
    for &(node, stamp) in &performed.written {
        for seen in nodes.iter_mut().filter(|seen| seen.node == node) {
            match act {
                Act::Move { .. } => seen.places = smallvec![stamp],
                Act::Edit { .. } | Act::Relink { .. } => seen.contents = smallvec![stamp],
                _ => {}
            }
        }
    }
}
