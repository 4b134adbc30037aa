//! What people in the hallway notice, measured on real sound: how long after it was said a word is heard, not counting
//! the clip's own length. Also what a waiting station costs, and how large the program is.
//!
//! `cargo bench --bench delay -- [ANNOUNCEMENTS [SECONDS]]`, by default 10 of 5 s.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../tests/support/mod.rs"]
mod support;

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use support::correlate::assert_whole;
use support::hallway::{BULLHORN, Hallway, file};
use support::pulse::{MICROPHONE, MOUTH, PulseRig, RATE_HZ, Recording};
use support::wav::{SPOKEN_HZ, read_i16, speech, to_f32};

const DELAY_TARGET_MS: f64 = 150.0;
const MEMORY_TARGET_MB: f64 = 12.0;
const SIZE_TARGET_MB: f64 = 8.0;
/// The share of one core that may be due to chance.
const NOTHING_PERCENT: f64 = 0.1;
/// How alike the clip and the heard sound are, and the clip and the spoken sound, whose peaks were not lowered yet.
const ALIKE: f64 = 0.98;
const ALIKE_BEFORE_LEVELLING: f64 = 0.9;
const WATCHED: Duration = Duration::from_secs(30);
/// Start-up is not waiting: for its first 20 s, a stream's timing is queried often.
const SETTLING: Duration = Duration::from_secs(25);

fn main() {
    // cargo bench itself passes --bench.
    let mut numbers = std::env::args().skip(1).filter_map(|argument| argument.parse::<usize>().ok());
    let announcements = numbers.next().unwrap_or(10).max(1);
    let seconds = numbers.next().unwrap_or(5).clamp(1, 60);

    let size = std::fs::metadata(BULLHORN).unwrap().len() as f64 / 1e6;
    figure("the program", &format!("{size:.2} MB"), size <= SIZE_TARGET_MB, "8 MB, stripped");
    measure_delay(announcements, seconds);
    measure_waiting();
}

fn figure(what: &str, measured: &str, within: bool, target: &str) {
    let verdict = if within { "within" } else { "OVER" };
    println!("{what:<44} {measured:>34}   {verdict} the target of {target}");
}

fn measure_delay(announcements: usize, seconds: usize) {
    let rig = PulseRig::start(1);
    // One station writes the clip bit for bit; that clip is then searched for in the sound said and heard.
    let kept = tempfile::tempdir().unwrap();
    let mut hallway = Hallway::plan()
        .environment(rig.environment())
        .announce(["--seconds", &seconds.to_string(), "--input", MICROPHONE])
        .station("hall-1", "hall-1")
        .station("archive", file(kept.path()))
        .open();
    let recording = rig.record();
    let voice = speech(rig.folder(), announcements * (2 * seconds + 3) + 30, SPOKEN_HZ);
    let _voice = rig.play(MOUTH, &voice);
    recording.wait_until_heard(0);

    let mut delays: Vec<f64> = (0..announcements)
        .map(|_| {
            let delay = delay_of_one(&mut hallway, &recording, kept.path());
            println!("  {delay:7.1} ms");
            delay
        })
        .collect();
    delays.sort_by(f64::total_cmp);
    let (middle, most) = (delays[delays.len() / 2], delays[delays.len() - 1]);
    figure(
        &format!("mouth to ear beyond a clip of {seconds} s, {announcements} times"),
        &format!("p50 {middle:.1} ms, max {most:.1} ms"),
        most <= DELAY_TARGET_MS,
        "150 ms",
    );
}

/// The milliseconds from the earliest time at which a word could be heard, which is its clip's length after it was
/// said, to the time at which it was heard.
fn delay_of_one(hallway: &mut Hallway, recording: &Recording, kept: &Path) -> f64 {
    let announced = hallway.announce_undisturbed(recording);
    let clip = to_f32(&read_i16(&kept.join(format!("archive-{}.wav", announced.clip))).0);
    let from = announced.from_frame;
    let said =
        assert_whole("what was said", &clip, &recording.channel(0, from), RATE_HZ, ALIKE_BEFORE_LEVELLING);
    let heard = assert_whole("what was heard", &clip, &recording.channel(1, from), RATE_HZ, ALIKE);
    (heard.delay_frames - said.delay_frames - clip.len() as f64) * 1000.0 / f64::from(RATE_HZ)
}

/// Measures a station on a real device, one that writes files, and the floor: PulseAudio's own player, which only keeps
/// a stream open with a buffer of the same size.
fn measure_waiting() {
    let rig = PulseRig::start(1);
    let folder = tempfile::tempdir().unwrap();
    let hallway = Hallway::plan()
        .environment(rig.environment())
        .announce(["--input", MICROPHONE])
        .station("hall-1", "hall-1")
        .station("files", file(folder.path()))
        .open();
    let mut silence = Command::new("pacat")
        .args(["--playback", "--device=hall-1", "--rate=48000", "--channels=1", "--format=s16le"])
        .args(["--latency-msec=40", "--process-time-msec=20", "/dev/zero"])
        .envs(rig.environment())
        .spawn()
        .unwrap();
    let ids = [hallway.stations[0].id(), hallway.stations[1].id(), silence.id()];
    std::thread::sleep(SETTLING);
    let before = ids.map(cpu_seconds);
    let began = Instant::now();
    // Time only has to pass here: this measures the cost of waiting.
    std::thread::sleep(WATCHED);
    let watched = began.elapsed().as_secs_f64();
    let after = ids.map(cpu_seconds);
    let [device, files, floor] = [0, 1, 2].map(|of| (after[of] - before[of]) / watched * 100.0);
    assert!(silence.try_wait().unwrap().is_none(), "pacat ended");
    silence.kill().unwrap();
    silence.wait().unwrap();
    for (name, id) in ["a sound device", "a folder"].iter().zip(ids) {
        let memory = resident_mb(id);
        figure(
            &format!("a station that waits, with {name}"),
            &format!("{memory:.1} MB resident"),
            memory <= MEMORY_TARGET_MB,
            "12 MB",
        );
    }
    let percent = |cpu: f64| format!("{cpu:.2} % of a core over {watched:.0} s");
    figure("… with a folder", &percent(files), files <= NOTHING_PERCENT, "none measurable (0.1 %)");
    figure("… with a sound device", &percent(device), device <= NOTHING_PERCENT, "none measurable (0.1 %)");
    println!(
        "{:<44} {:>34}   {:.2} times this",
        "the floor: pacat, a silent stream kept open",
        percent(floor),
        device / floor
    );
}

fn resident_mb(id: u32) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{id}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<f64>().unwrap() * 1024.0 / 1e6
}

/// Processor time of all threads, to the nanosecond: proc(5), schedstat.
fn cpu_seconds(id: u32) -> f64 {
    let threads = std::fs::read_dir(format!("/proc/{id}/task")).unwrap();
    let run_ns = |thread: std::io::Result<std::fs::DirEntry>| {
        let stat = std::fs::read_to_string(thread.ok()?.path().join("schedstat")).ok()?;
        stat.split(' ').next()?.parse::<f64>().ok()
    };
    threads.filter_map(run_ns).sum::<f64>() / 1e9
}
