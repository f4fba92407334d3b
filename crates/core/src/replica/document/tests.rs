//! Documents that exchange changes, are saved and loaded.

use super::*;
use crate::replica::{Birth, Causality, Content, Deletion, Place, Value};
use crate::values::{Body, FileContent, Signature};
use crate::vocabulary::{Mode, Name, Timestamp, Xattrs};

pub(crate) fn document(master: u8) -> Document {
    let mut document = Document::new();
    document.set_writer(writer(master));
    document
}

pub(crate) fn master(n: u8) -> MasterId {
    MasterId([n; 32])
}

fn writer(n: u8) -> WriterId {
    WriterId::new(master(n), [n; 8])
}

pub(crate) fn sign(n: u8, committed: &Committed) -> SignedChange {
    SignedChange {
        id: committed.id,
        author: master(n),
        bytes: committed.bytes.clone(),
        signature: Signature::new(&[0; 64]),
    }
}

pub(crate) fn place(parent: NodeId, name: &str) -> Place {
    Place { parent, name: Name::try_from(name).unwrap() }
}

pub(crate) fn file(parent: NodeId, name: &str, bytes: &[u8]) -> Birth {
    birth(parent, name, body(bytes))
}

pub(crate) fn directory(parent: NodeId, name: &str) -> Birth {
    birth(parent, name, Body::Directory { mtime: Timestamp::default() })
}

fn birth(parent: NodeId, name: &str, body: Body) -> Birth {
    let place = place(parent, name);
    Birth { place, body, mode: Mode::new(0o644), owner: None, xattrs: Xattrs::new() }
}

pub(crate) fn body(bytes: &[u8]) -> Body {
    Body::File(FileContent {
        hash: ContentHash::of(bytes),
        size: bytes.len() as u64,
        mtime: Timestamp::default(),
    })
}

fn content(bytes: &[u8]) -> Value {
    Value::Content(Content { body: body(bytes), carried: Vec::new() })
}

fn commit<R>(
    document: &mut Document,
    write: impl FnOnce(&mut Draft<'_>) -> R,
) -> (SignedChange, R, Vec<Update>) {
    let n = document.writer().unwrap().0[15];
    let mut draft = document.begin();
    let result = write(&mut draft);
    let committed = draft.commit().unwrap().unwrap();
    (sign(n, &committed), result, committed.updates)
}

/// All updates of a loaded copy: everything a document holds, in an order of its own.
fn everything(document: &Document) -> Vec<Update> {
    let mut updates = Vec::new();
    let loaded = Document::load(&document.save(), &mut |update| updates.push(update)).unwrap();
    assert_eq!(loaded.known(), document.known());
    assert_eq!(loaded.heads(), document.heads());
    assert_eq!(loaded.last_op, document.last_op);
    updates
}

#[test]
fn a_change_says_the_same_where_it_was_written_and_where_it_was_received() {
    let (mut a, mut b) = (document(1), document(2));
    let (change, (d, f), updates) = commit(&mut a, |draft| {
        let (d, _) = draft.birth(directory(NodeId::ROOT, "d"));
        let (f, _) = draft.birth(file(d, "f", b"1"));
        draft.register(f, Register::Content, content(b"2"));
        draft.register(f, Register::Mode, Value::Mode(Mode::new(0o600)));
        draft.register(d, Register::Place, Value::Place(place(NodeId::ROOT, "e")));
        (d, f)
    });
    let received = b.receive([change.clone()]);
    assert_eq!(received.updates, updates);
    assert_eq!(received.landed, std::slice::from_ref(&change));
    assert_eq!(a.heads(), b.heads());
    assert_eq!((b.kind(d), b.kind(f)), (Some(Kind::Directory), Some(Kind::File)));
    assert!(b.receive([change]).landed.is_empty(), "a change is taken in once");
    assert_eq!(everything(&a), everything(&b));
}

#[test]
fn concurrent_values_are_all_kept_until_one_has_seen_them() {
    let (mut a, mut b) = (document(1), document(2));
    let (born, f, _) = commit(&mut a, |draft| draft.birth(file(NodeId::ROOT, "f", b"1")).0);
    b.receive([born]);
    let (at_a, _, _) = commit(&mut a, |d| d.register(f, Register::Content, content(b"a")));
    let (at_b, _, _) = commit(&mut b, |d| d.register(f, Register::Content, content(b"b")));
    let received = a.receive([at_b]);
    b.receive([at_a]);
    let [Update::Register(_, Register::Content, values)] = &received.updates[..] else {
        panic!("one register was written: {received:?}")
    };
    assert_eq!(values.len(), 2);
    assert!(values[0].stamp < values[1].stamp);
    assert!(a.concurrent(values[0].change(), values[1].change()));

    let (both, _, updates) = commit(&mut a, |d| d.register(f, Register::Content, content(b"c")));
    assert!(matches!(&updates[..], [Update::Register(_, _, values)] if values.len() == 1));
    assert_eq!(b.receive([both]).updates, updates);
    assert_eq!(everything(&a), everything(&b));
}

#[test]
fn changes_out_of_order_wait_for_what_they_depend_on() {
    let (mut a, mut b) = (document(1), document(2));
    let mut changes = Vec::new();
    for n in 0..5 {
        let name = n.to_string();
        let (change, ..) = commit(&mut a, |draft| draft.birth(file(NodeId::ROOT, &name, b"")));
        changes.push(change);
    }
    let first = changes.remove(0);
    let received = b.receive(changes.into_iter().rev());
    assert!(received.landed.is_empty() && received.refused.is_empty());
    assert_eq!(b.waiting(), 4);
    let landed = b.receive([first]).landed;
    let sequences: Vec<u64> = landed.iter().map(|change| change.id.sequence).collect();
    assert_eq!(sequences, [1, 2, 3, 4, 5]);
    assert_eq!((b.waiting(), a.heads()), (0, b.heads()));
}

#[test]
fn a_large_import_is_one_change_that_loads_again() {
    let (mut a, mut b) = (document(1), document(2));
    let (change, nodes, updates) = commit(&mut a, |draft| {
        let (d, _) = draft.birth(directory(NodeId::ROOT, "d"));
        (0..1000).map(|n| draft.birth(file(d, &n.to_string(), b"")).0).collect::<Vec<_>>()
    });
    assert_eq!(updates.len(), 1001);
    assert_eq!(b.receive([change]).updates, updates);
    let (later, ..) =
        commit(&mut b, |d| d.register(nodes[500], Register::Content, content(b"later")));
    a.receive([later]);
    assert_eq!(everything(&a).len(), 1002);
    assert_eq!(everything(&a), everything(&b));
}

#[test]
fn a_draft_that_thinks_twice_keeps_the_last_and_its_stamps() {
    let (mut a, mut b) = (document(1), document(2));
    let (born, d, _) = commit(&mut a, |draft| draft.birth(directory(NodeId::ROOT, "d")).0);
    b.receive([born]);
    for _ in 0..2 {
        let (change, stamp, updates) = commit(&mut a, |draft| {
            for name in ["x", "y", "z"] {
                draft.register(d, Register::Place, Value::Place(place(NodeId::ROOT, name)));
            }
            draft.register(d, Register::Mode, Value::Mode(Mode::new(1)));
            draft.register(d, Register::Mode, Value::Mode(Mode::new(2)))
        });
        let [Update::DirectoryPlace(_, at), Update::Register(_, _, modes)] = &updates[..] else {
            panic!("one place, one mode: {updates:?}")
        };
        assert_eq!(at.value, place(NodeId::ROOT, "z"));
        assert_eq!((modes[0].stamp, &modes[0].value), (stamp, &Value::Mode(Mode::new(2))));
        assert_eq!(b.receive([change]).updates, updates);
        assert!(a.last_op >= stamp.counter, "later stamps are larger");
    }
    assert_eq!(everything(&a), everything(&b));
}

#[test]
fn members_and_settings_are_merged() {
    let (mut a, mut b) = (document(1), document(2));
    let member = |name: &str, removed| Member {
        master: master(9),
        name: name.to_owned(),
        addresses: Vec::new(),
        invited_by: master(1),
        signature: Signature::new(&[0; 64]),
        removed,
    };
    let (first, ..) = commit(&mut a, |draft| draft.member(member("nine", false)));
    assert_eq!(b.receive([first]).members, Altered::Written);
    let (removed, ..) = commit(&mut a, |draft| draft.member(member("nine", true)));
    let (renamed, ..) = commit(&mut b, |draft| {
        draft.setting("conflicts", b"siblings".to_vec());
        draft.member(member("neun", false))
    });
    a.receive([renamed]);
    b.receive([removed]);
    assert!(a.members()[&master(9)].removed, "removal is for good");
    assert_eq!(a.members(), b.members());
    assert_eq!(a.settings()["conflicts"], b"siblings");

    let mut draft = a.begin();
    draft.member(member("nine", false));
    assert!(matches!(draft.commit(), Err(Refusal::Value { .. })));
}

#[test]
fn what_a_caller_should_not_write_is_refused_and_leaves_no_trace() {
    let mut a = document(1);
    let (_, f, _) = commit(&mut a, |draft| draft.birth(file(NodeId::ROOT, "f", b"1")).0);
    let before = a.heads();
    let unknown = NodeId([7; 16]);
    let deletion = Deletion { observed: Default::default(), above: vec![f], unseen: Vec::new() };
    let cases: [(NodeId, Register, Value); 6] = [
        (unknown, Register::Mode, Value::Mode(Mode::new(0))),
        (f, Register::Place, Value::Place(place(f, "f"))),
        (f, Register::Place, Value::Place(place(unknown, "f"))),
        (f, Register::Mode, Value::Touch(Timestamp::default())),
        (f, Register::Deleted, Value::Deleted(Some(deletion))),
        (NodeId::ROOT, Register::Deleted, Value::Deleted(None)),
    ];
    for (node, register, value) in cases {
        let mut draft = a.begin();
        draft.register(node, register, value.clone());
        assert!(draft.commit().is_err(), "{value:?}");
        assert_eq!(a.heads(), before);
    }
    commit(&mut a, |draft| draft.birth(file(NodeId::ROOT, "g", b"1")));
}

#[test]
fn a_damaged_snapshot_is_an_error() {
    let mut a = document(1);
    commit(&mut a, |draft| draft.birth(file(NodeId::ROOT, "f", b"1")));
    let bytes = a.save();
    for at in (0..bytes.len()).step_by(97) {
        let mut damaged = bytes.clone();
        damaged[at] ^= 0x10;
        assert!(Document::load(&damaged, &mut |_| {}).is_err());
        assert!(Document::load(&bytes[..at], &mut |_| {}).is_err());
    }
}
