//! Events on their way to the driver: bounded in number, and received messages in bytes.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};

use super::NetEvent;

/// What the network tells the driver, in order.
#[derive(Debug)]
pub struct NetEvents {
    queue: mpsc::Receiver<(NetEvent, Option<OwnedSemaphorePermit>)>,
    stopped: watch::Receiver<bool>,
}

impl NetEvents {
    /// The next event; none once the network has stopped and all events are taken. May be
    /// cancelled without losing one.
    pub async fn recv(&mut self) -> Option<NetEvent> {
        let stopped = async { drop(self.stopped.wait_for(|stopped| *stopped).await) };
        let next = tokio::select! {
            biased;
            next = self.queue.recv() => next,
            () = stopped => self.queue.try_recv().ok(),
        };
        next.map(|(event, _room)| event)
    }

    /// The next event, if one is waiting.
    pub fn try_recv(&mut self) -> Option<NetEvent> {
        self.queue.try_recv().ok().map(|(event, _room)| event)
    }
}

/// Where events are put.
#[derive(Clone, Debug)]
pub(super) struct EventSender {
    queue: mpsc::Sender<(NetEvent, Option<OwnedSemaphorePermit>)>,
    bytes: Arc<Semaphore>,
    stopped: Arc<watch::Sender<bool>>,
}

pub(super) fn channel(events_max: usize, bytes_max: usize) -> (EventSender, NetEvents) {
    let (sender, queue) = mpsc::channel(events_max);
    let (stop, stopped) = watch::channel(false);
    let bytes = Arc::new(Semaphore::new(bytes_max));
    let sender = EventSender { queue: sender, bytes, stopped: Arc::new(stop) };
    (sender, NetEvents { queue, stopped })
}

impl EventSender {
    /// Waits until there is room for a received message of `bytes`.
    pub(super) async fn room(&self, bytes: usize) -> Option<OwnedSemaphorePermit> {
        let permits = u32::try_from(bytes).ok()?;
        self.bytes.clone().acquire_many_owned(permits).await.ok()
    }

    /// Room for a received message of `bytes`, if there is some now.
    pub(super) fn room_now(&self, bytes: usize) -> Option<OwnedSemaphorePermit> {
        let permits = u32::try_from(bytes).ok()?;
        self.bytes.clone().try_acquire_many_owned(permits).ok()
    }

    /// Waits for a place and puts `event` there. An event nobody will ever take is dropped.
    pub(super) async fn send(&self, event: NetEvent) {
        let _ = self.queue.send((event, None)).await;
    }

    /// The same for a received message, which holds on to its room until it is taken.
    pub(super) async fn send_holding(&self, event: NetEvent, room: OwnedSemaphorePermit) {
        let _ = self.queue.send((event, Some(room))).await;
    }

    /// Puts `event` there if there is a place now.
    pub(super) fn try_send(&self, event: NetEvent) {
        let _ = self.queue.try_send((event, None));
    }

    /// The same as [`EventSender::send`], from a blocking thread.
    pub(super) fn send_blocking(&self, event: NetEvent) {
        let _ = self.queue.blocking_send((event, None));
    }

    /// Returns once nobody takes events any more.
    pub(super) async fn abandoned(&self) {
        self.queue.closed().await;
    }

    /// The network has stopped: whoever waits for events need not.
    pub(super) fn stop(&self) {
        self.stopped.send_replace(true);
    }
}
