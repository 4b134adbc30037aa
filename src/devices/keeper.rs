//! Keeps a device's stream open: on a thread of its own it opens, watches over and opens again.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, mpsc};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use cpal::ErrorKind;
use cpal::traits::StreamTrait;
use tokio::sync::watch;

use super::format::{Format, formats};
use super::{DevicesError, Direction, Found, HealthWatch, Hosts, silence_alsa};

/// A device must have opened by then.
const OPEN_PATIENCE: Duration = Duration::from_secs(8);
/// How long a caller waits for a lost device to come back.
const RETURN_PATIENCE: Duration = Duration::from_secs(2);
/// How often a running stream is looked at.
const CHECK_INTERVAL: Duration = Duration::from_millis(500);
/// Looks without a callback before a stream counts as dead: 1.0 to 1.5 s.
const SILENT_CHECKS: u32 = 3;
/// The same before the first callbacks: an idle null sink was measured to take 2 s until then.
const SILENT_CHECKS_AT_FIRST: u32 = 12;
/// Callbacks that may come at once, before the device runs.
const FIRST_CALLS: u64 = 2;
/// Waits between attempts to open a lost device: doubled from the first to the second.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(1));
/// A device that does not answer within this is given up, in cpal's own calls.
pub(crate) const STREAM_TIMEOUT: Duration = Duration::from_secs(1);

/// What the callbacks of one stream report; all of it without a lock.
#[derive(Debug)]
pub(crate) struct Health {
    calls: AtomicU64,
    xruns: AtomicU32,
    failure: OnceLock<cpal::Error>,
    keeper: Thread,
}

impl Health {
    /// Counts a data callback, and says how many were before it.
    pub(crate) fn called(&self) -> u64 {
        self.calls.fetch_add(1, Ordering::Relaxed)
    }

    /// Times the device ran dry, or over.
    pub(crate) fn xruns(&self) -> u32 {
        self.xruns.load(Ordering::Relaxed)
    }

    /// The error callback. ALSA was measured to call it 900,000 times a second after its server died, so
    /// only the first fatal error does anything: it wakes the keeper, which drops the stream.
    pub(crate) fn report(&self, error: cpal::Error) {
        match error.kind() {
            ErrorKind::Xrun => {
                self.xruns.fetch_add(1, Ordering::Relaxed);
            }
            ErrorKind::DeviceChanged | ErrorKind::RealtimeDenied => {}
            _ => {
                if self.failure.get().is_none() && self.failure.set(error).is_ok() {
                    self.keeper.unpark();
                }
            }
        }
    }
}

/// The streams of one device: dropped, they are closed.
pub(crate) type Streams = Vec<cpal::Stream>;

/// Opens one stream in one format, paused. `L` is what the device's user needs to reach its callbacks.
pub(crate) trait Open: Send + 'static {
    /// What the device's user needs.
    type Link: Send + Sync + 'static;
    /// Microphone or loudspeaker.
    const DIRECTION: Direction;
    /// How much sound each callback should take or bring.
    const PERIOD: Duration;

    /// Builds the stream, and others that must run with it.
    fn open(
        &self,
        found: &Found,
        format: Format,
        health: Arc<Health>,
    ) -> Result<(Streams, Self::Link), cpal::Error>;
}

/// A stream is open, or was lost.
type State<L> = Result<Arc<L>, Arc<DevicesError>>;

/// A device that is kept open until this is dropped.
#[derive(Debug)]
pub(crate) struct Keeper<L> {
    name: String,
    state: watch::Receiver<State<L>>,
    health: HealthWatch,
    orders: Arc<Orders>,
    thread: Thread,
}

#[derive(Debug, Default)]
struct Orders {
    stop: AtomicBool,
    hurry: AtomicBool,
}

impl<L: Send + Sync + 'static> Keeper<L> {
    /// Opens the device of that id or name, or the default one, and waits until it is open.
    ///
    /// # Errors
    /// Why it did not open.
    pub(crate) fn open<O: Open<Link = L>>(opener: O, wanted: Option<String>) -> Result<Self, DevicesError> {
        let called = wanted.clone().unwrap_or_else(|| format!("the default {} device", O::DIRECTION));
        let failed = |message: String| DevicesError::Failed {
            device: called.clone(),
            source: cpal::Error::with_message(ErrorKind::ResourceExhausted, message),
        };
        let (first, opened) = mpsc::sync_channel(1);
        let orders = Arc::new(Orders::default());
        let work = Work { opener, wanted, hosts: Hosts::default(), orders: orders.clone() };
        let thread = thread::Builder::new()
            .name("sound-keeper".into())
            .spawn(move || work.run(&first))
            .map_err(|error| failed(error.to_string()))?;
        let thread = thread.thread().clone();
        match opened.recv_timeout(OPEN_PATIENCE) {
            Ok(Ok((name, state, health))) => Ok(Self { name, state, health, orders, thread }),
            Ok(Err(error)) => Err(error),
            Err(_) => {
                orders.stop.store(true, Ordering::Release);
                Err(DevicesError::Silent { device: called, waited: OPEN_PATIENCE })
            }
        }
    }

    /// Waits for a device that could not be opened, as for one that was lost.
    ///
    /// # Errors
    /// The same error, when not even a thread can be had.
    pub(crate) fn await_device<O: Open<Link = L>>(
        opener: O,
        wanted: Option<String>,
        error: Arc<DevicesError>,
    ) -> Result<Self, Arc<DevicesError>> {
        let name = wanted.clone().unwrap_or_else(|| format!("the default {} device", O::DIRECTION));
        let orders = Arc::new(Orders::default());
        let mut work = Work { opener, wanted, hosts: Hosts::default(), orders: orders.clone() };
        let (trouble, health) = HealthWatch::channel(Some(crate::error_chain(&error)));
        let (state, watcher) = watch::channel(Err(error.clone()));
        let called = name.clone();
        let run = move || {
            silence_alsa();
            if let Some(opened) = work.reopen(&called, &state) {
                work.keep(opened, &called, &state, &trouble);
            }
        };
        let thread = thread::Builder::new().name("sound-keeper".into()).spawn(run).map_err(|_| error)?;
        let thread = thread.thread().clone();
        Ok(Self { name, state: watcher, health, orders, thread })
    }

    /// Whether the device works.
    pub(crate) fn health(&self) -> HealthWatch {
        self.health.clone()
    }

    /// The device's name.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// The open stream, if it is open now.
    pub(crate) fn current(&self) -> Option<Arc<L>> {
        self.state.borrow().as_ref().ok().cloned()
    }

    /// The open stream; a lost one is opened again at once, and waited for a moment.
    ///
    /// # Errors
    /// Why it was lost, or does not come back.
    pub(crate) async fn link(&mut self) -> Result<Arc<L>, Arc<DevicesError>> {
        if let Some(link) = self.current() {
            return Ok(link);
        }
        self.orders.hurry.store(true, Ordering::Release);
        self.thread.unpark();
        let opened = self.state.wait_for(|state| state.is_ok());
        // On time-out and after the thread's end alike, the state says what is wrong.
        let _ = tokio::time::timeout(RETURN_PATIENCE, opened).await;
        self.state.borrow().clone()
    }

    /// Returns when the open stream is lost, and says why.
    pub(crate) async fn lost(&mut self) -> Arc<DevicesError> {
        match self.state.wait_for(|state| state.is_err()).await.map(|state| state.clone()) {
            Ok(Err(error)) => error,
            // The keeper's thread is gone: it cannot be before this is dropped, save by a panic in it.
            _ => Arc::new(DevicesError::Silent { device: self.name.clone(), waited: Duration::ZERO }),
        }
    }
}

impl<L> Drop for Keeper<L> {
    fn drop(&mut self) {
        self.orders.stop.store(true, Ordering::Release);
        self.thread.unpark();
    }
}

struct Work<O> {
    opener: O,
    wanted: Option<String>,
    hosts: Hosts,
    orders: Arc<Orders>,
}

type First<L> = Result<(String, watch::Receiver<State<L>>, HealthWatch), DevicesError>;
/// An open stream, and its health.
type Opened = (Streams, Arc<Health>);

impl<O: Open> Work<O> {
    fn run(mut self, first: &mpsc::SyncSender<First<O::Link>>) {
        silence_alsa();
        let (streams, link, health, name) = match self.open() {
            Ok(opened) => opened,
            Err(error) => {
                // Nobody waits any more if this fails.
                let _ = first.send(Err(error));
                return;
            }
        };
        let (state, watcher) = watch::channel(Ok(Arc::new(link)));
        let (trouble, watch) = HealthWatch::channel(None);
        if first.send(Ok((name.clone(), watcher, watch))).is_err() {
            return dispose(streams);
        }
        self.keep((streams, health), &name, &state, &trouble);
    }

    /// Watches over an open stream, and opens it again whenever it is lost, until all is to stop.
    fn keep(
        &mut self,
        mut opened: Opened,
        name: &str,
        state: &watch::Sender<State<O::Link>>,
        trouble: &watch::Sender<Option<String>>,
    ) {
        loop {
            let (streams, health) = opened;
            let Some(error) = self.watch(&health, name, trouble) else { return dispose(streams) };
            tracing::warn!(device = name, %error, "the sound device is lost; opening it again");
            trouble.send_replace(Some(crate::error_chain(&error)));
            state.send_modify(|state| *state = Err(Arc::new(error)));
            dispose(streams);
            match self.reopen(name, state) {
                Some(again) => opened = again,
                None => return,
            }
        }
    }

    /// Opens the device as soon as it can be; `None` when all is to stop.
    fn reopen(&mut self, name: &str, state: &watch::Sender<State<O::Link>>) -> Option<Opened> {
        let mut wait = BACKOFF.0;
        loop {
            self.pause(wait);
            if self.stopped() {
                return None;
            }
            match self.open() {
                Ok((streams, link, health, _)) => {
                    tracing::info!(device = name, "the sound device is back");
                    state.send_modify(|state| *state = Ok(Arc::new(link)));
                    return Some((streams, health));
                }
                Err(error) => {
                    tracing::debug!(device = name, %error, "the sound device is still lost");
                    state.send_modify(|state| *state = Err(Arc::new(error)));
                }
            }
            wait = (wait * 2).min(BACKOFF.1);
        }
    }

    fn stopped(&self) -> bool {
        self.orders.stop.load(Ordering::Acquire)
    }

    #[allow(clippy::type_complexity)]
    fn open(&mut self) -> Result<(Streams, O::Link, Arc<Health>, String), DevicesError> {
        let found = self.hosts.find(O::DIRECTION, self.wanted.as_deref())?;
        let mut refusal = DevicesError::Format { device: found.name.clone() };
        for format in formats(&found, O::DIRECTION, O::PERIOD).map_err(|error| self.explain(&found, error))? {
            let health = Arc::new(Health {
                calls: AtomicU64::new(0),
                xruns: AtomicU32::new(0),
                failure: OnceLock::new(),
                keeper: thread::current(),
            });
            let started = self.opener.open(&found, format, health.clone()).and_then(|(streams, link)| {
                streams.iter().try_for_each(StreamTrait::play)?;
                Ok((streams, link))
            });
            match started {
                Ok((streams, link)) => return Ok((streams, link, health, found.name)),
                Err(source) => refusal = DevicesError::Failed { device: found.name.clone(), source },
            }
        }
        Err(self.explain(&found, refusal))
    }

    /// ALSA always has a default device; that none is behind it shows when it is opened.
    fn explain(&self, found: &Found, error: DevicesError) -> DevicesError {
        match error {
            DevicesError::Failed { source, .. }
                if self.wanted.is_none() && found.host == cpal::HostId::Alsa =>
            {
                DevicesError::None { direction: O::DIRECTION, source: Some(source) }
            }
            other => other,
        }
    }

    /// Returns when the stream is dead, with the reason, or when all is to stop.
    fn watch(
        &self,
        health: &Health,
        name: &str,
        trouble: &watch::Sender<Option<String>>,
    ) -> Option<DevicesError> {
        let (mut seen, mut silent) = (0, 0);
        loop {
            thread::park_timeout(CHECK_INTERVAL);
            if self.stopped() {
                return None;
            }
            if let Some(source) = health.failure.get() {
                return Some(DevicesError::Failed { device: name.into(), source: source.clone() });
            }
            let calls = health.calls.load(Ordering::Relaxed);
            silent = if calls == seen { silent + 1 } else { 0 };
            seen = calls;
            if calls > FIRST_CALLS {
                // Open is not enough: it runs.
                trouble.send_if_modified(|fault| fault.take().is_some());
            }
            let limit = if calls <= FIRST_CALLS { SILENT_CHECKS_AT_FIRST } else { SILENT_CHECKS };
            if silent >= limit {
                return Some(DevicesError::Silent { device: name.into(), waited: CHECK_INTERVAL * limit });
            }
        }
    }

    /// Waits, unless someone needs the device now.
    fn pause(&self, wait: Duration) {
        let end = Instant::now() + wait;
        while !self.stopped() && !self.orders.hurry.swap(false, Ordering::AcqRel) {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            thread::park_timeout(left);
        }
    }
}

/// Closes streams elsewhere: closing waits for the sound server, and a server that hangs never answers.
fn dispose(streams: Streams) {
    thread::spawn(move || drop(streams));
}
