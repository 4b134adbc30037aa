//! How events reach whoever shows them: a bounded queue that no flood of one kind takes from another.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::mpsc;

use super::Event;

/// The most events that wait for a slow reader; beyond it new ones are dropped. A page tells four of each
/// of its stations, and they all may come within a moment.
pub const MAX_WAITING_EVENTS: usize = 65_536;

/// Where a role tells what happens. Cheap to clone; never blocks the teller.
#[derive(Debug, Clone)]
pub struct Events {
    sender: mpsc::Sender<Event>,
    dropped: Arc<AtomicU64>,
}

/// Places among [`MAX_WAITING_EVENTS`] that are kept for what no flood of anything else may crowd out: outcomes and
/// verdicts, …
const KEPT_FOR_OUTCOMES: usize = MAX_WAITING_EVENTS / 4;
/// … and beside them for faults and warnings.
const KEPT_FOR_FAULTS: usize = MAX_WAITING_EVENTS / 8;

impl Event {
    /// How many places must stay free behind it.
    fn places_left_free(&self) -> usize {
        match self {
            Self::Recorded { .. }
            | Self::Played { .. }
            | Self::LiveEnded { .. }
            | Self::LivePlayed { .. }
            | Self::Failed { .. }
            | Self::Done { .. }
            | Self::TalkbackHeard { .. }
            | Self::TalkbackKept { .. } => 0,
            Self::StationFaulty { .. }
            | Self::StationHealthy { .. }
            | Self::MicrophoneFaulty { .. }
            | Self::MicrophoneHealthy { .. }
            | Self::Warning { .. } => KEPT_FOR_OUTCOMES,
            _ => KEPT_FOR_OUTCOMES + KEPT_FOR_FAULTS,
        }
    }
}

impl Events {
    /// A pair of teller and listener.
    pub fn channel() -> (Self, mpsc::Receiver<Event>) {
        let (sender, receiver) = mpsc::channel(MAX_WAITING_EVENTS);
        (Self { sender, dropped: Arc::default() }, receiver)
    }

    /// Tells one event. When the listener is gone or too many wait, it is dropped: a stopped reader of standard output
    /// must not stop an announcement. Of [`MAX_WAITING_EVENTS`] places a quarter is kept for outcomes and verdicts, and
    /// an eighth for faults and warnings beside them.
    pub fn tell(&self, event: Event) {
        let is_dropped = self.sender.capacity() <= event.places_left_free()
            || matches!(self.sender.try_send(event), Err(mpsc::error::TrySendError::Full(_)));
        if is_dropped && !self.sender.is_closed() {
            let dropped = self.dropped.fetch_add(1, Ordering::Relaxed) + 1;
            // A line for each would be a flood of its own.
            if dropped.is_power_of_two() {
                tracing::warn!("nobody reads the events; {dropped} were dropped so far");
            }
        }
    }
}

/// The same for a thread that may outlive its teller: it does not keep the listener waiting for an end.
#[derive(Debug, Clone)]
pub struct WeakEvents {
    sender: mpsc::WeakSender<Event>,
    dropped: Arc<AtomicU64>,
}

impl WeakEvents {
    /// Tells one event, if anybody else still tells any.
    pub fn tell(&self, event: Event) {
        if let Some(sender) = self.sender.upgrade() {
            Events { sender, dropped: self.dropped.clone() }.tell(event);
        }
    }
}

impl Events {
    /// For a thread that may outlive its teller.
    pub fn weak(&self) -> WeakEvents {
        WeakEvents { sender: self.sender.downgrade(), dropped: self.dropped.clone() }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;
    use crate::event::Outcome;

    #[test]
    fn no_flood_crowds_out_outcomes_verdicts_and_faults() {
        let (events, mut told) = Events::channel();
        let failed = || Event::Failed {
            clip: "1-1".into(),
            station: "hall".into(),
            outcome: Outcome::Missed,
            reason: "it was away".into(),
        };
        for _ in 0..MAX_WAITING_EVENTS {
            events.tell(Event::Playing { clip: "1-1".into(), station: "loud".into() });
        }
        events.tell(Event::StationFaulty { station: "hall".into(), reason: "unplugged".into() });
        for _ in 0..MAX_WAITING_EVENTS {
            events.tell(Event::Warning { message: "once more".into() });
        }
        events.tell(failed());
        drop(events);
        let mut seen = Vec::new();
        while let Some(event) = told.blocking_recv() {
            seen.push(event);
        }
        assert_eq!(seen.len(), MAX_WAITING_EVENTS - KEPT_FOR_OUTCOMES + 1);
        assert!(seen.iter().any(|event| matches!(event, Event::StationFaulty { .. })));
        assert_eq!(seen.last(), Some(&failed()));
    }
}
