//! Reading a sound file of the user's own: WAV, FLAC, MP3, Ogg Vorbis and M4A (AAC or ALAC), mixed to mono.

use std::fs::File;
use std::io::{self, Read, Seek};
use std::path::{Path, PathBuf};
use std::time::Duration;

use hound::{SampleFormat, WavReader};
use symphonia::core::audio::sample::Sample;
use symphonia::core::codecs::audio::AudioDecoderOptions;
use symphonia::core::errors::Error as DecoderError;
use symphonia::core::formats::probe::Hint;
use symphonia::core::formats::{FormatOptions, TrackType};
use symphonia::core::io::MediaSourceStream;
use symphonia::core::meta::MetadataOptions;

use crate::clip::MAX_LENGTH;
use crate::sample::{self, Sound};

/// The endings of the files that can be read, in lower case.
pub const ENDINGS: [&str; 6] = ["wav", "flac", "mp3", "ogg", "oga", "m4a"];
/// What they are called.
const KINDS: &str = "WAV, FLAC, MP3, Ogg Vorbis or M4A";
/// What a WAV begins with.
const WAV_MAGIC: [u8; 4] = *b"RIFF";
/// An encoder's delay and padding: a file may give so many frames less than it promises and be whole.
const ENCODER_FRAMES: u64 = 4_608;

/// What can be wrong with a sound file.
#[derive(Debug, thiserror::Error)]
pub enum SoundFileError {
    /// It could not be opened.
    #[error("cannot read the sound file {}", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It is no WAV.
    #[error("{} is no WAV that bullhorn can read", path.display())]
    NotWav {
        /// The file.
        path: PathBuf,
        /// What the decoder said.
        source: hound::Error,
    },
    /// It is nothing that can be read.
    #[error("{} is no sound that bullhorn can read: give a {KINDS} file", path.display())]
    NotSound {
        /// The file.
        path: PathBuf,
        /// What the decoder said.
        source: DecoderError,
    },
    /// It is damaged, or claims something impossible.
    #[error("{}: {problem}", path.display())]
    Bad {
        /// The file.
        path: PathBuf,
        /// What is wrong, and what to do.
        problem: String,
    },
    /// It is over [`MAX_LENGTH`].
    #[error(
        "{} is over {} s long, and a clip has {} s at most: choose a shorter one",
        path.display(), .length.as_secs(), MAX_LENGTH.as_secs()
    )]
    TooLong {
        /// The file.
        path: PathBuf,
        /// At least so long it is.
        length: Duration,
    },
}

/// Reads a whole file, whatever its ending: what it holds tells its kind. A 16-bit mono WAV comes back to the bit
/// through [`crate::clip::Clip::encode`]. Nothing is taken on a header's word, and no more than [`MAX_LENGTH`] is
/// read into memory.
///
/// # Errors
/// [`SoundFileError`].
pub fn read(path: &Path) -> Result<Sound, SoundFileError> {
    let open = |source| SoundFileError::Open { path: path.into(), source };
    let found = std::fs::metadata(path).map_err(open)?;
    if !found.is_file() {
        return Err(bad(path, "it is no file: name one that holds sound"));
    }
    let mut file = File::open(path).map_err(open)?;
    let mut magic = Vec::new();
    (&mut file).take(WAV_MAGIC.len() as u64).read_to_end(&mut magic).map_err(open)?;
    file.rewind().map_err(open)?;
    if magic == WAV_MAGIC { read_wav(path, file, found.len()) } else { decode(path, file) }
}

/// Whether a name ends as the files do that can be read.
pub fn is_named_like_one(path: &Path) -> bool {
    let ending = path.extension().map(|ending| ending.to_string_lossy().to_lowercase());
    ending.is_some_and(|ending| ENDINGS.contains(&ending.as_str()))
}

fn bad(path: &Path, problem: impl Into<String>) -> SoundFileError {
    SoundFileError::Bad { path: path.into(), problem: problem.into() }
}

fn too_long(path: &Path, frames: u64, rate_hz: u32) -> SoundFileError {
    SoundFileError::TooLong { path: path.into(), length: Duration::from_secs(frames / u64::from(rate_hz)) }
}

fn max_frames(rate_hz: u32) -> u64 {
    MAX_LENGTH.as_secs() * u64::from(rate_hz)
}

/// Any WAV that hound can read: 8, 16, 24 or 32-bit integer, 32-bit float.
fn read_wav(path: &Path, file: File, file_bytes: u64) -> Result<Sound, SoundFileError> {
    let not_wav = |source| SoundFileError::NotWav { path: path.into(), source };
    let mut reader = WavReader::new(io::BufReader::new(file)).map_err(not_wav)?;
    let spec = reader.spec();
    if spec.channels == 0 {
        return Err(bad(path, "its header says 0 channels: export it again"));
    }
    if spec.sample_rate == 0 {
        return Err(bad(path, "its header says 0 Hz: export it again"));
    }
    let data_bytes = u64::from(reader.len()) * u64::from(spec.bits_per_sample.div_ceil(8));
    if data_bytes > file_bytes {
        return Err(bad(
            path,
            format!(
                "its header claims {data_bytes} bytes of sound, the file has {file_bytes}: it is truncated, \
                 copy it again"
            ),
        ));
    }
    let frames = u64::from(reader.duration());
    if frames == 0 {
        return Err(bad(path, "it holds no sound"));
    }
    if frames > max_frames(spec.sample_rate) {
        return Err(too_long(path, frames, spec.sample_rate));
    }
    let interleaved: Vec<f32> = match spec.sample_format {
        SampleFormat::Float => reader.samples::<f32>().collect::<Result<_, _>>(),
        SampleFormat::Int => {
            let full_scale = f64::from(1_u32 << (spec.bits_per_sample.clamp(1, 32) - 1));
            let scaled = |sample: i32| (f64::from(sample) / full_scale) as f32;
            reader.samples::<i32>().map(|sample| sample.map(scaled)).collect::<Result<_, _>>()
        }
    }
    .map_err(|error| match error {
        hound::Error::IoError(_) => {
            bad(path, "it ends before its sound does: it is truncated, copy it again")
        }
        other => not_wav(other),
    })?;
    Ok(Sound { rate_hz: spec.sample_rate, samples: sample::to_mono(&interleaved, spec.channels.into()) })
}

/// Whatever symphonia can decode.
fn decode(path: &Path, file: File) -> Result<Sound, SoundFileError> {
    let not_sound = |source| SoundFileError::NotSound { path: path.into(), source };
    let unsupported = |what| not_sound(DecoderError::Unsupported(what));
    let stream = MediaSourceStream::new(Box::new(file), Default::default());
    let (format, metadata) = (FormatOptions::default(), MetadataOptions::default());
    let probed = symphonia::default::get_probe().probe(&Hint::new(), stream, format, metadata);
    let mut reader = probed.map_err(not_sound)?;
    let track = reader.default_track(TrackType::Audio).ok_or_else(|| unsupported("a track of sound"))?;
    let (id, promised) = (track.id, track.num_frames);
    let parameters = track.codec_params.as_ref().and_then(|parameters| parameters.audio());
    let parameters = parameters.ok_or_else(|| unsupported("its codec"))?;
    let options = AudioDecoderOptions::default();
    let codecs = symphonia::default::get_codecs();
    let mut decoder = codecs.make_audio_decoder(parameters, &options).map_err(not_sound)?;
    let mut sound = Sound { rate_hz: 0, samples: Vec::new() };
    let mut interleaved = Vec::new();
    loop {
        let packet = match reader.next_packet() {
            Ok(Some(packet)) => packet,
            Ok(None) | Err(DecoderError::ResetRequired) => break,
            Err(DecoderError::IoError(error)) if error.kind() == io::ErrorKind::UnexpectedEof => break,
            Err(error) => return Err(damaged(path, &sound, &error)),
        };
        if packet.track_id != id {
            continue;
        }
        let decoded = match decoder.decode(&packet) {
            Ok(decoded) => decoded,
            // The first packet of a file that was cut out of another may lean on those before it.
            Err(DecoderError::DecodeError(_)) if sound.samples.is_empty() => continue,
            Err(error) => return Err(damaged(path, &sound, &error)),
        };
        let (rate_hz, channels) = (decoded.spec().rate(), decoded.spec().channels().count());
        if rate_hz == 0 || channels == 0 {
            return Err(bad(path, format!("it says {channels} channels at {rate_hz} Hz: export it again")));
        }
        if sound.rate_hz != 0 && sound.rate_hz != rate_hz {
            return Err(bad(path, "its rate changes in the middle: export it again"));
        }
        sound.rate_hz = rate_hz;
        interleaved.resize(decoded.samples_interleaved(), f32::MID);
        decoded.copy_to_slice_interleaved(&mut interleaved);
        sound.samples.extend(sample::to_mono(&interleaved, channels));
        let frames = (sound.samples.len() as u64).max(promised.unwrap_or_default());
        if frames > max_frames(rate_hz) {
            return Err(too_long(path, frames, rate_hz));
        }
    }
    if sound.samples.is_empty() {
        return Err(bad(path, "it holds no sound"));
    }
    let (frames, promised) = (sound.samples.len() as u64, promised.unwrap_or_default());
    if frames + ENCODER_FRAMES < promised {
        let (has, says) = (sound.length().as_secs_f64(), promised as f64 / f64::from(sound.rate_hz));
        return Err(bad(
            path,
            format!("it ends after {has:.1} s of {says:.1} s: it is truncated, copy it again"),
        ));
    }
    Ok(sound)
}

fn damaged(path: &Path, sound: &Sound, error: &DecoderError) -> SoundFileError {
    let at = sound.length().as_secs_f64();
    bad(path, format!("it is damaged {at:.1} s from its start ({error}): copy or export it again"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests;
