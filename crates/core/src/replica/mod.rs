//! The replica: registers on automerge, and the tree and its conflicts that follow from them.
//!
//! ```text
//! changes -> gate -> document (automerge) -> registers -> tree, conflicts
//!                        ^
//! acts, choices ---------+
//! ```
//!
//! An embedder can use it alone: open it, perform acts, exchange changes, read the tree, list conflicts
//! and resolve them. The tree is a function of the set of changes; nothing here depends on their order.

mod acts;
mod deeds;
pub mod document;
pub mod gate;
mod merged;
#[cfg(test)]
pub(crate) mod naive;
pub mod past;
mod register;
mod resolve;
mod restore;
mod schema;
mod sibling_acts;
mod sibling_names;
mod tree;

pub use deeds::Deeds;
pub use merged::NotMerged;
pub use register::{
    Birth, Carried, Causality, Content, Deletion, Place, Register, Update, Value, Write, Written,
};
pub use resolve::ResolveError;
pub use restore::PastMoment;
pub use sibling_names::MasterNames;
pub use tree::{Contents, Entries, Tree};

use std::collections::BTreeMap;

use document::{Altered, Committed, Damaged, Document};

use crate::values::{
    Acts, ChangeId, Choice, Conflict, ConflictKind, Mark, Member, Performed, SignedChange,
    TreeDelta, Version, VersionOf,
};
use crate::vocabulary::{ContentHash, MasterId, NodeId, Stamp, TreePath, VersionVector, WriterId};

/// The setting that says how conflicts are shown, and what shows open versions as files beside the path.
const CONFLICTS: &str = "conflicts";
const SIBLINGS: &[u8] = b"siblings";

/// Why a replica can't be opened on what was stored.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The snapshot is damaged.
    #[error("the saved document is damaged")]
    Snapshot(#[from] Damaged),
    /// A logged change is damaged, or one before it is missing.
    #[error("the log of changes is damaged at change {} of writer {}", .0.sequence, .0.writer)]
    Log(ChangeId),
}

/// A change of this master's, to be signed, recorded and sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalChange {
    /// Its writer and sequence.
    pub id: ChangeId,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

/// What a local act led to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Local {
    /// The changes, in order; usually one, none if nothing had to be written.
    pub changes: Vec<LocalChange>,
    /// What each of them is about, in the same order.
    pub marks: Vec<Mark>,
    /// What differs in the tree.
    pub delta: TreeDelta,
    /// Whether the member list was written to.
    pub members_changed: bool,
}

/// What receiving changes led to.
#[derive(Debug, Default)]
pub struct Merged {
    /// Changes that are now part of the replica, in the order in which they are to be recorded.
    pub applied: Vec<SignedChange>,
    /// What each of them is about, in the same order.
    pub marks: Vec<Mark>,
    /// What differs in the tree.
    pub delta: TreeDelta,
    /// Whether the member list was written to.
    pub members_changed: bool,
    /// What was refused, and why.
    pub refused: Vec<String>,
    /// What only a later version of pleach can read: it stays where it is, and comes when it is asked for
    /// again. What depends on it waits.
    pub unreadable: Vec<Unreadable>,
    /// Whether changes wait for others that are missing.
    pub gap: bool,
}

/// A change that this version of pleach can't read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unreadable {
    /// Who wrote it.
    pub author: MasterId,
    /// Which it is.
    pub id: ChangeId,
    /// What in it is not known here.
    pub reason: String,
}

/// The replicated tree of one master.
#[derive(Debug)]
pub struct Replica {
    document: Document,
    tree: Tree,
    members: BTreeMap<MasterId, Member>,
    /// Whether the members or the settings were written to since the tree was last told of them.
    is_told: bool,
    unix_ms: i64,
}

impl Replica {
    /// The replica of an empty store.
    #[must_use]
    pub fn new(writer: WriterId) -> Self {
        let mut document = Document::new();
        document.set_writer(writer);
        Self { document, tree: Tree::new(), members: BTreeMap::new(), is_told: true, unix_ms: 0 }
    }

    /// Opens a replica on a snapshot, and the changes that were logged after it, in order.
    ///
    /// `writer` is this start's own: fresh and random, never used before.
    pub fn open(
        writer: WriterId,
        snapshot: Option<&[u8]>,
        log: Vec<SignedChange>,
    ) -> Result<Self, OpenError> {
        let mut tree = Tree::new();
        let mut document = match snapshot {
            None => Document::new(),
            Some(bytes) => {
                let mut updates = Vec::new();
                let document = Document::load(bytes, &mut |update| updates.push(update))?;
                let _ = tree.absorb(updates, &document);
                document
            }
        };
        let received = document.receive(log);
        if let Some((change, _)) = received.refused.first() {
            return Err(OpenError::Log(change.id));
        }
        let _ = tree.absorb(received.updates, &document);
        document.set_writer(writer);
        let members = document.members();
        let mut replica = Self { document, tree, members, is_told: false, unix_ms: 0 };
        let _ = replica.absorb(Vec::new());
        Ok(replica)
    }

    /// Writes as `writer` from now on: one that has never been used.
    pub fn set_writer(&mut self, writer: WriterId) {
        self.document.set_writer(writer);
    }

    /// The replica without its log and without the changes that wait: what [`Self::open`] takes.
    #[must_use]
    pub fn save(&self) -> Vec<u8> {
        self.document.save()
    }

    /// Sets the wall clock's time that changes carry from now on: shown to people, and no more.
    pub fn set_time(&mut self, unix_ms: i64) {
        self.unix_ms = unix_ms;
    }

    /// Performs acts of this master's user. Answers what each act wrote, in the order of the acts.
    pub fn perform(&mut self, acts: &Acts) -> (Local, Vec<Performed>) {
        let mut progress = acts::Progress::default();
        let mut local = Local::default();
        let mut updates = Vec::new();
        while progress.performed.len() < acts.acts.len() {
            let mut draft = self.document.begin();
            draft.set_time(self.unix_ms);
            acts::perform(&self.tree, &mut draft, acts, &mut progress);
            let committed = draft.commit();
            self.note(committed, &mut local, &mut updates);
        }
        local.delta = self.absorb(updates);
        (local, progress.performed)
    }

    /// Settles the conflicts at a path.
    pub fn resolve(&mut self, path: &TreePath, choice: &Choice) -> Result<Local, ResolveError> {
        let mut draft = self.document.begin();
        draft.set_time(self.unix_ms);
        resolve::resolve(&self.tree, &mut draft, path, choice)?;
        let committed = draft.commit();
        Ok(self.finish(committed))
    }

    /// Whether [`Replica::resolve`] could do this now. Changes nothing.
    pub fn could_resolve(&mut self, path: &TreePath, choice: &Choice) -> Result<(), ResolveError> {
        resolve::resolve(&self.tree, &mut self.document.begin(), path, choice)
    }

    /// A setting of the store.
    #[must_use]
    pub fn setting(&self, key: &str) -> Option<Vec<u8>> {
        self.document.settings().remove(key)
    }

    /// Sets a setting of the store, for all masters.
    pub fn set_setting(&mut self, key: &str, value: &[u8]) -> Local {
        if self.setting(key).is_some_and(|now| now == value) {
            return Local::default();
        }
        let mut draft = self.document.begin();
        draft.set_time(self.unix_ms);
        draft.setting(key, value.to_vec());
        let committed = draft.commit();
        self.finish(committed)
    }

    /// Adds a member, or replaces its entry. Nothing is written if the entry is as it was.
    pub fn set_member(&mut self, member: Member) -> Local {
        if self.members.get(&member.master) == Some(&member) {
            return Local::default();
        }
        let mut draft = self.document.begin();
        draft.set_time(self.unix_ms);
        draft.member(member);
        let committed = draft.commit();
        self.finish(committed)
    }

    fn finish(&mut self, committed: Result<Option<Committed>, gate::Refusal>) -> Local {
        let (mut local, mut updates) = (Local::default(), Vec::new());
        self.note(committed, &mut local, &mut updates);
        local.delta = self.absorb(updates);
        local
    }

    fn note(
        &mut self,
        committed: Result<Option<Committed>, gate::Refusal>,
        local: &mut Local,
        updates: &mut Vec<Update>,
    ) {
        let committed = committed.expect("acts and choices write only what the gate admits");
        let Some(committed) = committed else { return };
        local.changes.push(LocalChange { id: committed.id, bytes: committed.bytes });
        local.marks.push(committed.mark);
        updates.extend(committed.updates);
        self.is_told &= committed.settings == Altered::Same;
        if committed.members == Altered::Written {
            local.members_changed = true;
            self.members = self.document.members();
            self.is_told = false;
        }
    }

    /// Lets the tree follow the document, its settings and its members.
    fn absorb(&mut self, updates: Vec<Update>) -> TreeDelta {
        let mut delta = self.tree.absorb(updates, &self.document);
        if !std::mem::replace(&mut self.is_told, true) {
            let are_shown = self.setting(CONFLICTS).is_some_and(|value| value == SIBLINGS);
            let members = self.members.values();
            let named = members.map(|member| (member.master, member.name.as_str()));
            let masters = are_shown.then(|| MasterNames::new(named));
            delta.nodes.extend(self.tree.show_siblings(masters));
        }
        delta
    }

    /// Takes in changes of others, in any order. Their signatures have been checked.
    ///
    /// `founder` needs no entry in the member list to write its own.
    pub fn receive(&mut self, changes: Vec<SignedChange>, founder: MasterId) -> Merged {
        let mut merged = Merged::default();
        let mut updates = Vec::new();
        let mut run = Vec::new();
        for change in changes {
            // A change depends on its author's entry: who is no member by now never becomes one by it.
            if !self.may_write(change.author, founder) {
                self.receive_run(std::mem::take(&mut run), &mut merged, &mut updates);
            }
            if self.may_write(change.author, founder) {
                run.push(change);
            } else {
                merged.gap = true;
                merged.refused.push(format!("{} is not a member, or not yet", change.author));
            }
        }
        self.receive_run(run, &mut merged, &mut updates);
        merged.delta = self.absorb(updates);
        merged.gap |= self.document.waiting() > 0;
        merged
    }

    fn may_write(&self, author: MasterId, founder: MasterId) -> bool {
        author == founder || self.members.contains_key(&author)
    }

    fn receive_run(
        &mut self,
        run: Vec<SignedChange>,
        merged: &mut Merged,
        updates: &mut Vec<Update>,
    ) {
        if run.is_empty() {
            return;
        }
        let received = self.document.receive(run);
        self.is_told &= received.settings == Altered::Same;
        if received.members == Altered::Written {
            merged.members_changed = true;
            self.members = self.document.members();
            self.is_told = false;
        }
        updates.extend(received.updates);
        merged.applied.extend(received.landed);
        merged.marks.extend(received.marks);
        merged.gap |= !received.dropped.is_empty();
        for (change, refusal) in received.refused {
            let SignedChange { id, author, .. } = change;
            if refusal.may_be_of_a_later_version() {
                merged.unreadable.push(Unreadable { author, id, reason: refusal.to_string() });
            } else {
                let ChangeId { writer, sequence } = id;
                merged.refused.push(format!("change {sequence} of writer {writer}: {refusal}"));
            }
        }
    }

    /// The merged tree.
    #[must_use]
    pub fn tree(&self) -> &Tree {
        &self.tree
    }

    /// The changes that are part of this replica.
    #[must_use]
    pub fn version_vector(&self) -> &VersionVector {
        self.document.known()
    }

    /// A hash over the heads: replicas of equal version vectors have equal ones.
    #[must_use]
    pub fn heads_hash(&self) -> ContentHash {
        self.document.heads()
    }

    /// The change that bore a node; none of the root, and of what is not known.
    #[must_use]
    pub fn birth_of(&self, node: NodeId) -> Option<ChangeId> {
        self.document.birth_of(node)?.1
    }

    /// The open conflicts, by path, with the masters that wrote the versions.
    #[must_use]
    pub fn conflicts(&self) -> Vec<Conflict> {
        self.tree.conflicts().into_iter().map(|conflict| self.with_masters(conflict)).collect()
    }

    /// The open conflicts of the entry that `node` is part of.
    #[must_use]
    pub fn conflicts_at(&self, node: NodeId) -> Vec<Conflict> {
        self.tree
            .conflicts_at(node)
            .into_iter()
            .map(|conflict| self.with_masters(conflict))
            .collect()
    }

    fn with_masters(&self, mut conflict: Conflict) -> Conflict {
        for version in &mut conflict.versions {
            version.master = self.master_of(version.stamp);
            version.written_ms = self.document.written_ms(version.stamp);
        }
        conflict
    }

    /// What the versions of a conflict go back to: the newest content that all their authors had seen.
    ///
    /// None for versions that are places, or of several nodes, and if the document has no history that
    /// tells. Whether anybody still has its bytes is another question.
    #[must_use]
    pub fn ancestor(&self, conflict: &Conflict) -> Option<Version> {
        let standing = conflict.standing()?;
        let node = standing.node;
        let is_content = |version: &&Version| version.of == VersionOf::Content;
        let contents: Vec<&Version> = conflict.versions.iter().filter(is_content).collect();
        if contents.is_empty() || contents.iter().any(|version| version.node != node) {
            return None;
        }
        let stamps: Vec<Stamp> = contents.iter().map(|version| version.stamp).collect();
        let Carried { stamp, body } = match conflict.kind {
            ConflictKind::Edited => self.document.ancestor(node, &stamps)?,
            ConflictKind::DeletedAndEdited => {
                let mut before = self.document.written_before(node, standing.stamp);
                before.retain(|&stamp, _| self.tree.is_deleted_content(node, stamp));
                let (stamp, body) = before.pop_last()?;
                Carried { stamp, body }
            }
            _ => return None,
        };
        let (master, written_ms) = (self.master_of(stamp), self.document.written_ms(stamp));
        let (of, stands, mode) = (VersionOf::Content, false, standing.mode);
        Some(Version { node, stamp, master, written_ms, of, body, mode, stands, elsewhere: None })
    }

    /// The member whose write has this stamp.
    #[must_use]
    pub fn master_of(&self, stamp: Stamp) -> Option<MasterId> {
        self.members.keys().copied().find(|&master| stamp.writer.belongs_to(master))
    }

    /// The member list, removed members included.
    #[must_use]
    pub fn members(&self) -> Vec<Member> {
        self.members.values().cloned().collect()
    }

    /// The masters that are members, but this one.
    pub(crate) fn members_but(&self, this: MasterId) -> impl Iterator<Item = MasterId> {
        let is_other = move |member: &&Member| !member.removed && member.master != this;
        self.members.values().filter(is_other).map(|member| member.master)
    }

    /// The entry of a member, removed or not.
    #[must_use]
    pub fn member(&self, master: MasterId) -> Option<Member> {
        self.members.get(&master).cloned()
    }

    /// Whether a master is a member and has not been removed.
    #[must_use]
    pub fn is_member(&self, master: MasterId) -> bool {
        self.members.get(&master).is_some_and(|member| !member.removed)
    }
}
