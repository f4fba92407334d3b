//! Listening: a port that is taken, or an address that no transport knows, is told apart.

use std::collections::HashMap;
use std::io;
use std::net::IpAddr;
use std::time::Duration;

use futures::StreamExt as _;
use libp2p::core::transport::{ListenerId, TransportError};
use libp2p::multiaddr::Protocol;
use libp2p::swarm::{NetworkBehaviour, SwarmEvent};
use libp2p::{Multiaddr, Swarm};

use super::NetError;

/// How long listening may take to begin.
const LISTEN_SECONDS_MAX: Duration = Duration::from_secs(3);

/// Starts to listen, and waits until each address is known: a port of 0 is a number by then.
pub(super) async fn listen<B: NetworkBehaviour>(
    swarm: &mut Swarm<B>,
    addresses: &[Multiaddr],
) -> Result<Vec<Multiaddr>, NetError> {
    let mut listening = Vec::new();
    let mut waiting: HashMap<ListenerId, &Multiaddr> = HashMap::new();
    for address in addresses {
        probe_port(address)?;
        let id = swarm.listen_on(address.clone()).map_err(|error| listen_error(address, error))?;
        waiting.insert(id, address);
    }
    let deadline = tokio::time::Instant::now() + LISTEN_SECONDS_MAX;
    while let Some(&address) = waiting.values().next() {
        match tokio::time::timeout_at(deadline, swarm.select_next_some()).await {
            Ok(SwarmEvent::NewListenAddr { listener_id, address }) => {
                waiting.remove(&listener_id);
                listening.push(address);
            }
            Ok(SwarmEvent::ListenerClosed { listener_id, reason: Err(error), .. }) => {
                let address = waiting.get(&listener_id).copied().unwrap_or(address);
                return Err(listen_error(address, TransportError::Other(error)));
            }
            Ok(_) => {}
            Err(_) => {
                let source = io::ErrorKind::TimedOut.into();
                return Err(NetError::Listen { address: address.clone(), source });
            }
        }
    }
    Ok(listening)
}

/// The TCP transport lets several sockets share one port (SO_REUSEPORT, socket(7)), so that the system
/// would not say that another daemon has it: a plain socket is told.
fn probe_port(address: &Multiaddr) -> Result<(), NetError> {
    let mut parts = address.iter();
    let ip = match parts.next() {
        Some(Protocol::Ip4(ip)) => IpAddr::from(ip),
        Some(Protocol::Ip6(ip)) => IpAddr::from(ip),
        _ => return Ok(()),
    };
    let Some(Protocol::Tcp(port @ 1..)) = parts.next() else { return Ok(()) };
    match std::net::TcpListener::bind((ip, port)) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            Err(NetError::PortInUse { address: address.clone() })
        }
        _ => Ok(()),
    }
}

fn listen_error(address: &Multiaddr, error: TransportError<io::Error>) -> NetError {
    let address = address.clone();
    match error {
        TransportError::MultiaddrNotSupported(_) => NetError::UnsupportedAddress { address },
        TransportError::Other(source) if in_use(&source) => NetError::PortInUse { address },
        TransportError::Other(source) => NetError::Listen { address, source },
    }
}

/// Whether `EADDRINUSE` is at the bottom: each layer of transports wraps it once more.
fn in_use(error: &io::Error) -> bool {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = cause {
        let io = error.downcast_ref::<io::Error>();
        if io.is_some_and(|error| error.kind() == io::ErrorKind::AddrInUse) {
            return true;
        }
        // An io::Error made of another error has that one as its inner, not as its source.
        cause = match io.and_then(io::Error::get_ref) {
            Some(inner) => Some(inner as &(dyn std::error::Error + 'static)),
            None => error.source(),
        };
    }
    error.to_string().contains("Address already in use")
}
