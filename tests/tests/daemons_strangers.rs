//! Nobody gets in who was not invited, and both sides say why.
#![allow(clippy::unwrap_used, reason = "a test ends where its scaffolding fails")]

use std::io::Write;
use std::net::TcpStream;
use std::time::Duration;

use pleach_tests::daemons::{Cluster, Master, probe_until, wait_until, write};

/// A master that tries to join with `ticket`; what `join` printed, and whether it got anything.
fn try_to_join(cluster: &Cluster, name: &str, ticket: &str) -> pleach_tests::daemons::Ran {
    let stranger = Master::new(cluster.scratch.path(), name);
    let ran = stranger.pleach(["join", ".", ticket, "--name", name]);
    assert_ne!(ran.code, 0, "{ran}");
    let tree = stranger.tree();
    assert!(tree.entries.is_empty(), "{tree:#?}");
    ran
}

#[test]
fn used_ticket_is_refused_with_a_reason_on_both_sides() {
    let cluster = Cluster::of(1);
    let a = &cluster.masters[0];
    write(&a.path("secret name"), "secret bytes");
    let ticket = a.invite();
    let b = Master::new(cluster.scratch.path(), "b");
    let _ = b.pleach(["join", ".", &ticket, "--name", "b"]).ok();

    let log = a.log().len();
    let ran = try_to_join(&cluster, "c", &ticket);
    assert!(ran.stderr.contains("used") || ran.stderr.contains("spent"), "{ran}");
    wait_until("the inviter says why", Duration::from_secs(10), || {
        let said = a.log()[log..].to_lowercase();
        if said.contains("used") || said.contains("spent") { Ok(()) } else { Err(said) }
    });
}

#[test]
fn expired_ticket_is_refused() {
    let cluster = Cluster::of(1);
    let a = &cluster.masters[0];
    let ran = a.pleach(["invite", ".", "--expires", "1s"]).ok();
    let ticket = ran.stdout.trim().to_owned();
    // Tickets go by the system's clock: wait until it is past.
    let start = std::time::Instant::now();
    wait_until("two seconds of the system's clock are over", Duration::from_secs(10), || {
        if start.elapsed() > Duration::from_millis(2_100) { Ok(()) } else { Err(String::new()) }
    });
    let ran = try_to_join(&cluster, "c", &ticket);
    assert!(ran.stderr.contains("expired"), "{ran}");
}

#[test]
fn damaged_and_guessed_tickets_are_refused() {
    let cluster = Cluster::of(1);
    let ticket = cluster.masters[0].invite();
    let mut damaged = ticket.clone().into_bytes();
    let middle = damaged.len() / 2;
    damaged[middle] = if damaged[middle] == b'a' { b'b' } else { b'a' };
    let damaged = String::from_utf8(damaged).unwrap();
    for (name, bad) in [("c", damaged.as_str()), ("d", "pleach1nonsense"), ("e", ""), ("f", "-")] {
        let ran = try_to_join(&cluster, name, bad);
        assert!(ran.code == 1 || ran.code == 2, "{ran}");
        assert!(!ran.stderr.trim().is_empty() && !ran.stderr.contains("panicked"), "{ran}");
    }
}

#[test]
fn master_of_another_store_learns_nothing() {
    let cluster = Cluster::of(1);
    let a = &cluster.masters[0];
    write(&a.path("secret name"), "secret bytes");
    let mut stranger = Master::new(cluster.scratch.path(), "stranger");
    stranger.init();
    stranger.start();
    write(&stranger.path("own"), "own");
    let _ = probe_until(Duration::from_secs(2), || {
        let others = stranger.status().list("/masters").len();
        if others > 1 { Ok(()) } else { Err(String::new()) }
    });
    assert_eq!(stranger.status().list("/masters").len(), 1);
    assert_eq!(a.status().list("/masters").len(), 1);
    assert!(!stranger.path("secret name").exists() && !a.path("own").exists());
}

#[test]
fn noise_on_the_port_harms_nobody() {
    let cluster = Cluster::of(2);
    let a = &cluster.masters[0];
    let inputs: [&[u8]; 4] =
        [b"", b"GET / HTTP/1.1\r\n\r\n", &[0xff; 100_000], b"\x13/multistream/1.0.0\n"];
    for _ in 0..25 {
        for input in inputs {
            let Ok(mut stream) = TcpStream::connect(("127.0.0.1", a.port())) else { continue };
            let _ = stream.set_write_timeout(Some(Duration::from_secs(1)));
            let _ = stream.write_all(input);
        }
    }
    write(&a.path("f"), "still at work");
    cluster.settle_to(0, "a file after the noise");
    cluster.await_connected();
}

#[test]
fn removed_master_is_shut_out() {
    let cluster = Cluster::of(3);
    let (a, c) = (&cluster.masters[0], &cluster.masters[2]);
    write(&a.path("before"), "before");
    cluster.settle_to(0, "all are members");
    let _ = a.pleach(["masters", "remove", "c"]).ok();
    wait_until("c is disconnected", Duration::from_secs(30), || {
        let status = a.status();
        let there = status
            .list("/masters")
            .iter()
            .any(|master| master["name"] == "c" && master["connected"] == true);
        if there { Err(format!("{:#}", status.0)) } else { Ok(()) }
    });
    write(&a.path("after"), "after");
    write(&c.path("of c"), "of c");
    wait_until("b has it", Duration::from_secs(30), || {
        if cluster.masters[1].path("after").exists() { Ok(()) } else { Err(String::new()) }
    });
    let leaked = probe_until(Duration::from_secs(2), || {
        if c.path("after").exists() || a.path("of c").exists() {
            Ok(())
        } else {
            Err(String::new())
        }
    });
    assert!(leaked.is_err(), "a removed master neither learns nor writes");
}
