//! Answers about what happened: the log, and what files held.

use pleach_core::vocabulary::MasterId;

use super::driver::Driver;
use crate::control::{LogRequest, Refusal, RefusalKind, Reply};
use crate::history::{HistoryError, LogQuery};

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
