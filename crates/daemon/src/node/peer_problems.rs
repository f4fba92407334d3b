//! What is wrong with a member, as far as this master can tell: it runs more than once with one key, it
//! does not know this master as a member, or it speaks another version. Bounded by the member list.

use std::collections::BTreeMap;

use pleach_core::values::{Problem, ProblemKind};
use pleach_core::vocabulary::{MasterId, TreePath};

/// How long after the last sign of it a problem is still listed.
const LISTED_MS: u64 = 300_000;

/// Each with when there was the last sign of it.
#[derive(Debug, Default)]
pub(super) struct PeerProblems {
    cloned: BTreeMap<MasterId, (u64, Problem)>,
    shut_out: BTreeMap<MasterId, (u64, Problem)>,
    other_version: BTreeMap<MasterId, (u64, Problem)>,
}

impl PeerProblems {
    /// Notes a sign that `master` runs more than once; the problem, unless it is listed already.
    pub(super) fn cloned(&mut self, master: MasterId, name: &str, now_ms: u64) -> Option<&Problem> {
        let listed = self.cloned.get(&master);
        let is_news = listed.is_none_or(|(seen, _)| seen + LISTED_MS <= now_ms);
        let reason = format!(
            "{name} runs more than once with the same key: a copy of it was started, of a cloned machine or \
             from a backup. What all of them do is merged, but only one is connected at a time: stop one, \
             move its .pleach out of its directory and join it again with a ticket of its own"
        );
        let problem = Problem { kind: ProblemKind::ClonedMaster, path: TreePath::root(), reason };
        self.cloned.insert(master, (now_ms, problem));
        self.cloned.get(&master).map(|(_, problem)| problem).filter(|_| is_news)
    }

    /// Notes that `master` hangs up on this one as on a stranger.
    pub(super) fn shut_out(&mut self, master: MasterId, name: &str, now_ms: u64) {
        let reason = format!(
            "{name} does not let this master in, though it is a member: if the state of {name} is of an older \
             backup, or the end of it was lost, move .pleach out of the directory there and join again; if it \
             runs another version of pleach, run the same on both"
        );
        let problem = Problem { kind: ProblemKind::ShutOut, path: TreePath::root(), reason };
        self.shut_out.insert(master, (now_ms, problem));
    }

    /// Notes that `master` speaks no version that this one speaks, and `reason`; the problem, unless it is
    /// listed already.
    pub(super) fn other_version(
        &mut self,
        master: MasterId,
        reason: String,
        now_ms: u64,
    ) -> Option<&Problem> {
        let listed = self.other_version.get(&master);
        let is_news = listed.is_none_or(|(seen, problem)| {
            seen.saturating_add(LISTED_MS) <= now_ms || problem.reason != reason
        });
        let problem = Problem { kind: ProblemKind::OtherVersion, path: TreePath::root(), reason };
        self.other_version.insert(master, (now_ms, problem));
        self.other_version.get(&master).map(|(_, problem)| problem).filter(|_| is_news)
    }

    /// Notes that `master` is connected; the path of a problem that was told and is solved by that.
    pub(super) fn connected(&mut self, master: MasterId) -> Option<TreePath> {
        self.shut_out.remove(&master);
        self.other_version.remove(&master).map(|(_, problem)| problem.path)
    }

    /// What is wrong, as of now.
    pub(super) fn list(&self, now_ms: u64) -> impl Iterator<Item = Problem> {
        let all = self.cloned.values().chain(self.shut_out.values());
        let all = all.chain(self.other_version.values());
        all.filter(move |(seen, _)| seen + LISTED_MS > now_ms).map(|(_, problem)| problem.clone())
    }
}
