//! Talkback: what stations say to the announcer. One at a time is accepted from each station, kept, and played in order
//! of arrival while the announcer's own microphone is silent.

mod player;
mod upload;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout};

use super::Hearing;
use crate::archive::Archive;
use crate::batches::on_a_thread;
use crate::clip::{self, Clip};
use crate::event::{Event, Events};
use crate::keys::{AnnouncerId, End, KeysError, Talked, TalkedMark};
use crate::link::Peer;
use crate::seal;
use crate::site::Site;
use crate::wire::{self, Answer, Offer, TalkbackHeader, WireError};

pub(super) use player::Player;
pub(super) use upload::serve;

/// The most talkbacks that are being received or wait to be heard, one for each station, …
const MAX_TALKBACKS: usize = 64;
/// … and the most bytes they have in all: two of the longest talkbacks.
pub(super) const MAX_BYTES: usize = 24 << 20;
/// How long the disk has to keep a talkback before it is played anyway.
const DISK_PATIENCE: Duration = Duration::from_secs(1);

/// How long a talkback dated by the old time is accepted after the announcer's clock was set: as long as one is
/// offered.
const CLOCK_PATIENCE: Duration = Duration::from_secs(60);
/// The least time between two reports that a talkback of one station was refused.
const REFUSAL_INTERVAL: Duration = Duration::from_secs(1);

/// A talkback that has arrived whole.
#[derive(Debug)]
struct Job {
    header: TalkbackHeader,
    encoded: Vec<u8>,
    signature: Vec<u8>,
    clip: Clip,
    place: Place,
    is_kept: bool,
    /// Sends the station what became of it.
    done: oneshot::Sender<Answer>,
}

/// Receives talkback.
#[derive(Debug)]
pub(super) struct Talkback {
    site: Option<Arc<Site>>,
    archive: Archive,
    events: Events,
    talked: Mutex<Talked>,
    /// One task writes at a time, and always the latest state.
    writing: tokio::sync::Mutex<()>,
    /// When a refused talkback was last reported, by station.
    refusals: Mutex<BTreeMap<String, Instant>>,
    /// Bytes being received or waiting to be heard, by station.
    underway: Mutex<BTreeMap<String, usize>>,
    whole: mpsc::Sender<Job>,
}

/// A station's place among those underway; returned when dropped.
#[derive(Debug)]
struct Place {
    talkback: Arc<Talkback>,
    station: String,
}

impl Drop for Place {
    fn drop(&mut self) {
        lock(&self.talkback.underway).remove(&self.station);
    }
}

impl Talkback {
    /// Continues where earlier runs left off; also returns the player.
    ///
    /// # Errors
    /// The same errors as [`Talked::open`].
    pub fn open(
        hearing: Hearing,
        site: Option<Arc<Site>>,
        events: Events,
    ) -> Result<(Arc<Self>, Player), KeysError> {
        let talked = Mutex::new(Talked::open(site.as_ref().map(|site| site.folder()))?);
        let (whole, queue) = mpsc::channel(MAX_TALKBACKS);
        let talkback = Arc::new(Self {
            site,
            archive: hearing.archive,
            events,
            talked,
            writing: tokio::sync::Mutex::default(),
            refusals: Mutex::default(),
            underway: Mutex::default(),
            whole,
        });
        Ok((talkback.clone(), Player { talkback, loudspeaker: hearing.loudspeaker, queue }))
    }

    /// Where talkback is kept.
    pub fn archive(&self) -> &Archive {
        &self.archive
    }

    /// Decides whether a talkback may be sent. Checks, in this order: size, station, announcer, signature, freshness,
    /// sequence; then whether there is room for it. The inner error is for the station.
    ///
    /// # Errors
    /// [`WireError`] if the header cannot be decoded, which closes the connection.
    async fn judge(
        self: &Arc<Self>,
        offer: &Offer,
        peer: Option<Peer>,
    ) -> Result<Result<(TalkbackHeader, Place), Answer>, WireError> {
        let header = TalkbackHeader::decode(&offer.header)?;
        let proven = match self.site.clone().zip(peer) {
            Some((site, peer)) => {
                let Some(name) = site.name_of(&peer) else {
                    return Ok(Err(refused("this station has not joined")));
                };
                let announcer = AnnouncerId::from_bytes(site.announcer());
                match seal::talkback::prove(&header, &offer.header, &offer.signature, &name, &announcer) {
                    Err(error) => Err((name, crate::error_chain(&error))),
                    Ok(signer) => {
                        let pinned =
                            site.write_in_turn(move |site| site.pin_signer(&peer, &name, signer)).await;
                        let failed = |error| (header.name.clone(), crate::error_chain(&error));
                        pinned.map(|()| signer.to_hex()).map_err(failed)
                    }
                }
            }
            None => match header.format.check() {
                Ok(()) => Ok(header.name.clone()),
                Err(error) => Err((header.name.clone(), error.to_string())),
            },
        };
        Ok(match proven {
            Ok(station) => self.admit(&header, station).map(|place| (header, place)),
            Err((name, reason)) => Err(self.refuse(&header, name, &reason)),
        })
    }

    /// Checks a talkback that is proven, from freshness on.
    fn admit(self: &Arc<Self>, header: &TalkbackHeader, station: String) -> Result<Place, Answer> {
        let last = lock(&self.talked).mark(&station);
        let mut underway = lock(&self.underway);
        if underway.contains_key(&station) {
            return Err(Answer::Later { reason: "the last one of this station waits to be heard".into() });
        }
        // It was heard, but the station does not know: it is not played again.
        if let Some(TalkedMark { end: Some(end), .. }) = last.filter(|mark| mark.id == header.id) {
            return Err(match end {
                End::Heard => Answer::Heard,
                End::Kept => Answer::Kept { reason: "it could not be heard".into() },
            });
        }
        // In open mode neither side knows the other's time.
        let now = Instant::now();
        let now_unix_ms = self.now_unix_ms().unwrap_or(header.created_unix_ms);
        let former = self.site.as_ref().and_then(|site| site.clock().former_unix_ms(now, CLOCK_PATIENCE));
        let admitted = seal::talkback::admit(header, now_unix_ms, last).or_else(|error| match former {
            Some(former_unix_ms) => seal::talkback::admit(header, former_unix_ms, last),
            None => Err(error),
        });
        if let Err(error) = admitted {
            return Err(self.refuse(header, header.name.clone(), &crate::error_chain(&error)));
        }
        let bytes = header.format.wav_bytes as usize;
        if underway.len() >= MAX_TALKBACKS || underway.values().sum::<usize>() + bytes > MAX_BYTES {
            return Err(Answer::Later { reason: "others talk back, and go first".into() });
        }
        if !lock(&self.talked).make_room(&station, now_unix_ms / 1_000) {
            let reason = "so many stations have talked back that no more can be told apart today";
            return Err(Answer::Later { reason: reason.into() });
        }
        underway.insert(station.clone(), bytes);
        Ok(Place { talkback: self.clone(), station })
    }

    /// The announcer's time; none in open mode.
    fn now_unix_ms(&self) -> Option<u64> {
        self.site.as_ref().map(|site| site.unix_ms(Instant::now()))
    }

    /// Whether a station is still on the list.
    fn knows(&self, peer: Option<Peer>, name: &str) -> bool {
        let listed = self.site.as_ref().zip(peer);
        listed.is_none_or(|(site, peer)| site.name_of(&peer).as_deref() == Some(name))
    }

    /// Limits reports of refusals to one a second for each station; the station itself is always answered.
    fn may_tell_refusal(&self, station: &str) -> bool {
        let (mut told, now) = (lock(&self.refusals), Instant::now());
        told.retain(|_, at| now < *at + REFUSAL_INTERVAL);
        if told.contains_key(station) || told.len() >= MAX_TALKBACKS {
            return false;
        }
        told.insert(station.to_owned(), now);
        true
    }

    fn refuse(&self, header: &TalkbackHeader, station: String, reason: &str) -> Answer {
        let (talkback, reason) = (header.id.to_string(), reason.to_owned());
        let answer = refused(&reason);
        if self.may_tell_refusal(&station) {
            self.events.tell(Event::TalkbackRefused { talkback, station, reason });
        }
        answer
    }

    /// Keeps a talkback, and puts it in line to be heard, whatever becomes of its connection.
    async fn take(self: Arc<Self>, mut job: Job) {
        // Every talkback with a place has room. The announcer waits for this one before it leaves; if it has left, the
        // station offers it again.
        let Ok(in_line) = self.whole.try_reserve() else { return };
        let keeping = self.archive.keep_talkback(&job.header, &job.encoded, &job.signature, &job.clip);
        // The archive reports what it cannot write.
        let file = timeout(DISK_PATIENCE, keeping).await.unwrap_or_else(|_| {
            self.warn("the disk takes long to keep it");
            None
        });
        job.is_kept = file.is_some();
        self.note(&job, None).await;
        self.events.tell(Event::TalkbackReceived {
            talkback: job.header.id.to_string(),
            station: job.header.name.clone(),
            length_ms: job.header.format.length().as_millis() as u64,
            sha256: clip::hex(job.clip.sha256()),
            file,
        });
        in_line.send(job);
    }

    /// Records how far a station was heard.
    async fn note(self: &Arc<Self>, job: &Job, end: Option<End>) {
        let mark = TalkedMark { id: job.header.id, end };
        if !lock(&self.talked).advance(&job.place.station, mark) {
            return;
        }
        let this = self.clone();
        let writing = tokio::spawn(async move {
            let _turn = this.writing.lock().await;
            let draft = lock(&this.talked).draft();
            on_a_thread(move || draft.map_or(Ok(()), |draft| draft.write())).await
        });
        match timeout(DISK_PATIENCE, writing).await {
            Ok(Ok(Ok(()))) => {}
            Ok(Ok(Err(error))) => self.warn(&crate::error_chain(&error)),
            Ok(Err(panic)) => std::panic::resume_unwind(panic.into_panic()),
            Err(_) => self.warn("the disk takes long"),
        }
    }

    fn warn(&self, words: &str) {
        let message = format!("a talkback is not written down, and goes on: {words}");
        self.events.tell(Event::Warning { message });
    }
}

fn refused(reason: &str) -> Answer {
    Answer::Refused { reason: wire::reason(reason) }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
