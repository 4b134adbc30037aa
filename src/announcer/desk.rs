//! The desk: the one task that owns the roster and the microphone, where everything comes together.

mod audience;
mod dates;
mod list;
mod live;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::connection::{AnnouncerClock, Report};
use super::live::{Speaking, news};
use super::recording::{
    self, Outcome, Recipe, Recorded, Recording, Source, Steering, Tools, delivery, finished,
};
use super::{AnnouncerError, Config, DEFAULT_LENGTH, LEAVE_DEADLINE, Summary};
use crate::clip;
use crate::devices::HealthWatch;
use crate::event::{Command, Event, Events};
use crate::keys::identity::fresh_epoch;
use crate::keys::{NoisePublicKey, ZoneDraft, ZoneOrder};
use crate::link::LinkError;
use crate::microphone::Microphone;
use crate::outbox::{Kept, Outbox};
use crate::priority::Priority;
use crate::site::Site;
use crate::stations::{Action, ConnectionId, Order, Restored, Stations};
use crate::wall::{Wall, WallClock};
use crate::wire::{ClipId, WireError};

/// A clip lives at least this long, so that it reaches the stations that are here.
const MIN_LIFE: Duration = Duration::from_secs(10);
/// How often the announcer checks whether a station was removed.
const SITE_WATCH_INTERVAL: Duration = Duration::from_millis(250);
/// How far ahead of this run's clock a kept clip may be dated: enough for the clock's steps, and no more.
const DATE_SLACK: Duration = Duration::from_secs(2);
/// The most addresses of strangers remembered, so that each is reported once.
const MAX_STRANGERS: usize = 1_024;

/// Owns the roster and the microphone.
pub(super) struct Desk {
    stations: Stations,
    config: Config,
    events: Events,
    wall: WallClock,
    clock: AnnouncerClock,
    epoch: u64,
    last_sequence: u64,
    orders: BTreeMap<ConnectionId, mpsc::Sender<Order>>,
    /// The proven key of each connection; none in open mode.
    keys: HashMap<ConnectionId, NoisePublicKey>,
    strangers: HashSet<IpAddr>,
    /// The microphone's name.
    input: String,
    /// Absent while something is being recorded.
    tools: Option<Tools>,
    microphone_health: HealthWatch,
    microphone_warnings: HealthWatch,
    recording: Option<Recording>,
    /// Holds whether something is being recorded.
    is_recording: watch::Sender<bool>,
    /// Live speech in progress.
    speaking: Option<Speaking>,
    has_warned_of_howling: bool,
    steering: Steering,
    /// The zones that announcements are for; none means every station.
    addressed: Vec<String>,
    /// How urgent the next announcement will be.
    priority: Priority,
    /// The zone that each digit selects.
    zone_order: ZoneOrder,
    /// Zones whose digits are not on the disk yet.
    unwritten_digits: Option<ZoneDraft>,
    /// The zones known and those addressed, as last reported.
    told_zones: (Vec<String>, Vec<String>),
    /// Whether the zones may have changed since.
    are_zones_stale: bool,
    leaving: bool,
    seen_saved: Instant,
    /// The task that writes down which stations are here.
    saving: Option<JoinHandle<()>>,
    /// Clips on the disk; none in open mode.
    outbox: Option<Arc<Outbox>>,
    /// Clips that are not on the disk.
    unstored: HashSet<ClipId>,
    announced: usize,
    all_heard: bool,
}

impl Desk {
    /// Creates a desk that no station has come to yet, with the work that earlier runs left over.
    ///
    /// # Errors
    /// [`AnnouncerError::Keys`]: the order of zones cannot be read, or there are no random numbers.
    pub fn new(
        microphone: Microphone,
        mut config: Config,
        max_stations: usize,
        events: Events,
        clock: AnnouncerClock,
        is_recording: watch::Sender<bool>,
    ) -> Result<Self, AnnouncerError> {
        let mut stations = Stations::new(max_stations, !config.keep.is_zero(), config.site.is_some())
            .with_straggler_wait(config.wait);
        for station in config.site.iter().flat_map(|site| site.stations()) {
            stations.expect(station.name, station.zones);
        }
        let wall = config
            .site
            .as_ref()
            .map_or_else(|| WallClock::start(Wall::system()), |site| site.clock().clone());
        let mut zone_order = ZoneOrder::open(config.site.as_ref().map(|site| site.folder()))?;
        let mut joined = config.site.as_ref().map(|site| site.stations()).unwrap_or_default();
        joined.sort_by_key(|station| station.joined_unix_s);
        let mut unwritten_digits: Option<ZoneDraft> = None;
        for station in &joined {
            follow(&mut unwritten_digits, zone_order.append(&station.zones, &stations.zones()));
        }
        let (outbox, kept) = match &config.site {
            Some(site) => open_outbox(site, &events),
            None => (None, Vec::new()),
        };
        let (input, microphone_health) = (microphone.name().to_owned(), microphone.health());
        let mut desk = Self {
            stations,
            epoch: match &config.site {
                Some(site) => site.epoch(),
                None => fresh_epoch(wall.unix_ms(clock.base) / 1_000)?,
            },
            addressed: config.zones.clone(),
            priority: config.priority,
            zone_order,
            unwritten_digits,
            told_zones: (Vec::new(), Vec::new()),
            are_zones_stale: true,
            tools: Some(Tools { microphone, monitor: config.monitor.take() }),
            config,
            events,
            wall,
            clock,
            last_sequence: 0,
            orders: BTreeMap::new(),
            keys: HashMap::new(),
            strangers: HashSet::new(),
            input,
            microphone_warnings: microphone_health.clone(),
            microphone_health,
            recording: None,
            is_recording,
            speaking: None,
            has_warned_of_howling: false,
            steering: Steering::default(),
            leaving: false,
            seen_saved: clock.base,
            saving: None,
            outbox: outbox.map(Arc::new),
            unstored: HashSet::new(),
            announced: 0,
            all_heard: true,
        };
        kept.into_iter().for_each(|kept| desk.restore(kept));
        Ok(desk)
    }

    /// Works until it is asked to leave, its commands end, or it has announced once, and every verdict has been
    /// reached.
    pub async fn run(
        mut self,
        mut inbox: mpsc::Receiver<Report>,
        mut commands: mpsc::Receiver<Command>,
        shutdown: CancellationToken,
    ) -> Summary {
        let mut tick: Option<Instant> = None;
        let mut told_to_leave = false;
        let mut site_watch = tokio::time::interval(SITE_WATCH_INTERVAL);
        site_watch.set_missed_tick_behavior(MissedTickBehavior::Delay);
        if self.microphone_health.fault().is_some() {
            self.tell_microphone();
        }
        loop {
            self.carry_out();
            let due = self.stations.next_tick(Instant::now());
            tick = match (tick, due) {
                (Some(set), Some(due)) => Some(set.min(due)),
                (_, due) => due,
            };
            self.announce_once_when_ready();
            let is_silent = self.recording.is_none() && self.speaking.is_none();
            if self.leaving && is_silent && self.stations.is_settled() {
                let enough = self.config.once.is_none() || self.announced > 0;
                self.save_seen();
                self.close().await;
                return Summary { all_heard: self.all_heard && enough };
            }
            // A line ends the live speech of a single announcement.
            let ends_live = self.speaking.is_some() && self.config.once.is_some();
            let is_busy = self.recording.is_some() || self.speaking.is_none() && self.stations.has_live();
            let listens = ends_live || !(self.leaving || self.config.lines && is_busy);
            tokio::select! {
                // Rare events come first, so that no flood of reports holds them up.
                biased;
                () = shutdown.cancelled(), if !told_to_leave => {
                    told_to_leave = true;
                    self.steering.cancel.cancel();
                    self.finish_live();
                    self.leaving = true;
                }
                () = at(tick) => {
                    tick = None;
                    self.stations.tick(Instant::now());
                }
                _ = site_watch.tick() => {
                    self.keep_site();
                    self.tell_zones();
                }
                () = self.microphone_health.changed() => self.tell_microphone(),
                message = self.microphone_warnings.warned() => self.events.tell(Event::Warning { message }),
                finished = finished(&mut self.recording) => self.recorded(finished),
                news = news(&mut self.speaking) => self.follow_live(news),
                command = commands.recv(), if listens => match command {
                    Some(Command::Announce) if self.config.live && (ends_live || self.config.once.is_none()) => {
                        self.toggle_live();
                    }
                    // A single announcement ends by a line or by itself, not because nobody types.
                    Some(Command::Announce | Command::Leave) if self.config.once.is_some() => (),
                    Some(Command::Live) => self.toggle_live(),
                    Some(Command::Announce) => self.record(None),
                    Some(Command::AnnounceFile(path)) => self.record(Some(path)),
                    Some(Command::Finish) => {
                        self.steering.finish.cancel();
                        self.finish_live();
                    }
                    Some(Command::Send) => self.steering.send.cancel(),
                    // Live speech was already heard: it cannot be taken back.
                    Some(Command::Cancel) => {
                        self.steering.cancel.cancel();
                        self.finish_live();
                    }
                    Some(Command::Emergency) => self.toggle_emergency(),
                    Some(Command::Address(zone)) => self.address(zone),
                    Some(Command::Leave) | None => self.leave(),
                },
                Some(report) = inbox.recv() => self.report(report),
            }
        }
    }

    /// Resumes a clip that an earlier run left in the outbox.
    fn restore(&mut self, kept: Kept) {
        let Kept { header, encoded, signature, clip, known, settled } = kept;
        let now = Instant::now();
        let now_unix_ms = self.wall.unix_ms(now);
        let is_dated_ahead = header.created_unix_ms > now_unix_ms + DATE_SLACK.as_millis() as u64;
        let life_ms = header.expires_unix_ms.saturating_sub(now_unix_ms);
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

    /// Ends the clips that are not kept, and waits until the rest is on the disk.
    async fn close(&mut self) {
        let (has_outbox, unstored) = (self.outbox.is_some(), &self.unstored);
        self.stations.give_up("the announcer left", |id| has_outbox && !unstored.contains(id));
        // A tick removes clips that have all their outcomes.
        self.stations.tick(Instant::now());
        self.carry_out();
        if let Some(outbox) = &self.outbox {
            outbox.close(LEAVE_DEADLINE).await;
        }
        if let Some(archive) = &self.config.archive {
            archive.close(LEAVE_DEADLINE).await;
        }
        let written = async {
            while let Some(saving) = self.saving.take() {
                let _ = saving.await;
                self.save_digits();
            }
        };
        // A disk that hangs does not keep the announcer from leaving.
        let _ = timeout(LEAVE_DEADLINE, written).await;
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
        self.finish_live();
        if !self.config.lines {
            self.steering.cancel.cancel();
        }
    }

    fn announce_once_when_ready(&mut self) {
        if let Some(wanted) = self.config.once
            && !self.leaving
            && self.stations.present() >= wanted
        {
            match self.config.live {
                true => self.toggle_live(),
                false => self.record(None),
            }
            self.leaving = true;
        }
    }

    fn report(&mut self, report: Report) {
        let now = Instant::now();
        match report {
            Report::Joined { connection, hello, admission, orders, answer } => {
                let name = hello.name.clone();
                let zones = hello.zones.clone();
                let key = admission.as_ref().map(|admission| admission.peer.key);
                let verdict = match self.admit(&name, admission, now) {
                    Ok(()) => self.stations.join(connection, hello, now),
                    Err(reason) => Err(reason),
                };
                if verdict.is_ok() {
                    let digits = self.zone_order.append(&zones, &self.stations.zones());
                    follow(&mut self.unwritten_digits, digits);
                    self.are_zones_stale = true;
                    let volume = self.config.site.as_ref().and_then(|site| site.volume(&name));
                    if volume.is_some() {
                        // The connection's first order: there is room.
                        let _ = orders.try_send(Order::Volume(volume));
                    }
                    self.orders.insert(connection, orders);
                    self.keys.extend(key.map(|key| (connection, key)));
                }
                // A connection that is gone by now reports its own end.
                let _ = answer.send(verdict);
            }
            Report::Heard { connection, message } => self.stations.heard(connection, message, now),
            Report::Left { connection, reason } => {
                self.orders.remove(&connection);
                self.keys.remove(&connection);
                self.stations.left(connection, &reason, now);
            }
            Report::Stranger { address, error } => self.stranger(address.ip(), &error),
        }
    }

    /// Reports a peer that does not speak our protocol or version, once per address.
    fn stranger(&mut self, address: IpAddr, error: &LinkError) {
        let telling = matches!(
            error,
            LinkError::OtherVersion { .. } | LinkError::OtherMode | LinkError::Wire(WireError::NotBullhorn)
        );
        if telling && self.strangers.len() < MAX_STRANGERS && self.strangers.insert(address) {
            self.events.tell(Event::Warning { message: format!("{address} was refused: {error}") });
        }
    }

    /// Records, or reads a file, and sends the clip. Does nothing while another is being recorded.
    fn record(&mut self, file: Option<PathBuf>) {
        if self.tools.is_none() {
            return;
        }
        if let Some(message) = self.unknown_zone() {
            self.all_heard = false;
            return self.events.tell(Event::Warning { message });
        }
        self.follow_wall();
        let Some(tools) = self.tools.take() else { return };
        self.is_recording.send_replace(true);
        let source = match file {
            Some(path) => Source::File(path),
            None => {
                let length = self.config.length.or(tools.microphone.whole_length());
                Source::Microphone(length.unwrap_or(DEFAULT_LENGTH))
            }
        };
        self.steering = Steering::default();
        let (steering, events) = (self.steering.clone(), self.events.clone());
        let recipe = Recipe {
            id: ClipId { epoch: self.epoch, sequence: self.last_sequence + 1 },
            priority: self.priority,
            zones: self.addressed.clone(),
            life: self.config.keep.max(MIN_LIFE),
            wall: self.wall.clone(),
            rate_hz: self.config.rate_hz,
            preparation: self.config.preparation.clone(),
            site: self.config.site.clone(),
        };
        let outbox = self.outbox.clone();
        self.recording =
            Some(tokio::spawn(recording::record(tools, source, recipe, outbox, steering, events)));
    }

    fn recorded(&mut self, finished: Outcome) {
        let Outcome { tools, input, recorded } = finished;
        self.tools = Some(tools);
        self.is_recording.send_replace(false);
        self.set_priority(self.config.priority);
        match recorded {
            None => self.events.tell(Event::Cancelled),
            Some(Ok(recorded)) => self.announce(recorded, input),
            Some(Err(error)) => {
                self.all_heard = false;
                let message = format!("nothing was sent from {input}: {}", crate::error_chain(&error));
                self.events.tell(Event::Warning { message });
            }
        }
    }

    fn announce(&mut self, recorded: Recorded, input: String) {
        self.follow_wall();
        let recorded = self.dated_anew(recorded);
        let Recorded { header, clip, trouble, lost, loudness_lufs, gain_db, delivery, expires, stored } =
            recorded;
        self.announced += 1;
        self.last_sequence = header.id.sequence;
        if let Some(trouble) = trouble {
            let message = trouble.about_sent(&input);
            self.events.tell(Event::Warning { message });
        }
        if let Some(lost) = lost.some() {
            self.events.tell(Event::Warning { message: lost.about(&input) });
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
            peak_db: clip::peak_db(&clip.sound().samples),
            loudness_lufs: loudness_lufs.map(|lufs| lufs as f32),
            gain_db: gain_db as f32,
            input,
            priority: header.priority,
            lost: lost.some(),
        });
        if let Some(archive) = &self.config.archive {
            let announcer = self.config.site.as_ref().map(|site| site.announcer());
            archive.keep(&header, &delivery.header, &delivery.signature, announcer, &clip);
        }
        self.stations.announce(delivery, expires, Instant::now());
    }

    /// Carries out what the roster wants done.
    fn carry_out(&mut self) {
        for action in self.stations.take_actions() {
            match action {
                Action::Order(connection, order) => {
                    // A connection whose mailbox is full or closed is over: dropping the mailbox closes the connection.
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

/// Opens the outbox and returns its clips. A disk that cannot be used is reported, and stops nothing.
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

/// Merges a later draft into the one still to be written.
fn follow(draft: &mut Option<ZoneDraft>, later: Option<ZoneDraft>) {
    match (draft.as_mut(), later) {
        (Some(draft), Some(later)) => draft.follow(later),
        (None, later) => *draft = later,
        (Some(_), None) => {}
    }
}

async fn at(instant: Option<Instant>) {
    match instant {
        Some(instant) => sleep_until(instant).await,
        None => std::future::pending().await,
    }
}
