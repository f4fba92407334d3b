//! The words everything else is written in: ids, names and paths, stamps, time, fingerprints.
//!
//! Nothing here knows of trees, registers or effects. Every id and path is a newtype with a checked
//! constructor, so that what has been parsed need not be validated again.

mod attributes;
mod fingerprint;
mod ids;
mod path;
mod stamp;
mod time;

pub use attributes::{Attributes, Kind, Mode, Owner, Xattrs};
pub use fingerprint::Fingerprint;
pub use ids::{ContentHash, MasterId, NodeId, ParseIdError, StoreId, WriterId};
pub use path::{Name, NameError, TreePath};
pub use stamp::{Stamp, VersionVector};
pub use time::{Moment, Timestamp};
