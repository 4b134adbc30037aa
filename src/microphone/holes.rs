//! Finds where a microphone's stream lost sound: pure arithmetic on when its blocks were captured and when they arrived.
//!
//! Each missing block makes everything after it late by its length, for good. The capture times that the sound server or the
//! driver reports may be wrong for a while after this program or the server was held up. An arrival time cannot be too early, and
//! is too late only while there is a backlog. A hole is what both show.

use std::time::Duration;

use crate::devices::line::{Stamp, median};

/// Shorter holes cannot be distinguished from the jitter of a busy machine's timestamps; a driver that overruns loses a period,
/// 10 ms or more.
pub(crate) const MIN_HOLE: Duration = Duration::from_millis(10);
/// The longest that a hole may take to become certain.
pub(super) const CERTAIN_AFTER: Duration = Duration::from_millis(700);
/// Of the timestamps within this time only the last counts: while a backlog is read, it is the least wrong.
const SIFTED_NS: u64 = 40_000_000;
/// The number of timestamps compared on either side; three wrong ones do no harm.
const STAMPS: usize = 7;
/// The fewest timestamps that there must be before a hole.
const MIN_STAMPS: usize = 3;
/// Arrivals up to this long before a timestamp are compared with those after it.
const ARRIVALS_NS: u64 = 500_000_000;
/// The time span of the latest arrivals: if none of them was in time, there might be a hole.
const DOUBTFUL_NS: u64 = 60_000_000;

/// A missing part of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Hole {
    /// The frame of the stream that follows the hole.
    pub at: u64,
    /// Its length.
    pub frames: u64,
}

/// Looks for holes in a running stream.
#[derive(Debug)]
pub(super) struct Holes {
    frame_ns: f64,
    /// Frames before this one are not examined again.
    judged: u64,
}

/// A stamp's frame, when it was reported, and how late it is compared with an even stream, both in ns.
#[derive(Debug, Clone, Copy)]
struct Lag {
    frame: u64,
    told_ns: u64,
    lag_ns: f64,
}

impl Holes {
    /// Creates a search in a stream of this rate.
    pub(super) fn at(rate_hz: u32) -> Self {
        Self { frame_ns: 1e9 / f64::from(rate_hz), judged: 0 }
    }

    fn lags(&self, stamps: &[Stamp]) -> Vec<Lag> {
        let lag = |stamp: &Stamp| Lag {
            frame: stamp.frame,
            told_ns: stamp.told_ns,
            lag_ns: stamp.plays_ns as f64 - stamp.frame as f64 * self.frame_ns,
        };
        stamps.iter().map(lag).collect()
    }

    /// Returns the holes that have become certain since the last call. `captured` says when frames were captured, `arrived` when
    /// they arrived here, both for the last seconds and oldest first.
    pub(super) fn found(&mut self, captured: &[Stamp], arrived: &[Stamp]) -> Vec<Hole> {
        let (captured, arrived) = (sifted(self.lags(captured)), self.lags(arrived));
        let mut holes = Vec::new();
        let mut index = 1;
        while index + STAMPS <= captured.len() {
            let after = &captured[index..index + STAMPS];
            let before = &captured[index.saturating_sub(STAMPS)..index];
            match self.between(before, after, &arrived) {
                Some(hole) => {
                    self.judged = hole.at;
                    holes.push(hole);
                    index += STAMPS;
                }
                None => index += 1,
            }
        }
        holes
    }

    /// Returns the hole between or among these timestamps, if there is one.
    fn between(&self, before: &[Lag], after: &[Lag], arrived: &[Lag]) -> Option<Hole> {
        // Timestamps before the last hole were at another level.
        let mut level_before: Vec<f64> =
            before.iter().filter(|lag| lag.frame >= self.judged).map(|lag| lag.lag_ns).collect();
        if level_before.len() < MIN_STAMPS {
            return None;
        }
        let (first, last) = (before.last()?, after.last()?);
        let level_before_ns = median(&mut level_before)?;
        let step_ns = middle(after)? - level_before_ns;
        if step_ns < MIN_HOLE.as_nanos() as f64 {
            return None;
        }
        let since_ns = first.told_ns.saturating_sub(ARRIVALS_NS);
        let near: Vec<&Lag> = arrived
            .iter()
            .filter(|lag| lag.frame >= self.judged && lag.told_ns >= since_ns && lag.told_ns <= last.told_ns)
            .collect();
        let early = near.iter().filter(|lag| lag.told_ns <= first.told_ns);
        let earliest_ns = early.map(|lag| lag.lag_ns).min_by(f64::total_cmp)?;
        let last_in_time = near.iter().rposition(|lag| lag.lag_ns < earliest_ns + step_ns / 2.0)?;
        let behind = near.get(last_in_time + 1..)?;
        let at = behind.first()?;
        // If blocks came in time almost to the end, the capture times were wrong.
        if last.told_ns.saturating_sub(at.told_ns) < STAMPS as u64 / 2 * SIFTED_NS {
            return None;
        }
        // The smaller of the two: a wrong report or a late block makes one of them larger.
        let captured: Vec<Lag> = after.iter().filter(|lag| lag.frame >= at.frame).copied().collect();
        let captured_ns = middle(&captured)? - level_before_ns;
        let arrived_ns = behind.iter().map(|lag| lag.lag_ns).min_by(f64::total_cmp)? - earliest_ns;
        let length_ns = captured_ns.min(arrived_ns).max(0.0);
        Some(Hole { at: at.frame, frames: (length_ns / self.frame_ns).round() as u64 })
    }

    /// Whether there might be a hole that is not certain yet.
    pub(super) fn is_in_doubt(&self, arrived: &[Stamp]) -> bool {
        let arrived = self.lags(arrived);
        let Some(last) = arrived.last() else { return false };
        let since = |ns: u64| {
            let told = last.told_ns.saturating_sub(ns);
            let near = arrived.iter().filter(move |lag| lag.frame >= self.judged && lag.told_ns >= told);
            near.map(|lag| lag.lag_ns).min_by(f64::total_cmp)
        };
        let before_ns = 2 * ARRIVALS_NS + CERTAIN_AFTER.as_nanos() as u64;
        let late =
            since(DOUBTFUL_NS).zip(since(before_ns)).map(|(latest_ns, in_time_ns)| latest_ns - in_time_ns);
        late.is_some_and(|late_ns| late_ns > MIN_HOLE.as_nanos() as f64 / 2.0)
    }
}

/// Keeps the last of each [`SIFTED_NS`].
fn sifted(lags: Vec<Lag>) -> Vec<Lag> {
    let mut kept: Vec<Lag> = Vec::new();
    for lag in lags {
        match kept.last_mut() {
            Some(last) if last.told_ns / SIFTED_NS == lag.told_ns / SIFTED_NS => *last = lag,
            _ => kept.push(lag),
        }
    }
    kept
}

fn middle(lags: &[Lag]) -> Option<f64> {
    median(&mut lags.iter().map(|lag| lag.lag_ns).collect::<Vec<_>>())
}

/// Puts silence where sound is missing, so that the sound after a hole returns to its time. `samples` begin with the frame
/// `first` of the stream. Returns the number of frames filled.
pub(super) fn fill(samples: &mut Vec<f32>, first: u64, holes: &[Hole]) -> u64 {
    let end = first + samples.len() as u64;
    let mut filled = 0;
    // Starts with the last hole, so that none moves another.
    for hole in holes.iter().rev().filter(|hole| hole.at > first && hole.at < end) {
        let at = (hole.at - first) as usize;
        samples.splice(at..at, std::iter::repeat_n(0.0, hole.frames as usize));
        filled += hole.frames;
    }
    filled
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;

    const RATE_HZ: u32 = 48_000;
    const BLOCK: u64 = 480;
    const BLOCK_NS: u64 = 10_000_000;

    /// A stream in blocks of 10 ms, some of which never come; the sound server reports a capture time every 50 ms.
    #[derive(Default)]
    struct Stream {
        captured: Vec<Stamp>,
        arrived: Vec<Stamp>,
        frame: u64,
        now_ns: u64,
        seed: u64,
    }

    impl Stream {
        /// A random number from 0 to `most`.
        fn chance(&mut self, most: u64) -> u64 {
            self.seed =
                self.seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (self.seed >> 33) % (most + 1)
        }

        /// Adds `blocks` blocks, each up to 6 ms late; each report of the server is up to 3 ms wrong, now and then 80 ms.
        fn goes_on(&mut self, blocks: u64) {
            for _ in 0..blocks {
                self.now_ns += BLOCK_NS;
                let told_ns = self.now_ns + self.chance(6_000_000);
                self.comes(told_ns);
            }
        }

        fn comes(&mut self, told_ns: u64) {
            if (self.frame / BLOCK).is_multiple_of(5) {
                let wrong_ns = if self.chance(15) == 0 { 80_000_000 } else { self.chance(3_000_000) };
                let plays_ns = self.now_ns - BLOCK_NS + wrong_ns;
                self.captured.push(Stamp { frame: self.frame, plays_ns, told_ns });
            }
            self.arrived.push(Stamp { frame: self.frame, plays_ns: told_ns, told_ns });
            self.frame += BLOCK;
        }

        fn is_cut(&mut self, blocks: u64) {
            self.now_ns += blocks * BLOCK_NS;
        }

        /// Nothing comes for `blocks` blocks, and then all of it at once, with wrong capture times.
        fn is_held_up(&mut self, blocks: u64) {
            let told_ns = self.now_ns + blocks * BLOCK_NS;
            for block in 0..blocks {
                self.now_ns += BLOCK_NS;
                self.captured.push(Stamp {
                    frame: self.frame,
                    plays_ns: told_ns - 20_000_000,
                    told_ns: told_ns + block * 20_000,
                });
                self.comes(told_ns + block * 20_000);
            }
        }

        fn holes(&self) -> Vec<Hole> {
            Holes::at(RATE_HZ).found(&self.captured, &self.arrived)
        }
    }

    fn streams() -> impl Iterator<Item = Stream> {
        (1..200).map(|seed| Stream { seed, now_ns: 50_000_000, ..Stream::default() })
    }

    #[test]
    fn a_hole_is_found_at_its_place_with_its_length() {
        for mut stream in streams() {
            stream.goes_on(150);
            let at = stream.frame;
            stream.is_cut(2);
            stream.goes_on(100);
            let second = stream.frame;
            stream.is_cut(30);
            stream.goes_on(100);
            let holes = stream.holes();
            assert_eq!(holes.len(), 2, "{holes:?}");
            for (hole, at, frames) in [(holes[0], at, 2 * BLOCK), (holes[1], second, 30 * BLOCK)] {
                assert_eq!(hole.at, at, "{holes:?}");
                assert!(hole.frames.abs_diff(frames) < 300, "{holes:?}");
            }
        }
    }

    #[test]
    fn each_hole_is_found_once_while_the_stream_goes_on() {
        for mut stream in streams().take(10) {
            let mut holes = Holes::at(RATE_HZ);
            let mut found = Vec::new();
            stream.goes_on(100);
            stream.is_cut(5);
            for _ in 0..50 {
                stream.goes_on(5);
                let old = stream.arrived.len().saturating_sub(300);
                let stamps: Vec<Stamp> = stream
                    .captured
                    .iter()
                    .filter(|stamp| stamp.frame >= stream.arrived[old].frame)
                    .copied()
                    .collect();
                found.extend(holes.found(&stamps, &stream.arrived[old..]));
            }
            assert_eq!(found.len(), 1, "{found:?}");
        }
    }

    #[test]
    fn a_machine_that_is_held_up_loses_nothing() {
        for mut stream in streams() {
            stream.goes_on(150);
            for blocks in [5, 30, 100, 8] {
                stream.is_held_up(blocks);
                stream.goes_on(20);
            }
            stream.goes_on(100);
            assert_eq!(stream.holes(), []);
        }
    }

    #[test]
    fn a_hole_that_is_not_certain_yet_is_in_doubt() {
        let mut stream = streams().next().expect("one");
        stream.goes_on(150);
        let holes = Holes::at(RATE_HZ);
        assert!(!holes.is_in_doubt(&stream.arrived));
        stream.is_cut(3);
        stream.goes_on(10);
        assert!(holes.is_in_doubt(&stream.arrived));
        assert_eq!(stream.holes(), []);
        let mut holes = holes;
        stream.goes_on(60);
        assert_eq!(holes.found(&stream.captured, &stream.arrived).len(), 1);
        assert!(!holes.is_in_doubt(&stream.arrived));
    }

    #[test]
    fn what_follows_a_hole_comes_back_to_its_time() {
        let mut samples: Vec<f32> = (0..10).map(|index| index as f32 + 1.0).collect();
        let holes = [(100, 9), (103, 2), (106, 3), (110, 9)].map(|(at, frames)| Hole { at, frames });
        assert_eq!(fill(&mut samples, 100, &holes), 5);
        let silence = 0.0;
        assert_eq!(
            samples,
            [1.0, 2.0, 3.0, silence, silence, 4.0, 5.0, 6.0, silence, silence, silence, 7.0, 8.0, 9.0, 10.0]
        );
    }
}
