//! Live speech from a real microphone, block by block, on the system's clock: the microphone's own clock drifts, and steering
//! corrects it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use rubato::audioadapter_buffers::direct::InterleavedSlice;
use rubato::{Adjustable, Async, FixedAsync, Resampler, SincInterpolationParameters, WindowFunction};

use super::{Capture, DeviceMicrophone, HoleWatch, Link, Lost, MicrophoneError, NO_FRAME, RING, frames_of};
use crate::devices::keeper::Keeper;
use crate::devices::line::{Line, Stamp};
use crate::microphone::holes::MIN_HOLE;
use crate::sample::ResampleError;

/// How often to look for new samples.
const POLL: Duration = Duration::from_millis(2);
/// The longest that a stream may take to report its first timestamps, and to deliver its first sample.
const WARM_UP: Duration = Duration::from_secs(4);
/// Twice the number of samples on either side that the resampler weighs.
const SINC_FRAMES: usize = 64;
/// The largest factor by which the resampling ratio may change. A clock is off by a per mille or so; steering adds
/// [`MAX_STEERING`] at most.
const MOST_RATIO: f64 = 1.05;
/// Blocks over which an error is corrected, as a time constant: two seconds. All stations hear the same, so there is no hurry.
const STEERING_BLOCKS: f64 = 100.0;
/// The most that steering bends the pitch: 1.7 cents, less than an ear notices in speech.
const MAX_STEERING: f64 = 0.001;
/// Timestamps that spread more than this around their line are only as fine as the server's blocks.
const COARSE_NS: f64 = 300e3;
/// A microphone that is off by more than this was interrupted: lost sound becomes silence, surplus sound is dropped.
const INTERRUPTED: Duration = MIN_HOLE;
/// The number of blocks after which its line is fitted again.
const LINE_BLOCKS: u64 = 10;

/// A microphone while somebody speaks live.
pub(in crate::microphone) struct DeviceSpeech<'a> {
    keeper: &'a mut Keeper<Link>,
    link: Arc<Link>,
    captured: rtrb::Consumer<f32>,
    basis: Basis,
    line: Line,
    resampler: Async<f32>,
    /// Captured, but not yet resampled.
    input: Vec<f32>,
    pace: Pace,
    watch: HoleWatch,
    /// What has been made good so far.
    made_good: Lost,
}

/// Which of the microphone's samples belong in which block. Pure arithmetic.
#[derive(Debug)]
struct Pace {
    /// The first captured frame of the stream, and when it was captured, in ns since the stream's epoch.
    first: u64,
    start_ns: f64,
    /// The sample, counted from the first, at which the next block begins.
    position: f64,
    blocks: u64,
    rate_hz: u32,
    block_frames: usize,
}

impl Pace {
    /// Returns how many samples further on the next block should begin.
    fn error(&self, line: &Line) -> f64 {
        let said_ns = (self.blocks * self.block_frames as u64) as f64 * 1e9 / f64::from(self.rate_hz);
        line.frame(self.start_ns + said_ns) - self.first as f64 - self.position
    }

    /// Returns the number of microphone samples for each sample of the next block, chosen to correct the error.
    fn frames_per_sample(&self, line: &Line, error: f64) -> f64 {
        let steering = error / (STEERING_BLOCKS * self.block_frames as f64);
        line.rate_hz() / f64::from(self.rate_hz) + steering.clamp(-MAX_STEERING, MAX_STEERING)
    }

    /// Counts a block that was made.
    fn go_on(&mut self, frames_per_sample: f64) {
        self.position += self.block_frames as f64 * frames_per_sample;
        self.blocks += 1;
    }
}

impl std::fmt::Debug for DeviceSpeech<'_> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("DeviceSpeech").field("pace", &self.pace).finish_non_exhaustive()
    }
}

/// The source of capture times for one speech.
#[derive(Debug, Clone, Copy)]
enum Basis {
    /// The reports of the sound server or the driver.
    Told,
    /// The arrival times, less the usual delay: a server's reports may be no finer than a block of some milliseconds.
    Arrival { later_ns: f64 },
}

impl Basis {
    /// Chooses the steadier source, and returns its line with it.
    fn choose(captured: &[Stamp], arrived: &[Stamp], rate_hz: u32) -> Option<(Self, Line)> {
        let told = Line::fit(captured, rate_hz)?;
        let arrival = Line::fit(arrived, rate_hz).and_then(|arrival| {
            let (later_ns, spread_ns) = arrival.beside_ns(captured);
            let is_coarse = spread_ns > COARSE_NS && spread_ns > 2.0 * arrival.beside_ns(arrived).1;
            is_coarse.then(|| (Self::Arrival { later_ns }, arrival.later(later_ns)))
        });
        Some(arrival.unwrap_or((Self::Told, told)))
    }

    /// Returns the line now.
    fn line(self, link: &Link) -> Option<Line> {
        match self {
            Self::Told => Line::fit(&link.stamps.read(), link.rate_hz),
            Self::Arrival { later_ns } => {
                Line::fit(&link.arrivals.read(), link.rate_hz).map(|line| line.later(later_ns))
            }
        }
    }
}

/// Calls `look` again and again until it returns something, for [`WARM_UP`] at most.
async fn soon<T>(look: impl Fn() -> Option<T>) -> Result<T, MicrophoneError> {
    let found = async {
        loop {
            if let Some(found) = look() {
                return found;
            }
            tokio::time::sleep(POLL).await;
        }
    };
    tokio::time::timeout(WARM_UP, found).await.map_err(|_| MicrophoneError::Stalled)
}

impl DeviceMicrophone {
    /// Begins to listen. Also returns when the first sample was captured, and the rate of the blocks.
    pub(in crate::microphone) async fn speak(
        &mut self,
        legal_hz: impl Fn(u32) -> u32,
        block_frames: impl Fn(u32) -> usize,
    ) -> Result<(DeviceSpeech<'_>, tokio::time::Instant, u32), MicrophoneError> {
        let link = self.keeper.link().await.map_err(MicrophoneError::Device)?;
        let rate_hz = legal_hz(link.rate_hz);
        let block_frames = block_frames(rate_hz);
        let (ring, captured) = rtrb::RingBuffer::new(frames_of(RING, link.rate_hz).max(1));
        let first = Arc::new(AtomicU64::new(NO_FRAME));
        let begun = async {
            let choose = || Basis::choose(&link.stamps.read(), &link.arrivals.read(), link.rate_hz);
            let (basis, line) = soon(choose).await?;
            let not_before_ns = link.epoch.elapsed().as_nanos() as u64;
            {
                let mut orders = link.orders.lock().unwrap_or_else(PoisonError::into_inner);
                while orders.finished.pop().is_ok() {}
                let capture = Capture { ring, not_before_ns, missing: usize::MAX, first: first.clone() };
                orders.captures.push(capture).map_err(|_| MicrophoneError::Stalled)?;
            }
            let known = || Some(first.load(Ordering::Acquire)).filter(|frame| *frame != NO_FRAME);
            Ok::<_, MicrophoneError>((basis, line, soon(known).await?))
        };
        let (basis, line, first) = tokio::select! {
            begun = begun => begun?,
            error = self.keeper.lost() => return Err(MicrophoneError::Device(error)),
        };
        let start_ns = line.time_ns(first as f64);
        let start = link.epoch + Duration::from_nanos(start_ns.max(0.0) as u64);
        let ratio = f64::from(rate_hz) / line.rate_hz();
        let sinc = SincInterpolationParameters::new(SINC_FRAMES, WindowFunction::BlackmanHarris2);
        let resampler = Async::new_sinc(ratio, MOST_RATIO, &sinc, block_frames, 1, FixedAsync::Output)
            .map_err(|error| ResampleError::new(link.rate_hz, rate_hz, &error))?;
        let speech = DeviceSpeech {
            keeper: &mut self.keeper,
            watch: HoleWatch::begin(&link),
            made_good: Lost::default(),
            link,
            captured,
            basis,
            line,
            resampler,
            input: Vec::new(),
            pace: Pace { first, start_ns, position: 0.0, blocks: 0, rate_hz, block_frames },
        };
        Ok((speech, start.into(), rate_hz))
    }
}

impl DeviceSpeech<'_> {
    /// Returns the next block once all of it has been captured.
    pub(in crate::microphone) async fn next(&mut self) -> Result<Vec<f32>, MicrophoneError> {
        if self.pace.blocks.is_multiple_of(LINE_BLOCKS)
            && let Some(line) = self.basis.line(&self.link)
        {
            self.line = line;
        }
        self.watch.look();
        let failed = {
            let (from_hz, to_hz) = (self.link.rate_hz, self.pace.rate_hz);
            move |error: &rubato::ResampleError| ResampleError::new(from_hz, to_hz, error)
        };
        let mut error = self.pace.error(&self.line);
        if error.abs() > INTERRUPTED.as_secs_f64() * f64::from(self.link.rate_hz) {
            self.make_good(error).await?;
            error = 0.0;
        }
        let frames_per_sample = self.pace.frames_per_sample(&self.line, error);
        self.resampler.set_resample_ratio(1.0 / frames_per_sample, false).map_err(|error| failed(&error))?;
        let needed = self.resampler.input_frames_next();
        self.capture(needed).await?;
        let input = InterleavedSlice::new(&self.input, 1, self.input.len())
            .map_err(|error| ResampleError::new(self.link.rate_hz, self.pace.rate_hz, &error))?;
        let block = self.resampler.process(&input, None).map_err(|error| failed(&error))?.take_data();
        self.input.drain(..needed);
        self.pace.go_on(frames_per_sample);
        Ok(block)
    }

    /// Waits until `frames` samples are there.
    async fn capture(&mut self, frames: usize) -> Result<(), MicrophoneError> {
        loop {
            let waiting = self.captured.slots();
            if waiting >= self.captured.buffer().capacity() {
                return Err(MicrophoneError::Overrun);
            }
            if let Ok(chunk) = self.captured.read_chunk(waiting) {
                self.input.extend(chunk);
            }
            if self.input.len() >= frames {
                return Ok(());
            }
            tokio::select! {
                () = tokio::time::sleep(POLL) => (),
                error = self.keeper.lost() => return Err(MicrophoneError::Device(error)),
            }
        }
    }

    /// Continues where the microphone is after an interruption: skips `frames` of its samples, or inserts silence if negative.
    async fn make_good(&mut self, frames: f64) -> Result<(), MicrophoneError> {
        let whole = frames.abs().round() as usize;
        if frames > 0.0 {
            self.capture(whole).await?;
            self.input.drain(..whole);
        } else {
            // Sound that was not captured was said all the same: silence takes its time.
            let silence = std::iter::repeat_n(0.0, whole);
            self.input.splice(..0, silence);
        }
        self.pace.position += frames;
        self.made_good.holes += 1;
        self.made_good.ms += (frames.abs() * 1e3 / f64::from(self.link.rate_hz)).round() as u64;
        Ok(())
    }

    /// Waits until it is certain whether there is another hole.
    pub(in crate::microphone) async fn settle(&mut self) {
        self.watch.settle().await;
    }

    /// Returns what has been lost so far: what was made good, or what the stream itself shows if that is more, as it may be
    /// towards the end.
    pub(in crate::microphone) fn lost(&self) -> Lost {
        let seen = self.watch.lost(self.pace.first);
        Lost { holes: seen.holes.max(self.made_good.holes), ms: seen.ms.max(self.made_good.ms) }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A 48 kHz microphone whose clock drifts by `clock`, stamped every 480 frames with an error in ns.
    fn stamps(clock: f64, errors: &[f64]) -> Vec<Stamp> {
        let stamp = |(index, error): (usize, &f64)| {
            let frame = index as u64 * 480;
            let plays_ns = (1e9 + frame as f64 * 1e9 / (48_000.0 * (1.0 + clock)) + error) as u64;
            Stamp { frame, plays_ns, told_ns: plays_ns + 10_000_000 }
        };
        errors.iter().enumerate().map(stamp).collect()
    }

    /// A server reports the time in blocks of 5 ms, and is asked at intervals that are nearly as even: the error creeps from one
    /// end of the block to the other in three seconds. Blocks arrive evenly.
    #[test]
    fn a_time_told_by_the_block_does_not_bend_the_pitch() {
        let creeping: Vec<f64> = (0..1_000).map(|index| f64::from(index * 10 % 3_000) * 5e6 / 3e3).collect();
        let captured = stamps(0.0, &creeping);
        let arrived = stamps(0.0, &creeping.iter().map(|ns| 20e6 + ns % 50e3).collect::<Vec<_>>());
        let (basis, first) = Basis::choose(&captured[..500], &arrived[..500], 48_000).expect("a line");
        let Basis::Arrival { later_ns } = basis else { panic!("{basis:?}") };
        let begin_ns = first.time_ns(240_000.0);
        for end in 500..1_000 {
            let line = Line::fit(&arrived[..end], 48_000).expect("a line").later(later_ns);
            assert!((line.rate_hz() - 48_000.0).abs() < 5.0, "{} Hz", line.rate_hz());
            assert!(
                (line.time_ns(240_000.0) - begin_ns).abs() < 50e3,
                "{} ns",
                line.time_ns(240_000.0) - begin_ns
            );
        }
        let even = stamps(0.0, &[0.0; 1_000]);
        let told = Basis::choose(&even, &arrived, 48_000).expect("a line").0;
        assert!(matches!(told, Basis::Told), "{told:?}");
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]

        /// After a second of silence somebody speaks for nine, at the microphone's rate or another. Each block begins within 0.25
        /// ms of its time on the system's clock, however the microphone's clock drifts, and no pitch is bent by more than a per
        /// mille beyond that drift.
        #[test]
        fn a_straying_microphone_is_kept_on_the_system_s_clock(
            clock in -0.001..0.001,
            errors in prop::collection::vec(-60e3..60e3, 1_000),
            rate_hz in prop::sample::select(vec![48_000_u32, 44_100, 16_000]),
        ) {
            let stamps = stamps(clock, &errors);
            let seen = |blocks: u64| &stamps[..(100 + blocks as usize * 2).min(stamps.len())];
            let first = 48_000;
            let true_ns = |frame: f64| 1e9 + frame * 1e9 / (48_000.0 * (1.0 + clock));
            let line = Line::fit(seen(0), 48_000).expect("a line");
            let start_ns = line.time_ns(first as f64);
            let block_frames = (rate_hz / 50) as usize;
            let mut pace = Pace { first, start_ns, position: 0.0, blocks: 0, rate_hz, block_frames };
            let mut line = line;
            for block in 0..440_u64 {
                if block % LINE_BLOCKS == 0 {
                    line = Line::fit(seen(block), 48_000).expect("a line");
                }
                let begins_ns = true_ns(first as f64 + pace.position);
                let due_ns = start_ns + block as f64 * block_frames as f64 * 1e9 / f64::from(rate_hz);
                prop_assert!((begins_ns - due_ns).abs() < 250e3, "block {block} is off by {} ns", begins_ns - due_ns);
                let error = pace.error(&line);
                let step = pace.frames_per_sample(&line, error);
                let bend = step * f64::from(rate_hz) / (48_000.0 * (1.0 + clock)) - 1.0;
                prop_assert!(bend.abs() < 1e-3, "bent by {bend}");
                pace.go_on(step);
            }
        }
    }
}
