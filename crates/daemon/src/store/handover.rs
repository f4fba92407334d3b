//! Taking over what the store holds, right after a ticket was proven: changes through the core's gate into
//! the log, page by page, each durable before the next is asked for.
//!
//! Whatever breaks it off, the store stands: what was taken over is kept, and the daemon exchanges the
//! rest. Bounds: those of [`crate::net::Handover`]; and a page that brings nothing new is the last one.

use pleach_core::replica::Replica;
use pleach_core::values::Record;
use pleach_core::vocabulary::{MasterId, WriterId};

use super::StoreError;
use crate::control::Counts;
use crate::net::{Handover, HandoverPage};
use crate::state::{CHANGES_PER_SNAPSHOT, State};

/// How far the taking over has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HandoverProgress {
    /// Changes that are recorded here.
    pub changes: u64,
    /// Changes that are still to come, as far as known.
    pub left: u64,
    /// The bytes of those that are recorded.
    pub bytes: u64,
}

/// What a joiner has taken over.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct TakenOver {
    /// How many changes.
    pub changes: u64,
    /// The tree that they amount to.
    pub tree: Counts,
    /// Why that is not all, if it isn't: the daemon gets the rest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub incomplete: Option<String>,
}

/// A replica that only takes in.
struct Taking {
    state: State,
    replica: Replica,
    founder: MasterId,
}

/// What came of a page.
enum Step {
    Further,
    Done,
    Stuck(String),
}

/// Takes over what `handover` offers into `state`, which is empty or has what an earlier attempt took.
/// Answers that, and the document as it is now.
///
/// # Errors
/// If the state can't be read or written. That the other side ends it early is no error.
pub(super) async fn take_over(
    state: State,
    founder: MasterId,
    mut handover: Handover,
    mut progress: impl FnMut(HandoverProgress),
) -> Result<(TakenOver, Replica), StoreError> {
    let mut taking = Taking::new(state, founder)?;
    let mut done = HandoverProgress::default();
    let incomplete = loop {
        let page = match handover.page(taking.replica.version_vector()).await {
            Ok(page) => page,
            Err(error) => break Some(error.to_string()),
        };
        done.left = page.left;
        done.bytes += page.changes.iter().map(|change| change.bytes.len() as u64).sum::<u64>();
        // The gate's work takes its time: not on a thread that drives the connection.
        let step = tokio::task::spawn_blocking(move || {
            let step = taking.page(page);
            (taking, step)
        });
        let (back, step) = step.await.expect("taking in a page does not panic");
        taking = back;
        done.changes = taking.replica.version_vector().iter().map(|(_, last)| last).sum();
        progress(done);
        match step? {
            Step::Further => {}
            Step::Done => break None,
            Step::Stuck(reason) => break Some(reason),
        }
    };
    drop(handover);
    taking.finish(incomplete)
}

impl Taking {
    fn new(state: State, founder: MasterId) -> Result<Self, StoreError> {
        let log = state.changes_since(0)?;
        // It will write nothing, so that this writer is never seen by anybody.
        let replica = Replica::open(WriterId([0; 16]), None, log)
            .map_err(|source| StoreError::Document { path: state.path().to_owned(), source })?;
        Ok(Self { state, replica, founder })
    }

    fn page(&mut self, page: HandoverPage) -> Result<Step, StoreError> {
        let HandoverPage { changes, left } = page;
        let merged = self.replica.receive(changes, self.founder);
        let changes = merged.applied.into_iter().map(Record::Change);
        let records: Vec<_> = changes.chain(merged.marks.into_iter().map(Record::Mark)).collect();
        self.state.commit(&records)?;
        if let Some(unreadable) = merged.unreadable.into_iter().next() {
            let reason = unreadable.reason;
            return Ok(Step::Stuck(format!(
                "the store holds what this version of pleach can't read ({reason}): upgrade pleach here"
            )));
        }
        if let Some(reason) = merged.refused.into_iter().next() {
            return Ok(Step::Stuck(format!("what the inviting master sent is refused: {reason}")));
        }
        Ok(match (left, records.is_empty()) {
            (0, _) => Step::Done,
            (_, true) => Step::Stuck("the inviting master sent nothing new".to_owned()),
            (_, false) => Step::Further,
        })
    }

    /// A short log is read as fast as a saved document.
    fn finish(mut self, incomplete: Option<String>) -> Result<(TakenOver, Replica), StoreError> {
        let position = self.state.log_position()?;
        if position >= CHANGES_PER_SNAPSHOT {
            self.state.store_snapshot(&self.replica.save(), position)?;
        }
        let tree = Counts::of(self.replica.tree().entries().map(|(_, entry)| entry.body));
        let changes = self.replica.version_vector().iter().map(|(_, last)| last).sum();
        Ok((TakenOver { changes, tree, incomplete }, self.replica))
    }
}
