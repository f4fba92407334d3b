//! Free ports: where any port will do, the one of last time is taken again if it is free.
//!
//! Members dial each other where they were last found. Two that come back at once, both on ports that
//! nobody has heard of, could otherwise not find each other but by multicast or a third one.

use libp2p::Multiaddr;
use libp2p::multiaddr::Protocol;

/// `wanted`, with the ports of `before` where it leaves them open.
pub(super) fn as_before(wanted: &[Multiaddr], before: &[Multiaddr]) -> Vec<Multiaddr> {
    wanted
        .iter()
        .map(|wanted| {
            let port = before.iter().find_map(|before| port_of_like(wanted, before));
            port.map_or_else(|| wanted.clone(), |port| with_port(wanted, port))
        })
        .collect()
}

/// The port of `before`, if it is what came of `wanted`, which leaves the port open.
fn port_of_like(wanted: &Multiaddr, before: &Multiaddr) -> Option<u16> {
    let (mut wanted, mut before) = (wanted.iter(), before.iter());
    let same_host = match (wanted.next()?, before.next()?) {
        (Protocol::Ip4(wanted), Protocol::Ip4(before)) => {
            wanted.is_unspecified() || wanted == before
        }
        (Protocol::Ip6(wanted), Protocol::Ip6(before)) => {
            wanted.is_unspecified() || wanted == before
        }
        _ => false,
    };
    let port = match (wanted.next()?, before.next()?) {
        (Protocol::Tcp(0), Protocol::Tcp(port)) | (Protocol::Udp(0), Protocol::Udp(port)) => port,
        _ => return None,
    };
    (same_host && wanted.eq(before)).then_some(port)
}

fn with_port(address: &Multiaddr, port: u16) -> Multiaddr {
    let parts = address.iter().map(|part| match part {
        Protocol::Tcp(_) => Protocol::Tcp(port),
        Protocol::Udp(_) => Protocol::Udp(port),
        other => other,
    });
    parts.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn open_port_is_that_of_last_time_and_a_named_one_stays() {
        let parse = |texts: &[&str]| -> Vec<Multiaddr> {
            texts.iter().map(|text| text.parse().unwrap()).collect()
        };
        let before = parse(&[
            "/ip4/192.0.2.1/tcp/41000",
            "/ip4/192.0.2.1/udp/42000/quic-v1",
            "/ip6/2001:db8::1/tcp/43000",
        ]);
        let check = |wanted: &[&str], expected: &[&str]| {
            assert_eq!(as_before(&parse(wanted), &before), parse(expected));
        };
        check(
            &["/ip4/0.0.0.0/tcp/0", "/ip4/0.0.0.0/udp/0/quic-v1"],
            &["/ip4/0.0.0.0/tcp/41000", "/ip4/0.0.0.0/udp/42000/quic-v1"],
        );
        check(&["/ip4/192.0.2.1/tcp/0"], &["/ip4/192.0.2.1/tcp/41000"]);
        check(&["/ip4/127.0.0.1/tcp/0"], &["/ip4/127.0.0.1/tcp/0"]);
        check(&["/ip6/::/tcp/0"], &["/ip6/::/tcp/43000"]);
        check(&["/ip4/0.0.0.0/tcp/4747"], &["/ip4/0.0.0.0/tcp/4747"]);
    }
}
