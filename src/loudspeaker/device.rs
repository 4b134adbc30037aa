//! A real loudspeaker: its stream is opened once and kept open, playing silence until there is a clip.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use cpal::traits::DeviceTrait;
use cpal::{FromSample, SizedSample, StreamConfig, StreamInstant};

use tokio::sync::watch;

use super::live::{Anchor, Feed};
use super::playout::{Command, Course, Job, Playout, Progress, Sound};
use super::{LoudspeakerError, PlayReport};
use crate::clip::Clip;
use crate::devices::format::{Format, with_sample_type};
use crate::devices::health::Health;
use crate::devices::keeper::{Keeper, Open, STREAM_TIMEOUT, Streams};
use crate::devices::line::{Line, Stamp, median};
use crate::devices::stamps::Stamps;
use crate::devices::{DevicesError, Direction, Found, HealthWatch};
use crate::sample;

/// The sound that one callback takes. The device's buffer holds twice that, which is how late a busy machine may be; PulseAudio
/// was measured to grant it to the sample.
const PERIOD: Duration = Duration::from_millis(20);
/// Added to the latency and one callback, for the scheduler.
const LEAD_MARGIN: Duration = Duration::from_millis(10);
/// How long to wait after the moment when the last sample plays by the timestamps.
const TAIL_MARGIN: Duration = Duration::from_millis(10);
/// The longest that a stream may take to report its first timestamps.
const WARM_UP: Duration = Duration::from_secs(4);
/// How often a clip is checked while it plays, and around its start.
const STEERING_INTERVAL: Duration = Duration::from_millis(200);
const STARTING_INTERVAL: Duration = Duration::from_millis(10);
/// A stream that is interrupted for longer than this has run dry.
const UNDERRUN_NS: f64 = 2e6;
/// The number of timestamps ignored at the start of a stream: they are wrong, because the device is not running yet.
const IGNORED_STAMPS: u64 = 4;
/// The number of orders, and of finished jobs, that may wait.
const QUEUE: usize = 16;
/// The largest sample below full scale: cpal's 24-bit formats wrap at full scale itself.
const LOUDEST: f32 = 1.0 - f32::EPSILON / 2.0;

/// The loudspeaker and its keeper.
#[derive(Debug)]
pub(super) struct DeviceLoudspeaker {
    keeper: Keeper<Link>,
    unmutes: bool,
}

/// How to reach the callback of an open stream.
#[derive(Debug)]
pub(super) struct Link {
    rate_hz: u32,
    epoch: Instant,
    stamps: Arc<Stamps>,
    health: Arc<Health>,
    /// The callback never locks this: it has the other end of each ring. Only the loudspeaker locks it.
    orders: Mutex<Orders>,
}

#[derive(Debug)]
struct Orders {
    commands: rtrb::Producer<Command>,
    finished: rtrb::Consumer<Job>,
}

struct Opener {
    /// Whether an emergency unmutes the device.
    unmutes: bool,
}

impl Open for Opener {
    type Link = Link;
    const DIRECTION: Direction = Direction::Output;
    const PERIOD: Duration = PERIOD;

    fn may_open_up(&self) -> bool {
        self.unmutes
    }

    fn open(
        &self,
        found: &Found,
        format: Format,
        health: Arc<Health>,
    ) -> Result<(Streams, Link), cpal::Error> {
        let (commands, taken) = rtrb::RingBuffer::new(QUEUE);
        let (given, finished) = rtrb::RingBuffer::new(QUEUE);
        let source = Source {
            playout: Playout::new(taken, given),
            stamps: Arc::new(Stamps::new()),
            health: health.clone(),
            epoch: Instant::now(),
            plays_us: 0,
        };
        let link = Link {
            rate_hz: format.config.sample_rate,
            epoch: source.epoch,
            stamps: source.stamps.clone(),
            health,
            orders: Mutex::new(Orders { commands, finished }),
        };
        let stream = with_sample_type!(format.sample, build(found, format.config, source))?;
        Ok((vec![stream], link))
    }
}

/// What the callback owns.
struct Source {
    playout: Playout,
    stamps: Arc<Stamps>,
    health: Arc<Health>,
    epoch: Instant,
    /// The playback time that the device last reported; it need not report a new one at each call.
    plays_us: u128,
}

fn build<T: SizedSample + FromSample<f32>>(
    found: &Found,
    config: StreamConfig,
    mut source: Source,
) -> Result<cpal::Stream, cpal::Error> {
    let channels = usize::from(config.channels.max(1));
    let health = source.health.clone();
    found.device.build_output_stream::<T, _, _>(
        config,
        move |data, info| {
            let told_ns = source.epoch.elapsed().as_nanos() as u64;
            let told = info.timestamp();
            let latency_ns = told.playback.duration_since(told.callback).as_nanos() as u64;
            if let Some(underflows) = pulseaudio::underflows() {
                source.health.ran_dry(underflows);
            }
            let frame = source.playout.frame();
            // Without a new report, the time is that of a frame some calls ago.
            let plays_us = told.playback.duration_since(StreamInstant::ZERO).as_micros();
            let is_new = std::mem::replace(&mut source.plays_us, plays_us) != plays_us;
            if is_new && source.health.called() >= IGNORED_STAMPS {
                source.stamps.push(Stamp { frame, plays_ns: told_ns + latency_ns, told_ns });
            }
            let mut frames = data.chunks_exact_mut(channels);
            source.playout.fill(frames.len(), |_, sample| {
                if let Some(frame) = frames.next() {
                    frame.fill(T::from_sample(sample.clamp(-1.0, LOUDEST)));
                }
            });
        },
        move |error| health.report(error),
        Some(STREAM_TIMEOUT),
    )
}

impl Link {
    fn line(&self) -> Option<Line> {
        Line::fit(&self.stamps.read(), self.rate_hz)
    }

    fn ns(&self, instant: Instant) -> f64 {
        match instant.checked_duration_since(self.epoch) {
            Some(since) => since.as_nanos() as f64,
            None => -(self.epoch.duration_since(instant).as_nanos() as f64),
        }
    }

    fn instant(&self, ns: f64) -> tokio::time::Instant {
        (self.epoch + Duration::from_nanos(ns.max(0.0) as u64)).into()
    }

    /// Returns the course that plays the anchor's sample at its instant, for a sound of this rate.
    fn course(&self, line: &Line, anchor: Anchor, rate_hz: u32) -> Course {
        let frame = line.frame(self.ns(anchor.at.into_std()));
        Course { frame, position: anchor.index as f64, ratio: f64::from(rate_hz) / line.rate_hz() }
    }

    /// Returns false when the callback accepts no more commands.
    fn order(&self, command: Command) -> bool {
        let mut orders = self.orders.lock().unwrap_or_else(PoisonError::into_inner);
        while orders.finished.pop().is_ok() {}
        orders.commands.push(command).is_ok()
    }
}

/// Silences the sound when the future that plays it is dropped.
struct Playing(Arc<Progress>);

impl Drop for Playing {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

impl DeviceLoudspeaker {
    pub(super) fn open(wanted: Option<String>, unmutes: bool) -> Result<Self, LoudspeakerError> {
        let keeper = Keeper::open(Opener { unmutes }, wanted)
            .map_err(|error| LoudspeakerError::Device(Arc::new(error)))?;
        Ok(Self { keeper, unmutes })
    }

    /// Waits for a device that could not be opened.
    pub(super) fn await_device(
        wanted: Option<String>,
        unmutes: bool,
        error: Arc<DevicesError>,
    ) -> Result<Self, LoudspeakerError> {
        let keeper =
            Keeper::await_device(Opener { unmutes }, wanted, error).map_err(LoudspeakerError::Device)?;
        Ok(Self { keeper, unmutes })
    }

    /// Unmutes the device, if that is allowed.
    pub(super) fn unmute(&self) {
        if self.unmutes {
            self.keeper.open_up();
        }
    }

    pub(super) fn health(&self) -> HealthWatch {
        self.keeper.health()
    }

    pub(super) fn name(&self) -> &str {
        self.keeper.name()
    }

    pub(super) fn lead(&self) -> Duration {
        let stamps = self.keeper.current().map(|link| link.stamps.read()).unwrap_or_default();
        let mut latencies: Vec<f64> =
            stamps.iter().map(|stamp| stamp.plays_ns.saturating_sub(stamp.told_ns) as f64).collect();
        let latency = median(&mut latencies).map_or(PERIOD, |ns| Duration::from_nanos(ns as u64));
        latency + PERIOD + LEAD_MARGIN
    }

    pub(super) async fn play(
        &mut self,
        clip: &Clip,
        gain: f32,
        at: tokio::time::Instant,
        on_start: impl FnOnce(),
    ) -> Result<PlayReport, LoudspeakerError> {
        let link = self.keeper.link().await.map_err(LoudspeakerError::Device)?;
        let sound = clip.sound();
        let mut samples = match sample::resample(&sound, link.rate_hz)? {
            std::borrow::Cow::Borrowed(_) => sound.samples,
            std::borrow::Cow::Owned(resampled) => resampled.samples,
        };
        samples.iter_mut().for_each(|sample| *sample *= gain);
        tokio::select! {
            // A clip during which the device was lost, even for a moment, was not played, however it ended.
            biased;
            error = self.keeper.lost() => Err(LoudspeakerError::Device(error)),
            report = play(&link, (Sound::Clip(samples), link.rate_hz), || Anchor { index: 0, at }, on_start) => {
                Ok(PlayReport { frames: u64::from(clip.format().frames()), ..report? })
            }
        }
    }

    pub(super) async fn play_live(
        &mut self,
        (feed, rate_hz): (Feed, u32),
        anchor: watch::Receiver<Anchor>,
        on_start: impl FnOnce(),
    ) -> Result<PlayReport, LoudspeakerError> {
        let link = self.keeper.link().await.map_err(LoudspeakerError::Device)?;
        let sound = Sound::Live(Box::new(feed));
        tokio::select! {
            biased;
            error = self.keeper.lost() => Err(LoudspeakerError::Device(error)),
            report = play(&link, (sound, rate_hz), || *anchor.borrow(), on_start) => report,
        }
    }
}

/// Returns the line of a running stream, and waits for it while the stream is new.
async fn warm_line(link: &Link) -> Result<Line, LoudspeakerError> {
    let warm = async {
        loop {
            if let Some(line) = link.line() {
                return line;
            }
            tokio::time::sleep(PERIOD).await;
        }
    };
    tokio::time::timeout(WARM_UP, warm).await.map_err(|_| LoudspeakerError::Stalled)
}

/// Plays a sound of a rate to its last sample, following the anchor at each moment; the caller counts the frames.
async fn play(
    link: &Link,
    (sound, rate_hz): (Sound, u32),
    anchor: impl Fn() -> Anchor,
    on_start: impl FnOnce(),
) -> Result<PlayReport, LoudspeakerError> {
    let xruns_before = link.health.xruns();
    let first = anchor();
    let at_ns = link.ns(first.at.into_std()) - first.index as f64 * 1e9 / f64::from(rate_hz);
    let mut line = warm_line(link).await?;
    let progress = Arc::new(Progress::default());
    let playing = Playing(progress.clone());
    let job = Job { sound, course: link.course(&line, anchor(), rate_hz), progress: progress.clone() };
    if !link.order(Command::Play(job)) {
        return Err(LoudspeakerError::Stalled);
    }
    let (mut on_start, mut started_ns, mut breaks) = (Some(on_start), None, 0);
    let ended = loop {
        let before_start = link.instant(at_ns).duration_since(tokio::time::Instant::now());
        let pause = match started_ns {
            Some(_) => STEERING_INTERVAL,
            None => (before_start / 2).clamp(STARTING_INTERVAL, STEERING_INTERVAL),
        };
        tokio::time::sleep(pause).await;
        if let Some(newer) = link.line() {
            let frame = newer.frame(link.ns(Instant::now()));
            breaks += u32::from(newer.time_ns(frame) - line.time_ns(frame) > UNDERRUN_NS);
            line = newer;
            link.order(Command::Steer(link.course(&line, anchor(), rate_hz)));
        }
        if let (None, Some(frame)) = (started_ns, progress.started()) {
            started_ns = Some(line.time_ns(frame));
        }
        let begun = started_ns.is_some_and(|ns| link.ns(Instant::now()) >= ns);
        if let Some(on_start) = on_start.take_if(|_| begun) {
            on_start();
        }
        if let Some(frame) = progress.ended() {
            break frame;
        }
    };
    tokio::time::sleep_until(link.instant(line.time_ns(ended)) + TAIL_MARGIN).await;
    if let Some(on_start) = on_start {
        on_start();
    }
    drop(playing);
    Ok(PlayReport {
        frames: 0,
        start_error_us: ((started_ns.unwrap_or(at_ns) - at_ns) / 1e3).round() as i64,
        max_error_us: (f64::from(progress.worst_error()) * 1e6 / f64::from(rate_hz)).round() as u64,
        underruns: breaks.max(link.health.xruns() - xruns_before),
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use cpal::Sample;

    use super::*;

    #[test]
    fn full_scale_fits_every_format() {
        assert_eq!(i16::from_sample(LOUDEST), i16::MAX);
        assert_eq!(i16::from_sample(-1.0_f32), i16::MIN);
        assert_eq!(cpal::I24::from_sample(LOUDEST).inner(), 8_388_607);
        assert_eq!(cpal::U24::from_sample(LOUDEST).inner(), 16_777_215);
        assert_eq!(u8::from_sample(0.0_f32), 128);
        assert_eq!(u16::from_sample(LOUDEST), u16::MAX);
    }
}
