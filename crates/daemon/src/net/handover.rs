//! Handing the log over to a joiner, on the stream on which it has just proven its ticket.
//!
//! ```text
//!   joiner                                   inviter
//!     │ Ask    what it knows                   │
//!     │ ─────────────────────────────────────▶ │ still a member? then from the log:
//!     │               Page   changes, how many │
//!     │ ◀───────────────────────────────────── │ are left after these
//!     │ … until none are left                  │
//! ```
//!
//! One page is under way at a time: the joiner asks for the next one with what it knows by then, so that
//! a connection that breaks costs a page. A page is a frame of at most [`PAGE_BYTES_MAX`]; each comes
//! within [`PAGE_SECONDS_MAX`], all of them within [`HANDOVER_SECONDS_MAX`]. What comes bears its authors'
//! signatures, and is not judged here: the gate of the core does that. A joiner that gets no page has
//! joined all the same: its daemon exchanges what is missing.

use std::time::Duration;

use libp2p::swarm::Stream;
use pleach_core::values::{MESSAGE_BYTES_MAX, SignedChange};
use pleach_core::vocabulary::{MasterId, StoreId, VersionVector};
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout, timeout_at};

use super::join::{read, write};
use super::{NetEvent, Network};
use crate::identity::change_is_authentic;

/// How long one page may take.
const PAGE_SECONDS_MAX: Duration = Duration::from_secs(30);
/// How long all pages may take.
const HANDOVER_SECONDS_MAX: Duration = Duration::from_secs(600);
/// The largest page: one change may be as large as a message.
const PAGE_BYTES_MAX: usize = MESSAGE_BYTES_MAX + (64 << 10);
/// The largest question: a vector of more writers than a store is laid out for.
const ASK_BYTES_MAX: usize = 256 << 10;

#[derive(Debug, Serialize, Deserialize)]
struct Ask {
    known: VersionVector,
}

/// Some changes of the log that a joiner lacks.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HandoverPage {
    /// In an order in which each comes after what it depends on.
    pub changes: Vec<SignedChange>,
    /// How many changes are to come after these.
    pub left: u64,
}

/// A master that has just been let in wants to know what the store holds.
#[derive(Debug)]
pub struct HandoverRequest {
    /// What it knows already.
    pub known: VersionVector,
    /// The answer. Dropped if the log can't be read.
    pub reply: oneshot::Sender<HandoverPage>,
}

/// Why no page came.
#[derive(Debug, thiserror::Error)]
pub enum HandoverError {
    /// The connection is gone.
    #[error("the connection to the inviting master broke off")]
    Broken,
    /// It took too long.
    #[error("the inviting master did not send for {} s", PAGE_SECONDS_MAX.as_secs())]
    Stalled,
    /// All pages together took too long.
    #[error("it took longer than {} minutes", HANDOVER_SECONDS_MAX.as_secs() / 60)]
    TooLong,
    /// What came is no page.
    #[error("the inviting master sent something that is not understood")]
    Malformed,
    /// Somebody has made a change up.
    #[error("the inviting master sent a change that its author {0} has not signed")]
    Forged(MasterId),
}

/// The joiner's end: the stream, and what keeps its connection alive. Dropping it hangs up.
#[derive(Debug)]
pub struct Handover {
    stream: Stream,
    store: StoreId,
    deadline: Instant,
    _connection: Driven,
}

/// The task that drives a connection for as long as it is wanted.
#[derive(Debug)]
pub(super) struct Driven(pub(super) JoinHandle<()>);

impl Drop for Driven {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Handover {
    pub(super) fn new(stream: Stream, store: StoreId, connection: Driven) -> Self {
        let deadline = Instant::now() + HANDOVER_SECONDS_MAX;
        Self { stream, store, deadline, _connection: connection }
    }

    /// The changes that `known` lacks, or as many of them as fit; the signature of each is its author's.
    ///
    /// # Errors
    /// If none can be had. Then none will come any more.
    pub async fn page(&mut self, known: &VersionVector) -> Result<HandoverPage, HandoverError> {
        let ask = Ask { known: known.clone() };
        let exchange = async {
            write(&mut self.stream, &ask, ASK_BYTES_MAX).await?;
            read::<HandoverPage>(&mut self.stream, PAGE_BYTES_MAX).await
        };
        let exchange = timeout(PAGE_SECONDS_MAX, exchange);
        let page = match timeout_at(self.deadline, exchange).await {
            Err(_) => return Err(HandoverError::TooLong),
            Ok(Err(_)) => return Err(HandoverError::Stalled),
            Ok(Ok(Err(_))) => return Err(HandoverError::Broken),
            Ok(Ok(Ok(page))) => page.ok_or(HandoverError::Malformed)?,
        };
        let store = self.store;
        let checked = tokio::task::spawn_blocking(move || {
            match page.changes.iter().find(|change| !change_is_authentic(store, change)) {
                Some(forged) => Err(HandoverError::Forged(forged.author)),
                None => Ok(page),
            }
        });
        checked.await.unwrap_or(Err(HandoverError::Malformed))
    }
}

/// The inviter's side: answers until the joiner hangs up, is no member any more, or takes too long.
pub(super) async fn serve(network: &Network, joiner: MasterId, stream: &mut Stream) {
    let answers = async {
        while let Some(page) = next_page(network, joiner, stream).await {
            let written = timeout(PAGE_SECONDS_MAX, write(stream, &page, PAGE_BYTES_MAX)).await;
            if !matches!(written, Ok(Ok(()))) {
                return;
            }
        }
    };
    let _ = timeout(HANDOVER_SECONDS_MAX, answers).await;
}

async fn next_page(
    network: &Network,
    joiner: MasterId,
    stream: &mut Stream,
) -> Option<HandoverPage> {
    let asked = timeout(PAGE_SECONDS_MAX, read::<Ask>(stream, ASK_BYTES_MAX)).await;
    let Ok(Ok(Some(Ask { known }))) = asked else { return None };
    if !network.shared.is_member_key(joiner) {
        return None;
    }
    let (reply, answer) = oneshot::channel();
    network.shared.events.send(NetEvent::Handover(HandoverRequest { known, reply })).await;
    timeout(PAGE_SECONDS_MAX, answer).await.ok()?.ok()
}
