//! Deeds: what a change did, told with what was there before.
//!
//! A change has the new values alone. What they replaced, and what things were called then, the document and
//! the tree know: deeds are worked out one by one, when they are asked for. Nothing of the tree depends on
//! them. Paths are those of the moment: a directory that has been renamed since has its name from then.

use std::collections::{BTreeMap, BTreeSet};

use automerge::ChangeHash;

use super::register::{Birth, Content, Place, Register, Update, Value};
use super::{Replica, gate};
use crate::values::{Body, ChangeId, Deed, SignedChange, What};
use crate::vocabulary::{Kind, MasterId, Mode, NodeId, Stamp, TreePath};

/// How many directories lie above a thing at most, as far as its path is told.
const DEPTH_MAX: usize = 4_096;

/// One write of a change, or the birth of a node.
#[derive(Debug)]
struct Step {
    stamp: Stamp,
    node: NodeId,
    write: Write,
}

#[derive(Debug)]
enum Write {
    Birth(Box<Birth>),
    Value(Register, Value),
}

/// The names that lead to a directory, and the directories, innermost first; none if it is not known.
type Chain = Option<(TreePath, Vec<NodeId>)>;

/// When a path is told: before the change, or from then on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum When {
    Before,
    After,
}

/// What a change did, the last first; see [`Replica::deeds`].
#[derive(Debug)]
pub struct Deeds<'a> {
    replica: &'a Replica,
    id: ChangeId,
    author: MasterId,
    time_ms: i64,
    /// The change itself, and what it builds on.
    hash: Option<ChangeHash>,
    dependencies: Vec<ChangeHash>,
    /// The stamps of its writes: the first, and the last.
    stamps: (Stamp, Stamp),
    /// The last one is the next to be told.
    steps: Vec<Step>,
    /// What each of its nodes that it brought back was brought back with.
    revived: BTreeMap<NodeId, (Stamp, Body)>,
    chains: BTreeMap<(NodeId, When), Chain>,
}

impl Replica {
    /// What a change did, the last thing first; each is worked out as it is asked for.
    ///
    /// The change must be part of this replica: of one that is not, there is no telling what was before.
    ///
    /// ```
    /// use pleach_core::replica::Replica;
    /// use pleach_core::values::*;
    /// use pleach_core::vocabulary::*;
    ///
    /// let master = MasterId([1; 32]);
    /// let mut replica = Replica::new(WriterId::new(master, [7; 8]));
    /// replica.set_time(1_000);
    /// let root = SeenDirectory { parent: None, directory: DirectoryRef::Root };
    /// let act = Act::Create {
    ///     directory: DirectoryIndex(0),
    ///     name: Name::try_from("page")?,
    ///     body: Body::Directory { mtime: Timestamp::default() },
    ///     mode: Mode::new(0o755),
    ///     owner: None,
    ///     xattrs: Xattrs::new(),
    /// };
    /// let (local, _) = replica.perform(&Acts { directories: vec![root], acts: vec![act] });
    /// for change in local.changes {
    ///     let signature = Signature::new(&[0; 64]);
    ///     let change = SignedChange { id: change.id, author: master, bytes: change.bytes, signature };
    ///     let deed = replica.deeds(&change)?.next().expect("it made a directory");
    ///     assert!(matches!(deed.what, What::Created { .. }));
    ///     assert_eq!((deed.path, deed.time_ms), (Some(TreePath::parse(b"page")?), 1_000));
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// If the change can't be read.
    pub fn deeds(&self, change: &SignedChange) -> Result<Deeds<'_>, gate::Refusal> {
        let (told, dependencies) = gate::tell_with_past(&change.bytes)?;
        let mut steps: Vec<Step> = told.updates.into_iter().filter_map(step).collect();
        steps.sort_by_key(|step| step.stamp);
        let none = Stamp { counter: 0, writer: change.id.writer };
        let first = steps.first().map_or(none, |step| step.stamp);
        let last = steps.last().map_or(none, |step| step.stamp);
        let revived = gather(&mut steps, |node| self.tree.kind(node));
        Ok(Deeds {
            replica: self,
            id: change.id,
            author: change.author,
            time_ms: told.time_ms,
            hash: self.document.change_with(first),
            dependencies,
            stamps: (first, last),
            steps,
            revived,
            chains: BTreeMap::new(),
        })
    }
}

impl Replica {
    /// The birth of a node, without a look at the change that bore it; none of the root, and of what is not
    /// known.
    #[must_use]
    pub fn birth_deed(&self, node: NodeId) -> Option<Deed> {
        let birth = self.document.birth(node)?;
        let (stamp, id) = (birth.stamp, birth.change());
        let write = Write::Birth(Box::new(birth.value));
        let mut deeds = Deeds {
            replica: self,
            id,
            author: self.master_of(stamp)?,
            time_ms: self.document.written_ms(stamp)?,
            hash: self.document.change_with(stamp),
            dependencies: Vec::new(),
            stamps: (stamp, stamp),
            steps: vec![Step { stamp, node, write }],
            revived: BTreeMap::new(),
            chains: BTreeMap::new(),
        };
        deeds.next()
    }
}

fn step(update: Update) -> Option<Step> {
    Some(match update {
        Update::Born(node, written) => {
            Step { stamp: written.stamp, node, write: Write::Birth(Box::new(written.value)) }
        }
        Update::DirectoryPlace(node, written) => {
            let write = Write::Value(Register::Place, Value::Place(written.value));
            Step { stamp: written.stamp, node, write }
        }
        Update::Register(node, register, values) => {
            let written = values.into_iter().next()?;
            Step { stamp: written.stamp, node, write: Write::Value(register, written.value) }
        }
    })
}

/// Leaves one step where several amount to one deed: of what was deleted or brought back, and of a touch of
/// what was written to. That the entries of a directory have changed is no deed of its own.
fn gather(
    steps: &mut Vec<Step>,
    kind: impl Fn(NodeId) -> Option<Kind>,
) -> BTreeMap<NodeId, (Stamp, Body)> {
    let (mut judged, mut written) = (BTreeMap::new(), BTreeMap::new());
    for step in steps.iter() {
        match &step.write {
            Write::Value(Register::Deleted, Value::Deleted(deletion)) => {
                judged.insert(step.node, deletion.is_none());
            }
            Write::Value(_, Value::Content(content)) => {
                written.insert(step.node, (step.stamp, content.body.clone()));
            }
            Write::Birth(birth) => {
                drop(written.insert(step.node, (step.stamp, birth.body.clone())))
            }
            Write::Value(..) => {}
        }
    }
    steps.retain(|step| match &step.write {
        Write::Birth(_) => true,
        Write::Value(Register::Deleted, _) => true,
        Write::Value(Register::Touch, _) => {
            !judged.contains_key(&step.node)
                && !written.contains_key(&step.node)
                && kind(step.node) != Some(Kind::Directory)
        }
        Write::Value(..) => !judged.contains_key(&step.node),
    });
    written.retain(|node, _| judged.get(node) == Some(&true));
    written
}

impl Deeds<'_> {
    /// When its author's clock says that the change was made, in milliseconds since 1970.
    #[must_use]
    pub fn time_ms(&self) -> i64 {
        self.time_ms
    }

    /// Tells only of these nodes.
    #[must_use]
    pub fn only_of(mut self, nodes: &BTreeSet<NodeId>) -> Self {
        self.steps.retain(|step| nodes.contains(&step.node));
        self
    }

    /// How many writes are still to be told of; some of them are no deed of their own.
    #[must_use]
    pub fn writes_left(&self) -> usize {
        self.steps.len()
    }

    /// Goes on where another telling of the same change had this many writes left.
    #[must_use]
    pub fn resume(mut self, writes_left: usize) -> Self {
        self.steps.truncate(writes_left);
        self
    }

    fn deed(&mut self, step: Step) -> Option<Deed> {
        let Step { mut stamp, node, write } = step;
        let mut left = Vec::new();
        let what = match write {
            Write::Birth(birth) => {
                let Birth { place, body, mode, .. } = *birth;
                let kind = body.kind();
                let what = What::Created { body, mode };
                return Some(self.told(node, stamp, kind, Some(&place), what, left));
            }
            Write::Value(_, Value::Place(place)) => {
                let former = self.place_before(node, stamp);
                if former.as_ref() == Some(&place) {
                    // Nothing but a repair that was written down (R15).
                    return None;
                }
                let (from, within) = self.path(former.as_ref(), When::Before);
                left = within;
                let kind = self.replica.tree.kind(node)?;
                let what = What::Moved { from };
                return Some(self.told(node, stamp, kind, Some(&place), what, left));
            }
            Write::Value(_, Value::Content(content)) => self.written(node, content),
            Write::Value(_, Value::Mode(after)) => {
                What::ModeChanged { before: self.mode_before(node), after }
            }
            Write::Value(_, Value::Owner(after)) => What::OwnerChanged { after },
            Write::Value(Register::Xattr(attribute), _) => What::AttributeChanged { attribute },
            Write::Value(_, Value::Touch(_)) => What::Touched,
            Write::Value(_, Value::Deleted(Some(_))) => {
                What::Deleted { body: self.body_before(node) }
            }
            Write::Value(_, Value::Deleted(None)) => {
                let before = self.body_before(node);
                let after = match self.revived.get(&node).cloned() {
                    Some((version, body)) => {
                        stamp = version;
                        Some(body)
                    }
                    None => before.clone(),
                };
                What::Restored { before, after }
            }
            // Of what a node was made of, its birth tells.
            Write::Value(_, Value::Version(Some(_)) | Value::Xattr(_)) => return None,
            Write::Value(_, Value::Version(None)) => {
                let before = self.body_before(node);
                let after = before.clone()?;
                if after.kind() == Kind::Directory {
                    return None;
                }
                What::Resolved { before, after }
            }
        };
        let kind = self.replica.tree.kind(node)?;
        let place = self.place_after(node);
        Some(self.told(node, stamp, kind, place.as_ref(), what, left))
    }

    fn told(
        &mut self,
        node: NodeId,
        stamp: Stamp,
        kind: Kind,
        place: Option<&Place>,
        what: What,
        left: Vec<NodeId>,
    ) -> Deed {
        let (path, mut within) = self.path(place, When::After);
        if node == NodeId::ROOT {
            return self.of_root(stamp, what);
        }
        within.extend(left);
        let (change, master, time_ms) = (self.id, self.author, self.time_ms);
        Deed { change, stamp, master, time_ms, node, kind, path, within, what }
    }

    fn of_root(&self, stamp: Stamp, what: What) -> Deed {
        Deed {
            change: self.id,
            stamp,
            master: self.author,
            time_ms: self.time_ms,
            node: NodeId::ROOT,
            kind: Kind::Directory,
            path: Some(TreePath::root()),
            within: Vec::new(),
            what,
        }
    }

    /// An edit; the end of a conflict if what was open is not carried along.
    fn written(&self, node: NodeId, content: Content) -> What {
        let seen = self.replica.document.contents_seen(node, &self.dependencies);
        let before = seen.iter().max_by_key(|written| written.stamp);
        let before = before.map(|written| written.value.body.clone());
        let is_carried =
            |body: &Body| content.carried.iter().any(|carried| carried.body.same_bytes(body));
        let stood = |body: &Body| before.as_ref().is_some_and(|before| before.same_bytes(body));
        let closes = seen.iter().any(|written| {
            let carried = written.value.carried.iter().map(|carried| &carried.body);
            let mut open = carried.chain([&written.value.body]);
            open.any(|body| !stood(body) && !is_carried(body))
        });
        match closes {
            true => What::Resolved { before, after: content.body },
            false => What::Edited { before, after: content.body },
        }
    }

    fn body_before(&self, node: NodeId) -> Option<Body> {
        let seen = self.replica.document.contents_seen(node, &self.dependencies);
        let newest = seen.into_iter().max_by_key(|written| written.stamp);
        newest.map(|written| written.value.body).or_else(|| self.replica.tree.body(node))
    }

    fn mode_before(&self, node: NodeId) -> Option<Mode> {
        let document = &self.replica.document;
        let before = document.values_before(node, &Register::Mode, &self.dependencies);
        match before.into_iter().max_by_key(|written| written.stamp)?.value {
            Value::Mode(mode) => Some(mode),
            _ => None,
        }
    }

    fn place_before(&self, node: NodeId, stamp: Stamp) -> Option<Place> {
        if self.replica.tree.kind(node) == Some(Kind::Directory) {
            let history = self.replica.tree.place_history(node);
            return history.into_iter().find(|(other, _)| *other < stamp).map(|(_, place)| place);
        }
        self.place_seen(node, &self.dependencies)
    }

    /// Where it is from this change on, unless it was moved by somebody whom its author did not know of.
    fn place_after(&self, node: NodeId) -> Option<Place> {
        let tree = &self.replica.tree;
        let last = self.stamps.1;
        if tree.kind(node) == Some(Kind::Directory) {
            let history = tree.place_history(node);
            return history.into_iter().find(|(stamp, _)| *stamp <= last).map(|(_, place)| place);
        }
        match tree.place(node) {
            Some((stamp, place)) if stamp <= last => Some(place),
            _ => self.place_seen(node, self.hash.as_slice()),
        }
    }

    fn place_seen(&self, node: NodeId, changes: &[ChangeHash]) -> Option<Place> {
        let seen = self.replica.document.values_before(node, &Register::Place, changes);
        match seen.into_iter().max_by_key(|written| written.stamp)?.value {
            Value::Place(place) => Some(place),
            _ => None,
        }
    }

    /// The path of what has this place, and the directories that it leads through.
    fn path(&mut self, place: Option<&Place>, when: When) -> (Option<TreePath>, Vec<NodeId>) {
        let Some(place) = place else { return (None, Vec::new()) };
        let key = (place.parent, when);
        if !self.chains.contains_key(&key) {
            let chain = self.trail(place.parent, when);
            self.chains.insert(key, chain);
        }
        match &self.chains[&key] {
            Some((above, within)) => (Some(above.join(&place.name)), within.clone()),
            None => (None, Vec::new()),
        }
    }

    /// The directories from this one upwards, with the names they had at that time.
    fn trail(&self, directory: NodeId, when: When) -> Chain {
        let tree = &self.replica.tree;
        let (mut names, mut within) = (Vec::new(), Vec::new());
        let mut met = BTreeSet::new();
        let mut here = directory;
        while here != NodeId::ROOT {
            if !met.insert(here) || met.len() > DEPTH_MAX {
                return None;
            }
            let is_then = |stamp: Stamp| match when {
                When::Before => stamp < self.stamps.0,
                When::After => stamp <= self.stamps.1,
            };
            let history = tree.place_history(here);
            let (_, place) = history.into_iter().find(|(stamp, _)| is_then(*stamp))?;
            within.push(here);
            names.push(place.name);
            here = place.parent;
        }
        names.reverse();
        Some((TreePath::new(names), within))
    }
}

impl Iterator for Deeds<'_> {
    type Item = Deed;

    fn next(&mut self) -> Option<Deed> {
        while let Some(step) = self.steps.pop() {
            if let Some(deed) = self.deed(step) {
                return Some(deed);
            }
        }
        None
    }
}
