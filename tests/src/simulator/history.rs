//! A history: everything that happens to a world from outside, as a list whose items can be left out.
//!
//! It follows from its seed alone. What an item does in detail is decided by its own salt when its time
//! comes, so that it means something even after other items were left out: that is what lets a failing
//! history shrink.

use std::fmt;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::backups::Part;
use super::disk::{Copying, InodeNumbers};
use super::faults::{Calls, EFFECT_SORTS, Fault, REASONS, When};
use super::user::Habit;

/// The most masters in one history.
pub const MASTERS_MAX: usize = 4;

/// What a history is like as a whole.
#[derive(Clone, Debug)]
pub struct Profile {
    /// How many masters.
    pub masters: usize,
    /// The slowest message, in microseconds.
    pub link_delay_us_max: u64,
    /// How many of 100 gossiped messages get lost.
    pub gossip_loss_percent: u32,
    /// How many of 100 hints overflow the watcher's queue, which says so within 40 ms.
    pub hint_loss_percent: u32,
    /// How many of 100 contents that are asked for fail to come.
    pub fetch_loss_percent: u32,
    /// Whether inode numbers are given out again.
    pub inode_numbers: InodeNumbers,
    /// When each master joins, in microseconds; 0 is the founder's.
    pub joins_us: [u64; MASTERS_MAX],
    /// When the last item is over, in microseconds.
    pub span_us: u64,
    /// How many entries may be removed in one go before a person is asked; none if always.
    pub removals_max: Option<usize>,
    /// How many entries make one batch of effects at most; as many as the daemon takes if none.
    pub batch_max: Option<usize>,
    /// Whether what the watcher hears of own effects is left out, where all is as they left it.
    pub leaves_echoes_out: bool,
    /// Whether the power fails.
    pub power: Power,
    /// Whether conflicts are shown as siblings, at times at least.
    pub siblings: bool,
}

/// Whether the power of masters fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Power {
    /// Never.
    Steady,
    /// Now and then.
    Cut,
}

/// One thing that happens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// When, in microseconds from the start of the world.
    pub at_us: u64,
    /// To whom.
    pub master: usize,
    /// What.
    pub what: What,
    /// Decides what is left open.
    pub salt: u64,
}

/// What happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// A user runs a program.
    User(Habit),
    /// The daemon is killed before its so-manieth output or step on the disk from now on.
    Crash { outputs: u32, down_us: u64 },
    /// The machine loses its power before the daemon's so-manieth output or step on the disk from now on.
    PowerCut { outputs: u32, down_us: u64 },
    /// Messages to the other get lost, and the other way round too if both.
    Cut { other: usize, direction: Direction, for_us: u64 },
    /// The watcher says nothing, then asks for a look at everything.
    Deaf { for_us: u64 },
    /// Some directory can't be listed.
    Unreadable { for_us: u64 },
    /// A backup is taken.
    Backup,
    /// The last backup is restored, or a part of it.
    Restore { part: Part, down_us: u64 },
    /// A machine is copied, and both go on.
    CloneMachine,
    /// The others are connected to the other one of a master and its clone.
    TakeTurns,
    /// Some calls fail.
    Failing { fault: Fault, for_us: u64 },
    /// Effects fail: no space.
    Full { for_us: u64 },
    /// The document is written as a snapshot, so that the next start reads that.
    Compact,
    /// A full look is due.
    FullLook,
    /// Somebody asks to wait.
    Flush,
    /// Somebody settles some conflict.
    Resolve,
    /// Somebody has something back that was removed.
    BringBack,
    /// The wall clock jumps.
    ClockJump { seconds: i64 },
    /// Somebody has conflicts shown otherwise.
    ShowConflicts { siblings: bool },
}

/// Which messages a cut loses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Only those to the other.
    OneWay,
    /// Both.
    BothWays,
}

/// A history.
#[derive(Clone, Debug)]
pub struct History {
    /// What it follows from; also decides delays.
    pub seed: u64,
    /// What it is like.
    pub profile: Profile,
    /// What happens, by time.
    pub items: Vec<Item>,
    /// What single users do after everything has settled, one round after the other; times count from
    /// the start of the round.
    pub rounds: Vec<Vec<Item>>,
}

/// What may be fixed from outside.
#[derive(Clone, Copy, Debug, Default)]
pub struct Wishes {
    /// The number of masters.
    pub masters: Option<usize>,
    /// The number of items.
    pub items: Option<usize>,
    /// Whether some histories have a guard against mass deletion that is worth the name, and others leave
    /// echoes out: the seeds kept from before have not.
    pub guard: bool,
    /// Whether in some histories batches of effects are so small that one is planned ahead of another.
    pub batches: bool,
    /// Whether in some histories the power fails.
    pub power: bool,
    /// Whether in some histories single calls fail.
    pub calls: bool,
    /// Whether in some histories backups are restored.
    pub backups: bool,
    /// Whether in some histories a machine is cloned.
    pub clones: bool,
    /// Whether in some histories users have back what was removed.
    pub undoing: bool,
    /// Whether in some histories conflicts are shown as siblings.
    pub siblings: bool,
}

impl Wishes {
    /// All that a history may have in it.
    #[must_use]
    pub fn everything() -> Self {
        Self {
            masters: None,
            items: None,
            guard: true,
            batches: true,
            power: true,
            calls: true,
            backups: true,
            clones: true,
            undoing: true,
            siblings: true,
        }
    }
}

impl History {
    /// The history of a seed.
    #[must_use]
    pub fn new(seed: u64, wishes: Wishes) -> Self {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let masters = random.random_range(2..=MASTERS_MAX);
        let masters = wishes.masters.unwrap_or(masters).clamp(1, MASTERS_MAX);
        let count = [6, 15, 40, 80][random.random_range(0..4)];
        let count = wishes.items.unwrap_or(random.random_range(2..=count));
        let pace_us = [300, 20_000, 200_000, 1_500_000][random.random_range(0..4)];
        let fault_percent = [0, 0, 10, 25][random.random_range(0..4)];
        let mut items = Vec::with_capacity(count);
        let mut at_us = 0;
        for _ in 0..count {
            at_us += random.random_range(0..2 * pace_us);
            let master = random.random_range(0..masters);
            let what = if random.random_range(0..100) < fault_percent {
                What::pick_fault(&mut random, master, masters)
            } else {
                What::User(Habit::pick(&mut random))
            };
            items.push(Item { at_us, master, what, salt: random.random() });
        }
        let mut profile = Profile::pick(&mut random, masters, at_us);
        let rounds = (0..random.random_range(0..4)).map(|_| round(&mut random, masters)).collect();
        if wishes.guard && random.random_range(0..3) == 0 {
            profile.removals_max = Some(random.random_range(1..8));
        }
        profile.batch_max = (wishes.batches && seed % 3 == 1).then(|| (1 + seed / 3 % 6) as usize);
        profile.leaves_echoes_out = wishes.guard && seed.is_multiple_of(2);
        let mut history = Self { seed, profile, items, rounds };
        if wishes.power {
            history.let_power_fail();
        }
        if wishes.calls {
            history.let_calls_fail();
        }
        if wishes.backups {
            history.let_backups_be_restored();
        }
        if wishes.clones {
            history.let_a_machine_be_cloned();
        }
        if wishes.undoing {
            history.let_removals_be_undone();
        }
        if wishes.siblings {
            history.let_siblings_be_shown();
        }
        history
    }

    /// In some histories the power fails. What is decided here changes nothing else of the history.
    fn let_power_fail(&mut self) {
        let mut random = ChaCha8Rng::seed_from_u64(self.seed ^ 0x0070_6f77_6572);
        if random.random_range(0..4) != 0 {
            return;
        }
        self.profile.power = Power::Cut;
        for _ in 0..random.random_range(1..6) {
            let outputs = random.random_range(0..40);
            let down_us = [5_000, 300_000][random.random_range(0..2)];
            let down_us = random.random_range(0..down_us);
            let what = What::PowerCut { outputs, down_us };
            self.insert(&mut random, what);
        }
    }

    /// In some histories calls fail.
    fn let_calls_fail(&mut self) {
        let mut random = ChaCha8Rng::seed_from_u64(self.seed ^ 0x0063_616c_6c73);
        if random.random_range(0..4) != 0 {
            return;
        }
        for _ in 0..random.random_range(1..10) {
            let for_us = [300_000, 4_000_000, 30_000_000][random.random_range(0..3)];
            let what = What::Failing { fault: Fault::pick(&mut random), for_us };
            self.insert(&mut random, what);
        }
    }

    /// In some histories backups are taken and restored.
    fn let_backups_be_restored(&mut self) {
        let mut random = ChaCha8Rng::seed_from_u64(self.seed ^ 0x0062_6163_6b75);
        if random.random_range(0..5) != 0 {
            return;
        }
        for _ in 0..random.random_range(1..3) {
            let master = random.random_range(0..self.profile.masters);
            let [first, second] = [0; 2].map(|_| random.random_range(0..=self.profile.span_us));
            self.insert_at(&mut random, first.min(second), master, What::Backup);
            let copying =
                if random.random_range(0..2) == 0 { Copying::All } else { Copying::Differing };
            let part = match random.random_range(0..4) {
                0 => Part::Tree(copying),
                1 => Part::State,
                2 => Part::Both(copying),
                _ => Part::Disk,
            };
            let down_us = [5_000, 300_000][random.random_range(0..2)];
            let down_us = random.random_range(0..down_us);
            let what = What::Restore { part, down_us };
            self.insert_at(&mut random, first.max(second), master, what);
        }
    }

    /// In some histories a machine is cloned.
    fn let_a_machine_be_cloned(&mut self) {
        let mut random = ChaCha8Rng::seed_from_u64(self.seed ^ 0x0063_6c6f_6e65);
        if random.random_range(0..8) != 0 {
            return;
        }
        self.insert(&mut random, What::CloneMachine);
        for _ in 0..random.random_range(0..5) {
            self.insert(&mut random, What::TakeTurns);
        }
    }

    /// In some histories users have back what was removed.
    fn let_removals_be_undone(&mut self) {
        let mut random = ChaCha8Rng::seed_from_u64(self.seed ^ 0x756e_646f);
        if random.random_range(0..4) != 0 {
            return;
        }
        let span_us = self.profile.span_us;
        for _ in 0..random.random_range(1..8) {
            // At the beginning nothing has been removed yet.
            let at_us = random.random_range(span_us / 3..=span_us);
            let master = random.random_range(0..self.profile.masters);
            self.insert_at(&mut random, at_us, master, What::BringBack);
        }
    }

    /// In some histories conflicts are shown as siblings, from the start on or later, and now and then not.
    fn let_siblings_be_shown(&mut self) {
        let mut random = ChaCha8Rng::seed_from_u64(self.seed ^ 0x0073_6962_6c69);
        if random.random_range(0..2) != 0 {
            return;
        }
        self.profile.siblings = true;
        let first = What::ShowConflicts { siblings: true };
        match random.random_range(0..3) {
            0 => self.insert(&mut random, first),
            _ => self.insert_at(&mut random, self.profile.span_us / 8, 0, first),
        }
        for _ in 0..[0, 0, 2][random.random_range(0..3)] {
            let siblings = random.random_range(0..2) == 0;
            self.insert(&mut random, What::ShowConflicts { siblings });
        }
    }

    /// Something more happens, at any time.
    fn insert(&mut self, random: &mut ChaCha8Rng, what: What) {
        let at_us = random.random_range(0..=self.profile.span_us);
        let master = random.random_range(0..self.profile.masters);
        self.insert_at(random, at_us, master, what);
    }

    fn insert_at(&mut self, random: &mut ChaCha8Rng, at_us: u64, master: usize, what: What) {
        let item = Item { at_us, master, what, salt: random.random() };
        let position = self.items.partition_point(|before| before.at_us <= at_us);
        self.items.insert(position, item);
    }

    /// How many items can be left out.
    #[must_use]
    pub fn len(&self) -> usize {
        self.items.len() + self.rounds.iter().map(Vec::len).sum::<usize>()
    }

    /// Whether the power fails, calls fail, a backup is restored, or a machine is cloned.
    #[must_use]
    pub fn has_rare_faults(&self) -> bool {
        self.items.iter().any(|item| {
            matches!(
                item.what,
                What::PowerCut { .. }
                    | What::Failing { .. }
                    | What::Restore { .. }
                    | What::CloneMachine
            )
        })
    }

    /// Whether nothing happens at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The same history with only those items whose position passes.
    #[must_use]
    pub fn keeping(&self, keep: impl Fn(usize) -> bool) -> Self {
        let mut position = 0;
        let mut filter = |items: &Vec<Item>| -> Vec<Item> {
            let mut kept = Vec::new();
            for item in items {
                if keep(position) {
                    kept.push(item.clone());
                }
                position += 1;
            }
            kept
        };
        let items = filter(&self.items);
        let rounds =
            self.rounds.iter().map(&mut filter).filter(|round| !round.is_empty()).collect();
        Self { seed: self.seed, profile: self.profile.clone(), items, rounds }
    }
}

fn round(random: &mut ChaCha8Rng, masters: usize) -> Vec<Item> {
    let master = random.random_range(0..masters);
    let count = random.random_range(1..4);
    let mut at_us = 0;
    let mut items = Vec::new();
    for _ in 0..count {
        at_us += [100, 50_000, 1_000_000][random.random_range(0..3)];
        let what = if random.random_range(0..8) == 0 {
            What::Resolve
        } else {
            What::User(Habit::pick(random))
        };
        items.push(Item { at_us, master, what, salt: random.random() });
    }
    items
}

impl Profile {
    fn pick(random: &mut ChaCha8Rng, masters: usize, last_us: u64) -> Self {
        let mut joins_us = [0; MASTERS_MAX];
        for join_us in &mut joins_us[1..masters] {
            *join_us = if random.random_range(0..4) == 0 {
                random.random_range(0..last_us.max(1))
            } else {
                random.random_range(0..2_000)
            };
        }
        Self {
            masters,
            link_delay_us_max: [500, 5_000, 100_000][random.random_range(0..3)],
            gossip_loss_percent: [0, 5, 30][random.random_range(0..3)],
            hint_loss_percent: [0, 0, 2][random.random_range(0..3)],
            fetch_loss_percent: [0, 0, 20][random.random_range(0..3)],
            inode_numbers: if random.random_range(0..2) == 0 {
                InodeNumbers::Reused
            } else {
                InodeNumbers::Fresh
            },
            joins_us,
            span_us: last_us,
            removals_max: None,
            batch_max: None,
            leaves_echoes_out: false,
            power: Power::Steady,
            siblings: false,
        }
    }
}

impl Fault {
    fn pick(random: &mut ChaCha8Rng) -> Self {
        let calls = match random.random_range(0..20) {
            0..12 => Calls::Effects(EFFECT_SORTS[random.random_range(0..EFFECT_SORTS.len())]),
            12..14 => Calls::SyncBatch,
            14..16 => Calls::List,
            16..18 => Calls::Read,
            18 => Calls::Record,
            _ => Calls::Retain,
        };
        Self {
            calls,
            reason: REASONS[random.random_range(0..REASONS.len())],
            when: [When::Before, When::Staged, When::After][random.random_range(0..3)],
            times: [1, 1, 3, u32::MAX][random.random_range(0..4)],
        }
    }
}

impl What {
    fn pick_fault(random: &mut ChaCha8Rng, master: usize, masters: usize) -> Self {
        let for_us = [5_000, 300_000, 4_000_000][random.random_range(0..3)];
        let for_us = random.random_range(0..for_us);
        match random.random_range(0..100) {
            0..30 => Self::Crash { outputs: random.random_range(0..20), down_us: for_us },
            30..55 if masters > 1 => {
                let other = (master + random.random_range(1..masters)) % masters;
                let direction = if random.random_range(0..3) == 0 {
                    Direction::OneWay
                } else {
                    Direction::BothWays
                };
                Self::Cut { other, direction, for_us: 4 * for_us }
            }
            55..65 => Self::Deaf { for_us },
            65..70 => Self::Unreadable { for_us },
            70..76 => Self::Full { for_us },
            76..81 => Self::Compact,
            81..86 => Self::FullLook,
            86..90 => Self::Flush,
            90..97 => Self::Resolve,
            _ => Self::ClockJump { seconds: random.random_range(-100_000..100_000) },
        }
    }
}

impl fmt::Display for Item {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (at_us, master, what, salt) = (self.at_us, self.master, self.what, self.salt);
        write!(f, "{at_us:>10} us  master {master}  {what:?}  (salt {salt:x})")
    }
}

impl fmt::Display for History {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "seed {}, {:?}", self.seed, self.profile)?;
        self.items.iter().try_for_each(|item| writeln!(f, "  {item}"))?;
        for (number, round) in self.rounds.iter().enumerate() {
            writeln!(f, "  settled, then round {}:", number + 1)?;
            round.iter().try_for_each(|item| writeln!(f, "  {item}"))?;
        }
        Ok(())
    }
}
