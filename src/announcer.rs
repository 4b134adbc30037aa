//! The announcer: a key press → record → send → collect receipts → verdict.

mod connection;
mod door;
mod room;

use std::collections::{HashMap, HashSet};
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior, sleep, sleep_until};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::archive::Archive;
use crate::clip::{self, Clip, ClipError};
use crate::clip_cipher::{ClipCipherError, SealedClip};
use crate::devices::HealthWatch;
use crate::event::{Command, Event, Events};
use crate::keys::Admitted;
use crate::link::{LinkError, Peer};
use crate::microphone::{Microphone, MicrophoneError};
use crate::outbox::{Kept, Outbox, OutboxError};
use crate::sample::Sound;
use crate::site::Site;
use crate::stations::{Action, ConnectionId, Delivery, Hello, Order, Pace, Restored, Stations};
use crate::wire::{self, BLOCK_BYTES, ClipHeader, ClipId, WireError};
use connection::{AnnouncerClock, Host, Report};
use door::Door;
use room::{Room, Spare};

/// The clip's length where neither the user nor a file gives one.
pub const DEFAULT_LENGTH: Duration = Duration::from_secs(5);
/// The most stations that listen at once unless `--max-stations` says otherwise.
pub const DEFAULT_MAX_STATIONS: usize = 10_000;
/// The most that `--max-stations` may say: as many as can join.
pub const MAX_STATIONS: usize = crate::keys::MAX_STATIONS;
/// Reports that may wait for the desk; connections wait when there are more.
const MAX_WAITING_REPORTS: usize = 1_024;
/// A clip lives at least this long, so that it reaches those who are here.
const MIN_LIFE: Duration = Duration::from_secs(10);
/// How long to wait after the system refused a connection (no file descriptors, no memory).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How often that is logged.
const ACCEPT_WARNING_INTERVAL: Duration = Duration::from_secs(10);
/// How often the announcer looks whether a station was removed.
const SITE_WATCH_INTERVAL: Duration = Duration::from_millis(250);
/// How often it writes down who is here.
const SAVE_SEEN_INTERVAL: Duration = Duration::from_secs(60);
/// How long connections have to end when the announcer leaves.
const LEAVE_DEADLINE: Duration = Duration::from_secs(1);
/// How long a clip waits for the disk before it is sent all the same.
const STORE_PATIENCE: Duration = Duration::from_secs(1);
/// How far ahead of this run's clock a kept clip may be dated: the clock's steps, and no more.
const DATE_SLACK: Duration = Duration::from_secs(2);
/// The most addresses of strangers remembered, so that each is logged once.
const MAX_STRANGERS: usize = 1_024;

/// Why the announcer cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum AnnouncerError {
    /// The listening socket cannot be asked for its address.
    #[error("cannot tell which address the announcer listens on")]
    Listener(#[source] io::Error),
    /// The system gives no random numbers.
    #[error("the system gives no random numbers")]
    Random(#[source] getrandom::Error),
}

/// How to announce.
#[derive(Debug)]
pub struct Config {
    /// The clip's length; without it a file's own, or [`DEFAULT_LENGTH`].
    pub length: Option<Duration>,
    /// Samples a second of every clip, [`clip::MIN_RATE_HZ`] to [`clip::MAX_RATE_HZ`]; without it the
    /// microphone's own.
    pub rate_hz: Option<u32>,
    /// The most stations that listen at once; further ones are refused.
    pub max_stations: usize,
    /// The zones announcements are for; none means all stations.
    pub zones: Vec<String>,
    /// How long a clip is kept for stations that are away; zero for not at all.
    pub keep: Duration,
    /// How long the others are waited for once half of the stations have the clip.
    pub wait: Duration,
    /// Wait for so many stations, announce once and leave.
    pub once: Option<usize>,
    /// Commands are lines: each announces, one after the other. Otherwise a command to announce
    /// while recording does nothing.
    pub lines: bool,
    /// Who may listen and on whose behalf is spoken; without it anybody may do either.
    pub site: Option<Arc<Site>>,
    /// Where announcements are archived.
    pub archive: Option<Archive>,
}

/// What came of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Summary {
    /// Every announcement was played by every station that should have, and with
    /// [`Config::once`] by one at least.
    pub all_heard: bool,
}

/// Runs the announcer until it is told to leave, its commands end, or it has announced once.
/// A recording in progress is dropped when `shutdown` is cancelled; announcements on their way are
/// seen through to their verdict.
///
/// # Errors
/// [`AnnouncerError`]; a failing microphone or station never ends it.
pub async fn run(
    listener: TcpListener,
    microphone: Microphone,
    config: Config,
    commands: mpsc::Receiver<Command>,
    events: Events,
    shutdown: CancellationToken,
) -> Result<Summary, AnnouncerError> {
    let address = listener.local_addr().map_err(AnnouncerError::Listener)?;
    let clock =
        AnnouncerClock { base: Instant::now(), id: getrandom::u64().map_err(AnnouncerError::Random)? };
    let (reports, inbox) = mpsc::channel(MAX_WAITING_REPORTS);
    let tasks = TaskTracker::new();
    let closing = CancellationToken::new();
    let host = Host { clock, site: config.site.clone(), desk: reports };
    let (room, warning) = Room::make(config.max_stations);
    tasks.spawn(accept(listener, room, host, tasks.clone(), closing.clone()));
    events.tell(Event::Listening { address: address.to_string() });
    if let Some(message) = warning {
        events.tell(Event::Warning { message });
    }
    let mut stations = Stations::new(room.stations, !config.keep.is_zero(), config.site.is_some())
        .with_straggler_wait(config.wait);
    for station in config.site.iter().flat_map(|site| site.stations()) {
        stations.expect(station.name, station.zones);
    }
    let start_unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let (outbox, kept) = match &config.site {
        Some(site) => open_outbox(site, &events),
        None => (None, Vec::new()),
    };
    let microphone_health = microphone.health();
    let mut desk = Desk {
        stations,
        epoch: match &config.site {
            Some(site) => site.epoch(),
            None => new_epoch(start_unix)?,
        },
        config,
        events,
        start_unix,
        start: clock.base,
        last_sequence: 0,
        orders: HashMap::new(),
        strangers: HashSet::new(),
        input: microphone.name().to_owned(),
        microphone: Some(microphone),
        microphone_health,
        recording: None,
        cancel: CancellationToken::new(),
        leaving: false,
        seen_saved: clock.base,
        outbox: outbox.map(Arc::new),
        unstored: HashSet::new(),
        announced: 0,
        all_heard: true,
    };
    kept.into_iter().for_each(|kept| desk.restore(kept));
    let summary = desk.run(inbox, commands, shutdown).await;
    closing.cancel();
    tasks.close();
    // A connection that does not end in time has lost nothing: every verdict is given.
    let _ = tokio::time::timeout(LEAVE_DEADLINE, tasks.wait()).await;
    Ok(summary)
}

/// The outbox, and what is in it. A disk that cannot be used is told, and stops nothing.
fn open_outbox(site: &Site, events: &Events) -> (Option<Outbox>, Vec<Kept>) {
    match Outbox::open(site.folder(), events.clone()) {
        Ok((outbox, kept)) => (Some(outbox), kept),
        Err(error) => {
            let message = format!(
                "announcements are not kept on the disk, and would not survive a restart: {}",
                crate::error_chain(&error)
            );
            events.tell(Event::Warning { message });
            (None, Vec::new())
        }
    }
}

/// Seconds since 1970 and random bits: later runs have greater numbers, and two within one second
/// different ones.
fn new_epoch(start_unix: Duration) -> Result<u64, AnnouncerError> {
    let random = getrandom::u32().map_err(AnnouncerError::Random)?;
    Ok(start_unix.as_secs() << 32 | u64::from(random))
}

async fn accept(
    listener: TcpListener,
    room: Room,
    host: Host,
    tasks: TaskTracker,
    closing: CancellationToken,
) {
    let door = Door::new(room.strangers);
    let mut spare = Spare::new();
    let mut warned: Option<Instant> = None;
    let mut connection: ConnectionId = 0;
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = closing.cancelled() => return,
        };
        match accepted {
            Ok((stream, address)) => {
                let Some(place) = door.enter_soon(address.ip()).await else {
                    connection::turn_away(&stream, host.site.is_some());
                    continue;
                };
                connection += 1;
                let serve = connection::serve(stream, address, connection, place, host.clone());
                let closing = closing.clone();
                tasks.spawn(async move {
                    tokio::select! { () = serve => (), () = closing.cancelled() => () }
                });
            }
            Err(error) => {
                if warned.is_none_or(|at| at.elapsed() >= ACCEPT_WARNING_INTERVAL) {
                    tracing::warn!(%error, "cannot accept a station just now");
                    warned = Some(Instant::now());
                }
                match spare.accept(&listener, &error).await {
                    Some(refused) => {
                        let stream = refused.stream();
                        stream.inspect(|stream| connection::turn_away(stream, host.site.is_some()));
                    }
                    None => sleep(ACCEPT_PAUSE).await,
                }
            }
        }
    }
}

type Recording = JoinHandle<(Microphone, Option<Result<Recorded, RecordError>>)>;

/// What a clip is to be made of, beside its sound.
struct Recipe {
    id: ClipId,
    zones: Vec<String>,
    life: Duration,
    start: Instant,
    /// The wall clock at the start: with monotonic time since, a clock that jumps changes nothing.
    start_unix: Duration,
    rate_hz: Option<u32>,
    site: Option<Arc<Site>>,
}

/// A recording, ready to be sent.
struct Recorded {
    header: ClipHeader,
    clip: Clip,
    peak_db: f32,
    delivery: Delivery,
    expires: Instant,
    /// Whether it is in the outbox; `None` where there is none.
    stored: Option<Result<(), OutboxError>>,
}

impl Recipe {
    fn make(self, sound: &Sound) -> Result<Recorded, RecordError> {
        let peak_db = clip::peak_db(&sound.samples);
        let clip = Clip::encode_at(sound, self.rate_hz.unwrap_or(sound.rate_hz))?;
        let now = Instant::now();
        let created = self.start_unix + (now - self.start);
        let header = ClipHeader {
            id: self.id,
            created_unix_ms: created.as_millis() as u64,
            expires_unix_ms: (created + self.life).as_millis() as u64,
            format: clip.format(),
            sha256: *clip.sha256(),
            zones: self.zones,
        };
        let encoded = header.encode();
        let signature = self.site.as_ref().map(|site| site.sign(&encoded)).unwrap_or_default();
        let delivery = delivery(&header, encoded, signature, &clip, self.site.is_some())?;
        Ok(Recorded { header, clip, peak_db, delivery, expires: now + self.life, stored: None })
    }
}

/// A clip ready for the wire; sealed under a new key unless the announcer runs open.
fn delivery(
    header: &ClipHeader,
    encoded: Vec<u8>,
    signature: Vec<u8>,
    clip: &Clip,
    is_secured: bool,
) -> Result<Delivery, ClipCipherError> {
    let blocks = if is_secured { Some(SealedClip::seal(clip.wav(), BLOCK_BYTES)?) } else { None };
    Ok(Delivery {
        id: header.id,
        header: encoded,
        signature,
        frames: match &blocks {
            Some(sealed) => wire::block_frames(sealed.blocks()),
            None => wire::block_frames(clip.wav().chunks(BLOCK_BYTES)),
        },
        key: blocks.map(|sealed| sealed.key().clone()),
        pace: Pace::default(),
        length: header.format.length(),
        sound_frames: header.format.frames().into(),
        zones: header.zones.clone(),
    })
}

#[derive(Debug, thiserror::Error)]
enum RecordError {
    #[error("the microphone failed")]
    Microphone(#[from] MicrophoneError),
    #[error("the recording cannot be made a clip")]
    Clip(#[from] ClipError),
    #[error("the clip cannot be sealed")]
    Seal(#[from] ClipCipherError),
}

/// Where everything comes together: one task that owns the roster and the microphone.
struct Desk {
    stations: Stations,
    config: Config,
    events: Events,
    start_unix: Duration,
    start: Instant,
    epoch: u64,
    last_sequence: u64,
    orders: HashMap<ConnectionId, mpsc::Sender<Order>>,
    strangers: HashSet<IpAddr>,
    /// The microphone's name.
    input: String,
    microphone: Option<Microphone>,
    microphone_health: HealthWatch,
    recording: Option<Recording>,
    cancel: CancellationToken,
    leaving: bool,
    seen_saved: Instant,
    /// Clips on the disk; none in open mode.
    outbox: Option<Arc<Outbox>>,
    /// Clips that are not there.
    unstored: HashSet<ClipId>,
    announced: usize,
    all_heard: bool,
}

impl Desk {
    async fn run(
        mut self,
        mut inbox: mpsc::Receiver<Report>,
        mut commands: mpsc::Receiver<Command>,
        shutdown: CancellationToken,
    ) -> Summary {
        let mut tick: Option<Instant> = None;
        let mut told_to_leave = false;
        let mut site_watch = tokio::time::interval(SITE_WATCH_INTERVAL);
        site_watch.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            self.carry_out();
            let due = self.stations.next_tick(Instant::now());
            tick = match (tick, due) {
                (Some(set), Some(due)) => Some(set.min(due)),
                (_, due) => due,
            };
            self.announce_once_when_ready();
            if self.leaving && self.recording.is_none() && self.stations.is_settled() {
                let enough = self.config.once.is_none() || self.announced > 0;
                self.save_seen();
                self.close().await;
                return Summary { all_heard: self.all_heard && enough };
            }
            let listens = !(self.leaving || self.config.lines && self.recording.is_some());
            tokio::select! {
                Some(report) = inbox.recv() => self.report(report),
                command = commands.recv(), if listens => match command {
                    Some(Command::Announce) => self.record(),
                    Some(Command::Cancel) => self.cancel.cancel(),
                    Some(Command::Leave) | None => self.leave(),
                },
                finished = finished(&mut self.recording) => self.recorded(finished),
                () = self.microphone_health.changed() => self.tell_microphone(),
                _ = site_watch.tick(), if self.config.site.is_some() => self.keep_site(),
                () = at(tick) => {
                    tick = None;
                    self.stations.tick(Instant::now());
                }
                () = shutdown.cancelled(), if !told_to_leave => {
                    told_to_leave = true;
                    self.cancel.cancel();
                    self.leaving = true;
                }
            }
        }
    }

    /// Takes up a clip that an earlier run left in the outbox.
    fn restore(&mut self, kept: Kept) {
        let Kept { header, encoded, signature, clip, known, settled } = kept;
        let now = Instant::now();
        let now_unix = self.start_unix + (now - self.start);
        let is_dated_ahead = header.created_unix_ms > (now_unix + DATE_SLACK).as_millis() as u64;
        let life_ms = header.expires_unix_ms.saturating_sub(now_unix.as_millis() as u64);
        let expires = (life_ms > 0 && !is_dated_ahead).then(|| now + Duration::from_millis(life_ms));
        let delivery = match delivery(&header, encoded, signature, &clip, true) {
            Ok(delivery) => delivery,
            Err(error) => {
                let message = format!("an announcement of an earlier run is lost: {error}");
                return self.events.tell(Event::Warning { message });
            }
        };
        let known = known.unwrap_or_else(|| {
            let stations = self.config.site.iter().flat_map(|site| site.stations());
            let meant = stations.filter(|station| delivery.is_for(&station.zones));
            meant.map(|station| (station.name, Restored::default())).collect()
        });
        self.stations.restore(delivery, expires, known, settled, now);
    }

    /// The last words on clips that nobody keeps, and the rest to the disk.
    async fn close(&mut self) {
        let (has_outbox, unstored) = (self.outbox.is_some(), &self.unstored);
        self.stations.give_up("the announcer left", |id| has_outbox && !unstored.contains(id));
        // What has all its outcomes is forgotten at a tick.
        self.stations.tick(Instant::now());
        self.carry_out();
        if let Some(outbox) = &self.outbox {
            outbox.close(LEAVE_DEADLINE).await;
        }
        if let Some(archive) = &self.config.archive {
            archive.close(LEAVE_DEADLINE).await;
        }
    }

    fn tell_microphone(&self) {
        let input = self.input.clone();
        self.events.tell(match self.microphone_health.fault() {
            Some(reason) => Event::MicrophoneFaulty { input, reason },
            None => Event::MicrophoneHealthy { input },
        });
    }

    fn leave(&mut self) {
        self.leaving = true;
        if !self.config.lines {
            self.cancel.cancel();
        }
    }

    fn announce_once_when_ready(&mut self) {
        if let Some(wanted) = self.config.once
            && !self.leaving
            && self.stations.present() >= wanted
        {
            self.record();
            self.leaving = true;
        }
    }

    fn report(&mut self, report: Report) {
        let now = Instant::now();
        match report {
            Report::Joined { connection, hello, peer, orders, answer } => {
                let verdict = match self.admit(&hello, peer, now) {
                    Ok(()) => self.stations.join(connection, hello, now),
                    Err(reason) => Err(reason),
                };
                if verdict.is_ok() {
                    self.orders.insert(connection, orders);
                }
                // A connection that is gone meanwhile reports its end by itself.
                let _ = answer.send(verdict);
            }
            Report::Heard { connection, message } => self.stations.heard(connection, message, now),
            Report::Left { connection, reason } => {
                self.orders.remove(&connection);
                self.stations.left(connection, &reason, now);
            }
            Report::Stranger { address, error } => self.stranger(address.ip(), &error),
        }
    }

    /// Whether a station may be on the roster under its name.
    fn admit(&mut self, hello: &Hello, peer: Option<Peer>, now: Instant) -> Result<(), String> {
        let Some((site, peer)) = self.config.site.as_ref().zip(peer) else { return Ok(()) };
        let admitted = site.admit(&peer, &hello.name, &hello.zones);
        // Whoever was shut out goes before anybody takes the name.
        self.drop_removed();
        match admitted {
            Ok(Admitted::Renamed { from }) => {
                self.stations.remove(&from, "it goes by another name now", now);
                Ok(())
            }
            Ok(Admitted::Joined | Admitted::Back) => Ok(()),
            Err(error) => Err(wire::reason(crate::error_chain(&error))),
        }
    }

    /// Looks whether stations were removed, and from time to time writes down who is here.
    fn keep_site(&mut self) {
        self.drop_removed();
        if self.seen_saved.elapsed() >= SAVE_SEEN_INTERVAL {
            self.seen_saved = Instant::now();
            self.save_seen();
        }
    }

    fn drop_removed(&mut self) {
        let Some(site) = self.config.site.clone() else { return };
        match site.removed() {
            Ok(removed) => {
                for station in removed {
                    self.stations.remove(&station.name, "it was removed", Instant::now());
                }
            }
            Err(error) => tracing::warn!("cannot read who has joined: {}", crate::error_chain(&error)),
        }
    }

    fn save_seen(&self) {
        let Some(site) = &self.config.site else { return };
        if let Err(error) = site.save_seen(self.stations.present_names()) {
            tracing::warn!("cannot write down who is here: {}", crate::error_chain(&error));
        }
    }

    /// Logs a peer that does not speak our protocol or version, once an address.
    fn stranger(&mut self, address: IpAddr, error: &LinkError) {
        let telling = matches!(
            error,
            LinkError::OtherVersion { .. } | LinkError::OtherMode | LinkError::Wire(WireError::NotBullhorn)
        );
        if telling && self.strangers.len() < MAX_STRANGERS && self.strangers.insert(address) {
            tracing::warn!(%address, "refused a peer: {error}");
        }
    }

    fn record(&mut self) {
        let Some(mut microphone) = self.microphone.take() else { return };
        let length = self.config.length.or(microphone.whole_length()).unwrap_or(DEFAULT_LENGTH);
        let input = microphone.name().to_owned();
        self.events.tell(Event::Recording { length_ms: length.as_millis() as u64, input });
        self.cancel = CancellationToken::new();
        let (cancel, events) = (self.cancel.clone(), self.events.clone());
        let recipe = Recipe {
            id: ClipId { epoch: self.epoch, sequence: self.last_sequence + 1 },
            zones: self.config.zones.clone(),
            life: self.config.keep.max(MIN_LIFE),
            start: self.start,
            start_unix: self.start_unix,
            rate_hz: self.config.rate_hz,
            site: self.config.site.clone(),
        };
        let outbox = self.outbox.clone();
        self.recording = Some(tokio::spawn(async move {
            let recorded = tokio::select! {
                sound = microphone.record(length, |level| {
                    let remaining = length.saturating_sub(level.recorded);
                    let remaining_ms = remaining.as_millis() as u64;
                    events.tell(Event::Level { remaining_ms, peak_db: level.peak_db });
                }) => sound,
                () = cancel.cancelled() => return (microphone, None),
            };
            let made = match recorded {
                Ok(sound) => tokio::task::spawn_blocking(move || recipe.make(&sound))
                    .await
                    .unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic())),
                Err(error) => Err(error.into()),
            };
            let Ok(mut made) = made else { return (microphone, Some(made)) };
            if let Some(outbox) = outbox {
                let Delivery { header, signature, .. } = &made.delivery;
                let put = outbox.put(&made.header, header, signature, &made.clip, STORE_PATIENCE);
                made.stored = Some(put.await);
            }
            (microphone, Some(Ok(made)))
        }));
    }

    fn recorded(&mut self, finished: (Microphone, Option<Result<Recorded, RecordError>>)) {
        let (microphone, recorded) = finished;
        let input = microphone.name().to_owned();
        self.microphone = Some(microphone);
        match recorded {
            None => self.events.tell(Event::Cancelled),
            Some(Ok(recorded)) => self.announce(recorded, input),
            Some(Err(error)) => {
                self.all_heard = false;
                let message = format!("nothing was recorded from {input}: {}", crate::error_chain(&error));
                self.events.tell(Event::Warning { message });
            }
        }
    }

    fn announce(&mut self, recorded: Recorded, input: String) {
        let Recorded { header, clip, peak_db, delivery, expires, stored } = recorded;
        self.announced += 1;
        self.last_sequence = header.id.sequence;
        if peak_db <= clip::SILENCE_DB {
            let message = format!(
                "the recording is pure silence: is {input} muted, or the wrong microphone? It is sent all the same"
            );
            self.events.tell(Event::Warning { message });
        }
        if let Some(Err(error)) = stored {
            self.unstored.insert(header.id);
            let message = format!(
                "the announcement is not on the disk, and would not survive a restart; it is sent all the same: {}",
                crate::error_chain(&error)
            );
            self.events.tell(Event::Warning { message });
        }
        self.events.tell(Event::Recorded {
            clip: header.id.to_string(),
            length_ms: header.format.length().as_millis() as u64,
            rate_hz: header.format.rate_hz,
            bytes: header.format.wav_bytes.into(),
            sha256: clip::hex(clip.sha256()),
            peak_db,
            input,
        });
        if let Some(archive) = &self.config.archive {
            let announcer = self.config.site.as_ref().map(|site| site.announcer());
            archive.keep(&header, &delivery.header, &delivery.signature, announcer, &clip);
        }
        self.stations.announce(delivery, expires, Instant::now());
    }

    /// Passes on what the roster wants done.
    fn carry_out(&mut self) {
        for action in self.stations.take_actions() {
            match action {
                Action::Order(connection, order) => {
                    // A connection whose mailbox is full or gone is over: dropping the mailbox ends it.
                    let sent =
                        self.orders.get(&connection).is_some_and(|orders| orders.try_send(order).is_ok());
                    if !sent {
                        self.orders.remove(&connection);
                    }
                }
                Action::Closed(clip) => {
                    self.unstored.remove(&clip);
                    if let Some(outbox) = &self.outbox {
                        outbox.remove(&clip.to_string());
                    }
                }
                Action::Tell(event) => {
                    if let Some(outbox) = &self.outbox {
                        outbox.note(&event);
                    }
                    if let Some(archive) = &self.config.archive {
                        archive.note(&event);
                    }
                    if let Event::Done { clip, played, expected, .. } = &event
                        && clip.starts_with(&format!("{:08x}-", self.epoch))
                    {
                        self.all_heard &= played == expected && (self.config.once.is_none() || *expected > 0);
                    }
                    self.events.tell(event);
                }
            }
        }
    }
}

async fn finished(recording: &mut Option<Recording>) -> (Microphone, Option<Result<Recorded, RecordError>>) {
    let Some(running) = recording else { return std::future::pending().await };
    let result = running.await;
    *recording = None;
    result.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))
}

async fn at(instant: Option<Instant>) {
    match instant {
        Some(instant) => sleep_until(instant).await,
        None => std::future::pending().await,
    }
}
