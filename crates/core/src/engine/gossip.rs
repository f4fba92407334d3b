//! Talking with the other masters: who knows what, and what they lack.

use super::{Engine, Output};
use crate::replica::LocalChange;
use crate::values::{Contents, Event, Message, Record, SignedChange, Version};
use crate::vocabulary::{ContentHash, MasterId};

/// How many bytes of contents travel with a change.
const CONTENTS_BYTES_MAX: usize = 256 << 10;

impl Engine {
    /// A change of this master: recorded, and told to all.
    pub(super) fn publish(&mut self, local: LocalChange, contents: Contents) {
        let LocalChange { id, bytes, delta } = local;
        let signature = self.identity.signer.sign(&bytes);
        let change = SignedChange { id, author: self.identity.master, bytes, signature };
        self.records.push(Record::Change(change.clone()));
        let mut room = CONTENTS_BYTES_MAX;
        let contents = contents
            .into_iter()
            .take_while(|(_, bytes)| {
                let fits = bytes.len() <= room;
                room = room.saturating_sub(bytes.len());
                fits
            })
            .collect();
        self.queued.push(Output::Broadcast(Message::Changes { changes: vec![change], contents }));
        self.tree_changed(delta);
    }

    pub(super) fn peer_came(&mut self, now: u64, master: MasterId) {
        self.peers.came(now, master);
        self.event(Event::Connected { master });
        self.transfer.retry_now();
        self.send_have(master);
        let known = self.projected.clone();
        self.queued.push(Output::Send(master, Message::Projected { known }));
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
            Message::Changes { changes, contents } => self.merge(from, changes, contents),
            Message::Projected { known } => {
                if let Some(peer) = self.peers.get_mut(from) {
                    peer.known.join(&known);
                    peer.projected = known;
                }
            }
        }
    }

    fn compare(
        &mut self,
        from: MasterId,
        known: &crate::vocabulary::VersionVector,
        heads: ContentHash,
    ) {
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
        if behind {
            self.send_have(from);
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
        let merged = self.replica.receive(changes, self.identity.founder);
        for refusal in merged.refused {
            self.event(Event::Refused { master: from, reason: refusal });
        }
        if let Some(last) = merged.applied.last() {
            let (master, changes) = (last.author, merged.applied.len() as u64);
            self.event(Event::RemoteChange { master, changes });
        }
        self.records.extend(merged.applied.into_iter().map(Record::Change));
        if merged.members_changed {
            self.queued.push(Output::Members(self.replica.members()));
        }
        if merged.gap && self.peers.get(from).is_some() {
            // Something before these changes is missing: what is known tells the sender what.
            self.send_have(from);
        }
        self.tree_changed(merged.delta);
    }

    /// An open conflict's version is kept on every master, on the disk or among the versions (R9).
    pub(super) fn retain_version(&mut self, version: &Version) {
        let crate::values::Body::File(content) = &version.body else { return };
        let hash = content.hash;
        if version.stands || content.size == 0 || self.retained.contains(&hash) {
            return;
        }
        if self.transfer.inline(&hash).is_some() {
            let bytes = self.transfer.inline(&hash).map(<[u8]>::to_vec);
            self.retained.insert(hash);
            self.queued.push(Output::Retain { hash, bytes });
        } else if self.base.by_hash(&hash).next().is_none() {
            self.transfer.want_retained(hash, content.size);
        }
    }

    pub(super) fn fetched(&mut self, hash: ContentHash) {
        let arrival = self.transfer.arrived(hash);
        self.touched.extend(&arrival.nodes);
        if arrival.retain {
            self.retained.insert(hash);
            self.queued.push(Output::Retain { hash, bytes: None });
            if arrival.nodes.is_empty() {
                self.transfer.consumed(&hash);
            }
        }
    }

    pub(super) fn request_contents(&mut self, now: u64) {
        let stopped = self.transfer.take_stopped();
        if !stopped.is_empty() {
            self.queued.push(Output::StopFetching(stopped));
        }
        if self.peers.masters().is_empty() {
            return;
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

    /// Tells the others what is on this disk, when that has grown and nothing is in between.
    pub(super) fn announce_projected(&mut self) {
        if !self.touched.is_empty() || !matches!(self.turn, super::Turn::Idle) {
            return;
        }
        if self.transfer.outstanding().0 == 0 {
            self.projected = self.replica.version_vector().clone();
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
