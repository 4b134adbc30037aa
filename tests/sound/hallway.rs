//! Real sound: speech goes into the microphone, and the sound of each hallway's loudspeaker is recorded.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::support::correlate::{align, assert_whole, extent, skews_frames};
use crate::support::hallway::{AFTERWARDS, Announced, Hallway, Program, file, start_station};
use crate::support::pulse::{MICROPHONE, MOUTH, PulseRig, RATE_HZ, Recording};
use crate::support::wav::{SPOKEN_HZ, read_i16, speech, to_f32};
use ebur128::{EbuR128, Mode};
use serde_json::Value;

/// The required correlation with the original, whichever way the sound took.
const ALIKE: f64 = 0.98;

/// The rig without the program: sound played into two sinks is recorded whole on both channels.
#[test]
fn the_rig_itself_loses_nothing() {
    let rig = PulseRig::start(2);
    let voice = speech(rig.folder(), 2, RATE_HZ);
    let recording = rig.record();
    let from = recording.frames();
    let _left = rig.play("hall-1", &voice);
    let _right = rig.play("hall-2", &voice);
    recording.wait_until_heard(1);
    recording.wait_for(Duration::from_secs(4));
    assert!(recording.is_whole(from, &mut 0), "the marker is torn");
    let (left, right) = (recording.channel(1, 0), recording.channel(2, 0));
    let (first, last) = extent(&left, 0).unwrap();
    let (voice, _) = read_i16(&voice);
    assert!(
        left[first..=last] == to_f32(&voice),
        "{} of {} frames are as played",
        last + 1 - first,
        voice.len()
    );
    assert_whole("the right channel", &left[first..=last], &right, RATE_HZ, 0.999);
}

#[test]
fn two_hallways_hear_the_speech_whole() {
    const CLIP_SECONDS: usize = 4;
    let rig = PulseRig::start(2);
    let kept = tempfile::tempdir().unwrap();
    // A third station writes the clip bit for bit, so that each leg can be judged by itself too.
    let mut hallway = Hallway::plan()
        .environment(rig.environment())
        .announce(["--seconds", "4", "--input", MICROPHONE])
        .station("hall-1", "hall-1")
        .station("hall-2", "hall-2")
        .station("archive", file(kept.path()))
        .open();
    let recording = rig.record();
    let voice = speech(rig.folder(), 90, SPOKEN_HZ);
    let _voice = rig.play(MOUTH, &voice);
    recording.wait_until_heard(0);

    let announced = hallway.announce_undisturbed(&recording);
    let (clip, rate_hz) = read_i16(&kept.path().join(format!("archive-{}.wav", announced.clip)));
    assert_eq!(announced.rate_hz, u64::from(RATE_HZ), "the sink's own rate needs no resampling");
    assert_eq!((clip.len(), rate_hz), (CLIP_SECONDS * RATE_HZ as usize, RATE_HZ));
    let clip = to_f32(&clip);
    let mouth = recording.channel(0, announced.from_frame);
    let said = assert_whole("the clip, in what was said,", &clip, &mouth, RATE_HZ, ALIKE);
    // The recorder lags as well, by about 20 ms.
    let begun_ms = said.delay_frames * 1e3 / f64::from(RATE_HZ);
    println!("from Enter to the first sample: {begun_ms:.1} ms at most");
    for hall in [1, 2] {
        let what = format!("hall-{hall}");
        let heard = recording.channel(hall, announced.from_frame);
        let (first, last) = extent(&heard, 0).expect("something was heard");
        let emitted = last + 1 - first;
        assert!(
            emitted.abs_diff(clip.len()) < clip.len() / 300,
            "{what}: {emitted} of {} frames sounded",
            clip.len()
        );
        let at = assert_whole(&format!("the clip, in {what},"), &clip, &heard, RATE_HZ, ALIKE);
        assert!(at.delay_frames > said.delay_frames + clip.len() as f64, "{what}: heard before it was said");
        let said = &mouth[said.delay_frames.round() as usize..][..clip.len()];
        assert_whole(&format!("what was said, in {what},"), said, &heard, RATE_HZ, ALIKE);
        println!("{what}: {at:?}");
    }
}

/// A device that runs at another rate than the clip: the station converts, and loses nothing.
#[test]
fn a_clip_at_another_rate_is_heard_whole() {
    let rig = PulseRig::start(1);
    let clip = speech(rig.folder(), 3, SPOKEN_HZ);
    let (samples, rate_hz) = read_i16(&clip);
    assert_ne!(rate_hz, RATE_HZ);
    let mut hallway =
        Hallway::plan().environment(rig.environment()).says(&clip).station("hall-1", "hall-1").open();
    let recording = rig.record();
    let announced = hallway.announce_undisturbed(&recording);
    let heard = recording.channel(1, announced.from_frame);
    drop(recording);

    // The clip against a recording at the recording's rate: paplay's own way through the same server.
    let reference = rig.record();
    let _player = rig.play("hall-1", &clip);
    reference.wait_until_heard(1);
    reference.wait_for(Duration::from_secs(4));
    let reference = reference.channel(1, 0);
    let (first, last) = extent(&reference, 0).unwrap();
    let frames = samples.len() * RATE_HZ as usize / rate_hz as usize;
    assert!((last - first).abs_diff(frames) < 200, "paplay: {} of {frames} frames", last - first);
    assert_whole("hall-1", &reference[first..=last], &heard, RATE_HZ, ALIKE);
}

/// A stereo file of 44.1 kHz that is much too soft is heard whole, as one channel and at the common level.
#[test]
fn a_prepared_stereo_file_is_heard_whole_and_loud_enough() {
    let rig = PulseRig::start(1);
    let kept = tempfile::tempdir().unwrap();
    let (voice, _) = read_i16(&speech(rig.folder(), 4, 44_100));
    let stereo = rig.folder().join("stereo.wav");
    let spec = hound::WavSpec {
        channels: 2,
        sample_rate: 44_100,
        bits_per_sample: 16,
        sample_format: hound::SampleFormat::Int,
    };
    let mut writer = hound::WavWriter::create(&stereo, spec).unwrap();
    for sample in &voice {
        writer.write_sample(sample / 4).unwrap();
        writer.write_sample(sample / 2).unwrap();
    }
    writer.finalize().unwrap();
    let mut hallway = Hallway::plan()
        .environment(rig.environment())
        .announce(["--rate", &RATE_HZ.to_string(), "--file", stereo.to_str().unwrap()])
        .station("hall-1", "hall-1")
        .station("archive", file(kept.path()))
        .open();
    let recording = rig.record();
    let announced = hallway.announce_undisturbed(&recording);
    let (clip, rate_hz) = read_i16(&kept.path().join(format!("archive-{}.wav", announced.clip)));
    assert_eq!((clip.len(), rate_hz), (4 * RATE_HZ as usize, RATE_HZ));
    let heard = recording.channel(1, announced.from_frame);
    assert_whole("the file, in hall-1,", &to_f32(&clip), &heard, RATE_HZ, ALIKE);
    let (first, last) = extent(&heard, 0).expect("something was heard");
    let mut meter = EbuR128::new(1, RATE_HZ, Mode::I).unwrap();
    meter.add_frames_f32(&heard[first..=last]).unwrap();
    let lufs = meter.loudness_global().unwrap();
    println!("hall-1: {lufs:.2} LUFS");
    assert!((lufs + 16.0).abs() < 1.0, "{lufs} LUFS");
}

#[test]
fn a_zones_page_is_heard_there_and_nowhere_else() {
    let rig = PulseRig::start(2);
    let clip = speech(rig.folder(), 3, RATE_HZ);
    let mut hallway =
        Hallway::plan().environment(rig.environment()).says(&clip).announce(["--zone", "east"]).open();
    let _stations = [("hall-1", "east"), ("hall-2", "west")].map(|(name, zone)| {
        let station = ["speaker", &hallway.address, "--name", name, "--zone", zone, "--output", name];
        let station = Program::start(name, station, &hallway.environment);
        hallway.announcer.wait_for_one("station-joined", "station", name);
        station
    });
    let recording = rig.record();
    // A stream that is still being opened starts late, and reports that.
    recording.wait_for(Duration::from_secs(2));
    let announced = hallway.announce_undisturbed(&recording);
    assert_eq!(announced.receipts.len(), 1);
    assert_eq!(announced.receipts[0]["station"], "hall-1");
    let [east, west] = [1, 2].map(|channel| recording.channel(channel, announced.from_frame));
    assert_whole("the clip, in the east,", &to_f32(&read_i16(&clip).0), &east, RATE_HZ, ALIKE);
    assert_eq!(extent(&west, 0), None, "not a sample in the west");
}

#[test]
fn silence_is_sent_with_a_warning_that_names_the_microphone() {
    let rig = PulseRig::start(1);
    let mut hallway = Hallway::plan()
        .environment(rig.environment())
        .announce(["--seconds", "1", "--input", MICROPHONE])
        .station("hall-1", "hall-1")
        .open();
    hallway.announcer.enter();
    let warning = hallway.announcer.wait_for("warning")["message"].as_str().unwrap().to_owned();
    assert!(warning.contains(MICROPHONE), "{warning}");
    let done = hallway.announcer.wait_for("done");
    assert_eq!(done["played"], 1, "{done}");
}

/// The defaults are used if no device is named.
#[test]
fn defaults_are_the_servers() {
    let rig = PulseRig::start(1);
    let kept = tempfile::tempdir().unwrap();
    let mut hallway = Hallway::plan()
        .environment(rig.environment())
        .announce(["--seconds", "1"])
        .station("archive", file(kept.path()))
        .open();
    let mut station =
        Program::start("hall-1", ["speaker", &hallway.address, "--name", "hall-1"], &hallway.environment);
    hallway.announcer.wait_for_one("station-joined", "station", "hall-1");
    let recording = rig.record();
    let _voice = rig.play(MOUTH, &speech(rig.folder(), 40, SPOKEN_HZ));
    recording.wait_until_heard(0);
    let announced = hallway.announce_undisturbed(&recording);
    station.wait_for("played");
    let clip = to_f32(&read_i16(&kept.path().join(format!("archive-{}.wav", announced.clip))).0);
    let [mouth, hall] = [0, 1].map(|channel| recording.channel(channel, announced.from_frame));
    assert_whole("the clip, in what was said,", &clip, &mouth, RATE_HZ, ALIKE);
    assert_whole("the clip, in hall-1,", &clip, &hall, RATE_HZ, ALIKE);
}

/// Bounds three times those of `script/measure-sync`, so that a busy machine does not fail a correct program.
const MOST_SKEW_MS: f64 = 0.45;
const MOST_FIRST_SKEW_MS: f64 = 0.6;
const MOST_DISAGREEMENT_MS: f64 = 0.3;
const MOST_DELAY_MS: f64 = 300.0;

/// The skew of every half second: how far hall-2 is behind hall-1.
fn skews_ms(clip: &[f32], recording: &Recording, announced: &Announced) -> Vec<f64> {
    let [left, right] = [1, 2].map(|channel| recording.channel(channel, announced.from_frame));
    let start = align(clip, &left).delay_frames.round().max(0.0) as usize;
    let skews = skews_frames(&left, &right, start, clip.len(), RATE_HZ as usize / 2);
    skews.into_iter().map(|skew| skew * 1e3 / f64::from(RATE_HZ)).collect()
}

fn worst(skews_ms: &[f64]) -> f64 {
    skews_ms.iter().map(|skew| skew.abs()).fold(0.0, f64::max)
}

/// The skew between `hall-1` and `hall-2` according to their receipts.
fn claimed_ms(announced: &Announced) -> f64 {
    let [first, second] = ["hall-1", "hall-2"].map(|name| {
        let of = |receipt: &&Value| receipt["station"] == name;
        announced.receipts.iter().find(of).expect("a receipt")["start_error_us"].as_f64().unwrap()
    });
    (second - first) / 1e3
}

/// Two loudspeakers sound as one from the first page on, three seconds after they were opened, and after they have
/// connected again. The receipts report what is heard, and it is heard soon.
#[test]
fn two_hallways_are_in_step_and_say_so() {
    let rig = PulseRig::start(2);
    let kept = tempfile::tempdir().unwrap();
    let mut hallway = Hallway::plan()
        .environment(rig.environment())
        .announce(["--seconds", "3", "--input", MICROPHONE])
        .station("hall-1", "hall-1")
        .station("hall-2", "hall-2")
        .station("archive", file(kept.path()))
        .open();
    let recording = rig.record();
    let _voice = rig.play(MOUTH, &speech(rig.folder(), 150, SPOKEN_HZ));
    recording.wait_until_heard(0);
    recording.wait_for(Duration::from_secs(2));
    let mut delays_ms = Vec::new();
    for (page, most_skew_ms) in
        [("first", MOST_FIRST_SKEW_MS), ("second", MOST_SKEW_MS), ("third", MOST_SKEW_MS)]
    {
        let announced = hallway.announce_undisturbed(&recording);
        let clip = to_f32(&read_i16(&kept.path().join(format!("archive-{}.wav", announced.clip))).0);
        let skews = skews_ms(&clip, &recording, &announced);
        println!("{page} page: skew {skews:.3?} ms, claimed {:.3} ms", claimed_ms(&announced));
        assert!(worst(&skews) <= most_skew_ms, "{page} page: {skews:?} ms");
        let disagreement = (claimed_ms(&announced) - skews[0]).abs();
        assert!(disagreement <= MOST_DISAGREEMENT_MS, "{page} page: {skews:?} ms, {announced:?}");
        let [said, heard] = [0, 1]
            .map(|channel| align(&clip, &recording.channel(channel, announced.from_frame)).delay_frames);
        let delay_ms = (heard - said - clip.len() as f64) * 1e3 / f64::from(RATE_HZ);
        assert!(delay_ms >= 0.0, "{page} page: heard {} ms before it was said", -delay_ms);
        delays_ms.push(delay_ms);
    }
    // A page waits for as long as the slowest of its parts took while the machine was busy.
    assert!(delays_ms.iter().any(|delay_ms| *delay_ms <= MOST_DELAY_MS), "heard late: {delays_ms:?} ms");
}

/// A loudspeaker is shifted by its `--delay`, and its receipt stays correct.
#[test]
fn a_delay_moves_a_loudspeaker_by_as_much() {
    const DELAY_MS: f64 = 20.5;
    let rig = PulseRig::start(2);
    let voice = speech(rig.folder(), 3, RATE_HZ);
    for (delay, expected_ms) in [("20.5", DELAY_MS), ("-20.5", -DELAY_MS)] {
        let mut hallway =
            Hallway::plan().environment(rig.environment()).says(&voice).station("hall-1", "hall-1").open();
        let station =
            ["speaker", &hallway.address, "--name", "hall-2", "--output", "hall-2", "--delay", delay];
        let _second = Program::start("hall-2", station, &hallway.environment);
        hallway.announcer.wait_for_one("station-joined", "station", "hall-2");
        let recording = rig.record();
        recording.wait_for(Duration::from_secs(2));
        let announced = hallway.announce_undisturbed(&recording);
        let skews = skews_ms(&to_f32(&read_i16(&voice).0), &recording, &announced);
        let beside: Vec<f64> = skews.iter().map(|skew| skew - expected_ms).collect();
        println!("--delay {delay}: {skews:.3?} ms, claimed {:.3} ms", claimed_ms(&announced));
        assert!(worst(&beside) <= MOST_FIRST_SKEW_MS, "--delay {delay}: {skews:?} ms");
        assert!(claimed_ms(&announced).abs() <= MOST_DISAGREEMENT_MS, "--delay {delay}: {announced:?}");
    }
}

/// A station that receives the instant only after it has passed begins late: it plays the whole clip, and reports it as late.
#[test]
fn a_late_start_is_reported_late() {
    const HELD: Duration = Duration::from_millis(600);
    let rig = PulseRig::start(2);
    let voice = speech(rig.folder(), 3, RATE_HZ);
    let mut hallway =
        Hallway::plan().environment(rig.environment()).says(&voice).station("hall-1", "hall-1").open();
    let clip_bytes = 2 * 3 * RATE_HZ as usize;
    let line = SlowLine::to(&hallway.address, clip_bytes, HELD);
    let _second = start_station(&line.address, "hall-2", &"hall-2".into(), &hallway.environment);
    hallway.announcer.wait_for_one("station-joined", "station", "hall-2");
    let recording = rig.record();
    recording.wait_for(Duration::from_secs(3));
    let from_frame = recording.frames();
    hallway.announcer.enter();
    let done = hallway.announcer.wait_for("done");
    recording.wait_for(AFTERWARDS);
    assert_eq!(done["played"], 2, "{done}");
    let receipt = hallway.announcer.wait_for_one("played", "station", "hall-2");
    let clip = to_f32(&read_i16(&voice).0);
    let [first, second] = [1, 2].map(|channel| align(&clip, &recording.channel(channel, from_frame)));
    let heard_late_ms = (second.delay_frames - first.delay_frames) * 1e3 / f64::from(RATE_HZ);
    println!("heard {heard_late_ms:.1} ms late; {receipt}; {done}");
    assert!(heard_late_ms > 300.0, "it was not late at all: {heard_late_ms} ms");
    let late_ms = receipt["late_ms"].as_f64().unwrap();
    assert!((late_ms - heard_late_ms).abs() < 30.0, "heard {heard_late_ms} ms late: {receipt}");
    assert_eq!(done["out_of_step"][0]["station"], "hall-2", "{done}");
    assert_eq!(done["spread_us"], Value::Null, "{done}");
}

/// A line between an announcer and one station. Once the station has answered a clip, the announcer's next messages are
/// held back.
struct SlowLine {
    address: String,
}

impl SlowLine {
    fn to(announcer: &str, clip_bytes: usize, held: Duration) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let announcer = announcer.to_owned();
        std::thread::spawn(move || {
            for station in listener.incoming().map_while(Result::ok) {
                let Ok(announcer) = TcpStream::connect(&announcer) else { continue };
                let passed = Arc::new(AtomicUsize::new(0));
                let free_at = Arc::new(Mutex::new(Instant::now()));
                let (mut down_from, mut down_to) =
                    (announcer.try_clone().unwrap(), station.try_clone().unwrap());
                let (counted, gate) = (passed.clone(), free_at.clone());
                std::thread::spawn(move || {
                    pass(&mut down_from, &mut down_to, |bytes| {
                        std::thread::sleep(gate.lock().unwrap().saturating_duration_since(Instant::now()));
                        counted.fetch_add(bytes, Ordering::SeqCst);
                    });
                });
                let (mut up_from, mut up_to) = (station, announcer);
                std::thread::spawn(move || {
                    pass(&mut up_from, &mut up_to, |_| {
                        if passed.load(Ordering::SeqCst) > clip_bytes {
                            passed.store(0, Ordering::SeqCst);
                            *free_at.lock().unwrap() = Instant::now() + held;
                        }
                    });
                });
            }
        });
        Self { address }
    }
}

/// Passes bytes on until either end is closed; `before` is called with the number of bytes that come next.
fn pass(from: &mut TcpStream, to: &mut TcpStream, mut before: impl FnMut(usize)) {
    let mut block = [0; 16 * 1024];
    while let Ok(read @ 1..) = from.read(&mut block) {
        before(read);
        if to.write_all(&block[..read]).is_err() {
            break;
        }
    }
    // The other end might be closed already.
    let _ = to.shutdown(std::net::Shutdown::Write);
}
