//! A master: a real engine, its virtual disk, what it made durable, and the driver between them.
//!
//! As the daemon's driver it decides nothing: outputs are performed one by one in their order, records
//! are durable before what follows them. A crash loses the engine, the outputs not yet performed, the
//! look or the effects under way and all inputs; the disk and what was made durable stay.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use pleach_core::engine::{Changes, Engine, Hint, Identity, Input, Output, Signer, Stored};
use pleach_core::values::{
    ChangeId, Effect, Location, Look, Looked, Member, Outcome, Problem, ProblemKind, Record,
    Signature, SignedChange,
};
use pleach_core::vocabulary::{
    ContentHash, Fingerprint, MasterId, Moment, StoreId, TreePath, WriterId,
};
use pleach_daemon::disk::{Fresh, must_be_durable};

use super::backups::Saved;
use super::disk::{Batch, Disk};
use super::durable::Durable;
use super::faults::{Calls, Fault, Faults, sort_of};
use super::history::Profile;

/// The one store of every simulated world.
pub const STORE: StoreId = StoreId([7; 32]);

/// The identity of a master by its position.
#[must_use]
pub fn master_id(index: usize) -> MasterId {
    MasterId(*blake3::hash(&[index as u8]).as_bytes())
}

/// Signs with a keyed hash: as good as a signature where nobody lies.
#[derive(Debug)]
struct HashSigner(MasterId);

impl Signer for HashSigner {
    fn sign(&self, _: ChangeId, bytes: &[u8]) -> Signature {
        sign(self.0, bytes)
    }
}

fn sign(master: MasterId, bytes: &[u8]) -> Signature {
    let mut signature = [0; 64];
    let mut hasher = blake3::Hasher::new_keyed(&master.0);
    hasher.update(bytes).finalize_xof().fill(&mut signature);
    Signature::new(&signature)
}

/// The member entry of a master.
#[must_use]
pub fn member(index: usize, inviter: usize) -> Member {
    let master = master_id(index);
    let invited_by = master_id(inviter);
    Member {
        master,
        name: format!("m{index}"),
        addresses: Vec::new(),
        invited_by,
        signature: sign(invited_by, &master.0),
        removed: false,
    }
}

/// Whether a change is signed by its author.
#[must_use]
pub fn is_signed(change: &SignedChange) -> bool {
    sign(change.author, &change.bytes) == change.signature
}

/// What the disk is busy with.
#[derive(Debug)]
enum Work {
    Looking { look: Look, looked: Looked },
    Applying { effects: VecDeque<Effect>, tried: Vec<(Effect, Outcome)>, batch: Batch },
}

impl Work {
    fn applying(effects: VecDeque<Effect>) -> Self {
        Self::Applying { effects, tried: Vec::new(), batch: Batch::default() }
    }
}

/// What follows from a step on the disk.
#[derive(Debug)]
pub enum DiskStep {
    /// Something was looked at.
    Looked,
    /// An effect was tried, and may have changed the disk.
    Tried(Box<Tried>),
    /// All is done; the engine is to be told.
    Finished,
}

/// An effect that was tried.
#[derive(Debug)]
pub struct Tried {
    /// Which.
    pub effect: Effect,
    /// What the engine is told.
    pub outcome: Outcome,
    /// Whether the disk has changed, whatever the engine is told.
    pub changed: bool,
}

/// A running daemon.
#[allow(missing_debug_implementations, reason = "an engine holds a key")]
pub struct Running {
    /// The engine.
    pub engine: Engine,
    /// Inputs that wait.
    pub inbox: VecDeque<Input>,
    outbox: VecDeque<Output>,
    work: Option<Work>,
    /// Effects to do after those under way.
    ahead: VecDeque<VecDeque<Effect>>,
    /// What looks have found and nobody made durable.
    fresh: Fresh,
    started_us: u64,
    /// Contents that were asked for and not answered yet.
    pub fetching: BTreeSet<ContentHash>,
    /// The wake-up under way, by the engine's clock.
    pub wake_ms: Option<u64>,
    /// Whether a step is under way.
    pub step_is_due: bool,
    /// Whether somebody has been asked to judge what is withheld.
    pub judge_is_called: bool,
    /// What its effects left, by path.
    left: BTreeMap<TreePath, Fingerprint>,
}

impl Running {
    /// An effect left this.
    pub fn note_left(&mut self, effect: &Effect, outcome: &Outcome) {
        let Outcome::Done { fingerprint } = outcome else { return };
        if let Effect::PutFile { at: Location::Tree(path), .. }
        | Effect::PutSymlink { at: Location::Tree(path), .. }
        | Effect::SetAttributes { at: Location::Tree(path), .. } = effect
        {
            self.left.insert(path.clone(), *fingerprint);
        }
    }

    /// Whether a hint tells of nothing but an own effect.
    #[must_use]
    pub fn is_echo(&self, disk: &Disk, hint: &Hint) -> bool {
        match hint {
            Hint::Written(path) | Hint::Changed(path) | Hint::Removed(path) => {
                self.left.get(path).is_some_and(|&left| disk.stat(path) == Some(left))
            }
            _ => false,
        }
    }
}

/// The end of a daemon.
#[derive(Clone, Copy, Debug)]
pub struct Doom {
    /// Outputs and steps on the disk until it comes.
    pub steps: u32,
    /// How long nothing runs then.
    pub down_us: u64,
    /// What ends.
    pub end: End,
}

/// What ends with a daemon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Nothing else: it is killed.
    Killed,
    /// All that runs on the machine, and what its disk has only in memory.
    PowerCut,
}

/// One master.
#[allow(missing_debug_implementations, reason = "an engine holds a key")]
pub struct Master {
    /// Its position.
    pub index: usize,
    /// Whose key it has: its own, unless it is a clone.
    pub identity: usize,
    /// Its disk.
    pub disk: Disk,
    /// What it made durable.
    pub durable: Durable,
    /// The daemon, if it runs.
    pub running: Option<Running>,
    /// How often the daemon was started.
    pub generation: u64,
    /// Who invited it; known from its ticket before it knows the list of members.
    pub inviter: Option<usize>,
    /// The members it admits.
    pub admitted: BTreeSet<MasterId>,
    /// The last backup of it.
    pub saved: Option<Saved>,
    /// When it is killed.
    pub doom: Option<Doom>,
    /// Until when the machine has no power.
    pub dark_until_us: u64,
    /// Until when its watcher says nothing.
    pub deaf_until_us: u64,
    /// Calls that fail.
    pub faults: Faults,
    /// Until when its disk is full.
    pub full_until_us: u64,
    /// Wall clock minus simulated time, in seconds.
    pub clock_skew_seconds: i64,
}

impl Master {
    /// A master whose daemon never ran.
    #[must_use]
    pub fn new(index: usize, disk: Disk) -> Self {
        Self {
            index,
            identity: index,
            disk,
            durable: Durable::default(),
            running: None,
            generation: 0,
            inviter: None,
            admitted: BTreeSet::new(),
            saved: None,
            doom: None,
            dark_until_us: 0,
            deaf_until_us: 0,
            faults: Faults::default(),
            full_until_us: 0,
            clock_skew_seconds: 0,
        }
    }

    /// Starts the daemon on what is durable. The nonce is never used twice.
    pub fn start(&mut self, now_us: u64, nonce: u64, profile: &Profile) -> Result<(), String> {
        let master = master_id(self.identity);
        let identity = Identity {
            store: STORE,
            founder: master_id(0),
            master,
            writer: WriterId::new(master, nonce.to_le_bytes()),
            signer: Box::new(HashSigner(master)),
        };
        let from = self.durable.snapshot.as_ref().map_or(0, |(_, position)| *position);
        let rows = |rows: &BTreeMap<u64, Vec<u8>>| {
            rows.iter().map(|(&id, row)| (id, row.clone())).collect::<Vec<_>>()
        };
        let mut retained = self.disk.version_hashes();
        retained.extend(self.durable.retained.keys());
        let stored = Stored {
            changes: Changes::Stored {
                snapshot: self.durable.snapshot.as_ref().map(|(bytes, _)| bytes.clone()),
                log: self.durable.log[from..].to_vec(),
            },
            base: rows(&self.durable.base),
            intents: rows(&self.durable.intents),
            parked: self.disk.parked(),
            staged: self.durable.staged.keys().copied().collect(),
            retained,
            put_aside: self.disk.put_aside(),
        };
        let mut engine = Engine::open(identity, stored).map_err(|error| error.to_string())?;
        engine.set_removals_max(profile.removals_max.unwrap_or(usize::MAX));
        if let Some(entries) = profile.batch_max {
            engine.set_batch_max(entries);
        }
        self.generation += 1;
        self.admitted.extend(engine.replica().members().iter().map(|member| member.master));
        self.running = Some(Running {
            engine,
            inbox: VecDeque::new(),
            outbox: VecDeque::new(),
            work: None,
            ahead: VecDeque::new(),
            fresh: Fresh::default(),
            started_us: now_us,
            fetching: BTreeSet::new(),
            wake_ms: None,
            step_is_due: false,
            judge_is_called: false,
            left: BTreeMap::new(),
        });
        Ok(())
    }

    /// Kills the daemon.
    pub fn kill(&mut self) {
        self.running = None;
        self.doom = None;
    }

    /// Whether an output or a step on the disk may be taken; if not, how it ends.
    pub fn survives_step(&mut self) -> Result<(), Doom> {
        match &mut self.doom {
            Some(doom) if doom.steps == 0 => Err(*doom),
            Some(doom) => {
                doom.steps -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// What looks have found is made durable before these are recorded, as the daemon does.
    pub fn settle(&mut self, records: &[Record]) {
        let Some(running) = &mut self.running else { return };
        if !self.disk.has_journal() || !must_be_durable(records, master_id(self.identity)) {
            return;
        }
        let fresh = running.fresh.take();
        if fresh.has_many() {
            return self.disk.sync_all();
        }
        for (path, seen) in fresh.files() {
            match self.disk.lookup(path) {
                Ok(key) if self.disk.fingerprint(key).same_object(seen) => self.disk.sync_file(key),
                Ok(_) | Err(_) => return self.disk.sync_all(),
            }
        }
        if fresh.has_names() {
            self.disk.sync_names();
        }
    }

    /// The disk's clock follows the simulated time.
    pub fn set_clock(&mut self, now_us: u64) {
        let seconds = 1_800_000_000 + (now_us / 1_000_000) as i64 + self.clock_skew_seconds;
        let nanos = (now_us % 1_000_000) as u32 * 1_000;
        self.disk.set_clock(pleach_core::vocabulary::Timestamp { seconds, nanos });
    }

    /// Where a content can be had from: the tree, the versions or the staging area.
    #[must_use]
    pub fn serve(&self, hash: &ContentHash) -> Option<Vec<u8>> {
        let engine = &self.running.as_ref()?.engine;
        let in_tree = engine.find_content(hash).and_then(|(path, _)| self.disk.read(&path));
        in_tree
            .filter(|bytes| ContentHash::of(bytes) == *hash)
            .or_else(|| self.kept(hash))
            .or_else(|| self.durable.staged.get(hash).map(Vec::as_slice))
            .map(<[u8]>::to_vec)
    }

    /// Whether a content is among the versions, or in a file of the tree that is as it was when it was looked at.
    pub(super) fn has(&self, hash: &ContentHash) -> bool {
        let running = self.running.as_ref();
        let in_tree = running.and_then(|running| running.engine.find_content(hash));
        let is_same = |(path, fingerprint)| self.disk.stat(&path) == Some(fingerprint);
        self.kept(hash).is_some() || in_tree.is_some_and(is_same)
    }

    /// A content that is among the versions.
    #[must_use]
    pub fn kept(&self, hash: &ContentHash) -> Option<&[u8]> {
        self.disk.version(hash).or_else(|| self.durable.retained.get(hash).map(Vec::as_slice))
    }

    /// Lets go of what is among the versions and not needed; what went.
    pub fn let_go_of_versions(&mut self) -> BTreeSet<ContentHash> {
        let Some(running) = &mut self.running else { return BTreeSet::new() };
        let mut kept = self.disk.version_hashes();
        kept.extend(self.durable.retained.keys());
        let needed = running.engine.let_go(&kept);
        let gone = &kept - &needed;
        self.disk.forget_versions(&gone);
        self.durable.retained.retain(|hash, _| !gone.contains(hash));
        gone
    }

    /// Whether this master holds a content in any way.
    #[must_use]
    pub fn holds(&self, hash: &ContentHash) -> bool {
        self.kept(hash).is_some()
            || self.durable.staged.contains_key(hash)
            || self
                .disk
                .listing()
                .values()
                .any(|entry| super::oracle::key_of(&entry.body) == Some(*hash))
    }

    /// Writes the document as a snapshot, if the log holds all that the engine knows.
    pub fn compact(&mut self) {
        if let Some(running) = &self.running
            && running.outbox.is_empty()
        {
            let position = self.durable.log.len();
            self.durable.snapshot = Some((running.engine.replica().save(), position));
        }
    }
}

impl Running {
    /// The engine's clock.
    #[must_use]
    pub fn moment(&self, now_us: u64) -> Moment {
        Moment {
            monotonic_ms: (now_us - self.started_us) / 1_000,
            unix_ms: 1_800_000_000_000 + (now_us / 1_000) as i64,
        }
    }

    /// The simulated time of a moment of the engine's clock.
    #[must_use]
    pub fn simulated_us(&self, monotonic_ms: u64) -> u64 {
        self.started_us + monotonic_ms * 1_000
    }

    /// The next inputs for the engine, at most so many.
    pub fn next_inputs(&mut self, max: usize) -> Vec<Input> {
        self.inbox.drain(..max.min(self.inbox.len())).collect()
    }

    /// Gives the engine inputs.
    pub fn handle(&mut self, now_us: u64, inputs: Vec<Input>) {
        let now = self.moment(now_us);
        for input in inputs {
            self.engine.handle(now, input);
        }
        self.drain();
    }

    /// Takes over what the engine wants done.
    pub fn drain(&mut self) {
        while let Some(output) = self.engine.poll_output() {
            self.outbox.push_back(output);
        }
    }

    /// The next output to perform.
    pub fn next_output(&mut self) -> Option<Output> {
        self.outbox.pop_front()
    }

    /// An output that could not be performed: it is the next one again.
    pub fn put_back(&mut self, output: Output) {
        self.outbox.push_front(output);
    }

    /// Whether there is an output to perform or an input to give.
    #[must_use]
    pub fn has_step(&self) -> bool {
        !self.outbox.is_empty() || !self.inbox.is_empty()
    }

    /// Whether nothing is under way.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        !self.has_step() && self.work.is_none()
    }

    /// Begins a look.
    pub fn begin_look(&mut self, look: Look) -> Result<(), String> {
        self.begin(Work::Looking { look, looked: Looked::default() })
    }

    /// Begins a batch of effects, or does it after the one under way.
    pub fn begin_apply(&mut self, effects: Vec<Effect>) -> Result<(), String> {
        if let Some(Work::Applying { .. }) = self.work {
            self.ahead.push_back(effects.into());
            return Ok(());
        }
        self.begin(Work::applying(effects.into()))
    }

    fn begin(&mut self, work: Work) -> Result<(), String> {
        if let Some(under_way) = &self.work {
            return Err(format!("{work:?} while {under_way:?} is under way"));
        }
        self.work = Some(work);
        Ok(())
    }

    /// Takes one step of the look or the effects under way.
    pub fn disk_step(
        &mut self,
        disk: &mut Disk,
        staged: &mut BTreeMap<ContentHash, Vec<u8>>,
        space: Space,
        mut meet: impl FnMut(Calls) -> Option<Fault>,
    ) -> Option<DiskStep> {
        match self.work.as_mut()? {
            Work::Looking { look, looked } => {
                if let Some(request) = look.lists.get(looked.lists.len()) {
                    looked.lists.push(match meet(Calls::List) {
                        None => disk.list(request),
                        Some(fault) => fault.listed(request),
                    });
                    return Some(DiskStep::Looked);
                }
                if let Some(request) = look.reads.get(looked.reads.len()) {
                    looked.reads.push(match meet(Calls::Read) {
                        None => disk.read_request(request),
                        Some(fault) => fault.read(request),
                    });
                    return Some(DiskStep::Looked);
                }
                let looked = std::mem::take(looked);
                self.fresh.note(look, &looked);
                self.inbox.push_back(Input::Looked(looked));
            }
            Work::Applying { effects, tried, batch } => {
                if let Some(effect) = effects.pop_front() {
                    let fault = meet(Calls::Effects(sort_of(&effect)));
                    let (outcome, changed) = match (space, fault) {
                        (Space::Left, None) => {
                            let outcome = disk.perform(batch, &effect, staged);
                            let changed = matches!(outcome, Outcome::Done { .. });
                            (outcome, changed)
                        }
                        (Space::Left, Some(fault)) => fault.perform(disk, batch, &effect, staged),
                        (Space::None, _) => (no_space(&effect), false),
                    };
                    tried.push((effect.clone(), outcome.clone()));
                    return Some(DiskStep::Tried(Box::new(Tried { effect, outcome, changed })));
                }
                let tried = std::mem::take(tried);
                let fault = meet(Calls::SyncBatch);
                disk.sync_names();
                let outcomes = tried.into_iter().map(|(effect, outcome)| match (outcome, fault) {
                    (Outcome::Done { .. }, Some(fault)) if !effect.parks() => {
                        fault.reason.outcome(&effect)
                    }
                    (outcome, _) => outcome,
                });
                let outcomes = outcomes.collect();
                self.inbox.push_back(Input::Applied(outcomes));
            }
        }
        self.work = self.ahead.pop_front().map(Work::applying);
        Some(DiskStep::Finished)
    }
}

/// Whether the disk takes anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Space {
    /// It does.
    Left,
    /// ENOSPC.
    None,
}

fn no_space(effect: &Effect) -> Outcome {
    let path = match effect.target() {
        Location::Tree(path) => path.clone(),
        Location::Parked(..) => TreePath::root(),
    };
    let reason = "no space left".to_owned();
    Outcome::Failed(Problem { kind: ProblemKind::NoSpace, path, reason })
}
