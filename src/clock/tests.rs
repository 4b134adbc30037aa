#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use proptest::prelude::*;

use super::*;

/// A second in µs.
const SECOND: f64 = 1e6;
/// The error that f64 and whole µs may cause, years from zero.
const SLACK_US: f64 = 4.0;

/// Two clocks and the network between them. Times are true times, in µs.
#[derive(Debug, Clone)]
struct World {
    station_start_us: f64,
    announcer_start_us: f64,
    /// How much faster the announcer's clock runs.
    drift: f64,
}

impl World {
    fn new(station_start_us: f64, announcer_start_us: f64, drift_ppm: f64) -> Self {
        Self { station_start_us, announcer_start_us, drift: drift_ppm * 1e-6 }
    }

    fn station_us(&self, t: f64) -> f64 {
        self.station_start_us + t
    }

    fn announcer_us(&self, t: f64) -> f64 {
        self.announcer_start_us + t * (1.0 + self.drift)
    }

    /// A ping at `t` that takes `there` on the way out, `inside` at the announcer, and `back` on the way back.
    fn exchange(&self, t: f64, there: f64, inside: f64, back: f64) -> Exchange {
        Exchange {
            t1_us: self.station_us(t) as u64,
            t2_us: self.announcer_us(t + there) as u64,
            t3_us: self.announcer_us(t + there + inside) as u64,
            t4_us: self.station_us(t + there + inside + back) as u64,
        }
    }

    /// The error in converting the announcer's time at `t` to the station's clock.
    fn error_us(&self, clock: &Clock, t: f64) -> f64 {
        let instant = self.announcer_us(t).round();
        // The instant was rounded: its own true time is what counts.
        let true_t = (instant - self.announcer_start_us) / (1.0 + self.drift);
        (clock.to_station_us(instant as u64).unwrap() - self.station_us(true_t)).abs()
    }

    /// The error that the clock states for this conversion.
    fn stated_us(&self, clock: &Clock, t: f64) -> f64 {
        clock.uncertainty_us(self.announcer_us(t).round() as u64).unwrap()
    }
}

fn exchanges_of_a_minute() -> impl Iterator<Item = f64> {
    let quick = (0..8).map(|number| f64::from(number) * 25_000.0);
    quick.chain((1..60).map(|second| f64::from(second) * SECOND))
}

#[test]
fn nothing_is_known_before_the_first_exchange() {
    let clock = Clock::default();
    assert_eq!((clock.to_station_us(5), clock.uncertainty_us(5), clock.round_trip_us()), (None, None, None));
}

#[test]
fn impossible_times_are_ignored_and_extreme_ones_harmless() {
    let mut clock = Clock::default();
    clock.learn(Exchange { t1_us: 2, t2_us: 0, t3_us: 0, t4_us: 1 });
    clock.learn(Exchange { t1_us: 1, t2_us: 2, t3_us: 1, t4_us: 2 });
    assert_eq!(clock.uncertainty_us(0), None);
    for (t2_us, t3_us) in [(0, u64::MAX), (u64::MAX, u64::MAX), (0, 0)] {
        clock.learn(Exchange { t1_us: 5, t2_us, t3_us, t4_us: 6 });
        assert!(
            clock.to_station_us(u64::MAX).unwrap().is_finite() && clock.to_station_us(0).unwrap().is_finite()
        );
        assert!(clock.round_trip_us().unwrap() >= 0.0);
    }
}

#[test]
fn the_worst_but_one_of_the_last_eight_round_trips_counts() {
    let world = World::new(0.0, 0.0, 0.0);
    let mut clock = Clock::default();
    clock.learn(world.exchange(0.0, 4_000.0, 0.0, 4_000.0));
    assert_eq!(clock.round_trip_us(), Some(8_000.0));
    clock.learn(world.exchange(SECOND, 2_000.0, 0.0, 2_000.0));
    for second in 2..8 {
        clock.learn(world.exchange(f64::from(second) * SECOND, 100.0, 50.0, 100.0));
        assert_eq!(clock.round_trip_us(), Some(4_000.0));
    }
    clock.learn(world.exchange(8.0 * SECOND, 100.0, 50.0, 100.0));
    assert_eq!(clock.round_trip_us(), Some(200.0), "one burst is none");
    assert!((world.stated_us(&clock, 8.0 * SECOND) - 100.0).abs() <= SLACK_US);
}

proptest! {
    /// With equal delays there and back, the only errors are rounding and the drift since.
    #[test]
    fn a_still_network_is_known_to_the_microsecond(
        station_start in 0.0..1e14_f64,
        announcer_start in 0.0..1e14_f64,
        way in 20.0..5_000.0_f64,
        drift_ppm in -100.0..100.0_f64,
    ) {
        let world = World::new(station_start, announcer_start, drift_ppm);
        let mut clock = Clock::default();
        for t in exchanges_of_a_minute() {
            clock.learn(world.exchange(t, way, 30.0, way));
            let ahead = t + 0.3 * SECOND;
            let drifted = (world.drift * (ahead - t)).abs();
            let error = world.error_us(&clock, ahead);
            prop_assert!(error <= drifted + SLACK_US * 2.0, "{error} µs at {t}");
        }
        // Once a rate is fitted, the error is small for a page far ahead as well.
        let far = world.error_us(&clock, 90.0 * SECOND);
        prop_assert!(far <= 10.0 + SLACK_US, "{far} µs half a minute on");
    }

    /// With jitter, lopsided delays and lost pings, the stated uncertainty holds.
    #[test]
    fn the_stated_uncertainty_is_honest(
        station_start in 0.0..1e14_f64,
        announcer_start in 0.0..1e14_f64,
        drift_ppm in -100.0..100.0_f64,
        way in 20.0..2_000.0_f64,
        jitter in prop::collection::vec((0.0..1.0_f64, 0.0..1.0_f64, prop::bool::weighted(0.2)), 67),
        spread in 0.0..4_000.0_f64,
    ) {
        let world = World::new(station_start, announcer_start, drift_ppm);
        let mut clock = Clock::default();
        for (t, (there, back, lost)) in exchanges_of_a_minute().zip(jitter) {
            if lost {
                continue;
            }
            clock.learn(world.exchange(t, way + there * spread, 30.0, way + back * spread));
            for ahead in [0.3, 30.0] {
                let at = t + ahead * SECOND;
                let (error, stated) = (world.error_us(&clock, at), world.stated_us(&clock, at));
                prop_assert!(error <= stated + SLACK_US, "{error} µs, stated {stated}, {ahead} s after {t}");
            }
        }
    }

    /// A delay that is longer in one direction cannot be seen; it costs half the difference.
    #[test]
    fn asymmetry_costs_half_of_itself(there in 20.0..20_000.0_f64, back in 20.0..20_000.0_f64) {
        let world = World::new(1e9, 5e9, 0.0);
        let mut clock = Clock::default();
        for t in exchanges_of_a_minute() {
            clock.learn(world.exchange(t, there, 0.0, back));
        }
        let error = world.error_us(&clock, 61.0 * SECOND);
        prop_assert!((error - (there - back).abs() / 2.0).abs() <= SLACK_US);
        prop_assert!(error <= world.stated_us(&clock, 61.0 * SECOND) + SLACK_US);
    }

    /// An exchange that was held up, even by seconds and on one side only, changes next to nothing.
    #[test]
    fn outliers_are_passed_over(
        held in prop::collection::vec(prop_oneof![3 => Just(0.0), 1 => 1_000.0..3e6_f64], 67),
        on_the_way_back: bool,
        drift_ppm in -100.0..100.0_f64,
    ) {
        let world = World::new(1e9, 5e9, drift_ppm);
        let mut clock = Clock::default();
        let mut clean = f64::NEG_INFINITY;
        for (t, held) in exchanges_of_a_minute().zip(held) {
            let (there, back) = if on_the_way_back { (100.0, 100.0 + held) } else { (100.0 + held, 100.0) };
            clock.learn(world.exchange(t, there, 10.0, back));
            if held == 0.0 {
                clean = t;
            }
            if clean >= 0.0 {
                let now = t + there + back;
                let error = world.error_us(&clock, now);
                let drifted = MAX_DRIFT * (now - clean);
                prop_assert!(error <= 100.0 + drifted + SLACK_US * 2.0, "{error} µs at {t}, clean at {clean}");
            }
        }
    }

    /// The announcer's clock jumps: the next exchange is believed, not the sixty before it.
    #[test]
    fn a_step_is_learnt_at_once(step in prop_oneof![-4e9..-50_000.0_f64, 50_000.0..4e12_f64], way in 20.0..2_000.0_f64) {
        let mut world = World::new(1e9, 5e9, 20.0);
        let mut clock = Clock::default();
        for t in exchanges_of_a_minute() {
            clock.learn(world.exchange(t, way, 30.0, way));
        }
        world.announcer_start_us += step;
        clock.learn(world.exchange(60.0 * SECOND, way, 30.0, way));
        prop_assert!(world.error_us(&clock, 60.5 * SECOND) <= 20.0 + SLACK_US * 2.0);
        for second in 61..70 {
            clock.learn(world.exchange(f64::from(second) * SECOND, way, 30.0, way));
            let soon = f64::from(second) * SECOND + 0.5 * SECOND;
            prop_assert!(world.error_us(&clock, soon) <= 20.0 + SLACK_US * 2.0);
        }
    }

    /// After a night without an exchange (a link that was down), the first one is believed.
    #[test]
    fn a_gap_is_bridged(hours in 0.01..24.0_f64, drift_ppm in -100.0..100.0_f64) {
        let world = World::new(1e9, 5e9, drift_ppm);
        let mut clock = Clock::default();
        for t in exchanges_of_a_minute() {
            clock.learn(world.exchange(t, 100.0, 30.0, 100.0));
        }
        let morning = 60.0 * SECOND + hours * 3_600.0 * SECOND;
        clock.learn(world.exchange(morning, 100.0, 30.0, 100.0));
        let error = world.error_us(&clock, morning + 0.3 * SECOND);
        prop_assert!(error <= 100.0 + 30.0 + SLACK_US * 2.0, "{error} µs after {hours} hours");
    }

    /// No timestamps that a peer can choose make it panic or return something that is not a number.
    #[test]
    fn no_timestamps_break_it(exchanges in prop::collection::vec(any::<[u64; 4]>(), 1..100), at: u64) {
        let mut clock = Clock::default();
        for [t1_us, t2_us, t3_us, t4_us] in exchanges {
            clock.learn(Exchange { t1_us, t2_us, t3_us, t4_us });
            if let Some(instant) = clock.to_station_us(at) {
                prop_assert!(instant.is_finite());
                prop_assert!(clock.uncertainty_us(at).unwrap().is_finite());
            }
        }
    }
}
