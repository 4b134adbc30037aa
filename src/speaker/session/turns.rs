//! A page's turns at the loudspeaker: waiting for one, having it, and losing it to an emergency.

use std::pin::pin;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::{Session, SessionError, Turn};
use crate::clip::Clip;
use crate::event::Event;
use crate::link::Connection;
use crate::loudspeaker::{LoudspeakerError, PlayReport};
use crate::speaker::arbiter::Place;
use crate::wire::{ClipHeader, ClipId, FromStation};

/// How long before its instant a page gets in line: long enough to be made ready, and not so long that it keeps
/// others from being heard before.
const AHEAD: Duration = Duration::from_secs(2);

/// What is known of a page's turns.
#[derive(Default)]
pub(super) struct Turns {
    /// It sounds, or did when it ended.
    pub begun: bool,
    /// It was cut off before, after it had begun.
    pub again: bool,
    /// The announcer was told that another goes first.
    pub queued: bool,
    /// What became of the link meanwhile.
    pub link_error: Option<SessionError>,
}

/// How they ended.
pub(super) enum Ending {
    /// The loudspeaker played it to its last sample.
    Played(PlayReport),
    /// The loudspeaker failed.
    Failed(LoudspeakerError),
    /// Others went first until it was too old.
    Expired,
    /// The announcer wants it broken off, and will send it again.
    Yielded,
    /// The station is told to leave.
    Shutdown,
}

/// What happens next to a page that has the loudspeaker.
enum Next {
    Begun,
    Ended(Result<PlayReport, LoudspeakerError>),
    Overtaken,
}

impl<C: Connection> Session<'_, C> {
    /// Plays a clip to its end when its turn comes, from its start again where an emergency cut it off. It must not
    /// begin from `expires` on.
    pub(super) async fn take_turns(
        &mut self,
        header: &ClipHeader,
        clip: &Clip,
        (at, expires): (Instant, Instant),
        turns: &mut Turns,
    ) -> Ending {
        if let Some(in_line) = at.checked_sub(AHEAD).filter(|in_line| *in_line > Instant::now())
            && let Err(ending) = self.attend(sleep_until(in_line), turns).await
        {
            return ending;
        }
        let place = self.arbiter.enter(header.priority);
        loop {
            if !place.is_first() {
                self.tell_queued(header.id, turns).await;
            }
            match self.take_turn(header, clip, (at, expires), &place, turns).await {
                Some(ending) => return ending,
                None => place.sounds(false),
            }
        }
    }

    /// Waits for one turn and plays; nothing where another page has gone first.
    async fn take_turn(
        &mut self,
        header: &ClipHeader,
        clip: &Clip,
        (at, expires): (Instant, Instant),
        place: &Place<'_>,
        turns: &mut Turns,
    ) -> Option<Ending> {
        let id = header.id;
        let turn = async {
            tokio::select! {
                biased;
                loudspeaker = place.turn() => Some(loudspeaker),
                () = sleep_until(expires) => None,
            }
        };
        let mut loudspeaker = match self.attend(turn, turns).await {
            Ok(Some(loudspeaker)) => loudspeaker,
            Ok(None) => return Some(Ending::Expired),
            Err(ending) => return Some(ending),
        };
        if self.is_expired(header, at) {
            return Some(Ending::Expired);
        }
        let gain = self.memory.volume.unwrap_or(self.config.volume).gain(header.priority.floor());
        let label = format!("{}-{id}", self.config.name);
        let (started, mut has_started) = tokio::sync::oneshot::channel();
        let play = loudspeaker.play(clip, gain, &label, at, || {
            // Nobody may wait for it any more.
            let _ = started.send(());
        });
        let mut play = pin!(play);
        loop {
            let has_begun = turns.begun;
            let next = async {
                tokio::select! {
                    // That it began is told before that it ended.
                    biased;
                    Ok(()) = &mut has_started, if !has_begun => Next::Begun,
                    result = &mut play => Next::Ended(result),
                    () = place.overtaken() => Next::Overtaken,
                }
            };
            match self.attend(next, turns).await {
                Ok(Next::Begun) => {
                    place.sounds(true);
                    (turns.begun, turns.queued) = (true, false);
                    self.note_sounding(header);
                    self.tell(|clip, station| Event::Playing { clip, station }, id);
                    if turns.link_error.is_none() {
                        turns.link_error = self.send(FromStation::Playing { clip: id }).await.err();
                    }
                }
                Ok(Next::Ended(Ok(report))) => return Some(Ending::Played(report)),
                Ok(Next::Ended(Err(error))) => return Some(Ending::Failed(error)),
                Ok(Next::Overtaken) => return None,
                Err(ending) => return Some(ending),
            }
        }
    }

    /// Says that another page goes first; once, until this one has begun.
    async fn tell_queued(&mut self, id: ClipId, turns: &mut Turns) {
        let interrupted = std::mem::take(&mut turns.begun);
        turns.again |= interrupted;
        if std::mem::replace(&mut turns.queued, true) {
            return;
        }
        self.tell(|clip, station| Event::Queued { clip, station, interrupted }, id);
        if turns.link_error.is_none() {
            turns.link_error = self.send(FromStation::Queued { clip: id }).await.err();
        }
    }

    /// Sees to the link while something is waited for. A page that was told to be played is, whatever becomes of it.
    async fn attend<T>(&mut self, awaited: impl Future<Output = T>, turns: &mut Turns) -> Result<T, Ending> {
        let shutdown = self.shutdown;
        let mut awaited = pin!(awaited);
        loop {
            tokio::select! {
                biased;
                result = &mut awaited => return Ok(result),
                turn = self.turn(), if turns.link_error.is_none() => match self.act(turn).await {
                    Ok(None) => (),
                    Ok(Some(Turn::Shutdown)) | Err(SessionError::Shutdown) => return Err(Ending::Shutdown),
                    Err(SessionError::Yielded) => return Err(Ending::Yielded),
                    Ok(Some(_)) => turns.link_error = Some(SessionError::OutOfTurn),
                    Err(error) => turns.link_error = Some(error),
                },
                () = shutdown.cancelled(), if turns.link_error.is_some() => return Err(Ending::Shutdown),
            }
        }
    }
}
