//! Ways to speak: prepared sounds, what precedes the words, how loud stations play, zones, and what is kept.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use crate::support::hallway::{BULLHORN, Environment, Hallway, Program, STATE, file, wavs};
use crate::support::wav::{Spec, read_i16, speech, write_i16};
use ebur128::{EbuR128, Mode};
use serde_json::Value;
use sha2::{Digest, Sha256};

fn shipped(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/sounds").join(name)
}

/// Speech at a fraction of its loudness.
fn spoken(folder: &Path, share: f32) -> PathBuf {
    let (samples, rate_hz) = read_i16(&speech(folder, 4, 16_000));
    let path = folder.join(format!("spoken-{share}.wav"));
    write_i16(
        &path,
        &samples.iter().map(|sample| (f32::from(*sample) * share) as i16).collect::<Vec<_>>(),
        rate_hz,
    );
    path
}

/// Announces once to two stations, and returns what each wrote, which must be the same.
fn announced(options: &[OsString]) -> (Vec<i16>, u32) {
    let outputs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let mut hallway = Hallway::plan()
        .announce(["--once", "--wait-for", "2"])
        .announce(options.iter().cloned())
        .station("hall-1", file(outputs[0].path()))
        .station("hall-2", file(outputs[1].path()))
        .open();
    let done = hallway.announcer.wait_for("done");
    assert_eq!((&done["played"], &done["expected"]), (&2.into(), &2.into()), "{options:?}: {done}");
    assert_eq!(hallway.announcer.exit_code(), 0, "{options:?}");
    let [one, other] = outputs.each_ref().map(|output| wavs(output.path()));
    assert_eq!((one.len(), other.len()), (1, 1));
    let one = read_i16(&one[0]);
    assert!(one == read_i16(&other[0]), "two stations played two things");
    one
}

fn options(words: &[&str], path: &Path) -> Vec<OsString> {
    words.iter().map(OsString::from).chain([path.into()]).collect()
}

/// Integrated loudness in LUFS and true peak in dB, measured with EBU R 128's own meter.
fn measured(samples: &[i16], rate_hz: u32) -> (f64, f64) {
    let mut meter = EbuR128::new(1, rate_hz, Mode::I | Mode::TRUE_PEAK).unwrap();
    meter.add_frames_i16(samples).unwrap();
    (meter.loudness_global().unwrap(), 20.0 * meter.true_peak(0).unwrap().log10())
}

#[test]
fn a_sound_of_any_kind_is_announced() {
    let tones = |frame: usize| {
        let tone = |hz: f64| (hz * std::f64::consts::TAU * frame as f64 / 44_100.0).sin();
        (0.5 * tone(440.0) + 0.25 * tone(660.0)) / 2.0 * 32_768.0
    };
    let mut first_lufs = None;
    for (name, is_exact) in [
        ("tones.flac", true),
        ("tones-alac.m4a", true),
        ("tones.mp3", false),
        ("tones.ogg", false),
        ("tones-aac.m4a", false),
    ] {
        let (played, rate_hz) = announced(&options(&["--no-level", "--file"], &shipped(name)));
        assert_eq!(rate_hz, 44_100, "{name}");
        assert!((44_100..=48_708).contains(&played.len()), "{name}: {} frames", played.len());
        if is_exact {
            assert_eq!(played.len(), 44_100, "{name}");
            for (frame, &sample) in played.iter().enumerate() {
                assert!((f64::from(sample) - tones(frame)).abs() < 1.6, "{name}: frame {frame}");
            }
        }
        let (lufs, _) = measured(&played, rate_hz);
        let as_loud_as = *first_lufs.get_or_insert(lufs);
        assert!((lufs - as_loud_as).abs() < 1.0, "{name}: {lufs} LUFS, and the first {as_loud_as}");
    }
}

#[test]
fn what_is_announced_comes_to_the_level_whatever_was_recorded() {
    let folder = tempfile::tempdir().unwrap();
    for (share, level) in [(1.0, None), (0.3, None), (0.3, Some("-23"))] {
        let wav = spoken(folder.path(), share);
        let mut words = vec!["--trim"];
        words.extend(level.iter().flat_map(|level| ["--level", level]));
        let (played, rate_hz) = announced(&options(&[&words[..], &["--file"]].concat(), &wav));
        let (lufs, peak_db) = measured(&played, rate_hz);
        let wanted: f64 = level.unwrap_or("-16").parse().unwrap();
        println!("share {share}: {lufs:.2} LUFS for {wanted}, {peak_db:.2} dBTP");
        assert!((lufs - wanted).abs() < 1.0, "share {share}: {lufs} LUFS for {wanted}");
        assert!(peak_db < -0.95, "share {share}: {peak_db} dBTP");
    }
}

#[test]
fn a_chime_goes_before_and_all_of_it_is_one_level() {
    let folder = tempfile::tempdir().unwrap();
    let wav = spoken(folder.path(), 0.3);
    for chime in ["single", "two-tone", "three-tone"] {
        let (played, rate_hz) =
            announced(&options(&["--chime", chime, "--repeat", "1", "--rate", "16000", "--file"], &wav));
        let notes = ["single", "two-tone", "three-tone"].iter().position(|name| *name == chime).unwrap();
        // The chime and its pause, twice the four seconds, and the pause between.
        let seconds = 1.3 + 0.5 * notes as f64 + 0.3 + 4.0 + 0.7 + 4.0;
        assert!(
            (played.len() as f64 / f64::from(rate_hz) - seconds).abs() < 0.01,
            "{chime}: {}",
            played.len()
        );
        let second = played.len() - 4 * rate_hz as usize;
        let first = second - (4.7 * f64::from(rate_hz)) as usize;
        assert!(played[first..][..64_000] == played[second..][..64_000], "{chime}: it is not said again");
        let (lufs, _) = measured(&played, rate_hz);
        assert!((lufs + 16.0).abs() < 1.0, "{chime}: {lufs} LUFS");
    }
    let (played, _) = announced(&options(
        &["--no-level", "--chime", shipped("tones.flac").to_str().unwrap(), "--file"],
        &shipped("tones-alac.m4a"),
    ));
    assert_eq!(played.len(), 44_100 + 13_230 + 44_100, "a sound of one's own, a pause, and the words");
    assert!(played[..44_100] == played[44_100 + 13_230..]);
}

#[test]
fn silence_at_both_ends_is_left_out_and_silence_alone_stays_silent() {
    let folder = tempfile::tempdir().unwrap();
    let (samples, rate_hz) = read_i16(&speech(folder.path(), 2, 16_000));
    let padded: Vec<i16> = [vec![0; 32_000], samples, vec![0; 48_000]].concat();
    let wav = folder.path().join("padded.wav");
    write_i16(&wav, &padded, rate_hz);
    let (played, _) = announced(&options(&["--trim", "--file"], &wav));
    let seconds = played.len() as f64 / 16_000.0;
    assert!((2.0..2.4).contains(&seconds), "{seconds} s are left of 7");
    let silence = folder.path().join("silence.wav");
    write_i16(&silence, &[0; 16_000], 16_000);
    let (played, _) = announced(&options(&["--trim", "--file"], &silence));
    assert!(played == [0; 16_000], "silence was made loud");
}

/// Runs `bullhorn announce` without a terminal to its end, which must come before it listens.
fn refused(arguments: &[&str]) -> (i32, String) {
    let all = ["announce", "--listen", "127.0.0.1:0"].iter().chain(arguments);
    let mut program = Program::start_prose("bullhorn", all.copied(), &[]);
    program.end_input();
    let code = program.exit_code();
    assert_eq!(program.rest(), [] as [&str; 0], "{arguments:?}");
    (code, program.complaints())
}

#[test]
fn what_cannot_be_is_said_before_anything_is_recorded() {
    let folder = tempfile::tempdir().unwrap();
    let torn = folder.path().join("torn.mp3");
    let whole = std::fs::read(shipped("tones.mp3")).unwrap();
    std::fs::write(&torn, &whole[..whole.len() / 2]).unwrap();
    let words = folder.path().join("words.txt");
    std::fs::write(&words, "not a sound").unwrap();
    let [torn, words, long, tones] = [torn, words, shipped("silence-121s.flac"), shipped("tones.flac")]
        .map(|path| path.display().to_string());
    let cases: [(&[&str], i32, &[&str]); 12] = [
        (&["--file", "/nowhere/bell.wav"], 1, &["/nowhere/bell.wav", "No such file"]),
        (&["--file", &torn], 1, &["torn.mp3", "truncated"]),
        (&["--file", &words], 1, &["words.txt", "WAV, AIFF, AU, FLAC, MP3, AAC, Ogg, WebM or M4A"]),
        (&["--file", &long], 1, &["silence-121s.flac", "121 s", "120 s"]),
        (&["--file", &tones, "--chime", "gong"], 2, &["single, two-tone, three-tone"]),
        (&["--file", &tones, "--chime", &words], 2, &["words.txt"]),
        (&["--file", &tones, "--repeat", "11"], 2, &["11"]),
        (&["--seconds", "60", "--repeat", "1", "--chime", "single"], 2, &["122.3 s", "120 s"]),
        (&["--file", &tones, "--level", "5"], 2, &["-40 to -10"]),
        (&["--hold"], 2, &["--hold", "terminal"]),
        (&["--review"], 2, &["--review", "terminal"]),
        (&["--sounds", "."], 2, &["--sounds", "terminal"]),
    ];
    for (arguments, status, parts) in cases {
        let (code, said) = refused(arguments);
        assert_eq!(code, status, "{arguments:?}: {said}");
        for part in parts {
            assert!(said.contains(part), "{arguments:?}: nothing of {part:?} in {said}");
        }
    }
}

/// `bullhorn stations …` with an announcer's state.
fn stations(environment: &Environment, arguments: &[&str]) -> (bool, String) {
    let mut command = std::process::Command::new(BULLHORN);
    let output = command.arg("stations").args(arguments).envs(environment.iter().cloned()).output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap();
    (output.status.success(), said)
}

fn station(address: &str, name: &str, output: &Path, more: &[&str], environment: &Environment) -> Program {
    let own: [OsString; 6] =
        ["speaker".into(), address.into(), "--name".into(), name.into(), "--output".into(), file(output)];
    Program::start(name, own.into_iter().chain(more.iter().map(OsString::from)), environment)
}

/// How much quieter than the sent page the last page was played, in dB.
fn quieter_db(output: &Path, sent: &[i16], pages: usize) -> f64 {
    let written = wavs(output);
    assert_eq!(written.len(), pages, "{written:?}");
    let newest =
        written.iter().max_by_key(|path| std::fs::metadata(path).unwrap().modified().unwrap()).unwrap();
    let power = |samples: &[i16]| samples.iter().map(|sample| f64::from(*sample).powi(2)).sum::<f64>();
    10.0 * (power(&read_i16(newest).0) / power(sent)).log10()
}

#[test]
fn a_station_plays_as_loud_as_it_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().join("played");
    let wav = Spec::mono(16, 8_000).write(folder.path(), 2_000);
    let sent = read_i16(&wav).0;
    let mut hallway = Hallway::plan().says(&wav).open();
    let environment = hallway.environment.clone();
    let address = hallway.address.clone();
    let mut hall = station(&address, "hall-1", &output, &["--volume", "-6"], &environment);
    hallway.announcer.wait_for("station-joined");
    let mut pages = 0;
    let mut heard_db = |hallway: &mut Hallway| {
        assert_eq!(hallway.announce()["played"], 1);
        pages += 1;
        quieter_db(&output, &sent, pages)
    };
    let is_near = |heard: f64, wanted: f64| assert!((heard - wanted).abs() < 0.05, "{heard} dB for {wanted}");
    is_near(heard_db(&mut hallway), -6.0);

    // Sent while the station waits; it has arrived when both sides have emitted it.
    let (good, said) = stations(&environment, &["volume", "hall-1", "-20"]);
    assert!(good && said.contains("hall-1 plays at -20 dB"), "{said}");
    assert_eq!(hallway.announcer.wait_for("volume")["volume_db"], -20.0);
    assert_eq!(hall.wait_for("volume")["volume_db"], -20.0);
    is_near(heard_db(&mut hallway), -20.0);
    assert!(stations(&environment, &[]).1.contains("-20 dB"));

    // Sent again to a station that comes back: the volume is stored.
    hall.kill();
    hallway.announcer.wait_for("station-left");
    let mut hall = station(&address, "hall-1", &output, &["--volume", "-6"], &environment);
    assert_eq!(hall.wait_for("volume")["volume_db"], -20.0);
    is_near(heard_db(&mut hallway), -20.0);

    let (good, said) = stations(&environment, &["volume", "hall-1", "own"]);
    assert!(good && said.contains("its own"), "{said}");
    assert_eq!(hall.wait_for("volume")["volume_db"], Value::Null);
    is_near(heard_db(&mut hallway), -6.0);

    for (arguments, part) in [
        (&["volume", "hall-9", "-6"][..], "no station named hall-9 has joined"),
        (&["volume", "hall-1", "6"], "from -60 to 0"),
        (&["volume", "hall-1", "loud"], "from -60 to 0"),
    ] {
        let (good, said) = stations(&environment, arguments);
        assert!(!good && said.contains(part), "{arguments:?}: {said}");
    }
}

#[test]
fn zones_are_heard_only_where_they_belong() {
    let folder = tempfile::tempdir().unwrap();
    let wav = Spec::mono(16, 8_000).write(folder.path(), 800);
    let outputs = ["east", "gym", "none"].map(|name| folder.path().join(name));
    let mut hallway = Hallway::plan().says(&wav).announce(["--zone", "east"]).open();
    let environment = hallway.environment.clone();
    let _stations = [
        station(
            &hallway.address,
            "hall-1",
            &outputs[0],
            &["--zone", "east", "--zone", "floor-2"],
            &environment,
        ),
        station(&hallway.address, "hall-2", &outputs[1], &["--zone", "gym"], &environment),
        station(&hallway.address, "hall-3", &outputs[2], &[], &environment),
    ];
    (0..3).for_each(|_| drop(hallway.announcer.wait_for("station-joined")));
    let done = hallway.announce();
    assert_eq!((&done["played"], &done["expected"]), (&1.into(), &1.into()), "{done}");
    assert_eq!(hallway.announcer.wait_for("sending")["stations"], serde_json::json!(["hall-1"]));
    assert_eq!(outputs.each_ref().map(|output| wavs(output).len()), [1, 0, 0]);
    let zones = std::iter::from_fn(|| Some(hallway.announcer.wait_for("zones")));
    // They are in the order in which the stations joined, so they are compared as sets.
    let known = |zones: &serde_json::Value| {
        zones["known"]
            .as_array()
            .unwrap()
            .iter()
            .map(|it| it.as_str().unwrap().to_owned())
            .collect::<BTreeSet<_>>()
    };
    let all = ["east", "floor-2", "gym"].map(str::to_owned).into();
    let told = zones.take(4).find(|zones| known(zones) == all).expect("every zone is told");
    assert_eq!(told["addressed"], serde_json::json!(["east"]));
}

#[test]
fn an_unknown_zone_is_refused_with_those_that_there_are() {
    let folder = tempfile::tempdir().unwrap();
    let wav = Spec::mono(16, 8_000).write(folder.path(), 800);
    let state = tempfile::tempdir().unwrap();
    let environment = vec![(STATE.to_owned(), state.path().display().to_string())];
    let announce = |more: &[&str]| {
        let own: [OsString; 5] =
            ["announce".into(), "--listen".into(), "127.0.0.1:0".into(), "--file".into(), wav.clone().into()];
        Program::start("the announcer", own.into_iter().chain(more.iter().map(OsString::from)), &environment)
    };
    let mut announcer = announce(&["--zone", "esat", "--zone", "gym"]);
    let refusal =
        |announcer: &mut Program| announcer.wait_for("warning")["message"].as_str().unwrap().to_owned();
    announcer.enter();
    assert!(refusal(&mut announcer).ends_with("no station is in the zone esat; no station has one"));
    let address = announcer.wait_for("listening")["address"].as_str().unwrap().to_owned();
    let _hall =
        station(&address, "hall-1", folder.path(), &["--zone", "east", "--zone", "gym"], &environment);
    announcer.wait_for("station-joined");
    announcer.enter();
    assert!(refusal(&mut announcer).ends_with("no station is in the zone esat; there are east, gym"));
    announcer.end_input();
    assert_eq!(announcer.exit_code(), 1);
    assert_eq!(announcer.untaken("recording") + announcer.untaken("sending"), 0);
    // The list is on the disk, so the zones of an absent station are known too.
    let mut announcer = announce(&["--zone", "wset", "--once"]);
    assert!(refusal(&mut announcer).ends_with("no station is in the zone wset; there are east, gym"));
    assert_eq!(announcer.exit_code(), 1);
}

/// Checks that each file of an archive is named by time, announcer and hash, and is whole.
fn assert_archive(folder: &Path) -> usize {
    let files = wavs(folder);
    for path in &files {
        let name = path.file_stem().unwrap().to_str().unwrap();
        let [time, who, hash] = name.split('-').collect::<Vec<_>>()[..] else { panic!("{name}") };
        assert!(time.len() == 20 && time.starts_with("20") && time.ends_with('Z'), "{name}");
        assert!(who.len() == 16 && who.chars().all(|c| c.is_ascii_alphanumeric()), "{name}");
        let digest = Sha256::digest(std::fs::read(path).unwrap());
        let start: String = digest[..4].iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hash, start, "{name} is not whole");
    }
    files.len()
}

/// Both sides are killed at different moments while they archive long pages.
#[test]
fn whatever_is_kept_is_whole_even_after_a_crash() {
    let folder = tempfile::tempdir().unwrap();
    let wav = folder.path().join("long.wav");
    write_i16(
        &wav,
        &(0..40 * 48_000).map(|frame: i32| (frame.wrapping_mul(7_919) >> 3) as i16).collect::<Vec<_>>(),
        48_000,
    );
    let [office, hall] = ["office", "hall"].map(|name| folder.path().join(name));
    let state = tempfile::tempdir().unwrap();
    let environment = vec![(STATE.to_owned(), state.path().display().to_string())];
    let start = || {
        let arguments: [OsString; 10] = [
            "announce".into(),
            "--keep".into(),
            "0".into(),
            "--listen".into(),
            "127.0.0.1:0".into(),
            "--no-level".into(),
            "--file".into(),
            wav.clone().into(),
            "--archive".into(),
            office.clone().into(),
        ];
        let mut announcer = Program::start("the announcer", arguments, &environment);
        let address = announcer.wait_for("listening")["address"].as_str().unwrap().to_owned();
        (announcer, address)
    };
    let mut kept = (0, 0);
    for wait_ms in [0, 2, 5, 10, 20, 40] {
        let (mut announcer, address) = start();
        let more = ["--keep-clips", hall.to_str().unwrap()];
        let mut station = station(&address, "hall-1", &folder.path().join("played"), &more, &environment);
        announcer.wait_for("station-joined");
        announcer.enter();
        announcer.wait_for("recorded");
        std::thread::sleep(std::time::Duration::from_millis(wait_ms));
        announcer.kill();
        station.kill();
        kept = (assert_archive(&office), assert_archive(&hall));
    }
    // The next run removes files that were only begun.
    let (mut announcer, _) = start();
    announcer.enter();
    announcer.wait_for("recorded");
    announcer.end_input();
    announcer.exit_code();
    assert!(assert_archive(&office) > kept.0, "{kept:?}");
    let parts = std::fs::read_dir(&office).unwrap().map(|entry| entry.unwrap().path());
    assert_eq!(parts.filter(|path| path.extension().is_some_and(|kind| kind == "part")).count(), 0);
}
