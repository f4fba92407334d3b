//! Conflicts as they open and close, for tools that act on them.
//!
//! Events alone would do for a listener that is never behind and misses none. Here what is open is read at the
//! beginning, and again when events were missed or don't fit, so that what is told adds up.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use tokio::sync::broadcast::{
    self,
    error::{RecvError, TryRecvError},
};

use super::NodeHandle;
use crate::control::{
    ConflictReport, EventBody, EventReport, PathText, Refusal, RefusalKind, Reply, Request,
};

/// What became of the conflicts at a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConflictNews {
    /// There are some now.
    Opened {
        /// Where.
        path: PathText,
        /// All that are open there, in full.
        conflicts: Vec<ConflictReport>,
    },
    /// There are none any more: settled, here or elsewhere, or the path is gone or called otherwise.
    Closed {
        /// Where they were.
        path: PathText,
    },
}

/// Tells of conflicts as they open and close; made by [`NodeHandle::conflicts`].
#[derive(Debug)]
pub struct ConflictListener {
    node: NodeHandle,
    events: broadcast::Receiver<EventReport>,
    /// The paths that were told to have some.
    told: BTreeSet<PathText>,
    news: VecDeque<ConflictNews>,
    is_stale: bool,
}

impl NodeHandle {
    /// Tells of conflicts: those that are open already first, as opened, then what changes. What opens and
    /// closes before somebody asks for the next may not be told at all.
    ///
    /// `crates/daemon/examples/conflicts.rs` settles them as they come.
    #[must_use]
    pub fn conflicts(&self) -> ConflictListener {
        ConflictListener {
            node: self.clone(),
            events: self.events(),
            told: BTreeSet::new(),
            news: VecDeque::new(),
            is_stale: true,
        }
    }
}

impl ConflictListener {
    /// What comes next; waits for it. None once the node has stopped.
    ///
    /// May be dropped while it waits: nothing is lost by that.
    pub async fn next(&mut self) -> Option<ConflictNews> {
        loop {
            if let Some(news) = self.news.pop_front() {
                return Some(news);
            }
            if self.is_stale {
                // What happened before the look is part of what it finds.
                while !matches!(
                    self.events.try_recv(),
                    Err(TryRecvError::Empty | TryRecvError::Closed)
                ) {}
                let Reply::Conflicts(open) = self.node.call(Request::Conflicts).await.ok()? else {
                    return None;
                };
                self.is_stale = false;
                self.news.extend(difference(&mut self.told, open));
                continue;
            }
            match self.events.recv().await {
                Ok(event) => self.hear(event.body).await?,
                Err(RecvError::Lagged(_)) => self.is_stale = true,
                Err(RecvError::Closed) => return None,
            }
        }
    }

    async fn hear(&mut self, event: EventBody) -> Option<()> {
        match event {
            EventBody::ConflictOpened { path, .. } if !self.told.contains(&path) => {
                // Until it is told it is not known: whoever drops this meanwhile is told by the next look.
                self.is_stale = true;
                let open = self.node.call(Request::ConflictsAt { path: path.clone() }).await;
                match open {
                    Ok(Reply::Conflicts(conflicts)) => {
                        self.is_stale = false;
                        self.told.insert(path.clone());
                        self.news.push_back(ConflictNews::Opened { path, conflicts });
                    }
                    // It is closed already.
                    Err(Refusal { kind: RefusalKind::NotFound, .. }) => self.is_stale = false,
                    _ => return None,
                }
            }
            EventBody::ConflictClosed { path } if self.told.remove(&path) => {
                self.news.push_back(ConflictNews::Closed { path });
            }
            // Where it was told to be, it may have another name now.
            EventBody::ConflictClosed { .. } => self.is_stale = true,
            _ => {}
        }
        Some(())
    }
}

/// What is to be told of what is open, to whoever was told of these paths.
fn difference(told: &mut BTreeSet<PathText>, open: Vec<ConflictReport>) -> Vec<ConflictNews> {
    let mut by_path: BTreeMap<PathText, Vec<ConflictReport>> = BTreeMap::new();
    for conflict in open {
        by_path.entry(conflict.path.clone()).or_default().push(conflict);
    }
    let closed = told.iter().filter(|path| !by_path.contains_key(path)).cloned();
    let mut news: Vec<_> = closed.map(|path| ConflictNews::Closed { path }).collect();
    let now = by_path.keys().cloned().collect();
    let before = std::mem::replace(told, now);
    let opened = by_path.into_iter().filter(|(path, _)| !before.contains(path));
    news.extend(opened.map(|(path, conflicts)| ConflictNews::Opened { path, conflicts }));
    news
}

#[cfg(test)]
mod tests {
    use pleach_core::values::{ConflictKind, Rule};
    use pleach_core::vocabulary::TreePath;

    use super::*;

    fn path(text: &str) -> PathText {
        PathText(TreePath::parse(text.as_bytes()).unwrap())
    }

    fn conflict(at: &str, kind: ConflictKind) -> ConflictReport {
        ConflictReport {
            path: path(at),
            kind,
            opened_ms: None,
            since_ms: None,
            rule: Rule::LargestStamp,
            versions: Vec::new(),
            ancestor: None,
        }
    }

    #[test]
    fn whoever_missed_events_is_told_what_they_amount_to() {
        let mut told = BTreeSet::new();
        let (a, b) = (conflict("a", ConflictKind::Edited), conflict("b", ConflictKind::Edited));
        let moved = conflict("b", ConflictKind::MovedTwice);
        let opened = |at: &str, conflicts: Vec<ConflictReport>| ConflictNews::Opened {
            path: path(at),
            conflicts,
        };
        assert_eq!(difference(&mut told, vec![a.clone()]), [opened("a", vec![a.clone()])]);
        assert_eq!(difference(&mut told, vec![a]), []);
        let news = difference(&mut told, vec![b.clone(), moved.clone()]);
        assert_eq!(news, [ConflictNews::Closed { path: path("a") }, opened("b", vec![b, moved])]);
        assert_eq!(difference(&mut told, vec![]), [ConflictNews::Closed { path: path("b") }]);
    }
}
