//! Minutes or days of announcements on a network that fails again and again, with real processes and the oracle of the
//! fault tests. `cargo bench --bench soak -- MINUTES`; `SOAK_SEED=…` repeats the same faults.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../tests/support/mod.rs"]
mod support;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use support::dice::Dice;
use support::hallway::{Program, STATE, file};
use support::mortal::Mortal;
use support::network::{Fault, Network, Way};
use support::oracle::judge;
use support::wav::Spec;

/// Stations on networks that fail. One more station is killed now and then.
const STATIONS: usize = 4;
/// After this time, everything that grows only at first has grown: caches, threads, the first pages.
const WARM_UP: Duration = Duration::from_secs(30);
/// How often a fault is injected, ms.
const FAULTS_MS: (u64, u64) = (500, 6_000);
/// How long a lasting fault lasts, ms.
const LASTING_MS: (u64, u64) = (200, 9_000);
/// How often there is an announcement, ms.
const PAGES_MS: (u64, u64) = (2_000, 6_000);
/// How often the station is killed, ms.
const KILLS_MS: (u64, u64) = (10_000, 60_000);

fn any_fault(dice: &mut Dice) -> Fault {
    let way = if dice.below(2) == 0 { Way::Up } else { Way::Down };
    let faults = [
        Fault::Cut,
        Fault::Reset,
        Fault::HalfOpen(way),
        Fault::Flip(way),
        Fault::Truncate(way),
        Fault::Duplicate(way),
        Fault::BlackHole(way),
        Fault::Delay(Duration::from_millis(300)),
        Fault::Jitter(Duration::from_millis(500)),
        Fault::Bandwidth(30_000),
        Fault::OneByte,
        Fault::SlowClose(Duration::from_secs(2)),
    ];
    faults[dice.below(faults.len())]
}

fn open_clips(state: &Path) -> usize {
    let entries = std::fs::read_dir(state.join("bullhorn/outbox")).unwrap();
    entries
        .filter(|entry| entry.as_ref().unwrap().path().extension().is_some_and(|kind| kind == "clip"))
        .count()
}

fn show(when: &str, announcer: &Program, halls: &[Mortal]) {
    let programs = std::iter::once(("the announcer", announcer))
        .chain(halls.iter().take(STATIONS).map(|hall| (hall.name(), &hall.program)));
    for (name, program) in programs {
        let size = program.size();
        println!(
            "{when}: {name}: {} KiB resident, {} open files, {} threads, {:.1} s of processor time",
            size.resident_kib,
            size.files,
            size.threads,
            program.cpu().as_secs_f64()
        );
    }
}

fn main() -> ExitCode {
    let minutes = std::env::args().skip(1).find_map(|argument| argument.parse::<f64>().ok()).unwrap_or(1.0);
    let length = Duration::from_secs_f64(60.0 * minutes);
    let mut dice = Dice::from_environment("SOAK_SEED");
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let home = tempfile::tempdir().unwrap();
    let state = home.path().join("state");
    let environment = vec![(STATE.to_owned(), state.display().to_string())];
    // 1 s.
    let wav = Spec::mono(16, 16_000).write(home.path(), 16_000);
    let archive = home.path().join("archive");
    let words: [OsString; 7] = [
        "announce".into(),
        "--listen".into(),
        "127.0.0.1:0".into(),
        "--input".into(),
        file(&wav),
        "--archive".into(),
        archive.into(),
    ];
    let mut announcer = Mortal::start("the announcer", words.into(), &environment);
    let address = announcer.program.wait_for("listening")["address"].as_str().unwrap().to_owned();
    let target = address.parse().unwrap();
    let networks: Vec<Network> = (0..=STATIONS).map(|_| runtime.block_on(Network::to(target))).collect();
    let mut halls: Vec<Mortal> = (0..=STATIONS)
        .map(|number| {
            let name = format!("hall-{}", number + 1);
            let words: [OsString; 8] = [
                "speaker".into(),
                networks[number].address.to_string().into(),
                "--name".into(),
                (&name).into(),
                "--output".into(),
                file(&home.path().join(&name)),
                "--keep-clips".into(),
                home.path().join(format!("{name}-kept")).into(),
            ];
            let hall = Mortal::start(&name, words.into(), &environment);
            announcer.program.wait_for_one("station-joined", "station", &name);
            hall
        })
        .collect();
    let begun = Instant::now();
    let soon = |dice: &mut Dice, (least, most)| Instant::now() + dice.between_ms(least, most);
    let (mut page, mut kill) = (Instant::now(), soon(&mut dice, KILLS_MS));
    let mut faults: Vec<Instant> = (0..STATIONS).map(|_| soon(&mut dice, FAULTS_MS)).collect();
    let mut heals: Vec<Option<Instant>> = vec![None; STATIONS];
    let (mut pages, mut kills, mut struck, mut is_warm) = (0, 0, 0, false);
    while begun.elapsed() < length {
        let now = Instant::now();
        if !is_warm && begun.elapsed() >= WARM_UP.min(length / 2) {
            is_warm = true;
            show("at the start", &announcer.program, &halls);
        }
        if now >= page {
            pages += 1;
            announcer.program.enter();
            page = soon(&mut dice, PAGES_MS);
        }
        for (number, network) in networks.iter().take(STATIONS).enumerate() {
            if heals[number].is_some_and(|heal| now >= heal) {
                heals[number] = None;
                network.heal();
                faults[number] = soon(&mut dice, FAULTS_MS);
            } else if heals[number].is_none() && now >= faults[number] {
                struck += 1;
                network.strike(any_fault(&mut dice));
                heals[number] = Some(soon(&mut dice, LASTING_MS));
            }
        }
        if now >= kill {
            kills += 1;
            halls[STATIONS].kill_and_restart();
            kill = soon(&mut dice, KILLS_MS);
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    networks.iter().for_each(Network::heal);
    let give_up = Instant::now() + Duration::from_secs(90);
    while open_clips(&state) > 0 && Instant::now() < give_up {
        std::thread::sleep(Duration::from_millis(50));
    }
    show("at the end", &announcer.program, &halls);
    announcer.program.end_input();
    let status = announcer.program.exit_code();
    let stories: BTreeMap<_, _> =
        halls.iter_mut().map(|hall| (hall.name().to_owned(), hall.runs())).collect();
    let judged = judge(&announcer.runs(), &stories);
    println!(
        "{:.1} min: {pages} announcements, {struck} faults of the network, {kills} kills of a station; {} clips accepted",
        begun.elapsed().as_secs_f64() / 60.0,
        judged.clips
    );
    println!(
        "outcomes {:?}; {} begun before and marked so; the announcer left with status {status}",
        judged.outcomes, judged.again
    );
    println!("lost without a word, repeated or contradictory: {}", judged.faults.len());
    for fault in &judged.faults {
        println!("  {fault}");
    }
    let is_good = judged.faults.is_empty() && judged.clips == pages && open_clips(&state) == 0;
    println!("{}", if is_good { "good" } else { "NOT GOOD" });
    if is_good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
