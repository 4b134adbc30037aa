//! Whether a sound device works, for whoever must know.

use tokio::sync::watch;

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
