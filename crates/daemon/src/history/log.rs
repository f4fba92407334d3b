//! The log: what was done, the newest first, on one path or on all.

use std::collections::BTreeSet;

use pleach_core::replica::Replica;
use pleach_core::values::{Deed, Moved};
use pleach_core::vocabulary::{Kind, MasterId, NodeId, TreePath};

use super::HistoryError;
use crate::control::{LogCursor, LogPageReport, LogReport, MasterLabel};
use crate::state::{Indexing, LogMoment, State};

/// How many entries one page has at most.
pub const LOG_ENTRIES_MAX: usize = 1_000;
/// How many changes one page looks at in the index, and how many writes and bytes it reads of them.
const INDEXED_MAX: usize = 20_000;
const WRITES_MAX: usize = 4_000;
const BYTES_MAX: usize = 4 << 20;
/// Of how many nodes that a path has named one after the other the log is told: of the last ones.
const NODES_MAX: usize = 1_000;

/// What is asked of the log.
#[derive(Clone, Debug, Default)]
pub struct LogQuery {
    /// What it is to be about: a file, as it was called last; a directory with all that it holds; or a name
    /// that something had once. None for all.
    pub path: Option<TreePath>,
    /// Nothing older than this.
    pub since_ms: Option<i64>,
    /// Only what was done on this master.
    pub master: Option<MasterId>,
    /// How many entries at most.
    pub limit: usize,
    /// Where the page before ended.
    pub after: Option<LogCursor>,
}

/// What a line has to be about.
enum About {
    Everything,
    /// These files and links: they are found by the index.
    Files(BTreeSet<NodeId>),
    /// These, some of which are directories, with what they hold or held; and the changes that bore them.
    Below(BTreeSet<NodeId>, BTreeSet<u64>),
    /// Whatever was called so, or was below what was.
    Called(TreePath),
}

/// A telling of the log under way.
struct Telling<'a> {
    state: &'a State,
    replica: &'a Replica,
    query: &'a LogQuery,
    about: About,
    writes_left: usize,
    bytes_left: usize,
}

impl LogQuery {
    /// A page of what it asks for.
    ///
    /// # Errors
    /// If the state can't be read.
    pub fn page(
        &self,
        state: &State,
        replica: &Replica,
        label: impl Fn(MasterId) -> MasterLabel,
    ) -> Result<LogPageReport, HistoryError> {
        if !state.has_index()? {
            return Err(HistoryError::NoIndex);
        }
        let about = about(self.path.as_ref(), state, replica)?;
        let mut telling = Telling {
            state,
            replica,
            query: self,
            about,
            writes_left: WRITES_MAX,
            bytes_left: BYTES_MAX,
        };
        let (deeds, next) = telling.page()?;
        let entries = deeds.into_iter().map(|deed| LogReport::new(deed, &label)).collect();
        Ok(LogPageReport { entries, next })
    }
}

fn about(path: Option<&TreePath>, state: &State, replica: &Replica) -> Result<About, HistoryError> {
    let Some(path) = path.filter(|path| !path.is_root()) else { return Ok(About::Everything) };
    let tree = replica.tree();
    let mut nodes = tree.ever_at(path);
    nodes.truncate(NODES_MAX);
    if nodes.is_empty() {
        return Ok(About::Called(path.clone()));
    }
    let is_directory = |&node: &NodeId| tree.kind(node) == Some(Kind::Directory);
    if !nodes.iter().any(is_directory) {
        return Ok(About::Files(nodes.into_iter().collect()));
    }
    let mut births = BTreeSet::new();
    for &node in &nodes {
        births.extend(birth(node, state, replica)?.map(|at| at.position));
    }
    Ok(About::Below(nodes.into_iter().collect(), births))
}

fn birth(
    node: NodeId,
    state: &State,
    replica: &Replica,
) -> Result<Option<LogMoment>, HistoryError> {
    match replica.birth_of(node) {
        Some(change) => Ok(state.moment_of(change)?),
        None => Ok(None),
    }
}

impl Telling<'_> {
    fn page(&mut self) -> Result<(Vec<Deed>, Option<LogCursor>), HistoryError> {
        let limit = self.query.limit.clamp(1, LOG_ENTRIES_MAX);
        let mut deeds = Vec::new();
        let mut before = LogMoment::LAST;
        if let Some(LogCursor { time_ms, position, writes_left }) = self.query.after {
            before = LogMoment { time_ms, position };
            if let Some(left) = writes_left
                && let Some(next) = self.tell(before, Some(left), limit, &mut deeds)?
            {
                return Ok((deeds, Some(next)));
            }
        }
        let candidates = self.candidates(before)?;
        let is_last = candidates.is_empty();
        for change in candidates {
            if deeds.len() >= limit || self.writes_left == 0 || self.bytes_left == 0 {
                return Ok((deeds, Some(cursor(before, None))));
            }
            before = change.at;
            if self.may_fit(&change)?
                && let Some(next) = self.tell(change.at, None, limit, &mut deeds)?
            {
                return Ok((deeds, Some(next)));
            }
        }
        let next = (!is_last).then(|| cursor(before, None));
        Ok((deeds, next))
    }

    /// Changes that come next, the newest first.
    fn candidates(&self, before: LogMoment) -> Result<Vec<Indexing>, HistoryError> {
        let since = self.query.since_ms.unwrap_or(i64::MIN);
        let About::Files(nodes) = &self.about else {
            return Ok(self.state.history(before, since, INDEXED_MAX)?);
        };
        let mut moments = BTreeSet::new();
        for &node in nodes {
            moments.extend(self.state.history_of(node, before, since, INDEXED_MAX)?);
            let birth = birth(node, self.state, self.replica)?;
            moments.extend(birth.filter(|at| *at < before && at.time_ms >= since));
        }
        let newest = moments.into_iter().rev().take(INDEXED_MAX);
        let about = |at| Indexing { at, moved: Moved::Nothing, nodes: Vec::new() };
        Ok(newest.map(about).collect())
    }

    /// Whether a change has to be read to know what of it is asked for.
    fn may_fit(&self, change: &Indexing) -> Result<bool, HistoryError> {
        let is_about = match &self.about {
            About::Everything | About::Files(_) | About::Called(_) => true,
            About::Below(nodes, births) => {
                let tree = self.replica.tree();
                let is_in = |node: &NodeId| nodes.contains(node);
                change.moved == Moved::Something
                    || births.contains(&change.at.position)
                    || change.nodes.iter().any(is_in)
                    || change.nodes.iter().any(|&node| tree.above(node).iter().any(is_in))
            }
        };
        Ok(is_about
            && match self.query.master {
                Some(master) => self.state.author_at(change.at.position)? == Some(master),
                None => true,
            })
    }

    /// Tells of one change; where to go on, if it has more than there is room for.
    fn tell(
        &mut self,
        at: LogMoment,
        resume: Option<u64>,
        limit: usize,
        told: &mut Vec<Deed>,
    ) -> Result<Option<LogCursor>, HistoryError> {
        let change = self.state.change_at(at.position)?;
        self.bytes_left = self.bytes_left.saturating_sub(change.bytes.len());
        let unreadable = |source| HistoryError::Change { position: at.position, source };
        let mut deeds = self.replica.deeds(&change).map_err(unreadable)?;
        if let About::Files(nodes) = &self.about {
            deeds = deeds.only_of(nodes);
        }
        if let Some(left) = resume {
            deeds = deeds.resume(usize::try_from(left).unwrap_or(usize::MAX));
        }
        while deeds.writes_left() > 0 {
            if told.len() >= limit || self.writes_left == 0 {
                return Ok(Some(cursor(at, Some(deeds.writes_left() as u64))));
            }
            let before = deeds.writes_left();
            let deed = deeds.next();
            self.writes_left = self.writes_left.saturating_sub(before - deeds.writes_left());
            told.extend(deed.filter(|deed| self.fits(deed)));
        }
        Ok(None)
    }

    fn fits(&self, deed: &Deed) -> bool {
        match &self.about {
            About::Everything | About::Files(_) => true,
            About::Below(nodes, _) => {
                nodes.contains(&deed.node) || deed.within.iter().any(|above| nodes.contains(above))
            }
            About::Called(path) => {
                let is_below = |other: &TreePath| other.names().starts_with(path.names());
                let from = match &deed.what {
                    pleach_core::values::What::Moved { from } => from.as_ref(),
                    _ => None,
                };
                deed.path.as_ref().is_some_and(is_below) || from.is_some_and(is_below)
            }
        }
    }
}

fn cursor(at: LogMoment, writes_left: Option<u64>) -> LogCursor {
    LogCursor { time_ms: at.time_ms, position: at.position, writes_left }
}
