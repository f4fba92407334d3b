//! The three masters of the demo.

use std::path::{Path, PathBuf};

use pleach_daemon::control::{ConflictReport, Pick, Reply, Request};
use pleach_daemon::net::Discovery;
use pleach_daemon::node::{Node, NodeBuilder};
use pleach_daemon::store;

use crate::failure::Failure;

/// A running master and its directory.
pub(super) struct Master {
    pub(super) name: &'static str,
    pub(super) dir: PathBuf,
    node: Node,
}

impl Master {
    /// Makes `dir` the first master of a new store and starts it.
    pub(super) async fn found(name: &'static str, dir: &Path) -> Result<Self, Failure> {
        store::init(dir, name)?;
        Self::start(name, dir, Node::builder(dir)).await
    }

    /// Makes `dir` one more master of this one's store and starts it.
    pub(super) async fn let_in(&self, name: &'static str, dir: &Path) -> Result<Self, Failure> {
        let ticket = match self.ask(Request::Invite { expires_s: 600 }).await? {
            Reply::Invite(report) => report.ticket,
            _ => return Err(unexpected()),
        };
        let joined = store::join(dir, &ticket, name, |_| ()).await?;
        Self::start(name, dir, Node::builder(dir).replica(joined.replica)).await
    }

    async fn start(name: &'static str, dir: &Path, node: NodeBuilder) -> Result<Self, Failure> {
        let loopback = "/ip4/127.0.0.1/tcp/0".parse().map_err(Failure::new)?;
        let node = node.listen(vec![loopback]).discovery(Discovery::Off).start().await?;
        Ok(Self { name, dir: dir.to_owned(), node })
    }

    /// Cuts it off from the others, or ends that.
    pub(super) async fn set_isolated(&self, isolated: bool) {
        self.node.handle().set_isolated(isolated).await;
    }

    pub(super) async fn conflicts(&self) -> Result<Vec<ConflictReport>, Failure> {
        match self.ask(Request::Conflicts).await? {
            Reply::Conflicts(reports) => Ok(reports),
            _ => Err(unexpected()),
        }
    }

    /// How many other masters it is connected to.
    pub(super) async fn connected(&self) -> Result<usize, Failure> {
        match self.ask(Request::Masters).await? {
            Reply::Masters(masters) => {
                Ok(masters.iter().filter(|master| master.connected && !master.this).count())
            }
            _ => Err(unexpected()),
        }
    }

    pub(super) async fn resolve(
        &self,
        conflict: &ConflictReport,
        pick: Pick,
    ) -> Result<(), Failure> {
        let request = Request::Resolve {
            path: conflict.path.clone(),
            choice: pick,
            expect: None,
            dry_run: false,
        };
        self.ask(request).await.map(|_| ())
    }

    pub(super) async fn stop(self) {
        self.node.stop().await;
    }

    async fn ask(&self, request: Request) -> Result<Reply, Failure> {
        self.node.handle().call(request).await.map_err(Failure::new)
    }
}

fn unexpected() -> Failure {
    Failure::new("a master answered something else than was asked")
}
