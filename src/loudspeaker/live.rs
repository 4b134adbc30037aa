//! Live speech as a loudspeaker takes it: blocks that arrive one by one, each in time or else concealed.
//!
//! A [`Tap`] accepts blocks as they arrive; the [`Feed`] returns the sample for each moment, and decides only at that moment that
//! one is missing. A gap is bridged by the last 10 ms, played back and forth, which fade within 40 ms; returning sound fades in
//! within 5 ms. Nothing is ever stretched or delayed. A feed neither allocates, frees, locks nor waits.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use tokio::time::Instant;

use super::interpolate::REACH;
use crate::sample;
use crate::wire::MAX_LIVE_BLOCK_BYTES;

/// The number of blocks that may wait for the loudspeaker: 1.28 s of 20 ms each.
const WAITING_BLOCKS: usize = 64;
/// The number of samples in the largest block.
const BLOCK_FRAMES: usize = MAX_LIVE_BLOCK_BYTES / 2;
/// The number of samples that can be read at once.
pub(super) const WINDOW: usize = 4_096;
/// The reciprocal of the length of the bridge over a gap, …
const BRIDGE_HZ: u32 = 100;
/// … of the time until it has faded, …
const DECAY_HZ: u32 = 25;
/// … and of the time in which returning sound replaces it.
const RETURN_HZ: u32 = 200;
/// The longest bridge, at the highest rate.
const LONGEST_BRIDGE: usize = (crate::clip::MAX_RATE_HZ / BRIDGE_HZ) as usize;

/// When a sample of the speech must sound.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Anchor {
    /// The sample, counted from the feed's first.
    pub index: u64,
    /// Its instant.
    pub at: Instant,
}

/// The state that both sides of a feed share.
#[derive(Debug)]
struct Told {
    /// Samples until the speech is over; `u64::MAX` while that is unknown.
    end: AtomicU64,
    played: AtomicU32,
    late: AtomicU32,
}

#[derive(Debug)]
struct Block {
    first: u64,
    frames: usize,
    samples: [f32; BLOCK_FRAMES],
}

/// The side of a feed where blocks go in.
#[derive(Debug)]
pub struct Tap {
    blocks: rtrb::Producer<Block>,
    told: Arc<Told>,
}

impl Tap {
    /// Hands in a block, in order; `first` is the index of its first sample in the feed, and `gain` multiplies its samples. The
    /// block is dropped if too many are waiting.
    pub fn push(&mut self, first: u64, bytes: &[u8], gain: f32) {
        let (pairs, _) = bytes.as_chunks::<2>();
        let mut block = Block { first, frames: pairs.len().min(BLOCK_FRAMES), samples: [0.0; BLOCK_FRAMES] };
        for (to, pair) in block.samples.iter_mut().zip(pairs) {
            *to = sample::from_i16(i16::from_le_bytes(*pair)) * gain;
        }
        // A loudspeaker that has taken nothing for a second would not play it either.
        let _ = self.blocks.push(block);
    }

    /// Sets after how many samples the speech is over.
    pub fn end(&self, frames: u64) {
        self.told.end.store(frames, Ordering::Release);
    }

    /// Returns the number of blocks that sounded whole at their time, and of those that came late.
    pub fn counts(&self) -> (u32, u32) {
        (self.told.played.load(Ordering::Acquire), self.told.late.load(Ordering::Acquire))
    }
}

/// The side of a feed where samples come out.
#[derive(Debug)]
pub struct Feed {
    blocks: rtrb::Consumer<Block>,
    told: Arc<Told>,
    held: Option<Held>,
    /// The samples from `base` up to `next`.
    window: Box<[f32]>,
    base: i64,
    next: i64,
    bridge: Bridge,
}

#[derive(Debug)]
struct Held {
    block: Block,
    is_on_time: bool,
}

impl Feed {
    /// Opens a feed of speech at a rate, and the tap for its blocks. A feed that begins in the middle fades in.
    pub fn open(rate_hz: u32, in_the_middle: bool) -> (Tap, Self) {
        let (give, take) = rtrb::RingBuffer::new(WAITING_BLOCKS);
        let told = Arc::new(Told {
            end: AtomicU64::new(u64::MAX),
            played: AtomicU32::new(0),
            late: AtomicU32::new(0),
        });
        let feed = Self {
            blocks: take,
            told: told.clone(),
            held: None,
            window: vec![0.0; WINDOW].into(),
            base: 0,
            next: 0,
            bridge: Bridge::new(rate_hz, in_the_middle),
        };
        (Tap { blocks: give, told }, feed)
    }

    /// Samples until the speech is over; `u64::MAX` while that is unknown.
    pub fn end(&self) -> u64 {
        self.told.end.load(Ordering::Acquire)
    }

    /// Returns the samples around a stretch of `span` from a position on, with [`REACH`] more on either side, and the index of
    /// the first of them. Positions must not go back. At most [`WINDOW`] less twice the reach can be asked for.
    pub(super) fn around(&mut self, position: f64, span: f64) -> (&[f32], f64) {
        let base = (position.floor() as i64).saturating_sub(REACH as i64).max(self.base);
        let wanted = (position + span).ceil() as i64 + REACH as i64 + 1;
        let until = wanted.clamp(base, base + WINDOW as i64);
        self.slide(base);
        while self.next < until {
            let sample = self.sample();
            if let Some(slot) = self.window.get_mut((self.next - self.base) as usize) {
                *slot = sample;
            }
            self.next += 1;
        }
        let filled = (self.next - self.base) as usize;
        (self.window.get(..filled).unwrap_or_default(), self.base as f64)
    }

    /// Fills `into` with the next samples in order, for a caller that plays them one by one.
    pub(super) fn take(&mut self, into: &mut [f32]) {
        for sample in into {
            *sample = self.sample();
            self.next += 1;
        }
    }

    fn slide(&mut self, base: i64) {
        let by = usize::try_from(base - self.base).unwrap_or(0);
        let filled = (self.next - self.base) as usize;
        if by <= filled {
            self.window.copy_within(by..filled, 0);
        } else {
            // It joins in the middle: earlier samples are skipped.
            self.window.fill(0.0);
            self.next = base;
            self.bridge.interrupt();
        }
        self.base = base;
    }

    /// The sample at `next`.
    fn sample(&mut self) -> f32 {
        let Ok(next) = u64::try_from(self.next) else { return 0.0 };
        if next >= self.end() {
            self.drop_what_is_over(next);
            return 0.0;
        }
        let said = loop {
            self.drop_what_is_over(next);
            match &self.held {
                Some(Held { block, .. }) if next < block.first => break None,
                Some(Held { block, .. }) => {
                    break block.samples.get((next - block.first) as usize).copied();
                }
                None => match self.blocks.pop() {
                    Ok(block) => self.held = Some(Held { is_on_time: block.first >= next, block }),
                    Err(_) => break None,
                },
            }
        };
        match said {
            Some(sample) => self.bridge.pass(sample),
            None => self.bridge.fill(),
        }
    }

    fn drop_what_is_over(&mut self, next: u64) {
        let is_over = |held: &mut Held| next >= held.block.first + held.block.frames as u64;
        if let Some(over) = self.held.take_if(is_over) {
            let count = if over.is_on_time { &self.told.played } else { &self.told.late };
            count.fetch_add(1, Ordering::AcqRel);
        }
    }
}

/// The sound that bridges a gap.
#[derive(Debug)]
struct Bridge {
    /// The last samples that sounded, in a ring.
    recent: [f32; LONGEST_BRIDGE],
    at: usize,
    length: usize,
    decay: u32,
    fade: u32,
    /// Samples since the gap began; `None` outside a gap.
    gap: Option<u32>,
    /// Samples since sound returned, while it fades in.
    back: Option<u32>,
}

impl Bridge {
    fn new(rate_hz: u32, in_the_middle: bool) -> Self {
        let length = ((rate_hz / BRIDGE_HZ) as usize).clamp(1, LONGEST_BRIDGE);
        let (decay, fade) = ((rate_hz / DECAY_HZ).max(1), (rate_hz / RETURN_HZ).max(1));
        let gap = in_the_middle.then_some(decay);
        Self { recent: [0.0; LONGEST_BRIDGE], at: 0, length, decay, fade, gap, back: None }
    }

    /// Starts again after other sound was heard: nothing is bridged, and the next sound fades in.
    fn interrupt(&mut self) {
        (self.gap, self.back) = (Some(self.decay), None);
    }

    /// Passes on a sample that is there.
    fn pass(&mut self, sample: f32) -> f32 {
        let sample = match self.gap {
            None => sample,
            Some(_) => {
                let back = self.back.unwrap_or(0);
                let share = back as f32 / self.fade as f32;
                let bridged = self.bridged();
                self.back = Some(back + 1);
                if back + 1 >= self.fade {
                    (self.gap, self.back) = (None, None);
                }
                sample * share + bridged * (1.0 - share)
            }
        };
        self.remember(sample);
        sample
    }

    /// Returns a substitute for a missing sample.
    fn fill(&mut self) -> f32 {
        if self.back.take().is_some() {
            // It is gone again before it was fully back: what has sounded is bridged from the start.
            self.gap = None;
        }
        self.gap.get_or_insert(0);
        self.bridged()
    }

    /// Returns the next sample of the bridge: the last ones backwards, then forwards again, softer and softer.
    fn bridged(&mut self) -> f32 {
        let Some(gap) = &mut self.gap else { return 0.0 };
        if *gap >= self.decay {
            return 0.0;
        }
        let turn = *gap as usize % (2 * self.length);
        let back = if turn < self.length { turn } else { 2 * self.length - 1 - turn };
        let share = 1.0 - *gap as f32 / self.decay as f32;
        *gap += 1;
        let index = (self.at + self.length - 1 - back) % self.length;
        self.recent.get(index).copied().unwrap_or(0.0) * share
    }

    fn remember(&mut self, sample: f32) {
        // A bridge in use does not change until the gap is over.
        if self.gap.is_none() {
            if let Some(slot) = self.recent.get_mut(self.at) {
                *slot = sample;
            }
            self.at = (self.at + 1) % self.length;
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests;
