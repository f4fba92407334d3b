//! What passes between the functions: plain values, without behaviour beyond their own consistency.

mod act;
mod base;
mod change;
mod conflict;
mod content;
mod deed;
mod effect;
mod event;
mod look;
mod member;
mod message;
mod record;
mod restoring;
mod tree;

pub use act::{Act, Acts, DirectoryIndex, DirectoryRef, NewNode, Performed, SeenDirectory};
pub use base::{Base, BaseEntry, BaseError, BaseId, BaseRow};
pub use change::{ChangeId, Signature, SignedChange};
pub use conflict::{Choice, Conflict, ConflictKind, Rule, Version, VersionOf};
pub use content::{Body, FileContent, LinkTarget, LinkTargetError};
pub use deed::{Deed, Mark, Moved, What};
pub use effect::{Effect, Expected, Left, Location, Outcome, ParkingId, PutSource};
pub use event::{Event, Problem, ProblemKind};
pub use look::{
    DirectoryState, Found, FoundBody, LateWrite, ListRequest, Listed, Look, Looked, ReadRequest,
    ReadState,
};
pub use member::Member;
pub use message::{
    BLOCKED_MAX, Contents, Decoded, MESSAGE_BYTES_MAX, Message, PROTOCOL_VERSION,
    PROTOCOL_VERSION_OLDEST,
};
pub use record::Record;
pub use restoring::{Former, Life, Restoring};
pub use tree::{EntryView, Seen, SeenNodes, TreeDelta, TreeView};
