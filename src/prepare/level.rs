//! Loudness and peaks according to EBU R 128 (ITU-R BS.1770): one level for all announcements.

use std::collections::VecDeque;
use std::f64::consts::PI;

use ebur128::{EbuR128, Error, Mode};

use crate::sample::Sound;

/// The default level, in LUFS: loud enough for a hallway, with room for speech's peaks.
pub const DEFAULT_LEVEL_LUFS: f64 = -16.0;
/// The quietest level that can be asked for.
pub const MIN_LEVEL_LUFS: f64 = -40.0;
/// The loudest level that can be asked for.
pub const MAX_LEVEL_LUFS: f64 = -10.0;
/// The most that a sound is made louder, in dB: a quiet room should not become a roaring one.
pub const MAX_GAIN_DB: f64 = 20.0;
/// The highest peak, also between samples, in dB relative to full scale.
pub const MAX_TRUE_PEAK_DB: f32 = -1.0;

/// Anything quieter than this, in LUFS, is silence: BS.1770's absolute gate.
const SILENCE_LUFS: f64 = -70.0;
/// The shortest sound that has a loudness: one block of the meter.
const METER_BLOCK_S: f64 = 0.4;
/// A sound this near to its level, in LU, is left alone, to the bit.
const NEAR_LU: f64 = 0.1;
/// Limiting lowers the loudness: how often that is made up for by measuring, …
const MAX_ROUNDS: usize = 3;
/// … and how often in each of these rounds by an estimate.
const MAX_ESTIMATES: usize = 20;
/// An estimate this near is good enough, in dB.
const NEAR_DB: f64 = 0.02;
/// How long before and after a peak the limiter turns the sound down.
const LIMITER_S: f64 = 0.01;
/// How many points per sample are searched for peaks, and the length of the filter that finds them, as in `ebur128`.
const OVERSAMPLING: usize = 4;
const TAPS: usize = 49;
/// The number of coefficients for one point between two samples.
const PHASE_TAPS: usize = TAPS / OVERSAMPLING;
/// The number of samples in a block: each block has a gain, and the gain changes evenly from one block to the next.
const BLOCK: usize = 16;

/// Returns the integrated loudness in LUFS; `None` for silence. A sound shorter than one block of the meter is measured as if it
/// were repeated.
///
/// # Errors
/// A rate that the meter does not support.
pub fn loudness_lufs(sound: &Sound) -> Result<Option<f64>, Error> {
    if sound.samples.is_empty() {
        return Ok(None);
    }
    let mut meter = EbuR128::new(1, sound.rate_hz, Mode::I)?;
    let block = (METER_BLOCK_S * f64::from(sound.rate_hz)).ceil() as usize;
    for _ in 0..block.div_ceil(sound.samples.len()) {
        meter.add_frames_f32(&sound.samples)?;
    }
    Ok(Some(meter.loudness_global()?).filter(|lufs| *lufs > SILENCE_LUFS))
}

/// What [`bring_to`] did.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Levelled {
    /// How much louder the sound was made, in dB.
    pub gain_db: f64,
    /// How loud it is now, in LUFS; `None` for silence.
    pub loudness_lufs: Option<f64>,
}

/// Brings a sound to a level, or as near as its peaks allow. Silence is left alone, and so is a sound that is at the level
/// already and keeps [`MAX_TRUE_PEAK_DB`].
///
/// # Errors
/// A rate that the meter does not support.
pub fn bring_to(sound: &mut Sound, level_lufs: f64) -> Result<Levelled, Error> {
    // A sample that is not a number would spread through every filter.
    let is_number = |sample: &f32| sample.is_finite();
    if !sound.samples.iter().all(is_number) {
        sound.samples.iter_mut().for_each(|sample| *sample = if is_number(sample) { *sample } else { 0.0 });
    }
    let Some(was_lufs) = loudness_lufs(sound)? else {
        return Ok(Levelled { gain_db: 0.0, loudness_lufs: None });
    };
    let ceiling = 10_f32.powf(MAX_TRUE_PEAK_DB / 20.0);
    let blocks = Blocks::of(sound, ceiling);
    if (level_lufs - was_lufs).abs() < NEAR_LU && highest(&blocks.peaks) <= ceiling {
        return Ok(Levelled { gain_db: 0.0, loudness_lufs: Some(was_lufs) });
    }
    let goal_lufs = level_lufs.min(was_lufs + MAX_GAIN_DB);
    let mut rise_db = goal_lufs - was_lufs;
    let mut round = 1;
    loop {
        let (gain_db, gains) = blocks.gains_for(rise_db);
        let mut louder = Sound { rate_hz: sound.rate_hz, samples: sound.samples.clone() };
        turn_by(&mut louder.samples, &gains);
        let now_lufs = loudness_lufs(&louder)?;
        let missing_db = now_lufs.map_or(0.0, |now_lufs| goal_lufs - now_lufs);
        if missing_db < NEAR_LU || gain_db >= MAX_GAIN_DB || round == MAX_ROUNDS {
            // Turning down bends the sound a little, so a point between samples might rise above the ceiling again.
            let excess = highest(&peaks(&louder.samples)) / ceiling;
            if excess > 1.0 {
                louder.samples.iter_mut().for_each(|sample| *sample /= excess);
            }
            *sound = louder;
            return Ok(Levelled {
                gain_db,
                loudness_lufs: now_lufs.map(|lufs| lufs - f64::from(20.0 * excess.max(1.0).log10())),
            });
        }
        rise_db += missing_db;
        round += 1;
    }
}

/// A sound in blocks of [`BLOCK`] samples: everything needed to find its gain.
struct Blocks {
    peaks: Vec<f32>,
    energies: Vec<f64>,
    ceiling: f32,
    /// The number of blocks before and after a peak in which the sound is turned down.
    reach: usize,
}

impl Blocks {
    fn of(sound: &Sound, ceiling: f32) -> Self {
        let energy = |block: &[f32]| block.iter().map(|sample| f64::from(sample * sample)).sum();
        let reach_frames = (LIMITER_S * f64::from(sound.rate_hz)) as usize;
        Self {
            peaks: peaks(&sound.samples),
            energies: sound.samples.chunks(BLOCK).map(energy).collect(),
            ceiling,
            reach: reach_frames.div_ceil(BLOCK).max(1),
        }
    }

    /// Returns the gain in dB, [`MAX_GAIN_DB`] at most, and the gains of the blocks, that make the sound louder by `rise_db` with
    /// its peaks turned down. The limiter's gain is the same for all frequencies, so the meter's filter matters little for the
    /// loudness that it costs.
    fn gains_for(&self, rise_db: f64) -> (f64, Vec<f32>) {
        let before: f64 = self.energies.iter().sum();
        let mut gain_db = rise_db.min(MAX_GAIN_DB);
        let mut estimates = 1;
        loop {
            let gains = self.limited(10_f64.powf(gain_db / 20.0) as f32);
            let after: f64 =
                self.energies.iter().zip(&gains).map(|(energy, gain)| energy * f64::from(gain * gain)).sum();
            let missing_db = rise_db - 10.0 * (after / before).log10();
            // `missing_db` is not a number for a sound whose energy is too small for a float.
            let is_near = missing_db.is_nan() || missing_db < NEAR_DB;
            if is_near || gain_db >= MAX_GAIN_DB || estimates == MAX_ESTIMATES {
                return (gain_db, gains);
            }
            gain_db = (gain_db + missing_db).min(MAX_GAIN_DB);
            estimates += 1;
        }
    }

    /// Returns the gain for the middle of each block that keeps the whole block under the ceiling: `gain`, turned down around
    /// each peak by as little as necessary, starting before the peak.
    fn limited(&self, gain: f32) -> Vec<f32> {
        let needed: Vec<f32> =
            self.peaks.iter().map(|peak| (self.ceiling / (peak * gain)).min(1.0)).collect();
        // Between the middles of two blocks the gain is between theirs, and must be low enough for both.
        let least = least_around(&needed, self.reach + 1);
        // The mean of gains that are low enough for their neighbours is low enough for each of them.
        let ones = || std::iter::repeat_n(1.0, self.reach);
        let padded: Vec<f32> = ones().chain(least).chain(ones()).collect();
        let width = 2 * self.reach + 1;
        let mut sum: f64 = padded.iter().take(width - 1).map(|least| f64::from(*least)).sum();
        let mean = |(entering, leaving): (&f32, &f32)| {
            sum += f64::from(*entering);
            let mean = sum / width as f64;
            sum -= f64::from(*leaving);
            gain * mean.min(1.0) as f32
        };
        padded.iter().skip(width - 1).zip(&padded).map(mean).collect()
    }
}

/// Multiplies samples by the gains for the middles of their blocks, interpolated in between.
fn turn_by(samples: &mut [f32], gains: &[f32]) {
    for (index, block) in samples.chunks_mut(BLOCK).enumerate() {
        let at = |index: usize| gains.get(index).or(gains.last()).copied().unwrap_or(1.0);
        let (before, middle, after) = (at(index.saturating_sub(1)), at(index), at(index + 1));
        let half = BLOCK as f32 / 2.0;
        for (place, sample) in block.iter_mut().enumerate() {
            let from_middle = (place as f32 + 0.5 - half) / BLOCK as f32;
            let towards = if from_middle < 0.0 { before } else { after };
            *sample *= middle + (towards - middle) * from_middle.abs();
        }
    }
}

/// Returns, for each block, the highest of its samples and of the points between each of them and the next.
fn peaks(samples: &[f32]) -> Vec<f32> {
    let phases = filter();
    // The points between a sample and the next depend on this many samples before and after.
    let (before, after) = (PHASE_TAPS / 2 - 1, PHASE_TAPS / 2);
    let mut padded = vec![0.0; before];
    padded.extend_from_slice(samples);
    padded.resize(before + samples.len().next_multiple_of(BLOCK) + after, 0.0);
    let starts = (0..samples.len()).step_by(BLOCK);
    let peak = |from: usize| {
        let seen = &padded[from..from + before + BLOCK + after];
        let mut peak = highest(&seen[before..before + BLOCK]);
        for phase in &phases {
            let mut between = [0.0_f32; BLOCK];
            for (tap, seen) in phase.iter().zip(seen.windows(BLOCK)) {
                between.iter_mut().zip(seen).for_each(|(between, sample)| *between += tap * sample);
            }
            peak = peak.max(highest(&between));
        }
        peak
    };
    starts.map(peak).collect()
}

fn highest(samples: &[f32]) -> f32 {
    samples.iter().fold(0.0, |highest, sample| highest.max(sample.abs()))
}

/// A sinc under a Hann window, cut into one filter for each point between two samples.
fn filter() -> [[f32; PHASE_TAPS]; OVERSAMPLING - 1] {
    let tap = |index: usize| {
        let at = (index as f64 - (TAPS - 1) as f64 / 2.0) * PI / OVERSAMPLING as f64;
        let sinc = if at.abs() < 1e-6 { 1.0 } else { at.sin() / at };
        (sinc * 0.5 * (1.0 - (2.0 * PI * index as f64 / (TAPS - 1) as f64).cos())) as f32
    };
    std::array::from_fn(|phase| std::array::from_fn(|index| tap(OVERSAMPLING * index + phase + 1)))
}

/// Returns the least of each value and the `reach` values before and after it.
fn least_around(values: &[f32], reach: usize) -> Vec<f32> {
    let mut rising: VecDeque<usize> = VecDeque::new();
    let mut least = Vec::with_capacity(values.len());
    for index in 0..values.len() + reach {
        if let Some(value) = values.get(index) {
            while rising.back().is_some_and(|back| values[*back] >= *value) {
                rising.pop_back();
            }
            rising.push_back(index);
        }
        if let Some(centre) = index.checked_sub(reach) {
            while rising.front().is_some_and(|front| front + reach < centre) {
                rising.pop_front();
            }
            least.push(rising.front().map_or(1.0, |front| values[*front]));
        }
    }
    least
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SPEECH: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/assets/speech.wav");

    fn speech(gain: f32) -> Sound {
        let mut sound = crate::sound_file::read(SPEECH.as_ref()).unwrap();
        sound.samples.iter_mut().for_each(|sample| *sample *= gain);
        sound
    }

    fn lufs(sound: &Sound) -> f64 {
        loudness_lufs(sound).unwrap().unwrap()
    }

    /// As the meter measures it, which finds peaks in its own way.
    fn true_peak_db(sound: &Sound) -> f64 {
        let mut meter = EbuR128::new(1, sound.rate_hz, Mode::TRUE_PEAK).unwrap();
        meter.add_frames_f32(&sound.samples).unwrap();
        20.0 * meter.true_peak(0).unwrap().log10()
    }

    #[test]
    fn speech_comes_to_its_level_under_its_ceiling() {
        for gain in [0.02, 0.1, 0.3, 1.0] {
            for level_lufs in [-30.0, -23.0, -16.0, -14.0] {
                let mut sound = speech(gain);
                let was_lufs = lufs(&sound);
                let Levelled { gain_db, loudness_lufs } = bring_to(&mut sound, level_lufs).unwrap();
                let goal_lufs = level_lufs.min(was_lufs + MAX_GAIN_DB);
                let (now_lufs, peak_db) = (lufs(&sound), true_peak_db(&sound));
                // Above the default level, speech would have to be squashed under the ceiling to get there.
                let tolerance_lu = if level_lufs > DEFAULT_LEVEL_LUFS { 1.0 } else { 0.2 };
                assert!(
                    (now_lufs - goal_lufs).abs() < tolerance_lu,
                    "{gain} to {level_lufs}: {now_lufs} LUFS"
                );
                assert!(
                    peak_db <= f64::from(MAX_TRUE_PEAK_DB) + 0.01,
                    "{gain} to {level_lufs}: {peak_db} dBTP"
                );
                assert!(gain_db <= MAX_GAIN_DB, "{gain_db}");
                assert!((loudness_lufs.unwrap() - now_lufs).abs() < 1e-6, "{loudness_lufs:?}: {now_lufs}");
            }
        }
    }

    /// A sine of 997 Hz at full scale is −3.01 LUFS on one channel (EBU Tech 3341).
    #[test]
    fn the_meter_reads_what_the_standard_says() {
        let step = 997.0 * std::f64::consts::TAU / 48_000.0;
        let samples = (0..48_000).map(|frame| (step * f64::from(frame)).sin() as f32).collect();
        let full_scale = Sound { rate_hz: 48_000, samples };
        assert!((lufs(&full_scale) + 3.01).abs() < 0.1, "{}", lufs(&full_scale));
    }

    #[test]
    fn what_is_at_its_level_is_left_alone_to_the_bit() {
        let mut sound = speech(0.3);
        bring_to(&mut sound, -23.0).unwrap();
        let once = sound.clone();
        assert_eq!(bring_to(&mut sound, -23.0).unwrap().gain_db, 0.0);
        assert_eq!(sound, once);
    }

    #[test]
    fn silence_is_not_made_loud_and_a_quiet_room_not_by_much() {
        for amplitude in [0.0, 1e-5, 1e-3] {
            let mut room = Sound {
                rate_hz: 16_000,
                samples: (0..16_000)
                    .map(|frame| if frame % 31 < 15 { amplitude } else { -amplitude })
                    .collect(),
            };
            let before = room.clone();
            let gain_db = bring_to(&mut room, -16.0).unwrap().gain_db;
            if amplitude < 1e-3 {
                assert_eq!((room, gain_db), (before, 0.0));
            } else {
                assert!((gain_db - MAX_GAIN_DB).abs() < 0.01, "{gain_db}");
            }
        }
    }

    #[test]
    fn a_beep_too_short_for_the_meter_has_a_level_too() {
        let step = 1_000.0 * std::f64::consts::TAU / 16_000.0;
        let samples = (0..1_600).map(|frame| (step * f64::from(frame)).sin() as f32 * 0.01).collect();
        let mut beep = Sound { rate_hz: 16_000, samples };
        let gain_db = bring_to(&mut beep, -26.0).unwrap().gain_db;
        assert!((gain_db - 17.0).abs() < 0.5, "{gain_db}");
    }

    #[test]
    fn samples_that_are_no_numbers_do_no_harm() {
        let mut sound = speech(0.3);
        sound.samples[100] = f32::NAN;
        sound.samples[200] = f32::INFINITY;
        bring_to(&mut sound, -16.0).unwrap();
        assert!(sound.samples.iter().all(|sample| sample.is_finite()));
        assert!((lufs(&sound) + 16.0).abs() < 0.5);
    }

    proptest! {
        #[test]
        fn least_around_is_the_least_around(
            values in proptest::collection::vec(0.0..1.0_f32, 0..60),
            reach in 1..9_usize,
        ) {
            let least = least_around(&values, reach);
            prop_assert_eq!(least.len(), values.len());
            for (index, least) in least.iter().enumerate() {
                let around = &values[index.saturating_sub(reach)..(index + reach + 1).min(values.len())];
                prop_assert_eq!(*least, around.iter().copied().fold(f32::INFINITY, f32::min));
            }
        }

        #[test]
        fn nothing_rises_above_the_ceiling(
            samples in proptest::collection::vec(-1.0..1.0_f32, 1..3_000),
            rate_hz in prop_oneof![Just(8_000_u32), Just(44_100), Just(48_000)],
        ) {
            let mut sound = Sound { rate_hz, samples };
            bring_to(&mut sound, -10.0).unwrap();
            prop_assert!(true_peak_db(&sound) <= f64::from(MAX_TRUE_PEAK_DB) + 0.01);
        }
    }
}
