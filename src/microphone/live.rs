//! Live speech, block by block: from a device, or from a file as if somebody spoke it.

use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::device::DeviceSpeech;
use super::{Kind, Lost, Microphone, MicrophoneError};
use crate::clip::{MAX_RATE_HZ, MIN_RATE_HZ};
use crate::sample;
use crate::wire::LiveHeader;

/// Live speech on the system's clock, in blocks of equal length.
#[derive(Debug)]
pub struct Speech<'a> {
    start: Instant,
    rate_hz: u32,
    block_frames: usize,
    source: Source<'a>,
}

#[derive(Debug)]
enum Source<'a> {
    Device(Box<DeviceSpeech<'a>>),
    /// The samples, and how many of them have been said.
    File(Vec<f32>, usize),
}

impl Microphone {
    /// Begins to listen: everything that comes was said after the call. `rate_hz` replaces the microphone's own rate.
    ///
    /// # Errors
    /// A device that is lost, or whose clock is not known within 4 s.
    pub async fn speak(&mut self, rate_hz: Option<u32>) -> Result<Speech<'_>, MicrophoneError> {
        let legal = |own_hz: u32| rate_hz.unwrap_or(own_hz).clamp(MIN_RATE_HZ, MAX_RATE_HZ);
        let block_frames = |rate_hz| usize::from(LiveHeader::block_frames_at(rate_hz));
        match &mut self.0 {
            Kind::Device(device) => {
                let (source, start, rate_hz) = device.speak(legal, block_frames).await?;
                let block_frames = block_frames(rate_hz);
                Ok(Speech { start, rate_hz, block_frames, source: Source::Device(Box::new(source)) })
            }
            Kind::File { sound, .. } => {
                let rate_hz = legal(sound.rate_hz);
                let samples = sample::resample(sound, rate_hz)?.into_owned().samples;
                let source = Source::File(samples, 0);
                Ok(Speech { start: Instant::now(), rate_hz, block_frames: block_frames(rate_hz), source })
            }
        }
    }
}

impl Speech<'_> {
    /// When the first sample was said.
    pub fn start(&self) -> Instant {
        self.start
    }

    /// Samples per second.
    pub fn rate_hz(&self) -> u32 {
        self.rate_hz
    }

    /// What the microphone has lost so far, as far as that is certain.
    pub fn lost(&self) -> Lost {
        match &self.source {
            Source::Device(device) => device.lost(),
            Source::File(..) => Lost::default(),
        }
    }

    /// Like [`Self::lost`], but waits until it is certain, 0.7 s at most.
    pub async fn lost_for_certain(&mut self) -> Lost {
        if let Source::Device(device) = &mut self.source {
            device.settle().await;
        }
        self.lost()
    }

    /// Returns the next block once it has been said; a shorter one at the end of a file, and `None` after it. Cancelling loses
    /// what was said meanwhile.
    ///
    /// # Errors
    /// A device that is lost, or samples that are lost.
    pub async fn next(&mut self) -> Result<Option<Vec<f32>>, MicrophoneError> {
        match &mut self.source {
            Source::Device(device) => device.next().await.map(Some),
            Source::File(samples, said) => {
                let block: Vec<f32> = samples.iter().skip(*said).take(self.block_frames).copied().collect();
                *said += block.len();
                let at = Duration::from_nanos(*said as u64 * 1_000_000_000 / u64::from(self.rate_hz));
                sleep_until(self.start + at).await;
                Ok(Some(block).filter(|block| !block.is_empty()))
            }
        }
    }
}
