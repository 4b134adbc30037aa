//! One loudspeaker for the pages of all announcers: which page has it, which pages wait for it, and which one gives it up.

use std::cmp::Reverse;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;

use crate::loudspeaker::Loudspeaker;
use crate::priority::Priority;

/// Owns the loudspeaker. Only the page whose turn it is can play on it, so that no two pages ever mix.
#[derive(Debug)]
pub struct Arbiter {
    loudspeaker: tokio::sync::Mutex<Loudspeaker>,
    line: watch::Sender<Line>,
    /// The last known lead, used while a page plays.
    lead: Mutex<Duration>,
}

impl Arbiter {
    /// Creates an arbiter with no page in line.
    pub fn new(loudspeaker: Loudspeaker) -> Self {
        let lead = Mutex::new(loudspeaker.lead());
        Self { loudspeaker: tokio::sync::Mutex::new(loudspeaker), line: watch::Sender::default(), lead }
    }

    /// See [`Loudspeaker::lead`].
    pub fn lead(&self) -> Duration {
        let mut lead = self.lead.lock().unwrap_or_else(PoisonError::into_inner);
        if let Ok(loudspeaker) = self.loudspeaker.try_lock() {
            *lead = loudspeaker.lead();
        }
        *lead
    }

    /// Gets in line for a page.
    pub fn enter(&self, priority: Priority) -> Place<'_> {
        let mut ticket = 0;
        self.line.send_modify(|line| ticket = line.enter(priority));
        Place { arbiter: self, ticket, line: self.line.subscribe() }
    }
}

/// One page's place in line; dropping it leaves the line.
#[derive(Debug)]
pub struct Place<'a> {
    arbiter: &'a Arbiter,
    ticket: u64,
    line: watch::Receiver<Line>,
}

impl<'a> Place<'a> {
    /// Whether the page may play now, or as soon as the one before it is silent.
    pub fn is_first(&self) -> bool {
        self.line.borrow().first() == Some(self.ticket)
    }

    /// Waits for the turn. The caller must give the loudspeaker up when the page is [`Self::overtaken`].
    pub async fn turn(&self) -> tokio::sync::MutexGuard<'a, Loudspeaker> {
        let arbiter = self.arbiter;
        loop {
            self.until(true).await;
            let loudspeaker = arbiter.loudspeaker.lock().await;
            if self.is_first() {
                return loudspeaker;
            }
        }
    }

    /// Waits until another page goes first.
    pub async fn overtaken(&self) {
        self.until(false).await;
    }

    /// Sets whether the page sounds: while it does, only an emergency cuts it off.
    pub fn sounds(&self, sounds: bool) {
        let ticket = self.ticket;
        self.arbiter.line.send_modify(|line| line.sounds(ticket, sounds));
    }

    async fn until(&self, is_first: bool) {
        let mut line = self.line.clone();
        // The arbiter holds the sender, and outlives every place.
        let _ = line.wait_for(|line| (line.first() == Some(self.ticket)) == is_first).await;
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let ticket = self.ticket;
        self.arbiter.line.send_modify(|line| line.leave(ticket));
    }
}

/// The pages that want to be heard. No two have the same ticket, and a later page has a greater one.
#[derive(Debug, Default)]
struct Line {
    pages: Vec<Page>,
    last_ticket: u64,
}

#[derive(Debug)]
struct Page {
    ticket: u64,
    priority: Priority,
    sounds: bool,
}

impl Line {
    fn enter(&mut self, priority: Priority) -> u64 {
        self.last_ticket += 1;
        self.pages.push(Page { ticket: self.last_ticket, priority, sounds: false });
        self.last_ticket
    }

    fn leave(&mut self, ticket: u64) {
        self.pages.retain(|page| page.ticket != ticket);
    }

    fn sounds(&mut self, ticket: u64, sounds: bool) {
        if let Some(page) = self.pages.iter_mut().find(|page| page.ticket == ticket) {
            page.sounds = sounds;
        }
    }

    /// Returns the page whose turn it is: the one that sounds, unless an emergency interrupts it; otherwise the most urgent, and
    /// of equally urgent ones the earliest.
    fn first(&self) -> Option<u64> {
        let next = self.pages.iter().max_by_key(|page| (page.priority, page.sounds, Reverse(page.ticket)))?;
        let sounding = self.pages.iter().find(|page| page.sounds);
        let goes_on = sounding.filter(|sounding| !next.priority.interrupts(sounding.priority));
        Some(goes_on.unwrap_or(next).ticket)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::loudspeaker::Output;

    fn line(pages: &[(Priority, bool)]) -> Line {
        let mut line = Line::default();
        for (priority, sounds) in pages {
            let ticket = line.enter(*priority);
            line.sounds(ticket, *sounds);
        }
        line
    }

    #[test]
    fn the_most_urgent_goes_first_and_what_sounds_goes_on() {
        use Priority::{Emergency, High, Low, Normal};
        for (pages, first) in [
            (&[][..], None),
            (&[(Normal, false), (Normal, false)], Some(1)),
            (&[(Low, false), (Normal, false), (High, false), (High, false)], Some(3)),
            (&[(Low, true), (High, false)], Some(1)),
            (&[(Low, true), (High, false), (Emergency, false)], Some(3)),
            (&[(High, true), (Emergency, false), (Emergency, false)], Some(2)),
            (&[(Emergency, false), (Emergency, true)], Some(2)),
        ] {
            assert_eq!(line(pages).first(), first, "{pages:?}");
        }
        let mut interrupted = line(&[(Normal, true), (Normal, false), (Emergency, false)]);
        interrupted.sounds(1, false);
        interrupted.leave(3);
        assert_eq!(interrupted.first(), Some(1), "what was interrupted keeps its place");
    }

    #[tokio::test]
    async fn only_one_has_the_loudspeaker_and_gives_it_up_when_it_is_overtaken() {
        let folder = tempfile::tempdir().unwrap();
        let arbiter = Arc::new(Arbiter::new(Loudspeaker::open(&Output::File(folder.path().into())).unwrap()));
        let page = arbiter.enter(Priority::Normal);
        let loudspeaker = page.turn().await;
        page.sounds(true);
        let other = Arc::clone(&arbiter);
        let (begun, has_begun) = tokio::sync::oneshot::channel();
        let emergency = tokio::spawn(async move {
            let place = other.enter(Priority::Emergency);
            let _loudspeaker = place.turn().await;
            begun.send(()).unwrap();
        });
        page.overtaken().await;
        assert!(!page.is_first() && !emergency.is_finished());
        drop(loudspeaker);
        page.sounds(false);
        has_begun.await.unwrap();
        emergency.await.unwrap();
        assert!(page.is_first());
        drop(page.turn().await);
        assert_eq!(arbiter.lead(), Duration::ZERO);
    }
}
