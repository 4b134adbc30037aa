//! The comparison of recordings is itself tested: it notices whatever it must notice.

use crate::support::correlate::{Missing, align, assert_whole, largest_slip_frames, missing};
use crate::support::wav::{noise, tones};

const RATE_HZ: u32 = 48_000;
const LENGTH: usize = 2 * RATE_HZ as usize;
const MS: usize = RATE_HZ as usize / 1000;

/// Two seconds of tones and low noise that swell and fade like speech, with faint noise in the pauses.
fn voice() -> Vec<f32> {
    let mut low = 0.0;
    (0..LENGTH)
        .zip(noise(1))
        .map(|(frame, noise)| {
            low += 0.1 * (noise - low);
            let swell = (frame as f32 / 9_000.0).sin().abs();
            (tones(frame, RATE_HZ) as f32 * 0.3 + low * 2.0) * swell * 0.5 + noise * 0.02
        })
        .collect()
}

fn after(silence: usize, samples: &[f32]) -> Vec<f32> {
    let mut recording = vec![0.0; silence];
    recording.extend_from_slice(samples);
    recording.extend(std::iter::repeat_n(0.0, 30_000));
    recording
}

fn lost(heard: &[f32]) -> Missing {
    let voice = voice();
    missing(&voice, heard, &align(&voice, heard), RATE_HZ)
}

#[test]
fn the_same_sound_is_found_at_any_level_and_delay() {
    let voice = voice();
    for delay in [0, 1, 12_345, 71_999] {
        let quiet: Vec<f32> = voice.iter().map(|sample| sample * 0.25).collect();
        let found = assert_whole("a quiet copy", &voice, &after(delay, &quiet), RATE_HZ, 0.9999);
        assert!((found.delay_frames - delay as f64).abs() < 0.01, "{found:?} at {delay}");
        assert!((found.gain - 0.25).abs() < 1e-3, "{found:?}");
    }
}

#[test]
fn a_delay_between_two_samples_is_measured() {
    let smooth = |shift: f64| -> Vec<f32> {
        (0..LENGTH)
            .map(|frame| {
                let at = frame as f64 - shift;
                let swell = (at / 9_000.0).sin().abs();
                let seconds = at / f64::from(RATE_HZ);
                // A sweep, so that no other delay fits as well.
                ((seconds * (300.0 + 400.0 * seconds) * std::f64::consts::TAU).sin() * swell * 0.5) as f32
            })
            .collect()
    };
    for fraction in [0.0, 0.25, 0.5, 0.8] {
        let found = align(&smooth(0.0), &after(5_000, &smooth(fraction)));
        assert!((found.delay_frames - 5_000.0 - fraction).abs() < 0.05, "{found:?} at {fraction}");
        assert!(found.correlation > 0.999, "{found:?}");
    }
}

#[test]
fn a_missing_head_is_noticed() {
    let heard = after(9_000, &voice()[20 * MS..]);
    let lost = lost(&heard);
    assert!(lost.head.abs_diff(20 * MS) <= 2 * MS && lost.tail == 0 && lost.gaps.is_empty(), "{lost:?}");
}

#[test]
fn a_head_cut_before_the_recording_began_is_noticed() {
    let lost = lost(&voice()[20 * MS..]);
    assert!(lost.head.abs_diff(20 * MS) <= 2 * MS && lost.tail == 0, "{lost:?}");
}

#[test]
fn a_missing_tail_is_noticed() {
    let voice = voice();
    let lost = lost(&after(9_000, &voice[..LENGTH - 20 * MS]));
    assert!(lost.tail.abs_diff(20 * MS) <= 2 * MS && lost.head == 0 && lost.gaps.is_empty(), "{lost:?}");
}

#[test]
fn a_gap_of_5_ms_is_noticed() {
    let mut heard = voice();
    heard[50_000..50_000 + 5 * MS].fill(0.0);
    let lost = lost(&after(777, &heard));
    assert_eq!((lost.head, lost.tail, lost.gaps.len()), (0, 0, 1), "{lost:?}");
    let (at, length) = lost.gaps[0];
    assert!(at.abs_diff(50_000) <= 2 * MS && length.abs_diff(5 * MS) <= 2 * MS, "{lost:?}");
}

#[test]
fn dropped_sound_is_noticed() {
    let voice = voice();
    let mut heard = voice.clone();
    heard.drain(60_000..60_000 + 3 * MS);
    let heard = after(5_000, &heard);
    let slip = largest_slip_frames(&voice, &heard, &align(&voice, &heard), RATE_HZ);
    assert!(slip.abs_diff(3 * MS) <= 1, "{slip}");
}

#[test]
fn a_clock_that_is_a_thousandth_off_is_fitted_and_gaps_still_noticed() {
    let mut low = 0.0;
    let smooth: Vec<f32> = voice()
        .iter()
        .map(|sample| {
            low += 0.2 * (sample - low);
            low
        })
        .collect();
    let slow: Vec<f32> = (0..LENGTH + 90)
        .map(|frame| {
            let at = frame as f32 / 1.001;
            let [from, to] = [0, 1].map(|next| smooth.get(at as usize + next).copied().unwrap_or(0.0));
            from + (to - from) * at.fract()
        })
        .collect();
    let found = assert_whole("a slow copy", &smooth, &after(4_000, &slow), RATE_HZ, 0.99);
    assert!((found.delay_frames - 4_000.0).abs() < 5.0, "{found:?}");
    let mut broken = slow.clone();
    broken[70_000..70_000 + 5 * MS].fill(0.0);
    let result = std::panic::catch_unwind(|| assert_whole("", &smooth, &after(4_000, &broken), RATE_HZ, 0.5));
    let message = *result.unwrap_err().downcast::<String>().unwrap();
    assert!(message.contains("gaps: [(6"), "{message}");
}

#[test]
fn a_step_of_half_a_millisecond_is_no_steering() {
    let voice = voice();
    let mut heard = voice.clone();
    heard.drain(50_000..50_000 + MS / 2);
    let result = std::panic::catch_unwind(|| assert_whole("", &voice, &after(4_000, &heard), RATE_HZ, 0.1));
    let message = *result.unwrap_err().downcast::<String>().unwrap();
    assert!(message.contains("in steps of 2"), "{message}");
}

#[test]
fn sound_that_is_only_alike_is_told_from_the_same() {
    let voice = voice();
    let mean_square = voice.iter().map(|sample| sample * sample).sum::<f32>() / LENGTH as f32;
    // Uniform noise has a third of its peak's square as its mean square; 0.9 needs 1/0.81 − 1 of the sound's mean square.
    let level = (mean_square * (1.0 / 0.81 - 1.0) * 3.0).sqrt();
    let heard: Vec<f32> = voice.iter().zip(noise(99)).map(|(sample, noise)| sample + noise * level).collect();
    let found = align(&voice, &after(321, &heard));
    assert!((found.correlation - 0.9).abs() < 0.01, "{found:?}");
}

#[test]
#[should_panic(expected = "wanted a correlation of 0.98")]
fn a_reversed_voice_is_not_the_voice() {
    let voice = voice();
    let reversed: Vec<f32> = voice.iter().rev().copied().collect();
    assert_whole("reversed", &voice, &after(0, &reversed), RATE_HZ, 0.98);
}

#[test]
#[should_panic(expected = "pure silence")]
fn silence_is_no_match() {
    align(&voice(), &vec![0.0; LENGTH]);
}
