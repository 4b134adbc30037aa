//! Measures one number of stations after another, and prints the table.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU64, Ordering};
use std::time::Duration;

use bullhorn::keys::{AnnouncerKeys, NoiseKeys, StateFolder};
use hound::{SampleFormat, WavSpec, WavWriter};
use serde_json::Value;
use tempfile::TempDir;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout_at};

use super::crowd::{self, News, Office};
use super::floor::{self, Load, Work};
use super::plot;
use super::process::{PATIENCE, Process, own_cpu};

const BULLHORN: &str = env!("CARGO_BIN_EXE_bullhorn");
const RATE_HZ: u32 = 48_000;
pub const SECONDS: u32 = 5;
/// The size of a clip of that length, header included.
const WAV_BYTES: usize = 44 + (SECONDS * RATE_HZ * 2) as usize;
/// How long the idle announcer is watched.
const WATCHED: Duration = Duration::from_secs(10);

/// The median of the measured values, and the lowest and highest.
#[derive(Debug, Clone, Copy)]
pub struct Spread {
    pub least: f64,
    pub middle: f64,
    pub most: f64,
}

impl Spread {
    fn of(mut values: Vec<f64>) -> Self {
        values.sort_by(f64::total_cmp);
        Self { least: values[0], middle: values[values.len() / 2], most: values[values.len() - 1] }
    }

    pub fn show(&self, digits: usize) -> String {
        let Self { least, middle, most } = self;
        format!("{middle:.digits$} ({least:.digits$}–{most:.digits$})")
    }
}

/// The figures of one way of checking, over all repeats.
#[derive(Debug)]
pub struct Sending {
    pub all_s: Spread,
    pub ratio: Spread,
    pub cpu_ratio: Spread,
    pub p99_over_p50: Spread,
    pub peak_mb: Spread,
}

#[derive(Debug)]
pub struct Figures {
    pub stations: usize,
    pub floor_s: Spread,
    pub hashed_floor_s: Spread,
    pub checked_floor_s: Spread,
    /// The time until all have verified, as a ratio to the bare floor.
    pub whole_to_bare: Spread,
    pub whole: Sending,
    pub framing: Sending,
    pub idle_mb: f64,
    pub idle_kib_each: f64,
    pub idle_cpu_percent: f64,
    pub join_s: f64,
    pub after_page_s: Spread,
    pub restart_s: Spread,
    pub lost: usize,
    pub failed_dials: usize,
}

pub fn run(sizes: &[usize], repeat: usize, write: bool) {
    let limit = rlimit::increase_nofile_limit(u64::MAX).unwrap();
    println!("file limit of this process: {limit}");
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let figures: Vec<Figures> = sizes
        .iter()
        .map(|&stations| {
            // Runs as one task among the stations' own: waking the thread that waits here for each of their messages
            // would cost more than the message.
            let figures = runtime.block_on(runtime.spawn(measure(stations, repeat))).unwrap();
            println!("{}", plot::row(&figures));
            figures
        })
        .collect();
    println!("\n{}", plot::table(&figures));
    if write {
        plot::write(&figures);
    }
}

fn speak(path: &Path) {
    let spec =
        WavSpec { channels: 1, sample_rate: RATE_HZ, bits_per_sample: 16, sample_format: SampleFormat::Int };
    let mut writer = WavWriter::create(path, spec).unwrap();
    for frame in 0..SECONDS * RATE_HZ {
        writer.write_sample((frame.wrapping_mul(2_654_435_761) >> 18) as i16).unwrap();
    }
    writer.finalize().unwrap();
}

/// Creates a state folder in which `stations` stations have joined, and returns it with their keys.
pub fn site(stations: usize) -> (TempDir, AnnouncerKeys, Vec<NoiseKeys>) {
    let folder = tempfile::tempdir().unwrap();
    let state = StateFolder::open(Some(&folder.path().join("state"))).unwrap();
    let announcer = AnnouncerKeys::load_or_create(&state).unwrap();
    let keys: Vec<NoiseKeys> = (0..stations).map(|_| NoiseKeys::generate().unwrap()).collect();
    let mut table = String::new();
    for (index, keys) in keys.iter().enumerate() {
        let (name, key) = (crowd::name(index), keys.public().to_hex());
        table += &format!(
            "[[station]]\nname = \"{name}\"\nnoise_key = \"{key}\"\njoined_unix = 1\nlast_seen_unix = 1\n"
        );
    }
    state.lock().unwrap().write("stations.toml", table.as_bytes()).unwrap();
    speak(&folder.path().join("spoken.wav"));
    (folder, announcer, keys)
}

/// Starts the real program, and returns it with the instant from which it accepts stations.
pub async fn announcer(folder: &Path, port: u16) -> (Process, u16, Instant) {
    announcer_with(folder, &format!("127.0.0.1:{port}"), "", &[]).await
}

pub async fn announcer_with(
    folder: &Path,
    listen: &str,
    through: &str,
    more: &[String],
) -> (Process, u16, Instant) {
    let spoken = format!("file:{}", folder.join("spoken.wav").display());
    let state = folder.join("state").display().to_string();
    let own = ["announce", "--listen", listen, "--state", &state, "--input", &spoken, "--events", "json"];
    let mut words: Vec<String> =
        through.split_whitespace().chain([BULLHORN]).chain(own).map(String::from).collect();
    words.extend_from_slice(more);
    let mut process = Process::start(words.remove(0), &words);
    loop {
        let (at, line) = process.stamped_line().await;
        let event: Value = serde_json::from_str(&line).unwrap();
        if event["event"] == "listening" {
            let port = event["address"].as_str().unwrap().rsplit(':').next().unwrap().parse().unwrap();
            return (process, port, at);
        }
        eprintln!("announcer: {line}");
    }
}

pub struct Crowd {
    pub stations: usize,
    pub news: mpsc::UnboundedReceiver<News>,
    pub lost: Vec<String>,
    pub failed: usize,
}

/// The events of one page.
#[derive(Default)]
pub struct Page {
    pub first_header: Option<Instant>,
    /// When each station first had the clip.
    pub verified: BTreeMap<usize, Instant>,
    pub told: usize,
    pub noted: usize,
    pub joined: usize,
    pub joined_at: Vec<Instant>,
    pub lost_at: Vec<Instant>,
}

impl Crowd {
    /// How often each reason was given for a lost link.
    fn losses(&self) -> BTreeMap<&str, usize> {
        let mut losses = BTreeMap::new();
        for reason in &self.lost {
            *losses.entry(reason.as_str()).or_default() += 1;
        }
        losses
    }

    pub async fn until(&mut self, page: &mut Page, what: &str, done: impl Fn(&Page) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !done(page) {
            let news = timeout_at(deadline, self.news.recv()).await;
            let Ok(news) = news else {
                let (verified, Page { joined, told, noted, .. }) = (page.verified.len(), &page);
                panic!(
                    "waiting for {what} of {}: {verified} verified, {told} told, {noted} noted, {joined} joined; lost {:?}",
                    self.stations,
                    self.losses()
                );
            };
            match news.unwrap() {
                News::Joined(at) => {
                    page.joined += 1;
                    page.joined_at.push(at);
                }
                News::Header(at) => {
                    page.first_header = Some(page.first_header.map_or(at, |first| first.min(at)))
                }
                News::Verified(station, at) => {
                    page.verified.entry(station).or_insert(at);
                }
                News::Told => page.told += 1,
                News::Noted => page.noted += 1,
                News::Lost(at, reason) => {
                    page.lost_at.push(at);
                    self.lost.push(reason);
                }
                News::Failed => self.failed += 1,
            }
        }
    }
}

struct Run {
    times: Vec<Duration>,
    cpu: Duration,
    peak: u64,
    rejoined: Duration,
}

async fn page(process: &mut Process, crowd: &mut Crowd) -> Run {
    let stations = crowd.stations;
    process.forget_peak();
    let cpu = process.cpu() + own_cpu();
    process.say("").await;
    let mut page = Page::default();
    // Times are counted from when the clip is recorded and sealed.
    let recorded = loop {
        let (at, line) = process.stamped_line().await;
        if line.contains("\"event\":\"recorded\"") {
            break at;
        }
    };
    crowd.until(&mut page, "the clip", |page| page.verified.len() == stations).await;
    let cpu = process.cpu() + own_cpu() - cpu;
    let peak = process.peak();
    let begun = page.first_header.unwrap().min(recorded);
    let mut times: Vec<Duration> = page.verified.values().map(|at| *at - begun).collect();
    times.sort();
    crowd.until(&mut page, "the first receipt to be noted", |page| page.noted > 0).await;
    let noted = Instant::now();
    // A station whose link broke before its receipt was noted reports again what it played when it is back.
    let is_back = |page: &Page| page.joined >= stations && page.noted + page.lost_at.len() >= stations;
    crowd.until(&mut page, "all to be back", is_back).await;
    let rejoined = noted.elapsed();
    let mut counts = BTreeMap::new();
    let done = loop {
        let event: Value = serde_json::from_str(&process.line().await).unwrap();
        let kind = event["event"].as_str().unwrap().to_owned();
        if kind == "done" {
            break event;
        }
        *counts.entry(kind).or_insert(0_usize) += 1;
    };
    for kind in ["verified", "playing", "played"] {
        if counts.get(kind) != Some(&stations) {
            println!("  {stations} stations, but {:?} events {kind}", counts.get(kind));
        }
    }
    if done["played"] != stations || done["expected"] != stations {
        println!("  {stations} stations: {} of {} played", done["played"], done["expected"]);
    }
    Run { times, cpu, peak, rejoined }
}

fn last_s(times: &[Duration]) -> f64 {
    times[times.len() - 1].as_secs_f64()
}

fn sending(runs: &[(Run, f64, Duration)], idle: u64) -> Sending {
    let at = |run: &Run, share: f64| {
        let index = (run.times.len() as f64 * share).ceil() as usize;
        run.times[index.saturating_sub(1)].as_secs_f64()
    };
    let spread = |of: &dyn Fn(&(Run, f64, Duration)) -> f64| Spread::of(runs.iter().map(of).collect());
    Sending {
        all_s: spread(&|(run, ..)| at(run, 1.0)),
        ratio: spread(&|(run, floor, _)| at(run, 1.0) / floor),
        cpu_ratio: spread(&|(run, _, cpu)| run.cpu.as_secs_f64() / cpu.as_secs_f64().max(1e-3)),
        p99_over_p50: spread(&|(run, ..)| at(run, 0.99) / at(run, 0.5)),
        peak_mb: spread(&|(run, ..)| run.peak.saturating_sub(idle) as f64 / 1e6),
    }
}

async fn measure(stations: usize, repeat: usize) -> Figures {
    let bare = {
        let (folder, ..) = site(0);
        let (process, ..) = announcer(folder.path(), 0).await;
        sleep(Duration::from_secs(1)).await;
        process.resident()
    };
    let (folder, keys, station_keys) = site(stations);
    let (mut process, port, listening) = announcer(folder.path(), 0).await;
    let office = Arc::new(Office {
        address: Ipv4Addr::LOCALHOST,
        port: AtomicU16::new(port),
        noise: keys.noise().public(),
        announcer: keys.id(),
        whole: AtomicBool::new(true),
        plays: Duration::from_secs(SECONDS.into()),
        bytes_heard: AtomicU64::new(0),
        sources: Some(crowd::LOOPBACK),
    });
    let (sender, news) = mpsc::unbounded_channel();
    let mut tasks = JoinSet::new();
    for (index, keys) in station_keys.into_iter().enumerate() {
        tasks.spawn(crowd::station(index, keys, office.clone(), sender.clone()));
    }
    let mut crowd = Crowd { stations, news, lost: Vec::new(), failed: 0 };
    crowd.until(&mut Page::default(), "all to join", |page| page.joined >= stations).await;
    let join_s = listening.elapsed().as_secs_f64();
    sleep(Duration::from_secs(3)).await;
    let cpu = process.cpu();
    let watched = Instant::now();
    sleep(WATCHED).await;
    let idle_cpu_percent = (process.cpu() - cpu).as_secs_f64() / watched.elapsed().as_secs_f64() * 100.0;
    let idle = process.resident();

    let load = Load::new(WAV_BYTES);
    let (mut floors, mut hashed_floors, mut checked_floors) = (Vec::new(), Vec::new(), Vec::new());
    let (mut whole, mut framing, mut after_page) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..repeat {
        // A connection's first run pays for its buffers. bullhorn pays too, as it sends every clip on a new connection.
        let (hashed, _) = floor::run(stations, &load, Work::Hash).await;
        hashed_floors.push(last_s(&hashed));
        for (check, work) in [(true, Work::OpenAndHash), (false, Work::Count)] {
            let (times, floor_cpu) = floor::run(stations, &load, work).await;
            let floor_s = last_s(&times);
            if check { &mut checked_floors } else { &mut floors }.push(floor_s);
            office.whole.store(check, Ordering::Relaxed);
            sleep(Duration::from_millis(500)).await;
            let run = page(&mut process, &mut crowd).await;
            after_page.push(run.rejoined.as_secs_f64());
            if check { &mut whole } else { &mut framing }.push((run, floor_s, floor_cpu));
        }
    }
    let to_bare =
        whole.iter().zip(&floors).map(|((run, ..), floor_s)| last_s(&run.times) / floor_s).collect();
    let mut restarts = Vec::new();
    for _ in 0..repeat.min(3) {
        process.kill().await;
        let lost = std::mem::take(&mut crowd.lost);
        let (again, _, listening) = announcer(folder.path(), port).await;
        process = again;
        crowd.until(&mut Page::default(), "all to be back", |page| page.joined >= stations).await;
        restarts.push(listening.elapsed().as_secs_f64());
        // All stations lose the link when the announcer is killed: that was intended, and does not count.
        crowd.lost = lost;
        sleep(Duration::from_secs(1)).await;
    }
    if !crowd.lost.is_empty() {
        println!("  links lost: {:?}", crowd.losses());
    }
    drop(tasks);
    process.kill().await;
    Figures {
        stations,
        floor_s: Spread::of(floors),
        hashed_floor_s: Spread::of(hashed_floors),
        whole_to_bare: Spread::of(to_bare),
        checked_floor_s: Spread::of(checked_floors),
        whole: sending(&whole, idle),
        framing: sending(&framing, idle),
        idle_mb: idle as f64 / 1e6,
        idle_kib_each: idle.saturating_sub(bare) as f64 / 1024.0 / stations as f64,
        idle_cpu_percent,
        join_s,
        after_page_s: Spread::of(after_page),
        restart_s: Spread::of(restarts),
        lost: crowd.lost.len(),
        failed_dials: crowd.failed,
    }
}

/// Measures how a page reaches stations behind one slow line, at each rate.
pub fn slow_network(sizes: &[usize], at: &str, through: &str) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    for &stations in sizes {
        for rate_hz in [8_000, 16_000, 24_000, 48_000] {
            runtime.block_on(slow_page(stations, at, through, rate_hz));
        }
    }
}

async fn slow_page(stations: usize, at: &str, through: &str, rate_hz: u32) {
    let (folder, keys, station_keys) = site(stations);
    let rate = ["--rate".to_owned(), rate_hz.to_string()];
    let (mut process, port, _) = announcer_with(folder.path(), &format!("{at}:0"), through, &rate).await;
    let office = Arc::new(Office {
        address: at.parse().unwrap(),
        port: AtomicU16::new(port),
        noise: keys.noise().public(),
        announcer: keys.id(),
        whole: AtomicBool::new(false),
        plays: Duration::from_secs(SECONDS.into()),
        bytes_heard: AtomicU64::new(0),
        sources: None,
    });
    let (sender, news) = mpsc::unbounded_channel();
    let mut tasks = JoinSet::new();
    for (index, keys) in station_keys.into_iter().enumerate() {
        tasks.spawn(crowd::station(index, keys, office.clone(), sender.clone()));
    }
    let mut crowd = Crowd { stations, news, lost: Vec::new(), failed: 0 };
    crowd.until(&mut Page::default(), "all to join", |page| page.joined >= stations).await;
    sleep(Duration::from_secs(1)).await;
    let mut page = Page::default();
    process.say("").await;
    let (mut recorded, mut done) = (None, None);
    let (mut progress, mut first_left) = (0, None);
    while done.is_none() {
        let (at, line) = process.stamped_line().await;
        let event: Value = serde_json::from_str(&line).unwrap();
        match event["event"].as_str().unwrap() {
            "recorded" => recorded = Some(at),
            "progress" => {
                progress += 1;
                first_left = first_left.or(Some((at, event["left_ms"].as_u64().unwrap())));
            }
            "done" => done = Some(event),
            _ => (),
        }
    }
    crowd.until(&mut page, "the clip", |page| page.verified.len() >= stations).await;
    let (begun, done) = (recorded.unwrap(), done.unwrap());
    let mut times: Vec<f64> = page.verified.values().map(|at| (*at - begun).as_secs_f64()).collect();
    times.sort_by(f64::total_cmp);
    let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize];
    let told = first_left.map_or("none".to_owned(), |(told, left_ms)| {
        let off = (told - begun).as_secs_f64() + left_ms as f64 / 1e3 - at(1.0);
        format!("{progress}, the first off by {off:+.1} s")
    });
    println!(
        "{stations} stations at {rate_hz} Hz: first {:.2} s, half {:.2} s, last {:.2} s; {} of {} played; links lost {:?}; \
         progress told {told}",
        at(0.0),
        at(0.5),
        at(1.0),
        done["played"],
        done["expected"],
        crowd.losses(),
    );
    drop(tasks);
    process.kill().await;
}
