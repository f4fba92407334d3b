//! What a joiner takes over right after its ticket, and what becomes of it when that breaks off.

use std::path::Path;

use pleach_core::replica::Replica;
use pleach_core::values::{Signature, SignedChange};
use pleach_core::vocabulary::{VersionVector, WriterId};
use pleach_daemon::control::{Reply, Request};
use pleach_daemon::net::{HandoverPage, JoinGrant, NetEvent, Speaks, join};
use pleach_daemon::node::Node;
use pleach_daemon::offline;
use pleach_daemon::state::State;
use pleach_daemon::store::{self, Made};
use pleach_daemon::ticket::Ticket;

use crate::fixture::{Master, key, noise, seed};
use crate::joining::invite;

/// Changes of the founder's: each enters one member.
fn history(count: u8) -> Vec<SignedChange> {
    let (founder, store) = (key(1), seed().store());
    let mut replica = Replica::new(WriterId::new(founder.master(), [1; 8]));
    let mut changes = Vec::new();
    for number in 1..=count {
        let name = format!("master-{number}");
        let member = founder.sign_member(store, key(number).master(), &name, vec![]);
        for change in replica.set_member(member).changes {
            changes.push(founder.sign_change(store, change.id, change.bytes));
        }
    }
    changes
}

/// What an inviter answers to each question for changes; with none left it is gone.
type Pages = Vec<HandoverPage>;

/// Plays the inviter's driver.
async fn let_in(mut a: Master, pages: Pages) {
    let mut pages = pages.into_iter();
    while let Some(event) = a.events.recv().await {
        match event {
            NetEvent::JoinRequest(request) => {
                let (store, addresses) = (seed().store(), request.addresses);
                let member = a.key.sign_member(store, request.master, &request.name, addresses);
                let members = vec![a.member(), member];
                a.network.set_members(members.clone()).await;
                let grant = JoinGrant { members, settings: b"a store".to_vec() };
                let _ = request.reply.send(Ok(grant));
            }
            NetEvent::Handover(request) => match pages.next() {
                Some(page) => drop(request.reply.send(page)),
                None => return a.network.shutdown().await,
            },
            _ => {}
        }
    }
}

async fn join_at(dir: &Path, ticket: &Ticket) -> Made {
    store::join(dir, &ticket.to_string(), "web-2", |_| ()).await.unwrap().made
}

fn recorded(dir: &Path) -> Vec<SignedChange> {
    State::open_read_only(&store::state_path(dir)).unwrap().changes_since(0).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn joiner_takes_the_log_over_page_by_page() {
    let dir = tempfile::tempdir().unwrap();
    let a = Master::start(1).await;
    let ticket = invite(&a);
    let history = history(9);
    let page = |from: usize| HandoverPage {
        changes: history[from..from + 3].to_vec(),
        left: (history.len() - from - 3) as u64,
    };
    tokio::spawn(let_in(a, vec![page(0), page(3), page(6)]));
    let mut steps = Vec::new();
    let ticket = ticket.to_string();
    let made =
        store::join(dir.path(), &ticket, "web-2", |step| steps.push((step.changes, step.left)));
    let taken = made.await.unwrap().made.taken_over.unwrap();
    assert_eq!((taken.changes, taken.incomplete), (9, None));
    assert_eq!(steps, [(3, 6), (6, 3), (9, 0)]);
    assert_eq!(recorded(dir.path()), history);
    let names: Vec<_> =
        offline::status(dir.path()).unwrap().masters.into_iter().map(|m| m.name).collect();
    assert!(names.contains(&"master-9".to_owned()), "{names:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn node_goes_on_with_what_was_taken_over_unless_something_else_is_stored() {
    for is_read_on in [true, false] {
        let dir = tempfile::tempdir().unwrap();
        let a = Master::start(1).await;
        let ticket = invite(&a).to_string();
        let page = HandoverPage { changes: history(9), left: 0 };
        tokio::spawn(let_in(a, vec![page]));
        let joined = store::join(dir.path(), &ticket, "web-2", |_| ()).await.unwrap();
        let other = Replica::new(WriterId([0; 16]));
        let replica = if is_read_on { joined.replica } else { other };
        let loopback = "/ip4/127.0.0.1/tcp/0".parse().unwrap();
        let node = Node::builder(dir.path()).listen(vec![loopback]).replica(replica);
        let node = node.start().await.unwrap();
        let Ok(Reply::Status(status)) = node.handle().call(Request::Status).await else {
            panic!("no status")
        };
        let names: Vec<_> = status.masters.into_iter().map(|m| m.name).collect();
        assert!(names.contains(&"master-9".to_owned()), "{names:?}");
        node.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn joiner_keeps_what_it_has_when_the_connection_breaks() {
    let dir = tempfile::tempdir().unwrap();
    let a = Master::start(1).await;
    let ticket = invite(&a);
    let history = history(5);
    let first = HandoverPage { changes: history[..2].to_vec(), left: 3 };
    tokio::spawn(let_in(a, vec![first]));
    let taken = join_at(dir.path(), &ticket).await.taken_over.unwrap();
    let reason = taken.incomplete.unwrap();
    assert!(reason.contains("broke off"), "{reason}");
    assert_eq!(taken.changes, 2);
    assert_eq!(recorded(dir.path()), history[..2]);
    store::open(dir.path()).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn change_that_nobody_signed_or_that_is_none_is_not_taken_over() {
    let history = history(2);
    let forged = SignedChange { signature: Signature::new(&[0; 64]), ..history[1].clone() };
    let bytes = noise(1, 100);
    let none = key(1).sign_change(seed().store(), history[1].id, bytes);
    for (change, said) in [(forged, "has not signed"), (none, "is refused")] {
        let dir = tempfile::tempdir().unwrap();
        let a = Master::start(1).await;
        let ticket = invite(&a);
        let page = HandoverPage { changes: vec![history[0].clone()], left: 1 };
        let bad = HandoverPage { changes: vec![change], left: 1 };
        tokio::spawn(let_in(a, vec![page, bad]));
        let taken = join_at(dir.path(), &ticket).await.taken_over.unwrap();
        let reason = taken.incomplete.unwrap();
        assert!(reason.contains(said), "{reason}");
        assert_eq!(recorded(dir.path()), history[..1]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn inviter_that_sends_the_same_for_ever_is_left() {
    let dir = tempfile::tempdir().unwrap();
    let a = Master::start(1).await;
    let ticket = invite(&a);
    let page = HandoverPage { changes: history(1), left: 7 };
    tokio::spawn(let_in(a, vec![page; 5]));
    let taken = join_at(dir.path(), &ticket).await.taken_over.unwrap();
    assert_eq!(taken.incomplete.as_deref(), Some("the inviting master sent nothing new"));
    assert_eq!(taken.changes, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn joiner_that_is_removed_meanwhile_gets_no_more() {
    let mut a = Master::start(1).await;
    let (ticket, network) = (invite(&a), a.network.clone());
    let founder = a.member();
    let joiner = key(2);
    let speaks = Speaks::default();
    let joining = join(&ticket, &joiner, "web-2", &[], &speaks);
    let letting_in = async {
        let request = a.wait("a join", |event| match event {
            NetEvent::JoinRequest(request) => Some(request),
            _ => None,
        });
        let request = request.await;
        let member = key(1).sign_member(seed().store(), request.master, "web-2", vec![]);
        network.set_members(vec![founder.clone(), member]).await;
        let _ = request.reply.send(Ok(JoinGrant::default()));
    };
    let (joined, ()) = tokio::join!(joining, letting_in);
    let (_, mut handover) = joined.unwrap();
    network.set_members(vec![founder]).await;
    let nothing = handover.page(&VersionVector::new()).await;
    assert!(nothing.is_err(), "{nothing:?}");
    let asked = std::iter::from_fn(|| a.events.try_recv());
    assert!(!asked.into_iter().any(|event| matches!(event, NetEvent::Handover(_))));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn joiner_whose_answer_was_lost_takes_the_log_over_as_a_member() {
    let a = Master::start(1).await;
    // Another invitation keeps the door open: by now the joiner is a member, and none needs it.
    let (ticket, _other_open) = (invite(&a), invite(&a));
    let page = HandoverPage { changes: history(3), left: 0 };
    tokio::spawn(let_in(a, vec![page.clone()]));
    let joiner = key(2);
    drop(join(&ticket, &joiner, "web-2", &[], &Speaks::default()).await.unwrap());
    let (_, mut handover) = join(&ticket, &joiner, "web-2", &[], &Speaks::default()).await.unwrap();
    assert_eq!(handover.page(&VersionVector::new()).await.unwrap(), page);
}
