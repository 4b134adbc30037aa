//! Whether a sound device works, for whoever must know.

use tokio::sync::watch;

/// Watches one device: why it does not work, or nothing while it does.
#[derive(Debug, Clone)]
pub struct HealthWatch(watch::Receiver<Option<String>>);

impl HealthWatch {
    /// A watch, and what tells it.
    pub fn channel(fault: Option<String>) -> (watch::Sender<Option<String>>, Self) {
        let (sender, receiver) = watch::channel(fault);
        (sender, Self(receiver))
    }

    /// Of something that cannot break, such as a file.
    pub(crate) fn sound() -> Self {
        Self::channel(None).1
    }

    /// Why the device does not work now.
    pub fn fault(&self) -> Option<String> {
        self.0.borrow().clone()
    }

    /// Returns when that changes. Cancelling loses nothing.
    pub async fn changed(&mut self) {
        if self.0.changed().await.is_err() {
            // The device is given up with its owner: nothing changes any more.
            std::future::pending::<()>().await;
        }
    }
}
