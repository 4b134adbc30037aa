//! Fair shares: on a network that is slower than this machine, no station is sent much more of a clip than the others
//! in the same time, and only as many stations are sent it at once as a line can carry.
//!
//! Without this, the connections of a full line share it by luck: behind 100 Mbit/s, the first of a hundred stations
//! was measured to have a clip after a third of the time that the last one took; and of a thousand at once, most
//! starved in the switch's queue until they counted as lost.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::{Notify, Semaphore};
use tokio::time::{Instant, timeout_at};

/// Below this number of stations none waits for another: one or two slow ones would be too large a share.
const MIN_TRANSFERS: u64 = 16;
/// How far ahead of the mean each may be, in bytes, …
const LEAD_BYTES: u64 = 64 * 1024;
/// … or one part in this many of what it was sent, if that is more: stations that accept nothing hold up nobody while
/// they are fewer than this part of all.
const LEAD_ONE_IN: u64 = 4;
/// How long one station waits for the others in all, if they are slow for reasons of their own.
const PATIENCE: Duration = Duration::from_secs(2);
/// Up to this number of stations are sent a clip all at once, so that all have it at nearly the same time …
const ALL_AT_ONCE: usize = 128;
/// … and if there are more, this number at once: behind 100 Mbit/s, 48 of a thousand at once lost no link, 128 lost one
/// in three.
const MANY_AT_ONCE: usize = 48;
/// Waiting transfers check again when the mean has moved by this many bytes.
const STEP_BYTES: u64 = 16 * 1024;

/// How far a clip has come, at all its stations together.
#[derive(Debug)]
pub struct Pace {
    turns: Arc<Semaphore>,
    sent: AtomicU64,
    transfers: AtomicU64,
    step: AtomicU64,
    moved: Notify,
}

impl Default for Pace {
    fn default() -> Self {
        Self::among(0)
    }
}

impl Pace {
    /// Creates the pace of a clip that goes to this number of stations.
    pub(super) fn among(stations: usize) -> Self {
        let at_once = if stations > ALL_AT_ONCE { MANY_AT_ONCE } else { ALL_AT_ONCE };
        Self {
            turns: Arc::new(Semaphore::new(at_once)),
            sent: AtomicU64::new(0),
            transfers: AtomicU64::new(0),
            step: AtomicU64::new(0),
            moved: Notify::new(),
        }
    }

    /// One permit for each transfer that may be on its way.
    pub fn turns(&self) -> Arc<Semaphore> {
        self.turns.clone()
    }

    /// Bytes handed to the network so far.
    pub fn sent_bytes(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Starts sending the clip to one more station.
    pub fn begin(&self) -> Transfer<'_> {
        self.transfers.fetch_add(1, Ordering::Relaxed);
        Transfer { pace: self, sent: 0, patience: PATIENCE, is_whole: false }
    }

    fn mean(&self) -> u64 {
        self.sent_bytes() / self.transfers.load(Ordering::Relaxed).max(1)
    }

    fn is_ahead(&self, sent: u64) -> bool {
        self.transfers.load(Ordering::Relaxed) >= MIN_TRANSFERS
            && sent > self.mean() + LEAD_BYTES.max(sent / LEAD_ONE_IN)
    }
}

/// One station's transfer. If it is dropped before it is whole, the bytes it was sent no longer count.
#[derive(Debug)]
pub struct Transfer<'a> {
    pace: &'a Pace,
    sent: u64,
    patience: Duration,
    is_whole: bool,
}

impl Transfer<'_> {
    /// Waits while this station is too far ahead of the others.
    pub async fn turn(&mut self) {
        if self.patience.is_zero() || !self.pace.is_ahead(self.sent) {
            return;
        }
        let begun = Instant::now();
        loop {
            // Registered before the check: the step in between may be the last.
            let moved = self.pace.moved.notified();
            if !self.pace.is_ahead(self.sent) {
                break;
            }
            if timeout_at(begun + self.patience, moved).await.is_err() {
                self.patience = Duration::ZERO;
                return;
            }
        }
        self.patience = self.patience.saturating_sub(begun.elapsed());
    }

    /// Records that `bytes` more bytes were handed to the network.
    pub fn sent(&mut self, bytes: usize) {
        self.sent += bytes as u64;
        self.pace.sent.fetch_add(bytes as u64, Ordering::Relaxed);
        let step = self.pace.mean() / STEP_BYTES;
        // Any change counts, since the mean falls when another transfer begins.
        if self.pace.step.swap(step, Ordering::Relaxed) != step {
            self.pace.moved.notify_waiters();
        }
    }

    /// Records that the last byte was handed over.
    pub fn finish(mut self) {
        self.is_whole = true;
    }
}

impl Drop for Transfer<'_> {
    fn drop(&mut self) {
        if !self.is_whole {
            self.pace.sent.fetch_sub(self.sent, Ordering::Relaxed);
            self.pace.transfers.fetch_sub(1, Ordering::Relaxed);
            self.pace.moved.notify_waiters();
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;

    async fn passes(transfer: &mut Transfer<'_>) -> bool {
        tokio::time::timeout(Duration::from_millis(100), transfer.turn()).await.is_ok()
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_far_ahead_waits_until_the_others_have_come_closer() {
        let pace = Pace::default();
        let mut all: Vec<_> = (0..16).map(|_| pace.begin()).collect();
        let (first, rest) = all.split_first_mut().unwrap();
        assert!(passes(first).await);
        first.sent(200_000);
        assert!(!passes(first).await);
        let waiting = first.turn();
        tokio::pin!(waiting);
        assert!(tokio::time::timeout(Duration::from_millis(10), &mut waiting).await.is_err());
        rest.iter_mut().for_each(|transfer| transfer.sent(150_000));
        tokio::time::timeout(Duration::from_millis(10), waiting).await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_few_that_take_nothing_hold_up_nobody() {
        let pace = Pace::default();
        let mut all: Vec<_> = (0..20).map(|_| pace.begin()).collect();
        let (_deaf, rest) = all.split_at_mut(4);
        for _ in 0..100 {
            for transfer in rest.iter_mut() {
                assert!(passes(transfer).await);
                transfer.sent(65_536);
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_is_woken_though_the_mean_was_higher_before_the_others_began() {
        let pace = Pace::default();
        let mut first = pace.begin();
        first.sent(200_000);
        first.finish();
        let mut all: Vec<_> = (0..16).map(|_| pace.begin()).collect();
        let (ahead, rest) = all.split_first_mut().unwrap();
        ahead.sent(150_000);
        let waiting = ahead.turn();
        tokio::pin!(waiting);
        assert!(tokio::time::timeout(Duration::from_millis(10), &mut waiting).await.is_err());
        rest.iter_mut().for_each(|transfer| transfer.sent(140_000));
        tokio::time::timeout(Duration::from_millis(10), waiting).await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn patience_ends_and_small_sites_have_none() {
        let pace = Pace::default();
        let mut all: Vec<_> = (0..16).map(|_| pace.begin()).collect();
        let begun = Instant::now();
        for _ in 0..10 {
            all[0].sent(1_000_000);
            all[0].turn().await;
        }
        assert_eq!(begun.elapsed(), PATIENCE);
        // Transfers that are gone are not waited for, and the bytes they had do not count.
        all.drain(..1);
        assert_eq!(pace.sent_bytes(), 0);
        all[0].sent(1_000_000);
        assert!(passes(&mut all[0]).await, "fifteen are left");
        all.remove(0).finish();
        assert_eq!(pace.sent_bytes(), 1_000_000);
    }
}
