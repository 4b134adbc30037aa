//! The wall clock: as the system shows it, and as an announcer uses it for dates.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

/// If the wall clock is this far from the clock that an announcer dates with, it has been set. Smaller differences come from the
/// errors of the two clocks, and are well within what stations allow.
pub const LEAST_STEP: Duration = Duration::from_secs(1);

/// A wall clock, which may be set at any time. Clones share it.
#[derive(Clone)]
pub struct Wall(Arc<dyn Fn() -> SystemTime + Send + Sync>);

impl Wall {
    /// Returns the system's wall clock.
    pub fn system() -> Self {
        Self::new(SystemTime::now)
    }

    /// Creates a wall clock from any source.
    pub fn new(read: impl Fn() -> SystemTime + Send + Sync + 'static) -> Self {
        Self(Arc::new(read))
    }

    /// Returns the time that it shows now, in ms since 1970. A clock before 1970 counts as 1970.
    pub fn unix_ms(&self) -> u64 {
        let unix = self.0().duration_since(UNIX_EPOCH).unwrap_or_default();
        u64::try_from(unix.as_millis()).unwrap_or(u64::MAX)
    }
}

impl fmt::Debug for Wall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Wall")
    }
}

/// The clock that an announcer dates with: the wall clock, continued monotonically, so that no page expires early or late because
/// the wall clock is set. It follows the wall clock only in [`Self::follow`], because everything dated with it must then be dated
/// again. Clones share it.
#[derive(Debug, Clone)]
pub struct WallClock {
    wall: Wall,
    readings: Arc<Mutex<Readings>>,
}

#[derive(Debug)]
struct Readings {
    now: Reading,
    /// The reading used before the wall clock was set, and when it was set.
    former: Option<(Reading, Instant)>,
}

/// What the wall clock showed at an instant.
#[derive(Debug, Clone, Copy)]
struct Reading {
    at: Instant,
    unix_ms: u64,
}

impl Reading {
    fn unix_ms(&self, at: Instant) -> u64 {
        match at.checked_duration_since(self.at) {
            Some(since) => self.unix_ms.saturating_add(millis(since)),
            None => self.unix_ms.saturating_sub(millis(self.at.saturating_duration_since(at))),
        }
    }
}

impl WallClock {
    /// Starts a clock that shows what the wall clock shows now.
    pub fn start(wall: Wall) -> Self {
        let now = Reading { at: Instant::now(), unix_ms: wall.unix_ms() };
        Self { wall, readings: Arc::new(Mutex::new(Readings { now, former: None })) }
    }

    /// Returns the milliseconds since 1970 at an instant.
    pub fn unix_ms(&self, at: Instant) -> u64 {
        self.lock().now.unix_ms(at)
    }

    /// Returns what it would show if the wall clock had not been set within the last `lately`; `None` if it was not set then.
    pub fn former_unix_ms(&self, at: Instant, lately: Duration) -> Option<u64> {
        let (former, set) = self.lock().former?;
        (at.saturating_duration_since(set) <= lately).then(|| former.unix_ms(at))
    }

    fn lock(&self) -> MutexGuard<'_, Readings> {
        self.readings.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Compares itself with the wall clock, and adopts it if it was set. Returns by how many ms it moved forward; `None` if the
    /// wall clock was not set, to within [`LEAST_STEP`].
    pub fn follow(&self) -> Option<i64> {
        let mut readings = self.lock();
        let now = Reading { at: Instant::now(), unix_ms: self.wall.unix_ms() };
        let shift_ms = i128::from(now.unix_ms) - i128::from(readings.now.unix_ms(now.at));
        if shift_ms.unsigned_abs() < LEAST_STEP.as_millis() {
            return None;
        }
        readings.former = Some((readings.now, now.at));
        readings.now = now;
        i64::try_from(shift_ms).ok()
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_counts_on_by_itself_and_follows_a_step_when_it_is_told_to() {
        let shown_ms = Arc::new(AtomicU64::new(5_000));
        let read = shown_ms.clone();
        let wall = Wall::new(move || UNIX_EPOCH + Duration::from_millis(read.load(Ordering::Relaxed)));
        let clock = WallClock::start(wall);
        let begun = Instant::now();
        tokio::time::advance(Duration::from_secs(10)).await;
        assert_eq!((clock.unix_ms(Instant::now()), clock.unix_ms(begun)), (15_000, 5_000));
        shown_ms.store(15_999, Ordering::Relaxed);
        assert_eq!(clock.follow(), None, "that is no step");
        let year_2026_ms = 1_795_000_000_000;
        shown_ms.store(year_2026_ms, Ordering::Relaxed);
        assert_eq!(clock.unix_ms(Instant::now()), 15_000, "it was not told to");
        assert_eq!(clock.follow(), Some(year_2026_ms as i64 - 15_000));
        assert_eq!((clock.unix_ms(Instant::now()), clock.follow()), (year_2026_ms, None));
        assert_eq!(clock.unix_ms(begun), year_2026_ms - 10_000);
        let minute = Duration::from_secs(60);
        assert_eq!(clock.former_unix_ms(Instant::now(), minute), Some(15_000));
        assert_eq!(clock.former_unix_ms(Instant::now() + minute * 2, minute), None);
        shown_ms.store(3, Ordering::Relaxed);
        assert_eq!(clock.follow(), Some(3 - year_2026_ms as i64));
        assert_eq!(clock.unix_ms(begun), 0, "there is nothing before 1970");
    }
}
