//! Keeps a device's stream open: a thread of its own opens it, watches it, and opens it again.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use cpal::ErrorKind;
use cpal::traits::StreamTrait;
use tokio::sync::watch;

use super::format::{Format, formats};
use super::health::{Health, HealthSigns};
use super::standing::{Finding, Standing};
use super::{DevicesError, Direction, Found, HealthWatch, Hosts, silence_alsa};
use crate::wire::UNMUTED_BY_EMERGENCIES;

/// How long a device may take to open.
const OPEN_PATIENCE: Duration = Duration::from_secs(8);
/// How long a caller waits for a lost device to come back.
const RETURN_PATIENCE: Duration = Duration::from_secs(2);
/// How often a running stream is checked.
const CHECK_INTERVAL: Duration = Duration::from_millis(500);
/// Checks without a callback before a stream counts as dead: 1.0 to 1.5 s.
const SILENT_CHECKS: u32 = 3;
/// The same before the first callbacks: an idle null sink was measured to take 2 s to make them.
const SILENT_CHECKS_AT_FIRST: u32 = 12;
/// Callbacks that may come at once, before the device runs.
const FIRST_CALLS: u64 = 2;
/// How long the errors of a new ALSA stream do not count: the plugin for PulseAudio fails when it is asked for its delay before
/// the server has reported one. `cpal` continues all the same, and reports a lasting error again and again.
const ALSA_YOUTH: Duration = Duration::from_millis(250);
/// Pauses between attempts to open a lost device: doubled from the first to the second.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(1));
/// A device that does not answer within this time is given up, in cpal's own calls.
pub(crate) const STREAM_TIMEOUT: Duration = Duration::from_secs(1);

/// The streams of one device: dropping them closes them.
pub(crate) type Streams = Vec<cpal::Stream>;

/// Opens one stream in one format, paused.
pub(crate) trait Open: Send + 'static {
    /// What the device's user needs to reach the stream's callbacks.
    type Link: Send + Sync + 'static;
    /// Microphone or loudspeaker.
    const DIRECTION: Direction;
    /// How much sound each callback should take or deliver.
    const PERIOD: Duration;

    /// Whether [`Keeper::open_up`] may be called.
    fn may_open_up(&self) -> bool {
        false
    }

    /// Builds the stream, and others that must run with it.
    fn open(
        &self,
        found: &Found,
        format: Format,
        health: Arc<Health>,
    ) -> Result<(Streams, Self::Link), cpal::Error>;
}

/// An open stream, or why it was lost.
type State<L> = Result<Arc<L>, Arc<DevicesError>>;

/// The current state, and the losses so far: a stream that was lost only for a moment was lost all the same.
#[derive(Debug)]
struct Condition<L> {
    state: State<L>,
    /// How often the stream was lost, and why the last time.
    losses: u64,
    loss: Option<Arc<DevicesError>>,
}

impl<L> Condition<L> {
    fn new(state: State<L>) -> Self {
        Self { state, losses: 0, loss: None }
    }

    fn lose(&mut self, error: DevicesError) {
        let error = Arc::new(error);
        self.losses += 1;
        self.loss = Some(error.clone());
        self.state = Err(error);
    }
}

/// A device that is kept open until this is dropped.
#[derive(Debug)]
pub(crate) struct Keeper<L> {
    name: String,
    state: watch::Receiver<Condition<L>>,
    /// The number of losses when [`Self::link`] last returned.
    losses: u64,
    health: HealthWatch,
    orders: Arc<Orders>,
    thread: Thread,
}

#[derive(Debug, Default)]
struct Orders {
    stop: AtomicBool,
    hurry: AtomicBool,
    open_up: AtomicBool,
}

impl<L: Send + Sync + 'static> Keeper<L> {
    /// Opens the device with this id or name, or the default one, and waits until it is open.
    ///
    /// # Errors
    /// Why the device did not open.
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
            Ok(Ok((name, state, health))) => Ok(Self { name, state, losses: 0, health, orders, thread }),
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
    /// The error passed in, if no thread can be started.
    pub(crate) fn await_device<O: Open<Link = L>>(
        opener: O,
        wanted: Option<String>,
        error: Arc<DevicesError>,
    ) -> Result<Self, Arc<DevicesError>> {
        let name = wanted.clone().unwrap_or_else(|| format!("the default {} device", O::DIRECTION));
        let orders = Arc::new(Orders::default());
        let mut work = Work { opener, wanted, hosts: Hosts::default(), orders: orders.clone() };
        let (health, watch) = HealthWatch::signs(Some(crate::error_chain(&error)));
        let (state, watcher) = watch::channel(Condition::new(Err(error.clone())));
        let called = name.clone();
        let run = move || {
            silence_alsa();
            let signs = Signs { state, health };
            if let Some(opened) = work.reopen(&called, &signs) {
                work.keep(opened, &called, &signs);
            }
        };
        let thread = thread::Builder::new().name("sound-keeper".into()).spawn(run).map_err(|_| error)?;
        let thread = thread.thread().clone();
        Ok(Self { name, state: watcher, losses: 0, health: watch, orders, thread })
    }

    /// Returns a watch on whether the device works.
    pub(crate) fn health(&self) -> HealthWatch {
        self.health.clone()
    }

    /// The device's name.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Returns the open stream, if it is open now.
    pub(crate) fn current(&self) -> Option<Arc<L>> {
        self.state.borrow().state.as_ref().ok().cloned()
    }

    /// Returns the open stream; a lost one is opened again at once, and waited for briefly.
    ///
    /// # Errors
    /// Why it was lost, or does not come back.
    pub(crate) async fn link(&mut self) -> Result<Arc<L>, Arc<DevicesError>> {
        if self.current().is_none() {
            self.orders.hurry.store(true, Ordering::Release);
            self.thread.unpark();
            let opened = self.state.wait_for(|condition| condition.state.is_ok());
            // After a time-out, and after the thread's end, the state says what is wrong.
            let _ = tokio::time::timeout(RETURN_PATIENCE, opened).await;
        }
        let condition = self.state.borrow();
        self.losses = condition.losses;
        condition.state.clone()
    }

    /// Opens up whatever mutes the device or turns it down too far. [`Self::link`] waits for that.
    pub(crate) fn open_up(&self) {
        self.orders.open_up.store(true, Ordering::Release);
        self.thread.unpark();
    }

    /// Returns why the stream from [`Self::link`] was lost or muted, as soon as it is, even if only for a moment.
    pub(crate) async fn lost(&mut self) -> Arc<DevicesError> {
        let known = self.losses;
        let lost = self.state.wait_for(|it| it.state.is_err() || it.losses != known).await;
        match lost.map(|condition| (condition.state.clone(), condition.loss.clone())) {
            Ok((Err(error), _) | (Ok(_), Some(error))) => error,
            // The keeper's thread is gone: while this exists, only a panic in the thread can cause that.
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

type First<L> = Result<(String, watch::Receiver<Condition<L>>, HealthWatch), DevicesError>;

/// An open stream, and what belongs to it.
struct Opened<L> {
    streams: Streams,
    link: Arc<L>,
    health: Arc<Health>,
    standing: Standing,
}

/// The senders that report the state to the device's user.
struct Signs<L> {
    state: watch::Sender<Condition<L>>,
    health: HealthSigns,
}

impl<L> Signs<L> {
    fn is_faulty(&self, error: DevicesError, reason: String) {
        self.health.fault.send_replace(Some(reason));
        self.state.send_modify(|condition| condition.lose(error));
    }

    /// Reports that the stream is open and runs; what is odd about it is reported once.
    fn is_healthy(&self, link: &Arc<L>, warning: &Option<String>) {
        self.state.send_if_modified(|condition| {
            let was_faulty = condition.state.is_err();
            if was_faulty {
                condition.state = Ok(link.clone());
            }
            was_faulty
        });
        self.health.fault.send_if_modified(|fault| fault.take().is_some());
        self.health.warning.send_if_modified(|told| {
            let is_new = told.is_none() && warning.is_some();
            told.clone_from(warning);
            is_new
        });
    }
}

impl<O: Open> Work<O> {
    fn run(mut self, first: &mpsc::SyncSender<First<O::Link>>) {
        silence_alsa();
        let (opened, name) = match self.open() {
            Ok(opened) => opened,
            Err(error) => {
                // If this fails, nobody waits any more.
                let _ = first.send(Err(error));
                return;
            }
        };
        let (state, watcher) = watch::channel(Condition::new(Ok(opened.link.clone())));
        let (health, watch) = HealthWatch::signs(None);
        if first.send(Ok((name.clone(), watcher, watch))).is_err() {
            return dispose(opened.streams);
        }
        self.keep(opened, &name, &Signs { state, health });
    }

    /// Watches an open stream, and opens it again whenever it is lost, until the keeper stops.
    fn keep(&mut self, mut opened: Opened<O::Link>, name: &str, signs: &Signs<O::Link>) {
        loop {
            let lost = self.watch(&mut opened, signs);
            let Some(error) = lost else { return dispose(opened.streams) };
            tracing::warn!(device = name, %error, "the sound device is lost; opening it again");
            let reason = crate::error_chain(&error);
            signs.is_faulty(error, reason);
            dispose(opened.streams);
            match self.reopen(name, signs) {
                Some(again) => opened = again,
                None => return,
            }
        }
    }

    /// Opens the device as soon as possible; `None` when the keeper stops.
    fn reopen(&mut self, name: &str, signs: &Signs<O::Link>) -> Option<Opened<O::Link>> {
        let mut wait = BACKOFF.0;
        loop {
            self.pause(wait);
            if self.stopped() {
                return None;
            }
            match self.open() {
                Ok((opened, _)) => {
                    tracing::info!(device = name, "the sound device is back");
                    signs.state.send_modify(|it| it.state = Ok(opened.link.clone()));
                    return Some(opened);
                }
                Err(error) => {
                    tracing::debug!(device = name, %error, "the sound device is still lost");
                    signs.state.send_modify(|it| it.state = Err(Arc::new(error)));
                }
            }
            wait = (wait * 2).min(BACKOFF.1);
        }
    }

    fn stopped(&self) -> bool {
        self.orders.stop.load(Ordering::Acquire)
    }

    /// Opens the stream, and returns it with the device's name.
    fn open(&mut self) -> Result<(Opened<O::Link>, String), DevicesError> {
        let found = self.hosts.find(O::DIRECTION, self.wanted.as_deref())?;
        let mut refusal = DevicesError::Format { device: found.name.clone() };
        let youth = if found.host == cpal::HostId::Alsa { ALSA_YOUTH } else { Duration::ZERO };
        for format in formats(&found, O::DIRECTION, O::PERIOD).map_err(|error| self.explain(&found, error))? {
            let health = Arc::new(Health::new(thread::current(), youth));
            let started = self.opener.open(&found, format, health.clone()).and_then(|(streams, link)| {
                streams.iter().try_for_each(StreamTrait::play)?;
                Ok((streams, link))
            });
            match started {
                Ok((streams, link)) => {
                    let standing = Standing::new(&found, O::DIRECTION, self.wanted.is_some());
                    return Ok((Opened { streams, link: Arc::new(link), health, standing }, found.name));
                }
                Err(source) => refusal = DevicesError::Failed { device: found.name.clone(), source },
            }
        }
        Err(self.explain(&found, refusal))
    }

    /// ALSA always has a default device; only opening it shows that no device is behind it.
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

    /// Returns when the stream is dead or astray, with the reason, or when the keeper stops.
    fn watch(&self, opened: &mut Opened<O::Link>, signs: &Signs<O::Link>) -> Option<DevicesError> {
        let Opened { link, health, standing, .. } = opened;
        let name = standing.name().to_owned();
        let (mut seen, mut silent, mut open) = (0, 0, None);
        let mut opens_up = false;
        let mut next_check = Instant::now() + CHECK_INTERVAL;
        loop {
            if self.stopped() {
                return None;
            }
            if let Some(source) = health.failure() {
                return Some(match standing.is_gone() {
                    true => DevicesError::Gone { device: name },
                    false => DevicesError::Failed { device: name, source: source.clone() },
                });
            }
            if self.orders.open_up.swap(false, Ordering::AcqRel) {
                opens_up = true;
                standing.open_up();
            }
            let calls = health.calls();
            match standing.look(health.stream()) {
                Some(Finding::Astray(error)) => return Some(error),
                Some(Finding::Shut(error)) => {
                    open = None;
                    if opens_up {
                        standing.open_up();
                    }
                    let mut reason = crate::error_chain(&error);
                    if self.opener.may_open_up() {
                        reason.push_str(UNMUTED_BY_EMERGENCIES);
                    }
                    if signs.health.fault.borrow().as_ref() != Some(&reason) {
                        tracing::warn!(device = name, %error, "nothing gets through to the sound device");
                        signs.is_faulty(error, reason);
                    }
                }
                Some(Finding::Open(warning)) => (open, opens_up) = (Some(warning), false),
                None => (),
            }
            // Being open is not enough: it must run.
            if let Some(warning) = open.as_ref().filter(|_| calls > FIRST_CALLS) {
                signs.is_healthy(link, warning);
            }
            let now = Instant::now();
            if now >= next_check {
                next_check = now + CHECK_INTERVAL;
                silent = if calls == seen { silent + 1 } else { 0 };
                seen = calls;
                let limit = if calls <= FIRST_CALLS { SILENT_CHECKS_AT_FIRST } else { SILENT_CHECKS };
                if silent >= limit {
                    return Some(DevicesError::Silent { device: name, waited: CHECK_INTERVAL * limit });
                }
            }
            let wait = next_check - now;
            thread::park_timeout(standing.rest().map_or(wait, |rest| rest.min(wait)));
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

/// Closes streams on another thread: closing waits for the sound server, and a server that hangs never answers.
fn dispose(streams: Streams) {
    thread::spawn(move || drop(streams));
}
