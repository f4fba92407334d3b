//! Answers about what happened: the log, and what files held.

use pleach_core::values::Body;
use pleach_core::vocabulary::{MasterId, TreePath};

use super::driver::Driver;
use crate::control::{FormerReport, LogRequest, Refusal, RefusalKind, Reply};
use crate::history::{FormerVersion, HistoryError, LogQuery, versions};

impl Driver {
    /// A page of the log.
    pub(super) fn log(&self, asked: LogRequest) -> Result<Reply, Refusal> {
        let master = asked.master.map(|name| self.master_called(&name)).transpose()?;
        let LogRequest { path, since_ms, limit, after, .. } = asked;
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let path = path.map(|path| path.0);
        let query = LogQuery { path, since_ms, master, limit, after };
        let page = query.page(&self.state, self.engine.replica(), |master| self.label(master));
        page.map(Reply::Log).map_err(|error| refusal(&error))
    }

    /// What the files that were last at `path` held, one after the other.
    pub(super) fn versions(&self, path: &TreePath) -> Result<Vec<FormerReport>, Refusal> {
        let replica = self.engine.replica();
        let found = versions(&self.state, replica, path).map_err(|error| refusal(&error))?;
        if found.is_empty() {
            let message = "no file that was called so is known: `pleach log` tells what was there";
            return Err(Refusal::new(RefusalKind::NotFound, message).at(path.clone()));
        }
        let standing = crate::history::standing_version(replica, path);
        let report = |version: FormerVersion| {
            let stands = Some(version.deed.stamp) == standing;
            let hash = match &version.body {
                Body::File(content) if content.size > 0 => Some(content.hash),
                _ => None,
            };
            let mut report = FormerReport::new(version, stands, |master| self.label(master));
            report.at = hash.and_then(|hash| self.file_with(&hash));
            report.here = Some(hash.is_none() || report.at.is_some());
            report
        };
        Ok(found.into_iter().map(report).collect())
    }

    /// The member with this name, or whose id begins so; one that was removed as well.
    fn master_called(&self, name: &str) -> Result<MasterId, Refusal> {
        crate::history::member_called(&self.known_members(), name).map_err(|fitting| {
            let message = match fitting {
                0 => format!("no master is called {name}: `pleach masters` lists them"),
                _ => format!("{name} fits {fitting} masters: name one by its id"),
            };
            Refusal::new(RefusalKind::NotFound, message)
        })
    }
}

fn refusal(error: &HistoryError) -> Refusal {
    Refusal::new(RefusalKind::Failed, error.to_string())
}
