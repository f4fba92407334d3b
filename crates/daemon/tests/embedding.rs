//! A node as whoever embeds it has it.
#![allow(clippy::unwrap_used, reason = "a test ends where its scaffolding fails")]

use std::sync::mpsc::channel;
use std::time::Duration;

use pleach_daemon::net::Discovery;
use pleach_daemon::node::Node;
use pleach_daemon::store;

#[test]
fn node_that_is_dropped_holds_nobody_up() {
    let dir = tempfile::tempdir().unwrap();
    store::init(dir.path(), "web1").unwrap();
    let (done, ended) = channel();
    let path = dir.path().to_owned();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let loopback = "/ip4/127.0.0.1/tcp/0".parse().unwrap();
            let node = Node::builder(path).listen(vec![loopback]).discovery(Discovery::Off);
            drop(node.start().await.unwrap());
        });
        drop(runtime);
        done.send(()).unwrap();
    });
    ended.recv_timeout(Duration::from_secs(60)).unwrap();
}
