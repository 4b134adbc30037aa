use std::io::Cursor;

use hound::{SampleFormat, WavSpec, WavWriter};
use proptest::collection::vec;
use proptest::prelude::*;
use tempfile::TempDir;

use super::*;
use crate::clip::{Clip, MAX_RATE_HZ, MIN_RATE_HZ, WAV_HEADER_BYTES};

fn file(bytes: &[u8]) -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.wav");
    std::fs::write(&path, bytes).unwrap();
    (dir, path)
}

fn read(bytes: &[u8]) -> Result<Sound, SoundFileError> {
    let (_dir, path) = file(bytes);
    super::read(&path)
}

/// A file of `tests/sounds`, where a script made it.
fn shipped(name: &str) -> Vec<u8> {
    std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/sounds").join(name)).unwrap()
}

const SHIPPED: [&str; 5] = ["tones.flac", "tones.mp3", "tones.ogg", "tones-aac.m4a", "tones-alac.m4a"];

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

/// A header with the given fields, and any bytes after it.
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

fn words(error: &SoundFileError) -> String {
    crate::error_chain(error)
}

#[test]
fn every_wav_is_read() {
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

/// A WAV with all fields of its format: `fmt ` may be extended, and another chunk may come before the data.
struct Wav<'a> {
    tag: u16,
    block_bytes: u16,
    bits: u16,
    extension: &'a [u8],
    before: &'a [u8],
    data: &'a [u8],
    /// The sizes of the data and of the whole that the header claims, if they are not true.
    claims: Option<(u32, u32)>,
}

const PCM_16: Wav<'static> =
    Wav { tag: 1, block_bytes: 2, bits: 16, extension: &[], before: &[], data: &[], claims: None };
/// The rest of WAVEFORMATEXTENSIBLE for PCM of 24 valid bits.
const EXTENSIBLE_24: [u8; 24] = *b"\x16\0\x18\0\x04\0\0\0\x01\0\0\0\0\0\x10\0\x80\0\0\xaa\0\x38\x9b\x71";

impl Wav<'_> {
    /// One channel at 16 kHz.
    fn bytes(&self) -> Vec<u8> {
        let mut format = [self.tag.to_le_bytes(), 1_u16.to_le_bytes()].concat();
        format.extend(16_000_u32.to_le_bytes());
        format.extend((16_000 * u32::from(self.block_bytes)).to_le_bytes());
        format.extend([self.block_bytes.to_le_bytes(), self.bits.to_le_bytes()].concat());
        format.extend(self.extension);
        let chunk = |name: &[u8], body: &[u8]| [name, &(body.len() as u32).to_le_bytes(), body].concat();
        let mut body =
            [b"WAVE", &chunk(b"fmt ", &format)[..], self.before, &chunk(b"data", self.data)].concat();
        let mut riff_bytes = body.len() as u32;
        if let Some((data_bytes, all)) = self.claims {
            let at = body.len() - self.data.len() - 4;
            body[at..at + 4].copy_from_slice(&data_bytes.to_le_bytes());
            riff_bytes = all;
        }
        [b"RIFF", &riff_bytes.to_le_bytes()[..], &body].concat()
    }
}

/// The 16-bit speech that ships with the project, and its samples.
fn spoken() -> (Vec<u8>, Vec<f32>) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("assets/speech.wav");
    let mut reader = hound::WavReader::open(path).unwrap();
    let samples: Vec<i16> = reader.samples::<i16>().map(Result::unwrap).collect();
    let bytes = samples.iter().flat_map(|sample| sample.to_le_bytes()).collect();
    (bytes, samples.into_iter().map(crate::sample::from_i16).collect())
}

fn hear(bytes: &[u8]) -> Result<Heard, SoundFileError> {
    let (_dir, path) = file(bytes);
    super::hear(&path)
}

/// Returns why a file is refused.
fn refusal(bytes: &[u8]) -> String {
    match hear(bytes) {
        Ok(Heard { sound, warnings }) => panic!("plays {:?}: {warnings:?}", sound.length()),
        Err(error) => words(&error),
    }
}

/// Valid bits are the upper ones of their container, whose size the block gives.
#[test]
fn a_container_may_be_larger_than_its_samples() {
    let (_, wanted) = spoken();
    let steps = wanted.iter().map(|sample| (sample * 32_768.0) as i32);
    let in_32: Vec<u8> = steps.clone().flat_map(|step| (step << 16).to_le_bytes()).collect();
    let in_24: Vec<u8> = steps.flat_map(|step| (step << 8).to_le_bytes()[..3].to_vec()).collect();
    let extensible = Wav { tag: 0xfffe, extension: &EXTENSIBLE_24, ..PCM_16 };
    for wav in [
        Wav { block_bytes: 4, bits: 32, data: &in_32, ..extensible },
        Wav { block_bytes: 4, bits: 24, data: &in_32, ..extensible },
        Wav { block_bytes: 4, bits: 24, data: &in_32, ..PCM_16 },
        Wav { block_bytes: 3, bits: 24, data: &in_24, ..extensible },
        Wav { block_bytes: 3, bits: 20, data: &in_24, ..PCM_16 },
    ] {
        let heard = hear(&wav.bytes()).unwrap();
        assert!(
            heard.sound.samples == wanted,
            "tag {:#x}, {} bits in {} bytes",
            wav.tag,
            wav.bits,
            wav.block_bytes
        );
        assert!(heard.warnings.is_empty(), "{:?}", heard.warnings);
    }
    let narrow = Wav { block_bytes: 2, bits: 24, data: &[0; 100], ..PCM_16 };
    assert!(refusal(&narrow.bytes()).contains("24 bits a sample in blocks of 2 bytes"));
}

/// As written by programs that cannot go back to their header: ffmpeg, sox and espeak-ng, arecord, and one that died.
#[test]
fn a_wav_of_unknown_length_is_read_to_its_end_with_a_warning() {
    let (data, wanted) = spoken();
    for claims in
        [(u32::MAX, u32::MAX), (0x7fff_f000, 0x7fff_f024), (0x8000_0000, 0x8000_0024), (0, 36), (0, 0)]
    {
        let heard = hear(&Wav { data: &data, claims: Some(claims), ..PCM_16 }.bytes()).unwrap();
        assert!(heard.sound.samples == wanted, "{claims:x?}: {} frames", heard.sound.samples.len());
        let [warning] = &heard.warnings[..] else { panic!("{claims:x?}: {:?}", heard.warnings) };
        assert!(warning.contains("a.wav: its header does not say how long it is: all 5.5 s"), "{warning}");
    }
    // A file that states the size of the whole, but lies about its data, is truncated.
    let lie = Wav { data: &data, claims: Some((u32::MAX, data.len() as u32 + 36)), ..PCM_16 };
    assert!(refusal(&lie.bytes()).contains("truncated"));
}

#[test]
fn odd_chunks_before_the_sound_are_skipped_padded_or_not() {
    let (data, wanted) = spoken();
    for before in [&b"LIST\x05\0\0\0INFO!\0"[..], b"LIST\x05\0\0\0INFO!", b"junk\x01\0\0\0x\0"] {
        let heard = hear(&Wav { before, data: &data, ..PCM_16 }.bytes()).unwrap();
        assert!(heard.sound.samples == wanted, "{before:?}");
    }
}

#[test]
fn files_that_were_joined_are_read_whole_or_refused() {
    let (data, wanted) = spoken();
    let wav = Wav { data: &data, ..PCM_16 }.bytes();
    let heard = hear(&[&wav[..], &wav].concat()).unwrap();
    assert!(heard.sound.samples == [&wanted[..], &wanted].concat(), "{} frames", heard.sound.samples.len());
    for (name, frames) in [("tones.flac", 44_100), ("tones.ogg", 44_100)] {
        let one = shipped(name);
        let heard = hear(&[&one[..], &one, &one].concat()).unwrap();
        assert_eq!((heard.sound.samples.len(), heard.warnings.len()), (3 * frames, 0), "{name}");
    }
    // Between the two, the encoder's silence stays.
    let one = shipped("tones.mp3");
    let frames = hear(&[&one[..], &one].concat()).unwrap().sound.samples.len();
    assert!((88_200..=88_200 + 3 * 1_152).contains(&frames), "{frames}");
    let aac = shipped("tones-aac.m4a");
    assert!(refusal(&[&aac[..], &aac].concat()).contains("several files joined"));
    let said = refusal(&[&wav[..], &shipped("tones.flac")].concat());
    assert!(said.contains("its rate changes from 16000 to 44100 Hz"), "{said}");
}

/// Whatever follows a sound, all of the sound is heard, and anything unknown after it causes a warning.
#[test]
fn what_is_behind_the_end_takes_nothing_away() {
    let (data, _) = spoken();
    let wav = Wav { data: &data, ..PCM_16 }.bytes();
    let of_mp3 = hear(&shipped("tones.mp3")).unwrap().sound.samples.len();
    let id3v1 = [&b"TAG"[..], &[b'x'; 125]].concat();
    for (whole, frames) in [
        (wav, data.len() / 2),
        (shipped("tones.flac"), 44_100),
        (shipped("tones.ogg"), 44_100),
        (shipped("tones.mp3"), of_mp3),
    ] {
        for (behind, warnings) in [(&b"\n"[..], 1), (b"no sound at all", 1), (&[0; 512], 0), (&id3v1, 0)] {
            let heard = hear(&[&whole, behind].concat()).unwrap();
            assert_eq!((heard.sound.samples.len(), heard.warnings.len()), (frames, warnings), "{behind:?}");
        }
    }
}

/// A tolerance would be audible: not even the last frame of a file may be missing.
#[test]
fn a_file_without_its_last_bytes_is_refused() {
    for name in SHIPPED {
        let whole = shipped(name);
        for missing in [1, 10, 100] {
            let cut = &whole[..whole.len() - missing];
            let said = refusal(cut);
            let is_clear = ["truncated", "damaged", "missing"].iter().any(|word| said.contains(word));
            assert!(is_clear, "{name} without its last {missing} bytes: {said}");
        }
    }
}

#[test]
fn what_cannot_be_played_is_named_with_the_command_that_converts_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("it's a page.amr");
    std::fs::write(&path, b"#!AMR\n\x3c").unwrap();
    let said = words(&super::read(&path).unwrap_err());
    assert!(said.contains("is AMR, which bullhorn cannot play; convert it first: ffmpeg -i '"), "{said}");
    assert!(said.ends_with(r"it'\''s a page.amr' sound.wav"), "{said}");
    let gsm = Wav { tag: 0x31, block_bytes: 65, bits: 0, data: &[0; 65], ..PCM_16 }.bytes();
    assert!(refusal(&gsm).contains("a.wav is WAV of GSM 6.10, which"));
}

/// The tones that `tests/sounds/make` puts into every file, mixed to mono.
fn tones() -> impl Iterator<Item = f64> {
    let tone = |hz: f64, frame: u32| (hz * std::f64::consts::TAU * f64::from(frame) / 44_100.0).sin();
    (0..44_100).map(move |frame| (0.5 * tone(440.0, frame) + 0.25 * tone(660.0, frame)) / 2.0)
}

#[test]
fn flac_and_alac_are_exact() {
    for name in ["tones.flac", "tones-alac.m4a"] {
        let sound = read(&shipped(name)).unwrap();
        assert_eq!((sound.rate_hz, sound.samples.len()), (44_100, 44_100), "{name}");
        let worst = sound.samples.iter().zip(tones()).map(|(have, want)| (f64::from(*have) - want).abs());
        let worst = worst.fold(0.0, f64::max);
        assert!(worst < 1.5 / 32_768.0, "{name}: off by {worst}");
    }
}

#[test]
fn mp3_vorbis_and_aac_sound_as_what_was_encoded() {
    for name in ["tones.mp3", "tones.ogg", "tones-aac.m4a"] {
        let sound = read(&shipped(name)).unwrap();
        assert_eq!(sound.rate_hz, 44_100, "{name}");
        assert!(
            (44_100..=44_100 + 4 * 1_152).contains(&sound.samples.len()),
            "{name}: {}",
            sound.samples.len()
        );
        // If the encoder's delay is not stated, the sound begins later by that delay; LAME turns it down to 0.95.
        let middle: Vec<f64> = tones().skip(11_025).take(22_050).collect();
        let energy: f64 = middle.iter().map(|want| want * want).sum();
        let likeness = |delay: usize| {
            let heard = sound.samples[11_025 + delay..][..22_050].iter().map(|sample| f64::from(*sample));
            let (mut product, mut power) = (0.0, 0.0);
            for (heard, want) in heard.zip(&middle) {
                product += heard * want;
                power += heard * heard;
            }
            (product / (energy * power).sqrt(), (power / energy).sqrt())
        };
        let (best, loudness) =
            (0..=2_200).map(likeness).max_by(|one, other| one.0.total_cmp(&other.0)).unwrap();
        assert!(best > 0.999 && (0.93..1.03).contains(&loudness), "{name}: {best} at {loudness}");
    }
}

#[test]
fn the_content_tells_the_kind_and_not_the_name() {
    assert_eq!(read(&shipped("tones.flac")).unwrap().samples.len(), 44_100, "as a.wav");
    for (name, is_one) in [
        ("bell.wav", true),
        ("Bell.MP3", true),
        ("a/b.oga", true),
        ("bell", false),
        ("wav", false),
        ("x.txt", false),
    ] {
        assert_eq!(is_named_like_one(Path::new(name)), is_one, "{name}");
    }
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
    let missing = super::read(Path::new("/nowhere/at/all.wav")).unwrap_err();
    assert!(
        matches!(missing, SoundFileError::Open { .. }) && words(&missing).contains("/nowhere/at/all.wav")
    );
    let dir = tempfile::tempdir().unwrap();
    assert!(words(&super::read(dir.path()).unwrap_err()).contains("it is no file"), "a folder");
    assert!(words(&super::read(Path::new("/dev/zero")).unwrap_err()).contains("it is no file"));

    let avi = read(b"RIFF\x10\0\0\0AVI LIST\0\0\0\0").unwrap_err();
    assert!(matches!(avi, SoundFileError::Unsupported { .. }), "{avi:?}");
    assert!(words(&avi).contains("a.wav is AVI, which bullhorn cannot play"), "{}", words(&avi));
    for not_sound in [&b"RIFF"[..], b"R", b"ID3\x04 an mp3", &[0; 500], &[0xff; 500]] {
        let said = words(&read(not_sound).unwrap_err());
        assert!(said.contains("a.wav is no sound that bullhorn can read"), "{not_sound:?}: {said}");
        assert!(said.contains("give a file of WAV, AIFF, AU, FLAC, MP3, AAC, Ogg, WebM or M4A"), "{said}");
    }
    let said = words(&read(b"").unwrap_err());
    assert!(said.contains("a.wav: it is empty, 0 bytes: give a file of WAV"), "{said}");
    for cut in
        [&b"fLaC"[..], b"OggS", b"\x1a\x45\xdf\xa3\x80", b"FORM\0\0\0\0AIFFCOMM\0\0", b".snd\0\0\0\x18"]
    {
        let said = words(&read(cut).unwrap_err());
        assert!(said.starts_with("/") && said.contains("a.wav"), "{cut:?}: {said}");
        let is_clear =
            ["truncated", "track of sound", "no sound", "impossible"].iter().any(|it| said.contains(it));
        assert!(is_clear, "{cut:?}: {said}");
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
    assert!(matches!(read(&long), Err(SoundFileError::TooLong { .. })));
}

#[test]
fn half_a_compressed_file_is_not_taken_for_a_whole_one() {
    for name in SHIPPED {
        let whole = shipped(name);
        let said = words(&read(&whole[..whole.len() / 2]).unwrap_err());
        assert!(said.contains("a.wav"), "{name}: {said}");
    }
}

/// FLAC packs 121 s of silence into few bytes.
#[test]
fn a_compressed_file_over_the_limit_is_refused() {
    let error = read(&shipped("silence-121s.flac")).unwrap_err();
    assert!(matches!(error, SoundFileError::TooLong { .. }), "{error:?}");
    assert!(words(&error).contains("over 121 s long, and a clip has 120 s at most"), "{}", words(&error));
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
    fn a_damaged_wav_never_panics(
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

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn a_damaged_compressed_file_never_panics(
        which in 0..SHIPPED.len(),
        places in vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        at_the_head: bool,
        kept: prop::sample::Index,
    ) {
        let mut bytes = shipped(SHIPPED[which]);
        // Headers are where a length or a rate goes wrong.
        let room = if at_the_head { 200 } else { bytes.len() };
        for (at, byte) in places {
            bytes[at.index(room)] = byte;
        }
        if !at_the_head {
            bytes.truncate(kept.index(bytes.len() + 1));
        }
        let _ = read(&bytes);
    }
}
