//! Where members may be found, and when to dial them next.
//!
//! Each member that is not connected is dialled at the addresses of its entry and those learnt from
//! hellos and multicast, TCP first, then QUIC; after a failure again after a delay that doubles from
//! [`DELAY_MIN`] to [`DELAY_MAX`], with jitter. A new address is tried at once, but by the master of
//! the larger key after [`HEAD_START`]: two that learn of each other at once would both dial.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use libp2p::multiaddr::Protocol;
use libp2p::{Multiaddr, PeerId};
use pleach_core::values::Member;
use pleach_core::vocabulary::MasterId;

use crate::identity::{peer_of, random};

const DELAY_MIN: Duration = Duration::from_millis(100);
const DELAY_MAX: Duration = Duration::from_secs(30);
const HEAD_START: Duration = Duration::from_millis(200);
/// How often in a row a member closes a connection without a word before that is told, and after how
/// many more it is told again. Once or twice is usual: it was stopping, or both had dialled at once.
const SHUT_OUT_TOLD: u32 = 3;
const SHUT_OUT_TOLD_AGAIN: u32 = 100;
/// How many addresses of its own telling are kept for one member, beside those of its entry.
const HINTS_MAX: usize = 16;

#[derive(Debug)]
struct Target {
    master: MasterId,
    /// How much later than the peer this master dials a new address.
    head_start: Duration,
    listed: Vec<Multiaddr>,
    hints: Vec<Multiaddr>,
    failures: u32,
    due: Option<Instant>,
    dialling: bool,
    connections: usize,
    quic_next: bool,
    shut_out: u32,
}

impl Target {
    fn new(master: MasterId, me: MasterId) -> Self {
        Self {
            master,
            head_start: if master < me { HEAD_START } else { Duration::ZERO },
            listed: Vec::new(),
            hints: Vec::new(),
            failures: 0,
            due: None,
            dialling: false,
            connections: 0,
            quic_next: false,
            shut_out: 0,
        }
    }

    fn addresses(&self) -> impl Iterator<Item = &Multiaddr> {
        let fresh = self.hints.iter().filter(|hint| !self.listed.contains(hint));
        self.listed.iter().chain(fresh)
    }

    fn has_both_transports(&self) -> bool {
        self.addresses().any(is_quic) && self.addresses().any(|address| !is_quic(address))
    }

    fn wait(&mut self, now: Instant) {
        self.due = Some(now + delay(self.failures));
        self.failures = self.failures.saturating_add(1);
    }
}

/// All members but this master.
#[derive(Debug)]
pub(super) struct Reach {
    me: MasterId,
    targets: BTreeMap<PeerId, Target>,
    /// Whether the members known at the start have been set.
    started: bool,
}

impl Reach {
    pub(super) fn new(me: MasterId) -> Self {
        Self { me, targets: BTreeMap::new(), started: false }
    }

    /// Sets the members; who is new, or has a new address, is to be dialled.
    pub(super) fn set_members(&mut self, members: &[(PeerId, &Member)], now: Instant) {
        let starting = !std::mem::replace(&mut self.started, true);
        self.targets.retain(|peer, _| members.iter().any(|(member, _)| member == peer));
        for (peer, member) in members {
            let target =
                self.targets.entry(*peer).or_insert_with(|| Target::new(member.master, self.me));
            let texts = member.addresses.iter().take(HINTS_MAX);
            let listed: Vec<_> = texts.filter_map(|text| parse_address(text)).collect();
            let fresh = listed.iter().any(|address| !target.addresses().any(|old| old == address));
            target.listed = listed;
            if fresh {
                target.failures = 0;
                let delay = if starting { Duration::ZERO } else { target.head_start };
                target.due = Some(now + delay);
            }
        }
    }

    /// Learns that `peer` may be found at `address`.
    pub(super) fn hint(&mut self, peer: &PeerId, address: Multiaddr, now: Instant) {
        let Some(target) = self.targets.get_mut(peer) else { return };
        let Some(address) = dialable(address) else { return };
        if target.addresses().any(|known| *known == address) {
            return;
        }
        if target.hints.len() == HINTS_MAX {
            target.hints.remove(0);
        }
        target.hints.push(address);
        target.failures = 0;
        target.due = Some(now + target.head_start);
    }

    /// The members to be dialled now, each with its addresses.
    pub(super) fn take_due(&mut self, now: Instant) -> Vec<(PeerId, Vec<Multiaddr>)> {
        let mut dials = Vec::new();
        for (peer, target) in &mut self.targets {
            if target.due.is_none_or(|due| due > now) {
                continue;
            }
            target.due = None;
            let quic = target.quic_next || !target.addresses().any(|address| !is_quic(address));
            let addresses: Vec<_> =
                target.addresses().filter(|address| is_quic(address) == quic).cloned().collect();
            if target.connections == 0 && !target.dialling && !addresses.is_empty() {
                target.dialling = true;
                dials.push((*peer, addresses));
            }
        }
        dials
    }

    /// When somebody is to be dialled next.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.targets.values().filter_map(|target| target.due).min()
    }

    /// A dial has failed: the other transport is tried at once, then after a delay.
    pub(super) fn dial_failed(&mut self, peer: &PeerId, now: Instant) {
        let Some(target) = self.targets.get_mut(peer) else { return };
        target.dialling = false;
        target.quic_next = !target.quic_next && target.has_both_transports();
        match target.quic_next {
            true => target.due = Some(now),
            false => target.wait(now),
        }
    }

    /// A connection stands, whoever has dialled.
    pub(super) fn connected(&mut self, peer: &PeerId) {
        if let Some(target) = self.targets.get_mut(peer) {
            target.connections += 1;
            target.dialling = false;
            target.quic_next = false;
            target.due = None;
        }
    }

    /// The peer has said hello: it is really there.
    pub(super) fn greeted(&mut self, peer: &PeerId) {
        if let Some(target) = self.targets.get_mut(peer) {
            (target.failures, target.shut_out) = (0, 0);
        }
    }

    /// The peer has closed a connection before it said hello; whether that is worth telling.
    pub(super) fn shut_out(&mut self, peer: &PeerId) -> bool {
        let Some(target) = self.targets.get_mut(peer) else { return false };
        target.shut_out = target.shut_out.saturating_add(1);
        target.shut_out % SHUT_OUT_TOLD_AGAIN == SHUT_OUT_TOLD
    }

    /// Whether the peer has done that so often that it is no accident.
    pub(super) fn is_shut_out(&self, peer: &PeerId) -> bool {
        self.targets.get(peer).is_some_and(|target| target.shut_out >= SHUT_OUT_TOLD)
    }

    /// A connection is gone.
    pub(super) fn disconnected(&mut self, peer: &PeerId, now: Instant) {
        if let Some(target) = self.targets.get_mut(peer) {
            target.connections = target.connections.saturating_sub(1);
            if target.connections == 0 {
                target.wait(now);
            }
        }
    }

    pub(super) fn master(&self, peer: &PeerId) -> Option<MasterId> {
        self.targets.get(peer).map(|target| target.master)
    }
}

/// The members among `masters` but `me`, with their peer ids.
pub(super) fn peers_of<'a>(
    members: &'a [Member],
    admitted: &std::collections::BTreeSet<MasterId>,
    me: MasterId,
) -> Vec<(PeerId, &'a Member)> {
    let others = members.iter().filter(|member| member.master != me);
    let admitted = others.filter(|member| admitted.contains(&member.master));
    admitted.filter_map(|member| Some((peer_of(member.master)?, member))).collect()
}

/// Reads an address that can be dialled.
pub(super) fn parse_address(text: &str) -> Option<Multiaddr> {
    (text.len() <= 256).then(|| text.parse().ok()).flatten().and_then(dialable)
}

/// Without a trailing peer id; none for an address that no transport of ours dials.
fn dialable(address: Multiaddr) -> Option<Multiaddr> {
    let address: Multiaddr =
        address.iter().take_while(|part| !matches!(part, Protocol::P2p(_))).collect();
    let mut parts = address.iter();
    let host = matches!(
        parts.next()?,
        Protocol::Ip4(_)
            | Protocol::Ip6(_)
            | Protocol::Dns(_)
            | Protocol::Dns4(_)
            | Protocol::Dns6(_)
    );
    let rest = (parts.next()?, parts.next(), parts.next());
    let transport = matches!(rest, (Protocol::Tcp(port), None, None) if port != 0)
        || matches!(rest, (Protocol::Udp(port), Some(Protocol::QuicV1), None) if port != 0);
    (host && transport).then_some(address)
}

fn is_quic(address: &Multiaddr) -> bool {
    address.iter().any(|part| part == Protocol::QuicV1)
}

/// Half to all of the doubled delay (full jitter would now and then hammer).
fn delay(failures: u32) -> Duration {
    let full = DELAY_MIN.saturating_mul(1 << failures.min(16)).min(DELAY_MAX);
    let random = u32::from_le_bytes(random().unwrap_or([0; 4]));
    full / 2 + (full / 2).mul_f64(f64::from(random) / f64::from(u32::MAX))
}

/// Looks host names up in the system's resolver; addresses that hold none stay as they are.
pub(super) async fn resolve(addresses: Vec<Multiaddr>) -> Vec<Multiaddr> {
    let mut resolved = Vec::new();
    for address in addresses {
        let (name, v4, v6) = match address.iter().next() {
            Some(Protocol::Dns(name)) => (name, true, true),
            Some(Protocol::Dns4(name)) => (name, true, false),
            Some(Protocol::Dns6(name)) => (name, false, true),
            _ => {
                resolved.push(address);
                continue;
            }
        };
        let Ok(found) = tokio::net::lookup_host((name.as_ref(), 0)).await else { continue };
        for ip in
            found.map(|socket| socket.ip()).filter(|ip| if ip.is_ipv4() { v4 } else { v6 }).take(4)
        {
            resolved
                .push(std::iter::once(Protocol::from(ip)).chain(address.iter().skip(1)).collect());
        }
    }
    resolved
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::MasterKey;

    fn member(addresses: &[&str]) -> (PeerId, Member) {
        let key = MasterKey::from_secret(&[5; 32]);
        let addresses = addresses.iter().map(|&text| text.to_owned()).collect();
        let member = key.sign_member(
            pleach_core::vocabulary::StoreId([0; 32]),
            key.master(),
            "m",
            addresses,
        );
        (peer_of(member.master).unwrap(), member)
    }

    fn dials(reach: &mut Reach, now: Instant) -> Vec<String> {
        let due = reach.take_due(now);
        due.into_iter().flat_map(|(_, addresses)| addresses).map(|a| a.to_string()).collect()
    }

    const TCP: &str = "/ip4/192.0.2.1/tcp/4747";
    const QUIC: &str = "/ip4/192.0.2.1/udp/4747/quic-v1";

    #[test]
    fn tcp_is_tried_first_then_quic_then_after_a_delay() {
        let now = Instant::now();
        let (peer, member) = member(&[QUIC, TCP]);
        let mut reach = Reach::new(MasterId([0; 32]));
        reach.set_members(&[(peer, &member)], now);
        assert_eq!(dials(&mut reach, now), [TCP]);
        assert_eq!(dials(&mut reach, now), [""; 0], "one dial at a time");
        reach.dial_failed(&peer, now);
        assert_eq!(dials(&mut reach, now), [QUIC]);
        reach.dial_failed(&peer, now);
        assert_eq!(dials(&mut reach, now), [""; 0]);
        assert_eq!(dials(&mut reach, now + DELAY_MIN), [TCP]);
    }

    #[test]
    fn delays_grow_to_their_bound_and_a_new_address_is_dialled_at_once() {
        let now = Instant::now();
        let (peer, member) = member(&[TCP]);
        let mut reach = Reach::new(MasterId([0; 32]));
        reach.set_members(&[(peer, &member)], now);
        for _ in 0..50 {
            reach.take_due(now + DELAY_MAX);
            reach.dial_failed(&peer, now);
        }
        let due = reach.next_due().unwrap();
        assert!(due >= now + DELAY_MAX / 2 && due <= now + DELAY_MAX);
        reach.set_members(&[(peer, &member)], now);
        assert_eq!(reach.next_due(), Some(due), "nothing new");
        reach.hint(&peer, "/ip4/192.0.2.7/tcp/1".parse().unwrap(), now);
        assert_eq!(reach.next_due(), Some(now));
    }

    #[test]
    fn connected_member_is_not_dialled_and_a_lost_one_is_soon() {
        let now = Instant::now();
        let (peer, member) = member(&[TCP]);
        let mut reach = Reach::new(MasterId([0; 32]));
        reach.set_members(&[(peer, &member)], now);
        reach.connected(&peer);
        assert_eq!(reach.next_due(), None);
        reach.hint(&peer, QUIC.parse().unwrap(), now);
        assert_eq!(dials(&mut reach, now), [""; 0]);
        reach.greeted(&peer);
        reach.disconnected(&peer, now);
        assert!(reach.next_due().unwrap() <= now + DELAY_MIN);
    }

    #[test]
    fn of_two_that_learn_of_each_other_the_smaller_key_dials_first() {
        let now = Instant::now();
        let (peer, member) = member(&[TCP]);
        let mut reach = Reach::new(MasterId([255; 32]));
        reach.set_members(&[], now);
        reach.set_members(&[(peer, &member)], now);
        assert_eq!(dials(&mut reach, now), [""; 0]);
        assert_eq!(dials(&mut reach, now + HEAD_START), [TCP]);
    }

    #[test]
    fn whoever_is_known_at_the_start_is_dialled_at_once() {
        let now = Instant::now();
        let (peer, member) = member(&[TCP]);
        let mut reach = Reach::new(MasterId([255; 32]));
        reach.set_members(&[(peer, &member)], now);
        assert_eq!(dials(&mut reach, now), [TCP]);
    }

    #[test]
    fn member_that_hangs_up_without_a_word_is_told_of_when_it_goes_on() {
        let now = Instant::now();
        let (peer, member) = member(&[TCP]);
        let mut reach = Reach::new(MasterId([0; 32]));
        reach.set_members(&[(peer, &member)], now);
        let told: Vec<_> = (0..110).filter(|_| reach.shut_out(&peer)).collect();
        assert_eq!(told, [2, 102]);
        reach.greeted(&peer);
        assert!(!reach.shut_out(&peer) && !reach.shut_out(&peer));
    }

    #[test]
    fn only_addresses_that_can_be_dialled_are_kept() {
        for good in [TCP, QUIC, "/dns4/example.org/tcp/1", "/ip6/::1/tcp/4747"] {
            assert_eq!(parse_address(good).unwrap().to_string(), good);
        }
        let peer = PeerId::random();
        assert_eq!(parse_address(&format!("{TCP}/p2p/{peer}")).unwrap().to_string(), TCP);
        for bad in
            ["", "/ip4/192.0.2.1", "/ip4/192.0.2.1/udp/1", "/ip4/192.0.2.1/tcp/0", "/memory/1", "x"]
        {
            assert_eq!(parse_address(bad), None, "{bad}");
        }
    }
}
