//! Sound files as people have them: made by ffmpeg and sox, and either heard as ffmpeg decodes them or refused.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use bullhorn::sound_file::{self, Heard};

use crate::support::hallway::{BULLHORN, Hallway, Program, file, start_station, wavs};
use crate::support::wav::read_i16;

/// How far a length may be from ffmpeg's, in seconds: the amounts that the two cut off at the ends differ by less than
/// a syllable.
const MAX_LENGTH_ERROR_S: f64 = 0.02;
/// How alike the two sounds must be, from their first samples on.
const MIN_CORRELATION: f64 = 0.99;
/// How much louder or softer one may be, as a factor.
const MAX_GAIN: f64 = 1.02;

fn speech() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("assets/speech.wav")
}

fn speech_samples() -> Vec<f32> {
    read_i16(&speech()).0.into_iter().map(|sample| f32::from(sample) / 32_768.0).collect()
}

/// A file as ffmpeg decodes it, in mono, and its rate.
fn decoded(path: &Path, decoder: &[&str]) -> (Vec<f32>, u32) {
    let output = Command::new("ffmpeg")
        .args(["-v", "error", "-nostdin"])
        .args(decoder)
        .arg("-i")
        .arg(path)
        .args(["-vn", "-bitexact", "-c:a", "pcm_f32le", "-f", "wav", "-"])
        .output()
        .expect("ffmpeg is missing: run script/setup tests");
    let wav = output.stdout;
    let data = wav.windows(4).position(|window| window == b"data").map(|at| at + 8);
    let data =
        data.unwrap_or_else(|| panic!("{}: {}", path.display(), String::from_utf8_lossy(&output.stderr)));
    let channels = usize::from(u16::from_le_bytes([wav[22], wav[23]]));
    let rate_hz = u32::from_le_bytes([wav[24], wav[25], wav[26], wav[27]]);
    let (samples, _) = wav[data..].as_chunks::<4>();
    let samples: Vec<f32> = samples.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
    (
        samples.chunks_exact(channels).map(|frame| frame.iter().sum::<f32>() / channels as f32).collect(),
        rate_hz,
    )
}

/// Correlation and gain of the length that two sounds have in common, beginning with their first samples.
fn likeness(heard: &[f32], wanted: &[f32]) -> (f64, f64) {
    let (mut product, mut here, mut there) = (0.0, 0.0, 0.0);
    for (heard, wanted) in heard.iter().zip(wanted) {
        let (heard, wanted) = (f64::from(*heard), f64::from(*wanted));
        product += heard * wanted;
        here += heard * heard;
        there += wanted * wanted;
    }
    (product / (here * there).sqrt(), (here / there).sqrt())
}

/// How a file differs from what it should be; `None` if it is right.
fn difference(path: &Path, wanted: &[f32], rate_hz: u32, warnings: usize) -> Option<String> {
    let heard = match sound_file::hear(path) {
        Ok(heard) => heard,
        Err(error) => return Some(bullhorn::error_chain(&error)),
    };
    let Heard { sound, warnings: told } = heard;
    let (length, wanted_length) = (sound.length().as_secs_f64(), wanted.len() as f64 / f64::from(rate_hz));
    let (correlation, gain) = likeness(&sound.samples, wanted);
    let is_right = sound.rate_hz == rate_hz
        && (length - wanted_length).abs() < MAX_LENGTH_ERROR_S
        && correlation >= MIN_CORRELATION
        && (1.0 / MAX_GAIN..MAX_GAIN).contains(&gain)
        && told.len() == warnings;
    let found = format!(
        "{length:.3} s at {} Hz, correlation {correlation:.4}, gain {gain:.3}, {told:?}",
        sound.rate_hz
    );
    (!is_right).then(|| format!("{}: {found}, not {wanted_length:.3} s at {rate_hz} Hz", path.display()))
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let files: Vec<PathBuf> = entries.collect();
    assert!(!files.is_empty(), "{}", folder.display());
    files
}

#[test]
fn odd_files_are_heard_as_ffmpeg_decodes_them_or_refused() {
    let folder = tempfile::tempdir().unwrap();
    let make = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/sounds/make");
    let made = Command::new(make).arg(folder.path()).output().expect("tests/sounds/make");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let in_folder = |name: &str| files(&folder.path().join(name));

    let mut wrong = Vec::new();
    let kinds: [(&str, &[&str], usize); 3] =
        [("like-ffmpeg", &[], 0), ("like-libopus", &["-c:a", "libopus"], 0), ("guessed", &[], 1)];
    let mut compared = 0;
    for (name, decoder, warnings) in kinds {
        for path in in_folder(name) {
            let (wanted, rate_hz) = decoded(&path, decoder);
            wrong.extend(difference(&path, &wanted, rate_hz, warnings));
            compared += 1;
        }
    }
    let once = speech_samples();
    let twice = once.repeat(2);
    for (name, wanted) in [("like-speech", &once), ("twice", &twice)] {
        for path in in_folder(name) {
            wrong.extend(difference(&path, wanted, 16_000, 0));
            compared += 1;
        }
    }
    assert!(compared >= 90, "only {compared} files were compared");
    for path in in_folder("refused") {
        match sound_file::hear(&path) {
            Ok(heard) => wrong.push(format!("{} plays {:?}", path.display(), heard.sound.length())),
            Err(error) => {
                let said = bullhorn::error_chain(&error);
                let reasons = ["truncated", "is damaged", "is empty", "joined", "rate changes", "ffmpeg -i"];
                if !reasons.iter().any(|reason| said.contains(reason)) || said.contains("0.0 s") {
                    wrong.push(said);
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{} files are wrong:\n{}", wrong.len(), wrong.join("\n"));
}

/// Writes a WAV as programs do that cannot go back to its header.
fn piped_wav(folder: &Path) -> PathBuf {
    let mut wav = std::fs::read(speech()).unwrap();
    wav[4..8].fill(0xff);
    let data = wav.windows(4).position(|window| window == b"data").unwrap() + 4;
    wav[data..data + 4].fill(0xff);
    let path = folder.join("piped.wav");
    std::fs::write(&path, wav).unwrap();
    path
}

#[test]
fn a_guessed_length_is_told_and_all_of_it_played() {
    let (folder, output) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut hallway = Hallway::plan()
        .announce(["--once", "--wait-for", "1"])
        .says(&piped_wav(folder.path()))
        .station("hall-1", file(output.path()))
        .open();
    let warning = hallway.announcer.wait_for("warning");
    let message = warning["message"].as_str().unwrap();
    assert!(message.contains("piped.wav: its header does not say how long it is: all 5.5 s"), "{message}");
    assert_eq!(hallway.announcer.exit_code(), 0);
    assert!(read_i16(&wavs(output.path())[0]).0 == read_i16(&speech()).0);
}

#[test]
fn standard_input_is_announced_once() {
    let output = tempfile::tempdir().unwrap();
    let state = tempfile::tempdir().unwrap();
    let environment = vec![("XDG_STATE_HOME".to_owned(), state.path().display().to_string())];
    let arguments =
        ["announce", "--listen", "127.0.0.1:0", "--once", "--wait-for", "1", "--no-level", "--file", "-"];
    let mut command = Command::new("sh");
    command.args(["-c", r#"cat "$0" | "$@""#]).arg(speech()).arg(BULLHORN).args(arguments);
    command.args(["--events", "json"]);
    let mut announcer = Program::start_command("the announcer", command, &environment);
    let address = announcer.wait_for("listening")["address"].as_str().unwrap().to_owned();
    let _station = start_station(&address, "hall-1", &file(output.path()), &environment);
    assert_eq!(announcer.wait_for("done")["played"], 1);
    assert_eq!(announcer.exit_code(), 0);
    assert!(read_i16(&wavs(output.path())[0]).0 == read_i16(&speech()).0);
}

#[test]
fn standard_input_is_not_the_keyboard_as_well() {
    let arguments = ["announce", "--listen", "127.0.0.1:0", "--file", "-"].map(OsString::from);
    let mut program = Program::start_prose("bullhorn", arguments, &Vec::new());
    assert_eq!(program.exit_code(), 2);
    let said = program.complaints();
    assert!(said.contains("the sound from standard input is announced once: add --once"), "{said}");
}
