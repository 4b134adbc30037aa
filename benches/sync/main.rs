//! How well stations keep together, measured on real sound: the channels of two loudspeakers in one recording, on one
//! clock. Compared with Snapcast on the same sound server, where its packages are installed.
//!
//! `cargo bench --bench sync -- [ANNOUNCEMENTS [STARTS [STATIONS]]]`, by default 20, 10 and 200.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod distance;
mod snapcast;
#[path = "../../tests/support/mod.rs"]
mod support;
mod together;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use distance::Distance;
use serde_json::Value;
use snapcast::Snapcast;
use support::hallway::{BULLHORN, Hallway, Program, file, start_station};
use support::pulse::{MICROPHONE, MOUTH, PulseRig, Recording};
use support::wav::{SPOKEN_HZ, read_i16, speech, to_f32};
use together::{CLIP_SECONDS, Play, delay_ms, one_clip};

/// How long after its start a station must be in step.
const SETTLING: Duration = Duration::from_secs(3);
/// Announcements during which the sound server dropped out are repeated, at most this often in each part.
const MOST_REPEATS: usize = 20;

fn main() {
    // cargo bench itself passes --bench.
    let mut numbers = std::env::args().skip(1).filter_map(|argument| argument.parse::<usize>().ok());
    let announcements = numbers.next().unwrap_or(20);
    let starts = numbers.next().unwrap_or(10);
    let stations = numbers.next().unwrap_or(200);
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    println!("load of this machine before: {}", load.trim());
    if announcements > 0 {
        settled(announcements);
    }
    if starts > 0 {
        first(starts, None);
        first(starts, Some(Distance::default()));
    }
    let is_there = Snapcast::is_installed();
    if is_there && announcements + starts > 0 {
        snapcast(announcements, starts);
    } else if !is_there {
        println!("NOT MEASURED: Snapcast, for want of snapserver and snapclient (packages of these names)");
    }
    if stations > 0 {
        crowd(stations);
    }
}

fn percentiles(values: &[f64]) -> (f64, f64) {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    (sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN), sorted.last().copied().unwrap_or(f64::NAN))
}

/// Prints one row: p50 and maximum with their targets.
fn row(what: &str, unit: &str, values: &[f64], targets: Option<(f64, f64)>) {
    let (middle, most) = percentiles(values);
    let digits = if middle < 10.0 { 3 } else { 1 };
    let verdict = match targets {
        None => String::new(),
        Some((p50, max)) if middle <= p50 && most <= max => format!("within {p50} · {max}"),
        Some((p50, max)) => format!("OVER {p50} · {max}"),
    };
    println!(
        "{what:<66} p50 {middle:8.digits$}   max {most:8.digits$} {unit}   n = {:<3} {verdict}",
        values.len()
    );
}

fn rows(what: &str, plays: &[Play], targets: (f64, f64), most_disagreement_ms: Option<f64>) {
    let skews: Vec<f64> = plays.iter().map(|play| play.worst_skew_ms).collect();
    let disagreements: Vec<f64> = plays.iter().map(|play| play.disagreement_ms).collect();
    row(&format!("{what}: skew, worst half second"), "ms", &skews, Some(targets));
    let bound = most_disagreement_ms.map(|most| (most, most));
    row("… between the receipts and the sound", "ms", &disagreements, bound);
    let beyond = plays.iter().filter(|play| play.disagreement_ms > play.doubt_ms).count();
    let doubts: Vec<f64> = plays.iter().map(|play| play.doubt_ms).collect();
    row(&format!("… what they say that it may be, exceeded {beyond} times"), "ms", &doubts, None);
}

/// What a station reported when it had played, as the announcer emitted it.
fn played(announcer: &mut Program, clip: &str, station: &str) -> Value {
    loop {
        let played = announcer.wait_for_one("played", "station", station);
        if played["clip"] == clip {
            return played;
        }
    }
}

fn underruns(receipts: &[Value]) -> u64 {
    receipts.iter().map(|receipt| receipt["underruns"].as_u64().unwrap()).sum()
}

/// Plays speech into the microphone, over and over, to two loudspeakers that have been open for a while.
fn settled(announcements: usize) {
    let rig = PulseRig::start(2);
    let kept = tempfile::tempdir().unwrap();
    let mut hallway = Hallway::plan()
        .environment(rig.environment())
        .announce(["--seconds", &CLIP_SECONDS.to_string(), "--input", MICROPHONE])
        .station("hall-1", "hall-1")
        .station("hall-2", "hall-2")
        .station("archive", file(kept.path()))
        .open();
    let voice = speech(rig.folder(), (announcements + MOST_REPEATS) * (2 * CLIP_SECONDS + 4), SPOKEN_HZ);
    let _voice = rig.play(MOUTH, &voice);
    let (mut plays, mut delays, mut costs, mut repeats) = (Vec::new(), Vec::new(), Vec::new(), 0);
    while plays.len() < announcements && repeats < MOST_REPEATS {
        let recording = rig.record();
        hallway.announcer.enter();
        let clip = hallway.announcer.wait_for("recorded")["clip"].as_str().unwrap().to_owned();
        hallway.announcer.wait_for_one("playing", "station", "hall-1");
        let station = hallway.stations[0].id();
        let (began, before) = (Instant::now(), cpu_time(station));
        let receipts = ["hall-1", "hall-2"].map(|name| played(&mut hallway.announcer, &clip, name));
        let cost = (cpu_time(station) - before).as_secs_f64() / began.elapsed().as_secs_f64() * 100.0;
        hallway.announcer.wait_for("done");
        recording.wait_for(Duration::from_millis(700));
        let path = kept.path().join(format!("archive-{clip}.wav"));
        let sound = to_f32(&read_i16(&path).0);
        std::fs::remove_file(path).unwrap();
        if underruns(&receipts) > 0 {
            repeats += 1;
            continue;
        }
        delays.push(delay_ms(&sound, &recording));
        plays.push(Play::of(&sound, &recording, Some(&receipts)));
        costs.push(cost);
    }
    say_repeats(repeats);
    rows("two stations in step", &plays, (0.04, 0.15), Some(0.1));
    row("end of recording to first sound, two stations in step", "ms", &delays, Some((100.0, 100.0)));
    row("a station's processor time while it plays, of one core", "%", &costs, Some((2.0, 2.0)));
}

fn say_repeats(repeats: usize) {
    if repeats > 0 {
        println!("({repeats} more not counted: the sound server dropped out, as the receipts said)");
    }
}

/// Measures a first announcement soon after everything has started, again and again.
fn first(starts: usize, distance: Option<Distance>) {
    let (mut plays, mut repeats) = (Vec::new(), 0);
    let folder = tempfile::tempdir().unwrap();
    let voice = one_clip(folder.path());
    while plays.len() < starts && repeats < MOST_REPEATS {
        let rig = PulseRig::start(2);
        match first_of(&rig, &voice, distance) {
            Some(play) => plays.push(play),
            None => repeats += 1,
        }
    }
    say_repeats(repeats);
    match distance {
        None => rows("first announcement, 3 s after their start", &plays, (0.05, 0.2), Some(0.1)),
        // None of the three programs can see a difference between the way there and the way back.
        Some(_) => rows("… 5 ± 3 ms away, 10 % more there or back", &plays, (2.0, 2.0), None),
    }
}

fn first_of(rig: &PulseRig, voice: &Path, distance: Option<Distance>) -> Option<Play> {
    let mut hallway = Hallway::plan().environment(rig.environment()).says(voice).open();
    let recording = rig.record();
    let stations = ["hall-1", "hall-2"].map(|name| {
        let address = match distance {
            Some(distance) => distance.to(&hallway.address, name == "hall-2"),
            None => hallway.address.clone(),
        };
        start_station(&address, name, &name.into(), &hallway.environment)
    });
    // This measures a page this long after the start.
    std::thread::sleep(SETTLING);
    hallway.announcer.enter();
    let clip = hallway.announcer.wait_for("recorded")["clip"].as_str().unwrap().to_owned();
    let receipts = ["hall-1", "hall-2"].map(|name| played(&mut hallway.announcer, &clip, name));
    hallway.announcer.wait_for("done");
    recording.wait_for(Duration::from_millis(700));
    drop(stations);
    let sound = to_f32(&read_i16(voice).0);
    (underruns(&receipts) == 0).then(|| Play::of(&sound, &recording, Some(&receipts)))
}

/// Measures Snapcast, on the same sound server and in the same way.
fn snapcast(announcements: usize, starts: usize) {
    let folder = tempfile::tempdir().unwrap();
    let voice = one_clip(folder.path());
    let sound = to_f32(&read_i16(&voice).0);
    let announce = |rig: &PulseRig, snapcast: &mut Snapcast| {
        let recording: Recording = rig.record();
        snapcast.say(&voice);
        // A second of buffer at the server, and the contents of a pipe.
        recording.wait_for(Duration::from_secs(3));
        Play::of(&sound, &recording, None).worst_skew_ms
    };
    if announcements > 0 {
        let rig = PulseRig::start(2);
        let mut snapcast = Snapcast::start(&rig);
        std::thread::sleep(SETTLING);
        let skews: Vec<f64> = (0..announcements).map(|_| announce(&rig, &mut snapcast)).collect();
        row("Snapcast, two clients: skew, worst half second", "ms", &skews, None);
    }
    let skews: Vec<f64> = (0..starts)
        .map(|_| {
            let rig = PulseRig::start(2);
            let mut snapcast = Snapcast::start(&rig);
            std::thread::sleep(SETTLING);
            announce(&rig, &mut snapcast)
        })
        .collect();
    if starts > 0 {
        row("Snapcast, first announcement, 3 s after its clients' start", "ms", &skews, None);
    }
}

/// Stations that write their events to files, which are read when all is over: reading along with hundreds of stations
/// would take longer than the page.
struct Crowd {
    stations: Vec<Child>,
    diaries: Vec<PathBuf>,
}

impl Crowd {
    fn join(hallway: &mut Hallway, stations: usize, folder: &Path) -> Self {
        let mut crowd = Self { stations: Vec::new(), diaries: Vec::new() };
        for station in 0..stations {
            let diary = folder.join(format!("{station}.events"));
            let mut command = Command::new(BULLHORN);
            command.args(["speaker", &hallway.address, "--name", &format!("hall-{station}"), "--output"]);
            command.arg(file(&folder.join(station.to_string()))).envs(hallway.environment.iter().cloned());
            command.args(["--events", "json"]).stdin(Stdio::null()).stderr(Stdio::null());
            command.stdout(File::create(&diary).unwrap());
            crowd.stations.push(command.spawn().unwrap());
            crowd.diaries.push(diary);
        }
        (0..stations).for_each(|_| drop(hallway.announcer.wait_for("station-joined")));
        crowd
    }

    /// When the last of the stations reported that a clip sounds, in ms since 1970. All must have reported it.
    fn last_playing_unix_ms(&self, clip: &str) -> f64 {
        let playing = |diary: &PathBuf| {
            let diary = std::fs::read_to_string(diary).unwrap();
            let mut events = diary.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
            events.find(|event| event["event"] == "playing" && event["clip"] == clip).unwrap()["unix_ms"]
                .as_f64()
                .unwrap()
        };
        self.diaries.iter().map(playing).fold(0.0, f64::max)
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        for station in &mut self.stations {
            let _ = station.kill();
            let _ = station.wait();
        }
    }
}

/// Measures how soon a page sounds everywhere, with many stations on this one machine that write files. All files are
/// kept in memory if the system has a place for that: in a building, every station has a disk of its own, while 200
/// stations on one disk would wait for one another.
fn crowd(stations: usize) {
    const PAGES: usize = 5;
    /// Nobody presses Enter at the moment the verdict appears, while 200 stations are still storing their files.
    const PAUSE: Duration = Duration::from_secs(2);
    let folder = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
    let mut hallway = Hallway::plan().says(&one_clip(folder.path())).home(folder.path()).open();
    let crowd = Crowd::join(&mut hallway, stations, folder.path());
    let (mut sound, mut known) = (Vec::new(), Vec::new());
    for _ in 0..PAGES {
        std::thread::sleep(PAUSE);
        // A file is recorded at once, so this is the end of the recording.
        hallway.announcer.enter();
        let recorded = hallway.announcer.wait_for("recording")["unix_ms"].as_f64().unwrap();
        let clip = hallway.announcer.wait_for("recorded")["clip"].as_str().unwrap().to_owned();
        let done = hallway.announcer.wait_for("done");
        assert_eq!(done["played"], stations, "{done}");
        let mut last = recorded;
        for _ in 0..stations {
            let playing = hallway.announcer.wait_for_one("playing", "clip", &clip);
            last = playing["unix_ms"].as_f64().unwrap().max(last);
        }
        known.push(last - recorded);
        sound.push(crowd.last_playing_unix_ms(&clip) - recorded);
        println!(
            "  {} ms, known after {} ms, begun within {} µs of one another",
            sound[sound.len() - 1],
            last - recorded,
            done["spread_us"]
        );
    }
    row(
        &format!("end of recording until the last of {stations} stations says that it sounds"),
        "ms",
        &sound,
        Some((300.0, 300.0)),
    );
    row("... until its announcer knows that, too", "ms", &known, Some((300.0, 300.0)));
}

/// Processor time of all threads, to the nanosecond: proc(5), schedstat.
fn cpu_time(id: u32) -> Duration {
    let threads = std::fs::read_dir(format!("/proc/{id}/task")).unwrap();
    let run = |thread: std::io::Result<std::fs::DirEntry>| {
        let stat = std::fs::read_to_string(thread.ok()?.path().join("schedstat")).ok()?;
        stat.split(' ').next()?.parse::<u64>().ok()
    };
    Duration::from_nanos(threads.filter_map(run).sum())
}
