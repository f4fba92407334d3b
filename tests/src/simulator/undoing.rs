//! Removals taken back: users want to have again what was removed.

use std::collections::BTreeMap;

use pleach_core::engine::{Engine, FormerUse};
use pleach_core::values::{Body, ChangeId, Restoring};
use pleach_core::vocabulary::{ContentHash, VersionVector};
use rand::RngExt;

use super::world::{Happening, World};

/// How long a user waits for bytes at most, before what can be had is restored.
const PATIENCE_US_MAX: u64 = 3_000_000;

impl World {
    /// A user wants something that was removed: its bytes are asked for.
    pub(super) fn bring_back_any(&mut self, master: usize, salt: u64) {
        let Some(wanted) = self.something_removed(master, salt) else { return };
        let contents = BTreeMap::from_iter(bytes_of(&wanted));
        let now_us = self.now_us;
        let generation = self.masters[master].generation;
        if let Some(running) = &mut self.masters[master].running {
            let now = running.moment(now_us);
            running.engine.want_former(now, FormerUse::Restore, &contents);
            running.drain();
        }
        self.trace
            .note(now_us, &[9, master as u64], || format!("{master} wants {:?} back", wanted.node));
        let delay_us = self.random.random_range(0..PATIENCE_US_MAX);
        self.after(delay_us, Happening::BringBack { master, generation, wanted: Box::new(wanted) });
        self.step_soon(master);
        self.moved_us = now_us;
    }

    /// It is restored, if nobody has by then, and if its bytes are here.
    pub(super) fn bring_back(&mut self, master: usize, generation: u64, wanted: Restoring) {
        if !self.is_current(master, generation) {
            return;
        }
        let now_us = self.now_us;
        let this = &mut self.masters[master];
        let bytes = bytes_of(&wanted).map(|(hash, _)| (hash, this.has(&hash)));
        let Some(running) = &mut this.running else { return };
        let now = running.moment(now_us);
        running.engine.want_former(now, FormerUse::Restore, &BTreeMap::new());
        let is_here = bytes.is_none_or(|(hash, here)| here || running.engine.is_kept(&hash));
        if is_here && !running.engine.replica().tree().is_live(wanted.node) {
            self.trace.note(now_us, &[10, master as u64], || {
                format!("{master} has {:?} back", wanted.node)
            });
            let known = running.engine.replica().version_vector().clone();
            running.engine.restore(now, &[wanted]);
            if let (Some((hash, _)), Some(change)) = (bytes, last_beyond(&known, &running.engine)) {
                self.oracle.brought_back(&hash, master);
                self.brought_back.push((master, hash, change));
            }
        }
        running.drain();
        self.step_soon(master);
        self.moved_us = now_us;
    }

    /// A daemon that ended before it had recorded what a user wanted back has told nobody that it is there.
    pub(super) fn forget_what_was_not_recorded(&mut self, master: usize) {
        let log = &self.masters[master].durable.log;
        let (oracle, recorded) =
            (&mut self.oracle, |change| log.iter().any(|one| one.id == change));
        self.brought_back.retain(|(there, hash, change)| {
            if *there == master && !recorded(*change) {
                oracle.not_brought_back(hash);
            }
            *there != master
        });
    }

    fn something_removed(&self, master: usize, salt: u64) -> Option<Restoring> {
        let running = self.masters[master].running.as_ref()?;
        let tree = running.engine.replica().tree();
        let removed = |path| tree.ever_at(path).into_iter().filter(|node| !tree.is_live(*node));
        let nodes: Vec<_> = self.oracle.closed().flat_map(removed).collect();
        let node = *nodes.get(salt as usize % nodes.len().max(1))?;
        let body = tree.body(node).filter(|body| !matches!(body, Body::Directory { .. }));
        Some(Restoring { node, body, mode: None })
    }
}

/// The content that has to be had for it, with its size.
fn bytes_of(wanted: &Restoring) -> Option<(ContentHash, u64)> {
    match &wanted.body {
        Some(Body::File(content)) if content.size > 0 => Some((content.hash, content.size)),
        _ => None,
    }
}

/// The last of the changes that an engine has and did not know.
fn last_beyond(known: &VersionVector, engine: &Engine) -> Option<ChangeId> {
    let now = engine.replica().version_vector().iter();
    let made = now.filter(|&(writer, sequence)| sequence > known.last(writer)).last();
    made.map(|(writer, sequence)| ChangeId { writer, sequence })
}
