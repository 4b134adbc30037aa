//! MP3, and the layers before it: frames of ISO/IEC 11172-3 and 13818-3, one after the other, in a file that does not state its
//! length except in a tag that many encoders put into its first frame.

use symphonia::core::codecs::audio::AudioCodecParameters;
use symphonia::core::codecs::audio::well_known::{CODEC_ID_MP1, CODEC_ID_MP2, CODEC_ID_MP3};

use super::bytes::Bytes;
use super::decoder::Decoder;
use super::part::{Block, Fault, Part};
use super::tags;

const HEADER_BYTES: usize = 4;
/// How far into a file its first frame may be, after anything else that is there.
const MAX_LEAD_BYTES: usize = 64 * 1_024;
/// The number of frames in a row that cannot be an accident.
const FRAMES_IN_A_ROW: usize = 3;
/// The delay of every decoder, which an encoder's delay does not include.
const DECODER_DELAY_FRAMES: u64 = 528 + 1;

/// The kbit/s of layers I to III, by a header's index minus one.
const MPEG1_KBITS: [[u32; 14]; 3] = [
    [32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448],
    [32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384],
    [32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320],
];
const MPEG2_KBITS: [[u32; 14]; 2] = [
    [32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256],
    [8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160],
];

/// A frame's header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Header {
    is_mpeg1: bool,
    /// 1 to 3.
    layer: usize,
    rate_hz: u32,
    channels: usize,
    has_checksum: bool,
    frame_bytes: usize,
    /// Frames of sound.
    frames: u64,
}

impl Header {
    /// Parses the header at the front; `None` for anything else, and for the free format, which hardly anybody writes.
    fn parse(bytes: &[u8]) -> Option<Self> {
        let &[sync, kind, rates, mode, ..] = bytes else { return None };
        if sync != 0xff || kind & 0xe0 != 0xe0 {
            return None;
        }
        let halvings = match kind >> 3 & 3 {
            3 => 0,
            2 => 1,
            0 => 2,
            _ => return None,
        };
        let is_mpeg1 = halvings == 0;
        let layer = 4 - usize::from(kind >> 1 & 3);
        let rate_hz = [44_100, 48_000, 32_000].get(usize::from(rates >> 2 & 3))? >> halvings;
        let index = usize::from(rates >> 4).checked_sub(1)?;
        let table = if is_mpeg1 { MPEG1_KBITS.get(layer - 1)? } else { &MPEG2_KBITS[usize::from(layer > 1)] };
        let (bits, padding) = (table.get(index)? * 1_000, u32::from(rates >> 1 & 1));
        let (frame_bytes, frames) = match (layer, is_mpeg1) {
            (1, _) => ((12 * bits / rate_hz + padding) * 4, 384),
            (2, _) | (3, true) => (144 * bits / rate_hz + padding, 1_152),
            (3, false) => (72 * bits / rate_hz + padding, 576),
            _ => return None,
        };
        let channels = if mode >> 6 == 3 { 1 } else { 2 };
        let (has_checksum, frame_bytes) = (kind & 1 == 0, frame_bytes as usize);
        Some(Self { is_mpeg1, layer, rate_hz, channels, has_checksum, frame_bytes, frames })
    }

    /// Whether `other` may follow in the same stream.
    fn goes_on_as(&self, other: &Self) -> bool {
        (self.is_mpeg1, self.layer, self.rate_hz) == (other.is_mpeg1, other.layer, other.rate_hz)
    }

    /// Returns the size of layer III's side information.
    fn side_bytes(&self) -> usize {
        match (self.is_mpeg1, self.channels) {
            (true, 1) | (false, 2) => 17,
            (true, _) => 32,
            (false, _) => 9,
        }
    }
}

/// Returns the header at the front of `bytes`, if matching frames follow it: [`FRAMES_IN_A_ROW`] in all, or fewer up to a tag or
/// the end of the file.
fn confirmed(bytes: &[u8]) -> Option<Header> {
    let first = Header::parse(bytes)?;
    let mut rest = bytes.get(first.frame_bytes..)?;
    for _ in 1..FRAMES_IN_A_ROW {
        if rest.is_empty() || tags::length(rest).is_some() {
            break;
        }
        let next = Header::parse(rest).filter(|next| next.goes_on_as(&first))?;
        rest = rest.get(next.frame_bytes.min(rest.len())..)?;
    }
    Some(first)
}

/// What an encoder states about its file in a frame without sound: Xing's tag, with LAME's in it, or Fraunhofer's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Tag {
    /// The number of MPEG frames that follow.
    frames: Option<u64>,
    /// The size of those frames, including the tag's own.
    bytes: Option<u64>,
    /// Frames of sound that the encoder added before and after, if it states them.
    delay: Option<(u64, u64)>,
}

impl Tag {
    fn find(frame: &[u8], header: &Header) -> Option<Self> {
        if header.layer != 3 {
            return None;
        }
        if frame.get(36..40) == Some(b"VBRI") {
            let frames = frame.get(50..54)?.try_into().ok().map(u32::from_be_bytes)?;
            // Encoders differ in whether they count the tag's own frame.
            return Some(Self {
                frames: Some(u64::from(frames).saturating_sub(1)),
                bytes: None,
                delay: None,
            });
        }
        let checksum = if header.has_checksum { 2 } else { 0 };
        let tag =
            [4 + header.side_bytes(), 4 + checksum + header.side_bytes()].into_iter().find_map(|at| {
                let is_quiet =
                    frame.get(4 + checksum..at).is_some_and(|side| side.iter().all(|&byte| byte == 0));
                let tag = frame.get(at..)?;
                (is_quiet && (tag.starts_with(b"Xing") || tag.starts_with(b"Info"))).then_some(tag)
            })?;
        let mut bytes = Bytes::whole(tag.get(4..)?);
        let flags = u32::from_be_bytes(bytes.array()?);
        let frames = if flags & 1 != 0 { Some(u32::from_be_bytes(bytes.array()?).into()) } else { None };
        let all = if flags & 2 != 0 { Some(u32::from_be_bytes(bytes.array()?).into()) } else { None };
        for (flag, size) in [(4, 100), (8, 4)] {
            if flags & flag != 0 {
                bytes.take(size)?;
            }
        }
        let encoder = bytes.array::<9>();
        let delay = bytes.take(12).and_then(|_| bytes.array::<3>());
        let delay = encoder.zip(delay).and_then(|(encoder, [high, middle, low])| {
            let is_known = [b"LAME", b"Lavf", b"Lavc"].iter().any(|known| encoder.starts_with(*known));
            let delay = u64::from(high) << 4 | u64::from(middle >> 4);
            let padding = u64::from(middle & 15) << 8 | u64::from(low);
            is_known.then_some((delay, padding))
        });
        Some(Self { frames, bytes: all, delay })
    }
}

/// The frames that a tag announced, the frames that came, without the tag's own, and the bytes of both.
struct Stretch {
    tag: Tag,
    came: u64,
    bytes: u64,
}

/// Returns where the first frame is.
fn first_frame(bytes: &[u8]) -> Option<usize> {
    (0..bytes.len().min(MAX_LEAD_BYTES)).find(|&at| confirmed(&bytes[at..]).is_some())
}

/// Whether frames begin here, or not far behind.
pub(super) fn is_one(bytes: &[u8]) -> bool {
    first_frame(bytes).is_some()
}

/// Reads all frames, including those of files that were joined to the first; also returns how many bytes they occupy.
pub(super) fn read(file: Bytes<'_>) -> Result<(Part, usize), Fault> {
    let bytes = file.rest();
    let mut part = Part::new();
    let mut at =
        first_frame(bytes).ok_or_else(|| Fault::Bad("it holds no sound: no frame of MP3 is in it".into()))?;
    if bytes[..at].iter().any(|&byte| byte != 0) {
        part.warnings.push(format!("{at} bytes before its first frame are no sound, and are left out"));
    }
    let mut stream: Option<(Header, Decoder)> = None;
    let mut stretch: Option<Stretch> = None;
    let (mut start, mut end) = (None, None);
    let mut has_sound = false;
    while let Some(rest) = bytes.get(at..).filter(|rest| !rest.is_empty()) {
        if let Some(length) = tags::length(rest) {
            at += length;
            continue;
        }
        let known = stream.as_ref().map(|(header, _)| *header);
        let header = match Header::parse(rest) {
            Some(header) if known.is_none_or(|known| known.goes_on_as(&header)) => header,
            _ => match confirmed(rest) {
                Some(header) => header,
                // Part of a header.
                None if rest[0] == 0xff && rest.len() < HEADER_BYTES => return Err(Fault::truncated()),
                None => break,
            },
        };
        let Some(frame) = rest.get(..header.frame_bytes) else {
            let seconds = part.seconds();
            return Err(Fault::Bad(format!(
                "it ends in the middle of a frame, after {seconds:.1} s: it is truncated, copy it again"
            )));
        };
        at += header.frame_bytes;
        if let Some(tag) = Tag::find(frame, &header) {
            finish(stretch.take(), &part, &header)?;
            // Only the two ends of a file are trimmed: where files were joined, everything is kept.
            if let Some((delay, _)) = tag.delay
                && start.is_none()
                && part.frames() == 0
            {
                start = Some(delay + DECODER_DELAY_FRAMES);
            }
            stretch = Some(Stretch { tag, came: 0, bytes: frame.len() as u64 });
            continue;
        }
        let is_same =
            known.is_some_and(|known| known.goes_on_as(&header) && known.channels == header.channels);
        if !is_same {
            stream = Some((header, decoder(&header)?));
        }
        let Some((_, decoder)) = &mut stream else { continue };
        match decoder.decode(frame, header.frames) {
            Ok(block) => {
                has_sound = true;
                part.push(block)?;
            }
            // The first frames of a file that was cut out of another depend on the frames before it.
            Err(_) if !has_sound => {
                let interleaved = &vec![0.0; header.frames as usize];
                part.push(Block { interleaved, channels: 1, rate_hz: header.rate_hz })?;
            }
            Err(error) => return Err(part.damaged(&error)),
        }
        if let Some(stretch) = &mut stretch {
            stretch.came += 1;
            stretch.bytes += frame.len() as u64;
        }
    }
    let Some((header, _)) = stream.filter(|_| has_sound) else {
        return Err(Fault::Bad("it holds no sound: no frame of it can be decoded".into()));
    };
    // Frames after bytes that cannot be skipped would be lost.
    let is_broken = (at + 1..bytes.len()).any(|later| {
        confirmed(&bytes[later..]).is_some_and(|found| {
            found.goes_on_as(&header) && found.frame_bytes * FRAMES_IN_A_ROW <= bytes.len() - later
        })
    });
    if is_broken {
        return Err(part.damaged("its frames do not follow each other"));
    }
    if let Some(stretch) = stretch {
        let Stretch { tag, came, .. } = stretch;
        if tag.frames == Some(came)
            && let Some((_, padding)) = tag.delay
        {
            end = Some(part.frames() - padding.saturating_sub(DECODER_DELAY_FRAMES).min(part.frames()));
        }
        finish(Some(stretch), &part, &header)?;
    }
    part.keep(start.unwrap_or_default(), end.unwrap_or(u64::MAX));
    Ok((part, at))
}

/// Refuses a stretch in which fewer frames came than its tag states.
fn finish(stretch: Option<Stretch>, part: &Part, header: &Header) -> Result<(), Fault> {
    let Some(Stretch { tag: Tag { frames: Some(frames), bytes: all, .. }, came, bytes }) = stretch else {
        return Ok(());
    };
    // Some encoders count the tag's own frame.
    if came >= frames || (came + 1 == frames && all.is_some_and(|all| bytes >= all)) {
        return Ok(());
    }
    let has = part.seconds();
    let says = has + ((frames - came) * header.frames) as f64 / f64::from(header.rate_hz);
    Err(Fault::Bad(format!("it ends after {has:.1} s of {says:.1} s: it is truncated, copy it again")))
}

fn decoder(header: &Header) -> Result<Decoder, Fault> {
    let (codec, name) = match header.layer {
        1 => (CODEC_ID_MP1, "MP1"),
        2 => (CODEC_ID_MP2, "MP2"),
        _ => (CODEC_ID_MP3, "MP3"),
    };
    let mut parameters = AudioCodecParameters::new();
    Decoder::new(parameters.for_codec(codec), name)
}
