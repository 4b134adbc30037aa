//! The shell's job control: being stopped, continued, and put into the background.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Signal, getpgrp, getpid, kill_current_process_group, kill_process};
use rustix::termios::tcgetpgrp;
use tokio::runtime::Handle;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinHandle;

/// How long to wait for the system to stop this process before assuming that it will not.
const STOP_PATIENCE: Duration = Duration::from_millis(300);
const STOP_POLL: Duration = Duration::from_millis(5);

/// Watches for job-control signals. Without this, the system stops the process with the terminal in raw mode.
#[derive(Debug)]
pub struct Jobs {
    told: Arc<Told>,
    watch: JoinHandle<()>,
}

#[derive(Debug, Default)]
struct Told {
    stop: AtomicBool,
    continued: AtomicBool,
}

impl Jobs {
    /// Starts to watch.
    ///
    /// # Errors
    /// The signals cannot be watched.
    pub fn watch(runtime: &Handle) -> io::Result<Self> {
        let _inside = runtime.enter();
        let mut stop = signal(SignalKind::from_raw(Signal::TSTP.as_raw()))?;
        let mut continued = signal(SignalKind::from_raw(Signal::CONT.as_raw()))?;
        let told = Arc::new(Told::default());
        let tells = Arc::clone(&told);
        let watch = runtime.spawn(async move {
            loop {
                let which = tokio::select! {
                    _ = stop.recv() => &tells.stop,
                    _ = continued.recv() => &tells.continued,
                };
                which.store(true, Ordering::SeqCst);
            }
        });
        Ok(Self { told, watch })
    }

    /// Whether the process was asked to stop since the last call.
    pub fn take_stop(&self) -> bool {
        self.told.stop.swap(false, Ordering::SeqCst)
    }

    /// Whether it was stopped and continued since the last call.
    pub fn take_continued(&self) -> bool {
        self.told.continued.swap(false, Ordering::SeqCst)
    }

    /// Stops this process, with all its threads, until it is continued. Does nothing where no shell would continue it.
    pub fn stop(&self) {
        self.take_continued();
        // SIGTSTP is caught here, and SIGSTOP would also stop a process that no shell controls, forever.
        let is_sent = kill_process(getpid(), Signal::TTOU).is_ok();
        let give_up = Instant::now() + STOP_PATIENCE;
        while is_sent && !self.told.continued.load(Ordering::SeqCst) && Instant::now() < give_up {
            thread::sleep(STOP_POLL);
        }
    }
}

impl Drop for Jobs {
    fn drop(&mut self) {
        self.watch.abort();
    }
}

/// Asks the whole job to stop, as the terminal does on Ctrl-Z when it is not in raw mode.
pub fn ask_to_stop() {
    let _ = kill_current_process_group(Signal::TSTP);
}

/// Whether this job has the terminal.
pub fn has_terminal() -> bool {
    tcgetpgrp(io::stdin()).is_ok_and(|foreground| foreground == getpgrp())
}
