//! Opus (RFC 6716), as containers carry it (RFC 7845): identification header, delay, gain.

use opus_pure::{MAX_PACKET_SAMPLES, OpusMSDecoder};

use super::bytes::Bytes;
use super::part::{Block, Fault};

/// The first bytes of the identification header.
pub(super) const HEAD_MAGIC: &[u8] = b"OpusHead";
/// Opus is always decoded at this rate.
pub(super) const RATE_HZ: u32 = 48_000;
/// A gain of this many steps multiplies the amplitude by 10: the header counts in 1/256 dB.
const GAIN_STEPS: f32 = 20.0 * 256.0;

/// The identification header, RFC 7845 section 5.1.
#[derive(Debug)]
pub(super) struct OpusHead {
    channels: u8,
    /// Frames at 48 kHz that the decoder returns before the sound begins.
    pub pre_skip: u16,
    gain: f32,
    family: u8,
    /// The number of streams, the number of coupled ones among them, and which of their channels goes where.
    mapping: Vec<u8>,
}

impl OpusHead {
    pub(super) fn parse(head: &[u8]) -> Result<Self, Fault> {
        Self::fields(head).ok_or_else(|| {
            Fault::Bad("its Opus header is damaged, or of a later version: export it again".into())
        })
    }

    fn fields(head: &[u8]) -> Option<Self> {
        let mut bytes = Bytes::whole(head.strip_prefix(HEAD_MAGIC)?);
        let [version, channels] = bytes.array()?;
        let pre_skip = u16::from_le_bytes(bytes.array()?);
        let _input_hz: [u8; 4] = bytes.array()?;
        let gain = i16::from_le_bytes(bytes.array()?);
        let [family] = bytes.array()?;
        let mapping = if family == 0 { &[] } else { bytes.take(2 + usize::from(channels))? };
        let gain = 10_f32.powf(f32::from(gain) / GAIN_STEPS);
        (version >> 4 == 0 && channels > 0).then(|| Self {
            channels,
            pre_skip,
            gain,
            family,
            mapping: mapping.into(),
        })
    }
}

/// A decoder, and room for the longest packet.
pub(super) struct OpusStream {
    decoder: OpusMSDecoder,
    channels: usize,
    gain: f32,
    frames: Vec<f32>,
}

impl OpusStream {
    pub(super) fn new(head: &[u8]) -> Result<Self, Fault> {
        let head = OpusHead::parse(head)?;
        let (channels, family) = (usize::from(head.channels), head.family);
        let unusual =
            || Fault::Unsupported(format!("Opus of {channels} channels in mapping family {family}"));
        let decoder = OpusMSDecoder::new(RATE_HZ as i32, channels, family).map_err(|_| unusual())?;
        let layout = decoder.layout();
        if let [streams, coupled, mapping @ ..] = &head.mapping[..]
            && (usize::from(*streams), usize::from(*coupled), mapping)
                != (layout.nb_streams, layout.nb_coupled_streams, &layout.mapping[..])
        {
            return Err(unusual());
        }
        let frames = vec![0.0; MAX_PACKET_SAMPLES * channels];
        Ok(Self { decoder, channels, gain: head.gain, frames })
    }

    pub(super) fn decode(&mut self, packet: &[u8]) -> Result<Block<'_>, String> {
        // An empty packet would make the decoder conceal a lost one, but none may be lost.
        if packet.is_empty() {
            return Err("an empty packet of Opus".into());
        }
        let decoded = self.decoder.decode(packet, MAX_PACKET_SAMPLES, &mut self.frames);
        let frames = decoded.map_err(|error| format!("Opus: {error}"))?;
        let interleaved = &mut self.frames[..frames.min(MAX_PACKET_SAMPLES) * self.channels];
        interleaved.iter_mut().for_each(|sample| *sample *= self.gain);
        Ok(Block { interleaved, channels: self.channels, rate_hz: RATE_HZ })
    }
}
