//! The constant voltage that cheap microphones and sound cards add: it is inaudible, but clicks where a clip begins and ends, and
//! leaves less room for its peaks.

/// Offsets below this part of full scale (−50 dB) are left alone: raised by 20 dB they still click at −30 dB at most, and a sound
/// without an offset stays as it is, to the bit.
const LEAST: f64 = 0.003;
/// The number of parts that must each have at least half of a constant voltage, since it is there all the time.
const PARTS: usize = 8;

/// One side of a wave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Polarity {
    /// Above zero.
    Positive,
    /// Below.
    Negative,
}

impl Polarity {
    /// Returns a sample as seen from this side.
    pub fn of(self, sample: f32) -> f32 {
        if self == Self::Positive { sample } else { -sample }
    }
}

/// Returns the constant part of a sound; 0 if none is worth removing.
pub(super) fn dc_offset(samples: &[f32]) -> f64 {
    let mean = |part: &[f32]| part.iter().map(|sample| f64::from(*sample)).sum::<f64>() / part.len() as f64;
    if samples.len() < PARTS {
        return 0.0;
    }
    let offset = mean(samples);
    let is_throughout = |part: &[f32]| mean(part) * offset.signum() >= offset.abs() / 2.0;
    let is_constant = samples.chunks(samples.len().div_ceil(PARTS)).all(is_throughout);
    if is_constant && offset.abs() >= LEAST { offset } else { 0.0 }
}

/// Removes the constant part.
pub(super) fn remove(samples: &mut [f32]) {
    let offset = dc_offset(samples);
    if offset != 0.0 {
        samples.iter_mut().for_each(|sample| *sample = (f64::from(*sample) - offset) as f32);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tone(offset: f32) -> Vec<f32> {
        (0..8_037).map(|at| offset + 0.3 * (at as f32 * 0.07).sin()).collect()
    }

    #[test]
    fn a_constant_part_goes_and_the_sound_stays() {
        for offset in [0.3, -0.05, 0.02] {
            let mut sound = tone(offset);
            remove(&mut sound);
            let worst =
                sound.iter().zip(tone(0.0)).map(|(left, right)| (left - right).abs()).fold(0.0, f32::max);
            assert!(worst < 0.002, "{offset}: {worst}");
        }
        let mut constant = vec![0.3; 100];
        remove(&mut constant);
        assert!(constant.iter().all(|sample| sample.abs() < 1e-6));
    }

    #[test]
    fn a_sound_without_one_is_not_touched() {
        let thump: Vec<f32> = (0..800).map(|at| if at < 80 { 0.5 } else { 0.0 }).collect();
        for mut sound in [tone(0.0), tone(0.001), thump, vec![0.9; 3], Vec::new()] {
            let before = sound.clone();
            remove(&mut sound);
            assert_eq!(sound, before);
        }
    }
}
