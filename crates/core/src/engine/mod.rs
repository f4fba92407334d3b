//! The engine: replica, base, snapshot, checkout and transfer held together as one state machine.
//!
//! `handle` an input, then drain `poll_output` in order; `poll_timeout` says when it wants to be woken. A
//! record is durable before any later output is performed: the order of the queue is the durability
//! rule. The engine has no clock, no disk and no network; whoever drives it has, and decides nothing.
//!
//! ```text
//! hints -> agenda -> survey (looks) -> acts -> replica -> change -> record, broadcast
//! message -> replica -> touched nodes -> plan -> fetch, effects -> base -> record
//! ```
//!
//! The disk has one turn at a time, a look or effects, so that the base never lags behind what a look
//! compares with.

mod absence;
mod agenda;
mod ahead;
mod conflicts;
mod copied;
mod follow;
mod gossip;
mod guard;
mod io;
mod late;
mod open;
mod peers;
mod problems;
mod projection;
mod restore;
mod retention;
mod settings;
mod survey;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use agenda::{Agenda, Known};
use ahead::Batches;
use peers::Peers;
use problems::{Blocked, Problems};

pub use follow::{Followed, Followup};
pub use guard::{Judgement, Withheld};
pub use io::{Hint, Input, Output, Wanted};
pub use open::{COPIED_HERE, Changes, Identity, OpenError, Stored};
pub use peers::Peer;
pub use restore::FormerUse;
pub use settings::{SETTINGS, Setting, SettingError};

use crate::checkout::Limits;
use crate::replica::{Replica, ResolveError};
use crate::snapshot::{Scope, Survey};
use crate::transfer::Transfer;
use crate::values::{
    Base, BaseId, Body, ChangeId, Choice, Event, Left, Member, Problem, Record, Signature,
    TreeDelta,
};
use crate::vocabulary::{
    ContentHash, Fingerprint, MasterId, Moment, NodeId, Stamp, TreePath, VersionVector,
};

/// Signs this master's changes. A pure function of the key and the bytes.
pub trait Signer: Send {
    /// The signature over the store's id, the change's own, and its bytes.
    fn sign(&self, id: ChangeId, bytes: &[u8]) -> Signature;
}

/// Whose turn the disk has.
#[derive(Debug)]
enum Turn {
    Idle,
    Looking(Box<Survey>),
    Applying(Batches),
}

/// What is going on, for people.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EngineStatus {
    /// Whether a look is under way or due.
    pub looking: bool,
    /// Nodes whose projection is still to be planned or done.
    pub pending: u64,
    /// Contents wanted, and their bytes.
    pub fetching: (u64, u64),
    /// Everything up to here is on this disk.
    pub projected: VersionVector,
    /// Why nothing is done at all, if so.
    pub frozen: Option<Problem>,
}

/// The state machine of one master.
#[allow(missing_debug_implementations, reason = "it holds a key")]
pub struct Engine {
    identity: Identity,
    replica: Replica,
    base: Base,
    agenda: Agenda,
    transfer: Transfer,
    peers: Peers,
    problems: Problems,
    turn: Turn,
    limits: Limits,
    /// Nodes whose entry may differ from the base.
    touched: BTreeSet<NodeId>,
    /// Touched nodes whose content has come, or of which somebody waits to see them: the first to be planned.
    ready: BTreeSet<NodeId>,
    /// Whether planning stopped halfway, so that what it asked for so far is on its way.
    halfway: bool,
    /// Nodes that wait for something else to happen first.
    stalled: BTreeSet<NodeId>,
    /// Nodes of which a path was not as the base has it: they wait until that has been looked at.
    doubted: BTreeMap<NodeId, TreePath>,
    /// Nodes of which an effect failed that was about another one too, for which the problem is noted: by
    /// that one.
    blocked_with: BTreeMap<NodeId, Vec<NodeId>>,
    /// How often in a row a node waited because its path had not settled.
    postponed: BTreeMap<NodeId, u32>,
    /// Contents among the retained versions, as far as this run knows.
    retained: BTreeSet<ContentHash>,
    /// Nodes that people's acts here touched, and that may not be on the disk yet.
    acted: BTreeSet<NodeId>,
    guard: guard::Guard,
    /// The last late write of each file of which there was one.
    late: BTreeMap<NodeId, Stamp>,
    /// Directories whose mtime our own effects have changed and not yet set right.
    disturbed: BTreeSet<BaseId>,
    /// Entries of which an effect failed that may have been done all the same, until they are found again; and
    /// what it may have left in their place.
    doubtful: BTreeMap<BaseId, Vec<Left>>,
    copied: copied::Copied,
    /// Entries that the base has in the parking area and that are not there: a crash came after they left it,
    /// or an effect took them out that failed all the same. A look at everything finds them, or else they are
    /// gone.
    unparked: BTreeSet<BaseId>,
    /// What was last told to the others.
    announced: VersionVector,
    /// The revision of the problems that was last told to the others.
    announced_problems: u64,
    projected: VersionVector,
    /// Where conflicts are open, and since when by the wall clock.
    conflicts: BTreeMap<NodeId, (TreePath, i64)>,
    frozen: Option<Problem>,
    /// Whether everything has been put on the agenda once.
    started: bool,
    /// Whether a survey has seen all of the disk since the start.
    caught_up: bool,
    /// Something that survey saw has to be looked at once more: until when that is waited for.
    unclear_until: Option<u64>,
    held: gossip::Held,
    /// Whether the last turn of the disk was a look: looks and effects take turns.
    looked_last: bool,
    /// The scopes of the survey under way, or the last one.
    surveyed: Vec<Scope>,
    /// Entries whose absence counts for that survey.
    vanished: BTreeSet<BaseId>,
    /// Entries that a survey did not find, and when it began: they count as removed if they are not found
    /// a while later either.
    missed: BTreeMap<BaseId, u64>,
    surveys_started: u64,
    surveys_finished: u64,
    /// How often in a row a node's effect found something else than expected.
    differed: BTreeMap<NodeId, u32>,
    unix_ms: i64,
    records: Vec<Record>,
    queued: Vec<Output>,
    outputs: VecDeque<Output>,
}

impl Engine {
    /// Takes one input in. What follows from it is in the queue afterwards.
    pub fn handle(&mut self, now: Moment, input: Input) {
        let ms = now.monotonic_ms;
        self.unix_ms = now.unix_ms;
        self.replica.set_time(now.unix_ms);
        self.unclear_until = self.unclear_until.filter(|&until| until > ms);
        match input {
            Input::Hints(hints) => self.hints(ms, hints),
            Input::Flush => self.agenda.flush(ms),
            Input::Looked(looked) => self.looked(ms, looked),
            Input::Applied(outcomes) => self.applied(ms, outcomes),
            Input::Fetched(hash) => self.fetched(hash),
            Input::Arrived(contents) => self.arrived(contents),
            Input::FetchFailed(hash) => self.fetch_failed(ms, hash),
            Input::NotTaken { hash, kind, reason } => self.not_taken(ms, hash, kind, reason),
            Input::PeerCame(master) => self.peer_came(ms, master),
            Input::PeerGone(master) => self.peer_gone(master),
            Input::Received(from, message) => self.received(from, message),
            Input::SetMember(member) => self.set_member(member),
            Input::RemoveMember(master) => self.remove_member(master),
            Input::Resync(master) => self.send_state(master),
            Input::Rotten(path, actual) => self.rotten(&path, actual),
            Input::LateWrite(late) => self.late_write(late),
            Input::Judged(judgement) => self.judge_withheld(ms, judgement),
            Input::RootLost(problem) => self.freeze(problem),
            Input::RootBack => self.thaw(),
            Input::Tick => {}
        }
        self.merge_held();
        self.advance(ms);
        self.seal();
    }

    /// Settles the conflicts at a path: a change like any other.
    pub fn resolve(
        &mut self,
        now: Moment,
        path: &TreePath,
        choice: &Choice,
    ) -> Result<(), ResolveError> {
        let local = self.replica.resolve(path, choice)?;
        self.act(now, local);
        Ok(())
    }

    /// Sets how many entries make one batch of effects at most.
    pub fn set_batch_max(&mut self, entries: usize) {
        self.limits = Limits { entries_max: entries.max(1) };
    }

    /// Whether [`Engine::resolve`] could do this now. Changes nothing.
    pub fn could_resolve(&mut self, path: &TreePath, choice: &Choice) -> Result<(), ResolveError> {
        self.replica.could_resolve(path, choice)
    }

    /// The next thing to do, in order.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When [`Input::Tick`] is due, on the monotonic clock; what is past is due at once.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<u64> {
        let disk = match (&self.frozen, &self.turn) {
            _ if self.copied.is_awaiting() => None,
            (None, Turn::Idle) if self.is_member() && self.halfway => Some(0),
            (None, Turn::Idle) if self.is_member() => self.agenda.timeout(),
            _ => None,
        };
        // With nobody to ask, asking again waits for somebody to come.
        let transfer = self.transfer.timeout().filter(|_| !self.peers.masters().is_empty());
        let due = [
            disk,
            transfer,
            self.peers.timeout(),
            self.problems.timeout(),
            self.unclear_until,
            self.guard.timeout(),
            self.copied.timeout(),
        ];
        due.into_iter().flatten().min()
    }

    /// The replica: tree, conflicts, members, version vector.
    #[must_use]
    pub fn replica(&self) -> &Replica {
        &self.replica
    }

    /// What was last known to be on the disk.
    #[must_use]
    pub fn base(&self) -> &Base {
        &self.base
    }

    /// This master.
    #[must_use]
    pub fn master(&self) -> MasterId {
        self.identity.master
    }

    /// What the connected masters are known to have.
    pub fn peers(&self) -> impl Iterator<Item = (MasterId, &Peer)> {
        self.peers.iter()
    }

    /// What can't be done at present.
    pub fn problems(&self) -> impl Iterator<Item = &Problem> {
        self.problems.iter()
    }

    /// What of that keeps something of the tree from being put on this disk.
    pub fn unprojected(&self) -> impl Iterator<Item = &Problem> {
        self.problems.unprojected()
    }

    /// A file of this disk that holds a content, as it was last seen.
    #[must_use]
    pub fn find_content(&self, hash: &ContentHash) -> Option<(TreePath, Fingerprint)> {
        let id = self.base.by_hash(*hash).next()?;
        let entry = self.base.entry(id)?;
        Some((self.base.path(id)?, entry.fingerprint))
    }

    /// How many surveys of the disk have begun. One that begins after a change on the disk, over all that
    /// is to be looked at, knows of the change once it is finished.
    #[must_use]
    pub fn surveys_started(&self) -> u64 {
        self.surveys_started
    }

    /// Which survey of the disk was finished last, as [`Engine::surveys_started`] counts them.
    #[must_use]
    pub fn surveys_finished(&self) -> u64 {
        self.surveys_finished
    }

    /// What is going on.
    #[must_use]
    pub fn status(&self) -> EngineStatus {
        let applying = match &self.turn {
            Turn::Applying(batches) => batches.effects() as u64,
            Turn::Idle | Turn::Looking(_) => 0,
        };
        EngineStatus {
            looking: matches!(self.turn, Turn::Looking(_))
                || !self.agenda.is_empty()
                || self.guard.is_counting(),
            pending: (self.touched.len() + self.stalled.len() + self.doubted.len()) as u64
                + applying,
            fetching: self.transfer.outstanding(),
            projected: self.projected.clone(),
            frozen: self.frozen.clone(),
        }
    }

    /// Whether nothing is under way, due or wanted: all that is known is on the disk.
    #[must_use]
    pub fn is_quiet(&self) -> bool {
        matches!(self.turn, Turn::Idle)
            && self.agenda.is_empty()
            && self.touched.is_empty()
            && self.doubted.is_empty()
            && !self.guard.is_counting()
            && !self.transfer.is_holding_up()
    }

    fn is_member(&self) -> bool {
        self.replica.is_member(self.identity.master)
    }

    fn is_known_directory(&self, path: &TreePath) -> bool {
        let known = self.base.find(path).and_then(|id| self.base.entry(id));
        path.is_root() || known.is_some_and(|entry| entry.is_directory())
    }

    fn hints(&mut self, now: u64, hints: Vec<Hint>) {
        for hint in hints {
            let base = &self.base;
            self.agenda.note(now, hint, |path| {
                match base.find(path).and_then(|id| base.entry(id)) {
                    None => Known::Unknown,
                    Some(entry) if entry.body.kind() == crate::vocabulary::Kind::Directory => {
                        Known::Directory
                    }
                    Some(_) => Known::Other,
                }
            });
        }
    }

    fn freeze(&mut self, problem: Problem) {
        if self.frozen.is_none() {
            self.event(Event::ProblemAppeared(problem.clone()));
        }
        self.frozen = Some(problem);
    }

    fn thaw(&mut self) {
        if let Some(problem) = self.frozen.take() {
            self.event(Event::ProblemSolved { path: problem.path });
            self.started = false;
        }
    }

    /// Gives the disk its next turn, asks for contents, tells the others.
    fn advance(&mut self, now: u64) {
        for blocked in self.problems.take_due(now) {
            match blocked {
                Blocked::Node(node) => {
                    self.touched.insert(node);
                }
                Blocked::Content(_) | Blocked::Removals | Blocked::Changes(_) => {}
                Blocked::Path(path) => {
                    self.agenda.again(now, agenda::name_scope(&path), 0);
                    if self.is_known_directory(&path) {
                        // Nobody knows any more what in it was to be looked at.
                        self.agenda.again(now, Scope::Subtree(path), 0);
                    }
                }
            }
        }
        self.count_withheld(now);
        self.await_others(now);
        if self.frozen.is_none() && self.is_member() {
            if !self.started {
                self.started = true;
                self.remember_conflicts();
                self.agenda.again(now, Scope::Subtree(TreePath::root()), 0);
            }
            if !self.copied.is_awaiting() {
                self.take_turns(now);
            }
        }
        self.retain_what_was_lost();
        self.request_contents(now);
        if self.peers.compare_is_due(now) {
            for master in self.peers.masters() {
                self.send_state(master);
            }
        }
        self.announce_projected();
    }

    /// Looks and effects take turns until the disk has something to do or nothing is left.
    fn take_turns(&mut self, now: u64) {
        self.halfway = false;
        while matches!(self.turn, Turn::Idle) && !self.halfway {
            let due = self.agenda.timeout().is_some_and(|at| at <= now);
            if due && (!self.looked_last || self.touched.is_empty()) {
                self.looked_last = true;
                self.start_survey(now);
            } else if !self.touched.is_empty() {
                self.looked_last = false;
                self.start_plan();
            } else {
                break;
            }
        }
        self.plan_ahead(now);
    }

    fn event(&mut self, event: Event) {
        self.queued.push(Output::Event(event));
    }

    /// Absorbs what changed in the tree: to be projected, and told where it is about conflicts.
    fn tree_changed(&mut self, delta: TreeDelta) {
        let changed: Vec<NodeId> = delta.conflicts_changed.iter().copied().collect();
        self.touched.extend(delta.nodes);
        self.touched.append(&mut self.stalled);
        for node in changed {
            self.conflict_changed(node);
        }
    }

    /// Puts what this input led to into the queue: first what must be durable, then the rest.
    fn seal(&mut self) {
        let mut records = std::mem::take(&mut self.records);
        for (id, row) in self.base.take_dirty_rows() {
            records.push(Record::Base { id, row });
        }
        if !records.is_empty() {
            self.outputs.push_back(Output::Persist(records));
        }
        self.outputs.extend(self.queued.drain(..));
    }

    fn set_member(&mut self, member: Member) {
        let local = self.replica.set_member(member);
        self.publish(local, Vec::new());
    }

    fn remove_member(&mut self, master: MasterId) {
        let Some(member) = self.replica.member(master) else { return };
        self.set_member(Member { removed: true, ..member });
    }

    /// The base learns what the file really holds; the tree's content is put in its place.
    fn rotten(&mut self, path: &TreePath, actual: ContentHash) {
        let Some(id) = self.base.find(path) else { return };
        self.base.update(id, |entry| {
            if let Body::File(content) = &mut entry.body {
                content.hash = actual;
            }
        });
        self.touched.extend(self.base.entry(id).and_then(|entry| entry.standing()));
    }
}
