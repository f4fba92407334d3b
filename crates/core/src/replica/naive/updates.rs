//! What changes amount to in a document: the updates that a tree absorbs.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::{AbstractChange, Changes};
use crate::replica::register::{Register, Update, Value, Write, Written};
use crate::replica::tree::Tree;
use crate::vocabulary::{Kind, NodeId};

/// The updates that these changes make in a document that now holds all of `changes`.
pub(crate) fn updates(
    changes: &Changes,
    fresh: &[Arc<AbstractChange>],
    before: &Tree,
) -> Vec<Update> {
    let mut updates = vec![];
    let mut registers = BTreeSet::new();
    let births = fresh.iter().flat_map(|change| &change.writes);
    let born: BTreeMap<NodeId, Kind> = births
        .filter_map(|(stamp, write)| match write {
            Write::Birth(birth) => Some((NodeId::born_at(*stamp), birth.body.kind())),
            Write::Register(..) => None,
        })
        .collect();
    for change in fresh {
        let sequence = change.id.sequence;
        for (stamp, write) in &change.writes {
            let stamp = *stamp;
            match write {
                Write::Birth(birth) => {
                    let node = NodeId::born_at(stamp);
                    let birth = Written { stamp, sequence, value: birth.clone() };
                    updates.push(Update::Born(node, birth));
                }
                Write::Register(node, Register::Place, Value::Place(place))
                    if before.kind(*node).or_else(|| born.get(node).copied())
                        == Some(Kind::Directory) =>
                {
                    let place = Written { stamp, sequence, value: place.clone() };
                    updates.push(Update::DirectoryPlace(*node, place));
                }
                Write::Register(node, register, _) => {
                    registers.insert((*node, register.clone()));
                }
            }
        }
    }
    for (node, register) in registers {
        let mut ops = vec![];
        for change in changes.values() {
            for (stamp, write) in &change.writes {
                match write {
                    Write::Register(n, r, value) if (*n, r) == (node, &register) => {
                        ops.push(super::Op {
                            change: change.clone(),
                            stamp: *stamp,
                            value: value.clone(),
                        });
                    }
                    _ => {}
                }
            }
        }
        let values = super::current(&ops).into_iter().map(|op| Written {
            stamp: op.stamp,
            sequence: op.change.id.sequence,
            value: op.value,
        });
        updates.push(Update::Register(node, register, values.collect()));
    }
    updates
}
