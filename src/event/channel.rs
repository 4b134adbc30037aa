//! How events reach their reader: a bounded queue, in which no flood of one kind takes the places of another.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::mpsc;

use super::Event;

/// The most events that wait for a slow reader; beyond that, new ones are dropped. A page emits four for each of its
/// stations, and they may all come within a moment.
pub const MAX_WAITING_EVENTS: usize = 65_536;

/// Where a role emits its events. Cheap to clone; never blocks the sender.
#[derive(Debug, Clone)]
pub struct Events {
    sender: mpsc::Sender<Event>,
    dropped: Arc<AtomicU64>,
}

/// Places among [`MAX_WAITING_EVENTS`] that no flood of anything else can take: reserved for outcomes and verdicts, …
const KEPT_FOR_OUTCOMES: usize = MAX_WAITING_EVENTS / 4;
/// … and in addition for faults and warnings.
const KEPT_FOR_FAULTS: usize = MAX_WAITING_EVENTS / 8;

impl Event {
    /// How many places must stay free after it is queued.
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
    /// Creates a sender and its receiver.
    pub fn channel() -> (Self, mpsc::Receiver<Event>) {
        let (sender, receiver) = mpsc::channel(MAX_WAITING_EVENTS);
        (Self { sender, dropped: Arc::default() }, receiver)
    }

    /// Emits one event. If the receiver is gone or too many events wait, it is dropped: a stopped reader of standard
    /// output must not stop an announcement. Of [`MAX_WAITING_EVENTS`] places, a quarter is reserved for outcomes and
    /// verdicts, and another eighth for faults and warnings.
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

/// Like [`Events`], for a thread that may outlive all other senders: it does not keep the channel open.
#[derive(Debug, Clone)]
pub struct WeakEvents {
    sender: mpsc::WeakSender<Event>,
    dropped: Arc<AtomicU64>,
}

impl WeakEvents {
    /// Emits one event, unless all other senders are gone.
    pub fn tell(&self, event: Event) {
        if let Some(sender) = self.sender.upgrade() {
            Events { sender, dropped: self.dropped.clone() }.tell(event);
        }
    }
}

impl Events {
    /// Returns a sender for a thread that may outlive all others.
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
