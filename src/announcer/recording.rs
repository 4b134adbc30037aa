//! From the microphone to a clip that is ready for the wire and on the disk.

use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::batches::on_a_thread;
use crate::clip::{Clip, ClipError, MAX_RATE_HZ, MIN_RATE_HZ};
use crate::clip_cipher::{ClipCipherError, SealedClip};
use crate::event::{Event, Events};
use crate::link::BlockFrames;
use crate::loudspeaker::{Loudspeaker, SharedLoudspeaker};
use crate::microphone::{Captured, Level, Lost, Microphone, MicrophoneError};
use crate::outbox::{Outbox, OutboxError};
use crate::prepare::{Preparation, PrepareError, Trouble};
use crate::priority::Priority;
use crate::site::Site;
use crate::sound_file::{self, SoundFileError};
use crate::stations::Delivery;
use crate::wall::WallClock;
use crate::wire::{self, BLOCK_BYTES, ClipHeader, ClipId};

/// How long a clip waits for the disk before it is sent anyway.
const STORE_PATIENCE: Duration = Duration::from_secs(1);

/// A recording in progress.
pub(super) type Recording = JoinHandle<Outcome>;

/// The devices that only one recording at a time can use.
pub(super) struct Tools {
    pub microphone: Microphone,
    /// Where clips are played before they are sent, if they are.
    pub monitor: Option<SharedLoudspeaker>,
}

/// Where the sound of a clip comes from.
pub(super) enum Source {
    /// This much of the microphone's sound.
    Microphone(Duration),
    /// A sound file.
    File(PathBuf),
}

/// How the desk steers a recording.
#[derive(Clone, Default)]
pub(super) struct Steering {
    /// Cancelled to drop the recording: nothing is sent.
    pub cancel: CancellationToken,
    /// Cancelled to finish with the sound recorded so far.
    pub finish: CancellationToken,
    /// Cancelled to send the clip that was played for review.
    pub send: CancellationToken,
}

/// How a recording ended.
pub(super) struct Outcome {
    /// Returned to the desk.
    pub tools: Tools,
    /// Where the sound came from.
    pub input: String,
    /// The recording; `None` if it was cancelled.
    pub recorded: Option<Result<Recorded, RecordError>>,
}

/// The properties of a clip to be made, apart from its sound.
pub(super) struct Recipe {
    pub id: ClipId,
    pub priority: Priority,
    pub zones: Vec<String>,
    pub life: Duration,
    pub wall: WallClock,
    pub rate_hz: Option<u32>,
    pub preparation: Preparation,
    pub site: Option<Arc<Site>>,
}

/// A clip that is not dated, signed and sealed yet.
struct Draft {
    clip: Clip,
    trouble: Option<Trouble>,
    lost: Lost,
    loudness_lufs: Option<f64>,
    gain_db: f64,
}

/// A recording, ready to be sent.
pub(super) struct Recorded {
    pub header: ClipHeader,
    pub clip: Clip,
    /// What is wrong with the sound of the microphone or the file.
    pub trouble: Option<Trouble>,
    /// What the microphone lost.
    pub lost: Lost,
    pub loudness_lufs: Option<f64>,
    pub gain_db: f64,
    pub delivery: Delivery,
    pub expires: Instant,
    /// Whether it is in the outbox; `None` if there is no outbox.
    pub stored: Option<Result<(), OutboxError>>,
}

impl Recipe {
    fn draft(&self, captured: &Captured, is_from_file: bool) -> Result<Draft, RecordError> {
        let Captured { sound, lost } = captured;
        let trouble = if is_from_file { Trouble::of_file(sound) } else { Trouble::of(sound) };
        if sound.samples.is_empty() {
            return Err(ClipError::Empty.into());
        }
        let rate_hz = self.rate_hz.unwrap_or(sound.rate_hz).clamp(MIN_RATE_HZ, MAX_RATE_HZ);
        let prepared = self.preparation.apply(sound, rate_hz)?;
        let clip = Clip::encode(&prepared.sound)?;
        Ok(Draft {
            clip,
            trouble,
            lost: *lost,
            loudness_lufs: prepared.loudness_lufs,
            gain_db: prepared.gain_db,
        })
    }

    fn seal(self, draft: Draft) -> Result<Recorded, RecordError> {
        let Draft { clip, trouble, lost, loudness_lufs, gain_db } = draft;
        let now = Instant::now();
        let created_unix_ms = self.wall.unix_ms(now);
        let header = ClipHeader {
            id: self.id,
            created_unix_ms,
            expires_unix_ms: created_unix_ms.saturating_add(self.life.as_millis() as u64),
            format: clip.format(),
            sha256: *clip.sha256(),
            priority: self.priority,
            zones: self.zones,
        };
        let encoded = header.encode();
        let signature = self.site.as_ref().map(|site| site.sign(&encoded)).unwrap_or_default();
        let delivery = delivery(&header, encoded, signature, &clip, self.site.is_some())?;
        let expires = now + self.life;
        Ok(Recorded { header, clip, trouble, lost, loudness_lufs, gain_db, delivery, expires, stored: None })
    }
}

/// Makes a clip ready for the wire; it is sealed under a new key unless the announcer runs in open mode.
pub(super) fn delivery(
    header: &ClipHeader,
    encoded: Vec<u8>,
    signature: Vec<u8>,
    clip: &Clip,
    is_secured: bool,
) -> Result<Delivery, ClipCipherError> {
    let blocks = if is_secured { Some(SealedClip::seal(clip.wav(), BLOCK_BYTES)?) } else { None };
    Ok(Delivery {
        id: header.id,
        header: encoded,
        signature,
        frames: Arc::new(BlockFrames::from(match &blocks {
            Some(sealed) => wire::block_frames(sealed.blocks()),
            None => wire::block_frames(clip.wav().chunks(BLOCK_BYTES)),
        })),
        key: blocks.map(|sealed| sealed.key().clone()),
        pace: Arc::default(),
        length: header.format.length(),
        sound_frames: header.format.frames().into(),
        priority: header.priority,
        zones: header.zones.clone(),
    })
}

/// Why there is no clip.
#[derive(Debug, thiserror::Error)]
pub(super) enum RecordError {
    #[error("the microphone failed")]
    Microphone(#[from] MicrophoneError),
    #[error(transparent)]
    File(#[from] SoundFileError),
    #[error(transparent)]
    Prepare(#[from] PrepareError),
    #[error("the recording cannot be made a clip")]
    Clip(#[from] ClipError),
    #[error("the clip cannot be sealed")]
    Seal(#[from] ClipCipherError),
}

/// Records, makes a clip of the sound, plays it for review if there is a monitor, and puts it into the outbox, unless
/// it is cancelled before.
pub(super) async fn record(
    mut tools: Tools,
    source: Source,
    recipe: Recipe,
    outbox: Option<Arc<Outbox>>,
    steering: Steering,
    events: Events,
) -> Outcome {
    let input = match &source {
        Source::Microphone(_) => tools.microphone.name().to_owned(),
        Source::File(path) => format!("file:{}", path.display()),
    };
    let recorded = make(&mut tools, source, &input, recipe, outbox, &steering, &events).await;
    Outcome { tools, input, recorded: recorded.transpose() }
}

async fn make(
    tools: &mut Tools,
    source: Source,
    input: &str,
    recipe: Recipe,
    outbox: Option<Arc<Outbox>>,
    steering: &Steering,
    events: &Events,
) -> Result<Option<Recorded>, RecordError> {
    let is_from_file = matches!(source, Source::File(_)) || tools.microphone.whole_length().is_some();
    let captured = tokio::select! {
        biased;
        () = steering.cancel.cancelled() => return Ok(None),
        captured = listen(&mut tools.microphone, source, input, steering, events) => captured?,
    };
    let (recipe, draft) = on_a_thread(move || {
        let draft = recipe.draft(&captured, is_from_file)?;
        Ok::<_, RecordError>((recipe, draft))
    })
    .await?;
    if let Some(monitor) = &tools.monitor
        && !review(&mut *monitor.lock().await, &draft.clip, recipe.id, steering, events).await
    {
        return Ok(None);
    }
    let mut recorded = on_a_thread(move || recipe.seal(draft)).await?;
    if let Some(outbox) = outbox {
        let Delivery { header, signature, .. } = &recorded.delivery;
        let put = outbox.put(&recorded.header, header, signature, &recorded.clip, STORE_PATIENCE);
        recorded.stored = Some(put.await);
    }
    Ok(Some(recorded))
}

/// Returns the sound, recorded or read from a file.
async fn listen(
    microphone: &mut Microphone,
    source: Source,
    input: &str,
    steering: &Steering,
    events: &Events,
) -> Result<Captured, RecordError> {
    let tell = |length: Duration| {
        events.tell(Event::Recording { length_ms: length.as_millis() as u64, input: input.to_owned() });
    };
    let length = match source {
        Source::Microphone(length) => length,
        Source::File(path) => {
            let heard = on_a_thread(move || sound_file::hear(&path)).await?;
            tell(heard.sound.length());
            for message in heard.warnings {
                events.tell(Event::Warning { message });
            }
            return Ok(Captured { sound: heard.sound, lost: Lost::default() });
        }
    };
    tell(length);
    let on_level = |level: Level| {
        let remaining_ms = length.saturating_sub(level.recorded).as_millis() as u64;
        events.tell(Event::Level { remaining_ms, peak_db: level.peak_db });
    };
    Ok(microphone.record(length, steering.finish.cancelled(), on_level).await?)
}

/// Plays a clip for review, and waits for the decision: whether it should be sent.
async fn review(
    monitor: &mut Loudspeaker,
    clip: &Clip,
    id: ClipId,
    steering: &Steering,
    events: &Events,
) -> bool {
    let (length_ms, name) = (clip.format().length().as_millis() as u64, monitor.name().to_owned());
    events.tell(Event::Reviewing { clip: id.to_string(), length_ms, monitor: name.clone() });
    let (label, at) = (format!("review-{id}"), Instant::now() + monitor.lead());
    let mut playing = pin!(monitor.play(clip, 1.0, &label, at, || ()));
    let mut is_over = false;
    loop {
        tokio::select! {
            biased;
            () = steering.cancel.cancelled() => return false,
            () = steering.send.cancelled() => return true,
            played = &mut playing, if !is_over => {
                is_over = true;
                if let Err(error) = played {
                    let message = format!("it cannot be heard on {name}: {}", crate::error_chain(&error));
                    events.tell(Event::Warning { message });
                }
            }
        }
    }
}

/// Waits for a recording to finish; never returns if there is none.
pub(super) async fn finished(recording: &mut Option<Recording>) -> Outcome {
    let Some(running) = recording else { return std::future::pending().await };
    let result = running.await;
    *recording = None;
    result.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))
}
