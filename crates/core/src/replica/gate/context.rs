//! The causal past of a change: sequence, counters, predecessors, nodes and parents.
//!
//! Everything is judged by what the change's dependencies had seen. Where the document knows more than
//! that, the present is only a shortcut to the same answer.

use automerge::ChangeHash;
use std::collections::BTreeMap;

use super::Refusal;
use super::operations::{Operation, Payload, content_fits};
use crate::replica::document::Document;
use crate::replica::schema::{self, GENESIS_LAST_OP};
use crate::replica::{Register, Value, Written};
use crate::values::{ChangeId, Member};
use crate::vocabulary::{Kind, NodeId, VersionVector};

/// Checks the change with these dependencies, all held; the result is what its author had seen.
pub(super) fn check(
    id: ChangeId,
    start_op: u64,
    dependencies: &[ChangeHash],
    operations: &[Operation],
    document: &Document,
) -> Result<VersionVector, Refusal> {
    let (seen, last_op) = past(dependencies, document)?;
    if seen.last(id.writer) + 1 != id.sequence {
        return Err(Refusal::Sequence("the writer's previous change is not among those seen"));
    }
    if document.past().known().last(id.writer) + 1 != id.sequence {
        return Err(Refusal::Equivocation);
    }
    if start_op != last_op + 1 {
        return Err(Refusal::Sequence("the counters do not follow on those seen"));
    }
    let births = operations.iter().filter_map(|operation| match &operation.payload {
        Payload::Birth(node, written) => Some((*node, written)),
        _ => None,
    });
    let births = births.map(|(node, written)| {
        (node, Newborn { kind: written.value.body.kind(), counter: written.stamp.counter })
    });
    let context = Context { dependencies, seen: &seen, document, births: births.collect() };
    let is_gap = |operation: &Operation| matches!(operation.payload, Payload::Gap);
    let first_gap = operations.iter().position(is_gap);
    for (index, operation) in operations.iter().enumerate() {
        context.check_node(operation)?;
        // That later gaps follow on the first, the ops alone have shown.
        if !is_gap(operation) || first_gap == Some(index) {
            context.check_predecessors(operation)?;
        }
    }
    Ok(seen)
}

/// What the author had seen, and the largest counter in it.
fn past(dependencies: &[ChangeHash], document: &Document) -> Result<(VersionVector, u64), Refusal> {
    let mut seen = VersionVector::new();
    let mut last_op = GENESIS_LAST_OP;
    if dependencies.is_empty() {
        return Err(Refusal::Sequence("a change depends on the genesis at least"));
    }
    for dependency in dependencies {
        if let Some((change, change_last_op)) = document.change_of(*dependency) {
            document.past().join_seen_by(change, &mut seen);
            last_op = last_op.max(change_last_op);
        } else if *dependency != document.genesis() {
            return Err(Refusal::Sequence("a dependency is not held"));
        }
    }
    Ok((seen, last_op))
}

struct Newborn {
    kind: Kind,
    counter: u64,
}

struct Context<'a> {
    dependencies: &'a [ChangeHash],
    seen: &'a VersionVector,
    document: &'a Document,
    births: BTreeMap<NodeId, Newborn>,
}

impl Context<'_> {
    /// The kind of a node that the author knew.
    fn kind(&self, node: NodeId) -> Option<Kind> {
        if let Some(newborn) = self.births.get(&node) {
            return Some(newborn.kind);
        }
        let (kind, birth) = self.document.birth_of(node)?;
        let seen = birth.is_none_or(|birth| self.seen.last(birth.writer) >= birth.sequence);
        seen.then_some(kind)
    }

    fn check_node(&self, operation: &Operation) -> Result<(), Refusal> {
        let refuse = |problem| Err(Refusal::Node { key: operation.key.clone(), problem });
        match &operation.payload {
            Payload::Birth(_, written) => {
                let parent = written.value.place.parent;
                // Newborn parents come first, so that first places never form a cycle.
                let newborn = self.births.get(&parent);
                if newborn.is_some_and(|parent| parent.counter >= written.stamp.counter) {
                    return refuse("born before its directory");
                }
                if self.kind(parent) != Some(Kind::Directory) {
                    return refuse("its directory is not known");
                }
            }
            Payload::DirectoryPlace(node, written) => {
                if *node == NodeId::ROOT || self.kind(*node) != Some(Kind::Directory) {
                    return refuse("no known directory");
                }
                if self.kind(written.value.parent) != Some(Kind::Directory) {
                    return refuse("its directory is not known");
                }
            }
            Payload::Register(node, register, written) => {
                let Some(kind) = self.kind(*node) else { return refuse("not known") };
                if let Some(problem) = self.register_problem(*node, kind, register, &written.value)
                {
                    return refuse(problem);
                }
            }
            Payload::Member(written) => return self.check_member(operation, written),
            Payload::Setting(_) | Payload::Batch | Payload::Gap => {}
        }
        Ok(())
    }

    fn register_problem(
        &self,
        node: NodeId,
        kind: Kind,
        register: &Register,
        value: &Value,
    ) -> Option<&'static str> {
        match (register, value) {
            (Register::Place, _) if kind == Kind::Directory => Some("a directory's place"),
            (Register::Place, Value::Place(place)) => {
                let known = self.kind(place.parent) == Some(Kind::Directory);
                (!known).then_some("its directory is not known")
            }
            (Register::Content, Value::Content(content)) => {
                (!content_fits(&content.body, kind)).then_some("content of another kind")
            }
            (Register::Deleted, _) if node == NodeId::ROOT => Some("the root"),
            (Register::Deleted, Value::Deleted(Some(deletion))) => {
                let directory = |above: &NodeId| self.kind(*above) == Some(Kind::Directory);
                (!deletion.above.iter().all(directory)).then_some("a directory above is not known")
            }
            (Register::Version(_), Value::Version(Some(made))) => {
                let fits = self.kind(*made).is_some_and(|kind| kind != Kind::Directory);
                (!fits).then_some("what became of a version is not known")
            }
            _ => None,
        }
    }

    /// Who was once removed stays so.
    fn check_member(
        &self,
        operation: &Operation,
        written: &Written<Member>,
    ) -> Result<(), Refusal> {
        if written.value.removed {
            return Ok(());
        }
        let current =
            self.document.values_seen(operation.object, &operation.key, self.dependencies);
        let removed = current
            .iter()
            .any(|bytes| schema::unpack::<Member>(bytes).is_some_and(|seen| seen.value.removed));
        if removed {
            let (key, problem) = (operation.key.clone(), "a removed member does not come back");
            return Err(Refusal::Value { key, problem });
        }
        Ok(())
    }

    /// A write replaces exactly the values that its author had seen.
    fn check_predecessors(&self, operation: &Operation) -> Result<(), Refusal> {
        let expected = match &operation.payload {
            // Keys that have this change's own stamp in them: nobody had written them before.
            Payload::Birth(..) | Payload::DirectoryPlace(..) | Payload::Batch => Vec::new(),
            _ => self.document.predecessors_seen(
                operation.object,
                &operation.key,
                self.seen,
                self.dependencies,
            ),
        };
        if operation.predecessors == expected {
            Ok(())
        } else {
            Err(Refusal::Predecessors(operation.key.clone()))
        }
    }
}
