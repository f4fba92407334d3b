//! A tool that settles conflicts as they come: two masters in one process, both write to one file while they are
//! cut from each other, and a rule of the tool's own says what is to be.
//!
//! Run it with `cargo run -p pleach-daemon --example conflicts`.

use std::error::Error;
use std::path::Path;
use std::time::Duration;

use pleach_daemon::Multiaddr;
use pleach_daemon::control::{ConflictReport, Pick, Reply, Request};
use pleach_daemon::net::Discovery;
use pleach_daemon::node::{ConflictNews, Node, NodeBuilder, NodeHandle};
use pleach_daemon::store;

/// How long anything may take here.
const PATIENCE: Duration = Duration::from_secs(60);

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let scratch = tempfile::tempdir()?;
    let (web1, web2) = (scratch.path().join("web1"), scratch.path().join("web2"));

    // The first master of a store, and a second one that it invites.
    std::fs::create_dir(&web1)?;
    std::fs::create_dir(&web2)?;
    store::init(&web1, "web1")?;
    let a = on_loopback(Node::builder(&web1))?.start().await?;
    let Reply::Invite(invited) = a.handle().call(Request::Invite { expires_s: 60 }).await? else {
        return Err("that is no ticket".into());
    };
    let joined = store::join(&web2, &invited.ticket, "web2", |_| ()).await?;
    let b = on_loopback(Node::builder(&web2).replica(joined.replica))?.start().await?;
    std::fs::write(web1.join("page"), "hello\n")?;
    settle(a.handle()).await?;

    // Both write to it, and can't know of each other.
    a.handle().set_isolated(true).await;
    std::fs::write(web1.join("page"), "hello from web1\n")?;
    std::fs::write(web2.join("page"), "hello from web2\n")?;
    for node in [&a, &b] {
        node.handle().call(Request::Look { paths: Vec::new(), timeout_ms: 10_000 }).await?;
    }

    // Whoever listens hears of it on any master.
    let mut conflicts = b.handle().conflicts();
    a.handle().set_isolated(false).await;
    let mut settled = false;
    loop {
        let news = tokio::time::timeout(PATIENCE, conflicts.next()).await?;
        match news.ok_or("the node has stopped")? {
            ConflictNews::Opened { path, conflicts } => {
                println!("{path} is in conflict: {:?}", conflicts[0].kind);
                let keep = chosen(&conflicts[0]).ok_or("none is of web1")?;
                let known = conflicts.iter().flat_map(|conflict| &conflict.versions);
                let expect = Some(known.map(|version| version.id.clone()).collect());
                let choice = Pick::Version(keep);
                // Refused if somebody has edited or settled it since.
                let request = Request::Resolve { path, choice, expect, dry_run: false };
                b.handle().call(request).await?;
                // It is decided; whoever reads the file next waits until it is so on this disk.
                b.handle().call(Request::Follow { timeout_ms: 10_000 }).await?;
                assert_eq!(read(&web2)?, "hello from web1\n");
                settled = true;
            }
            ConflictNews::Closed { path } => {
                println!("{path} is settled");
                break;
            }
        }
    }
    assert!(settled, "it was told before it was closed");
    settle(b.handle()).await?;
    for place in [&web1, &web2] {
        assert_eq!(read(place)?, "hello from web1\n");
    }
    a.stop().await;
    b.stop().await;
    Ok(())
}

/// The rule: what web1 has counts.
fn chosen(conflict: &ConflictReport) -> Option<String> {
    let by_web1 = conflict
        .versions
        .iter()
        .find(|version| version.master.as_ref().is_some_and(|master| master.name == "web1"));
    by_web1.map(|version| version.id.clone())
}

fn on_loopback(node: NodeBuilder) -> Result<NodeBuilder, Box<dyn Error>> {
    let address: Multiaddr = "/ip4/127.0.0.1/tcp/0".parse()?;
    Ok(node.listen(vec![address]).discovery(Discovery::Off))
}

/// Waits until both have the same.
async fn settle(node: &NodeHandle) -> Result<(), Box<dyn Error>> {
    let mut events = node.events();
    let both_connected = async {
        loop {
            let Reply::Masters(masters) = node.call(Request::Masters).await? else { break };
            if masters.len() == 2 && masters.iter().all(|master| master.connected) {
                break;
            }
            // Something has happened, a connection perhaps.
            events.recv().await?;
        }
        Ok::<_, Box<dyn Error>>(())
    };
    tokio::time::timeout(PATIENCE, both_connected).await??;
    match node.call(Request::Wait { timeout_ms: 30_000 }).await? {
        Reply::Wait(report) if report.converged => Ok(()),
        other => Err(format!("they are not one: {other:?}").into()),
    }
}

fn read(place: &Path) -> std::io::Result<String> {
    std::fs::read_to_string(place.join("page"))
}

#[cfg(test)]
mod tests {
    #[test]
    fn conflict_is_told_settled_and_told_to_be_closed() {
        super::main().unwrap();
    }
}
