//! A page's turns at the loudspeaker: waiting for one, having it, and losing it to an emergency.

use std::pin::pin;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::{Session, SessionError, Turn};
use crate::clip::Clip;
use crate::diary::{Note, Noted, Noting};
use crate::event::Event;
use crate::link::Connection;
use crate::loudspeaker::{LoudspeakerError, PlayReport};
use crate::speaker::arbiter::Place;
use crate::wire::{ClipHeader, ClipId, FromStation};

/// How long before its instant a page gets in line: long enough to get it ready, but short enough not to keep other pages from
/// being heard first.
const AHEAD: Duration = Duration::from_secs(2);

/// How long the disk has to record that a page sounds, before the station reports it.
const SOUNDS_PATIENCE: Duration = Duration::from_millis(50);

/// The state of a page's turns.
#[derive(Default)]
pub(super) struct Turns {
    /// It sounds, or sounded when its turn ended.
    pub begun: bool,
    /// It had begun before and was cut off.
    pub again: bool,
    /// The announcer has been notified that another page goes first.
    pub queued: bool,
    /// The error that ended the link meanwhile, if any.
    pub link_error: Option<SessionError>,
}

/// How a page's turns ended.
pub(super) enum Ending<'a> {
    /// The loudspeaker played it to its last sample. The next page waits for its place until that is written down.
    Played(PlayReport, Place<'a>),
    /// The loudspeaker failed.
    Failed(LoudspeakerError),
    /// Another process of this station has already heard a later page.
    HeardLater,
    /// Other pages went first until it was too old.
    Expired,
    /// The announcer wants it broken off and will send it again.
    Yielded,
    /// The station is shutting down.
    Shutdown,
}

/// What happens next to a page that has the loudspeaker.
enum Next {
    Begun,
    /// The disk has recorded that it has begun, or has used up its time.
    Noted,
    /// Without a report if another process of this station has already heard a later page.
    Ended(Result<Option<PlayReport>, LoudspeakerError>),
    Overtaken,
}

impl<'a, C: Connection> Session<'a, C> {
    /// Plays a clip to its end when its turn comes, and from its start again after an emergency cut it off. It must begin before
    /// `expires`, and the disk has until the instant in `begun` to record that it has begun.
    pub(super) async fn take_turns(
        &mut self,
        header: &ClipHeader,
        clip: &Clip,
        (at, expires): (Instant, Instant),
        mut begun: (Noting, Instant),
        turns: &mut Turns,
    ) -> Ending<'a> {
        if let Some(in_line) = at.checked_sub(AHEAD).filter(|in_line| *in_line > Instant::now())
            && let Err(ending) = self.attend(sleep_until(in_line), turns).await
        {
            return ending;
        }
        let arbiter = self.arbiter;
        let place = arbiter.enter(header.priority);
        loop {
            if !place.is_first() {
                self.tell_queued(header.id, turns).await;
            }
            match self.take_turn(header, clip, (at, expires), &mut begun, &place, turns).await {
                Some(Ok(report)) => return Ending::Played(report, place),
                Some(Err(ending)) => return ending,
                None => place.sounds(false),
            }
        }
    }

    /// Waits for one turn and plays; returns `None` when another page goes first.
    async fn take_turn(
        &mut self,
        header: &ClipHeader,
        clip: &Clip,
        (at, expires): (Instant, Instant),
        (begun, begun_by): &mut (Noting, Instant),
        place: &Place<'_>,
        turns: &mut Turns,
    ) -> Option<Result<PlayReport, Ending<'a>>> {
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
            Ok(None) => return Some(Err(Ending::Expired)),
            Err(ending) => return Some(Err(ending)),
        };
        if self.is_expired(header, at) {
            return Some(Err(Ending::Expired));
        }
        let gain = self.memory.volume.unwrap_or(self.config.volume).gain(header.priority.floor());
        let label = format!("{}-{id}", self.config.name);
        let (started, mut has_started) = tokio::sync::oneshot::channel();
        let on_start = || {
            // Perhaps nobody waits for it any more.
            let _ = started.send(());
        };
        let mut play = pin!(async {
            if begun.by(*begun_by).await == Noted::Overtaken {
                return Ok(None);
            }
            loudspeaker.let_through(header.priority);
            let played = loudspeaker.play(clip, gain, &label, at, on_start).await;
            if played.is_err() {
                loudspeaker.let_through(header.priority);
            }
            played.map(Some)
        });
        let mut sounds = None;
        let ending = loop {
            let has_begun = turns.begun;
            let next = async {
                tokio::select! {
                    // The start is reported before the end.
                    biased;
                    Ok(()) = &mut has_started, if !has_begun => Next::Begun,
                    () = noted(&mut sounds) => Next::Noted,
                    result = &mut play => Next::Ended(result),
                    () = place.overtaken() => Next::Overtaken,
                }
            };
            match self.attend(next, turns).await {
                Ok(Next::Begun) => {
                    place.sounds(true);
                    (turns.begun, turns.queued) = (true, false);
                    self.memory.note_begun(id);
                    let noting = self.note(header.priority, Note::Sounds(id));
                    sounds = Some((noting, Instant::now() + SOUNDS_PATIENCE));
                }
                Ok(Next::Noted) => {
                    sounds = None;
                    self.tell_playing(id, turns).await;
                }
                Ok(Next::Ended(Ok(Some(report)))) => break Some(Ok(report)),
                Ok(Next::Ended(Ok(None))) => break Some(Err(Ending::HeardLater)),
                Ok(Next::Ended(Err(error))) => break Some(Err(Ending::Failed(error))),
                Ok(Next::Overtaken) => break None,
                Err(ending) => break Some(Err(ending)),
            }
        };
        if sounds.is_some() {
            self.tell_playing(id, turns).await;
        }
        ending
    }

    async fn tell_playing(&mut self, id: ClipId, turns: &mut Turns) {
        self.tell(|clip, station| Event::Playing { clip, station }, id);
        if turns.link_error.is_none() {
            turns.link_error = self.send(FromStation::Playing { clip: id }).await.err();
        }
    }

    /// Reports that another page goes first, once until this one begins.
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

    /// Handles the link while waiting for something else. A page that was ordered to play is played, whatever becomes of the
    /// link.
    pub(super) async fn attend<T>(
        &mut self,
        awaited: impl Future<Output = T>,
        turns: &mut Turns,
    ) -> Result<T, Ending<'a>> {
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

/// Waits for the disk to record that a clip sounds; forever if no clip does.
async fn noted(sounds: &mut Option<(Noting, Instant)>) {
    match sounds {
        Some((noting, until)) => {
            noting.by(*until).await;
        }
        None => std::future::pending().await,
    }
}
