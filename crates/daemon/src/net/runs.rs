//! Telling a master that was started again from one that runs twice: a copy of a machine has its key too.
//!
//! Each start of a network has a random id, which it says in its hello. A start that is heard of again after
//! another one of the same master runs beside that one. Lacks what no hello tells: which is the copy.

use std::collections::{BTreeMap, VecDeque};

use pleach_core::vocabulary::MasterId;

/// How many earlier starts of a master are remembered.
const PAST_MAX: usize = 8;

/// One start of one master's network.
pub(super) type RunId = [u8; 8];

/// Whether a master runs once, as far as its hellos tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Running {
    Once,
    MoreThanOnce,
}

/// The starts of each member that were heard of.
#[derive(Debug, Default)]
pub(super) struct Runs(BTreeMap<MasterId, (RunId, VecDeque<RunId>)>);

impl Runs {
    /// Notes that `master` has said hello.
    pub(super) fn heard(&mut self, master: MasterId, run: RunId) -> Running {
        let (last, past) = self.0.entry(master).or_insert_with(|| (run, VecDeque::new()));
        if *last == run {
            return Running::Once;
        }
        let again = past.contains(&run);
        past.retain(|known| *known != run);
        past.push_back(std::mem::replace(last, run));
        if past.len() > PAST_MAX {
            past.pop_front();
        }
        if again { Running::MoreThanOnce } else { Running::Once }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn start_that_is_heard_of_again_after_another_is_a_second_one() {
        let mut runs = Runs::default();
        let (a, b) = (MasterId([1; 32]), MasterId([2; 32]));
        for run in 0..20 {
            assert_eq!(runs.heard(a, [run; 8]), Running::Once, "started again");
            assert_eq!(runs.heard(a, [run; 8]), Running::Once, "connected again");
            assert_eq!(runs.heard(b, [run; 8]), Running::Once, "another master");
        }
        assert_eq!(runs.heard(a, [18; 8]), Running::MoreThanOnce);
        assert_eq!(runs.heard(a, [19; 8]), Running::MoreThanOnce);
        assert_eq!(runs.heard(a, [19; 8]), Running::Once);
        assert_eq!(runs.0[&a].1.len(), PAST_MAX);
    }
}
