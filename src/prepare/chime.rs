//! What sounds before the words: notes made here, or a sound of the user's own.

use std::f64::consts::TAU;
use std::path::Path;
use std::str::FromStr;
use std::time::Duration;

use crate::sample::{ResampleError, Sound, resample};
use crate::sound_file::{self, SoundFileError};

/// The text is not a chime.
#[derive(Debug, thiserror::Error)]
#[error("give single, two-tone, three-tone or the path of a sound file")]
pub struct ParseChimeError(#[from] SoundFileError);

/// A chime.
#[derive(Debug, Clone, PartialEq)]
pub enum Chime {
    /// Struck notes, one after the other.
    Notes(&'static [f64]),
    /// A sound of the user's own.
    Sound(Sound),
}

/// G5, E5 and C5 of the equal temperament with A4 at 440 Hz, in Hz.
const G5_HZ: f64 = 783.991;
const E5_HZ: f64 = 659.255;
const C5_HZ: f64 = 523.251;

/// The named chimes.
const NAMED: [(&str, &[f64]); 3] =
    [("single", &[G5_HZ]), ("two-tone", &[E5_HZ, C5_HZ]), ("three-tone", &[G5_HZ, E5_HZ, C5_HZ])];

/// The time from one note to the next.
const STEP: Duration = Duration::from_millis(500);
/// How long the last note rings.
const RING: Duration = Duration::from_millis(1_300);
/// The time in which a note decays to 1/e.
const DECAY_S: f64 = 0.28;
/// The time in which a note rises, so that it does not click; the chime fades out in the same time.
const ATTACK_S: f64 = 0.008;
/// Partials of a struck bar, as multiples of its pitch with their loudness; higher ones decay sooner.
const PARTIALS: [(f64, f64); 3] = [(1.0, 1.0), (2.0, 0.35), (4.0, 0.12)];
/// The highest peak of all notes together.
const PEAK: f64 = 0.5;

impl FromStr for Chime {
    type Err = ParseChimeError;

    /// Accepts a name, or the path of a sound file, which is read at once.
    fn from_str(text: &str) -> Result<Self, ParseChimeError> {
        match NAMED.iter().find(|(name, _)| *name == text) {
            Some((_, notes_hz)) => Ok(Self::Notes(notes_hz)),
            None => Ok(Self::Sound(sound_file::read(Path::new(text))?)),
        }
    }
}

impl Chime {
    /// How long it sounds.
    pub fn length(&self) -> Duration {
        match self {
            Self::Notes(notes_hz) => STEP * notes_hz.len().saturating_sub(1) as u32 + RING,
            Self::Sound(sound) => sound.length(),
        }
    }

    /// Returns its samples at a rate.
    ///
    /// # Errors
    /// [`ResampleError`], for a sound at an impossible rate.
    pub fn sound(&self, rate_hz: u32) -> Result<Sound, ResampleError> {
        match self {
            Self::Sound(sound) => Ok(resample(sound, rate_hz)?.into_owned()),
            Self::Notes(notes_hz) => Ok(strike(notes_hz, self.length(), rate_hz)),
        }
    }
}

/// Generates notes one after the other, each ringing into the next.
fn strike(notes_hz: &[f64], length: Duration, rate_hz: u32) -> Sound {
    let rate = f64::from(rate_hz);
    let frames = (length.as_secs_f64() * rate).round() as usize;
    let mut mixed = vec![0.0; frames];
    for (index, note_hz) in notes_hz.iter().enumerate() {
        let first = (STEP.as_secs_f64() * index as f64 * rate).round() as usize;
        for (frame, sample) in mixed.iter_mut().enumerate().skip(first) {
            let at_s = (frame - first) as f64 / rate;
            let rise = (at_s / ATTACK_S).min(1.0);
            for (multiple, loudness) in PARTIALS {
                // A partial above half the rate would come out as another note.
                if note_hz * multiple < rate / 2.0 {
                    let ring = (-at_s * multiple.sqrt() / DECAY_S).exp();
                    *sample += rise * loudness * ring * (TAU * note_hz * multiple * at_s).sin();
                }
            }
        }
    }
    let fall = (ATTACK_S * rate).round() as usize;
    for (left, sample) in mixed.iter_mut().rev().enumerate().take(fall) {
        *sample *= left as f64 / fall as f64;
    }
    let peak = mixed.iter().fold(0.0_f64, |peak, sample| peak.max(sample.abs())).max(f64::MIN_POSITIVE);
    Sound { rate_hz, samples: mixed.into_iter().map(|sample| (sample * PEAK / peak) as f32).collect() }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;

    /// Returns the share of a stretch's power at a pitch.
    fn share(samples: &[f32], rate_hz: u32, pitch_hz: f64) -> f64 {
        let (mut real, mut imaginary, mut power) = (0.0, 0.0, 0.0);
        for (frame, &sample) in samples.iter().enumerate() {
            let turn = TAU * pitch_hz * frame as f64 / f64::from(rate_hz);
            real += f64::from(sample) * turn.cos();
            imaginary += f64::from(sample) * turn.sin();
            power += f64::from(sample).powi(2);
        }
        (real * real + imaginary * imaginary) * 2.0 / (samples.len() as f64 * power)
    }

    #[test]
    fn the_notes_sound_one_after_the_other() {
        for (name, notes_hz) in NAMED {
            let chime: Chime = name.parse().unwrap();
            for rate_hz in [8_000, 22_050, 48_000] {
                let sound = chime.sound(rate_hz).unwrap();
                assert!(sound.length().abs_diff(chime.length()) < Duration::from_millis(1), "{name}");
                let peak = sound.samples.iter().fold(0.0_f32, |peak, sample| peak.max(sample.abs()));
                assert!((f64::from(peak) - PEAK).abs() < 1e-6, "{name}: {peak}");
                assert!(
                    sound.samples[0].abs() < 1e-6 && sound.samples.last().unwrap().abs() < 1e-3,
                    "{name}"
                );
                let step = (STEP.as_secs_f64() * f64::from(rate_hz)) as usize;
                for (index, note_hz) in notes_hz.iter().enumerate() {
                    let stretch = &sound.samples[index * step..][..step];
                    let shares = notes_hz.iter().map(|hz| share(stretch, rate_hz, *hz));
                    let loudest = shares.clone().fold(0.0, f64::max);
                    assert!(shares.clone().nth(index) == Some(loudest) && loudest > 0.4, "{name} {note_hz}");
                }
            }
        }
    }

    #[test]
    fn what_is_no_name_is_a_file() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/sounds/tones.flac");
        let chime: Chime = path.parse().unwrap();
        assert_eq!(chime.length(), Duration::from_secs(1));
        assert_eq!(chime.sound(8_000).unwrap().samples.len(), 8_000);
        let error = "four-tone".parse::<Chime>().unwrap_err();
        let said = crate::error_chain(&error);
        assert!(
            said.starts_with("give single, two-tone, three-tone or") && said.contains("four-tone"),
            "{said}"
        );
    }
}
