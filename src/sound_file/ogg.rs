//! Ogg (RFC 3533) with Vorbis, Opus (RFC 7845) or FLAC in it. A page states how many frames there are up to its end: this shows
//! what an encoder added before and after the sound, and whether any sound is missing.

use symphonia::core::codecs::audio::AudioCodecParameters;
use symphonia::core::codecs::audio::well_known::CODEC_ID_VORBIS;

use super::bytes::Bytes;
use super::decoder::Decoder;
use super::flac::{self, StreamInfo};
use super::opus::{HEAD_MAGIC, OpusHead};
use super::part::{Fault, Part};

/// The first bytes of a page.
pub(super) const MAGIC: &[u8] = b"OggS";
const VORBIS_HEAD: &[u8] = b"\x01vorbis";
const FLAC_HEAD: &[u8] = b"\x7fFLAC";
/// The size of a page's header before its table of segments.
const HEADER_BYTES: usize = 27;
/// The largest packet: a FLAC frame.
const MAX_PACKET_BYTES: usize = 16 * 1_024 * 1_024;

struct Page<'a> {
    is_continued: bool,
    is_first: bool,
    is_last: bool,
    /// Frames up to the end of the last packet that ends here; `None` if no packet does.
    granule: Option<i64>,
    serial: u32,
    sequence: u32,
    segments: &'a [u8],
    body: &'a [u8],
}

impl<'a> Page<'a> {
    /// Takes the next page, and verifies its checksum.
    fn take(bytes: &mut Bytes<'a>) -> Result<Self, Fault> {
        let whole = *bytes;
        let header = bytes.array::<HEADER_BYTES>().ok_or_else(Fault::truncated)?;
        let segments = bytes.take(header[26].into()).ok_or_else(Fault::truncated)?;
        let body = segments.iter().map(|&length| usize::from(length)).sum();
        let body = bytes.take(body).ok_or_else(Fault::truncated)?;
        let page = &whole.rest()[..HEADER_BYTES + segments.len() + body.len()];
        let word = |at: usize| [0, 1, 2, 3].map(|byte| header[at + byte]);
        let granule = i64::from_le_bytes([0, 1, 2, 3, 4, 5, 6, 7].map(|byte| header[6 + byte]));
        if header[4] != 0 || u32::from_le_bytes(word(22)) != checksum(page) {
            return Err(Fault::Bad("a page of it is damaged (its checksum is wrong): copy it again".into()));
        }
        Ok(Self {
            is_continued: header[5] & 1 != 0,
            is_first: header[5] & 2 != 0,
            is_last: header[5] & 4 != 0,
            granule: (granule != -1).then_some(granule),
            serial: u32::from_le_bytes(word(14)),
            sequence: u32::from_le_bytes(word(18)),
            segments,
            body,
        })
    }
}

/// Returns the checksum of a page, with the page's own checksum counted as zeros.
fn checksum(page: &[u8]) -> u32 {
    const POLYNOMIAL: u32 = 0x04c1_1db7;
    const TABLE: [u32; 256] = {
        let mut table = [0; 256];
        let mut index = 0;
        while index < 256 {
            let mut crc = (index as u32) << 24;
            let mut bit = 0;
            while bit < 8 {
                crc = if crc & 0x8000_0000 != 0 { crc << 1 ^ POLYNOMIAL } else { crc << 1 };
                bit += 1;
            }
            table[index] = crc;
            index += 1;
        }
        table
    };
    page.iter().enumerate().fold(0, |crc, (at, &byte)| {
        let byte = if (22..26).contains(&at) { 0 } else { byte };
        crc << 8 ^ TABLE[usize::from((crc >> 24) as u8 ^ byte)]
    })
}

/// The codec of a stream of packets.
enum Codec {
    Vorbis { headers: Vec<Vec<u8>> },
    Opus { pre_skip: u64, has_tags: bool },
    Flac { frames: Option<u64> },
}

/// The one stream that is read.
struct Stream {
    serial: u32,
    codec: Codec,
    decoder: Option<Decoder>,
    /// Whether a block has been decoded: the first block of Vorbis only prepares the next.
    is_prepared: bool,
    packet: Vec<u8>,
    next_sequence: u32,
    part: Part,
    /// At the first page that states it: the frames that had come, and those that should have.
    first: Option<(u64, i64)>,
    last: Option<i64>,
    has_ended: bool,
}

impl Stream {
    /// Begins a stream whose first page is `page`; `None` if it is not sound, as far as is known here.
    fn begin(page: &Page<'_>) -> Result<Option<Self>, Fault> {
        let head = page.body;
        let (codec, decoder) = if head.starts_with(VORBIS_HEAD) {
            (Codec::Vorbis { headers: vec![head.into()] }, None)
        } else if head.starts_with(HEAD_MAGIC) {
            let pre_skip = OpusHead::parse(head)?.pre_skip.into();
            (Codec::Opus { pre_skip, has_tags: false }, Some(Decoder::opus(head)?))
        } else if head.starts_with(FLAC_HEAD) {
            // Version and number of headers come before the native magic; the metadata block after it may not be the last.
            let native = Bytes::whole(head.get(9..).unwrap_or_default());
            if !native.starts_with(flac::MAGIC) {
                return Err(Fault::Bad("its header of FLAC is damaged: export it again".into()));
            }
            let mut block = native.after(flac::MAGIC.len()).rest().to_vec();
            if let Some(kind) = block.first_mut() {
                *kind |= 0x80;
            }
            let info = StreamInfo::read(&mut Bytes::whole(&block))?;
            info.check_length()?;
            (Codec::Flac { frames: info.frames }, Some(info.decoder()?))
        } else if head.starts_with(b"Speex   ") {
            return Err(Fault::Unsupported("Ogg Speex".into()));
        } else {
            return Ok(None);
        };
        Ok(Some(Self {
            serial: page.serial,
            codec,
            decoder,
            is_prepared: false,
            packet: Vec::new(),
            next_sequence: page.sequence.wrapping_add(1),
            part: Part::new(),
            first: None,
            last: None,
            has_ended: page.is_last,
        }))
    }

    fn take(&mut self, page: &Page<'_>) -> Result<(), Fault> {
        let is_continued = !self.packet.is_empty();
        if page.sequence != self.next_sequence || page.is_continued != is_continued || self.has_ended {
            return Err(self.part.damaged("a page is missing"));
        }
        self.next_sequence = page.sequence.wrapping_add(1);
        let mut body = Bytes::whole(page.body);
        for &length in page.segments {
            self.packet.extend_from_slice(body.take(length.into()).unwrap_or_default());
            if self.packet.len() > MAX_PACKET_BYTES {
                return Err(self.part.damaged("a packet of it is impossibly long"));
            }
            if length < u8::MAX {
                let packet = std::mem::take(&mut self.packet);
                self.decode(packet)?;
            }
        }
        if let Some(granule) = page.granule.filter(|_| self.is_prepared) {
            self.first.get_or_insert((self.part.frames(), if page.is_last { i64::MAX } else { granule }));
            self.last = Some(granule);
        }
        self.has_ended = page.is_last;
        Ok(())
    }

    fn decode(&mut self, packet: Vec<u8>) -> Result<(), Fault> {
        match &mut self.codec {
            Codec::Vorbis { headers } if headers.len() < 3 => {
                headers.push(packet);
                if let [head, _, setup] = &headers[..] {
                    let mut parameters = AudioCodecParameters::new();
                    parameters.for_codec(CODEC_ID_VORBIS).with_extra_data([&head[..], setup].concat().into());
                    self.decoder = Some(Decoder::new(&parameters, "Vorbis")?);
                }
                return Ok(());
            }
            Codec::Opus { has_tags, .. } if !*has_tags => {
                *has_tags = true;
                return Ok(());
            }
            // A block of metadata.
            Codec::Flac { .. } if packet.first() != Some(&0xff) => return Ok(()),
            _ => {}
        }
        let Some(decoder) = &mut self.decoder else { return Ok(()) };
        if packet.is_empty() {
            return Ok(());
        }
        let block = decoder.decode(&packet, 0).map_err(|error| self.part.damaged(&error))?;
        if self.is_prepared || !matches!(self.codec, Codec::Vorbis { .. }) {
            self.part.push(block)?;
        }
        self.is_prepared = true;
        Ok(())
    }

    /// Cuts off what should not be heard.
    fn finish(mut self) -> Result<Part, Fault> {
        let frames = self.part.frames();
        if !self.has_ended || !self.packet.is_empty() {
            let has = self.part.seconds();
            return Err(Fault::Bad(format!(
                "it ends after {has:.1} s without an end: it is truncated, copy it again"
            )));
        }
        let (Some((came, first)), Some(last)) = (self.first, self.last) else {
            return Err(Fault::Bad("it holds no sound".into()));
        };
        // Negative if the stream begins later than at 0, positive if its first frames should not be heard. A stream of one page
        // states only where it ends.
        let ahead =
            if first == i64::MAX { 0 } else { i64::try_from(came).unwrap_or(i64::MAX).saturating_sub(first) };
        let end = u64::try_from(last.saturating_add(ahead)).unwrap_or(0);
        if end > frames {
            return Err(self.part.damaged("some of its sound is missing"));
        }
        let mut start = u64::try_from(ahead).unwrap_or(0);
        match self.codec {
            // RFC 7845 allows no other beginning.
            Codec::Opus { pre_skip, .. } => start = pre_skip,
            Codec::Flac { frames: Some(all) } if all > frames => {
                return Err(self.part.damaged("some of its sound is missing"));
            }
            _ => {}
        }
        self.part.keep(start, end);
        Ok(self.part)
    }
}

/// Reads the first link of a chain; also returns how many bytes it occupies.
pub(super) fn read(file: Bytes<'_>) -> Result<(Part, usize), Fault> {
    let mut bytes = file;
    let mut stream: Option<Stream> = None;
    let mut are_all_begun = false;
    while bytes.starts_with(MAGIC) {
        let before = bytes;
        let page = Page::take(&mut bytes)?;
        if page.is_first {
            if are_all_begun {
                bytes = before;
                break;
            }
            if stream.is_none() {
                stream = Stream::begin(&page)?;
            }
            continue;
        }
        are_all_begun = true;
        if let Some(stream) = stream.as_mut().filter(|stream| stream.serial == page.serial) {
            stream.take(&page)?;
        }
    }
    let stream =
        stream.ok_or_else(|| Fault::Unsupported("Ogg with neither Vorbis, Opus nor FLAC in it".into()))?;
    Ok((stream.finish()?, file.rest().len() - bytes.rest().len()))
}
