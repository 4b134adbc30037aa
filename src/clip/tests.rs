#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use proptest::collection::vec;
use proptest::prelude::*;
use tempfile::TempDir;

use std::io::Cursor;

use hound::{WavSpec, WavWriter};

use super::*;

fn file(bytes: &[u8]) -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.wav");
    std::fs::write(&path, bytes).unwrap();
    (dir, path)
}

fn read(bytes: &[u8]) -> Result<Sound, ClipError> {
    let (_dir, path) = file(bytes);
    read_file(&path)
}

/// A WAV's bytes, written by hound.
fn written<S: hound::Sample + Copy>(spec: WavSpec, samples: &[S]) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    let mut writer = WavWriter::new(&mut bytes, spec).unwrap();
    for &sample in samples {
        writer.write_sample(sample).unwrap();
    }
    writer.finalize().unwrap();
    bytes.into_inner()
}

fn spec(channels: u16, sample_rate: u32, bits_per_sample: u16, sample_format: SampleFormat) -> WavSpec {
    WavSpec { channels, sample_rate, bits_per_sample, sample_format }
}

fn sound(rate_hz: u32, samples: &[i16]) -> Sound {
    Sound { rate_hz, samples: samples.iter().copied().map(sample::from_i16).collect() }
}

/// A header with whatever fields, and whatever bytes behind it.
fn wav_claiming(channels: u16, rate_hz: u32, bits: u16, data_bytes: u32, data: &[u8]) -> Vec<u8> {
    let frame_bytes = channels * bits / 8;
    let mut wav = b"RIFF\xff\xff\xff\x7fWAVEfmt \x10\0\0\0\x01\0".to_vec();
    wav.extend(channels.to_le_bytes());
    wav.extend(rate_hz.to_le_bytes());
    wav.extend((rate_hz.wrapping_mul(frame_bytes.into())).to_le_bytes());
    wav.extend(frame_bytes.to_le_bytes());
    wav.extend(bits.to_le_bytes());
    wav.extend(b"data");
    wav.extend(data_bytes.to_le_bytes());
    wav.extend(data);
    wav
}

fn words(error: &ClipError) -> String {
    crate::error_chain(error)
}

#[test]
fn the_header_is_the_one_that_hound_writes() {
    for (rate_hz, samples) in [(8_000, vec![1_i16]), (48_000, vec![-1, 2, 3]), (44_100, vec![0; 10_000])] {
        let clip = Clip::encode(&sound(rate_hz, &samples)).unwrap();
        assert_eq!(clip.wav()[..WAV_HEADER_BYTES], clip.format().header());
        assert_eq!(clip.wav()[..], written(spec(1, rate_hz, 16, SampleFormat::Int), &samples));
        assert_eq!(clip.sha256()[..], Sha256::digest(clip.wav())[..]);
        assert_eq!(clip.format().frames() as usize, samples.len());
    }
}

#[test]
fn every_format_is_read() {
    let int = SampleFormat::Int;
    let half = |bits| 1_i32 << (bits - 2);
    for bits in [8_u16, 16, 24, 32] {
        let samples = [0, half(bits), -half(bits), -half(bits) * 2];
        for rate_hz in [4_000, 11_025, 44_100, 192_000] {
            let read = read(&written(spec(1, rate_hz, bits, int), &samples)).unwrap();
            assert_eq!(read, Sound { rate_hz, samples: vec![0.0, 0.5, -0.5, -1.0] }, "{bits} bits");
        }
        let stereo = [half(bits), half(bits), 0, half(bits), -half(bits), half(bits)];
        let read = read(&written(spec(2, 48_000, bits, int), &stereo)).unwrap();
        assert_eq!(read.samples, [0.5, 0.25, 0.0], "{bits} bits, stereo");
    }
    let float = spec(1, 22_050, 32, SampleFormat::Float);
    assert_eq!(read(&written(float, &[0.25_f32, -1.0, 0.0])).unwrap().samples, [0.25, -1.0, 0.0]);
    let many = spec(6, 48_000, 16, int);
    assert_eq!(read(&written(many, &[16_384_i16; 12])).unwrap().samples, [0.5, 0.5]);
}

#[test]
fn a_float_file_beyond_full_scale_or_not_a_number_is_clipped() {
    let float = spec(1, 8_000, 32, SampleFormat::Float);
    let odd = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 7.0, -7.0, 1.0];
    let clip = Clip::encode(&read(&written(float, &odd)).unwrap()).unwrap();
    let samples: Vec<i16> = clip.wav()[WAV_HEADER_BYTES..]
        .chunks_exact(2)
        .map(|pair| i16::from_le_bytes([pair[0], pair[1]]))
        .collect();
    assert_eq!(samples, [0, i16::MAX, i16::MIN, i16::MAX, i16::MIN, i16::MAX]);
}

#[test]
fn bad_files_say_what_is_wrong() {
    let missing = read_file(Path::new("/nowhere/at/all.wav")).unwrap_err();
    assert!(matches!(missing, ClipError::Open { .. }) && words(&missing).contains("/nowhere/at/all.wav"));
    let dir = tempfile::tempdir().unwrap();
    assert!(read_file(dir.path()).is_err(), "a folder");

    for not_wav in [&b""[..], b"R", b"RIFF", b"ID3\x04 an mp3", &[0; 500], b"RIFF\x10\0\0\0AVI LIST\0\0\0\0"]
    {
        let error = read(not_wav).unwrap_err();
        assert!(matches!(error, ClipError::NotWav { .. }), "{not_wav:?}: {error:?}");
        assert!(words(&error).contains("a.wav is no WAV that bullhorn can read: "), "{}", words(&error));
    }
    let huge = wav_claiming(1, 8_000, 16, 4_000_000_000, &[0; 200]);
    assert_eq!(huge.len(), 244);
    let said = words(&read(&huge).unwrap_err());
    assert!(said.contains("claims 4000000000 bytes of sound, the file has 244"), "{said}");

    let whole = written(spec(1, 8_000, 16, SampleFormat::Int), &[5_i16; 1_000]);
    for kept in [whole.len() - 1, whole.len() - 30, 1_000, 45] {
        let said = words(&read(&whole[..kept]).unwrap_err());
        assert!(said.contains("truncated"), "{kept} of {}: {said}", whole.len());
    }
    for (channels, rate_hz) in [(0, 8_000), (1, 0), (0, 0)] {
        let error = read(&wav_claiming(channels, rate_hz, 16, 4, &[0; 4])).unwrap_err();
        let said = words(&error);
        assert!(said.contains("a.wav"), "{channels} channels at {rate_hz} Hz: {said}");
        assert!(said.contains(if channels == 0 { "channel" } else { "0 Hz" }), "{said}");
    }
    for bits in [0, 1, 7, 64, 65_535] {
        assert!(read(&wav_claiming(1, 8_000, bits, 8, &[0; 8])).is_err(), "{bits} bits");
    }
    let said = words(&read(&wav_claiming(1, 8_000, 16, 0, &[])).unwrap_err());
    assert!(said.contains("no sound"), "{said}");
    let long = wav_claiming(1, 100, 8, 12_001, &[0; 12_001]);
    assert!(matches!(read(&long), Err(ClipError::TooLong(_))));
}

#[test]
fn what_is_no_clip_is_not_encoded() {
    assert!(matches!(Clip::encode(&sound(8_000, &[])), Err(ClipError::Empty)));
    let long = Sound { rate_hz: 8_000, samples: vec![0.0; 8_000 * 120 + 1] };
    assert!(matches!(Clip::encode(&long), Err(ClipError::TooLong(_))));
    let longest = Sound { rate_hz: 48_000, samples: vec![0.0; 48_000 * 120] };
    assert_eq!(Clip::encode(&longest).unwrap().wav().len(), MAX_WAV_BYTES);
}

#[test]
fn formats_are_held_to_their_bounds() {
    let check = |wav_bytes, rate_hz| Format { wav_bytes, rate_hz }.check();
    for (wav_bytes, rate_hz) in [(46, 8_000), (46, 48_000), (11_520_044, 48_000), (1_920_044, 8_000)] {
        check(wav_bytes, rate_hz).unwrap();
    }
    for wav_bytes in [0, 1, 43, 44, 45, 47, 11_520_045, 11_520_046, u32::MAX] {
        assert!(matches!(check(wav_bytes, 48_000), Err(ClipError::Size { .. })), "{wav_bytes}");
    }
    for rate_hz in [0, 7_999, 48_001, u32::MAX] {
        assert!(matches!(check(46, rate_hz), Err(ClipError::Rate(_))), "{rate_hz}");
    }
    assert!(matches!(check(1_920_046, 8_000), Err(ClipError::TooLong(_))));
}

#[test]
fn silence_has_no_peak() {
    assert_eq!(peak_db(&[]), SILENCE_DB);
    assert_eq!(peak_db(&[0.0, -0.0, 0.9 / 32_768.0]), SILENCE_DB);
    assert!(peak_db(&[sample::from_i16(1)]) > SILENCE_DB);
    assert_eq!(peak_db(&[0.1, -1.0, f32::NAN]), 0.0);
}

#[test]
fn what_comes_in_is_checked() {
    let clip = Clip::encode(&sound(8_000, &[1, 2, 3, 4])).unwrap();
    let incoming = || Incoming::new(clip.format(), *clip.sha256()).unwrap();

    let mut whole = incoming();
    assert_eq!(whole.missing_bytes(), 52);
    clip.wav().chunks(7).for_each(|block| whole.push(block).unwrap());
    assert_eq!(whole.finish().unwrap(), clip);

    let mut short = incoming();
    short.push(&clip.wav()[..51]).unwrap();
    assert_eq!(short.missing_bytes(), 1);
    let surplus = short.push(&[0; 2]).unwrap_err();
    assert!(matches!(surplus, ClipError::Surplus { announced: 52, received: 53 }), "{surplus:?}");
    assert!(matches!(short.finish(), Err(ClipError::Size { .. })));

    let mut torn = incoming();
    torn.push(&[&clip.wav()[..51], &[9]].concat()).unwrap();
    assert!(matches!(torn.finish(), Err(ClipError::Hash { .. })));

    for at in 0..WAV_HEADER_BYTES {
        let mut bytes = clip.wav().to_vec();
        bytes[at] ^= 0x40;
        let mut other = Incoming::new(clip.format(), Sha256::digest(&bytes).into()).unwrap();
        other.push(&bytes).unwrap();
        assert!(matches!(other.finish(), Err(ClipError::HeaderDisagrees)), "byte {at}");
    }
    assert!(Incoming::new(Format { wav_bytes: u32::MAX, rate_hz: 8_000 }, [0; 32]).is_err());
}

proptest! {
    #[test]
    fn sixteen_bits_come_back_to_the_bit(rate_hz in MIN_RATE_HZ..=MAX_RATE_HZ, samples in vec(any::<i16>(), 1..2_000)) {
        let bytes = written(spec(1, rate_hz, 16, SampleFormat::Int), &samples);
        let clip = Clip::encode(&read(&bytes).unwrap()).unwrap();
        prop_assert_eq!(clip.wav(), &bytes[..]);
    }

    #[test]
    fn random_bytes_never_panic(bytes in vec(any::<u8>(), 0..300)) {
        let _ = read(&bytes);
    }

    #[test]
    fn random_fields_never_panic(
        channels in 0_u16..9,
        rate_hz: u32,
        bits in prop_oneof![Just(8_u16), Just(16), Just(24), Just(32), 0_u16..70],
        data_bytes in prop_oneof![0_u32..400, any::<u32>()],
        data in vec(any::<u8>(), 0..300),
    ) {
        let _ = read(&wav_claiming(channels, rate_hz, bits, data_bytes, &data));
    }

    #[test]
    fn a_damaged_file_never_panics(
        samples in vec(any::<i32>(), 1..50),
        bits in prop_oneof![Just(24_u16), Just(32)],
        at: prop::sample::Index,
        byte: u8,
        kept: prop::sample::Index,
    ) {
        let samples: Vec<i32> = samples.iter().map(|sample| sample >> (32 - bits)).collect();
        let mut bytes = written(spec(1, 16_000, bits, SampleFormat::Int), &samples);
        let at = at.index(bytes.len());
        bytes[at] = byte;
        bytes.truncate(kept.index(bytes.len() + 1));
        let _ = read(&bytes);
    }
}
