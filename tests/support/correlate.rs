//! How alike two recordings are: delay, correlation, and what is missing of one in the other.

use std::collections::BTreeSet;
use std::f64::consts::PI;

use realfft::RealFftPlanner;

/// The first search runs at this fraction of the rate.
const COARSE: usize = 6;
/// How many lags on either side are used to interpolate between two.
const NEIGHBOURS: isize = 16;
/// A station steers by the system's clock: parts of a clip may be a quarter of a millisecond at 48 kHz off a straight course.
const MAX_SLIP_FRAMES: usize = 12;
/// Two devices drift independently: the sound that one of them took in is compared with the sound that the other emitted.
const MAX_WANDER_FRAMES: f64 = 24.0;
/// Steering is gentle; dropped or repeated sound makes a larger step from one 50 ms to the next.
const MAX_STEP_FRAMES: f64 = 6.0;
/// A clock may be off by this much.
const MAX_RATE_ERROR: f64 = 0.003;
/// A part of the sound is searched for within this many frames of where the whole's place suggests.
const REACH: isize = 24;
/// Frames of the recording kept around the reference.
const MARGIN: usize = 4_800;
/// How many peaks of the coarse search are examined closely.
const CANDIDATES: usize = 6;
/// Windows in which sound is either there or missing.
const WINDOW_MS: usize = 2;
/// If a window has less than this fraction of the reference's level, its sound is missing.
const MISSING_BELOW: f64 = 0.3;
/// Windows of the reference this far below its mean level are too quiet to judge.
const TOO_QUIET: f64 = 0.003;

/// Where and how well a reference is found in a recording.
#[derive(Debug, Clone, Copy)]
pub struct Match {
    /// Frames from the recording's start to the reference's, between samples too.
    pub delay_frames: f64,
    /// Normalised cross-correlation over the whole reference: 1 is the same sound, at any level.
    pub correlation: f64,
    /// Level of the recording over that of the reference.
    pub gain: f64,
}

/// The parts of a reference that are missing, in frames.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Missing {
    /// Cut from the start.
    pub head: usize,
    /// Cut from the end.
    pub tail: usize,
    /// Where there is silence inside, and how long it is.
    pub gaps: Vec<(usize, usize)>,
}

/// Finds `reference` in `heard`. Parts of it may be missing at either end.
pub fn align(reference: &[f32], heard: &[f32]) -> Match {
    assert!(reference.len() > 100 * COARSE && !heard.is_empty(), "too little sound to compare");
    let best = best_lag(reference, heard);
    let (offset, correlation) = between_samples(reference, heard, best);
    Match {
        delay_frames: best as f64 + offset,
        correlation,
        gain: (energy(shifted(heard, best, reference.len())) / energy(reference.iter().copied())).sqrt(),
    }
}

/// The parts of `reference` that are missing in `heard`, where it was found.
pub fn missing(reference: &[f32], heard: &[f32], found: &Match, rate_hz: u32) -> Missing {
    let hop = rate_hz as usize * WINDOW_MS / 1000 / 2;
    let window = hop * 2;
    let lag = found.delay_frames.round() as isize;
    let mean = (energy(reference.iter().copied()) / reference.len() as f64).sqrt();
    // Judged on the median of the windows' gains: the mean falls with every gap.
    let mut levels = Vec::new();
    for start in (0..reference.len().saturating_sub(window - 1)).step_by(hop) {
        let there = rms(reference[start..start + window].iter().copied(), window);
        let here = rms(shifted(heard, lag + start as isize, window), window);
        levels.push((there > mean * TOO_QUIET).then_some(here / there.max(f64::MIN_POSITIVE)));
    }
    let mut gains: Vec<f64> = levels.iter().flatten().copied().collect();
    gains.sort_by(f64::total_cmp);
    assert!(
        gains.len() * 2 > levels.len(),
        "the reference is silent for most of its length: nothing to judge by"
    );
    let bound = gains[gains.len() / 2] * MISSING_BELOW;
    let lost: Vec<bool> = levels.iter().map(|level| level.is_some_and(|level| level < bound)).collect();
    let mut missing = Missing::default();
    let mut at = 0;
    while at < lost.len() {
        let run = lost[at..].iter().take_while(|lost| **lost).count();
        if run > 0 {
            let frames = (run + 1) * hop;
            match (at == 0, at + run == lost.len()) {
                (true, _) => missing.head = frames,
                (_, true) => missing.tail = frames,
                _ => missing.gaps.push((at * hop, frames)),
            }
        }
        at += run.max(1);
    }
    missing
}

/// The largest number of frames by which a part of the sound is shifted against the whole, because sound was dropped or
/// repeated. Checks every 100 ms, for shifts of at most 20 ms.
pub fn largest_slip_frames(reference: &[f32], heard: &[f32], found: &Match, rate_hz: u32) -> usize {
    let window = rate_hz as usize / 10;
    let reach = rate_hz as isize / 50;
    let lag = found.delay_frames.round() as isize;
    let mut largest = 0;
    for (index, part) in reference.chunks_exact(window).enumerate() {
        let start = lag + (index * window) as isize;
        let here = correlation_at(part, heard, start);
        if here > 0.95 {
            continue;
        }
        let (best, shift) = (-reach..=reach)
            .map(|shift| (correlation_at(part, heard, start + shift), shift))
            .max_by(|a, b| a.0.total_cmp(&b.0))
            .unwrap_or((here, 0));
        if best > here + 0.02 {
            largest = largest.max(shift.unsigned_abs());
        }
    }
    largest
}

/// The first and the last frame with sound, in a recording that is pure silence elsewhere.
pub fn extent(heard: &[f32], from: usize) -> Option<(usize, usize)> {
    const STEP: f32 = 1.5 / 32_768.0;
    let first = heard.iter().skip(from).position(|sample| sample.abs() > STEP)? + from;
    let last = heard.iter().rposition(|sample| sample.abs() > STEP)?;
    Some((first, last))
}

/// Panics unless `heard` contains the whole of `reference`: a correlation of `at_least`, nothing missing at head or
/// tail, no gap and no slip. Returns where it was found.
///
/// A software sink's clock may differ from the system's by up to a thousandth, less evenly on a busy machine, and
/// stations steer by the system's clock to stay in step. So the recording is first converted to the reference's clock,
/// as far as steering explains the difference: by [`MAX_RATE_ERROR`], [`MAX_WANDER_FRAMES`] and [`MAX_STEP_FRAMES`].
pub fn assert_whole(what: &str, reference: &[f32], heard: &[f32], rate_hz: u32, at_least: f64) -> Match {
    let course = Course::of(reference, heard, rate_hz);
    let straight;
    let (heard, shift) = if course.is_straight(reference.len()) {
        (heard, 0.0)
    } else {
        straight = course.straightened(heard, reference.len());
        (&straight[..], course.start - MARGIN as f64)
    };
    let found = align(reference, heard);
    let lost = missing(reference, heard, &found, rate_hz);
    let slip = largest_slip_frames(reference, heard, &found, rate_hz);
    let (wander, step) = (course.wander(), course.largest_step());
    assert!(
        found.correlation >= at_least
            && lost == Missing::default()
            && slip <= MAX_SLIP_FRAMES
            && wander <= MAX_WANDER_FRAMES
            && step <= MAX_STEP_FRAMES
            && (course.ratio - 1.0).abs() < MAX_RATE_ERROR,
        "{what}: {found:?}, wanted a correlation of {at_least} at least; missing {lost:?}, slipped by {slip} \
         frames; runs at {:.6} of the rate, {wander:.1} frames beside that at most, in steps of {step:.1}",
        course.ratio
    );
    Match { delay_frames: found.delay_frames + shift, ..found }
}

/// By how many frames the right channel of a recording is behind the left, in each window of a sound that is
/// on both: `frames` of it from `start` on the left. Windows without sound are left out.
pub fn skews_frames(left: &[f32], right: &[f32], start: usize, frames: usize, window: usize) -> Vec<f64> {
    let end = (start + frames).min(left.len());
    let whole = best_lag(&left[start..end], right) - start as isize;
    let loudness = |part: &[f32]| energy(part.iter().copied()) / part.len() as f64;
    let mean = loudness(&left[start..end]);
    let parts = left[start..end].chunks_exact(window).enumerate();
    let skew = |(index, part): (usize, &[f32])| {
        let from = (start + index * window) as isize;
        let correlate = |lag: isize| (correlation_at(part, right, from + lag), lag);
        let (_, lag) =
            (whole - REACH..=whole + REACH).map(correlate).max_by(|a, b| a.0.total_cmp(&b.0)).unwrap();
        lag as f64 + between_samples(part, right, from + lag).0
    };
    parts.filter(|(_, part)| loudness(part) > mean * TOO_QUIET).map(skew).collect()
}

/// Where each frame of a reference is in a recording.
#[derive(Debug)]
struct Course {
    /// On the straight line through all frames: the frame of the recording where the reference begins.
    start: f64,
    /// On the same line: frames of the recording per frame of the reference.
    ratio: f64,
    /// Frames of the reference, and how far off the straight line they were found.
    knots: Vec<(f64, f64)>,
}

impl Course {
    /// Searches for every 50 ms near where the whole's place suggests.
    fn of(reference: &[f32], heard: &[f32], rate_hz: u32) -> Self {
        let window = rate_hz as usize / 20;
        let parts: Vec<(f64, &[f32])> = reference
            .chunks_exact(window)
            .enumerate()
            .map(|(index, part)| ((index * window) as f64, part))
            .collect();
        // At the same rate; or, over a recording that is silent elsewhere, from its first sound to its last.
        let mut guesses = vec![(align(reference, heard).delay_frames, 1.0)];
        if let Some((first, last)) = extent(heard, 0) {
            guesses.push((first as f64, (last - first) as f64 / (reference.len() - 1) as f64));
        }
        let alike = |&(start, ratio): &(f64, f64)| -> f64 {
            parts
                .iter()
                .map(|(at, part)| correlation_at(part, heard, (start + at * ratio).round() as isize))
                .sum()
        };
        let (start, ratio) = guesses.into_iter().max_by(|a, b| alike(a).total_cmp(&alike(b))).unwrap();
        let places: Vec<(f64, f64)> = parts
            .iter()
            .filter_map(|&(at, part)| {
                let near = (start + at * ratio).round() as isize;
                let (_, lag) = (near - REACH..=near + REACH)
                    .map(|lag| (correlation_at(part, heard, lag), lag))
                    .max_by(|a, b| a.0.total_cmp(&b.0))?;
                let (offset, correlation) = between_samples(part, heard, lag);
                // The place of a part means the place of its middle.
                (correlation > 0.9)
                    .then_some((at + window as f64 / 2.0, lag as f64 + offset + window as f64 / 2.0))
            })
            .collect();
        if places.len() < 5 {
            return Self { start, ratio, knots: Vec::new() };
        }
        let mean =
            |value: &dyn Fn(&(f64, f64)) -> f64| places.iter().map(value).sum::<f64>() / places.len() as f64;
        let (mean_at, mean_place) = (mean(&|place| place.0), mean(&|place| place.1));
        let spread = mean(&|place| (place.0 - mean_at).powi(2));
        let ratio = mean(&|place| (place.0 - mean_at) * (place.1 - mean_place)) / spread;
        let start = mean_place - ratio * mean_at;
        let knots = places.iter().map(|&(at, place)| (at, place - start - ratio * at)).collect();
        Self { start, ratio, knots }
    }

    /// Whether every part is within half a sample of one offset.
    fn is_straight(&self, frames: usize) -> bool {
        (self.ratio - 1.0).abs() * (frames as f64) < 0.5 && self.wander() < 0.5
    }

    /// The farthest distance from the straight line, in frames.
    fn wander(&self) -> f64 {
        self.knots.iter().map(|knot| knot.1.abs()).fold(0.0, f64::max)
    }

    /// The largest change from one part to the next, in frames.
    fn largest_step(&self) -> f64 {
        self.knots.windows(2).map(|pair| (pair[1].1 - pair[0].1).abs()).fold(0.0, f64::max)
    }

    /// How far off the straight line a frame of the reference is.
    fn beside(&self, frame: f64) -> f64 {
        let after = self.knots.partition_point(|knot| knot.0 <= frame);
        match (after.checked_sub(1).map(|before| self.knots[before]), self.knots.get(after)) {
            (Some(before), Some(after)) => {
                before.1 + (after.1 - before.1) * (frame - before.0) / (after.0 - before.0)
            }
            (Some(knot), None) => knot.1,
            (None, Some(knot)) => knot.1,
            (None, None) => 0.0,
        }
    }

    /// The recording converted to the reference's clock, with [`MARGIN`] frames on either side.
    fn straightened(&self, heard: &[f32], frames: usize) -> Vec<f32> {
        const TAPS: isize = 16;
        (-(MARGIN as isize)..(frames + MARGIN) as isize)
            .map(|frame| {
                let at = self.start + frame as f64 * self.ratio + self.beside(frame as f64);
                let whole = at.floor();
                (1 - TAPS..=TAPS)
                    .zip(shifted(heard, whole as isize + 1 - TAPS, 2 * TAPS as usize))
                    .map(|(tap, sample)| {
                        f64::from(sample) * windowed_sinc(at - whole - tap as f64, TAPS as f64 + 1.0)
                    })
                    .sum::<f64>() as f32
            })
            .collect()
    }
}

/// A sinc under a raised cosine that ends at `reach`.
fn windowed_sinc(distance: f64, reach: f64) -> f64 {
    let sinc = if distance.abs() < 1e-9 { 1.0 } else { (distance * PI).sin() / (distance * PI) };
    sinc * (0.5 + 0.5 * (distance / reach * PI).cos())
}

/// The peak of the correlation near a lag, as an offset from it, and its height. The correlation of two sounds is as
/// limited in band as they are, so the sampling theorem provides it between the lags.
fn between_samples(reference: &[f32], heard: &[f32], lag: isize) -> (f64, f64) {
    let around: Vec<f64> = (-NEIGHBOURS..=NEIGHBOURS)
        .map(|neighbour| correlation_at(reference, heard, lag + neighbour))
        .collect();
    let at = |offset: f64| -> f64 {
        let weights = (-NEIGHBOURS..=NEIGHBOURS)
            .map(|neighbour| windowed_sinc(offset - neighbour as f64, (NEIGHBOURS + 2) as f64));
        weights.zip(&around).map(|(weight, correlation)| weight * correlation).sum()
    };
    let offsets = (-100..=100).map(|hundredth| f64::from(hundredth) / 100.0);
    let (offset, peak) =
        offsets.map(|offset| (offset, at(offset))).max_by(|a, b| a.1.total_cmp(&b.1)).unwrap_or_default();
    (offset, peak.min(1.0))
}

fn decimate(samples: &[f32]) -> Vec<f64> {
    samples.chunks(COARSE).map(|block| block.iter().map(|&sample| f64::from(sample)).sum()).collect()
}

/// The lag of the highest normalised cross-correlation.
fn best_lag(reference: &[f32], heard: &[f32]) -> isize {
    let correlate = |lag: isize| (correlation_at(reference, heard, lag), lag);
    let best =
        |lags: Vec<isize>| lags.into_iter().map(correlate).max_by(|a, b| a.0.total_cmp(&b.0)).unwrap().1;
    // Sound with a pitch has peaks a period apart, which the coarse search ranks only roughly.
    let candidates = coarse_lags(&decimate(reference), &decimate(heard));
    let step = COARSE as isize;
    let around: BTreeSet<isize> =
        candidates.iter().flat_map(|lag| [-1, 0, 1].map(|near| (lag * step) + near * step / 2)).collect();
    let near = best(around.into_iter().collect());
    best((near - step..=near + step).collect())
}

/// The best lags of a search through the frequency domain, one per peak.
fn coarse_lags(reference: &[f64], heard: &[f64]) -> Vec<isize> {
    let pad = reference.len();
    let size = (heard.len() + 2 * pad).next_power_of_two();
    let mut planner = RealFftPlanner::<f64>::new();
    let (forward, inverse) = (planner.plan_fft_forward(size), planner.plan_fft_inverse(size));
    let spectrum = |samples: &[f64], offset: usize| {
        let mut input = forward.make_input_vec();
        input[offset..offset + samples.len()].copy_from_slice(samples);
        let mut output = forward.make_output_vec();
        forward.process(&mut input, &mut output).unwrap();
        output
    };
    let mut product = spectrum(heard, pad);
    for (heard, reference) in product.iter_mut().zip(spectrum(reference, 0)) {
        *heard *= reference.conj();
    }
    for edge in [0, size / 2] {
        product[edge].im = 0.0;
    }
    let mut raw = inverse.make_output_vec();
    inverse.process(&mut product, &mut raw).unwrap();

    let mut sums = vec![0.0; pad + 1];
    for sample in heard {
        sums.push(sums[sums.len() - 1] + sample * sample);
    }
    sums.resize(heard.len() + 2 * pad + 1, sums[sums.len() - 1]);
    let lags = heard.len() + pad;
    let local = |lag: usize| sums[lag + pad] - sums[lag];
    let loudest = (0..lags).map(local).fold(0.0, f64::max);
    assert!(loudest > 0.0, "the recording is pure silence");
    let score = |lag: usize| raw[lag] / local(lag).max(loudest / 100.0).sqrt();
    let mut peaks: Vec<usize> =
        (1..lags - 1).filter(|&lag| score(lag) >= score(lag - 1) && score(lag) >= score(lag + 1)).collect();
    peaks.sort_by(|&a, &b| score(b).total_cmp(&score(a)));
    peaks.iter().take(CANDIDATES).map(|&lag| lag as isize - pad as isize).collect()
}

fn shifted(heard: &[f32], lag: isize, frames: usize) -> impl Iterator<Item = f32> + '_ {
    (lag..lag + frames as isize)
        .map(|index| usize::try_from(index).ok().and_then(|index| heard.get(index)).copied().unwrap_or(0.0))
}

fn correlation_at(reference: &[f32], heard: &[f32], lag: isize) -> f64 {
    let (mut product, mut there, mut here) = (0.0, 0.0, 0.0);
    for (&reference, heard) in reference.iter().zip(shifted(heard, lag, reference.len())) {
        let (reference, heard) = (f64::from(reference), f64::from(heard));
        product += reference * heard;
        there += reference * reference;
        here += heard * heard;
    }
    if there == 0.0 || here == 0.0 { 0.0 } else { product / (there * here).sqrt() }
}

fn energy(samples: impl Iterator<Item = f32>) -> f64 {
    samples.map(|sample| f64::from(sample).powi(2)).sum()
}

fn rms(samples: impl Iterator<Item = f32>, count: usize) -> f64 {
    (energy(samples) / count as f64).sqrt()
}
