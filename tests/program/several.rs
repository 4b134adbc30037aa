//! Several announcers and one station: pages wait for one another, and an emergency waits for none.

use std::ffi::OsString;

use crate::support::desks::{Desk, join};
use crate::support::hallway::{Environment, Program, STATE, file, wavs};
use crate::support::wav::{Spec, read_i16};
use serde_json::Value;
use tempfile::TempDir;

/// Opens an announcer of `seconds` seconds of tones.
fn desk(seconds: f64, more: &[&str]) -> Desk {
    let frames = (seconds * 8_000.0) as usize;
    Desk::open(|folder| Spec::mono(16, 8_000).write(folder, frames), more, &vec![])
}

/// A station that serves all of these announcers, and writes what it plays.
struct Hall {
    station: Program,
    folder: TempDir,
}

impl Hall {
    fn open(desks: &[Desk], more: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let environment = vec![(STATE.to_owned(), folder.path().join("state").display().to_string())];
        let output = file(&folder.path().join("played"));
        let station = join(&desks.iter().collect::<Vec<_>>(), &output, more, &environment);
        Self { station, folder }
    }

    /// The samples that were played, to the bit.
    fn heard(&self, clip: &str) -> Vec<i16> {
        read_i16(&self.folder.path().join("played").join(format!("hall-1-{clip}.wav"))).0
    }

    /// What sounded, in order, once `played` pages were played. Checks that each begins only when the one before is over.
    fn sounded(&mut self, played: usize) -> Vec<(String, &'static str)> {
        (0..played).for_each(|_| drop(self.station.wait_for("played")));
        let mut sounding: Option<String> = None;
        let mut sounded = Vec::new();
        for event in self.station.printed() {
            let clip = event["clip"].as_str().unwrap_or_default().to_owned();
            match event["event"].as_str().unwrap() {
                "playing" => {
                    assert_eq!(sounding.replace(clip), None, "two pages at once");
                }
                "played" => {
                    assert_eq!(sounding.take().as_ref(), Some(&clip));
                    sounded.push((clip, "whole"));
                }
                "queued" if event["interrupted"] == true => {
                    assert_eq!(sounding.take().as_ref(), Some(&clip));
                    sounded.push((clip, "cut off"));
                }
                _ => (),
            }
        }
        sounded
    }
}

#[test]
fn pages_wait_for_one_another_and_the_more_urgent_goes_first() {
    let mut desks = [desk(12.0, &[]), desk(0.5, &["--priority", "low"]), desk(0.5, &["--priority", "high"])];
    let mut hall = Hall::open(&desks, &[]);
    let long = desks[0].announce();
    hall.station.wait_for_one("playing", "clip", &long);
    let waiting = [1, 2].map(|desk| {
        let clip = desks[desk].announce();
        let queued = desks[desk].announcer.wait_for("queued");
        assert_eq!((&queued["clip"], &queued["interrupted"]), (&Value::from(clip.as_str()), &false.into()));
        clip
    });
    let played = desks.each_mut().map(Desk::played);
    assert_eq!(
        played.map(|played| (played["outcome"].clone(), played["again"].clone())),
        [("played", false), ("played-late", false), ("played-late", false)]
            .map(|(a, b)| (a.into(), b.into()))
    );
    let order = [&long, &waiting[1], &waiting[0]].map(|clip| (clip.clone(), "whole"));
    assert_eq!(hall.sounded(3), order);
    for (desk, clip) in desks.iter().zip([&long, &waiting[0], &waiting[1]]) {
        assert!(hall.heard(clip) == read_i16(&desk.wav).0, "{clip} was mixed with another");
    }
    assert_eq!(wavs(&hall.folder.path().join("played")).len(), 3);
}

#[test]
fn an_emergency_interrupts_and_what_it_interrupted_is_played_again() {
    let mut desks = [desk(12.0, &["--priority", "high"]), desk(1.0, &["--priority", "emergency"])];
    let mut hall = Hall::open(&desks, &["--volume", "-40"]);
    let page = desks[0].announce();
    hall.station.wait_for_one("playing", "clip", &page);
    let emergency = desks[1].announce();
    assert_eq!(desks[0].announcer.wait_for("queued")["interrupted"], true);
    let [again, at_once] = desks.each_mut().map(Desk::played);
    assert_eq!((&again["outcome"], &again["again"]), (&"played-late".into(), &true.into()), "{again}");
    assert!(again["late_ms"].as_u64() >= Some(1_000), "{again}");
    assert_eq!(at_once["again"], false, "{at_once}");
    let pages = [(page.clone(), "cut off"), (emergency.clone(), "whole"), (page.clone(), "whole")];
    assert_eq!(hall.sounded(2), pages);
    for (desk, clip, wanted_db) in [(&desks[0], &page, -40.0), (&desks[1], &emergency, -12.0)] {
        let (heard, sent) = (hall.heard(clip), read_i16(&desk.wav).0);
        assert_eq!(heard.len(), sent.len());
        let power = |samples: &[i16]| samples.iter().map(|sample| f64::from(*sample).powi(2)).sum::<f64>();
        let db = 10.0 * (power(&heard) / power(&sent)).log10();
        assert!((db - wanted_db).abs() < 0.5, "{clip}: {db} dB");
    }
    assert_eq!(desks[0].announcer.untaken("failed") + desks[1].announcer.untaken("failed"), 0);
}

#[test]
fn a_page_that_expires_while_another_plays_is_missed_and_never_heard() {
    let mut desks = [desk(60.0, &[]), desk(0.5, &["--keep", "1"])];
    let mut hall = Hall::open(&desks, &[]);
    let long = desks[0].announce();
    hall.station.wait_for_one("playing", "clip", &long);
    let short = desks[1].announce();
    let failed = desks[1].announcer.wait_for("failed");
    assert_eq!((&failed["clip"], &failed["outcome"]), (&short.as_str().into(), &"missed".into()), "{failed}");
    assert_eq!(failed["reason"], "other pages went first until it expired");
    assert_eq!(desks[1].announcer.wait_for("done")["played"], 0);
    assert_eq!(hall.sounded(0), []);
    hall.station.terminate();
    hall.station.exit_code();
    assert_eq!(wavs(&hall.folder.path().join("played")).len(), 0);
}

#[test]
fn an_announcer_that_is_down_disturbs_no_other() {
    let mut desks = [desk(0.5, &[]), desk(0.5, &[])];
    let mut hall = Hall::open(&desks, &[]);
    let (first, second) = desks.split_at_mut(1);
    let (first, second) = (&mut first[0], &mut second[0]);
    first.announcer.kill();
    assert_eq!(hall.station.wait_for("waiting")["announcer"], first.address.as_str());
    for _ in 0..3 {
        second.announce();
        assert_eq!(second.played()["outcome"], "played");
    }
    first.restart(first.wav.clone());
    first.announce();
    first.played();
    // An announcer dies while its page sounds: the page plays to its end, and the other desk works on.
    let long = Spec::mono(16, 8_000).write(first.folder.path(), 24_000);
    first.restart(long);
    let clip = first.announce();
    hall.station.wait_for_one("playing", "clip", &clip);
    first.announcer.kill();
    let next = second.announce();
    second.played();
    let sounded = hall.sounded(6);
    let last_two: Vec<_> = sounded.iter().rev().take(2).rev().cloned().collect();
    assert_eq!(last_two, [(clip, "whole"), (next, "whole")], "{sounded:?}");
    assert_eq!(second.announcer.untaken("station-left"), 0);
}

/// Runs `bullhorn speaker` with these arguments to its end.
fn refused(arguments: &[&str], environment: &Environment) -> (i32, String) {
    let all = ["speaker", "--name", "hall-1"].iter().chain(arguments);
    let mut program = Program::start_prose("bullhorn", all.copied(), environment);
    let code = program.exit_code();
    (code, program.complaints())
}

#[test]
fn what_is_not_clear_is_said_at_the_start() {
    let desk = desk(0.5, &[]);
    let invite = desk.invite();
    for (arguments, code, part) in [
        (&["192.0.2.1", "192.0.2.2", "--invite", &invite][..], 1, "one after the other"),
        (&["192.0.2.1", "192.0.2.2"], 1, "has not joined 192.0.2.1:7766"),
        (&["192.0.2.1", "192.0.2.1:7766"], 2, "192.0.2.1:7766 is named twice"),
    ] {
        let (status, said) = refused(arguments, &[].to_vec());
        assert_eq!(status, code, "{arguments:?}: {said}");
        assert!(said.contains(part), "{arguments:?}: nothing of {part:?} in {said}");
    }
    // Two addresses of one announcer: the station finds out when it joins.
    let port = desk.address.rsplit(':').next().unwrap();
    let output = file(&desk.folder.path().join("played"));
    let arguments = ["speaker", &desk.address, &format!("localhost:{port}"), "--name", "hall-1", "--output"];
    let arguments = arguments.into_iter().map(OsString::from).chain([output]);
    let mut hall = Program::start("hall-1", arguments, desk.environment());
    let reason = hall.wait_for("waiting")["reason"].as_str().unwrap().to_owned();
    assert!(reason.contains("are one announcer: name it once"), "{reason}");
    hall.wait_for("connected");
}

/// This also holds without keys; and a name that nobody knows yet is looked up while the other announcer is served.
#[test]
fn an_unknown_name_keeps_no_other_from_being_served() {
    let folder = tempfile::tempdir().unwrap();
    let mut desk = desk(0.1, &["--open"]);
    let output = file(&folder.path().join("played"));
    let arguments =
        ["speaker", "no-such-host.invalid", &desk.address, "--open", "--output"].map(OsString::from);
    let mut hall = Program::start("hall-1", arguments.into_iter().chain([output]), &[]);
    let waiting = hall.wait_for("waiting");
    assert_eq!(waiting["announcer"], "no-such-host.invalid:7766");
    assert!(waiting["reason"].as_str().unwrap().contains("cannot find the announcer's machine"), "{waiting}");
    desk.announcer.wait_for("station-joined");
    desk.announce();
    desk.played();
}

/// Live speech of one announcer keeps the loudspeaker from another's pages, but not from an emergency. Speech during
/// the emergency is concealed, and then continues in step.
#[test]
fn an_emergency_interrupts_live_speech_and_other_pages_wait() {
    let live = ["--live", "--latency", "1000"];
    let mut desks = [desk(60.0, &live), desk(0.5, &[]), desk(0.5, &["--priority", "emergency"])];
    let mut hall = Hall::open(&desks, &[]);
    desks[0].announcer.enter();
    let speech = hall.station.wait_for("playing")["clip"].as_str().unwrap().to_owned();
    let page = desks[1].announce();
    hall.station.wait_for_one("queued", "clip", &page);
    let alarm = desks[2].announce();
    let cut_off = hall.station.wait_for_one("queued", "clip", &speech);
    assert_eq!(cut_off["interrupted"], true, "{cut_off}");
    hall.station.wait_for_one("played", "clip", &alarm);
    hall.station.wait_for_one("playing", "clip", &speech);
    desks[0].announcer.enter();
    let receipt = desks[0].announcer.wait_for("live-played");
    assert!(receipt["played"].as_u64() > Some(0) && receipt["concealed"].as_u64() > Some(0), "{receipt}");
    desks[2].played();
    assert_eq!(desks[1].played()["outcome"], "played-late");
    assert!(hall.heard(&alarm) == read_i16(&desks[2].wav).0);
    assert!(hall.heard(&page) == read_i16(&desks[1].wav).0);
    // The part of the speech that was heard last is exactly what was said.
    let end = hall.heard(&speech);
    let said = read_i16(&desks[0].wav).0;
    let fade = 8_000 / 200;
    let is_there = said.windows(end.len() - fade).any(|part| part == &end[fade..]);
    assert!(end.len() > 2 * fade && is_there, "{} frames of something else", end.len());
}
