#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::io::Cursor;

use hound::{SampleFormat, WavSpec, WavWriter};

use super::*;

/// The bytes of a WAV, written by hound.
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
