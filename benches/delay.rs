//! What the hallway notices, measured on real sound: how long after it was said a word is heard, beyond the
//! clip's own length; what a waiting station costs; how large the program is.
//!
//! `cargo bench --bench delay -- [ANNOUNCEMENTS [SECONDS]]`, by default 10 of 5 s.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../tests/support/mod.rs"]
mod support;

use std::path::Path;
use std::time::{Duration, Instant};

use support::correlate::assert_whole;
use support::hallway::{BULLHORN, Hallway, file};
use support::pulse::{MICROPHONE, MOUTH, PulseRig, RATE_HZ, Recording};
use support::wav::{SPOKEN_HZ, read_i16, speech, to_f32};

const DELAY_TARGET_MS: f64 = 150.0;
const MEMORY_TARGET_MB: f64 = 12.0;
const SIZE_TARGET_MB: f64 = 8.0;
const WATCHED: Duration = Duration::from_secs(30);
/// User and system time in /proc count in these (proc(5); USER_HZ is 100 on every Linux).
const TICKS_PER_SECOND: f64 = 100.0;

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
    // One station writes the clip to the bit: it is what is looked for in what was said and heard.
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

/// Milliseconds between when a word would be heard at the earliest, its clip's length after it was said,
/// and when it was.
fn delay_of_one(hallway: &mut Hallway, recording: &Recording, kept: &Path) -> f64 {
    let announced = hallway.announce_undisturbed(recording);
    let clip = to_f32(&read_i16(&kept.join(format!("archive-{}.wav", announced.clip))).0);
    let from = announced.from_frame;
    let said = assert_whole("what was said", &clip, &recording.channel(0, from), RATE_HZ, 0.98);
    let heard = assert_whole("what was heard", &clip, &recording.channel(1, from), RATE_HZ, 0.98);
    (heard.delay_frames - said.delay_frames - clip.len() as f64) * 1000.0 / f64::from(RATE_HZ)
}

/// A station on a real device, and one that writes files.
fn measure_waiting() {
    let rig = PulseRig::start(1);
    let folder = tempfile::tempdir().unwrap();
    let hallway = Hallway::plan()
        .environment(rig.environment())
        .announce(["--input", MICROPHONE])
        .station("hall-1", "hall-1")
        .station("files", file(folder.path()))
        .open();
    let ids: Vec<u32> = hallway.stations.iter().map(|station| station.id()).collect();
    let before: Vec<f64> = ids.iter().map(|&id| cpu_seconds(id)).collect();
    let began = Instant::now();
    // The one thing to do here is to let time pass: what is measured is what waiting costs.
    std::thread::sleep(WATCHED);
    let watched = began.elapsed().as_secs_f64();
    for ((name, id), before) in ["a sound device", "a folder"].iter().zip(ids).zip(before) {
        let memory = resident_mb(id);
        let cpu = (cpu_seconds(id) - before) / watched * 100.0;
        figure(
            &format!("a station that waits, with {name}"),
            &format!("{memory:.1} MB resident"),
            memory <= MEMORY_TARGET_MB,
            "12 MB",
        );
        figure(
            "",
            &format!("{cpu:.2} % of a core over {watched:.0} s"),
            cpu < 0.1,
            "none measurable (0.1 %)",
        );
    }
}

fn resident_mb(id: u32) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{id}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<f64>().unwrap() * 1024.0 / 1e6
}

fn cpu_seconds(id: u32) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).unwrap();
    // Fields are counted from after the name, which may hold spaces: utime and stime are 14 and 15 of all.
    let (_, fields) = stat.rsplit_once(')').unwrap();
    let ticks = |field: usize| fields.split_whitespace().nth(field - 3).unwrap().parse::<f64>().unwrap();
    (ticks(14) + ticks(15)) / TICKS_PER_SECOND
}
