//! The open conflicts: found again only for the entries that a batch touched, described on demand.
//!
//! An entry has at most one `Edited`, one `SameName` and one `DeletedAndEdited` conflict, kept under its
//! standing node, and one of the others for each of its nodes.

use std::collections::BTreeSet;

use super::Tree;
use super::node::{DirectoryPlace, Key, Keys, PlaceState, Placement, Removal};
use crate::replica::register::Carried;
use crate::values::{Body, Conflict, ConflictKind, Version, VersionOf};
use crate::vocabulary::{NodeId, TreePath};

/// Which conflicts are open.
#[derive(Clone, Debug, Default)]
pub(super) struct OpenConflicts(BTreeSet<(Key, ConflictKind)>);

const KINDS: [ConflictKind; 5] = [
    ConflictKind::Edited,
    ConflictKind::SameName,
    ConflictKind::MovedTwice,
    ConflictKind::MovedIntoEachOther,
    ConflictKind::DeletedAndEdited,
];

impl Tree {
    /// How many conflicts are open.
    #[must_use]
    pub fn conflict_count(&self) -> usize {
        self.conflicts.0.len()
    }

    /// The open conflicts, by path. Which master wrote a version is left open.
    #[must_use]
    pub fn conflicts(&self) -> Vec<Conflict> {
        let described = self.conflicts.0.iter().filter_map(|&(key, kind)| self.describe(key, kind));
        sorted(described.collect())
    }

    /// The open conflicts of the entry that `node` is part of; none if it is not in the tree.
    #[must_use]
    pub fn conflicts_at(&self, node: NodeId) -> Vec<Conflict> {
        let node = self.path_of_sibling(node).unwrap_or(node);
        let Some(key) = self.key(node) else { return Vec::new() };
        let entry = self.entry_keys(key);
        let open = entry.iter().flat_map(|&key| self.open_kinds(key).map(move |kind| (key, kind)));
        sorted(open.filter_map(|(key, kind)| self.describe(key, kind)).collect())
    }

    /// Brings the open conflicts in line with the entries of these nodes; answers whose differ, by the
    /// standing node, or by the node that had one if it is not in the tree any more.
    pub(super) fn update_conflicts(&mut self, touched: &BTreeSet<Key>) -> BTreeSet<Key> {
        let mut changed = BTreeSet::new();
        let mut seen = BTreeSet::new();
        for &key in touched {
            let entry = self.entry_keys(key);
            let Some(&standing) = entry.first() else {
                self.set_kinds(key, [false; KINDS.len()], key, &mut changed);
                continue;
            };
            if entry.len() > 1 && !seen.insert(standing) {
                continue;
            }
            let clash = entry.len() > 1 && !self.hidden_versions(&entry).is_empty();
            for &member in &entry {
                let stands = member == standing;
                let kinds = [
                    stands && self.has_open_versions(member),
                    stands && clash,
                    self.other_spots(member).next().is_some(),
                    self.fallen.contains(&member),
                    stands && self.lost_removals(&entry).next().is_some(),
                ];
                self.set_kinds(member, kinds, standing, &mut changed);
            }
        }
        changed
    }

    pub(super) fn open_conflicts(&self) -> impl Iterator<Item = (Key, ConflictKind)> + '_ {
        self.conflicts.0.iter().copied()
    }

    pub(super) fn is_open(&self, standing: Key, kind: ConflictKind) -> bool {
        self.conflicts.0.contains(&(standing, kind))
    }

    fn open_kinds(&self, key: Key) -> impl Iterator<Item = ConflictKind> + '_ {
        let all = (key, KINDS[0])..=(key, KINDS[KINDS.len() - 1]);
        self.conflicts.0.range(all).map(|&(_, kind)| kind)
    }

    fn set_kinds(
        &mut self,
        key: Key,
        kinds: [bool; KINDS.len()],
        entry: Key,
        changed: &mut BTreeSet<Key>,
    ) {
        for (kind, is_open) in KINDS.into_iter().zip(kinds) {
            let differs = match is_open {
                true => self.conflicts.0.insert((key, kind)),
                false => self.conflicts.0.remove(&(key, kind)),
            };
            if differs || is_open {
                changed.insert(entry);
            }
        }
    }

    fn has_open_versions(&self, key: Key) -> bool {
        let several = !self.nodes[key.0 as usize].several_contents().is_empty();
        several && !self.open_versions(key).is_empty()
    }

    /// What the nodes that an entry hides hold: each of other bytes than what stands, once.
    fn hidden_versions(&self, entry: &Keys) -> Vec<(Key, Carried)> {
        let standing = self.nodes[entry[0].0 as usize].body();
        let mut hidden: Vec<(Key, Carried)> = Vec::new();
        for &key in &entry[1..] {
            let node = &self.nodes[key.0 as usize];
            if node.directory().is_some() {
                continue;
            }
            let body = self.shown_body(key);
            let own = body.map(|body| Carried { stamp: self.interner.stamp(node.stamp), body });
            let all = own.into_iter().chain(self.open_versions(key));
            hidden.extend(all.map(|version| (key, version)));
        }
        hidden
            .retain(|(_, version)| standing.as_ref().is_none_or(|b| !b.same_bytes(&version.body)));
        distinct(hidden, |(_, version)| version)
    }

    /// The places where a node would be had another of its writers been the last; none of a fallen
    /// directory's newer places, which are another conflict.
    fn other_spots(&self, key: Key) -> impl Iterator<Item = &Placement> {
        let node = &self.nodes[key.0 as usize];
        let older = node.directory().into_iter().flat_map(|directory| {
            let older = directory.history.iter().enumerate().skip(directory.position + 1);
            older.map(|(_, entry)| entry).filter(|entry| entry.is_current())
        });
        let others = node.other_places().iter().chain(older.map(|entry| &entry.place));
        others.filter(|other| node.place.as_ref().is_some_and(|place| !place.same_spot(other)))
    }

    fn describe(&self, key: Key, kind: ConflictKind) -> Option<Conflict> {
        let path = self.path_of(key)?;
        let versions = match kind {
            ConflictKind::Edited => {
                let mut versions = vec![self.version(key, self.standing(key)?, true)];
                let open = self.open_versions(key);
                versions.extend(open.into_iter().map(|open| self.version(key, open, false)));
                versions
            }
            ConflictKind::SameName => {
                let mut versions = vec![self.version(key, self.standing(key)?, true)];
                let hidden = self.hidden_versions(&self.entry_keys(key));
                versions.extend(hidden.into_iter().map(|(key, v)| self.version(key, v, false)));
                versions
            }
            ConflictKind::MovedTwice => {
                self.places_to_choose(key, &path, self.other_spots(key).collect())?
            }
            ConflictKind::MovedIntoEachOther => {
                let directory = self.directory(key)?;
                let skipped = directory.history[..directory.position].iter();
                let skipped = skipped.filter(|entry| entry.is_current()).map(|entry| &entry.place);
                self.places_to_choose(key, &path, skipped.collect())?
            }
            ConflictKind::DeletedAndEdited => self.life_or_death(key)?,
        };
        Some(Conflict { path, kind, versions })
    }

    fn standing(&self, key: Key) -> Option<Carried> {
        let stamp = self.interner.stamp(self.nodes[key.0 as usize].stamp);
        Some(Carried { stamp, body: self.shown_body(key)? })
    }

    fn version(&self, key: Key, version: Carried, stands: bool) -> Version {
        let Carried { stamp, body } = version;
        let (node, mode) = (self.id(key), self.nodes[key.0 as usize].mode);
        let (of, master, written_ms) = (VersionOf::Content, None, None);
        Version { node, stamp, master, written_ms, of, body, mode, stands, elsewhere: None }
    }

    fn places_to_choose(
        &self,
        key: Key,
        path: &TreePath,
        mut others: Vec<&Placement>,
    ) -> Option<Vec<Version>> {
        let body = self.shown_body(key)?;
        let version = |place: &Placement, elsewhere: Option<TreePath>, stands| Version {
            node: self.id(key),
            stamp: self.interner.stamp(place.stamp),
            master: None,
            written_ms: None,
            of: VersionOf::Place,
            body: body.clone(),
            mode: self.nodes[key.0 as usize].mode,
            stands,
            elsewhere,
        };
        others.sort_by_key(|place| std::cmp::Reverse(self.interner.stamp(place.stamp)));
        let standing = self.nodes[key.0 as usize].place.as_ref()?;
        let mut versions = vec![version(standing, Some(path.clone()), true)];
        for other in others {
            versions.push(version(other, self.path_of_spot(other), false));
        }
        Some(versions)
    }

    /// The deletes of an entry that had not seen all of what they would remove: it lives on (R3).
    ///
    /// None that a move of a directory above has made void (R4): whoever chooses, chooses there. And none
    /// of files that share their name: that is the choice between them.
    fn lost_removals<'a>(&'a self, entry: &'a Keys) -> impl Iterator<Item = (Key, &'a Removal)> {
        let alone = entry.len() == 1;
        let members = entry.iter().filter(move |&&key| alone || self.is_directory(key));
        let live = members.filter(|key| !self.nodes[key.0 as usize].is_dead);
        let removals = live.flat_map(|&key| {
            let removals = self.nodes[key.0 as usize].removals.iter().flatten();
            removals.map(move |removal| (key, removal))
        });
        removals.filter(|(_, removal)| !self.is_void(removal))
    }

    /// What stands, by the write that the deletes had not seen; then the deletes, by falling stamp.
    fn life_or_death(&self, key: Key) -> Option<Vec<Version>> {
        let entry = self.entry_keys(key);
        let mut removals: Vec<_> = self.lost_removals(&entry).collect();
        removals.sort_by_key(|(_, removal)| std::cmp::Reverse(self.interner.stamp(removal.stamp)));
        let node = &self.nodes[key.0 as usize];
        let was_seen = |(_, removal): &(Key, &Removal)| removal.observed.contains(&node.stamp);
        let standing = self.standing(key)?;
        let body = standing.body.clone();
        let standing = match self.is_directory(key) || removals.iter().any(was_seen) {
            false => self.version(key, standing, true),
            true => self.places_to_choose(key, &self.path_of(key)?, Vec::new())?.remove(0),
        };
        let deletions = removals.into_iter().map(|(key, removal)| {
            let stamp = self.interner.stamp(removal.stamp);
            let version = self.version(key, Carried { stamp, body: body.clone() }, false);
            Version { of: VersionOf::Deletion, ..version }
        });
        Some(std::iter::once(standing).chain(deletions).collect())
    }

    /// What of a file or link is open besides what stands: of other bytes, each once, by falling stamp.
    pub(super) fn open_versions(&self, key: Key) -> Vec<Carried> {
        distinct(self.all_open(key), |version| version)
    }

    /// The same with all writes of equal bytes, in no order: whoever closes a version closes all of these.
    pub(super) fn all_open(&self, key: Key) -> Vec<Carried> {
        let contents = self.live_contents(key);
        let Some(newest) = contents.last() else { return Vec::new() };
        let written = contents.iter().map(|content| Carried {
            stamp: self.interner.stamp(content.stamp),
            body: content.body.clone(),
        });
        let written = written.filter(|version| !self.is_closed(key, version.stamp));
        let carried = contents.iter().flat_map(|content| self.live_carried(key, content).cloned());
        let others = written.chain(carried).filter(|other| !other.body.same_bytes(&newest.body));
        others.collect()
    }
}

impl DirectoryPlace {
    fn is_current(&self) -> bool {
        self.standing == PlaceState::Current
    }
}

/// By falling stamp; of equal bytes, only the largest stamp.
fn distinct<T>(mut versions: Vec<T>, version: impl Fn(&T) -> &Carried) -> Vec<T> {
    versions.sort_by_key(|item| std::cmp::Reverse(version(item).stamp));
    let mut seen: BTreeSet<Body> = BTreeSet::new();
    versions.retain(|item| seen.insert(version(item).body.with_mtime(Default::default())));
    versions
}

fn sorted(mut conflicts: Vec<Conflict>) -> Vec<Conflict> {
    conflicts.sort_by(|a, b| {
        let node = |conflict: &Conflict| conflict.versions.first().map(|version| version.node);
        (&a.path, a.kind, node(a)).cmp(&(&b.path, b.kind, node(b)))
    });
    conflicts
}
