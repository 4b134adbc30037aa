//! Live speech at the announcer: the microphone's sound becomes blocks that every station hears at once.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use sha2::{Digest, Sha256};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::connection::AnnouncerClock;
use super::recording::Tools;
use crate::batches::on_a_thread;
use crate::clip::{Hash, SILENCE_DB, peak_db};
use crate::event::{Event, Events};
use crate::microphone::{Lost, MicrophoneError};
use crate::prepare::Trouble;
use crate::priority::Priority;
use crate::sample::{self, Sound};
use crate::site::Site;
use crate::stations::{LiveOffer, LivePart};
use crate::wall::WallClock;
use crate::wire::{self, ClipId, FromAnnouncer, LiveHeader, MAX_LIVE_BLOCKS, WireError};

/// Live speech stops by itself after this long, which is [`MAX_LIVE_BLOCKS`].
pub const MAX_LIVE: Duration = Duration::from_secs(600);
/// The delay between speaking and hearing, unless `--latency` sets another.
pub const DEFAULT_LATENCY: Duration = Duration::from_millis(140);
/// The least that `--latency` accepts: a block, a microphone and a loudspeaker together take more.
pub const MIN_LATENCY: Duration = Duration::from_millis(40);
/// The most that `--latency` accepts.
pub const MAX_LATENCY: Duration = Duration::from_secs(1);
/// The interval between two reports of the level.
const LEVEL_INTERVAL: Duration = Duration::from_millis(50);

/// The properties of live speech to be made.
pub(super) struct Recipe {
    pub id: ClipId,
    pub priority: Priority,
    pub zones: Vec<String>,
    pub latency: Duration,
    pub clock: AnnouncerClock,
    pub wall: WallClock,
    pub rate_hz: Option<u32>,
    pub site: Option<Arc<Site>>,
}

/// Live speech in progress.
pub(super) struct Speaking {
    /// Receives the offer and the rate once the microphone runs; closed if it never does.
    begun: Option<oneshot::Receiver<(Arc<LiveOffer>, u32)>>,
    /// Receives the length and the hash with the last block.
    ended: Option<oneshot::Receiver<Ended>>,
    spoken: JoinHandle<Outcome>,
    /// Cancelled to finish the speech.
    pub finish: CancellationToken,
}

/// How live speech ended.
pub(super) struct Outcome {
    /// Returned to the desk.
    pub tools: Tools,
    /// What was said; `None` if it never began.
    pub spoken: Option<Spoken>,
    /// Why it broke off early.
    pub trouble: Option<LiveError>,
}

/// What is known once the last block has been said.
pub(super) struct Ended {
    /// With the length and the hash.
    pub header: LiveHeader,
    pub peak_db: f32,
    /// The microphone's losses, as far as they are certain by now.
    pub lost: Lost,
    offer: Arc<LiveOffer>,
    end: Bytes,
}

impl Ended {
    /// Sends the end to the stations. They may answer at once, so whatever handles their answers must learn of the end
    /// first.
    pub fn tell_stations(self) {
        self.offer.give(LivePart::End(self.end));
    }
}

/// Everything that was said.
pub(super) struct Spoken {
    /// With the length and the hash.
    pub header: LiveHeader,
    pub encoded: Vec<u8>,
    pub signature: Vec<u8>,
    pub samples: Vec<u8>,
    /// What is wrong with the microphone's sound.
    pub flaw: Option<Trouble>,
    /// What the microphone lost.
    pub lost: Lost,
}

/// How much of the beginning of live speech is checked for flaws.
const JUDGED: Duration = Duration::from_secs(30);
/// The full scale of 16-bit samples.
const FULL_SCALE: f32 = 32_768.0;

/// The next stage of live speech.
pub(super) enum News {
    /// It begins, at a sample rate in Hz.
    Begun(Arc<LiveOffer>, u32),
    /// Nothing more will be said.
    Ended(Box<Ended>),
    /// It is over, and has been checked.
    Over(Box<Outcome>),
}

/// Why live speech broke off.
#[derive(Debug, thiserror::Error)]
pub(super) enum LiveError {
    #[error("the microphone failed")]
    Microphone(#[from] MicrophoneError),
    #[error("what was said cannot be sent")]
    Wire(#[from] WireError),
    #[error("it was {} minutes long, which is the limit", MAX_LIVE.as_secs() / 60)]
    TooLong,
}

/// Where the beginning and the end are reported.
type Told = (oneshot::Sender<(Arc<LiveOffer>, u32)>, oneshot::Sender<Ended>);

/// Starts live speech.
pub(super) fn begin(tools: Tools, recipe: Recipe, events: Events) -> Speaking {
    let (begins, begun) = oneshot::channel();
    let (ends, ended) = oneshot::channel();
    let finish = CancellationToken::new();
    let spoken = tokio::spawn(run(tools, recipe, events, (begins, ends), finish.clone()));
    Speaking { begun: Some(begun), ended: Some(ended), spoken, finish }
}

/// Waits for the next stage; never returns while nobody speaks. Cancelling loses nothing.
pub(super) async fn news(speaking: &mut Option<Speaking>) -> News {
    let Some(running) = speaking else { return std::future::pending().await };
    if let Some(begun) = &mut running.begun {
        let begun = begun.await;
        running.begun = None;
        if let Ok((offer, rate_hz)) = begun {
            return News::Begun(offer, rate_hz);
        }
    }
    if let Some(ended) = &mut running.ended {
        let ended = ended.await;
        running.ended = None;
        if let Ok(ended) = ended {
            return News::Ended(Box::new(ended));
        }
    }
    let result = (&mut running.spoken).await;
    *speaking = None;
    News::Over(Box::new(result.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))))
}

async fn run(
    mut tools: Tools,
    recipe: Recipe,
    events: Events,
    told: Told,
    finish: CancellationToken,
) -> Outcome {
    let mut trouble = None;
    let spoken = match speak(&mut tools, recipe, &events, told, &finish, &mut trouble).await {
        Ok(spoken) => spoken,
        Err(error) => {
            trouble = Some(error);
            None
        }
    };
    Outcome { tools, spoken, trouble }
}

/// Speaks until `finish` is cancelled, the file is over, or the microphone fails. What was said by then is returned,
/// and `trouble` says why there was no more.
async fn speak(
    tools: &mut Tools,
    recipe: Recipe,
    events: &Events,
    (begins, ends): Told,
    finish: &CancellationToken,
    trouble: &mut Option<LiveError>,
) -> Result<Option<Spoken>, LiveError> {
    let mut speech = tokio::select! {
        biased;
        () = finish.cancelled() => return Ok(None),
        speech = tools.microphone.speak(recipe.rate_hz) => speech?,
    };
    let created_unix_ms = recipe.wall.unix_ms(speech.start());
    let mut header = LiveHeader {
        id: recipe.id,
        created_unix_ms,
        expires_unix_ms: created_unix_ms.saturating_add((MAX_LIVE + MAX_LATENCY).as_millis() as u64),
        rate_hz: speech.rate_hz(),
        block_frames: LiveHeader::block_frames_at(speech.rate_hz()),
        instant_us: recipe.clock.at_us(speech.start() + recipe.latency),
        frames: 0,
        sha256: Hash::default(),
        priority: recipe.priority,
        zones: recipe.zones.clone(),
    };
    let signed = |header: &LiveHeader| {
        let encoded = header.encode();
        let signature = recipe.site.as_ref().map(|site| site.sign_live(&encoded)).unwrap_or_default();
        (encoded, signature)
    };
    let offer = LiveOffer::new(recipe.id, signed(&header), recipe.priority, recipe.zones, recipe.latency);
    let offer = Arc::new(offer);
    if begins.send((offer.clone(), header.rate_hz)).is_err() {
        return Ok(None);
    }
    let length = |frames: u64| Duration::from_nanos(frames * 1_000_000_000 / u64::from(header.rate_hz));
    let (mut samples, mut frames, mut number) = (Vec::new(), 0_u64, 0_u32);
    let (mut loudest_db, mut recent_db, mut told) = (SILENCE_DB, SILENCE_DB, Duration::ZERO);
    // What is being said when the speech finishes is still on its way.
    let mut until: Option<Instant> = None;
    while until.is_none_or(|until| speech.start() + length(frames) < until) {
        if number >= MAX_LIVE_BLOCKS {
            *trouble = Some(LiveError::TooLong);
            break;
        }
        let block = match speech.next().await {
            Ok(Some(block)) => block,
            Ok(None) => break,
            Err(error) => {
                *trouble = Some(error.into());
                break;
            }
        };
        let bytes: Vec<u8> = block.iter().flat_map(|sample| sample::to_i16(*sample).to_le_bytes()).collect();
        samples.extend_from_slice(&bytes);
        frames += block.len() as u64;
        let message = FromAnnouncer::LiveBlock { clip: recipe.id, number, samples: bytes };
        offer.give(LivePart::Block { number, message: wire::encode(&message)?.into() });
        number += 1;
        let block_db = peak_db(&block);
        (loudest_db, recent_db) = (loudest_db.max(block_db), recent_db.max(block_db));
        if length(frames) >= told + LEVEL_INTERVAL {
            told = length(frames);
            let remaining_ms = MAX_LIVE.saturating_sub(told).as_millis() as u64;
            events
                .tell(Event::Level { remaining_ms, peak_db: std::mem::replace(&mut recent_db, SILENCE_DB) });
        }
        if until.is_none() && finish.is_cancelled() {
            until = Some(Instant::now());
        }
    }
    header.frames = frames;
    header.sha256 = Sha256::digest(&samples).into();
    let (encoded, signature) = signed(&header);
    let end = FromAnnouncer::LiveEnd { header: encoded.clone(), signature: signature.clone() };
    let end = Bytes::from(wire::encode(&end)?);
    let lost = speech.lost();
    // The desk is gone when the announcer leaves.
    let _ = ends.send(Ended { header: header.clone(), peak_db: loudest_db, lost, offer, end });
    let lost = speech.lost_for_certain().await;
    let (rate_hz, is_from_file) = (header.rate_hz, tools.microphone.whole_length().is_some());
    let (samples, flaw) = on_a_thread(move || {
        let flaw = flaw(&samples, rate_hz, is_from_file);
        (samples, flaw)
    })
    .await;
    Ok(Some(Spoken { header, encoded, signature, samples, flaw, lost }))
}

/// Checks the beginning of what was said, and returns what is wrong with it.
fn flaw(samples: &[u8], rate_hz: u32, is_from_file: bool) -> Option<Trouble> {
    let bytes = (JUDGED.as_secs() * u64::from(rate_hz)) as usize * size_of::<i16>();
    let judged = samples[..samples.len().min(bytes)].chunks_exact(size_of::<i16>());
    let samples = judged.map(|pair| f32::from(i16::from_le_bytes([pair[0], pair[1]])) / FULL_SCALE).collect();
    let sound = Sound { rate_hz, samples };
    if is_from_file { Trouble::of_file(&sound) } else { Trouble::of(&sound) }
}
