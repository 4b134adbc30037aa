//! When a sound card plays which frame: a straight line through many timestamps. Pure arithmetic.
//!
//! A single timestamp is off by anything up to a buffer (measured: usually ±60 µs, milliseconds now and then), and a card's clock
//! is off by up to a per mille; so both rate and offset are fitted, without outliers.

/// When one frame plays, as reported to a callback.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    /// The frame's index since the stream was opened.
    pub frame: u64,
    /// When it plays, in nanoseconds since the stream's epoch.
    pub plays_ns: u64,
    /// When the callback received this report, in nanoseconds since the stream's epoch.
    pub told_ns: u64,
}

/// The relation between frames and time in a running stream.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Line {
    frame: f64,
    time_ns: f64,
    ns_per_frame: f64,
}

/// The fewest timestamps that allow a prediction.
pub const MIN_STAMPS: usize = 8;
/// If the medians of the timestamps before and after differ by this, the stream was interrupted.
const STEP_NS: f64 = 2e6;
/// The number of timestamps in each median; three outliers among them do no harm.
const STEP_STAMPS: usize = 7;
/// The number of latest timestamps, two seconds of them, and how far their median may be from the line that should fit them.
/// Smaller distances occur on a busy machine whose card runs evenly.
const LATEST_STAMPS: usize = 100;
const STRAY_NS: f64 = 100e3;
/// The number of timestamps compared with a line: five seconds of them.
const BESIDE_STAMPS: usize = 250;
/// Residuals within this are never outliers.
const NOISE_FLOOR_NS: f64 = 20e3;
/// How far the clocks of sound cards stray, as the expectation that few timestamps must overcome.
const CLOCK_SPREAD: f64 = 5e-4;
/// The noise of one timestamp, for the same purpose.
const STAMP_NOISE_NS: f64 = 50e3;

impl Line {
    /// Fits `stamps`, oldest first, of a stream of `rate_hz`. Returns `None` for fewer than [`MIN_STAMPS`], also after an
    /// interruption of the stream: timestamps before it do not count.
    pub fn fit(stamps: &[Stamp], rate_hz: u32) -> Option<Self> {
        if stamps.len() < MIN_STAMPS {
            return None;
        }
        let origin = *stamps.last()?;
        let nominal_ns = 1e9 / f64::from(rate_hz);
        // From here on: frames and nanoseconds since the last stamp, and time minus nominal time.
        let points: Vec<(f64, f64)> = stamps
            .iter()
            .map(|stamp| {
                let frames = stamp.frame as f64 - origin.frame as f64;
                (frames, stamp.plays_ns as f64 - origin.plays_ns as f64 - frames * nominal_ns)
            })
            .collect();
        let mut points = &points[after_last_step(&points)..];
        if points.len() < MIN_STAMPS {
            return None;
        }
        loop {
            let inliers = Rough::through(points).inliers(points);
            let (frame, lag_ns, drift) = least_squares(&inliers, nominal_ns)?;
            if points.len() >= 2 * LATEST_STAMPS && strays(points, (frame, lag_ns, drift)) {
                // The card's rate has changed: old timestamps say nothing about it.
                points = &points[points.len() / 2..];
                continue;
            }
            return Some(Self {
                frame: origin.frame as f64 + frame,
                time_ns: origin.plays_ns as f64 + frame * nominal_ns + lag_ns,
                ns_per_frame: nominal_ns + drift,
            });
        }
    }

    /// Returns when a frame plays, in nanoseconds since the stream's epoch.
    pub fn time_ns(&self, frame: f64) -> f64 {
        self.time_ns + (frame - self.frame) * self.ns_per_frame
    }

    /// Returns which frame plays at a time.
    pub fn frame(&self, time_ns: f64) -> f64 {
        self.frame + (time_ns - self.time_ns) / self.ns_per_frame
    }

    /// Returns the same line, later by `ns`.
    pub fn later(self, ns: f64) -> Self {
        Self { time_ns: self.time_ns + ns, ..self }
    }

    /// Returns how much later than the line the latest timestamps are, by their median, and how far they usually are from that
    /// median, both in nanoseconds.
    pub fn beside_ns(&self, stamps: &[Stamp]) -> (f64, f64) {
        let latest = &stamps[stamps.len().saturating_sub(BESIDE_STAMPS)..];
        let later = |stamp: &Stamp| stamp.plays_ns as f64 - self.time_ns(stamp.frame as f64);
        let mut later: Vec<f64> = latest.iter().map(later).collect();
        let middle = median(&mut later).unwrap_or_default();
        let mut distances: Vec<f64> = later.iter().map(|ns| (ns - middle).abs()).collect();
        (middle, median(&mut distances).unwrap_or_default())
    }

    /// Frames per second by the system's clock.
    pub fn rate_hz(&self) -> f64 {
        1e9 / self.ns_per_frame
    }
}

/// Whether the latest points are off a line, given by mean frame, mean lag and slope, that should go through them.
fn strays(points: &[(f64, f64)], (frame, lag_ns, drift): (f64, f64, f64)) -> bool {
    let latest = points.len().saturating_sub(LATEST_STAMPS);
    let residual = |point: &(f64, f64)| point.1 - lag_ns - drift * (point.0 - frame);
    let mut residuals: Vec<f64> = points.iter().skip(latest).map(residual).collect();
    median(&mut residuals).is_some_and(|middle| middle.abs() > STRAY_NS)
}

/// Returns the index of the first point after the last interruption.
fn after_last_step(points: &[(f64, f64)]) -> usize {
    let level = |window: &[(f64, f64)]| median(&mut window.iter().map(|point| point.1).collect::<Vec<_>>());
    let windows: Vec<f64> = points.windows(STEP_STAMPS).filter_map(level).collect();
    let mut step = windows.iter().zip(windows.iter().skip(STEP_STAMPS));
    step.rposition(|(before, after)| (after - before).abs() > STEP_NS).map_or(0, |index| index + STEP_STAMPS)
}

/// A line that a third of bad points cannot pull away: the median of slopes over half the span.
struct Rough {
    slope: f64,
    level: f64,
    spread: f64,
}

impl Rough {
    fn through(points: &[(f64, f64)]) -> Self {
        let half = points.len() / 2;
        let mut slopes: Vec<f64> = points
            .iter()
            .zip(&points[half..])
            .filter(|(early, late)| late.0 > early.0)
            .map(|(early, late)| (late.1 - early.1) / (late.0 - early.0))
            .collect();
        let slope = median(&mut slopes).unwrap_or(0.0);
        let mut levels: Vec<f64> = points.iter().map(|(frame, lag)| lag - slope * frame).collect();
        let level = median(&mut levels).unwrap_or(0.0);
        let mut distances: Vec<f64> = levels.iter().map(|lag| (lag - level).abs()).collect();
        let spread = median(&mut distances).unwrap_or(0.0);
        Self { slope, level, spread }
    }

    fn residual(&self, point: (f64, f64)) -> f64 {
        point.1 - self.level - self.slope * point.0
    }

    /// Keeps points within three standard deviations, derived from the median distance of normally distributed points.
    fn inliers(&self, points: &[(f64, f64)]) -> Vec<(f64, f64)> {
        let limit = (3.0 * 1.4826 * self.spread).max(NOISE_FLOOR_NS);
        points.iter().copied().filter(|&point| self.residual(point).abs() <= limit).collect()
    }
}

/// Returns mean frame, mean lag and slope of the best line. The slope is drawn towards 0 while the points span little: ridge
/// regression, weighted by the ratio of the two expected variances.
fn least_squares(points: &[(f64, f64)], nominal_ns: f64) -> Option<(f64, f64, f64)> {
    if points.is_empty() {
        return None;
    }
    let count = points.len() as f64;
    let mean_frame = points.iter().map(|point| point.0).sum::<f64>() / count;
    let mean_lag = points.iter().map(|point| point.1).sum::<f64>() / count;
    let covariance: f64 = points.iter().map(|point| (point.0 - mean_frame) * (point.1 - mean_lag)).sum();
    let variance: f64 = points.iter().map(|point| (point.0 - mean_frame).powi(2)).sum();
    let expectation = (STAMP_NOISE_NS / (CLOCK_SPREAD * nominal_ns)).powi(2);
    Some((mean_frame, mean_lag, covariance / (variance + expectation)))
}

/// Returns the middle of a list, and reorders the list.
pub fn median(values: &mut [f64]) -> Option<f64> {
    let middle = values.len() / 2;
    (!values.is_empty()).then(|| *values.select_nth_unstable_by(middle, f64::total_cmp).1)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A 48 kHz card whose clock is off by `clock`, stamped every 960 frames with an error in nanoseconds.
    fn card(clock: f64, errors: &[f64]) -> Vec<Stamp> {
        let stamp = |(index, error): (usize, &f64)| {
            let frame = index as u64 * 960;
            let plays_ns = (1e9 + frame as f64 * 1e9 / (48_000.0 * (1.0 + clock)) + error) as u64;
            Stamp { frame, plays_ns, told_ns: plays_ns.saturating_sub(20_000_000) }
        };
        errors.iter().enumerate().map(stamp).collect()
    }

    fn true_time_ns(clock: f64, frame: f64) -> f64 {
        1e9 + frame * 1e9 / (48_000.0 * (1.0 + clock))
    }

    #[test]
    fn few_stamps_give_no_line() {
        assert_eq!(Line::fit(&card(0.0, &[0.0; MIN_STAMPS - 1]), 48_000), None);
        assert_eq!(Line::fit(&[], 48_000), None);
    }

    /// Ten seconds at one rate, then at another: predicted half a second ahead, all the way through.
    #[test]
    fn a_card_that_changes_its_rate_is_followed() {
        let period_ns =
            |index: usize| 960.0 * 1e9 / (48_000.0 * (1.0 + if index < 500 { 0.0 } else { 0.001 }));
        let mut time_ns = 1e9;
        let stamps: Vec<Stamp> = (0..1_000_usize)
            .map(|index| {
                let plays_ns = time_ns as u64;
                time_ns += period_ns(index);
                Stamp { frame: index as u64 * 960, plays_ns, told_ns: plays_ns.saturating_sub(20_000_000) }
            })
            .collect();
        for end in (305..975).step_by(15) {
            let line = Line::fit(&stamps[..end], 48_000).expect("a line");
            let ahead = stamps[end + 24];
            let error = line.time_ns(ahead.frame as f64) - ahead.plays_ns as f64;
            // Nothing can predict the change itself.
            let bound = if (476..620).contains(&end) { 2_000e3 } else { 300e3 };
            assert!(error.abs() < bound, "off by {error} ns after {end} stamps");
        }
    }

    #[test]
    fn an_interruption_makes_a_new_start() {
        let mut errors = vec![0.0; 60];
        errors[45..].fill(20e6);
        let line = Line::fit(&card(0.001, &errors), 48_000).expect("a line");
        let frame = 60.0 * 960.0;
        let error = line.time_ns(frame) - true_time_ns(0.001, frame) - 20e6;
        assert!(error.abs() < 40e3, "off by {error} ns");
    }

    proptest! {
        /// A second of timestamps predicts when a frame half a second later plays, with any clock within 0.1 %, even if some
        /// timestamps are useless. The bound is the worst that least squares can do with errors of 40 µs: the sum over 50 stamps
        /// of |1/50 + 50.5·(i − 24.5)/10,412| is 3.05; in addition, three of them may be bad.
        #[test]
        fn the_line_foretells_a_drifting_jittering_card(
            clock in -0.001..0.001,
            jitter in prop::collection::vec(-40e3..40e3, 50),
            bad in prop::collection::vec((0_usize..50, -5e6..20e6), 3),
        ) {
            let mut errors = jitter;
            for (index, error) in bad {
                errors[index] = error;
            }
            let line = Line::fit(&card(clock, &errors), 48_000).expect("a line");
            let frame = 75.0 * 960.0;
            let error = line.time_ns(frame) - true_time_ns(clock, frame);
            prop_assert!(error.abs() < 150e3, "off by {error} ns");
            prop_assert!((line.frame(line.time_ns(frame)) - frame).abs() < 1e-3);
        }
    }
}
