//! Plays talkback: one at a time, in order, and never while the announcer records, as the page would pick it up.

use std::sync::Arc;

use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{Job, Talkback, refused};
use crate::event::Event;
use crate::keys::End;
use crate::loudspeaker::{Loudspeaker, SharedLoudspeaker};
use crate::wire::{self, Answer};

/// Plays talkback.
pub(in crate::announcer) struct Player {
    pub(super) talkback: Arc<Talkback>,
    pub(super) loudspeaker: SharedLoudspeaker,
    pub(super) queue: mpsc::Receiver<Job>,
}

impl Player {
    /// Plays each talkback that arrives, for as long as the announcer runs. Those not heard by then are reported as
    /// kept, or as refused if they could not be kept. `records` holds whether the announcer is recording.
    pub async fn run(mut self, mut records: watch::Receiver<bool>, closing: CancellationToken) {
        while let Some(job) = self.next(&closing).await {
            let played = tokio::select! {
                biased;
                () = closing.cancelled() => Err("the announcer left before it was heard".to_owned()),
                played = self.play(&job, &mut records) => played,
            };
            let (talkback, station) = (job.header.id.to_string(), job.header.name.clone());
            let (end, event, answer) = match played {
                Ok(()) => (Some(End::Heard), Event::TalkbackHeard { talkback, station }, Answer::Heard),
                Err(reason) if job.is_kept => {
                    let answer = Answer::Kept { reason: wire::reason(&reason) };
                    (Some(End::Kept), Event::TalkbackKept { talkback, station, reason }, answer)
                }
                Err(reason) => {
                    let reason = format!("it could not be kept, and {reason}");
                    let answer = refused(&reason);
                    (None, Event::TalkbackRefused { talkback, station, reason }, answer)
                }
            };
            self.talkback.note(&job, end).await;
            self.talkback.events.tell(event);
            let Job { place, done, .. } = job;
            // The station may talk back again as soon as it has its answer.
            drop(place);
            // Its connection may be gone; the station then asks again.
            let _ = done.send(answer);
        }
    }

    /// Returns the next talkback; while the announcer leaves, only those that have arrived whole.
    async fn next(&mut self, closing: &CancellationToken) -> Option<Job> {
        tokio::select! {
            biased;
            job = self.queue.recv() => job,
            () = closing.cancelled() => {
                self.queue.close();
                self.queue.recv().await
            }
        }
    }

    /// Plays to the last sample, starting over if a recording has cut it off.
    async fn play(&self, job: &Job, records: &mut watch::Receiver<bool>) -> Result<(), String> {
        let label = format!("talkback-{}-{}", job.header.name, job.header.id);
        loop {
            until(records, false).await;
            let mut loudspeaker = self.loudspeaker.lock().await;
            let at = Instant::now() + loudspeaker.lead();
            tokio::select! {
                biased;
                () = until(records, true) => (),
                played = Loudspeaker::play(&mut loudspeaker, &job.clip, 1.0, &label, at, || ()) => {
                    return played.map(|_| ()).map_err(|error| crate::error_chain(&error));
                }
            }
        }
    }
}

/// Waits until the announcer's recording state is `wanted`.
async fn until(records: &mut watch::Receiver<bool>, wanted: bool) {
    if records.wait_for(|records| *records == wanted).await.is_err() {
        // The desk is closed: nothing is played any more.
        std::future::pending().await
    }
}
