//! The constant voltage that cheap microphones and sound cards add: it is inaudible, but clicks where a clip begins and
//! ends, and takes room from its peaks.

/// Offsets below this, of full scale (−50 dB), are let be: raised by 20 dB they still click at −30 dB at most, and a sound
/// that has none stays as it is, to the bit.
const LEAST: f64 = 0.003;
/// A constant voltage is there all the time: in each of so many parts, at least half of it.
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
    /// A sample, seen from this side.
    pub fn of(self, sample: f32) -> f32 {
        if self == Self::Positive { sample } else { -sample }
    }
}

/// The constant part of a sound; 0 where there is none worth taking away.
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

/// Takes the constant part away.
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
