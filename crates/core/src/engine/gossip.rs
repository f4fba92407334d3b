//! Talking with the other masters: who knows what, and what they lack.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use super::restore::FormerUse;
use super::{Blocked, Engine, Output};
use crate::replica::{Local, LocalChange, Unreadable};
use crate::values::{
    BLOCKED_MAX, Body, Contents, Event, Message, Problem, ProblemKind, Record, SignedChange,
};
use crate::vocabulary::{ContentHash, MasterId, NodeId, TreePath, VersionVector};

/// How many bytes of contents travel with a change.
const CONTENTS_BYTES_MAX: usize = 256 << 10;
/// After so many tries in vain a content counts as missing.
const FAILED_FETCHES_TOLD: u32 = 4;
/// From here on a change is taken for part of a larger answer.
const BULK_BYTES_MIN: usize = 256 << 10;

/// How many bytes of changes and their contents wait while the tree may not move on.
const HELD_BYTES_MAX: usize = 32 << 20;

/// The time of noting a problem that only a restart solves.
const NEVER_RETRIED: u64 = 0;

/// Changes that wait until the tree may move on, in the order in which they came.
#[derive(Default)]
pub(super) struct Held {
    changes: VecDeque<(MasterId, Vec<SignedChange>, Contents)>,
    bytes: usize,
    /// Who has changes that this one did not keep.
    missed: BTreeSet<MasterId>,
}

impl Held {
    pub(super) fn is_empty(&self) -> bool {
        self.changes.is_empty() && self.missed.is_empty()
    }
}

impl Engine {
    /// Changes of this master: recorded, and told to all.
    pub(super) fn publish(&mut self, local: Local, contents: Contents) {
        let mut room = CONTENTS_BYTES_MAX;
        let mut contents: Contents = contents
            .into_iter()
            .take_while(|(_, bytes)| {
                let fits = bytes.len() <= room;
                room = room.saturating_sub(bytes.len());
                fits
            })
            .collect();
        for LocalChange { id, bytes } in local.changes {
            let signature = self.identity.signer.sign(id, &bytes);
            let change = SignedChange { id, author: self.identity.master, bytes, signature };
            self.records.push(Record::Change(change.clone()));
            let contents = std::mem::take(&mut contents);
            self.queued
                .push(Output::Broadcast(Message::Changes { changes: vec![change], contents }));
        }
        self.records.extend(local.marks.into_iter().map(Record::Mark));
        if local.members_changed {
            self.queued.push(Output::Members(self.replica.members()));
        }
        self.tree_changed(local.delta);
    }

    pub(super) fn peer_came(&mut self, now: u64, master: MasterId) {
        self.peers.came(now, master);
        self.event(Event::Connected { master });
        self.transfer.retry_now();
        self.send_state(master);
    }

    /// Says what is known here and what is on the disk.
    pub(super) fn send_state(&mut self, to: MasterId) {
        self.send_have(to);
        if self.problems.revision() > 0 {
            let blocked = self.blocked_message();
            self.queued.push(Output::Send(to, blocked));
        }
        let known = self.projected.clone();
        self.queued.push(Output::Send(to, Message::Projected { known }));
    }

    pub(super) fn peer_gone(&mut self, master: MasterId) {
        if self.peers.gone(master) {
            self.event(Event::Disconnected { master });
        }
    }

    pub(super) fn send_have(&mut self, to: MasterId) {
        let known = self.replica.version_vector().clone();
        let heads = self.replica.heads_hash();
        self.queued.push(Output::Send(to, Message::Have { known, heads }));
    }

    pub(super) fn received(&mut self, from: MasterId, message: Message) {
        match message {
            Message::Have { known, heads } => self.compare(from, &known, heads),
            Message::Changes { changes, contents } if self.may_merge() => {
                self.merge(from, changes, contents);
            }
            Message::Changes { changes, contents } => self.hold(from, changes, contents),
            Message::Projected { known } => {
                if let Some(peer) = self.peers.get_mut(from) {
                    peer.known.join(&known);
                    peer.projected = known;
                }
            }
            Message::Blocked { mut problems, total } => {
                problems.truncate(BLOCKED_MAX);
                if let Some(peer) = self.peers.get_mut(from) {
                    (peer.blocked, peer.blocked_total) = (problems, total);
                }
            }
        }
    }

    fn compare(&mut self, from: MasterId, known: &VersionVector, heads: ContentHash) {
        let ours = self.replica.version_vector();
        let (ahead, behind) = (!known.covers(ours), !ours.covers(known));
        let equal = !ahead && !behind;
        if equal && heads != self.replica.heads_hash() {
            let reason = "it knows the same changes and has other heads: one writer wrote two \
                          histories; remove that master and let it join anew"
                .into();
            self.event(Event::Refused { master: from, reason });
        }
        let Some(peer) = self.peers.get_mut(from) else { return };
        peer.known = known.clone();
        if ahead {
            self.queued.push(Output::SendLog { to: from, known: known.clone() });
        }
        self.copied.has_told(from);
        if behind && self.may_merge() {
            self.send_have(from);
        } else if behind {
            self.held.missed.insert(from);
        }
    }

    /// Whether the tree may move on. Not while effects are being done, nor before the first survey has
    /// seen what a crash left half done: what the disk got without the base knowing is then in the tree
    /// of the log, and so adopted, never taken for a user's act. A state that was copied has less in its log than
    /// the disk got: it first hears of that.
    fn may_merge(&self) -> bool {
        let caught_up = self.caught_up || self.frozen.is_some() || !self.is_member();
        let caught_up = caught_up || self.copied.is_awaiting();
        let is_clear = self.unclear_until.is_none() || self.frozen.is_some();
        caught_up && is_clear && !matches!(self.turn, super::Turn::Applying(_))
    }

    fn hold(&mut self, from: MasterId, changes: Vec<SignedChange>, contents: Contents) {
        let size = changes.iter().map(|change| change.bytes.len()).sum::<usize>()
            + contents.iter().map(|(_, bytes)| bytes.len()).sum::<usize>();
        if self.held.bytes + size > HELD_BYTES_MAX {
            self.held.missed.insert(from);
            return;
        }
        self.held.bytes += size;
        self.held.changes.push_back((from, changes, contents));
    }

    /// Merges what had to wait, and asks again for what there was no room for.
    pub(super) fn merge_held(&mut self) {
        if !self.may_merge() {
            return;
        }
        let Held { changes, missed, .. } = std::mem::take(&mut self.held);
        for (from, changes, contents) in changes {
            self.merge(from, changes, contents);
        }
        for master in missed {
            if self.peers.get(master).is_some() {
                self.send_have(master);
            }
        }
    }

    fn merge(&mut self, from: MasterId, changes: Vec<SignedChange>, contents: Contents) {
        for (hash, bytes) in contents {
            if ContentHash::of(&bytes) == hash {
                self.transfer.offer(hash, bytes);
            }
        }
        if let Some(peer) = self.peers.get_mut(from) {
            for change in &changes {
                peer.known.advance(change.id.writer, change.id.sequence);
            }
        }
        // What came in bulk is part of an answer that may have more pages: say how far we are.
        let bulk = changes.len() > 1
            || changes.iter().map(|change| change.bytes.len()).sum::<usize>() > BULK_BYTES_MIN;
        let merged = self.replica.receive(changes, self.identity.founder);
        for refusal in merged.refused {
            self.event(Event::Refused { master: from, reason: refusal });
        }
        for unreadable in merged.unreadable {
            self.could_not_read(&unreadable);
        }
        if let Some(last) = merged.applied.last() {
            let (master, changes) = (last.author, merged.applied.len() as u64);
            self.event(Event::RemoteChange { master, changes });
        }
        if merged.members_changed {
            self.queued.push(Output::Members(self.replica.members()));
        }
        let more = merged.gap || bulk && !merged.applied.is_empty();
        let known = self.replica.version_vector();
        let peer = self.peers.get_mut(from);
        // What is known tells the sender what is missing. Told the same again, it would send the same: what
        // is refused, or waits for what is, would come and go for ever. Comparing goes on all the same.
        if more
            && peer
                .is_some_and(|peer| peer.asked_with.replace(known.clone()).as_ref() != Some(known))
        {
            self.send_have(from);
        }
        self.records.extend(merged.applied.into_iter().map(Record::Change));
        self.records.extend(merged.marks.into_iter().map(Record::Mark));
        self.tree_changed(merged.delta);
    }

    /// A person should know that something stays with its author until pleach is upgraded here (P7).
    fn could_not_read(&mut self, unreadable: &Unreadable) {
        let Unreadable { author, id, reason } = unreadable;
        let name = self.replica.member(*author).map(|member| member.name);
        let name = name.unwrap_or_else(|| author.to_string());
        let reason = format!(
            "{name} has written what this version of pleach can't read ({reason}, change {} of writer {}): \
             that, and what builds on it, is taken in once pleach is upgraded here; until then the others \
             have it",
            id.sequence, id.writer
        );
        let problem = Problem { kind: ProblemKind::LaterChange, path: TreePath::root(), reason };
        // The first of them says it all.
        let blocked = Blocked::Changes(*author);
        if !self.problems.has(&blocked)
            && let Some(event) = self.problems.note(NEVER_RETRIED, blocked, problem)
        {
            self.event(event);
        }
    }

    pub(super) fn fetched(&mut self, hash: ContentHash) {
        match self.is_of_no_use(&hash) {
            true => self.queued.push(Output::Unstage(hash)),
            false => self.staged(hash),
        }
    }

    /// A content is in the staging area, and of use or about to be.
    pub(super) fn staged(&mut self, hash: ContentHash) {
        let arrival = self.transfer.arrived(hash);
        self.forget_fetch_problems();
        self.touched.extend(&arrival.nodes);
        self.ready.extend(&arrival.nodes);
        self.touched.append(&mut self.stalled);
        if arrival.retain {
            self.retained.insert(hash);
            self.queued.push(Output::Retain { hash, bytes: None });
            self.transfer.at_hand.hand_over(hash);
            // A file that is to hold it, as a sibling does, has it from there.
            self.transfer.at_hand.consumed(&hash);
        }
    }

    /// After some tries that nobody could answer, a person should know (P7).
    pub(super) fn fetch_failed(&mut self, now: u64, hash: ContentHash) {
        let Some((attempts, node)) = self.transfer.failed(hash, now) else {
            return self.unstage_unwanted(hash);
        };
        // It may be a version of a conflict that is another entry's by now, or closed.
        for node in self.transfer.conflicts_of(&hash) {
            if FormerUse::is_meant_by(node) {
                self.transfer.unwant_retained(node, hash);
                continue;
            }
            let open = self.replica.conflicts_at(node);
            self.retain_versions(node, &open);
        }
        self.forget_fetch_problems();
        if !self.transfer.is_wanted(&hash) {
            return;
        }
        if attempts < FAILED_FETCHES_TOLD || self.peers.masters().is_empty() {
            return;
        }
        if let Some(path) = self.replica.tree().path(node) {
            let reason = match self.are_all_connected() {
                false => {
                    "no connected master holds its content: it comes when one that does connects; \
                     what is here stays until then"
                }
                true => {
                    "no master holds its content any more, it was removed where it was written: save the \
                     file, or restore a version of it (`pleach versions`); what is here stays until then"
                }
            };
            let reason = reason.to_owned();
            let problem = Problem { kind: ProblemKind::ContentMissing, path, reason };
            if let Some(event) = self.problems.note(now, Blocked::Content(hash), problem) {
                self.event(event);
            }
        }
    }

    fn are_all_connected(&self) -> bool {
        let mut others = self.replica.members_but(self.identity.master);
        others.all(|other| self.peers.get(other).is_some())
    }

    /// What this disk does not take, a person should know at once (P7). A version of a conflict that was
    /// to be kept is wanted again.
    pub(super) fn not_taken(
        &mut self,
        now: u64,
        hash: ContentHash,
        kind: ProblemKind,
        reason: String,
    ) {
        let waiting = self.transfer.not_taken(hash, now);
        let disputed = match self.retained.remove(&hash) {
            true => {
                self.transfer.at_hand.note_litter(hash);
                self.want_version_again(now, hash)
            }
            false => None,
        };
        let Some(node) = waiting.or(disputed) else {
            return self.unstage_unwanted(hash);
        };
        let Some(path) = self.replica.tree().path(node) else { return };
        let problem = Problem { kind, path, reason };
        if let Some(event) = self.problems.note(now, Blocked::Content(hash), problem) {
            self.event(event);
        }
    }

    /// Whether nobody wants a content any more that was being fetched, and nothing has been made of it.
    fn is_of_no_use(&self, hash: &ContentHash) -> bool {
        let transfer = &self.transfer;
        let is_at_hand =
            transfer.at_hand.is_staged(hash) || transfer.at_hand.inline(hash).is_some();
        let is_used = matches!(self.turn, super::Turn::Applying(_)) || is_at_hand;
        !is_used && !transfer.is_wanted(hash)
    }

    /// What came of a content before nobody wanted it any more does not stay.
    fn unstage_unwanted(&mut self, hash: ContentHash) {
        if self.is_of_no_use(&hash) {
            self.queued.push(Output::Unstage(hash));
        }
    }

    /// Wants a content, after a while, for the conflicts that it is a version of; one of their nodes.
    fn want_version_again(&mut self, now: u64, hash: ContentHash) -> Option<NodeId> {
        let mut disputed = None;
        for &node in self.conflicts.keys() {
            let conflicts = self.replica.conflicts_at(node).into_iter();
            let mut bodies = conflicts.flat_map(|open| open.versions).map(|version| version.body);
            let is_it = |body: Body| match body {
                Body::File(content) if content.hash == hash => Some(content.size),
                _ => None,
            };
            if let Some(size) = bodies.find_map(is_it) {
                self.transfer.want_retained_later(node, hash, size, now);
                disputed = Some(node);
            }
        }
        disputed
    }

    pub(super) fn forget_fetch_problems(&mut self) {
        let transfer = &self.transfer;
        let solved = self.problems.fetched(|hash| !transfer.is_wanted(hash));
        self.queued.extend(solved.into_iter().map(Output::Event));
    }

    /// Small contents have arrived in memory.
    pub(super) fn arrived(&mut self, contents: Vec<(ContentHash, Arc<[u8]>)>) {
        for (hash, bytes) in contents {
            let arrival = self.transfer.arrived_inline(hash, bytes.clone());
            if arrival.retain {
                self.retained.insert(hash);
                let bytes = Some(bytes.to_vec());
                self.queued.push(Output::Retain { hash, bytes });
                if arrival.nodes.is_empty() {
                    self.transfer.at_hand.consumed(&hash);
                }
            }
            self.touched.extend(&arrival.nodes);
            self.ready.extend(arrival.nodes);
        }
        self.forget_fetch_problems();
        self.touched.append(&mut self.stalled);
    }

    /// With nothing left to be put that could be, nothing that is staged is of any use: it came in the midst of a
    /// batch, or something newer has taken its place.
    fn unstage_left_over(&mut self) {
        if !self.problems.retry_nodes() {
            let left = self.transfer.take_unwanted_staged();
            left.into_iter().for_each(|hash| self.unstage(hash));
        }
    }

    /// Throws away what is staged. The disk may not have come to keeping it yet: what is to be kept twice is kept
    /// once, and nothing of it stays staged.
    pub(super) fn unstage(&mut self, hash: ContentHash) {
        self.queued.push(match self.retained.contains(&hash) {
            true => Output::Retain { hash, bytes: None },
            false => Output::Unstage(hash),
        });
    }

    pub(super) fn request_contents(&mut self, now: u64) {
        let stopped = self.transfer.take_stopped();
        if !stopped.is_empty() {
            self.queued.push(Output::StopFetching(stopped));
        }
        let requests = self.transfer.requests(now);
        if requests.is_empty() {
            return;
        }
        let wanted = requests
            .into_iter()
            .map(|request| super::Wanted {
                hash: request.hash,
                size: request.size,
                old_version: request.old_version,
                providers: self.peers.providers(None, request.attempts),
            })
            .collect();
        self.queued.push(Output::Fetch(wanted));
    }

    fn blocked_message(&self) -> Message {
        let problems = self.problems.unprojected().take(BLOCKED_MAX).cloned().collect();
        Message::Blocked { problems, total: self.problems.unprojected().count() as u64 }
    }

    /// Tells the others what is on this disk, when that has grown and nothing is in between.
    pub(super) fn announce_projected(&mut self) {
        if !matches!(self.turn, super::Turn::Idle) {
            return;
        }
        let waiting = self.touched.len() + self.stalled.len() + self.doubted.len();
        if waiting == 0 {
            self.unstage_left_over();
            self.forget_acts_done();
        }
        if waiting == 0 && !self.transfer.is_holding_up() {
            self.projected = self.replica.version_vector().clone();
        }
        let revision = self.problems.revision();
        if revision != std::mem::replace(&mut self.announced_problems, revision) {
            let blocked = self.blocked_message();
            for master in self.peers.masters() {
                self.queued.push(Output::Send(master, blocked.clone()));
            }
        }
        if self.projected != self.announced {
            self.announced = self.projected.clone();
            let known = self.projected.clone();
            for master in self.peers.masters() {
                let message = Message::Projected { known: known.clone() };
                self.queued.push(Output::Send(master, message));
            }
        }
    }
}
