//! The rate at which messages are read: TCP slows down a peer that sends faster, and that peer costs nothing while it
//! waits.

use std::time::Duration;

use tokio::time::{Instant, sleep_until};

/// How many messages are read as fast as they arrive, …
pub const MESSAGE_BURST: u32 = 256;
/// … and then one per this interval. The most that an honest peer sends is live speech, 50 messages a second.
pub const MESSAGE_INTERVAL: Duration = Duration::from_millis(10);

/// Counts messages: a bucket that holds [`MESSAGE_BURST`] and gains one per [`MESSAGE_INTERVAL`].
#[derive(Debug)]
pub(super) struct Allowance {
    /// When the bucket is full again.
    full_at: Instant,
}

impl Allowance {
    pub fn new() -> Self {
        Self { full_at: Instant::now() }
    }

    /// Waits until another message may be read. Cancelling loses nothing.
    pub async fn ready(&self) {
        let now = Instant::now();
        let fills_in = self.full_at.saturating_duration_since(now);
        let too_full = fills_in.saturating_sub(MESSAGE_INTERVAL * (MESSAGE_BURST - 1));
        if !too_full.is_zero() {
            sleep_until(now + too_full).await;
        }
    }

    /// Counts one message that was read.
    pub fn take(&mut self) {
        self.full_at = self.full_at.max(Instant::now()) + MESSAGE_INTERVAL;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_burst_passes_a_flood_is_slowed_and_live_speech_is_not() {
        let mut allowance = Allowance::new();
        let begun = Instant::now();
        for _ in 0..MESSAGE_BURST {
            allowance.ready().await;
            allowance.take();
        }
        assert_eq!(begun.elapsed(), Duration::ZERO);
        for _ in 0..1_000 {
            allowance.ready().await;
            allowance.take();
        }
        assert_eq!(begun.elapsed(), MESSAGE_INTERVAL * 1_000);
        // Live speech fills the bucket again while it lasts.
        for _ in 0..1_000 {
            tokio::time::sleep(Duration::from_millis(20)).await;
            let since = Instant::now();
            allowance.ready().await;
            allowance.take();
            assert_eq!(since.elapsed(), Duration::ZERO);
        }
    }
}
