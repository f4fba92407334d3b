//! R4: which deletes saw which directories above, and which of them are void.
//!
//! A delete names the directories that its author saw above the node; it is void once one of them is
//! known to have a place that is concurrent with it. `rm -r` of a large tree is one change with many
//! deletes whose chains share their outer parts, so the chains of a change are kept as a tree of links:
//! a link is void if a place of its own directory says so, or if its outer link is void. Void never turns
//! back, since the places of a directory are all kept. Links of replaced deletes stay; they are as many
//! as the directories named in the document's history.

use std::collections::BTreeMap;

use super::intern::number;
use super::node::{DirectoryPlace, Key, PlaceOrigin};
use crate::replica::register::Causality;
use crate::values::ChangeId;
use crate::vocabulary::Stamp;

/// The chains of directories that deletes saw.
#[derive(Clone, Debug, Default)]
pub(super) struct Witnesses {
    origins: Vec<Origin>,
    number_of_origin: BTreeMap<Origin, u32>,
    links: Vec<Link>,
    number_of_link: BTreeMap<(u32, Option<u32>, Key), u32>,
    links_of_directory: BTreeMap<Key, Vec<u32>>,
}

/// The change that deleted, and the merged places that its author had not seen.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Origin {
    pub(super) change: ChangeId,
    pub(super) unseen: Vec<Stamp>,
}

#[derive(Clone, Debug)]
struct Link {
    origin: u32,
    is_void: bool,
    inner: Vec<u32>,
    nodes: Vec<Key>,
}

/// A move of a directory, as R4 looks at it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Move {
    pub(super) stamp: Stamp,
    pub(super) change: ChangeId,
}

impl Origin {
    fn is_void_by(&self, moved: Move, causality: &dyn Causality) -> bool {
        self.unseen.contains(&moved.stamp) || causality.concurrent(self.change, moved.change)
    }
}

impl Witnesses {
    pub(super) fn is_void(&self, link: u32) -> bool {
        self.links[link as usize].is_void
    }

    /// Notes that a delete of `origin` saw `node` below the directories `above`, innermost first.
    ///
    /// `moves` gives all the moves of a directory that are known.
    pub(super) fn note(
        &mut self,
        origin: Origin,
        above: &[Key],
        node: Key,
        moves: impl Fn(Key) -> Vec<Move>,
        causality: &dyn Causality,
    ) -> Option<u32> {
        let next = number(self.origins.len());
        let origin_number = *self.number_of_origin.entry(origin.clone()).or_insert(next);
        if origin_number == next {
            self.origins.push(origin.clone());
        }
        let mut outer = None;
        for &directory in above.iter().rev() {
            let key = (origin_number, outer, directory);
            let link = match self.number_of_link.get(&key) {
                Some(&link) => link,
                None => {
                    let is_void = outer.is_some_and(|outer| self.is_void(outer))
                        || moves(directory).iter().any(|&m| origin.is_void_by(m, causality));
                    self.forge(key, is_void)
                }
            };
            outer = Some(link);
        }
        if let Some(link) = outer {
            self.links[link as usize].nodes.push(node);
        }
        outer
    }

    fn forge(&mut self, key: (u32, Option<u32>, Key), is_void: bool) -> u32 {
        let (origin, outer, directory) = key;
        let link = number(self.links.len());
        self.links.push(Link { origin, is_void, inner: Vec::new(), nodes: Vec::new() });
        self.number_of_link.insert(key, link);
        self.links_of_directory.entry(directory).or_default().push(link);
        if let Some(outer) = outer {
            self.links[outer as usize].inner.push(link);
        }
        link
    }

    /// Learns of a move of `directory`; answers the nodes whose deletes it made void.
    pub(super) fn directory_moved(
        &mut self,
        directory: Key,
        moved: Move,
        causality: &dyn Causality,
    ) -> Vec<Key> {
        let mut to_void: Vec<u32> = self
            .links_of_directory
            .get(&directory)
            .into_iter()
            .flatten()
            .copied()
            .filter(|&link| {
                let link = &self.links[link as usize];
                !link.is_void && self.origins[link.origin as usize].is_void_by(moved, causality)
            })
            .collect();
        let mut freed = Vec::new();
        while let Some(link) = to_void.pop() {
            let link = &mut self.links[link as usize];
            if !link.is_void {
                link.is_void = true;
                freed.extend_from_slice(&link.nodes);
                to_void.extend_from_slice(&link.inner);
            }
        }
        freed
    }
}

/// The moves among the places of a directory: all but its birth, which whoever names it has seen.
pub(super) fn moves<'a>(
    history: &'a [DirectoryPlace],
    stamp: impl Fn(&DirectoryPlace) -> Stamp + 'a,
) -> impl Iterator<Item = Move> + 'a {
    history.iter().filter(|entry| entry.origin == PlaceOrigin::Move).map(move |entry| {
        let stamp = stamp(entry);
        Move { stamp, change: ChangeId { writer: stamp.writer, sequence: entry.sequence } }
    })
}
