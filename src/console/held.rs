//! Distinguishes a key that is held down from one that is pressed again. Most terminals send the same bytes for both,
//! and only the next presses tell the difference.

use std::time::{Duration, Instant};

/// A held key repeats at least this often: terminals send 10 to 40 repeats a second.
pub const REPEAT: Duration = Duration::from_millis(300);
/// A press this soon after one that counted may be a held key's first repeat, which comes after 0.25 to 1 s, depending
/// on the user's settings.
pub const FIRST_REPEAT: Duration = Duration::from_millis(1_100);
/// A further repeat comes sooner than this; if none does, it was a press.
pub const SETTLE: Duration = Duration::from_millis(150);

/// The kind of a key press.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Press {
    /// It was meant.
    Counts,
    /// The key is held down.
    Repeats,
    /// It counts if the key does not come again within [`SETTLE`]; see [`Held::settle`].
    Unsure,
}

/// The key that was pressed last.
#[derive(Debug)]
pub struct Held<K>(Option<Last<K>>);

#[derive(Debug)]
struct Last<K> {
    key: K,
    /// When it counted last.
    counted: Instant,
    /// When it was seen last.
    seen: Instant,
    /// Whether it is held down.
    repeats: bool,
    /// When it was pressed, if that press may still count.
    unsure: Option<Instant>,
}

impl<K> Default for Held<K> {
    fn default() -> Self {
        Self(None)
    }
}

impl<K: PartialEq> Held<K> {
    /// Registers a key press. A press less than `quick` after the last one of the same key is never meant.
    pub fn press(&mut self, key: K, quick: Duration, now: Instant) -> Press {
        let Some(last) = self.0.as_mut().filter(|last| last.key == key) else {
            self.0 = Some(Last { key, counted: now, seen: now, repeats: false, unsure: None });
            return Press::Counts;
        };
        let gap = now.duration_since(std::mem::replace(&mut last.seen, now));
        let unsure = last.unsure.take();
        if gap >= REPEAT && now.duration_since(last.counted) >= FIRST_REPEAT {
            (last.counted, last.repeats) = (now, false);
            return Press::Counts;
        }
        if unsure.is_some() {
            last.repeats = true;
        }
        if gap < quick || last.repeats && gap < REPEAT {
            return Press::Repeats;
        }
        last.unsure = Some(now);
        Press::Unsure
    }

    /// Whether the unsure press counts, because another key followed it or nothing did for long enough.
    pub fn settle(&mut self, next: Option<&K>, now: Instant) -> bool {
        let Some(last) = &mut self.0 else { return false };
        let is_other = next.is_some_and(|next| *next != last.key);
        let counts = last.unsure.is_some_and(|pressed| is_other || now.duration_since(pressed) >= SETTLE);
        if counts {
            (last.counted, last.repeats, last.unsure) = (now, false, None);
        }
        counts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the times at which a key counts that is pressed at these times.
    fn counted(presses: impl IntoIterator<Item = u64>, quick: Duration) -> Vec<u64> {
        let (mut held, start) = (Held::default(), Instant::now());
        let mut presses = presses.into_iter().peekable();
        let mut counted = Vec::new();
        for ms in 0..25_000 {
            let now = start + Duration::from_millis(ms);
            let pressed = presses.next_if_eq(&ms).map(|_| 'l');
            if pressed.is_none() && held.settle(None, now) {
                counted.push(ms);
            }
            if pressed.is_some_and(|key| held.press(key, quick, now) == Press::Counts) {
                counted.push(ms);
            }
        }
        counted
    }

    #[test]
    fn a_held_key_counts_once_and_the_next_press_counts_again() {
        for (delay_ms, rate_hz) in [(250, 40), (500, 25), (540, 40), (660, 25), (1_000, 10)] {
            let repeats = (delay_ms..20_000).step_by(1_000 / rate_hz);
            let presses = std::iter::once(0).chain(repeats).chain(std::iter::once(20_500));
            assert_eq!(counted(presses, REPEAT), [0, 20_500], "{delay_ms} ms, {rate_hz} Hz");
        }
    }

    #[test]
    fn a_key_that_is_pressed_again_counts_though_a_little_later() {
        assert_eq!(counted([0, 500, 2_000], REPEAT), [0, 650, 2_000]);
        assert_eq!(counted([0, 100, 400], REPEAT), [0, 550]);
        assert_eq!(counted([0, 160, 320], Duration::ZERO), [0, 310, 470]);
    }

    #[test]
    fn another_key_settles_what_was_unsure() {
        let (mut held, now) = (Held::default(), Instant::now());
        assert_eq!(held.press('e', Duration::ZERO, now), Press::Counts);
        assert_eq!(held.press('e', Duration::ZERO, now), Press::Unsure);
        assert!(held.settle(Some(&'l'), now) && !held.settle(Some(&'l'), now));
        assert_eq!(held.press('l', Duration::ZERO, now), Press::Counts);
    }
}
