//! The signals that ask this process to leave.

use std::io;

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// The first SIGINT or SIGTERM asks the process to leave, the second ends it at once. SIGHUP only asks, however often
/// it comes: the shell and the system both send it when a terminal is gone. Must be called on a tokio runtime.
///
/// # Errors
/// The system does not deliver signals.
pub fn on_signals() -> io::Result<CancellationToken> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    // If SIGHUP was ignored from the start (nohup), the process should outlive the terminal.
    let mut hangup = (!ignores_hangup()).then(|| signal(SignalKind::hangup())).transpose()?;
    let shutdown = CancellationToken::new();
    let asked = shutdown.clone();
    tokio::spawn(async move {
        let mut is_told = false;
        loop {
            let hung_up = async {
                match &mut hangup {
                    Some(hangup) => hangup.recv().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                _ = terminate.recv() => (),
                _ = interrupt.recv() => (),
                _ = hung_up => {
                    asked.cancel();
                    continue;
                }
            }
            if std::mem::replace(&mut is_told, true) {
                crate::console::leave_at_once();
            }
            asked.cancel();
        }
    });
    Ok(shutdown)
}

/// Whether this process was started with SIGHUP ignored (`SigIgn` of proc(5): a mask whose lowest bit is for signal 1).
fn ignores_hangup() -> bool {
    const HANGUP_BIT: u64 = 1 << (SignalKind::hangup().as_raw_value() - 1);
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).is_some_and(|mask| mask & HANGUP_BIT != 0)
}
