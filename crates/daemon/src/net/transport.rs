//! TCP (noise, yamux) and QUIC, with the bytes of each member counted.
//!
//! What is counted is what passes through streams: all protocols, their negotiation included, without
//! the few percent that encryption and framing add.

use std::collections::BTreeMap;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures::{AsyncRead, AsyncWrite};
use libp2p::core::Transport as _;
use libp2p::core::muxing::{StreamMuxer, StreamMuxerBox, StreamMuxerEvent, SubstreamBox};
use libp2p::core::transport::Boxed;
use libp2p::core::upgrade::Version;
use libp2p::identity::Keypair;
use libp2p::{PeerId, noise, quic, tcp, yamux};

use super::roster::lock;

/// How long a connection may take to be established and authenticated.
const HANDSHAKE_SECONDS_MAX: Duration = Duration::from_secs(10);
/// How many streams a peer may have open on one connection.
const STREAMS_MAX: usize = 128;
/// How many bytes a peer may have under way to us on one QUIC stream.
const QUIC_WINDOW_BYTES: u32 = 16 << 20;

/// How many bytes were exchanged with a member.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TrafficCount {
    /// To it.
    pub sent: u64,
    /// From it.
    pub received: u64,
}

#[derive(Debug, Default)]
pub(super) struct Traffic {
    sent: AtomicU64,
    received: AtomicU64,
}

impl Traffic {
    pub(super) fn count(&self) -> TrafficCount {
        TrafficCount {
            sent: self.sent.load(Ordering::Relaxed),
            received: self.received.load(Ordering::Relaxed),
        }
    }
}

/// The counters, by member. Whoever is not one is not counted.
#[derive(Clone, Debug, Default)]
pub(super) struct TrafficBook(Arc<Mutex<BTreeMap<PeerId, Arc<Traffic>>>>);

impl TrafficBook {
    /// The counter of a member, which lives as long as the book.
    pub(super) fn of_member(&self, peer: PeerId) -> Arc<Traffic> {
        lock(&self.0).entry(peer).or_default().clone()
    }

    fn of_anybody(&self, peer: &PeerId) -> Arc<Traffic> {
        lock(&self.0).get(peer).cloned().unwrap_or_default()
    }
}

/// The transport of one swarm.
pub(super) fn build(
    key: &Keypair,
    book: TrafficBook,
) -> Result<Boxed<(PeerId, StreamMuxerBox)>, noise::Error> {
    let mut yamux = yamux::Config::default();
    yamux.set_max_num_streams(STREAMS_MAX);
    let tcp = tcp::tokio::Transport::new(tcp::Config::default().nodelay(true))
        .upgrade(Version::V1Lazy)
        .authenticate(noise::Config::new(key)?)
        .multiplex(yamux)
        .timeout(HANDSHAKE_SECONDS_MAX)
        .map(|(peer, muxer), _| (peer, StreamMuxerBox::new(muxer)));

    let mut quic = quic::Config::new(key);
    quic.max_stream_data = QUIC_WINDOW_BYTES;
    quic.max_connection_data = 4 * QUIC_WINDOW_BYTES;
    let quic = quic::tokio::Transport::new(quic)
        .map(|(peer, muxer), _| (peer, StreamMuxerBox::new(muxer)));

    let counted = tcp.or_transport(quic).map(move |either, _| {
        let (peer, inner) = either.into_inner();
        let traffic = book.of_anybody(&peer);
        (peer, StreamMuxerBox::new(CountingMuxer { inner, traffic }))
    });
    Ok(counted.boxed())
}

struct CountingMuxer {
    inner: StreamMuxerBox,
    traffic: Arc<Traffic>,
}

impl CountingMuxer {
    fn counting(&self, inner: SubstreamBox) -> CountingStream {
        CountingStream { inner, traffic: self.traffic.clone() }
    }
}

impl StreamMuxer for CountingMuxer {
    type Substream = CountingStream;
    type Error = io::Error;

    fn poll(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<StreamMuxerEvent>> {
        Pin::new(&mut self.inner).poll(context)
    }

    fn poll_inbound(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<CountingStream>> {
        let stream = ready!(Pin::new(&mut self.inner).poll_inbound(context))?;
        Poll::Ready(Ok(self.counting(stream)))
    }

    fn poll_outbound(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<CountingStream>> {
        let stream = ready!(Pin::new(&mut self.inner).poll_outbound(context))?;
        Poll::Ready(Ok(self.counting(stream)))
    }

    fn poll_close(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_close(context)
    }
}

struct CountingStream {
    inner: SubstreamBox,
    traffic: Arc<Traffic>,
}

impl AsyncRead for CountingStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let count = ready!(Pin::new(&mut self.inner).poll_read(context, buffer))?;
        self.traffic.received.fetch_add(count as u64, Ordering::Relaxed);
        Poll::Ready(Ok(count))
    }
}

impl AsyncWrite for CountingStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let count = ready!(Pin::new(&mut self.inner).poll_write(context, bytes))?;
        self.traffic.sent.fetch_add(count as u64, Ordering::Relaxed);
        Poll::Ready(Ok(count))
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(context)
    }

    fn poll_close(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_close(context)
    }
}
