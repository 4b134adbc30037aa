//! How fast each costly step of a clip's way is, compared with the bare library call as its floor: the same work on the
//! same 10 s of sound, in the same run.
#![allow(clippy::unwrap_used)]

use std::io::Cursor;
use std::sync::LazyLock;

use bullhorn::clip::{Clip, Incoming};
use bullhorn::sample::{Sound, resample};
use divan::Bencher;
use divan::counter::BytesCount;
use hound::{SampleFormat, WavReader, WavSpec, WavWriter};
use rubato::audioadapter_buffers::direct::InterleavedSlice;
use rubato::{Fft, FixedSync, Resampler};
use sha2::{Digest, Sha256};

fn main() {
    divan::main();
}

const RATE_HZ: u32 = 48_000;
/// The block size in which the link sends a clip.
const BLOCK_BYTES: usize = 64 * 1024;

static SOUND: LazyLock<Sound> = LazyLock::new(|| Sound {
    rate_hz: RATE_HZ,
    samples: (0..10 * RATE_HZ).map(|frame| (frame as f32 * 0.05).sin() * 0.5).collect(),
});
static CLIP: LazyLock<Clip> = LazyLock::new(|| Clip::encode(&SOUND).unwrap());
static SAMPLES: LazyLock<Vec<i16>> =
    LazyLock::new(|| SOUND.samples.iter().map(|&sample| bullhorn::sample::to_i16(sample)).collect());

fn size() -> BytesCount {
    BytesCount::new(CLIP.wav().len())
}

mod verify {
    use super::*;

    /// Receives block by block, hashes, and compares hash and header.
    #[divan::bench]
    fn bullhorn(bencher: Bencher) {
        bencher.counter(size()).bench(|| {
            let mut incoming = Incoming::new(CLIP.format(), *CLIP.sha256()).unwrap();
            for block in CLIP.wav().chunks(BLOCK_BYTES) {
                incoming.push(block).unwrap();
            }
            incoming.finish().unwrap()
        });
    }

    #[divan::bench]
    fn floor_sha2(bencher: Bencher) {
        bencher.counter(size()).bench(|| Sha256::digest(CLIP.wav()));
    }
}

mod encode {
    use super::*;

    /// Converts to 16 bit, writes WAV, and hashes.
    #[divan::bench]
    fn bullhorn(bencher: Bencher) {
        bencher.counter(size()).bench(|| Clip::encode(&SOUND).unwrap());
    }

    #[divan::bench]
    fn floor_hound_and_sha2(bencher: Bencher) {
        let spec = WavSpec {
            channels: 1,
            sample_rate: RATE_HZ,
            bits_per_sample: 16,
            sample_format: SampleFormat::Int,
        };
        bencher.counter(size()).bench(|| {
            let mut wav = Cursor::new(Vec::with_capacity(CLIP.wav().len()));
            let mut writer = WavWriter::new(&mut wav, spec).unwrap();
            let mut samples = writer.get_i16_writer(SAMPLES.len() as u32);
            SAMPLES.iter().for_each(|&sample| samples.write_sample(sample));
            samples.flush().unwrap();
            writer.finalize().unwrap();
            (Sha256::digest(wav.get_ref()), wav)
        });
    }
}

mod decode {
    use super::*;

    /// Reads a clip's samples as ±1.0.
    #[divan::bench]
    fn bullhorn(bencher: Bencher) {
        bencher.counter(size()).bench(|| CLIP.sound());
    }

    #[divan::bench]
    fn floor_hound(bencher: Bencher) {
        bencher.counter(size()).bench(|| {
            let reader = WavReader::new(Cursor::new(CLIP.wav())).unwrap();
            reader.into_samples::<i16>().map(Result::unwrap).collect::<Vec<_>>()
        });
    }
}

mod resample_48_to_44_khz {
    use super::*;

    /// Resamples the whole clip, with the delay removed, to the exact number of frames.
    #[divan::bench(sample_count = 30)]
    fn bullhorn(bencher: Bencher) {
        bencher.counter(size()).bench(|| resample(&SOUND, 44_100).unwrap().into_owned());
    }

    #[divan::bench(sample_count = 30)]
    fn floor_rubato_fft(bencher: Bencher) {
        bencher.counter(size()).bench(|| {
            let mut resampler = Fft::<f32>::new(RATE_HZ as usize, 44_100, 1024, 1, FixedSync::Input).unwrap();
            let frames = SOUND.samples.len();
            let input = InterleavedSlice::new(&SOUND.samples, 1, frames).unwrap();
            resampler.process_all(&input, frames, None).unwrap()
        });
    }
}
