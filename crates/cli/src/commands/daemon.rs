//! `pleach daemon DIR [--listen MULTIADDR]...`

use pleach_daemon::node::Node;
use pleach_daemon::store;

use crate::arguments::Daemon;
use crate::failure::{Code, Failure};
use crate::running;

pub(super) fn run(daemon: &Daemon) -> Result<Code, Failure> {
    let root = store::root_at(&daemon.dir)?;
    running::run(Node::builder(root), &daemon.running, async |_| Ok(()))
}
