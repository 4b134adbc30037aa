//! Matroska and WebM (RFC 9559) in EBML (RFC 8794): the first audio track.

use symphonia::core::codecs::audio::well_known::{
    CODEC_ID_AAC, CODEC_ID_ALAC, CODEC_ID_MP1, CODEC_ID_MP2, CODEC_ID_MP3, CODEC_ID_PCM_F32LE,
    CODEC_ID_PCM_F64LE, CODEC_ID_PCM_S16BE, CODEC_ID_PCM_S16LE, CODEC_ID_PCM_S24BE, CODEC_ID_PCM_S24LE,
    CODEC_ID_PCM_S32BE, CODEC_ID_PCM_S32LE, CODEC_ID_PCM_U8, CODEC_ID_VORBIS,
};
use symphonia::core::codecs::audio::{AudioCodecId, AudioCodecParameters};

use super::bytes::Bytes;
use super::decoder::{Decoder, parameters};
use super::flac::{self, StreamInfo};
use super::opus::OpusHead;
use super::part::{Fault, Part, check};

/// The first bytes of a file.
pub(super) const MAGIC: &[u8] = &[0x1a, 0x45, 0xdf, 0xa3];

const EBML: u32 = 0x1a45_dfa3;
const SEGMENT: u32 = 0x1853_8067;
const INFO: u32 = 0x1549_a966;
const TIMESTAMP_SCALE: u32 = 0x2a_d7b1;
const DURATION: u32 = 0x4489;
const TRACKS: u32 = 0x1654_ae6b;
const TRACK_ENTRY: u32 = 0xae;
const TRACK_NUMBER: u32 = 0xd7;
const TRACK_TYPE: u32 = 0x83;
const CODEC_ID: u32 = 0x86;
const CODEC_PRIVATE: u32 = 0x63a2;
const CODEC_DELAY: u32 = 0x56aa;
const AUDIO: u32 = 0xe1;
const SAMPLING_FREQUENCY: u32 = 0xb5;
const CHANNELS: u32 = 0x9f;
const BIT_DEPTH: u32 = 0x6264;
const CONTENT_ENCODINGS: u32 = 0x6d80;
const CONTENT_ENCODING: u32 = 0x6240;
const CONTENT_COMPRESSION: u32 = 0x5034;
const CONTENT_ENCRYPTION: u32 = 0x5035;
const COMPRESSION_ALGORITHM: u32 = 0x4254;
const COMPRESSION_SETTINGS: u32 = 0x4255;
const CLUSTER: u32 = 0x1f43_b675;
const SIMPLE_BLOCK: u32 = 0xa3;
const BLOCK_GROUP: u32 = 0xa0;
const BLOCK: u32 = 0xa1;
const DISCARD_PADDING: u32 = 0x75a2;

/// The type of an audio track.
const SOUND: u64 = 2;
/// The compression that only omits the bytes that all frames begin with.
const HEADER_STRIPPING: u64 = 3;
const NANOSECONDS: i128 = 1_000_000_000;
/// The length of a timestamp's tick, unless the file says otherwise.
const DEFAULT_SCALE_NS: u64 = 1_000_000;

struct Element<'a> {
    id: u32,
    /// `None` if it lasts until something comes that cannot be in it.
    bytes: Option<u64>,
    body: Bytes<'a>,
}

/// Reads the next element's header; `bytes` is then at its body. `None` at the end, and if there is no header.
fn header<'a>(bytes: &mut Bytes<'a>) -> Option<Element<'a>> {
    let (id, _) = number(bytes, 4, true)?;
    let (size, is_unknown) = number(bytes, 8, false)?;
    Some(Element { id: id as u32, bytes: (!is_unknown).then_some(size), body: *bytes })
}

/// Reads a number whose first byte shows how many bytes it has, with or without the bit that marks this; also returns whether all
/// other bits are set.
fn number(bytes: &mut Bytes<'_>, max_bytes: u32, keeps_marker: bool) -> Option<(u64, bool)> {
    let first = *bytes.rest().first()?;
    let length = first.leading_zeros() + 1;
    if length > max_bytes {
        return None;
    }
    let raw = bytes.take(length as usize)?.iter().fold(0, |number, &byte| number << 8 | u64::from(byte));
    let marker = 1_u64 << (7 * length);
    let value = raw & (marker - 1);
    Some((if keeps_marker { raw } else { value }, value == marker - 1))
}

/// Returns the children of an element that is complete and in memory.
fn children(body: &[u8]) -> impl Iterator<Item = (u32, &[u8])> {
    let mut bytes = Bytes::whole(body);
    std::iter::from_fn(move || {
        let element = header(&mut bytes)?;
        let body = bytes.take(usize::try_from(element.bytes?).ok()?)?;
        Some((element.id, body))
    })
}

fn unsigned(body: &[u8]) -> u64 {
    body.iter().take(8).fold(0, |number, &byte| number << 8 | u64::from(byte))
}

fn signed(body: &[u8]) -> i64 {
    let unused = 64 - 8 * body.len().clamp(1, 8) as u32;
    ((unsigned(body) << unused) as i64) >> unused
}

fn float(body: &[u8]) -> Option<f64> {
    match body.len() {
        4 => Some(f32::from_be_bytes(body.try_into().ok()?).into()),
        8 => Some(f64::from_be_bytes(body.try_into().ok()?)),
        _ => None,
    }
}

/// The track that is read.
struct Track {
    number: u64,
    decoder: Decoder,
    /// False until the first block of Vorbis, which only prepares the next.
    is_prepared: bool,
    /// The bytes that all frames begin with, omitted from them.
    prefix: Vec<u8>,
    /// The delay before the sound; in frames for codecs that state it themselves.
    delay: Delay,
    frames: Option<u64>,
}

#[derive(Clone, Copy)]
enum Delay {
    Nanoseconds(u64),
    Frames(u64),
}

impl Track {
    /// Parses a track; `None` if it is not sound.
    fn parse(body: &[u8]) -> Result<Option<Self>, Fault> {
        let (mut number, mut kind, mut codec, mut private) = (0, 0, "", &[][..]);
        let (mut rate_hz, mut channels, mut bits, mut delay_ns) = (8_000.0, 1, 0, 0);
        let mut prefix = Vec::new();
        for (id, body) in children(body) {
            match id {
                TRACK_NUMBER => number = unsigned(body),
                TRACK_TYPE => kind = unsigned(body),
                CODEC_ID => codec = std::str::from_utf8(body).unwrap_or_default().trim_end_matches('\0'),
                CODEC_PRIVATE => private = body,
                CODEC_DELAY => delay_ns = unsigned(body),
                AUDIO => {
                    for (id, body) in children(body) {
                        match id {
                            SAMPLING_FREQUENCY => rate_hz = float(body).unwrap_or_default(),
                            CHANNELS => channels = unsigned(body),
                            BIT_DEPTH => bits = unsigned(body),
                            _ => {}
                        }
                    }
                }
                CONTENT_ENCODINGS => prefix = stripped(body)?,
                _ => {}
            }
        }
        if kind != SOUND {
            return Ok(None);
        }
        let rate_hz = rate_hz as u32;
        let channels = u16::try_from(channels).unwrap_or(0);
        check(channels.into(), rate_hz)?;
        let (mut delay, mut frames) = (Delay::Nanoseconds(delay_ns), None);
        let simple = |codec: AudioCodecId, name| Decoder::new(&parameters(codec, rate_hz, channels), name);
        let decoder = match codec {
            "A_OPUS" => {
                delay = Delay::Frames(OpusHead::parse(private)?.pre_skip.into());
                Decoder::opus(private)?
            }
            "A_VORBIS" => {
                let mut parameters = AudioCodecParameters::new();
                parameters.for_codec(CODEC_ID_VORBIS).with_extra_data(vorbis_headers(private)?.into());
                Decoder::new(&parameters, "Vorbis")?
            }
            "A_FLAC" => {
                let mut bytes = Bytes::whole(private.strip_prefix(flac::MAGIC).unwrap_or_default());
                let info = StreamInfo::read(&mut bytes)?;
                info.check_length()?;
                frames = info.frames;
                info.decoder()?
            }
            "A_MPEG/L1" => simple(CODEC_ID_MP1, "MP1")?,
            "A_MPEG/L2" => simple(CODEC_ID_MP2, "MP2")?,
            "A_MPEG/L3" => simple(CODEC_ID_MP3, "MP3")?,
            "A_ALAC" => {
                let mut parameters = parameters(CODEC_ID_ALAC, rate_hz, channels);
                Decoder::new(parameters.with_extra_data(private.into()), "ALAC")?
            }
            _ if codec.starts_with("A_AAC") && !private.is_empty() => {
                let mut parameters = parameters(CODEC_ID_AAC, rate_hz, channels);
                Decoder::new(parameters.with_extra_data(private.into()), "AAC")?
            }
            _ => {
                let codec = match (codec, bits) {
                    ("A_PCM/INT/LIT" | "A_PCM/INT/BIG", 8) => CODEC_ID_PCM_U8,
                    ("A_PCM/INT/LIT", 16) => CODEC_ID_PCM_S16LE,
                    ("A_PCM/INT/LIT", 24) => CODEC_ID_PCM_S24LE,
                    ("A_PCM/INT/LIT", 32) => CODEC_ID_PCM_S32LE,
                    ("A_PCM/INT/BIG", 16) => CODEC_ID_PCM_S16BE,
                    ("A_PCM/INT/BIG", 24) => CODEC_ID_PCM_S24BE,
                    ("A_PCM/INT/BIG", 32) => CODEC_ID_PCM_S32BE,
                    ("A_PCM/FLOAT/IEEE", 32) => CODEC_ID_PCM_F32LE,
                    ("A_PCM/FLOAT/IEEE", 64) => CODEC_ID_PCM_F64LE,
                    (other, _) => {
                        let name: String = other.chars().filter(char::is_ascii_graphic).take(40).collect();
                        return Err(Fault::Unsupported(format!("Matroska of the codec {name}")));
                    }
                };
                simple(codec, "PCM")?
            }
        };
        Ok(Some(Self { number, decoder, is_prepared: codec != "A_VORBIS", prefix, delay, frames }))
    }

    /// Decodes a block, if it belongs to this track.
    fn take(&mut self, block: &[u8], part: &mut Part) -> Result<(), Fault> {
        let damaged = |part: &Part| part.damaged("a block of it is too short");
        let mut bytes = Bytes::whole(block);
        let (track, _) = number(&mut bytes, 8, false).ok_or_else(|| damaged(part))?;
        if track != self.number {
            return Ok(());
        }
        let [_, _, flags] = bytes.array().ok_or_else(|| damaged(part))?;
        let frames = unlaced(bytes, flags >> 1 & 3).ok_or_else(|| damaged(part))?;
        for frame in frames {
            let whole = [&self.prefix, frame].concat();
            if whole.is_empty() {
                continue;
            }
            let decoded = self.decoder.decode(&whole, 0).map_err(|error| part.damaged(&error))?;
            if self.is_prepared {
                part.push(decoded)?;
            }
            self.is_prepared = true;
        }
        Ok(())
    }
}

/// Returns the bytes that header stripping omitted from each frame.
fn stripped(encodings: &[u8]) -> Result<Vec<u8>, Fault> {
    let mut prefix = Vec::new();
    for (_, encoding) in children(encodings).filter(|(id, _)| *id == CONTENT_ENCODING) {
        for (id, body) in children(encoding) {
            let field = |wanted| children(body).find(|(id, _)| *id == wanted).map(|(_, body)| body);
            match id {
                CONTENT_ENCRYPTION => return Err(Fault::Unsupported("encrypted Matroska".into())),
                CONTENT_COMPRESSION => {
                    if field(COMPRESSION_ALGORITHM).map(unsigned) != Some(HEADER_STRIPPING) {
                        return Err(Fault::Unsupported("compressed tracks of Matroska".into()));
                    }
                    prefix = field(COMPRESSION_SETTINGS).unwrap_or_default().into();
                }
                _ => {}
            }
        }
    }
    Ok(prefix)
}

/// Returns the first and third of Vorbis's three headers, which are packed into one.
fn vorbis_headers(private: &[u8]) -> Result<Vec<u8>, Fault> {
    (|| {
        let mut bytes = Bytes::whole(private);
        let [2] = bytes.array()? else { return None };
        let (head, comment) = (xiph_length(&mut bytes)?, xiph_length(&mut bytes)?);
        let head = bytes.take(head)?;
        bytes.take(comment)?;
        Some([head, bytes.rest()].concat())
    })()
    .ok_or_else(|| Fault::Bad("its header of Vorbis is damaged: export it again".into()))
}

fn xiph_length(bytes: &mut Bytes<'_>) -> Option<usize> {
    let mut length = 0;
    loop {
        let [byte] = bytes.array()?;
        length += usize::from(byte);
        if byte < u8::MAX {
            return Some(length);
        }
    }
}

/// Returns the frames of a block; several may share it ("lacing").
fn unlaced(mut bytes: Bytes<'_>, lacing: u8) -> Option<Vec<&[u8]>> {
    if lacing == 0 {
        return Some(vec![bytes.rest()]);
    }
    let [others] = bytes.array()?;
    let others = usize::from(others);
    let mut lengths = Vec::with_capacity(others);
    match lacing {
        1 => {
            for _ in 0..others {
                lengths.push(xiph_length(&mut bytes)?);
            }
        }
        2 => lengths.resize(others, bytes.rest().len() / (others + 1)),
        _ => {
            let mut length = 0_i64;
            for index in 0..others {
                let before = bytes.rest().len();
                let value = i64::try_from(number(&mut bytes, 8, false)?.0).ok()?;
                let width = before - bytes.rest().len();
                // All but the first are differences, centred on half of what their bytes can express.
                let step = if index == 0 { value } else { value - ((1 << (7 * width - 1)) - 1) };
                length = length.saturating_add(step);
                lengths.push(usize::try_from(length).ok()?);
            }
        }
    }
    let mut frames = lengths.into_iter().map(|length| bytes.take(length)).collect::<Option<Vec<_>>>()?;
    frames.push(bytes.rest());
    Some(frames)
}

/// What has been read of a file.
struct Reader {
    track: Option<Track>,
    part: Part,
    scale_ns: u64,
    /// The duration of the longest track, in ticks.
    duration: Option<f64>,
    /// The number of frames in the longest block.
    longest_block: u64,
    discard_ns: i64,
}

impl Reader {
    fn tracks(&mut self, body: &[u8]) -> Result<(), Fault> {
        let mut fault = None;
        for (_, entry) in children(body).filter(|(id, _)| *id == TRACK_ENTRY) {
            match Track::parse(entry) {
                Ok(Some(track)) => {
                    self.track.get_or_insert(track);
                }
                Ok(None) => {}
                Err(error) => fault = fault.or(Some(error)),
            }
        }
        match (&self.track, fault) {
            (None, Some(fault)) => Err(fault),
            _ => Ok(()),
        }
    }

    fn block(&mut self, block: &[u8], discard_ns: i64) -> Result<(), Fault> {
        let Some(track) = &mut self.track else { return Ok(()) };
        let before = self.part.frames();
        track.take(block, &mut self.part)?;
        let frames = self.part.frames() - before;
        if frames > 0 {
            self.longest_block = self.longest_block.max(frames);
            self.discard_ns = discard_ns;
        }
        Ok(())
    }

    fn finish(mut self) -> Result<Part, Fault> {
        let Some(track) = self.track else {
            return Err(Fault::Unsupported("Matroska without a track of sound".into()));
        };
        let (frames, rate_hz) = (self.part.frames(), i128::from(self.part.sound.rate_hz.max(1)));
        let to_frames = |ns: i128| {
            u64::try_from(ns.saturating_mul(rate_hz).saturating_add(NANOSECONDS / 2) / NANOSECONDS)
                .unwrap_or(u64::MAX)
        };
        // The file's length includes its whole last block, which may be cut short; with more than one track, it is the length of
        // the longest.
        let says = self.duration.map(|ticks| (ticks * self.scale_ns as f64) as i128).map(to_frames);
        let is_short = says.is_some_and(|says| frames + 2 * self.longest_block < says);
        if is_short || track.frames.is_some_and(|says| frames < says) {
            let has = self.part.seconds();
            return Err(Fault::Bad(format!(
                "it ends after {has:.1} s, before its end: it is truncated, copy it again"
            )));
        }
        let start = match track.delay {
            Delay::Frames(frames) => frames,
            Delay::Nanoseconds(ns) => to_frames(ns.into()),
        };
        self.part.keep(start, frames.saturating_sub(to_frames(self.discard_ns.max(0).into())));
        Ok(self.part)
    }
}

/// Reads the first file; also returns how many bytes it occupies.
pub(super) fn read(file: Bytes<'_>) -> Result<(Part, usize), Fault> {
    let mut reader = Reader {
        track: None,
        part: Part::new(),
        scale_ns: DEFAULT_SCALE_NS,
        duration: None,
        longest_block: 0,
        discard_ns: 0,
    };
    let mut bytes = file;
    let mut has_segment = false;
    loop {
        let before = bytes;
        let Some(element) = header(&mut bytes) else {
            if before.is_empty() {
                break;
            }
            // Half a header, or not an element.
            return Err(reader.part.damaged("it ends, or is broken, in the middle"));
        };
        if element.id == EBML && has_segment {
            bytes = before;
            break;
        }
        let is_within = element.bytes.is_none_or(|size| size <= element.body.left());
        match element.id {
            SEGMENT | CLUSTER if is_within => {
                has_segment = true;
                continue;
            }
            _ => {}
        }
        let body = element.bytes.and_then(|size| bytes.take(usize::try_from(size).ok()?));
        let Some(body) = body else { return Err(Fault::truncated()) };
        match element.id {
            INFO => {
                for (id, body) in children(body) {
                    match id {
                        TIMESTAMP_SCALE => reader.scale_ns = unsigned(body),
                        DURATION => reader.duration = float(body).filter(|ticks| ticks.is_finite()),
                        _ => {}
                    }
                }
            }
            TRACKS => reader.tracks(body)?,
            SIMPLE_BLOCK => reader.block(body, 0)?,
            BLOCK_GROUP => {
                let discard = children(body).find(|(id, _)| *id == DISCARD_PADDING);
                let discard_ns = discard.map_or(0, |(_, body)| signed(body));
                for (_, block) in children(body).filter(|(id, _)| *id == BLOCK) {
                    reader.block(block, discard_ns)?;
                }
            }
            _ => {}
        }
    }
    Ok((reader.finish()?, file.rest().len() - bytes.rest().len()))
}
