//! The control socket: how the command line and other programs of this machine speak to the daemon.
//!
//! `.pleach/socket` is a Unix socket, reachable only by whoever may enter `.pleach` (mode 0700). A client
//! sends one JSON object on a line ([`Envelope`]), the daemon answers with one ([`Reply`]); after
//! [`Request::Events`] it sends one for each thing that happens, until either side closes. A connection may
//! carry many requests, one after the other.
//!
//! Bounds: [`REQUEST_BYTES_MAX`] a request, [`REPLY_BYTES_MAX`] a reply, [`CONNECTIONS_MAX`] connections.
//! The daemon decides nothing here: each request becomes a [`Call`] in the driver's queue.

mod client;
mod conflict;
mod history;
mod path_text;
mod report;
mod server;

use serde::{Deserialize, Serialize};

pub use client::{Client, ClientError, Events};
pub use conflict::full_version_id;
pub(crate) use history::size_of;
pub use history::{
    DeedKind, FormerReport, LogCursor, LogPageReport, LogReport, PickFormer, RestoreOutcome,
    RestoredReport, history_id,
};
pub use path_text::{PathText, PathTextError};
pub use report::{
    ConflictReport, ContentReport, Counts, Damage, EventBody, EventReport, Fetching, GuardReport,
    InviteReport, JudgementReport, MasterLabel, MasterReport, ProblemReport, SettingReport,
    StatusReport, VerifyReport, VersionKind, VersionReport, WaitReport, WaitingFor, Work, WorkKind,
};
pub use server::{Call, bind, serve, socket_path};

/// The version of this protocol. A daemon refuses a request of another one, and says which it speaks.
pub const CONTROL_VERSION: u32 = 1;

/// The longest line a client may send, in bytes.
pub const REQUEST_BYTES_MAX: usize = 1 << 20;

/// The longest line a daemon sends, in bytes.
pub const REPLY_BYTES_MAX: usize = 256 << 20;

/// How many clients may be connected at a time.
pub const CONNECTIONS_MAX: usize = 64;

/// How many events a slow listener may be behind before it is told that it missed some.
pub const EVENTS_BEHIND_MAX: usize = 4096;

/// A request and the version of the protocol that it is made in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Envelope {
    /// [`CONTROL_VERSION`] of the client.
    pub version: u32,
    /// What is asked.
    #[serde(flatten)]
    pub request: Request,
}

/// What can be asked of a daemon.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "snake_case")]
pub enum Request {
    /// How things are. Answered with [`Reply::Status`].
    Status,
    /// Answered with [`Reply::Wait`] once every connected master has on its disk what this one had when
    /// asked, or when the time is over.
    Wait {
        /// How long at most.
        timeout_ms: u64,
    },
    /// Make a ticket. Answered with [`Reply::Invite`].
    Invite {
        /// How long it is good for, in seconds.
        expires_s: u64,
    },
    /// The open conflicts. Answered with [`Reply::Conflicts`].
    Conflicts,
    /// The open conflicts at a path, in full. Answered with [`Reply::Conflicts`].
    ConflictsAt {
        /// Where.
        path: PathText,
    },
    /// Where the bytes of a version of a conflict are. Answered with [`Reply::Content`]; if another master
    /// has them, once they are here.
    Content {
        /// Where the conflict is.
        path: PathText,
        /// The version with this id, or the only one whose id begins so; `ancestor` for what they go back to.
        id: String,
    },
    /// Look at these paths on the disk. Answered with [`Reply::Done`] once what was there when asked is known.
    Look {
        /// Which; none for all that the directory holds.
        paths: Vec<PathText>,
        /// How long at most.
        timeout_ms: u64,
    },
    /// Settle the conflicts at a path. Answered with [`Reply::Done`]; see [`Request::Follow`].
    Resolve {
        /// Where.
        path: PathText,
        /// How.
        choice: Pick,
        /// The ids of all versions that the asker knows to be open there, each in full or its beginning: if
        /// they are not these, nothing is settled. None to settle whatever is open. With [`Pick::Merged`] what
        /// stands may be another one, if it was written on this master.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        expect: Option<Vec<String>>,
        /// Whether to look only whether it could be done.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        dry_run: bool,
    },
    /// What was done, the newest first: a page of it. Answered with [`Reply::Log`].
    Log(LogRequest),
    /// What a file held, the newest version first; also of one that is gone. Answered with
    /// [`Reply::Versions`].
    Versions {
        /// Which.
        path: PathText,
    },
    /// Make a file, or all that a directory held, be as it was. Answered with [`Reply::Restored`]; see
    /// [`Request::Follow`].
    Restore(RestoreRequest),
    /// Answered with [`Reply::Done`] once the disk here has all that was settled and restored on this master
    /// before: whoever looks at the files then, finds them so. Refused with [`RefusalKind::Busy`] when the time
    /// is over, with [`RefusalKind::Failed`] as soon as there is a problem for some of it and the rest is there.
    Follow {
        /// How long at most.
        timeout_ms: u64,
    },
    /// The members. Answered with [`Reply::Masters`].
    Masters,
    /// Remove a member, by name or id. Answered with [`Reply::Done`].
    RemoveMaster {
        /// Its name, or its id in hexadecimal digits, or the beginning of that if it is unique.
        name: String,
    },
    /// What is gone from this disk and waits for a person. Answered with [`Reply::Guard`].
    Guard,
    /// What is to become of that. Answered with [`Reply::Guard`]: what it was about.
    Judge {
        /// Removed on all masters, or brought back here.
        judgement: JudgementReport,
    },
    /// The settings of the store. Answered with [`Reply::Settings`].
    Settings,
    /// Set one of them, on all masters. Answered with [`Reply::Settings`].
    Set {
        /// Its name.
        key: String,
        /// What it is to be.
        value: String,
    },
    /// Read every file again and compare. Answered with [`Reply::Verify`] when done.
    Verify,
    /// From now on send [`Reply::Event`] for each thing that happens.
    Events,
    /// Cut this master off from all others, or end that: for tests and demonstrations. Answered with
    /// [`Reply::Done`] once it has begun.
    Isolate {
        /// Whether to be cut off.
        isolated: bool,
    },
    /// Stop cleanly. Answered with [`Reply::Done`] before it does.
    Stop,
}

/// What is asked of the log.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogRequest {
    /// Only what was done to this file, or to this directory and what it holds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<PathText>,
    /// Nothing older, in milliseconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since_ms: Option<i64>,
    /// Only what was done on this master: its name, or its id or the beginning of that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub master: Option<String>,
    /// How many entries at most; a page may have fewer, and not be the last.
    pub limit: u64,
    /// Where the page before ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<LogCursor>,
}

/// What is to be as it was.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestoreRequest {
    /// Which file or directory.
    pub path: PathText,
    /// As what.
    pub pick: PickFormer,
    /// Whether to say only what would be restored.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub dry_run: bool,
    /// How long to wait for bytes that others have, at most; then what is there is restored.
    pub timeout_ms: u64,
}

/// Which version of a conflict to keep.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Pick {
    /// The version with this id, or the only one whose id begins so.
    Version(String),
    /// The newest version that this master wrote.
    Ours,
    /// The newest version that another master wrote.
    Theirs,
    /// All: the others get names of their own beside the one that stands.
    Both,
    /// What the file holds now, edited since all the others were open. See [`Request::Look`].
    Merged,
}

/// What a daemon answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reply {
    /// To [`Request::Status`].
    Status(Box<StatusReport>),
    /// To [`Request::Wait`].
    Wait(WaitReport),
    /// To [`Request::Invite`].
    Invite(InviteReport),
    /// To [`Request::Conflicts`] and [`Request::ConflictsAt`].
    Conflicts(Vec<ConflictReport>),
    /// To [`Request::Content`].
    Content(Box<ContentReport>),
    /// To [`Request::Log`].
    Log(LogPageReport),
    /// To [`Request::Versions`].
    Versions(Vec<FormerReport>),
    /// To [`Request::Restore`]: a line for each path.
    Restored(Vec<RestoredReport>),
    /// To [`Request::Masters`].
    Masters(Vec<MasterReport>),
    /// To [`Request::Guard`].
    Guard(GuardReport),
    /// To [`Request::Settings`].
    Settings(Vec<SettingReport>),
    /// To [`Request::Verify`].
    Verify(VerifyReport),
    /// Something happened.
    Event(EventReport),
    /// It is done, and there is nothing to tell.
    Done,
    /// It could not be done.
    Error(Refusal),
}

/// Why a request could not be answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    /// The class, for programs.
    pub kind: RefusalKind,
    /// What happened and what to do next, for people.
    pub message: String,
    /// The path it is about, if it is about one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<PathText>,
}

impl Refusal {
    /// A refusal that is about no path.
    #[must_use]
    pub fn new(kind: RefusalKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), path: None }
    }

    /// The same, about `path`.
    #[must_use]
    pub fn at(self, path: impl Into<PathText>) -> Self {
        Self { path: Some(path.into()), ..self }
    }
}

/// The classes of refusals.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RefusalKind {
    /// The line was no request of this protocol.
    Malformed,
    /// The request is of another version of this protocol.
    Version,
    /// Too many clients, or the daemon's queue is full.
    Busy,
    /// The daemon is on its way out.
    Stopping,
    /// What was named is not there: no conflict at the path, no such master, no such version.
    NotFound,
    /// What was named fits more than one thing.
    Ambiguous,
    /// It is not as the asker expected: somebody has settled or edited it since.
    Changed,
    /// The bytes that were asked for are not here, and no connected master gave them.
    Missing,
    /// The store is frozen: the reason is in the message.
    Frozen,
    /// The request makes no sense here: a master that removes itself, a conflict of another kind.
    Unfit,
    /// The system refused.
    Failed,
}

#[cfg(test)]
mod tests;
