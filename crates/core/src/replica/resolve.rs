//! Closing conflicts: a choice becomes a change like any other, and closes them on every master.

use std::collections::{BTreeMap, BTreeSet};

use super::document::Draft;
use super::gate::CHANGE_BYTES_MAX;
use super::register::{Birth, Content, Deletion, Place, Register, Value};
use super::tree::Tree;
use crate::values::{Body, Choice, ConflictKind, TreeView, VersionOf};
use crate::vocabulary::{Kind, Mode, Name, NodeId, Stamp, TreePath};

/// Why a conflict could not be settled as asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ResolveError {
    /// Nothing is at the path.
    #[error("nothing is called {0} in this store")]
    NoSuchPath(TreePath),
    /// There is nothing to settle.
    #[error("{0} has no open conflict")]
    NoConflict(TreePath),
    /// The version is not, or no longer, among those to choose from.
    #[error("{path} has no open version {version}; list them again")]
    NoSuchVersion {
        /// The path.
        path: TreePath,
        /// The version asked for.
        version: Stamp,
    },
    /// A directory stands at the path: a file can't take its place without removing the directory.
    #[error(
        "a directory stands at {0}: keep both, or keep what stands, or remove the directory first"
    )]
    DirectoryStands(TreePath),
    /// The directory holds more than one change can delete.
    #[error("{0} holds too much to be deleted by a choice: remove it as you would any directory")]
    TooMuch(TreePath),
    /// Where it would go is below itself, and nothing between has another place to be at.
    #[error(
        "{0} can't be where that version has it: that is inside of it; move what it is in first"
    )]
    InsideItself(TreePath),
}

/// Writes the choice into the draft.
pub(super) fn resolve(
    tree: &Tree,
    draft: &mut Draft<'_>,
    path: &TreePath,
    choice: &Choice,
) -> Result<(), ResolveError> {
    let there = tree.lookup(path).ok_or_else(|| ResolveError::NoSuchPath(path.clone()))?;
    // What is to be settled by the path of a sibling is the conflict that it belongs to.
    let standing = tree.path_of_sibling(there).unwrap_or(there);
    let members = tree.members_of_entry(standing);
    let placed = BTreeMap::new();
    let (deleted, rewritten) = (BTreeSet::new(), BTreeSet::new());
    let mut settlement =
        Settlement { tree, draft, path, standing, members, placed, deleted, rewritten };
    if settlement.is_deletion(choice) {
        return settlement.delete_entry();
    }
    let places = settlement.settle_places(choice)?;
    let contents = settlement.settle_contents(choice)?;
    let deletions = settlement.settle_deletions(choice, places || contents);
    if places || contents || deletions {
        return Ok(());
    }
    Err(match choice {
        Choice::Keep(version) if !tree.conflicts_at(standing).is_empty() => {
            ResolveError::NoSuchVersion { path: path.clone(), version: *version }
        }
        _ => ResolveError::NoConflict(path.clone()),
    })
}

struct Settlement<'a, 'd> {
    tree: &'a Tree,
    draft: &'a mut Draft<'d>,
    path: &'a TreePath,
    standing: NodeId,
    members: Vec<NodeId>,
    /// Places that were written: whoever deletes one of these nodes after that has seen them.
    placed: BTreeMap<NodeId, Stamp>,
    /// Nodes that were deleted.
    deleted: BTreeSet<NodeId>,
    /// Nodes whose content was written, with nothing left open.
    rewritten: BTreeSet<NodeId>,
}

impl Settlement<'_, '_> {
    /// Writes one place for nodes that were moved twice or taken back; says whether there were any.
    fn settle_places(&mut self, choice: &Choice) -> Result<bool, ResolveError> {
        let mut settled = false;
        for node in self.members.clone() {
            let places = self.tree.seen(node).map(|seen| seen.places).unwrap_or_default();
            let mut current = self.tree.place_history(node);
            current.retain(|(stamp, _)| places.contains(stamp));
            let fallen = self.tree.is_fallen(node);
            if current.len() < 2 && !fallen {
                continue;
            }
            let chosen = match choice {
                Choice::Keep(version) => current
                    .into_iter()
                    .chain(self.tree.place(node))
                    .find(|(stamp, _)| stamp == version),
                Choice::KeepStanding | Choice::KeepBoth => self.tree.place(node),
            };
            let Some((_, place)) = chosen else { continue };
            if fallen {
                // All of them: one that stays may stand only because of another that fell (R15).
                let others: Vec<NodeId> =
                    self.tree.fallen().filter(|&other| other != node).collect();
                for other in others {
                    if let Some((_, place)) = self.tree.place(other) {
                        self.put(other, place);
                    }
                }
                if let Some((between, place)) = self.out_of_the_way(node, &place)? {
                    self.put(between, place);
                }
            }
            self.put(node, place);
            settled = true;
        }
        Ok(settled)
    }

    fn put(&mut self, node: NodeId, place: Place) {
        let stamp = self.draft.register(node, Register::Place, Value::Place(place));
        self.placed.insert(node, stamp);
    }

    /// A directory is to be where it was kept from, below itself: then the newest move between that and
    /// itself is the one to be taken back. Answers whose, and where that was before.
    fn out_of_the_way(
        &self,
        node: NodeId,
        place: &Place,
    ) -> Result<Option<(NodeId, Place)>, ResolveError> {
        let upwards = |from: NodeId| {
            let mut chain = vec![from];
            chain.extend(self.tree.above(from));
            chain
        };
        let mut between = upwards(place.parent);
        let Some(end) = between.iter().position(|&above| above == node) else { return Ok(None) };
        between.truncate(end);
        between.sort_by_key(|&other| std::cmp::Reverse(self.tree.place(other).map(|p| p.0)));
        for other in between {
            let stands = self.tree.place(other).map(|(stamp, _)| stamp);
            let history = self.tree.place_history(other).into_iter();
            let mut before = history.filter(|(stamp, _)| Some(*stamp) < stands);
            let outside = |(_, place): &(Stamp, Place)| {
                let above = upwards(place.parent);
                !above.contains(&node) && !above.contains(&other)
            };
            if let Some((_, place)) = before.find(outside) {
                return Ok(Some((other, place)));
            }
        }
        Err(ResolveError::InsideItself(self.path.clone()))
    }

    /// Whether the choice is that what was deleted on one master be gone on all.
    fn is_deletion(&self, choice: &Choice) -> bool {
        let Choice::Keep(stamp) = choice else { return false };
        let open = self.tree.conflicts_at(self.standing);
        let mut versions = open.iter().flat_map(|conflict| &conflict.versions);
        versions.any(|version| version.of == VersionOf::Deletion && version.stamp == *stamp)
    }

    /// Deletes all nodes of the entry, and of all entries below it.
    fn delete_entry(&mut self) -> Result<(), ResolveError> {
        let mut ahead = vec![self.standing];
        while let Some(standing) = ahead.pop() {
            let members = self.tree.members_of_entry(standing);
            self.delete_all(&members);
            ahead.extend(self.tree.children(standing).into_iter().map(|(_, child)| child));
            if self.draft.size_estimate() > CHANGE_BYTES_MAX {
                return Err(ResolveError::TooMuch(self.path.clone()));
            }
        }
        Ok(())
    }

    /// Gives life to what others had deleted, if that is the choice or something else of the entry was
    /// chosen; says whether there was any such thing.
    fn settle_deletions(&mut self, choice: &Choice, chosen: bool) -> bool {
        let is_open = self.tree.conflicts_at(self.standing).into_iter().any(|conflict| {
            let standing = conflict.standing().map(|version| version.stamp);
            let is_chosen = match choice {
                Choice::Keep(stamp) => chosen || standing == Some(*stamp),
                Choice::KeepStanding | Choice::KeepBoth => true,
            };
            conflict.kind == ConflictKind::DeletedAndEdited && is_chosen
        });
        if !is_open && !chosen {
            return false;
        }
        let members = self.members.iter().copied().filter(|&node| self.tree.is_disputed(node));
        // No delete has seen the places that were written just now.
        let placed = self.placed.keys().copied().filter(|&node| self.tree.was_deleted(node));
        let mut revived: BTreeSet<NodeId> = members.chain(placed).collect();
        revived.retain(|node| !self.deleted.contains(node));
        for &node in &revived {
            self.revive(node);
        }
        if !revived.is_empty() {
            self.revive_above();
        }
        is_open
    }

    /// Takes the deletes of a live node back. What they had removed of it stays so (R3).
    fn revive(&mut self, node: NodeId) {
        self.draft.register(node, Register::Deleted, Value::Deleted(None));
        if self.rewritten.contains(&node) || !self.tree.has_removed_any(node) {
            return;
        }
        if let Some(contents) = self.tree.contents(node) {
            let body = self.tree.body(node).unwrap_or(contents.body);
            let content = Content { body, carried: contents.open };
            self.draft.register(node, Register::Content, Value::Content(content));
        }
    }

    /// What only this entry keeps in the tree is there for good, as after any act in it (R15).
    fn revive_above(&mut self) {
        for directory in self.tree.above(self.standing) {
            for united in self.tree.united_directories(directory) {
                if let (true, Some((_, place))) =
                    (self.tree.is_held(united), self.tree.place(united))
                {
                    self.draft.register(united, Register::Place, Value::Place(place));
                    self.draft.register(united, Register::Deleted, Value::Deleted(None));
                }
            }
        }
    }

    /// Closes open versions and hidden nodes; says whether there were any.
    fn settle_contents(&mut self, choice: &Choice) -> Result<bool, ResolveError> {
        let standing_kind = self.tree.kind(self.standing).unwrap_or(Kind::File);
        let hidden: Vec<NodeId> = self
            .members
            .iter()
            .copied()
            .filter(|&node| node != self.standing)
            .filter(|&node| self.tree.kind(node) != Some(Kind::Directory))
            .collect();
        let versions = self.versions(self.standing);
        if hidden.is_empty() && versions.len() < 2 {
            return Ok(false);
        }
        match choice {
            Choice::KeepStanding => {
                if standing_kind != Kind::Directory && versions.len() > 1 {
                    self.write_standing(versions[0].1.clone());
                }
                self.delete_all(&hidden);
            }
            Choice::Keep(stamp) => {
                let every = self.every_version(&hidden);
                let Some((_, body)) = every.iter().find(|(version, _)| version == stamp) else {
                    return Ok(false);
                };
                if standing_kind == Kind::Directory {
                    return Err(ResolveError::DirectoryStands(self.path.clone()));
                }
                let chosen = body.clone();
                if chosen.kind() == standing_kind {
                    if versions.len() > 1 || !versions[0].1.same_bytes(&chosen) {
                        self.write_standing(chosen);
                    }
                    self.delete_all(&hidden);
                } else {
                    self.keep_of_another_kind(*stamp, chosen, &hidden);
                }
            }
            Choice::KeepBoth => self.keep_both(&hidden, &versions, standing_kind),
        }
        Ok(true)
    }

    /// What a node holds: what stands in it first, then its open versions. None of a directory.
    fn versions(&self, node: NodeId) -> Vec<(Stamp, Body)> {
        let Some(contents) = self.tree.contents(node) else { return Vec::new() };
        let open = contents.open.into_iter().map(|version| (version.stamp, version.body));
        std::iter::once((contents.stamp, contents.body)).chain(open).collect()
    }

    /// All versions of the standing node and of the hidden ones.
    fn every_version(&self, hidden: &[NodeId]) -> Vec<(Stamp, Body)> {
        let mut every = self.versions(self.standing);
        for &node in hidden {
            every.extend(self.versions(node));
        }
        every
    }

    /// What stands anyway keeps the mtime that is shown: a later touch than its write counts.
    fn write_standing(&mut self, body: Body) {
        let shown = self.tree.entry(self.standing).map(|entry| entry.body);
        let body = shown.filter(|shown| shown.same_bytes(&body)).unwrap_or(body);
        let content = Value::Content(Content { body, carried: Vec::new() });
        self.draft.register(self.standing, Register::Content, content);
        self.rewritten.insert(self.standing);
    }

    /// A version of another kind is to stand: a hidden node, or one that a node carries along, which is born anew
    /// for that. Everything else at the entry goes.
    fn keep_of_another_kind(&mut self, stamp: Stamp, body: Body, hidden: &[NodeId]) {
        let keeper = hidden.iter().copied().find(|&node| {
            let holds = self.versions(node).iter().any(|(version, _)| *version == stamp);
            holds && self.tree.kind(node) == Some(body.kind())
        });
        let others: Vec<NodeId> =
            self.members.iter().copied().filter(|&node| Some(node) != keeper).collect();
        match keeper {
            Some(keeper) if self.versions(keeper).len() > 1 => {
                let content = Value::Content(Content { body, carried: Vec::new() });
                self.draft.register(keeper, Register::Content, content);
                self.rewritten.insert(keeper);
            }
            Some(_) => {}
            None => {
                let Some((_, place)) = self.tree.place(self.standing) else { return };
                let birth = self.birth_of(place, body);
                self.draft.birth(birth);
            }
        }
        self.delete_all(&others);
    }

    /// A version that is to be a file or link of its own.
    fn birth_of(&self, place: Place, body: Body) -> Birth {
        let entry = self.tree.entry(self.standing);
        let mode = entry.map_or(Mode::new(0o644), |entry| entry.attributes.mode);
        Birth { place, body, mode, owner: None, xattrs: Default::default() }
    }

    /// Hidden nodes move to names of their own; open versions become files of their own.
    fn keep_both(&mut self, hidden: &[NodeId], versions: &[(Stamp, Body)], kind: Kind) {
        let Some((_, place)) = self.tree.place(self.standing) else { return };
        let mut names = FreeNames { tree: self.tree, place: &place, taken: BTreeSet::new() };
        for &node in hidden {
            let value = Value::Place(Place { parent: place.parent, name: names.next() });
            self.draft.register(node, Register::Place, value);
        }
        if kind == Kind::Directory || versions.len() < 2 {
            return;
        }
        for (_, body) in &versions[1..] {
            let free = Place { parent: place.parent, name: names.next() };
            let birth = self.birth_of(free, body.clone());
            self.draft.birth(birth);
        }
        self.write_standing(versions[0].1.clone());
    }

    fn delete_all(&mut self, nodes: &[NodeId]) {
        for &node in nodes {
            let Some(seen) = self.tree.seen(node) else { continue };
            let removed = self.tree.removed_contents(node);
            let seen = seen.places.into_iter().chain(seen.contents).chain(removed);
            let observed = seen.chain(self.placed.get(&node).copied()).collect();
            let above = self.tree.above(node);
            let deletion = Deletion { observed, above, unseen: Vec::new() };
            self.draft.register(node, Register::Deleted, Value::Deleted(Some(deletion)));
            self.deleted.insert(node);
        }
    }
}

/// Names beside an entry that nothing has: `name (conflict 1).ext`, `name (conflict 2).ext`, …
struct FreeNames<'a> {
    tree: &'a Tree,
    place: &'a Place,
    taken: BTreeSet<Name>,
}

impl FreeNames<'_> {
    fn next(&mut self) -> Name {
        let free = (1u32..).find_map(|number| {
            let name = conflict_name(&self.place.name, number);
            let free =
                !self.taken.contains(&name) && self.tree.child(self.place.parent, &name).is_none();
            free.then_some(name)
        });
        let name = free.expect("there are more numbers than entries");
        self.taken.insert(name.clone());
        name
    }
}

/// `name (conflict N).ext`, shortened at its stem to what a file system holds.
fn conflict_name(name: &Name, number: u32) -> Name {
    let bytes = name.as_bytes();
    let dot = bytes.iter().rposition(|&byte| byte == b'.').filter(|&dot| dot > 0);
    let (stem, extension) = bytes.split_at(dot.unwrap_or(bytes.len()));
    let suffix = format!(" (conflict {number})");
    let extension = if extension.len() > 100 { &extension[..0] } else { extension };
    let mut room = 255 - suffix.len() - extension.len();
    if stem.len() > room {
        // Not in the middle of a UTF-8 character.
        while room > 0 && stem[room] & 0xc0 == 0x80 {
            room -= 1;
        }
    }
    let mut full = stem[..stem.len().min(room)].to_vec();
    full.extend_from_slice(suffix.as_bytes());
    full.extend_from_slice(extension);
    Name::new(full).expect("a name's bytes with a plain suffix, at most 255 of them")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn conflict(name: &str, number: u32) -> String {
        conflict_name(&Name::try_from(name).expect("a plain name"), number).to_string()
    }

    #[test]
    fn conflict_name_keeps_the_extension_and_fits() {
        assert_eq!(conflict("a.txt", 2), "a (conflict 2).txt");
        assert_eq!(conflict(".bashrc", 1), ".bashrc (conflict 1)");
        assert_eq!(conflict(&"é".repeat(127), 1).len(), 255);
        assert_eq!(conflict(&format!("{}.php", "x".repeat(251)), 10).len(), 255);
    }
}
