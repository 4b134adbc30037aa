//! FLAC (RFC 9639).

use symphonia::core::codecs::audio::AudioCodecParameters;
use symphonia::core::codecs::audio::well_known::CODEC_ID_FLAC;

use super::bytes::Bytes;
use super::decoder::Decoder;
use super::part::{Fault, Part};

/// The first bytes of a file.
pub(super) const MAGIC: &[u8] = b"fLaC";
const STREAM_INFO_BYTES: usize = 34;
/// The size of the longest frame.
const MAX_FRAME_BYTES: usize = 16 * 1_024 * 1_024;
/// The number of places in the longest frame that have the right checksum by chance.
const MAX_POSSIBLE_ENDS: usize = MAX_FRAME_BYTES >> 16;

/// What the file states about its whole sound.
pub(super) struct StreamInfo<'a> {
    block: &'a [u8],
    rate_hz: u32,
    /// Frames of sound; `None` if the encoder did not know.
    pub frames: Option<u64>,
}

impl<'a> StreamInfo<'a> {
    fn parse(block: &'a [u8]) -> Option<Self> {
        let block = block.get(..STREAM_INFO_BYTES)?;
        let packed = u64::from_be_bytes(*block.get(10..)?.first_chunk()?);
        let frames = packed & 0xf_ffff_ffff;
        Some(Self { block, rate_hz: (packed >> 44) as u32, frames: (frames > 0).then_some(frames) })
    }

    /// Reads all metadata blocks after the magic bytes; the first of them is this one.
    pub(super) fn read(bytes: &mut Bytes<'a>) -> Result<Self, Fault> {
        let damaged = || Fault::Bad("its header of FLAC is damaged: export it again".into());
        let mut info = None;
        loop {
            let [kind, size @ ..] = bytes.array::<4>().ok_or_else(Fault::truncated)?;
            let [high, middle, low] = size.map(usize::from);
            let block = bytes.take(high << 16 | middle << 8 | low).ok_or_else(Fault::truncated)?;
            if info.is_none() {
                info = Some(StreamInfo::parse(block).filter(|_| kind & 0x7f == 0).ok_or_else(damaged)?);
            }
            if kind & 0x80 != 0 {
                return info.ok_or_else(damaged);
            }
        }
    }

    pub(super) fn decoder(&self) -> Result<Decoder, Fault> {
        let mut parameters = AudioCodecParameters::new();
        parameters.for_codec(CODEC_ID_FLAC).with_extra_data(self.block.into());
        Decoder::new(&parameters, "FLAC")
    }

    /// Refuses a sound over the length limit before it is decoded.
    pub(super) fn check_length(&self) -> Result<(), Fault> {
        Part::expect(self.frames.unwrap_or_default(), self.rate_hz)
    }

    /// Refuses fewer frames than the file states.
    pub(super) fn check_frames(&self, part: &Part) -> Result<(), Fault> {
        let Some(frames) = self.frames.filter(|&frames| frames > part.frames()) else { return Ok(()) };
        let (has, says) = (part.seconds(), frames as f64 / f64::from(self.rate_hz.max(1)));
        Err(Fault::Bad(format!("it ends after {has:.1} s of {says:.1} s: it is truncated, copy it again")))
    }
}

/// A frame's header, as far as it helps to find the next frame.
struct Header {
    /// The number of the frame, or of its first sample if frames vary in length.
    number: u64,
    /// The number of the next frame.
    next_number: u64,
    varies: bool,
}

impl Header {
    fn parse(bytes: &[u8]) -> Option<Self> {
        let &[0xff, kind, sizes, format, first, ..] = bytes else { return None };
        if kind & 0xfe != 0xf8 || sizes >> 4 == 0 || sizes & 15 == 15 || format >> 4 > 10 || format & 1 != 0 {
            return None;
        }
        // The number is coded like a character in UTF-8, in up to seven bytes.
        let more = match first.leading_ones() {
            0 => 0,
            ones @ 2..=7 => ones as usize - 1,
            _ => return None,
        };
        let mut number = u64::from(if more == 0 { first } else { first & (0x3f_u8 >> more) });
        for &byte in bytes.get(5..5 + more)? {
            if byte & 0xc0 != 0x80 {
                return None;
            }
            number = number << 6 | u64::from(byte & 0x3f);
        }
        let mut at = 5 + more;
        let frames = match sizes >> 4 {
            1 => 192,
            code @ 2..=5 => 144 << code,
            6 => {
                at += 1;
                u64::from(*bytes.get(at - 1)?) + 1
            }
            7 => {
                at += 2;
                u64::from(u16::from_be_bytes(*bytes.get(at - 2..)?.first_chunk()?)) + 1
            }
            code => 1 << code,
        };
        at += match sizes & 15 {
            12 => 1,
            13 | 14 => 2,
            _ => 0,
        };
        let checked = bytes.get(..=at)?.iter().fold(0, |crc, &byte| CRC_8[usize::from(crc ^ byte)]);
        let varies = kind & 1 == 1;
        let next_number = number + if varies { frames } else { 1 };
        (checked == 0).then_some(Self { number, next_number, varies })
    }
}

/// The table of the polynomial x⁸ + x² + x + 1, for the checksum of a frame's header.
const CRC_8: [u8; 256] = {
    let mut table = [0; 256];
    let mut index = 0;
    while index < 256 {
        let mut crc = index as u8;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 0x80 != 0 { crc << 1 ^ 0x07 } else { crc << 1 };
            bit += 1;
        }
        table[index] = crc;
        index += 1;
    }
    table
};

/// The table of x¹⁶ + x¹⁵ + x² + 1, for the checksum of a whole frame, which is 0 at the frame's end.
const CRC_16: [u16; 256] = {
    let mut table = [0; 256];
    let mut index = 0;
    while index < 256 {
        let mut crc = (index as u16) << 8;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 0x8000 != 0 { crc << 1 ^ 0x8005 } else { crc << 1 };
            bit += 1;
        }
        table[index] = crc;
        index += 1;
    }
    table
};

/// Returns the checksum of a whole frame, including the frame's own checksum: 0 if it is right.
pub(super) fn checksum(frame: &[u8]) -> u16 {
    frame.iter().fold(0, |crc, &byte| step(crc, byte))
}

fn step(crc: u16, byte: u8) -> u16 {
    crc << 8 ^ CRC_16[usize::from((crc >> 8) as u8 ^ byte)]
}

/// Where a frame might end.
#[derive(Default)]
struct Ends {
    /// An end with the next frame's header after it.
    next: Option<usize>,
    /// Ends by the checksum alone, which is right by chance once in 65,536 bytes.
    possible: Vec<usize>,
}

fn ends(bytes: &[u8], header: &Header) -> Ends {
    let mut ends = Ends::default();
    let mut crc = 0_u16;
    for (index, &byte) in bytes.iter().take(MAX_FRAME_BYTES).enumerate() {
        crc = step(crc, byte);
        if crc != 0 || index < 6 {
            continue;
        }
        let end = index + 1;
        let next = bytes.get(end..).and_then(Header::parse);
        if next.is_some_and(|next| next.varies == header.varies && next.number == header.next_number) {
            ends.next = Some(end);
            break;
        }
        if ends.possible.len() < MAX_POSSIBLE_ENDS {
            ends.possible.push(end);
        }
    }
    ends
}

/// Reads the first FLAC; also returns how many bytes it occupies.
pub(super) fn read(file: Bytes<'_>) -> Result<(Part, usize), Fault> {
    let mut bytes = file.after(MAGIC.len());
    let info = StreamInfo::read(&mut bytes)?;
    info.check_length()?;
    let mut decoder = info.decoder()?;
    let mut part = Part::new();
    while let Some(header) = Header::parse(bytes.rest()) {
        let Ends { next, possible } = ends(bytes.rest(), &header);
        let mut failed = None;
        let mut taken = None;
        // The last frame ends where its checksum and its decoder agree.
        for end in next.into_iter().chain(possible) {
            match decoder.decode(&bytes.rest()[..end], 0) {
                Ok(block) => {
                    part.push(block)?;
                    taken = Some(end);
                    break;
                }
                Err(error) => failed = Some(error),
            }
        }
        match (taken, failed) {
            (Some(end), _) => bytes = bytes.after(end),
            (None, Some(error)) => return Err(part.damaged(&error)),
            (None, None) => {
                info.check_frames(&part)?;
                return Err(part.damaged("a frame's checksum is wrong, or its end is missing"));
            }
        }
        if next.is_none() {
            break;
        }
    }
    info.check_frames(&part)?;
    // If the file does not say how many frames there should be, none may remain after bytes that cannot be read.
    let mut rest = bytes.rest();
    if let Some(other) = rest.windows(MAGIC.len()).position(|window| window == MAGIC) {
        rest = &rest[..other];
    }
    let is_begun = matches!(rest, [0xff] | [0xff, 0xf8 | 0xf9, ..]);
    let are_more = is_begun || (0..rest.len()).any(|at| Header::parse(&rest[at..]).is_some());
    if info.frames.is_none() && are_more {
        return Err(part.damaged("its frames do not follow each other"));
    }
    Ok((part, file.rest().len() - bytes.rest().len()))
}
