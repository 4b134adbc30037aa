//! The command line from outside: what it accepts, prints and refuses, and how it exits.

use std::ffi::{OsStr, OsString};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::support::hallway::{BULLHORN, Hallway, Program, STATE, file, start_station, wavs};
use crate::support::pty::KittyTerminal;
use crate::support::pulse::{PulseRig, deaf_environment};
use crate::support::terminal::Terminal;
use crate::support::wav::{Spec, read_i16};
use serde_json::Value;

const ANYWHERE: [&str; 3] = ["announce", "--listen", "127.0.0.1:0"];

/// How a run without any input ended.
struct Ended {
    code: i32,
    output: Vec<String>,
    complaints: String,
}

impl Ended {
    /// Checks the exit status, and for words that its complaint must contain.
    fn expect(&self, code: i32, words: &[&str]) -> &Self {
        assert_eq!(self.code, code, "complained: {}\nprinted: {:#?}", self.complaints, self.output);
        let complaints = self.complaints.to_lowercase();
        for word in words {
            assert!(complaints.contains(&word.to_lowercase()), "nothing of {word:?} in: {}", self.complaints);
        }
        assert!(!complaints.contains("panicked"), "{}", self.complaints);
        self
    }

    /// Checks that it failed with status 1, in one line that begins with the program's name.
    fn expect_failure(&self, words: &[&str]) -> &Self {
        self.expect(1, words);
        let last = self.complaints.trim_end().lines().last().unwrap_or_default();
        assert!(last.starts_with("bullhorn: "), "{last}");
        self
    }
}

fn run_in<S: AsRef<OsStr>>(environment: &[(String, String)], arguments: &[S]) -> Ended {
    let arguments = arguments.iter().map(|argument| argument.as_ref().to_owned());
    let mut program = Program::start_prose("bullhorn", arguments, environment);
    program.end_input();
    let code = program.exit_code();
    Ended { code, output: program.rest(), complaints: program.complaints() }
}

fn run<S: AsRef<OsStr>>(arguments: &[S]) -> Ended {
    run_in(&[], arguments)
}

/// Runs `announce` with a file, once.
fn announce_file(wav: &Path) -> Ended {
    let arguments: Vec<OsString> =
        ANYWHERE.iter().map(OsString::from).chain(["--once".into(), "--input".into(), file(wav)]).collect();
    run(&arguments)
}

fn in_folder(content: &[u8]) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("page.wav");
    std::fs::write(&path, content).unwrap();
    (folder, path)
}

/// Writes a WAV of 100 samples whose header was changed at an offset.
fn tampered(offset: usize, bytes: &[u8]) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = Spec::mono(16, 8_000).write(folder.path(), 100);
    let mut content = std::fs::read(&path).unwrap();
    content[offset..offset + bytes.len()].copy_from_slice(bytes);
    std::fs::write(&path, content).unwrap();
    (folder, path)
}

#[test]
fn help_names_every_command_and_goes_to_standard_output() {
    let help = run(&["--help"]);
    help.expect(0, &[]);
    let text = help.output.join("\n");
    for word in ["announce", "speaker", "devices", "demo"] {
        assert!(text.contains(word), "{text}");
    }
    for command in ["announce", "speaker", "devices", "demo"] {
        let help = run(&[command, "--help"]);
        help.expect(0, &[]);
        assert!(help.output.join("\n").contains("Usage"), "{:?}", help.output);
    }
    run(&["--version"]).expect(0, &[]);
}

#[test]
fn a_wrong_command_line_ends_with_status_2() {
    for arguments in [
        &["announce", "--no-such-option"][..],
        &["shout"],
        &[],
        &["speaker"],
        &["announce", "--listen", "nonsense"],
        &["announce", "--listen", "127.0.0.1:99999"],
        &["announce", "--events", "xml"],
        &["announce", "--wait-for", "some"],
        &["announce", "--keep", "-1"],
        &["speaker", "127.0.0.1:99999"],
        &["speaker", "127.0.0.1:no"],
        &["speaker", ""],
    ] {
        let ended = run(arguments);
        assert_eq!(ended.code, 2, "{arguments:?}: {}", ended.complaints);
        assert!(!ended.complaints.is_empty(), "{arguments:?}");
        assert!(ended.output.is_empty(), "{arguments:?}: {:?}", ended.output);
    }
}

#[test]
fn seconds_that_no_clip_can_have_are_refused() {
    for seconds in ["0", "-1", "-0.5", "NaN", "inf", "120.001", "121", "1e9", "five", ""] {
        let both = [vec![format!("--seconds={seconds}")], vec!["--seconds".into(), seconds.to_owned()]];
        for option in both {
            let arguments: Vec<String> = std::iter::once("announce".into()).chain(option).collect();
            run(&arguments).expect(2, &["--seconds"]);
        }
    }
    run(&["announce", "--seconds=121"]).expect(2, &["121", "120"]);
}

#[test]
fn an_unknown_device_is_answered_with_the_near_ones() {
    let rig = PulseRig::start(2);
    let environment = rig.environment();
    run_in(&environment, &[&ANYWHERE[..], &["--once", "--input", "microphon"]].concat())
        .expect_failure(&["microphon", "microphone"]);
    // A station complains only where somebody might have mistyped its device: a service waits.
    let terminal = Terminal::open(160, 20, &environment);
    terminal.type_line(&format!("{BULLHORN} speaker 127.0.0.1:9 --output hall-9; echo ended $?"));
    let screen = terminal.wait_until("the end", |screen| screen.contains("ended 1"));
    for word in ["device \"hall-9\"", "pulseaudio:hall-1", "pulseaudio:hall-2"] {
        assert!(screen.contains(word), "{screen}");
    }
}

#[test]
fn no_microphone_at_all_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let ended = run_in(&deaf_environment(folder.path()), &[&ANYWHERE[..], &["--once"]].concat());
    ended.expect_failure(&["microphone"]);
    assert!(!ended.complaints.contains("ALSA lib"), "{}", ended.complaints);
    let rig = PulseRig::start_empty();
    run_in(&rig.environment(), &[&ANYWHERE[..], &["--once"]].concat()).expect_failure(&["microphone"]);
}

#[test]
fn a_port_in_use_is_said() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let folder = tempfile::tempdir().unwrap();
    let page = file(&Spec::mono(16, 8_000).write(folder.path(), 800)).into_string().unwrap();
    run(&["announce", "--listen", &address, "--input", &page]).expect_failure(&[&address, "in use"]);
}

#[test]
fn a_host_that_does_not_resolve_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let output = file(folder.path()).into_string().unwrap();
    let arguments = ["speaker", "no-such-host.invalid", "--open", "--output", &output];
    let mut terminal = KittyTerminal::start(BULLHORN, &arguments, &[]);
    terminal.wait_for("cannot find the announcer's machine no-such-host.invalid: check the name");
    assert_eq!(terminal.exit_code(), Some(1));
    // A service waits for a name server that is not there yet, and reports it once.
    let mut service = Program::start("hall-1", arguments, &[]);
    let waiting = service.wait_for("waiting");
    assert_eq!(waiting["announcer"], "no-such-host.invalid:7766");
    assert!(waiting["reason"].as_str().unwrap().contains("cannot find the announcer's machine"), "{waiting}");
    std::thread::sleep(Duration::from_secs(1));
    service.signal("TERM");
    assert_eq!(service.exit_code(), 0);
    assert_eq!(service.untaken("waiting"), 0);
}

#[test]
fn what_is_no_folder_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let page = file(&Spec::mono(16, 8_000).write(folder.path(), 800)).into_string().unwrap();
    let plain = folder.path().join("plain");
    std::fs::write(&plain, "").unwrap();
    let (plain, output) = (plain.to_str().unwrap(), file(&plain).into_string().unwrap());
    let announce = ["announce", "--open", "--listen", "127.0.0.1:0", "--input", &page];
    let speaker = ["speaker", "127.0.0.1:9", "--open"];
    for arguments in [
        [&announce[..], &["--archive", plain]].concat(),
        [&speaker[..], &["--output", &output]].concat(),
        [&speaker[..], &["--output", "file:played", "--keep-clips", plain]].concat(),
    ] {
        run(&arguments).expect_failure(&[plain, "name a folder"]);
    }
}

#[test]
fn what_was_typed_cannot_write_to_the_terminal() {
    for arguments in
        [&["speaker", "a\u{202e}b\u{1b}[2J"][..], &["x\u{202e}y"], &["verify", "a\u{202e}b\u{1b}[2J"]]
    {
        let ended = run(arguments);
        let said = [ended.output.concat(), ended.complaints].concat();
        assert!(said.contains("\\u{202e}"), "{said}");
        assert!(!said.contains(['\u{202e}', '\u{1b}']), "{said:?}");
    }
}

#[test]
fn an_address_that_is_not_here_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let page = file(&Spec::mono(16, 8_000).write(folder.path(), 800)).into_string().unwrap();
    run(&["announce", "--listen", "192.0.2.1:7766", "--input", &page])
        .expect_failure(&["192.0.2.1:7766", "this computer does not have that address"]);
}

#[test]
fn a_sound_file_that_is_not_there_is_said() {
    let folder = tempfile::tempdir().unwrap();
    announce_file(&folder.path().join("absent.wav")).expect_failure(&["absent.wav", "No such file"]);
    announce_file(folder.path()).expect_failure(&[&folder.path().display().to_string()]);
}

#[test]
fn a_file_that_is_no_wav_is_said() {
    for content in [&b""[..], b"RIFF", b"\xff\xfb\x90\x00ID3 an mp3, if anything", &[0; 4096]] {
        let (_folder, path) = in_folder(content);
        announce_file(&path).expect_failure(&["page.wav", "WAV"]);
    }
}

#[test]
fn a_truncated_wav_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let path = Spec::mono(16, 8_000).write(folder.path(), 1_000);
    let name = path.file_name().unwrap().to_str().unwrap().to_owned();
    let content = std::fs::read(&path).unwrap();
    for kept in [43, 44, 45, 1_000, content.len() - 1] {
        std::fs::write(&path, &content[..kept]).unwrap();
        announce_file(&path).expect_failure(&[&name]);
    }
}

#[test]
fn a_wav_that_claims_more_than_it_holds_is_said() {
    for size in [u32::MAX - 1, 0x7fff_fffe, 202] {
        let (_folder, path) = tampered(40, &size.to_le_bytes());
        announce_file(&path).expect_failure(&["tones-16bit-8000Hz-mono.wav"]);
    }
}

#[test]
fn a_wav_of_0_channels_or_0_hz_is_said() {
    let (_folder, path) = tampered(22, &0_u16.to_le_bytes());
    announce_file(&path).expect_failure(&["tones-16bit-8000Hz-mono.wav"]);
    let (_folder, path) = tampered(24, &0_u32.to_le_bytes());
    announce_file(&path).expect_failure(&["tones-16bit-8000Hz-mono.wav"]);
}

#[test]
fn a_wav_of_nothing_or_of_over_two_minutes_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let path = Spec::mono(16, 8_000).write(folder.path(), 0);
    announce_file(&path).expect_failure(&["tones-16bit-8000Hz-mono.wav"]);
    let path = Spec::mono(8, 8_000).write(folder.path(), 121 * 8_000);
    announce_file(&path).expect_failure(&["121", "120"]);
}

#[test]
fn an_output_folder_that_cannot_be_written_is_said() {
    let (_folder, page) = in_folder(b"not a folder");
    for folder in [page.join("inside"), page, PathBuf::from("/proc/bullhorn")] {
        let output = file(&folder).into_string().unwrap();
        run(&["speaker", "127.0.0.1:9", "--output", &output])
            .expect_failure(&[&folder.display().to_string()]);
    }
}

#[test]
fn devices_are_listed_with_the_defaults_marked_and_no_noise() {
    let rig = PulseRig::start(2);
    let ended = run_in(&rig.environment(), &["devices"]);
    ended.expect(0, &[]);
    assert_eq!(ended.complaints, "");
    let marked = |name: &str| {
        let mut lines = ended.output.iter().filter(|line| line.contains(name) && !line.contains("monitor"));
        let line = lines.next().unwrap_or_else(|| panic!("{name} is not listed: {:#?}", ended.output));
        line.contains("default")
    };
    assert!(marked("microphone") && marked("hall-1"), "{:#?}", ended.output);
    assert!(!marked("hall-2") && !marked("mouth"), "{:#?}", ended.output);
}

#[test]
fn devices_without_any_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let ended = run_in(&deaf_environment(folder.path()), &["devices"]);
    ended.expect(0, &[]);
    assert!(!ended.complaints.contains("ALSA lib"), "{}", ended.complaints);
    assert!(ended.output.join("\n").contains("none"), "{:#?}", ended.output);
}

#[test]
fn once_with_nobody_listening_is_a_failure() {
    let folder = tempfile::tempdir().unwrap();
    let wav = Spec::mono(16, 8_000).write(folder.path(), 800);
    let ended = announce_file(&wav);
    assert_eq!(ended.code, 1, "{}", ended.complaints);
    let text = ended.output.join("\n");
    assert!(text.contains("0 of 0 stations played it: nobody is listening"), "{text}");
    assert!(ended.output[0].starts_with("no station has joined yet"), "{text}");
    assert!(ended.output[2].starts_with("listening on 127.0.0.1:"), "{text}");
}

#[test]
fn once_waits_for_its_stations_and_ends_well() {
    let fixtures = tempfile::tempdir().unwrap();
    let output = tempfile::tempdir().unwrap();
    let wav = Spec::mono(16, 8_000).write(fixtures.path(), 800);
    let mut hallway = Hallway::plan()
        .announce(["--once", "--wait-for", "2"])
        .says(&wav)
        .station("hall-1", file(output.path()))
        .station("hall-2", file(output.path()))
        .open();
    assert_eq!(hallway.announcer.exit_code(), 0);
    assert_eq!(hallway.announcer.wait_for("done")["played"], 2);
    assert_eq!(wavs(output.path()).len(), 2);
}

#[test]
fn every_line_of_input_announces_and_its_end_waits_for_the_verdict() {
    let fixtures = tempfile::tempdir().unwrap();
    let output = tempfile::tempdir().unwrap();
    let wav = Spec::mono(16, 8_000).write(fixtures.path(), 8_000);
    let mut hallway = Hallway::plan().says(&wav).station("hall-1", file(output.path())).open();
    for _ in 0..3 {
        hallway.announcer.enter();
    }
    hallway.announcer.end_input();
    assert_eq!(hallway.announcer.exit_code(), 0);
    for _ in 0..3 {
        assert_eq!(hallway.announcer.wait_for("done")["played"], 1);
    }
    for path in wavs(output.path()) {
        assert!(read_i16(&path).0 == read_i16(&wav).0);
    }
    assert_eq!(wavs(output.path()).len(), 3);
}

#[test]
fn json_lines_are_all_that_standard_output_holds() {
    let fixtures = tempfile::tempdir().unwrap();
    let output = tempfile::tempdir().unwrap();
    let wav = Spec::mono(16, 8_000).write(fixtures.path(), 800);
    let mut hallway = Hallway::plan().says(&wav).station("hall-1", file(output.path())).open();
    hallway.announce();
    hallway.announcer.end_input();
    assert_eq!(hallway.announcer.exit_code(), 0);
    hallway.stations[0].wait_for("played");
    hallway.stations[0].kill();
    let mut names = Vec::new();
    for program in [&mut hallway.announcer, &mut hallway.stations[0]] {
        for line in program.rest() {
            let event: Value = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"));
            let name = event["event"].as_str().unwrap().to_owned();
            assert!(line.starts_with(&format!("{{\"event\":\"{name}\",\"unix_ms\":1")), "{line}");
            names.push(name);
        }
    }
    let all = names.join(" ");
    for name in [
        "listening",
        "station-joined",
        "recording",
        "recorded",
        "sending",
        "verified",
        "playing",
        "played",
        "done",
        "connected",
    ] {
        assert!(names.iter().any(|seen| seen == name), "no {name} in: {all}");
    }
    assert!(!names.iter().any(|name| name == "level"), "{all}");
    let prose = hallway.announcer.complaints();
    assert!(prose.contains("1 of 1 stations played it"), "{prose}");
}

#[test]
fn prose_tells_where_it_listens_and_the_verdict() {
    let fixtures = tempfile::tempdir().unwrap();
    let output = tempfile::tempdir().unwrap();
    let wav = Spec::mono(16, 8_000).write(fixtures.path(), 800);
    let arguments = ANYWHERE.map(OsString::from).into_iter().chain([
        "--once".into(),
        "--wait-for".into(),
        "1".into(),
        "--input".into(),
        file(&wav),
    ]);
    let state = tempfile::tempdir().unwrap();
    let environment = [(STATE.to_owned(), state.path().display().to_string())];
    let mut announcer = Program::start_prose("the announcer", arguments, &environment);
    let line = announcer.wait_for_line("listening on 127.0.0.1:");
    let address = line.rsplit(' ').next().unwrap().to_owned();
    let mut station = start_station(&address, "hall-1", &file(output.path()), &environment);
    announcer.wait_for_line("1 of 1 stations played it");
    assert_eq!(announcer.exit_code(), 0);
    station.wait_for("played");
}

#[test]
fn a_station_does_not_read_its_input() {
    let fixtures = tempfile::tempdir().unwrap();
    let output = tempfile::tempdir().unwrap();
    let wav = Spec::mono(16, 8_000).write(fixtures.path(), 800);
    let mut hallway = Hallway::plan().says(&wav).station("hall-1", file(output.path())).open();
    hallway.stations[0].enter();
    hallway.stations[0].end_input();
    assert_eq!(hallway.announce()["played"], 1);
    hallway.stations[0].wait_for("connected");
}

/// Every WAV that, according to a demo, a station wrote.
fn written(output: &[String]) -> Vec<PathBuf> {
    output.iter().filter_map(|line| line.strip_prefix("played into ")).map(PathBuf::from).collect()
}

#[test]
fn the_demo_without_sound_or_terminal_announces_once_and_prints_what_it_wrote() {
    let folder = tempfile::tempdir().unwrap();
    let ended = run_in(&deaf_environment(folder.path()), &["demo"]);
    ended.expect(0, &[]);
    let text = ended.output.join("\n");
    assert!(text.contains("2 of 2 stations played it"), "{text}");
    assert!(text.to_lowercase().contains("no microphone"), "it says what is missing: {text}");
    let written = written(&ended.output);
    assert_eq!(written.len(), 2, "{text}");
    let (first, second) = (read_i16(&written[0]).0, read_i16(&written[1]).0);
    assert!(first == second && first.iter().any(|&sample| sample.unsigned_abs() > 5_000));
    for path in written {
        drop(std::fs::remove_file(path));
    }
}

#[test]
fn the_demo_uses_the_sound_that_is_there() {
    let rig = PulseRig::start(1);
    let ended = run_in(&rig.environment(), &["demo", "--once"]);
    ended.expect(0, &[]);
    let text = ended.output.join("\n");
    assert!(text.contains("2 of 2 stations played it"), "{text}");
    assert_eq!(written(&ended.output), Vec::<PathBuf>::new(), "{text}");
}
