//! AAC in ADTS frames (ISO/IEC 13818-7), as in streams and `.aac` files.

use symphonia::core::codecs::audio::well_known::CODEC_ID_AAC;

use super::bytes::Bytes;
use super::decoder::{Decoder, parameters};
use super::part::{Fault, Part};
use super::tags;

const RATES_HZ: [u32; 13] =
    [96_000, 88_200, 64_000, 48_000, 44_100, 32_000, 24_000, 22_050, 16_000, 12_000, 11_025, 8_000, 7_350];
/// The number of frames of sound in a block of AAC.
const BLOCK_FRAMES: u64 = 1_024;
/// The size of a header without a checksum.
const MIN_HEADER_BYTES: usize = 7;

struct Header {
    profile: u8,
    rate_hz: u32,
    channels: u16,
    header_bytes: usize,
    frame_bytes: usize,
    blocks: u8,
}

impl Header {
    fn parse(bytes: &[u8]) -> Option<Self> {
        let &[sync, kind, format, channels, middle, low, blocks, ..] = bytes else { return None };
        if sync != 0xff || kind & 0xf6 != 0xf0 {
            return None;
        }
        let header = Self {
            profile: format >> 6,
            rate_hz: *RATES_HZ.get(usize::from(format >> 2 & 15))?,
            channels: u16::from(format & 1) << 2 | u16::from(channels >> 6),
            header_bytes: if kind & 1 == 0 { MIN_HEADER_BYTES + 2 } else { MIN_HEADER_BYTES },
            frame_bytes: usize::from(channels & 3) << 11 | usize::from(middle) << 3 | usize::from(low >> 5),
            blocks: (blocks & 3) + 1,
        };
        (header.frame_bytes > header.header_bytes).then_some(header)
    }
}

/// Whether ADTS frames begin here.
pub(super) fn is_one(bytes: &[u8]) -> bool {
    Header::parse(bytes).is_some_and(|header| {
        bytes.get(header.frame_bytes..).is_some_and(|rest| rest.is_empty() || Header::parse(rest).is_some())
    })
}

/// Reads all frames; also returns how many bytes they occupy.
pub(super) fn read(file: Bytes<'_>) -> Result<(Part, usize), Fault> {
    let mut part = Part::new();
    let mut bytes = file;
    let mut stream: Option<(u32, u16, Decoder)> = None;
    while !bytes.is_empty() {
        if let Some(length) = tags::length(bytes.rest()) {
            bytes = bytes.after(length);
            continue;
        }
        let Some(header) = Header::parse(bytes.rest()) else {
            // Part of a header.
            if bytes.starts_with(&[0xff]) && bytes.rest().len() < MIN_HEADER_BYTES {
                return Err(Fault::truncated());
            }
            break;
        };
        let Some(frame) = bytes.take(header.frame_bytes) else { return Err(Fault::truncated()) };
        let (rate_hz, channels) = (header.rate_hz, header.channels);
        if header.profile != 1 || header.blocks != 1 || !(1..=2).contains(&channels) {
            return Err(Fault::Unsupported(format!(
                "AAC of profile {} with {channels} channels and {} blocks a frame",
                header.profile, header.blocks
            )));
        }
        if stream.as_ref().is_none_or(|stream| (stream.0, stream.1) != (rate_hz, channels)) {
            let decoder = Decoder::new(&parameters(CODEC_ID_AAC, rate_hz, channels), "AAC")?;
            stream = Some((rate_hz, channels, decoder));
        }
        let Some((_, _, decoder)) = &mut stream else { continue };
        let block = decoder.decode(&frame[header.header_bytes..], BLOCK_FRAMES);
        part.push(block.map_err(|error| part.damaged(&error))?)?;
    }
    Ok((part, file.rest().len() - bytes.rest().len()))
}
