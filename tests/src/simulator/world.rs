//! The world: simulated time, everything that is under way in it, and the loop that lets it happen.
//!
//! All that is under way waits in one queue by time; what happens at the same microsecond happens in the
//! order in which it was put there. Nothing else decides an order, so one history gives one trace.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;

use pleach_core::engine::{Hint, Input, Wanted};
use pleach_core::values::{ChangeId, Choice, Message, Restoring};
use pleach_core::vocabulary::{ContentHash, Timestamp, TreePath};
use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::clones::Twins;
use super::disk::{Disk, InodeKey};
use super::driver::{Doom, End, Master, master_id, member};
use super::history::{History, Item, Power};
use super::network::{Epoch, Network};
use super::oracle::Oracle;
use super::programs::RunningProgram;
use super::properties::{Failure, Property};
use super::trace::{Lines, Trace};

/// So long must nothing have moved for a world to be settled: longer than every retry of the engine.
const QUIET_US: u64 = 90_000_000;
/// A world that takes more steps in one go will never settle.
const STEPS_MAX: u64 = 400_000;
/// How soon somebody looks again whether an invitation has been recorded.
const INVITATION_POLL_US: u64 = 50_000;

/// What one run gave.
#[derive(Clone, Debug)]
pub struct Report {
    /// The hash of all that happened.
    pub trace: String,
    /// How many things happened.
    pub events: u64,
    /// What went wrong, if something did.
    pub failure: Option<Failure>,
}

/// Something that is under way.
#[derive(Debug)]
pub(super) enum Happening {
    Item(Box<Item>),
    Join(usize),
    Call(usize),
    Hints { master: usize, generation: u64, hints: Vec<Hint> },
    Step { master: usize, generation: u64 },
    DiskStep { master: usize, generation: u64 },
    Wake { master: usize, generation: u64, at_ms: u64 },
    Stream { from: usize, to: usize, epoch: Epoch, message: Rc<Message> },
    Gossip { from: usize, to: usize, generation: u64, message: Rc<Message> },
    Notice { end: usize, other: usize, epoch: Epoch },
    Connect { from: usize, to: usize },
    Fetch { master: usize, generation: u64, wanted: Wanted, attempt: usize },
    End { master: usize, generation: u64, doom: Doom },
    Start(usize),
    Mend { from: usize, to: usize },
    HearAgain(usize),
    ReadAgain { master: usize, path: TreePath },
    LateWrite { master: usize, key: InodeKey },
    Judge { master: usize, generation: u64 },
    BringBack { master: usize, generation: u64, wanted: Box<Restoring> },
}

/// A simulated world.
#[allow(missing_debug_implementations, reason = "an engine holds a key")]
pub struct World {
    pub(super) history: History,
    pub(super) now_us: u64,
    pub(super) queue: BTreeMap<(u64, u64), Happening>,
    queued: u64,
    pub(super) masters: Vec<Master>,
    pub(super) network: Network,
    pub(super) programs: Vec<RunningProgram>,
    pub(super) oracle: Oracle,
    /// Versions that programs have written to, by master: not taken in yet.
    pub(super) late: BTreeSet<(usize, InodeKey)>,
    /// The texts of all links that users made.
    pub(super) links: BTreeSet<ContentHash>,
    /// What users had back that was removed, on which master and by which change.
    pub(super) brought_back: Vec<(usize, ContentHash, ChangeId)>,
    /// What some master let go of, as its retention had it.
    pub(super) let_go: BTreeSet<ContentHash>,
    pub(super) trace: Trace,
    pub(super) random: ChaCha8Rng,
    pub(super) failure: Option<Failure>,
    pub(super) healed: bool,
    /// When something last moved.
    pub(super) moved_us: u64,
    /// When the last hint of each master arrives.
    pub(super) hints_us: Vec<u64>,
    /// A master that was cloned, and its clone.
    pub(super) twins: Option<Twins>,
    /// Whether a conflict was settled since this was last reset.
    pub(super) resolved: bool,
}

/// Runs a history and checks what must hold. A panic is a failure like any other.
#[must_use]
pub fn run(history: &History, lines: Lines) -> Report {
    let mut world = World::new(history.clone(), lines);
    let outcome = catch_unwind(AssertUnwindSafe(|| world.run()));
    if let Err(panic) = outcome {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
        world.fail(Property::NoPanic, text.unwrap_or("a panic without words").to_owned());
    }
    Report { trace: world.trace.hash(), events: world.trace.events(), failure: world.failure }
}

impl World {
    fn new(history: History, lines: Lines) -> Self {
        let profile = &history.profile;
        let clock = Timestamp { seconds: 1_800_000_000, nanos: 0 };
        let disk = |index: usize| {
            let mut disk = Disk::new(index as u64 + 1, profile.inode_numbers, clock);
            if profile.power == Power::Cut {
                disk.keep_journal();
            }
            disk
        };
        let masters: Vec<Master> =
            (0..profile.masters).map(|index| Master::new(index, disk(index))).collect();
        Self {
            now_us: 0,
            queue: BTreeMap::new(),
            queued: 0,
            hints_us: vec![0; masters.len()],
            masters,
            network: Network::new(history.seed, profile),
            programs: Vec::new(),
            oracle: Oracle::default(),
            brought_back: Vec::new(),
            late: BTreeSet::new(),
            links: BTreeSet::new(),
            let_go: BTreeSet::new(),
            trace: Trace::new(lines),
            random: ChaCha8Rng::seed_from_u64(history.seed ^ 0x0077_6f72_6c64),
            failure: None,
            healed: false,
            moved_us: 0,
            twins: None,
            resolved: false,
            history,
        }
    }

    fn run(&mut self) {
        self.start(0);
        let founder = member(0, 0);
        self.give(0, Input::SetMember(founder));
        for master in 1..self.masters.len() {
            self.after(self.history.profile.joins_us[master], Happening::Join(master));
        }
        for item in std::mem::take(&mut self.history.items) {
            self.after(item.at_us, Happening::Item(Box::new(item)));
        }
        self.run_until(self.history.profile.span_us);
        self.heal();
        self.part_twins();
        self.settle_and_check();
        self.let_go_of_versions();
        for round in std::mem::take(&mut self.history.rounds) {
            self.round(round);
        }
        self.close_conflicts();
    }

    /// What single users do in a settled store has the effect that it has on a plain directory (R15).
    fn round(&mut self, items: Vec<Item>) {
        if self.failure.is_some() {
            return;
        }
        let Some(master) = items.first().map(|item| item.master) else { return };
        self.trace.note(self.now_us, &[], || "== settled; next round".to_owned());
        self.oracle.all_have_looked();
        self.resolved = false;
        let mut pending = items.len();
        for item in items {
            self.after(item.at_us, Happening::Item(Box::new(item)));
        }
        let waits = self.waits_for_ever();
        self.moved_us = self.now_us;
        let mut steps = 0;
        while pending > 0 || self.programs.iter().any(|program| !program.is_over()) {
            let Some(((at_us, _), happening)) = self.queue.pop_first() else { break };
            pending -= usize::from(matches!(happening, Happening::Item(_)));
            self.now_us = at_us;
            self.happen(happening);
            steps += 1;
            if self.failure.is_some() || steps > STEPS_MAX {
                break;
            }
        }
        let plain = self.masters[master].disk.listing();
        self.settle_and_check();
        // What nobody can fetch any more, the user did not see: it keeps the directories above it (R5).
        if !self.resolved && !waits {
            self.check_plain(master, &plain);
        }
    }

    /// All that is kept among the versions has been kept for long enough: what is needed stays.
    fn let_go_of_versions(&mut self) {
        if self.failure.is_some() {
            return;
        }
        self.trace.note(self.now_us, &[], || "== old versions are let go".to_owned());
        for master in &mut self.masters {
            self.let_go.extend(master.let_go_of_versions());
        }
        self.check_settled();
    }

    /// Closing every conflict on some master closes them all on every master, and changes no tree.
    fn close_conflicts(&mut self) {
        if self.failure.is_some() || self.masters.is_empty() {
            return;
        }
        let before = self.masters[0].disk.listing();
        let closer = self.random.random_range(0..self.masters.len());
        let Some(running) = &self.masters[closer].running else { return };
        let open = running.engine.replica().conflicts();
        if open.is_empty() {
            return;
        }
        self.trace.note(self.now_us, &[], || format!("== {closer} closes every conflict"));
        for conflict in open {
            self.resolve(closer, &conflict.path, &Choice::KeepStanding);
        }
        self.settle_and_check();
        self.check_closed(&before);
    }

    fn settle_and_check(&mut self) {
        self.settle();
        self.check_settled();
        if self.failure.is_some() {
            return;
        }
        let before = self.marks();
        for master in 0..self.masters.len() {
            self.give(master, Input::Hints(vec![Hint::Subtree(TreePath::root())]));
        }
        self.settle();
        self.check_no_echo(&before);
        self.check_projected();
    }

    /// Lets things happen until a moment.
    fn run_until(&mut self, until_us: u64) {
        let mut steps = 0;
        while let Some((&(at_us, _), _)) = self.queue.first_key_value() {
            if at_us > until_us || self.failure.is_some() {
                break;
            }
            let Some((_, happening)) = self.queue.pop_first() else { break };
            self.now_us = at_us;
            self.happen(happening);
            steps += 1;
            if steps > STEPS_MAX {
                self.fail(Property::Settles, format!("{STEPS_MAX} steps before {until_us} us"));
            }
        }
        self.now_us = self.now_us.max(until_us);
    }

    /// Lets things happen until nothing has moved for long.
    pub(super) fn settle(&mut self) {
        self.moved_us = self.now_us;
        let mut steps = 0;
        while let Some((&(at_us, _), _)) = self.queue.first_key_value() {
            let quiet_us = at_us.saturating_sub(self.moved_us);
            let at_rest = quiet_us > QUIET_US && self.is_idle() || quiet_us > 2 * QUIET_US;
            if self.failure.is_some() || at_rest {
                break;
            }
            let Some((_, happening)) = self.queue.pop_first() else { break };
            self.now_us = at_us;
            self.happen(happening);
            steps += 1;
            if steps > STEPS_MAX {
                self.fail(Property::Settles, format!("still moving after {STEPS_MAX} steps"));
            }
        }
    }

    /// Whether no daemon is in the middle of something: they compare what they know for ever.
    fn is_idle(&self) -> bool {
        let idle = |master: &Master| master.running.as_ref().is_none_or(|r| r.is_idle());
        self.masters.iter().all(idle)
    }

    fn heal(&mut self) {
        self.trace.note(self.now_us, &[], || "== healed".to_owned());
        self.healed = true;
        self.network.heal();
        for master in 0..self.masters.len() {
            let this = &mut self.masters[master];
            this.doom = None;
            this.dark_until_us = 0;
            this.full_until_us = 0;
            this.faults.clear();
            this.disk.set_unreadable(None);
            this.deaf_until_us = 0;
            let joined = this.identity == 0 || this.inviter.is_some();
            if this.running.is_none() && joined {
                self.start(master);
            }
            self.give(master, Input::Hints(vec![Hint::Subtree(TreePath::root())]));
            self.connect_to_all(master);
        }
        self.invite_again();
    }

    pub(super) fn fail(&mut self, property: Property, detail: String) {
        if self.failure.is_none() {
            self.trace.note(self.now_us, &[], || format!("!! {property:?}: {detail}"));
            self.failure = Some(Failure { property, detail });
        }
    }

    pub(super) fn after(&mut self, delay_us: u64, happening: Happening) {
        self.at(self.now_us + delay_us, happening);
    }

    pub(super) fn at(&mut self, at_us: u64, happening: Happening) {
        self.queued += 1;
        self.queue.insert((at_us.max(self.now_us), self.queued), happening);
    }

    /// Puts an input into a daemon's queue, if it runs.
    pub(super) fn give(&mut self, master: usize, input: Input) {
        if let Some(running) = &mut self.masters[master].running {
            running.inbox.push_back(input);
            self.step_soon(master);
        }
    }

    pub(super) fn step_soon(&mut self, master: usize) {
        let pause_us = self.random.random_range(1..40);
        let this = &mut self.masters[master];
        let generation = this.generation;
        if let Some(running) = &mut this.running
            && !running.step_is_due
            && running.has_step()
        {
            running.step_is_due = true;
            self.after(pause_us, Happening::Step { master, generation });
        }
    }

    pub(super) fn is_current(&self, master: usize, generation: u64) -> bool {
        let this = &self.masters[master];
        this.running.is_some() && this.generation == generation
    }

    fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::Item(item) => self.item(&item),
            Happening::Join(master) => self.join(master),
            Happening::Call(program) => self.call(program),
            Happening::Hints { master, generation, mut hints } => {
                if self.is_current(master, generation) && !self.is_deaf(master) {
                    let Master { running, disk, .. } = &self.masters[master];
                    if let Some(running) =
                        running.as_ref().filter(|_| self.history.profile.leaves_echoes_out)
                    {
                        hints.retain(|hint| !running.is_echo(disk, hint));
                    }
                    if !hints.is_empty() {
                        self.give(master, Input::Hints(hints));
                    }
                }
            }
            Happening::Step { master, generation } if self.is_current(master, generation) => {
                self.step(master);
            }
            Happening::DiskStep { master, generation } if self.is_current(master, generation) => {
                self.disk_step(master);
            }
            Happening::Wake { master, generation, at_ms } => self.wake(master, generation, at_ms),
            Happening::Stream { from, to, epoch, message } => {
                if self.network.carries(from, to, epoch) {
                    self.receive(from, to, &message);
                }
            }
            Happening::Gossip { from, to, generation, message } => {
                if self.is_current(to, generation) {
                    self.receive(from, to, &message);
                }
            }
            Happening::Notice { end, other, epoch } => {
                if self.network.disconnect(end, other, epoch) {
                    self.give(end, Input::PeerGone(self.id_of(other)));
                    self.connect_soon(end, other);
                }
            }
            Happening::Connect { from, to } => self.connect(from, to),
            Happening::Fetch { master, generation, wanted, attempt } => {
                if self.is_current(master, generation) {
                    self.fetch(master, wanted, attempt);
                }
            }
            Happening::End { master, generation, doom } => {
                let due = self.masters[master].doom.is_some();
                if self.is_current(master, generation) && due {
                    self.end(master, doom);
                }
            }
            Happening::Start(master) => self.start(master),
            Happening::Mend { from, to } => {
                self.network.mend(from, to);
                self.connect_soon(from, to);
            }
            Happening::HearAgain(master) => {
                if self.now_us >= self.masters[master].deaf_until_us {
                    self.give(master, Input::Hints(vec![Hint::Subtree(TreePath::root())]));
                }
            }
            Happening::ReadAgain { master, path } => {
                self.masters[master].disk.set_unreadable(None);
                self.give(master, Input::Hints(vec![Hint::Subtree(path)]));
            }
            Happening::LateWrite { master, key } => self.take_in_late_write(master, key),
            Happening::Judge { master, generation } => self.judge(master, generation),
            Happening::BringBack { master, generation, wanted } => {
                self.bring_back(master, generation, *wanted);
            }
            Happening::Step { .. } | Happening::DiskStep { .. } => {}
        }
    }

    pub(super) fn is_deaf(&self, master: usize) -> bool {
        self.masters[master].deaf_until_us > self.now_us
    }

    fn wake(&mut self, master: usize, generation: u64, at_ms: u64) {
        if self.is_current(master, generation)
            && let Some(running) = &mut self.masters[master].running
            && running.wake_ms == Some(at_ms)
        {
            running.wake_ms = None;
            self.give(master, Input::Tick);
        }
    }

    /// The joiner's daemon starts once its invitation is recorded.
    fn join(&mut self, master: usize) {
        let inviter = 0;
        let id = master_id(master);
        let recorded = self.masters[inviter].running.as_ref().is_some_and(|running| {
            running.is_idle()
                && running.engine.replica().members().iter().any(|member| member.master == id)
        });
        if recorded {
            self.masters[master].inviter = Some(inviter);
            self.start(master);
        } else {
            self.give(inviter, Input::SetMember(member(master, inviter)));
            self.after(INVITATION_POLL_US, Happening::Join(master));
            self.moved_us = self.now_us;
        }
    }

    pub(super) fn start(&mut self, master: usize) {
        let this = &self.masters[master];
        if this.running.is_some() || this.dark_until_us > self.now_us {
            return;
        }
        self.moved_us = self.now_us;
        let nonce = self.random.next_u64();
        self.trace.note(self.now_us, &[1, master as u64], || format!("{master} starts"));
        let started = self.masters[master].start(self.now_us, nonce, &self.history.profile);
        if let Err(error) = started {
            self.fail(Property::Opens, error);
            return;
        }
        self.give(master, Input::Tick);
        self.connect_to_all(master);
    }

    /// A daemon ends, by itself or with its machine.
    pub(super) fn end(&mut self, master: usize, doom: Doom) {
        match doom.end {
            End::Killed => self.kill(master),
            End::PowerCut => self.cut_power(master, doom.down_us),
        }
        self.after(doom.down_us, Happening::Start(master));
    }

    pub(super) fn kill(&mut self, master: usize) {
        self.trace.note(self.now_us, &[2, master as u64], || format!("{master} is killed"));
        self.masters[master].kill();
        self.forget_what_was_not_recorded(master);
        for (other, epoch) in self.network.died(master) {
            let delay_us = 100 + self.network.below(2_000_000);
            self.after(delay_us, Happening::Notice { end: other, other: master, epoch });
        }
    }
}
