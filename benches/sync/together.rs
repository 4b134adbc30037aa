//! One announcement as two loudspeakers played it.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::support::correlate::{align, skews_frames};
use crate::support::pulse::{RATE_HZ, Recording};
use crate::support::wav::speech;

/// How long an announcement is here, which is the default.
pub const CLIP_SECONDS: usize = 5;
/// A part of an announcement that is judged by itself.
const WINDOW: usize = RATE_HZ as usize / 2;

/// How well two loudspeakers kept together.
#[derive(Debug)]
pub struct Play {
    /// The skew in the half second in which they were farthest apart.
    pub worst_skew_ms: f64,
    /// The difference between the recorded skew of the first half second and the skew according to the receipts; 0
    /// without receipts.
    pub disagreement_ms: f64,
    /// How large that difference may be according to the receipts.
    pub doubt_ms: f64,
}

impl Play {
    /// Compares channels 1 and 2 of a recording.
    pub fn of(sound: &[f32], recording: &Recording, receipts: Option<&[Value; 2]>) -> Self {
        let [left, right] = [1, 2].map(|channel| recording.channel(channel, 0));
        let start = align(sound, &left).delay_frames.round().max(0.0) as usize;
        let skews = skews_frames(&left, &right, start, sound.len(), WINDOW);
        let ms = |frames: f64| frames * 1e3 / f64::from(RATE_HZ);
        let worst_skew_ms = skews.iter().map(|skew| ms(skew.abs())).fold(0.0, f64::max);
        let disagreement_ms = receipts.map_or(0.0, |receipts| {
            let [first, second] =
                [0, 1].map(|index| receipts[index]["start_error_us"].as_f64().unwrap() / 1e3);
            (second - first - ms(skews[0])).abs()
        });
        let doubt_ms = receipts.map_or(0.0, |receipts| {
            receipts.iter().map(|receipt| receipt["uncertainty_us"].as_f64().unwrap() / 1e3).sum()
        });
        let all: Vec<String> = skews.iter().map(|skew| format!("{:+.3}", ms(*skew))).collect();
        let errors = receipts.map(|receipts| {
            ["start_error_us", "max_error_us", "uncertainty_us"]
                .map(|field| [0, 1].map(|index| receipts[index][field].as_i64().unwrap()))
        });
        println!("  skew by half seconds, ms: {}   receipts, µs: {errors:?}", all.join(" "));
        Self { worst_skew_ms, disagreement_ms, doubt_ms }
    }
}

/// The time from the end of a sound in channel 0 until its start in the later of channels 1 and 2.
pub fn delay_ms(sound: &[f32], recording: &Recording) -> f64 {
    let [said, first, second] =
        [0, 1, 2].map(|channel| align(sound, &recording.channel(channel, 0)).delay_frames);
    (first.max(second) - said - sound.len() as f64) * 1e3 / f64::from(RATE_HZ)
}

/// Speech for one announcement, at the sound server's rate.
pub fn one_clip(folder: &Path) -> PathBuf {
    speech(folder, CLIP_SECONDS, RATE_HZ)
}
