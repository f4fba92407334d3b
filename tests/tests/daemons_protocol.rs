//! Two versions side by side: a daemon of today, and a master that speaks for one of a later version. They
//! talk as far as they can, and where they can't, both say so and whom to upgrade.
//!
//! The later one is this workspace's own node and network as libraries, told to speak other versions.
#![allow(clippy::unwrap_used, reason = "a test ends where its scaffolding fails")]

use std::sync::Arc;
use std::time::Duration;

use pleach_core::replica::Replica;
use pleach_core::values::{Message, PROTOCOL_VERSION, SignedChange};
use pleach_core::vocabulary::{ContentHash, StoreId, TreePath, WriterId};
use pleach_daemon::identity::MasterKey;
use pleach_daemon::net::{
    ContentSink, ContentSource, Discovery, JoinError, NetConfig, NetEvent, Network, OpenContent,
    PartialContent, Speaks, join,
};
use pleach_daemon::node::Node;
use pleach_daemon::store;
use pleach_daemon::ticket::{Invitations, Ticket};
use pleach_tests::daemons::{Cluster, Events, Master, probe_until, wait_until, write};
use serde_json::Value;
use tokio::runtime::Runtime;

const PATIENCE: Duration = Duration::from_secs(60);
/// How long both are watched after they have refused each other.
const WATCHED: Duration = Duration::from_secs(5);

/// What a master of a later version speaks, down to this version.
fn later(oldest: u32) -> Speaks {
    let appended = b"what nobody knows yet".to_vec();
    Speaks { newest: PROTOCOL_VERSION + 1, oldest, release: "99.0.0".into(), appended }
}

/// A node on the directory of a master whose daemon doesn't run.
struct Later {
    runtime: Option<Runtime>,
    node: Option<Node>,
}

impl Later {
    fn start(master: &Master, speaks: Speaks) -> Self {
        let runtime = Runtime::new().unwrap();
        let listen = format!("/ip4/127.0.0.1/tcp/{}", master.port()).parse().unwrap();
        let builder = Node::builder(master.directory()).listen(vec![listen]).speaks(speaks);
        let node = Some(runtime.block_on(builder.start()).unwrap());
        Self { runtime: Some(runtime), node }
    }

    fn stop(mut self) {
        let runtime = self.runtime.take().unwrap();
        runtime.block_on(self.node.take().unwrap().stop());
        // Returns, for nothing of a node that was stopped goes on.
        drop(runtime);
    }
}

impl Drop for Later {
    fn drop(&mut self) {
        // A test that has failed does not wait for the node.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

fn problems(master: &Master, kind: &str) -> Vec<String> {
    let status = master.status();
    let of_kind = status.list("/problems").iter().filter(|problem| problem["kind"] == kind);
    of_kind.map(|problem| problem["reason"].as_str().unwrap().to_owned()).collect()
}

/// Waits until a problem of a kind says all of that; what it says.
fn await_said(master: &Master, kind: &str, parts: &[&str]) -> String {
    wait_until(&format!("{} says {kind}", master.name()), PATIENCE, || {
        let said = problems(master, kind);
        let fits = |reason: &&String| parts.iter().all(|part| reason.contains(part));
        said.iter().find(fits).cloned().ok_or_else(|| format!("{:#}", master.status().0))
    })
}

/// What a master has sent to the others.
fn bytes_sent(master: &Master) -> u64 {
    let status = master.status();
    status.list("/masters").iter().filter_map(|other| other["bytes_sent"].as_u64()).sum()
}

fn count(text: &str, part: &str) -> usize {
    text.matches(part).count()
}

#[test]
fn masters_without_a_common_version_say_both_and_whom_to_upgrade_and_meet_after_that() {
    let mut cluster = Cluster::of(2);
    write(&cluster.masters[0].path("before"), "before");
    cluster.settle_to(0, "what there is before");
    cluster.masters[1].stop();
    let events = Events::of(&cluster.masters[0]);
    let node = Later::start(&cluster.masters[1], later(PROTOCOL_VERSION + 1));
    let [a, b] = &cluster.masters[..] else { unreachable!("two were started") };

    let ours = format!("version {PROTOCOL_VERSION}");
    let theirs = format!("version {}", PROTOCOL_VERSION + 1);
    let said = await_said(a, "other_version", &["b runs", "99.0.0", &theirs, &ours]);
    assert!(said.contains("upgraded here, to pleach 99.0.0"), "{said}");
    let said = await_said(b, "other_version", &["a runs", "99.0.0", &theirs, &ours]);
    assert!(said.contains("upgraded on a, to pleach 99.0.0"), "{said}");

    // They go on trying, ever more rarely and without a word.
    write(&a.path("by a"), "by a");
    write(&b.path("by b"), "by b");
    let before = bytes_sent(a);
    let again = probe_until(WATCHED, || {
        let said = count(&a.log(), "b runs pleach 99.0.0");
        if said > 1 { Ok(said) } else { Err(String::new()) }
    });
    assert!(again.is_err(), "said {again:?} times:\n{}", a.log());
    let sent = bytes_sent(a) - before;
    assert!(sent < 64 << 10, "{sent} bytes were sent in vain");
    let told = |event: &str| -> Vec<Value> {
        let of_it = |heard: &Value| heard["kind"] == "other_version" || event == "problem_solved";
        events.heard_of(event).into_iter().filter(of_it).collect()
    };
    assert_eq!(told("problem_appeared").len(), 1, "{:?}", events.heard());
    assert!(!a.path("by b").exists() && !b.path("by a").exists());
    assert_eq!(a.status().list("/masters").len(), 2, "nobody was removed");

    // The same pleach on both: here, b is set back.
    node.stop();
    cluster.masters[1].start();
    cluster.await_connected();
    let tree = cluster.settle("what both did meanwhile");
    assert_eq!(tree.file_count(), 3);
    for master in &cluster.masters {
        assert_eq!(problems(master, "other_version"), [""; 0]);
    }
    let solved = events.heard_of("problem_solved");
    assert_eq!(solved.len(), 1, "{solved:?}");
}

#[test]
fn later_version_that_speaks_ours_too_is_understood_whatever_it_adds() {
    let mut cluster = Cluster::of(2);
    cluster.masters[1].stop();
    let node = Later::start(&cluster.masters[1], later(PROTOCOL_VERSION));
    let [a, b] = &cluster.masters[..] else { unreachable!("two were started") };
    for (master, other) in [(a, b), (b, a)] {
        let name = format!("by {}", master.name());
        // By gossip, by stream, and by a stream of contents.
        write(&master.path(&name), "small");
        write(&master.path(&format!("{name}, large")), vec![7; 3 << 20]);
        (0..300).for_each(|n| write(&master.path(&format!("{name}, many/{n}")), "few bytes"));
        wait_until(&format!("{} has it all", other.name()), PATIENCE, || {
            let (left, right) = (master.tree(), other.tree());
            if left == right { Ok(()) } else { Err(format!("{left:?} and {right:?}")) }
        });
    }
    let _ = a.pleach(["wait", ".", "--timeout", "30"]).ok();
    for master in [a, b] {
        assert!(master.status().list("/problems").is_empty(), "{:#}", master.status().0);
    }
    assert_eq!(count(&a.log(), "refused"), 0, "{}", a.log());
    node.stop();
}

#[test]
fn joiner_of_another_version_is_refused_with_both_versions_and_its_ticket_stays_good() {
    let mut cluster = Cluster::of(1);
    let ticket = cluster.masters[0].invite();
    let runtime = Runtime::new().unwrap();
    let parsed: Ticket = ticket.parse().unwrap();
    let key = MasterKey::generate().unwrap();
    let refused = runtime
        .block_on(join(&parsed, &key, "later", &[], &later(PROTOCOL_VERSION + 1)))
        .map(|(outcome, _)| outcome)
        .unwrap_err();
    assert!(matches!(refused, JoinError::OtherVersion(_)), "{refused}");
    let refused = refused.to_string();
    assert!(refused.contains("upgraded on the inviting master, to pleach 99.0.0"), "{refused}");
    let a = &cluster.masters[0];
    wait_until("the inviter says why", Duration::from_secs(10), || {
        let said = a.log().contains("not let in") && a.log().contains("99.0.0");
        if said { Ok(()) } else { Err(a.log()) }
    });
    let b = Master::new(cluster.scratch.path(), "b");
    let _ = b.pleach(["join", ".", &ticket, "--name", "b"]).ok();

    // And the other way round: the inviter is of a later version.
    cluster.masters[0].stop();
    let node = Later::start(&cluster.masters[0], later(PROTOCOL_VERSION + 1));
    let ticket = cluster.masters[0].invite();
    let c = Master::new(cluster.scratch.path(), "c");
    let ran = c.pleach(["join", ".", &ticket, "--name", "c"]);
    assert_eq!(ran.code, 1, "{ran}");
    for part in ["99.0.0", "upgraded here", &format!("version {PROTOCOL_VERSION}")] {
        assert!(ran.stderr.contains(part), "{part}: {ran}");
    }
    assert!(!c.path(".pleach").exists(), "the directory is as it was");
    node.stop();
}

/// A member that has no files.
struct Nothing;

impl ContentSource for Nothing {
    fn open(&self, _: &ContentHash) -> Option<OpenContent> {
        None
    }
}

impl ContentSink for Nothing {
    fn has(&self, _: &ContentHash) -> bool {
        false
    }

    fn begin(&self, _: ContentHash, _: u64) -> std::io::Result<Box<dyn PartialContent>> {
        Err(std::io::ErrorKind::Unsupported.into())
    }

    fn old_version(&self, _: &TreePath) -> Option<std::fs::File> {
        None
    }
}

/// A member that has written with a later schema, and tells whoever asks.
struct LaterWriter {
    network: Network,
    events: pleach_daemon::net::NetEvents,
    changes: Vec<SignedChange>,
}

impl LaterWriter {
    /// With the key and the log of a master whose daemon never ran. Must be called in a tokio runtime.
    async fn start(master: &Master) -> Self {
        let store = store::open(master.directory()).unwrap();
        let log = store.state.changes_since(0).unwrap();
        let changes = changes_of_a_later_schema(&store.key, store.seed.store(), &log);
        let replica = Replica::open(WriterId([0; 16]), None, log).unwrap();
        let nothing = Arc::new(Nothing);
        let config = NetConfig {
            key: store.key,
            seed: store.seed,
            listen: vec![format!("/ip4/127.0.0.1/tcp/{}", master.port()).parse().unwrap()],
            discovery: Discovery::Off,
            members: replica.members(),
            invitations: Invitations::new(),
            source: nothing.clone(),
            sink: nothing,
            speaks: later(PROTOCOL_VERSION),
        };
        let (network, events) = Network::start(config).await.unwrap();
        Self { network, events, changes }
    }

    /// Answers who connects and who asks, for a time; how often it was asked.
    async fn answer_for(&mut self, time: Duration) -> usize {
        let end = tokio::time::Instant::now() + time;
        let mut asked = 0;
        while let Ok(Some(event)) = tokio::time::timeout_at(end, self.events.recv()).await {
            let to = match event {
                NetEvent::Connected(master) => master,
                NetEvent::Received(master, Message::Have { .. }) => {
                    asked += 1;
                    master
                }
                _ => continue,
            };
            let (changes, contents) = (self.changes.clone(), Vec::new());
            self.network.send(to, &Message::Changes { changes, contents }).unwrap();
        }
        asked
    }
}

/// Two changes, the first with a value of a later schema, the second upon it.
fn changes_of_a_later_schema(
    key: &MasterKey,
    store: StoreId,
    log: &[SignedChange],
) -> Vec<SignedChange> {
    let writer = WriterId::new(key.master(), [7; 8]);
    let mut replica = Replica::open(writer, None, log.to_vec()).unwrap();
    let locals = ["one", "two"].map(|text| replica.set_setting("conflicts", text.as_bytes()));
    let [first, second] = locals.map(|mut local| local.changes.remove(0));
    let decoded = |bytes| automerge::Change::from_bytes(bytes).unwrap().decode();
    let (mut crafted, mut upon) = (decoded(first.bytes), decoded(second.bytes));
    let automerge::legacy::OpType::Put(automerge::ScalarValue::Bytes(bytes)) =
        &mut crafted.operations[0].action
    else {
        panic!("a setting is bytes")
    };
    bytes[0] += 1;
    let crafted = automerge::Change::from(crafted);
    upon.deps = vec![crafted.hash()];
    let upon = automerge::Change::from(upon);
    [(first.id, crafted.raw_bytes().to_vec()), (second.id, upon.raw_bytes().to_vec())]
        .map(|(id, bytes)| key.sign_change(store, id, bytes))
        .to_vec()
}

#[test]
fn changes_that_only_a_later_version_can_read_are_said_and_wait_and_the_rest_goes_on() {
    let cluster = Cluster::of(2);
    let [a, b] = &cluster.masters[..] else { unreachable!("two were started") };
    let events = Events::of(a);
    let c = Master::new(cluster.scratch.path(), "c");
    c.join(a);
    let runtime = Runtime::new().unwrap();
    let mut later = runtime.block_on(LaterWriter::start(&c));
    let asked = runtime.block_on(later.answer_for(WATCHED));
    let said = await_said(a, "later_change", &["c has written", "upgraded here", "version 2"]);
    assert!((1..10).contains(&asked), "asked {asked} times for what it can't read");
    assert_eq!(count(&a.log(), "has written what this version"), 1, "{}", a.log());
    assert_eq!(count(&a.log(), "refused"), 0, "it is no offence: {}", a.log());
    let told: Vec<Value> = events.heard_of("problem_appeared");
    assert_eq!(told.len(), 1, "{told:?}: {said}");

    // What the others do has nothing to do with it.
    for master in [a, b] {
        write(&master.path(&format!("by {}", master.name())), "as ever");
    }
    wait_until("both have both", PATIENCE, || {
        let (left, right) = (a.tree(), b.tree());
        if left == right && left.file_count() == 2 { Ok(()) } else { Err(format!("{left:?}")) }
    });
    // Who waits for this master hears why that takes so long.
    let ran = b.pleach(["wait", ".", "--timeout", "5", "--json"]);
    assert_eq!(ran.code, 3, "{ran}");
    assert!(ran.stdout.contains("upgraded here"), "{ran}");
    runtime.block_on(later.network.shutdown());
}
