//! Who may connect, and messages between those who may.

use std::time::{Duration, Instant};

use pleach_core::values::Message;
use pleach_core::vocabulary::{ContentHash, VersionVector};
use pleach_daemon::identity::MasterKey;
use pleach_daemon::net::{Discovery, NetConfig, NetError, NetEvent, Network, Speaks};
use pleach_daemon::ticket::Invitations;

use crate::fixture::{Master, Shelf, connected, seed};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_travel_both_ways_by_stream_and_by_gossip() {
    let [mut a, mut b] = connected().await;
    let (direct, answer) = (a.message("direct"), b.message("answer"));
    a.network.send(b.id(), &direct).unwrap();
    assert_eq!(b.wait_message().await, (a.id(), direct));
    b.network.broadcast(&answer).unwrap();
    assert_eq!(a.wait_message().await, (b.id(), answer));
    let have = Message::Have { known: VersionVector::new(), heads: ContentHash([1; 32]) };
    a.network.broadcast(&have).unwrap();
    assert_eq!(b.wait_message().await, (a.id(), have));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn message_too_large_for_gossip_goes_by_stream() {
    let [mut a, mut b] = connected().await;
    let large = a.message(&"x".repeat(2 << 20));
    a.network.broadcast(&large).unwrap();
    assert_eq!(b.wait_message().await, (a.id(), large));
    let too_large = a.message(&"x".repeat(5 << 20));
    assert!(a.network.broadcast(&too_large).is_err());
    assert!(a.network.send(b.id(), &too_large).is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn gossip_reaches_a_master_that_the_author_is_not_connected_to() {
    let (mut a, b, mut c) =
        (Master::start(1).await, Master::start(2).await, Master::start(3).await);
    let (a_alone, b_entry, c_alone) = (a.member(), b.member(), c.member());
    // A and C have no address of each other and both dial B, which dials nobody.
    let hidden = |mut member: pleach_core::values::Member| {
        member.addresses.clear();
        member
    };
    let entries = vec![hidden(a_alone), b_entry.clone(), hidden(c_alone)];
    let without_b = entries.iter().cloned().map(hidden).collect();
    b.network.set_members(without_b).await;
    a.network.set_members(entries.clone()).await;
    c.network.set_members(entries).await;
    a.wait_connected(b.id()).await;
    c.wait_connected(b.id()).await;
    // Subscriptions spread after the connection: until they have, a message is repaired by version
    // vectors, not by gossip. Each try is another message.
    let (mut tries, deadline) = (0, Instant::now() + Duration::from_secs(30));
    loop {
        tries += 1;
        let message = a.message(&format!("try {tries}"));
        a.network.broadcast(&message).unwrap();
        let taken = tokio::time::timeout(Duration::from_secs(1), c.wait_message()).await;
        if let Ok((from, _)) = taken {
            assert_eq!(from, a.id());
            break;
        }
        assert!(Instant::now() < deadline, "no message has come");
    }
    assert_eq!(a.network.connected(), [b.id()]);
    assert_eq!(c.network.connected(), [b.id()]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stranger_is_refused_with_a_reason_on_both_sides() {
    let (mut a, mut stranger) = (Master::start(1).await, Master::start(9).await);
    a.network.set_members(vec![a.member()]).await;
    stranger.network.set_members(vec![a.member(), stranger.member()]).await;
    let (who, reason) = a.wait_refusal().await;
    assert_eq!(who, Some(stranger.id()));
    assert!(reason.contains("not a member's"), "{reason}");
    let (who, reason) = stranger.wait_refusal().await;
    assert_eq!(who, Some(a.id()));
    assert!(reason.contains("may not know this master"), "{reason}");
    assert!(a.network.connected().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn forged_change_is_refused_and_its_sender_disconnected() {
    let [mut a, mut b] = connected().await;
    let Message::Changes { mut changes, contents } = a.message("mine") else { panic!() };
    changes[0].author = b.id();
    a.network.send(b.id(), &Message::Changes { changes, contents }).unwrap();
    let (who, reason) = b.wait_refusal().await;
    assert_eq!(who, Some(a.id()));
    assert!(reason.contains("not signed"), "{reason}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn removed_member_is_disconnected_and_stays_out() {
    let [mut a, mut b] = connected().await;
    let mut removed = b.member();
    removed.removed = true;
    let a_id = a.id();
    a.network.set_members(vec![a.member(), removed]).await;
    a.wait("disconnection", |event| match event {
        NetEvent::Disconnected(master) if master == b.id() => Some(()),
        _ => None,
    })
    .await;
    let (who, reason) = a.wait_refusal().await;
    assert_eq!(who, Some(b.id()));
    assert!(reason.contains("not a member's"), "{reason}");
    b.wait("disconnection", |event| match event {
        NetEvent::Disconnected(master) if master == a_id => Some(()),
        _ => None,
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn restarted_master_is_reconnected() {
    let [mut a, b] = connected().await;
    let (b_id, b_before) = (b.id(), b.member());
    b.network.shutdown().await;
    drop(b);
    a.wait("disconnection", |event| match event {
        NetEvent::Disconnected(master) if master == b_id => Some(()),
        _ => None,
    })
    .await;
    let mut b = Master::start(2).await;
    assert_ne!(b.member(), b_before, "another port");
    a.network.set_members(vec![a.member(), b.member()]).await;
    b.network.set_members(vec![b.member()]).await;
    b.network.set_members(vec![a.member(), b.member()]).await;
    a.wait_connected(b_id).await;
    b.wait_connected(a.id()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn peer_that_takes_nothing_wedges_nobody_and_is_resynchronised() {
    let [mut a, mut slow, mut c] = connected().await;
    let text = "x".repeat(1 << 20);
    for _ in 0..120 {
        let message = a.message(&text);
        a.network.send(slow.id(), &message).unwrap();
    }
    let (ping, pong) = (a.message("ping"), c.message("pong"));
    a.network.send(c.id(), &ping).unwrap();
    assert_eq!(c.wait_message().await, (a.id(), ping));
    c.network.send(a.id(), &pong).unwrap();
    assert_eq!(a.wait_message().await, (c.id(), pong));

    // It begins to take again: what was dropped is told once the queue is empty.
    let slow_id = slow.id();
    let draining = tokio::spawn(async move { while slow.events.recv().await.is_some() {} });
    a.wait("overflow", |event| match event {
        NetEvent::Overflowed(master) if master == slow_id => Some(()),
        _ => None,
    })
    .await;
    draining.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unusable_addresses_are_told_apart() {
    let a = Master::start(1).await;
    let taken = a.network.listen_addrs().into_iter().find(|a| a.to_string().contains("tcp"));
    let taken = taken.unwrap();
    let start = |listen: &str| {
        let shelf = Shelf::new();
        Network::start(NetConfig {
            key: MasterKey::from_secret(&[2; 32]),
            seed: seed(),
            listen: vec![listen.parse().unwrap()],
            discovery: Discovery::Off,
            members: vec![],
            invitations: Invitations::new(),
            source: shelf.clone(),
            sink: shelf,
            speaks: Speaks::default(),
        })
    };
    let error = start(&taken.to_string()).await.err().unwrap();
    assert!(matches!(error, NetError::PortInUse { .. }), "{error:?}");
    let error = start("/memory/1").await.err().unwrap();
    assert!(matches!(error, NetError::UnsupportedAddress { .. }), "{error:?}");
    let error = start("/ip4/192.0.2.1/tcp/0").await.err().unwrap();
    assert!(matches!(error, NetError::Listen { .. }), "{error:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn shutdown_is_quick_and_seen_by_the_others() {
    let [a, mut b] = connected().await;
    let a_id = a.id();
    let begun = Instant::now();
    a.network.shutdown().await;
    assert!(begun.elapsed() < Duration::from_secs(1));
    b.wait("disconnection", |event| match event {
        NetEvent::Disconnected(master) if master == a_id => Some(()),
        _ => None,
    })
    .await;
}
