//! Work on a disk, in batches: what waits is done together, on the pool of threads for work that blocks, and in order.

use tokio::sync::mpsc;

/// Has `work` done by `worker` on what comes through `inbox`, `most` jobs at once, until nobody can send any more. A
/// panic of the work is passed on.
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
