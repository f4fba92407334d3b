//! Contents wanted, and who fetches them from whom.
//!
//! Each connected member with wanted contents gets up to [`LANES_MAX`] lanes: a stream and a thread
//! that take work as they become free, so that several providers share the work by their speed. A
//! content is with one lane at a time; what a lane can't get goes back, to other providers first. A
//! provider that has lied about a content is not asked for it again.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use futures::AsyncReadExt as _;
use pleach_core::vocabulary::{ContentHash, MasterId};
use tokio::runtime::Handle;
use tokio::sync::mpsc;

use super::content::{ContentRequest, ContentSink, FetchFailure};
use super::lane;
use super::peers::CONTENT;
use super::roster::lock;
use super::service::Command;
use super::shared::Shared;
use super::wire::HASHES_MAX;
use super::{NetEvent, Network};

/// How many contents are wanted at once at most.
const WANTS_MAX: usize = 1 << 17;
/// How many lanes one provider gets; one of them is kept free of large contents.
const LANES_MAX: usize = 3;
/// How many bytes one request for small contents asks for.
const BATCH_BYTES_MAX: u64 = 8 << 20;
/// Contents larger than this are fetched one by one, resumed, and drawn from older versions.
const BATCHED_BYTES_MAX: u64 = 1 << 20;
/// How long a lane without work keeps its stream.
const LINGER: Duration = Duration::from_secs(2);
/// How often one content's stream may break before the provider counts as one that lacks it.
const BREAKS_MAX: u8 = 3;
/// How often opening a stream is tried, and how long between.
const OPENS_MAX: u32 = 5;
const OPEN_AGAIN: Duration = Duration::from_millis(200);

struct Want {
    request: ContentRequest,
    tried: Vec<MasterId>,
    breaks: u8,
    taken: bool,
    without_old: bool,
}

#[derive(Default)]
struct Provider {
    small: VecDeque<ContentHash>,
    large: VecDeque<ContentHash>,
    lanes: usize,
    lanes_idle: usize,
    lanes_at_large: usize,
}

#[derive(Default)]
struct State {
    wants: HashMap<ContentHash, Want>,
    providers: BTreeMap<MasterId, Provider>,
}

/// What a lane is to fetch next.
pub(super) enum Batch {
    /// Small contents, asked for in one request.
    Small(Vec<(ContentHash, u64)>),
    /// One large content, whether or not its older version is to be made use of.
    Large(ContentRequest),
}

/// What became of a content in a lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// The provider does not have it, or not the one that was asked for.
    Lacks,
    /// The stream broke before its turn or in the midst of it.
    Broke,
    /// The older version misled.
    OldVersion,
}

/// All contents wanted.
pub(super) struct Fetcher {
    shared: Arc<Shared>,
    commands: mpsc::Sender<Command>,
    pub(super) sink: Arc<dyn ContentSink>,
    state: Mutex<State>,
    work: Condvar,
}

impl Fetcher {
    pub(super) fn new(
        shared: Arc<Shared>,
        commands: mpsc::Sender<Command>,
        sink: Arc<dyn ContentSink>,
    ) -> Arc<Self> {
        let (state, work) = (Mutex::default(), Condvar::new());
        Arc::new(Self { shared, commands, sink, state, work })
    }

    pub(super) fn fetch(self: &Arc<Self>, requests: Vec<ContentRequest>) {
        let mut failed = Vec::new();
        let mut state = lock(&self.state);
        for request in requests {
            let hash = request.hash;
            if state.wants.contains_key(&hash) {
                continue;
            }
            if state.wants.len() >= WANTS_MAX {
                failed.push((hash, FetchFailure::TooMany));
                continue;
            }
            let (tried, breaks, taken, without_old) = (Vec::new(), 0, false, false);
            state.wants.insert(hash, Want { request, tried, breaks, taken, without_old });
            if !state.enqueue(hash) {
                failed.push((hash, FetchFailure::Missing));
            }
        }
        drop(state);
        self.report(failed);
        self.staff();
    }

    pub(super) fn provider_came(self: &Arc<Self>, master: MasterId) {
        let mut state = lock(&self.state);
        state.providers.entry(master).or_default();
        let State { wants, providers } = &mut *state;
        let provider = providers.entry(master).or_default();
        for want in wants.values().filter(|want| !want.taken && want.may_come_from(master)) {
            provider.queue(&want.request);
        }
        drop(state);
        self.staff();
    }

    pub(super) fn provider_went(self: &Arc<Self>, master: MasterId) {
        let mut state = lock(&self.state);
        state.providers.remove(&master);
        let State { wants, providers } = &mut *state;
        let mut failed = Vec::new();
        wants.retain(|hash, want| {
            let hope = want.taken || providers.keys().any(|other| want.may_come_from(*other));
            if !hope {
                failed.push((*hash, FetchFailure::Missing));
            }
            hope
        });
        drop(state);
        self.work.notify_all();
        self.report(failed);
    }

    /// Work for a lane of `provider`; waits for it for a while if `wait`. None: the lane may end.
    pub(super) fn take(&self, provider: MasterId, wait: bool) -> Option<Batch> {
        let mut state = lock(&self.state);
        if let Some(batch) = state.take(provider) {
            return Some(batch);
        }
        if !wait {
            return None;
        }
        state.providers.get_mut(&provider)?.lanes_idle += 1;
        let (mut state, _) = self
            .work
            .wait_timeout_while(state, LINGER, |state| !state.has_work(provider))
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(provider) = state.providers.get_mut(&provider) {
            provider.lanes_idle = provider.lanes_idle.saturating_sub(1);
        }
        state.take(provider)
    }

    /// A lane has put a content into the sink.
    pub(super) fn done(&self, hash: ContentHash) {
        if lock(&self.state).wants.remove(&hash).is_some() {
            self.shared.events.send_blocking(NetEvent::Fetched(hash));
        }
    }

    /// A lane has small contents, verified.
    pub(super) fn arrived(&self, mut contents: Vec<(ContentHash, Arc<[u8]>)>) {
        {
            let mut state = lock(&self.state);
            contents.retain(|(hash, _)| state.wants.remove(hash).is_some());
        }
        if !contents.is_empty() {
            self.sink.prepare(&contents);
            self.shared.events.send_blocking(NetEvent::Arrived(contents));
        }
    }

    /// A lane can't put a content into the sink.
    pub(super) fn failed(&self, hash: ContentHash, failure: FetchFailure) {
        if lock(&self.state).wants.remove(&hash).is_some() {
            self.shared.events.send_blocking(NetEvent::FetchFailed(hash, failure));
        }
    }

    /// A lane of `provider` gives a content back.
    pub(super) fn give_back(self: &Arc<Self>, provider: MasterId, hash: ContentHash, fault: Fault) {
        let mut state = lock(&self.state);
        let Some(want) = state.wants.get_mut(&hash) else { return };
        want.taken = false;
        match fault {
            Fault::Lacks => want.tried.push(provider),
            Fault::OldVersion => want.without_old = true,
            Fault::Broke => {
                want.breaks += 1;
                if want.breaks % BREAKS_MAX == 0 {
                    want.tried.push(provider);
                }
            }
        }
        let hope = state.enqueue(hash);
        drop(state);
        if !hope {
            self.report(vec![(hash, FetchFailure::Missing)]);
        }
        self.staff();
    }

    /// A lane has finished with a large content.
    pub(super) fn finished_large(&self, provider: MasterId) {
        if let Some(provider) = lock(&self.state).providers.get_mut(&provider) {
            provider.lanes_at_large = provider.lanes_at_large.saturating_sub(1);
        }
        self.work.notify_all();
    }

    /// Events from where nobody may wait.
    fn report(&self, failed: Vec<(ContentHash, FetchFailure)>) {
        if failed.is_empty() {
            return;
        }
        let events = self.shared.events.clone();
        self.runtime().spawn(async move {
            for (hash, failure) in failed {
                events.send(NetEvent::FetchFailed(hash, failure)).await;
            }
        });
    }

    fn runtime(&self) -> &Handle {
        &self.shared.runtime
    }

    /// Gives lanes to the providers that have work and no idle one.
    fn staff(self: &Arc<Self>) {
        let mut hired = Vec::new();
        for (&master, provider) in &mut lock(&self.state).providers {
            let work = provider.small.len().div_ceil(HASHES_MAX) + provider.large.len();
            while provider.lanes < LANES_MAX && provider.lanes_idle + hired.len() < work {
                if hired.iter().filter(|hired| **hired == master).count() >= work {
                    break;
                }
                provider.lanes += 1;
                hired.push(master);
            }
        }
        self.work.notify_all();
        for master in hired {
            self.runtime().spawn(self.clone().open_lane(master));
        }
    }

    async fn open_lane(self: Arc<Self>, master: MasterId) {
        let network = Network {
            shared: self.shared.clone(),
            commands: self.commands.clone(),
            fetcher: self.clone(),
        };
        for _ in 0..OPENS_MAX {
            let Some((peer, connection)) = self.shared.sessions.route(master) else { break };
            match network.open(peer, connection, CONTENT).await {
                Ok(stream) => {
                    let runtime = self.runtime().clone();
                    let work = move || {
                        let (reader, writer) = stream.split();
                        lane::run(&network, master, reader, writer, &runtime);
                        network.fetcher.close_lane(master);
                    };
                    self.runtime().spawn_blocking(work);
                    return;
                }
                Err(error) => tracing::debug!(%master, %error, "no content stream"),
            }
            tokio::time::sleep(OPEN_AGAIN).await;
        }
        // No stream to be had, and no other lane: the others are asked, or the caller told.
        let abandoned: Vec<_> = {
            let mut state = lock(&self.state);
            let provider = state.providers.get_mut(&master).filter(|provider| provider.lanes <= 1);
            provider.map_or_else(Vec::new, |provider| {
                provider.small.drain(..).chain(provider.large.drain(..)).collect()
            })
        };
        for hash in abandoned {
            self.give_back(master, hash, Fault::Lacks);
        }
        self.close_lane(master);
    }

    fn close_lane(self: &Arc<Self>, master: MasterId) {
        if let Some(provider) = lock(&self.state).providers.get_mut(&master) {
            provider.lanes = provider.lanes.saturating_sub(1);
        }
        self.staff();
    }
}

impl Want {
    fn may_come_from(&self, master: MasterId) -> bool {
        let listed = &self.request.providers;
        (listed.is_empty() || listed.contains(&master)) && !self.tried.contains(&master)
    }
}

impl Provider {
    fn queue(&mut self, request: &ContentRequest) {
        match request.size <= BATCHED_BYTES_MAX {
            true => self.small.push_back(request.hash),
            false => self.large.push_back(request.hash),
        }
    }
}

impl State {
    /// Queues a content with all who may have it. If nobody may, it is no longer wanted.
    fn enqueue(&mut self, hash: ContentHash) -> bool {
        let Some(want) = self.wants.get(&hash) else { return true };
        let mut hope = false;
        for (master, provider) in &mut self.providers {
            if want.may_come_from(*master) {
                provider.queue(&want.request);
                hope = true;
            }
        }
        if !hope {
            self.wants.remove(&hash);
        }
        hope
    }

    fn has_work(&self, provider: MasterId) -> bool {
        self.providers.get(&provider).is_none_or(|provider| {
            let room_for_large = provider.lanes_at_large + 1 < LANES_MAX;
            !provider.small.is_empty() || (room_for_large && !provider.large.is_empty())
        })
    }

    /// The next batch from `master`. Queues may name what somebody else has taken or brought by now.
    fn take(&mut self, master: MasterId) -> Option<Batch> {
        let Self { wants, providers } = self;
        let provider = providers.get_mut(&master)?;
        let mut open = |hash: &ContentHash| {
            let want = wants.get_mut(hash)?;
            let free = !want.taken && want.may_come_from(master);
            want.taken |= free;
            let mut request = free.then(|| want.request.clone())?;
            if want.without_old {
                request.old_version = None;
            }
            Some(request)
        };
        let (mut batch, mut bytes) = (Vec::new(), 0);
        while batch.len() < HASHES_MAX && bytes < BATCH_BYTES_MAX {
            let Some(hash) = provider.small.pop_front() else { break };
            if let Some(request) = open(&hash) {
                bytes += request.size;
                batch.push((hash, request.size));
            }
        }
        if !batch.is_empty() {
            return Some(Batch::Small(batch));
        }
        while provider.lanes_at_large + 1 < LANES_MAX {
            let hash = provider.large.pop_front()?;
            if let Some(request) = open(&hash) {
                provider.lanes_at_large += 1;
                return Some(Batch::Large(request));
            }
        }
        None
    }
}
