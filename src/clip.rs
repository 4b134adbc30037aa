//! A clip: mono 16-bit PCM in a WAV of a fixed format, its SHA-256, and its limits.
//!
//! On the wire a clip is a RIFF/WAVE file ("Multimedia Programming Interface and Data Specifications 1.0", IBM and
//! Microsoft, 1991) with exactly one 44-byte header: `fmt ` of 16 bytes, PCM, one channel, 16 bits, then `data`.
//! Because only that format is allowed, a station compares the header with the one it expects and parses nothing. The
//! user's own files are read by [`crate::sound_file`].

use std::time::Duration;

use bytes::Bytes;
use sha2::{Digest, Sha256};

use crate::sample::{self, Sound};

/// The maximum length of a clip.
pub const MAX_LENGTH: Duration = Duration::from_secs(120);
/// The lowest rate of a clip; sound at a lower rate is resampled up to it.
pub const MIN_RATE_HZ: u32 = 8_000;
/// The highest rate of a clip; sound at a higher rate is resampled down to it.
pub const MAX_RATE_HZ: u32 = 48_000;
/// The size of the header of a clip's WAV.
pub const WAV_HEADER_BYTES: usize = 44;
/// The largest clip: header, and [`MAX_LENGTH`] of 16-bit samples at [`MAX_RATE_HZ`].
pub const MAX_WAV_BYTES: usize = WAV_HEADER_BYTES + MAX_LENGTH.as_secs() as usize * MAX_RATE_HZ as usize * 2;
/// The peak of pure silence, in dB below full scale.
pub const SILENCE_DB: f32 = -100.0;
/// Sound with a peak below this counts as silent: one step of 16-bit sound.
const SILENCE: f32 = 1.0 / 32_768.0;

/// An error in a clip.
#[derive(Debug, thiserror::Error)]
pub enum ClipError {
    /// There is nothing to play.
    #[error("the clip is empty: record or choose at least one sample")]
    Empty,
    /// It is longer than [`MAX_LENGTH`].
    #[error("the clip is {} s long, over the limit of {} s: choose a shorter one", .0.as_secs(), MAX_LENGTH.as_secs())]
    TooLong(Duration),
    /// No clip can have the announced size.
    #[error("a clip of {bytes} bytes cannot be: the limit is {MAX_WAV_BYTES}, and samples are whole")]
    Size {
        /// The size that was announced.
        bytes: u64,
    },
    /// More bytes arrived than were announced.
    #[error("{received} bytes came of a clip that was announced as {announced}")]
    Surplus {
        /// The size that was announced.
        announced: u32,
        /// The number of bytes received so far.
        received: u64,
    },
    /// The announced rate is outside the limits.
    #[error("a clip at {0} Hz cannot be: {MIN_RATE_HZ} to {MAX_RATE_HZ} Hz are played")]
    Rate(u32),
    /// The WAV's header is not the one that the announced size and rate require.
    #[error("the WAV's own header disagrees with what was announced of it")]
    HeaderDisagrees,
    /// The bytes are not those that were hashed.
    #[error("the SHA-256 does not match: announced {announced}, received {received}")]
    Hash {
        /// The start of the hash in the header.
        announced: String,
        /// The start of the hash of the received bytes.
        received: String,
    },
    /// A resampler could not be made or run.
    #[error("cannot resample the clip")]
    Resample(#[from] sample::ResampleError),
}

/// A SHA-256.
pub type Hash = [u8; 32];

/// Formats a hash in hex.
pub fn hex(hash: &[u8]) -> String {
    hash.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The size and rate in a clip's header, known before its bytes arrive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Format {
    /// The WAV's size in bytes, header included.
    pub wav_bytes: u32,
    /// Samples per second.
    pub rate_hz: u32,
}

impl Format {
    /// Refuses a format that no clip can have, so that nothing is allocated for it.
    pub fn check(&self) -> Result<(), ClipError> {
        let bytes = self.wav_bytes as usize;
        let wrong = bytes <= WAV_HEADER_BYTES
            || bytes > MAX_WAV_BYTES
            || !(bytes - WAV_HEADER_BYTES).is_multiple_of(2);
        if wrong {
            return Err(ClipError::Size { bytes: self.wav_bytes.into() });
        }
        if !(MIN_RATE_HZ..=MAX_RATE_HZ).contains(&self.rate_hz) {
            return Err(ClipError::Rate(self.rate_hz));
        }
        if self.length() > MAX_LENGTH {
            return Err(ClipError::TooLong(self.length()));
        }
        Ok(())
    }

    /// The number of frames in the clip.
    pub fn frames(&self) -> u32 {
        self.wav_bytes.saturating_sub(WAV_HEADER_BYTES as u32) / 2
    }

    /// How long the clip sounds.
    pub fn length(&self) -> Duration {
        Duration::from_nanos(u64::from(self.frames()) * 1_000_000_000 / u64::from(self.rate_hz.max(1)))
    }

    /// The only header that a clip of this format can have.
    fn header(&self) -> [u8; WAV_HEADER_BYTES] {
        let data_bytes = self.frames() * 2;
        let mut header = [0; WAV_HEADER_BYTES];
        header[..4].copy_from_slice(b"RIFF");
        header[4..8].copy_from_slice(&(data_bytes + 36).to_le_bytes());
        header[8..16].copy_from_slice(b"WAVEfmt ");
        header[16..20].copy_from_slice(&16_u32.to_le_bytes());
        header[20..22].copy_from_slice(&1_u16.to_le_bytes());
        header[22..24].copy_from_slice(&1_u16.to_le_bytes());
        header[24..28].copy_from_slice(&self.rate_hz.to_le_bytes());
        header[28..32].copy_from_slice(&self.rate_hz.saturating_mul(2).to_le_bytes());
        header[32..34].copy_from_slice(&2_u16.to_le_bytes());
        header[34..36].copy_from_slice(&16_u16.to_le_bytes());
        header[36..40].copy_from_slice(b"data");
        header[40..].copy_from_slice(&data_bytes.to_le_bytes());
        header
    }
}

/// Makes a WAV of the fixed format from 16-bit samples as they are stored, also for speech longer than a clip may be.
pub fn wav(rate_hz: u32, samples: &[u8]) -> Vec<u8> {
    let wav_bytes = u32::try_from(WAV_HEADER_BYTES + samples.len()).unwrap_or(u32::MAX);
    [&Format { wav_bytes, rate_hz }.header()[..], samples].concat()
}

/// A whole clip whose hash is known to be right. Cloning shares the bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Clip {
    wav: Bytes,
    format: Format,
    sha256: Hash,
}

impl Clip {
    /// Encodes sound at its own rate; see [`Clip::encode_at`].
    ///
    /// # Errors
    /// The same errors as [`Clip::encode_at`].
    pub fn encode(sound: &Sound) -> Result<Self, ClipError> {
        Self::encode_at(sound, sound.rate_hz)
    }

    /// Encodes sound as 16-bit WAV at a rate, and hashes it. Rates outside [`MIN_RATE_HZ`] to
    /// [`MAX_RATE_HZ`] become the nearer bound.
    ///
    /// # Errors
    /// [`ClipError::Empty`] and [`ClipError::TooLong`]; others only if a library fails.
    pub fn encode_at(sound: &Sound, rate_hz: u32) -> Result<Self, ClipError> {
        if sound.samples.is_empty() {
            return Err(ClipError::Empty);
        }
        if sound.length() > MAX_LENGTH {
            return Err(ClipError::TooLong(sound.length()));
        }
        let rate_hz = rate_hz.clamp(MIN_RATE_HZ, MAX_RATE_HZ);
        let sound = sample::resample(sound, rate_hz)?;
        let wav_bytes = WAV_HEADER_BYTES + sound.samples.len() * 2;
        let format = Format { wav_bytes: wav_bytes as u32, rate_hz };
        let mut wav = vec![0; wav_bytes];
        let (header, data) = wav.split_at_mut(WAV_HEADER_BYTES);
        header.copy_from_slice(&format.header());
        let (pairs, _) = data.as_chunks_mut::<2>();
        for (pair, &sample) in pairs.iter_mut().zip(&sound.samples) {
            *pair = sample::to_i16(sample).to_le_bytes();
        }
        let wav = Bytes::from(wav);
        format.check()?;
        let sha256 = Sha256::digest(&wav).into();
        Ok(Self { wav, format, sha256 })
    }

    /// The WAV, header included.
    pub fn wav(&self) -> &Bytes {
        &self.wav
    }

    /// Size and rate.
    pub fn format(&self) -> Format {
        self.format
    }

    /// SHA-256 of the WAV.
    pub fn sha256(&self) -> &Hash {
        &self.sha256
    }

    /// Its samples, in the range ±1.0.
    pub fn sound(&self) -> Sound {
        let (pairs, _) = self.wav[WAV_HEADER_BYTES..].as_chunks::<2>();
        Sound {
            rate_hz: self.format.rate_hz,
            samples: pairs.iter().map(|&pair| sample::from_i16(i16::from_le_bytes(pair))).collect(),
        }
    }
}

/// A clip that is still arriving: hashed as it grows, checked when it is complete.
#[derive(Debug)]
pub struct Incoming {
    format: Format,
    announced: Hash,
    wav: Vec<u8>,
    hasher: Sha256,
}

impl Incoming {
    /// Makes room for a clip of a format that [`Format::check`] passes.
    ///
    /// # Errors
    /// The same errors as [`Format::check`].
    pub fn new(format: Format, announced: Hash) -> Result<Self, ClipError> {
        format.check()?;
        Ok(Self {
            format,
            announced,
            wav: Vec::with_capacity(format.wav_bytes as usize),
            hasher: Sha256::new(),
        })
    }

    /// The number of bytes still to come.
    pub fn missing_bytes(&self) -> usize {
        self.format.wav_bytes as usize - self.wav.len()
    }

    /// Accepts the next bytes.
    ///
    /// # Errors
    /// [`ClipError::Surplus`] when there are more than were announced.
    pub fn push(&mut self, block: &[u8]) -> Result<(), ClipError> {
        if block.len() > self.missing_bytes() {
            let received = (self.wav.len() + block.len()) as u64;
            return Err(ClipError::Surplus { announced: self.format.wav_bytes, received });
        }
        self.hasher.update(block);
        self.wav.extend_from_slice(block);
        Ok(())
    }

    /// Returns the clip if it is complete, matches the announced hash, and has the right header.
    ///
    /// # Errors
    /// [`ClipError::Size`], [`ClipError::Hash`], [`ClipError::HeaderDisagrees`].
    pub fn finish(self) -> Result<Clip, ClipError> {
        if self.missing_bytes() > 0 {
            return Err(ClipError::Size { bytes: self.wav.len() as u64 });
        }
        let sha256: Hash = self.hasher.finalize().into();
        if sha256 != self.announced {
            return Err(ClipError::Hash {
                announced: hex(&self.announced[..4]),
                received: hex(&sha256[..4]),
            });
        }
        if self.wav[..WAV_HEADER_BYTES] != self.format.header() {
            return Err(ClipError::HeaderDisagrees);
        }
        Ok(Clip { wav: self.wav.into(), format: self.format, sha256 })
    }
}

/// The loudest sample in dB below full scale; [`SILENCE_DB`] for silence.
pub fn peak_db(samples: &[f32]) -> f32 {
    let peak = samples.iter().fold(0.0_f32, |peak, sample| peak.max(sample.abs()));
    if peak < SILENCE { SILENCE_DB } else { 20.0 * peak.log10() }
}

#[cfg(test)]
mod tests;
