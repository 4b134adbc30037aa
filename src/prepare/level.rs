//! Loudness and peaks after EBU R 128 (ITU-R BS.1770): one level for all that is announced.

use std::collections::VecDeque;
use std::f64::consts::PI;

use ebur128::{EbuR128, Error, Mode};

use crate::sample::Sound;

/// The level unless another is asked for, in LUFS: loud enough for a hallway, with room for speech's peaks.
pub const DEFAULT_LEVEL_LUFS: f64 = -16.0;
/// The quietest level that can be asked for.
pub const MIN_LEVEL_LUFS: f64 = -40.0;
/// The loudest.
pub const MAX_LEVEL_LUFS: f64 = -10.0;
/// No sound is made louder by more than this, in dB: a quiet room is not to become a roaring one.
pub const MAX_GAIN_DB: f64 = 20.0;
/// The highest that the sound rises between samples too, in dB below full scale.
pub const MAX_TRUE_PEAK_DB: f64 = -1.0;

/// Quieter than this in LUFS is silence: BS.1770's absolute gate.
const SILENCE_LUFS: f64 = -70.0;
/// The shortest sound that has a loudness: one block of the meter.
const METER_BLOCK_S: f64 = 0.4;
/// A sound this near to its level is left alone, to the bit, in LU.
const NEAR_LU: f64 = 0.1;
/// Limiting takes loudness away: how often that is made up for.
const MAX_ROUNDS: usize = 3;
/// How long before and after a peak the limiter turns down.
const LIMITER_S: f64 = 0.01;
/// Points between samples at which peaks are looked for, and the filter that finds them, as in `ebur128`.
const OVERSAMPLING: usize = 4;
const TAPS: usize = 49;
/// Samples on either side that the filter sees.
const REACH: usize = (TAPS - 1) / 2 / OVERSAMPLING;
/// No point between samples rises further above them than the filter's coefficients together.
const MOST_OVERSHOOT: f64 = 2.5;
/// Samples that are passed over together where none comes near the limit.
const STRETCH: usize = 16;

/// The integrated loudness in LUFS; `None` for silence. Of a sound shorter than one block of the meter it is that
/// of the sound said over and over.
///
/// # Errors
/// A rate that the meter does not know.
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

/// The highest point between samples, full scale being 1.
fn true_peak(sound: &Sound) -> Result<f64, Error> {
    let mut meter = EbuR128::new(1, sound.rate_hz, Mode::TRUE_PEAK)?;
    meter.add_frames_f32(&sound.samples)?;
    meter.true_peak(0)
}

/// Brings a sound to a level, or as near as its peaks allow, and gives how much louder it was made, in dB. Silence is left alone, and so is what is
/// there already and keeps [`MAX_TRUE_PEAK_DB`].
///
/// # Errors
/// A rate that the meter does not know.
pub fn bring_to(sound: &mut Sound, level_lufs: f64) -> Result<f64, Error> {
    // A sample that is no number would spread through every filter.
    let is_number = |sample: &f32| sample.is_finite();
    if !sound.samples.iter().all(is_number) {
        sound.samples.iter_mut().for_each(|sample| *sample = if is_number(sample) { *sample } else { 0.0 });
    }
    let Some(was_lufs) = loudness_lufs(sound)? else { return Ok(0.0) };
    let ceiling = 10_f64.powf(MAX_TRUE_PEAK_DB / 20.0);
    if (level_lufs - was_lufs).abs() < NEAR_LU && true_peak(sound)? <= ceiling {
        return Ok(0.0);
    }
    let goal_lufs = level_lufs.min(was_lufs + MAX_GAIN_DB);
    let mut gain_db = goal_lufs - was_lufs;
    let mut rounds = 0;
    loop {
        rounds += 1;
        let mut louder = amplified(sound, gain_db, ceiling);
        let missing_db = loudness_lufs(&louder)?.map_or(0.0, |now_lufs| goal_lufs - now_lufs);
        if missing_db < NEAR_LU || gain_db >= MAX_GAIN_DB || rounds == MAX_ROUNDS {
            // Turning down bends the sound a little, so that a point between samples may rise above the ceiling again.
            let excess = true_peak(&louder)? / ceiling;
            if excess > 1.0 {
                louder.samples.iter_mut().for_each(|sample| *sample = (f64::from(*sample) / excess) as f32);
            }
            *sound = louder;
            return Ok(gain_db);
        }
        gain_db = (gain_db + missing_db).min(MAX_GAIN_DB);
    }
}

/// The sound made louder, and limited.
fn amplified(sound: &Sound, gain_db: f64, ceiling: f64) -> Sound {
    let gain = 10_f64.powf(gain_db / 20.0) as f32;
    let samples = sound.samples.iter().map(|sample| sample * gain).collect();
    let mut louder = Sound { rate_hz: sound.rate_hz, samples };
    limit(&mut louder, ceiling);
    louder
}

/// Turns down around each peak: as little as is needed, by a gain without corners that knows the peak before it comes.
fn limit(sound: &mut Sound, ceiling: f64) {
    let needed = needed_gains(&sound.samples, ceiling);
    if needed.iter().all(|gain| *gain >= 1.0) {
        return;
    }
    let reach = ((LIMITER_S * f64::from(sound.rate_hz)) as usize).max(1);
    let least = least_around(&needed, reach);
    // The mean of what is low enough for its neighbours is low enough for each of them.
    let width = (2 * reach + 1) as f64;
    let at = |index: isize| {
        usize::try_from(index).ok().and_then(|index| least.get(index)).map_or(1.0, |gain| *gain)
    };
    let reach = reach as isize;
    let mut sum: f64 = (-reach..=reach).map(at).sum();
    for (index, sample) in sound.samples.iter_mut().enumerate() {
        *sample = (f64::from(*sample) * (sum / width).min(1.0)) as f32;
        let index = index as isize;
        sum += at(index + reach + 1) - at(index - reach);
    }
}

/// For each sample the gain at which neither it nor what lies between it and its neighbours is above the ceiling.
fn needed_gains(samples: &[f32], ceiling: f64) -> Vec<f64> {
    let filter = filter();
    let at = |index: isize| {
        usize::try_from(index).ok().and_then(|index| samples.get(index)).map_or(0.0, |s| f64::from(*s))
    };
    let mut needed = vec![1.0_f64; samples.len()];
    for from in (0..samples.len()).step_by(STRETCH) {
        let until = (from + STRETCH).min(samples.len());
        let around = from.saturating_sub(2 * REACH)..(until + 2 * REACH).min(samples.len());
        let highest = samples[around].iter().fold(0.0_f32, |highest, sample| highest.max(sample.abs()));
        if f64::from(highest) * MOST_OVERSHOOT <= ceiling {
            continue;
        }
        for index in from..until {
            let mut peak = at(index as isize).abs();
            for phase in &filter {
                let until = index + REACH + 1;
                let between: f64 =
                    match until.checked_sub(phase.len()).and_then(|from| samples.get(from..until)) {
                        Some(inside) => phase
                            .iter()
                            .zip(inside.iter().rev())
                            .map(|(tap, sample)| tap * f64::from(*sample))
                            .sum(),
                        None => {
                            let last = until as isize - 1;
                            phase.iter().zip(0..).map(|(tap, back)| tap * at(last - back)).sum()
                        }
                    };
                peak = peak.max(between.abs());
            }
            if peak > ceiling {
                let gain = ceiling / peak;
                for neighbour in [index, index + 1] {
                    if let Some(needed) = needed.get_mut(neighbour) {
                        *needed = needed.min(gain);
                    }
                }
            }
        }
    }
    needed
}

/// A sinc under a Hann window, cut into one filter for each point between two samples.
fn filter() -> [Vec<f64>; OVERSAMPLING] {
    let tap = |index: usize| {
        let at = (index as f64 - (TAPS - 1) as f64 / 2.0) * PI / OVERSAMPLING as f64;
        let sinc = if at.abs() < 1e-6 { 1.0 } else { at.sin() / at };
        sinc * 0.5 * (1.0 - (2.0 * PI * index as f64 / (TAPS - 1) as f64).cos())
    };
    std::array::from_fn(|phase| (phase..TAPS).step_by(OVERSAMPLING).map(tap).collect())
}

/// The least of each value and those up to `reach` before and after it.
fn least_around(values: &[f64], reach: usize) -> Vec<f64> {
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

    fn true_peak_db(sound: &Sound) -> f64 {
        20.0 * true_peak(sound).unwrap().log10()
    }

    #[test]
    fn speech_comes_to_its_level_under_its_ceiling() {
        for gain in [0.02, 0.1, 0.3, 1.0] {
            for level_lufs in [-30.0, -23.0, -16.0, -14.0] {
                let mut sound = speech(gain);
                let was_lufs = lufs(&sound);
                let gain_db = bring_to(&mut sound, level_lufs).unwrap();
                let goal_lufs = level_lufs.min(was_lufs + MAX_GAIN_DB);
                let (now_lufs, peak_db) = (lufs(&sound), true_peak_db(&sound));
                // Beyond the default, speech would have to be squashed under the ceiling to get there.
                let tolerance_lu = if level_lufs > DEFAULT_LEVEL_LUFS { 1.0 } else { 0.2 };
                assert!(
                    (now_lufs - goal_lufs).abs() < tolerance_lu,
                    "{gain} to {level_lufs}: {now_lufs} LUFS"
                );
                assert!(peak_db <= MAX_TRUE_PEAK_DB + 0.01, "{gain} to {level_lufs}: {peak_db} dBTP");
                assert!(gain_db <= MAX_GAIN_DB, "{gain_db}");
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
        assert_eq!(bring_to(&mut sound, -23.0).unwrap(), 0.0);
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
            let gain_db = bring_to(&mut room, -16.0).unwrap();
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
        let gain_db = bring_to(&mut beep, -26.0).unwrap();
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

    #[test]
    fn no_overshoot_is_more_than_is_reckoned_with() {
        let most =
            filter().iter().map(|phase| phase.iter().map(|tap| tap.abs()).sum()).fold(0.0_f64, f64::max);
        assert!(most < MOST_OVERSHOOT, "{most}");
    }

    proptest! {
        #[test]
        fn least_around_is_the_least_around(
            values in proptest::collection::vec(0.0..1.0_f64, 0..60),
            reach in 1..9_usize,
        ) {
            let least = least_around(&values, reach);
            prop_assert_eq!(least.len(), values.len());
            for (index, least) in least.iter().enumerate() {
                let around = &values[index.saturating_sub(reach)..(index + reach + 1).min(values.len())];
                prop_assert_eq!(*least, around.iter().copied().fold(f64::INFINITY, f64::min));
            }
        }

        #[test]
        fn nothing_rises_above_the_ceiling(
            samples in proptest::collection::vec(-1.0..1.0_f32, 1..3_000),
            rate_hz in prop_oneof![Just(8_000_u32), Just(44_100), Just(48_000)],
        ) {
            let mut sound = Sound { rate_hz, samples };
            bring_to(&mut sound, -10.0).unwrap();
            prop_assert!(true_peak_db(&sound) <= MAX_TRUE_PEAK_DB + 0.01);
        }
    }
}
