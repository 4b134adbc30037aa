//! Either side is killed at random instants of an announcement: no accepted clip is lost, and none is played twice
//! without being marked so. `KILLS=200` kills more often than the usual 40; `KILL_SEED=…` repeats the same kills.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::support::dice::Dice;
use crate::support::hallway::{STATE, file};
use crate::support::mortal::Mortal;
use crate::support::oracle::judge;
use crate::support::wav::Spec;

/// How often one of the sides is killed unless the environment says otherwise.
const KILLS: usize = 40;
/// About 400 ms pass from Enter to the receipt; the first of them are full of events.
const ANNOUNCEMENT_MS: u64 = 500;
const BUSY_MS: u64 = 80;

fn open_clips(state: &Path) -> usize {
    let entries = std::fs::read_dir(state.join("bullhorn/outbox")).unwrap();
    entries
        .filter(|entry| entry.as_ref().unwrap().path().extension().is_some_and(|kind| kind == "clip"))
        .count()
}

#[test]
fn nothing_is_lost_or_repeated_whoever_is_killed_whenever() {
    let kills = std::env::var("KILLS").map_or(KILLS, |kills| kills.parse().unwrap());
    let mut dice = Dice::from_environment("KILL_SEED");
    let home = tempfile::tempdir().unwrap();
    let state = home.path().join("state");
    let environment = vec![(STATE.to_owned(), state.display().to_string())];
    let wav = Spec::mono(16, 8_000).write(home.path(), 2_400);
    let arguments =
        ["announce".into(), "--listen".into(), "127.0.0.1:0".into(), "--input".into(), file(&wav)];
    let mut announcer = Mortal::start("the announcer", arguments.into(), &environment);
    let address = announcer.program.wait_for("listening")["address"].as_str().unwrap().to_owned();
    announcer.set_argument(2, &address);
    let mut halls: Vec<Mortal> = (1..=2)
        .map(|number| {
            let name = format!("hall-{number}");
            let output = file(&home.path().join(&name));
            let words: [OsString; 6] = [
                "speaker".into(),
                (&address).into(),
                "--name".into(),
                (&name).into(),
                "--output".into(),
                output,
            ];
            let hall = Mortal::start(&name, words.into(), &environment);
            announcer.program.wait_for_one("station-joined", "station", &name);
            hall
        })
        .collect();
    let mut killed = [0; 2];
    for _ in 0..kills {
        announcer.program.enter();
        let most = if dice.below(2) == 0 { BUSY_MS } else { ANNOUNCEMENT_MS };
        std::thread::sleep(dice.between_ms(0, most));
        let victim = dice.below(4);
        killed[usize::from(victim < 2)] += 1;
        match halls.get_mut(victim) {
            Some(hall) => hall.kill_and_restart(),
            None => {
                announcer.kill_and_restart();
                announcer.program.wait_for("listening");
            }
        }
        std::thread::sleep(dice.between_ms(0, 2 * ANNOUNCEMENT_MS));
    }
    let give_up = Instant::now() + crate::support::DEADLINE;
    while open_clips(&state) > 0 && Instant::now() < give_up {
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(open_clips(&state), 0, "clips without all their outcomes");
    announcer.program.end_input();
    announcer.program.exit_code();
    let stories: BTreeMap<_, _> =
        halls.iter_mut().map(|hall| (hall.name().to_owned(), hall.runs())).collect();
    let judged = judge(&announcer.runs(), &stories);
    println!(
        "killed: the announcer {} times, a station {}; {} clips accepted, {:?}, {} marked as begun before, {} outcomes \
         not printed by an announcer that was killed",
        killed[0], killed[1], judged.clips, judged.outcomes, judged.again, judged.unprinted
    );
    assert_eq!(judged.faults, [] as [String; 0]);
    assert!(judged.clips * 4 > kills, "too few clips were accepted to say anything");
}
