//! WAV: RIFF ("Multimedia Programming Interface and Data Specifications 1.0", IBM and Microsoft, 1991), with
//! WAVEFORMATEXTENSIBLE, and RF64 (EBU Tech 3306) for files over 4 GiB.

use symphonia::core::codecs::audio::AudioCodecId;
use symphonia::core::codecs::audio::well_known::{
    CODEC_ID_ADPCM_IMA_WAV, CODEC_ID_ADPCM_MS, CODEC_ID_PCM_ALAW, CODEC_ID_PCM_F32LE, CODEC_ID_PCM_F64LE,
    CODEC_ID_PCM_MULAW, CODEC_ID_PCM_S16LE, CODEC_ID_PCM_S24LE, CODEC_ID_PCM_S32LE, CODEC_ID_PCM_U8,
};

use super::bytes::Bytes;
use super::mpeg;
use super::part::{Fault, Part, check};
use super::pcm::{Blocks, Length};

/// The bytes that the identifiers of WAVEFORMATEXTENSIBLE have in common, after their first two bytes.
const SUBFORMAT_TAIL: [u8; 14] = [0, 0, 0, 0, 0x10, 0, 0x80, 0, 0, 0xaa, 0, 0x38, 0x9b, 0x71];

/// The `fmt ` chunk.
struct Format {
    tag: u16,
    channels: u16,
    rate_hz: u32,
    block_bytes: u16,
    /// Bits of a sample's container; if fewer are valid, they are the upper ones.
    bits: u16,
}

/// Reads the first WAV; also returns how many bytes it occupies.
pub(super) fn read(file: Bytes<'_>) -> Result<(Part, usize), Fault> {
    let mut bytes = file;
    let mut part = Part::new();
    let header: Option<([u8; 4], [u8; 4], [u8; 4])> =
        (|| Some((bytes.array()?, bytes.array()?, bytes.array()?)))();
    let Some((kind, riff_bytes, _)) = header else { return Err(Fault::truncated()) };
    let mut riff_bytes = u64::from(u32::from_le_bytes(riff_bytes));
    let (mut format, mut long_data_bytes, mut has_data) = (None, None, false);
    loop {
        // Another file might follow the last chunk.
        let before = bytes;
        if has_data && file.left() - bytes.left() >= riff_bytes.saturating_add(8) {
            break;
        }
        let Some((id, chunk_bytes)) = next_chunk(&mut bytes) else { break };
        match &id {
            b"ds64" => {
                let mut sizes = bytes;
                if let (Some(riff), Some(data)) = (sizes.array(), sizes.array()) {
                    riff_bytes = u64::from_le_bytes(riff);
                    long_data_bytes = Some(u64::from_le_bytes(data));
                }
            }
            b"fmt " => {
                let body = bytes.rest().get(..chunk_bytes as usize).ok_or_else(Fault::truncated)?;
                format = Some(parse_format(body)?);
            }
            b"data" => {
                let format = format.as_ref().ok_or_else(|| {
                    Fault::Bad("its header does not say how its sound is stored: export it again".into())
                })?;
                let claimed = match (chunk_bytes, long_data_bytes) {
                    (u32::MAX, Some(long)) if kind != *b"RIFF" => Length::Known(long),
                    // The sizes were meant to be filled in at the end, which never happened.
                    (0, _) if covers_only(riff_bytes, file.left() - bytes.left()) && !bytes.is_empty() => {
                        Length::Unknown
                    }
                    (short, _) => Length::claimed(short.into(), riff_bytes, file.all()),
                };
                let at = bytes;
                decode(format, &mut bytes, claimed, &mut part)?;
                has_data = true;
                if (at.left() - bytes.left()) % 2 == 1 && !begins_chunk(bytes.rest()) {
                    bytes.take(1);
                }
                continue;
            }
            _ if has_data && u64::from(chunk_bytes) > bytes.left() => {
                bytes = before;
                break;
            }
            _ => {}
        }
        skip(&mut bytes, chunk_bytes)?;
    }
    if format.is_none() {
        return Err(Fault::Bad("it is a WAV without a header of its sound: export it again".into()));
    }
    Ok((part, file.rest().len() - bytes.rest().len()))
}

/// Whether RIFF's own size ends with a header of `header_bytes` bytes, or says nothing.
fn covers_only(riff_bytes: u64, header_bytes: u64) -> bool {
    riff_bytes == u64::from(u32::MAX) || riff_bytes.saturating_add(8) <= header_bytes
}

/// Returns the next chunk's name and size; `None` if there is no name.
fn next_chunk(bytes: &mut Bytes<'_>) -> Option<([u8; 4], u32)> {
    let before = *bytes;
    let chunk = (|| Some((bytes.array()?, u32::from_le_bytes(bytes.array()?))))();
    match chunk {
        Some((id, _)) if is_name(&id) => chunk,
        _ => {
            *bytes = before;
            None
        }
    }
}

fn is_name(id: &[u8; 4]) -> bool {
    id.iter().all(|byte| (b' '..=b'~').contains(byte))
}

fn begins_chunk(bytes: &[u8]) -> bool {
    bytes.first_chunk().is_some_and(is_name)
}

/// Skips a chunk's body, and the byte that pads it to an even size: most programs write one, some do not.
fn skip(bytes: &mut Bytes<'_>, chunk_bytes: u32) -> Result<(), Fault> {
    bytes.take(chunk_bytes as usize).ok_or_else(Fault::truncated)?;
    let padded = bytes.after(1);
    let is_padded =
        bytes.rest().first() == Some(&0) || begins_chunk(padded.rest()) || !begins_chunk(bytes.rest());
    if chunk_bytes % 2 == 1 && is_padded {
        *bytes = padded;
    }
    Ok(())
}

fn parse_format(body: &[u8]) -> Result<Format, Fault> {
    let mut bytes = Bytes::whole(body);
    let parsed = (|| {
        let tag = u16::from_le_bytes(bytes.array()?);
        let channels = u16::from_le_bytes(bytes.array()?);
        let rate_hz = u32::from_le_bytes(bytes.array()?);
        let _bytes_a_second: [u8; 4] = bytes.array()?;
        let block_bytes = u16::from_le_bytes(bytes.array()?);
        let bits = u16::from_le_bytes(bytes.array()?);
        Some(Format { tag, channels, rate_hz, block_bytes, bits })
    })();
    let mut format = parsed.ok_or_else(|| Fault::Bad("its header is too short: export it again".into()))?;
    if format.tag == 0xfffe {
        // The extension's size, the valid bits and the loudspeakers' positions come first.
        let subformat: Option<([u8; 2], [u8; 14])> =
            bytes.take(8).and_then(|_| Some((bytes.array()?, bytes.array()?)));
        match subformat {
            Some((tag, SUBFORMAT_TAIL)) => format.tag = u16::from_le_bytes(tag),
            _ => return Err(Fault::Unsupported("a WAV of an unknown kind".into())),
        }
    }
    Ok(format)
}

fn decode(format: &Format, bytes: &mut Bytes<'_>, claimed: Length, part: &mut Part) -> Result<(), Fault> {
    let &Format { tag, channels, rate_hz, block_bytes, bits } = format;
    check(channels.into(), rate_hz)?;
    let pcm = |codec: AudioCodecId, sample_bytes| Blocks::pcm(codec, sample_bytes, rate_hz, channels);
    let blocks = match tag {
        1 | 3 => {
            // The block size gives the container, in which a sample's valid bits are the upper ones.
            let container = block_bytes / channels;
            if block_bytes % channels != 0 || container < bits.div_ceil(8) || bits == 0 {
                return Err(Fault::Bad(format!(
                    "its header says {bits} bits a sample in blocks of {block_bytes} bytes: export it again"
                )));
            }
            match (tag, container) {
                (1, 1) => pcm(CODEC_ID_PCM_U8, 1)?,
                (1, 2) => pcm(CODEC_ID_PCM_S16LE, 2)?,
                (1, 3) => pcm(CODEC_ID_PCM_S24LE, 3)?,
                (1, 4) => pcm(CODEC_ID_PCM_S32LE, 4)?,
                (3, 4) => pcm(CODEC_ID_PCM_F32LE, 4)?,
                (3, 8) => pcm(CODEC_ID_PCM_F64LE, 8)?,
                (_, other) => {
                    let kind = if tag == 1 { "integers" } else { "floating point" };
                    return Err(Fault::Unsupported(format!("WAV of {kind} of {other} bytes a sample")));
                }
            }
        }
        6 => pcm(CODEC_ID_PCM_ALAW, 1)?,
        7 => pcm(CODEC_ID_PCM_MULAW, 1)?,
        0x02 => Blocks::adpcm(CODEC_ID_ADPCM_MS, block_bytes, rate_hz, channels)?,
        0x11 => Blocks::adpcm(CODEC_ID_ADPCM_IMA_WAV, block_bytes, rate_hz, channels)?,
        0x50 | 0x55 => return mpeg_within(bytes, claimed, part),
        other => return Err(Fault::Unsupported(format!("WAV of {}", tag_name(other)))),
    };
    blocks.read(bytes, claimed, part)
}

/// Reads MP3 or MP2 inside a WAV.
fn mpeg_within(bytes: &mut Bytes<'_>, claimed: Length, part: &mut Part) -> Result<(), Fault> {
    let data = match claimed {
        Length::Known(length) => usize::try_from(length).ok().and_then(|length| bytes.take(length)),
        Length::Unknown => bytes.take(bytes.rest().len()),
    };
    let (sound, _) = mpeg::read(Bytes::whole(data.ok_or_else(Fault::truncated)?))?;
    part.append(sound)
}

fn tag_name(tag: u16) -> String {
    let name = match tag {
        0x31 => "GSM 6.10",
        0x45 | 0x64 => "G.726",
        0x65 | 0x28f => "G.722",
        0x42 | 0x111 => "G.723",
        0x22 => "TrueSpeech",
        0x20 => "Yamaha ADPCM",
        0x160..=0x163 => "Windows Media",
        0xff | 0x1600 | 0x1601 => "AAC",
        0x2000 => "AC-3",
        other => return format!("the kind {other:#06x}"),
    };
    name.into()
}
