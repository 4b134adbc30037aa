use super::*;
use crate::prepare::Chime;

const RATE_HZ: u32 = 16_000;

/// The speech that the project ships: 16 bit, 16,000 Hz.
fn speech() -> Vec<f32> {
    let wav = include_bytes!("../../../assets/speech.wav");
    let samples = wav[44..].chunks_exact(2).map(|pair| i16::from_le_bytes([pair[0], pair[1]]));
    samples.map(|sample| f32::from(sample) / 32_768.0).collect()
}

fn wave(rate_hz: u32, seconds: f64, at: impl Fn(f64) -> f64) -> Vec<f32> {
    let frames = (seconds * f64::from(rate_hz)) as usize;
    // As a 16-bit converter delivers it.
    (0..frames)
        .map(|frame| at(frame as f64 / f64::from(rate_hz)))
        .map(|value| ((value * 32_768.0).round().clamp(-32_768.0, 32_767.0) / 32_768.0) as f32)
        .collect()
}

/// Realistic hum: the first harmonics of mains that are a little off, and a little noise.
fn hum(rate_hz: u32, mains_hz: f64, amplitude: f64) -> Vec<f32> {
    let mut state = 1_u32;
    let mut hum = wave(rate_hz, 3.0, |s| {
        let harmonics = [(1.0, 1.0), (2.0, 0.4), (3.0, 0.6), (5.0, 0.2), (7.0, 0.1)];
        harmonics.iter().map(|(n, part)| amplitude * part * (TAU * n * mains_hz * s + n).sin()).sum()
    });
    for sample in &mut hum {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        *sample += (state as f32 / u32::MAX as f32 - 0.5) * 0.02 * amplitude as f32;
    }
    hum
}

fn trouble(samples: &[f32], rate_hz: u32) -> Option<Trouble> {
    Trouble::of(&Sound { rate_hz, samples: samples.to_vec() })
}

fn scaled(samples: &[f32], gain: f32) -> Vec<f32> {
    samples.iter().map(|sample| (sample * gain).clamp(-1.0, 32_767.0 / 32_768.0)).collect()
}

#[test]
fn speech_at_any_level_that_can_be_used_is_all_right() {
    let speech = speech();
    let peak = speech.iter().fold(0.0_f32, |peak, sample| peak.max(sample.abs()));
    for peak_db in [-0.1, -3.0, -6.0, -12.0, -20.0, -25.0] {
        let gain = 10_f32.powf(peak_db / 20.0) / peak;
        assert_eq!(trouble(&scaled(&speech, gain), RATE_HZ), None, "peaks at {peak_db} dB");
    }
}

#[test]
fn speech_over_hum_or_a_constant_voltage_is_speech() {
    let speech = speech();
    for mains_hz in [50.0, 60.0] {
        let hum = hum(RATE_HZ, mains_hz, 0.02);
        let both: Vec<f32> =
            speech.iter().zip(hum.iter().cycle()).map(|(voice, hum)| voice * 0.7 + hum).collect();
        assert_eq!(trouble(&both, RATE_HZ), None);
    }
    let lifted: Vec<f32> = speech.iter().map(|sample| sample * 0.5 + 0.2).collect();
    assert_eq!(trouble(&lifted, RATE_HZ), None);
}

#[test]
fn clipped_speech_is_clipped_wherever_its_top_is() {
    let speech = speech();
    let peak = speech.iter().fold(0.0_f32, |peak, sample| peak.max(sample.abs()));
    for over_db in [3.0, 6.0, 12.0, 24.0] {
        let gain = 10_f32.powf(over_db / 20.0) / peak;
        let clipped = scaled(&speech, gain);
        assert_eq!(trouble(&clipped, RATE_HZ), Some(Trouble::Clipped), "{over_db} dB");
        // After an amplifier that clips and is then turned down; or with only one side cut, by an offset.
        assert_eq!(trouble(&scaled(&clipped, 0.5), RATE_HZ), Some(Trouble::Clipped), "{over_db} dB");
        let one_side: Vec<f32> = speech.iter().map(|sample| (sample * gain).min(0.8)).collect();
        assert_eq!(trouble(&one_side, RATE_HZ), Some(Trouble::Clipped), "{over_db} dB");
    }
}

#[test]
fn hum_alone_is_hum_and_says_of_which_mains() {
    for rate_hz in [8_000, 16_000, 44_100, 48_000] {
        for (mains_hz, shown_hz) in [(50.0, 50), (49.9, 50), (60.0, 60), (60.1, 60)] {
            for amplitude in [0.3, 0.01] {
                let told = trouble(&hum(rate_hz, mains_hz, amplitude), rate_hz);
                assert_eq!(
                    told,
                    Some(Trouble::Hum(shown_hz)),
                    "{rate_hz} Hz, mains {mains_hz} Hz, {amplitude}"
                );
            }
        }
    }
}

#[test]
fn tones_chimes_and_music_are_all_right() {
    for rate_hz in [8_000, 44_100, 48_000] {
        for hz in [261.6, 440.0, 600.0, 660.0, 880.0, 1_000.0] {
            for amplitude in [0.05, 0.5, 0.999] {
                let tone = wave(rate_hz, 2.0, |s| amplitude * (TAU * hz * s).sin());
                assert_eq!(trouble(&tone, rate_hz), None, "{hz} Hz at {rate_hz} Hz, {amplitude}");
            }
        }
        // A tune over a bass, one note after the other.
        let tune = wave(rate_hz, 4.0, |s| {
            let note = 220.0 * 2_f64.powf(((s * 4.0).floor() * 7.0 % 12.0) / 12.0);
            0.4 * (TAU * note * s).sin() + 0.3 * (TAU * 98.0 * s).sin() + 0.1 * (TAU * note * 3.0 * s).sin()
        });
        assert_eq!(trouble(&tune, rate_hz), None);
        for name in ["single", "two-tone", "three-tone"] {
            let chime = name.parse::<Chime>().unwrap().sound(rate_hz).unwrap();
            assert_eq!(trouble(&chime.samples, rate_hz), None, "{name}");
        }
    }
}

#[test]
fn nothing_a_voltage_and_what_is_too_soft_are_told_apart() {
    assert_eq!(trouble(&[0.0; 16_000], RATE_HZ), Some(Trouble::Silent));
    assert_eq!(trouble(&[0.3; 16_000], RATE_HZ), Some(Trouble::Constant));
    assert_eq!(trouble(&scaled(&speech(), 0.004), RATE_HZ), Some(Trouble::TooSoft));
    let lifted: Vec<f32> = speech().iter().map(|sample| sample * 0.004 - 0.2).collect();
    assert_eq!(trouble(&lifted, RATE_HZ), Some(Trouble::TooSoft));
    let silence = Sound { rate_hz: RATE_HZ, samples: vec![0.0; 100] };
    assert_eq!(Trouble::of_file(&silence), Some(Trouble::Silent));
}

#[test]
fn every_trouble_names_the_microphone_and_what_to_do() {
    use Trouble::{Clipped, Constant, Hum, Silent, TooSoft};
    for (trouble, part) in [
        (Silent, "muted"),
        (Constant, "plugged in"),
        (Clipped, "turn Desk-mic down"),
        (Hum(60), "60 Hz mains hum"),
        (TooSoft, "speak closer to Desk-mic"),
    ] {
        let words = trouble.about_sent("Desk-mic");
        assert!(words.contains(part) && words.contains("Desk-mic"), "{words}");
        assert!(words.contains(". It is sent") != words.contains("? It is sent"), "{words}");
    }
}
