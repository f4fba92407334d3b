//! A member of the store: a master that may write to it.

use serde::{Deserialize, Serialize};

use super::Signature;
use crate::vocabulary::MasterId;

/// A member as the replicated member list has it.
///
/// The signature is the inviter's over store, master and name; the founder signs itself. Core keeps it
/// and never checks it: the driver admits only members whose signatures lead back to the founder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// Its key.
    pub master: MasterId,
    /// What people call it; unique by the inviter's care only.
    pub name: String,
    /// Multiaddresses where it was last reachable, most useful first; at most 16.
    pub addresses: Vec<String>,
    /// Who let it in.
    pub invited_by: MasterId,
    /// By `invited_by`.
    pub signature: Signature,
    /// Whether somebody has removed it since. Never turns back: a removed master joins with a new key.
    pub removed: bool,
}
