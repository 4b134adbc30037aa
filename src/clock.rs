//! How a station's clock relates to its announcer's. Pure arithmetic on microseconds.
//!
//! A ping has four timestamps (Mills, "Internet Time Synchronization: the Network Time Protocol", RFC 1129): t1 and t4 are read
//! on the station's clock when the ping left and the pong came, t2 and t3 on the announcer's when the ping came and the pong
//! left. Then offset = ((t2 − t1) + (t3 − t4)) / 2 and round trip = (t4 − t1) − (t3 − t2); the offset is wrong by half the round
//! trip at most, and by next to nothing if nothing was held up. So the quickest exchanges are the ones to trust.

use std::collections::VecDeque;

/// The number of exchanges kept; at one a second, about a minute.
const WINDOW: usize = 64;
/// The most that two clocks drift apart: quartz within ±100 ppm on either side, with room to spare.
const MAX_DRIFT: f64 = 500e-6;
/// How far two clocks usually drift apart.
const EXPECTED_DRIFT: f64 = 30e-6;
/// The usual error of an exchange that took no longer than the quickest, in µs.
const EXPECTED_NOISE_US: f64 = 10.0;
/// An exchange that disagrees by more than both uncertainties plus this, in µs, comes from another clock.
const STEP_US: f64 = 1_000.0;

/// Times are read in whole µs.
const ROUNDING_US: f64 = 2.0;

/// One ping and its answer, in µs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exchange {
    /// Station's clock, ping sent.
    pub t1_us: u64,
    /// Announcer's clock, ping received.
    pub t2_us: u64,
    /// Announcer's clock, pong sent.
    pub t3_us: u64,
    /// Station's clock, pong received.
    pub t4_us: u64,
}

impl Exchange {
    /// Announcer's clock minus the station's, in µs.
    fn offset_us(&self) -> f64 {
        let gone = self.t2_us as f64 - self.t1_us as f64;
        let back = self.t3_us as f64 - self.t4_us as f64;
        (gone + back) / 2.0
    }

    /// Time on the way, there and back, in µs; never negative.
    fn round_trip_us(&self) -> f64 {
        let away = self.t4_us as f64 - self.t1_us as f64;
        let inside = self.t3_us as f64 - self.t2_us as f64;
        (away - inside).max(0.0)
    }

    /// The station's clock in the middle of the exchange.
    fn middle_us(&self) -> f64 {
        (self.t1_us as f64 + self.t4_us as f64) / 2.0
    }
}

/// The announcer's clock as seen from a station.
#[derive(Debug, Clone, Default)]
pub struct Clock {
    exchanges: VecDeque<Exchange>,
    line: Option<Line>,
}

/// offset(t) = offset + rate · (t − at), t on the station's clock.
#[derive(Debug, Clone, Copy)]
struct Line {
    at_us: f64,
    offset_us: f64,
    rate: f64,
    /// How far the rate might be off.
    rate_doubt: f64,
    uncertainty_us: f64,
}

impl Clock {
    /// Learns from one more exchange. An exchange that cannot come from the clock known so far starts the estimate again.
    /// Impossible timestamps (an answer before its question) are ignored.
    pub fn learn(&mut self, exchange: Exchange) {
        if exchange.t4_us < exchange.t1_us || exchange.t3_us < exchange.t2_us {
            return;
        }
        if let Some(line) = self.line {
            let now = exchange.middle_us();
            let expected = line.offset_us + line.rate * (now - line.at_us);
            let apart = (exchange.offset_us() - expected).abs();
            let doubt = line.uncertainty_us
                + exchange.round_trip_us() / 2.0
                + MAX_DRIFT * (now - line.at_us).abs()
                + STEP_US;
            if apart > doubt {
                self.exchanges.clear();
            }
        }
        if self.exchanges.len() == WINDOW {
            self.exchanges.pop_front();
        }
        self.exchanges.push_back(exchange);
        self.line = self.fit();
    }

    /// Converts an instant of the announcer's clock to the station's clock, in µs. `None` before the first exchange.
    pub fn to_station_us(&self, announcer_us: u64) -> Option<f64> {
        let line = self.line?;
        // announcer = station + offset + rate · (station − at), solved for station.
        let from = announcer_us as f64 - line.offset_us - line.at_us;
        Some(line.at_us + from / (1.0 + line.rate))
    }

    /// How far [`Self::to_station_us`] might be off for an instant of the announcer's clock, in µs: by what the exchanges leave
    /// open, and by what the clocks might drift between the latest exchange and the instant.
    pub fn uncertainty_us(&self, announcer_us: u64) -> Option<f64> {
        let line = self.line?;
        let ahead_us = self.to_station_us(announcer_us)? - line.at_us;
        Some(line.uncertainty_us + line.rate_doubt * ahead_us.abs())
    }

    /// Returns the second longest round trip among the latest eight exchanges, in µs: how early a message must be sent. The
    /// longest might have met a burst, such as a page that goes to hundreds of stations.
    pub fn round_trip_us(&self) -> Option<f64> {
        let mut latest: Vec<f64> = self.exchanges.iter().rev().take(8).map(Exchange::round_trip_us).collect();
        latest.sort_by(f64::total_cmp);
        latest.get(latest.len().saturating_sub(2)).copied()
    }

    /// Fits the line. Every exchange limits the offset of now to within half its round trip plus the possible drift since then;
    /// the line is the likeliest within the limits of all exchanges.
    fn fit(&self) -> Option<Line> {
        let at_us = self.exchanges.back()?.middle_us();
        let doubt = |exchange: &Exchange| {
            exchange.round_trip_us() / 2.0 + MAX_DRIFT * (at_us - exchange.middle_us()).abs() + ROUNDING_US
        };
        let best = self.exchanges.iter().min_by(|a, b| doubt(a).total_cmp(&doubt(b)))?;
        let (mut low, mut high) = (f64::NEG_INFINITY, f64::INFINITY);
        for exchange in &self.exchanges {
            low = low.max(exchange.offset_us() - doubt(exchange));
            high = high.min(exchange.offset_us() + doubt(exchange));
        }
        if low > high {
            // The exchanges contradict each other: only the best one is believed.
            let (offset_us, uncertainty_us) = (best.offset_us(), doubt(best));
            return Some(Line { at_us, offset_us, rate: 0.0, rate_doubt: MAX_DRIFT, uncertainty_us });
        }
        let (guess, rate, rate_doubt) = self.regression(at_us)?;
        let offset_us = guess.clamp(low, high);
        let uncertainty_us = (offset_us - low).max(high - offset_us);
        Some(Line { at_us, offset_us, rate, rate_doubt, uncertainty_us })
    }

    /// Returns the offset at an instant, the rate, and how far the rate might be off, by least squares. An exchange counts for
    /// more the closer it came to the quickest, and the rate is drawn towards what clocks usually have: ridge regression, with
    /// the expected errors as weights.
    fn regression(&self, at_us: f64) -> Option<(f64, f64, f64)> {
        let shortest = self.exchanges.iter().map(Exchange::round_trip_us).reduce(f64::min)?;
        // Time from `at_us`, offset, weight, and the worst error.
        let points: Vec<[f64; 4]> = self
            .exchanges
            .iter()
            .map(|exchange| {
                let expected_us = (exchange.round_trip_us() - shortest) / 2.0 + EXPECTED_NOISE_US;
                let worst_us = exchange.round_trip_us() / 2.0 + ROUNDING_US;
                let ago_us = exchange.middle_us() - at_us;
                [ago_us, exchange.offset_us(), expected_us.powi(-2), worst_us]
            })
            .collect();
        let total = points.iter().map(|[_, _, weight, _]| weight).sum::<f64>();
        let mean_t = points.iter().map(|[t, _, weight, _]| weight * t).sum::<f64>() / total;
        let mean_o = points.iter().map(|[_, o, weight, _]| weight * o).sum::<f64>() / total;
        let covariance =
            points.iter().map(|[t, o, weight, _]| weight * (t - mean_t) * (o - mean_o)).sum::<f64>();
        let variance = points.iter().map(|[t, _, weight, _]| weight * (t - mean_t).powi(2)).sum::<f64>();
        let expectation = EXPECTED_DRIFT.powi(-2);
        let rate = (covariance / (variance + expectation)).clamp(-MAX_DRIFT, MAX_DRIFT);
        // How far the rate is off if all errors conspire, and how far it may have been drawn away from the truth.
        let errors =
            points.iter().map(|[t, _, weight, worst]| weight * (t - mean_t).abs() * worst).sum::<f64>();
        let doubt = (errors + MAX_DRIFT * expectation) / (variance + expectation);
        Some((mean_o - rate * mean_t, rate, doubt.min(2.0 * MAX_DRIFT)))
    }
}

#[cfg(test)]
mod tests;
