//! A site under siege: thousands of idle strangers, and no file descriptors left. The real programs.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use socket2::{Domain, Socket, Type};
use support::hallway::{BULLHORN, Hallway, Program, STATE, file, start_station, wavs};
use support::wav::Spec;
use tempfile::TempDir;

/// Each test measures time, so they wait for one another.
static ALONE: Mutex<()> = Mutex::new(());

const STRANGERS: usize = 5_000;
const ATTACKERS: usize = 10;
/// How much longer a page may take under attack.
const DISTURBANCE: Duration = Duration::from_secs(1);
const HALF_OPEN_BYTES: usize = 16 * 1024;
const SECOND: Duration = Duration::from_secs(1);
/// The shortest first pause of a station.
const REDIAL: Duration = Duration::from_millis(100);
/// The first bytes of a station, and of an announcer that has room.
const READY: &[u8; 12] = b"BULLHORN\0\x01\x01\0";

/// An announcer and a station that plays into a folder.
struct Site {
    hallway: Hallway,
    address: SocketAddr,
    output: TempDir,
    _fixtures: TempDir,
    pages: usize,
}

impl Site {
    fn open() -> Self {
        let (fixtures, output) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let wav = Spec::mono(16, 8_000).write(fixtures.path(), 800);
        let hallway = Hallway::plan().says(&wav).station("hall-1", file(output.path())).open();
        let address = hallway.address.parse().unwrap();
        Self { hallway, address, output, _fixtures: fixtures, pages: 0 }
    }

    /// Announces, and returns the time from Enter until the station plays.
    fn page(&mut self) -> Duration {
        self.pages += 1;
        let since = Instant::now();
        self.hallway.announcer.enter();
        self.hallway.stations[0].wait_for("playing");
        let delay = since.elapsed();
        let done = self.hallway.announcer.wait_for("done");
        assert_eq!(done["played"], 1, "{done}");
        assert_eq!(wavs(self.output.path()).len(), self.pages);
        delay
    }

    fn undisturbed(&mut self) -> Duration {
        (0..3).map(|_| self.page()).max().unwrap()
    }

    /// The announcer's open descriptors and resident bytes.
    fn size(&self) -> (usize, usize) {
        let id = self.hallway.announcer.id();
        let open = std::fs::read_dir(format!("/proc/{id}/fd")).unwrap().count();
        let status = std::fs::read_to_string(format!("/proc/{id}/status")).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
        (open, line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() * 1024)
    }

    /// How long a newcomer waits for its answer. While it is turned away, it comes again, as a station does.
    fn answers(&self) -> Duration {
        let since = Instant::now();
        while ask(self.address) != *READY {
            assert!(since.elapsed() < support::DEADLINE, "it is turned away for ever");
            std::thread::sleep(REDIAL);
        }
        since.elapsed()
    }
}

/// The first bytes that an announcer sends to a station; none if it hangs up.
fn ask(address: SocketAddr) -> Vec<u8> {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(10 * SECOND)).unwrap();
    let mut answer = vec![0; READY.len()];
    let asked = stream.write_all(READY).and_then(|()| stream.read_exact(&mut answer));
    if asked.is_ok() { answer } else { Vec::new() }
}

fn dial(from: Ipv4Addr, to: SocketAddr) -> Option<Socket> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    // All the ports of an address are used for one announcer here.
    socket.set_reuse_address(true).unwrap();
    socket.bind(&SocketAddr::from((from, 0)).into()).ok()?;
    socket.connect_timeout(&to.into(), 2 * SECOND).ok()?;
    Some(socket)
}

/// Half of them come from the station's own address, the others from 25 more.
fn origin(number: usize) -> Ipv4Addr {
    if number.is_multiple_of(2) {
        Ipv4Addr::LOCALHOST
    } else {
        Ipv4Addr::new(127, 0, 0, 2 + (number / 2 % 25) as u8)
    }
}

/// Strangers that send no more than a first word. Up to 5,000 sockets are open at this end at all times; each is
/// replaced by a new one, so that the announcer's end never rests.
struct Flood {
    going: Arc<AtomicBool>,
    dialled: Arc<AtomicUsize>,
    attackers: Vec<JoinHandle<()>>,
}

impl Flood {
    fn start(to: SocketAddr, word: &'static [u8]) -> Self {
        let (going, dialled) = (Arc::new(AtomicBool::new(true)), Arc::new(AtomicUsize::new(0)));
        let attack = |attacker: usize| {
            let (going, dialled) = (going.clone(), dialled.clone());
            std::thread::spawn(move || {
                let mut sockets = VecDeque::new();
                let mut number = attacker;
                while going.load(Ordering::Relaxed) {
                    sockets.extend(dial(origin(number), to).inspect(|mut socket| {
                        // One that was turned away might be closed already.
                        let _ = socket.write_all(word);
                    }));
                    number += ATTACKERS;
                    dialled.fetch_add(1, Ordering::Relaxed);
                    if sockets.len() > STRANGERS / ATTACKERS {
                        sockets.pop_front();
                    }
                }
            })
        };
        let attackers = (0..ATTACKERS).map(attack).collect();
        Self { going, dialled, attackers }
    }

    /// Waits until `dialled` connections were dialled in all.
    fn wait_for(&self, dialled: usize) {
        let give_up = Instant::now() + support::DEADLINE;
        while self.dialled.load(Ordering::Relaxed) < dialled {
            assert!(Instant::now() < give_up, "only {} were dialled", self.dialled.load(Ordering::Relaxed));
            std::thread::yield_now();
        }
    }

    fn stop(self) -> usize {
        self.going.store(false, Ordering::Relaxed);
        self.attackers.into_iter().for_each(|attacker| attacker.join().unwrap());
        self.dialled.load(Ordering::Relaxed)
    }
}

fn enough_sockets() {
    let limit = rlimit::increase_nofile_limit(4 * STRANGERS as u64).unwrap();
    assert!(limit > 2 * STRANGERS as u64, "only {limit} sockets may be open here");
}

#[test]
fn five_thousand_idle_connections_delay_no_page() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    enough_sockets();
    let mut site = Site::open();
    let undisturbed = site.undisturbed();
    let (open, bytes) = site.size();
    // How many connections were half-open at once, and the memory that they took; memory is not freed at once.
    let (mut half_open, mut larger) = (0, bytes);
    let mut strangers = Vec::new();
    for number in 0..STRANGERS {
        strangers.extend(dial(origin(number), site.address));
        if number % 50 == 0 {
            let size = site.size();
            (half_open, larger) = (half_open.max(size.0.saturating_sub(open)), larger.max(size.1));
        }
    }
    assert_eq!(strangers.len(), STRANGERS, "all of them came through");
    let delay = site.page();
    assert!(half_open > 100, "only {half_open} stood in the door at once");
    let each = larger.saturating_sub(bytes) / half_open;
    println!(
        "undisturbed {undisturbed:?}, among {STRANGERS} {delay:?}; {half_open} half-open, {each} bytes each"
    );
    assert!(delay <= undisturbed + DISTURBANCE, "{delay:?}, undisturbed {undisturbed:?}");
    assert!(each <= HALF_OPEN_BYTES, "{each} bytes for each of {half_open} half-open connections");
    drop(strangers);
    let answered = site.answers();
    assert!(answered < SECOND, "after the flood it answered after {answered:?}");
    site.page();
}

/// The station dials again after each page, from an address that the flood comes from too.
fn a_page_comes_through_a_flood_of(word: &'static [u8]) {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    enough_sockets();
    let mut site = Site::open();
    let undisturbed = site.undisturbed();
    let flood = Flood::start(site.address, word);
    flood.wait_for(STRANGERS);
    let mut delays = Vec::new();
    for _ in 0..3 {
        delays.push(site.page());
        flood.wait_for(flood.dialled.load(Ordering::Relaxed) + STRANGERS / 5);
    }
    let dialled = flood.stop();
    println!(
        "undisturbed {undisturbed:?}, in a flood of {dialled} connections of {} bytes {delays:?}",
        word.len()
    );
    assert!(delays[0] <= undisturbed + DISTURBANCE, "{delays:?}, undisturbed {undisturbed:?}");
    // The station had to come back for the other pages, one of which might meet the flood at its worst.
    delays.sort();
    assert!(delays[1] <= undisturbed + DISTURBANCE, "{delays:?}, undisturbed {undisturbed:?}");
    let answered = site.answers();
    assert!(answered < SECOND, "after the flood it answered after {answered:?}");
    site.page();
}

#[test]
fn a_flood_that_never_ends_lets_joined_stations_through() {
    a_page_comes_through_a_flood_of(b"");
}

#[test]
fn a_flood_that_speaks_lets_joined_stations_through() {
    a_page_comes_through_a_flood_of(READY);
}

/// Allows a running program to open `files` files from now on.
fn allow_files(program: &Program, files: usize) {
    let pid = program.id().to_string();
    let limit = format!("--nofile={files}:");
    let status = Command::new("prlimit").args(["--pid", &pid, &limit]).status().unwrap();
    assert!(status.success(), "prlimit {limit}: {status}");
}

/// The first bytes that an announcer sends to somebody who sends nothing; none if it is silent.
fn first_words(stranger: &Socket) -> Vec<u8> {
    let mut stream: TcpStream = stranger.try_clone().unwrap().into();
    stream.set_read_timeout(Some(10 * SECOND)).unwrap();
    let mut words = vec![0; 12];
    match stream.read(&mut words) {
        Ok(read) => words[..read].to_vec(),
        Err(_) => Vec::new(),
    }
}

#[test]
fn without_a_descriptor_left_the_announcer_says_busy_and_recovers() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let mut site = Site::open();
    site.page();
    let (open, _) = site.size();
    let full = open + 3;
    allow_files(&site.hallway.announcer, full);
    let strangers: Vec<Socket> = (0..50).filter_map(|number| dial(origin(number), site.address)).collect();
    assert_eq!(strangers.len(), 50, "the system itself lets them connect");
    site.hallway.announcer.wait_for_complaint("cannot accept");
    let busy = first_words(&strangers[49]);
    assert_eq!(busy, b"BULLHORN\0\x01\x01\x04", "the last one is told to come again");
    // The connected station hears the page, and comes back once there is a descriptor again.
    site.page();
    drop(strangers);
    allow_files(&site.hallway.announcer, full + 100);
    site.page();
    let answered = site.answers();
    assert!(answered < SECOND, "after the flood it answered after {answered:?}");
}

#[test]
fn an_announcer_that_may_open_40_files_serves_its_station() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let (fixtures, output, state) =
        (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let wav = Spec::mono(16, 8_000).write(fixtures.path(), 800);
    let environment = [(STATE.to_owned(), state.path().display().to_string())];
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -n 40; exec \"$@\"", "sh", BULLHORN]);
    command.args(["announce", "--listen", "127.0.0.1:0", "--events", "json", "--input"]).arg(file(&wav));
    let mut announcer = Program::start_command("the announcer", command, &environment);
    let address = announcer.wait_for("listening")["address"].as_str().unwrap().to_owned();
    let warning = announcer.wait_for("warning");
    assert!(warning["message"].as_str().unwrap().contains("room for 10 stations"), "{warning}");
    let mut station = start_station(&address, "hall-1", &file(output.path()), &environment);
    announcer.wait_for_one("station-joined", "station", "hall-1");
    let to: SocketAddr = address.parse().unwrap();
    let strangers: Vec<Socket> = (0..200).filter_map(|number| dial(origin(number), to)).collect();
    announcer.enter();
    assert_eq!(announcer.wait_for("done")["played"], 1);
    station.wait_for("played");
    drop(strangers);
    announcer.end_input();
    assert_eq!(announcer.exit_code(), 0);
}
