//! Whether a sound device works: what its callbacks report, and what its watchers see.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::thread::Thread;
use std::time::{Duration, Instant};

use cpal::ErrorKind;
use pulseaudio::StreamId;
use tokio::sync::watch;

/// What the callbacks of one stream report, all without a lock.
#[derive(Debug)]
pub(crate) struct Health {
    calls: AtomicU64,
    xruns: AtomicU32,
    failure: OnceLock<cpal::Error>,
    /// The stream's id in the sound server, see [`StreamId::to_bits`]; 0 for none.
    stream: AtomicU64,
    keeper: Thread,
    grown_up: Instant,
}

impl Health {
    /// Creates the health record of a stream about to be opened. The keeper's thread is woken when there is something to check.
    /// Errors during the stream's youth do not count as a failure, unless the device is not available.
    pub(super) fn new(keeper: Thread, youth: Duration) -> Self {
        let [calls, stream] = [(); 2].map(|()| AtomicU64::new(0));
        let grown_up = Instant::now() + youth;
        Self { calls, xruns: AtomicU32::new(0), failure: OnceLock::new(), stream, keeper, grown_up }
    }

    /// Counts a data callback, and returns how many there were before it. On a sound server, the first one wakes the keeper.
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

    /// Returns the number of data callbacks so far.
    pub(super) fn calls(&self) -> u64 {
        self.calls.load(Ordering::Relaxed)
    }

    /// Returns the error that ended the stream.
    pub(super) fn failure(&self) -> Option<&cpal::Error> {
        self.failure.get()
    }

    /// Returns the stream's id in the sound server, once the stream has called back.
    pub(super) fn stream(&self) -> Option<StreamId> {
        StreamId::from_bits(self.stream.load(Ordering::Acquire))
    }

    /// Returns how often the device ran dry, or over.
    pub(crate) fn xruns(&self) -> u32 {
        self.xruns.load(Ordering::Relaxed)
    }

    /// Records how often in all the sound server found nothing to play.
    pub(crate) fn ran_dry(&self, times: u32) {
        self.xruns.fetch_max(times, Ordering::Relaxed);
    }

    /// The error callback. ALSA was measured to call it 900,000 times a second after its server died, so only the first fatal
    /// error has an effect: it wakes the keeper, which drops the stream.
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

/// Watches one device: why it does not work, if it does not; and what is odd about one that works.
#[derive(Debug, Clone)]
pub struct HealthWatch {
    fault: watch::Receiver<Option<String>>,
    warning: watch::Receiver<Option<String>>,
}

/// The senders behind a [`HealthWatch`].
#[derive(Debug)]
pub(crate) struct HealthSigns {
    pub(crate) fault: watch::Sender<Option<String>>,
    pub(crate) warning: watch::Sender<Option<String>>,
}

impl HealthWatch {
    /// Creates a watch, and the sender of its faults.
    pub fn channel(fault: Option<String>) -> (watch::Sender<Option<String>>, Self) {
        let (signs, watch) = Self::signs(fault);
        (signs.fault, watch)
    }

    /// Creates a watch, and all its senders.
    pub(crate) fn signs(fault: Option<String>) -> (HealthSigns, Self) {
        let (fault, faults) = watch::channel(fault);
        let (warning, warnings) = watch::channel(None);
        (HealthSigns { fault, warning }, Self { fault: faults, warning: warnings })
    }

    /// Creates a watch on something that cannot break, such as a file.
    pub(crate) fn sound() -> Self {
        Self::channel(None).1
    }

    /// Returns why the device does not work now.
    pub fn fault(&self) -> Option<String> {
        self.fault.borrow().clone()
    }

    /// Returns when the fault changes. Cancelling loses nothing.
    pub async fn changed(&mut self) {
        if self.fault.changed().await.is_err() {
            // The device's owner has given it up: nothing changes any more.
            std::future::pending::<()>().await;
        }
    }

    /// Waits for a new warning: the device works, but hardly anything is heard of it. Cancelling loses nothing.
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
