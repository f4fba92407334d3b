//! What was: contents that only others have are fetched for whoever restores or reads them.

use std::collections::BTreeMap;

use super::Engine;
use crate::values::Restoring;
use crate::vocabulary::{ContentHash, Moment, NodeId};

/// What somebody wants former contents for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FormerUse {
    /// To restore them.
    Restore,
    /// To read them.
    Read,
}

impl FormerUse {
    /// Under which node they are wanted: no node is born with such an id.
    fn node(self) -> NodeId {
        match self {
            Self::Restore => NodeId([0xff; 16]),
            Self::Read => NodeId([0xfe; 16]),
        }
    }

    /// Whether contents are wanted for that under this id, and not for a node.
    pub(super) fn is_meant_by(node: NodeId) -> bool {
        [Self::Restore, Self::Read].into_iter().any(|of| of.node() == node)
    }
}

impl Engine {
    /// Wants these contents, with their sizes, among the versions, and none but these for that use. What
    /// nobody has who is connected is wanted no more after it was asked for once.
    pub fn want_former(
        &mut self,
        now: Moment,
        of: FormerUse,
        contents: &BTreeMap<ContentHash, u64>,
    ) {
        self.retain_contents(of.node(), contents);
        self.advance(now.monotonic_ms);
        self.seal();
    }

    /// Whether the content is on its way to here, or still to be asked for.
    #[must_use]
    pub fn is_coming(&self, hash: &ContentHash) -> bool {
        self.transfer.is_wanted(hash)
    }

    /// Whether the content is known to be among the versions.
    #[must_use]
    pub fn is_kept(&self, hash: &ContentHash) -> bool {
        self.retained.contains(hash)
    }

    /// Whether the content is known to be among the versions, or was in a file of the tree here when that was
    /// looked at last: a program may have written to it since, see [`Engine::find_content`].
    #[must_use]
    pub fn is_at_hand(&self, hash: &ContentHash) -> bool {
        self.is_kept(hash) || self.base.by_hash(*hash).next().is_some()
    }

    /// Makes nodes be as they were: a change like any other, which this disk follows as all do. The caller has
    /// seen to it that the bytes are here.
    pub fn restore(&mut self, now: Moment, wanted: &[Restoring]) {
        self.replica.set_time(now.unix_ms);
        let local = self.replica.restore(wanted);
        self.act(now, local);
    }
}
