//! Prepares a sound before it becomes a clip: trims its ends, brings its loudness to a common level, repeats it, and puts a chime
//! before it. Pure: sound in, sound out.

use std::time::Duration;

use crate::clip::MAX_LENGTH;
use crate::sample::{ResampleError, Sound, resample};

mod chime;
mod dc;
mod level;
mod trim;
mod trouble;

pub use chime::{Chime, ParseChimeError};
use level::Levelled;
pub use level::{
    DEFAULT_LEVEL_LUFS, MAX_GAIN_DB, MAX_LEVEL_LUFS, MAX_TRUE_PEAK_DB, MIN_LEVEL_LUFS, loudness_lufs,
};

pub use trouble::{TOO_SOFT_LUFS, Trouble};

/// The most times that a sound is repeated.
pub const MAX_REPEATS: u32 = 10;
/// The pause between the chime and the words.
pub const CHIME_GAP: Duration = Duration::from_millis(300);
/// The pause between the words and their repeat.
pub const REPEAT_GAP: Duration = Duration::from_millis(700);

/// What can go wrong with preparing a sound.
#[derive(Debug, thiserror::Error)]
pub enum PrepareError {
    /// With its chime and repeats it is longer than [`MAX_LENGTH`].
    #[error(
        "with its chime and repeats it would be {:.1} s long, and a clip has {} s at most: make it shorter, or repeat \
         it less",
        .0.as_secs_f64(), MAX_LENGTH.as_secs()
    )]
    TooLong(Duration),
    /// The sound or its chime cannot be resampled to the clip's rate.
    #[error(transparent)]
    Resample(#[from] ResampleError),
    /// Its loudness cannot be measured.
    #[error("the loudness cannot be measured")]
    Meter(#[from] ebur128::Error),
}

/// How to prepare a sound; the default changes nothing.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Preparation {
    /// Whether to trim the silence at both ends.
    pub trims: bool,
    /// The loudness to bring it to, without a constant voltage; [`MIN_LEVEL_LUFS`] to [`MAX_LEVEL_LUFS`] in LUFS (EBU R 128).
    pub level_lufs: Option<f64>,
    /// The chime before it.
    pub chime: Option<Chime>,
    /// How often it is repeated, [`MAX_REPEATS`] at most.
    pub repeats: u32,
}

/// A sound that is ready to be sent.
#[derive(Debug, Clone, PartialEq)]
pub struct Prepared {
    /// The whole sound.
    pub sound: Sound,
    /// How loud it is, in LUFS; `None` for silence.
    pub loudness_lufs: Option<f64>,
    /// How much louder the words were made, in dB; 0 if they were left alone.
    pub gain_db: f64,
}

impl Preparation {
    /// Returns how long a sound of a length becomes. Trimming may make it shorter.
    pub fn length(&self, words: Duration) -> Duration {
        let chime = self.chime.as_ref().map_or(Duration::ZERO, |chime| chime.length() + CHIME_GAP);
        chime + words * (self.repeats + 1) + REPEAT_GAP * self.repeats
    }

    /// Refuses a sound that would become too long.
    ///
    /// # Errors
    /// [`PrepareError::TooLong`].
    pub fn check(&self, words: Duration) -> Result<(), PrepareError> {
        let length = self.length(words);
        if length > MAX_LENGTH { Err(PrepareError::TooLong(length)) } else { Ok(()) }
    }

    /// Prepares a sound, and returns it at `rate_hz`. Silence stays silence.
    ///
    /// # Errors
    /// [`PrepareError`].
    pub fn apply(&self, sound: &Sound, rate_hz: u32) -> Result<Prepared, PrepareError> {
        let mut sound = resample(sound, rate_hz)?;
        if self.level_lufs.is_some() {
            dc::remove(&mut sound.to_mut().samples);
        }
        let trimmed = if self.trims { trim::trimmed(&sound.samples, rate_hz) } else { &sound.samples[..] };
        let mut words = Sound { rate_hz, samples: trimmed.to_vec() };
        self.check(words.length())?;
        let levelled = self.bring_to_level(&mut words)?;
        let mut whole = Sound { rate_hz, samples: Vec::new() };
        if let Some(chime) = &self.chime {
            let mut chime = chime.sound(rate_hz)?;
            self.bring_to_level(&mut chime)?;
            whole.samples = chime.samples;
            pause(&mut whole, CHIME_GAP);
        }
        for said in 0..=self.repeats {
            if said > 0 {
                pause(&mut whole, REPEAT_GAP);
            }
            whole.samples.extend_from_slice(&words.samples);
        }
        let loudness_lufs = match levelled {
            Some(words) if self.chime.is_none() && self.repeats == 0 => words.loudness_lufs,
            _ => loudness_lufs(&whole)?,
        };
        Ok(Prepared { sound: whole, loudness_lufs, gain_db: levelled.map_or(0.0, |words| words.gain_db) })
    }

    fn bring_to_level(&self, sound: &mut Sound) -> Result<Option<Levelled>, PrepareError> {
        Ok(self.level_lufs.map(|level_lufs| level::bring_to(sound, level_lufs)).transpose()?)
    }
}

fn pause(sound: &mut Sound, length: Duration) {
    let frames = (length.as_secs_f64() * f64::from(sound.rate_hz)).round() as usize;
    sound.samples.resize(sound.samples.len() + frames, 0.0);
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;

    const RATE_HZ: u32 = 16_000;

    fn tone(seconds: f64, amplitude: f32) -> Sound {
        let step = 440.0 * std::f64::consts::TAU / f64::from(RATE_HZ);
        let frames = (seconds * f64::from(RATE_HZ)) as usize;
        Sound {
            rate_hz: RATE_HZ,
            samples: (0..frames).map(|frame| amplitude * (step * frame as f64).sin() as f32).collect(),
        }
    }

    fn built_in(name: &str) -> Option<Chime> {
        Some(name.parse().unwrap())
    }

    #[test]
    fn nothing_asked_for_changes_nothing() {
        let sound = tone(0.5, 0.1);
        let prepared = Preparation::default().apply(&sound, RATE_HZ).unwrap();
        assert_eq!((&prepared.sound, prepared.gain_db), (&sound, 0.0));
        assert!(prepared.loudness_lufs.is_some_and(|lufs| (-30.0..-15.0).contains(&lufs)), "{prepared:?}");
    }

    #[test]
    fn it_is_as_long_as_was_said_and_every_part_is_there() {
        for (chime, repeats) in [(None, 0), (None, 3), (built_in("two-tone"), 0), (built_in("single"), 2)] {
            let preparation = Preparation { chime, repeats, ..Preparation::default() };
            let words = tone(0.5, 0.5);
            let whole = preparation.apply(&words, RATE_HZ).unwrap().sound;
            let said = preparation.length(words.length());
            assert!(
                whole.length().abs_diff(said) < Duration::from_millis(1),
                "{said:?}: {:?}",
                whole.length()
            );
            let part = words.samples.len() + (REPEAT_GAP.as_secs_f64() * f64::from(RATE_HZ)) as usize;
            let first = whole.samples.len() - words.samples.len() - part * repeats as usize;
            for said in 0..=repeats as usize {
                assert!(whole.samples[first + said * part..][..words.samples.len()] == words.samples);
            }
            assert_eq!(first > 0, preparation.chime.is_some());
        }
    }

    #[test]
    fn what_becomes_too_long_is_refused_with_its_length() {
        let preparation = Preparation { repeats: 10, ..Preparation::default() };
        preparation.check(Duration::from_secs(10)).unwrap();
        let error = preparation.check(Duration::from_secs(11)).unwrap_err();
        assert!(error.to_string().contains("128.0 s long, and a clip has 120 s at most"), "{error}");
        let long = Sound { rate_hz: 100, samples: vec![0.0; 1_100] };
        assert!(matches!(preparation.apply(&long, 100), Err(PrepareError::TooLong(_))));
    }

    #[test]
    fn chime_and_words_are_equally_loud_and_the_rate_is_the_clips() {
        let preparation =
            Preparation { level_lufs: Some(-20.0), chime: built_in("three-tone"), ..Preparation::default() };
        let prepared = preparation.apply(&tone(3.0, 0.02), 22_050).unwrap();
        assert_eq!(prepared.sound.rate_hz, 22_050);
        assert!(prepared.gain_db > 10.0, "{}", prepared.gain_db);
        let chime_frames = (preparation.length(Duration::ZERO).as_secs_f64() * 22_050.0) as usize;
        for part in [&prepared.sound.samples[..chime_frames], &prepared.sound.samples[chime_frames..]] {
            let part = Sound { rate_hz: 22_050, samples: part.to_vec() };
            let lufs = loudness_lufs(&part).unwrap().unwrap();
            assert!((lufs + 20.0).abs() < 0.5, "{lufs}");
        }
    }

    #[test]
    fn a_constant_voltage_is_taken_away_unless_the_sound_is_to_stay_as_it_is() {
        let lifted = |offset: f32| {
            let tone = tone(1.0, 0.1);
            Sound { samples: tone.samples.iter().map(|sample| sample + offset).collect(), ..tone }
        };
        let levelled = Preparation { level_lufs: Some(-16.0), ..Preparation::default() };
        let plain = levelled.apply(&lifted(0.0), RATE_HZ).unwrap();
        let prepared = levelled.apply(&lifted(0.25), RATE_HZ).unwrap();
        let pairs = prepared.sound.samples.iter().zip(&plain.sound.samples);
        let worst = pairs.map(|(left, right)| (left - right).abs()).fold(0.0, f32::max);
        assert!(worst < 0.01, "{worst}");
        let voltage = Sound { rate_hz: RATE_HZ, samples: vec![0.3; 16_000] };
        let silence = levelled.apply(&voltage, RATE_HZ).unwrap();
        assert!(crate::clip::peak_db(&silence.sound.samples) <= crate::clip::SILENCE_DB);
        assert_eq!((silence.gain_db, silence.loudness_lufs), (0.0, None));
        assert_eq!(Preparation::default().apply(&lifted(0.25), RATE_HZ).unwrap().sound, lifted(0.25));
    }

    #[test]
    fn silence_stays_silence() {
        let preparation = Preparation { trims: true, level_lufs: Some(-16.0), ..Preparation::default() };
        let silence = Sound { rate_hz: RATE_HZ, samples: vec![0.0; 16_000] };
        let prepared = preparation.apply(&silence, RATE_HZ).unwrap();
        assert_eq!((prepared.sound, prepared.loudness_lufs, prepared.gain_db), (silence, None, 0.0));
    }
}
