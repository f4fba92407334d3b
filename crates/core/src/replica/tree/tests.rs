//! What histories don't reach: depth, breadth, and updates that no gate would let through.

use super::Tree;
use crate::replica::register::{Birth, Causality, Place, Register, Update, Value, Written};
use crate::values::{Body, ChangeId, TreeView};
use crate::vocabulary::{Mode, Name, NodeId, Stamp, Timestamp, TreePath, WriterId, Xattrs};

/// One writer, who has seen everything before.
struct Sequential;

impl Causality for Sequential {
    fn saw(&self, later: ChangeId, earlier: ChangeId) -> bool {
        later.sequence >= earlier.sequence
    }

    fn change_of(&self, stamp: Stamp) -> Option<ChangeId> {
        Some(ChangeId { writer: stamp.writer, sequence: stamp.counter })
    }
}

const DEPTH: u64 = 5_000;

fn stamp(counter: u64) -> Stamp {
    Stamp { counter, writer: WriterId([1; 16]) }
}

fn node(counter: u64) -> NodeId {
    NodeId::born_at(stamp(counter))
}

fn name(text: &str) -> Name {
    Name::try_from(text).unwrap()
}

fn born(counter: u64, parent: NodeId, name: Name, body: Body) -> Update {
    let value = Birth {
        place: Place { parent, name },
        body,
        mode: Mode::new(0o755),
        owner: None,
        xattrs: Xattrs::new(),
    };
    Update::Born(node(counter), Written { stamp: stamp(counter), sequence: counter, value })
}

fn directory() -> Body {
    Body::Directory { mtime: Timestamp::default() }
}

fn moved(counter: u64, what: NodeId, parent: NodeId, name: Name) -> Update {
    let value = Place { parent, name };
    Update::DirectoryPlace(what, Written { stamp: stamp(counter), sequence: counter, value })
}

/// Directories 1 to `DEPTH`, each in the one before.
fn chain() -> Vec<Update> {
    let parent = |counter| if counter == 1 { NodeId::ROOT } else { node(counter - 1) };
    (1..=DEPTH).map(|counter| born(counter, parent(counter), name("d"), directory())).collect()
}

#[test]
fn chain_of_directories_of_any_depth_is_moved_removed_and_revived() {
    use crate::replica::register::Deletion;
    let mut tree = Tree::new();
    let _ = tree.absorb(chain(), &Sequential);
    assert_eq!(tree.path(node(DEPTH)).map(|path| path.names().len()), Some(DEPTH as usize));
    let _ = tree.absorb(vec![moved(DEPTH + 1, node(1), NodeId::ROOT, name("e"))], &Sequential);
    assert!(tree.child(NodeId::ROOT, &name("e")).is_some());

    let removed = |counter: u64| {
        let observed = tree.seen(node(counter)).unwrap().places.into_iter().collect();
        let deletion = Deletion { observed, above: vec![], unseen: vec![] };
        let value = Value::Deleted(Some(deletion));
        let value = Written { stamp: stamp(DEPTH + 1 + counter), sequence: DEPTH + 2, value };
        Update::Register(node(counter), Register::Deleted, vec![value])
    };
    let removals: Vec<Update> = (1..=DEPTH).map(removed).collect();
    let mut all_but_last = removals.clone();
    let last = all_but_last.pop().unwrap();
    let _ = tree.absorb(all_but_last, &Sequential);
    assert!(tree.is_held(node(1)) && tree.is_live(node(DEPTH)));
    let delta = tree.absorb(vec![last], &Sequential);
    assert_eq!(delta.nodes.len(), DEPTH as usize);
    assert_eq!(tree.entries().count(), 0);

    let life =
        Written { stamp: stamp(4 * DEPTH), sequence: 4 * DEPTH, value: Value::Deleted(None) };
    let _ = tree
        .absorb(vec![Update::Register(node(DEPTH), Register::Deleted, vec![life])], &Sequential);
    assert!(tree.is_held(node(1)) && tree.is_live(node(DEPTH)));
}

#[test]
fn deep_chains_of_one_name_are_united_and_parted() {
    let mut tree = Tree::new();
    let _ = tree.absorb(chain(), &Sequential);
    let twin = |counter: u64| {
        let parent = if counter == 1 { NodeId::ROOT } else { node(DEPTH + counter - 1) };
        let called = if counter == 1 { "other" } else { "d" };
        born(DEPTH + counter, parent, name(called), directory())
    };
    let _ = tree.absorb((1..=DEPTH).map(twin).collect(), &Sequential);
    let deepest = [node(DEPTH), node(2 * DEPTH)];
    let top = node(DEPTH + 1);
    let _ = tree.absorb(vec![moved(3 * DEPTH, top, NodeId::ROOT, name("d"))], &Sequential);
    assert_eq!(tree.members_of_entry(deepest[1]), deepest);
    let _ = tree.absorb(vec![moved(3 * DEPTH + 1, top, NodeId::ROOT, name("o"))], &Sequential);
    assert_eq!(tree.members_of_entry(deepest[1]), [deepest[1]]);
}

#[test]
fn what_hangs_on_no_known_directory_stays_out_of_the_tree() {
    let mut tree = Tree::new();
    let file = crate::replica::naive::history::file(1, 0);
    let unknown = NodeId([7; 16]);
    let updates = vec![
        born(1, unknown, name("a"), file.clone()),
        born(2, NodeId::ROOT, name("f"), file.clone()),
        born(3, node(2), name("b"), directory()),
        moved(4, unknown, NodeId::ROOT, name("c")),
        moved(5, NodeId::ROOT, node(3), name("root")),
    ];
    let _ = tree.absorb(updates, &Sequential);
    let paths: Vec<TreePath> = tree.entries().map(|(path, _)| path).collect();
    assert_eq!(paths, [TreePath::parse(b"f").unwrap()]);
    for lost in [unknown, node(1), node(3)] {
        assert_eq!((tree.path(lost), tree.entry(lost)), (None, None));
    }
}

#[test]
fn directory_with_no_place_left_to_fall_back_to_stays_out_of_the_tree() {
    // Stamps that no honest writer makes: both are born in each other.
    let mut tree = Tree::new();
    let updates = vec![
        born(1, node(2), name("a"), directory()),
        born(2, node(1), name("b"), directory()),
        moved(3, node(2), node(1), name("b")),
    ];
    let _ = tree.absorb(updates, &Sequential);
    assert_eq!(tree.entries().count(), 0);
    assert_eq!(tree.path(node(1)), None);
    let _ = tree.absorb(vec![born(11, node(12), name("a"), directory())], &Sequential);
    let _ = tree.absorb(vec![born(12, node(11), name("b"), directory())], &Sequential);
    assert_eq!((tree.path(node(11)), tree.above(node(11))), (None, vec![node(12)]));
}

#[test]
fn mtime_set_after_a_write_is_shown_until_the_next_write() {
    use crate::replica::register::Content;
    let mut tree = Tree::new();
    let file = |mtime| crate::replica::naive::history::file(1, mtime);
    let set = |counter, register, value| {
        let value = Written { stamp: stamp(counter), sequence: counter, value };
        Update::Register(node(1), register, vec![value])
    };
    let mtime = |tree: &Tree| tree.entry(node(1)).unwrap().body.mtime().seconds;
    let _ = tree.absorb(vec![born(1, NodeId::ROOT, name("f"), file(10))], &Sequential);
    let touch = Value::Touch(Timestamp { seconds: 20, nanos: 0 });
    let _ = tree.absorb(vec![set(2, Register::Touch, touch)], &Sequential);
    assert_eq!(mtime(&tree), 20);
    let content = Value::Content(Content { body: file(30), carried: vec![] });
    let _ = tree.absorb(vec![set(3, Register::Content, content)], &Sequential);
    assert_eq!(mtime(&tree), 30);
}
