//! Decodes the packets of a container to frames.

use symphonia::core::audio::Channels;
use symphonia::core::audio::sample::Sample;
use symphonia::core::codecs::audio::well_known::CODEC_ID_FLAC;
use symphonia::core::codecs::audio::{
    AudioCodecId, AudioCodecParameters, AudioDecoder as SymphoniaDecoder, AudioDecoderOptions,
};
use symphonia::core::errors::Error;
use symphonia::core::packet::PacketRef;
use symphonia::core::units::{Duration, Timestamp};

use super::flac;
use super::opus::OpusStream;
use super::part::{Block, Fault};

/// Decodes packets; nothing is trimmed here.
pub(super) struct Decoder {
    kind: Kind,
    /// Whether packets carry checksums of their own, as FLAC's do.
    has_checksums: bool,
    interleaved: Vec<f32>,
}

enum Kind {
    Symphonia(Box<dyn SymphoniaDecoder>),
    Opus(Box<OpusStream>),
}

impl Decoder {
    /// Creates a decoder of a codec; `name` is the codec's name for users.
    pub(super) fn new(parameters: &AudioCodecParameters, name: &str) -> Result<Self, Fault> {
        // The encoder's delay is known better here than in symphonia.
        let options = AudioDecoderOptions::default().gapless(false);
        let made = symphonia::default::get_codecs().make_audio_decoder(parameters, &options);
        let decoder = made.map_err(|error| match error {
            Error::Unsupported(_) => Fault::Unsupported(name.into()),
            other => Fault::Bad(format!("its header of {name} is damaged ({other}): export it again")),
        })?;
        let has_checksums = parameters.codec == CODEC_ID_FLAC;
        Ok(Self { kind: Kind::Symphonia(decoder), has_checksums, interleaved: Vec::new() })
    }

    /// Creates a decoder of Opus from its identification header.
    pub(super) fn opus(head: &[u8]) -> Result<Self, Fault> {
        let kind = Kind::Opus(Box::new(OpusStream::new(head)?));
        Ok(Self { kind, has_checksums: false, interleaved: Vec::new() })
    }

    /// Decodes one packet. `frames` is how many frames it holds, if its codec does not say so.
    ///
    /// # Errors
    /// The decoder's error.
    pub(super) fn decode(&mut self, packet: &[u8], frames: u64) -> Result<Block<'_>, String> {
        if self.has_checksums && flac::checksum(packet) != 0 {
            return Err("the checksum of a frame is wrong".into());
        }
        match &mut self.kind {
            Kind::Opus(stream) => stream.decode(packet),
            Kind::Symphonia(decoder) => {
                let packet = PacketRef::new(0, Timestamp::ZERO, Duration::new(frames), packet);
                let decoded = decoder.decode_ref(&packet).map_err(|error| error.to_string())?;
                let (rate_hz, channels) = (decoded.spec().rate(), decoded.spec().channels().count());
                self.interleaved.resize(decoded.samples_interleaved(), f32::MID);
                decoded.copy_to_slice_interleaved(&mut self.interleaved);
                Ok(Block { interleaved: &self.interleaved, channels, rate_hz })
            }
        }
    }
}

/// Returns the parameters of a codec whose container states channels and rate.
pub(super) fn parameters(codec: AudioCodecId, rate_hz: u32, channels: u16) -> AudioCodecParameters {
    let mut parameters = AudioCodecParameters::new();
    parameters.for_codec(codec).with_sample_rate(rate_hz).with_channels(Channels::Discrete(channels));
    parameters
}
