//! What a change is about, from its ops.

use super::operations::{Operation, Payload};
use crate::replica::{Register, Value};
use crate::values::{ChangeId, Mark, Moved};
use crate::vocabulary::NodeId;

/// The mark of the change with these ops.
pub(in crate::replica) fn mark_of(id: ChangeId, time_ms: i64, operations: &[Operation]) -> Mark {
    let mut nodes: Vec<NodeId> = Vec::new();
    let mut moved = Moved::Nothing;
    for operation in operations {
        match &operation.payload {
            Payload::Birth(_, written) => {
                // Most have the directory of the one before.
                let parent = written.value.place.parent;
                if nodes.last() != Some(&parent) {
                    nodes.push(parent);
                }
            }
            Payload::DirectoryPlace(node, written) => {
                moved = Moved::Something;
                nodes.extend([*node, written.value.parent]);
            }
            Payload::Register(_, Register::Touch, _) => {}
            Payload::Register(node, _, written) => {
                nodes.push(*node);
                match &written.value {
                    Value::Place(place) => {
                        moved = Moved::Something;
                        nodes.push(place.parent);
                    }
                    Value::Deleted(Some(deletion)) => {
                        nodes.push(deletion.above.first().copied().unwrap_or(NodeId::ROOT));
                    }
                    _ => {}
                }
            }
            Payload::Member(_) | Payload::Setting(_) | Payload::Batch | Payload::Gap => {}
        }
    }
    nodes.sort_unstable();
    nodes.dedup();
    Mark { change: id, time_ms, nodes, moved }
}
