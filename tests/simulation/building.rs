//! The machines: what runs on each, its disk, and the record of what happens on it.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, UNIX_EPOCH};

use bullhorn::announcer;
use bullhorn::archive::{Archive, Retention};
use bullhorn::clip::{Clip, hex};
use bullhorn::devices::HealthWatch;
use bullhorn::event::{Command, Event, Events};
use bullhorn::invite::Invite;
use bullhorn::keys::StateFolder;
use bullhorn::loudspeaker::Loudspeaker;
use bullhorn::membership::Membership;
use bullhorn::microphone::{Input, Microphone};
use bullhorn::prepare::Preparation;
use bullhorn::sample::Sound;
use bullhorn::site::Site;
use bullhorn::speaker;
use bullhorn::stations::STRAGGLER_WAIT;
use bullhorn::volume::Volume;
use bullhorn::wall::Wall;
use bullhorn::wire::ClipId;
use sha2::{Digest, Sha256};
use tempfile::TempDir;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::gate::Gate;
use crate::network::{Machine, Net, Uplink, Weather, address_of};
use crate::oracle::{Entry, Fact, Setting};
use crate::papers::Papers;

/// Ends the events of a run at the moment of its crash.
const CRASHED: &str = "the simulation crashes this machine here";
/// The wall clock at the start: November 2026.
const WALL_MS: u64 = 1_795_000_000_000;
const RATE_HZ: u32 = 8_000;
const PORT: u16 = 7766;
/// Keeps everything, for ever.
const RETENTION: Retention = Retention { age: Duration::from_secs(86_400 * 365 * 100), bytes: u64::MAX };

/// A seed's choices for a whole simulation.
#[derive(Debug, Clone)]
pub struct Plan {
    pub seed: u64,
    pub stations: usize,
    pub keep: Duration,
    pub clip_ms: u64,
    pub archives: bool,
    /// The zones of each station.
    pub zones: Vec<Vec<String>>,
    pub fair: Weather,
}

/// A record of what happened, for the oracle and for a reader.
#[derive(Default)]
pub struct Book {
    pub entries: Vec<Entry>,
    pub lines: Vec<String>,
}

/// The data about each machine that is needed at the moment of a crash.
struct Disks {
    root: PathBuf,
    gate: Arc<Gate>,
    /// A folder is moved away at the moment of a crash, so that nothing can be written into it any more.
    generations: Vec<u32>,
    events: Vec<Option<Events>>,
    dice: fastrand::Rng,
}

impl Disks {
    fn folder(&self, machine: Machine) -> PathBuf {
        self.root.join(format!("machine-{machine}-{}", self.generations[machine]))
    }

    /// Waits until all work that was given to a thread is done.
    fn drain(&self) {
        let (done, drained) = std::sync::mpsc::channel();
        Handle::current().spawn_blocking(move || done.send(()).unwrap());
        self.gate.open();
        drained.recv().unwrap();
        self.gate.close();
    }

    /// Everything that was given to the disk is on it, and everything else is lost. A write that was cut short leaves
    /// half a file, or half a line where lines are appended.
    fn crash(&mut self, machine: Machine) {
        self.drain();
        let old = self.folder(machine);
        self.generations[machine] += 1;
        let new = self.folder(machine);
        fs::rename(&old, &new).unwrap();
        if let Some(events) = self.events[machine].take() {
            let noted = last_note(&new.join("state"), machine).unwrap_or_default();
            events.tell(Event::Warning { message: format!("{CRASHED}{noted}") });
        }
        if self.dice.bool() {
            self.tear(&new);
        }
    }

    fn tear(&mut self, folder: &Path) {
        let mut entries: Vec<_> = fs::read_dir(folder).unwrap().map(|it| it.unwrap().path()).collect();
        entries.sort();
        for path in entries {
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            if path.is_dir() {
                self.tear(&path);
            } else if name.ends_with(".log") || name.ends_with(".jsonl") {
                use std::io::Write;
                let mut log = fs::OpenOptions::new().append(true).open(&path).unwrap();
                log.write_all(b"{\"ended\":[\"st").unwrap();
            } else if matches!(name.as_str(), "heard" | "epoch") || name.ends_with(".clip") {
                let whole = fs::read(&path).unwrap();
                let half = &whole[..self.dice.usize(0..whole.len())];
                let torn = path.with_file_name(format!("{name}.new"));
                fs::write(&torn, half).unwrap();
                fs::set_permissions(&torn, fs::metadata(&path).unwrap().permissions()).unwrap();
            }
        }
    }
}

/// The last thing that a station has written down: a clip, and whether it sounded or was finished; `None` if it only began.
fn last_note(state: &Path, machine: Machine) -> Option<String> {
    let heard = fs::read_to_string(state.join(format!("station-{}", name(machine))).join("heard")).ok()?;
    let mut words = heard.lines().nth(1)?.split(' ').skip(2);
    let [epoch, sequence] = std::array::from_fn(|_| words.next().unwrap().parse().unwrap());
    let clip = ClipId { epoch, sequence };
    match (words.next()?, words.next()) {
        ("finished", _) => Some(format!("{clip} finished")),
        (_, Some("sounded")) => Some(format!("{clip} sounded")),
        _ => None,
    }
}

enum Running {
    Off,
    On { task: JoinHandle<()>, shutdown: CancellationToken, commands: Option<mpsc::Sender<Command>> },
}

pub struct Building {
    pub plan: Plan,
    pub net: Net,
    pub book: Arc<Mutex<Book>>,
    pub crashes: mpsc::UnboundedReceiver<Machine>,
    jumped_ms: Arc<AtomicI64>,
    start: Instant,
    disks: Arc<Mutex<Disks>>,
    /// Each machine's loudspeaker, which outlives its programs.
    devices: Vec<(watch::Sender<Option<String>>, HealthWatch)>,
    running: Vec<Running>,
    invite: Option<Invite>,
    root: TempDir,
}

/// A folder in memory if the system has a place for that: an fsync there costs nothing.
fn folder() -> TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { tempfile::tempdir_in(memory).unwrap() } else { tempfile::tempdir().unwrap() }
}

impl Building {
    pub fn new(plan: Plan, gate: Arc<Gate>) -> Self {
        let (root, machines) = (folder(), plan.stations + 1);
        let disks = Arc::new(Mutex::new(Disks {
            root: root.path().into(),
            gate,
            generations: vec![0; machines],
            events: (0..machines).map(|_| None).collect(),
            dice: fastrand::Rng::with_seed(plan.seed ^ 0xd15c),
        }));
        let (crashed, crashes) = mpsc::unbounded_channel();
        let net = Net::new(plan.seed, machines, plan.fair, {
            let disks = disks.clone();
            move |machine, _| {
                disks.lock().unwrap().crash(machine);
                crashed.send(machine).unwrap();
            }
        });
        let frames = plan.clip_ms * u64::from(RATE_HZ) / 1_000;
        let samples = (0..frames).map(|frame| (frame as f32 * 0.3).sin() * 0.5).collect();
        let spoken = Clip::encode(&Sound { rate_hz: RATE_HZ, samples }).unwrap();
        fs::write(root.path().join("spoken.wav"), spoken.wav()).unwrap();
        Self {
            running: (0..machines).map(|_| Running::Off).collect(),
            devices: (0..machines).map(|_| HealthWatch::channel(None)).collect(),
            plan,
            net,
            book: Arc::default(),
            crashes,
            jumped_ms: Arc::default(),
            start: Instant::now(),
            disks,
            invite: None,
            root,
        }
    }

    pub fn setting(&self) -> Setting {
        Setting {
            stations: (1..=self.plan.stations).map(name).collect(),
            zones: self.plan.zones.clone(),
            life_ms: self.plan.keep.as_millis().max(10_000) as u64,
        }
    }

    pub fn machines(&self) -> std::ops::RangeInclusive<Machine> {
        0..=self.plan.stations
    }

    pub fn now_ms(&self) -> u64 {
        self.start.elapsed().as_millis() as u64
    }

    /// The wall clock of every machine.
    fn wall(&self) -> Wall {
        let (start, jumped_ms) = (self.start, self.jumped_ms.clone());
        Wall::new(move || {
            let now_ms = WALL_MS + start.elapsed().as_millis() as u64;
            UNIX_EPOCH
                + Duration::from_millis(now_ms.saturating_add_signed(jumped_ms.load(Ordering::Relaxed)))
        })
    }

    /// Moves the wall clock by `by_ms`.
    pub fn jump(&self, by_ms: i64) {
        self.jumped_ms.fetch_add(by_ms, Ordering::Relaxed);
        let entry = Entry { at_ms: self.now_ms(), machine: 0, fact: Fact::Steps { by_ms } };
        self.book.lock().unwrap().entries.push(entry);
    }

    pub fn is_on(&self, machine: Machine) -> bool {
        matches!(self.running[machine], Running::On { .. })
    }

    pub fn is_leaving(&self, machine: Machine) -> bool {
        matches!(&self.running[machine], Running::On { shutdown, .. } if shutdown.is_cancelled())
    }

    /// Runs a machine's program on the disk as the last run left it.
    pub fn start(&mut self, machine: Machine) {
        let wall_ms = self.wall().unix_ms();
        self.net.start(machine);
        let (events, heard) = Events::channel();
        let home = {
            let mut disks = self.disks.lock().unwrap();
            disks.events[machine] = Some(events.clone());
            disks.folder(machine)
        };
        let collector = Collector {
            machine,
            start: self.start,
            book: self.book.clone(),
            root: self.root.path().into(),
            ear: self.root.path().join(format!("heard-{machine}")),
            noted_before: last_note(&home.join("state"), machine).unwrap_or_default(),
            from: self.book.lock().unwrap().entries.len(),
            addressed: vec![],
        };
        collector.note(if machine == 0 { Some(Fact::Starts { wall_ms }) } else { None }, "starts");
        tokio::spawn(collector.run(heard));
        let folder = StateFolder::open(Some(&home.join("state"))).unwrap();
        let archive = self.plan.archives.then(|| {
            Archive::open_by(&home.join("archive"), RETENTION, events.clone(), self.wall()).unwrap()
        });
        let shutdown = CancellationToken::new();
        self.running[machine] = match machine {
            0 => {
                let (commands, asked) = mpsc::channel(64);
                let task = self.announcer(&folder, archive, asked, events, shutdown.clone());
                Running::On { task, shutdown, commands: Some(commands) }
            }
            _ => {
                let task = self.station(machine, &folder, archive, events, shutdown.clone());
                Running::On { task, shutdown, commands: None }
            }
        };
    }

    fn announcer(
        &mut self,
        folder: &StateFolder,
        archive: Option<Archive>,
        asked: mpsc::Receiver<Command>,
        events: Events,
        shutdown: CancellationToken,
    ) -> JoinHandle<()> {
        let site = Arc::new(Site::open_by(folder, self.wall()).unwrap());
        if self.invite.is_none() {
            self.invite = Some(site.invite().unwrap());
        }
        let config = announcer::Config {
            live: false,
            latency: announcer::DEFAULT_LATENCY,
            length: None,
            rate_hz: None,
            preparation: Preparation::default(),
            monitor: None,
            max_stations: 64,
            zones: vec![],
            priority: Default::default(),
            keep: self.plan.keep,
            wait: STRAGGLER_WAIT,
            once: None,
            lines: true,
            site: Some(site),
            archive,
            talkback: None,
        };
        let microphone = Microphone::open(&Input::File(self.root.path().join("spoken.wav"))).unwrap();
        let listener = self.net.listen(0);
        tokio::spawn(async move {
            announcer::run_on(listener, microphone, config, asked, events, shutdown).await.unwrap();
        })
    }

    fn station(
        &mut self,
        machine: Machine,
        folder: &StateFolder,
        archive: Option<Archive>,
        events: Events,
        shutdown: CancellationToken,
    ) -> JoinHandle<()> {
        let host = address_of(0).to_string();
        let invite = self.invite.clone();
        let zones = self.plan.zones[machine - 1].clone();
        let membership = Membership::open(folder, (&host, PORT), &name(machine), &zones, invite).unwrap();
        let (ear, device) = (self.root.path().join(format!("heard-{machine}")), &self.devices[machine].1);
        let loudspeaker = Loudspeaker::open_folder(&ear, device.clone()).unwrap();
        let config = speaker::Config {
            announcers: vec![speaker::Announcer { host, port: PORT, membership: Some(membership) }],
            name: name(machine),
            zones,
            delay_us: 0,
            volume: Volume::default(),
            archive,
            talkback: None,
            is_attended: true,
        };
        let uplink = Uplink { net: self.net.clone(), machine };
        tokio::spawn(async move {
            speaker::run_on(vec![uplink], config, loudspeaker, events, shutdown).await.unwrap();
        })
    }

    /// Asks the announcer for a page to a zone, or to all. Does nothing if no announcer is there to accept it.
    pub fn announce(&self, zone: Option<&str>) {
        if let Running::On { commands: Some(commands), .. } = &self.running[0] {
            let _ = commands.try_send(Command::Address(zone.map(str::to_owned)));
            let _ = commands.try_send(Command::Announce);
        }
    }

    /// Breaks a station's loudspeaker, or repairs it.
    pub fn set_device(&self, machine: Machine, fault: Option<&str>) {
        self.devices[machine].0.send_replace(fault.map(str::to_owned));
    }

    /// The archives of all machines at the end; empty if none archives.
    pub fn archives(&self) -> Vec<Papers> {
        let machines = self.machines().filter(|_| self.plan.archives);
        let read = |machine| {
            let folder = self.disks.lock().unwrap().folder(machine).join("archive");
            // The next start repairs whatever a crash at the last moment left.
            drop(Archive::open(&folder, RETENTION, Events::channel().0).unwrap());
            Papers::read(&folder)
        };
        machines.map(read).collect()
    }

    /// Asks a program to leave.
    pub fn leave(&self, machine: Machine) {
        if let Running::On { shutdown, .. } = &self.running[machine] {
            shutdown.cancel();
        }
    }

    /// Returns whether a program that was asked to leave has left. From then on it is off.
    pub fn has_left(&mut self, machine: Machine) -> bool {
        let left = matches!(&self.running[machine], Running::On { task, .. } if task.is_finished());
        if left {
            self.running[machine] = Running::Off;
            self.disks.lock().unwrap().events[machine] = None;
        }
        left
    }

    /// Drops what is left of a program that crashed.
    pub async fn bury(&mut self, machine: Machine) {
        if let Running::On { task, .. } = std::mem::replace(&mut self.running[machine], Running::Off) {
            task.abort();
            // It does not matter whether it was over before.
            let _ = task.await;
            // Work that its connections gave to a thread at that moment comes too late for the disk; once done, it
            // releases the folder.
            tokio::task::yield_now().await;
            self.disks.lock().unwrap().drain();
        }
    }

    /// Programs that stopped although nobody asked them to.
    pub fn ended_by_themselves(&self) -> Vec<Machine> {
        let ended = |machine: &Machine| match &self.running[*machine] {
            Running::On { task, shutdown, .. } => task.is_finished() && !shutdown.is_cancelled(),
            Running::Off => false,
        };
        self.machines().filter(ended).collect()
    }

    pub fn say(&self, words: String) {
        self.book.lock().unwrap().lines.push(format!("{:>7} -- {words}", self.now_ms()));
    }
}

pub fn name(machine: Machine) -> String {
    format!("hall-{machine}")
}

/// Removes the random bits of each clip's epoch, which differ from run to run: the last 8 of 16 hex digits.
fn without_chance(words: &str) -> String {
    let mut parts = words.split('-');
    let mut plain = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let digits = plain.bytes().rev().take_while(u8::is_ascii_hexdigit).count();
        if digits == 16 {
            plain.truncate(plain.len() - 8);
        }
        plain = plain + "-" + part;
    }
    plain
}

/// Records the events of one run of a program.
struct Collector {
    machine: Machine,
    start: Instant,
    book: Arc<Mutex<Book>>,
    root: PathBuf,
    ear: PathBuf,
    /// The station's last note before this run, and the number of entries in the book at that time.
    noted_before: String,
    from: usize,
    /// The zones that the announcer speaks to.
    addressed: Vec<String>,
}

impl Collector {
    fn note(&self, fact: Option<Fact>, words: &str) {
        let at_ms = self.start.elapsed().as_millis() as u64;
        let mut book = self.book.lock().unwrap();
        let words = without_chance(&words.replace(&*self.root.to_string_lossy(), ""));
        book.lines.push(format!("{at_ms:>7} {} {words}", self.machine));
        book.entries.extend(fact.map(|fact| Entry { at_ms, machine: self.machine, fact }));
    }

    async fn run(mut self, mut events: mpsc::Receiver<Event>) {
        while let Some(event) = events.recv().await {
            match &event {
                Event::Warning { message } if message.starts_with(CRASHED) => {
                    self.had_no_time_to_say(&message[CRASHED.len()..]);
                    return self.note(Some(Fact::Crashes), "crashes");
                }
                Event::Level { .. } | Event::Progress { .. } => continue,
                Event::Zones { addressed, .. } => self.addressed.clone_from(addressed),
                _ => (),
            }
            let fact = if self.machine == 0 { self.said(&event) } else { self.sounded(&event) };
            self.note(fact, &format!("{event:?}"));
        }
        self.note(None, "has left");
    }

    fn sounded(&self, event: &Event) -> Option<Fact> {
        match event {
            Event::Playing { clip, .. } => Some(Fact::Begins { clip: clip.clone() }),
            Event::Played { clip, station, .. } => {
                Some(Fact::Sounded { clip: clip.clone(), sha256: self.hear(station, clip) })
            }
            _ => None,
        }
    }

    /// Records what a station wrote down about a clip and could no longer report.
    fn had_no_time_to_say(&self, noted: &str) {
        let Some((clip, how_far)) = noted.split_once(' ').filter(|_| noted != self.noted_before) else {
            return;
        };
        let is_said = |fact: &Fact| match (fact, how_far) {
            (Fact::Begins { clip: said }, "sounded") => said == clip,
            (Fact::Sounded { clip: said, .. }, "finished") => said == clip,
            _ => false,
        };
        let is_ours = |entry: &Entry| entry.machine == self.machine && is_said(&entry.fact);
        if self.book.lock().unwrap().entries[self.from..].iter().any(is_ours) {
            return;
        }
        let clip = clip.to_owned();
        match how_far {
            "sounded" => self.note(Some(Fact::Begins { clip }), "had begun"),
            _ => {
                let sha256 = self.hear(&name(self.machine), &clip);
                self.note(Some(Fact::Sounded { clip, sha256 }), "had come to the end");
            }
        }
    }

    /// The hash of the sound that a station played; returned only once.
    fn hear(&self, station: &str, clip: &str) -> Option<String> {
        let path = self.ear.join(format!("{station}-{clip}.wav"));
        let sha256 = fs::read(&path).ok().map(|wav| hex(&Sha256::digest(wav)));
        // The next sound is another file.
        let _ = fs::remove_file(path);
        sha256
    }

    /// The fact that an event of the announcer reports, if any.
    fn said(&self, event: &Event) -> Option<Fact> {
        Some(match event.clone() {
            Event::Recorded { clip, sha256, .. } => {
                Fact::Recorded { clip, sha256, zones: self.addressed.clone() }
            }
            Event::Sending { clip, stations } => Fact::Sending { clip, stations },
            Event::Played { clip, station, outcome, again, .. } => {
                Fact::Ended { clip, station, outcome, again }
            }
            Event::Failed { clip, station, outcome, .. } => {
                Fact::Ended { clip, station, outcome, again: false }
            }
            Event::Done { clip, played, expected, .. } => Fact::Verdict { clip, played, expected },
            _ => return None,
        })
    }
}
