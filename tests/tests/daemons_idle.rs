//! Nothing to do is nothing done: no change, no write, no CPU.
#![allow(clippy::unwrap_used, reason = "a test ends where its scaffolding fails")]

use std::time::Duration;

use pleach_tests::daemons::{Cluster, Events, long, probe_until, real_tree, shell};

#[test]
fn masters_without_work_write_nothing_and_send_no_change() {
    let files = if long() { 20_000 } else { 1_500 };
    let cluster = Cluster::holding(2, |number, master| {
        if number == 0 {
            real_tree(&master.path("src"), files);
        }
    });
    cluster.settle_to(0, "the tree is on both");
    shell(cluster.masters[1].directory(), "cp -a src copy; rm -r src; mkdir a; mv copy a/b");
    let tree = cluster.settle_to(1, "work on the other");
    let listeners: Vec<Events> = cluster.masters.iter().map(Events::of).collect();
    cluster.settle("the probes of the listeners are gone");

    // A load that was heavy may have an aftermath (a checkpoint of the database): wait for ten
    // seconds in which nothing happens, not for the first ten.
    let quiet = probe_until(Duration::from_secs(60), || {
        let before = measure(&cluster, &listeners);
        let window = probe_until(Duration::from_secs(10), || {
            let heard = listeners.iter().map(|listener| listener.heard().len()).sum::<usize>();
            if heard == before.2 { Err("quiet".to_owned()) } else { Ok(()) }
        });
        let after = measure(&cluster, &listeners);
        let ticks = after.1 - before.1;
        match window {
            Ok(()) => Err(format!(
                "heard: {:#?}",
                listeners.iter().map(Events::heard).collect::<Vec<_>>()
            )),
            Err(_) if after.0 != before.0 => {
                Err(format!("{} bytes written to disk", after.0 - before.0))
            }
            // Two daemons, ten seconds, a tick is 10 ms: five ticks are 0.25 % of a core each.
            Err(_) if ticks > 5 => Err(format!("{ticks} ticks of CPU")),
            Err(_) => Ok(()),
        }
    });
    quiet.unwrap_or_else(|reason| panic!("never ten seconds of nothing: {reason}"));
    assert_eq!(cluster.masters[0].tree(), cluster.masters[1].tree());
    assert!(tree.file_count() >= files);
}

/// Bytes written to disk, ticks of CPU, and events heard, of all masters.
fn measure(cluster: &Cluster, listeners: &[Events]) -> (u64, u64, usize) {
    (
        cluster.masters.iter().map(|master| master.disk_bytes_written()).sum(),
        cluster.masters.iter().map(|master| master.cpu_ticks()).sum(),
        listeners.iter().map(|listener| listener.heard().len()).sum(),
    )
}
