//! A real microphone: its stream is opened once and kept running; sound is dropped until it is asked for.

use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use cpal::traits::DeviceTrait;
use cpal::{BufferSize, FromSample, HostId, Sample, SizedSample, StreamConfig, StreamInstant};

mod live;

pub(super) use live::DeviceSpeech;

use super::holes::{CERTAIN_AFTER, Hole, Holes, fill};
use super::{Captured, Level, Lost, MicrophoneError, frames_of};
use crate::clip::peak_db;
use crate::devices::format::{Format, with_sample_type};
use crate::devices::health::Health;
use crate::devices::keeper::{Keeper, Open, STREAM_TIMEOUT, Streams};
use crate::devices::line::Stamp;
use crate::devices::stamps::Stamps;
use crate::devices::{DevicesError, Direction, Found, HealthWatch};
use crate::sample::Sound;

/// The sound that one callback delivers: it adds to the delay, so it is short.
const PERIOD: Duration = Duration::from_millis(10);
/// PulseAudio splits the requested buffer between the device and its own queue, in two.
const PULSE_SHARES: u32 = 2;
/// How often the level is reported.
const LEVEL_INTERVAL: Duration = Duration::from_millis(50);
/// How often to look for the last samples.
const FINAL_INTERVAL: Duration = Duration::from_millis(3);
/// The most sound that can wait between callback and recorder.
const RING: Duration = Duration::from_secs(4);
/// A capture timestamp farther back than this is not believed.
const MAX_LATENCY: Duration = Duration::from_millis(200);
/// How long to record after the request to finish: the last words are still on their way, and a finger is quick.
const TAIL: Duration = Duration::from_millis(150);
/// PulseAudio updates the timing of a recording some 20 times a second; in between, the capture time changes by rounding only, at
/// most by this much.
const SAME_CAPTURE_US: u128 = 3;
/// The number of timestamps ignored at the start of a stream: they are wrong, because the device is not running yet.
const IGNORED_STAMPS: u64 = 4;
/// The shortest time between two recorded arrivals: a sound server may send blocks of a fraction of a millisecond.
const NOTED_INTERVAL_NS: u64 = 5_000_000;
/// A pause between callbacks that is longer than this shows that the machine was held up; the sound server's reports are then
/// late too, and `cpal` extrapolates from the last one for 100 ms only.
const HELD_UP_NS: u64 = 90_000_000;
/// How long capture timestamps are not believed after such a pause.
const DISBELIEF_NS: u64 = 120_000_000;
/// The number of recordings that may wait for the callback.
const QUEUE: usize = 4;

/// The microphone and its keeper.
#[derive(Debug)]
pub(super) struct DeviceMicrophone {
    keeper: Keeper<Link>,
}

/// How to reach the callback of an open stream.
#[derive(Debug)]
pub(super) struct Link {
    rate_hz: u32,
    epoch: Instant,
    health: Arc<Health>,
    /// When each frame was captured.
    stamps: Arc<Stamps>,
    /// When each frame arrived here.
    arrivals: Arc<Stamps>,
    /// The callback never locks this: it has the other end of each ring. Only the microphone locks it.
    orders: Mutex<Orders>,
}

#[derive(Debug)]
struct Orders {
    captures: rtrb::Producer<Capture>,
    finished: rtrb::Consumer<Capture>,
}

/// One recording, as the callback sees it.
#[derive(Debug)]
struct Capture {
    ring: rtrb::Producer<f32>,
    not_before_ns: u64,
    missing: usize,
    /// Where the callback stores which frame of the stream is the first; [`NO_FRAME`] until then.
    first: Arc<AtomicU64>,
}

/// Stands for no frame of a stream.
const NO_FRAME: u64 = u64::MAX;

struct Opener;

impl Open for Opener {
    type Link = Link;
    const DIRECTION: Direction = Direction::Input;
    const PERIOD: Duration = PERIOD;

    fn open(
        &self,
        found: &Found,
        format: Format,
        health: Arc<Health>,
    ) -> Result<(Streams, Link), cpal::Error> {
        let (captures, taken) = rtrb::RingBuffer::new(QUEUE);
        let (given, finished) = rtrb::RingBuffer::new(QUEUE);
        let rate_hz = format.config.sample_rate;
        let epoch = Instant::now();
        let [stamps, arrivals] = [(); 2].map(|()| Arc::new(Stamps::new()));
        let sink = Sink {
            rate_hz,
            epoch,
            stamps: stamps.clone(),
            arrivals: arrivals.clone(),
            called_ns: 0,
            believed_ns: 0,
            noted_ns: 0,
            frame: 0,
            captured_us: 0,
            latest: None,
            captures: taken,
            finished: given,
            current: None,
        };
        let mut config = format.config;
        if let (HostId::PulseAudio, BufferSize::Fixed(frames)) = (found.host, &mut config.buffer_size) {
            *frames *= PULSE_SHARES;
        }
        let stream = with_sample_type!(format.sample, build(found, config, sink, health.clone()))?;
        let orders = Mutex::new(Orders { captures, finished });
        Ok((vec![stream], Link { rate_hz, epoch, health, stamps, arrivals, orders }))
    }
}

fn build<T: SizedSample>(
    found: &Found,
    config: StreamConfig,
    mut sink: Sink,
    health: Arc<Health>,
) -> Result<cpal::Stream, cpal::Error>
where
    f32: FromSample<T>,
{
    let channels = usize::from(config.channels.max(1));
    let errors = health.clone();
    found.device.build_input_stream::<T, _, _>(
        config,
        move |data, info| {
            let called = health.called();
            let now_ns = sink.epoch.elapsed().as_nanos() as u64;
            let told = info.timestamp();
            let latency = told.callback.duration_since(told.capture).min(MAX_LATENCY);
            let told_ns = now_ns.saturating_sub(latency.as_nanos() as u64);
            let captured_us = told.capture.duration_since(StreamInstant::ZERO).as_micros();
            let is_new = captured_us.abs_diff(sink.captured_us) > SAME_CAPTURE_US;
            sink.captured_us = captured_us;
            let is_believed = sink.arrives(now_ns);
            if is_new && is_believed && called >= IGNORED_STAMPS {
                sink.stamps.push(Stamp { frame: sink.frame, plays_ns: told_ns, told_ns: now_ns });
            }
            let captured_ns = sink.captured_ns(is_new.then_some(told_ns)).min(now_ns);
            let mono = |frame: &[T]| {
                frame.iter().map(|&sample| f32::from_sample(sample)).sum::<f32>() / channels as f32
            };
            sink.take(captured_ns, data.chunks_exact(channels).map(mono));
        },
        move |error| errors.report(error),
        Some(STREAM_TIMEOUT),
    )
}

/// What the callback owns. Nothing here allocates, frees, locks or waits.
struct Sink {
    rate_hz: u32,
    epoch: Instant,
    stamps: Arc<Stamps>,
    arrivals: Arc<Stamps>,
    /// When the callback was last called, and from when on capture timestamps are believed.
    called_ns: u64,
    believed_ns: u64,
    /// When an arrival was last recorded.
    noted_ns: u64,
    /// Frames of the stream so far.
    frame: u64,
    /// The capture time that the device last reported, in µs since its stream was opened; it need not report a new one at each
    /// call.
    captured_us: u128,
    /// The frame of the last new report, and when it was captured.
    latest: Option<(u64, u64)>,
    captures: rtrb::Consumer<Capture>,
    finished: rtrb::Producer<Capture>,
    current: Option<Capture>,
}

impl Sink {
    /// Records that a block arrived; returns whether the report of its capture time can be believed.
    fn arrives(&mut self, now_ns: u64) -> bool {
        if now_ns >= self.noted_ns + NOTED_INTERVAL_NS {
            self.noted_ns = now_ns;
            self.arrivals.push(Stamp { frame: self.frame, plays_ns: now_ns, told_ns: now_ns });
        }
        if now_ns.saturating_sub(std::mem::replace(&mut self.called_ns, now_ns)) > HELD_UP_NS {
            self.believed_ns = now_ns + DISBELIEF_NS;
        }
        now_ns >= self.believed_ns
    }

    /// Returns when the next frame was captured: as the device reports now, or extrapolated from its last report.
    fn captured_ns(&mut self, told_ns: Option<u64>) -> u64 {
        let (frame, captured_ns) = match (told_ns, self.latest) {
            (Some(told_ns), _) => (self.frame, told_ns),
            (None, Some(latest)) => latest,
            (None, None) => (self.frame, self.epoch.elapsed().as_nanos() as u64),
        };
        self.latest = Some((frame, captured_ns));
        captured_ns + (self.frame - frame) * 1_000_000_000 / u64::from(self.rate_hz)
    }

    /// Takes a block whose first sample was captured at `captured_ns`.
    fn take(&mut self, captured_ns: u64, samples: impl ExactSizeIterator<Item = f32>) {
        let frame = self.frame;
        self.frame += samples.len() as u64;
        if self.current.as_ref().is_some_and(|capture| capture.missing == 0 || capture.ring.is_abandoned()) {
            self.retire();
        }
        if self.captures.peek().is_ok() && self.retire() {
            self.current = self.captures.pop().ok();
        }
        let Some(capture) = &mut self.current else { return };
        let early_ns = capture.not_before_ns.saturating_sub(captured_ns);
        let early = (early_ns as f64 * f64::from(self.rate_hz) / 1e9).ceil() as usize;
        if early < samples.len() && capture.first.load(Ordering::Relaxed) == NO_FRAME {
            capture.first.store(frame + early as u64, Ordering::Release);
        }
        for sample in samples.skip(early).take(capture.missing) {
            // A full ring drops samples; the recorder sees that it is full and fails.
            if capture.ring.push(sample).is_ok() {
                capture.missing -= 1;
            }
        }
    }

    /// Hands the recording back to be freed; returns false while there is no room for it.
    fn retire(&mut self) -> bool {
        let Some(capture) = self.current.take() else { return true };
        match self.finished.push(capture) {
            Ok(()) => true,
            Err(rtrb::PushError::Full(capture)) => {
                self.current = Some(capture);
                false
            }
        }
    }
}

impl DeviceMicrophone {
    pub(super) fn open(wanted: Option<String>) -> Result<Self, MicrophoneError> {
        let keeper =
            Keeper::open(Opener, wanted).map_err(|error| MicrophoneError::Device(Arc::new(error)))?;
        Ok(Self { keeper })
    }

    /// Waits for a device that could not be opened.
    pub(super) fn await_device(
        wanted: Option<String>,
        error: Arc<DevicesError>,
    ) -> Result<Self, MicrophoneError> {
        let keeper = Keeper::await_device(Opener, wanted, error).map_err(MicrophoneError::Device)?;
        Ok(Self { keeper })
    }

    pub(super) fn health(&self) -> HealthWatch {
        self.keeper.health()
    }

    pub(super) fn name(&self) -> &str {
        self.keeper.name()
    }

    pub(super) async fn record(
        &mut self,
        length: Duration,
        finish: impl Future<Output = ()>,
        on_level: impl FnMut(Level),
    ) -> Result<Captured, MicrophoneError> {
        let now = Instant::now();
        let link = self.keeper.link().await.map_err(MicrophoneError::Device)?;
        tokio::select! {
            captured = record(&link, now, length, finish, on_level) => captured,
            error = self.keeper.lost() => Err(MicrophoneError::Device(error)),
        }
    }
}

async fn record(
    link: &Arc<Link>,
    not_before: Instant,
    length: Duration,
    finish: impl Future<Output = ()>,
    mut on_level: impl FnMut(Level),
) -> Result<Captured, MicrophoneError> {
    let rate_hz = link.rate_hz;
    let mut frames = frames_of(length, rate_hz);
    let (mut finish, mut is_finishing) = (pin!(finish), false);
    let (ring, mut captured) = rtrb::RingBuffer::new(frames.min(frames_of(RING, rate_hz)).max(1));
    let not_before_ns = not_before.saturating_duration_since(link.epoch).as_nanos() as u64;
    let first = Arc::new(AtomicU64::new(NO_FRAME));
    {
        let mut orders = link.orders.lock().unwrap_or_else(PoisonError::into_inner);
        while orders.finished.pop().is_ok() {}
        let capture = Capture { ring, not_before_ns, missing: frames, first: first.clone() };
        orders.captures.push(capture).map_err(|_| MicrophoneError::Stalled)?;
    }
    let mut watch = HoleWatch::begin(link);
    let mut samples = Vec::with_capacity(frames);
    let mut told = 0;
    let mut next_level = tokio::time::Instant::now() + LEVEL_INTERVAL;
    loop {
        // Lost sound was said all the same, so it counts, and is not waited for.
        let said = samples.len() + watch.lost_frames(first.load(Ordering::Acquire)) as usize;
        if said >= frames {
            break;
        }
        let missing = Duration::from_secs_f64((frames - said) as f64 / f64::from(rate_hz));
        tokio::select! {
            () = tokio::time::sleep(missing.clamp(FINAL_INTERVAL, LEVEL_INTERVAL)) => (),
            () = &mut finish, if !is_finishing => {
                is_finishing = true;
                frames = frames.min(frames_of(not_before.elapsed() + TAIL, rate_hz));
            }
        }
        let waiting = captured.slots();
        if let Ok(chunk) = captured.read_chunk(waiting) {
            samples.extend(chunk);
        }
        if waiting >= captured.buffer().capacity() && samples.len() < frames {
            return Err(MicrophoneError::Overrun);
        }
        watch.look();
        if tokio::time::Instant::now() >= next_level || samples.len() >= frames {
            let recorded = Duration::from_secs_f64(samples.len() as f64 / f64::from(rate_hz));
            on_level(Level { recorded, peak_db: peak_db(&samples[told..]) });
            told = samples.len();
            next_level += LEVEL_INTERVAL;
        }
    }
    watch.settle().await;
    let first = first.load(Ordering::Acquire);
    let lost = watch.lost(first);
    fill(&mut samples, first, &watch.found);
    samples.truncate(frames);
    Ok(Captured { sound: Sound { rate_hz, samples }, lost })
}

/// Collects the holes of a stream from a moment on.
#[derive(Debug)]
struct HoleWatch {
    link: Arc<Link>,
    holes: Holes,
    found: Vec<Hole>,
    xruns_before: u32,
}

impl HoleWatch {
    fn begin(link: &Arc<Link>) -> Self {
        let xruns_before = link.health.xruns();
        Self { link: link.clone(), holes: Holes::at(link.rate_hz), found: Vec::new(), xruns_before }
    }

    fn look(&mut self) {
        self.found.extend(self.holes.found(&self.link.stamps.read(), &self.link.arrivals.read()));
    }

    /// Waits until it is certain whether there is another hole.
    async fn settle(&mut self) {
        let give_up = tokio::time::Instant::now() + CERTAIN_AFTER;
        self.look();
        while self.holes.is_in_doubt(&self.link.arrivals.read()) && tokio::time::Instant::now() < give_up {
            tokio::time::sleep(PERIOD).await;
            self.look();
        }
    }

    /// Returns the frames lost in the holes after a frame of the stream.
    fn lost_frames(&self, first: u64) -> u64 {
        self.found.iter().filter(|hole| hole.at > first).map(|hole| hole.frames).sum()
    }

    /// Returns the loss in the same holes, and counts the driver's overruns, which may be too short to be found.
    fn lost(&self, first: u64) -> Lost {
        let holes = self.found.iter().filter(|hole| hole.at > first).count() as u32;
        Lost {
            holes: holes.max(self.link.health.xruns().wrapping_sub(self.xruns_before)),
            ms: self.lost_frames(first) * 1_000 / u64::from(self.link.rate_hz),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;

    struct Rig {
        captures: rtrb::Producer<Capture>,
        finished: rtrb::Consumer<Capture>,
        sink: Sink,
    }

    fn rig() -> Rig {
        let (captures, taken) = rtrb::RingBuffer::new(2);
        let (given, finished) = rtrb::RingBuffer::new(2);
        let sink = Sink {
            rate_hz: 1_000,
            epoch: Instant::now(),
            stamps: Arc::new(Stamps::new()),
            arrivals: Arc::new(Stamps::new()),
            called_ns: 0,
            believed_ns: 0,
            noted_ns: 0,
            frame: 0,
            captured_us: 0,
            latest: None,
            captures: taken,
            finished: given,
            current: None,
        };
        Rig { captures, finished, sink }
    }

    fn capture(ring: rtrb::Producer<f32>, not_before_ns: u64, missing: usize) -> Capture {
        Capture { ring, not_before_ns, missing, first: Arc::new(AtomicU64::new(NO_FRAME)) }
    }

    fn block(first: usize) -> impl ExactSizeIterator<Item = f32> {
        (first..first + 10).map(|index| index as f32)
    }

    #[test]
    fn a_recording_begins_after_the_call_and_has_its_exact_length() {
        let mut rig = rig();
        rig.sink.take(0, block(0));
        let (ring, mut captured) = rtrb::RingBuffer::new(100);
        rig.captures.push(capture(ring, 14_500_000, 13)).expect("room");
        for index in 1..5 {
            rig.sink.take(index * 10_000_000, block(index as usize * 10));
        }
        let heard: Vec<f32> = std::iter::from_fn(|| captured.pop().ok()).collect();
        assert_eq!(heard, (15..28).map(|index| index as f32).collect::<Vec<_>>());
        assert_eq!(rig.finished.pop().expect("given back").missing, 0);
    }

    #[test]
    fn a_callback_neither_allocates_nor_frees() {
        let mut rig = rig();
        let mut at_ns = 0;
        let mut called = |rig: &mut Rig| {
            at_ns += 10_000_000;
            let told = allocation_counter::measure(|| {
                rig.sink.arrives(at_ns);
                rig.sink.take(at_ns, block(0));
            });
            assert_eq!((told.count_total, told.count_current), (0, 0), "{told:?}");
        };
        called(&mut rig);
        let (ring, captured) = rtrb::RingBuffer::new(100);
        rig.captures.push(capture(ring, 0, 15)).expect("room");
        (0..3).for_each(|_| called(&mut rig));
        assert_eq!(captured.slots(), 15);
        // An abandoned recording, one into a full ring, and one more than can be handed back.
        for missing in [1_000, 50, 50] {
            let (ring, captured) = rtrb::RingBuffer::new(5);
            rig.captures.push(capture(ring, 0, missing)).expect("room");
            called(&mut rig);
            drop(captured);
            (0..3).for_each(|_| called(&mut rig));
        }
        assert!(rig.finished.pop().is_ok());
        called(&mut rig);
    }

    #[test]
    fn an_abandoned_recording_is_given_back_and_the_next_one_taken() {
        let mut rig = rig();
        let (ring, captured) = rtrb::RingBuffer::new(100);
        rig.captures.push(capture(ring, 0, 1_000)).expect("room");
        rig.sink.take(0, block(0));
        drop(captured);
        let (ring, mut captured) = rtrb::RingBuffer::new(100);
        rig.captures.push(capture(ring, 0, 5)).expect("room");
        rig.sink.take(0, block(70));
        assert_eq!(captured.pop(), Ok(70.0));
        assert!(rig.finished.pop().is_ok());
    }
}
