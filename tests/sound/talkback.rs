//! Talkback on real sound: what is said into a station's microphone is heard at the announcer's loudspeaker.

use std::time::Duration;

use crate::support::correlate::{assert_whole, extent};
use crate::support::hallway::{AFTERWARDS, Hallway, Program};
use crate::support::pulse::{MICROPHONE, MOUTH, PulseRig, RATE_HZ};
use crate::support::wav::{SPOKEN_HZ, read_i16, speech, to_f32};

/// The required correlation with the original.
const ALIKE: f64 = 0.98;
const SECONDS: usize = 4;
/// A machine that is too busy for sound proves nothing.
const TRIES: usize = 5;

/// The station has the rig's microphone and hall-1; the announcer has hall-2.
#[test]
fn what_is_said_at_a_station_is_heard_whole_at_the_announcer() {
    let rig = PulseRig::start(2);
    let page = speech(rig.folder(), 1, RATE_HZ);
    let mut office = Hallway::plan()
        .environment(rig.environment())
        .says(&page)
        .announce(["--talkback", "--monitor", "hall-2"])
        .open();
    let station = ["speaker", &office.address, "--name", "hall-1", "--output", "hall-1"];
    let talkback = ["--talkback", "--input", MICROPHONE, "--seconds", "4"];
    let mut hall = Program::start("hall-1", station.into_iter().chain(talkback), &office.environment);
    office.announcer.wait_for_one("station-joined", "station", "hall-1");
    let recording = rig.record();
    let _voice = rig.play(MOUTH, &speech(rig.folder(), 150, SPOKEN_HZ));
    recording.wait_until_heard(0);
    recording.wait_for(Duration::from_secs(1));

    for left in (0..TRIES).rev() {
        let from_frame = recording.frames();
        hall.enter();
        let received = office.announcer.wait_for("talkback-received");
        let heard_event = office.announcer.wait_for("talkback-heard");
        assert_eq!(hall.wait_for("talkback-heard")["talkback"], heard_event["talkback"]);
        recording.wait_for(AFTERWARDS);
        let kept = std::path::PathBuf::from(received["file"].as_str().unwrap());
        let (clip, rate_hz) = read_i16(&kept);
        assert_eq!((clip.len(), rate_hz), (SECONDS * RATE_HZ as usize, RATE_HZ));
        let clip = to_f32(&clip);
        let [mouth, hallway, loudspeaker] = [0, 1, 2].map(|channel| recording.channel(channel, from_frame));
        let (first, last) = extent(&loudspeaker, 0).expect("something was heard");
        let emitted = last + 1 - first;
        if emitted.abs_diff(clip.len()) >= clip.len() / 300 && left > 0 {
            eprintln!(
                "this machine is busy: {emitted} of {} frames sounded, so it is said again",
                clip.len()
            );
            continue;
        }
        assert!(emitted.abs_diff(clip.len()) < clip.len() / 300, "{emitted} of {} frames", clip.len());
        let said = assert_whole("the clip, in what was said,", &clip, &mouth, RATE_HZ, ALIKE);
        let heard = assert_whole("the clip, at the announcer,", &clip, &loudspeaker, RATE_HZ, ALIKE);
        let original = &mouth[said.delay_frames.round() as usize..][..clip.len()];
        assert_whole("what was said, at the announcer,", original, &loudspeaker, RATE_HZ, ALIKE);
        assert!(heard.delay_frames > said.delay_frames + clip.len() as f64, "heard before it was said");
        assert!(extent(&hallway, 0).is_none(), "the hallway itself heard it");
        let delay_s = (heard.delay_frames - said.delay_frames) / f64::from(RATE_HZ) - SECONDS as f64;
        println!("heard {delay_s:.3} s after its last sample was said: {heard:?}");
        return;
    }
}
