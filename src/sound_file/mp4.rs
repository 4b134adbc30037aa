//! MP4, M4A, MOV and 3GP (ISO/IEC 14496-12): symphonia reads the packets, and the edit list decides what is heard of them.

use std::io::{self, Cursor};

use symphonia::core::codecs::audio::AudioCodecId;
use symphonia::core::codecs::audio::well_known::{
    CODEC_ID_OPUS, CODEC_ID_PCM_F32BE, CODEC_ID_PCM_F64BE, CODEC_ID_PCM_S24BE, CODEC_ID_PCM_S32BE,
};
use symphonia::core::errors::Error;
use symphonia::core::formats::probe::Hint;
use symphonia::core::formats::{FormatOptions, TrackType};
use symphonia::core::io::MediaSourceStream;
use symphonia::core::meta::MetadataOptions;

use super::bytes::Bytes;
use super::decoder::Decoder;
use super::part::{Fault, Part};

/// The name of the box `ftyp`, after its length.
pub(super) const MAGIC: &[u8] = b"ftyp";
/// iTunes writes the encoder's delay here, in hexadecimal, if there is no edit list.
const ITUNES_DELAY: &[u8] = b"iTunSMPB";
/// The longest delay of any encoder, in frames.
const MAX_ITUNES_DELAY: u64 = 16_384;

/// The path to the description of how a track's packets are coded.
const SAMPLE_DESCRIPTIONS: &[&[u8; 4]] = &[b"mdia", b"minf", b"stbl", b"stsd"];

/// The most packets of all tracks: PCM may have one per frame. A table of a few bytes can claim a thousand times as many.
const MAX_PACKETS: u32 = 1 << 25;

/// A box: its name and its body.
type Atom<'a> = ([u8; 4], &'a [u8]);

fn atoms(body: &[u8]) -> impl Iterator<Item = Atom<'_>> {
    let mut bytes = Bytes::whole(body);
    std::iter::from_fn(move || {
        let (size, name) = (u32::from_be_bytes(bytes.array()?), bytes.array::<4>()?);
        let length = match size {
            0 => bytes.rest().len(),
            1 => usize::try_from(u64::from_be_bytes(bytes.array()?)).ok()?.checked_sub(16)?,
            size => (size as usize).checked_sub(8)?,
        };
        Some((name, bytes.take(length)?))
    })
}

fn find<'a>(body: &'a [u8], path: &[&[u8; 4]]) -> Option<&'a [u8]> {
    path.iter()
        .try_fold(body, |body, name| atoms(body).find(|(found, _)| found == *name).map(|(_, body)| body))
}

/// One entry of an edit list.
struct Edit {
    /// In ticks of the movie; 0 for the whole rest.
    duration: u64,
    /// In ticks of the track; −1 for silence.
    start: i64,
    /// In 65,536ths of the usual speed.
    rate: u32,
}

/// Reads a field of a full box: 32 bits in version 0, 64 bits in version 1.
fn field(bytes: &mut Bytes<'_>, version: u8) -> Option<u64> {
    if version == 1 {
        bytes.array().map(u64::from_be_bytes)
    } else {
        bytes.array().map(u32::from_be_bytes).map(u64::from)
    }
}

/// Returns the ticks per second of a movie (`mvhd`) or a track (`mdhd`).
fn timescale(header: &[u8]) -> Option<u64> {
    let mut bytes = Bytes::whole(header);
    let [version, ..] = bytes.array::<4>()?;
    field(&mut bytes, version)?;
    field(&mut bytes, version)?;
    bytes.array().map(u32::from_be_bytes).map(u64::from).filter(|&scale| scale > 0)
}

fn edits(list: &[u8]) -> Option<Vec<Edit>> {
    let mut bytes = Bytes::whole(list);
    let [version, ..] = bytes.array::<4>()?;
    let count = u32::from_be_bytes(bytes.array()?);
    let mut edits = Vec::new();
    for _ in 0..count {
        let duration = field(&mut bytes, version)?;
        let start = field(&mut bytes, version)?;
        let start = if version == 1 { start as i64 } else { i64::from(start as u32 as i32) };
        let rate = u32::from_be_bytes(bytes.array()?);
        edits.push(Edit { duration, start, rate });
    }
    Some(edits)
}

/// What a file states about the timing of one track.
struct Timing {
    movie_scale: u64,
    track_scale: u64,
    edits: Vec<Edit>,
    /// Frames before the sound, according to iTunes.
    itunes_delay: Option<u64>,
    /// The true codec, if it is a big-endian one that symphonia takes for little-endian.
    big_endian: Option<AudioCodecId>,
}

impl Timing {
    fn find(movie: &[u8], track_id: u32) -> Option<Self> {
        let track = atoms(movie).filter(|(name, _)| name == b"trak").map(|(_, body)| body).find(|track| {
            find(track, &[b"tkhd"]).and_then(|header| {
                let mut bytes = Bytes::whole(header);
                let [version, ..] = bytes.array::<4>()?;
                field(&mut bytes, version)?;
                field(&mut bytes, version)?;
                bytes.array().map(u32::from_be_bytes)
            }) == Some(track_id)
        })?;
        let list = find(track, &[b"edts", b"elst"]);
        let edits = match list {
            Some(list) => edits(list)?,
            None => Vec::new(),
        };
        Some(Self {
            movie_scale: timescale(find(movie, &[b"mvhd"])?)?,
            track_scale: timescale(find(track, &[b"mdia", b"mdhd"])?)?,
            edits,
            itunes_delay: itunes_delay(movie),
            big_endian: big_endian(track),
        })
    }
}

/// Returns the codec of a QuickTime track with larger samples, which are big-endian unless the box `enda` says otherwise.
fn big_endian(track: &[u8]) -> Option<AudioCodecId> {
    let descriptions = find(track, SAMPLE_DESCRIPTIONS)?;
    let is_little = descriptions.windows(6).any(|window| window == b"enda\0\x01");
    match descriptions.get(12..)?.first_chunk()? {
        _ if is_little => None,
        b"in24" => Some(CODEC_ID_PCM_S24BE),
        b"in32" => Some(CODEC_ID_PCM_S32BE),
        b"fl32" => Some(CODEC_ID_PCM_F32BE),
        b"fl64" => Some(CODEC_ID_PCM_F64BE),
        _ => None,
    }
}

/// Describes the first audio track for users.
fn codec_name(movie: &[u8]) -> String {
    let tracks = atoms(movie).filter(|(name, _)| name == b"trak").map(|(_, body)| body);
    let mut sounds = tracks.filter(|track| {
        find(track, &[b"mdia", b"hdlr"]).and_then(|handler| handler.get(8..12)) == Some(b"soun")
    });
    let Some(sound) = sounds.next() else { return "without sound".into() };
    match find(sound, SAMPLE_DESCRIPTIONS).and_then(|descriptions| descriptions.get(12..16)) {
        Some(b"samr") => "of AMR".into(),
        Some(b"sawb") => "of wideband AMR".into(),
        Some(b"mp4a") => "of AAC that is not plain AAC-LC of one or two channels".into(),
        Some(other) => format!("of the codec {:?}", String::from_utf8_lossy(other)),
        None => "of an unknown codec".into(),
    }
}

fn itunes_delay(movie: &[u8]) -> Option<u64> {
    let at = movie.windows(ITUNES_DELAY.len()).position(|window| window == ITUNES_DELAY)?;
    let text = movie.get(at + ITUNES_DELAY.len()..)?;
    let text = text.get(..64.min(text.len()))?;
    // The header of the box `data` with type and country, then " 00000000 00000840 …".
    let text = std::str::from_utf8(text.get(16..)?).ok()?;
    let delay = u64::from_str_radix(text.split_whitespace().nth(1)?, 16).ok()?;
    (delay < MAX_ITUNES_DELAY).then_some(delay)
}

/// Reads the file; it occupies all bytes.
pub(super) fn read(file: Bytes<'_>) -> Result<(Part, usize), Fault> {
    check_whole(file)?;
    let bytes = file.rest();
    let movies: Vec<&[u8]> = atoms(bytes).filter(|(name, _)| name == b"moov").map(|(_, body)| body).collect();
    let [movie] = movies[..] else {
        return Err(Fault::Bad(if movies.is_empty() {
            "it has no table of contents: it is truncated, or was never finished".into()
        } else {
            "it is several files joined: give one of them".into()
        }));
    };
    let unknown = || Fault::Unsupported(format!("MP4 {}", codec_name(movie)));
    let damaged = |error: Error| match error {
        Error::Unsupported(_) => unknown(),
        error => Fault::Bad(format!("its table of contents is damaged ({error}): copy or export it again")),
    };
    let stream = MediaSourceStream::new(Box::new(Cursor::new(bytes)), Default::default());
    let (format, metadata) = (FormatOptions::default(), MetadataOptions::default());
    let probed = symphonia::default::get_probe().probe(&Hint::new(), stream, format, metadata);
    let mut reader = probed.map_err(damaged)?;
    let track = reader.default_track(TrackType::Audio).ok_or_else(unknown)?;
    let (id, promised) = (track.id, track.num_frames);
    let parameters = track.codec_params.as_ref().and_then(|parameters| parameters.audio());
    let mut parameters = parameters.ok_or_else(unknown)?.clone();
    let timing = Timing::find(movie, id)
        .ok_or_else(|| Fault::Bad("its table of contents is damaged: copy or export it again".into()))?;
    if let Some(codec) = timing.big_endian {
        parameters.for_codec(codec);
    }
    let mut decoder = match &parameters.extra_data {
        Some(head) if parameters.codec == CODEC_ID_OPUS => Decoder::opus(head)?,
        _ => Decoder::new(&parameters, &format!("MP4 {}", codec_name(movie)))?,
    };
    let mut part = Part::new();
    // The frame at which each packet ends.
    let mut ends = Vec::new();
    let mut packets = 0;
    loop {
        packets += 1;
        if packets > MAX_PACKETS {
            return Err(part.damaged("it has too many packets"));
        }
        let packet = match reader.next_packet() {
            Ok(Some(packet)) => packet,
            Ok(None) => break,
            Err(Error::IoError(error)) if error.kind() == io::ErrorKind::UnexpectedEof => {
                return Err(Fault::truncated());
            }
            Err(error) => return Err(part.damaged(&error.to_string())),
        };
        if packet.track_id != id {
            continue;
        }
        let block = decoder.decode(&packet.data, packet.dur.get());
        part.push(block.map_err(|error| part.damaged(&error))?)?;
        ends.push(part.frames());
    }
    if promised.is_some_and(|frames| frames > part.frames()) {
        return Err(Fault::truncated());
    }
    Ok((heard(part, &ends, &timing)?, bytes.len()))
}

/// Refuses a file that ends inside a box.
fn check_whole(file: Bytes<'_>) -> Result<(), Fault> {
    let mut bytes = file;
    while let Some(size) = bytes.array().map(u32::from_be_bytes) {
        if bytes.take(4).is_none() {
            break;
        }
        let length = match size {
            0 => return Ok(()),
            1 => bytes.array().map(u64::from_be_bytes).and_then(|size| size.checked_sub(16)),
            size => u64::from(size).checked_sub(8),
        };
        let Some(length) = length else { break };
        if usize::try_from(length).ok().and_then(|length| bytes.take(length)).is_none() {
            return Err(Fault::truncated());
        }
    }
    Ok(())
}

/// Returns what the edit list, or iTunes's note, keeps of a track.
fn heard(mut part: Part, ends: &[u64], timing: &Timing) -> Result<Part, Fault> {
    let rate_hz = part.sound.rate_hz;
    let frames = |ticks: u64, scale: u64| {
        let rounded = (u128::from(ticks) * u128::from(rate_hz) + u128::from(scale) / 2) / u128::from(scale);
        u64::try_from(rounded).unwrap_or(u64::MAX)
    };
    // If the track begins later than the movie, there is nothing to wait for.
    let edits: Vec<&Edit> = timing.edits.iter().skip_while(|edit| edit.start < 0).collect();
    if edits.is_empty() {
        part.keep(timing.itunes_delay.unwrap_or_default(), u64::MAX);
        return Ok(part);
    }
    let all = std::mem::take(&mut part.sound.samples);
    for (index, edit) in edits.iter().enumerate() {
        let length = frames(edit.duration, timing.movie_scale);
        let Ok(start) = u64::try_from(edit.start) else {
            let length = usize::try_from(length).unwrap_or(usize::MAX);
            Part::expect((part.sound.samples.len() as u64).saturating_add(length as u64), rate_hz)?;
            part.sound.samples.resize(part.sound.samples.len() + length, 0.0);
            continue;
        };
        if edit.rate != 0x1_0000 {
            return Err(Fault::Unsupported("MP4 whose edit list changes its speed".into()));
        }
        let start = frames(start, timing.track_scale);
        let mut end = if edit.duration == 0 { u64::MAX } else { start.saturating_add(length) };
        if index + 1 == edits.len() {
            // Movies often count in milliseconds, so the packet in which the last edit ends is kept whole: a little of the
            // encoder's padding is better than a word cut short.
            end = ends.iter().copied().find(|&packet| packet >= end).unwrap_or(u64::MAX);
        }
        let within = |frame: u64| usize::try_from(frame).unwrap_or(all.len()).min(all.len());
        let (start, end) = (within(start), within(end));
        part.sound.samples.extend_from_slice(&all[start.min(end)..end]);
        Part::expect(part.frames(), rate_hz)?;
    }
    Ok(part)
}
