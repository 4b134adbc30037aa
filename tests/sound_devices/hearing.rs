//! Where a sound is in a recording, and how much it sounds like itself there.

/// A sound found in a recording.
#[derive(Debug, Clone, Copy)]
pub struct Heard {
    /// Where it begins, in samples.
    pub at: f64,
    /// The normalised cross-correlation there, 1 for the same sound.
    pub likeness: f64,
}

/// The number of samples that the first, coarse search combines into one.
const COARSE: usize = 16;

/// Finds `sound` in `recording`, to a fraction of a sample.
pub fn find(sound: &[f32], recording: &[f32]) -> Heard {
    let (short, long) = (thinned(sound), thinned(recording));
    let coarse = best(&short, &long, 0..(long.len() + 1).saturating_sub(short.len()).max(1)).0 * COARSE;
    let range = coarse.saturating_sub(2 * COARSE)..coarse + 2 * COARSE;
    let (at, likeness) = best(sound, recording, range);
    // The peak of the parabola through the best place and its neighbours.
    let (left, right) = match at.checked_sub(1) {
        Some(before) => (likeness_at(sound, recording, before), likeness_at(sound, recording, at + 1)),
        None => (likeness, likeness),
    };
    let bend = left - 2.0 * likeness + right;
    let shift = if bend < 0.0 { 0.5 * (left - right) / bend } else { 0.0 };
    Heard { at: at as f64 + shift, likeness }
}

fn thinned(samples: &[f32]) -> Vec<f32> {
    samples.chunks(COARSE).map(|chunk| chunk.iter().sum()).collect()
}

fn best(sound: &[f32], recording: &[f32], places: std::ops::Range<usize>) -> (usize, f64) {
    places
        .map(|place| (place, likeness_at(sound, recording, place)))
        .max_by(|one, other| one.1.total_cmp(&other.1))
        .expect("a place to look at")
}

fn likeness_at(sound: &[f32], recording: &[f32], place: usize) -> f64 {
    let Some(heard) = recording.get(place..) else { return 0.0 };
    let (mut product, mut left, mut right) = (0.0_f32, 0.0_f32, 0.0_f32);
    for (&one, &other) in sound.iter().zip(heard) {
        product += one * other;
        right += other * other;
    }
    for &one in sound {
        left += one * one;
    }
    f64::from(product) / f64::from(left * right).sqrt().max(1e-9)
}
