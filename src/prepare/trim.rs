//! Where a sound begins and ends.

/// The length of the blocks in which loudness is judged.
const BLOCK_S: f64 = 0.01;
/// The time kept before the first sound and after the last, so that a soft consonant is not cut.
const MARGIN_S: f64 = 0.15;
/// Silence is at least this far below the loudest block, in dB, …
const LEAST_DEPTH_DB: f64 = 20.0;
/// … and, if the room is quieter than that, at most this far.
const MOST_DEPTH_DB: f64 = 40.0;
/// How far sound rises above a room's own noise, in dB.
const ABOVE_ROOM_DB: f64 = 8.0;
/// The share of blocks that count as the room's noise alone.
const ROOM_SHARE: f64 = 0.1;
/// A sound whose loudest block is below this, in dB relative to full scale, is silent throughout, and left as it is.
const SILENCE_DB: f64 = -70.0;

/// Returns the sound without the silence at its ends.
pub fn trimmed(samples: &[f32], rate_hz: u32) -> &[f32] {
    let block = ((BLOCK_S * f64::from(rate_hz)) as usize).max(1);
    let levels_db: Vec<f64> = samples.chunks(block).map(level_db).collect();
    let loudest_db = levels_db.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    if loudest_db < SILENCE_DB {
        return samples;
    }
    let mut sorted = levels_db.clone();
    sorted.sort_by(f64::total_cmp);
    let room_db = sorted[(sorted.len() as f64 * ROOM_SHARE) as usize];
    let threshold_db =
        (room_db + ABOVE_ROOM_DB).clamp(loudest_db - MOST_DEPTH_DB, loudest_db - LEAST_DEPTH_DB);
    let is_heard = |level_db: &f64| *level_db >= threshold_db;
    let first = levels_db.iter().position(is_heard).unwrap_or(0);
    let last = levels_db.iter().rposition(is_heard).unwrap_or(levels_db.len());
    let margin = (MARGIN_S * f64::from(rate_hz)) as usize;
    let from = (first * block).saturating_sub(margin);
    let until = ((last + 1) * block).saturating_add(margin).min(samples.len());
    &samples[from..until]
}

/// Returns the root mean square, in dB relative to full scale.
fn level_db(block: &[f32]) -> f64 {
    let power: f64 = block.iter().map(|sample| f64::from(*sample).powi(2)).sum::<f64>() / block.len() as f64;
    10.0 * power.max(1e-12).log10()
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE_HZ: u32 = 8_000;
    const MARGIN: usize = 1_200;

    /// Noise of an amplitude, the same on each call.
    fn noise(frames: usize, amplitude: f32) -> Vec<f32> {
        let mut state = 1_u32;
        std::iter::repeat_with(|| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state as f32 / u32::MAX as f32 * 2.0 - 1.0) * amplitude
        })
        .take(frames)
        .collect()
    }

    #[test]
    fn silence_at_both_ends_goes_and_what_is_between_stays() {
        for room in [0.0, 0.001, 0.01] {
            let mut sound = noise(8_000, room);
            sound.extend(noise(2_000, 0.5));
            sound.extend(noise(4_000, room));
            sound.extend(noise(2_000, 0.3));
            sound.extend(noise(16_000, room));
            let kept = trimmed(&sound, RATE_HZ);
            assert!(kept.len().abs_diff(8_000 + 2 * MARGIN) <= 160, "room {room}: {}", kept.len());
            assert!(sound[8_000 - MARGIN..].starts_with(&kept[..100]), "room {room}");
        }
    }

    #[test]
    fn what_has_no_silence_is_left_alone() {
        for sound in [noise(4_000, 0.5), noise(4_000, 1e-5), vec![0.0; 4_000], vec![0.7], vec![]] {
            assert_eq!(trimmed(&sound, RATE_HZ).len(), sound.len());
        }
    }

    /// A voice that begins softly, 30 dB below its loudest, is not cut if the room is quiet.
    #[test]
    fn a_soft_beginning_stays() {
        let mut sound = vec![0.0; 8_000];
        sound.extend(noise(800, 0.5 / 31.6));
        sound.extend(noise(4_000, 0.5));
        assert_eq!(trimmed(&sound, RATE_HZ).len(), 4_800 + MARGIN);
    }
}
