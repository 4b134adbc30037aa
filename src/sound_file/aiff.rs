//! AIFF and AIFF-C (Apple, 1989 and 1991), and AU (Sun's `audio_filehdr`).

use symphonia::core::codecs::audio::AudioCodecId;
use symphonia::core::codecs::audio::well_known::{
    CODEC_ID_PCM_ALAW, CODEC_ID_PCM_F32BE, CODEC_ID_PCM_F64BE, CODEC_ID_PCM_MULAW, CODEC_ID_PCM_S8,
    CODEC_ID_PCM_S16BE, CODEC_ID_PCM_S16LE, CODEC_ID_PCM_S24BE, CODEC_ID_PCM_S24LE, CODEC_ID_PCM_S32BE,
    CODEC_ID_PCM_S32LE, CODEC_ID_PCM_U8,
};

use super::bytes::Bytes;
use super::part::{Fault, Part};
use super::pcm::{Blocks, Length};

/// The `COMM` chunk.
struct Common {
    channels: u16,
    frames: u32,
    bits: u16,
    rate_hz: u32,
    compression: [u8; 4],
}

/// Reads the first AIFF or AIFF-C; also returns how many bytes it occupies.
pub(super) fn read_aiff(file: Bytes<'_>) -> Result<(Part, usize), Fault> {
    let mut bytes = file.after(4);
    let form_bytes = bytes.array().map(u32::from_be_bytes).ok_or_else(Fault::truncated)?;
    let is_compressed = bytes.array() == Some(*b"AIFC");
    let mut part = Part::new();
    let (mut common, mut has_sound) = (None, false);
    while !bytes.is_empty() {
        // Another file might follow the last chunk.
        let before = bytes;
        if has_sound && file.left() - bytes.left() >= u64::from(form_bytes) + 8 {
            break;
        }
        let Some((id, chunk_bytes)) = (|| Some((bytes.array::<4>()?, u32::from_be_bytes(bytes.array()?))))()
        else {
            break;
        };
        match &id {
            b"COMM" => {
                let body = bytes.rest().get(..chunk_bytes as usize).ok_or_else(Fault::truncated)?;
                common = Some(parse_common(body, is_compressed)?);
            }
            b"SSND" => {
                let common = common.as_ref().ok_or_else(|| {
                    Fault::Bad("its header does not say how its sound is stored: export it again".into())
                })?;
                let offset = bytes.array::<8>().ok_or_else(Fault::truncated)?;
                let [offset, _] =
                    [0, 4].map(|at| u32::from_be_bytes([0, 1, 2, 3].map(|byte| offset[at + byte])));
                bytes.take(offset as usize).ok_or_else(Fault::truncated)?;
                let claimed = u64::from(chunk_bytes).saturating_sub(8 + u64::from(offset));
                let length = if chunk_bytes == 0 && !bytes.is_empty() {
                    Length::Unknown
                } else {
                    Length::claimed(claimed, form_bytes.into(), file.all())
                };
                let blocks = blocks(common)?;
                blocks.read(&mut bytes, length, &mut part)?;
                if length != Length::Unknown && part.frames() < common.frames.into() {
                    return Err(Fault::truncated());
                }
                has_sound = true;
                if chunk_bytes % 2 == 1 {
                    bytes.take(1);
                }
                continue;
            }
            _ if has_sound && u64::from(chunk_bytes) > bytes.left() => {
                bytes = before;
                break;
            }
            _ => {}
        }
        bytes.take(chunk_bytes as usize).ok_or_else(Fault::truncated)?;
        if chunk_bytes % 2 == 1 {
            bytes.take(1);
        }
    }
    Ok((part, file.rest().len() - bytes.rest().len()))
}

fn parse_common(body: &[u8], is_compressed: bool) -> Result<Common, Fault> {
    let mut bytes = Bytes::whole(body);
    (|| {
        let channels = u16::from_be_bytes(bytes.array()?);
        let frames = u32::from_be_bytes(bytes.array()?);
        let bits = u16::from_be_bytes(bytes.array()?);
        let rate_hz = extended(bytes.array()?)?;
        let compression = if is_compressed { bytes.array()? } else { *b"NONE" };
        Some(Common { channels, frames, bits, rate_hz, compression })
    })()
    .ok_or_else(|| Fault::Bad("its header is too short, or its rate impossible: export it again".into()))
}

/// Converts an 80-bit number of IEEE 754's extended precision, if it is a rate.
fn extended(bytes: [u8; 10]) -> Option<u32> {
    let [high, low, mantissa @ ..] = bytes;
    let exponent = i32::from(u16::from_be_bytes([high, low])) - 16_383;
    let mantissa = u64::from_be_bytes(mantissa);
    (0..32).contains(&exponent).then(|| (mantissa >> (63 - exponent)) as u32)
}

fn blocks(common: &Common) -> Result<Blocks, Fault> {
    let &Common { channels, bits, rate_hz, compression, .. } = common;
    let sample_bytes = bits.div_ceil(8);
    let (codec, sample_bytes): (AudioCodecId, usize) = match (&compression, sample_bytes) {
        (b"NONE" | b"twos", 1) => (CODEC_ID_PCM_S8, 1),
        (b"NONE" | b"twos", 2) => (CODEC_ID_PCM_S16BE, 2),
        (b"NONE" | b"twos" | b"in24", 3) => (CODEC_ID_PCM_S24BE, 3),
        (b"NONE" | b"twos" | b"in32", 4) => (CODEC_ID_PCM_S32BE, 4),
        (b"raw ", _) => (CODEC_ID_PCM_U8, 1),
        (b"sowt", 1) => (CODEC_ID_PCM_S8, 1),
        (b"sowt", 2) => (CODEC_ID_PCM_S16LE, 2),
        (b"sowt", 3) => (CODEC_ID_PCM_S24LE, 3),
        (b"sowt", 4) => (CODEC_ID_PCM_S32LE, 4),
        (b"fl32" | b"FL32", _) => (CODEC_ID_PCM_F32BE, 4),
        (b"fl64" | b"FL64", _) => (CODEC_ID_PCM_F64BE, 8),
        (b"ulaw" | b"ULAW", _) => (CODEC_ID_PCM_MULAW, 1),
        (b"alaw" | b"ALAW", _) => (CODEC_ID_PCM_ALAW, 1),
        (other, _) => {
            let name = String::from_utf8_lossy(other).into_owned();
            return Err(Fault::Unsupported(format!("AIFF of the kind {name:?} with {bits} bits a sample")));
        }
    };
    Blocks::pcm(codec, sample_bytes, rate_hz, channels)
}

/// Reads the first AU; also returns how many bytes it occupies.
pub(super) fn read_au(file: Bytes<'_>) -> Result<(Part, usize), Fault> {
    let mut bytes = file.after(4);
    let mut field = || bytes.array().map(u32::from_be_bytes).ok_or_else(Fault::truncated);
    let (offset, data_bytes, kind, rate_hz, channels) = (field()?, field()?, field()?, field()?, field()?);
    let (codec, sample_bytes): (AudioCodecId, usize) = match kind {
        1 => (CODEC_ID_PCM_MULAW, 1),
        2 => (CODEC_ID_PCM_S8, 1),
        3 => (CODEC_ID_PCM_S16BE, 2),
        4 => (CODEC_ID_PCM_S24BE, 3),
        5 => (CODEC_ID_PCM_S32BE, 4),
        6 => (CODEC_ID_PCM_F32BE, 4),
        7 => (CODEC_ID_PCM_F64BE, 8),
        27 => (CODEC_ID_PCM_ALAW, 1),
        other => return Err(Fault::Unsupported(format!("AU of the kind {other}"))),
    };
    let channels = u16::try_from(channels).unwrap_or(0);
    let blocks = Blocks::pcm(codec, sample_bytes, rate_hz, channels)?;
    let mut bytes = file.after(offset as usize);
    let mut part = Part::new();
    let length = if data_bytes == u32::MAX { Length::Unknown } else { Length::Known(data_bytes.into()) };
    blocks.read(&mut bytes, length, &mut part)?;
    Ok((part, file.rest().len() - bytes.rest().len()))
}
