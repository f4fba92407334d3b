//! Performing what the engines want done, and bringing them what comes of it.

use std::rc::Rc;

use pleach_core::engine::{Input, Output, Wanted};
use pleach_core::values::{Member, Message, Outcome, ProblemKind, Record};
use pleach_core::vocabulary::{ContentHash, VersionVector};
use rand::RngExt;

use super::driver::{DiskStep, Space, Tried, is_signed};
use super::durable::{holds_change, tells_of_unrecorded};
use super::faults::{Calls, Fault};
use super::network::pair;
use super::properties::Property;
use super::world::{Happening, World};

/// How many inputs an engine is given at most before its outputs are performed.
const INPUTS_MAX: usize = 4;
/// How many changes of a log go into one message at most.
const CHANGES_MAX: usize = 6;
/// How long a daemon waits before it writes its database again.
const RECORD_RETRY_US: u64 = 1_000_000;

impl World {
    /// A daemon performs its next output, or gives its engine the next inputs.
    pub(super) fn step(&mut self, master: usize) {
        if let Err(doom) = self.masters[master].survives_step() {
            self.end(master, doom);
            return;
        }
        let inputs_max = self.random.random_range(1..=INPUTS_MAX);
        let now_us = self.now_us;
        let Some(running) = &mut self.masters[master].running else { return };
        running.step_is_due = false;
        match running.next_output() {
            Some(output) => self.perform(master, output),
            None => {
                let inputs = running.next_inputs(inputs_max);
                self.trace.note(now_us, &[7, master as u64, inputs.len() as u64], || {
                    let inputs: Vec<String> = inputs.iter().map(|i| format!("{i:?}")).collect();
                    format!("{master} handles {}", inputs.join(" | "))
                });
                running.handle(now_us, inputs);
            }
        }
        self.call_judge(master);
        self.wake_later(master);
        self.step_soon(master);
    }

    fn wake_later(&mut self, master: usize) {
        let this = &mut self.masters[master];
        let generation = this.generation;
        let Some(running) = &mut this.running else { return };
        let Some(at_ms) = running.engine.poll_timeout() else {
            running.wake_ms = None;
            return;
        };
        if running.wake_ms != Some(at_ms) {
            running.wake_ms = Some(at_ms);
            let at_us = running.simulated_us(at_ms).max(self.now_us + 1);
            self.at(at_us, Happening::Wake { master, generation, at_ms });
        }
    }

    fn perform(&mut self, master: usize, output: Output) {
        let numbers = match self.trace.is_counted() {
            true => Vec::new(),
            false => output_numbers(master, &output),
        };
        self.trace.note(self.now_us, &numbers, || format!("{master} does {output:?}"));
        match output {
            Output::Persist(records) if self.meets(master, Calls::Record).is_some() => {
                self.record_later(master, records);
            }
            Output::Persist(records) => {
                let changed = holds_change(&records);
                self.record(master, records);
                if changed {
                    self.moved_us = self.now_us;
                    if let Some(running) = &self.masters[master].running {
                        self.oracle.saw_conflicts(&running.engine.replica().conflicts());
                    }
                }
            }
            Output::Send(to, message) => {
                if let Some(to) = self.index_of(to) {
                    self.check_recorded(master, &message);
                    self.send(master, to, message);
                }
            }
            Output::Broadcast(message) => self.broadcast(master, message),
            Output::SendLog { to, known } => self.send_log(master, to, &known),
            Output::Look(look) => {
                let begun = self.running(master).begin_look(look);
                self.begun(master, begun);
            }
            Output::Apply(effects) => {
                let begun = self.running(master).begin_apply(effects);
                self.begun(master, begun);
            }
            Output::Fetch(wanted) => {
                wanted.into_iter().for_each(|wanted| self.fetch_soon(master, wanted, 0));
            }
            Output::Unstage(hash) => drop(self.masters[master].durable.staged.remove(&hash)),
            Output::StopFetching(hashes) => {
                let running = self.running(master);
                running.fetching.retain(|hash| !hashes.contains(hash));
            }
            Output::Retain { hash, bytes } => self.retain(master, hash, bytes),
            Output::Stage(_) if self.meets(master, Calls::Retain).is_some() => {}
            Output::Stage(contents) => {
                let contents = contents.into_iter().map(|(hash, bytes)| (hash, bytes.to_vec()));
                self.masters[master].durable.staged.extend(contents);
            }
            Output::Members(members) => self.admit(master, &members),
            Output::Event(_) => {}
        }
    }

    /// The fault that a call of a master's daemon meets, if it does.
    fn meets(&mut self, master: usize, calls: Calls) -> Option<Fault> {
        self.masters[master].faults.meet(calls, self.now_us)
    }

    /// The database can't be written: nothing goes on until it can.
    fn record_later(&mut self, master: usize, records: Vec<Record>) {
        let running = self.running(master);
        running.put_back(Output::Persist(records));
        running.step_is_due = true;
        let generation = self.masters[master].generation;
        self.after(RECORD_RETRY_US, Happening::Step { master, generation });
    }

    fn running(&mut self, master: usize) -> &mut super::driver::Running {
        self.masters[master].running.as_mut().expect("only a running daemon takes steps")
    }

    fn begun(&mut self, master: usize, begun: Result<(), String>) {
        match begun {
            Ok(()) => self.disk_step_soon(master),
            Err(reason) => self.fail(Property::OneTurnOfTheDisk, reason),
        }
    }

    fn disk_step_soon(&mut self, master: usize) {
        let pause_us = match self.random.random_range(0..20) {
            0 => self.random.random_range(0..20_000),
            _ => self.random.random_range(0..200),
        };
        let generation = self.masters[master].generation;
        self.after(pause_us, Happening::DiskStep { master, generation });
    }

    /// One list, one read or one effect.
    pub(super) fn disk_step(&mut self, master: usize) {
        if let Err(doom) = self.masters[master].survives_step() {
            self.end(master, doom);
            return;
        }
        let this = &mut self.masters[master];
        this.set_clock(self.now_us);
        let space = if this.full_until_us > self.now_us { Space::None } else { Space::Left };
        let Some(running) = &mut this.running else { return };
        let meet = |calls| this.faults.meet(calls, self.now_us);
        match running.disk_step(&mut this.disk, &mut this.durable.staged, space, meet) {
            Some(DiskStep::Tried(tried)) => {
                let Tried { effect, outcome, changed } = *tried;
                let done = matches!(outcome, Outcome::Done { .. });
                self.trace.note(self.now_us, &[8, master as u64, u64::from(done)], || {
                    format!("{master} disk: {effect:?} -> {outcome:?}")
                });
                if changed {
                    self.moved_us = self.now_us;
                    if let Some(running) = &mut self.masters[master].running {
                        running.note_left(&effect, &outcome);
                    }
                    self.watch_own(master, &effect);
                }
                self.disk_step_soon(master);
            }
            Some(DiskStep::Looked) => self.disk_step_soon(master),
            Some(DiskStep::Finished) => self.step_soon(master),
            None => {}
        }
    }

    fn check_recorded(&mut self, master: usize, message: &Message) {
        if tells_of_unrecorded(message, &self.masters[master].durable) {
            self.fail(Property::RecordedBeforeTold, format!("{master} tells {message:?}"));
        }
    }

    fn send(&mut self, from: usize, to: usize, message: Message) {
        if let Some(epoch) = self.network.epoch(from, to) {
            let at_us = self.network.stream_arrival_us(from, to, self.now_us);
            let message = Rc::new(message);
            self.at(at_us, Happening::Stream { from, to, epoch, message });
        }
    }

    fn broadcast(&mut self, from: usize, message: Message) {
        self.check_recorded(from, &message);
        let message = Rc::new(message);
        for (to, at_us) in self.network.gossip_arrivals_us(from, self.now_us) {
            let generation = self.masters[to].generation;
            let message = Rc::clone(&message);
            self.at(at_us, Happening::Gossip { from, to, generation, message });
        }
    }

    fn send_log(
        &mut self,
        from: usize,
        to: pleach_core::vocabulary::MasterId,
        known: &VersionVector,
    ) {
        let Some(to) = self.index_of(to) else { return };
        let mut missing = self.masters[from].durable.missing_from(known);
        while !missing.is_empty() {
            let count = self.random.random_range(1..=CHANGES_MAX).min(missing.len());
            let changes = missing.drain(..count).collect();
            self.send(from, to, Message::Changes { changes, contents: Vec::new() });
        }
    }

    pub(super) fn receive(&mut self, from: usize, to: usize, message: &Message) {
        if let Message::Changes { changes, .. } = message {
            assert!(changes.iter().all(is_signed), "changes travel with their signatures");
        }
        self.give(to, Input::Received(self.id_of(from), message.clone()));
    }

    fn fetch_soon(&mut self, master: usize, wanted: Wanted, attempt: usize) {
        let generation = self.masters[master].generation;
        if attempt == 0 {
            self.running(master).fetching.insert(wanted.hash);
        }
        let delay_us = 2 * self.network.delay_us();
        self.after(delay_us, Happening::Fetch { master, generation, wanted, attempt });
    }

    /// The content, if it is among the own versions; else the answer of one provider, or on to the next.
    pub(super) fn fetch(&mut self, master: usize, wanted: Wanted, attempt: usize) {
        if !self.running(master).fetching.contains(&wanted.hash) {
            return;
        }
        let hash = wanted.hash;
        if let Some(bytes) = self.masters[master].kept(&hash).map(<[u8]>::to_vec) {
            return self.fetched(master, hash, bytes);
        }
        let Some(&provider) = wanted.providers.get(attempt) else {
            self.running(master).fetching.remove(&hash);
            self.give(master, Input::FetchFailed(hash));
            return;
        };
        let loss = if self.healed { 0 } else { self.history.profile.fetch_loss_percent };
        let lost = self.network.below(100) < u64::from(loss);
        let bytes = self
            .index_of(provider)
            .filter(|&provider| {
                let epoch = self.network.epoch(master, provider);
                epoch.is_some_and(|epoch| self.network.carries(master, provider, epoch)) && !lost
            })
            .and_then(|provider| self.masters[provider].serve(&hash));
        match bytes {
            // Half of the contents arrive in memory, as small ones do; the others are staged.
            Some(bytes) if hash.0[0].is_multiple_of(2) => {
                self.running(master).fetching.remove(&hash);
                self.give(master, Input::Arrived(vec![(hash, bytes.into())]));
            }
            Some(bytes) => self.fetched(master, hash, bytes),
            None => self.fetch_soon(master, wanted, attempt + 1),
        }
    }

    fn fetched(&mut self, master: usize, hash: ContentHash, bytes: Vec<u8>) {
        if let Some(fault) = self.meets(master, Calls::Retain) {
            self.running(master).fetching.remove(&hash);
            return self.give(master, fault.not_taken(hash));
        }
        self.masters[master].durable.staged.insert(hash, bytes);
        self.running(master).fetching.remove(&hash);
        self.give(master, Input::Fetched(hash));
    }

    fn retain(&mut self, master: usize, hash: ContentHash, bytes: Option<Vec<u8>>) {
        if self.masters[master].full_until_us > self.now_us {
            let (kind, reason) = (ProblemKind::NoSpace, "no space".to_owned());
            return self.give(master, Input::NotTaken { hash, kind, reason });
        }
        if let Some(fault) = self.meets(master, Calls::Retain) {
            return self.give(master, fault.not_taken(hash));
        }
        let this = &mut self.masters[master];
        // What is staged goes to the versions; what is among them already is thrown away.
        let staged = this.durable.staged.remove(&hash);
        if this.disk.keeps_at_rest(&hash) {
            return;
        }
        match bytes.or(staged) {
            Some(bytes) => drop(this.durable.retained.insert(hash, bytes)),
            None if this.kept(&hash).is_some() => {}
            // A call failed before, and what was staged is gone.
            None if self.masters[master].faults.any_met() => {
                let (kind, reason) = (ProblemKind::Io, "it is not staged".to_owned());
                self.give(master, Input::NotTaken { hash, kind, reason });
            }
            None => self.fail(Property::VersionsRetained, format!("{hash:?} is not staged")),
        }
    }

    fn admit(&mut self, master: usize, members: &[Member]) {
        let admitted = members.iter().filter(|member| !member.removed);
        self.masters[master].admitted = admitted.map(|member| member.master).collect();
        self.connect_to_all(master);
    }

    pub(super) fn connect_to_all(&mut self, master: usize) {
        for other in (0..self.masters.len()).filter(|&other| other != master) {
            self.connect_soon(master, other);
        }
    }

    pub(super) fn connect_soon(&mut self, from: usize, to: usize) {
        let delay_us = self.network.delay_us() + self.network.below(200_000);
        self.after(delay_us, Happening::Connect { from, to });
    }

    fn admits(&self, master: usize, other: usize) -> bool {
        let this = &self.masters[master];
        this.running.is_some()
            && (this.inviter == Some(self.masters[other].identity)
                || this.admitted.contains(&self.id_of(other)))
    }

    pub(super) fn connect(&mut self, from: usize, to: usize) {
        if !self.can_meet(from, to) || !self.admits(from, to) || !self.admits(to, from) {
            return;
        }
        let (a, b) = pair(from, to);
        let Some(knew) = self.network.connect(a, b) else { return };
        self.moved_us = self.now_us;
        self.trace.note(self.now_us, &[9, a as u64, b as u64], || format!("{a} and {b} connect"));
        for (end, other) in [(a, b), (b, a)] {
            let other = self.id_of(other);
            // Who has not noticed yet that the old connection is gone may never learn of it.
            if knew.contains(&end) && self.network.below(2) == 0 {
                continue;
            }
            if knew.contains(&end) {
                self.give(end, Input::PeerGone(other));
            }
            self.give(end, Input::PeerCame(other));
        }
    }
}

/// What goes into the trace's hash of an output.
fn output_numbers(master: usize, output: &Output) -> Vec<u64> {
    let digest = |hash: ContentHash| u64::from_le_bytes(hash.0[..8].try_into().expect("8 bytes"));
    let (tag, number) = match output {
        Output::Persist(records) => {
            (20, digest(ContentHash::of(format!("{records:?}").as_bytes())))
        }
        Output::Send(..) => (21, 0),
        Output::Broadcast(_) => (22, 0),
        Output::SendLog { .. } => (23, 0),
        Output::Look(look) => (24, digest(ContentHash::of(format!("{look:?}").as_bytes()))),
        Output::Apply(effects) => (25, digest(ContentHash::of(format!("{effects:?}").as_bytes()))),
        Output::Fetch(wanted) => (26, wanted.len() as u64),
        Output::StopFetching(hashes) => (27, hashes.len() as u64),
        Output::Retain { hash, .. } => (28, digest(*hash)),
        Output::Members(members) => (29, members.len() as u64),
        Output::Event(_) => (30, 0),
        Output::Stage(contents) => (31, contents.len() as u64),
        Output::Unstage(hash) => (32, digest(*hash)),
    };
    vec![master as u64, tag, number]
}
