//! Live speech: which stations should hear it, which do, and what each has heard in the end.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::broadcast;
use tokio::time::Instant;

use super::announcement::{Timing, out_of_step, spread};
use super::{Action, MAX_SENDINGS, Order, Presence, RECEIPT_DEADLINE, Station, Stations};
use crate::event::{self, Concealed, Event, Missing, Outcome};
use crate::priority::Priority;
use crate::wire::{ClipId, LiveReceipt};

/// The most blocks that wait for one connection; a station that accepts them more slowly loses the earlier ones, and
/// holds up nobody else.
pub const MAX_WAITING_LIVE_BLOCKS: usize = 16;

/// What is sent to every station that hears live speech, as the bytes of a message.
#[derive(Debug, Clone)]
pub enum LivePart {
    /// A block.
    Block {
        /// Its number.
        number: u32,
        /// The message.
        message: Bytes,
    },
    /// The end.
    End(Bytes),
}

/// Live speech that stations may join while it lasts.
#[derive(Debug)]
pub struct LiveOffer {
    /// Its id as an announcement.
    pub id: ClipId,
    /// Its encoded header.
    pub header: Vec<u8>,
    /// The announcer's signature over it; empty in open mode.
    pub signature: Vec<u8>,
    /// How urgent it is.
    pub priority: Priority,
    /// The zones it is for; none means all.
    pub zones: Vec<String>,
    /// The delay between speaking and hearing.
    pub latency: Duration,
    parts: broadcast::Sender<LivePart>,
    next: AtomicU32,
}

impl LiveOffer {
    /// Creates an offer before anything was said.
    pub fn new(
        id: ClipId,
        (header, signature): (Vec<u8>, Vec<u8>),
        priority: Priority,
        zones: Vec<String>,
        latency: Duration,
    ) -> Self {
        let (parts, _) = broadcast::channel(MAX_WAITING_LIVE_BLOCKS);
        Self { id, header, signature, priority, zones, latency, parts, next: AtomicU32::new(0) }
    }

    /// Sends a part to all stations that have joined. Never waits.
    pub fn give(&self, part: LivePart) {
        if let LivePart::Block { number, .. } = &part {
            // Counted before it is sent: a station that joins now either receives it, or begins with the one after it.
            self.next.store(number.saturating_add(1), Ordering::SeqCst);
        }
        // Perhaps nobody listens.
        let _ = self.parts.send(part);
    }

    /// Joins: returns the receiver of the parts that follow, and the number of the first block to expect.
    pub fn join(&self) -> (broadcast::Receiver<LivePart>, u32) {
        (self.parts.subscribe(), self.next.load(Ordering::SeqCst))
    }

    fn is_for(&self, zones: &[String]) -> bool {
        self.zones.is_empty() || self.zones.iter().any(|zone| zones.contains(zone))
    }
}

/// One station's part in live speech.
#[derive(Debug, Default)]
struct Listener {
    /// The start was sent to it on its current connection.
    is_joined: bool,
    /// Its loudspeaker has begun.
    has_begun: bool,
    /// How often the start was sent to it, and it reported that it cannot play.
    failures: u32,
    trouble: Option<String>,
    outcome: Option<Outcome>,
    /// Its receipt, if it sent one.
    receipt: Option<LiveReceipt>,
}

/// Live speech that is being heard, or whose receipts are due.
#[derive(Debug)]
pub(super) struct Live {
    offer: Arc<LiveOffer>,
    listeners: BTreeMap<String, Listener>,
    /// Once it is over: its number of blocks, and until when the verdict waits for receipts.
    end: Option<(u32, Instant)>,
}

impl Live {
    /// Whether a station is hearing it, or owes a receipt for it.
    pub fn is_heard_at(&self, name: &str) -> bool {
        self.listeners.get(name).is_some_and(|it| it.is_joined && it.outcome.is_none())
    }
}

impl Stations {
    /// Lets every station that it is for hear live speech from now on: those that are free at once, the others as soon
    /// as they are. Returns the names of all.
    pub fn begin_live(&mut self, offer: Arc<LiveOffer>, now: Instant) -> Vec<String> {
        let (priority, id) = (offer.priority, offer.id);
        let meant = self.roster.iter().filter(|(_, station)| offer.is_for(&station.zones));
        let listeners: BTreeMap<_, _> = meant
            .map(|(name, station)| {
                (name.clone(), Listener { trouble: station.trouble_for(priority), ..Listener::default() })
            })
            .collect();
        let names: Vec<String> = listeners.keys().cloned().collect();
        self.live = Some(Live { offer, listeners, end: None });
        self.clear_the_way_for(id, priority, &names, now);
        for name in &names {
            self.serve(name, now);
        }
        names
    }

    /// Ends live speech after `blocks` blocks. Receipts are accepted until long after the last words were heard.
    pub fn end_live(&mut self, blocks: u32, now: Instant) {
        if let Some(live) = &mut self.live {
            live.end = Some((blocks, now + live.offer.latency + RECEIPT_DEADLINE));
        }
        self.settle_live(now);
    }

    /// Whether live speech is in progress, or receipts for it are due.
    pub fn has_live(&self) -> bool {
        self.live.is_some()
    }

    /// Whether a station is hearing live speech, or owes a receipt for it.
    pub(super) fn hears_live(&self, name: &str) -> bool {
        self.live.as_ref().is_some_and(|live| live.is_heard_at(name))
    }

    /// Whether `clip` is live speech that a station is hearing.
    pub(super) fn is_live(&self, clip: ClipId, name: &str) -> bool {
        self.hears_live(name) && self.live.as_ref().is_some_and(|live| live.offer.id == clip)
    }

    /// The priority of the live speech that a station could join now.
    pub(super) fn live_for(&self, name: &str) -> Option<Priority> {
        let live = self.live.as_ref().filter(|live| live.end.is_none())?;
        let is_meant = self.roster.get(name).is_some_and(|station| live.offer.is_for(&station.zones));
        let is_open = live.listeners.get(name).is_none_or(|listener| listener.outcome.is_none());
        (is_meant && is_open).then_some(live.offer.priority)
    }

    /// Lets a free station join.
    pub(super) fn join_live(&mut self, name: &str) {
        let (Some(live), Some(Station { presence: Presence::Here { connection, served }, .. })) =
            (&mut self.live, self.roster.get_mut(name))
        else {
            return;
        };
        *served = true;
        live.listeners.entry(name.to_owned()).or_default().is_joined = true;
        self.actions.push(Action::Order(*connection, Order::Live(live.offer.clone())));
    }

    /// Handles a listener that is gone, or cannot play for now. It may join again.
    pub(super) fn leave_live(&mut self, name: &str, reason: &str, now: Instant) {
        if let Some(listener) = self.live.as_mut().and_then(|live| live.listeners.get_mut(name)) {
            listener.is_joined = false;
            listener.trouble = Some(reason.to_owned());
        }
        self.settle_live(now);
    }

    pub(super) fn live_playing(&mut self, name: &str, clip: ClipId) -> bool {
        let Some(listener) = self.live.as_mut().and_then(|live| live.listeners.get_mut(name)) else {
            return false;
        };
        if !std::mem::replace(&mut listener.has_begun, true) {
            self.tell(Event::Playing { clip: clip.to_string(), station: name.to_owned() });
        }
        true
    }

    pub(super) fn live_queued(&mut self, name: &str, clip: ClipId) -> bool {
        let interrupted = self
            .live
            .as_mut()
            .and_then(|live| live.listeners.get_mut(name))
            .is_some_and(|listener| std::mem::take(&mut listener.has_begun));
        self.tell(Event::Queued { clip: clip.to_string(), station: name.to_owned(), interrupted });
        true
    }

    /// Handles a station that does not hear it for a reason of its own.
    pub(super) fn live_failed(
        &mut self,
        name: &str,
        clip: ClipId,
        reason: String,
        is_refused: bool,
        now: Instant,
    ) -> bool {
        let Some(listener) = self.live.as_mut().and_then(|live| live.listeners.get_mut(name)) else {
            return false;
        };
        listener.failures += 1;
        let is_final = listener.failures >= if is_refused { super::MAX_REFUSALS } else { MAX_SENDINGS };
        listener.outcome = is_final.then_some(match is_refused {
            true => Outcome::Rejected,
            false => Outcome::Interrupted,
        });
        if is_refused {
            let (clip, station) = (clip.to_string(), name.to_owned());
            self.tell(Event::Rejected { clip, station, reason: reason.clone() });
        }
        self.order(name, Order::Note(clip));
        self.leave_live(name, &reason, now);
        true
    }

    /// Accepts a receipt. False for one that cannot be true.
    pub(super) fn live_played(&mut self, name: &str, receipt: LiveReceipt, now: Instant) -> bool {
        let Some(Live { end: Some((blocks, _)), listeners, .. }) = &mut self.live else { return false };
        let adds_up = receipt.played.checked_add(receipt.concealed) == Some(*blocks);
        if !adds_up || receipt.late > receipt.concealed {
            return false;
        }
        let Some(listener) = listeners.get_mut(name) else { return false };
        let told = event::live_played(&receipt, name.to_owned());
        if let Event::LivePlayed { outcome, .. } = &told {
            listener.outcome = Some(*outcome);
        }
        listener.receipt = Some(receipt);
        self.tell(told);
        self.order(name, Order::Note(receipt.clip));
        self.settle_live(now);
        true
    }

    /// Handles a station that is no longer on the roster.
    pub(super) fn forget_live(&mut self, name: &str, reason: &str, now: Instant) {
        if let Some(listener) = self.live.as_mut().and_then(|live| live.listeners.get_mut(name)) {
            listener.outcome.get_or_insert(match listener.has_begun {
                true => Outcome::Interrupted,
                false => Outcome::Missed,
            });
        }
        self.leave_live(name, reason, now);
    }

    /// Reports the verdict once it is over and there is no station left to wait for.
    pub(super) fn settle_live(&mut self, now: Instant) {
        let Some(Live { offer, listeners, end: Some((_, until)) }) = &self.live else { return };
        let is_due = |it: &Listener| it.is_joined && it.outcome.is_none() && now < *until;
        if listeners.values().any(is_due) {
            return;
        }
        let id = offer.id;
        let Some(Live { mut listeners, .. }) = self.live.take() else { return };
        let silent: Vec<String> = listeners
            .iter()
            .filter(|(_, it)| it.is_joined && it.outcome.is_none())
            .map(|(name, _)| name.clone())
            .collect();
        for (station, listener) in listeners.iter_mut().filter(|(_, it)| it.receipt.is_none()) {
            let outcome = *listener.outcome.get_or_insert(match listener.has_begun {
                true => Outcome::Interrupted,
                false => Outcome::Missed,
            });
            let reason = match listener.is_joined {
                true => "it sent no receipt".to_owned(),
                false => listener.trouble.take().unwrap_or_else(|| "it was not free in time".to_owned()),
            };
            listener.trouble = Some(reason.clone());
            self.tell(Event::Failed { clip: id.to_string(), station: station.clone(), outcome, reason });
        }
        self.tell(verdict(id, &listeners));
        for name in silent {
            self.break_off(&name, "it sent no receipt", now);
        }
        let free: BTreeSet<String> = self.names.values().cloned().collect();
        for name in free {
            self.serve(&name, now);
        }
    }
}

fn verdict(id: ClipId, listeners: &BTreeMap<String, Listener>) -> Event {
    let is_heard = |it: &Listener| it.outcome.is_some_and(Outcome::is_played);
    let timings: BTreeMap<String, Timing> = listeners
        .iter()
        .filter(|(_, listener)| is_heard(listener))
        .filter_map(|(name, listener)| Some((name.clone(), Timing::of_live(listener.receipt.as_ref()?))))
        .collect();
    let (spread_us, uncertainty_us) = spread(&timings).unzip();
    let receipts = listeners.iter().filter_map(|(name, listener)| Some((name, listener.receipt?)));
    let of = |receipt: &LiveReceipt| receipt.played.saturating_add(receipt.concealed);
    Event::Done {
        clip: id.to_string(),
        played: listeners.values().filter(|listener| is_heard(listener)).count(),
        expected: listeners.len(),
        missing: listeners
            .iter()
            .filter(|(_, listener)| !is_heard(listener))
            .map(|(station, listener)| Missing {
                station: station.clone(),
                reason: match (&listener.receipt, &listener.trouble) {
                    (Some(receipt), _) => {
                        format!("it heard {} of {} blocks", receipt.played, of(receipt))
                    }
                    (None, Some(trouble)) => trouble.clone(),
                    (None, None) => "it gave no answer".to_owned(),
                },
            })
            .collect(),
        spread_us,
        uncertainty_us,
        out_of_step: out_of_step(&timings),
        concealed: receipts
            .filter(|(_, receipt)| receipt.concealed > 0)
            .map(|(station, receipt)| Concealed {
                station: station.clone(),
                concealed: receipt.concealed,
                blocks: of(&receipt),
            })
            .collect(),
    }
}
