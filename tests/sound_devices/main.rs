//! The two sound seams against a real sound server with software sound cards.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod hearing;
mod part;
mod pulse;

use std::path::{Path, PathBuf};
use std::time::Duration;

use bullhorn::clip::Clip;
use bullhorn::loudspeaker::{Loudspeaker, Output};
use bullhorn::microphone::{Captured, Input, Microphone};
use bullhorn::sample::{self, Sound};
use bullhorn::sound_file;
use libtest_mimic::{Arguments, Trial};

use hearing::find;
use part::{Part, Said, instant_of, moment_in, say};
use pulse::{Pulse, RATE_HZ};

/// The tests, by name. The usual harness is not used because this program also runs as the parts.
const TESTS: [(&str, fn()); 5] = [
    ("a_clip_is_heard_from_its_first_sample_to_its_last", a_clip_is_heard_from_its_first_sample_to_its_last),
    ("two_stations_play_in_step_from_the_first_clip_on", two_stations_play_in_step_from_the_first_clip_on),
    (
        "a_microphone_records_what_is_said_and_exactly_as_long",
        a_microphone_records_what_is_said_and_exactly_as_long,
    ),
    (
        "a_server_that_dies_is_told_costs_nothing_and_is_found_again",
        a_server_that_dies_is_told_costs_nothing_and_is_found_again,
    ),
    (
        "waiting_costs_next_to_nothing_and_unknown_names_are_guessed",
        waiting_costs_next_to_nothing_and_unknown_names_are_guessed,
    ),
];

/// A software sound card runs dry when the machine is busy; such a run proves nothing.
const MOST_RUNS: usize = 8;

/// Speech in a WAV file of 22,050 Hz, as espeak-ng makes it.
fn speech(folder: &Path) -> PathBuf {
    let path = folder.join("speech-22050Hz-mono.wav");
    let words = "Attention please. The library closes in ten minutes. Thank you.";
    let spoken = std::process::Command::new("espeak-ng").args(["-w"]).arg(&path).arg(words).status();
    assert!(spoken.expect("espeak-ng, which these tests need, is installed").success());
    path
}

/// Speech as it should be heard at [`RATE_HZ`].
fn expected(path: &Path) -> Vec<f32> {
    let sound = sound_file::read(path).expect("speech");
    sample::resample(&sound, RATE_HZ).expect("resampled").samples.clone()
}

fn number(said: &Said, key: &str) -> f64 {
    said.get(key).unwrap_or_else(|| panic!("no {key} in {said:?}")).parse().expect("a number")
}

fn a_clip_is_heard_from_its_first_sample_to_its_last() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = speech(folder.path());
    let wanted = expected(&path);
    let pulse = Pulse::start();
    for (output, sink) in [("all", "all"), ("hallA", "all"), ("slow", "slow")] {
        let undisturbed = (0..MOST_RUNS).find_map(|_| {
            let recording = pulse.record(sink, 1);
            let mut part = Part::start(&pulse, &format!("play\t{output}\t{}\t0", path.display()));
            part.hear();
            let played = part.hear();
            drop(part);
            let heard = recording.stop().swap_remove(0);
            eprintln!("{output}: {played:?}");
            (!played.contains_key("error") && number(&played, "underruns") == 0.0).then_some((heard, played))
        });
        let (heard, played) =
            undisturbed.expect("a machine that is not too busy for its software sound cards");
        let place = find(&wanted, &heard);
        // A software sink's clock is off by up to a per mille, which the loudspeaker corrects by the system's clock: a
        // recording, made sample by sample, might be stretched, so it is compared in parts.
        for eighth in [0, 1, 3, 4, 5, 6, 7] {
            let part = wanted.len() * eighth / 8..wanted.len() * (eighth + 1) / 8;
            let start = place.at as usize + part.start;
            let near = start.saturating_sub(500)..(start + part.len() + 500).min(heard.len());
            let likeness = find(&wanted[part], &heard[near]).likeness;
            assert!(likeness >= 0.95, "{output}: eighth {eighth} is {likeness} like what was sent");
        }
        assert_eq!(number(&played, "frames"), sound_file::read(&path).expect("speech").samples.len() as f64);
    }
}

fn two_stations_play_in_step_from_the_first_clip_on() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = speech(folder.path());
    let wanted = expected(&path);
    let pulse = Pulse::start();
    let mut skews_ms = Vec::new();
    for _ in 0..MOST_RUNS {
        let recording = pulse.record("all", 2);
        let moment = moment_in(Duration::from_secs(3));
        let work = |output: &str| format!("play\t{output}\t{}\t{moment}", path.display());
        let mut parts = [Part::start(&pulse, &work("hallA")), Part::start(&pulse, &work("hallB"))];
        let played = parts.each_mut().map(|part| {
            part.hear();
            part.hear()
        });
        let channels = recording.stop();
        eprintln!("{played:?}");
        let disturbed = |played: &Said| played.contains_key("error") || number(played, "underruns") > 0.0;
        if played.iter().any(disturbed) {
            continue;
        }
        assert!(played.iter().all(|played| number(played, "start_error_us").abs() < 500.0), "{played:?}");
        // Compared with each other, as both are on one card, whose clock might differ from that of the speech.
        let [one, other] = &channels[..] else { panic!("{} channels", channels.len()) };
        let first = one.iter().position(|sample| sample.abs() > 2.0 / 32_768.0).expect("a sound");
        let heard = &one[first..one.len().min(first + wanted.len())];
        let place = find(heard, other);
        assert!(place.likeness > 0.8, "{place:?}");
        skews_ms.push((place.at - first as f64).abs() * 1e3 / f64::from(RATE_HZ));
        if skews_ms.len() == 3 {
            break;
        }
    }
    assert_eq!(skews_ms.len(), 3, "this machine is too busy for its software sound cards");
    // Three times what a quiet machine should achieve.
    skews_ms.sort_by(f64::total_cmp);
    eprintln!("skew in ms: {skews_ms:?}");
    assert!(skews_ms[1] <= 0.12 && skews_ms[2] <= 0.45, "skew in ms: {skews_ms:?}");
}

fn a_microphone_records_what_is_said_and_exactly_as_long() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = speech(folder.path());
    let wanted = expected(&path);
    let pulse = Pulse::start();
    let saved = folder.path().join("recorded.wav");
    let mut part = Part::start(&pulse, &format!("record\tmicsrc\t{}\t6.0", saved.display()));
    part.hear();
    // It records: what is said now is said after Enter.
    part.hear();
    let talk = pulse.tool("paplay").arg("--device=talker").arg(&path).status();
    assert!(talk.expect("paplay is installed").success());
    let recorded = part.hear();
    eprintln!("{recorded:?}");
    assert!(!recorded.contains_key("error"), "{recorded:?}");
    assert_eq!(number(&recorded, "frames"), 6.0 * f64::from(RATE_HZ));
    assert!((90.0..=130.0).contains(&number(&recorded, "levels")), "{recorded:?}");
    assert!(number(&recorded, "late_ms") < 60.0, "{recorded:?}");
    let heard = find(&wanted, &sound_file::read(&saved).expect("the recording").samples);
    assert!(heard.likeness >= 0.98, "{heard:?}");
}

fn a_server_that_dies_is_told_costs_nothing_and_is_found_again() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = speech(folder.path());
    let mut pulse = Pulse::start();
    let mut part = Part::start(&pulse, &format!("play\thallA\t{}\t0\t0", path.display()));
    part.hear();
    std::thread::sleep(Duration::from_secs(3));
    pulse.kill();
    let lost = part.hear();
    assert!(lost.get("error").is_some_and(|error| error.contains("loudspeaker")), "{lost:?}");
    let (before, _) = part.cost();
    std::thread::sleep(Duration::from_secs(2));
    let used = part.cost().0 - before;
    assert!(used < Duration::from_millis(200), "{used:?} of processor time in 2 s without a sound server");
    pulse.restart();
    let deadline = std::time::Instant::now() + Duration::from_secs(20);
    loop {
        let again = part.hear();
        if !again.contains_key("error") {
            break;
        }
        assert!(std::time::Instant::now() < deadline, "{again:?}");
    }
}

fn waiting_costs_next_to_nothing_and_unknown_names_are_guessed() {
    let pulse = Pulse::start();
    let mut part = Part::start(&pulse, "wait\thallA");
    let lead_ms = number(&part.hear(), "lead_ms");
    std::thread::sleep(Duration::from_secs(3));
    let (before, _) = part.cost();
    std::thread::sleep(Duration::from_secs(3));
    let (after, resident_kb) = part.cost();
    eprintln!("in 3 s {:?} of processor time, {resident_kb} kB, lead {lead_ms} ms", after - before);
    assert!(after - before < Duration::from_millis(150), "{:?}", after - before);
    assert!(resident_kb < 12_000, "{resident_kb} kB");
    assert!(lead_ms <= 80.0, "{lead_ms} ms");
    let unknown = Part::start(&pulse, "wait\thalA").hear();
    assert!(unknown["error"].contains("pulseaudio:hallA"), "{unknown:?}");
    let listed = Part::start(&pulse, "list").hear();
    assert!(listed["outputs"].contains("pulseaudio:hallA") && listed["inputs"].contains("pulseaudio:micsrc"));
    assert_eq!(listed["default"], "pulseaudio:micsrc pulseaudio:hallA");
}

fn main() {
    match part::work() {
        Some(work) => do_part(&work),
        None => {
            let arguments = Arguments::from_args();
            let trial = |&(name, test): &(&'static str, fn())| {
                Trial::test(name, move || {
                    test();
                    Ok(())
                })
            };
            let tests = TESTS.iter().map(trial).collect();
            libtest_mimic::run(&arguments, tests).exit();
        }
    }
}

/// Does the work of a part; see [`part`].
fn do_part(work: &[String]) {
    let words: Vec<&str> = work.iter().map(String::as_str).collect();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    runtime.expect("a runtime").block_on(async {
        match words[..] {
            ["play", output, wav, moment] => play(output, wav, moment.parse().expect("a number"), true).await,
            ["play", output, wav, moment, _] => {
                play(output, wav, moment.parse().expect("a number"), false).await
            }
            ["record", input, wav, seconds] => record(input, wav, seconds.parse().expect("a number")).await,
            ["wait", output] => wait(output).await,
            ["list"] => list(),
            _ => panic!("unknown work: {words:?}"),
        }
    });
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = format!("error={error}");
    let mut source = error.source();
    while let Some(cause) = source {
        text += &format!(": {cause}");
        source = cause.source();
    }
    text.replace(['\t', '\n'], " ")
}

async fn play(output: &str, wav: &str, moment: u128, once: bool) {
    let clip = Clip::encode(&sound_file::read(Path::new(wav)).expect("a WAV")).expect("a clip");
    let mut loudspeaker = Loudspeaker::open(&output.parse::<Output>().expect("an output")).expect("open");
    say(&format!("name={}", loudspeaker.name()));
    loop {
        let ahead = tokio::time::Instant::now() + Duration::from_secs(3);
        let at = if moment == 0 { ahead } else { instant_of(moment).into() };
        match loudspeaker.play(&clip, 1.0, "clip", at, || ()).await {
            Ok(report) => say(&format!(
                "frames={}\tstart_error_us={}\tmax_error_us={}\tunderruns={}\tlead_ms={}",
                report.frames,
                report.start_error_us,
                report.max_error_us,
                report.underruns,
                loudspeaker.lead().as_secs_f64() * 1e3
            )),
            Err(error) => say(&chain(&error)),
        }
        if once {
            return;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

async fn record(input: &str, wav: &str, seconds: f64) {
    let mut microphone = Microphone::open(&input.parse::<Input>().expect("an input")).expect("open");
    say(&format!("name={}", microphone.name()));
    let begun = std::time::Instant::now();
    let mut levels = 0;
    let on_level = |_| {
        if levels == 0 {
            say("recording=yes");
        }
        levels += 1;
    };
    match microphone.record(Duration::from_secs_f64(seconds), std::future::pending(), on_level).await {
        Ok(Captured { sound, .. }) => {
            let late_ms = (begun.elapsed().as_secs_f64() - seconds) * 1e3;
            let Sound { samples, .. } = &sound;
            std::fs::write(wav, Clip::encode(&sound).expect("a clip").wav()).expect("written");
            say(&format!("frames={}\tlevels={levels}\tlate_ms={late_ms}", samples.len()));
        }
        Err(error) => say(&chain(&error)),
    }
}

async fn wait(output: &str) {
    match Loudspeaker::open(&output.parse::<Output>().expect("an output")) {
        Ok(loudspeaker) => {
            tokio::time::sleep(Duration::from_secs(3)).await;
            say(&format!("lead_ms={}", loudspeaker.lead().as_secs_f64() * 1e3));
            std::future::pending::<()>().await;
        }
        Err(error) => say(&chain(&error)),
    }
}

fn list() {
    use bullhorn::devices::{Direction, list};
    let devices = list();
    let ids = |direction| {
        let ids = devices.iter().filter(|device| device.direction == direction);
        ids.map(|device| device.id.as_str()).collect::<Vec<_>>().join(" ")
    };
    let default: Vec<&str> =
        devices.iter().filter(|device| device.is_default).map(|device| device.id.as_str()).collect();
    say(&format!(
        "inputs={}\toutputs={}\tdefault={}",
        ids(Direction::Input),
        ids(Direction::Output),
        default.join(" ")
    ));
}
