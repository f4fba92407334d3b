//! What goes into the engine and what comes out: the whole contract with its driver.

use std::sync::Arc;

use super::guard::Judgement;
use crate::values::{
    Effect, Event, LateWrite, Look, Looked, Member, Message, Outcome, Problem, ProblemKind, Record,
};
use crate::vocabulary::{ContentHash, MasterId, TreePath, VersionVector};

/// What the watcher saw: a hint, never a truth. The engine decides when to look.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hint {
    /// A file that was open for writing was closed, a directory was made, a name came by a rename, or
    /// attributes changed.
    Written(TreePath),
    /// A file was made or written to and is still open, or a link was made.
    Changed(TreePath),
    /// A name is gone, removed or renamed.
    Removed(TreePath),
    /// The two names of which [`Hint::Removed`] and [`Hint::Written`] told are of one entry.
    Renamed(TreePath, TreePath),
    /// Something happened in this directory.
    Directory(TreePath),
    /// Events were lost, or a full scan is due: look at everything below.
    Subtree(TreePath),
}

/// What the engine is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// The watcher saw something.
    Hints(Vec<Hint>),
    /// Everything that waits to settle is to be looked at now: somebody asks to `wait`.
    Flush,
    /// The answer to [`Output::Look`].
    Looked(Looked),
    /// The answer to [`Output::Apply`], an outcome for each effect.
    Applied(Vec<Outcome>),
    /// A content is staged and verified.
    Fetched(ContentHash),
    /// Contents of at most [`crate::transfer::SMALL_BYTES_MAX`] bytes each are here, their hashes checked:
    /// in place of `Fetched`.
    Arrived(Vec<(ContentHash, Arc<[u8]>)>),
    /// A content could not be had from anyone asked.
    FetchFailed(ContentHash),
    /// This disk does not take a content that others have: it could not be staged, or not be retained.
    NotTaken {
        /// Its hash.
        hash: ContentHash,
        /// The class of what is in the way.
        kind: ProblemKind,
        /// What happened and what to do, for people.
        reason: String,
    },
    /// A member is connected and has proved its key.
    PeerCame(MasterId),
    /// A member is gone.
    PeerGone(MasterId),
    /// A member sent a message. Signatures of changes in it have been checked.
    Received(MasterId, Message),
    /// Add a member, whose entry is signed, or update its addresses.
    SetMember(Member),
    /// Remove a member for good.
    RemoveMember(MasterId),
    /// Something of, or for, this master was dropped on the way: compare what is known.
    Resync(MasterId),
    /// The bytes of this file are not what the store holds, though nobody wrote to it: these are.
    Rotten(TreePath, ContentHash),
    /// A program wrote to a file after it had been replaced or removed.
    LateWrite(LateWrite),
    /// A person says what is to become of what was withheld by the guard.
    Judged(Judgement),
    /// The root is not what it was: nothing is looked at or written until it is back.
    RootLost(Problem),
    /// The root is back; everything is looked at.
    RootBack,
    /// The moment of [`super::Engine::poll_timeout`] has come.
    Tick,
}

/// A content that is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Its hash.
    pub hash: ContentHash,
    /// How many bytes it has.
    pub size: u64,
    /// A file of this disk that probably holds most of it: the version to be replaced.
    pub old_version: Option<TreePath>,
    /// Masters to ask, the best first; never empty.
    pub providers: Vec<MasterId>,
}

/// What the engine wants done, in this order. A record is durable before any later output is performed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Make these durable, all or none.
    Persist(Vec<Record>),
    /// Send to one master; dropped if it is gone.
    Send(MasterId, Message),
    /// Send to all masters, by gossip.
    Broadcast(Message),
    /// Send to one master the changes from the log that are not in the vector, in order.
    SendLog {
        /// To whom.
        to: MasterId,
        /// What it knows already.
        known: VersionVector,
    },
    /// Look at the disk; answered by [`Input::Looked`]. At most one look or apply is under way.
    Look(Look),
    /// Take these steps on the disk; answered by [`Input::Applied`].
    Apply(Vec<Effect>),
    /// Fetch contents, from among the own versions or from others; each is answered by
    /// [`Input::Fetched`], [`Input::Arrived`], [`Input::FetchFailed`] or [`Input::NotTaken`].
    Fetch(Vec<Wanted>),
    /// Keep a content among the versions: it is in the staging area, or right here. Answered by
    /// [`Input::NotTaken`] if that can't be done.
    Retain {
        /// Its hash.
        hash: ContentHash,
        /// Its bytes, if they are not staged.
        bytes: Option<Vec<u8>>,
    },
    /// Put contents into the staging area, under their hashes.
    Stage(Vec<(ContentHash, Arc<[u8]>)>),
    /// A content in the staging area that nothing needs.
    Unstage(ContentHash),
    /// Contents that nobody wants any longer: what has been fetched of them may go.
    StopFetching(Vec<ContentHash>),
    /// The list of members changed: admit and dial these.
    Members(Vec<Member>),
    /// Something happened.
    Event(Event),
}
