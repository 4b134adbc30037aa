//! Live speech as a loudspeaker takes it: blocks that come one by one, each of which is there in time or is concealed.
//!
//! A [`Tap`] hands blocks in as they come; the [`Feed`] gives the sample for each moment, and decides at that very
//! moment that one is missing. What is missing is bridged by the last 10 ms, back and forth, which fade within 40 ms;
//! what comes again fades in within 5 ms. Nothing is ever stretched or put off. A feed neither allocates, frees, locks
//! nor waits.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use tokio::time::Instant;

use super::interpolate::REACH;
use crate::sample;
use crate::wire::MAX_LIVE_BLOCK_BYTES;

/// Blocks that may wait for the loudspeaker: 1.28 s of 20 ms each.
const WAITING_BLOCKS: usize = 64;
/// Samples of the largest block.
const BLOCK_FRAMES: usize = MAX_LIVE_BLOCK_BYTES / 2;
/// Samples that can be looked at at once.
pub(super) const WINDOW: usize = 4_096;
/// What bridges a gap is this part of a second long, …
const BRIDGE_HZ: u32 = 100;
/// … has faded after this part of one, …
const DECAY_HZ: u32 = 25;
/// … and gives way to what comes again within this one.
const RETURN_HZ: u32 = 200;
/// The longest bridge, at the highest rate.
const LONGEST_BRIDGE: usize = (crate::clip::MAX_RATE_HZ / BRIDGE_HZ) as usize;

/// When a sample of the speech is to sound.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Anchor {
    /// The sample, counted from the feed's first.
    pub index: u64,
    /// Its instant.
    pub at: Instant,
}

/// What is known of a feed on both sides.
#[derive(Debug)]
struct Told {
    /// Samples until the speech is over; `u64::MAX` while nobody knows.
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

/// Where blocks go in.
#[derive(Debug)]
pub struct Tap {
    blocks: rtrb::Producer<Block>,
    told: Arc<Told>,
}

impl Tap {
    /// Hands in a block, in order, whose first sample is that of the feed's; louder by `gain`. It is dropped where too
    /// many wait.
    pub fn push(&mut self, first: u64, bytes: &[u8], gain: f32) {
        let (pairs, _) = bytes.as_chunks::<2>();
        let mut block = Block { first, frames: pairs.len().min(BLOCK_FRAMES), samples: [0.0; BLOCK_FRAMES] };
        for (to, pair) in block.samples.iter_mut().zip(pairs) {
            *to = sample::from_i16(i16::from_le_bytes(*pair)) * gain;
        }
        // Whoever takes nothing for a second hears nothing of it either.
        let _ = self.blocks.push(block);
    }

    /// Says after how many samples the speech is over.
    pub fn end(&self, frames: u64) {
        self.told.end.store(frames, Ordering::Release);
    }

    /// Blocks that sounded whole at their time, and those that came after it.
    pub fn counts(&self) -> (u32, u32) {
        (self.told.played.load(Ordering::Acquire), self.told.late.load(Ordering::Acquire))
    }
}

/// Where samples come out.
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
    /// A feed of speech at a rate, and where to hand in its blocks. One that begins in the middle fades in.
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

    /// Samples until the speech is over, as far as that is known.
    pub fn end(&self) -> u64 {
        self.told.end.load(Ordering::Acquire)
    }

    /// The samples around a stretch of `span` from a position on, [`REACH`] more on either side, and which sample
    /// the first of them is. Positions must not go back. At most [`WINDOW`] less twice the reach can be asked for.
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

    /// The next samples in order, for whoever plays them one by one.
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
            // It joins in the middle: what was before is not looked at.
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

/// What sounds where nothing came.
#[derive(Debug)]
struct Bridge {
    /// The last samples that sounded, in a ring.
    recent: [f32; LONGEST_BRIDGE],
    at: usize,
    length: usize,
    decay: u32,
    fade: u32,
    /// Samples since something was there; none while something is.
    gap: Option<u32>,
    /// Samples since something is there again, while that fades in.
    back: Option<u32>,
}

impl Bridge {
    fn new(rate_hz: u32, in_the_middle: bool) -> Self {
        let length = ((rate_hz / BRIDGE_HZ) as usize).clamp(1, LONGEST_BRIDGE);
        let (decay, fade) = ((rate_hz / DECAY_HZ).max(1), (rate_hz / RETURN_HZ).max(1));
        let gap = in_the_middle.then_some(decay);
        Self { recent: [0.0; LONGEST_BRIDGE], at: 0, length, decay, fade, gap, back: None }
    }

    /// Something else was heard meanwhile: nothing is bridged, and what comes fades in.
    fn interrupt(&mut self) {
        (self.gap, self.back) = (Some(self.decay), None);
    }

    /// A sample that is there.
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

    /// One that is not.
    fn fill(&mut self) -> f32 {
        if self.back.take().is_some() {
            // It is gone again before it was wholly there: what has sounded is bridged anew.
            self.gap = None;
        }
        self.gap.get_or_insert(0);
        self.bridged()
    }

    /// The next sample of the bridge: the last ones backwards, then forwards again, softer and softer.
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
        // A bridge in use stays what it was until it is crossed.
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
