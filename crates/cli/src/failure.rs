//! Why a command could not be done: what happened, and what to do next; and the exit codes.

use std::fmt::{self, Write};
use std::process::ExitCode;

use pleach_daemon::control::{ClientError, RefusalKind};
use pleach_daemon::node::StartError;
use pleach_daemon::store::StoreError;

use crate::render::Style;

/// What the process tells its caller. The numbers are a promise to scripts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Code {
    /// It is done.
    Done = 0,
    /// It could not be done.
    Failed = 1,
    /// It was asked for wrongly.
    Usage = 2,
    /// Not converged in time (`wait`).
    NotConverged = 3,
    /// There are conflicts (`conflicts --check`).
    Conflicts = 4,
}

impl From<Code> for ExitCode {
    fn from(code: Code) -> Self {
        Self::from(code as u8)
    }
}

/// A command that could not be done.
#[derive(Debug)]
pub(crate) struct Failure {
    /// What the process exits with.
    pub(crate) code: Code,
    message: String,
    next: Option<String>,
}

impl Failure {
    /// Something did not work.
    pub(crate) fn new(message: impl ToString) -> Self {
        Self { code: Code::Failed, message: message.to_string(), next: None }
    }

    /// Something was asked for wrongly.
    pub(crate) fn usage(message: impl ToString) -> Self {
        Self { code: Code::Usage, ..Self::new(message) }
    }

    /// The same, and what to do next.
    #[must_use]
    pub(crate) fn next(self, next: impl ToString) -> Self {
        Self { next: Some(next.to_string()), ..self }
    }

    /// Whoever reads what we print has gone: there is nothing to do any more, and nobody to tell.
    pub(crate) fn nobody_reads() -> Self {
        Self { code: Code::Done, message: String::new(), next: None }
    }

    /// No daemon runs on the store in `root`.
    pub(crate) fn no_daemon(root: &std::path::Path) -> Self {
        Self::new(format!("no daemon runs on {}", root.display()))
            .next(format!("start it: pleach daemon {}", root.display()))
    }

    /// As it is printed.
    pub(crate) fn shown(&self, style: Style) -> String {
        if self.code == Code::Done {
            return String::new();
        }
        let mut text = format!("{} {}\n", style.alarm("error:"), self.message);
        if let Some(next) = &self.next {
            let _ = writeln!(text, "{} {next}", style.dim("next: "));
        }
        text
    }
}

/// What happened, alone.
impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        let ClientError::Refused(refusal) = &error else {
            return Self::new(error);
        };
        let message = match &refusal.path {
            Some(path) => format!("{path}: {}", refusal.message),
            None => refusal.message.clone(),
        };
        match refusal.kind {
            RefusalKind::Malformed | RefusalKind::Ambiguous => Self::usage(message),
            _ => Self::new(message),
        }
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        if error.is_usage() { Self::usage(error) } else { Self::new(error) }
    }
}

impl From<StartError> for Failure {
    fn from(error: StartError) -> Self {
        match error {
            StartError::Store(error) => error.into(),
            error => Self::new(error),
        }
    }
}
