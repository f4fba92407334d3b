//! `pleach up DIR [--join TICKET] [--name NAME] [--listen MULTIADDR]...`

use std::path::{Path, PathBuf};

use pleach_daemon::control::{Reply, Request};
use pleach_daemon::node::{Node, NodeBuilder};
use pleach_daemon::store::{self, Joined, StoreError};

use super::{init, join};
use crate::arguments::Up;
use crate::failure::{Code, Failure};
use crate::output::Output;
use crate::running;

/// How long the ticket that is shown is good for.
const TICKET_SECONDS: u64 = 24 * 3600;

pub(super) fn run(up: &Up, output: &Output) -> Result<Code, Failure> {
    let (root, master) = match store::root_at(&up.dir) {
        Ok(root) => {
            if up.join.is_some() {
                output.remark(|_| {
                    format!("{} is a master already: the ticket is left unused\n", root.display())
                })?;
            }
            (root.clone(), Node::builder(root))
        }
        Err(StoreError::NotAStore { .. } | StoreError::Unfinished { .. }) => make(up, output)?,
        Err(error) => return Err(error.into()),
    };
    running::run(master, &up.running, async |node| say_how_others_join(node, &root, output).await)
}

fn make(up: &Up, output: &Output) -> Result<(PathBuf, NodeBuilder), Failure> {
    let name = up.name.clone().unwrap_or_else(store::default_name);
    let Some(ticket) = &up.join else {
        let made = init::init_store(&up.dir, &name, output)?;
        output.remark(|style| format!("{}\n", init::founded(&made, style)))?;
        return Ok((made.root.clone(), Node::builder(made.root)));
    };
    let Joined { made, replica } = join::join_store(&up.dir, ticket, &name, output)?;
    output.remark(|style| format!("{}\n", join::joined(&made, style)))?;
    Ok((made.root.clone(), Node::builder(made.root).replica(replica)))
}

/// Shows a ticket to a person; a log, which others may read, gets the command that prints one.
async fn say_how_others_join(node: &Node, root: &Path, output: &Output) -> Result<(), Failure> {
    let addresses: Vec<_> = node.listen_addrs().iter().map(ToString::to_string).collect();
    let ticket = match output.is_terminal() {
        false => None,
        true => match node.handle().call(Request::Invite { expires_s: TICKET_SECONDS }).await {
            Ok(Reply::Invite(report)) => Some(report.ticket),
            Ok(_) => None,
            Err(refusal) => return Err(Failure::new(refusal)),
        },
    };
    output.remark(|style| {
        let how = match ticket {
            Some(ticket) => format!(
                "to add a master, run this on it within 24 hours:\n\n  pleach up DIR --join {ticket}\n\n\
                 for one more: pleach invite {}",
                root.display()
            ),
            None => format!("to add a master: pleach invite {}", root.display()),
        };
        format!("{} on {}\n{how}\n", style.good("running"), addresses.join(", "))
    })
}
