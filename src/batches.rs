//! Slow work on the thread pool for it: single jobs, or batches, in which all waiting jobs are done together and in
//! order.

use tokio::sync::mpsc;

/// Runs `work` with `worker` on the jobs from `inbox`, at most `most` at once, until all senders are gone. A panic in
/// the work is passed on.
pub(crate) async fn work_through<W: Send + 'static, J: Send + 'static>(
    mut worker: W,
    mut inbox: mpsc::Receiver<J>,
    most: usize,
    work: fn(&mut W, Vec<J>),
) {
    let mut jobs = Vec::new();
    while inbox.recv_many(&mut jobs, most).await > 0 {
        let batch = std::mem::take(&mut jobs);
        let done = tokio::task::spawn_blocking(move || {
            work(&mut worker, batch);
            worker
        });
        worker = match done.await {
            Ok(worker) => worker,
            Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            Err(_) => return,
        };
    }
}

/// Runs slow work off the threads that serve connections. A panic in the work is passed on.
pub(crate) async fn on_a_thread<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    let error = match tokio::task::spawn_blocking(work).await {
        Ok(done) => return done,
        Err(error) => error,
    };
    match error.try_into_panic() {
        Ok(panic) => std::panic::resume_unwind(panic),
        // The runtime is shutting down, and this task with it.
        Err(_) => std::future::pending().await,
    }
}
