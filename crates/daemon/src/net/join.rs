//! Joining: both sides prove that they know a ticket's secret, then the inviter tells what the store is.
//!
//! ```text
//!   joiner                                          inviter
//!     │ Hello   versions, invitation, nonce           │
//!     │ ────────────────────────────────────────────▶ │ known, open, not expired?
//!     │                        Challenge   nonce      │
//!     │ ◀──────────────────────────────────────────── │
//!     │ Proof   HMAC, name, addresses                 │
//!     │ ────────────────────────────────────────────▶ │ right? then: spent, durably; member, durably
//!     │                        Welcome  HMAC, seed, … │
//!     │ ◀──────────────────────────────────────────── │
//!     │ then the log, as `handover` says              │
//! ```
//!
//! The connection itself is authenticated: the joiner dials the key in the ticket. Each HMAC is keyed
//! by the secret, over a label of its direction, both keys and both nonces; compared in constant time.
//! Each frame has at most [`FRAME_BYTES_MAX`], all this takes at most [`JOIN_SECONDS_MAX`]. What a frame
//! has left over is a later version's, and passed over. A refusal may stand in place of any answer.

use std::io;
use std::time::Duration;

use futures::{AsyncReadExt as _, AsyncWriteExt as _, StreamExt as _};
use hmac::{Hmac, KeyInit as _, Mac as _};
use libp2p::swarm::dial_opts::DialOpts;
use libp2p::swarm::{ConnectionId, Stream, SwarmEvent};
use libp2p::{Multiaddr, PeerId, Swarm};
use pleach_core::vocabulary::MasterId;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sha2::Sha256;
use subtle::ConstantTimeEq as _;
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::handover::{self, Driven, Handover};
use super::peers::{self, OpenStream};
use super::roster::Roster;
use super::transport::{self, TrafficBook};
use super::{JoinGrant, JoinRequest, NetEvent, Network, Speaks, frame, now_unix, reach};
use crate::identity::{MasterKey, StoreSeed, peer_of, random};
use crate::ticket::{
    InvitationId, InvitationState, JoinRefusal, Ticket, TicketError, TicketSecret,
};

/// The largest frame of the join protocol.
const FRAME_BYTES_MAX: usize = 64 << 10;
/// How long a join may take on the wire.
const JOIN_SECONDS_MAX: Duration = Duration::from_secs(10);
/// How often a joiner whose connection was closed without a word tries.
const ATTEMPTS_MAX: u32 = 3;
const ATTEMPT_PAUSE: Duration = Duration::from_millis(300);
/// How long the driver may take to make the member durable.
const GRANT_SECONDS_MAX: Duration = Duration::from_secs(7);
/// The longest name of a master, in bytes.
const NAME_BYTES_MAX: usize = 64;
const ADDRESSES_MAX: usize = 16;
const MEMBERS_MAX: usize = 64;

type Nonce = [u8; 32];
type Proof = [u8; 32];

/// After what [`Speaks`] begins it with.
#[derive(Debug, Serialize, Deserialize)]
struct Hello {
    invitation: InvitationId,
    nonce: Nonce,
}

#[derive(Debug, Serialize, Deserialize)]
struct ProofOfJoiner {
    proof: Proof,
    name: String,
    addresses: Vec<String>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Welcome {
    proof: Proof,
    seed: StoreSeed,
    grant: JoinGrant,
}

type Answer<T> = Result<T, JoinRefusal>;

/// What both sides have agreed on when the proofs are made.
struct Handshake {
    secret: TicketSecret,
    inviter: MasterId,
    joiner: MasterId,
    inviter_nonce: Nonce,
    joiner_nonce: Nonce,
}

impl Handshake {
    fn proof(&self, label: &str) -> Proof {
        let mac = Hmac::<Sha256>::new_from_slice(&self.secret.0);
        let mut mac = mac.expect("HMAC takes keys of any length");
        mac.update(label.as_bytes());
        for part in [&self.inviter.0, &self.joiner.0, &self.inviter_nonce, &self.joiner_nonce] {
            mac.update(part);
        }
        mac.finalize().into_bytes().into()
    }

    fn of_joiner(&self) -> Proof {
        self.proof("pleach join 1: joiner")
    }

    fn of_inviter(&self) -> Proof {
        self.proof("pleach join 1: inviter")
    }
}

fn same(a: &Proof, b: &Proof) -> bool {
    a.ct_eq(b).into()
}

/// Writes a frame of at most `bytes_max`.
pub(super) async fn write<T: Serialize>(
    stream: &mut Stream,
    value: &T,
    bytes_max: usize,
) -> io::Result<()> {
    let bytes = postcard::to_allocvec(value).map_err(io::Error::other)?;
    write_bytes(stream, &bytes, bytes_max).await
}

async fn write_bytes(stream: &mut Stream, bytes: &[u8], bytes_max: usize) -> io::Result<()> {
    let length = u32::try_from(bytes.len()).ok().filter(|&length| length as usize <= bytes_max);
    let length = length.ok_or_else(|| io::Error::other("a frame beyond its bound"))?;
    stream.write_all(&[&length.to_be_bytes()[..], bytes].concat()).await?;
    stream.flush().await
}

/// Reads a frame of at most `bytes_max`; none if what arrives is malformed.
pub(super) async fn read<T: DeserializeOwned>(
    stream: &mut Stream,
    bytes_max: usize,
) -> io::Result<Option<T>> {
    let bytes = read_bytes(stream, bytes_max).await?;
    Ok(bytes.and_then(|bytes| frame::decode(&bytes)))
}

/// The same, unread; none if it is longer.
async fn read_bytes(stream: &mut Stream, bytes_max: usize) -> io::Result<Option<Vec<u8>>> {
    let mut length = [0; 4];
    stream.read_exact(&mut length).await?;
    let length = u32::from_be_bytes(length) as usize;
    if length > bytes_max {
        return Ok(None);
    }
    let mut bytes = vec![0; length];
    stream.read_exact(&mut bytes).await?;
    Ok(Some(bytes))
}

/// The inviter's side, on a stream that `joiner` has opened.
pub(super) async fn answer(
    network: Network,
    joiner: MasterId,
    connection: ConnectionId,
    mut stream: Stream,
) {
    let mut theirs = None;
    let welcomed = welcome(&network, joiner, &mut stream, &mut theirs);
    let refusal = match timeout(JOIN_SECONDS_MAX, welcomed).await {
        Ok(Ok(Ok(()))) => {
            handover::serve(&network, joiner, &mut stream).await;
            let done = super::service::Command::CloseConnection(connection);
            let _ = network.commands.send(done).await;
            return;
        }
        Ok(Ok(Err(refusal))) => refusal,
        Ok(Err(error)) => return tracing::debug!(%joiner, %error, "join broken off"),
        Err(_) => JoinRefusal::Busy,
    };
    let ours = &network.shared.speaks;
    let reason = match &theirs {
        Some(theirs) if refusal == JoinRefusal::OtherVersion => ours.refusal(theirs, "the joiner"),
        _ => refusal.to_string(),
    };
    network.refused(Some(joiner), format!("not let in: {reason}"));
    let answer = Answer::<()>::Err(refusal);
    let mut bytes = postcard::to_stdvec(&answer).expect("a refusal encodes into memory");
    if theirs.is_some_and(|theirs| theirs.reads_refusals()) {
        bytes.extend(ours.encode());
    }
    let tell = async {
        write_bytes(&mut stream, &bytes, FRAME_BYTES_MAX).await?;
        stream.close().await?;
        // The joiner hangs up once it has read the reason.
        stream.read(&mut [0]).await
    };
    let _ = timeout(Duration::from_secs(2), tell).await;
    if !network.shared.is_member_key(joiner) {
        let _ = network.commands.send(super::service::Command::CloseConnection(connection)).await;
    }
}

/// Lets a joiner in, or says why not. What the joiner speaks is noted in `theirs`.
async fn welcome(
    network: &Network,
    joiner: MasterId,
    stream: &mut Stream,
    theirs: &mut Option<Speaks>,
) -> io::Result<Answer<()>> {
    let shared = &network.shared;
    let hello = read_bytes(stream, FRAME_BYTES_MAX).await?;
    let Some((speaks, hello)) = hello.as_deref().and_then(Speaks::decode) else {
        return Ok(Err(JoinRefusal::Malformed));
    };
    if shared.speaks.common(theirs.insert(speaks)).is_none() {
        return Ok(Err(JoinRefusal::OtherVersion));
    }
    let Some(hello) = frame::decode::<Hello>(hello) else {
        return Ok(Err(JoinRefusal::Malformed));
    };
    let usable = shared.invitations().usable(hello.invitation, joiner, now_unix());
    let secret = match usable {
        Ok(secret) => secret,
        Err(refusal) => return Ok(Err(refusal)),
    };
    let inviter_nonce = random().map_err(io::Error::other)?;
    write(stream, &Answer::Ok(inviter_nonce), FRAME_BYTES_MAX).await?;
    let handshake =
        Handshake { secret, inviter: shared.me, joiner, inviter_nonce, joiner_nonce: hello.nonce };
    let Some(proof) = read::<ProofOfJoiner>(stream, FRAME_BYTES_MAX).await? else {
        return Ok(Err(JoinRefusal::Malformed));
    };
    if !same(&proof.proof, &handshake.of_joiner()) {
        return Ok(Err(count_failure(network, hello.invitation).await));
    }
    if !is_presentable(&proof) {
        return Ok(Err(JoinRefusal::Malformed));
    }
    match grant(network, joiner, hello.invitation, proof).await {
        Err(refusal) => Ok(Err(refusal)),
        Ok(grant) => {
            let proof = handshake.of_inviter();
            let welcome = Answer::Ok(Welcome { proof, seed: shared.seed, grant });
            write(stream, &welcome, FRAME_BYTES_MAX).await?;
            Ok(Ok(()))
        }
    }
}

fn is_presentable(proof: &ProofOfJoiner) -> bool {
    (1..=NAME_BYTES_MAX).contains(&proof.name.len())
        && !proof.name.chars().any(char::is_control)
        && proof.addresses.len() <= ADDRESSES_MAX
        && proof.addresses.iter().all(|address| reach::parse_address(address).is_some())
}

/// Counts a wrong proof, durably, before the answer tells of it.
async fn count_failure(network: &Network, invitation: InvitationId) -> JoinRefusal {
    let Some(row) = network.shared.invitations().fail(invitation) else { return JoinRefusal::Void };
    let state = row.state;
    let (recorded, done) = oneshot::channel();
    network.shared.events.send(NetEvent::InvitationChanged { row, recorded }).await;
    let _ = timeout(GRANT_SECONDS_MAX, done).await;
    match state {
        InvitationState::Void => JoinRefusal::Void,
        _ => JoinRefusal::WrongSecret,
    }
}

/// Spends the invitation in memory, and waits until the driver has made that and the member durable.
async fn grant(
    network: &Network,
    joiner: MasterId,
    id: InvitationId,
    proof: ProofOfJoiner,
) -> Result<JoinGrant, JoinRefusal> {
    let shared = &network.shared;
    let (invitation, was_open) = {
        let mut invitations = shared.invitations();
        let was_open = invitations.row(id).is_some_and(|row| row.state == InvitationState::Open);
        (invitations.spend(id, joiner, now_unix())?, was_open)
    };
    let (reply, granted) = oneshot::channel();
    let ProofOfJoiner { name, addresses, .. } = proof;
    let request = JoinRequest { master: joiner, name, addresses, invitation, reply };
    let answer = async {
        shared.events.send(NetEvent::JoinRequest(request)).await;
        granted.await
    };
    match timeout(GRANT_SECONDS_MAX, answer).await {
        Ok(Ok(Ok(grant))) => Ok(grant),
        Ok(Ok(Err(refusal))) => {
            // The driver says that it has not recorded it. Silence may mean that it has: then the
            // invitation stays with this joiner, who may ask again.
            if was_open {
                shared.invitations().unspend(id);
            }
            Err(refusal)
        }
        Ok(Err(_)) | Err(_) => Err(JoinRefusal::Busy),
    }
}

/// What a joiner learns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JoinOutcome {
    /// The store; its id is that of the ticket.
    pub seed: StoreSeed,
    /// Who let this master in.
    pub inviter: MasterId,
    /// Members and settings.
    pub grant: JoinGrant,
}

/// Why a join failed.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// The ticket can't be used.
    #[error(transparent)]
    Ticket(#[from] TicketError),
    /// Nobody answers at the ticket's addresses.
    #[error(
        "no answer from {addresses}: is the daemon that made the ticket running, and reachable from here? ({reason})"
    )]
    Unreachable {
        /// Where it was tried.
        addresses: String,
        /// What went wrong.
        reason: String,
    },
    /// The inviter hung up without a word.
    #[error(
        "the inviting master closed the connection: no invitation is open there (this ticket was \
         used, has expired, or was voided), or too many are joining at once; ask for a new one \
         with `pleach invite`"
    )]
    ShutOut,
    /// The inviter said no.
    #[error("the inviting master refused: {0}")]
    Refused(JoinRefusal),
    /// The two speak no version of the protocol in common; what is said is what to do.
    #[error("{0}")]
    OtherVersion(String),
    /// The inviter does not know the secret, or the store is another one.
    #[error("the master that answered could not prove that it made this ticket")]
    NotTheInviter,
    /// It took too long.
    #[error("the inviting master did not answer within {} s: try again", JOIN_SECONDS_MAX.as_secs())]
    TimedOut,
    /// Something on this side.
    #[error("joining failed: {0}")]
    Local(String),
}

/// Joins the store of `ticket`: proves it to the inviter, and returns what is needed to begin, and from
/// whom to take the log over. `name` has 1 to 64 bytes and no control characters; `addresses` are where
/// this master will be reachable; `speaks` is which versions of the protocol it speaks. May be called again
/// with the same key if the answer was lost. Must be called in a tokio runtime.
pub async fn join(
    ticket: &Ticket,
    key: &MasterKey,
    name: &str,
    addresses: &[Multiaddr],
    speaks: &Speaks,
) -> Result<(JoinOutcome, Handover), JoinError> {
    let mut attempts = 1;
    loop {
        match attempt(ticket, key, name, addresses, speaks).await {
            // The inviter closes a stranger's connection when the stranger becomes a member, and one
            // of two that were opened at once: neither is an answer.
            Err(JoinError::ShutOut) if attempts < ATTEMPTS_MAX => {
                attempts += 1;
                tokio::time::sleep(ATTEMPT_PAUSE).await;
            }
            outcome => return outcome,
        }
    }
}

async fn attempt(
    ticket: &Ticket,
    key: &MasterKey,
    name: &str,
    addresses: &[Multiaddr],
    speaks: &Speaks,
) -> Result<(JoinOutcome, Handover), JoinError> {
    ticket.check_expiry(now_unix())?;
    let local = |error: &dyn ToString| JoinError::Local(error.to_string());
    let keypair = key.to_libp2p();
    let transport = transport::build(&keypair, TrafficBook::default()).map_err(|e| local(&e))?;
    let inviter = peer_of(ticket.inviter).ok_or(TicketError::Damaged)?;
    let mut swarm = Swarm::new(
        transport,
        peers::Behaviour::new(Roster::Joining(inviter), now_unix),
        keypair.public().to_peer_id(),
        libp2p::swarm::Config::with_tokio_executor(),
    );
    let connection = timeout(JOIN_SECONDS_MAX, connect(&mut swarm, ticket, inviter)).await;
    let connection = connection.unwrap_or(Err(JoinError::TimedOut))?;

    let (reply, opened) = oneshot::channel();
    let stream = OpenStream { protocol: peers::JOIN, reply };
    swarm.behaviour_mut().open(inviter, connection, stream);
    let driven = Driven(tokio::spawn(async move {
        // When the connection closes, what has arrived before is still to be read.
        loop {
            swarm.select_next_some().await;
        }
    }));
    let proving = async {
        let stream = opened.await.map_err(|_| JoinError::ShutOut)?;
        let mut stream = stream.map_err(|_| JoinError::ShutOut)?;
        let outcome = prove(&mut stream, ticket, key, name, addresses, speaks).await?;
        Ok((outcome, stream))
    };
    let proven = timeout(JOIN_SECONDS_MAX, proving).await.unwrap_or(Err(JoinError::TimedOut));
    let (outcome, stream) = proven?;
    let handover = Handover::new(stream, outcome.seed.store(), driven);
    Ok((outcome, handover))
}

async fn connect(
    swarm: &mut Swarm<peers::Behaviour>,
    ticket: &Ticket,
    inviter: PeerId,
) -> Result<ConnectionId, JoinError> {
    let tried = ticket.addresses.join(", ");
    let unreachable = |reason: String| JoinError::Unreachable { addresses: tried.clone(), reason };
    let parsed = ticket.addresses.iter().filter_map(|text| reach::parse_address(text)).collect();
    let addresses = reach::resolve(parsed).await;
    if addresses.is_empty() {
        return Err(unreachable("the ticket holds no address that can be dialled".into()));
    }
    swarm
        .dial(DialOpts::peer_id(inviter).addresses(addresses).build())
        .map_err(|error| unreachable(error.to_string()))?;
    loop {
        match swarm.select_next_some().await {
            SwarmEvent::ConnectionEstablished { connection_id, .. } => return Ok(connection_id),
            SwarmEvent::OutgoingConnectionError { error, .. } => {
                let reason = error.to_string().lines().map(str::trim).collect::<Vec<_>>().join(" ");
                return Err(unreachable(reason));
            }
            _ => {}
        }
    }
}

async fn prove(
    stream: &mut Stream,
    ticket: &Ticket,
    key: &MasterKey,
    name: &str,
    addresses: &[Multiaddr],
    speaks: &Speaks,
) -> Result<JoinOutcome, JoinError> {
    let broken = |_: io::Error| JoinError::ShutOut;
    let malformed = || JoinError::Refused(JoinRefusal::Malformed);
    let joiner_nonce = random().map_err(|error| JoinError::Local(error.to_string()))?;
    let invitation = ticket.invitation;
    let hello = postcard::to_stdvec(&Hello { invitation, nonce: joiner_nonce });
    let hello = hello.expect("a hello encodes into memory");
    let hello = [&speaks.encode()[..], &hello, &speaks.appended].concat();
    write_bytes(stream, &hello, FRAME_BYTES_MAX).await.map_err(broken)?;
    let challenge = read_bytes(stream, FRAME_BYTES_MAX).await.map_err(broken)?;
    let challenge = challenge.as_deref().and_then(|bytes| postcard::take_from_bytes(bytes).ok());
    let (challenge, rest): (Answer<Nonce>, _) = challenge.ok_or_else(malformed)?;
    let inviter_nonce = challenge.map_err(|refusal| match Speaks::decode(rest) {
        Some((theirs, _)) if refusal == JoinRefusal::OtherVersion => {
            JoinError::OtherVersion(speaks.refusal(&theirs, "the inviting master"))
        }
        _ => JoinError::Refused(refusal),
    })?;
    let handshake = Handshake {
        secret: ticket.secret,
        inviter: ticket.inviter,
        joiner: key.master(),
        inviter_nonce,
        joiner_nonce,
    };
    let addresses = addresses.iter().take(ADDRESSES_MAX).map(ToString::to_string).collect();
    let proof = ProofOfJoiner { proof: handshake.of_joiner(), name: name.to_owned(), addresses };
    write(stream, &proof, FRAME_BYTES_MAX).await.map_err(broken)?;
    let answer = read::<Answer<Welcome>>(stream, FRAME_BYTES_MAX).await.map_err(broken)?;
    let welcome = answer.ok_or_else(malformed)?.map_err(JoinError::Refused)?;
    let proven = same(&welcome.proof, &handshake.of_inviter());
    if !proven || welcome.seed != ticket.seed || welcome.grant.members.len() > MEMBERS_MAX {
        return Err(JoinError::NotTheInviter);
    }
    Ok(JoinOutcome { seed: welcome.seed, inviter: ticket.inviter, grant: welcome.grant })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn handshake(byte: u8) -> Handshake {
        Handshake {
            secret: TicketSecret([byte; 32]),
            inviter: MasterId([1; 32]),
            joiner: MasterId([2; 32]),
            inviter_nonce: [3; 32],
            joiner_nonce: [4; 32],
        }
    }

    #[test]
    fn proof_of_one_direction_or_secret_or_nonce_is_no_other() {
        let one = handshake(5);
        assert!(same(&one.of_joiner(), &handshake(5).of_joiner()));
        assert!(!same(&one.of_joiner(), &one.of_inviter()));
        assert!(!same(&one.of_joiner(), &handshake(6).of_joiner()));
        let replayed = Handshake { inviter_nonce: [9; 32], ..handshake(5) };
        assert!(!same(&one.of_joiner(), &replayed.of_joiner()));
    }

    #[test]
    fn names_and_addresses_of_joiners_are_bounded() {
        let proof = |name: &str, addresses: Vec<String>| {
            let name = name.to_owned();
            is_presentable(&ProofOfJoiner { proof: [0; 32], name, addresses })
        };
        let address = "/ip4/192.0.2.1/tcp/4747".to_owned();
        assert!(proof("web-2", vec![address.clone()]));
        assert!(!proof("", vec![]));
        assert!(!proof("a\nb", vec![]));
        assert!(!proof(&"x".repeat(65), vec![]));
        assert!(!proof("web-2", vec![address; 17]));
        assert!(!proof("web-2", vec!["nonsense".into()]));
    }
}
