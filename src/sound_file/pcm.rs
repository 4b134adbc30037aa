//! Sound in blocks of one size: PCM, the telephone's logarithmic PCM, and ADPCM, as WAV, AIFF and AU store it.

use symphonia::core::codecs::audio::AudioCodecId;
use symphonia::core::codecs::audio::well_known::{CODEC_ID_ADPCM_IMA_WAV, CODEC_ID_ADPCM_MS};

use super::bytes::Bytes;
use super::decoder::{Decoder, parameters};
use super::part::{Fault, Part, check};

/// The number of frames of PCM decoded at a time.
const PACKET_FRAMES: usize = 4_096;
/// Lengths in headers of programs that write to a pipe and do not know the length: all ones from ffmpeg and others; somewhat
/// below or at 2³¹ from sox, espeak-ng and arecord.
const UNKNOWN_LENGTHS: [std::ops::RangeInclusive<u64>; 2] =
    [0x7f00_0000..=0x8000_0000, 0xffff_0000..=0xffff_ffff];

/// How sound is stored.
#[derive(Debug, Clone, Copy)]
pub(super) struct Blocks {
    codec: AudioCodecId,
    name: &'static str,
    rate_hz: u32,
    channels: u16,
    block_bytes: usize,
    block_frames: u32,
}

impl Blocks {
    /// Describes PCM with `sample_bytes` bytes per sample and channel.
    pub(super) fn pcm(
        codec: AudioCodecId,
        sample_bytes: usize,
        rate_hz: u32,
        channels: u16,
    ) -> Result<Self, Fault> {
        check(channels.into(), rate_hz)?;
        let block_bytes = sample_bytes * usize::from(channels);
        Ok(Self { codec, name: "PCM", rate_hz, channels, block_bytes, block_frames: 1 })
    }

    /// Describes ADPCM as in WAV, in blocks of `block_bytes` bytes.
    pub(super) fn adpcm(
        codec: AudioCodecId,
        block_bytes: u16,
        rate_hz: u32,
        channels: u16,
    ) -> Result<Self, Fault> {
        let name = if codec == CODEC_ID_ADPCM_MS { "MS ADPCM" } else { "IMA ADPCM" };
        check(channels.into(), rate_hz)?;
        if channels > 2 {
            return Err(Fault::Unsupported(format!("{name} of {channels} channels")));
        }
        let mut blocks =
            Self { codec, name, rate_hz, channels, block_bytes: block_bytes.into(), block_frames: 0 };
        blocks.block_frames = blocks.frames_in(block_bytes.into());
        if blocks.block_frames < 2 {
            return Err(Fault::Bad(format!(
                "its header says blocks of {block_bytes} bytes: export it again"
            )));
        }
        Ok(blocks)
    }

    /// Returns the number of frames in the first `bytes` bytes of a block.
    fn frames_in(&self, bytes: usize) -> u32 {
        let channels = usize::from(self.channels);
        // Each channel's block begins with its state: two samples in MS ADPCM, one in IMA ADPCM. After that, a byte holds two
        // samples; those of IMA ADPCM come eight at a time for each channel.
        let frames = match self.codec {
            CODEC_ID_ADPCM_MS if bytes >= 7 * channels => 2 + (bytes - 7 * channels) * 2 / channels,
            CODEC_ID_ADPCM_IMA_WAV if bytes >= 4 * channels => {
                1 + (bytes - 4 * channels) / (4 * channels) * 8
            }
            CODEC_ID_ADPCM_MS | CODEC_ID_ADPCM_IMA_WAV => 0,
            _ => bytes / self.block_bytes,
        };
        frames as u32
    }

    fn frames(&self, bytes: u64) -> u64 {
        bytes / self.block_bytes as u64 * u64::from(self.block_frames)
    }

    /// Takes `claimed` bytes of sound from `bytes`, decodes them, and appends them to `part`.
    pub(super) fn read(&self, bytes: &mut Bytes<'_>, claimed: Length, part: &mut Part) -> Result<(), Fault> {
        let length = match claimed {
            Length::Known(length) if length <= bytes.left() => length,
            Length::Known(length) => {
                return Err(Fault::Bad(format!(
                    "its header claims {length} bytes of sound, the file has {}: it is truncated, copy it again",
                    bytes.all()
                )));
            }
            Length::Unknown => bytes.left(),
        };
        Part::expect(self.frames(length), self.rate_hz)?;
        let data = usize::try_from(length).ok().and_then(|length| bytes.take(length));
        let data = data.ok_or_else(Fault::truncated)?;
        let before = part.frames();
        self.decode(data, part)?;
        if matches!(claimed, Length::Unknown) && part.frames() > before {
            let read = (part.frames() - before) as f64 / f64::from(self.rate_hz);
            part.warnings.push(format!(
                "its header does not say how long it is: all {read:.1} s to the end of the file are taken"
            ));
        }
        Ok(())
    }

    fn decode(&self, data: &[u8], part: &mut Part) -> Result<(), Fault> {
        let is_pcm = self.block_frames == 1;
        let packet_bytes = if is_pcm { self.block_bytes * PACKET_FRAMES } else { self.block_bytes };
        let mut parameters = parameters(self.codec, self.rate_hz, self.channels);
        if !is_pcm {
            let frames = u64::from(self.block_frames);
            parameters.with_max_frames_per_packet(frames).with_frames_per_block(frames);
        }
        let mut decoder = Decoder::new(&parameters, self.name)?;
        let mut padded = Vec::new();
        for packet in data.chunks(packet_bytes) {
            // The last block of ADPCM may be shorter.
            let frames = self.frames_in(packet.len());
            let whole = if is_pcm || packet.len() == packet_bytes {
                packet
            } else {
                padded.clear();
                padded.extend_from_slice(packet);
                padded.resize(packet_bytes, 0);
                &padded
            };
            let decoded = decoder.decode(whole, self.block_frames.into());
            let mut block = decoded.map_err(|error| part.damaged(&error))?;
            let samples = (frames as usize * block.channels).min(block.interleaved.len());
            block.interleaved = &block.interleaved[..samples];
            part.push(block)?;
        }
        Ok(())
    }
}

/// What a header states about the length of its sound, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Length {
    Known(u64),
    /// The sound lasts to the end of the file.
    Unknown,
}

impl Length {
    /// Judges the length in the header of a file whose header also states the file's size. The length is unknown if the file is
    /// shorter than that length, the stated size is 0 or exceeds the file too, and the length is one of [`UNKNOWN_LENGTHS`].
    pub(super) fn claimed(bytes: u64, file_bytes: u64, all: u64) -> Self {
        let is_open = file_bytes == 0 || file_bytes.saturating_add(8) > all;
        let is_unknown = is_open && bytes > all && UNKNOWN_LENGTHS.iter().any(|range| range.contains(&bytes));
        if is_unknown { Self::Unknown } else { Self::Known(bytes) }
    }
}
