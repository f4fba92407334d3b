//! The picture: the disk as it will be after the effects that are planned so far.
//!
//! Invariant: after each planned effect it shows what the effect will have done, and nothing else.

use std::collections::{BTreeMap, BTreeSet};

use super::plan::Spot;
use crate::values::{Base, BaseId, Location, ParkingId};
use crate::vocabulary::{Name, NodeId, TreePath};

/// What is at a place of the picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Occupant {
    Entry(BaseId),
    /// Put or made by the plan.
    New,
}

/// The disk as it will be after the effects planned so far.
pub(super) struct Picture<'a> {
    pub(super) base: &'a Base,
    pub(super) moved: BTreeMap<BaseId, (Spot, Name)>,
    pub(super) removed: BTreeSet<BaseId>,
    pub(super) made: BTreeMap<NodeId, (Spot, Name)>,
    /// Places that differ from the base.
    pub(super) places: BTreeMap<(Spot, Name), Option<Occupant>>,
}

impl Picture<'_> {
    pub(super) fn occupant(&self, spot: Spot, name: &Name) -> Option<Occupant> {
        if let Some(&occupant) = self.places.get(&(spot, name.clone())) {
            return occupant;
        }
        match spot {
            Spot::Base(id) => self.base.child(id, name).map(Occupant::Entry),
            Spot::Made(_) => None,
        }
    }

    pub(super) fn place(&self, id: BaseId) -> Option<(Spot, Name)> {
        self.moved.get(&id).cloned().or_else(|| {
            let entry = self.base.entry(id)?;
            Some((Spot::Base(entry.parent), entry.name.clone()))
        })
    }

    pub(super) fn location(&self, spot: Spot) -> Option<Location> {
        let mut names = Vec::new();
        let mut at = spot;
        loop {
            let (parent, name) = match at {
                Spot::Base(BaseId::ROOT) => {
                    names.reverse();
                    return Some(Location::Tree(TreePath::new(names)));
                }
                Spot::Base(id) => self.place(id)?,
                Spot::Made(node) => self.made.get(&node).cloned()?,
            };
            if let (Spot::Base(BaseId::PARKING), Spot::Base(id)) = (parent, at) {
                names.reverse();
                return Some(Location::Parked(ParkingId(id.0), TreePath::new(names)));
            }
            names.push(name);
            at = parent;
        }
    }

    /// What is in a directory of the base.
    pub(super) fn children(&self, id: BaseId) -> Vec<Occupant> {
        let spot = Spot::Base(id);
        let first = Name::new(*b"\x01").expect("the first of all names");
        let changed = self.places.range((spot, first)..).take_while(|((at, _), _)| *at == spot);
        let mut children: Vec<_> = changed.filter_map(|(_, occupant)| *occupant).collect();
        let unchanged = self
            .base
            .children(id)
            .filter(|(name, _)| !self.places.contains_key(&(spot, (*name).clone())));
        children.extend(unchanged.map(|(_, child)| Occupant::Entry(child)));
        children
    }

    pub(super) fn is_within(&self, spot: Spot, id: BaseId) -> bool {
        let mut at = spot;
        loop {
            at = match at {
                Spot::Base(same) if same == id => return true,
                Spot::Base(BaseId::ROOT | BaseId::PARKING) => return false,
                Spot::Base(other) => match self.place(other) {
                    Some((parent, _)) => parent,
                    None => return false,
                },
                Spot::Made(node) => match self.made.get(&node) {
                    Some((parent, _)) => *parent,
                    None => return false,
                },
            }
        }
    }
}
