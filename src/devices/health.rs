//! Whether a sound device works: what its callbacks report, and what whoever must know is told.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::thread::Thread;
use std::time::{Duration, Instant};

use cpal::ErrorKind;
use pulseaudio::StreamId;
use tokio::sync::watch;

/// What the callbacks of one stream report; all of it without a lock.
#[derive(Debug)]
pub(crate) struct Health {
    calls: AtomicU64,
    xruns: AtomicU32,
    failure: OnceLock<cpal::Error>,
    /// The stream as a sound server knows it, see [`StreamId::to_bits`]; 0 for none.
    stream: AtomicU64,
    keeper: Thread,
    grown_up: Instant,
}

impl Health {
    /// Of a stream that is about to be opened. The thread is woken when there is something to look after; errors that do not
    /// last longer than its youth are none.
    pub(super) fn new(keeper: Thread, youth: Duration) -> Self {
        let [calls, stream] = [(); 2].map(|()| AtomicU64::new(0));
        let grown_up = Instant::now() + youth;
        Self { calls, xruns: AtomicU32::new(0), failure: OnceLock::new(), stream, keeper, grown_up }
    }

    /// Counts a data callback, and says how many were before it. The keeper looks after the first.
    pub(crate) fn called(&self) -> u64 {
        let before = self.calls.fetch_add(1, Ordering::Relaxed);
        if before == 0
            && let Some(stream) = StreamId::current()
        {
            self.stream.store(stream.to_bits(), Ordering::Release);
            self.keeper.unpark();
        }
        before
    }

    /// So many data callbacks were there.
    pub(super) fn calls(&self) -> u64 {
        self.calls.load(Ordering::Relaxed)
    }

    /// What ended the stream.
    pub(super) fn failure(&self) -> Option<&cpal::Error> {
        self.failure.get()
    }

    /// The stream as the sound server knows it, once it has called.
    pub(super) fn stream(&self) -> Option<StreamId> {
        StreamId::from_bits(self.stream.load(Ordering::Acquire))
    }

    /// Times the device ran dry, or over.
    pub(crate) fn xruns(&self) -> u32 {
        self.xruns.load(Ordering::Relaxed)
    }

    /// The sound server says how often in all it found nothing to play.
    pub(crate) fn ran_dry(&self, times: u32) {
        self.xruns.fetch_max(times, Ordering::Relaxed);
    }

    /// The error callback. ALSA was measured to call it 900,000 times a second after its server died, so
    /// only the first fatal error does anything: it wakes the keeper, which drops the stream.
    pub(crate) fn report(&self, error: cpal::Error) {
        match error.kind() {
            ErrorKind::Xrun => {
                self.xruns.fetch_add(1, Ordering::Relaxed);
            }
            ErrorKind::DeviceChanged | ErrorKind::RealtimeDenied => {}
            kind if kind != ErrorKind::DeviceNotAvailable && Instant::now() < self.grown_up => {}
            _ => {
                if self.failure.get().is_none() && self.failure.set(error).is_ok() {
                    self.keeper.unpark();
                }
            }
        }
    }
}

/// Watches one device: why it does not work, or nothing while it does; and what is odd about one that works.
#[derive(Debug, Clone)]
pub struct HealthWatch {
    fault: watch::Receiver<Option<String>>,
    warning: watch::Receiver<Option<String>>,
}

/// What tells a [`HealthWatch`].
#[derive(Debug)]
pub(crate) struct HealthSigns {
    pub(crate) fault: watch::Sender<Option<String>>,
    pub(crate) warning: watch::Sender<Option<String>>,
}

impl HealthWatch {
    /// A watch, and what tells it of faults.
    pub fn channel(fault: Option<String>) -> (watch::Sender<Option<String>>, Self) {
        let (signs, watch) = Self::signs(fault);
        (signs.fault, watch)
    }

    /// A watch, and what tells it of everything.
    pub(crate) fn signs(fault: Option<String>) -> (HealthSigns, Self) {
        let (fault, faults) = watch::channel(fault);
        let (warning, warnings) = watch::channel(None);
        (HealthSigns { fault, warning }, Self { fault: faults, warning: warnings })
    }

    /// Of something that cannot break, such as a file.
    pub(crate) fn sound() -> Self {
        Self::channel(None).1
    }

    /// Why the device does not work now.
    pub fn fault(&self) -> Option<String> {
        self.fault.borrow().clone()
    }

    /// Returns when that changes. Cancelling loses nothing.
    pub async fn changed(&mut self) {
        if self.fault.changed().await.is_err() {
            // The device is given up with its owner: nothing changes any more.
            std::future::pending::<()>().await;
        }
    }

    /// Waits for a warning that was not given yet: the device works, but hardly anything is heard of it. Cancelling loses
    /// nothing.
    pub async fn warned(&mut self) -> String {
        loop {
            if self.warning.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
            if let Some(warning) = self.warning.borrow_and_update().clone() {
                return warning;
            }
        }
    }
}
