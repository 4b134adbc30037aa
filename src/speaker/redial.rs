//! How a station reconnects to its announcer: how long it dials, and how long it pauses.

use std::time::Duration;

use tokio::time::Instant;

/// The first pause after a connection that failed.
const MIN_PAUSE: Duration = Duration::from_millis(100);
/// The longest pause in the first [`BRISK`] of an outage: a user who waits for the announcer to return should be heard soon, and
/// a thousand stations spread over half of this do no harm.
const BRISK_PAUSE: Duration = Duration::from_millis(1_500);
/// The longest pause of all: later in an outage, and with an announcer that answers and refuses.
const MAX_PAUSE: Duration = Duration::from_secs(5);
/// How long an outage counts as a restart, or as a fault that somebody is fixing.
const BRISK: Duration = Duration::from_secs(600);
/// How long a connection attempt may take. The system resends the first packet after 1 s and after 3 s; with a deadline just
/// after the last of these, the longest silence between two packets is 2 s, including the pause.
pub const DIAL_DEADLINE: Duration = Duration::from_millis(3_500);

/// The pauses between dials: each twice as long as the one before, up to a limit, and shortened by up to half at random.
#[derive(Debug, Clone)]
pub struct Redial {
    pause: Duration,
    failing_since: Option<Instant>,
}

impl Default for Redial {
    fn default() -> Self {
        Self { pause: MIN_PAUSE, failing_since: None }
    }
}

impl Redial {
    /// Returns the pause after a connection that failed; `random` is any number. `refused` means that the announcer answered and
    /// refused the station.
    pub fn pause(&mut self, refused: bool, random: u32, now: Instant) -> Duration {
        let since = *self.failing_since.get_or_insert(now);
        let is_brisk = !refused && now.saturating_duration_since(since) < BRISK;
        let longest = if is_brisk { BRISK_PAUSE } else { MAX_PAUSE };
        let pause = self.pause.min(longest);
        self.pause = (pause * 2).min(longest);
        jittered(pause, random)
    }
}

/// Returns between half and all of a pause, so that a thousand stations do not dial at once.
fn jittered(pause: Duration, random: u32) -> Duration {
    pause.mul_f64(0.5 + 0.5 * f64::from(random) / f64::from(u32::MAX))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;

    /// The pauses of an outage in which every dial fails at once, each with its start.
    fn outage(refused: bool, length: Duration) -> Vec<(Duration, Duration)> {
        let (mut redial, begun, mut at) = (Redial::default(), Instant::now(), Duration::ZERO);
        let mut pauses = Vec::new();
        while at < length {
            let pause = redial.pause(refused, getrandom::u32().unwrap(), begun + at);
            pauses.push((at, pause));
            at += pause;
        }
        pauses
    }

    #[test]
    fn pauses_begin_at_100_ms_double_and_end_at_5_s() {
        let pauses = outage(true, Duration::from_secs(60));
        for (n, (_, pause)) in pauses.iter().enumerate() {
            let whole = MAX_PAUSE.min(MIN_PAUSE * 2_u32.pow(n.min(6) as u32));
            assert!(*pause >= whole / 2 && *pause <= whole, "{n}: {pause:?}");
        }
    }

    #[test]
    fn for_ten_minutes_no_pause_is_over_a_second_and_a_half_and_then_they_grow() {
        let pauses = outage(false, BRISK * 3);
        let (brisk, slow): (Vec<_>, Vec<_>) = pauses.into_iter().partition(|(at, _)| *at < BRISK);
        assert!(brisk.iter().all(|(_, pause)| *pause <= BRISK_PAUSE));
        assert!(slow.iter().skip(2).all(|(_, pause)| (MAX_PAUSE / 2..=MAX_PAUSE).contains(pause)));
        assert!(slow.len() > 100);
    }
}
